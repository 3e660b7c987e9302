//! Channels on several grids at once, and of some of their cells.

use super::*;
use crate::network::card::Card;
use crate::ops::phantom::grid;
use crate::volume::Samples;

/// What the shipped second network of the area asks for: every channel that there is.
fn input() -> Input {
    let card = include_bytes!("../../../models/anonymization-area/card.json");
    let card: Card = serde_json::from_slice(card).unwrap();
    card.refinement.unwrap().input
}

/// A bright box with noise in constant air.
fn scan() -> Image {
    let geometry = grid([61, 50, 43], [1.1, 0.9, 1.3]);
    let value = |n: usize| {
        let at = [n % 61, n / 61 % 50, n / 3050];
        let inside = at.iter().all(|at| (9..37).contains(at));
        let noise = (n.wrapping_mul(2_654_435_761) >> 9) % 64;
        if inside { 700.0 + noise as f32 } else { 0.0 }
    };
    let values = (0..geometry.voxel_count()).map(value).collect();
    Image {
        samples: Samples::F32(values),
        geometry,
    }
}

fn fields(channels: &Channels) -> [&[f32]; 5] {
    [
        &channels.intensity,
        &channels.flat,
        &channels.detail,
        channels.abrupt.as_deref().unwrap(),
        channels.air_edge.as_deref().unwrap(),
    ]
}

#[test]
fn two_grids_at_once_get_what_each_gets_alone() {
    let (image, input) = (scan(), input());
    let normalization = Normalization::of(&image, Default::default(), &input);
    let grids = [4.0, 2.0].map(|cell_mm| CoarseGrid::over(&image.geometry, cell_mm));
    let [mut coarse, mut fine] = grids.clone().map(Channels::on);
    make(
        &image,
        &mut [&mut coarse, &mut fine],
        &normalization,
        &input,
    );
    for (found, grid) in [coarse, fine].into_iter().zip(grids) {
        let alone = channels(&image, grid, &normalization, &input);
        assert!(fields(&found) == fields(&alone));
        assert!(
            fields(&found)
                .iter()
                .all(|field| field.iter().any(|v| *v > 0.1))
        );
    }
}

#[test]
fn some_of_the_cells_are_as_those_of_the_voxels_below_them() {
    let (image, input) = (scan(), input());
    let normalization = Normalization::of(&image, Default::default(), &input);
    let grid = CoarseGrid::over(&image.geometry, 2.0);
    let whole = channels(&image, grid.clone(), &normalization, &input);
    let cells = BoundingBox {
        start: [2, 0, 7],
        end: [24, 19, 22],
    };
    let (bounds, part) = grid.part(cells.start, cells.end, 10.0);
    let alone = channels(&image.crop(&bounds), part.clone(), &normalization, &input);
    let found = whole.part(&cells, part);
    for (found, alone) in fields(&found).into_iter().zip(fields(&alone)) {
        assert_eq!(found.len(), cells.voxel_count());
        let apart = found.iter().zip(alone).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-4);
    }
}
