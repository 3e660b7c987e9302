//! Distances between the surfaces of two masks.
//!
//! A surface is made of elements, one at each corner where eight voxels meet and are not all alike.
//! An element has the area of the surface within the cube of those eight voxels' centres, and its
//! distance is that to the closest element of the other surface [mm]. What lies outside the volume
//! is background.
//!
//! # Source
//! Nikolov et al., «Clinically applicable segmentation of head and neck anatomy for radiotherapy»,
//! J Med Internet Res 23(7), 2021, doi:10.2196/26151, and its `surface-distance` 0.1, whose figures
//! these equal.

mod area;

use rayon::prelude::*;

use super::distance::{Grid, NearestInSlice};
use crate::volume::{BoundingBox, Mask, Shape};

/// Why a distance does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undefined {
    /// Neither mask has a surface.
    #[error("both masks are empty")]
    BothEmpty,
    /// The prediction has no surface.
    #[error("the prediction is empty")]
    PredictionEmpty,
    /// The reference has no surface.
    #[error("the reference is empty")]
    ReferenceEmpty,
}

/// A piece of surface.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Element {
    /// To the closest element of the other surface [mm].
    distance_mm: f64,
    area_mm2: f64,
}

/// Distances both ways between the surfaces of two masks, closest first.
#[derive(Clone, Debug)]
pub struct SurfaceDistances {
    prediction: Vec<Element>,
    reference: Vec<Element>,
}

impl SurfaceDistances {
    /// Measures two masks on one grid, in the smallest box around both.
    pub fn between(prediction: &Mask, reference: &Mask) -> Self {
        let Some(bounds) = bounds_of_either(prediction, reference) else {
            return Self {
                prediction: Vec::new(),
                reference: Vec::new(),
            };
        };
        let spacing = prediction.geometry.spacing().mm();
        let areas = area::by_code(spacing);
        let prediction = Corners::of(prediction, bounds);
        let reference = Corners::of(reference, bounds);
        Self {
            prediction: prediction.elements(&reference, spacing, &areas),
            reference: reference.elements(&prediction, spacing, &areas),
        }
    }

    /// Hausdorff distance: the largest distance of any element, either way [mm].
    ///
    /// # Errors
    /// [`Undefined`] when a mask is empty.
    pub fn hd_mm(&self) -> Result<f64, Undefined> {
        self.robust_hd_mm(1.0)
    }

    /// The larger of the two directed 95th percentiles, by area [mm].
    ///
    /// # Errors
    /// [`Undefined`] when a mask is empty.
    pub fn hd95_mm(&self) -> Result<f64, Undefined> {
        self.robust_hd_mm(0.95)
    }

    /// Surface Dice: the share of both surfaces' area that lies within `tolerance_mm` of the other.
    /// 0 when one mask is empty.
    ///
    /// # Errors
    /// [`Undefined::BothEmpty`] when both are.
    pub fn nsd(&self, tolerance_mm: f64) -> Result<f64, Undefined> {
        if self.prediction.is_empty() && self.reference.is_empty() {
            return Err(Undefined::BothEmpty);
        }
        let close = |elements: &[Element]| -> f64 {
            let count = elements.partition_point(|element| element.distance_mm <= tolerance_mm);
            area(&elements[..count])
        };
        let both = area(&self.prediction) + area(&self.reference);
        Ok((close(&self.prediction) + close(&self.reference)) / both)
    }

    /// Average symmetric surface distance: the mean over both surfaces' area [mm].
    ///
    /// # Errors
    /// [`Undefined`] when a mask is empty.
    pub fn assd_mm(&self) -> Result<f64, Undefined> {
        self.check()?;
        let weighted = |elements: &[Element]| -> f64 {
            elements.iter().map(|e| e.distance_mm * e.area_mm2).sum()
        };
        let both = area(&self.prediction) + area(&self.reference);
        Ok((weighted(&self.prediction) + weighted(&self.reference)) / both)
    }

    fn robust_hd_mm(&self, share: f64) -> Result<f64, Undefined> {
        self.check()?;
        Ok(percentile_mm(&self.prediction, share).max(percentile_mm(&self.reference, share)))
    }

    fn check(&self) -> Result<(), Undefined> {
        match (self.prediction.is_empty(), self.reference.is_empty()) {
            (true, true) => Err(Undefined::BothEmpty),
            (true, false) => Err(Undefined::PredictionEmpty),
            (false, true) => Err(Undefined::ReferenceEmpty),
            (false, false) => Ok(()),
        }
    }
}

fn area(elements: &[Element]) -> f64 {
    elements.iter().map(|element| element.area_mm2).sum()
}

/// The distance below or at which at least `share` of the area lies.
fn percentile_mm(elements: &[Element], share: f64) -> f64 {
    let total = area(elements);
    let mut sum = 0.0;
    let reached = elements.iter().find(|element| {
        sum += element.area_mm2;
        share < 1.0 && sum / total >= share
    });
    reached
        .or(elements.last())
        .map_or(0.0, |element| element.distance_mm)
}

/// The smallest box around the voxels of either mask.
fn bounds_of_either(a: &Mask, b: &Mask) -> Option<BoundingBox> {
    let [width, height, _] = a.geometry.shape;
    let rows = a
        .voxels
        .par_chunks(width)
        .zip(b.voxels.par_chunks(width))
        .enumerate();
    let boxes = rows.with_min_len(64).filter_map(|(n, (a, b))| {
        let mut pairs = a.iter().zip(b);
        let start = pairs.position(|(a, b)| a | b != 0)?;
        let end = start
            + 1
            + pairs
                .rposition(|(a, b)| a | b != 0)
                .map_or(0, |last| last + 1);
        let (j, k) = (n % height, n / height);
        Some(BoundingBox {
            start: [start, j, k],
            end: [end, j + 1, k + 1],
        })
    });
    boxes.reduce_with(|a, b| BoundingBox {
        start: [0, 1, 2].map(|d| a.start[d].min(b.start[d])),
        end: [0, 1, 2].map(|d| a.end[d].max(b.end[d])),
    })
}

/// The corners of a box of voxels: one more than voxels along each axis.
struct Corners {
    shape: Shape,
    /// Which of the eight voxels around each corner belong to the mask; see [`area::by_code`].
    codes: Vec<u8>,
}

impl Corners {
    fn of(mask: &Mask, bounds: BoundingBox) -> Self {
        let shape = [0, 1, 2].map(|d| bounds.end[d] - bounds.start[d] + 1);
        let mut codes = vec![0; shape.iter().product()];
        let slices = codes.par_chunks_mut(shape[0] * shape[1]).enumerate();
        slices.for_each(|(z, slice)| {
            for (y, row) in slice.chunks_mut(shape[0]).enumerate() {
                add_codes(mask, bounds, [y, z], row);
            }
        });
        Self { shape, codes }
    }

    fn elements(&self, other: &Self, spacing: [f64; 3], areas: &[f64; 256]) -> Vec<Element> {
        if !self.codes.iter().any(|&code| area::is_surface(code))
            || !other.codes.iter().any(|&code| area::is_surface(code))
        {
            // Without a surface there are no distances; all that is left to say is how large this is.
            let codes = self.codes.iter().filter(|code| area::is_surface(**code));
            let element = |code: &u8| Element {
                distance_mm: f64::INFINITY,
                area_mm2: areas[usize::from(*code)],
            };
            return codes.map(element).collect();
        }
        let grid = Grid {
            shape: self.shape,
            spacing,
            highest_mm2: f64::INFINITY,
        };
        let nearest = NearestInSlice::new(&other.codes, grid, area::is_surface);
        let distances = nearest.distances_from(&self.codes, area::is_surface);
        let elements = distances.into_iter().map(|(distance_mm, code)| Element {
            distance_mm,
            area_mm2: areas[usize::from(code)],
        });
        let mut elements: Vec<Element> = elements.collect();
        elements.par_sort_by(|a, b| a.distance_mm.total_cmp(&b.distance_mm));
        elements
    }
}

/// Codes of one row of corners, from the four rows of voxels around it.
fn add_codes(mask: &Mask, bounds: BoundingBox, [y, z]: [usize; 2], codes: &mut [u8]) {
    for (before_k, before_j) in [(true, true), (true, false), (false, true), (false, false)] {
        let place = |corner: usize, before: bool, axis: usize| {
            let voxel = bounds.start[axis] + corner;
            let voxel = if before { voxel.checked_sub(1)? } else { voxel };
            (bounds.start[axis]..bounds.end[axis])
                .contains(&voxel)
                .then_some(voxel)
        };
        let (Some(j), Some(k)) = (place(y, before_j, 1), place(z, before_k, 2)) else {
            continue;
        };
        let start = mask.offset([bounds.start[0], j, k]);
        let voxels = &mask.voxels[start..start + codes.len() - 1];
        let before = area::bit([true, before_j, before_k]);
        let after = area::bit([false, before_j, before_k]);
        for (n, &voxel) in voxels.iter().enumerate() {
            codes[n] |= voxel * after;
            codes[n + 1] |= voxel * before;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::phantom::{box_mask, grid, mask, oblique_grid};

    fn assert_close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-9,
            "{found}, expected {expected}"
        );
    }

    #[test]
    fn a_mask_lies_at_no_distance_from_itself() {
        let solid = box_mask(
            oblique_grid([9, 8, 7], [0.7, 1.3, 2.9]),
            [0, 2, 2],
            [9, 5, 6],
        );
        let distances = SurfaceDistances::between(&solid, &solid);
        assert_eq!(distances.hd_mm(), Ok(0.0));
        assert_eq!(distances.hd95_mm(), Ok(0.0));
        assert_eq!(distances.assd_mm(), Ok(0.0));
        assert_eq!(distances.nsd(0.0), Ok(1.0));
    }

    #[test]
    fn two_single_voxels_are_measured_corner_to_corner() {
        // Of the 8 corners of each, 4 lie 2 voxels of 2.5 mm from the other's and 4 lie 3.
        let geometry = oblique_grid([6, 3, 3], [2.5, 1.0, 0.8]);
        let one = box_mask(geometry.clone(), [1, 1, 1], [2, 2, 2]);
        let other = box_mask(geometry, [4, 1, 1], [5, 2, 2]);
        let distances = SurfaceDistances::between(&one, &other);
        assert_close(distances.hd_mm().unwrap(), 7.5);
        assert_close(distances.hd95_mm().unwrap(), 7.5);
        assert_close(distances.assd_mm().unwrap(), 6.25);
        assert_close(distances.nsd(4.9).unwrap(), 0.0);
        assert_close(distances.nsd(5.0).unwrap(), 0.5);
        assert_close(distances.nsd(7.5).unwrap(), 1.0);
    }

    #[test]
    fn a_small_bump_counts_for_hd_but_not_for_hd95() {
        // Seen from above, a plate and the same plate with a rod of 4 voxels on it.
        let geometry = grid([30, 30, 8], [1.0, 1.0, 2.0]);
        let plate = box_mask(geometry.clone(), [0, 0, 0], [30, 30, 3]);
        let rod = box_mask(geometry, [15, 15, 3], [16, 16, 7]);
        let mut bumpy = plate.clone();
        bumpy
            .voxels
            .iter_mut()
            .zip(&rod.voxels)
            .for_each(|(a, b)| *a |= b);
        let distances = SurfaceDistances::between(&bumpy, &plate);
        assert_close(distances.hd_mm().unwrap(), 8.0);
        assert_close(distances.hd95_mm().unwrap(), 0.0);
    }

    #[test]
    fn an_empty_mask_has_no_distances_and_says_which_it_is() {
        let geometry = grid([4, 4, 4], [1.0; 3]);
        let empty = mask(geometry.clone(), |_| false);
        let solid = box_mask(geometry, [1, 1, 1], [3, 3, 3]);
        let between = SurfaceDistances::between;
        assert_eq!(
            between(&empty, &solid).hd95_mm(),
            Err(Undefined::PredictionEmpty)
        );
        assert_eq!(
            between(&solid, &empty).assd_mm(),
            Err(Undefined::ReferenceEmpty)
        );
        assert_eq!(between(&empty, &empty).hd_mm(), Err(Undefined::BothEmpty));
        assert_eq!(between(&empty, &empty).nsd(1.0), Err(Undefined::BothEmpty));
        assert_eq!(between(&solid, &empty).nsd(1.0), Ok(0.0));
        assert_eq!(Undefined::BothEmpty.to_string(), "both masks are empty");
    }

    /// A mask of random small boxes.
    fn blobs(seed: u64) -> Mask {
        let geometry = oblique_grid([14, 11, 9], [0.7, 1.3, 2.9]);
        let mut state = seed;
        let mut below = |limit: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % limit
        };
        let boxes: Vec<[[usize; 2]; 3]> = (0..6)
            .map(|_| [14, 11, 9].map(|n| [below(n), 1 + below(5)]))
            .collect();
        mask(geometry, |index| {
            let holds = |b: &[[usize; 2]; 3]| {
                (0..3).all(|d| (b[d][0]..b[d][0] + b[d][1]).contains(&index[d]))
            };
            boxes.iter().any(holds)
        })
    }

    proptest! {
        #[test]
        fn distances_keep_their_laws(a in 0_u64..500, b in 500_u64..1000) {
            let (a, b) = (blobs(a), blobs(b));
            let distances = SurfaceDistances::between(&a, &b);
            let back = SurfaceDistances::between(&b, &a);
            let hd95 = distances.hd95_mm().unwrap();
            prop_assert!(hd95 <= distances.hd_mm().unwrap());
            prop_assert_eq!(hd95, back.hd95_mm().unwrap());
            let mut last = 0.0;
            for tolerance_mm in [0.0, 0.5, 1.0, 2.0, 4.0, 100.0] {
                let nsd = distances.nsd(tolerance_mm).unwrap();
                prop_assert!(nsd >= last && nsd <= 1.0 + 1e-12);
                prop_assert!((nsd - back.nsd(tolerance_mm).unwrap()).abs() < 1e-12);
                last = nsd;
            }
            prop_assert!((last - 1.0).abs() < 1e-12);
        }
    }
}
