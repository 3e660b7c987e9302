//! A scan and its masks from their files: the masks, one after the other and packed at once, beside
//! the scan where there are threads and memory, else before it, so that little more than the scan, or
//! than the scan and one mask, is ever held.

use std::path::Path;

use super::Config;
use super::dtype::{self, Dtype};
use super::intensity::{Intensity, Normalization};
use super::patch::Scan;
use crate::error::{Error, Result};
use crate::memory;
use crate::ops::interpolate;
use crate::ops::packed_mask::PackedMask;
use crate::volume::{self, BoundingBox, Geometry, Image, Mask, Orientation};

/// Bytes of a voxel of the scan and of a mask while both are read; files of wider types take more.
const BESIDE: f64 = 5.0;
/// Slices of a mask that are resampled in one go.
const SLAB: usize = 16;
/// Share of a new voxel that must be body for it to count as body.
const HALF: f32 = 0.5;
/// Share of a new voxel that makes it altered: any part, since it went into the mean.
const ANY: f32 = 0.001;

/// A mask on the image's own grid, and on that of the patches.
struct Masks {
    native: PackedMask,
    on_grid: PackedMask,
}

/// Reads what a configuration names.
pub(super) fn read(config: &Config) -> Result<Scan> {
    let native = volume::read_geometry(&config.input)?;
    let grid = match config.spacing {
        Some(spacing) => native.reoriented(Orientation::RAS).with_spacing(spacing),
        None => native.clone(),
    };
    check_memory(config, &grid)?;
    for path in [&config.anonymization_area, &config.foreground] {
        let Some(path) = path else { continue };
        if !volume::read_geometry(path)?.same_grid(&native) {
            // An image that is no good has itself to blame, not its mask.
            volume::read_image(&config.input, None)?;
            return Err(Error::unusable(path, "does not lie on the image's grid"));
        }
    }
    let read_mask = |path: &Path, least| {
        let mask = volume::read_mask(path)?;
        Masks::pack(mask.voxels, (&native, &grid), least)
    };
    let read_masks = || {
        let area = config.anonymization_area.as_deref();
        let area = area.map(|path| read_mask(path, ANY)).transpose()?;
        let foreground = match &config.foreground {
            Some(path) => read_mask(path, HALF)?,
            None => Masks {
                native: PackedMask::full(native.shape),
                on_grid: PackedMask::full(grid.shape),
            },
        };
        Ok::<_, Error>((area, foreground))
    };
    let read_image = || volume::read_image(&config.input, None);
    let both = BESIDE * memory::voxels(native.shape);
    let beside = rayon::current_num_threads() > 1 && memory::suffices(both);
    let ((area, foreground), image) = if beside {
        let (masks, image) = rayon::join(read_masks, read_image);
        (masks?, image?)
    } else {
        (read_masks()?, read_image()?)
    };
    let range = image.samples.range();
    let altered = area.as_ref().map(|area| &area.native);
    let intensity = intensity(config, &image, &foreground.native, altered)?;
    check_dtype(config, &image, range.map(|v| intensity.of(v)))?;
    Ok(Scan {
        image,
        grid,
        foreground: foreground.on_grid,
        area: area.map(|area| area.on_grid),
        padding: range[0],
        intensity,
    })
}

/// Refuses a grid whose mask, and a patch that as such, would fill the memory.
fn check_memory(config: &Config, grid: &Geometry) -> Result<()> {
    memory::check(memory::voxels(grid.shape) / 8.0, "the mask on the new grid")?;
    // Values of 32 bits and a loss mask.
    let patch = 5.0 * memory::voxels(config.patch_shape.voxels());
    memory::check(patch, "a patch")
}

impl Masks {
    /// Packs the voxels of a mask on the image's grid, and what of them lies on that of the patches.
    fn pack(voxels: Vec<u8>, (native, grid): (&Geometry, &Geometry), least: f32) -> Result<Self> {
        let packed = PackedMask::of(&voxels, native.shape);
        let on_grid = if grid == native {
            packed.clone()
        } else {
            // Of the two headers the image's counts, so that its voxels and the mask's stay together.
            let geometry = native.clone();
            resampled(&Mask { voxels, geometry }, grid, least)?
        };
        Ok(Self {
            native: packed,
            on_grid,
        })
    }
}

/// The mask on another grid, some slices at a time.
fn resampled(mask: &Mask, grid: &Geometry, least: f32) -> Result<PackedMask> {
    let [ni, nj, nk] = grid.shape;
    let mut packed = PackedMask::empty([ni, nj, 0]);
    for k in (0..nk).step_by(SLAB) {
        let slab = grid.crop(&BoundingBox {
            start: [0, 0, k],
            end: [ni, nj, (k + SLAB).min(nk)],
        });
        let slices = interpolate::resample_share(mask, &slab, least)?;
        packed.append(&PackedMask::of(&slices.voxels, slab.shape));
    }
    Ok(packed)
}

fn intensity(
    config: &Config,
    image: &Image,
    foreground: &PackedMask,
    area: Option<&PackedMask>,
) -> Result<Intensity> {
    match config.normalization {
        Normalization::None => Ok(Intensity::AS_IT_IS),
        Normalization::Window => Ok(Intensity::of_window(config.window)),
        // Without foreground there will be no patch.
        Normalization::ZScore if foreground.count() == 0 => Ok(Intensity::AS_IT_IS),
        Normalization::ZScore => Intensity::of_z_score(&image.samples, foreground, area)
            .ok_or_else(|| {
                let why = "has no two different values in its unaltered foreground, so that \
                    z-scores cannot be had; choose --normalization none";
                Error::unusable(&config.input, why)
            }),
    }
}

fn check_dtype(config: &Config, image: &Image, range: [f32; 2]) -> Result<()> {
    if let Some(why) = config.dtype.misfit(range) {
        return Err(Error::unusable(&config.input, why));
    }
    if config.dtype == Dtype::Int16 && !dtype::is_whole(&image.samples) {
        let why =
            "holds fractions, which int16 would round away; choose --dtype float16 or float32";
        return Err(Error::unusable(&config.input, why));
    }
    Ok(())
}
