//! Channels on several grids at once, and of some of their cells.

use proptest::prelude::*;

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

/// The plain channels of an image by their definition, one voxel after the other.
fn defined(
    image: &Image,
    grid: &CoarseGrid,
    normalization: &Normalization,
    input: &Input,
) -> [Vec<f64>; 3] {
    let shape = image.shape();
    let place = |[i, j, k]: [usize; 3]| i + shape[0] * (j + shape[1] * k);
    let real = |at: [usize; 3]| image.samples.value(place(at));
    let normal = |at: [usize; 3]| {
        let mut value = [real(at)];
        normalization.apply(&mut value);
        f64::from(value[0])
    };
    let spacing = image.geometry.spacing().mm();
    let mut sums = [0, 1, 2].map(|_| vec![0.0; grid.cell_count()]);
    let along = [0, 1, 2].map(|axis| grid.averaging(axis));
    for n in 0..shape.iter().product() {
        let at = [
            n % shape[0],
            n / shape[0] % shape[1],
            n / (shape[0] * shape[1]),
        ];
        let moved = |axis: usize, to: usize| {
            let mut other = at;
            other[axis] = to.min(shape[axis] - 1);
            other
        };
        let (mut flat, mut detail) = (true, Vec::new());
        for axis in (0..3).filter(|&axis| shape[axis] >= 3) {
            let next = if at[axis] + 1 < shape[axis] {
                at[axis] + 1
            } else {
                at[axis] - 1
            };
            flat &= real(at) == real(moved(axis, next));
            if spacing[axis] < input.detail_below_mm - 1e-3 {
                let ends = [at[axis].saturating_sub(1), at[axis] + 1];
                let ends = ends.map(|to| normal(moved(axis, to)));
                detail.push((2.0 * normal(at) - ends[0] - ends[1]).abs());
            }
        }
        let mean = detail.iter().sum::<f64>() / detail.len().max(1) as f64;
        let values = [normal(at), f64::from(u8::from(flat)), mean];
        for cell in 0..grid.cell_count() {
            let [mi, mj, _] = grid.shape;
            let cell_at = [cell % mi, cell / mi % mj, cell / (mi * mj)];
            let weight = |axis: usize| {
                let stretch = &along[axis].cells()[cell_at[axis]];
                let n = at[axis].checked_sub(stretch.start);
                let weight = n.and_then(|n| stretch.weights.get(n));
                weight.map_or(0.0, |&weight| f64::from(weight))
            };
            let weight = weight(0) * weight(1) * weight(2);
            for (sums, value) in sums.iter_mut().zip(values) {
                sums[cell] += weight * value;
            }
        }
    }
    for value in &mut sums[2] {
        *value = (f64::from(input.detail_gain) * *value).ln_1p() / f64::from(input.detail_divisor);
    }
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cells_are_means_of_what_is_defined_whatever_the_voxels(
        shape in prop::array::uniform3(1_usize..8),
        spacing in prop::array::uniform3(prop::sample::select(vec![0.4, 1.0, 2.3, 5.0, 13.0])),
        seed in any::<u32>(),
    ) {
        let geometry = grid(shape, spacing);
        let value = |n: usize| {
            let noise = (n as u32 ^ seed).wrapping_mul(2_654_435_761) >> 13;
            if noise.is_multiple_of(3) { 0.0 } else { (noise % 900) as f32 }
        };
        let image = Image {
            samples: Samples::F32((0..geometry.voxel_count()).map(value).collect()),
            geometry,
        };
        let input = input();
        let normalization = Normalization::of_nothing();
        let grid = CoarseGrid::over(&image.geometry, 4.0);
        let mut found = Channels::on(grid.clone());
        make_plain(&image, &mut [&mut found], &normalization, &input);
        let expected = defined(&image, &grid, &normalization, &input);
        for (found, expected) in fields_of_plain(&found).into_iter().zip(&expected) {
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                prop_assert!((f64::from(*found) - expected).abs() < 1e-4, "{found} {expected}");
            }
        }
    }
}

fn fields_of_plain(channels: &Channels) -> [&[f32]; 3] {
    [&channels.intensity, &channels.flat, &channels.detail]
}
