//! The types that voxels are stored in.

use bytemuck::Pod;

/// A type that voxels are stored in.
pub(super) trait Stored: Pod + Send + Sync {
    fn swapped(self) -> Self;
    /// Exact but for integers beyond 2⁵³.
    fn to_f64(self) -> f64;
    /// `None` for what is no whole number of 32 bits.
    fn to_label(self) -> Option<i32>;
}

macro_rules! stored_integer {
    ($($type:ty),*) => {$(
        impl Stored for $type {
            fn swapped(self) -> Self {
                self.swap_bytes()
            }

            fn to_f64(self) -> f64 {
                self as f64
            }

            fn to_label(self) -> Option<i32> {
                self.try_into().ok()
            }
        }
    )*};
}

macro_rules! stored_float {
    ($($type:ty),*) => {$(
        impl Stored for $type {
            fn swapped(self) -> Self {
                Self::from_bits(self.to_bits().swap_bytes())
            }

            fn to_f64(self) -> f64 {
                self.into()
            }

            fn to_label(self) -> Option<i32> {
                let value = f64::from(self);
                let whole = value.fract() == 0.0;
                let fits = (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&value);
                (whole && fits).then_some(value as i32)
            }
        }
    )*};
}

stored_integer!(u8, i8, i16, u16, i32, u32, i64, u64);
stored_float!(f32, f64);
