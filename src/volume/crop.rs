//! Taking a box of voxels out of a volume, and putting it back.

use super::{BoundingBox, Geometry, Image, Samples, Scaled, Shape, Volume};

impl<T: Copy> Volume<T> {
    /// The voxels in `bounds`, which must fit the volume; each keeps its place in the world.
    pub fn crop(&self, bounds: &BoundingBox) -> Self {
        Self {
            voxels: cropped(&self.voxels, &self.geometry, bounds),
            geometry: self.geometry.crop(bounds),
        }
    }

    /// Puts the voxels of `piece` where its voxel `[0, 0, 0]` is this volume's voxel `start`; what
    /// lies outside this volume is left out.
    pub fn paste(&mut self, piece: &Self, start: [usize; 3]) {
        let shape = self.shape();
        let kept: Shape = [0, 1, 2].map(|d| {
            let room = shape[d].saturating_sub(start[d]);
            piece.shape()[d].min(room)
        });
        for k in 0..kept[2] {
            for j in 0..kept[1] {
                let from = piece.offset([0, j, k]);
                let to = self.offset([start[0], start[1] + j, start[2] + k]);
                self.voxels[to..to + kept[0]].copy_from_slice(&piece.voxels[from..from + kept[0]]);
            }
        }
    }
}

impl Image {
    /// The voxels in `bounds`, which must fit the image; each keeps its place in the world and its
    /// stored value.
    pub fn crop(&self, bounds: &BoundingBox) -> Self {
        let grid = &self.geometry;
        Self {
            samples: match &self.samples {
                Samples::I16(scaled) => Samples::I16(scaled.cropped(grid, bounds)),
                Samples::U16(scaled) => Samples::U16(scaled.cropped(grid, bounds)),
                Samples::F32(values) => Samples::F32(cropped(values, grid, bounds)),
            },
            geometry: grid.crop(bounds),
        }
    }
}

impl<T: Copy> Scaled<T> {
    fn cropped(&self, grid: &Geometry, bounds: &BoundingBox) -> Self {
        Self {
            stored: cropped(&self.stored, grid, bounds),
            slope: self.slope,
            intercept: self.intercept,
        }
    }
}

fn cropped<T: Copy>(voxels: &[T], grid: &Geometry, bounds: &BoundingBox) -> Vec<T> {
    let [ni, nj, nk] = bounds.shape();
    let [start_i, start_j, start_k] = bounds.start;
    let mut kept = Vec::with_capacity(bounds.voxel_count());
    for k in start_k..start_k + nk {
        for j in start_j..start_j + nj {
            let first = grid.offset([start_i, j, k]);
            kept.extend_from_slice(&voxels[first..first + ni]);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::geometry::tests::{assert_close, oblique};
    use super::*;

    #[test]
    fn a_crop_holds_the_voxels_of_the_box() {
        let volume = Volume {
            voxels: (0..960).collect(),
            geometry: oblique(),
        };
        let bounds = BoundingBox {
            start: [8, 11, 6],
            end: [10, 12, 8],
        };
        let piece = volume.crop(&bounds);
        // 8 + 10 * 11 + 120 * 6 = 838
        assert_eq!(piece.voxels, [838, 839, 958, 959]);
        assert_close(
            piece.geometry.affine.origin(),
            volume.geometry.affine.apply([8.0, 11.0, 6.0]),
        );
        let mut empty = volume.clone();
        empty.voxels.fill(-1);
        empty.paste(&piece, bounds.start);
        assert_eq!(empty.crop(&bounds), piece);
        assert_eq!(empty.voxels.iter().filter(|&&v| v >= 0).count(), 4);
    }

    #[test]
    fn what_is_pasted_beyond_the_edge_is_left_out() {
        let mut volume = Volume {
            voxels: vec![0; 960],
            geometry: oblique(),
        };
        let mut piece = volume.clone();
        piece.voxels.fill(1);
        volume.paste(&piece, [9, 11, 7]);
        assert_eq!(volume.voxels.iter().sum::<i32>(), 1);
        assert_eq!(volume.voxels[959], 1);
    }
}
