//! Runs a network that sees a scan through windows, as nnU-Net's do, and follows its card voxel for
//! voxel as nnU-Net would.

pub mod card;
mod decide;
mod label;
mod prepare;
mod sliding;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::card::WindowCard;
use self::card::{Class, Decision, Turned};
pub use self::label::{LabelNetwork, Marked};
pub use self::prepare::Prepared;
use self::prepare::{Placement, prepare};
use self::sliding::{Logits, Windows};
use super::NetworkUsed;
use super::folder::AnyCard;
use super::mirror::{combinations, mirror};
use super::session::{Footprint, Session};
use crate::error::{Error, Result};
use crate::step::Context;
use crate::volume::{Geometry, Image, LabelMap, Volume};

/// Whether a network is also shown mirrored windows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mirroring {
    /// Each window once.
    #[default]
    Off,
    /// Every combination of the axes that the card allows: up to 8 times the work.
    On,
}

/// A network that sees a scan through windows: weights that are loaded, one set a fold, and the card
/// that says how to use them.
pub struct WindowNetwork {
    /// What the weights expect.
    pub card: WindowCard,
    sessions: Vec<Session>,
}

/// Voxels of a window beyond which memory counts more than time.
const LARGE: usize = 1 << 21;

impl WindowNetwork {
    /// Loads the network in a folder: `card.json` and its weights.
    ///
    /// # Errors
    /// Exit 69 when the folder, ONNX Runtime or the device cannot be used.
    pub fn load(folder: &Path, context: &Context) -> Result<Self> {
        let card = AnyCard::of_folder(folder)?;
        let weights = card.read_weights(folder)?;
        let card = card.into_windows(&folder.display().to_string())?;
        Self::load_weights(card, &weights, context)
    }

    /// Loads weights, one set a fold, with their card.
    ///
    /// # Errors
    /// Exit 69 when ONNX Runtime, the weights or the device cannot be used.
    pub fn load_weights(card: WindowCard, weights: &[Vec<u8>], context: &Context) -> Result<Self> {
        let large = card.window.shape.iter().product::<usize>() > LARGE;
        let footprint = if large {
            Footprint::Lean
        } else {
            Footprint::Fast
        };
        let load = |weights: &Vec<u8>| Session::load_as(footprint, weights, context);
        let sessions: Result<Vec<Session>> = weights.iter().map(load).collect();
        Ok(Self {
            card,
            sessions: sessions?,
        })
    }

    /// What the network would see of some images, one for each channel, before it is cut into windows.
    ///
    /// # Errors
    /// As [`WindowNetwork::label_map`].
    pub fn tensor(&self, images: Vec<Image>) -> Result<Prepared> {
        self.check(&images)?;
        let stored = images[0].geometry.orientation();
        let spacing = self.spacing(&images[0]);
        let wanted = self.card.input.orientation.from(stored);
        let turned = |image: Image| {
            if wanted == stored {
                image
            } else {
                image.oriented(wanted)
            }
        };
        let images: Vec<Image> = images.into_iter().map(turned).collect();
        prepare(images, spacing, &self.card.input)
    }

    /// Which network this is, for reports.
    pub fn used(&self) -> NetworkUsed {
        let card = &self.card;
        let weights: Vec<&super::Weights> = card.weights.iter().collect();
        NetworkUsed::of(&card.name, &card.version, &weights, self.sessions.iter())
    }

    /// The label of every voxel, on the images' grid: one image for each channel of the card, in its
    /// order, all of one shape and as they were read (not turned).
    ///
    /// # Errors
    /// Exit 65 when the number of images or their shapes do not fit, 69 when the network fails, 75
    /// when memory ran out.
    pub fn label_map(&mut self, images: Vec<Image>, mirroring: Mirroring) -> Result<LabelMap> {
        let said = self.say(images, mirroring)?;
        let output = &self.card.output;
        Ok(said.label_map(output.decision, &output.classes))
    }

    /// What the network says about images, on its own grid.
    ///
    /// # Errors
    /// As [`WindowNetwork::label_map`].
    fn say(&mut self, images: Vec<Image>, mirroring: Mirroring) -> Result<Said> {
        let stored = self.check(&images)?.clone();
        let turned = stored.reoriented(self.card.input.orientation.from(stored.orientation()));
        tracing::info!("preparing the tensor");
        let tensor = self.tensor(images)?;
        tracing::info!("running the network");
        Ok(Said {
            logits: self.logits(&tensor, mirroring)?,
            placement: tensor.placement,
            turned,
            stored,
        })
    }

    /// The grid that the images share.
    fn check<'a>(&self, images: &'a [Image]) -> Result<&'a Geometry> {
        let channels = &self.card.input.channels;
        let grid = images.first().map(|image| &image.geometry);
        let Some(grid) = grid.filter(|_| images.len() == channels.len()) else {
            let names: Vec<&str> = channels.iter().map(|c| c.name.as_str()).collect();
            return Err(Error::Config(format!(
                "the network takes {} images ({}), but --input names {}",
                channels.len(),
                names.join(", "),
                images.len()
            )));
        };
        if images.iter().any(|image| !image.geometry.same_grid(grid)) {
            return Err(Error::Unusable(
                "the images do not lie on one grid; all must share shape and affine".to_owned(),
            ));
        }
        Ok(grid)
    }

    /// Spacing along i, j, k of the image once it is turned.
    fn spacing(&self, image: &Image) -> [f64; 3] {
        let mm = image.geometry.header_spacing().mm();
        let stored = image.geometry.orientation();
        let mut turned = mm;
        if self.card.input.orientation == Turned::Ras {
            (0..3).for_each(|d| turned[stored.axes[d]] = mm[d]);
        }
        turned
    }

    fn logits(&mut self, tensor: &Prepared, mirroring: Mirroring) -> Result<Logits> {
        let window = &self.card.window;
        let windows = Windows::over(tensor.lengths, window);
        let axes: &[usize] = match mirroring {
            Mirroring::Off => &[],
            Mirroring::On => &window.mirror_axes,
        };
        let [a, b, c] = window.shape;
        let shape = [1, tensor.channels.len(), a, b, c];
        let output = self.card.output.logits.as_str();
        let classes = self.card.output.classes.len();
        let mut sum: Option<Logits> = None;
        for session in &mut self.sessions {
            let run = |seen: &[f32]| run_mirrored(session, (&shape, output), axes, seen);
            let logits = windows.run(tensor, classes, run)?;
            match &mut sum {
                Some(sum) => sum.add(&logits),
                None => sum = Some(logits),
            }
        }
        let folds = self.sessions.len();
        let mut sum = sum.ok_or_else(|| Error::Bug("a card without weights".to_owned()))?;
        if folds > 1 {
            sum.divide(folds);
        }
        Ok(sum)
    }
}

/// What a network says about images, and the way to their grid.
struct Said {
    logits: Logits,
    placement: Placement,
    /// The images' grid, turned as the network wants it, and as it was read.
    turned: Geometry,
    stored: Geometry,
}

impl Said {
    /// The label of every voxel; `classes` are those of the logits.
    fn label_map(&self, decision: Decision, classes: &[Class]) -> LabelMap {
        tracing::info!("deciding on labels");
        let rule = (decision, classes);
        let labels = decide::label_map(&self.logits, &self.placement, &self.turned, rule);
        self.restored(labels)
    }

    /// The probability of a class at every voxel, in thousandths.
    fn probability(&self, decision: Decision, class: usize) -> Volume<i16> {
        let rule = (decision, class);
        let found = decide::probability(&self.logits, &self.placement, &self.turned, rule);
        self.restored(found)
    }

    fn restored<T: Copy + Send + Sync>(&self, found: Volume<T>) -> Volume<T> {
        let mut stored = found.oriented(self.stored.orientation());
        stored.geometry = self.stored.clone();
        stored
    }
}

/// The mean of what a network says about a window and its mirror images.
fn run_mirrored(
    session: &mut Session,
    (shape, output): (&[usize; 5], &str),
    axes: &[usize],
    seen: &[f32],
) -> Result<Vec<f32>> {
    let [mut sum] = session.run(shape, seen, [output])?;
    let mirrored = &combinations(axes)[1..];
    let lengths = [shape[2], shape[3], shape[4]];
    for axes in mirrored {
        let mut seen = seen.to_vec();
        axes.iter()
            .for_each(|&axis| mirror(&mut seen, lengths, axis));
        let [mut logits] = session.run(shape, &seen, [output])?;
        axes.iter()
            .for_each(|&axis| mirror(&mut logits, lengths, axis));
        sum.iter_mut().zip(&logits).for_each(|(s, l)| *s += l);
    }
    if !mirrored.is_empty() {
        let count = (mirrored.len() + 1) as f32;
        sum.iter_mut().for_each(|s| *s /= count);
    }
    Ok(sum)
}
