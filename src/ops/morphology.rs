//! Growing and shrinking masks by a distance in millimetres.
//!
//! The structuring element is a ball: what counts is the exact distance between voxel centres, so
//! that the result is round on anisotropic grids, too. Nothing is known outside the volume, so
//! nothing grows in from there, and nothing is eaten away from there.

use rayon::prelude::*;

use super::distance::squares_within;
use crate::volume::Mask;

/// A distance of exactly the radius counts, in spite of rounding.
const ROUNDING: f64 = 1.0 + 1e-6;

/// Marks every voxel that lies at most `radius_mm` from one of the mask.
pub fn dilate(mask: &Mask, radius_mm: f64) -> Mask {
    mark_near(mask, 1, radius_mm, [0, 1])
}

/// Keeps the voxels that lie more than `radius_mm` from every voxel of background.
pub fn erode(mask: &Mask, radius_mm: f64) -> Mask {
    mark_near(mask, 0, radius_mm, [1, 0])
}

/// Takes away what a ball of `radius_mm` does not fit into: erodes, then dilates.
pub fn open(mask: &Mask, radius_mm: f64) -> Mask {
    dilate(&erode(mask, radius_mm), radius_mm)
}

/// Fills gaps that a ball of `radius_mm` does not fit into: dilates, then erodes.
pub fn close(mask: &Mask, radius_mm: f64) -> Mask {
    erode(&dilate(mask, radius_mm), radius_mm)
}

/// Writes `marks[1]` within `radius_mm` of a voxel of `value`, and `marks[0]` elsewhere.
fn mark_near(mask: &Mask, value: u8, radius_mm: f64, marks: [u8; 2]) -> Mask {
    let highest_mm2 = radius_mm * radius_mm * ROUNDING;
    let squares = squares_within(mask, value, highest_mm2);
    let mark = |square: f32| marks[usize::from(square.is_finite())];
    Mask {
        voxels: squares.into_par_iter().map(mark).collect(),
        geometry: mask.geometry.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::phantom::{ball_mask, box_mask, grid, mask, oblique_grid};

    #[test]
    fn a_voxel_grows_into_a_ball_in_millimetres() {
        let geometry = oblique_grid([15, 13, 11], [0.7, 1.0, 1.5]);
        let point = box_mask(geometry.clone(), [7, 6, 5], [8, 7, 6]);
        // 2.1 mm is 3 voxels along i, to within rounding.
        let grown = dilate(&point, 2.1);
        assert_eq!(grown.voxels[geometry.offset([4, 6, 5])], 1);
        assert_eq!(grown, ball_mask(geometry, 2.1 + 1e-6));
        assert_eq!(erode(&grown, 2.1), point);
    }

    #[test]
    fn the_border_of_the_volume_neither_grows_nor_eats() {
        let geometry = grid([8, 6, 6], [1.0, 2.0, 2.0]);
        let half = box_mask(geometry.clone(), [0, 0, 0], [4, 6, 6]);
        assert_eq!(
            erode(&half, 1.0),
            box_mask(geometry.clone(), [0, 0, 0], [3, 6, 6])
        );
        assert_eq!(
            dilate(&half, 2.0),
            box_mask(geometry.clone(), [0, 0, 0], [6, 6, 6])
        );
        let full = mask(geometry.clone(), |_| true);
        let empty = mask(geometry, |_| false);
        assert_eq!(erode(&full, 5.0), full);
        assert_eq!(dilate(&empty, 5.0), empty);
    }

    #[test]
    fn opening_takes_a_thin_rod_and_closing_a_thin_gap() {
        let geometry = grid([24, 16, 16], [1.0, 1.0, 1.0]);
        let solid = box_mask(geometry.clone(), [0, 0, 0], [10, 16, 16]);
        let with_rod = mask(geometry.clone(), |[i, j, k]| {
            i < 10 || (i < 18 && j == 8 && k == 8)
        });
        // A ball about [9, 8, 8] fits, and reaches one voxel into the rod.
        let mut opened = solid.clone();
        opened.voxels[geometry.offset([10, 8, 8])] = 1;
        assert!(open(&with_rod, 1.0) == opened);
        let with_gap = mask(geometry.clone(), |[i, j, _]| i < 10 && (i != 4 || j < 2));
        assert!(close(&with_gap, 1.0) == solid);
    }

    proptest! {
        #[test]
        fn opening_shrinks_and_closing_grows(seed in 0_u64..200, radius_mm in 0.5_f64..4.0) {
            let mut state = seed;
            let speckle = mask(oblique_grid([12, 11, 9], [0.7, 1.3, 2.1]), |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % 10 < 4
            });
            let within = |a: &Mask, b: &Mask| a.voxels.iter().zip(&b.voxels).all(|(a, b)| a <= b);
            let (opened, closed) = (open(&speckle, radius_mm), close(&speckle, radius_mm));
            prop_assert!(within(&opened, &speckle) && within(&speckle, &closed));
            prop_assert_eq!(&open(&opened, radius_mm), &opened);
            prop_assert_eq!(&close(&closed, radius_mm), &closed);
        }
    }
}
