//! Grids with parallel axes: one axis after the other, in blocks of slices.
//!
//! A block of target slices reads the source slices that it needs row by row, sums them into planes,
//! then sums along the planes' second and first axis: a band of rows at a time, which stays in the cache;
//! a prefilter needs whole planes. Beyond source and target only the bands of the blocks under way are
//! held, and their size does not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::Coarsening;
use super::grid_map::{AxisMap, GridMap};
use super::prefilter;
use super::taps::{Kernel, Taps};
use crate::lanes::{self, Lanes, Task};
use crate::memory;
use crate::volume::Shape;

/// What to read for each target voxel, worked out once.
pub(super) struct Plan {
    source: Shape,
    target: Shape,
    /// Source axis that each target axis runs along.
    axes: [usize; 3],
    /// Weights along each target axis.
    taps: [Taps; 3],
}

impl Plan {
    /// A plan to interpolate.
    pub fn new(map: &GridMap, axes: &[AxisMap; 3], kernel: Kernel, coarsening: Coarsening) -> Self {
        Self {
            source: map.source,
            target: map.target,
            axes: axes.map(|axis| axis.axis),
            taps: [0, 1, 2].map(|t| Taps::new(&axes[t], kernel, coarsening)),
        }
    }

    /// A plan that stays on the source's grid, with the given weights along each axis.
    pub fn in_place(source: Shape, taps: impl Fn(&AxisMap) -> Taps) -> Self {
        Self {
            source,
            target: source,
            axes: [0, 1, 2],
            taps: [0, 1, 2].map(|axis| taps(&AxisMap::identity(axis, source[axis]))),
        }
    }

    /// Source axes along a plane's rows and across them, and the target axes they belong to.
    fn plane(&self) -> Plane<'_> {
        let first = if self.axes[2] == 0 { 1 } else { 0 };
        let transposed = self.axes[0] != first;
        let (along, across) = if transposed { (1, 0) } else { (0, 1) };
        Plane {
            along: &self.taps[along],
            across: &self.taps[across],
            axis_along: self.axes[along],
            axis_across: self.axes[across],
            transposed,
        }
    }

    /// Target slices in a block. Reading across the source's rows wants many, and so does a
    /// prefilter, which has to start some slices early.
    fn block(&self) -> usize {
        let slices = self.target[2].div_ceil(8);
        match (self.taps[2].prefilter, self.axes[2]) {
            (true, _) => slices.clamp(8, 32),
            (false, 0) => slices.clamp(4, 16),
            (false, _) => slices.clamp(1, 4),
        }
    }

    /// Rows of a slice that are made at a time, counted from the first inside, and the plane's lines
    /// that they need.
    fn bands(&self) -> impl Iterator<Item = Band> + use<'_> {
        let across = self.plane().across;
        let rows = across.inside.len();
        let together = if across.prefilter {
            rows
        } else {
            BAND.max(across.count)
        };
        let starts = (0..rows).step_by(together.max(1));
        starts.map(move |start| {
            let rows = start..(start + together).min(rows);
            let lines = if across.prefilter {
                0..across.needed.len()
            } else {
                across.span(rows.clone())
            };
            Band { rows, lines }
        })
    }

    /// Source slices that the target slices `range` of the inside need, prefilter included.
    fn span(&self, range: Range<usize>) -> Range<usize> {
        let taps = &self.taps[2];
        let span = taps.span(range);
        if !taps.prefilter {
            return span;
        }
        span.start.saturating_sub(prefilter::MEMORY)
            ..(span.end + prefilter::MEMORY).min(taps.needed.len())
    }
}

/// A source plane across the target's k: `transposed` when its rows run along the target's j.
#[derive(Clone, Copy)]
struct Plane<'a> {
    along: &'a Taps,
    across: &'a Taps,
    axis_along: usize,
    axis_across: usize,
    transposed: bool,
}

impl Plane<'_> {
    fn width(&self) -> usize {
        self.along.needed.len()
    }
}

/// Pages of the target that are made at a time [bytes].
const PAGES: usize = 1 << 20;

/// Rows in a band: few enough for its lines of all slices of a block to stay in the cache.
const BAND: usize = 16;

/// Most lines that are read of a slice before the next one is turned to, since every jump waits for memory.
const LINES: usize = 8;
/// Most values of them, of all slices, for them to stay in the cache.
const VALUES: usize = 1 << 15;

/// Rows of a slice, and lines of the planes.
struct Band {
    rows: Range<usize>,
    lines: Range<usize>,
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// A few lines of each source slice of a block.
    rows: Vec<f32>,
    /// A run of voxels along the source's i, across slices.
    run: Vec<f32>,
    /// A band's lines for each target slice of a block.
    planes: Vec<f32>,
    /// A row summed across a plane.
    row: Vec<f32>,
    /// A band's finished rows.
    finished: Vec<f32>,
}

/// Interpolates `source`; `convert` turns values into what is kept, `fill` too.
pub(super) fn interpolate<T, O>(
    source: &[T],
    plan: &Plan,
    fill: f32,
    convert: impl Fn(f32) -> O + Sync,
) -> Vec<O>
where
    T: Copy + Into<f32> + Sync,
    O: Copy + Default + Send,
{
    let slice = plan.target[0] * plan.target[1];
    let block = plan.block();
    let plane = plan.plane();
    let leaves_out = plane.along.inside.len() * plane.across.inside.len() < slice;
    let mut target = vec![O::default(); slice * plan.target[2]];
    let blocks = target.par_chunks_mut(slice * block).enumerate();
    blocks.for_each_init(Scratch::default, |scratch, (n, slices)| {
        memory::Pages::of(slices).make(PAGES);
        let inside = &plan.taps[2].inside;
        let first = n * block;
        let last = first + slices.len() / slice;
        let range = first.clamp(inside.start, inside.end)..last.clamp(inside.start, inside.end);
        if leaves_out || range.len() < last - first {
            slices.fill(convert(fill));
        }
        if range.is_empty() || plane.along.inside.is_empty() {
            return;
        }
        lanes::run(Block {
            source,
            plan,
            slices: &mut slices[(range.start - first) * slice..(range.end - first) * slice],
            range: range.start - inside.start..range.end - inside.start,
            scratch,
            convert: &convert,
        });
    });
    target
}

/// Target slices that are made from the same source slices.
struct Block<'a, T, O, C> {
    source: &'a [T],
    plan: &'a Plan,
    slices: &'a mut [O],
    /// Which they are, counted from the first inside.
    range: Range<usize>,
    scratch: &'a mut Scratch,
    convert: &'a C,
}

impl<T: Copy + Into<f32>, O, C: Fn(f32) -> O> Task for Block<'_, T, O, C> {
    /// Sums are the same with lanes of any width.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { plan, scratch, .. } = self;
        let slice = plan.target[0] * plan.target[1];
        for band in plan.bands() {
            sum_slices(
                self.source,
                plan,
                (self.range.clone(), &band.lines),
                scratch,
            );
            for (p, slice) in self.slices.chunks_mut(slice).enumerate() {
                finish_rows(plan, (p, &band), scratch);
                write_rows(plan, &band, &scratch.finished, slice, self.convert);
            }
        }
    }
}

/// Sums source slices into lines of a plane for each target slice of a range.
#[inline(always)]
fn sum_slices<T>(
    source: &[T],
    plan: &Plan,
    (range, lines): (Range<usize>, &Range<usize>),
    scratch: &mut Scratch,
) where
    T: Copy + Into<f32>,
{
    let width = plan.plane().width();
    let taps = &plan.taps[2];
    let span = plan.span(range.clone());
    let plane = lines.len() * width;
    scratch.planes.resize(range.len() * plane, 0.0);
    let most = (VALUES / (span.len() * width).max(1)).clamp(1, LINES);
    for first in lines.clone().step_by(most) {
        let together = first..(first + most).min(lines.end);
        let size = together.len() * width;
        load_lines(source, plan, (span.clone(), together), scratch);
        if taps.prefilter {
            prefilter::across(&mut scratch.rows, size);
        }
        for (p, n) in range.clone().enumerate() {
            let start = (taps.starts[n] - span.start) * size;
            let at = p * plane + (first - lines.start) * width;
            weighted_sum(
                &scratch.rows[start..],
                taps.weights_of(n),
                &mut scratch.planes[at..at + size],
            );
        }
    }
}

/// Loads some lines of the source slices `span` as `f32`, both counted from the first that is needed:
/// `[slice][line][x]`.
#[inline(always)]
fn load_lines<T>(
    source: &[T],
    plan: &Plan,
    (span, lines): (Range<usize>, Range<usize>),
    scratch: &mut Scratch,
) where
    T: Copy + Into<f32>,
{
    let plane = plan.plane();
    let width = plane.width();
    let strides = [1, plan.source[0], plan.source[0] * plan.source[1]];
    let along = strides[plane.axis_along];
    let (across, apart) = (strides[plane.axis_across], strides[plan.axes[2]]);
    let base = (plane.across.needed.start + lines.start) * across
        + plane.along.needed.start * along
        + (plan.taps[2].needed.start + span.start) * apart;
    let size = lines.len() * width;
    scratch.rows.resize(span.len() * size, 0.0);
    if plane.axis_along == 0 {
        for (n, slice) in scratch.rows.chunks_mut(size).enumerate() {
            for (l, row) in slice.chunks_mut(width).enumerate() {
                convert_run(&source[base + n * apart + l * across..], row);
            }
        }
        return;
    }
    scratch.run.resize(span.len(), 0.0);
    for l in 0..lines.len() {
        for x in 0..width {
            convert_run(&source[base + l * across + x * along..], &mut scratch.run);
            for (n, &value) in scratch.run.iter().enumerate() {
                scratch.rows[n * size + l * width + x] = value;
            }
        }
    }
}

/// Sums plane `p` across and along into `scratch.finished`: a band's rows, without what lies outside.
#[inline(always)]
fn finish_rows(plan: &Plan, (p, band): (usize, &Band), scratch: &mut Scratch) {
    let Plane { along, across, .. } = plan.plane();
    let width = along.needed.len();
    let plane = band.lines.len() * width;
    let values = &mut scratch.planes[p * plane..][..plane];
    if across.prefilter {
        prefilter::across(values, width);
    }
    scratch.row.resize(width, 0.0);
    let length = along.inside.len();
    scratch.finished.resize(band.rows.len() * length, 0.0);
    let finished = scratch.finished.chunks_mut(length);
    for (n, finished) in band.rows.clone().zip(finished) {
        let start = (across.starts[n] - band.lines.start) * width;
        weighted_sum(&values[start..], across.weights_of(n), &mut scratch.row);
        if along.prefilter {
            prefilter::across(&mut scratch.row, 1);
        }
        sum_along(&scratch.row, along, finished);
    }
}

/// Writes a band's finished rows into a slice, in the target's order.
#[inline(always)]
fn write_rows<O>(
    plan: &Plan,
    band: &Band,
    finished: &[f32],
    slice: &mut [O],
    convert: &impl Fn(f32) -> O,
) {
    let plane = plan.plane();
    let (along, first) = (&plane.along.inside, plane.across.inside.start);
    let width = plan.target[0];
    let rows = first + band.rows.start..first + band.rows.end;
    if !plane.transposed {
        let lines = slice.chunks_mut(width).skip(rows.start);
        for (line, finished) in lines.zip(finished.chunks(along.len())) {
            let kept = line[along.clone()].iter_mut().zip(finished);
            kept.for_each(|(kept, &value)| *kept = convert(value));
        }
        return;
    }
    let lines = slice.chunks_mut(width).skip(along.start);
    for (j, line) in lines.take(along.len()).enumerate() {
        let column = finished[j..].iter().step_by(along.len());
        let kept = line[rows.clone()].iter_mut().zip(column);
        kept.for_each(|(kept, &value)| *kept = convert(value));
    }
}

#[inline(always)]
fn convert_run<T: Copy + Into<f32>>(source: &[T], run: &mut [f32]) {
    for (value, &stored) in run.iter_mut().zip(source) {
        *value = stored.into();
    }
}

/// Sums as many rows of `rows` as there are weights.
#[inline(always)]
fn weighted_sum(rows: &[f32], weights: &[f32], sum: &mut [f32]) {
    let width = sum.len();
    match *weights {
        [first] => {
            for (sum, a) in sum.iter_mut().zip(rows) {
                *sum = first * a;
            }
        }
        [first, second, ref rest @ ..] => {
            for ((sum, a), b) in sum.iter_mut().zip(rows).zip(&rows[width..]) {
                *sum = first * a + second * b;
            }
            for (n, weight) in rest.iter().enumerate() {
                for (sum, a) in sum.iter_mut().zip(&rows[(n + 2) * width..]) {
                    *sum += weight * a;
                }
            }
        }
        [] => sum.fill(0.0),
    }
}

/// Sums along one row for each target index.
#[inline(always)]
fn sum_along(row: &[f32], taps: &Taps, sums: &mut [f32]) {
    match taps.count {
        1 => sum_along_fixed::<1>(row, taps, sums),
        2 => sum_along_fixed::<2>(row, taps, sums),
        3 => sum_along_fixed::<3>(row, taps, sums),
        4 => sum_along_fixed::<4>(row, taps, sums),
        count => {
            let weights = taps.weights.chunks_exact(count);
            for ((sum, &start), weights) in sums.iter_mut().zip(&taps.starts).zip(weights) {
                let values = &row[start..start + count];
                *sum = weights.iter().zip(values).map(|(w, v)| w * v).sum();
            }
        }
    }
}

#[inline(always)]
fn sum_along_fixed<const COUNT: usize>(row: &[f32], taps: &Taps, sums: &mut [f32]) {
    let (weights, _) = taps.weights.as_chunks::<COUNT>();
    for ((sum, &start), weights) in sums.iter_mut().zip(&taps.starts).zip(weights) {
        let values = &row[start..start + COUNT];
        let mut total = weights[0] * values[0];
        for n in 1..COUNT {
            total += weights[n] * values[n];
        }
        *sum = total;
    }
}

/// Takes the closest voxel; `fill` lies outside.
pub(super) fn nearest<T>(source: &[T], map: &GridMap, axes: &[AxisMap; 3], fill: T) -> Vec<T>
where
    T: Copy + Send + Sync,
{
    let strides = [1, map.source[0], map.source[0] * map.source[1]];
    let offsets = axes.map(|axis| {
        let closest = |t: usize| (axis.coordinate(t) + 0.5).floor() as usize;
        axis.inside()
            .map(|t| closest(t) * strides[axis.axis])
            .collect::<Vec<_>>()
    });
    let inside = axes.map(|axis| axis.inside());
    let mut target = vec![fill; map.target.iter().product()];
    let rows = target.par_chunks_mut(map.target[0]).enumerate();
    rows.with_min_len(16).for_each(|(n, row)| {
        let (j, k) = (n % map.target[1], n / map.target[1]);
        if !inside[1].contains(&j) || !inside[2].contains(&k) {
            return;
        }
        let base = offsets[1][j - inside[1].start] + offsets[2][k - inside[2].start];
        for (value, offset) in row[inside[0].clone()].iter_mut().zip(&offsets[0]) {
            *value = source[base + offset];
        }
    });
    target
}
