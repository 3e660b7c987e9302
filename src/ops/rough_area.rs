//! An area as a network finds it, to a few millimetres, and what lies around it.

use rayon::prelude::*;

use super::components::{Components, Connectivity};
use super::morphology::{crowded, dilate, erode};
use super::packed_mask::PackedMask;
use crate::volume::coarse_grid::CoarseField;
use crate::volume::{BoundingBox, Geometry, Image};

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

/// A rough area; masks on the image's grid, packed, as a whole body has many voxels.
pub struct Rough {
    /// The grid.
    pub geometry: Geometry,
    /// The area.
    pub area: PackedMask,
    /// What is surely altered.
    pub core: PackedMask,
    /// What may be.
    pub near: PackedMask,
    /// As dark as air by most of their surroundings: air, and what else is.
    pub dark: PackedMask,
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
        let below = PackedMask::of_image(image, |value| value < air_below);
        Self {
            geometry: image.geometry.clone(),
            area: rough_area(image, logits, threshold),
            core: rough_area(image, logits, core_level(logits, threshold)),
            near: rough_area(image, logits, unlikely.min(threshold)),
            dark: crowded_in(&below, &image.geometry, DARK_SHARE),
        }
    }

    /// Whether most dark voxels away from the area lie in a mask.
    pub fn air_around_is(&self, mask: &PackedMask) -> bool {
        let around = PackedMask::combined([&self.dark, &self.near], |[dark, near]| dark & !near);
        2 * around.count_shared(mask) > around.count()
    }

    /// Whether the core's dark voxels next to tissue lie in a mask nearly as often as all of them: a fill
    /// begins where tissue ends. What is `beside` is left out of account: another constant.
    pub fn begins_with(&self, mask: &PackedMask, beside: Option<&PackedMask>) -> bool {
        let Some(bounds) = self.core.bounds() else {
            return true;
        };
        let bounds = self.geometry.grown(&bounds, BESIDE_MM);
        let tissue = |[near, dark]: [u64; 2]| near & !dark;
        let tissue = PackedMask::combined([&self.near, &self.dark], tissue);
        let next = dilated(&tissue, &self.geometry, &bounds, BESIDE_MM);
        let wanted = |[core, dark]: [u64; 2]| core & dark;
        let all = PackedMask::combined([&self.core, &self.dark], wanted).without(beside);
        let next = PackedMask::combined([&all, &next], |[all, next]| all & next);
        let share = |wanted: &PackedMask| {
            let count = wanted.count();
            (count > 0).then(|| wanted.count_shared(mask) as f64 / count as f64)
        };
        match (share(&next), share(&all)) {
            (Some(next), Some(all)) => next >= AS_OFTEN * all,
            _ => true,
        }
    }

    /// Leaves out of an area what a scanner left empty: pieces that lie in air alone, but for the one that holds most
    /// of the core. What a tool blanks begins at the head.
    pub fn leave_air_alone(&self, area: &mut PackedMask) {
        let pieces = Components::find_packed(area, Connectivity::TwentySix);
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
        let bounds = self.geometry.grown(&bounds, NEAR_TISSUE_MM);
        let reach = self.geometry.voxels_within(NEAR_TISSUE_MM)[2];
        let near = PackedMask::of_slabs(area.shape(), &bounds, reach, |slab| {
            let mut tissue = self.dark.crop(slab, &self.geometry);
            tissue.voxels.par_iter_mut().for_each(|v| *v = 1 - *v);
            dilate(&tissue, NEAR_TISSUE_MM)
        });
        let near = pieces.count_in(&near);
        pieces.keep(area, |n, piece| {
            n == main || near[n] as f64 >= NEAR_TISSUE_SHARE * piece.voxels as f64
        });
    }

    /// Whether most of the core is dark.
    pub fn core_is_dark(&self) -> bool {
        2 * self.core.count_shared(&self.dark) > self.core.count()
    }
}

/// As [`crowded`], slab by slab.
pub(super) fn crowded_in(mask: &PackedMask, geometry: &Geometry, share: f32) -> PackedMask {
    let whole = BoundingBox::whole(geometry.shape);
    PackedMask::of_slabs(geometry.shape, &whole, 1, |slab| {
        crowded(&mask.crop(slab, geometry), share)
    })
}

/// Whether a ball of this radius fits into a mask; what is around counts, but for beyond the volume.
pub(super) fn holds_ball(mask: &PackedMask, geometry: &Geometry, radius_mm: f64) -> bool {
    mask.bounds().is_some_and(|bounds| {
        let fits = eroded(mask, geometry, &bounds, radius_mm);
        fits.bounds().is_some()
    })
}

/// Erodes what lies in a box, outside of which there is nothing, slab by slab.
pub(super) fn eroded(
    mask: &PackedMask,
    geometry: &Geometry,
    bounds: &BoundingBox,
    radius_mm: f64,
) -> PackedMask {
    // Whatever is eaten away is by what is just around.
    let bounds = bounds.grown([1; 3], geometry.shape);
    let reach = geometry.voxels_within(radius_mm)[2];
    PackedMask::of_slabs(geometry.shape, &bounds, reach, |slab| {
        erode(&mask.crop(slab, geometry), radius_mm)
    })
}

/// Dilates within a box, slab by slab; what lies beyond the box is left out of account.
pub(super) fn dilated(
    mask: &PackedMask,
    geometry: &Geometry,
    bounds: &BoundingBox,
    radius_mm: f64,
) -> PackedMask {
    let reach = geometry.voxels_within(radius_mm)[2];
    PackedMask::of_slabs(geometry.shape, bounds, reach, |slab| {
        dilate(&mask.crop(slab, geometry), radius_mm)
    })
}

/// Leaves out of what seems to be painted or blurred the pieces that were not: nothing of them is likely, or they are
/// thin and little of them is sure. `core`: of the rough area.
pub(super) fn leave_unlikely(
    image: &Image,
    logits: &CoarseField,
    core: &PackedMask,
    part: &mut PackedMask,
) {
    let Some(bounds) = part.bounds() else {
        return;
    };
    let pieces = Components::find_packed(part, Connectivity::TwentySix);
    let likely = pieces.count_in(&rough_area(image, logits, LIKELY));
    let inner = eroded(part, &image.geometry, &bounds, THIN_MM);
    let inner = pieces.count_in(&inner);
    let sure = pieces.count_in(core);
    pieces.keep(part, |n, piece| {
        let is_sure = sure[n] as f64 > SURE_SHARE * piece.voxels as f64;
        // Where a network is sure of little its core is less than likely.
        likely[n] + sure[n] > 0 && (inner[n] > 0 || is_sure)
    });
}

/// A rough area at native resolution: voxels whose logit lies above `threshold`.
pub fn rough_area(image: &Image, logits: &CoarseField, threshold: f32) -> PackedMask {
    PackedMask::of_field(logits, image.shape(), threshold)
}

/// The logit from which a voxel is the core of an area: the median of the cells above `threshold`,
/// at most [`SURE`]. A network is not sure of everything that it finds.
fn core_level(logits: &CoarseField, threshold: f32) -> f32 {
    level_of(logits, threshold, 0.5).map_or(SURE, |median| median.min(SURE))
}

/// The surest quarter of an area.
pub fn surest(image: &Image, logits: &CoarseField, threshold: f32) -> PackedMask {
    let level = level_of(logits, threshold, 0.75).unwrap_or(SURE);
    rough_area(image, logits, level)
}

/// The logit below which this share of the cells above `threshold` lies; `None` where there are none.
fn level_of(logits: &CoarseField, threshold: f32, share: f64) -> Option<f32> {
    let above = logits.values.iter().copied().filter(|&l| l > threshold);
    let mut above: Vec<f32> = above.collect();
    let n = (share * above.len() as f64) as usize;
    (n < above.len()).then(|| *above.select_nth_unstable_by(n, f32::total_cmp).1)
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
        pieces.map(|piece| part.count_shared(&PackedMask::of_mask(&piece)) > 0)
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
