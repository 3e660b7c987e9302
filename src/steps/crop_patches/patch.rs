//! One patch: cut out of the scan, or interpolated from it, with its loss mask.

use super::index::{Entry, Shares};
use super::intensity::Intensity;
use super::sampling::{self, Place, Start};
use crate::error::Result;
use crate::ops::interpolate;
use crate::ops::packed_mask::PackedMask;
use crate::volume::{Affine, BoundingBox, Geometry, Image, Shape};

/// An image as it was read, and its masks on the grid that patches are cut from.
pub(super) struct Scan {
    pub(super) image: Image,
    /// The image's own grid, or the one that it is resampled to patch by patch.
    pub(super) grid: Geometry,
    pub(super) foreground: PackedMask,
    pub(super) area: Option<PackedMask>,
    /// Intensity of a patch's voxels outside the scan: the scan's lowest.
    pub(super) padding: f32,
    pub(super) intensity: Intensity,
}

/// A piece of a scan.
pub(super) struct Patch {
    place: Place,
    pub(super) geometry: Geometry,
    /// Normalised, `i` fastest.
    pub(super) values: Vec<f32>,
    /// 1 where a loss may be taken.
    pub(super) loss: Vec<u8>,
    shares: Shares,
}

impl Scan {
    /// 1 for each voxel that some patch holds.
    pub(super) fn used(&self, places: &[Place], patch: Shape) -> PackedMask {
        let mut used = PackedMask::empty(self.grid.shape);
        let boxes = places.iter().map(|place| self.within(place, patch));
        boxes.flatten().for_each(|bounds| used.fill(&bounds));
        used
    }

    /// Whether patches are interpolated, not cut out.
    pub(super) fn is_resampled(&self) -> bool {
        self.grid != self.image.geometry
    }

    /// The patch of a place.
    ///
    /// # Errors
    /// Those of [`interpolate::resample_values`].
    pub(super) fn cut(&self, place: Place, patch: Shape) -> Result<Patch> {
        let grid = &self.grid;
        let geometry = Geometry {
            shape: patch,
            affine: moved(&grid.affine, place.start),
            stored: grid.stored,
        };
        let mut values = if self.is_resampled() {
            interpolate::resample_values(&self.image, &geometry, self.padding)?
        } else {
            self.copied(place.start, patch)
        };
        self.intensity.apply(&mut values);
        let voxels = patch.iter().product::<usize>() as f64;
        let count = |mask: &PackedMask| {
            let within = self.within(&place, patch);
            within.map_or(0, |bounds| mask.count_in(&bounds)) as f64
        };
        Ok(Patch {
            place,
            geometry,
            values,
            loss: self.loss(place.start, patch),
            shares: Shares {
                foreground: count(&self.foreground) / voxels,
                altered: self.area.as_ref().map_or(0.0, count) / voxels,
            },
        })
    }

    fn within(&self, place: &Place, patch: Shape) -> Option<BoundingBox> {
        sampling::within(place.start, patch, self.grid.shape)
    }

    /// The scan's voxels, and the padding outside it.
    fn copied(&self, start: Start, patch: Shape) -> Vec<f32> {
        let mut values = vec![self.padding; patch.iter().product()];
        for row in rows(start, patch, self.grid.shape) {
            let run = &mut values[row.in_patch..][..row.length];
            let [i, j, k] = row.in_scan;
            self.image
                .samples
                .read_run(self.grid.offset([i, j, k]), run);
        }
        values
    }

    /// 1 in the scan where nothing was altered.
    fn loss(&self, start: Start, patch: Shape) -> Vec<u8> {
        let mut loss = vec![0; patch.iter().product()];
        for row in rows(start, patch, self.grid.shape) {
            let run = &mut loss[row.in_patch..][..row.length];
            run.fill(1);
            let [first, j, k] = row.in_scan;
            let Some(area) = &self.area else { continue };
            let bits = area.row(j, k);
            let touched = &bits[first / 64..(first + row.length).div_ceil(64)];
            if touched.iter().all(|&word| word == 0) {
                continue;
            }
            for (i, loss) in (first..).zip(run) {
                *loss = u8::from(bits[i / 64] >> (i % 64) & 1 == 0);
            }
        }
        loss
    }
}

impl Patch {
    /// Its line of the index; number and names are still to be set.
    pub(super) fn entry(&self) -> Entry {
        Entry::new(self.place, &self.geometry, self.shares)
    }
}

fn moved(affine: &Affine, start: Start) -> Affine {
    Affine::from_columns(affine.columns(), affine.apply(start.map(|n| n as f64)))
}

/// A row of a patch that lies in the scan: where it starts in each, and how long it is.
struct Row {
    in_scan: [usize; 3],
    in_patch: usize,
    length: usize,
}

/// The rows of a patch, as far as they lie in the scan.
fn rows(start: Start, patch: Shape, scan: Shape) -> impl Iterator<Item = Row> {
    let bounds = sampling::within(start, patch, scan).into_iter();
    bounds.flat_map(move |bounds| {
        let to_patch = move |n: usize, d: usize| (n.cast_signed() - start[d]).cast_unsigned();
        let [i, j, k] = [0, 1, 2].map(|d| bounds.start[d]..bounds.end[d]);
        let lines = k.flat_map(move |k| j.clone().map(move |j| (j, k)));
        lines.map(move |(j, k)| Row {
            in_scan: [i.start, j, k],
            in_patch: to_patch(i.start, 0)
                + patch[0] * (to_patch(j, 1) + patch[1] * to_patch(k, 2)),
            length: i.len(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Orientation, Samples, Spacing};

    fn ramp(shape: Shape) -> Scan {
        let columns = [[0.0, 2.0, 0.0], [-1.5, 0.0, 0.0], [0.0, 0.0, 4.0]];
        let grid = Geometry::new(shape, Affine::from_columns(columns, [10.0, 20.0, 30.0]));
        let count = grid.voxel_count();
        let mut altered = vec![0; count];
        altered[0] = 1;
        Scan {
            image: Image {
                samples: Samples::F32((0..count).map(|n| n as f32).collect()),
                geometry: grid.clone(),
            },
            grid,
            foreground: PackedMask::full(shape),
            area: Some(PackedMask::of(&altered, shape)),
            padding: 0.0,
            intensity: Intensity::AS_IT_IS,
        }
    }

    fn at(start: Start) -> Place {
        Place {
            start,
            centre: None,
        }
    }

    fn shares(foreground: f64, altered: f64) -> Shares {
        Shares {
            foreground,
            altered,
        }
    }

    #[test]
    fn a_patch_inside_is_a_crop() {
        let patch = ramp([5, 4, 3]).cut(at([1, 2, 1]), [2, 2, 2]).unwrap();
        let wanted = [31, 32, 36, 37, 51, 52, 56, 57].map(|n| n as f32);
        assert_eq!(patch.values, wanted);
        assert_eq!(patch.loss, [1; 8]);
        assert_eq!(patch.shares, shares(1.0, 0.0));
        assert_eq!(
            patch.geometry.affine.origin(),
            [10.0 - 3.0, 20.0 + 2.0, 30.0 + 4.0]
        );
    }

    #[test]
    fn outside_the_scan_a_patch_holds_the_lowest_value_and_no_loss() {
        let patch = ramp([2, 1, 1]).cut(at([-1, 0, -1]), [4, 1, 2]).unwrap();
        assert_eq!(patch.values, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(patch.loss, [0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(patch.shares, shares(0.25, 0.125));
        assert_eq!(patch.geometry.affine.origin(), [10.0, 18.0, 26.0]);
    }

    #[test]
    fn a_patch_beyond_the_scan_is_empty() {
        let scan = ramp([2, 2, 2]);
        for start in [[5, 0, 0], [0, -9, 0]] {
            let patch = scan.cut(at(start), [2, 2, 2]).unwrap();
            assert_eq!((patch.loss, patch.values), (vec![0; 8], vec![0.0; 8]));
            assert_eq!(patch.shares, shares(0.0, 0.0));
        }
    }

    #[test]
    fn an_interpolated_patch_is_a_crop_of_the_interpolated_scan() {
        let mut scan = ramp([9, 8, 7]);
        let turned = scan.grid.reoriented(Orientation::RAS);
        scan.grid = turned.with_spacing(Spacing::try_from([1.2, 1.1, 3.0]).unwrap());
        scan.foreground = PackedMask::full(scan.grid.shape);
        scan.area = None;
        let whole = interpolate::resample_values(&scan.image, &scan.grid, 0.0).unwrap();
        let patch = scan.cut(at([2, 3, 1]), [5, 4, 3]).unwrap();
        let wanted = (0..60).map(|n| {
            let place = scan.grid.offset([2 + n % 5, 3 + n / 5 % 4, 1 + n / 20]);
            whole[place]
        });
        for (found, wanted) in patch.values.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-3, "{found}, expected {wanted}");
        }
    }

    #[test]
    fn altered_voxels_of_long_rows_are_found_and_those_beside_the_patch_are_not() {
        let shape = [200, 1, 1];
        let mut scan = ramp(shape);
        let mut altered = vec![0; 200];
        // In the words of the patch, but outside it; then inside, at both ends of a word.
        for (patch_altered, places) in [(vec![], [65, 169]), (vec![61, 62], [127, 128])] {
            altered.fill(0);
            places.iter().for_each(|&n| altered[n] = 1);
            scan.area = Some(PackedMask::of(&altered, shape));
            let patch = scan.cut(at([66, 0, 0]), [103, 1, 1]).unwrap();
            let found = patch.loss.iter().enumerate().filter(|(_, v)| **v == 0);
            assert_eq!(found.map(|(n, _)| n).collect::<Vec<_>>(), patch_altered);
        }
    }

    #[test]
    fn used_voxels_are_counted_once() {
        let used = ramp([4, 1, 1]).used(&[at([0, 0, 0]), at([1, 0, 0])], [2, 1, 1]);
        assert_eq!(used, PackedMask::of(&[1, 1, 1, 0], [4, 1, 1]));
    }
}
