//! Half-open boxes of voxels.

use serde::{Deserialize, Serialize};

use super::Shape;

/// Voxels from `start` up to, but without, `end`, in indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BoundingBox {
    /// First voxel along i, j, k.
    pub start: [usize; 3],
    /// One past the last voxel along i, j, k.
    pub end: [usize; 3],
}

impl BoundingBox {
    /// The whole of a grid.
    pub fn whole(shape: Shape) -> Self {
        Self {
            start: [0; 3],
            end: shape,
        }
    }

    /// The smallest box round every voxel that is not 0; `None` when there is none.
    ///
    /// `voxels` lie `i` fastest; their number is the product of `shape`.
    pub fn around(voxels: &[u8], shape: Shape) -> Option<Self> {
        let [ni, nj, _] = shape;
        let mut found: Option<Self> = None;
        for (row, values) in voxels.chunks_exact(ni.max(1)).enumerate() {
            let Some(first) = values.iter().position(|&v| v != 0) else {
                continue;
            };
            let last = values.iter().rposition(|&v| v != 0).unwrap_or(first);
            let (j, k) = (row % nj, row / nj);
            let here = Self {
                start: [first, j, k],
                end: [last + 1, j + 1, k + 1],
            };
            found = Some(found.map_or(here, |grown| grown.union(&here)));
        }
        found
    }

    /// Voxels along i, j, k; 0 where `end` does not lie beyond `start`.
    pub fn shape(&self) -> Shape {
        [0, 1, 2].map(|d| self.end[d].saturating_sub(self.start[d]))
    }

    /// Number of voxels.
    pub fn voxel_count(&self) -> usize {
        self.shape().iter().product()
    }

    /// True when no voxel of the box lies outside a grid of `shape`, and at least one inside.
    pub fn fits(&self, shape: Shape) -> bool {
        (0..3).all(|d| self.start[d] < self.end[d] && self.end[d] <= shape[d])
    }

    /// True when the voxel lies in the box.
    pub fn contains(&self, index: [usize; 3]) -> bool {
        (0..3).all(|d| (self.start[d]..self.end[d]).contains(&index[d]))
    }

    /// The smallest box round both.
    pub fn union(&self, other: &Self) -> Self {
        Self {
            start: [0, 1, 2].map(|d| self.start[d].min(other.start[d])),
            end: [0, 1, 2].map(|d| self.end[d].max(other.end[d])),
        }
    }

    /// The box grown by `margin` voxels on every side, as far as a grid of `shape` goes.
    pub fn grown(&self, margin: [usize; 3], shape: Shape) -> Self {
        Self {
            start: [0, 1, 2].map(|d| self.start[d].saturating_sub(margin[d])),
            end: [0, 1, 2].map(|d| self.end[d].saturating_add(margin[d]).min(shape[d])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_round_two_voxels_holds_both_and_no_more() {
        let mut voxels = vec![0; 4 * 5 * 6];
        voxels[1 + 4 * (2 + 5 * 3)] = 1;
        voxels[3 + 4 * 4] = 7;
        let found = BoundingBox::around(&voxels, [4, 5, 6]).unwrap();
        assert_eq!(found.start, [1, 2, 0]);
        assert_eq!(found.end, [4, 5, 4]);
        assert_eq!(found.shape(), [3, 3, 4]);
        assert_eq!(found.voxel_count(), 36);
    }

    #[test]
    fn an_empty_mask_has_no_box() {
        assert_eq!(BoundingBox::around(&[0; 8], [2, 2, 2]), None);
    }

    #[test]
    fn growing_stops_at_the_grid() {
        let start = BoundingBox {
            start: [1, 5, 2],
            end: [3, 6, 4],
        };
        let grown = start.grown([2, 1, 9], [10, 6, 8]);
        assert_eq!(grown.start, [0, 4, 0]);
        assert_eq!(grown.end, [5, 6, 8]);
        assert!(grown.fits([5, 6, 8]));
        assert!(!grown.fits([4, 6, 8]));
        assert!(grown.contains([4, 5, 7]));
        assert!(!grown.contains([5, 5, 7]));
    }
}
