//! The skin of an MR scan: the surface of a mask, moved to where the scan crosses the skin's level.
//!
//! Fat is several times as bright as muscle and the skin itself, so that a level taken from all the
//! tissue nearby lies too far in or out. Here it is a share of the way from the air nearby to the
//! outermost millimetres of the tissue, as partial volume blends just these two.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::boundary::{CONTRAST_LIMIT, LEAST_CONTRAST, Means, Weighing, gaussian};
use super::morphology::{dilate, erode};
use crate::volume::coarse_grid::CoarseField;
use crate::volume::{Image, Mask};

/// How the skin is found.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Skin {
    /// Level of the skin: 0 is the air's mean, 1 that of the outermost tissue.
    pub level: f32,
    /// Tissue this deep is the outermost; the surface moves inwards by no more [mm].
    pub depth_mm: f64,
    /// The surface moves outwards by no more [mm], or by one voxel where voxels are larger.
    pub reach_mm: f64,
    /// What is darker than this share of the way from the air to all the tissue nearby is no tissue.
    pub floor: f32,
    /// Means are taken with a Gaussian of this standard deviation [mm].
    pub smoothing_mm: f64,
    /// How often the surface is moved.
    pub passes: usize,
}

/// Noise is averaged with a Gaussian of this standard deviation before the level is compared [mm].
const DENOISING_MM: f64 = 0.5;
/// A mean must rest on this many voxels, weighed by the Gaussian.
const LEAST_VOXELS: f32 = 0.01;
/// What is neither near the surface inside nor outside.
const FAR: u8 = 0;
/// Inside, near the surface.
const SHELL: u8 = 1;
/// Outside, near the surface.
const RIM: u8 = 2;

/// Moves the surface of `mask` to the skin, where the network's `logits` and the contrast, weighed
/// against each other, put it. `means` are those of the air and of all the tissue around each cell,
/// on the scale that `normalize` brings the image to.
pub fn move_to_skin(
    mask: &mut Mask,
    image: &Image,
    normalize: &(dyn Fn(&mut [f32]) + Sync),
    logits: &CoarseField,
    means: &Means,
    weighing: Weighing,
    rule: &Skin,
) {
    let rows = DenoisedRows::new(image, normalize);
    for _ in 0..rule.passes {
        let band = band(mask, rule);
        let [slope, threshold] = contrast_term(&band, &rows, means, weighing.contrast_gain, rule);
        let fields = [logits, &slope, &threshold];
        decide(mask, &band, &rows, fields, weighing.logit_weight);
    }
}

/// `SHELL`, `RIM` or `FAR` for every voxel.
fn band(mask: &Mask, rule: &Skin) -> Vec<u8> {
    let spacing = mask.geometry.spacing().mm();
    let finest = spacing.iter().copied().fold(f64::INFINITY, f64::min);
    let deep = erode(mask, rule.depth_mm.max(1.01 * finest));
    let wide = dilate(mask, rule.reach_mm.max(1.01 * finest));
    let kind = |((&inside, &deep), &wide): ((&u8, &u8), &u8)| match (inside, deep, wide) {
        (0, _, 0) | (1.., 1.., _) => FAR,
        (0, _, _) => RIM,
        (_, 0, _) => SHELL,
    };
    let voxels = mask.voxels.par_iter().zip(&deep.voxels).zip(&wide.voxels);
    voxels.map(kind).collect()
}

/// Slope and threshold of the contrast term for every cell, 0 where the level is unknown.
fn contrast_term(
    band: &[u8],
    rows: &DenoisedRows,
    means: &Means,
    gain: f32,
    rule: &Skin,
) -> [CoarseField; 2] {
    let grid = &means.grid;
    let (sum, count) = pool_shell(band, rows, means, rule);
    let sigma = rule.smoothing_mm / grid.cell_mm;
    let sum = gaussian(&sum, grid.shape, sigma);
    let count = gaussian(&count, grid.shape, sigma);
    let level = |n: usize| {
        if !means.known(n) {
            return (0.0, 0.0);
        }
        // A shell of nothing but air lies outside the body: all the tissue nearby must serve.
        let contrast = if count[n] < LEAST_VOXELS {
            means.contrast[n]
        } else {
            sum[n] / count[n] - means.air[n]
        };
        if contrast <= LEAST_CONTRAST {
            return (0.0, 0.0);
        }
        let slope = gain / contrast;
        (slope, slope * (means.air[n] + rule.level * contrast))
    };
    let (slope, threshold) = (0..sum.len()).map(level).unzip();
    [slope, threshold].map(|values| means.field(values))
}

/// Sum and number of the shell's voxels in every cell, those in the dark left out.
fn pool_shell(
    band: &[u8],
    rows: &DenoisedRows,
    means: &Means,
    rule: &Skin,
) -> (Vec<f32>, Vec<f32>) {
    let grid = &means.grid;
    let [ni, nj, nk] = grid.fine_shape();
    let [mi, mj, mk] = grid.shape;
    let nearest = |axis: usize, voxels: usize| -> Vec<usize> {
        let between = grid.between(axis);
        let cell = |voxel| {
            let (lower, share) = between.place(voxel);
            lower + usize::from(share >= 0.5)
        };
        (0..voxels).map(cell).collect()
    };
    let (cell_i, cell_j, cell_k) = (nearest(0, ni), nearest(1, nj), nearest(2, nk));
    let layers = (0..mk).into_par_iter().map(|layer| {
        let (mut sums, mut counts) = (vec![0.0; mi * mj], vec![0.0; mi * mj]);
        let mut work = rows.work();
        for k in (0..nk).filter(|&k| cell_k[k] == layer) {
            for j in 0..nj {
                let run = &band[ni * (j + nj * k)..][..ni];
                if !run.contains(&SHELL) {
                    continue;
                }
                rows.read(j, k, &mut work);
                for (i, _) in run.iter().enumerate().filter(|(_, b)| **b == SHELL) {
                    let cell = cell_i[i] + mi * cell_j[j];
                    let n = cell + mi * mj * layer;
                    let floor = means.air[n] + rule.floor * means.contrast[n];
                    if work.row[i] > floor {
                        sums[cell] += work.row[i];
                        counts[cell] += 1.0;
                    }
                }
            }
        }
        (sums, counts)
    });
    let layers: Vec<(Vec<f32>, Vec<f32>)> = layers.collect();
    let (sums, counts): (Vec<_>, Vec<_>) = layers.into_iter().unzip();
    (sums.concat(), counts.concat())
}

/// Puts the voxels of the band on their side of the skin, where its level is known. `fields`:
/// logits, slope and threshold of the contrast term, each on a grid of its own.
fn decide(
    mask: &mut Mask,
    band: &[u8],
    rows: &DenoisedRows,
    fields: [&CoarseField; 3],
    logit_weight: f32,
) {
    let [ni, nj, _] = mask.geometry.shape;
    let (readers, along_i) = (
        fields.map(CoarseField::rows),
        fields.map(|field| field.grid.between(0)),
    );
    let planes = mask.voxels.par_chunks_mut(ni * nj).enumerate();
    planes.for_each(|(k, plane)| {
        let mut work = rows.work();
        let mut cells = fields.map(|field| vec![0.0; field.grid.shape[0]]);
        for (j, row) in plane.chunks_mut(ni).enumerate() {
            let run = &band[ni * (j + nj * k)..][..ni];
            if run.iter().all(|&b| b == FAR) {
                continue;
            }
            rows.read(j, k, &mut work);
            for (reader, cells) in readers.iter().zip(&mut cells) {
                reader.read(j, k, cells);
            }
            for i in (0..ni).filter(|&i| run[i] != FAR) {
                let [logit, slope, threshold] = [0, 1, 2].map(|n| {
                    let ((cell, share), field) = (along_i[n].place(i), &cells[n]);
                    let upper = (cell + 1).min(field.len() - 1);
                    field[cell] + share * (field[upper] - field[cell])
                });
                if slope > 0.0 {
                    let contrast = slope * work.row[i] - threshold;
                    let contrast = contrast.clamp(-CONTRAST_LIMIT, CONTRAST_LIMIT);
                    row[i] = u8::from(logit_weight * logit + contrast > 0.0);
                }
            }
        }
    });
}

/// Rows of the normalised image, lightly smoothed.
struct DenoisedRows<'a> {
    image: &'a Image,
    normalize: &'a (dyn Fn(&mut [f32]) + Sync),
    /// Weight of a neighbour on either side along i, j, k; the voxel's own is what is left of 1.
    weights: [f32; 3],
}

/// Buffers of one thread.
struct RowWork {
    row: Vec<f32>,
    read: Vec<f32>,
    sum: Vec<f32>,
}

impl<'a> DenoisedRows<'a> {
    fn new(image: &'a Image, normalize: &'a (dyn Fn(&mut [f32]) + Sync)) -> Self {
        let weights = image.geometry.spacing().mm().map(|mm| {
            let sigma = DENOISING_MM.min(mm) / mm;
            let side = (-0.5 / (sigma * sigma)).exp();
            (side / (1.0 + 2.0 * side)) as f32
        });
        Self {
            image,
            normalize,
            weights,
        }
    }

    fn work(&self) -> RowWork {
        let empty = || vec![0.0; self.image.shape()[0]];
        RowWork {
            row: empty(),
            read: empty(),
            sum: empty(),
        }
    }

    /// Reads the row `(j, k)` into `work.row`; beyond the border its own voxels go on.
    fn read(&self, j: usize, k: usize, work: &mut RowWork) {
        let [ni, nj, nk] = self.image.shape();
        let [wi, wj, wk] = self.weights;
        let around = |n: usize, length: usize, weight: f32| {
            let next = (n + 1).min(length - 1);
            [
                (n.saturating_sub(1), weight),
                (n, 1.0 - 2.0 * weight),
                (next, weight),
            ]
        };
        work.sum.fill(0.0);
        for (k, wk) in around(k, nk, wk) {
            for (j, wj) in around(j, nj, wj) {
                let start = ni * (j + nj * k);
                self.image.samples.read_run(start, &mut work.read);
                (self.normalize)(&mut work.read);
                let weight = wj * wk;
                let line = work.sum.iter_mut().zip(&work.read);
                line.for_each(|(sum, value)| *sum += weight * value);
            }
        }
        for i in 0..ni {
            let sides = work.sum[i.saturating_sub(1)] + work.sum[(i + 1).min(ni - 1)];
            work.row[i] = (1.0 - 2.0 * wi) * work.sum[i] + wi * sides;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{grid, image, mask, oblique_grid};
    use crate::volume::Geometry;
    use crate::volume::coarse_grid::CoarseGrid;

    const RULE: Skin = Skin {
        level: 0.4,
        depth_mm: 2.5,
        reach_mm: 1.0,
        floor: 0.25,
        smoothing_mm: 5.0,
        passes: 2,
    };
    const WEIGHING: Weighing = Weighing {
        logit_weight: 0.0,
        contrast_gain: 30.0,
        band_logit: 8.0,
    };

    /// Air (0.05), muscle (0.4) and over it 6 mm of bright fat (1.0), in slabs along i: the surface
    /// lies at `ni / 2` voxels, where one voxel holds 0.4 fat.
    fn slabs(geometry: Geometry) -> Image {
        let [ni, ..] = geometry.shape;
        let step = geometry.spacing().mm()[0];
        let mut slabs = image(geometry.clone(), |_| 0.0);
        let values = (0..geometry.voxel_count()).map(|n| {
            let depth = (n % ni) as f64 - (ni / 2) as f64;
            match depth * step {
                0.0 => 0.05 + 0.4 * 0.95,
                mm if mm < 0.0 => 0.05,
                mm if mm < 6.0 => 1.0,
                _ => 0.4,
            }
        });
        slabs.samples = crate::volume::Samples::F32(values.map(|v| v as f32).collect());
        slabs
    }

    /// The surface that is found along i from a mask which starts `off` voxels too far out, under a
    /// network that puts everything at logit 1 (inside), all of it weighed by `logit_weight`.
    fn surface(geometry: Geometry, off: isize, logit_weight: f32, level: f32) -> usize {
        let [ni, nj, nk] = geometry.shape;
        let scan = slabs(geometry.clone());
        let cells = CoarseGrid::over(&geometry, 4.0);
        let logits = CoarseField {
            values: vec![1.0; cells.cell_count()],
            grid: cells,
        };
        let means = Means {
            grid: logits.grid.clone(),
            air: vec![0.05; logits.values.len()],
            contrast: vec![0.5; logits.values.len()],
        };
        let first = (ni / 2) as isize - off;
        let mut found = mask(geometry, |[i, _, _]| i as isize >= first);
        let rule = Skin { level, ..RULE };
        let weighing = Weighing {
            logit_weight,
            ..WEIGHING
        };
        move_to_skin(&mut found, &scan, &|_| {}, &logits, &means, weighing, &rule);
        let row = &found.voxels[ni * (nj / 2 + nj * (nk / 2))..][..ni];
        let edge = row.iter().take_while(|v| **v == 0).count();
        assert!(row[edge..].iter().all(|v| *v == 1));
        edge
    }

    #[test]
    fn the_surface_moves_in_and_out_to_the_share_of_the_outermost_tissue() {
        for geometry in [
            grid([60, 24, 24], [1.0, 1.0, 1.0]),
            oblique_grid([60, 24, 12], [0.9, 1.1, 2.0]),
        ] {
            for off in [-2, -1, 0, 1, 2] {
                // The mixed voxel holds 0.4 fat. The outermost 2.5 mm, the mixed voxel among them, lie
                // between 0.7 and 1.0: a level of 0.25 is below 0.3, one of 0.7 above 0.5.
                assert_eq!(surface(geometry.clone(), off, 0.0, 0.25), 30, "{off}");
                assert_eq!(surface(geometry.clone(), off, 0.0, 0.7), 31, "{off}");
            }
        }
    }

    #[test]
    fn a_network_that_is_sure_outweighs_the_contrast() {
        let geometry = grid([60, 24, 24], [1.0, 1.0, 1.0]);
        // Contrast counts for 4 at most: a voxel outwards in each of the two passes.
        assert_eq!(surface(geometry.clone(), 2, 5.0, 0.25), 26);
        assert_eq!(surface(geometry, 2, 1.0, 0.25), 30);
    }

    #[test]
    fn without_contrast_nothing_moves() {
        let geometry = grid([30, 20, 20], [1.0, 1.0, 1.0]);
        let flat = image(geometry.clone(), |_| 0.5);
        let cells = CoarseGrid::over(&geometry, 4.0);
        let logits = CoarseField {
            values: vec![-1.0; cells.cell_count()],
            grid: cells,
        };
        let means = Means {
            grid: logits.grid.clone(),
            air: vec![0.5; logits.values.len()],
            contrast: vec![0.0; logits.values.len()],
        };
        let before = mask(geometry, |[i, _, _]| i >= 15);
        let mut after = before.clone();
        move_to_skin(&mut after, &flat, &|_| {}, &logits, &means, WEIGHING, &RULE);
        assert!(after == before);
    }
}
