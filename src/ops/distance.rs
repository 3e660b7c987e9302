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

use rayon::prelude::*;

use self::envelope::Envelope;
use crate::volume::{Mask, Shape, Volume};

/// Columns that are gathered at once: a cache line of steps.
const COLUMNS: usize = 16;

/// Stands for the steps along one axis when there is nothing to step to.
const NOWHERE: u32 = 0xFFFF;

/// Squared distance [mm²] from each voxel's centre to that of the closest voxel of the mask: 0 inside,
/// infinite everywhere when the mask is empty.
pub fn squared_distance_mm2(mask: &Mask) -> Volume<f32> {
    let spacing = mask.geometry.spacing().mm();
    let nearest = NearestInSlice::new(&mask.voxels, mask.geometry.shape, spacing, |v| v != 0);
    Volume {
        voxels: nearest.into_squares(),
        geometry: mask.geometry.clone(),
    }
}

/// For each voxel the steps along i and j to the closest feature of its slice.
pub(super) struct NearestInSlice {
    shape: Shape,
    spacing: [f64; 3],
    /// Steps along i in the low, along j in the high half.
    steps: Vec<u32>,
}

impl NearestInSlice {
    /// Finds the closest voxels for which `is_feature` holds.
    pub fn new(
        voxels: &[u8],
        shape: Shape,
        spacing: [f64; 3],
        is_feature: impl Fn(u8) -> bool + Sync,
    ) -> Self {
        let mut steps = vec![0; voxels.len()];
        let slice = shape[0] * shape[1];
        let slices = steps.par_chunks_mut(slice).zip(voxels.par_chunks(slice));
        slices.for_each_init(Block::default, |block, (steps, voxels)| {
            let rows = steps.chunks_mut(shape[0]).zip(voxels.chunks(shape[0]));
            rows.for_each(|(steps, voxels)| step_along_row(voxels, &is_feature, steps));
            let mut rows: Vec<&mut [u32]> = steps.chunks_mut(shape[0]).collect();
            block.step_across(&mut rows, spacing);
        });
        Self {
            shape,
            spacing,
            steps,
        }
    }

    /// Squared distance in mm² for each voxel.
    fn into_squares(mut self) -> Vec<f32> {
        let [width, height, depth] = self.shape;
        let mut planes: Vec<Vec<&mut [u32]>> =
            (0..height).map(|_| Vec::with_capacity(depth)).collect();
        for (n, row) in self.steps.chunks_mut(width).enumerate() {
            planes[n % height].push(row);
        }
        let spacing = self.spacing;
        let planes = planes.into_par_iter();
        planes.for_each_init(Block::default, |block, mut rows| {
            for start in (0..width).step_by(COLUMNS) {
                let columns = COLUMNS.min(width - start);
                block.gather(&rows, start..start + columns, spacing);
                for column in block.heights.chunks_mut(depth).take(columns) {
                    block.envelope.build(column, spacing[2]);
                    block.envelope.walk(0..depth, |k, apex| {
                        column[k] =
                            apex.map_or(f64::INFINITY, |apex| apex.square_at(k, spacing[2]));
                    });
                }
                for (k, row) in rows.iter_mut().enumerate() {
                    for (c, square) in row[start..start + columns].iter_mut().enumerate() {
                        *square = (block.heights[c * depth + k] as f32).to_bits();
                    }
                }
            }
        });
        // Same size and alignment: this collects in place.
        self.steps.into_iter().map(f32::from_bits).collect()
    }

    /// Distance in mm from every voxel of `places` for which `is_query` holds to the closest feature,
    /// and what the voxel holds. The order does not depend on the number of threads.
    pub fn distances_from(
        &self,
        places: &[u8],
        is_query: impl Fn(u8) -> bool + Sync,
    ) -> Vec<(f64, u8)> {
        let [width, height, depth] = self.shape;
        let plane_distances = |block: &mut Block, j: usize| {
            let row_at = |k: usize| (j + height * k) * width..(j + height * k + 1) * width;
            let rows: Vec<&[u32]> = (0..depth).map(|k| &self.steps[row_at(k)]).collect();
            let places: Vec<&[u8]> = (0..depth).map(|k| &places[row_at(k)]).collect();
            let mut distances = Vec::new();
            for start in (0..width).step_by(COLUMNS) {
                let range = start..width.min(start + COLUMNS);
                if !places
                    .iter()
                    .any(|row| row[range.clone()].iter().any(|&v| is_query(v)))
                {
                    continue;
                }
                block.gather(&rows, range.clone(), self.spacing);
                for (i, column) in range.zip(block.heights.chunks(depth)) {
                    block.envelope.build(column, self.spacing[2]);
                    let queries = (0..depth).filter(|&k| is_query(places[k][i]));
                    block.envelope.walk(queries, |k, apex| {
                        let square =
                            apex.map_or(f64::INFINITY, |a| a.square_at(k, self.spacing[2]));
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

/// Buffers of one thread.
#[derive(Default)]
struct Block {
    /// Squared distances within a slice [mm²], column by column.
    heights: Vec<f64>,
    /// Steps along i, column by column.
    steps: Vec<u32>,
    envelope: Envelope,
}

impl Block {
    /// Gathers the squared distances of some columns of `rows`.
    fn gather<R: AsRef<[u32]>>(
        &mut self,
        rows: &[R],
        columns: std::ops::Range<usize>,
        spacing: [f64; 3],
    ) {
        self.heights.resize(COLUMNS * rows.len(), 0.0);
        for (k, row) in rows.iter().enumerate() {
            for (c, steps) in row.as_ref()[columns.clone()].iter().enumerate() {
                self.heights[c * rows.len() + k] = square_in_slice(*steps, spacing);
            }
        }
    }

    /// Turns steps along rows into steps along rows and across them.
    fn step_across(&mut self, rows: &mut [&mut [u32]], spacing: [f64; 3]) {
        let (height, width) = (rows.len(), rows.first().map_or(0, |row| row.len()));
        self.steps.resize(COLUMNS * height, 0);
        for start in (0..width).step_by(COLUMNS) {
            let columns = start..width.min(start + COLUMNS);
            self.gather(rows, columns.clone(), spacing);
            for (j, row) in rows.iter().enumerate() {
                for (c, steps) in row[columns.clone()].iter().enumerate() {
                    self.steps[c * height + j] = *steps;
                }
            }
            for (c, i) in columns.enumerate() {
                self.envelope
                    .build(&self.heights[c * height..][..height], spacing[1]);
                let steps = &self.steps[c * height..][..height];
                self.envelope.walk(0..height, |j, apex| {
                    rows[j][i] = apex.map_or(NOWHERE, |apex| {
                        steps[apex.position] | (j.abs_diff(apex.position) as u32) << 16
                    });
                });
            }
        }
    }
}

/// Steps along one row to its closest feature, either way.
fn step_along_row(voxels: &[u8], is_feature: impl Fn(u8) -> bool, steps: &mut [u32]) {
    let mut since = NOWHERE;
    for (steps, &voxel) in steps.iter_mut().zip(voxels) {
        since = if is_feature(voxel) {
            0
        } else {
            NOWHERE.min(since + 1)
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
