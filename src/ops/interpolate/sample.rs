//! The types that voxels are stored in, and the way from `f32` back to them.

/// A stored intensity.
pub(super) trait Sample: Copy + Default + Send + Sync + Into<f32> {
    /// The type's name in messages.
    const NAME: &'static str;

    /// Rounds half to even and holds the value within the type.
    fn from_f32(value: f32) -> Self;

    /// True when the value is a number that rounds into the type.
    fn holds(value: f32) -> bool;
}

/// Adding and taking away 1.5 · 2²³ leaves no bits for the fraction: this rounds, and unlike
/// `f32::round` it turns into vector instructions on every x86-64.
const ROUNDING: f32 = 12_582_912.0;

macro_rules! integer_sample {
    ($type:ty, $name:literal) => {
        impl Sample for $type {
            const NAME: &'static str = $name;

            fn from_f32(value: f32) -> Self {
                let held = value.clamp(f32::from(<$type>::MIN), f32::from(<$type>::MAX));
                // A float cast saturates, it does not wrap.
                ((held + ROUNDING) - ROUNDING) as i32 as $type
            }

            fn holds(value: f32) -> bool {
                (f32::from(<$type>::MIN) - 0.5..=f32::from(<$type>::MAX) + 0.5).contains(&value)
            }
        }
    };
}

integer_sample!(i16, "int16");
integer_sample!(u16, "uint16");

impl Sample for f32 {
    const NAME: &'static str = "float32";

    fn from_f32(value: f32) -> Self {
        value
    }

    fn holds(_value: f32) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;

    #[test]
    fn integers_are_rounded_half_to_even_and_held_in_their_type() {
        assert_eq!(i16::from_f32(-2.5), -2);
        assert_eq!(i16::from_f32(-1.51), -2);
        assert_eq!(i16::from_f32(40_000.0), i16::MAX);
        assert_eq!(u16::from_f32(65_534.6), 65_535);
        assert_eq!(u16::from_f32(-3.0), 0);
    }

    #[test]
    fn nan_fits_no_integer() {
        assert!(!i16::holds(f32::NAN));
        assert!(!u16::holds(-1.0));
        assert!(u16::holds(65_535.0));
    }
}
