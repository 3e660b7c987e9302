//! Holes in the slices of a mask.

use std::ops::Range;

use rayon::prelude::*;

use super::runs::Runs;
use super::{Components, Connectivity, Piece};
use crate::volume::{BoundingBox, Mask};

/// Fills, in each slice across `axis` (0, 1, 2 for i, j, k), every piece of background (4-connected)
/// that does not touch the border of the slice.
pub fn fill_holes_per_slice(mask: &mut Mask, axis: usize) {
    let slices = Slices::across(mask.geometry.shape, axis);
    let voxels = &mask.voxels;
    let blocks = (0..slices.count).into_par_iter().step_by(slices.block);
    let holes: Vec<Vec<Hole>> = blocks.map(|first| slices.holes(voxels, first)).collect();
    for hole in holes.into_iter().flatten() {
        let voxels = mask.voxels[hole.start..]
            .iter_mut()
            .step_by(slices.stride_along);
        voxels.take(hole.length).for_each(|voxel| *voxel = 1);
    }
}

/// Where slices and their rows lie in memory.
struct Slices {
    count: usize,
    stride: usize,
    width: usize,
    stride_along: usize,
    height: usize,
    stride_across: usize,
    /// Slices that are gathered at once: those across i share cache lines.
    block: usize,
}

/// A run of background to fill.
struct Hole {
    start: usize,
    length: usize,
}

impl Slices {
    fn across(shape: [usize; 3], axis: usize) -> Self {
        let strides = [1, shape[0], shape[0] * shape[1]];
        let (along, across) = match axis {
            0 => (1, 2),
            1 => (0, 2),
            _ => (0, 1),
        };
        let axis = 3 - along - across;
        Self {
            count: shape[axis],
            stride: strides[axis],
            width: shape[along],
            stride_along: strides[along],
            height: shape[across],
            stride_across: strides[across],
            block: if axis == 0 { 16 } else { 1 },
        }
    }

    /// The holes of the block of slices that starts at `first`.
    fn holes(&self, voxels: &[u8], first: usize) -> Vec<Hole> {
        let planes = (first..self.count).zip(self.gather(voxels, first));
        let holes = planes.flat_map(|(slice, plane)| {
            let holes = holes_of_plane(&plane, [self.width, self.height]);
            holes.into_iter().map(move |hole| Hole {
                start: slice * self.stride
                    + hole.start % self.width * self.stride_along
                    + hole.start / self.width * self.stride_across,
                length: hole.len(),
            })
        });
        holes.collect()
    }

    /// Copies of the block of slices that starts at `first`.
    fn gather(&self, voxels: &[u8], first: usize) -> Vec<Vec<u8>> {
        let count = self.block.min(self.count - first);
        let mut planes = vec![vec![0; self.width * self.height]; count];
        for y in 0..self.height {
            for x in 0..self.width {
                let at = first * self.stride + x * self.stride_along + y * self.stride_across;
                for (n, plane) in planes.iter_mut().enumerate() {
                    plane[y * self.width + x] = voxels[at + n * self.stride];
                }
            }
        }
        planes
    }
}

/// Runs of background in pieces that do not reach the edge of the plane.
fn holes_of_plane(plane: &[u8], [width, height]: [usize; 2]) -> Vec<Range<usize>> {
    let background = Components::join(Runs::of(plane, [width, height, 1], 0), Connectivity::Six);
    let is_hole = |piece: &Piece| {
        let BoundingBox { start, end } = piece.bounding_box;
        start[0] > 0 && start[1] > 0 && end[0] < width && end[1] < height
    };
    let runs = background.runs.ranges().zip(&background.piece_of_run);
    runs.filter(|(_, piece)| is_hole(&background.pieces[**piece as usize]))
        .map(|(run, _)| run)
        .collect()
}
