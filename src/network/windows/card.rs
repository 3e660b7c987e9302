//! The card of a network that sees a scan through windows, as nnU-Net's do.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::card::Weights;
use crate::network::folder::Kind;
use crate::volume::Orientation;

/// What the weights expect and what comes out: `card.json` with `"kind": "windows"`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WindowCard {
    /// Layout of this file: `card/1`.
    pub schema: String,
    /// [`Kind::Windows`].
    pub kind: Kind,
    /// What the network is called.
    pub name: String,
    /// Version of the weights.
    pub version: String,
    /// SPDX licence of the weights, or where it is said.
    pub licence: String,
    /// The files that hold the weights, one a fold; what they say is averaged.
    pub weights: Vec<Weights>,
    /// How a scan becomes a tensor.
    pub input: Input,
    /// How the tensor is cut into windows.
    pub window: Window,
    /// What comes out.
    pub output: Output,
    /// What the weights were trained on.
    #[serde(default)]
    pub training: serde_json::Value,
    /// How good they were on subjects that they were not trained on.
    #[serde(default)]
    pub evaluation: serde_json::Value,
}

/// How a scan becomes a tensor. Triples follow the tensor's axes, the slowest first.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Whether the scan is turned first.
    pub orientation: Turned,
    /// The axis of the scan (0 = i, 1 = j, 2 = k) that each axis of the tensor follows.
    pub axes: [usize; 3],
    /// Distance between the tensor's voxels [mm].
    pub spacing_mm: [f64; 3],
    /// When an axis is resampled by itself, by the closest slice.
    pub slices: Slices,
    /// One for each channel, in their order.
    pub channels: Vec<Channel>,
}

/// How the scan's axes must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Turned {
    /// As the file has them.
    #[serde(rename = "stored")]
    Stored,
    /// i to the right, j to the front, k up.
    #[serde(rename = "RAS")]
    Ras,
}

impl Turned {
    /// The orientation that an image of orientation `stored` is turned to.
    pub fn from(self, stored: Orientation) -> Orientation {
        match self {
            Self::Stored => stored,
            Self::Ras => Orientation::RAS,
        }
    }
}

/// When the axis with the largest spacing is resampled by itself, by the closest slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slices {
    /// Where the largest spacing is above three times the smallest.
    Anisotropic,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a channel shows, and how its intensities are normalised.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Kind of image, in the words of the data set that the network was trained on.
    pub name: String,
    /// How its intensities are normalised.
    pub normalization: Scheme,
}

/// How intensities are normalised, before they are resampled.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Scheme {
    /// Mean 0 and standard deviation 1.
    ZScore {
        /// Only the voxels that are not 0 in some channel count and are changed; holes in them too.
        within_nonzero: bool,
    },
    /// Clipped to `[low, high]`, less `mean`, over `sd`.
    Ct {
        /// Lower clip.
        low: f32,
        /// Upper clip.
        high: f32,
        /// Subtracted after clipping.
        mean: f32,
        /// Divisor.
        sd: f32,
    },
    /// Lowest value 0, highest 1.
    Rescale,
    /// A 255th.
    Rgb,
    /// As they are.
    None,
}

/// How the tensor is cut into windows. Triples follow the tensor's axes, the slowest first.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Voxels along each axis.
    pub shape: [usize; 3],
    /// Distance between windows at most, as a share of their shape.
    pub step: f64,
    /// Standard deviation of the weights within a window, as a share of its shape.
    pub sigma: f64,
    /// Axes of the tensor (0 = slowest) along which the network may be shown a window mirrored.
    pub mirror_axes: Vec<usize>,
}

/// What comes out of the network.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Name of the output: a logit for every class and voxel.
    pub logits: String,
    /// How logits become a label.
    pub decision: Decision,
    /// One for each channel of the output, in their order.
    pub classes: Vec<Class>,
}

/// How logits become a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// The class with the highest logit; the first of several.
    Highest,
    /// Classes are regions that may overlap: where a logit is above 0, its label replaces those of
    /// the classes before it.
    Regions,
}

/// A class: a label, or a region of several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Name, in the words of the data set that the network was trained on.
    pub name: String,
    /// The label that is written for it.
    pub label: u16,
}

/// Voxels of a window at most; 512³ is far beyond what any memory holds of its features.
const MOST_VOXELS: usize = 1 << 27;

impl WindowCard {
    /// The place of a class among the network's outputs.
    ///
    /// # Errors
    /// Exit 2 when there is none of that name; the message lists those that there are.
    pub fn class(&self, name: &str) -> Result<usize> {
        let classes = &self.output.classes;
        let found = classes.iter().position(|class| class.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
            let wrong = match name {
                "" => "a network that sees scans through windows needs the label that is meant"
                    .to_owned(),
                name => format!("the network knows no label {name:?}"),
            };
            Error::Config(format!("{wrong}; its labels are {names:?}"))
        })
    }

    /// Whether this runtime can follow it; a line that says why not.
    pub(in crate::network) fn check(&self) -> std::result::Result<(), String> {
        self.input.check()?;
        self.window.check()?;
        if self.output.classes.is_empty() {
            return Err("no classes".to_owned());
        }
        Ok(())
    }
}

impl Input {
    fn check(&self) -> std::result::Result<(), String> {
        let mut axes = self.axes;
        axes.sort_unstable();
        if axes != [0, 1, 2] {
            return Err(format!("input.axes {:?} do not name 0, 1, 2", self.axes));
        }
        if !self.spacing_mm.iter().all(|mm| (1e-3..=1e3).contains(mm)) {
            return Err(format!(
                "input.spacing_mm {:?} is no spacing",
                self.spacing_mm
            ));
        }
        if self.channels.is_empty() {
            return Err("no input channels".to_owned());
        }
        Ok(())
    }
}

impl Window {
    fn check(&self) -> std::result::Result<(), String> {
        let voxels = self
            .shape
            .iter()
            .try_fold(1_usize, |n, &s| n.checked_mul(s));
        if !voxels.is_some_and(|n| (1..=MOST_VOXELS).contains(&n)) {
            return Err(format!("window.shape {:?} is no window", self.shape));
        }
        let within = |share: f64, most: f64| share > 0.0 && share <= most;
        if !within(self.step, 1.0) || !within(self.sigma, 10.0) {
            return Err("window.step is not in (0, 1] or window.sigma not in (0, 10]".to_owned());
        }
        let mut axes = self.mirror_axes.clone();
        axes.sort_unstable();
        axes.dedup();
        if axes.len() != self.mirror_axes.len() || axes.iter().any(|&axis| axis > 2) {
            return Err("window.mirror_axes must be different ones of 0, 1, 2".to_owned());
        }
        Ok(())
    }
}
