//! Foreground mask: where the body is.
//!
//! In: a CT or MR volume. Out: a mask on the volume's own grid, 1 = anatomy that was imaged, as a
//! solid (lungs, airways and bowel gas included; air, table, clothes and padding not).
//!
//! Method: a network says on a coarse grid which side of the skin a cell lies on; the skin itself is
//! placed at native resolution where the scan's contrast puts it ([`crate::ops::boundary`]); small
//! pieces are dropped and holes filled.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::card::Boundary;
use crate::network::windows::{Mirroring, WindowNetwork};
use crate::network::{Modality, Network, NetworkUsed, Normalization, Prediction, Shipped};
use crate::ops::boundary::{Level, Means, Scores, Weighing, settle_pieces};
use crate::ops::components;
use crate::ops::extent::Extent;
use crate::ops::skin::move_to_skin;
use crate::picture;
use crate::step::{Context, FileArgument, FileKind, Step};
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
        let (model, label) = (config.model.as_deref(), config.label.as_deref());
        let network = WindowNetwork::load_for_label(model, label, config.mirroring, context)?;
        if let Some(network) = network {
            return run_windows(config, network, context);
        }
        let scan = Canonical::read(&config.input, config.frame)?;
        let mut network = Network::load(config.model.as_deref(), Shipped::Foreground, context)?;
        context.stage("segmenting the foreground");
        let found = segment(&scan, &mut network, config.modality)?;
        context.stage("writing the mask");
        write(&scan, &found, config, context)?;
        Ok(found.report)
    }
}

/// The step with a network that sees the scan through windows: its label is the mask, as it is.
fn run_windows(config: &Config, mut network: WindowNetwork, context: &Context) -> Result<Report> {
    if config.probability.is_some() {
        return Err(Error::Config(
            "--probability cannot be used with a network that sees a scan through windows"
                .to_owned(),
        ));
    }
    let read = || volume::read_image(&config.input, config.frame);
    let image = read()?;
    let input = image.geometry.summary();
    context.stage("segmenting");
    let label = config.label.as_deref().unwrap_or_default();
    let mask = network.mask(image, config.mirroring, label)?;
    context.stage("writing the mask");
    if let Some(path) = &config.picture {
        let drawn = picture::outline(read()?, mask.clone(), picture::Colour::FOREGROUND);
        drawn.write(path, context.overwrite)?;
    }
    volume::write_mask(&config.output, &mask, context.overwrite)?;
    let extent = Extent::of(&mask);
    Ok(Report {
        input,
        modality: config.modality,
        anatomy_found: extent.voxels > 0,
        foreground: extent,
        network: network.used(),
    })
}

/// The foreground of a scan.
pub struct Segmented {
    /// The mask, on the grid of [`Canonical::image`].
    pub mask: Mask,
    /// What the report says.
    pub report: Report,
    foreground: Foreground,
}

impl Segmented {
    /// What the network said, before contrast had its say.
    pub fn prediction(&self) -> &Prediction {
        &self.foreground.prediction
    }
}

/// Finds the foreground of a scan that is in memory, with a network that is loaded.
///
/// # Errors
/// Exit 69 when the network fails, 75 when memory ran out.
pub fn segment(scan: &Canonical, network: &mut Network, modality: Modality) -> Result<Segmented> {
    let foreground = Foreground::find(&scan.image, network, modality)?;
    let mask = foreground.mask(&scan.image);
    let extent = Extent::of(&mask);
    let report = Report {
        input: scan.stored.summary(),
        modality: foreground.modality(),
        anatomy_found: extent.voxels > 0,
        foreground: extent,
        network: network.used(),
    };
    Ok(Segmented {
        mask,
        report,
        foreground,
    })
}

/// Writes the outputs that a configuration names.
///
/// # Errors
/// Exit 73.
pub fn write(
    scan: &Canonical,
    found: &Segmented,
    config: &Config,
    context: &Context,
) -> Result<()> {
    if let Some(path) = &config.probability {
        let probability = found.foreground.probability(&scan.image);
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
    volume::write_mask(
        &config.output,
        &scan.restore(found.mask.clone()),
        context.overwrite,
    )
}

/// What a network says about an image's foreground, before it is made into a mask.
struct Foreground {
    prediction: Prediction,
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
        let mut air_and_tissue = AIR_AND_TISSUE_HU;
        prediction.normalization.apply(&mut air_and_tissue);
        let means = (prediction.normalization.modality == Modality::Mr).then(|| {
            let intensity = &prediction.channels.intensity;
            Means::around(&prediction.logits, intensity, boundary.smoothing_mm)
        });
        Ok(Self {
            prediction,
            boundary,
            means,
            air_and_tissue,
        })
    }

    fn modality(&self) -> Modality {
        self.prediction.normalization.modality
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

    /// A value for every voxel, from its score: above 0 is inside. Where nothing was measured,
    /// nothing is.
    fn map<T: Copy + Default + Send>(
        &self,
        image: &Image,
        value: impl Fn(f32) -> T + Sync,
    ) -> Volume<T> {
        let normalization: &Normalization = &self.prediction.normalization;
        if normalization.constant {
            return Volume {
                voxels: vec![T::default(); image.geometry.voxel_count()],
                geometry: image.geometry.clone(),
            };
        }
        let normalize = |values: &mut [f32]| normalization.apply(values);
        let logits = &self.prediction.logits;
        Scores::new(image, &normalize, logits, self.level(), self.weighing()).map(value)
    }

    fn mask(&self, image: &Image) -> Mask {
        let mut mask = self.map(image, |score| u8::from(score > 0.0));
        settle_pieces(&mut mask, &self.prediction.logits);
        if let (Some(means), Some(skin)) = (&self.means, &self.boundary.skin) {
            // Cavities must not be taken for air outside.
            components::fill_holes(&mut mask);
            let normalization = &self.prediction.normalization;
            let normalize = |values: &mut [f32]| normalization.apply(values);
            let logits = &self.prediction.logits;
            let weighing = self.weighing();
            move_to_skin(&mut mask, image, &normalize, logits, means, weighing, skin);
        }
        components::keep_pieces(&mut mask, self.boundary.minimum_piece_ml);
        components::fill_holes(&mut mask);
        mask
    }

    /// Probability of anatomy in thousandths.
    fn probability(&self, image: &Image) -> Image {
        let temperature = self.boundary.temperature;
        let per_mille = |score: f32| (1000.0 / (1.0 + (-score / temperature).exp())).round() as i16;
        Image::of_thousandths(self.map(image, per_mille))
    }
}
