//! Intensities as a network expects them: Hounsfield units in a window, or MR by a percentile.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::card::Input;
use crate::volume::{Image, Samples};

/// What kind of scan a network is told that it sees.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Modality {
    /// CT if the values reach below what MR has, else MR.
    #[default]
    Auto,
    /// CT in Hounsfield units.
    Ct,
    /// MR, or anything without a scale of its own.
    Mr,
}

/// How the intensities of one scan are normalised: `(value - low) * scale`, clipped to
/// `[0, high]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// [`Modality::Ct`] or [`Modality::Mr`].
    pub modality: Modality,
    /// The value that becomes 0.
    pub low: f32,
    /// Factor.
    pub scale: f32,
    /// Upper clip, after the factor.
    pub high: f32,
    /// True when every voxel holds the same value: nothing was measured.
    pub constant: bool,
}

impl Normalization {
    /// Looks at a scan and decides how to normalise it.
    pub fn of(image: &Image, modality: Modality, input: &Input) -> Self {
        let [lowest, highest] = image.samples.range();
        let ct = match modality {
            Modality::Auto => lowest < input.ct_below_hu,
            Modality::Ct => true,
            Modality::Mr => false,
        };
        let constant = lowest == highest;
        if ct {
            let [low, high] = input.ct_window_hu;
            return Self {
                modality: Modality::Ct,
                low,
                scale: 1.0 / input.ct_scale_hu,
                high: (high - low) / input.ct_scale_hu,
                constant,
            };
        }
        let low = lowest.min(0.0);
        let bright = percentile_above(&image.samples, lowest, input.mr_percentile);
        let range = bright.map_or(1.0, |bright| (bright - low).max(1e-6));
        Self {
            modality: Modality::Mr,
            low,
            scale: 1.0 / range,
            high: input.mr_clip,
            constant,
        }
    }

    /// Leaves values from 0 to 3 as they are.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        Self {
            modality: Modality::Mr,
            low: 0.0,
            scale: 1.0,
            high: 3.0,
            constant: false,
        }
    }

    /// The value that becomes this one.
    pub fn value_of(&self, normal: f32) -> f32 {
        self.low + normal / self.scale
    }

    /// Normalises values in place.
    #[inline(always)]
    pub fn apply(&self, values: &mut [f32]) {
        for value in values {
            *value = ((*value - self.low) * self.scale).clamp(0.0, self.high);
        }
    }
}

/// Fewer values than this above the minimum are no scan to take a percentile of.
const ENOUGH: usize = 50;

/// Percentile of the values above `lowest`, linear between order statistics, as numpy's default.
fn percentile_above(samples: &Samples, lowest: f32, percentile: f64) -> Option<f32> {
    match samples {
        Samples::I16(scaled) => {
            let place = |v: i16| (i32::from(v) + 32_768) as usize;
            let real = |n: usize| scaled.real((n as i32 - 32_768) as i16);
            histogram_percentile(&histogram(&scaled.stored, place), real, lowest, percentile)
        }
        Samples::U16(scaled) => {
            let real = |n: usize| scaled.real(n as u16);
            histogram_percentile(
                &histogram(&scaled.stored, usize::from),
                real,
                lowest,
                percentile,
            )
        }
        Samples::F32(values) => float_percentile(values, lowest, percentile),
    }
}

fn histogram<T: Copy + Sync>(values: &[T], place: impl Fn(T) -> usize + Sync) -> Vec<u64> {
    let count = |chunk: &[T]| {
        let mut counts = vec![0_u64; 1 << 16];
        for &value in chunk {
            counts[place(value)] += 1;
        }
        counts
    };
    let add = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    values
        .par_chunks(1 << 22)
        .map(count)
        .reduce(|| vec![0; 1 << 16], add)
}

fn histogram_percentile(
    counts: &[u64],
    real: impl Fn(usize) -> f32,
    lowest: f32,
    percentile: f64,
) -> Option<f32> {
    let mut bins: Vec<(f32, u64)> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(n, &count)| (real(n), count))
        .filter(|(value, _)| *value > lowest)
        .collect();
    // A negative slope turns the order of stored values round.
    bins.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: u64 = bins.iter().map(|(_, count)| count).sum();
    if total < ENOUGH as u64 {
        return None;
    }
    let (rank, share) = rank(total, percentile);
    let value_at = |rank: u64| {
        let mut seen = 0;
        bins.iter()
            .find(|(_, count)| {
                seen += count;
                seen > rank
            })
            .map(|(value, _)| *value)
    };
    let below = value_at(rank)?;
    let above = value_at(rank + 1).unwrap_or(below);
    Some(below + (above - below) * share)
}

/// At most this many values of a float scan are sorted: every n-th, so that the choice is the same
/// on every machine.
const SORTED_AT_MOST: usize = 1 << 23;

fn float_percentile(values: &[f32], lowest: f32, percentile: f64) -> Option<f32> {
    let step = values.len().div_ceil(SORTED_AT_MOST);
    let mut above: Vec<f32> = values
        .iter()
        .step_by(step)
        .copied()
        .filter(|v| *v > lowest)
        .collect();
    if above.len() < ENOUGH {
        return None;
    }
    let (rank, share) = rank(above.len() as u64, percentile);
    let rank = rank as usize;
    let (_, &mut below, rest) = above.select_nth_unstable_by(rank, f32::total_cmp);
    let next = rest.iter().copied().min_by(f32::total_cmp).unwrap_or(below);
    Some(below + (next - below) * share)
}

fn rank(count: u64, percentile: f64) -> (u64, f32) {
    let rank = (count - 1) as f64 * percentile / 100.0;
    (rank.floor() as u64, rank.fract() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_lies_between_order_statistics_as_in_numpy() {
        // numpy.percentile(range(1, 101), 99.5) == 99.505
        let values: Vec<f32> = (0..=100).map(|v| v as f32).collect();
        let stored: Vec<i16> = (0..=100).collect();
        let scaled = crate::volume::Scaled {
            stored,
            slope: 1.0,
            intercept: 0.0,
        };
        let float = percentile_above(&Samples::F32(values), 0.0, 99.5);
        let integer = percentile_above(&Samples::I16(scaled), 0.0, 99.5);
        assert!((float.unwrap() - 99.505).abs() < 1e-4);
        assert_eq!(float, integer);
    }

    #[test]
    fn a_negative_slope_does_not_turn_the_percentile_round() {
        let scaled = crate::volume::Scaled {
            stored: (-100..=0_i16).collect(),
            slope: -1.0,
            intercept: 0.0,
        };
        let found = percentile_above(&Samples::I16(scaled), 0.0, 99.5);
        assert!((found.unwrap() - 99.505).abs() < 1e-4);
    }
}
