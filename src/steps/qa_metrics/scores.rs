//! A prediction against a reference.

use std::borrow::Cow;
use std::collections::BTreeSet;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::ops::overlap::{self, Overlap};
use crate::ops::surface::{SurfaceDistances, Undefined};
use crate::report::Measure;
use crate::volume::{Geometry, LabelMap, Mask};

/// How well a prediction fits a reference.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Comparison {
    /// All labels that were asked for, as one mask.
    pub overall: Scores,
    /// Each label by itself.
    pub labels: Vec<LabelScores>,
}

/// The scores of one label.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LabelScores {
    /// The label.
    pub label: i32,
    /// Its scores.
    pub scores: Scores,
}

/// How well one mask fits another.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Scores {
    /// Sørensen–Dice coefficient, from 0 to 1; 1 if both masks are empty.
    pub dice: f64,
    /// Hausdorff distance [mm].
    pub hd_mm: Measure,
    /// The larger of the two directed 95th percentiles of the surface distance, weighted by area [mm].
    pub hd95_mm: Measure,
    /// Share of both surfaces that lies within the tolerance of the other.
    pub nsd: Measure,
    /// The tolerance of `nsd` [mm].
    pub tolerance_mm: f64,
    /// Mean distance over both surfaces [mm].
    pub assd_mm: Measure,
    /// Volume of the prediction [ml].
    pub volume_ml: f64,
    /// Volume of the reference [ml].
    pub reference_volume_ml: f64,
    /// Voxels of the prediction.
    pub voxels: usize,
    /// Voxels of the reference.
    pub reference_voxels: usize,
}

/// A mask or a label map.
#[derive(Clone, Debug)]
pub(super) enum Labels {
    /// Label 1 alone.
    Mask(Mask),
    /// Any labels.
    Map(LabelMap),
}

impl Labels {
    pub(super) fn geometry(&self) -> &Geometry {
        match self {
            Self::Mask(mask) => &mask.geometry,
            Self::Map(map) => &map.geometry,
        }
    }

    /// With 0 in the ignored voxels.
    pub(super) fn without(mut self, ignored: Option<&Mask>) -> Self {
        if let Some(ignored) = ignored {
            match &mut self {
                Self::Mask(mask) => clear(&mut mask.voxels, ignored),
                Self::Map(map) => clear(&mut map.voxels, ignored),
            }
        }
        self
    }

    /// The mask of the chosen labels, of all but 0 if none is chosen.
    pub(super) fn chosen(&self, chosen: &[i32]) -> Cow<'_, Mask> {
        match self {
            Self::Mask(mask) if chosen.is_empty() || chosen.contains(&1) => Cow::Borrowed(mask),
            Self::Mask(mask) => Cow::Owned(Mask {
                voxels: vec![0; mask.voxels.len()],
                geometry: mask.geometry.clone(),
            }),
            Self::Map(map) => {
                let is_chosen = |v: i32| v != 0 && (chosen.is_empty() || chosen.contains(&v));
                let voxels = map.voxels.par_iter().map(|&v| u8::from(is_chosen(v)));
                Cow::Owned(Mask {
                    voxels: voxels.collect(),
                    geometry: map.geometry.clone(),
                })
            }
        }
    }

    /// The labels that occur, but for 0.
    pub(super) fn present(&self) -> BTreeSet<i32> {
        match self {
            Self::Mask(_) => BTreeSet::from([1]),
            Self::Map(map) => {
                let chunks = map.voxels.par_chunks(1 << 16);
                let sets = chunks.map(|chunk| chunk.iter().copied().collect::<BTreeSet<i32>>());
                let mut all = sets.reduce(BTreeSet::new, |a, b| a.union(&b).copied().collect());
                all.remove(&0);
                all
            }
        }
    }
}

fn clear<T: Copy + Default + Send + Sync>(voxels: &mut [T], ignored: &Mask) {
    let pairs = voxels.par_iter_mut().zip(&ignored.voxels);
    pairs.for_each(|(voxel, &ignored)| {
        if ignored != 0 {
            *voxel = T::default();
        }
    });
}

/// Scores the chosen labels, or all that either side has.
pub(super) fn compare(
    prediction: &Labels,
    reference: &Labels,
    chosen: &[i32],
    tolerance_mm: f64,
) -> Comparison {
    let labels: BTreeSet<i32> = if chosen.is_empty() {
        let (ours, theirs) = (prediction.present(), reference.present());
        ours.union(&theirs).copied().collect()
    } else {
        chosen.iter().copied().collect()
    };
    let of = |chosen: &[i32]| {
        let (prediction, reference) = (prediction.chosen(chosen), reference.chosen(chosen));
        scores(&prediction, &reference, tolerance_mm)
    };
    let labels: Vec<LabelScores> = labels
        .into_iter()
        .map(|label| LabelScores {
            label,
            scores: of(&[label]),
        })
        .collect();
    let overall = match labels.as_slice() {
        // One label is all there is.
        [only] => only.scores.clone(),
        _ => of(chosen),
    };
    Comparison { overall, labels }
}

fn scores(prediction: &Mask, reference: &Mask, tolerance_mm: f64) -> Scores {
    let overlap = Overlap::between(prediction, reference);
    let surfaces = SurfaceDistances::between(prediction, reference);
    Scores {
        dice: overlap.dice(),
        hd_mm: measure(surfaces.hd_mm()),
        hd95_mm: measure(surfaces.hd95_mm()),
        nsd: measure(surfaces.nsd(tolerance_mm)),
        tolerance_mm,
        assd_mm: measure(surfaces.assd_mm()),
        volume_ml: overlap::volume_ml(prediction),
        reference_volume_ml: overlap::volume_ml(reference),
        voxels: overlap.prediction,
        reference_voxels: overlap.reference,
    }
}

fn measure(distance: std::result::Result<f64, Undefined>) -> Measure {
    match distance {
        Ok(value) => Measure::new(Some(value), "it is not finite"),
        Err(why) => Measure::new(None, &why.to_string()),
    }
}
