//! Putting a volume on another grid.
//!
//! A voxel's value stands for its centre, and a volume reaches half a voxel beyond its outermost
//! centres: in that rim the edge goes on (as in ITK), beyond it lies the fill value. Grids whose axes
//! are parallel, whatever their order and direction, are resampled axis by axis; others voxel by
//! voxel.
//!
//! # Source
//! Cubic B-splines: Unser, «Splines: a perfect fit for signal and image processing», IEEE Signal
//! Processing Magazine 16(6), 1999, doi:10.1109/79.799930.

mod grid_map;
mod oblique;
mod prefilter;
mod sample;
mod separable;
mod taps;

use serde::{Deserialize, Serialize};

use self::grid_map::GridMap;
use self::sample::Sample;
use self::taps::Kernel;
use crate::error::{Error, Result};
use crate::volume::{Geometry, Image, Mask, Volume};
use crate::volume::{Samples, Scaled};

/// How values between voxel centres are found.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// The value of the closest voxel; half-way, that of the higher index.
    Nearest,
    /// A straight line between neighbours.
    #[default]
    Linear,
    /// A cubic B-spline through all voxels (mirrored at the edge).
    Cubic,
}

/// What happens along an axis on which the new voxels are larger than the old ones.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Coarsening {
    /// The mean over the new voxel: noise falls and no detail is skipped.
    #[default]
    Average,
    /// The value at the new voxel's centre, as most resamplers give it.
    Sample,
}

/// How to resample an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resampling {
    /// How values between voxel centres are found.
    pub interpolation: Interpolation,
    /// What happens along axes that coarsen; `Nearest` never averages.
    pub coarsening: Coarsening,
    /// Real value outside the image.
    pub fill_value: f32,
}

impl Resampling {
    /// Linear, averaging where it coarsens, 0 outside.
    pub const LINEAR: Self = Self {
        interpolation: Interpolation::Linear,
        coarsening: Coarsening::Average,
        fill_value: 0.0,
    };
}

/// Puts an image on `grid`, in the type that it is stored in: integers are rounded (half to even)
/// and held within their type.
///
/// Averaging takes the integral of the interpolated image over a box along each axis on which the
/// spacing grows `w > 1` times. The box is `sqrt(w² - 1)` old voxels wide: an old voxel is already a
/// mean over its own width, and variances of widths add up. A ramp stays a ramp, and `w = 1` changes
/// nothing.
///
/// # Errors
/// [`Error::Config`] when the fill value does not fit the stored type or the image's affine cannot be
/// inverted.
pub fn resample(image: &Image, grid: &Geometry, resampling: Resampling) -> Result<Image> {
    let map = GridMap::between(&image.geometry, grid)?;
    let samples = match &image.samples {
        Samples::I16(scaled) => Samples::I16(resample_scaled(scaled, &map, resampling)?),
        Samples::U16(scaled) => Samples::U16(resample_scaled(scaled, &map, resampling)?),
        Samples::F32(values) => Samples::F32(resample_stored(values, &map, resampling)),
    };
    Ok(Image {
        samples,
        geometry: grid.clone(),
    })
}

/// Puts labels (or a mask) on `grid`: each voxel takes the label of the closest one; `T::default()`,
/// the background, lies outside.
///
/// # Errors
/// [`Error::Config`] when the affine cannot be inverted.
pub fn resample_labels<T>(labels: &Volume<T>, grid: &Geometry) -> Result<Volume<T>>
where
    T: Copy + Default + Send + Sync,
{
    let map = GridMap::between(&labels.geometry, grid)?;
    let voxels = match map.axes() {
        Some(axes) => separable::nearest(&labels.voxels, &map, &axes, T::default()),
        None => oblique::nearest(&labels.voxels, &map, T::default()),
    };
    Ok(Volume {
        voxels,
        geometry: grid.clone(),
    })
}

/// Interpolates real values (a network's logits, say) linearly at the voxels of `grid` and marks
/// those above `threshold`; nothing lies outside. Only the mask is ever held, not the values on the
/// new grid.
///
/// # Errors
/// [`Error::Config`] when the affine cannot be inverted.
pub fn resample_above(values: &Volume<f32>, grid: &Geometry, threshold: f32) -> Result<Mask> {
    let map = GridMap::between(&values.geometry, grid)?;
    let fill = f32::NEG_INFINITY;
    let mark = |value: f32| u8::from(value > threshold);
    let voxels = match map.axes() {
        Some(axes) => {
            let plan = separable::Plan::new(&map, &axes, Kernel::Linear, Coarsening::Sample);
            separable::interpolate(&values.voxels, &plan, fill, mark)
        }
        None => oblique::linear(&values.voxels, &map, fill, mark),
    };
    Ok(Mask {
        voxels,
        geometry: grid.clone(),
    })
}

/// Real values of an image at the voxels of `grid`, linearly and averaged where it coarsens, `i`
/// fastest; not rounded to the type that the image is stored in. `fill` lies outside.
///
/// # Errors
/// As [`resample`].
pub fn resample_values(image: &Image, grid: &Geometry, fill: f32) -> Result<Vec<f32>> {
    let map = GridMap::between(&image.geometry, grid)?;
    let Some(axes) = map.axes() else {
        return resample_real(image, grid, fill);
    };
    let plan = separable::Plan::new(&map, &axes, Kernel::Linear, Coarsening::Average);
    Ok(match &image.samples {
        Samples::I16(scaled) => interpolate_real(scaled, &plan, fill),
        Samples::U16(scaled) => interpolate_real(scaled, &plan, fill),
        Samples::F32(values) => separable::interpolate(values, &plan, fill, |value| value),
    })
}

fn interpolate_real<T: Sample>(scaled: &Scaled<T>, plan: &separable::Plan, fill: f32) -> Vec<f32> {
    let (slope, intercept) = (scaled.slope, scaled.intercept);
    let fill = (fill - intercept) / slope;
    separable::interpolate(&scaled.stored, plan, fill, |v| slope * v + intercept)
}

fn resample_real(image: &Image, grid: &Geometry, fill_value: f32) -> Result<Vec<f32>> {
    let mut values = vec![0.0; image.samples.len()];
    image.samples.read_run(0, &mut values);
    let resampling = Resampling {
        fill_value,
        ..Resampling::LINEAR
    };
    let map = GridMap::between(&image.geometry, grid)?;
    Ok(resample_stored(&values, &map, resampling))
}

/// Marks the voxels of `grid` of which at least the share `least` lies in the mask.
///
/// # Errors
/// As [`resample`].
pub fn resample_share(mask: &Mask, grid: &Geometry, least: f32) -> Result<Mask> {
    let map = GridMap::between(&mask.geometry, grid)?;
    let mark = |share: f32| u8::from(share >= least);
    let voxels = match map.axes() {
        Some(axes) => {
            let plan = separable::Plan::new(&map, &axes, Kernel::Linear, Coarsening::Average);
            separable::interpolate(&mask.voxels, &plan, 0.0, mark)
        }
        None => {
            let values: Vec<f32> = mask.voxels.iter().map(|&v| v.into()).collect();
            let shares = resample_stored(&values, &map, Resampling::LINEAR);
            shares.into_iter().map(mark).collect()
        }
    };
    Ok(Mask {
        voxels,
        geometry: grid.clone(),
    })
}

/// Resamples stored integers: a weighted mean commutes with slope and intercept.
fn resample_scaled<T: Sample>(
    scaled: &Scaled<T>,
    map: &GridMap,
    resampling: Resampling,
) -> Result<Scaled<T>> {
    let fill_value = (resampling.fill_value - scaled.intercept) / scaled.slope;
    if !T::holds(fill_value) {
        return Err(Error::Config(format!(
            "fill value {} does not fit the image's {} voxels; choose one within their range",
            resampling.fill_value,
            T::NAME
        )));
    }
    let resampling = Resampling {
        fill_value,
        ..resampling
    };
    Ok(Scaled {
        stored: resample_stored(&scaled.stored, map, resampling),
        slope: scaled.slope,
        intercept: scaled.intercept,
    })
}

fn resample_stored<T: Sample>(source: &[T], map: &GridMap, resampling: Resampling) -> Vec<T> {
    let fill = resampling.fill_value;
    let axes = map.axes();
    let kernel = match resampling.interpolation {
        Interpolation::Nearest => {
            return match axes {
                Some(axes) => separable::nearest(source, map, &axes, T::from_f32(fill)),
                None => oblique::nearest(source, map, T::from_f32(fill)),
            };
        }
        Interpolation::Linear => Kernel::Linear,
        Interpolation::Cubic => Kernel::Cubic,
    };
    match axes {
        Some(axes) => {
            let plan = separable::Plan::new(map, &axes, kernel, resampling.coarsening);
            separable::interpolate(source, &plan, fill, T::from_f32)
        }
        None => oblique::interpolate(source, map, kernel, resampling),
    }
}

#[cfg(test)]
mod tests;
