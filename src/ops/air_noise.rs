//! The part of a rough area that lies in air: noise tells there, to the voxel, what was altered.
//!
//! A tool that blurs, pixelates or paints a face does so with the air before it: noise as all around
//! was left alone. Where noise took the place of a strip of the face, there is noise and nothing else.

use rayon::prelude::*;

use super::constant_area::{crowded, voxels_where};
use super::morphology::erode;
use crate::volume::{BoundingBox, Image, Mask};

/// Voxels most of whose surroundings lie below a value are dark: more than this share.
const DARK_SHARE: f32 = 0.55;

/// How far from anything bright noise can be measured: nearer, edges and ringing stand out of it.
const DEEP_MM: f64 = 5.0;

/// Noise is measured up to this far around the area.
const MARGIN_MM: f64 = 15.0;

/// Fewer voxels say nothing of noise.
const LEAST_VOXELS: usize = 500;

/// The air of an altered area is smooth: its grain is at most this share of that of the air around.
const SMOOTH_SHARE: f32 = 0.35;

/// From this share of the way on from the area's grain to that around, a voxel is noise; where more
/// than the other share of its surroundings is, it was left alone.
const NOISE_WAY: f32 = 0.4;
const NOISE_SHARE: f32 = 0.5;

/// Along axes of thicker slices the next voxel is another place [mm].
const GRAIN_BELOW_MM: f64 = 3.0 - 1e-3;

/// Voxels as dark as air, by most of their surroundings; air is below the value `below`.
pub fn dark_air(image: &Image, below: f32) -> Mask {
    crowded(
        &voxels_where(image, |_, value| u8::from(value < below)),
        DARK_SHARE,
    )
}

/// Takes from an area the air whose noise is that of the air around, where the air of the area's
/// `core` is smooth. `near`: what may be altered; noise is measured away from it. All on one grid.
pub fn leave_noise(image: &Image, area: &mut Mask, [core, near, dark]: [&Mask; 3]) {
    let Some(bounds) = BoundingBox::around(&area.voxels, image.shape()) else {
        return;
    };
    let margin = image.geometry.spacing().mm();
    let margin = margin.map(|mm| (MARGIN_MM / mm).ceil() as usize);
    let bounds = bounds.grown(margin, image.shape());
    let [core, near, dark] = [core, near, dark].map(|mask| mask.crop(&bounds));
    let grain = Grain::of(&image.crop(&bounds));
    let inside = grain.median(|n| dark.voxels[n] & core.voxels[n] != 0);
    let around = grain.median(|n| dark.voxels[n] != 0 && near.voxels[n] == 0);
    let (Some(inside), Some(around)) = (inside, around) else {
        return;
    };
    if around <= 0.0 || inside > SMOOTH_SHARE * around {
        return;
    }
    let level = inside + NOISE_WAY * (around - inside);
    let noise = crowded(&grain.above(level, &dark), NOISE_SHARE);
    let deep = erode(&dark, DEEP_MM);
    let mut piece = area.crop(&bounds);
    let voxels = piece.voxels.par_iter_mut();
    let left = noise.voxels.par_iter().zip(&deep.voxels);
    voxels
        .zip(left)
        .for_each(|(area, (noise, deep))| *area &= 1 - (noise & deep));
    area.paste(&piece, bounds.start);
}

/// How much each voxel differs from its neighbours.
struct Grain {
    /// The mean of |2x − previous − next| over the axes that count, neighbours clamped to the edge.
    values: Vec<f32>,
    /// Equal to a neighbour along each of these axes: a block of pixels, no noise.
    blocks: Vec<bool>,
}

impl Grain {
    fn of(image: &Image) -> Self {
        let [ni, nj, nk] = image.shape();
        let mut x = vec![0.0; image.geometry.voxel_count()];
        image.samples.read_run(0, &mut x);
        let spacing = image.geometry.spacing().mm();
        let lengths = [(ni, 1), (nj, ni), (nk, ni * nj)];
        let axes: Vec<usize> = (0..3)
            .filter(|&a| spacing[a] < GRAIN_BELOW_MM && lengths[a].0 >= 3)
            .collect();
        let at = |n: usize| {
            let index = [n % ni, n / ni % nj, n / (ni * nj)];
            let (mut sum, mut block) = (0.0, !axes.is_empty());
            for &a in &axes {
                let (length, step) = lengths[a];
                let low = if index[a] > 0 { x[n - step] } else { x[n] };
                let high = if index[a] + 1 < length {
                    x[n + step]
                } else {
                    x[n]
                };
                sum += (2.0 * x[n] - low - high).abs();
                block &= (index[a] > 0 && low == x[n]) || (index[a] + 1 < length && high == x[n]);
            }
            (sum / axes.len().max(1) as f32, block)
        };
        let (values, blocks) = (0..x.len()).into_par_iter().map(at).unzip();
        Self { values, blocks }
    }

    /// The median over the voxels that count; `None` where they are few.
    fn median(&self, counts: impl Fn(usize) -> bool) -> Option<f32> {
        let voxels = (0..self.values.len()).filter(|&n| counts(n));
        let mut found: Vec<f32> = voxels.map(|n| self.values[n]).collect();
        if found.len() < LEAST_VOXELS {
            return None;
        }
        let middle = found.len() / 2;
        let (_, median, _) = found.select_nth_unstable_by(middle, f32::total_cmp);
        Some(*median)
    }

    /// Voxels above a level and in no block, on the grid of `like`.
    fn above(&self, level: f32, like: &Mask) -> Mask {
        let voxels = self.values.par_iter().zip(&self.blocks);
        Mask {
            voxels: voxels
                .map(|(&grain, &block)| u8::from(grain > level && !block))
                .collect(),
            geometry: like.geometry.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{box_mask, grid, volume};
    use crate::volume::Samples;

    const SHAPE: [usize; 3] = [64, 48, 40];
    const AREA: [[usize; 3]; 2] = [[30, 8, 8], [64, 40, 32]];

    /// Noise of 4 to 16, the same every time.
    fn noise([i, j, k]: [usize; 3]) -> f32 {
        let n = i + 64 * (j + 48 * k);
        4.0 + (n.wrapping_mul(2_654_435_761) >> 9 & 127) as f32 / 10.0
    }

    /// Noise, smoothed inside `AREA` by `smooth`, with something bright in the middle of it.
    fn scan(smooth: impl Fn([usize; 3]) -> f32) -> Image {
        let inside =
            |index: [usize; 3]| (0..3).all(|a| (AREA[0][a]..AREA[1][a]).contains(&index[a]));
        let value = |index: [usize; 3]| match index {
            [50..56, 20..26, 18..24] => 900.0,
            _ if inside(index) => smooth(index),
            _ => noise(index),
        };
        let volume = volume(grid(SHAPE, [1.0; 3]), value);
        Image {
            samples: Samples::F32(volume.voxels),
            geometry: volume.geometry,
        }
    }

    /// Takes noise from a rough area that reaches 8 mm too far along i; gives it and the true area.
    fn left(image: &Image) -> (Mask, Mask) {
        let geometry = || grid(SHAPE, [1.0; 3]);
        let truth = box_mask(geometry(), AREA[0], AREA[1]);
        let mut area = box_mask(geometry(), [22, 8, 8], AREA[1]);
        let near = box_mask(geometry(), [18, 4, 4], [64, 44, 36]);
        let dark = dark_air(image, 50.0);
        leave_noise(image, &mut area, [&truth, &near, &dark]);
        (area, truth)
    }

    fn count(mask: &Mask) -> usize {
        mask.voxels.iter().filter(|v| **v != 0).count()
    }

    #[test]
    fn noise_before_a_smooth_area_is_left_alone_to_the_voxel() {
        let (area, truth) = left(&scan(|_| 10.0));
        let wrong = area.voxels.iter().zip(&truth.voxels);
        let wrong = wrong.filter(|(a, b)| a != b).count();
        assert!(wrong < count(&truth) / 50, "{wrong} of {}", count(&truth));
    }

    #[test]
    fn blocks_of_pixels_are_no_noise() {
        let (area, truth) = left(&scan(|[i, j, k]| {
            noise([i / 4 * 4, j / 4 * 4, k / 4 * 4]) * 2.0
        }));
        // But for a few at corners, mostly surrounded by noise.
        let lost = truth.voxels.iter().zip(&area.voxels);
        let lost = lost.filter(|(t, a)| **t != 0 && **a == 0).count();
        assert!(lost < count(&truth) / 200, "{lost}");
        assert!(count(&area) < count(&truth) + count(&truth) / 20);
    }

    #[test]
    fn an_area_of_noise_in_noise_or_in_constant_air_stays_as_it_is() {
        for image in [scan(noise), {
            let volume = volume(grid(SHAPE, [1.0; 3]), |_| 0.0);
            Image {
                samples: Samples::F32(volume.voxels),
                geometry: volume.geometry,
            }
        }] {
            let (area, _) = left(&image);
            assert_eq!(count(&area), 42 * 32 * 24);
        }
    }
}
