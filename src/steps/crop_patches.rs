//! Cuts patches for training out of where the body is.
//!
//! In: an image and, if there are, its foreground and anonymization area on the same grid. Out: a
//! folder with, for each patch, the image as `float32`, its loss mask as `uint8` (1 where a network
//! may be asked to reconstruct; 0 where a de-identification tool altered the scan and outside the
//! scan), and a line of `index.jsonl`. A patch that is larger than the scan is filled up with the
//! scan's lowest value.
//!
//! Grid sampling covers every foreground voxel with few patches; random sampling draws centres
//! uniformly over the foreground and moves a patch only as far as it takes to stay in the scan.

mod npy;
mod patch;
mod patch_shape;
mod sampling;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file;
use crate::ops::interpolate::{self, Resampling};
use crate::report::Measure;
use crate::step::{Context, FileArgument, FileKind, Step};
use crate::volume::{self, BoundingBox, Image, Mask, Orientation, Samples, Scaled};
use crate::volume::{Geometry, Spacing, Summary};
use patch::{Entry, Scan};
pub use patch_shape::PatchShape;
use sampling::{Draw, Start};

/// The step.
pub struct CropPatches;

/// Cut patches for training out of where the body is.
#[derive(Clone, Debug, Args, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["input", "output"]))]
pub struct Config {
    /// Image to cut patches out of (`.nii`, `.nii.gz` or `.hdr` with `.img`).
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Folder to make and fill.
    #[arg(long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Mask of the body on the image's grid; without it every voxel counts as body.
    #[arg(long, value_name = "FILE")]
    pub foreground: Option<PathBuf>,
    /// Mask of the altered voxels on the image's grid; without it nothing counts as altered.
    #[arg(long, value_name = "FILE")]
    pub anonymization_area: Option<PathBuf>,
    /// Voxels of a patch along i, j, k.
    #[arg(long, value_name = "I,J,K")]
    pub patch_shape: PatchShape,
    /// Turn the scan to RAS and resample it to this spacing first [mm].
    #[arg(long, value_name = "MM,MM,MM")]
    pub spacing: Option<Spacing>,
    /// How places are chosen.
    #[arg(long, value_enum)]
    pub sampling: Sampling,
    /// Patches to draw; random sampling only.
    #[arg(long, value_name = "N")]
    pub count: usize,
    /// Start of the random numbers; the same seed draws the same patches.
    #[arg(long, value_name = "N")]
    pub seed: u64,
    /// File format of the patches.
    #[arg(long, value_enum)]
    pub format: Format,
    /// Share of a patch, from 0 to 1, that must be body.
    #[arg(long, value_name = "SHARE")]
    pub minimum_foreground: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            input: PathBuf::new(),
            output: PathBuf::new(),
            foreground: None,
            anonymization_area: None,
            patch_shape: PatchShape::DEFAULT,
            spacing: None,
            sampling: Sampling::Grid,
            count: 8,
            seed: 0,
            format: Format::Npy,
            minimum_foreground: 0.0,
        }
    }
}

/// How the places of patches are chosen.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Evenly, so that they cover the foreground.
    Grid,
    /// With centres drawn uniformly over the foreground.
    Random,
}

/// File format of the patches.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// NumPy arrays of shape (I, J, K).
    Npy,
    /// NIfTI with the patch's place in the world, `.nii.gz`.
    Nifti,
}

/// How often a patch with too little foreground is drawn anew.
const DRAWS: usize = 100;

/// Steps of a share when a mask is averaged on the way to a coarser grid.
const SHARES: i16 = 1000;

/// What was done.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Patches written.
    pub count: usize,
    /// The grid that patches were cut from.
    pub grid: Summary,
    /// Foreground voxels that lie in at least one patch, of all foreground voxels.
    pub foreground_covered_share: Measure,
    /// Altered voxels in the patches, of all their voxels.
    pub altered_share: Measure,
    /// Voxels of the scan that no patch holds, of all its voxels.
    pub unused_share: f64,
    /// Patches that it would take to cover the whole scan.
    pub whole_scan_count: usize,
    /// Patches less than for the whole scan, of those: the saving in each pass over the data.
    pub saved_share: f64,
}

impl Step for CropPatches {
    const NAME: &'static str = "crop-patches";
    const ABOUT: &'static str = "Cut patches for training out of where the body is";
    type Config = Config;
    type Report = Report;

    fn files(config: &Config) -> Vec<FileArgument<'_>> {
        let foreground = config.foreground.as_deref();
        let area = config.anonymization_area.as_deref();
        vec![
            FileArgument::required("input", "image", FileKind::Input, &config.input),
            FileArgument::optional("foreground", "foreground_mask", FileKind::Input, foreground),
            FileArgument::optional(
                "anonymization_area",
                "anonymization_area",
                FileKind::Input,
                area,
            ),
            FileArgument::required("output", "patches", FileKind::OutputFolder, &config.output),
        ]
    }

    fn validate(config: &Config) -> Result<()> {
        if config.count == 0 {
            return Err(Error::Config("--count must be at least 1".to_owned()));
        }
        if !(0.0..=1.0).contains(&config.minimum_foreground) {
            let why = "--minimum-foreground must be a share from 0 to 1";
            return Err(Error::Config(why.to_owned()));
        }
        Ok(())
    }

    fn run(config: &Config, context: &Context) -> Result<Report> {
        context.stage("reading");
        let scan = read(config)?;
        let scan = match config.spacing {
            Some(spacing) => resampled(scan, spacing)?,
            None => scan,
        };
        context.stage("choosing patches");
        let starts = choose(&scan, config);
        if starts.is_empty() {
            tracing::warn!("no patch holds enough foreground; the index is empty");
        }
        context.stage("writing patches");
        let mut entries = Vec::new();
        let fill = |folder: &Path| {
            entries = write(&scan, &starts, config, folder)?;
            write_index(&entries, folder)
        };
        file::folder::write_folder(&config.output, context.overwrite, is_ours, fill)?;
        Ok(report(&scan, &starts, &entries, config))
    }
}

/// True for the names of files that this step writes.
fn is_ours(name: &str) -> bool {
    name == INDEX || name.starts_with("patch_")
}

const INDEX: &str = "index.jsonl";

fn read(config: &Config) -> Result<Scan> {
    let image = volume::read_image(&config.input, None)?;
    let mask = |path: &PathBuf| -> Result<Mask> {
        let mask = volume::read_mask(path)?;
        if !mask.geometry.same_grid(&image.geometry) {
            return Err(Error::unusable(path, "does not lie on the image's grid"));
        }
        Ok(mask)
    };
    let foreground = config.foreground.as_ref().map(mask).transpose()?;
    let area = config.anonymization_area.as_ref().map(mask).transpose()?;
    let foreground = foreground.unwrap_or_else(|| Mask {
        voxels: vec![1; image.geometry.voxel_count()],
        geometry: image.geometry.clone(),
    });
    Ok(Scan::new(image, foreground, area))
}

/// The scan in RAS at another spacing. Of the body counts what is at least half body; as altered,
/// what has any part altered, since it went into the mean.
fn resampled(scan: Scan, spacing: Spacing) -> Result<Scan> {
    let image = scan.image.oriented(Orientation::RAS);
    let grid = image.geometry.with_spacing(spacing);
    let resampling = Resampling {
        fill_value: scan.padding,
        ..Resampling::LINEAR
    };
    let image = interpolate::resample(&image, &grid, resampling)?;
    let foreground = with_share(scan.foreground, &grid, SHARES / 2)?;
    let area = scan.area.map(|area| with_share(area, &grid, 1));
    Ok(Scan::new(image, foreground, area.transpose()?))
}

/// Voxels of `grid` of which at least `least` parts in [`SHARES`] lie in the mask.
fn with_share(mask: Mask, grid: &Geometry, least: i16) -> Result<Mask> {
    let mask = mask.oriented(Orientation::RAS);
    let stored = mask.voxels.par_iter().map(|&v| i16::from(v) * SHARES);
    let shares = Image {
        samples: Samples::I16(Scaled {
            stored: stored.collect(),
            slope: 1.0,
            intercept: 0.0,
        }),
        geometry: mask.geometry,
    };
    let shares = interpolate::resample(&shares, grid, Resampling::LINEAR)?;
    let Samples::I16(shares) = shares.samples else {
        return Err(Error::Bug("resampling changed the type".to_owned()));
    };
    let voxels = shares.stored.par_iter().map(|&v| u8::from(v >= least));
    Ok(Mask {
        voxels: voxels.collect(),
        geometry: grid.clone(),
    })
}

fn choose(scan: &Scan, config: &Config) -> Vec<Start> {
    let patch = config.patch_shape;
    let volume: usize = patch.voxels().iter().product();
    let least = config.minimum_foreground * volume as f64;
    let enough = |start: &Start| {
        let inside = scan.foreground_voxels(*start, patch.voxels());
        inside > 0 && inside as f64 >= least
    };
    match config.sampling {
        Sampling::Grid => {
            let bounds = BoundingBox::around(&scan.foreground.voxels, scan.shape());
            let starts = bounds.map(|b| sampling::grid(&b, patch, scan.shape()));
            let starts = starts.unwrap_or_default().into_par_iter();
            starts.filter(enough).collect()
        }
        Sampling::Random => {
            let mut draw = Draw::new(&scan.foreground, patch, config.seed);
            (0..config.count)
                .filter_map(|_| (0..DRAWS).map_while(|_| draw.next()).find(&enough))
                .collect()
        }
    }
}

fn write(scan: &Scan, starts: &[Start], config: &Config, folder: &Path) -> Result<Vec<Entry>> {
    let numbered = starts.par_iter().enumerate();
    numbered
        .map(|(n, &start)| {
            let patch = scan.cut(start, config.patch_shape.voxels());
            let name = format!("patch_{n:04}");
            match config.format {
                Format::Npy => patch.write_npy(folder, &name),
                Format::Nifti => patch.write_nifti(folder, &name),
            }
        })
        .collect()
}

fn write_index(entries: &[Entry], folder: &Path) -> Result<()> {
    let mut lines = String::new();
    for entry in entries {
        let line = serde_json::to_string(entry).map_err(|e| Error::Bug(e.to_string()))?;
        let _ = writeln!(lines, "{line}");
    }
    let write = |writer: &mut dyn std::io::Write| writer.write_all(lines.as_bytes());
    file::write_whole(&folder.join(INDEX), false, write)
}

fn report(scan: &Scan, starts: &[Start], entries: &[Entry], config: &Config) -> Report {
    let patch = config.patch_shape;
    let used = scan.used(starts, patch.voxels());
    let voxels = scan.foreground.voxels.par_iter().zip(&used);
    let (body, covered) = voxels
        .map(|(&body, &used)| (usize::from(body), usize::from(body & used)))
        .reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let used_count: usize = used.par_iter().map(|&v| usize::from(v)).sum();
    let whole = sampling::grid(&BoundingBox::whole(scan.shape()), patch, scan.shape()).len();
    let altered: f64 = entries.iter().map(|entry| entry.altered_share).sum();
    let altered = (!entries.is_empty()).then(|| altered / entries.len() as f64);
    Report {
        count: entries.len(),
        grid: scan.image.geometry.summary(),
        foreground_covered_share: Measure::share(covered, body, "the foreground is empty"),
        altered_share: Measure::new(altered, "there are no patches"),
        unused_share: (used.len() - used_count) as f64 / used.len() as f64,
        whole_scan_count: whole,
        saved_share: (whole as f64 - entries.len() as f64) / whole as f64,
    }
}
