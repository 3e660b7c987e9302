//! The channels of a network's input, made at native resolution and then averaged into cells.
//!
//! | channel | what it holds |
//! |---|---|
//! | intensity | normalised intensity |
//! | flat | share of voxels equal to their next neighbour on every axis: constant fills |
//! | detail | log(1 + gain × mean |second difference|) / divisor: noise and texture, or their lack |
//! | in-view | 1 inside the volume, 0 in the margin round it |
//! | ct | 1 inside a volume that was normalised as CT |
//! | abrupt | how abruptly constants end ([`super::ends`]); only where a card asks for it |
//! | air-edge | how abruptly air ends; only where a card asks for it |
//! | logit | what a first network said, for a [`super::refinement`] |
//!
//! «flat», «detail», «abrupt» and «air-edge» are lost by resampling, so they are taken before it. Memory:
//! three planes a thread, and the coarse cells.

use rayon::prelude::*;

use super::card::Input;
use super::ends::{abrupt, air_edge};
use super::normalize::Normalization;
use crate::volume::Image;
use crate::volume::coarse_grid::{Averaging, CoarseGrid};

/// A value for every cell of the coarse grid, `i` fastest.
#[derive(Clone)]
pub struct Channels {
    /// Normalised intensity.
    pub intensity: Vec<f32>,
    /// Share of constant voxels, [0, 1].
    pub flat: Vec<f32>,
    /// Logarithm of the mean second difference.
    pub detail: Vec<f32>,
    /// Mean abruptness of the ends of constants; `None` where no card asked for it.
    pub abrupt: Option<Vec<f32>>,
    /// Mean abruptness of the ends of air; `None` where no card asked for it.
    pub air_edge: Option<Vec<f32>>,
    /// What a first network said; `None` but in a refinement.
    pub logit: Option<Vec<f32>>,
}

impl Channels {
    /// Makes what `input` asks for besides and what is not there yet.
    pub(super) fn complete(
        &mut self,
        image: &Image,
        grid: &CoarseGrid,
        normalization: &Normalization,
        input: &Input,
    ) {
        if let (None, Some(rule)) = (&self.abrupt, input.abrupt_rule()) {
            self.abrupt = Some(abrupt(image, grid, rule));
        }
        if let (None, Some(rule)) = (&self.air_edge, input.air_edge_rule()) {
            self.air_edge = Some(air_edge(image, grid, normalization, rule));
        }
    }
}

/// Planes that are worked on before their sums are put into cells; bounds the memory of a long scan.
const PLANES_AT_ONCE: usize = 64;

/// Makes the channels of an image that is oriented as the network expects.
pub fn channels(
    image: &Image,
    grid: &CoarseGrid,
    normalization: &Normalization,
    input: &Input,
) -> Channels {
    let maker = PlaneMaker::new(image, grid, normalization, input);
    let [mi, mj, mk] = grid.shape;
    let along_k = grid.averaging(2);
    let mut cells = vec![0.0_f32; 3 * mi * mj * mk];
    let planes: Vec<usize> = (0..image.shape()[2]).collect();
    for some in planes.chunks(PLANES_AT_ONCE) {
        let made: Vec<Vec<f32>> = some.par_iter().map(|&k| maker.make(k)).collect();
        cells
            .par_chunks_mut(3 * mi * mj)
            .zip(along_k.cells())
            .for_each(|(cell, stretch)| {
                for (plane, k) in made.iter().zip(some) {
                    let weight = k
                        .checked_sub(stretch.start)
                        .and_then(|n| stretch.weights.get(n));
                    if let Some(&weight) = weight {
                        cell.iter_mut()
                            .zip(plane)
                            .for_each(|(c, p)| *c += weight * p);
                    }
                }
            });
    }
    let mut channels = split(&cells, mi * mj, input);
    channels.complete(image, grid, normalization, input);
    channels
}

/// Cells come as three planes a cell along k; takes them apart and finishes «detail».
fn split(cells: &[f32], plane: usize, input: &Input) -> Channels {
    let channel = |c: usize| -> Vec<f32> {
        cells
            .chunks(3 * plane)
            .flat_map(|planes| &planes[c * plane..(c + 1) * plane])
            .copied()
            .collect()
    };
    let mut detail = channel(2);
    for value in &mut detail {
        *value = (input.detail_gain * *value).ln_1p() / input.detail_divisor;
    }
    Channels {
        intensity: channel(0),
        flat: channel(1),
        detail,
        abrupt: None,
        air_edge: None,
        logit: None,
    }
}

/// Makes one plane of voxels into three planes of cells (intensity, flat, second difference),
/// averaged along j and i.
struct PlaneMaker<'a> {
    image: &'a Image,
    normalization: &'a Normalization,
    along_i: Averaging,
    along_j: Averaging,
    coarse: [usize; 2],
    /// Axes that count for «flat»: three voxels or more.
    flat_axes: [bool; 3],
    /// Axes that count for «detail»: also finely sampled.
    detail_axes: [bool; 3],
}

/// Stored and normalised values of a plane.
struct Plane {
    real: Vec<f32>,
    normal: Vec<f32>,
}

impl<'a> PlaneMaker<'a> {
    fn new(
        image: &'a Image,
        grid: &CoarseGrid,
        normalization: &'a Normalization,
        input: &Input,
    ) -> Self {
        let spacing = image.geometry.spacing().mm();
        let flat_axes = image.shape().map(|n| n >= 3);
        // A hair less, so that rounding in an oblique affine takes in no axis at the limit.
        let detail_below = input.detail_below_mm - 1e-3;
        Self {
            image,
            normalization,
            along_i: grid.averaging(0),
            along_j: grid.averaging(1),
            coarse: [grid.shape[0], grid.shape[1]],
            flat_axes,
            detail_axes: [0, 1, 2].map(|a| flat_axes[a] && spacing[a] < detail_below),
        }
    }

    fn plane(&self, k: usize) -> Plane {
        let [ni, nj, _] = self.image.shape();
        let mut real = vec![0.0; ni * nj];
        self.image.samples.read_run(k * ni * nj, &mut real);
        let mut normal = real.clone();
        self.normalization.apply(&mut normal);
        Plane { real, normal }
    }

    fn make(&self, k: usize) -> Vec<f32> {
        let last = self.image.shape()[2] - 1;
        let here = self.plane(k);
        let before = self.plane(k.saturating_sub(1));
        let after = self.plane((k + 1).min(last));
        // The next neighbour; the last plane has only the one before.
        let next = if k < last { &after } else { &before };
        let mut flat = vec![1.0; here.real.len()];
        self.flat(&here.real, &next.real, &mut flat);
        let mut detail = vec![0.0; here.real.len()];
        self.detail([&before.normal, &here.normal, &after.normal], &mut detail);
        let mut cells = Vec::with_capacity(3 * self.coarse[0] * self.coarse[1]);
        for values in [&here.normal, &flat, &detail] {
            self.average(values, &mut cells);
        }
        cells
    }

    fn flat(&self, here: &[f32], next: &[f32], flat: &mut [f32]) {
        let [ni, nj, _] = self.image.shape();
        for j in 0..nj {
            let row = &here[j * ni..(j + 1) * ni];
            let flat = &mut flat[j * ni..(j + 1) * ni];
            if self.flat_axes[2] {
                keep_equal(row, &next[j * ni..(j + 1) * ni], flat);
            }
            if self.flat_axes[1] {
                let other = if j + 1 < nj { j + 1 } else { j - 1 };
                keep_equal(row, &here[other * ni..(other + 1) * ni], flat);
            }
            if self.flat_axes[0] {
                keep_equal(&row[..ni - 1], &row[1..], &mut flat[..ni - 1]);
                keep_equal(&row[ni - 1..], &row[ni - 2..ni - 1], &mut flat[ni - 1..]);
            }
        }
    }

    /// Mean over the axes that count of |2x − previous − next|, neighbours clamped to the edge.
    fn detail(&self, [before, here, after]: [&[f32]; 3], detail: &mut [f32]) {
        let [ni, nj, _] = self.image.shape();
        let axes = self.detail_axes.iter().filter(|counts| **counts).count();
        if axes == 0 {
            return;
        }
        let share = 1.0 / axes as f32;
        for j in 0..nj {
            let range = j * ni..(j + 1) * ni;
            let x = &here[range.clone()];
            let sum = &mut detail[range.clone()];
            if self.detail_axes[2] {
                add_second_difference(x, &before[range.clone()], &after[range], share, sum);
            }
            if self.detail_axes[1] {
                let (low, high) = (j.saturating_sub(1), (j + 1).min(nj - 1));
                let (low, high) = (
                    &here[low * ni..(low + 1) * ni],
                    &here[high * ni..(high + 1) * ni],
                );
                add_second_difference(x, low, high, share, sum);
            }
            if self.detail_axes[0] {
                let (inner, end) = (&mut sum[1..ni - 1], ni - 1);
                add_second_difference(&x[1..end], &x[..end - 1], &x[2..], share, inner);
                sum[0] += share * (x[0] - x[1]).abs();
                sum[end] += share * (x[end] - x[end - 1]).abs();
            }
        }
    }

    /// Averages a plane along j, a whole row at a time, and then along i.
    fn average(&self, plane: &[f32], cells: &mut Vec<f32>) {
        let ni = self.image.shape()[0];
        let mut sum = vec![0.0_f32; ni];
        let mut line = vec![0.0_f32; self.coarse[0]];
        for stretch in self.along_j.cells() {
            sum.fill(0.0);
            for (n, &weight) in stretch.weights.iter().enumerate() {
                let j = stretch.start + n;
                let row = &plane[j * ni..(j + 1) * ni];
                sum.iter_mut().zip(row).for_each(|(s, v)| *s += weight * v);
            }
            self.along_i.apply(&sum, &mut line);
            cells.extend_from_slice(&line);
        }
    }
}

fn keep_equal(one: &[f32], other: &[f32], flat: &mut [f32]) {
    for ((flat, a), b) in flat.iter_mut().zip(one).zip(other) {
        *flat = if a == b { *flat } else { 0.0 };
    }
}

fn add_second_difference(x: &[f32], low: &[f32], high: &[f32], share: f32, sum: &mut [f32]) {
    for (((sum, x), low), high) in sum.iter_mut().zip(x).zip(low).zip(high) {
        *sum += share * (2.0 * x - low - high).abs();
    }
}
