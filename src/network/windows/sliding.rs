//! Windows over a tensor: where they lie, how they are weighed, how their logits add up.
//!
//! Sums are kept in numbers of 16 bits and rounded after each window, as nnU-Net keeps them: where
//! two classes are all but equal, the rounding decides which label a voxel gets.
//!
//! # Source
//! nnU-Net 2.8.1, `sliding_window_prediction` and `predict_from_raw_data`.

use rayon::prelude::*;

use super::card::Window;
use super::prepare::Prepared;
use crate::error::{Error, Result};
use crate::memory;
use crate::ops::half;
use crate::ops::resize::Lengths;

/// Logits for every class and voxel of a tensor, as bits of 16-bit numbers.
pub struct Logits {
    /// Class by class; within a class the last axis is the fastest.
    pub values: Vec<u16>,
    /// Classes.
    pub classes: usize,
    /// Voxels along the tensor's axes.
    pub lengths: Lengths,
}

/// The windows over a tensor.
pub struct Windows {
    shape: Lengths,
    /// Zeros before the tensor's first voxel, where it is smaller than a window.
    before: [usize; 3],
    /// First voxels of windows along each axis, counted from the first zero before the tensor.
    starts: [Vec<usize>; 3],
    /// Weight of each voxel of a window, as bits of a 16-bit number.
    weights: Vec<u16>,
}

/// The weight in the middle of a window.
const HIGHEST_WEIGHT: f64 = 10.0;
/// Standard deviations after which a Gaussian counts as 0.
const REACH: f64 = 4.0;

impl Windows {
    /// Lays windows over a tensor.
    pub fn over(lengths: Lengths, window: &Window) -> Self {
        let shape = window.shape;
        let padded = [0, 1, 2].map(|d| lengths[d].max(shape[d]));
        Self {
            shape,
            before: [0, 1, 2].map(|d| (padded[d] - lengths[d]) / 2),
            starts: [0, 1, 2].map(|d| starts(padded[d], shape[d], window.step)),
            weights: weights(shape, window.sigma),
        }
    }

    /// First voxels of all windows, the last axis fastest.
    fn all(&self) -> impl Iterator<Item = [usize; 3]> + '_ {
        let [s0, s1, s2] = &self.starts;
        s0.iter().flat_map(move |&a| {
            s1.iter()
                .flat_map(move |&b| s2.iter().map(move |&c| [a, b, c]))
        })
    }

    /// Runs `network` on every window (all channels one after the other) and gives back the weighted
    /// mean of the logits.
    ///
    /// # Errors
    /// Those of `network`; exit 69 when it gives another number of logits, or logits beyond 65504.
    pub fn run(
        &self,
        tensor: &Prepared,
        classes: usize,
        mut network: impl FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<Logits> {
        let lengths = tensor.lengths;
        let size: usize = lengths.iter().product();
        let voxels: usize = self.shape.iter().product();
        let channels = tensor.channels.len();
        let kept = ((classes + 1) * size_of::<u16>()) as f64 * memory::voxels(lengths);
        let window = ((classes + channels) * size_of::<f32>()) as f64 * voxels as f64;
        memory::check(kept + window, "what the network says")?;
        let mut sums = vec![0_u16; classes * size];
        let mut shares = vec![0_u16; size];
        let mut seen = vec![0.0; tensor.channels.len() * voxels];
        for start in self.all() {
            let piece = Overlap::of(start, self.before, self.shape, lengths);
            seen.fill(0.0);
            for (channel, seen) in tensor.channels.iter().zip(seen.chunks_mut(voxels)) {
                for (here, there) in piece.rows() {
                    seen[here..here + piece.run]
                        .copy_from_slice(&channel[there..there + piece.run]);
                }
            }
            let logits = network(&seen)?;
            if logits.len() != classes * voxels {
                return Err(Error::Unavailable(format!(
                    "the network gave {} logits for {classes} classes of {voxels} voxels; its card \
                     does not fit it",
                    logits.len()
                )));
            }
            let sums = sums.par_chunks_mut(size).zip(logits.par_chunks(voxels));
            sums.for_each(|(sums, logits)| self.add(&piece, sums, logits));
            piece.rows().for_each(|(here, there)| {
                let weights = &self.weights[here..here + piece.run];
                for (share, &weight) in shares[there..].iter_mut().zip(weights) {
                    *share = half::bits(half::value(*share) + half::value(weight));
                }
            });
        }
        for sums in sums.chunks_mut(size) {
            let pairs = sums.par_chunks_mut(ROW).zip(shares.par_chunks(ROW));
            pairs.for_each(|(sums, shares)| {
                for (sum, &share) in sums.iter_mut().zip(shares) {
                    *sum = half::bits(half::value(*sum) / half::value(share));
                }
            });
        }
        let finite = |&bits: &u16| bits & 0x7fff <= 0x7bff;
        if !sums.par_iter().all(finite) {
            return Err(Error::Unavailable(
                "the network's logits go beyond 65504, or are no numbers; its weights are of no use \
                 for this scan"
                    .to_owned(),
            ));
        }
        Ok(Logits {
            values: sums,
            classes,
            lengths,
        })
    }

    fn add(&self, piece: &Overlap, sums: &mut [u16], logits: &[f32]) {
        for (here, there) in piece.rows() {
            let logits = &logits[here..here + piece.run];
            let weights = &self.weights[here..here + piece.run];
            let sums = &mut sums[there..there + piece.run];
            for ((sum, &logit), &weight) in sums.iter_mut().zip(logits).zip(weights) {
                *sum = half::bits(half::value(*sum) + logit * half::value(weight));
            }
        }
    }
}

/// Voxels of one task.
const ROW: usize = 1 << 14;

impl Logits {
    /// Adds the logits of another fold.
    pub fn add(&mut self, other: &Self) {
        let runs = self.values.par_chunks_mut(ROW);
        runs.zip(other.values.par_chunks(ROW))
            .for_each(|(sums, more)| {
                for (sum, &more) in sums.iter_mut().zip(more) {
                    *sum = half::bits(half::value(*sum) + half::value(more));
                }
            });
    }

    /// Keeps the classes with these numbers, in this order of rising numbers.
    pub fn keep(&mut self, classes: &[usize]) {
        let size = self.values.len() / self.classes;
        for (to, &from) in classes.iter().enumerate() {
            self.values
                .copy_within(from * size..(from + 1) * size, to * size);
        }
        self.values.truncate(classes.len() * size);
        self.classes = classes.len();
    }

    /// Divides what was added up by the number of folds.
    pub fn divide(&mut self, folds: usize) {
        let folds = folds as f32;
        let runs = self.values.par_chunks_mut(ROW);
        runs.for_each(|run| {
            run.iter_mut()
                .for_each(|v| *v = half::bits(half::value(*v) / folds));
        });
    }
}

/// The part of a window that lies on the tensor, as rows along the fastest axis.
struct Overlap {
    shape: Lengths,
    lengths: Lengths,
    /// First voxel in the window and in the tensor.
    here: [usize; 3],
    there: [usize; 3],
    /// Rows along the two slower axes.
    rows: [usize; 2],
    /// Voxels of a row.
    run: usize,
}

impl Overlap {
    fn of(start: [usize; 3], before: [usize; 3], shape: Lengths, lengths: Lengths) -> Self {
        let here = [0, 1, 2].map(|d| before[d].saturating_sub(start[d]));
        let there = [0, 1, 2].map(|d| start[d].saturating_sub(before[d]));
        let common = [0, 1, 2].map(|d| (shape[d] - here[d]).min(lengths[d] - there[d]));
        Self {
            shape,
            lengths,
            here,
            there,
            rows: [common[0], common[1]],
            run: common[2],
        }
    }

    /// Where each row starts in the window and in the tensor.
    fn rows(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let place = |lengths: Lengths, first: [usize; 3], a: usize, b: usize| {
            ((first[0] + a) * lengths[1] + first[1] + b) * lengths[2] + first[2]
        };
        let [na, nb] = self.rows;
        (0..na * nb).map(move |n| {
            let (a, b) = (n / nb, n % nb);
            (
                place(self.shape, self.here, a, b),
                place(self.lengths, self.there, a, b),
            )
        })
    }
}

/// First voxels of windows along an axis: as few as lie no further apart than `step` of a window, and
/// evenly (half to even).
fn starts(length: usize, window: usize, step: f64) -> Vec<usize> {
    let room = length - window;
    let count = (room as f64 / (window as f64 * step)).ceil() as usize + 1;
    if count == 1 {
        return vec![0];
    }
    let apart = room as f64 / (count - 1) as f64;
    (0..count)
        .map(|n| (apart * n as f64).round_ties_even() as usize)
        .collect()
}

/// A Gaussian round the middle voxel (the later one of two), 10 there, and nowhere 0.
fn weights(shape: Lengths, sigma: f64) -> Vec<u16> {
    let [a, b, c] = shape.map(|length| gaussian(length, sigma * length as f64));
    let highest = a[shape[0] / 2] * b[shape[1] / 2] * c[shape[2] / 2] / HIGHEST_WEIGHT;
    let mut weights = Vec::with_capacity(shape.iter().product());
    for a in &a {
        for b in &b {
            // In this order, and by way of 32 bits, as the original rounds.
            weights.extend(c.iter().map(|c| half::bits((a * b * c / highest) as f32)));
        }
    }
    let least = weights.iter().copied().filter(|&w| w != 0).min();
    let least = least.unwrap_or(half::bits(1.0));
    weights
        .iter_mut()
        .filter(|w| **w == 0)
        .for_each(|w| *w = least);
    weights
}

/// One axis of a Gaussian that is cut off and sums to 1 before it is cut to the window.
fn gaussian(length: usize, sigma: f64) -> Vec<f64> {
    let radius = (REACH * sigma + 0.5) as usize;
    let bell = |distance: usize| (-0.5 / (sigma * sigma) * (distance * distance) as f64).exp();
    let sum: f64 = bell(0) + 2.0 * (1..=radius).map(bell).sum::<f64>();
    let middle = length / 2;
    let weight = |n: usize| {
        let distance = n.abs_diff(middle);
        if distance <= radius {
            bell(distance) / sum
        } else {
            0.0
        }
    };
    (0..length).map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_half_a_window_apart_at_most_and_evenly() {
        // The example of nnU-Net's own comment.
        assert_eq!(starts(110, 64, 0.5), [0, 23, 46]);
        assert_eq!(starts(64, 64, 0.5), [0]);
        assert_eq!(starts(65, 64, 0.5), [0, 1]);
        // Half to even: 2.5 and 7.5.
        assert_eq!(starts(20, 10, 0.25), [0, 2, 5, 8, 10]);
    }

    #[test]
    fn weights_are_a_gaussian_of_10_in_the_middle_and_never_0() {
        // compute_gaussian((4, 6, 9), device="cpu", value_scaling_factor=10) of nnU-Net 2.8.1,
        // along each axis through the middle.
        let weights = weights([4, 6, 9], 0.125);
        let at = |a: usize, b: usize, c: usize| half::value(weights[(a * 6 + b) * 9 + c]);
        assert_eq!(at(2, 3, 4), 10.0);
        let along: Vec<f32> = (0..9).map(|c| at(2, 3, c)).collect();
        assert_eq!(along, WANTED);
        assert!(weights.iter().all(|&w| w != 0));
    }

    const WANTED: [f32; 9] = [
        0.017_974_854,
        0.285_644_53,
        2.058_593_8,
        6.738_281_3,
        10.0,
        6.738_281_3,
        2.058_593_8,
        0.285_644_53,
        0.017_974_854,
    ];

    #[test]
    fn a_small_tensor_lies_in_the_middle_of_a_window() {
        let piece = Overlap::of([0; 3], [1, 0, 2], [4, 3, 8], [2, 3, 3]);
        assert_eq!((piece.rows, piece.run), ([2, 3], 3));
        let rows: Vec<_> = piece.rows().collect();
        assert_eq!(rows[0], (24 + 2, 0));
        assert_eq!(rows[5], ((2 * 3 + 2) * 8 + 2, 15));
    }

    #[test]
    fn a_network_that_says_what_it_sees_gives_the_tensor_back() {
        let window = Window {
            shape: [4, 4, 4],
            step: 0.5,
            sigma: 0.125,
            mirror_axes: Vec::new(),
        };
        let lengths = [3, 9, 6];
        let values: Vec<f32> = (0..162).map(|n| n as f32).collect();
        let tensor = Prepared::of_values(values.clone(), lengths);
        let windows = Windows::over(lengths, &window);
        let both = |seen: &[f32]| Ok([seen.to_vec(), seen.iter().map(|v| -v).collect()].concat());
        let logits = windows.run(&tensor, 2, both).unwrap();
        for (n, value) in values.iter().enumerate() {
            // Sums of a few windows, each rounded to 11 bits.
            assert!((half::value(logits.values[n]) - value).abs() <= value * 4e-3);
            assert_eq!(logits.values[n] & 0x7fff, logits.values[162 + n] & 0x7fff);
        }
        let far = |seen: &[f32]| Ok(vec![1e9; seen.len()]);
        assert_eq!(windows.run(&tensor, 1, far).err().unwrap().exit_code(), 69);
        let short = |_: &[f32]| Ok(vec![0.0]);
        assert_eq!(
            windows.run(&tensor, 1, short).err().unwrap().exit_code(),
            69
        );
    }
}
