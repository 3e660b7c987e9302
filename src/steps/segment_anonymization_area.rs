//! Anonymization-area mask: voxels that a de-identification tool altered.
//!
//! In: a CT or MR volume, and for the picture its foreground mask. Out: a mask on the volume's own
//! grid, 1 = blanked, blurred, replaced or distorted. Empty for a scan that nobody altered, which is
//! the most frequent case.
//!
//! Method: a network says whether the scan was altered at all, and on a coarse grid where, a second one
//! looks at the border of that on finer cells ([`crate::network::refinement`]); an area
//! that was filled with one value is snapped to exactly those voxels ([`crate::ops::constant_area`]), one of pixels
//! to their blocks, and air and tissue that were left alone are told by their noise ([`crate::ops::air_noise`]).

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::card::Area;
use crate::network::mask::{Choice, MaskNetwork};
use crate::network::windows::{LabelNetwork, Mirroring};
use crate::network::{Modality, Network, NetworkUsed, Prediction, Shipped};
use crate::ops::constant_area::{Levels, snap};
use crate::ops::extent::Extent;
use crate::picture;
use crate::step::{Context, FileArgument, FileKind, Step};
use crate::steps::through_windows::Files;
use crate::volume::coarse_grid::CoarseField;
use crate::volume::{self, Canonical, Image, Mask, Summary};

/// The step.
pub struct SegmentAnonymizationArea;

/// Find the voxels that a de-identification tool altered.
#[derive(Clone, Debug, Default, Args, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["input", "output"]))]
pub struct Config {
    /// Volume to segment (`.nii`, `.nii.gz` or `.hdr`).
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Mask to write, 1 = altered (`.nii` or `.nii.gz`).
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Foreground mask on the same grid; the picture shows its outline, too.
    #[arg(long, value_name = "FILE")]
    pub foreground: Option<PathBuf>,
    /// Folder of another network: `card.json` and its weights.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Label that is meant, of a network that sees a scan through windows (such as nnU-Net's).
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Whether such a network is also shown the scan mirrored: up to 8 times the work.
    #[arg(long, value_enum, value_name = "WHETHER", num_args = 0..=1, default_missing_value = "on")]
    pub mirroring: Mirroring,
    /// Kind of scan; `auto` takes values below −200 for CT.
    #[arg(long, value_enum, value_name = "KIND")]
    pub modality: Modality,
    /// Write the probability of alteration here, 0 to 1 in steps of 0.001.
    #[arg(long, value_name = "FILE")]
    pub probability: Option<PathBuf>,
    /// Write a picture of the scan with the outlines of the masks here (`.png`).
    #[arg(long, value_name = "FILE.png")]
    pub picture: Option<PathBuf>,
    /// Frame of a 4-D volume to use, from 0.
    #[arg(long, value_name = "N")]
    pub frame: Option<usize>,
}

/// What was found.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The volume that was segmented.
    pub input: Summary,
    /// The kind of scan that it was taken for; as configured where the network asks for none.
    pub modality: Modality,
    /// Whether any voxel was found to be altered.
    pub altered: bool,
    /// The network's probability that the scan was altered at all; null if it gives none.
    pub altered_probability: Option<f64>,
    /// The mask.
    pub anonymization_area: Extent,
    /// The network that found it.
    pub network: NetworkUsed,
}

impl Step for SegmentAnonymizationArea {
    const NAME: &'static str = "segment-anonymization-area";
    const ABOUT: &'static str =
        "Find the voxels of a CT or MR volume that a de-identification tool altered";
    type Config = Config;
    type Report = Report;

    fn files(config: &Config) -> Vec<FileArgument<'_>> {
        use FileKind::{Input, InputFolder, Output};
        vec![
            FileArgument::required("input", "image", Input, &config.input),
            FileArgument::optional(
                "foreground",
                "foreground_mask",
                Input,
                config.foreground.as_deref(),
            ),
            FileArgument::optional("model", "model", InputFolder, config.model.as_deref()),
            FileArgument::required("output", "anonymization_area", Output, &config.output),
            FileArgument::optional(
                "probability",
                "anonymization_probability",
                Output,
                config.probability.as_deref(),
            ),
            FileArgument::optional("picture", "picture", Output, config.picture.as_deref()),
        ]
    }

    fn validate(config: &Config) -> Result<()> {
        let volumes = [Some(&config.output), config.probability.as_ref()];
        let mut volumes = volumes.into_iter().flatten();
        volumes.try_for_each(|path| volume::check_output_name(path))
    }

    fn run(config: &Config, context: &Context) -> Result<Report> {
        context.stage("reading the scan and the network");
        let read = || Canonical::read(&config.input, config.frame);
        let (network, scan) =
            MaskNetwork::load_while(read, &config.choice(), Shipped::ANONYMIZATION_AREA, context)?;
        match network {
            MaskNetwork::CoarseGrid(network) => {
                run_coarse_grid(config, *network, scan.unwrap_or_else(read)?, context)
            }
            MaskNetwork::Windows(network) => run_windows(config, *network, context),
        }
    }
}

impl Config {
    fn choice(&self) -> Choice {
        Choice {
            folder: self.model.clone(),
            label: self.label.clone(),
            mirroring: self.mirroring,
        }
    }
}

/// The step with a network that sees the whole scan on a coarse grid.
fn run_coarse_grid(
    config: &Config,
    mut network: Network,
    scan: Canonical,
    context: &Context,
) -> Result<Report> {
    let foreground = read_foreground(config, &scan)?;
    context.stage("segmenting the anonymization area");
    let prediction = network.predict(&scan.image, config.modality)?;
    let found = segment(&scan, &mut network, prediction)?;
    context.stage("writing the mask");
    write_beside(&scan, foreground.as_ref(), &found, config, context)?;
    volume::write_mask(&config.output, &scan.restore(found.mask), context.overwrite)?;
    Ok(found.report)
}

/// The step with a network that sees the scan through windows: its label is the mask, as it is.
fn run_windows(config: &Config, mut network: LabelNetwork, context: &Context) -> Result<Report> {
    if config.foreground.is_some() {
        return Err(Error::Config(
            "--foreground cannot be used with a network that sees a scan through windows"
                .to_owned(),
        ));
    }
    let files = Files {
        inputs: std::slice::from_ref(&config.input),
        frame: config.frame,
        output: &config.output,
        picture: config.picture.as_deref(),
        colour: picture::Colour::ANONYMIZATION_AREA,
    };
    let probability = config.probability.as_deref();
    let (input, area) = files.write_mask(&mut network, probability, context)?;
    Ok(Report::of_label(
        input,
        config.modality,
        area,
        network.used(),
    ))
}

impl Report {
    /// Of a network's label, which is the mask as it is.
    fn of_label(
        input: Summary,
        modality: Modality,
        anonymization_area: Extent,
        network: NetworkUsed,
    ) -> Self {
        Self {
            input,
            modality,
            altered: anonymization_area.voxels > 0,
            altered_probability: None,
            anonymization_area,
            network,
        }
    }
}

/// The anonymization area of a scan.
pub struct Segmented {
    /// The mask, on the grid of [`Canonical::image`].
    pub mask: Mask,
    /// What the report says.
    pub report: Report,
    /// Of a network on a coarse grid.
    altered: Option<Altered>,
}

impl Segmented {
    /// What a network on a coarse grid said, before a second one looked at the border, and the logit above
    /// which a cell belongs to that area.
    pub fn prediction(&self) -> Option<(&Prediction, f32)> {
        let altered = self.altered.as_ref()?;
        Some((&altered.prediction, altered.threshold()))
    }
}

/// Finds the altered voxels of a scan that is in memory, as a network's label.
///
/// # Errors
/// As [`LabelNetwork::find_in`].
pub fn segment_label(
    scan: &Canonical,
    network: &mut LabelNetwork,
    modality: Modality,
) -> Result<Segmented> {
    let mask = network.find_in(scan)?;
    let input = scan.stored.summary();
    Ok(Segmented {
        report: Report::of_label(input, modality, Extent::of(&mask), network.used()),
        mask,
        altered: None,
    })
}

/// Finds the altered voxels of a scan that is in memory, from what a network said about it.
///
/// # Errors
/// Exit 69 when the network's card does not say how the area is decided; of its refinement as
/// [`Network::predict`].
pub fn segment(
    scan: &Canonical,
    network: &mut Network,
    prediction: Prediction,
) -> Result<Segmented> {
    let area = network.card.area.clone().ok_or_else(|| {
        Error::Unavailable("the anonymization-area network's card has no area".to_owned())
    })?;
    let mut altered = Altered {
        prediction,
        refined: None,
        area,
    };
    if altered.any() {
        let threshold = altered.threshold();
        altered.refined = network.refine(&scan.image, &altered.prediction, threshold)?;
    }
    let mask = altered.mask(&scan.image);
    let extent = Extent::of(&mask);
    let probability = altered.prediction.altered.map(sigmoid);
    let report = Report {
        input: scan.stored.summary(),
        modality: altered.prediction.normalization.modality,
        altered: extent.voxels > 0,
        altered_probability: probability.map(f64::from),
        anonymization_area: extent,
        network: network.used(),
    };
    Ok(Segmented {
        mask,
        report,
        altered: Some(altered),
    })
}

/// Writes the outputs that a configuration names, but for the mask.
///
/// # Errors
/// Exit 73.
pub fn write_beside(
    scan: &Canonical,
    foreground: Option<&Mask>,
    found: &Segmented,
    config: &Config,
    context: &Context,
) -> Result<()> {
    if let Some(path) = &config.probability {
        let altered = found.altered.as_ref().ok_or_else(no_probability)?;
        let probability = altered.probability(&scan.image);
        volume::write_image(path, &scan.restore_image(probability), context.overwrite)?;
    }
    if let Some(path) = &config.picture {
        draw(&scan.image, foreground, &found.mask).write(path, context.overwrite)?;
    }
    Ok(())
}

fn no_probability() -> Error {
    Error::Bug("the probability of a label is written where the label is found".to_owned())
}

/// The scan with the outlines of the area and, if it is known, of the foreground.
fn draw(image: &Image, foreground: Option<&Mask>, area: &Mask) -> picture::Picture {
    let foreground = foreground.map(|mask| (mask, picture::Colour::FOREGROUND));
    let area = (area, picture::Colour::ANONYMIZATION_AREA);
    let layers: Vec<picture::Layer> = foreground
        .into_iter()
        .chain([area])
        .map(|(mask, colour)| picture::Layer { mask, colour })
        .collect();
    picture::overlay(image, &layers, picture::Window::for_image(image))
}

/// What the picture shows. Without one it is checked all the same, but not kept: of a whole body it is half a
/// gigabyte.
fn read_foreground(config: &Config, scan: &Canonical) -> Result<Option<Mask>> {
    let Some(path) = &config.foreground else {
        return Ok(None);
    };
    let mask = volume::read_mask(path)?;
    if !mask.geometry.same_grid(&scan.stored) {
        return Err(Error::unusable(
            path,
            "is not on the grid of the volume; both must share shape and affine",
        ));
    }
    if config.picture.is_none() {
        return Ok(None);
    }
    // Turned as the image was, by the image's own orientation.
    let mask = Mask {
        geometry: scan.stored.clone(),
        ..mask
    };
    Ok(Some(mask.oriented(scan.image.geometry.orientation())))
}

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// What a network says about the alteration of an image.
struct Altered {
    prediction: Prediction,
    /// Its logits after a second look, on finer cells.
    refined: Option<CoarseField>,
    area: Area,
}

impl Altered {
    /// False when the network is sure that nobody altered the scan, or nothing was measured.
    fn any(&self) -> bool {
        let altered = self.prediction.altered;
        !self.prediction.normalization.constant
            && altered.is_none_or(|logit| logit > self.area.altered_threshold)
    }

    /// The logit above which a cell of the prediction belongs to the area.
    fn threshold(&self) -> f32 {
        self.threshold_of(&self.prediction.logits)
    }

    /// The same of any field; the card's where nothing judges the scan.
    fn threshold_of(&self, logits: &CoarseField) -> f32 {
        match self.prediction.altered {
            Some(_) => self.area.threshold(&logits.values),
            None => self.area.mask_threshold,
        }
    }

    /// What is known of where the area lies.
    fn logits(&self) -> &CoarseField {
        self.refined.as_ref().unwrap_or(&self.prediction.logits)
    }

    fn mask(&self, image: &Image) -> Mask {
        let empty = || Mask {
            voxels: vec![0; image.geometry.voxel_count()],
            geometry: image.geometry.clone(),
        };
        if !self.any() {
            return empty();
        }
        let logits = self.logits();
        let threshold = self.threshold_of(logits);
        let normalization = &self.prediction.normalization;
        let levels = Levels {
            air_below: normalization.value_of(DARK),
            tissue_above: (normalization.modality == Modality::Ct).then_some(TISSUE_ABOVE_HU),
        };
        let area = snap(image, logits, threshold, levels, &self.area.snap);
        let voxels = area.voxels.iter().filter(|v| **v != 0).count();
        if (voxels as f64) * area.geometry.voxel_ml() < self.area.minimum_ml {
            return empty();
        }
        area
    }

    /// Probability of alteration in thousandths.
    fn probability(&self, image: &Image) -> Image {
        let logits = self.logits();
        let temperature = self.area.temperature;
        let per_mille = |logit| (1000.0 * sigmoid(logit / temperature)).round() as i16;
        Image::of_thousandths(logits.map_voxels(&image.geometry, per_mille))
    }
}

/// Cells and voxels darker than this (normalised intensity) are taken for air.
const DARK: f32 = 0.1;

/// Of the body all but lungs and gas lies above; fat at -100 HU.
const TISSUE_ABOVE_HU: f32 = -300.0;
