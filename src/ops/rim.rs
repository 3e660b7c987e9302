//! The rim of a body whose air was blanked up to the skin: what is left of it belongs to the body.
//!
//! Skull stripping and a scanner's own mask leave tissue, its outermost voxels mixed with air, and one
//! value right behind. Half-way between air and tissue then lies inside of where the body was cut:
//! there every voxel that is not the background was kept as tissue.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::fill::fill_of;
use super::morphology::dilate;
use super::packed_mask::PackedMask;
use crate::volume::{Image, Mask};

/// When the air was blanked up to the skin, and how wide the rim is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rim {
    /// The rim is at most this wide [mm], or one voxel where voxels are larger.
    pub reach_mm: f64,
    /// Air was blanked up to the skin where one value fills what lies between these distances from
    /// the mask [mm].
    pub between_mm: [f64; 2],
    /// Share that this value must hold there.
    pub least_constant: f64,
}

/// One voxel in so many is looked at before anything is measured.
const STRIDE: usize = 101;

/// Adds the rim to `mask` where one value fills the air right behind it; otherwise changes nothing.
pub fn take_rim(mask: &mut Mask, image: &Image, rule: &Rim) {
    // Noise, in most scans: nothing more to do.
    let probe = beyond(mask, |n| u8::from(n % STRIDE == 0));
    if fill_of(image, &probe).is_none_or(|fill| fill.share < 0.5) {
        return;
    }
    let [near, far] = rule.between_mm.map(|mm| dilate(mask, mm));
    let ring = beyond(&near, |n| far.voxels[n]);
    let Some(fill) = fill_of(image, &ring).filter(|fill| fill.share >= rule.least_constant) else {
        return;
    };
    let spacing = mask.geometry.spacing().mm();
    let finest = spacing.into_iter().fold(f64::INFINITY, f64::min);
    let wide = dilate(mask, rule.reach_mm.max(1.01 * finest));
    let [ni, nj, _] = mask.geometry.shape;
    let planes = mask.voxels.par_chunks_mut(ni * nj);
    let planes = planes.zip(wide.voxels.par_chunks(ni * nj)).enumerate();
    planes.for_each(|(k, (plane, wide))| {
        let values = image.plane(k);
        let voxels = plane.iter_mut().zip(wide).zip(values);
        voxels.for_each(|((voxel, wide), value)| *voxel |= wide & u8::from(value != fill.value));
    });
}

/// What `keep` marks outside `mask`.
fn beyond(mask: &Mask, keep: impl Fn(usize) -> u8 + Sync) -> PackedMask {
    let [ni, nj, _] = mask.geometry.shape;
    PackedMask::of_rows(
        mask.geometry.shape,
        || (),
        |(), [j, k], row| {
            for (i, voxel) in row.iter_mut().enumerate() {
                let n = i + ni * (j + nj * k);
                *voxel = (1 - mask.voxels[n]) & keep(n);
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{ball_mask, grid, oblique_grid};
    use crate::volume::{Geometry, Samples};

    const RULE: Rim = Rim {
        reach_mm: 1.6,
        between_mm: [2.1, 4.0],
        least_constant: 0.95,
    };

    /// A ball of 20 mm with a rim of 1.5 mm at a third of its value, in air of `air(n)`: the mask that
    /// is found from the ball alone, and the ball with its rim.
    fn found(geometry: Geometry, air: impl Fn(usize) -> f32) -> [Mask; 2] {
        let [mut mask, rimmed] = [20.0, 21.5].map(|mm| ball_mask(geometry.clone(), mm));
        let pairs = mask.voxels.iter().zip(&rimmed.voxels).enumerate();
        let values = pairs.map(|(n, pair)| match pair {
            (1, _) => 300.0,
            (_, 1) => 100.0,
            _ => air(n),
        });
        let scan = Image {
            samples: Samples::F32(values.collect()),
            geometry,
        };
        take_rim(&mut mask, &scan, &RULE);
        [mask, rimmed]
    }

    #[test]
    fn what_is_left_next_to_blanked_air_is_taken_in() {
        for geometry in [
            grid([60, 60, 60], [1.0, 1.0, 1.0]),
            oblique_grid([64, 60, 50], [0.9, 1.0, 1.2]),
        ] {
            let ball = ball_mask(geometry.clone(), 20.0);
            for value in [0.0, -7.0, 41.0] {
                let [mask, rimmed] = found(geometry.clone(), |_| value);
                let count = |mask: &Mask| mask.voxels.iter().filter(|v| **v != 0).count();
                let [least, taken, most] = [&ball, &mask, &rimmed].map(count);
                let pairs = mask.voxels.iter().zip(&rimmed.voxels);
                assert!(pairs.into_iter().all(|(mask, rimmed)| mask <= rimmed));
                assert!(
                    5 * (taken - least) > 4 * (most - least),
                    "{taken} of {most}"
                );
            }
        }
    }

    #[test]
    fn in_noise_or_behind_a_wide_margin_nothing_changes() {
        let geometry = grid([60, 60, 60], [1.0, 1.0, 1.0]);
        let ball = ball_mask(geometry.clone(), 20.0);
        let noise = |n: usize| (n * 7919 % 31) as f32;
        assert!(found(geometry.clone(), noise)[0] == ball);
        // Blanked, but 10 mm away from the skin.
        let margin = ball_mask(geometry.clone(), 30.0);
        let far = |n: usize| noise(n) * f32::from(margin.voxels[n]);
        assert!(found(geometry, far)[0] == ball);
    }
}
