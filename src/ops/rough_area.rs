//! An area as a network finds it, to a few millimetres, and what lies around it.

use rayon::prelude::*;

use super::components::{Components, Connectivity};
use super::morphology::{crowded, dilate, erode};
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

/// Logit of a probability of 0.8, which a piece of what was painted reaches where a network is sure of anything.
const LIKELY: f32 = 1.386;

/// A piece into which no ball of this radius fits [mm] is thin; along axes of thicker voxels nothing is.
const THIN_MM: f64 = 2.5;

/// A piece of which less than the share lies so near to tissue lies in air alone. Of further pieces of tools' areas 0.4
/// and more does, of wedges that a scanner left empty 0.034 at most.
const NEAR_TISSUE_SHARE: f64 = 0.12;
const NEAR_TISSUE_MM: f64 = 10.0;

/// More than this share of a thin piece is sure where it was painted.
const SURE_SHARE: f64 = 0.25;

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

    /// Leaves out of an area what a scanner left empty: pieces that lie in air alone, but for the one that holds most
    /// of the core. What a tool blanks begins at the head.
    pub fn leave_air_alone(&self, area: &mut Mask) {
        let pieces = Components::find(area, Connectivity::TwentySix);
        let core = pieces.count_in(&self.core);
        let with_core = (0..core.len()).filter(|n| core[*n] > 0);
        // Without a core nothing tells which piece a tool's is.
        let Some(main) = with_core.max_by_key(|n| core[*n]) else {
            return;
        };
        let others = pieces.pieces().iter().enumerate();
        let others = others.filter(|(n, _)| *n != main);
        let Some(bounds) = others
            .map(|(_, piece)| piece.bounding_box)
            .reduce(|a, b| a.union(&b))
        else {
            return;
        };
        let spacing = area.geometry.spacing().mm();
        let reach = spacing.map(|mm| (NEAR_TISSUE_MM / mm).ceil() as usize);
        let bounds = bounds.grown(reach, area.geometry.shape);
        let mut tissue = self.dark.crop(&bounds);
        tissue.voxels.par_iter_mut().for_each(|v| *v = 1 - *v);
        let mut near = Mask {
            voxels: vec![0; area.voxels.len()],
            geometry: area.geometry.clone(),
        };
        near.paste(&dilate(&tissue, NEAR_TISSUE_MM), bounds.start);
        let near = pieces.count_in(&near);
        pieces.keep(area, |n, piece| {
            n == main || near[n] as f64 >= NEAR_TISSUE_SHARE * piece.voxels as f64
        });
    }

    /// Whether most of the core is dark.
    pub fn core_is_dark(&self) -> bool {
        mostly(&self.core, &self.dark, |_| true)
    }
}

/// Leaves out of what seems to be painted or blurred the pieces that were not: nothing of them is likely, or they are
/// thin and little of them is sure. `core`: of the rough area.
pub(super) fn leave_unlikely(image: &Image, logits: &CoarseField, core: &Mask, part: &mut Mask) {
    let pieces = Components::find(part, Connectivity::TwentySix);
    // One after the other, as each mask is as large as the scan.
    let likely = pieces.count_in(&rough_area(image, logits, LIKELY));
    let inner = pieces.count_in(&erode(part, THIN_MM));
    let sure = pieces.count_in(core);
    pieces.keep(part, |n, piece| {
        let is_sure = sure[n] as f64 > SURE_SHARE * piece.voxels as f64;
        // Where a network is sure of little its core is less than likely.
        likely[n] + sure[n] > 0 && (inner[n] > 0 || is_sure)
    });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{box_mask, grid};
    use crate::volume::Samples;
    use crate::volume::coarse_grid::CoarseGrid;

    /// Which are left of three pieces of an area: a face, a thin one and a thick one that lie apart from it, of these
    /// logits.
    fn left(face: f32, thin: f32, thick: f32) -> [bool; 3] {
        let geometry = grid([60, 60, 30], [1.0; 3]);
        let boxes = [
            (face, [2, 2, 4], [24, 58, 26]),
            (thin, [34, 2, 10], [38, 58, 20]),
            (thick, [46, 2, 8], [58, 58, 22]),
        ];
        let pieces = boxes.map(|(_, start, end)| box_mask(geometry.clone(), start, end));
        let cells = CoarseGrid::over(&geometry, 1.0);
        let inside = |n: usize| pieces.iter().position(|piece| piece.voxels[n] != 0);
        let logit =
            |n: usize| inside(n).map_or(-4.0, |piece| boxes[piece].0 + (n % 2) as f32 / 10.0);
        let logits = CoarseField {
            values: (0..geometry.voxel_count()).map(logit).collect(),
            grid: cells,
        };
        let image = Image {
            samples: Samples::F32(vec![500.0; geometry.voxel_count()]),
            geometry,
        };
        let core = rough_area(&image, &logits, core_level(&logits, 0.0));
        let mut part = rough_area(&image, &logits, 0.0);
        leave_unlikely(&image, &logits, &core, &mut part);
        pieces.map(|piece| {
            let kept = piece.voxels.iter().zip(&part.voxels);
            kept.filter(|(piece, kept)| **piece & **kept != 0).count() > 0
        })
    }

    #[test]
    fn pieces_apart_from_a_face_stay_where_they_are_likely_and_not_thin_or_sure() {
        assert_eq!(left(4.0, 1.0, 1.0), [true, false, false]);
        assert_eq!(left(4.0, 1.8, 1.8), [true, false, true]);
        assert_eq!(left(4.0, 3.0, 3.0), [true; 3]);
    }

    #[test]
    fn of_a_network_that_is_sure_of_little_what_it_is_surest_of_stays() {
        assert_eq!(left(1.0, 0.5, 0.5), [true, false, false]);
    }
}
