//! The types that patches are stored in.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ops::half;
use crate::volume::Samples;

/// Type of a patch's values.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// 32 bits, 24 of them significant.
    Float32,
    /// 16 bits, 11 of them significant; up to 65504.
    Float16,
    /// Whole numbers from -32768 to 32767; of scans that hold whole numbers, without normalization.
    Int16,
}

/// Values in the type that they are stored in.
pub(super) enum Encoded {
    F32(Vec<f32>),
    /// Bits of binary16 numbers.
    F16(Vec<u16>),
    I16(Vec<i16>),
}

impl Dtype {
    /// NumPy's name, which says the byte order too.
    pub(super) fn descr(self) -> &'static str {
        match (self, cfg!(target_endian = "little")) {
            (Self::Float32, true) => "<f4",
            (Self::Float16, true) => "<f2",
            (Self::Int16, true) => "<i2",
            (Self::Float32, false) => ">f4",
            (Self::Float16, false) => ">f2",
            (Self::Int16, false) => ">i2",
        }
    }

    /// Zarr's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Int16 => "int16",
        }
    }

    /// Why values from `range[0]` to `range[1]` do not fit, if they do not.
    pub(super) fn misfit(self, range: [f32; 2]) -> Option<String> {
        let largest = match self {
            Self::Float32 => return None,
            Self::Float16 => half::LARGEST,
            Self::Int16 => f32::from(i16::MAX),
        };
        let outside = range[0] < -largest || range[1] > largest;
        outside.then(|| {
            format!(
                "holds values from {} to {}, which do not fit {}; choose --dtype float32",
                range[0],
                range[1],
                self.name()
            )
        })
    }

    /// Stores values, which must fit: rounded to the closest, half to even.
    pub(super) fn encode(self, values: Vec<f32>) -> Encoded {
        match self {
            Self::Float32 => Encoded::F32(values),
            Self::Float16 => Encoded::F16(values.into_iter().map(half::bits).collect()),
            // A float cast saturates, it does not wrap.
            Self::Int16 => {
                Encoded::I16(values.iter().map(|v| v.round_ties_even() as i16).collect())
            }
        }
    }
}

impl Encoded {
    /// The values one after the other, in this machine's byte order.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::F16(values) => bytemuck::cast_slice(values),
            Self::I16(values) => bytemuck::cast_slice(values),
        }
    }
}

/// True when no real value of a scan has a fraction.
pub(super) fn is_whole(samples: &Samples) -> bool {
    let whole = |v: f32| v.fract() == 0.0;
    match samples {
        Samples::I16(scaled) => whole(scaled.slope) && whole(scaled.intercept),
        Samples::U16(scaled) => whole(scaled.slope) && whole(scaled.intercept),
        Samples::F32(values) => values.par_iter().all(|&v| whole(v)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Scaled;

    #[test]
    fn values_are_rounded_half_to_even() {
        let Encoded::I16(stored) = Dtype::Int16.encode(vec![-2.5, 0.4, 1.5, 32767.0]) else {
            panic!("another type");
        };
        assert_eq!(stored, [-2, 0, 2, 32767]);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert_eq!(Dtype::Float16.misfit([-65504.0, 65504.0]), None);
        assert!(Dtype::Float16.misfit([0.0, 65505.0]).is_some());
        assert_eq!(Dtype::Int16.misfit([-32767.0, 32767.0]), None);
        assert!(Dtype::Int16.misfit([0.0, 32768.0]).is_some());
        assert_eq!(Dtype::Float32.misfit([0.0, 1e30]), None);
    }

    #[test]
    fn fractions_are_seen() {
        let scaled = |slope| {
            Samples::I16(Scaled {
                stored: vec![1, 2],
                slope,
                intercept: -1024.0,
            })
        };
        assert!(is_whole(&scaled(2.0)));
        assert!(!is_whole(&scaled(0.5)));
        assert!(is_whole(&Samples::F32(vec![1.0, -3.0])));
        assert!(!is_whole(&Samples::F32(vec![1.0, -3.25])));
    }
}
