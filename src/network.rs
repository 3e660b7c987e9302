//! Runs a network over a volume: what the card says, from voxels to logits on a coarse grid.

mod afterwards;
pub mod card;
pub mod channels;
mod convolution;
mod ends;
pub mod folder;
mod limits;
pub mod mask;
mod mirror;
pub mod normalize;
pub mod onnx;
mod operator;
pub mod refinement;
mod rewrite;
pub mod session;
mod tensor;
mod tiles;
mod turn;
pub mod windows;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::memory;
use crate::step::{Context, Device};
use crate::volume::Image;
use crate::volume::coarse_grid::{CoarseField, CoarseGrid};

use afterwards::Afterwards;
pub use card::Card;
use card::{Input, Output, Weights};
use channels::Channels;
use mirror::combinations;
pub use normalize::{Modality, Normalization};
use refinement::Refiner;
use session::Session;
use tensor::Tensor;

/// A network that voxmask brings along.
///
/// Each is a constant that a step names, not a choice made at run time, so that an executable holds none
/// but those that it uses.
#[derive(Clone, Copy)]
pub struct Shipped {
    name: &'static str,
    card: &'static [u8],
    /// Those of the network, and of its refinement if the card names one.
    weights: &'static [&'static [u8]],
}

impl Shipped {
    /// Anatomy against air, table and padding.
    pub const FOREGROUND: Self = Self {
        name: "foreground",
        card: include_bytes!("../models/foreground/card.json"),
        weights: &[
            include_bytes!("../models/foreground/model.onnx"),
            include_bytes!("../models/foreground/refinement.onnx"),
        ],
    };
    /// Voxels that a de-identification tool altered.
    pub const ANONYMIZATION_AREA: Self = Self {
        name: "anonymization-area",
        card: include_bytes!("../models/anonymization-area/card.json"),
        weights: &[
            include_bytes!("../models/anonymization-area/model.onnx"),
            include_bytes!("../models/anonymization-area/refinement.onnx"),
        ],
    };
}

/// A network: weights that are loaded, and the card that says how to use them.
pub struct Network {
    /// What the weights expect.
    pub card: Card,
    session: Session,
    refiner: Option<Refiner>,
}

/// Which network made a result, for reports.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NetworkUsed {
    /// Name on its card.
    pub name: String,
    /// Version on its card.
    pub version: String,
    /// SHA-256 of its weights; of several sets (folds, a refinement), one after the other with commas.
    pub sha256: String,
    /// Where it ran: `cpu` or `cuda`.
    pub device: String,
}

impl NetworkUsed {
    fn of<'a>(
        name: &str,
        version: &str,
        weights: &[&Weights],
        mut sessions: impl Iterator<Item = &'a Session>,
    ) -> Self {
        let digests: Vec<&str> = weights.iter().map(|w| w.sha256.as_str()).collect();
        let on_gpu = sessions.any(|s| s.device == Device::Cuda);
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            sha256: digests.join(","),
            device: if on_gpu { "cuda" } else { "cpu" }.to_owned(),
        }
    }
}

/// What a network says about a scan, on its coarse grid.
pub struct Prediction {
    /// A logit for every cell.
    pub logits: CoarseField,
    /// The logit that the scan was altered, if the network has such an output.
    pub altered: Option<f32>,
    /// What the network saw.
    pub channels: Channels,
    /// The same on the cells of its refinement, where these are few; else, and after another network that made none,
    /// they are made tile by tile.
    finer: Option<Channels>,
    /// How the intensities were normalised.
    pub normalization: Normalization,
    /// How the scan became a tensor.
    input: Input,
}

/// Cells of a refinement whose channels are made together with those of its network, which takes a fifth of the time
/// that it takes to make them later, tile by tile. A head has 2 to 3 million of 2 mm; bodies have more.
const KEPT_CELLS: f64 = 4e6;
/// What a cell takes while its channels are made: 20 bytes are kept, sums take 16.
const MAKING_BYTES: f64 = 36.0;

impl Network {
    /// Loads weights with their card, which must be for `purpose`: a shipped network's name.
    /// `weights`: those of [`Card::all_weights`], in that order.
    ///
    /// # Errors
    /// Exit 69 when ONNX Runtime, the weights or the device cannot be used, or when the card is for
    /// something else.
    fn load(card: Card, weights: &[&[u8]], purpose: &str, context: &Context) -> Result<Self> {
        if card.name != purpose {
            return Err(Error::Unavailable(format!(
                "the model card is for {:?}, not for {:?}",
                card.name, purpose
            )));
        }
        let load = |weights: &&[u8]| Session::load(weights, context);
        let sessions: Vec<_> = weights.par_iter().map(load).collect();
        let mut sessions = sessions.into_iter();
        let mut next = || {
            let lacking = || Error::Bug("a card has more weights than were read".to_owned());
            sessions.next().unwrap_or_else(|| Err(lacking()))
        };
        let session = next()?;
        let refiner = match &card.refinement {
            Some(rule) => Some(Refiner::new(rule.clone(), next()?)),
            None => None,
        };
        Ok(Self {
            card,
            session,
            refiner,
        })
    }

    /// Which network this is, for reports.
    pub fn used(&self) -> NetworkUsed {
        let refiner = self.refiner.iter().map(Refiner::session);
        let sessions = std::iter::once(&self.session).chain(refiner);
        let card = &self.card;
        NetworkUsed::of(&card.name, &card.version, &card.all_weights(), sessions)
    }

    /// Looks once more, on finer cells, where the mask of `prediction` ends: the logits there, and of
    /// the whole scan on that grid. `None` where the card has no refinement for such scans.
    /// `threshold`: the logit above which a cell of `prediction` belongs to the mask.
    ///
    /// # Errors
    /// As [`Network::predict`].
    pub fn refine(
        &mut self,
        image: &Image,
        prediction: &Prediction,
        threshold: f32,
    ) -> Result<Option<CoarseField>> {
        let modality = prediction.normalization.modality;
        let refiner = self.refiner.as_mut();
        refiner
            .filter(|refiner| refiner.sees(modality))
            .map(|refiner| refiner.refine(image, prediction, threshold))
            .transpose()
    }

    /// Runs the network over an image that is oriented RAS.
    ///
    /// # Errors
    /// Exit 69 when the network fails, 75 when memory ran out.
    pub fn predict(&mut self, image: &Image, modality: Modality) -> Result<Prediction> {
        let input = &self.card.input;
        let normalization = Normalization::of(image, modality, input);
        let grid = CoarseGrid::over(&image.geometry, input.cell_mm);
        Tensor::around(&grid, input).check_memory(input)?;
        let mut channels = Channels::on(grid);
        let mut finer = self.finer_grid(image, &normalization).map(Channels::on);
        let mut all: Vec<_> = std::iter::once(&mut channels).chain(&mut finer).collect();
        channels::make(image, &mut all, &normalization, input);
        self.predict_channels(image, channels, finer, normalization)
    }

    /// The cells of the refinement, where they are few enough to be kept until it is known which are looked at.
    fn finer_grid(&self, image: &Image, normalization: &Normalization) -> Option<CoarseGrid> {
        let refiner = self.refiner.as_ref()?;
        let grid = refiner.grid(image);
        let cells = memory::voxels(grid.shape);
        let room = cells <= KEPT_CELLS && memory::suffices(MAKING_BYTES * cells);
        let used = refiner.sees(normalization.modality) && !normalization.constant;
        (room && used).then_some(grid)
    }

    /// [`Network::predict`] for an image that another network was run over; its channels are taken
    /// where both see a scan alike.
    ///
    /// # Errors
    /// As [`Network::predict`].
    pub fn predict_after(
        &mut self,
        other: &Prediction,
        image: &Image,
        modality: Modality,
    ) -> Result<Prediction> {
        if !self.card.input.sees_as(&other.input) {
            return self.predict(image, modality);
        }
        let normalization = other.normalization;
        let grid = self.finer_grid(image, &normalization);
        let same_ends = self.card.input.has_ends_of(&other.input);
        let fits = |finer: &&Channels| same_ends && Some(&finer.grid) == grid.as_ref();
        let mut channels = other.channels.clone();
        let mut finer = other.finer.as_ref().filter(fits).cloned();
        let mut all: Vec<_> = std::iter::once(&mut channels).chain(&mut finer).collect();
        channels::complete(image, &mut all, &normalization, &self.card.input);
        self.predict_channels(image, channels, finer, normalization)
    }

    fn predict_channels(
        &mut self,
        image: &Image,
        channels: Channels,
        mut finer: Option<Channels>,
        normalization: Normalization,
    ) -> Result<Prediction> {
        if let (Some(refiner), Some(finer)) = (&self.refiner, &mut finer) {
            channels::complete(image, &mut [finer], &normalization, refiner.input());
        }
        let (grid, input) = (channels.grid.clone(), self.card.input.clone());
        let tensor = Tensor::around(&grid, &input);
        tensor.check_memory(&input)?;
        let values = tensor.fill(&channels, normalization.modality, &input);
        let afterwards = Afterwards::of(&grid);
        let (logits, altered) = run_mirrored(
            (&mut self.session, afterwards),
            (&input, &self.card.output),
            &tensor,
            values,
        )?;
        Ok(Prediction {
            logits: CoarseField {
                values: tensor.take(&logits)?,
                grid,
            },
            altered,
            channels,
            finer,
            normalization,
            input,
        })
    }
}

impl Network {
    /// Shows the network the scan of a prediction mirrored along each axis by itself, and gives back
    /// the least Dice of the cells above 0 with those of the scan as it is; 1 where both are empty.
    ///
    /// # Errors
    /// As [`Network::predict`].
    pub fn self_agreement(&mut self, prediction: &Prediction) -> Result<f64> {
        let modality = prediction.normalization.modality;
        let tensor = Tensor::around(&prediction.logits.grid, &self.card.input);
        let shape = tensor.shape(&self.card.input);
        let values = tensor.fill(&prediction.channels, modality, &self.card.input);
        let cells = |logits: &[f32]| -> Result<Vec<bool>> {
            Ok(tensor.take(logits)?.into_iter().map(|l| l > 0.0).collect())
        };
        let mut run = |values: &[f32]| {
            let session = (&mut self.session, Afterwards::Kept);
            run_once(session, &self.card.output, &shape, values)
        };
        let (logits, _) = run(&values)?;
        let straight = cells(&logits)?;
        let mut least = 1.0_f64;
        for axis in 0..3 {
            let mut seen = values.clone();
            tensor.mirror(&mut seen, axis);
            let (mut logits, _) = run(&seen)?;
            tensor.mirror(&mut logits, axis);
            least = least.min(dice_of(&straight, &cells(&logits)?));
        }
        Ok(least)
    }
}

/// Runs a network on a tensor and its mirror images, and averages what it says.
fn run_mirrored(
    (session, afterwards): (&mut Session, Afterwards),
    (input, output): (&Input, &Output),
    tensor: &Tensor,
    values: Vec<f32>,
) -> Result<(Vec<f32>, Option<f32>)> {
    let shape = tensor.shape(input);
    let mirrorings = combinations(&input.mirror_axes);
    let share = 1.0 / mirrorings.len() as f32;
    let (mut mean, mut altered): (Vec<f32>, Option<f32>) = (Vec::new(), None);
    for (n, axes) in mirrorings.iter().enumerate() {
        let mut seen = values.clone();
        axes.iter().for_each(|&axis| tensor.mirror(&mut seen, axis));
        let is_last = n + 1 == mirrorings.len();
        let then = if is_last {
            afterwards
        } else {
            Afterwards::Kept
        };
        let (mut logits, logit) = run_once((session, then), output, &shape, &seen)?;
        axes.iter()
            .for_each(|&axis| tensor.mirror(&mut logits, axis));
        mean.resize(logits.len(), 0.0);
        mean.iter_mut()
            .zip(&logits)
            .for_each(|(m, l)| *m += share * l);
        altered = logit.map(|logit| altered.unwrap_or(0.0) + share * logit);
    }
    Ok((mean, altered))
}

fn run_once(
    (session, afterwards): (&mut Session, Afterwards),
    output: &Output,
    shape: &[usize],
    values: &[f32],
) -> Result<(Vec<f32>, Option<f32>)> {
    match &output.altered {
        Some(name) => {
            let outputs = [output.logits.as_str(), name.as_str()];
            let [logits, altered] = session.run_and(afterwards, shape, values, outputs)?;
            Ok((logits, altered.first().copied()))
        }
        None => {
            let outputs = [output.logits.as_str()];
            let [logits] = session.run_and(afterwards, shape, values, outputs)?;
            Ok((logits, None))
        }
    }
}

fn dice_of(one: &[bool], other: &[bool]) -> f64 {
    let count = |cells: &[bool]| cells.iter().filter(|inside| **inside).count();
    let both = one.iter().zip(other).filter(|(a, b)| **a && **b).count();
    match count(one) + count(other) {
        0 => 1.0,
        sum => 2.0 * both as f64 / sum as f64,
    }
}
