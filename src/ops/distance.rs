//! Exact Euclidean distances on a grid with its own spacing along each axis.
//!
//! Distances are kept as whole steps along i and j, found one axis after the other, and turned into
//! millimetres with the last axis; nothing is rounded on the way. The axes are taken to be
//! perpendicular, and no axis may be longer than 65,535 voxels.
//!
//! # Source
//! Felzenszwalb and Huttenlocher, «Distance transforms of sampled functions», Theory of Computing 8,
//! 2012, doi:10.4086/toc.2012.v008a019.

mod envelope;

use std::ops::Range;

use rayon::prelude::*;

use self::envelope::Envelope;
use crate::volume::{Mask, Shape, Volume};

/// Columns that are gathered at once: a cache line of steps.
const COLUMNS: usize = 16;

/// Space between gathered columns, so that those of 512 voxels do not crowd the same cache lines.
const GAP: usize = 8;

/// Stands for the steps along one axis when there is nothing to step to.
const NOWHERE: u32 = 0xFFFF;

/// Squared distance [mm²] from each voxel's centre to that of the closest voxel of the mask: 0 inside,
/// infinite everywhere when the mask is empty.
pub fn squared_distance_mm2(mask: &Mask) -> Volume<f32> {
    Volume {
        voxels: squares_within(mask, 1, f64::INFINITY),
        geometry: mask.geometry.clone(),
    }
}

/// Squared distance [mm²] to the closest voxel of `value`, infinite where it is larger than
/// `highest_mm2`.
pub(super) fn squares_within(mask: &Mask, value: u8, highest_mm2: f64) -> Vec<f32> {
    let grid = Grid {
        shape: mask.geometry.shape,
        spacing: mask.geometry.spacing().mm(),
        highest_mm2,
    };
    NearestInSlice::new(&mask.voxels, grid, |voxel| voxel == value).into_squares()
}

/// What distances are measured on.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// Voxels along i, j, k.
    pub shape: Shape,
    /// Distance between them [mm].
    pub spacing: [f64; 3],
    /// Squared distance that is of no interest any more [mm²].
    pub highest_mm2: f64,
}

/// For each voxel the steps along i and j to the closest feature of its slice.
pub(super) struct NearestInSlice {
    grid: Grid,
    /// Steps along i in the low, along j in the high half.
    steps: Vec<u32>,
}

impl NearestInSlice {
    /// Finds the closest voxels for which `is_feature` holds.
    pub fn new(voxels: &[u8], grid: Grid, is_feature: impl Fn(u8) -> bool + Sync) -> Self {
        let mut steps = vec![0; voxels.len()];
        let [width, height, _] = grid.shape;
        let slices = steps
            .par_chunks_mut(width * height)
            .zip(voxels.par_chunks(width * height));
        slices.for_each_init(Block::default, |block, (steps, voxels)| {
            let rows = steps.chunks_mut(width).zip(voxels.chunks(width));
            rows.for_each(|(steps, voxels)| step_along_row(voxels, &is_feature, steps));
            let mut rows: Vec<&mut [u32]> = steps.chunks_mut(width).collect();
            block.step_across(&mut rows, &grid);
        });
        Self { grid, steps }
    }

    /// Squared distance in mm² for each voxel.
    fn into_squares(mut self) -> Vec<f32> {
        let grid = self.grid;
        let [width, height, depth] = grid.shape;
        let mut planes: Vec<Vec<&mut [u32]>> =
            (0..height).map(|_| Vec::with_capacity(depth)).collect();
        for (n, row) in self.steps.chunks_mut(width).enumerate() {
            planes[n % height].push(row);
        }
        let planes = planes.into_par_iter();
        planes.for_each_init(Block::default, |block, mut rows| {
            for start in (0..width).step_by(COLUMNS) {
                block.square_across(&mut rows, start..width.min(start + COLUMNS), &grid);
            }
        });
        // Same size and alignment: this collects in place.
        self.steps.into_iter().map(f32::from_bits).collect()
    }

    /// Distance in mm from every voxel of `places` for which `is_query` holds to the closest feature,
    /// and what the voxel holds; nothing without features. The order does not depend on the number of
    /// threads.
    pub fn distances_from(
        &self,
        places: &[u8],
        is_query: impl Fn(u8) -> bool + Sync,
    ) -> Vec<(f64, u8)> {
        let [width, height, depth] = self.grid.shape;
        let plane_distances = |block: &mut Block, j: usize| {
            let row_at = |k: usize| (j + height * k) * width..(j + height * k + 1) * width;
            let rows: Vec<&[u32]> = (0..depth).map(|k| &self.steps[row_at(k)]).collect();
            let places: Vec<&[u8]> = (0..depth).map(|k| &places[row_at(k)]).collect();
            let mut distances = Vec::new();
            for start in (0..width).step_by(COLUMNS) {
                let range = start..width.min(start + COLUMNS);
                let asks = |row: &&[u8]| row[range.clone()].iter().any(|&v| is_query(v));
                if !places.iter().any(asks) {
                    continue;
                }
                block.gather(&rows, range.clone(), &self.grid);
                for (i, column) in range.zip(block.heights.chunks(depth + GAP)) {
                    let column = &column[..depth];
                    block
                        .envelope
                        .build(column, self.grid.spacing[2], f64::INFINITY);
                    let queries = (0..depth).filter(|&k| is_query(places[k][i]));
                    block.envelope.walk(queries, |k, _, square| {
                        distances.push((square.sqrt(), places[k][i]));
                    });
                }
            }
            distances
        };
        let planes = (0..height).into_par_iter();
        let distances: Vec<_> = planes.map_init(Block::default, plane_distances).collect();
        distances.into_iter().flatten().collect()
    }
}

/// Buffers of one thread, column by column with a [`GAP`] between them.
#[derive(Default)]
struct Block {
    /// Squared distances within a slice [mm²].
    heights: Vec<f64>,
    /// Steps along i.
    steps: Vec<u32>,
    /// What becomes of a column.
    result: Vec<u32>,
    envelope: Envelope,
}

impl Block {
    /// Gathers the squared distances of some columns of `rows`.
    fn gather<R: AsRef<[u32]>>(&mut self, rows: &[R], columns: Range<usize>, grid: &Grid) {
        let stride = rows.len() + GAP;
        self.heights.resize(COLUMNS * stride, 0.0);
        for (k, row) in rows.iter().enumerate() {
            for (c, steps) in row.as_ref()[columns.clone()].iter().enumerate() {
                self.heights[c * stride + k] = square_in_slice(*steps, grid.spacing);
            }
        }
    }

    /// Writes results back to some columns of `rows`.
    fn scatter(&self, rows: &mut [&mut [u32]], columns: Range<usize>) {
        let stride = rows.len() + GAP;
        for (k, row) in rows.iter_mut().enumerate() {
            for (c, value) in row[columns.clone()].iter_mut().enumerate() {
                *value = self.result[c * stride + k];
            }
        }
    }

    /// Turns steps along rows into steps along rows and across them.
    fn step_across(&mut self, rows: &mut [&mut [u32]], grid: &Grid) {
        let (height, width) = (rows.len(), grid.shape[0]);
        let stride = height + GAP;
        self.steps.resize(COLUMNS * stride, 0);
        self.result.resize(COLUMNS * stride, 0);
        for start in (0..width).step_by(COLUMNS) {
            let columns = start..width.min(start + COLUMNS);
            self.gather(rows, columns.clone(), grid);
            for (j, row) in rows.iter().enumerate() {
                for (c, steps) in row[columns.clone()].iter().enumerate() {
                    self.steps[c * stride + j] = *steps;
                }
            }
            self.result.fill(NOWHERE);
            for c in 0..columns.len() {
                let column = c * stride..c * stride + height;
                let steps = &self.steps[column.clone()];
                let result = &mut self.result[column.clone()];
                let heights = &self.heights[column];
                self.envelope
                    .build(heights, grid.spacing[1], grid.highest_mm2);
                self.envelope.walk(0..height, |j, apex, _| {
                    result[j] = steps[apex] | (j.abs_diff(apex) as u32) << 16;
                });
            }
            self.scatter(rows, columns);
        }
    }

    /// Turns steps within slices into the bits of squared distances across slices.
    fn square_across(&mut self, rows: &mut [&mut [u32]], columns: Range<usize>, grid: &Grid) {
        let depth = rows.len();
        let stride = depth + GAP;
        self.gather(rows, columns.clone(), grid);
        self.result.resize(COLUMNS * stride, 0);
        self.result.fill(f32::INFINITY.to_bits());
        for c in 0..columns.len() {
            let column = c * stride..c * stride + depth;
            let result = &mut self.result[column.clone()];
            let heights = &self.heights[column];
            self.envelope
                .build(heights, grid.spacing[2], grid.highest_mm2);
            self.envelope.walk(0..depth, |k, _, square| {
                if square <= grid.highest_mm2 {
                    result[k] = (square as f32).to_bits();
                }
            });
        }
        self.scatter(rows, columns);
    }
}

/// Steps along one row to its closest feature, either way.
fn step_along_row(voxels: &[u8], is_feature: impl Fn(u8) -> bool, steps: &mut [u32]) {
    let mut since = NOWHERE;
    for (steps, &voxel) in steps.iter_mut().zip(voxels) {
        since = match is_feature(voxel) {
            true => 0,
            false => NOWHERE.min(since + 1),
        };
        *steps = since;
    }
    since = NOWHERE;
    for steps in steps.iter_mut().rev() {
        since = (*steps).min(since + 1);
        *steps = since;
    }
}

fn square_in_slice(steps: u32, spacing: [f64; 3]) -> f64 {
    let (along_i, along_j) = (steps & NOWHERE, steps >> 16);
    if along_i == NOWHERE {
        return f64::INFINITY;
    }
    (f64::from(along_i) * spacing[0]).powi(2) + (f64::from(along_j) * spacing[1]).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{box_mask, grid, mask, oblique_grid};

    /// The closest voxel by trying all.
    fn brute_force(mask: &Mask) -> Vec<f64> {
        let [width, height, _] = mask.shape();
        let spacing = mask.geometry.spacing().mm();
        let index = |n: usize| [n % width, n / width % height, n / width / height];
        let features: Vec<_> = (0..mask.voxels.len())
            .filter(|&n| mask.voxels[n] == 1)
            .map(index)
            .collect();
        let square = |a: [usize; 3], b: [usize; 3]| {
            (0..3)
                .map(|d| (a[d].abs_diff(b[d]) as f64 * spacing[d]).powi(2))
                .sum::<f64>()
        };
        let closest = |n| {
            features
                .iter()
                .map(|&f| square(index(n), f))
                .fold(f64::INFINITY, f64::min)
        };
        (0..mask.voxels.len()).map(closest).collect()
    }

    #[test]
    fn distances_from_a_box_are_those_to_its_face_edge_and_corner() {
        let geometry = oblique_grid([8, 7, 6], [1.0, 2.0, 3.0]);
        let solid = box_mask(geometry.clone(), [2, 2, 2], [5, 5, 4]);
        let squares = squared_distance_mm2(&solid).voxels;
        assert_eq!(squares[geometry.offset([3, 3, 3])], 0.0);
        assert_eq!(squares[geometry.offset([0, 3, 3])], 4.0);
        assert_eq!(squares[geometry.offset([0, 6, 3])], 4.0 + 16.0);
        assert_eq!(squares[geometry.offset([7, 0, 5])], 9.0 + 16.0 + 36.0);
    }

    #[test]
    fn an_empty_mask_is_infinitely_far() {
        let empty = mask(grid([3, 4, 5], [1.0; 3]), |_| false);
        assert!(
            squared_distance_mm2(&empty)
                .voxels
                .iter()
                .all(|&d| d == f32::INFINITY)
        );
    }

    #[test]
    fn scattered_voxels_give_what_trying_all_gives() {
        for (shape, share) in [
            ([17, 13, 19], 97),
            ([40, 1, 7], 31),
            ([1, 35, 2], 9),
            ([3, 4, 5], 2),
        ] {
            let mut state = 7_u64;
            let scattered = mask(oblique_grid(shape, [0.7, 1.3, 2.9]), |_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33).is_multiple_of(share)
            });
            let found = squared_distance_mm2(&scattered).voxels;
            for (found, expected) in found.iter().zip(brute_force(&scattered)) {
                assert!(
                    (f64::from(*found) - expected).abs() <= 1e-6 * expected,
                    "{found} {expected}"
                );
            }
        }
    }
}
