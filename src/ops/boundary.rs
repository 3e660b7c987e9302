//! The skin at native resolution: where a network's coarse surface and the scan's own contrast meet.
//!
//! A cell of the network's grid is a few millimetres wide; a voxel's side of the skin is decided by
//! a score, the network's logit plus how far the voxel's intensity lies above the level of the skin,
//! measured in the local contrast between tissue and air. Far from the surface the logit outweighs
//! any intensity, so that lungs stay in and the table stays out.

use std::ops::Range;

use rayon::prelude::*;

use super::components::{Components, Connectivity, Piece};
use super::packed_mask::PackedMask;
use crate::volume::coarse_grid::{Between, CoarseField, CoarseGrid, RowReader};
use crate::volume::{Image, Mask, Shape, Volume};

/// How far the contrast may push a score, either way.
pub(super) const CONTRAST_LIMIT: f32 = 4.0;
/// Probability from which a cell counts as surely inside, and 1 minus it as surely outside.
const SURE: f32 = 0.8;
/// Contrast below this (in normalised intensity) is noise: the network decides alone.
pub(super) const LEAST_CONTRAST: f32 = 0.05;
/// Share of sure cells that a local mean must rest on.
const LEAST_WEIGHT: f32 = 0.02;

/// Where the skin lies between air and tissue.
#[derive(Clone, Copy, Debug)]
pub enum Level<'a> {
    /// At one normalised intensity everywhere, with this contrast between tissue and air: CT.
    Absolute {
        /// Intensity of the skin.
        intensity: f32,
        /// Tissue less air.
        contrast: f32,
    },
    /// A share of the way from the local air to the local tissue: MR.
    Local {
        /// 0 is the air's mean, 1 the tissue's.
        share: f32,
        /// Means of both around every cell.
        means: &'a Means,
    },
}

/// How logit and contrast are weighed.
#[derive(Clone, Copy, Debug)]
pub struct Weighing {
    /// Factor of the logit.
    pub logit_weight: f32,
    /// Score that a voxel gains when it lies one contrast above the level.
    pub contrast_gain: f32,
    /// Beyond this logit contrast plays no part.
    pub band_logit: f32,
}

/// A score for every voxel; above 0 it is inside.
pub struct Scores<'a> {
    image: &'a Image,
    normalize: &'a (dyn Fn(&mut [f32]) + Sync),
    weighing: Weighing,
    logits: &'a CoarseField,
    /// Beyond this logit the contrast cannot turn its sign.
    open: f32,
    contrast: ContrastTerm,
}

/// What turns an intensity into a score: times `slope`, less `threshold`.
enum ContrastTerm {
    /// The same everywhere.
    Absolute { slope: f32, threshold: f32 },
    /// Of every cell, on a grid that may be coarser than that of the logits: `contrast_gain / contrast`, 0
    /// where there is none to speak of, and that times the level of the skin.
    Local(Box<[CoarseField; 2]>),
}

/// The interpolators that threads share.
struct Rows<'a> {
    logits: RowReader<'a>,
    /// Voxels between the logits' cells.
    along_i: Between,
    contrast: Option<ContrastRows<'a>>,
}

/// Those of a contrast term that changes from place to place.
struct ContrastRows<'a> {
    fields: [RowReader<'a>; 2],
    /// The logits' cells between those of the term; `None` where they are the same.
    along_i: Option<Between>,
    cells: usize,
}

impl<'a> Scores<'a> {
    /// Prepares scores from a network's logits and the image that `normalize` brings to the scale of
    /// its cells' intensity (a run of voxels at a time).
    pub fn new(
        image: &'a Image,
        normalize: &'a (dyn Fn(&mut [f32]) + Sync),
        logits: &'a CoarseField,
        level: Level,
        weighing: Weighing,
    ) -> Self {
        let contrast = match level {
            Level::Absolute {
                intensity,
                contrast,
            } => {
                let slope = weighing.contrast_gain / contrast;
                ContrastTerm::Absolute {
                    slope,
                    threshold: slope * intensity,
                }
            }
            Level::Local { share, means } => {
                ContrastTerm::Local(Box::new(means.contrast_term(share, weighing.contrast_gain)))
            }
        };
        Self {
            image,
            normalize,
            weighing,
            logits,
            open: (CONTRAST_LIMIT / weighing.logit_weight).min(weighing.band_logit),
            contrast,
        }
    }

    /// Turns the score of every voxel into a value of the result.
    pub fn map<T: Copy + Default + Send>(&self, value: impl Fn(f32) -> T + Sync) -> Volume<T> {
        self.rows(|row, rows, work| {
            for (cell, run) in rows.along_i.runs() {
                self.score(*cell, run, rows, work);
            }
            let values = row.iter_mut().zip(&work.score);
            values.for_each(|(v, &s)| *v = value(s));
        })
    }

    /// The voxels that are inside: [`Scores::map`] with less work where the logits alone decide.
    pub fn mask(&self) -> Mask {
        self.rows(|row, rows, work| {
            for (cell, run) in rows.along_i.runs() {
                let voxels = &mut row[run.clone()];
                if let Some(inside) = self.decided(work.between(*cell)) {
                    voxels.fill(u8::from(inside));
                    continue;
                }
                self.score(*cell, run, rows, work);
                let values = voxels.iter_mut().zip(&work.score[run.clone()]);
                values.for_each(|(v, &s)| *v = u8::from(s > 0.0));
            }
        })
    }

    /// Fills a volume row by row: `fill` gets what scores of that row are made of.
    fn rows<T: Copy + Default + Send>(
        &self,
        fill: impl Fn(&mut [T], &Rows, &mut Work) + Sync,
    ) -> Volume<T> {
        let [ni, nj, nk] = self.image.shape();
        let mut voxels = vec![T::default(); ni * nj * nk];
        let rows = Rows {
            logits: self.logits.rows(),
            along_i: self.logits.grid.between(0),
            contrast: self.contrast.rows(&self.logits.grid),
        };
        voxels
            .par_chunks_mut(ni * nj)
            .enumerate()
            .for_each(|(k, plane)| {
                let mut work = self.work(&rows, ni);
                for (j, row) in plane.chunks_mut(ni).enumerate() {
                    self.prepare(j, k, &rows, &mut work);
                    fill(row, &rows, &mut work);
                }
            });
        Volume {
            voxels,
            geometry: self.image.geometry.clone(),
        }
    }

    /// On which side all voxels between two cells lie, where the contrast cannot turn the logit's sign.
    fn decided(&self, between: [f32; 2]) -> Option<bool> {
        if between.iter().all(|l| *l > self.open) {
            return Some(true);
        }
        between.iter().all(|l| *l < -self.open).then_some(false)
    }

    /// Reads what the scores of a row are made of; intensities and contrast where they may matter.
    fn prepare(&self, j: usize, k: usize, rows: &Rows, work: &mut Work) {
        rows.logits.read(j, k, &mut work.logits);
        let first = self.decided([work.logits[0]; 2]);
        let same = |logit: &f32| first.is_some() && self.decided([*logit; 2]) == first;
        work.all_decided = work.logits.iter().all(same);
        if work.all_decided {
            return;
        }
        if let Some(contrast) = &rows.contrast {
            contrast.read(j, k, &mut work.coarse, &mut work.contrast);
        }
        let [ni, nj, _] = self.image.shape();
        let start = ni * (j + nj * k);
        self.image.samples.read_run(start, &mut work.intensity);
        (self.normalize)(&mut work.intensity);
    }

    /// Scores a run of voxels between two cells.
    fn score(&self, cell: usize, run: &Range<usize>, rows: &Rows, work: &mut Work) {
        let upper = (cell + 1).min(work.logits.len() - 1);
        let between = |field: &[f32]| (field[cell], field[upper] - field[cell]);
        let logit = between(&work.logits);
        let open = !work.all_decided && self.decided(work.between(cell)).is_none();
        let contrast = open.then(|| work.contrast.each_ref().map(|field| between(field)));
        for i in run.clone() {
            let share = rows.along_i.place(i).1;
            let l = logit.0 + share * logit.1;
            let mut score = self.weighing.logit_weight * l;
            if let Some([slope, threshold]) = contrast
                && l.abs() < self.weighing.band_logit
            {
                let slope = slope.0 + share * slope.1;
                let threshold = threshold.0 + share * threshold.1;
                score +=
                    (slope * work.intensity[i] - threshold).clamp(-CONTRAST_LIMIT, CONTRAST_LIMIT);
            }
            work.score[i] = score;
        }
    }
}

/// Moves whole pieces to the side on which the network puts most of them: dark pieces (bowel, a lung)
/// into the mask, bright ones (a table) out of it. A dark piece that only faces across one axis cut
/// open, as the ends of a chest scan cut the lungs, needs no more than [`CUT_CAVITY_SHARE`]. One that a single face cut
/// open is inside whatever the network says where `faces_close`: not in CT, where a table may enclose air, too.
///
/// A score weighs every voxel alone; a piece that is anatomy or air as a whole is not decided by its
/// darkness.
pub fn settle_pieces(mask: &mut Mask, logits: &CoarseField, faces_close: bool) {
    // A bit each: a whole body has many voxels.
    let likely = PackedMask::of_field(logits, mask.geometry.shape, 0.0);
    for outside in [true, false] {
        let components = if outside {
            Components::find_outside(mask, Connectivity::Six)
        } else {
            Components::find(mask, Connectivity::Six)
        };
        let inside = components.count_in(&likely);
        for (run, piece) in components.runs() {
            let found = components.pieces()[piece];
            let needed = match cut_open(&found, mask.geometry.shape) {
                Some(Cut::Face) if outside && faces_close => None,
                Some(_) if outside => Some(CUT_CAVITY_SHARE),
                _ => Some(0.5),
            };
            let enough = |needed| inside[piece] as f64 > needed * found.voxels as f64;
            mask.voxels[run].fill(u8::from(needed.is_none_or(enough)));
        }
    }
}

/// Share of a cut cavity's voxels that must look like inside.
const CUT_CAVITY_SHARE: f64 = 0.25;

/// What of the volume's border cuts a piece open.
enum Cut {
    /// A single face: what lies around it there is body on all sides.
    Face,
    /// Both faces across one axis.
    Axis,
}

/// How the border cuts a piece; `None` where it does not, or from several sides.
fn cut_open(piece: &Piece, shape: Shape) -> Option<Cut> {
    let bounds = piece.bounding_box;
    let faces = [0, 1, 2].map(|axis| {
        usize::from(bounds.start[axis] == 0) + usize::from(bounds.end[axis] == shape[axis])
    });
    let cut_across = faces.iter().filter(|&&faces| faces > 0).count();
    match (cut_across, faces.iter().sum()) {
        (1, 1) => Some(Cut::Face),
        (1, _) => Some(Cut::Axis),
        _ => None,
    }
}

impl ContrastTerm {
    fn rows(&self, logits: &CoarseGrid) -> Option<ContrastRows<'_>> {
        match self {
            Self::Absolute { .. } => None,
            Self::Local(fields) => {
                let grid = &fields[0].grid;
                Some(ContrastRows {
                    fields: fields.each_ref().map(CoarseField::rows),
                    along_i: (grid != logits).then(|| grid.between_cells_of(logits, 0)),
                    cells: grid.shape[0],
                })
            }
        }
    }
}

impl ContrastRows<'_> {
    /// Slope and threshold at the logits' cells of a row of voxels.
    fn read(&self, j: usize, k: usize, coarse: &mut [f32], terms: &mut [Vec<f32>; 2]) {
        for (field, term) in self.fields.iter().zip(terms) {
            match &self.along_i {
                Some(along_i) => {
                    field.read(j, k, coarse);
                    along_i.read(coarse, term);
                }
                None => field.read(j, k, term),
            }
        }
    }
}

/// Buffers of one thread: cells along a row, voxels along a row.
struct Work {
    logits: Vec<f32>,
    /// Slope and threshold at the logits' cells.
    contrast: [Vec<f32>; 2],
    /// One of them at its own cells.
    coarse: Vec<f32>,
    intensity: Vec<f32>,
    score: Vec<f32>,
    /// Whether the logits decide the whole row, so that intensities and contrast were not read.
    all_decided: bool,
}

impl Work {
    /// The logits of a cell and of the next.
    fn between(&self, cell: usize) -> [f32; 2] {
        [
            self.logits[cell],
            self.logits[(cell + 1).min(self.logits.len() - 1)],
        ]
    }
}

impl Scores<'_> {
    fn work(&self, rows: &Rows, voxels: usize) -> Work {
        let cells = self.logits.grid.shape[0];
        let terms = match self.contrast {
            ContrastTerm::Absolute { slope, threshold } => [slope, threshold],
            ContrastTerm::Local(_) => [0.0; 2],
        };
        Work {
            logits: vec![0.0; cells],
            contrast: terms.map(|term| vec![term; cells]),
            coarse: vec![0.0; rows.contrast.as_ref().map_or(0, |rows| rows.cells)],
            intensity: vec![0.0; voxels],
            score: vec![0.0; voxels],
            all_decided: false,
        }
    }
}

/// What air and tissue hold around every cell: means over the cells that the network is sure of.
#[derive(Debug)]
pub struct Means {
    /// Where the cells lie.
    pub(super) grid: CoarseGrid,
    /// Mean of the air.
    pub(super) air: Vec<f32>,
    /// Mean of the tissue less that of the air; 0 where either is unknown or they hardly differ.
    pub(super) contrast: Vec<f32>,
}

impl Means {
    /// Takes means of the cells' intensity with a Gaussian of `smoothing_mm`.
    pub fn around(logits: &CoarseField, intensity: &[f32], smoothing_mm: f64) -> Self {
        let sure = (SURE / (1.0 - SURE)).ln();
        let mean = |inside: &(dyn Fn(f32) -> bool + Sync)| {
            let weight: Vec<f32> = logits
                .values
                .iter()
                .map(|&l| f32::from(u8::from(inside(l))))
                .collect();
            let sum: Vec<f32> = weight.iter().zip(intensity).map(|(w, v)| w * v).collect();
            let sigma = smoothing_mm / logits.grid.cell_mm;
            let shape = logits.grid.shape;
            (
                gaussian(&sum, shape, sigma),
                gaussian(&weight, shape, sigma),
            )
        };
        let (tissue, tissue_weight) = mean(&|l| l > sure);
        let (air, air_weight) = mean(&|l| l < -sure);
        let level = |n: usize| {
            let tissue = tissue[n] / tissue_weight[n].max(1e-3);
            let air = air[n] / air_weight[n].max(1e-3);
            let contrast = tissue - air;
            let known = tissue_weight[n] > LEAST_WEIGHT && air_weight[n] > LEAST_WEIGHT;
            let enough = known && contrast > LEAST_CONTRAST;
            (air, if enough { contrast } else { 0.0 })
        };
        let (air, contrast) = (0..intensity.len()).map(level).unzip();
        Self {
            grid: logits.grid.clone(),
            air,
            contrast,
        }
    }

    /// Whether there is contrast to speak of around a cell.
    pub(super) fn known(&self, n: usize) -> bool {
        self.contrast[n] > 0.0
    }

    /// A value for every cell.
    pub(super) fn field(&self, values: Vec<f32>) -> CoarseField {
        CoarseField {
            grid: self.grid.clone(),
            values,
        }
    }

    /// Slope and threshold of the contrast term for every cell.
    fn contrast_term(&self, share: f32, gain: f32) -> [CoarseField; 2] {
        let term = |n: usize| {
            if !self.known(n) {
                return (0.0, 0.0);
            }
            let slope = gain / self.contrast[n];
            (slope, slope * (self.air[n] + share * self.contrast[n]))
        };
        let (slope, threshold) = (0..self.air.len()).map(term).unzip();
        [slope, threshold].map(|values| self.field(values))
    }
}

/// Gaussian mean over cells, `sigma` in cells; beyond the edge lies nothing (0).
pub(super) fn gaussian(values: &[f32], shape: [usize; 3], sigma: f64) -> Vec<f32> {
    let radius = (4.0 * sigma + 0.5) as usize;
    let weight = |n: usize| (-0.5 * (n as f64 / sigma).powi(2)).exp();
    let sum = weight(0) + 2.0 * (1..=radius).map(weight).sum::<f64>();
    let kernel: Vec<f32> = (0..=radius).map(|n| (weight(n) / sum) as f32).collect();
    let mut values = values.to_vec();
    let mut stride = 1;
    for length in shape {
        values = smooth_along(&values, stride, length, &kernel);
        stride *= length;
    }
    values
}

fn smooth_along(values: &[f32], stride: usize, length: usize, kernel: &[f32]) -> Vec<f32> {
    let smooth = |n: usize| {
        let place = n / stride % length;
        let mut sum = kernel[0] * values[n];
        for (distance, weight) in kernel.iter().enumerate().skip(1) {
            if distance <= place {
                sum += weight * values[n - distance * stride];
            }
            if place + distance < length {
                sum += weight * values[n + distance * stride];
            }
        }
        sum
    };
    (0..values.len()).into_par_iter().map(smooth).collect()
}

#[cfg(test)]
mod tests;
