//! For each target index along one axis: which source voxels count, and how much.

use std::ops::Range;

use super::Coarsening;
use super::grid_map::{AxisMap, PARALLEL_DRIFT};

/// What a voxel's value spreads over, along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// The B-spline of degree 1: linear interpolation; the edge goes on outside.
    Linear,
    /// The B-spline of degree 3, on prefiltered voxels; mirrored about the outermost centres.
    Cubic,
}

/// Weights of the source voxels `starts[n]..starts[n] + count` for the target index
/// `inside.start + n`.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    /// Target indices that lie in the source.
    pub inside: Range<usize>,
    /// Source voxels that any of them needs.
    pub needed: Range<usize>,
    /// Weights for each target index.
    pub count: usize,
    /// First source voxel of each target index, from the start of `needed` on.
    pub starts: Vec<usize>,
    /// `count` weights for each target index; they add up to 1.
    pub weights: Vec<f32>,
    /// Whether the source is to be turned into spline coefficients first.
    pub prefilter: bool,
}

impl Taps {
    /// Weights for an axis, averaged where it coarsens if that is wanted. An axis whose centres
    /// fall on centres needs one voxel each, whatever the kernel.
    pub fn new(map: &AxisMap, kernel: Kernel, coarsening: Coarsening) -> Self {
        let width = match coarsening {
            Coarsening::Average => box_width(map.scale.abs()),
            Coarsening::Sample => 0.0,
        };
        if width == 0.0 && falls_on_centres(map) {
            return Self::collect(map, false, |x| vec![(x.round() as isize, 1.0)]);
        }
        Self::collect(map, kernel == Kernel::Cubic, |x| kernel.weights(x, width))
    }

    /// Weights that smooth an axis in place with a box, for a target voxel that is `width` source
    /// voxels wide.
    pub fn smoothing(map: &AxisMap, width: f64) -> Self {
        let width = box_width(width);
        Self::collect(map, false, |x| Kernel::Linear.weights(x, width))
    }

    /// Spline coefficients in place, along an axis.
    pub fn coefficients(map: &AxisMap) -> Self {
        let mut taps = Self::collect(map, false, |x| vec![(x.round() as isize, 1.0)]);
        taps.prefilter = map.source > 1;
        taps
    }

    /// Source voxels, counted from the start of `needed`, that the target indices `range` of `inside`
    /// need.
    pub fn span(&self, range: Range<usize>) -> Range<usize> {
        let starts = &self.starts[range];
        let first = starts.iter().copied().min().unwrap_or(0);
        let last = starts.iter().copied().max().unwrap_or(0);
        first..last + self.count
    }

    /// Weights of the `n`-th target index of `inside`.
    pub fn weights_of(&self, n: usize) -> &[f32] {
        &self.weights[n * self.count..(n + 1) * self.count]
    }

    fn collect(map: &AxisMap, prefilter: bool, weights: impl Fn(f64) -> Vec<(isize, f64)>) -> Self {
        let inside = map.inside();
        let fold: fn(isize, usize) -> usize = if prefilter { mirrored } else { clamped };
        let rows: Vec<Vec<(usize, f64)>> = inside
            .clone()
            .map(|t| {
                let taps = weights(map.coordinate(t));
                taps.into_iter()
                    .map(|(n, w)| (fold(n, map.source), w))
                    .collect()
            })
            .collect();
        let count = rows.iter().map(|row| extent(row).len()).max().unwrap_or(1);
        let starts = rows
            .iter()
            .map(|row| extent(row).start.min(map.source - count));
        let starts: Vec<usize> = starts.collect();
        let mut packed = vec![0.0_f32; rows.len() * count];
        for ((row, &start), packed) in rows.iter().zip(&starts).zip(packed.chunks_mut(count)) {
            let mut exact = vec![0.0; count];
            row.iter()
                .for_each(|&(n, weight)| exact[n - start] += weight);
            let sum: f64 = exact.iter().sum();
            packed
                .iter_mut()
                .zip(&exact)
                .for_each(|(p, e)| *p = (e / sum) as f32);
        }
        Self {
            inside,
            needed: 0..map.source,
            count,
            starts,
            weights: packed,
            prefilter,
        }
        .trimmed()
    }

    /// Narrows `needed` to what is used; a prefilter needs the whole axis.
    fn trimmed(mut self) -> Self {
        if !self.prefilter && !self.inside.is_empty() {
            self.needed = self.span(0..self.inside.len());
            let first = self.needed.start;
            self.starts.iter_mut().for_each(|start| *start -= first);
        }
        self
    }
}

impl Kernel {
    /// Voxels and weights for the coordinate `x`, averaged over a box of `width` voxels. Indices may
    /// lie outside the source.
    fn weights(self, x: f64, width: f64) -> Vec<(isize, f64)> {
        let half = width / 2.0;
        let support = match self {
            Self::Linear => 1.0,
            Self::Cubic => 2.0,
        };
        let first = (x - half - support).floor() as isize + 1;
        let last = (x + half + support).ceil() as isize - 1;
        let weight = |n: isize| {
            let from_voxel = x - n as f64;
            if width == 0.0 {
                self.value(from_voxel)
            } else {
                (self.integral(from_voxel + half) - self.integral(from_voxel - half)) / width
            }
        };
        (first..=last).map(|n| (n, weight(n))).collect()
    }

    fn value(self, u: f64) -> f64 {
        let u = u.abs();
        match self {
            Self::Linear => (1.0 - u).max(0.0),
            Self::Cubic if u < 1.0 => 2.0 / 3.0 - u * u + u * u * u / 2.0,
            Self::Cubic => (2.0 - u).max(0.0).powi(3) / 6.0,
        }
    }

    /// Integral of [`Self::value`] from far left up to `u`; 1 far right.
    fn integral(self, u: f64) -> f64 {
        if u > 0.0 {
            return 1.0 - self.integral(-u);
        }
        match self {
            Self::Linear => (1.0 + u).max(0.0).powi(2) / 2.0,
            Self::Cubic if u < -1.0 => (2.0 + u).max(0.0).powi(4) / 24.0,
            Self::Cubic => 0.5 + 2.0 * u / 3.0 - u.powi(3) / 3.0 - u.powi(4) / 8.0,
        }
    }
}

/// Width of the box [old voxels] that brings voxels up to `scale` times their width: boxes in a row
/// add their widths in squares.
fn box_width(scale: f64) -> f64 {
    if scale > 1.0 + 1e-6 {
        (scale * scale - 1.0).sqrt()
    } else {
        0.0
    }
}

/// Whether every target centre lies on a source centre, but for what `f32` headers round.
fn falls_on_centres(map: &AxisMap) -> bool {
    let steps_by_one = map.target == 1 || (map.scale.abs() - 1.0).abs() < PARALLEL_DRIFT;
    let on_centre = |t: usize| {
        let x = map.coordinate(t);
        (x - x.round()).abs() < PARALLEL_DRIFT
    };
    steps_by_one && on_centre(0) && on_centre(map.target - 1)
}

fn extent(row: &[(usize, f64)]) -> Range<usize> {
    let first = row.iter().map(|tap| tap.0).min().unwrap_or(0);
    let last = row.iter().map(|tap| tap.0).max().unwrap_or(0);
    first..last + 1
}

fn clamped(n: isize, length: usize) -> usize {
    n.clamp(0, length as isize - 1) as usize
}

/// Folds an index back about the outermost centres: … 2 1 | 0 1 2 … n-1 | n-2 …
pub(super) fn mirrored(n: isize, length: usize) -> usize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length - 1);
    let n = n.rem_euclid(period as isize) as usize;
    n.min(period - n)
}
