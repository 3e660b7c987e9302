//! Convolutions of 3×3×3 by minimal filtering: a quarter of the multiplications.
//!
//! Each plane of the input is cut into tiles of 6×6 that overlap by two, each tile is turned into 36
//! points, and what the kernel does to a tile is a product at each point; the products of all inputs and of
//! the three planes that the kernel sees are summed up before they are turned back into 4×4 outputs.
//!
//! # Source
//! Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016), F(4×4, 3×3); the planes are
//! summed up directly.

mod points;
mod slab;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use points::{POINTS, filter};
use slab::Slab;

use crate::lanes;

/// What a kernel sees along each axis.
const TAPS: usize = 3;
/// Outputs whose factors lie side by side.
const PANEL: usize = 4;
/// Planes that are worked on one after the other: two more than these are turned into points.
const SLAB: usize = 12;

/// A convolution of 3×3×3 with zeros around its input, and what follows on it.
pub struct Convolution {
    inputs: usize,
    outputs: usize,
    /// `[point][panel][tap][input][output of the panel]`.
    factors: Vec<f32>,
    bias: Vec<f32>,
    norm: Option<Norm>,
    relu: bool,
}

/// Normalises the channels of each voxel to mean 0 and variance 1, then scales and shifts each channel.
pub struct Norm {
    /// Added to the variance.
    pub epsilon: f32,
    /// A factor for each channel.
    pub scale: Vec<f32>,
    /// A summand for each channel.
    pub shift: Vec<f32>,
}

impl Convolution {
    /// Takes weights `[output][input][k][j][i]`, and a bias for each output or none.
    pub fn new(weights: &[f32], [outputs, inputs]: [usize; 2], bias: &[f32]) -> Self {
        let panels = outputs.div_ceil(PANEL);
        let apart = panels * TAPS * inputs * PANEL;
        let mut factors = vec![0.0; POINTS * apart];
        for panel in 0..panels {
            for (tap, input) in (0..TAPS).flat_map(|tap| (0..inputs).map(move |n| (tap, n))) {
                let kernel = |output: usize| {
                    let first = ((output * inputs + input) * TAPS + tap) * TAPS * TAPS;
                    weights.get(first..first + TAPS * TAPS)
                };
                let mut kernels = [[0.0; PANEL]; TAPS * TAPS];
                for n in 0..PANEL.min(outputs - panel * PANEL) {
                    let kernel = kernel(panel * PANEL + n).into_iter().flatten();
                    kernels
                        .iter_mut()
                        .zip(kernel)
                        .for_each(|(to, &w)| to[n] = w);
                }
                let at = ((panel * TAPS + tap) * inputs + input) * PANEL;
                for (point, factor) in filter(&kernels).into_iter().enumerate() {
                    factors[point * apart + at..][..PANEL].copy_from_slice(&factor);
                }
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(outputs, 0.0);
        Self {
            inputs,
            outputs,
            factors,
            bias,
            norm: None,
            relu: false,
        }
    }

    /// Normalises the outputs, and leaves out what is negative.
    pub fn followed_by(self, norm: Option<Norm>, relu: bool) -> Self {
        Self { norm, relu, ..self }
    }

    /// Convolves `input`, `[input][k][j][i]`, into `output`, `[output][k][j][i]`, both of that many voxels
    /// along k, j and i. Each part of the work is a call by number; `each` calls all of them, below the
    /// number that it gets, in any order. `threads`: how many it calls at once.
    pub fn run(
        &self,
        input: &[f32],
        [nk, nj, ni]: [usize; 3],
        output: &mut [f32],
        threads: usize,
        each: impl FnOnce(usize, &(dyn Fn(usize) + Send + Sync)),
    ) {
        let count = nk.div_ceil(SLAB).next_multiple_of(threads.max(1)).min(nk);
        let cut = |n: usize| n * nk / count;
        let mut slabs: Vec<(Range<usize>, Vec<&mut [f32]>)> = (0..count)
            .map(|n| (cut(n)..cut(n + 1), Vec::new()))
            .collect();
        for channel in output.chunks_exact_mut(nk * nj * ni) {
            let mut planes = channel.chunks_exact_mut(nj * ni);
            for (range, own) in &mut slabs {
                own.extend(planes.by_ref().take(range.len()));
            }
        }
        let slabs: Vec<_> = slabs.into_iter().map(Mutex::new).collect();
        each(slabs.len(), &|n| {
            let mut slab = slabs[n].lock().unwrap_or_else(PoisonError::into_inner);
            let (range, planes) = &mut *slab;
            lanes::run(Slab {
                of: self,
                input,
                shape: [nk, nj, ni],
                range: range.clone(),
                planes,
            });
        });
    }
}

#[cfg(test)]
mod tests;
