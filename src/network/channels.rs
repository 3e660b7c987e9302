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
//! a few planes a thread, and the cells.

use rayon::prelude::*;

use super::card::Input;
use super::ends::{abrupt, air_edge};
use super::normalize::Normalization;
use super::tiles::rows;
use crate::lanes::{self, Lanes, Task};
use crate::volume::coarse_grid::{Averaging, CoarseGrid};
use crate::volume::{BoundingBox, Image};

/// A value for every cell of a coarse grid, `i` fastest.
#[derive(Clone)]
pub struct Channels {
    /// Where the cells lie.
    pub grid: CoarseGrid,
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
    /// None yet.
    pub(super) fn on(grid: CoarseGrid) -> Self {
        Self {
            grid,
            intensity: Vec::new(),
            flat: Vec::new(),
            detail: Vec::new(),
            abrupt: None,
            air_edge: None,
            logit: None,
        }
    }

    /// Those of some of the cells, which `grid` is laid over.
    pub(super) fn part(&self, cells: &BoundingBox, grid: CoarseGrid) -> Self {
        let part = |field: &Vec<f32>| values_in(cells, &self.grid, field);
        Self {
            grid,
            intensity: part(&self.intensity),
            flat: part(&self.flat),
            detail: part(&self.detail),
            abrupt: self.abrupt.as_ref().map(part),
            air_edge: self.air_edge.as_ref().map(part),
            logit: self.logit.as_ref().map(part),
        }
    }
}

/// The values of a field on a grid in some of its cells.
pub(super) fn values_in(cells: &BoundingBox, grid: &CoarseGrid, field: &[f32]) -> Vec<f32> {
    let mut values = Vec::with_capacity(cells.voxel_count());
    rows(cells, grid.shape).for_each(|row| values.extend_from_slice(&field[row]));
    values
}

/// The channels of an image that is oriented as the network expects.
pub fn channels(
    image: &Image,
    grid: CoarseGrid,
    normalization: &Normalization,
    input: &Input,
) -> Channels {
    let mut channels = Channels::on(grid);
    make(image, &mut [&mut channels], normalization, input);
    channels
}

/// Makes channels on several grids over one image, whose voxels are gone through once for all of them.
pub(super) fn make(
    image: &Image,
    all: &mut [&mut Channels],
    normalization: &Normalization,
    input: &Input,
) {
    make_plain(image, all, normalization, input);
    complete(image, all, normalization, input);
}

/// Makes what `input` asks for besides and what is not there yet.
pub(super) fn complete(
    image: &Image,
    all: &mut [&mut Channels],
    normalization: &Normalization,
    input: &Input,
) {
    if let Some(rule) = input.abrupt_rule() {
        fill_in(
            all,
            |lacking| &mut lacking.abrupt,
            |grids| abrupt(image, grids, rule),
        );
    }
    if let Some(rule) = input.air_edge_rule() {
        let make = |grids: &[CoarseGrid]| air_edge(image, grids, normalization, rule);
        fill_in(all, |lacking| &mut lacking.air_edge, make);
    }
}

/// Makes a channel on the grids that lack it.
fn fill_in(
    all: &mut [&mut Channels],
    field: impl Fn(&mut Channels) -> &mut Option<Vec<f32>>,
    make: impl FnOnce(&[CoarseGrid]) -> Vec<Vec<f32>>,
) {
    let mut lacking: Vec<&mut Channels> = all.iter_mut().map(|channels| &mut **channels).collect();
    lacking.retain_mut(|channels| field(channels).is_none());
    if lacking.is_empty() {
        return;
    }
    let made = make(&grids(&lacking));
    for (channels, made) in lacking.into_iter().zip(made) {
        *field(channels) = Some(made);
    }
}

fn grids(all: &[&mut Channels]) -> Vec<CoarseGrid> {
    all.iter().map(|channels| channels.grid.clone()).collect()
}

/// Planes that are worked on before their sums are put into cells; bounds the memory of a long scan.
const PLANES_AT_ONCE: usize = 64;
/// Fewer where they have more values than this, as those of a slab of huge voxels may.
const VALUES_AT_ONCE: usize = 1 << 24;
/// Planes that a thread makes one after the other: each is read once, for itself and for its neighbours.
const RUN: usize = 4;
/// Intensity, flat and second difference.
const FIELDS: usize = 3;

/// Makes the channels that need no line of voxels: intensity, flat and detail.
fn make_plain(
    image: &Image,
    all: &mut [&mut Channels],
    normalization: &Normalization,
    input: &Input,
) {
    let maker = PlaneMaker::new(image, &grids(all), normalization, input);
    let mut sums: Vec<Vec<f32>> = all
        .iter()
        .map(|channels| vec![0.0; FIELDS * channels.grid.cell_count()])
        .collect();
    let planes: Vec<usize> = (0..image.shape()[2]).collect();
    let size = |channels: &Channels| FIELDS * channels.grid.shape[0] * channels.grid.shape[1];
    let values: usize = all.iter().map(|channels| size(channels)).sum();
    let at_once = (VALUES_AT_ONCE / values.max(1)).clamp(1, PLANES_AT_ONCE);
    for some in planes.chunks(at_once) {
        let runs = some.par_chunks(RUN);
        let made = runs.map_init(Work::default, |work, run| maker.make(run, work));
        let made: Vec<Vec<Vec<f32>>> = made.collect();
        for (n, (sums, channels)) in sums.iter_mut().zip(&*all).enumerate() {
            let size = size(channels);
            let planes = made.iter().flat_map(|run| run[n].chunks(size));
            let planes: Vec<_> = some.iter().copied().zip(planes).collect();
            add_along_k(&planes, &channels.grid.averaging(2), size, sums);
        }
    }
    for (channels, sums) in all.iter_mut().zip(sums) {
        channels.take(&sums, input);
    }
}

/// Adds planes of voxels, whose numbers are given, to planes of cells of `size` values.
fn add_along_k(planes: &[(usize, &[f32])], along_k: &Averaging, size: usize, sums: &mut [f32]) {
    let cells = sums.par_chunks_mut(size).zip(along_k.cells());
    cells.for_each(|(cell, stretch)| {
        for (k, plane) in planes {
            let weight = k.checked_sub(stretch.start);
            let weight = weight.and_then(|n| stretch.weights.get(n));
            if let Some(&weight) = weight {
                let values = cell.iter_mut().zip(*plane);
                values.for_each(|(sum, value)| *sum += weight * value);
            }
        }
    });
}

impl Channels {
    /// Cells come as three planes a cell along k; takes them apart and finishes «detail».
    fn take(&mut self, cells: &[f32], input: &Input) {
        let plane = self.grid.shape[0] * self.grid.shape[1];
        let channel = |c: usize| -> Vec<f32> {
            cells
                .chunks(FIELDS * plane)
                .flat_map(|planes| &planes[c * plane..(c + 1) * plane])
                .copied()
                .collect()
        };
        (self.intensity, self.flat, self.detail) = (channel(0), channel(1), channel(2));
        self.detail.par_iter_mut().for_each(|value| {
            *value = (input.detail_gain * *value).ln_1p() / input.detail_divisor;
        });
    }
}

/// Makes planes of voxels into planes of cells (intensity, flat, second difference), averaged along j and i.
struct PlaneMaker<'a> {
    image: &'a Image,
    normalization: &'a Normalization,
    /// Of each grid, along i and along j.
    averaging: Vec<[Averaging; 2]>,
    /// Axes that count for «flat»: three voxels or more.
    flat_axes: [bool; 3],
    /// Axes that count for «detail»: also finely sampled.
    detail_axes: [bool; 3],
}

/// Stored and normalised values of a plane.
#[derive(Default)]
struct Plane {
    real: Vec<f32>,
    normal: Vec<f32>,
}

/// What a thread uses again for run after run.
#[derive(Default)]
struct Work {
    before: Plane,
    here: Plane,
    after: Plane,
    flat: Vec<f32>,
    detail: Vec<f32>,
    sum: Vec<f32>,
    line: Vec<f32>,
}

impl<'a> PlaneMaker<'a> {
    fn new(
        image: &'a Image,
        grids: &[CoarseGrid],
        normalization: &'a Normalization,
        input: &Input,
    ) -> Self {
        let spacing = image.geometry.spacing().mm();
        let flat_axes = image.shape().map(|n| n >= 3);
        // A hair less, so that rounding in an oblique affine takes in no axis at the limit.
        let detail_below = input.detail_below_mm - 1e-3;
        let averaging = grids.iter().map(|grid| [0, 1].map(|a| grid.averaging(a)));
        Self {
            image,
            normalization,
            averaging: averaging.collect(),
            flat_axes,
            detail_axes: [0, 1, 2].map(|a| flat_axes[a] && spacing[a] < detail_below),
        }
    }

    #[inline(always)]
    fn read(&self, k: usize, plane: &mut Plane) {
        let [ni, nj, _] = self.image.shape();
        plane.real.resize(ni * nj, 0.0);
        self.image.samples.read_run(k * ni * nj, &mut plane.real);
        plane.normal.clone_from(&plane.real);
        self.normalization.apply(&mut plane.normal);
    }

    /// Of each grid the planes of cells of some planes that follow each other.
    fn make(&self, planes: &[usize], work: &mut Work) -> Vec<Vec<f32>> {
        let cells = self.averaging.iter().map(|along| {
            let [mi, mj] = along.each_ref().map(|averaging| averaging.cells().len());
            Vec::with_capacity(planes.len() * FIELDS * mi * mj)
        });
        let mut made = cells.collect();
        lanes::run(MakePlanes {
            maker: self,
            planes,
            work,
            made: &mut made,
        });
        made
    }
}

/// [`PlaneMaker::make`].
struct MakePlanes<'a, 'b> {
    maker: &'a PlaneMaker<'b>,
    planes: &'a [usize],
    work: &'a mut Work,
    made: &'a mut Vec<Vec<f32>>,
}

impl Task for MakePlanes<'_, '_> {
    /// The same sums with lanes of any width.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let maker = self.maker;
        let [ni, _, nk] = maker.image.shape();
        let last = nk - 1;
        let (Some(&first), Some(&end)) = (self.planes.first(), self.planes.last()) else {
            return;
        };
        let Work {
            before,
            here,
            after,
            flat,
            detail,
            sum,
            line,
        } = self.work;
        maker.read(first.saturating_sub(1), before);
        maker.read(first, here);
        for k in first..=end {
            maker.read((k + 1).min(last), after);
            // The next neighbour; the last plane has only the one before.
            let next = if k < last { &*after } else { &*before };
            flat.clear();
            flat.resize(here.real.len(), 1.0);
            maker.flat(&here.real, &next.real, flat);
            detail.clear();
            detail.resize(here.real.len(), 0.0);
            maker.detail([&before.normal, &here.normal, &after.normal], detail);
            for (averaging, made) in maker.averaging.iter().zip(&mut *self.made) {
                for values in [&here.normal, &*flat, &*detail] {
                    average(values, ni, averaging, (sum, line), made);
                }
            }
            std::mem::swap(before, here);
            std::mem::swap(here, after);
        }
    }
}

impl PlaneMaker<'_> {
    #[inline(always)]
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
    #[inline(always)]
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
}

/// Averages a plane with rows of `ni` along j, a whole row at a time, and then along i; adds it to the cells. The
/// room for a row of sums and for a line of cells is used again.
#[inline(always)]
fn average(
    plane: &[f32],
    ni: usize,
    [along_i, along_j]: &[Averaging; 2],
    (sum, line): (&mut Vec<f32>, &mut Vec<f32>),
    cells: &mut Vec<f32>,
) {
    line.resize(along_i.cells().len(), 0.0);
    for stretch in along_j.cells() {
        sum.clear();
        sum.resize(ni, 0.0);
        for (n, &weight) in stretch.weights.iter().enumerate() {
            let j = stretch.start + n;
            let row = &plane[j * ni..][..ni];
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum += weight * value;
            }
        }
        along_i.apply(sum, line);
        cells.extend_from_slice(line);
    }
}

#[inline(always)]
fn keep_equal(one: &[f32], other: &[f32], flat: &mut [f32]) {
    for ((flat, a), b) in flat.iter_mut().zip(one).zip(other) {
        *flat = if a == b { *flat } else { 0.0 };
    }
}

#[inline(always)]
fn add_second_difference(x: &[f32], low: &[f32], high: &[f32], share: f32, sum: &mut [f32]) {
    for (((sum, x), low), high) in sum.iter_mut().zip(x).zip(low).zip(high) {
        *sum += share * (2.0 * x - low - high).abs();
    }
}

#[cfg(test)]
mod tests;
