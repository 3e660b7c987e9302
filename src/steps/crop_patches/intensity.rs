//! From a scan's intensities to a patch's values.

use std::str::FromStr;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ops::packed_mask::PackedMask;
use crate::volume::Samples;

/// What is done to intensities.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Normalization {
    /// Nothing: patches hold the scan's values.
    None,
    /// Mean 0 and standard deviation 1 over the foreground's unaltered voxels.
    ZScore,
    /// Held within `--window`, which becomes 0 to 1; for CT.
    Window,
}

/// Lowest and highest intensity that is told apart; the first lies below the second.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "[f32; 2]", into = "[f32; 2]")]
pub struct Window([f32; 2]);

impl Window {
    /// From air to dense bone [HU].
    pub const DEFAULT: Self = Self([-1000.0, 1000.0]);
}

impl TryFrom<[f32; 2]> for Window {
    type Error = String;

    fn try_from(window: [f32; 2]) -> std::result::Result<Self, String> {
        if window.iter().all(|v| v.is_finite()) && window[0] < window[1] {
            Ok(Self(window))
        } else {
            Err(format!(
                "a window must be two numbers, the lower first, got {window:?}"
            ))
        }
    }
}

impl From<Window> for [f32; 2] {
    fn from(window: Window) -> Self {
        window.0
    }
}

impl FromStr for Window {
    type Err = String;

    /// Reads `-1000,1000`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("a window must be two numbers such as -1000,1000, got {text:?}");
        let numbers: std::result::Result<Vec<f32>, _> =
            text.split(',').map(|n| n.trim().parse()).collect();
        let window = <[f32; 2]>::try_from(numbers.map_err(|_| wrong())?).map_err(|_| wrong())?;
        Self::try_from(window)
    }
}

impl JsonSchema for Window {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Window".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Lowest and highest intensity that is told apart.",
            "type": "array",
            "items": { "type": "number" },
            "minItems": 2,
            "maxItems": 2
        })
    }
}

/// How a patch's values came out of the scan's: `(intensity - offset) / scale`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Intensity {
    /// Taken away first, in the scan's units.
    pub offset: f64,
    /// Divided by then, in the scan's units.
    pub scale: f64,
    /// Intensities were held within these two before, if within any.
    pub held_within: Option<[f32; 2]>,
}

impl Intensity {
    /// Nothing is changed.
    pub(super) const AS_IT_IS: Self = Self {
        offset: 0.0,
        scale: 1.0,
        held_within: None,
    };

    /// A window becomes 0 to 1.
    pub(super) fn of_window(Window([low, high]): Window) -> Self {
        Self {
            offset: low.into(),
            scale: f64::from(high) - f64::from(low),
            held_within: Some([low, high]),
        }
    }

    /// Mean 0 and standard deviation 1 over the voxels of `foreground` outside `area`; `None` when
    /// they are none or all the same.
    ///
    /// Sums are taken slice by slice and added in order, so that the number of threads does not
    /// matter.
    pub(super) fn of_z_score(
        samples: &Samples,
        foreground: &PackedMask,
        area: Option<&PackedMask>,
    ) -> Option<Self> {
        let sum = |value: &(dyn Fn(f64) -> f64 + Sync)| -> (usize, f64) {
            let slices = (0..foreground.shape()[2]).into_par_iter();
            let sums: Vec<(usize, f64)> = slices
                .map(|k| sum_of_slice(samples, foreground, area, (k, value)))
                .collect();
            sums.iter().fold((0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
        };
        let (count, total) = sum(&|v| v);
        let mean = total / count.max(1) as f64;
        let (_, squares) = sum(&|v| (v - mean) * (v - mean));
        let deviation = (squares / count.max(1) as f64).sqrt();
        (deviation > 0.0).then_some(Self {
            offset: mean,
            scale: deviation,
            held_within: None,
        })
    }

    /// The value of an intensity.
    pub(super) fn of(&self, intensity: f32) -> f32 {
        let held = self
            .held_within
            .map_or(intensity, |[low, high]| intensity.clamp(low, high));
        ((f64::from(held) - self.offset) / self.scale) as f32
    }

    /// Takes intensities to values in place.
    pub(super) fn apply(&self, values: &mut [f32]) {
        if *self != Self::AS_IT_IS {
            values.iter_mut().for_each(|value| *value = self.of(*value));
        }
    }
}

/// What is summed up: a slice, and what of each intensity.
type Sum<'a> = (usize, &'a (dyn Fn(f64) -> f64 + Sync));

fn sum_of_slice(
    samples: &Samples,
    foreground: &PackedMask,
    area: Option<&PackedMask>,
    (k, value): Sum,
) -> (usize, f64) {
    let [ni, nj, _] = foreground.shape();
    let mut run = vec![0.0; ni];
    let (mut count, mut sum) = (0, 0.0);
    for j in 0..nj {
        let row = foreground.row(j, k);
        if row.iter().all(|&word| word == 0) {
            continue;
        }
        samples.read_run(ni * (j + nj * k), &mut run);
        for (place, &word) in row.iter().enumerate() {
            let altered = area.map_or(0, |area| area.row(j, k)[place]);
            let mut word = word & !altered;
            while word != 0 {
                sum += value(run[place * 64 + word.trailing_zeros() as usize].into());
                count += 1;
                word &= word - 1;
            }
        }
    }
    (count, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z_scores_count_the_unaltered_foreground() {
        let samples = Samples::F32(vec![100.0, 2.0, 4.0, 6.0, 90.0, 8.0]);
        let foreground = PackedMask::of(&[0, 1, 1, 1, 1, 1], [3, 1, 2]);
        let area = PackedMask::of(&[0, 0, 0, 0, 1, 0], [3, 1, 2]);
        // 2, 4, 6, 8: mean 5, variance (9 + 1 + 1 + 9) / 4 = 5.
        let found = Intensity::of_z_score(&samples, &foreground, Some(&area)).unwrap();
        assert_eq!((found.offset, found.scale), (5.0, 5.0_f64.sqrt()));
        assert!((found.of(5.0 + 5.0_f32.sqrt()) - 1.0).abs() < 1e-6);
        let one = PackedMask::of(&[0, 1, 0, 0, 0, 0], [3, 1, 2]);
        assert_eq!(Intensity::of_z_score(&samples, &one, None), None);
        assert_eq!(
            Intensity::of_z_score(&samples, &PackedMask::empty([3, 1, 2]), None),
            None
        );
    }

    #[test]
    fn a_window_becomes_0_to_1() {
        let window = Intensity::of_window("-160, 240".parse().unwrap());
        let mut values = [-1000.0, -160.0, 40.0, 240.0, 3000.0];
        window.apply(&mut values);
        assert_eq!(values, [0.0, 0.0, 0.5, 1.0, 1.0]);
        for wrong in ["1,1", "2,1", "1", "a,b", "nan,1", "0,inf", "1,2,3"] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }
}
