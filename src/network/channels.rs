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

mod planes;

use rayon::prelude::*;

use planes::{FIELDS, PlaneMaker, Work};

use super::card::Input;
use super::ends::{abrupt, air_edge};
use super::normalize::Normalization;
use super::tiles::rows;
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

#[cfg(test)]
mod tests;
