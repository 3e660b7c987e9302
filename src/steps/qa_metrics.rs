//! Measures a mask or label map, against a reference if there is one.
//!
//! In: a prediction; if there are, a reference, the image and voxels to leave out, all on one grid.
//! Out: the report alone. The definitions of the measures stand beside the code that computes them,
//! in [`crate::ops::overlap`] and [`crate::ops::surface`].

mod mask;
mod scores;

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::step::{Context, FileArgument, FileKind, Step};
use crate::volume::{self, Geometry, Image, Mask, Summary};
pub use mask::{Facts, Side};
use scores::Labels;
pub use scores::{Comparison, Scores};

/// The step.
pub struct QaMetrics;

/// Measure a mask or label map, against a reference if there is one.
#[derive(Clone, Debug, Args, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["input"]))]
pub struct Config {
    /// Mask or label map to measure (`.nii`, `.nii.gz` or `.hdr` with `.img`).
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Mask or label map that it should equal, on the same grid.
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,
    /// Image that the mask belongs to, for the values inside and outside.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Mask of voxels that are neither right nor wrong; they count as background on both sides.
    #[arg(long, value_name = "FILE")]
    pub ignore: Option<PathBuf>,
    /// Distance up to which surfaces agree in the surface Dice `nsd` [mm].
    #[arg(long, value_name = "MM")]
    pub tolerance_mm: f64,
    /// Labels to measure [all but 0 if not given].
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub label: Vec<i32>,
    /// Dice that every label must reach.
    #[arg(long, value_name = "DICE")]
    pub min_dice: Option<f64>,
    /// 95th percentile of the surface distance that no label may exceed [mm].
    #[arg(long, value_name = "MM")]
    pub max_hd95_mm: Option<f64>,
    /// Surface Dice that every label must reach.
    #[arg(long, value_name = "NSD")]
    pub min_nsd: Option<f64>,
    /// Whether a missed threshold ends with exit code 1.
    #[arg(long, value_enum)]
    pub strict: Strict,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            input: PathBuf::new(),
            reference: None,
            image: None,
            ignore: None,
            tolerance_mm: 2.0,
            label: Vec::new(),
            min_dice: None,
            max_hd95_mm: None,
            min_nsd: None,
            strict: Strict::Off,
        }
    }
}

/// Whether a missed threshold ends with exit code 1.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Strict {
    /// It does.
    On,
    /// It is only reported.
    Off,
}

/// Labels that a label map may have; brain atlases have some hundreds.
const MOST_LABELS: usize = 2000;

/// What was measured.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The grid of the mask.
    pub grid: Summary,
    /// What the mask alone tells: all labels that were asked for, as one.
    pub mask: Facts,
    /// What the comparison tells, if there is a reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Thresholds that were missed, each in a sentence.
    pub missed: Vec<String>,
}

impl Step for QaMetrics {
    const NAME: &'static str = "qa-metrics";
    const ABOUT: &'static str = "Measure a mask or label map, against a reference if there is one";
    type Config = Config;
    type Report = Report;

    fn files(config: &Config) -> Vec<FileArgument<'_>> {
        let (reference, image) = (config.reference.as_deref(), config.image.as_deref());
        let ignore = config.ignore.as_deref();
        vec![
            FileArgument::required("input", "prediction", FileKind::Input, &config.input),
            FileArgument::optional("reference", "reference", FileKind::Input, reference),
            FileArgument::optional("image", "image", FileKind::Input, image),
            FileArgument::optional("ignore", "ignored", FileKind::Input, ignore),
        ]
    }

    fn validate(config: &Config) -> Result<()> {
        let wrong = |why: String| Err(Error::Config(why));
        if !(config.tolerance_mm.is_finite() && config.tolerance_mm >= 0.0) {
            return wrong("--tolerance-mm must be a number from 0".to_owned());
        }
        let thresholds = [
            ("min-dice", config.min_dice, 1.0),
            ("max-hd95-mm", config.max_hd95_mm, f64::MAX),
            ("min-nsd", config.min_nsd, 1.0),
        ];
        for (flag, value, most) in thresholds {
            let Some(value) = value else { continue };
            if !(0.0..=most).contains(&value) {
                return wrong(format!("--{flag} {value} lies outside what can be reached"));
            }
            if config.reference.is_none() {
                return wrong(format!("--{flag} needs --reference"));
            }
        }
        if config.label.contains(&0) {
            return wrong("--label 0 is the background; name another".to_owned());
        }
        Ok(())
    }

    fn run(config: &Config, context: &Context) -> Result<Report> {
        context.stage("reading");
        let (prediction, reference) = read_labels(config)?;
        let grid = prediction.geometry().clone();
        let ignored = config.ignore.as_deref().map(|p| read_ignored(p, &grid));
        let ignored = ignored.transpose()?;
        context.stage("measuring");
        let prediction = prediction.without(ignored.as_ref());
        let chosen = prediction.chosen(&config.label);
        // Joining pieces is work for one thread; meanwhile others take in the image.
        let read = || config.image.as_deref().map(|path| read_beside(path, &grid));
        let (mut mask, image) = rayon::join(|| Facts::of(&chosen), read);
        if let Some(image) = image.transpose()? {
            mask.add_intensities(&chosen, &image);
        }
        // Of a label map's labels the comparison makes masks of its own.
        drop(chosen);
        let reference = reference.map(|reference| reference.without(ignored.as_ref()));
        Ok(measure(mask, &prediction, reference.as_ref(), config))
    }

    fn missed(config: &Config, report: &Report) -> Vec<String> {
        match config.strict {
            Strict::On => report.missed.clone(),
            Strict::Off => Vec::new(),
        }
    }
}

/// Measures a mask that is in memory, with its image and, if there is one, a reference on its grid.
pub fn measure_mask(
    prediction: Mask,
    image: &Image,
    reference: Option<Mask>,
    config: &Config,
) -> Report {
    let mut facts = Facts::of(&prediction);
    facts.add_intensities(&prediction, image);
    let reference = reference.map(Labels::Mask);
    measure(facts, &Labels::Mask(prediction), reference.as_ref(), config)
}

fn measure(
    mask: Facts,
    prediction: &Labels,
    reference: Option<&Labels>,
    config: &Config,
) -> Report {
    let compare = |r| scores::compare(prediction, r, &config.label, config.tolerance_mm);
    let comparison = reference.map(compare);
    let missed = comparison.as_ref().map(|c| missed(c, config));
    Report {
        grid: prediction.geometry().summary(),
        mask,
        missed: missed.unwrap_or_default(),
        comparison,
    }
}

/// Masks if they are, since those take less memory; else label maps.
fn read_labels(config: &Config) -> Result<(Labels, Option<Labels>)> {
    let reference = config.reference.as_deref();
    let (prediction, reference_labels) = match read_masks(&config.input, reference) {
        Ok(masks) => masks,
        Err(Error::InputUnusable { .. }) => {
            let maps = reference.map(read_label_map).transpose()?;
            (read_label_map(&config.input)?, maps)
        }
        Err(other) => return Err(other),
    };
    if let (Some(path), Some(labels)) = (reference, &reference_labels) {
        check_grid(path, labels.geometry(), prediction.geometry())?;
    }
    Ok((prediction, reference_labels))
}

fn read_masks(input: &Path, reference: Option<&Path>) -> Result<(Labels, Option<Labels>)> {
    let prediction = volume::read_mask(input)?;
    let reference = reference.map(volume::read_mask).transpose()?;
    Ok((Labels::Mask(prediction), reference.map(Labels::Mask)))
}

fn read_label_map(path: &Path) -> Result<Labels> {
    let labels = Labels::Map(volume::read_label_map(path)?);
    match labels.present().len() {
        count if count > MOST_LABELS => {
            let why = format!("holds {count} different labels; it seems to be an image");
            Err(Error::unusable(path, why))
        }
        _ => Ok(labels),
    }
}

fn read_beside(path: &Path, grid: &Geometry) -> Result<Image> {
    let image = volume::read_image(path, None)?;
    check_grid(path, &image.geometry, grid)?;
    Ok(image)
}

fn read_ignored(path: &Path, grid: &Geometry) -> Result<Mask> {
    let ignored = volume::read_mask(path)?;
    check_grid(path, &ignored.geometry, grid)?;
    Ok(ignored)
}

fn check_grid(path: &Path, found: &Geometry, wanted: &Geometry) -> Result<()> {
    if found.same_grid(wanted) {
        return Ok(());
    }
    let why = "does not lie on the grid of the mask; resample it with --like first";
    Err(Error::unusable(path, why))
}

/// The thresholds that the labels, or all of them as one, missed.
fn missed(comparison: &Comparison, config: &Config) -> Vec<String> {
    let mut missed = Vec::new();
    let labels = comparison.labels.iter();
    let named = labels.map(|l| (format!("label {}", l.label), &l.scores));
    // One label is all there is: its scores are the overall ones.
    let overall =
        (comparison.labels.len() != 1).then_some(("all labels".to_owned(), &comparison.overall));
    for (name, scores) in named.chain(overall) {
        missed.extend(missed_by(&name, scores, config));
    }
    missed
}

fn missed_by(name: &str, scores: &Scores, config: &Config) -> Vec<String> {
    let below = |measure: &str, value: Option<f64>, least: Option<f64>| {
        let least = least.filter(|least| value.is_none_or(|value| value < *least))?;
        let value = value.map_or("undefined".to_owned(), |v| format!("{v:.4}"));
        Some(format!("{measure} of {name} is {value}, below {least}"))
    };
    // Two empty masks agree, although they have no surfaces.
    let both_empty = scores.voxels == 0 && scores.reference_voxels == 0;
    let on_surfaces = |threshold: Option<f64>| threshold.filter(|_| !both_empty);
    let hd95 = scores.hd95_mm.value();
    let far = on_surfaces(config.max_hd95_mm)
        .filter(|most| hd95.is_none_or(|hd95| hd95 > *most))
        .map(|most| {
            let value = hd95.map_or("undefined".to_owned(), |v| format!("{v:.4} mm"));
            format!("hd95_mm of {name} is {value}, above {most} mm")
        });
    let dice = below("dice", Some(scores.dice), config.min_dice);
    let nsd = below("nsd", scores.nsd.value(), on_surfaces(config.min_nsd));
    [dice, far, nsd].into_iter().flatten().collect()
}
