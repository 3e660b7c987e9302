//! One patch: cut out of the scan, written, and described in the index.

use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::npy;
use super::sampling::Start;
use crate::error::Result;
use crate::file;
use crate::volume::{self, Affine, Geometry, Image, Mask, Samples, Shape};

/// An image and its masks on one grid.
pub(super) struct Scan {
    pub(super) image: Image,
    pub(super) foreground: Mask,
    pub(super) area: Option<Mask>,
    /// Value of a patch's voxels outside the scan: the scan's lowest.
    pub(super) padding: f32,
}

/// A piece of a scan.
pub(super) struct Patch {
    start: Start,
    geometry: Geometry,
    values: Vec<f32>,
    /// 1 where a loss may be taken.
    loss: Vec<u8>,
    foreground_share: f64,
    altered_share: f64,
}

/// A line of the index.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    /// Image file of the patch.
    name: String,
    /// Loss mask of the patch.
    loss_mask: String,
    /// Where it lies, in indices of the grid that it was cut from; half-open.
    bounding_box: Place,
    /// Index in the patch to point, RAS+ [mm].
    affine: [[f64; 4]; 4],
    /// Foreground voxels of all the patch's voxels.
    foreground_share: f64,
    /// Altered voxels of all the patch's voxels.
    pub(super) altered_share: f64,
}

/// A box that may begin before the scan and end after it.
#[derive(Clone, Copy, Debug, Serialize)]
struct Place {
    start: Start,
    end: Start,
}

/// A row of a patch that lies in the scan: where it starts in each, and how long it is.
struct Row {
    in_scan: usize,
    in_patch: usize,
    length: usize,
}

impl Scan {
    pub(super) fn new(image: Image, foreground: Mask, area: Option<Mask>) -> Self {
        let values = (0..image.samples.len()).into_par_iter();
        let padding = values
            .map(|n| image.samples.value(n))
            .reduce(|| f32::INFINITY, f32::min);
        Self {
            image,
            foreground,
            area,
            padding,
        }
    }

    pub(super) fn shape(&self) -> Shape {
        self.image.shape()
    }

    /// Foreground voxels in a patch.
    pub(super) fn foreground_voxels(&self, start: Start, patch: Shape) -> usize {
        let rows = rows(start, patch, self.shape());
        rows.map(|row| count(&self.foreground, &row)).sum()
    }

    /// 1 for each voxel that some patch holds.
    pub(super) fn used(&self, starts: &[Start], patch: Shape) -> Vec<u8> {
        let mut used = vec![0; self.foreground.voxels.len()];
        for &start in starts {
            for row in rows(start, patch, self.shape()) {
                used[row.in_scan..][..row.length].fill(1);
            }
        }
        used
    }

    pub(super) fn cut(&self, start: Start, patch: Shape) -> Patch {
        let voxels: usize = patch.iter().product();
        let mut values = vec![self.padding; voxels];
        let mut loss = vec![0; voxels];
        let (mut body, mut altered) = (0, 0);
        for row in rows(start, patch, self.shape()) {
            let place = row.in_patch..row.in_patch + row.length;
            self.image
                .samples
                .read_run(row.in_scan, &mut values[place.clone()]);
            loss[place.clone()].fill(1);
            body += count(&self.foreground, &row);
            if let Some(area) = &self.area {
                altered += count(area, &row);
                let marked = &area.voxels[row.in_scan..][..row.length];
                loss[place]
                    .iter_mut()
                    .zip(marked)
                    .for_each(|(l, m)| *l = 1 - m);
            }
        }
        Patch {
            start,
            geometry: Geometry::new(patch, moved(&self.image.geometry.affine, start)),
            values,
            loss,
            foreground_share: body as f64 / voxels as f64,
            altered_share: altered as f64 / voxels as f64,
        }
    }
}

fn count(mask: &Mask, row: &Row) -> usize {
    let voxels = &mask.voxels[row.in_scan..][..row.length];
    voxels.iter().map(|&v| usize::from(v)).sum()
}

fn moved(affine: &Affine, start: Start) -> Affine {
    Affine::from_columns(affine.columns(), affine.apply(start.map(|n| n as f64)))
}

/// The rows of a patch, as far as they lie in the scan.
fn rows(start: Start, patch: Shape, scan: Shape) -> impl Iterator<Item = Row> {
    let [i, j, k] = [0, 1, 2].map(|d| shared(start[d], patch[d], scan[d]));
    let to_scan = move |n: usize, d: usize| (n.cast_signed() + start[d]).cast_unsigned();
    let (first, length) = (i.start, i.len());
    let lines = k.flat_map(move |k| j.clone().map(move |j| (j, k)));
    lines.filter(move |_| length > 0).map(move |(j, k)| Row {
        in_scan: to_scan(first, 0) + scan[0] * (to_scan(j, 1) + scan[1] * to_scan(k, 2)),
        in_patch: first + patch[0] * (j + patch[1] * k),
        length,
    })
}

/// Indices of a patch, along one axis, that lie in the scan.
fn shared(start: isize, patch: usize, scan: usize) -> Range<usize> {
    let first = start.saturating_neg().max(0).cast_unsigned();
    let last = (scan.cast_signed() - start).max(0).cast_unsigned();
    first..patch.min(last).max(first)
}

impl Patch {
    pub(super) fn write_npy(self, folder: &Path, name: &str) -> Result<Entry> {
        let entry = self.entry(name, "npy");
        let shape = self.geometry.shape;
        file::write_whole(&folder.join(&entry.name), false, |writer| {
            npy::write(writer, "<f4", shape, &little_endian(&self.values))
        })?;
        file::write_whole(&folder.join(&entry.loss_mask), false, |writer| {
            npy::write(writer, "|u1", shape, &self.loss)
        })?;
        Ok(entry)
    }

    pub(super) fn write_nifti(self, folder: &Path, name: &str) -> Result<Entry> {
        let entry = self.entry(name, "nii.gz");
        let image = Image {
            samples: Samples::F32(self.values),
            geometry: self.geometry.clone(),
        };
        volume::write_image(&folder.join(&entry.name), &image, false)?;
        let loss = Mask {
            voxels: self.loss,
            geometry: self.geometry,
        };
        volume::write_mask(&folder.join(&entry.loss_mask), &loss, false)?;
        Ok(entry)
    }

    fn entry(&self, name: &str, ending: &str) -> Entry {
        let shape = self.geometry.shape;
        Entry {
            name: format!("{name}.{ending}"),
            loss_mask: format!("{name}_loss.{ending}"),
            bounding_box: Place {
                start: self.start,
                end: [0, 1, 2].map(|d| self.start[d] + shape[d].cast_signed()),
            },
            affine: self.geometry.summary().affine,
            foreground_share: self.foreground_share,
            altered_share: self.altered_share,
        }
    }
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(shape: Shape) -> Scan {
        let columns = [[0.0, 2.0, 0.0], [-1.5, 0.0, 0.0], [0.0, 0.0, 4.0]];
        let geometry = Geometry::new(shape, Affine::from_columns(columns, [10.0, 20.0, 30.0]));
        let count = geometry.voxel_count();
        let image = Image {
            samples: Samples::F32((0..count).map(|n| n as f32).collect()),
            geometry: geometry.clone(),
        };
        let foreground = Mask {
            voxels: vec![1; count],
            geometry: geometry.clone(),
        };
        let mut voxels = vec![0; count];
        voxels[0] = 1;
        Scan::new(image, foreground, Some(Mask { voxels, geometry }))
    }

    #[test]
    fn a_patch_inside_is_a_crop() {
        let scan = ramp([5, 4, 3]);
        let patch = scan.cut([1, 2, 1], [2, 2, 2]);
        let wanted = [31, 32, 36, 37, 51, 52, 56, 57].map(|n| n as f32);
        assert_eq!(patch.values, wanted);
        assert_eq!(patch.loss, [1; 8]);
        assert_eq!((patch.foreground_share, patch.altered_share), (1.0, 0.0));
        assert_eq!(
            patch.geometry.affine.origin(),
            [10.0 - 3.0, 20.0 + 2.0, 30.0 + 4.0]
        );
    }

    #[test]
    fn outside_the_scan_a_patch_holds_the_lowest_value_and_no_loss() {
        let scan = ramp([2, 1, 1]);
        let patch = scan.cut([-1, 0, -1], [4, 1, 2]);
        assert_eq!(patch.values, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(patch.loss, [0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!((patch.foreground_share, patch.altered_share), (0.25, 0.125));
        assert_eq!(patch.geometry.affine.origin(), [10.0, 18.0, 26.0]);
    }

    #[test]
    fn a_patch_beyond_the_scan_is_empty() {
        let scan = ramp([2, 2, 2]);
        assert_eq!(scan.foreground_voxels([5, 0, 0], [2, 2, 2]), 0);
        assert_eq!(scan.foreground_voxels([0, -9, 0], [2, 2, 2]), 0);
    }

    #[test]
    fn used_voxels_are_counted_once() {
        let scan = ramp([4, 1, 1]);
        assert_eq!(scan.used(&[[0, 0, 0], [1, 0, 0]], [2, 1, 1]), [1, 1, 1, 0]);
    }
}
