//! An area as a network finds it, to a few millimetres, and what lies around it.

use rayon::prelude::*;

use super::morphology::{crowded, dilate};
use crate::volume::coarse_grid::CoarseField;
use crate::volume::{BoundingBox, Image, Mask};

/// Logit of a probability of 0.9, from which a voxel is the core of an area whatever the others.
pub(super) const SURE: f32 = 2.2;

/// Voxels most of whose surroundings lie below a value are dark: more than this share.
const DARK_SHARE: f32 = 0.55;

/// So close to tissue its end is looked at [mm].
const BESIDE_MM: f64 = 5.0;

/// A fill holds beside tissue this share of what it holds of all that is dark.
const AS_OFTEN: f64 = 0.75;

/// A rough area; masks on the image's grid.
pub struct Rough {
    /// The area.
    pub area: Mask,
    /// What is surely altered.
    pub core: Mask,
    /// What may be.
    pub near: Mask,
    /// As dark as air by most of their surroundings: air, and what else is.
    pub dark: Mask,
}

impl Rough {
    /// The area above a logit of `threshold`; near it lies what is above `probability`; what is below
    /// `air_below` is as dark as air.
    pub fn of(
        image: &Image,
        logits: &CoarseField,
        threshold: f32,
        probability: f32,
        air_below: f32,
    ) -> Self {
        let unlikely = (probability / (1.0 - probability)).ln();
        let below = image.mask_where(|_, value| u8::from(value < air_below));
        Self {
            area: rough_area(image, logits, threshold),
            core: rough_area(image, logits, core_level(logits, threshold)),
            near: rough_area(image, logits, unlikely.min(threshold)),
            dark: crowded(&below, DARK_SHARE),
        }
    }

    /// Whether most dark voxels away from the area lie in a mask.
    pub fn air_around_is(&self, mask: &Mask) -> bool {
        mostly(&self.dark, mask, |n| self.near.voxels[n] == 0)
    }

    /// Whether the core's dark voxels next to tissue lie in a mask nearly as often as all of them: a fill
    /// begins where tissue ends.
    pub fn begins_with(&self, mask: &Mask) -> bool {
        let Some(bounds) = BoundingBox::around(&self.core.voxels, mask.geometry.shape) else {
            return true;
        };
        let reach = mask.geometry.spacing().mm();
        let reach = reach.map(|mm| (BESIDE_MM / mm).ceil() as usize);
        let bounds = bounds.grown(reach, mask.geometry.shape);
        let [core, near, dark, mask] =
            [&self.core, &self.near, &self.dark, mask].map(|all| all.crop(&bounds));
        let mut tissue = near;
        let voxels = tissue.voxels.iter_mut().zip(&dark.voxels);
        voxels.for_each(|(near, dark)| *near &= 1 - dark);
        let beside = dilate(&tissue, BESIDE_MM);
        let share = |counts: &dyn Fn(usize) -> u8| {
            let wanted = |n: &usize| core.voxels[*n] & dark.voxels[*n] & counts(*n) != 0;
            let (mut all, mut held) = (0_usize, 0_usize);
            for n in (0..core.voxels.len()).filter(wanted) {
                all += 1;
                held += usize::from(mask.voxels[n]);
            }
            (all > 0).then(|| held as f64 / all as f64)
        };
        match (share(&|n| beside.voxels[n]), share(&|_| 1)) {
            (Some(beside), Some(all)) => beside >= AS_OFTEN * all,
            _ => true,
        }
    }

    /// Whether most of the core is dark.
    pub fn core_is_dark(&self) -> bool {
        mostly(&self.core, &self.dark, |_| true)
    }
}

/// Whether most voxels of a mask that count lie in another.
fn mostly(mask: &Mask, other: &Mask, counts: impl Fn(usize) -> bool + Sync) -> bool {
    let voxels = mask.voxels.par_iter().zip(&other.voxels).enumerate();
    let (all, both) = voxels
        .filter(|(n, (mask, _))| **mask != 0 && counts(*n))
        .map(|(_, (_, other))| (1_u64, u64::from(*other)))
        .reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    2 * both > all
}

/// A rough area at native resolution: voxels whose logit lies above `threshold`.
pub fn rough_area(image: &Image, logits: &CoarseField, threshold: f32) -> Mask {
    logits.map_voxels(&image.geometry, |logit| u8::from(logit > threshold))
}

/// The logit from which a voxel is the core of an area: the median of the cells above `threshold`,
/// at most [`SURE`]. A network is not sure of everything that it finds.
fn core_level(logits: &CoarseField, threshold: f32) -> f32 {
    let above = logits.values.iter().copied().filter(|&l| l > threshold);
    let mut above: Vec<f32> = above.collect();
    if above.is_empty() {
        return SURE;
    }
    let middle = above.len() / 2;
    let (_, median, _) = above.select_nth_unstable_by(middle, f32::total_cmp);
    median.min(SURE)
}
