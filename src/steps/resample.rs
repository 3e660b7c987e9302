//! Puts a volume on a new voxel grid.
//!
//! In: one volume. Out: the same field of view at another spacing, in another orientation, or on the
//! grid of another volume, stored in the same type. A change of orientation alone moves voxels and
//! computes nothing. Interpolation and averaging: see [`crate::ops::interpolate`].

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::memory;
use crate::ops::interpolate::{self, Coarsening, Interpolation, Resampling};
use crate::step::{Context, FileArgument, FileKind, Step};
use crate::volume::{self, Geometry, Image, LabelMap, Orientation, Samples, Spacing, Summary};

/// The step.
pub struct Resample;

/// Put a volume on a new voxel grid.
#[derive(Clone, Debug, Default, Args, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["input", "output"]))]
pub struct Config {
    /// Volume to resample (`.nii`, `.nii.gz` or `.hdr` with `.img`).
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Resampled volume to write (`.nii` or `.nii.gz`).
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Distance between voxel centres along i, j, k of the output [mm].
    #[arg(long, value_name = "MM,MM,MM")]
    pub spacing: Option<Spacing>,
    /// Volume whose grid the output takes over, instead of a spacing or an orientation.
    #[arg(long, value_name = "FILE")]
    pub like: Option<PathBuf>,
    /// Which way i, j, k of the output run, such as RAS or LPS.
    #[arg(long, value_name = "LETTERS")]
    pub orientation: Option<Orientation>,
    /// How values between voxels are found; nearest for label maps and masks.
    #[arg(long, value_enum)]
    pub interpolation: Interpolation,
    /// What happens along axes that coarsen, unless the interpolation is nearest.
    #[arg(long, value_enum)]
    pub coarsening: Coarsening,
    /// Value outside the input [the input's lowest value if not given].
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    pub fill_value: Option<f32>,
    /// Frame of a 4-D input to take, counted from 0.
    #[arg(long, value_name = "N")]
    pub frame: Option<usize>,
}

/// What was done.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Grid of the input.
    pub input: Summary,
    /// Grid of the output.
    pub output: Summary,
    /// Value that voxels outside the input took, had there been any.
    pub fill_value: f32,
}

impl Step for Resample {
    const NAME: &'static str = "resample";
    const ABOUT: &'static str = "Put a volume on a new voxel grid";
    type Config = Config;
    type Report = Report;

    fn files(config: &Config) -> Vec<FileArgument<'_>> {
        vec![
            FileArgument::required("input", "image", FileKind::Input, &config.input),
            FileArgument::optional("like", "grid", FileKind::Input, config.like.as_deref()),
            FileArgument::required("output", "image", FileKind::Output, &config.output),
        ]
    }

    fn validate(config: &Config) -> Result<()> {
        let wrong = |why: &str| Err(Error::Config(why.to_owned()));
        let changes = config.spacing.is_some() || config.orientation.is_some();
        match (changes, config.like.is_some()) {
            (false, false) => {
                return wrong("nothing to do: give --spacing, --orientation or --like");
            }
            (true, true) => {
                return wrong(
                    "--like decides the whole grid; leave out --spacing and --orientation",
                );
            }
            _ => {}
        }
        if config.fill_value.is_some_and(|value| !value.is_finite()) {
            return wrong("--fill-value must be a finite number");
        }
        volume::check_output_name(&config.output)
    }

    fn run(config: &Config, context: &Context) -> Result<Report> {
        context.stage("reading");
        let image = volume::read_image(&config.input, config.frame)?;
        let input = image.geometry.summary();
        // The lowest value is the background of most images and label maps.
        let fill_value = config
            .fill_value
            .unwrap_or_else(|| image.samples.range()[0]);
        let like = config.like.as_deref().map(volume::read_geometry);
        let grid = target(&image.geometry, config, like.transpose()?);
        // Of 16 bits at least.
        let bytes = size_of::<i16>() as f64 * memory::voxels(grid.shape);
        memory::check(bytes, "the volume on the new grid")?;
        context.stage("resampling");
        let output = match wide_labels(&image, config, fill_value)? {
            Some(labels) => {
                let labels = interpolate::resample_labels(&labels, &grid)?;
                volume::write_label_map(&config.output, &labels, context.overwrite)?;
                labels.geometry.summary()
            }
            None => {
                let image = resample(image, &grid, config, fill_value)?;
                volume::write_image(&config.output, &image, context.overwrite)?;
                image.geometry.summary()
            }
        };
        Ok(Report {
            input,
            output,
            fill_value,
        })
    }
}

/// The grid of the output: that of another volume, or the same field of view laid out anew.
fn target(grid: &Geometry, config: &Config, like: Option<Geometry>) -> Geometry {
    if let Some(like) = like {
        return like;
    }
    let turned = config.orientation.map(|o| grid.reoriented(o));
    let turned = turned.unwrap_or_else(|| grid.clone());
    config
        .spacing
        .map_or(turned.clone(), |spacing| turned.with_spacing(spacing))
}

fn resample(image: Image, grid: &Geometry, config: &Config, fill_value: f32) -> Result<Image> {
    match config.orientation {
        Some(orientation) if config.spacing.is_none() => Ok(image.oriented(orientation)),
        _ => {
            let resampling = Resampling {
                interpolation: config.interpolation,
                coarsening: config.coarsening,
                fill_value,
            };
            interpolate::resample(&image, grid, resampling)
        }
    }
}

/// Labels that do not fit [`Image`] exactly: integers beyond 16 bits would pass through `f32`, so a
/// nearest resampling reads them again as what they are.
fn wide_labels(image: &Image, config: &Config, fill_value: f32) -> Result<Option<LabelMap>> {
    let is_wide = matches!(image.samples, Samples::F32(_));
    let nearest = config.interpolation == Interpolation::Nearest;
    if !is_wide || !nearest || fill_value != 0.0 || config.frame.is_some() {
        return Ok(None);
    }
    match volume::read_label_map(&config.input) {
        Ok(labels) => Ok(Some(labels)),
        // No label map but an image, whose values f32 holds.
        Err(Error::InputUnusable { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}
