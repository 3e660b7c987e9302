//! Foreground mask: where the body is.
//!
//! In: a CT or MR volume. Out: a mask on the volume's own grid, 1 = anatomy that was imaged, as a
//! solid (lungs, airways and bowel gas included; air, table, clothes and padding not).
//!
//! Method: a network says on a coarse grid which side of the skin a cell lies on; the skin itself is
//! placed at native resolution where the scan's contrast puts it ([`crate::ops::boundary`]); cavities
//! that the view cuts open are settled, in MR narrow gaps of the skin closed, small pieces dropped and
//! holes filled.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::card::Boundary;
use crate::network::mask::{Choice, MaskNetwork};
use crate::network::windows::{LabelNetwork, Mirroring};
use crate::network::{Modality, Network, NetworkUsed, Normalization, Prediction, Shipped};
use crate::ops::boundary::{Level, Means, Scores, Weighing, settle_pieces};
use crate::ops::components;
use crate::ops::extent::Extent;
use crate::ops::morphology;
use crate::ops::rim::take_rim;
use crate::ops::skin::move_to_skin;
use crate::picture;
use crate::step::{Context, FileArgument, FileKind, Step};
use crate::steps::through_windows::Files;
use crate::volume::coarse_grid::CoarseField;
use crate::volume::{self, Canonical, Image, Mask, Summary, Volume};

/// The step.
pub struct SegmentForeground;

/// Find the anatomical foreground of a CT or MR volume.
#[derive(Clone, Debug, Default, Args, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["input", "output"]))]
pub struct Config {
    /// Volume to segment (`.nii`, `.nii.gz` or `.hdr`).
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Mask to write, 1 = anatomy (`.nii` or `.nii.gz`).
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
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
    /// Write the probability of anatomy here, 0 to 1 in steps of 0.001.
    #[arg(long, value_name = "FILE")]
    pub probability: Option<PathBuf>,
    /// Write a picture of the scan with the mask's outline here (`.png`).
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
    /// Whether any anatomy was found; a phantom or an empty scan has none, which is no error.
    pub anatomy_found: bool,
    /// The mask.
    pub foreground: Extent,
    /// The network that found it.
    pub network: NetworkUsed,
}

impl Step for SegmentForeground {
    const NAME: &'static str = "segment-foreground";
    const ABOUT: &'static str = "Find the anatomical foreground of a CT or MR volume";
    type Config = Config;
    type Report = Report;

    fn files(config: &Config) -> Vec<FileArgument<'_>> {
        use FileKind::{Input, InputFolder, Output};
        vec![
            FileArgument::required("input", "image", Input, &config.input),
            FileArgument::optional("model", "model", InputFolder, config.model.as_deref()),
            FileArgument::required("output", "foreground_mask", Output, &config.output),
            FileArgument::optional(
                "probability",
                "foreground_probability",
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
            MaskNetwork::load_while(read, &config.choice(), Shipped::FOREGROUND, context)?;
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
    context.stage("segmenting the foreground");
    let foreground = Foreground::find(&scan.image, &mut network, config.modality)?;
    let used = network.used();
    // Of a whole body the masks need the memory that it took.
    drop(network);
    let found = foreground.settle(&scan, used);
    context.stage("writing the mask");
    write_beside(&scan, &found, config, context)?;
    volume::write_mask(&config.output, &scan.restore(found.mask), context.overwrite)?;
    Ok(found.report)
}

/// The step with a network that sees the scan through windows: its label is the mask, as it is.
fn run_windows(config: &Config, mut network: LabelNetwork, context: &Context) -> Result<Report> {
    let files = Files {
        inputs: std::slice::from_ref(&config.input),
        frame: config.frame,
        output: &config.output,
        picture: config.picture.as_deref(),
        colour: picture::Colour::FOREGROUND,
    };
    let probability = config.probability.as_deref();
    let (input, foreground) = files.write_mask(&mut network, probability, context)?;
    Ok(Report::of(
        input,
        config.modality,
        foreground,
        network.used(),
    ))
}

impl Report {
    fn of(input: Summary, modality: Modality, foreground: Extent, network: NetworkUsed) -> Self {
        Self {
            input,
            modality,
            anatomy_found: foreground.voxels > 0,
            foreground,
            network,
        }
    }
}

/// The foreground of a scan.
pub struct Segmented {
    /// The mask, on the grid of [`Canonical::image`].
    pub mask: Mask,
    /// What the report says.
    pub report: Report,
    /// Of a network on a coarse grid.
    foreground: Option<Foreground>,
}

impl Segmented {
    /// What a network on a coarse grid said, before a second one looked at the border and contrast had its say.
    pub fn prediction(&self) -> Option<&Prediction> {
        self.foreground.as_ref().map(|found| &found.prediction)
    }
}

/// Finds the foreground of a scan that is in memory, as a network's label.
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
        report: Report::of(input, modality, Extent::of(&mask), network.used()),
        mask,
        foreground: None,
    })
}

/// Finds the foreground of a scan that is in memory, with a network that is loaded.
///
/// # Errors
/// Exit 69 when the network fails, 75 when memory ran out.
pub fn segment(scan: &Canonical, network: &mut Network, modality: Modality) -> Result<Segmented> {
    let foreground = Foreground::find(&scan.image, network, modality)?;
    Ok(foreground.settle(scan, network.used()))
}

/// Writes the outputs that a configuration names, but for the mask.
///
/// # Errors
/// Exit 73.
fn write_beside(
    scan: &Canonical,
    found: &Segmented,
    config: &Config,
    context: &Context,
) -> Result<()> {
    if let Some(path) = &config.probability {
        let foreground = found.foreground.as_ref().ok_or_else(no_probability)?;
        let probability = foreground.probability(&scan.image);
        volume::write_image(path, &scan.restore_image(probability), context.overwrite)?;
    }
    if let Some(path) = &config.picture {
        let layer = picture::Layer {
            mask: &found.mask,
            colour: picture::Colour::FOREGROUND,
        };
        let window = picture::Window::for_image(&scan.image);
        picture::overlay(&scan.image, &[layer], window).write(path, context.overwrite)?;
    }
    Ok(())
}

fn no_probability() -> Error {
    Error::Bug("the probability of a label is written where the label is found".to_owned())
}

/// What a network says about an image's foreground, before it is made into a mask.
struct Foreground {
    prediction: Prediction,
    /// Its logits after a second look, on finer cells.
    refined: Option<CoarseField>,
    boundary: Boundary,
    /// Intensity of air and tissue around each cell; MR only.
    means: Option<Means>,
    /// Hounsfield units of −1000 and +50 in normalised intensity; CT only.
    air_and_tissue: [f32; 2],
}

/// Air and soft tissue in CT [HU].
const AIR_AND_TISSUE_HU: [f32; 2] = [-1000.0, 50.0];

impl Foreground {
    fn find(image: &Image, network: &mut Network, modality: Modality) -> Result<Self> {
        let boundary = network.card.boundary.clone().ok_or_else(|| {
            Error::Unavailable("the foreground network's card has no boundary".to_owned())
        })?;
        let prediction = network.predict(image, modality)?;
        let refined = if prediction.normalization.constant {
            None
        } else {
            network.refine(image, &prediction, 0.0)?
        };
        let mut air_and_tissue = AIR_AND_TISSUE_HU;
        prediction.normalization.apply(&mut air_and_tissue);
        let means = (prediction.normalization.modality == Modality::Mr).then(|| {
            let intensity = &prediction.channels.intensity;
            Means::around(&prediction.logits, intensity, boundary.smoothing_mm)
        });
        Ok(Self {
            prediction,
            refined,
            boundary,
            means,
            air_and_tissue,
        })
    }

    /// Makes the mask, and what is said about it; `used`: the network.
    fn settle(self, scan: &Canonical, used: NetworkUsed) -> Segmented {
        let mask = self.mask(&scan.image);
        let (input, modality) = (scan.stored.summary(), self.modality());
        Segmented {
            report: Report::of(input, modality, Extent::of(&mask), used),
            mask,
            foreground: Some(self),
        }
    }

    fn modality(&self) -> Modality {
        self.prediction.normalization.modality
    }

    /// What is known of where the body lies.
    fn logits(&self) -> &CoarseField {
        self.refined.as_ref().unwrap_or(&self.prediction.logits)
    }

    fn level(&self) -> Level<'_> {
        if let Some(means) = &self.means {
            return Level::Local {
                share: self.boundary.mr_level,
                means,
            };
        }
        let [air, tissue] = self.air_and_tissue;
        Level::Absolute {
            intensity: air + self.boundary.ct_level * (tissue - air),
            contrast: tissue - air,
        }
    }

    fn weighing(&self) -> Weighing {
        Weighing {
            logit_weight: self.boundary.logit_weight,
            contrast_gain: self.boundary.contrast_gain,
            band_logit: self.boundary.band_logit,
        }
    }

    /// What `make` makes of the voxels' scores, of which those above 0 are inside. Where nothing was measured,
    /// nothing is.
    fn scored<T: Copy + Default>(
        &self,
        image: &Image,
        make: impl FnOnce(&Scores) -> Volume<T>,
    ) -> Volume<T> {
        let normalization: &Normalization = &self.prediction.normalization;
        if normalization.constant {
            return Volume {
                voxels: vec![T::default(); image.geometry.voxel_count()],
                geometry: image.geometry.clone(),
            };
        }
        let normalize = |values: &mut [f32]| normalization.apply(values);
        let (logits, level) = (self.logits(), self.level());
        make(&Scores::new(
            image,
            &normalize,
            logits,
            level,
            self.weighing(),
        ))
    }

    fn mask(&self, image: &Image) -> Mask {
        let mut mask = self.scored(image, |scores| scores.mask());
        settle_pieces(&mut mask, self.logits(), self.modality() == Modality::Mr);
        if let (Some(means), Some(skin)) = (&self.means, &self.boundary.skin) {
            // Cavities must not be taken for air outside.
            components::fill_holes(&mut mask);
            let normalization = &self.prediction.normalization;
            let normalize = |values: &mut [f32]| normalization.apply(values);
            let logits = self.logits();
            let weighing = self.weighing();
            move_to_skin(&mut mask, image, &normalize, logits, means, weighing, skin);
        }
        if self.modality() == Modality::Mr {
            if let Some(rim) = &self.boundary.rim {
                take_rim(&mut mask, image, rim);
            }
            if self.boundary.closing_mm > 0.0 {
                mask = morphology::close(&mask, self.boundary.closing_mm);
            }
        }
        components::keep_pieces(&mut mask, self.boundary.minimum_piece_ml);
        components::fill_holes(&mut mask);
        mask
    }

    /// Probability of anatomy in thousandths.
    fn probability(&self, image: &Image) -> Image {
        let temperature = self.boundary.temperature;
        let per_mille = |score: f32| (1000.0 / (1.0 + (-score / temperature).exp())).round() as i16;
        Image::of_thousandths(self.scored(image, |scores| scores.map(per_mille)))
    }
}
