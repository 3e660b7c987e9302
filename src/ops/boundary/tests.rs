//! The skin of a ball of tissue, shaded and with a surface a voxel wide.

use super::*;
use crate::ops::phantom::{box_mask, grid, image, oblique_grid};
use crate::volume::{Geometry, Samples};

const RADIUS_MM: f64 = 30.0;

/// Distance of a voxel from the ball's surface, mm, positive inside; the ball is centred.
fn depth(geometry: &Geometry, index: [usize; 3]) -> f64 {
    let spacing = geometry.spacing().mm();
    let squares = [0, 1, 2].map(|a| {
        let middle = (geometry.shape[a] as f64 - 1.0) / 2.0;
        ((index[a] as f64 - middle) * spacing[a]).powi(2)
    });
    RADIUS_MM - squares.iter().sum::<f64>().sqrt()
}

/// A ball of tissue (1) in air (0.05), its surface a voxel wide; brighter to one side.
fn ball(geometry: Geometry) -> Image {
    let mut ball = image(geometry.clone(), |_| 0.0);
    let values = (0..geometry.voxel_count()).map(|n| {
        let [ni, nj, _] = geometry.shape;
        let index = [n % ni, n / ni % nj, n / ni / nj];
        let inside = (depth(&geometry, index) + 0.5).clamp(0.0, 1.0);
        let shading = 0.4 + 0.6 * index[0] as f64 / ni as f64;
        (0.05 + inside * (shading - 0.05)) as f32
    });
    ball.samples = Samples::F32(values.collect());
    ball
}

/// What a network might say: the ball, but its surface `off_mm` too far out.
fn logits(geometry: &Geometry, off_mm: f64) -> (CoarseField, Vec<f32>) {
    let cells = CoarseGrid::over(geometry, 4.0);
    let [mi, mj, mk] = cells.shape;
    let centre = [mi, mj, mk].map(|m| (m as f64 - 1.0) / 2.0);
    let of = |n: usize| {
        let place = [n % mi, n / mi % mj, n / mi / mj];
        let squares = [0, 1, 2].map(|a| ((place[a] as f64 - centre[a]) * 4.0).powi(2));
        RADIUS_MM - squares.iter().sum::<f64>().sqrt()
    };
    let values = (0..cells.cell_count()).map(|n| (of(n) + off_mm) as f32);
    let intensity = (0..cells.cell_count()).map(|n| {
        let inside = (of(n) / 4.0 + 0.5).clamp(0.0, 1.0);
        let shading = 0.4 + 0.6 * (n % mi) as f64 / mi as f64;
        (0.05 + inside * (shading - 0.05)) as f32
    });
    let field = CoarseField {
        values: values.collect(),
        grid: cells.clone(),
    };
    (field, intensity.collect())
}

fn wrong_voxels(geometry: Geometry, absolute: Option<Level>, gain: f32) -> usize {
    wrong_voxels_on(geometry, absolute, gain, 4.0)
}

/// The same with logits on cells of `cell_mm`, and means on cells of 4 mm.
fn wrong_voxels_on(geometry: Geometry, absolute: Option<Level>, gain: f32, cell_mm: f64) -> usize {
    let ball = ball(geometry.clone());
    let (coarse, intensity) = logits(&geometry, 1.5);
    let means = Means::around(&coarse, &intensity, 6.0);
    let logits = coarse.on(&CoarseGrid::over(&geometry, cell_mm));
    let local = Level::Local {
        share: 0.5,
        means: &means,
    };
    let level = absolute.unwrap_or(local);
    let weighing = Weighing {
        logit_weight: 1.0,
        contrast_gain: gain,
        band_logit: 8.0,
    };
    let keep = |_: &mut [f32]| {};
    let scores = Scores::new(&ball, &keep, &logits, level, weighing);
    let mask = scores.map(|score| score > 0.0);
    let same = mask.voxels.iter().zip(scores.mask().voxels);
    assert!(
        same.into_iter()
            .all(|(inside, voxel)| u8::from(*inside) == voxel)
    );
    let [ni, nj, _] = geometry.shape;
    let differs = |(n, inside): (usize, &bool)| {
        let index = [n % ni, n / ni % nj, n / ni / nj];
        // A voxel whose centre lies on the surface may fall on either side.
        let depth = depth(&geometry, index);
        depth.abs() > 0.5 && (depth > 0.0) != *inside
    };
    mask.voxels
        .iter()
        .enumerate()
        .filter(|v| differs(*v))
        .count()
}

#[test]
fn contrast_mends_a_surface_that_the_network_puts_too_far_out() {
    for geometry in [
        grid([80, 80, 80], [1.0, 1.0, 1.0]),
        oblique_grid([90, 72, 40], [0.9, 1.1, 2.0]),
    ] {
        let alone = wrong_voxels(geometry.clone(), None, 0.0);
        let mended = wrong_voxels(geometry.clone(), None, 20.0);
        // Contrast may lie on coarser cells than the logits.
        let finer = wrong_voxels_on(geometry, None, 20.0, 2.0);
        assert!(
            finer.abs_diff(mended) <= mended / 10 + 10,
            "{finer} {mended}"
        );
        assert!(alone > 3000, "{alone}");
        assert!(mended < alone / 20, "{mended} of {alone}");
    }
}

#[test]
fn an_absolute_level_needs_no_local_mean() {
    let level = Level::Absolute {
        intensity: 0.3,
        contrast: 0.5,
    };
    let geometry = grid([80, 80, 80], [1.0, 1.0, 1.0]);
    assert!(wrong_voxels(geometry, Some(level), 20.0) < 300);
}

#[test]
fn a_piece_goes_where_the_network_puts_most_of_it() {
    let geometry = grid([80, 80, 80], [1.0, 1.0, 1.0]);
    let (logits, _) = logits(&geometry, 0.0);
    let ball = logits.map_voxels(&geometry, |logit| u8::from(logit > 0.0));
    let mut mask = ball.clone();
    // A lung, dark to the score, and a table, bright to it.
    let lung = box_mask(geometry.clone(), [30, 30, 30], [50, 50, 50]);
    let table = box_mask(geometry, [0, 2, 0], [80, 5, 80]);
    for ((voxel, lung), table) in mask.voxels.iter_mut().zip(lung.voxels).zip(table.voxels) {
        *voxel = (*voxel & (1 - lung)) | table;
    }
    settle_pieces(&mut mask, &logits, true);
    assert!(mask.voxels == ball.voxels);
}

#[test]
fn a_cavity_that_one_face_cuts_open_is_inside_whatever_the_network_says() {
    let geometry = grid([40, 40, 40], [2.0, 2.0, 2.0]);
    let grid = CoarseGrid::over(&geometry, 4.0);
    let [mi, mj, _] = grid.shape;
    // Cut open by one face, by both across an axis, at an edge.
    for (start, end, inside) in [
        ([10, 0, 10], [30, 12, 30], true),
        ([10, 0, 10], [30, 40, 30], false),
        ([10, 0, 0], [30, 12, 12], false),
    ] {
        let cavity = box_mask(geometry.clone(), start, end);
        let mut logits = CoarseField {
            values: vec![6.0; grid.cell_count()],
            grid: grid.clone(),
        };
        for (n, _) in cavity.voxels.iter().enumerate().filter(|(_, v)| **v != 0) {
            let [i, j, k] = [n % 40, n / 40 % 40, n / 1600].map(|voxel| voxel / 2);
            logits.values[i + mi * (j + mj * k)] = -6.0;
        }
        let mut mask = cavity.clone();
        mask.voxels.iter_mut().for_each(|voxel| *voxel = 1 - *voxel);
        let mut in_ct = mask.clone();
        settle_pieces(&mut mask, &logits, true);
        let filled = mask.voxels.iter().all(|voxel| *voxel == 1);
        assert_eq!(filled, inside, "{start:?} {end:?}");
        settle_pieces(&mut in_ct, &logits, false);
        assert!(in_ct.voxels.contains(&0), "{start:?} {end:?}");
    }
}

#[test]
fn without_contrast_the_network_decides_alone() {
    let geometry = grid([80, 80, 80], [1.0, 1.0, 1.0]);
    let flat = image(geometry.clone(), |_| 0.5);
    let (logits, intensity) = logits(&geometry, 0.0);
    let weighing = Weighing {
        logit_weight: 2.0,
        contrast_gain: 5.0,
        band_logit: 8.0,
    };
    let intensity = vec![0.5; intensity.len()];
    let keep = |_: &mut [f32]| {};
    let means = Means::around(&logits, &intensity, 6.0);
    let level = Level::Local {
        share: 0.5,
        means: &means,
    };
    let found = Scores::new(&flat, &keep, &logits, level, weighing);
    let found = found.map(|score| u8::from(score > 0.0));
    let alone = logits.map_voxels(&geometry, |logit| u8::from(logit > 0.0));
    assert!(found.voxels == alone.voxels);
}
