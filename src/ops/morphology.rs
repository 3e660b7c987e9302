//! Growing and shrinking masks by a distance in millimetres.
//!
//! The structuring element is a ball: what counts is the exact distance between voxel centres, so
//! that the result is round on anisotropic grids, too. Nothing is known outside the volume, so
//! nothing grows in from there, and nothing is eaten away from there.

use rayon::prelude::*;

use super::distance::squares_within;
use crate::volume::{BoundingBox, Mask};

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

/// Voxels of whose 3×3×3 surroundings more than `share` lies in a mask.
pub fn crowded(mask: &Mask, share: f32) -> Mask {
    let spacing = mask.geometry.spacing().mm();
    let finest = spacing.iter().copied().fold(f64::INFINITY, f64::min);
    // Along an axis of thick slices the neighbour is another place, and does not count.
    let axes = [0, 1, 2].map(|a| spacing[a] < 2.0 * finest);
    let [ni, nj, nk] = mask.geometry.shape;
    let mut voxels = vec![0_u8; mask.voxels.len()];
    voxels
        .par_chunks_mut(ni * nj)
        .enumerate()
        .for_each(|(k, plane)| {
            let window = |n: usize, length: usize, counts: bool| {
                if counts {
                    n.saturating_sub(1)..(n + 2).min(length)
                } else {
                    n..n + 1
                }
            };
            let mut sums = vec![0_u8; ni];
            for j in 0..nj {
                let (rows, planes) = (window(j, nj, axes[1]), window(k, nk, axes[2]));
                let lines = rows.len() * planes.len();
                sums.fill(0);
                for row in planes.flat_map(|k| rows.clone().map(move |j| ni * (j + nj * k))) {
                    let line = &mask.voxels[row..row + ni];
                    sums.iter_mut().zip(line).for_each(|(s, c)| *s += c);
                }
                for i in 0..ni {
                    let around = window(i, ni, axes[0]);
                    let total = (lines * around.len()) as f32;
                    let found: u32 = sums[around].iter().map(|&s| u32::from(s)).sum();
                    plane[i + ni * j] = u8::from(found as f32 > share * total);
                }
            }
        });
    Mask {
        voxels,
        geometry: mask.geometry.clone(),
    }
}

/// Writes `marks[1]` within `radius_mm` of a voxel of `value`, and `marks[0]` elsewhere.
fn mark_near(mask: &Mask, value: u8, radius_mm: f64, marks: [u8; 2]) -> Mask {
    let highest_mm2 = radius_mm * radius_mm * ROUNDING;
    let ball = Ball::of(mask.geometry.spacing().mm(), highest_mm2);
    let voxels = if ball.rows() <= MOST_ROWS {
        stamp(mask, value, &ball, marks)
    } else {
        measure(mask, value, highest_mm2, marks, SLAB)
    };
    Mask {
        voxels,
        geometry: mask.geometry.clone(),
    }
}

/// Distances are measured on so many voxels at a time, at four bytes each, and on what lies around them.
const SLAB: usize = 32 << 20;

/// Marks by distance, slab by slab across k: what lies further than the radius from a slab does not count.
fn measure(mask: &Mask, value: u8, highest_mm2: f64, marks: [u8; 2], slab: usize) -> Vec<u8> {
    let [ni, nj, nk] = mask.geometry.shape;
    let slice = ni * nj;
    let reach = (highest_mm2.sqrt() / mask.geometry.spacing().mm()[2]).ceil() as usize;
    let mut slices = (slab / slice.max(1)).max(4 * reach).max(1);
    // What is left beyond would be measured twice.
    if nk <= slices + 2 * reach {
        slices = nk;
    }
    let mut voxels = Vec::with_capacity(mask.voxels.len());
    for start in (0..nk).step_by(slices) {
        let slab = BoundingBox {
            start: [0, 0, start],
            end: [ni, nj, (start + slices).min(nk)],
        };
        let wider = slab.grown([0, 0, reach], mask.geometry.shape);
        let squares = if wider.shape() == mask.geometry.shape {
            squares_within(mask, value, highest_mm2)
        } else {
            squares_within(&mask.crop(&wider), value, highest_mm2)
        };
        let squares = &squares[slice * (start - wider.start[2])..][..slab.voxel_count()];
        let mark = |square: &f32| marks[usize::from(square.is_finite())];
        voxels.par_extend(squares.par_iter().map(mark));
    }
    voxels
}

/// Balls of up to so many rows are stamped on the surface; larger ones cost more than distances.
const MOST_ROWS: usize = 150;

/// A ball as rows of voxels.
struct Ball {
    /// For each step along k, 0 first: the rows (steps along j, and how far they reach along i).
    slices: Vec<Vec<(isize, usize)>>,
}

impl Ball {
    /// The voxels at most the root of `highest_mm2` from a voxel's centre.
    fn of([di, dj, dk]: [f64; 3], highest_mm2: f64) -> Self {
        let reach = |left_mm2: f64, step: f64| {
            let mut n = 0_usize;
            while ((n + 1) as f64 * step).powi(2) <= left_mm2 && n <= MOST_ROWS {
                n += 1;
            }
            n
        };
        let rows = |k: usize| {
            let left = highest_mm2 - (k as f64 * dk).powi(2);
            let most = reach(left, dj) as isize;
            let row = |j: isize| (j, reach(left - (j as f64 * dj).powi(2), di));
            (-most..=most).map(row).collect()
        };
        Self {
            slices: (0..=reach(highest_mm2, dk)).map(rows).collect(),
        }
    }

    /// Rows of the ball's half from its middle slice on.
    fn rows(&self) -> usize {
        self.slices.iter().map(Vec::len).sum()
    }
}

/// Marks the balls about the surface of `value`, and `value` itself: what is closest to a voxel
/// outside has a neighbour outside.
fn stamp(mask: &Mask, value: u8, ball: &Ball, marks: [u8; 2]) -> Vec<u8> {
    let [ni, nj, nk] = mask.geometry.shape;
    let plane_size = ni * nj;
    let surface: Vec<Vec<(usize, usize)>> = (0..nk)
        .into_par_iter()
        .map(|k| surface_of_plane(mask, value, k))
        .collect();
    let mut voxels = vec![marks[0]; mask.voxels.len()];
    let planes = voxels.par_chunks_mut(plane_size.max(1)).enumerate();
    planes.for_each(|(k, plane)| {
        let source = &mask.voxels[plane_size * k..][..plane_size];
        for (out, _) in plane.iter_mut().zip(source).filter(|(_, v)| **v == value) {
            *out = marks[1];
        }
        let (first, last) = (
            k.saturating_sub(ball.slices.len() - 1),
            (k + ball.slices.len()).min(nk),
        );
        for (other, surface) in surface.iter().enumerate().take(last).skip(first) {
            for &(i, j) in surface {
                for &(step, reach) in &ball.slices[other.abs_diff(k)] {
                    let Some(row) = j.checked_add_signed(step).filter(|&row| row < nj) else {
                        continue;
                    };
                    let (start, end) = (i.saturating_sub(reach), (i + reach + 1).min(ni));
                    plane[ni * row + start..ni * row + end].fill(marks[1]);
                }
            }
        }
    });
    voxels
}

/// The voxels `(i, j)` of `value` in slice `k` with a neighbour along an axis that holds another.
fn surface_of_plane(mask: &Mask, value: u8, k: usize) -> Vec<(usize, usize)> {
    let [ni, nj, nk] = mask.geometry.shape;
    let row = |j: usize, k: usize| &mask.voxels[ni * (j + nj * k)..][..ni];
    let mut surface = Vec::new();
    for j in 0..nj {
        let here = row(j, k);
        let around = [
            (j > 0).then(|| row(j - 1, k)),
            (j + 1 < nj).then(|| row(j + 1, k)),
            (k > 0).then(|| row(j, k - 1)),
            (k + 1 < nk).then(|| row(j, k + 1)),
        ];
        for i in (0..ni).filter(|&i| here[i] == value) {
            let sides = here[i.saturating_sub(1)] != value || here[(i + 1).min(ni - 1)] != value;
            if sides || around.iter().flatten().any(|row| row[i] != value) {
                surface.push((i, j));
            }
        }
    }
    surface
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::phantom::{ball_mask, box_mask, grid, mask, oblique_grid};

    #[test]
    fn slabs_are_marked_as_the_whole_is() {
        let geometry = oblique_grid([21, 17, 40], [0.7, 1.0, 1.5]);
        let speckle = mask(geometry, |[i, j, k]| (i * i + 3 * j + 7 * k * k) % 61 == 0);
        for value in [0, 1] {
            let marked = |slab| measure(&speckle, value, 9.0, [0, 1], slab);
            assert_eq!(marked(1), marked(usize::MAX));
            assert_eq!(marked(4 * 21 * 17), marked(usize::MAX));
        }
    }

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
        fn stamped_balls_are_those_of_the_distances(
            seed in 0_u64..200,
            radius_mm in 0.3_f64..6.0,
            value in 0_u8..2,
        ) {
            let mut state = seed;
            let speckle = mask(oblique_grid([14, 11, 9], [0.7, 1.3, 2.1]), |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % 20 < 3
            });
            let highest_mm2 = radius_mm * radius_mm * ROUNDING;
            let ball = Ball::of(speckle.geometry.spacing().mm(), highest_mm2);
            let squares = squares_within(&speckle, value, highest_mm2);
            let expected: Vec<u8> = squares.iter().map(|s| u8::from(s.is_finite())).collect();
            prop_assert_eq!(stamp(&speckle, value, &ball, [0, 1]), expected);
        }

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
