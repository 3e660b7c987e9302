//! Label map: what a network with a card of kind `windows` makes of a scan.
//!
//! In: one volume for each channel of the network, all on one grid. Out: a label map on that grid.
//!
//! Method: [`crate::network::windows`] follows the card as nnU-Net would, voxel for voxel.

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Result;
use crate::network::NetworkUsed;
use crate::network::windows::card::Class;
use crate::network::windows::{Mirroring, WindowNetwork};
use crate::picture::Colour;
use crate::step::{Context, FileArgument, FileKind, Step};
use crate::steps::through_windows::Files;
use crate::volume::{self, LabelMap, Summary};

/// The step.
pub struct Segment;

/// Segment a volume with a network of your own.
#[derive(Clone, Debug, Default, Args, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["input", "output", "model"]))]
pub struct Config {
    /// Volume to segment (`.nii`, `.nii.gz` or `.hdr`); for a network with several channels, the flag
    /// once for each, in the network's order.
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany")]
    pub input: Vec<PathBuf>,
    /// Label map to write (`.nii` or `.nii.gz`).
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Folder of the network: `card.json` and its weights.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Whether the network is also shown the scan mirrored: up to 8 times the work.
    #[arg(long, value_enum, value_name = "WHETHER", num_args = 0..=1, default_missing_value = "on")]
    pub mirroring: Mirroring,
    /// Write a picture of the first volume with the outline of all labels here (`.png`).
    #[arg(long, value_name = "FILE.png")]
    pub picture: Option<PathBuf>,
    /// Frame of 4-D volumes to use, from 0.
    #[arg(long, value_name = "N")]
    pub frame: Option<usize>,
}

/// A path, or a list of them.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<PathBuf>, D::Error> {
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(path) => vec![path],
        OneOrMany::Many(paths) => paths,
    })
}

/// What was found.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The volume that was segmented; the first of several.
    pub input: Summary,
    /// Every label of the network, in the order of its outputs.
    pub labels: Vec<LabelFound>,
    /// The network that found them.
    pub network: NetworkUsed,
}

/// How much of the scan a label takes up.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LabelFound {
    /// Its name on the network's card.
    pub name: String,
    /// Its value in the label map.
    pub label: u16,
    /// Voxels that hold it.
    pub voxels: usize,
    /// Their volume [ml].
    pub volume_ml: f64,
}

impl Step for Segment {
    const NAME: &'static str = "segment";
    const ABOUT: &'static str = "Segment a volume with a network of your own, such as nnU-Net's";
    type Config = Config;
    type Report = Report;

    fn files(config: &Config) -> Vec<FileArgument<'_>> {
        use FileKind::{Input, InputFolder, Output};
        let missing = config.input.is_empty().then_some(Path::new(""));
        let inputs = config.input.iter().map(PathBuf::as_path).chain(missing);
        inputs
            .map(|path| FileArgument::required("input", "image", Input, path))
            .chain([
                FileArgument::required("model", "model", InputFolder, &config.model),
                FileArgument::required("output", "label_map", Output, &config.output),
                FileArgument::optional("picture", "picture", Output, config.picture.as_deref()),
            ])
            .collect()
    }

    fn validate(config: &Config) -> Result<()> {
        volume::check_output_name(&config.output)
    }

    fn run(config: &Config, context: &Context) -> Result<Report> {
        context.stage("reading the scan and the network");
        let mut network = WindowNetwork::load(&config.model, context)?;
        let files = Files {
            inputs: &config.input,
            frame: config.frame,
            output: &config.output,
            picture: config.picture.as_deref(),
            colour: Colour::FOREGROUND,
        };
        let (input, labels) = files.write_label_map(&mut network, config.mirroring, context)?;
        Ok(Report {
            input,
            labels: count(&labels, &network.card.output.classes),
            network: network.used(),
        })
    }
}

fn count(labels: &LabelMap, classes: &[Class]) -> Vec<LabelFound> {
    let mut counts = vec![0_usize; 1 + usize::from(u16::MAX)];
    for &label in &labels.voxels {
        // Labels are those of the classes, or 0.
        counts[label as usize & usize::from(u16::MAX)] += 1;
    }
    let voxel_ml = labels.geometry.voxel_ml();
    let found = |class: &Class| {
        let voxels = counts[usize::from(class.label)];
        LabelFound {
            name: class.name.clone(),
            label: class.label,
            voxels,
            volume_ml: voxels as f64 * voxel_ml,
        }
    };
    classes.iter().map(found).collect()
}
