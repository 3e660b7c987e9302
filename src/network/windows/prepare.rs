//! From scans to the tensor that windows are cut from: crop, normalise, resample.
//!
//! # Source
//! nnU-Net 2.8.1, `DefaultPreprocessor` and `default_resampling`: F. Isensee and others,
//! doi:10.1038/s41592-020-01008-z.

use rayon::prelude::*;

use super::card::{Input, Scheme, Slices};
use crate::error::{Error, Result};
use crate::memory;
use crate::ops::components;
use crate::ops::resize::{Lengths, resize_cubic};
use crate::volume::{BoundingBox, Geometry, Image, Mask};

/// Scans of one grid as a tensor, and the way back.
pub struct Prepared {
    /// One for each channel, the last axis fastest.
    pub channels: Vec<Vec<f32>>,
    /// Voxels along the tensor's axes, the slowest first.
    pub lengths: Lengths,
    /// How the tensor lies on the scans' grid.
    pub placement: Placement,
}

/// How a tensor lies on a grid.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The voxels of the grid that it covers.
    pub bounds: BoundingBox,
    /// The grid's axis that each axis of the tensor follows.
    pub axes: [usize; 3],
    /// Voxels of the grid along the tensor's axes.
    pub native: Lengths,
    /// The axis that is resampled by itself on the way back.
    pub slice_axis: Option<usize>,
}

/// An anisotropy above this is resampled slice by slice.
const ANISOTROPIC: f64 = 3.0;
/// The least a standard deviation counts for.
const LEAST_SD: f32 = 1e-8;

/// Makes a tensor of images that lie on one grid.
///
/// `spacing` is that of i, j, k [mm].
///
/// # Errors
/// Exit 65 when an image has values that its normalisation does not allow, 75 when the tensor is too
/// large.
pub fn prepare(images: Vec<Image>, spacing: [f64; 3], input: &Input) -> Result<Prepared> {
    let geometry = images[0].geometry.clone();
    let nonzero = nonzero(&images);
    let bounds = BoundingBox::around(&nonzero.voxels, geometry.shape)
        .unwrap_or(BoundingBox::whole(geometry.shape));
    let axes = input.axes;
    let native = axes.map(|axis| bounds.shape()[axis]);
    let native_mm = axes.map(|axis| spacing[axis]);
    let lengths = [0, 1, 2].map(|d| new_length(native[d], native_mm[d], input.spacing_mm[d]));
    let bytes = (input.channels.len() * size_of::<f32>()) as f64 * memory::voxels(lengths);
    memory::check(bytes, "the network's input")?;
    let inside = inside(&nonzero, &bounds, axes, input);
    drop(nonzero);
    let slice_axis = slice_axis(native_mm, input.spacing_mm, input.slices);
    let mut channels = Vec::with_capacity(images.len());
    for (image, channel) in images.into_iter().zip(&input.channels) {
        let mut values = taken(&image, &bounds, axes);
        drop(image);
        normalize(&mut values, &channel.normalization, inside.as_deref())?;
        channels.push(resize_cubic(values, native, lengths, slice_axis));
    }
    Ok(Prepared {
        channels,
        lengths,
        placement: Placement {
            bounds,
            axes,
            native,
            slice_axis: self::slice_axis(input.spacing_mm, native_mm, input.slices),
        },
    })
}

/// Samples of another spacing over the same field of view, half to even; at least one.
fn new_length(old: usize, old_mm: f64, new_mm: f64) -> usize {
    let length = (old_mm / new_mm * old as f64).round_ties_even();
    length.max(1.0) as usize
}

/// The axis that is resampled by itself, from spacings `from` to spacings `to`: the coarse one of an
/// anisotropic grid; none where two are equally coarse.
fn slice_axis(from: [f64; 3], to: [f64; 3], slices: Slices) -> Option<usize> {
    let anisotropic = |mm: &&[f64; 3]| {
        let (low, high) = mm.iter().fold((f64::MAX, 0.0_f64), |(low, high), &mm| {
            (low.min(mm), high.max(mm))
        });
        high / low > ANISOTROPIC
    };
    let mm = match slices {
        Slices::Never => return None,
        Slices::Always => from,
        Slices::Anisotropic => **[&from, &to].iter().find(|mm| anisotropic(mm))?,
    };
    let largest = mm.iter().fold(0.0, |a: f64, &b| a.max(b));
    let mut coarse = (0..3).filter(|&d| largest / mm[d] == 1.0);
    match (coarse.next(), coarse.next()) {
        (Some(axis), None) => Some(axis),
        _ => None,
    }
}

/// 1 where some image is not 0.
fn nonzero(images: &[Image]) -> Mask {
    let geometry: Geometry = images[0].geometry.clone();
    let mut voxels = vec![0_u8; geometry.voxel_count()];
    let ni = geometry.shape[0];
    for image in images {
        let rows = voxels.par_chunks_mut(ni).enumerate();
        rows.for_each_init(
            || vec![0.0; ni],
            |values, (n, row)| {
                image.samples.read_run(n * ni, values);
                for (voxel, &value) in row.iter_mut().zip(&*values) {
                    *voxel |= u8::from(value != 0.0);
                }
            },
        );
    }
    Mask { voxels, geometry }
}

/// The voxels that z-scores within what is not 0 count, in tensor order; `None` where no channel
/// asks.
fn inside(
    nonzero: &Mask,
    bounds: &BoundingBox,
    axes: [usize; 3],
    input: &Input,
) -> Option<Vec<u8>> {
    let asked =
        |scheme: &Scheme| matches!(scheme, Scheme::ZScore { within_nonzero } if *within_nonzero);
    let mut channels = input.channels.iter();
    if !channels.any(|channel| asked(&channel.normalization)) {
        return None;
    }
    // All that lies outside the box is 0, so the box alone has the holes of the whole.
    let mut mask = nonzero.crop(bounds);
    components::fill_holes(&mut mask);
    let walk = Walk::new(&BoundingBox::whole(mask.shape()), mask.shape(), axes);
    Some(walk.values(|n| mask.voxels[n]))
}

/// The values in a box, in tensor order.
fn taken(image: &Image, bounds: &BoundingBox, axes: [usize; 3]) -> Vec<f32> {
    let walk = Walk::new(bounds, image.geometry.shape, axes);
    if walk.steps[2] != 1 {
        return walk.values(|n| image.samples.value(n));
    }
    let [_, n1, n2] = walk.lengths;
    let mut values = vec![0.0; walk.lengths.iter().product()];
    let rows = values.par_chunks_mut(n2).enumerate();
    rows.for_each(|(row, values)| {
        let start = walk.start + row / n1 * walk.steps[0] + row % n1 * walk.steps[1];
        image.samples.read_run(start, values);
    });
    values
}

/// The way through a box of a volume in the order of a tensor's axes.
pub(super) struct Walk {
    /// Place of the box's first voxel in memory.
    pub start: usize,
    /// Voxels along the tensor's axes.
    pub lengths: Lengths,
    /// How far a step along each of them goes in memory.
    pub steps: [usize; 3],
}

impl Walk {
    pub fn new(bounds: &BoundingBox, shape: [usize; 3], axes: [usize; 3]) -> Self {
        let strides = [1, shape[0], shape[0] * shape[1]];
        Self {
            start: (0..3).map(|d| bounds.start[d] * strides[d]).sum(),
            lengths: axes.map(|axis| bounds.shape()[axis]),
            steps: axes.map(|axis| strides[axis]),
        }
    }

    fn values<T: Copy + Default + Send>(&self, at: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let [_, n1, n2] = self.lengths;
        let mut values = vec![T::default(); self.lengths.iter().product()];
        let rows = values.par_chunks_mut(n2).enumerate();
        rows.for_each(|(row, values)| {
            let start = self.start + row / n1 * self.steps[0] + row % n1 * self.steps[1];
            for (n, value) in values.iter_mut().enumerate() {
                *value = at(start + n * self.steps[2]);
            }
        });
        values
    }
}

fn normalize(values: &mut [f32], scheme: &Scheme, inside: Option<&[u8]>) -> Result<()> {
    match *scheme {
        Scheme::ZScore { within_nonzero } => {
            let inside = inside.filter(|_| within_nonzero);
            z_score(values, inside);
        }
        Scheme::Ct {
            low,
            high,
            mean,
            sd,
        } => {
            let sd = sd.max(LEAST_SD);
            change(values, |v| (v.clamp(low, high) - mean) / sd);
        }
        Scheme::Rescale => {
            let [low, high] = range(values);
            // The highest value is taken after the lowest was subtracted.
            let range = (high - low).max(LEAST_SD);
            change(values, |v| (v - low) / range);
        }
        Scheme::Rgb => {
            let [low, high] = range(values);
            if low < 0.0 || high > 255.0 {
                return Err(Error::Unusable(format!(
                    "the network wants values from 0 to 255, but the scan has {low} to {high}"
                )));
            }
            change(values, |v| v / 255.0);
        }
        Scheme::None => {}
    }
    Ok(())
}

/// Values of one task; the bounds do not depend on the number of threads, so sums do not either.
const RUN: usize = 1 << 14;

fn change(values: &mut [f32], by: impl Fn(f32) -> f32 + Sync) {
    let runs = values.par_chunks_mut(RUN);
    runs.for_each(|run| run.iter_mut().for_each(|v| *v = by(*v)));
}

fn range(values: &[f32]) -> [f32; 2] {
    let nothing = [f32::INFINITY, f32::NEG_INFINITY];
    let wider = |a: [f32; 2], b: [f32; 2]| [a[0].min(b[0]), a[1].max(b[1])];
    let runs = values.par_chunks(RUN);
    let runs = runs.map(|run| run.iter().fold(nothing, |r, &v| wider(r, [v, v])));
    runs.reduce(|| nothing, wider)
}

fn z_score(values: &mut [f32], inside: Option<&[u8]>) {
    let sum = |of: &(dyn Fn(f32) -> f64 + Sync)| -> f64 {
        let runs = values.par_chunks(RUN).enumerate().map(|(n, run)| {
            let counts = |m: usize| inside.is_none_or(|inside| inside[n * RUN + m] != 0);
            let counted = run.iter().enumerate().filter(|(m, _)| counts(*m));
            counted.map(|(_, &v)| of(v)).sum::<f64>()
        });
        runs.collect::<Vec<f64>>().into_iter().sum()
    };
    let count = sum(&|_| 1.0);
    if count == 0.0 {
        return;
    }
    let mean = sum(&|v| v.into()) / count;
    let sd = (sum(&|v| (f64::from(v) - mean).powi(2)) / count).sqrt();
    let (mean, sd) = (mean as f32, (sd as f32).max(LEAST_SD));
    let runs = values.par_chunks_mut(RUN).enumerate();
    runs.for_each(|(n, run)| {
        for (m, value) in run.iter_mut().enumerate() {
            if inside.is_none_or(|inside| inside[n * RUN + m] != 0) {
                *value = (*value - mean) / sd;
            }
        }
    });
}

#[cfg(test)]
impl Prepared {
    /// One channel that covers a grid of its own, k slowest.
    pub fn of_values(values: Vec<f32>, lengths: Lengths) -> Self {
        let [nk, nj, ni] = lengths;
        Self {
            channels: vec![values],
            lengths,
            placement: Placement {
                bounds: BoundingBox::whole([ni, nj, nk]),
                axes: [2, 1, 0],
                native: lengths,
                slice_axis: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::card::{Channel, Turned};
    use super::*;
    use crate::ops::phantom::{grid, image};

    fn input(spacing_mm: [f64; 3], normalization: Scheme) -> Input {
        Input {
            orientation: Turned::Stored,
            axes: [2, 1, 0],
            spacing_mm,
            slices: Slices::Anisotropic,
            channels: vec![Channel {
                name: "MR".to_owned(),
                normalization,
            }],
        }
    }

    #[test]
    fn the_slice_axis_is_the_only_coarse_one_of_an_anisotropic_grid() {
        let auto = |from, to| slice_axis(from, to, Slices::Anisotropic);
        assert_eq!(auto([4.0, 1.0, 1.0], [1.0; 3]), Some(0));
        assert_eq!(auto([1.0; 3], [1.0, 4.0, 1.0]), Some(1));
        // The first anisotropic one decides: two coarse axes there, and it is none.
        assert_eq!(auto([4.0, 1.0, 4.0], [1.0, 4.0, 1.0]), None);
        assert_eq!(auto([3.0, 1.0, 1.0], [1.0; 3]), None);
        assert_eq!(
            slice_axis([2.0, 1.0, 1.0], [1.0; 3], Slices::Always),
            Some(0)
        );
        assert_eq!(slice_axis([9.0, 1.0, 1.0], [1.0; 3], Slices::Never), None);
    }

    #[test]
    fn lengths_are_rounded_half_to_even_and_never_0() {
        assert_eq!(new_length(5, 1.0, 2.0), 2);
        assert_eq!(new_length(7, 1.0, 2.0), 4);
        assert_eq!(new_length(1, 1.0, 5.0), 1);
    }

    #[test]
    fn a_tensor_beyond_any_memory_is_refused() {
        let scan = image(grid([6, 5, 4], [1.0; 3]), |[x, _, _]| 1.0 + x);
        let input = input([0.001; 3], Scheme::None);
        let error = prepare(vec![scan], [1000.0; 3], &input).err().unwrap();
        assert_eq!(error.exit_code(), 75);
    }

    #[test]
    fn what_is_zero_around_is_cropped_and_the_rest_has_mean_0() {
        let scan = image(grid([6, 5, 4], [1.0; 3]), |[x, y, z]| {
            let inside = (1.0..4.0).contains(&x) && y == 2.0 && (1.0..3.0).contains(&z);
            if inside { 10.0 + x + 10.0 * z } else { 0.0 }
        });
        let z_score = Scheme::ZScore {
            within_nonzero: false,
        };
        let found = prepare(vec![scan], [1.0; 3], &input([1.0; 3], z_score)).unwrap();
        assert_eq!(found.lengths, [2, 1, 3]);
        assert_eq!(found.placement.bounds.start, [1, 2, 1]);
        // 21 to 23 and 31 to 33: mean 27, variance 25 + 2/3.
        let sd = (25.0_f32 + 2.0 / 3.0).sqrt();
        let wanted = [-6.0, -5.0, -4.0, 4.0, 5.0, 6.0].map(|v| v / sd);
        for (found, wanted) in found.channels[0].iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-6);
        }
    }

    #[test]
    fn a_scan_of_zeros_is_kept_whole() {
        for normalization in [
            Scheme::ZScore {
                within_nonzero: true,
            },
            Scheme::ZScore {
                within_nonzero: false,
            },
            Scheme::Rescale,
        ] {
            let scan = image(grid([6, 5, 1], [1.0; 3]), |_| 0.0);
            let found = prepare(vec![scan], [1.0; 3], &input([2.0; 3], normalization)).unwrap();
            assert_eq!(found.lengths, [1, 2, 3]);
            assert!(found.channels[0].iter().all(|&v| v == 0.0));
        }
    }

    #[test]
    fn z_scores_within_what_is_not_0_leave_the_rest() {
        // A hole in the middle counts as inside.
        let scan = image(grid([5, 5, 5], [1.0; 3]), |[x, y, z]| {
            let ring = [x, y, z]
                .iter()
                .map(|v| (v - 2.0).abs())
                .fold(0.0, f64::max);
            if ring == 1.0 { 27.0 } else { 0.0 }
        });
        let within = Scheme::ZScore {
            within_nonzero: true,
        };
        let found = prepare(vec![scan], [1.0; 3], &input([1.0; 3], within)).unwrap();
        // 26 voxels of 27 and one of 0: mean 26, variance 26.
        let wanted = [1.0 / 26.0_f32.sqrt(), -26.0 / 26.0_f32.sqrt()];
        let found = &found.channels[0];
        assert!((found[0] - wanted[0]).abs() < 1e-6 && (found[13] - wanted[1]).abs() < 1e-5);
    }

    #[test]
    fn axes_are_turned_as_the_card_says() {
        let scan = image(grid([2, 3, 4], [1.0; 3]), |[x, y, z]| {
            1.0 + x + 10.0 * y + 100.0 * z
        });
        let mut input = input([1.0; 3], Scheme::None);
        input.axes = [1, 2, 0];
        let found = prepare(vec![scan], [1.0; 3], &input).unwrap();
        assert_eq!(found.lengths, [3, 4, 2]);
        // j slowest, then k, then i.
        assert_eq!(found.channels[0][..4], [1.0, 2.0, 101.0, 102.0]);
        assert_eq!(found.channels[0][8], 11.0);
    }
}
