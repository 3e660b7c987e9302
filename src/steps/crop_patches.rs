//! Cuts patches for training out of where the body is.
//!
//! In: an image and, if there are, its foreground and anonymization area on the same grid. Out: a
//! folder with, for each patch, the image and its loss mask as `uint8` (1 where a network may be
//! asked to reconstruct; 0 where a de-identification tool altered the scan and outside the scan),
//! and an index as JSON lines and as a table. A patch that is larger than the scan is filled up with
//! the scan's lowest value.
//!
//! Grid sampling covers every foreground voxel with few patches; random sampling draws centres
//! uniformly over the foreground, or places uniformly among those with enough of it. The scan is
//! read once, and resampled patch by patch, so that memory stays near its size.

mod dtype;
mod format;
mod index;
mod intensity;
mod npy;
mod patch;
mod patch_shape;
mod reading;
mod sampling;
mod zarr;

use std::path::{Path, PathBuf};

use clap::Args;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file;
use crate::report::Measure;
use crate::step::{Context, FileArgument, FileKind, Step};
use crate::volume::{Spacing, Summary};
pub use dtype::Dtype;
pub use format::Format;
use format::PatchFiles;
use index::Entry;
use intensity::Intensity;
pub use intensity::{Normalization, Window};
use patch::Scan;
pub use patch_shape::PatchShape;
use sampling::{Place, Wish};

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
    /// Turn the scan to RAS and resample it to this spacing on the way [mm].
    #[arg(long, value_name = "MM,MM,MM")]
    pub spacing: Option<Spacing>,
    /// How places are chosen.
    #[arg(long, value_enum)]
    pub sampling: Sampling,
    /// Patches to draw; not for grid sampling.
    #[arg(long, value_name = "N")]
    pub count: usize,
    /// Start of the random numbers; the same seed draws the same patches.
    #[arg(long, value_name = "N")]
    pub seed: u64,
    /// Share of a patch, from 0 to 1, that must be body; some of it always is.
    #[arg(long, value_name = "SHARE")]
    pub minimum_foreground: f64,
    /// What happens to a random patch that reaches beyond the scan.
    #[arg(long, value_enum)]
    pub border: Border,
    /// What is done to intensities.
    #[arg(long, value_enum)]
    pub normalization: Normalization,
    /// Lowest and highest intensity that window normalization tells apart [the scan's units].
    #[arg(long, value_name = "LOW,HIGH", allow_hyphen_values = true)]
    pub window: Window,
    /// Type of the patches' values.
    #[arg(long, value_enum)]
    pub dtype: Dtype,
    /// File format of the patches.
    #[arg(long, value_enum)]
    pub format: Format,
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
            minimum_foreground: 0.0,
            border: Border::Shift,
            normalization: Normalization::None,
            window: Window::DEFAULT,
            dtype: Dtype::Float32,
            format: Format::Npy,
        }
    }
}

/// How the places of patches are chosen.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// So that few of them cover the foreground.
    Grid,
    /// With centres drawn uniformly over the foreground.
    Random,
    /// Drawn uniformly among all places in the scan that hold enough foreground.
    Anywhere,
}

/// What happens to a random patch that reaches beyond the scan.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Border {
    /// It is moved into the scan, as far as it takes.
    Shift,
    /// It stays where it is; outside the scan it holds the lowest value, and no loss.
    Pad,
}

/// What was done.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Patches written.
    pub count: usize,
    /// The grid that patches were cut from.
    pub grid: Summary,
    /// Foreground voxels of that grid.
    pub foreground_voxels: usize,
    /// How a patch's values came out of the scan's.
    pub intensity: Intensity,
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
        if config.dtype == Dtype::Int16 && config.normalization != Normalization::None {
            let why = "normalized values are fractions; choose --dtype float16 or float32";
            return Err(Error::Config(why.to_owned()));
        }
        if config.dtype == Dtype::Float16 && config.format == Format::Nifti {
            let why = "NIfTI has no float16; choose another --dtype, or --format npy or zarr";
            return Err(Error::Config(why.to_owned()));
        }
        Ok(())
    }

    fn run(config: &Config, context: &Context) -> Result<Report> {
        context.stage("reading");
        let scan = reading::read(config)?;
        context.stage("choosing patches");
        let places = choose(&scan, config);
        context.stage("writing patches");
        let mut entries = Vec::new();
        let fill = |folder: &Path| {
            entries = write(&scan, &places, config, folder)?;
            index::write(&entries, folder)
        };
        file::folder::write_folder(&config.output, context.overwrite, is_ours, fill)?;
        Ok(report(&scan, &places, &entries, config))
    }
}

/// True for the names of files that this step writes.
fn is_ours(name: &str) -> bool {
    name == index::LINES || name == index::TABLE || format::is_ours(name)
}

fn choose(scan: &Scan, config: &Config) -> Vec<Place> {
    let voxels: usize = config.patch_shape.voxels().iter().product();
    let least = (config.minimum_foreground * voxels as f64).ceil() as usize;
    let wish = Wish {
        patch: config.patch_shape,
        border: config.border,
        foreground: least.max(1),
    };
    let places = match config.sampling {
        Sampling::Grid => sampling::grid(&scan.foreground, wish),
        sampling => {
            let request = (sampling, config.count, config.seed);
            let places = sampling::drawn(&scan.foreground, wish, request);
            if places.len() < config.count {
                let (found, wanted) = (places.len(), config.count);
                tracing::warn!("{found} of {wanted} patches with enough foreground were found");
            }
            places
        }
    };
    if places.is_empty() {
        tracing::warn!("no patch holds enough foreground; the index is empty");
    }
    places
}

fn write(scan: &Scan, places: &[Place], config: &Config, folder: &Path) -> Result<Vec<Entry>> {
    let shape = config.patch_shape.voxels();
    let kind = (config.format, config.dtype);
    let files = PatchFiles::begin(folder, kind, (places.len(), shape))?;
    let mut entries = Vec::with_capacity(places.len());
    // What is interpolated or compressed within a patch runs on all threads too, and one that waits for
    // others would begin a further patch: then one a thread at a time.
    let alone = !scan.is_resampled() && config.format == Format::Npy;
    let together = if alone {
        places.len().max(1)
    } else {
        rayon::current_num_threads()
    };
    for some in places.chunks(together) {
        let numbered = (entries.len()..).zip(some).collect::<Vec<_>>();
        let written = numbered
            .into_par_iter()
            .with_max_len(1)
            .map(|(n, &place)| files.write(scan.cut(place, shape)?, n));
        entries.extend(written.collect::<Result<Vec<_>>>()?);
    }
    Ok(entries)
}

fn report(scan: &Scan, places: &[Place], entries: &[Entry], config: &Config) -> Report {
    let used = scan.used(places, config.patch_shape.voxels());
    let (body, covered) = (scan.foreground.count(), scan.foreground.count_shared(&used));
    let voxels = scan.grid.voxel_count();
    let whole = sampling::whole_scan_count(scan.grid.shape, config.patch_shape);
    let altered: f64 = entries.iter().map(|entry| entry.altered_share).sum();
    let altered = (!entries.is_empty()).then(|| altered / entries.len() as f64);
    Report {
        count: entries.len(),
        grid: scan.grid.summary(),
        foreground_voxels: body,
        intensity: scan.intensity,
        foreground_covered_share: Measure::share(covered, body, "the foreground is empty"),
        altered_share: Measure::new(altered, "there are no patches"),
        unused_share: (voxels - used.count()) as f64 / voxels as f64,
        whole_scan_count: whole,
        saved_share: (whole as f64 - entries.len() as f64) / whole as f64,
    }
}
