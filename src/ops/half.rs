//! Numbers of 16 bits (binary16): 11 significant bits, up to 65504.
//!
//! # Source
//! IEEE 754-2019, section 3.4: 5 bits of exponent, 10 of fraction; numbers below 2⁻¹⁴ are multiples
//! of 2⁻²⁴.

/// Largest finite number.
pub const LARGEST: f32 = 65504.0;

/// The first magnitude (bits of an `f32`) that rounds beyond [`LARGEST`].
const TOO_LARGE: u32 = 0x477f_f000;
/// 2⁻¹⁴, below which numbers lie evenly.
const SMALLEST_NORMAL: f32 = 6.103_515_6e-5;

/// Bits of the closest number, half to even; infinity beyond [`LARGEST`].
///
/// Without a branch, so that the processor converts many at a time.
pub fn bits(value: f32) -> u16 {
    let sign = value.to_bits() >> 16 & 0x8000;
    let magnitude = value.to_bits() & 0x7fff_ffff;
    // From 0.5 to 1 an `f32` steps by 2⁻²⁴, as small numbers of 16 bits do.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5_f32.to_bits();
    // The exponents' biases differ by 112; 13 bits of fraction go.
    let rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    let normal = rounded.wrapping_sub(112 << 23) >> 13;
    let half = if magnitude < SMALLEST_NORMAL.to_bits() {
        small
    } else if magnitude >= TOO_LARGE {
        0x7c00
    } else {
        normal
    };
    (sign | half) as u16
}

/// The number of some bits. Infinity comes back as a number above [`LARGEST`].
pub fn value(bits: u16) -> f32 {
    // Exponent and fraction where an `f32` has them; a factor of 2¹¹² makes up for the bias, and
    // makes numbers below 2⁻¹⁴ right as well.
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * 2.0_f32.powi(112);
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// The closest number of 16 bits, as an `f32`; holds up to [`LARGEST`].
pub fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    let even = (bits + 0xfff + (bits >> 13 & 1)) & !0x1fff;
    // Around 0.75 an `f32` steps by 2⁻²⁴.
    let small = (value + 0.75) - 0.75;
    if value.abs() < SMALLEST_NORMAL {
        small
    } else {
        f32::from_bits(even)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_half_to_even() {
        // 11 significant bits: 2049 lies half-way between 2048 and 2050, 2051 between 2050 and 2052.
        let values = [1.0, 2049.0, 2051.0, -0.5, 65504.0, 0.0, 0.1];
        let wanted = [0x3c00, 0x6800, 0x6802, 0xb800, 0x7bff, 0x0000, 0x2e66];
        assert_eq!(values.map(bits), wanted);
        // The smallest normal number, the one that rounds up to it, and the smallest of all.
        let small = [
            2.0_f32.powi(-14),
            2.0_f32.powi(-14) * 0.99999,
            2.0_f32.powi(-24),
        ];
        assert_eq!(small.map(bits), [0x0400, 0x0400, 0x0001]);
        // 65520 lies half-way to the number after the last.
        assert_eq!([65519.9, 65520.0, -1e9].map(bits), [0x7bff, 0x7c00, 0xfc00]);
    }

    #[test]
    fn every_finite_number_comes_back() {
        for n in (0..=0x7bff_u16).chain(0x8000..=0xfbff) {
            assert_eq!(bits(value(n)), n);
            assert_eq!(rounded(value(n)), value(n));
        }
        assert_eq!(value(0x3c01), 1.000_976_6);
        assert_eq!(value(0x0001), 2.0_f32.powi(-24));
        assert!(value(0x7c00) > LARGEST);
    }

    #[test]
    fn rounding_in_place_is_rounding_to_bits() {
        let mut x = 1e-9_f32;
        while x < 60_000.0 {
            for v in [x, -x] {
                assert_eq!(rounded(v), value(bits(v)), "{v}");
            }
            x *= 1.001_3;
        }
    }
}
