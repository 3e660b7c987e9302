//! The part of a rough area that lies in air: noise tells there, to the voxel, what was altered.
//!
//! A tool that blurs, pixelates or paints a face does so with the air before it: noise as all around
//! was left alone. Where noise took the place of a strip of the face, there is noise and nothing else.

use rayon::prelude::*;

use super::morphology::{crowded, erode};
use super::packed_mask::PackedMask;
use super::rough_area::Rough;
use crate::volume::{BoundingBox, Image, Mask};

/// How far from anything bright noise can be measured: nearer, edges and ringing stand out of it.
const DEEP_MM: f64 = 5.0;

/// Noise is measured up to this far around the area.
const MARGIN_MM: f64 = 15.0;

/// Fewer voxels say nothing of noise.
const LEAST_VOXELS: usize = 500;

/// The air of an altered area is smooth: its grain is at most this share of that of the air around.
const SMOOTH_SHARE: f32 = 0.35;

/// A voxel is noise from this share of the way from the area's grain to that around.
const NOISE_LEVEL_SHARE: f32 = 0.4;

/// It was left alone where more than this share of its surroundings is noise.
const NOISE_SHARE: f32 = 0.5;

/// In larger pieces noise is measured on every second plane, or fewer.
const MOST_MEASURED: usize = 8_000_000;

/// Along axes of thicker slices the next voxel is another place [mm].
const GRAIN_BELOW_MM: f64 = 3.0 - 1e-3;

/// The noise of the air in a rough area and around it.
pub struct AirNoise<'a> {
    image: &'a Image,
    dark: &'a PackedMask,
    /// Where it is measured: what lies beyond is as if it were not there.
    bounds: BoundingBox,
    /// The grain of the air in the area's core, and of that around.
    inside: f32,
    around: f32,
}

impl<'a> AirNoise<'a> {
    /// Measures it; `None` where there is too little air. What is `constant`, a scanner's zeros, tells
    /// nothing of noise or its lack, unless the core holds little else.
    pub fn of(image: &'a Image, rough: &'a Rough, constant: Option<&PackedMask>) -> Option<Self> {
        let bounds = image.geometry.grown(&rough.area.bounds()?, MARGIN_MM);
        let core = || PackedMask::combined([&rough.dark, &rough.core], |[dark, core]| dark & core);
        let inside = median_grain(image, &bounds, &core().without(constant))
            .or_else(|| median_grain(image, &bounds, &core()))?;
        let away = |[dark, near]: [u64; 2]| dark & !near;
        let away = PackedMask::combined([&rough.dark, &rough.near], away);
        let around = median_grain(image, &bounds, &away.without(constant))?;
        Some(Self {
            image,
            dark: &rough.dark,
            bounds,
            inside,
            around,
        })
    }

    /// Whether the area's air is smooth, that around not.
    pub fn is_smooth(&self) -> bool {
        self.around > 0.0 && self.inside <= SMOOTH_SHARE * self.around
    }

    /// Takes from an area the air whose noise is that of the air around, where the area's is smooth.
    pub fn leave(&self, area: &mut PackedMask) {
        if !self.is_smooth() {
            return;
        }
        let level = self.inside + NOISE_LEVEL_SHARE * (self.around - self.inside);
        let geometry = &self.image.geometry;
        let noise = PackedMask::of_slabs(area.shape(), &self.bounds, 1, |slab| {
            crowded(&self.noise(level, slab), NOISE_SHARE)
        });
        let reach = geometry.voxels_within(DEEP_MM)[2];
        let deep = PackedMask::of_slabs(area.shape(), &self.bounds, reach, |slab| {
            erode(&self.dark.crop(slab, geometry), DEEP_MM)
        });
        let kept = |[area, noise, deep]: [u64; 3]| area & !(noise & deep);
        *area = PackedMask::combined([area, &noise, &deep], kept);
    }

    /// Voxels of a slab whose grain lies above a level, and which are in no block.
    fn noise(&self, level: f32, slab: &BoundingBox) -> Mask {
        let [ni, nj, _] = slab.shape();
        let mut voxels = vec![0_u8; slab.voxel_count()];
        let planes = voxels.par_chunks_mut(ni * nj).enumerate();
        planes.for_each(|(k, plane)| {
            let grain = Plane::of(self.image, &self.bounds, slab.start[2] + k);
            for (n, voxel) in plane.iter_mut().enumerate() {
                let (grain, is_block) = grain.at(n);
                *voxel = u8::from(grain > level && !is_block);
            }
        });
        Mask {
            voxels,
            geometry: self.image.geometry.crop(slab),
        }
    }
}

/// The median grain of a box's voxels that are wanted, of some planes where there are many; `None` where
/// they are few.
fn median_grain(image: &Image, bounds: &BoundingBox, wanted: &PackedMask) -> Option<f32> {
    let step = bounds.voxel_count().div_ceil(MOST_MEASURED).max(1);
    let planes = (bounds.start[2]..bounds.end[2]).into_par_iter();
    let planes = planes.filter(|k| (k - bounds.start[2]) % step == step / 2);
    let mut found: Vec<f32> = planes
        .flat_map_iter(|k| {
            let here = wanted.crop(&plane_of(bounds, k), &image.geometry).voxels;
            let grain = here.contains(&1).then(|| Plane::of(image, bounds, k));
            let wanted = here.into_iter().enumerate().filter(|(_, v)| *v != 0);
            wanted.filter_map(move |(n, _)| Some(grain.as_ref()?.at(n).0))
        })
        .collect();
    if found.len() < LEAST_VOXELS {
        return None;
    }
    let middle = found.len() / 2;
    let (_, median, _) = found.select_nth_unstable_by(middle, f32::total_cmp);
    Some(*median)
}

/// The part of a box that lies in a plane across k.
fn plane_of(bounds: &BoundingBox, k: usize) -> BoundingBox {
    let mut plane = *bounds;
    (plane.start[2], plane.end[2]) = (k, k + 1);
    plane
}

/// A plane across k of a box, with those before and behind it.
struct Plane {
    /// Values before, here and behind; at the ends of the box the plane itself.
    values: [Vec<f32>; 3],
    row: usize,
    /// Along which axes the next voxel counts.
    counts: [bool; 3],
    /// Whether there is a plane before and one behind.
    ends: [bool; 2],
}

impl Plane {
    fn of(image: &Image, bounds: &BoundingBox, k: usize) -> Self {
        let shape = bounds.shape();
        let spacing = image.geometry.spacing().mm();
        let [first, last] = [bounds.start[2], bounds.end[2] - 1];
        let here = [k.saturating_sub(1).max(first), k, (k + 1).min(last)];
        Self {
            values: here.map(|k| image.plane_in(bounds, k)),
            row: shape[0],
            counts: [0, 1, 2].map(|a| spacing[a] < GRAIN_BELOW_MM && shape[a] >= 3),
            ends: [k > first, k < last],
        }
    }

    /// The mean of |2x − previous − next| over the axes that count, neighbours clamped to the edge; and
    /// whether the voxel equals a neighbour along each of these axes: a block of pixels, no noise.
    fn at(&self, n: usize) -> (f32, bool) {
        let [before, here, behind] = &self.values;
        let x = here[n];
        let (i, j) = (n % self.row, n / self.row);
        let last = here.len() / self.row - 1;
        let beside = |there: bool, at: usize| if there { Some(here[at]) } else { None };
        let neighbours = [
            [
                beside(i > 0, n.wrapping_sub(1)),
                beside(i + 1 < self.row, n + 1),
            ],
            [
                beside(j > 0, n.wrapping_sub(self.row)),
                beside(j < last, n + self.row),
            ],
            [
                self.ends[0].then_some(before[n]),
                self.ends[1].then_some(behind[n]),
            ],
        ];
        let (mut sum, mut axes, mut is_block) = (0.0, 0, true);
        for (pair, counts) in neighbours.into_iter().zip(self.counts) {
            if counts {
                let [low, high] = pair.map(|value| value.unwrap_or(x));
                sum += (2.0 * x - low - high).abs();
                axes += 1;
                is_block &= pair.contains(&Some(x));
            }
        }
        (sum / axes.max(1) as f32, is_block && axes > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{box_mask, grid, volume};
    use crate::volume::Samples;

    const SHAPE: [usize; 3] = [64, 48, 40];
    const AREA: [[usize; 3]; 2] = [[30, 8, 8], [64, 40, 32]];
    const FINE: [f64; 3] = [1.0; 3];

    /// Noise of 4 to 17, the same every time.
    fn noise([i, j, k]: [usize; 3]) -> f32 {
        let mut bits = (i + SHAPE[0] * (j + SHAPE[1] * k)) as u32;
        for factor in [0x7feb_352d_u32, 0x846c_a68b] {
            bits = (bits ^ (bits >> 15)).wrapping_mul(factor);
        }
        4.0 + (bits >> 25) as f32 / 10.0
    }

    fn image(spacing: [f64; 3], value: impl Fn([usize; 3]) -> f32) -> Image {
        let volume = volume(grid(SHAPE, spacing), value);
        Image {
            samples: Samples::F32(volume.voxels),
            geometry: volume.geometry,
        }
    }

    /// Noise, smoothed inside `AREA` by `smooth`, with something bright in the middle of it.
    fn scan(spacing: [f64; 3], smooth: impl Fn([usize; 3]) -> f32) -> Image {
        let inside =
            |index: [usize; 3]| (0..3).all(|a| (AREA[0][a]..AREA[1][a]).contains(&index[a]));
        image(spacing, |index| match index {
            [50..56, 20..26, 18..24] => 900.0,
            _ if inside(index) => smooth(index),
            _ => noise(index),
        })
    }

    /// Takes noise from a rough area that reaches 8 voxels too far along i; gives it and the true area.
    fn left(image: &Image) -> (Mask, Mask) {
        let of = |start, end| PackedMask::of_mask(&box_mask(image.geometry.clone(), start, end));
        let below = image.mask_where(|_, value| u8::from(value < 50.0));
        let rough = Rough {
            geometry: image.geometry.clone(),
            area: of([22, 8, 8], AREA[1]),
            core: of(AREA[0], AREA[1]),
            near: of([18, 4, 4], [64, 44, 36]),
            dark: PackedMask::of_mask(&crowded(&below, 0.55)),
        };
        let mut area = rough.area.clone();
        if let Some(noise) = AirNoise::of(image, &rough, None) {
            noise.leave(&mut area);
        }
        let unpacked = |mask: PackedMask| mask.unpacked(&image.geometry);
        (unpacked(area), unpacked(rough.core))
    }

    fn count(mask: &Mask) -> usize {
        mask.voxels.iter().filter(|v| **v != 0).count()
    }

    #[test]
    fn noise_before_a_smooth_area_is_left_alone_to_the_voxel() {
        for spacing in [FINE, [0.7, 0.9, 4.0], [5.0, 1.0, 1.0]] {
            let (area, truth) = left(&scan(spacing, |_| 10.0));
            let wrong = area.voxels.iter().zip(&truth.voxels);
            let wrong = wrong.filter(|(a, b)| a != b).count();
            assert!(wrong < count(&truth) / 30, "{wrong} at {spacing:?}");
        }
    }

    #[test]
    fn zeros_beside_noise_do_not_make_it_smooth() {
        // Most of the area is zero, as the scanner left it; a strip of noise lies in it.
        let zero = |[i, ..]: [usize; 3]| i > 38;
        let image = scan(FINE, |index| if zero(index) { 0.0 } else { noise(index) });
        let constant = PackedMask::of_mask(&image.mask_where(|_, value| u8::from(value == 0.0)));
        let of = |start, end| PackedMask::of_mask(&box_mask(image.geometry.clone(), start, end));
        let below = image.mask_where(|_, value| u8::from(value < 50.0));
        let rough = Rough {
            geometry: image.geometry.clone(),
            area: of(AREA[0], AREA[1]),
            core: of(AREA[0], AREA[1]),
            near: of([26, 4, 4], [64, 44, 36]),
            dark: PackedMask::of_mask(&crowded(&below, 0.55)),
        };
        let is_smooth = |constant| AirNoise::of(&image, &rough, constant).unwrap().is_smooth();
        assert!(is_smooth(None));
        assert!(!is_smooth(Some(&constant)));
    }

    #[test]
    fn noise_beside_something_bright_stays() {
        // The bright block reaches to 4 mm from the noise.
        let image = image(FINE, |index| match index {
            [34..56, ..] => 900.0,
            [30..64, ..] => 10.0,
            _ => noise(index),
        });
        let (area, _) = left(&image);
        assert_eq!(area.voxels[area.offset([29, 20, 20])], 1);
        assert_eq!(area.voxels[area.offset([24, 20, 20])], 0);
    }

    #[test]
    fn blocks_of_pixels_are_no_noise() {
        let (area, truth) = left(&scan(FINE, |[i, j, k]| {
            noise([i / 2 * 2, j / 2 * 2, k / 2 * 2]) * 2.0
        }));
        // But for a few at corners, mostly surrounded by noise.
        let lost = truth.voxels.iter().zip(&area.voxels);
        let lost = lost.filter(|(t, a)| **t != 0 && **a == 0).count();
        assert!(lost < count(&truth) / 200, "{lost}");
    }

    #[test]
    fn an_area_stays_in_noise_in_constant_air_and_where_there_is_little_air() {
        let still = image(FINE, |_| 0.0);
        let bright = image(FINE, |index| if index[2] < 2 { 1.0 } else { 900.0 });
        for image in [scan(FINE, noise), still, bright] {
            let (area, _) = left(&image);
            assert_eq!(count(&area), 42 * 32 * 24);
        }
    }
}
