//! Runs a network that sees a scan through windows, as nnU-Net's do, and follows its card voxel for
//! voxel as nnU-Net would.

pub mod card;
mod decide;
mod prepare;
mod sliding;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::card::WindowCard;
use self::card::{Class, Decision, Turned};
pub use self::prepare::Prepared;
use self::prepare::prepare;
use self::sliding::{Logits, Windows};
use super::NetworkUsed;
use super::card::Kind;
use super::session::{Footprint, Session};
use crate::error::{Error, Result};
use crate::step::{Context, Device};
use crate::volume::{Geometry, Image, LabelMap, Mask};

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
        let (card, weights) = WindowCard::read_folder(folder)?;
        let large = card.window.shape.iter().product::<usize>() > LARGE;
        let footprint = if large {
            Footprint::Lean
        } else {
            Footprint::Fast
        };
        let load = |weights: Vec<u8>| Session::load_as(footprint, &weights, context);
        let sessions: Result<Vec<Session>> = weights.into_iter().map(load).collect();
        Ok(Self {
            card,
            sessions: sessions?,
        })
    }

    /// Loads the network in a folder if its card is for one of this kind, for the mask of one label.
    ///
    /// # Errors
    /// As [`WindowNetwork::load`]; exit 2 when such a network is given without a label that it knows,
    /// or a label or mirroring is asked for without such a network.
    pub fn load_for_label(
        folder: Option<&Path>,
        label: Option<&str>,
        mirroring: Mirroring,
        context: &Context,
    ) -> Result<Option<Self>> {
        let kind = folder.map(Kind::of_folder).transpose()?;
        let Some(folder) = folder.filter(|_| kind == Some(Kind::Windows)) else {
            if label.is_some() || mirroring == Mirroring::On {
                return Err(Error::Config(
                    "--label and --mirroring are for networks that see a scan through windows; \
                     name one with --model"
                        .to_owned(),
                ));
            }
            return Ok(None);
        };
        let network = Self::load(folder, context)?;
        network.card.class(label.unwrap_or_default())?;
        Ok(Some(network))
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
        let digests: Vec<&str> = self
            .card
            .weights
            .iter()
            .map(|w| w.sha256.as_str())
            .collect();
        let on_gpu = self.sessions.iter().any(|s| s.device == Device::Cuda);
        NetworkUsed {
            name: self.card.name.clone(),
            version: self.card.version.clone(),
            sha256: digests.join(","),
            device: if on_gpu { "cuda" } else { "cpu" }.to_owned(),
        }
    }

    /// The label of every voxel, on the images' grid: one image for each channel of the card, in its
    /// order, all of one shape and as they were read (not turned).
    ///
    /// # Errors
    /// Exit 65 when the number of images or their shapes do not fit, 69 when the network fails, 75
    /// when memory ran out.
    pub fn label_map(&mut self, images: Vec<Image>, mirroring: Mirroring) -> Result<LabelMap> {
        let classes = self.card.output.classes.clone();
        let all: Vec<usize> = (0..classes.len()).collect();
        let decision = self.card.output.decision;
        self.decide(images, mirroring, (decision, &classes), &all)
    }

    /// 1 where a voxel belongs to the class of that name, on the image's grid; of a network with
    /// overlapping regions the whole region, whatever lies on top of it.
    ///
    /// # Errors
    /// As [`WindowNetwork::label_map`]; exit 2 when there is no such class.
    pub fn mask(&mut self, image: Image, mirroring: Mirroring, name: &str) -> Result<Mask> {
        let wanted = self.card.class(name)?;
        let decision = self.card.output.decision;
        let (classes, taken): (Vec<Class>, Vec<usize>) = match decision {
            Decision::Regions => {
                let class = self.card.output.classes[wanted].clone();
                (vec![Class { label: 1, ..class }], vec![wanted])
            }
            Decision::Highest => {
                let mut classes = self.card.output.classes.clone();
                let mark = |(n, class): (usize, &mut Class)| class.label = u16::from(n == wanted);
                classes.iter_mut().enumerate().for_each(mark);
                let all = (0..classes.len()).collect();
                (classes, all)
            }
        };
        let labels = self.decide(vec![image], mirroring, (decision, &classes), &taken)?;
        Ok(Mask {
            voxels: labels.voxels.iter().map(|&label| label as u8).collect(),
            geometry: labels.geometry,
        })
    }

    /// `classes` are those of the outputs `taken`.
    fn decide(
        &mut self,
        images: Vec<Image>,
        mirroring: Mirroring,
        (decision, classes): (Decision, &[Class]),
        taken: &[usize],
    ) -> Result<LabelMap> {
        let stored = self.check(&images)?.clone();
        let turned = stored.reoriented(self.card.input.orientation.from(stored.orientation()));
        tracing::info!("preparing the tensor");
        let tensor = self.tensor(images)?;
        tracing::info!("running the network");
        let mut logits = self.logits(&tensor, mirroring)?;
        tracing::info!("deciding on labels");
        let placement = tensor.placement.clone();
        drop(tensor);
        logits.keep(taken);
        let labels = decide::label_map(&logits, &placement, &turned, (decision, classes));
        drop(logits);
        let mut labels = labels.oriented(stored.orientation());
        labels.geometry = stored;
        Ok(labels)
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

/// The mean of what a network says about a window and its mirror images.
fn run_mirrored(
    session: &mut Session,
    (shape, output): (&[usize; 5], &str),
    axes: &[usize],
    seen: &[f32],
) -> Result<Vec<f32>> {
    let [mut sum] = session.run(shape, seen, [output])?;
    let combinations = combinations(axes);
    let lengths = [shape[2], shape[3], shape[4]];
    for axes in &combinations {
        let mut mirrored = seen.to_vec();
        axes.iter()
            .for_each(|&axis| mirror(&mut mirrored, lengths, axis));
        let [mut logits] = session.run(shape, &mirrored, [output])?;
        axes.iter()
            .for_each(|&axis| mirror(&mut logits, lengths, axis));
        sum.iter_mut().zip(&logits).for_each(|(s, l)| *s += l);
    }
    if !combinations.is_empty() {
        let count = (combinations.len() + 1) as f32;
        sum.iter_mut().for_each(|s| *s /= count);
    }
    Ok(sum)
}

/// Every combination of axes but the empty one: single ones first, then pairs, then all; sums of
/// floats depend on the order.
fn combinations(axes: &[usize]) -> Vec<Vec<usize>> {
    let subsets = 1..1_usize << axes.len();
    let mut found: Vec<Vec<usize>> = subsets
        .map(|bits| {
            let chosen = axes.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
            chosen.map(|(_, &axis)| axis).collect()
        })
        .collect();
    let place = |axis: &usize| axes.iter().position(|a| a == axis);
    let key = |some: &Vec<usize>| (some.len(), some.iter().map(place).collect::<Vec<_>>());
    found.sort_by_key(key);
    found
}

/// Mirrors every channel of a window along an axis (0 = slowest).
fn mirror(values: &mut [f32], lengths: [usize; 3], axis: usize) {
    let inner: usize = lengths[axis + 1..].iter().product();
    let length = lengths[axis];
    for block in values.chunks_mut(inner * length) {
        for n in 0..length / 2 {
            let (low, high) = block.split_at_mut((length - 1 - n) * inner);
            low[n * inner..(n + 1) * inner].swap_with_slice(&mut high[..inner]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrorings_come_in_the_order_of_their_sizes() {
        assert!(combinations(&[]).is_empty());
        assert_eq!(combinations(&[1]), [vec![1]]);
        let all = [
            vec![0],
            vec![1],
            vec![2],
            vec![0, 1],
            vec![0, 2],
            vec![1, 2],
            vec![0, 1, 2],
        ];
        assert_eq!(combinations(&[0, 1, 2]), all);
    }

    #[test]
    fn mirroring_turns_one_axis_round_in_every_channel() {
        let values: Vec<f32> = (0..24).map(|n| n as f32).collect();
        for (axis, first) in [(0, 6.0), (1, 3.0), (2, 2.0)] {
            let mut mirrored = values.clone();
            mirror(&mut mirrored, [2, 2, 3], axis);
            assert_eq!((mirrored[0], mirrored[12]), (first, 12.0 + first));
            mirror(&mut mirrored, [2, 2, 3], axis);
            assert_eq!(mirrored, values);
        }
    }
}
