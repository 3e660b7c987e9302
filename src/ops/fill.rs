//! The value that fills a part of a scan: the commonest one, and the next.

use super::packed_mask::PackedMask;
use crate::volume::{Image, Samples};

/// The value that a rough area mostly holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    /// The value.
    pub value: f32,
    /// Share of the rough area that holds it.
    pub share: f64,
    /// The next commonest value, the same where there is none.
    pub next: f32,
    /// Share that holds the next commonest value.
    pub next_share: f64,
}

/// Beside a fill no other value is common, but for another constant: it has less than this times the fill's share. Faint
/// noise, blurred and rounded, holds one value often and the next nearly as often.
const MOST_NEXT: f64 = 0.3;

/// A value that less of a mask holds is no second constant.
const LEAST_OTHER: f64 = 0.02;

/// Two constants lie more than so many steps of rounding apart.
const STEPS: f32 = 3.0;

impl Fill {
    /// Whether no other value is common.
    pub fn is_alone(&self) -> bool {
        self.next_share <= MOST_NEXT * self.share
    }

    /// Whether the next value may be a constant of its own: values a few steps of rounding apart are one as good as the
    /// other.
    pub fn has_other(&self, image: &Image) -> bool {
        let apart = (self.value - self.next).abs();
        self.next_share >= LEAST_OTHER && apart > STEPS * step(&image.samples)
    }
}

/// The step of rounding; of floats the one of those which were whole numbers.
fn step(samples: &Samples) -> f32 {
    match samples {
        Samples::I16(scaled) => scaled.slope.abs(),
        Samples::U16(scaled) => scaled.slope.abs(),
        Samples::F32(_) => 1.0,
    }
}

/// The commonest value in a mask, `None` for an empty one.
pub fn fill_of(image: &Image, mask: &PackedMask) -> Option<Fill> {
    let inside = || mask.places();
    match &image.samples {
        Samples::I16(scaled) => {
            let found = commonest(inside().map(|n| scaled.stored[n]))?;
            Some(found.fill(|stored| scaled.real(stored)))
        }
        Samples::U16(scaled) => {
            let found = commonest(inside().map(|n| scaled.stored[n]))?;
            Some(found.fill(|stored| scaled.real(stored)))
        }
        Samples::F32(values) => {
            // Bits, so that values can be counted; -0 and 0 are one value.
            let found = commonest(inside().map(|n| (values[n] + 0.0).to_bits()))?;
            Some(found.fill(f32::from_bits))
        }
    }
}

/// The commonest of some values (the smallest of several), its share and that of the next.
struct Commonest<T> {
    value: T,
    share: f64,
    next: T,
    next_share: f64,
}

impl<T> Commonest<T> {
    fn fill(self, real: impl Fn(T) -> f32) -> Fill {
        Fill {
            value: real(self.value),
            share: self.share,
            next: real(self.next),
            next_share: self.next_share,
        }
    }
}

fn commonest<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<Commonest<T>> {
    let mut sorted: Vec<T> = values.collect();
    sorted.sort_unstable();
    let total = sorted.len() as f64;
    let mut longest: Option<(usize, T)> = None;
    let mut next: Option<(usize, T)> = None;
    for same in sorted.chunk_by(|a, b| a == b) {
        let here = (same.len(), same[0]);
        if longest.is_none_or(|(length, _)| here.0 > length) {
            next = longest.replace(here);
        } else if next.is_none_or(|(length, _)| here.0 > length) {
            next = Some(here);
        }
    }
    longest.map(|(length, value)| {
        let (next_length, next) = next.unwrap_or((0, value));
        Commonest {
            value,
            share: length as f64 / total,
            next,
            next_share: next_length as f64 / total,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{grid, volume};
    use crate::volume::Scaled;

    #[test]
    fn the_fill_of_floats_counts_both_zeros_as_one() {
        let geometry = grid([4, 1, 1], [1.0; 3]);
        let image = Image {
            samples: Samples::F32(vec![0.0, -0.0, 2.0, 0.0]),
            geometry: geometry.clone(),
        };
        let all = volume(geometry, |_| 1_u8);
        let fill = fill_of(&image, &PackedMask::of_mask(&all)).unwrap();
        assert_eq!(
            fill,
            Fill {
                value: 0.0,
                share: 0.75,
                next: 2.0,
                next_share: 0.25,
            }
        );
    }

    #[test]
    fn constants_lie_more_than_a_few_steps_apart() {
        let image = |slope| Image {
            samples: Samples::I16(Scaled {
                stored: vec![0, 4],
                slope,
                intercept: 0.0,
            }),
            geometry: grid([2, 1, 1], [1.0; 3]),
        };
        let fill = Fill {
            value: 8.0,
            share: 0.5,
            next: 0.0,
            next_share: 0.4,
        };
        assert!(fill.has_other(&image(2.0)) && !fill.is_alone());
        assert!(!fill.has_other(&image(4.0)));
        let rare = Fill {
            next_share: 0.01,
            ..fill
        };
        assert!(!rare.has_other(&image(2.0)) && rare.is_alone());
    }
}
