//! Areas with a constant fill, on a phantom of noise.

use super::*;
use crate::ops::phantom::{box_mask, grid};
use crate::ops::rough_area::{SURE, rough_area};
use crate::volume::coarse_grid::CoarseGrid;
use crate::volume::{Samples, Scaled};

const SHAPE: [usize; 3] = [48, 40, 32];
const RULE: Snap = Snap {
    probability: 0.1,
    coverage: 0.5,
    constant_share: 0.3,
    mixed_radius_mm: 3.0,
    minimum_piece_ml: 0.5,
};

/// Nothing is as dark as air.
const AIR_NOWHERE: Levels = air(0.0);

/// What is darker is as dark as air.
const fn air(air_below: f32) -> Levels {
    Levels {
        air_below,
        tissue_above: None,
    }
}

/// Noise from 1 to 8 (no zero by chance), the same every time.
fn noise(n: usize) -> i16 {
    1 + (n.wrapping_mul(2_654_435_761) >> 7 & 7) as i16
}

fn scan(blank: impl Fn(usize) -> bool) -> Image {
    stored(|n| if blank(n) { 0 } else { noise(n) })
}

/// An image of these values, by their place in memory.
fn stored(value: impl Fn(usize) -> i16) -> Image {
    let geometry = grid(SHAPE, [1.0, 1.0, 2.0]);
    Image {
        samples: Samples::I16(Scaled {
            stored: (0..geometry.voxel_count()).map(value).collect(),
            slope: 1.0,
            intercept: 0.0,
        }),
        geometry,
    }
}

/// A network's guess: the half of the scan from `from_mm` on along i.
fn logits(image: &Image, from_mm: f64) -> CoarseField {
    let grid = CoarseGrid::over(&image.geometry, 4.0);
    let mi = grid.shape[0];
    let values = (0..grid.cell_count()).map(|n| ((n % mi) as f64 * 4.0 + 1.5 - from_mm) as f32);
    CoarseField {
        values: values.collect(),
        grid,
    }
}

/// What such a guess marks.
fn rough(image: &Image, logits: &CoarseField) -> Mask {
    rough_area(image, logits, 0.0).unpacked(&image.geometry)
}

/// Voxels that lie in both.
fn within(mask: &Mask, other: &Mask) -> Mask {
    let voxels = mask.voxels.iter().zip(&other.voxels);
    Mask {
        voxels: voxels.map(|(a, b)| a & b).collect(),
        geometry: mask.geometry.clone(),
    }
}

fn differing(a: &Mask, b: &Mask) -> usize {
    a.voxels
        .iter()
        .zip(&b.voxels)
        .filter(|(a, b)| a != b)
        .count()
}

fn blanked() -> Mask {
    box_mask(grid(SHAPE, [1.0, 1.0, 2.0]), [30, 0, 0], [48, 40, 32])
}

#[test]
fn a_rough_area_becomes_exactly_what_was_blanked() {
    let truth = blanked();
    let image = scan(|n| truth.voxels[n] != 0);
    for from_mm in [26.0, 34.0] {
        let logits = logits(&image, from_mm);
        let rough = rough(&image, &logits);
        assert!(differing(&rough, &truth) > 1000);
        let found = snap(&image, &logits, 0.0, AIR_NOWHERE, &RULE);
        assert_eq!(differing(&found, &truth), 0, "{from_mm}");
    }
}

#[test]
fn of_constant_air_all_around_only_what_is_near_the_area_is_taken() {
    // The air before it was zero to begin with and touches the blanked box.
    let truth = box_mask(grid(SHAPE, [1.0, 1.0, 2.0]), [30, 0, 0], [48, 40, 8]);
    let below = box_mask(truth.geometry.clone(), [0, 0, 0], [30, 40, 12]);
    let image = scan(|n| truth.voxels[n] | below.voxels[n] != 0);
    let logits = logits(&image, 26.0);
    let found = snap(&image, &logits, 0.0, AIR_NOWHERE, &RULE);
    for index in [[31, 6, 7], [47, 39, 7], [30, 20, 5]] {
        assert_eq!(found.voxels[truth.offset(index)], 1, "{index:?}");
    }
    for index in [[2, 20, 2], [15, 20, 2], [20, 20, 20]] {
        assert_eq!(found.voxels[truth.offset(index)], 0, "{index:?}");
    }
}

#[test]
fn zeros_of_the_scanner_beside_a_fill_are_taken_where_they_are_near() {
    // Blanked from 36 mm on; zeros from 20 to 34 mm, of which the guess from 30 mm on covers a third.
    let truth = box_mask(grid(SHAPE, [1.0, 1.0, 2.0]), [36, 0, 0], [48, 40, 32]);
    let image = scan(|n| !matches!(n % SHAPE[0], 0..20 | 34 | 35));
    let found = snap(&image, &logits(&image, 30.0), 0.0, AIR_NOWHERE, &RULE);
    assert_eq!(found.voxels[truth.offset([40, 20, 20])], 1);
    assert_eq!(found.voxels[truth.offset([22, 20, 20])], 0);
    // A guess that finds both as well takes both, to where they end.
    let found = snap(&image, &logits(&image, 21.0), 0.0, AIR_NOWHERE, &RULE);
    assert_eq!(found.voxels[truth.offset([20, 20, 20])], 1);
}

#[test]
fn noise_that_is_cut_off_at_the_fill_is_no_part_of_it() {
    // Half of the other voxels hold the fill's value by chance.
    let truth = blanked();
    let image = scan(|n| truth.voxels[n] != 0 || noise(n) < 5);
    let logits = logits(&image, 26.0);
    let found = snap(&image, &logits, 0.0, AIR_NOWHERE, &RULE);
    // A layer beside it joins, where it holds the value.
    let blanked = truth.voxels.iter().filter(|v| **v != 0).count();
    assert!(differing(&found, &truth) < blanked / 20);
}

#[test]
fn chance_pieces_are_left_out_up_to_the_size_that_noise_makes_them_elsewhere() {
    // The same piece of the fill's value in the guess, before what was blanked, and away from both.
    let truth = box_mask(grid(SHAPE, [1.0, 1.0, 2.0]), [44, 0, 0], [48, 40, 32]);
    let piece = |from_i: usize, length: usize| {
        let from = [from_i, 10, 10];
        box_mask(truth.geometry.clone(), from, [from_i + 6, 10 + length, 18])
    };
    let found = |before: &Mask, elsewhere: &Mask| {
        let masks = [&truth, before, elsewhere];
        let image = scan(|n| noise(n) < 3 || masks.iter().any(|mask| mask.voxels[n] != 0));
        let found = snap(&image, &logits(&image, 26.0), 0.0, AIR_NOWHERE, &RULE);
        assert_eq!(found.voxels[truth.offset([46, 20, 20])], 1);
        found.voxels[truth.offset([31, 13, 13])]
    };
    let before = piece(28, 8);
    assert_eq!(found(&before, &piece(8, 12)), 0);
    assert_eq!(found(&before, &piece(8, 4)), 1);
    // The fill itself is kept, whatever lies elsewhere.
    let large = box_mask(truth.geometry.clone(), [2, 2, 2], [10, 38, 30]);
    assert_eq!(found(&before, &large), 0);
}

#[test]
fn an_area_without_a_constant_stays_as_it_is() {
    let image = scan(|_| false);
    let logits = logits(&image, 30.0);
    let rough = rough(&image, &logits);
    // Eight values of noise: none holds 30 %.
    assert!(fill_of(&image, &PackedMask::of_mask(&rough)).unwrap().share < 0.2);
    let found = snap(&image, &logits, 0.0, AIR_NOWHERE, &RULE);
    assert_eq!(differing(&found, &rough), 0);
}

#[test]
fn a_value_that_noise_holds_often_is_no_fill() {
    // Faint noise after a blur, rounded: runs of 1, and of 2 half as often.
    let faint = |n: usize| {
        if n % 30 < 18 {
            1
        } else if n % 30 < 27 {
            2
        } else {
            3
        }
    };
    let image = stored(faint);
    let logits = logits(&image, 30.0);
    let rough = rough(&image, &logits);
    let fill = fill_of(&image, &PackedMask::of_mask(&rough)).unwrap();
    assert!(fill.value == 1.0 && fill.share > 0.5 && fill.next_share > 0.25);
    let found = snap(&image, &logits, 0.0, AIR_NOWHERE, &RULE);
    assert_eq!(differing(&found, &rough), 0);
}

#[test]
fn a_painted_face_in_front_of_blanked_air_keeps_its_rough_edge() {
    let truth = blanked();
    // Half of the box is painted with something that is not constant.
    let image = scan(|n| truth.voxels[n] != 0 && n % SHAPE[0] >= 44);
    let logits = logits(&image, 30.0);
    let rough = rough(&image, &logits);
    let found = snap(&image, &logits, 0.0, AIR_NOWHERE, &RULE);
    let n = truth.offset([33, 20, 20]);
    assert_eq!((rough.voxels[n], found.voxels[n]), (1, 1));
}

#[test]
fn dark_noise_in_front_of_a_blanked_strip_is_no_part_of_it() {
    let truth = box_mask(grid(SHAPE, [1.0, 1.0, 2.0]), [30, 0, 0], [36, 40, 32]);
    let image = scan(|n| truth.voxels[n] != 0);
    let logits = logits(&image, 26.0);
    let found = |air_below| snap(&image, &logits, 0.0, air(air_below), &RULE);
    assert_eq!(differing(&found(10.0), &truth), 0);
    assert!(differing(&found(0.0), &truth) > 1000);
}

#[test]
fn a_network_that_is_sure_of_nothing_finds_a_painted_face_too() {
    let truth = blanked();
    let image = scan(|n| truth.voxels[n] != 0 && n / SHAPE[0] % SHAPE[1] >= 24);
    let mut logits = logits(&image, 26.0);
    logits.values.iter_mut().for_each(|logit| *logit *= 0.1);
    assert!(logits.values.iter().all(|&logit| logit < SURE));
    let found = snap(&image, &logits, 0.0, AIR_NOWHERE, &RULE);
    for index in [[36, 10, 20], [36, 30, 20]] {
        assert_eq!(found.voxels[truth.offset(index)], 1, "{index:?}");
    }
}

#[test]
fn a_fill_is_found_below_the_probability_of_what_is_near_too() {
    let truth = blanked();
    let image = scan(|n| truth.voxels[n] != 0);
    let mut logits = logits(&image, 30.0);
    logits.values.iter_mut().for_each(|logit| *logit -= 25.0);
    let found = snap(&image, &logits, -20.0, AIR_NOWHERE, &RULE);
    assert_eq!(found.voxels[truth.offset([44, 20, 20])], 1);
}

/// Noise of air, 1 to 8, up to 40 mm along i; a face of 101 to 108 beyond it.
fn head(at: impl Fn(usize, i16) -> i16) -> Image {
    stored(|n| {
        let face = if n % SHAPE[0] < 40 { 0 } else { 100 };
        at(n, face + noise(n))
    })
}

/// A network's guess: the slab between two places along i [mm].
fn slab(image: &Image, from_mm: f64, to_mm: f32) -> CoarseField {
    let mut logits = logits(image, from_mm);
    let mi = logits.grid.shape[0];
    for (n, logit) in logits.values.iter_mut().enumerate() {
        *logit = logit.min(to_mm - (n % mi) as f32 * 4.0 - 1.5);
    }
    logits
}

/// What is darker than 50 is as dark as that air.
const BESIDE_AIR: Levels = air(50.0);

const STRIP_RULE: Snap = Snap {
    mixed_radius_mm: 9.0,
    ..RULE
};

#[test]
fn noise_for_a_strip_ends_where_tissue_begins() {
    // The network's edge lies some millimetres inside the tissue.
    let image = head(|_, value| value);
    let logits = slab(&image, 30.0, 44.0);
    let rough = rough(&image, &logits);
    let air = box_mask(image.geometry.clone(), [0, 0, 0], [40, 40, 32]);
    let truth = within(&rough, &air);
    assert!(differing(&rough, &truth) > 1000);
    let found = snap(&image, &logits, 0.0, BESIDE_AIR, &STRIP_RULE);
    assert_eq!(differing(&found, &truth), 0);
}

#[test]
fn zeros_among_noise_fill_nothing() {
    // Half of the air's noise is zero, here and there.
    let image = head(|n, value| match n % SHAPE[0] {
        0..40 if value < 5 => 0,
        _ => value,
    });
    let logits = slab(&image, 30.0, 44.0);
    let rough = rough(&image, &logits);
    let air = box_mask(image.geometry.clone(), [0, 0, 0], [40, 40, 32]);
    let truth = within(&rough, &air);
    let found = snap(&image, &logits, 0.0, BESIDE_AIR, &STRIP_RULE);
    assert_eq!(differing(&found, &truth), 0);
}

#[test]
fn noise_in_constant_air_was_put_there() {
    // 10 mm of noise, many zeros in it, before a face in zeroed air.
    let strip = |n: usize| (30..40).contains(&(n % SHAPE[0]));
    let image = head(|n, value| match n % SHAPE[0] {
        0..30 => 0,
        _ if strip(n) && noise(n) < 3 => 0,
        _ => value,
    });
    let logits = slab(&image, 26.0, 44.0);
    let found = snap(&image, &logits, 0.0, BESIDE_AIR, &STRIP_RULE);
    let (mut kept, mut wrong, mut all) = (0, 0, 0);
    for (n, &voxel) in found.voxels.iter().enumerate() {
        all += usize::from(strip(n));
        kept += usize::from(strip(n) && voxel != 0);
        wrong += usize::from(n % SHAPE[0] >= 40 && voxel != 0);
    }
    assert!(
        kept > all * 9 / 10 && wrong == 0,
        "{kept} of {all}, {wrong}"
    );
}

#[test]
fn zeros_of_a_scanner_beside_a_strip_of_noise_fill_nothing() {
    // Most of the noise that was put there is zero, all of the air before it, but not what is farther off.
    let strip = |n: usize| (26..40).contains(&(n % SHAPE[0]));
    let image = head(|n, value| match n % SHAPE[0] {
        8..26 => 0,
        _ if strip(n) && noise(n) < 7 => 0,
        _ => value,
    });
    // The network is sure of the strip, less so of the air before it.
    let mut logits = logits(&image, 10.0);
    let mi = logits.grid.shape[0];
    for (n, logit) in logits.values.iter_mut().enumerate() {
        *logit = logit.min(4.0 * (44.0 - (n % mi) as f32 * 4.0 - 1.5));
    }
    let found = snap(&image, &logits, 0.0, BESIDE_AIR, &STRIP_RULE);
    let strip: Vec<u8> = found
        .voxels
        .iter()
        .enumerate()
        .filter_map(|(n, &voxel)| strip(n).then_some(voxel))
        .collect();
    let kept = strip.iter().filter(|voxel| **voxel != 0).count();
    assert!(kept > strip.len() * 9 / 10, "{kept} of {}", strip.len());
}

#[test]
fn a_thin_blurred_strip_keeps_its_bright_part() {
    // From 30 to 46 mm along i nothing is noisy; its bright part is too thin for a large ball.
    let image = head(|n, value| match n % SHAPE[0] {
        30..40 => 5 + (n / SHAPE[0] / 4 % 3) as i16,
        40..46 => 104 + (n / SHAPE[0] / 4 % 3) as i16,
        _ => value,
    });
    let logits = slab(&image, 30.0, 46.0);
    let rough = rough(&image, &logits);
    let found = snap(&image, &logits, 0.0, BESIDE_AIR, &STRIP_RULE);
    assert_eq!(differing(&found, &rough), 0);
}

#[test]
fn what_a_scanner_left_empty_away_from_the_head_is_no_part_of_a_fill() {
    // A strip was blanked before the face; a wedge in the air, and one that touches the face, held no noise before.
    let strip = |n: usize| (30..40).contains(&(n % SHAPE[0]));
    let rows = |n: usize| n / SHAPE[0] % SHAPE[1];
    let found = |wedge: std::ops::Range<usize>| {
        let image = head(|n, value| match n % SHAPE[0] {
            _ if strip(n) && rows(n) < 24 => 0,
            i if wedge.contains(&i) && rows(n) >= 32 => 0,
            _ => value,
        });
        let found = snap(
            &image,
            &slab(&image, 12.0, 44.0),
            0.0,
            BESIDE_AIR,
            &STRIP_RULE,
        );
        let geometry = &found.geometry;
        let at = |i, j| found.voxels[i + SHAPE[0] * (j + SHAPE[1] * (geometry.shape[2] / 2))];
        [at(35, 12), at(20, 36)]
    };
    assert_eq!(found(16..30), [1, 0]);
    assert_eq!(found(16..40), [1, 1]);
}

#[test]
fn a_guess_in_air_alone_is_no_part_of_a_strip_of_noise() {
    let image = head(|_, value| value);
    let mut logits = slab(&image, 30.0, 44.0);
    let air = box_mask(image.geometry.clone(), [28, 0, 0], [40, 40, 32]);
    let truth = within(&rough(&image, &logits), &air);
    let far = slab(&image, 6.0, 18.0);
    let cells = logits.values.iter_mut().zip(&far.values);
    cells
        .filter(|(_, far)| **far > 0.0)
        .for_each(|(logit, far)| *logit = *far);
    let far = |mask: &Mask| mask.voxels[mask.offset([12, 20, 16])];
    assert_eq!(far(&rough(&image, &logits)), 1);
    let found = snap(&image, &logits, 0.0, BESIDE_AIR, &STRIP_RULE);
    assert_eq!(differing(&found, &truth), 0);
}

#[test]
fn of_two_constants_the_one_that_lies_less_elsewhere_is_the_fill() {
    // Air of 0 lies beside what was blanked with -24, and far off; in the guess one or the other is commoner.
    for from_j in [16, 24] {
        let blank = |n: usize| n % SHAPE[0] >= 32 && n / SHAPE[0] % SHAPE[1] >= from_j;
        let image = stored(|n| match n % SHAPE[0] {
            _ if blank(n) => -24,
            0..12 | 32.. => 0,
            _ => noise(n),
        });
        let truth = box_mask(image.geometry.clone(), [32, from_j, 0], SHAPE);
        let found = snap(&image, &logits(&image, 34.0), 0.0, AIR_NOWHERE, &RULE);
        assert_eq!(differing(&found, &truth), 0, "{from_j}");
    }
}

#[test]
fn constant_air_beside_tissue_does_not_hide_a_fill_before_it() {
    // 4 mm of air of 0 lie between the face and what was blanked with -24.
    let image = head(|n, value| match n % SHAPE[0] {
        12..36 => -24,
        0..40 => 0,
        _ => value,
    });
    let guess = slab(&image, 12.0, 44.0);
    let found = snap(&image, &guess, 0.0, BESIDE_AIR, &STRIP_RULE);
    let truth = box_mask(image.geometry.clone(), [12, 0, 0], [36, 40, 32]);
    assert_eq!(differing(&found, &truth), 0);
}

#[test]
fn a_fill_that_fades_into_tissue_goes_on_there_in_ct() {
    // -1024 HU from 32 mm on, rising over 4 mm to the tissue before it.
    let image = stored(|n| {
        let i = n % SHAPE[0];
        let tissue = 40 + 4 * noise(n);
        match i {
            0..28 => tissue,
            28..32 => tissue - (i as i16 - 27) * (tissue + 1024) / 5,
            _ => -1024,
        }
    });
    let guess = logits(&image, 30.0);
    let ends_at = |tissue_above| {
        let levels = Levels {
            tissue_above,
            ..air(-500.0)
        };
        let found = snap(&image, &guess, 0.0, levels, &RULE);
        (0..SHAPE[0]).find(|&i| found.voxels[found.offset([i, 20, 16])] != 0)
    };
    assert_eq!(ends_at(None), Some(32));
    assert_eq!(ends_at(Some(-300.0)), Some(29));
}
