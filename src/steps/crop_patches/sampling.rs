//! Where patches lie.

use super::{Border, PatchShape, Sampling};
use crate::ops::covering;
use crate::ops::packed_mask::PackedMask;
use crate::volume::{BoundingBox, Shape};

/// First voxel of a patch along i, j, k; below 0 where the scan is smaller than the patch.
pub(super) type Start = [isize; 3];

/// Where a patch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: Start,
    /// The voxel that was drawn as its centre.
    pub(super) centre: Option<[usize; 3]>,
}

/// How often a patch with too little foreground is drawn anew.
const DRAWS: usize = 10_000;

/// What random places have to keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) patch: PatchShape,
    pub(super) border: Border,
    /// Least number of foreground voxels; never 0.
    pub(super) foreground: usize,
}

/// Places of patches of which each holds as many foreground voxels as is wished for and all together
/// hold every foreground voxel (but for those in patches with too few), in few patches.
pub(super) fn grid(foreground: &PackedMask, wish: Wish) -> Vec<Place> {
    let (patch, scan) = (wish.patch.voxels(), foreground.shape());
    let boxes = covering::cover(foreground, patch);
    let places = boxes.iter().map(|bounds| {
        let start = [0, 1, 2].map(|d| {
            let middle = centred(bounds.start[d] + bounds.end[d], patch[d]);
            inside(middle, patch[d], scan[d])
        });
        Place {
            start,
            centre: None,
        }
    });
    let enough = |place: &Place| foreground_voxels(foreground, place, patch) >= wish.foreground;
    places.filter(enough).collect()
}

/// Patches that it takes to cover a whole scan.
pub(super) fn whole_scan_count(scan: Shape, patch: PatchShape) -> usize {
    let patch = patch.voxels();
    (0..3).map(|d| scan[d].div_ceil(patch[d])).product()
}

/// Draws up to `count` places; fewer only where none with enough foreground can be found.
pub(super) fn drawn(
    foreground: &PackedMask,
    wish: Wish,
    (sampling, count, seed): (Sampling, usize, u64),
) -> Vec<Place> {
    let mut draw = Draw::new(foreground, wish, seed);
    let shape = wish.patch.voxels();
    let enough = |place: &Place| foreground_voxels(foreground, place, shape) >= wish.foreground;
    let mut next = || match sampling {
        Sampling::Anywhere => draw.anywhere(),
        _ => draw.centred(),
    };
    (0..count)
        .map_while(|_| (0..DRAWS).map_while(|_| next()).find(enough))
        .collect()
}

/// Foreground voxels of a patch.
pub(super) fn foreground_voxels(mask: &PackedMask, place: &Place, patch: Shape) -> usize {
    within(place.start, patch, mask.shape()).map_or(0, |bounds| mask.count_in(&bounds))
}

/// The part of a patch that lies in the scan.
pub(super) fn within(start: Start, patch: Shape, scan: Shape) -> Option<BoundingBox> {
    let clamped = |n: isize, d: usize| n.clamp(0, scan[d].cast_signed()).cast_unsigned();
    let bounds = BoundingBox {
        start: [0, 1, 2].map(|d| clamped(start[d], d)),
        end: [0, 1, 2].map(|d| clamped(start[d] + patch[d].cast_signed(), d)),
    };
    bounds.fits(scan).then_some(bounds)
}

/// Start of a patch round the middle of a range, whose `start + end` is given.
fn centred(sum: usize, patch: usize) -> isize {
    (sum.cast_signed() - patch.cast_signed()).div_euclid(2)
}

/// The start moved so that the patch lies in the scan; round its middle if the scan is smaller.
fn inside(start: isize, patch: usize, scan: usize) -> isize {
    if scan < patch {
        centred(scan, patch)
    } else {
        start.clamp(0, (scan - patch).cast_signed())
    }
}

/// Draws places of patches.
struct Draw<'a> {
    mask: &'a PackedMask,
    wish: Wish,
    /// Voxels of the mask in all rows up to and with each one.
    up_to_row: Vec<usize>,
    generator: SplitMix,
}

impl<'a> Draw<'a> {
    fn new(mask: &'a PackedMask, wish: Wish, seed: u64) -> Self {
        let mut up_to_row = mask.count_rows();
        let mut total = 0;
        for count in &mut up_to_row {
            total += *count;
            *count = total;
        }
        Self {
            mask,
            wish,
            up_to_row,
            generator: SplitMix(seed),
        }
    }

    /// A patch round a voxel of the mask, each as likely as the other; `None` when it has none.
    fn centred(&mut self) -> Option<Place> {
        let total = self.up_to_row.last().copied().filter(|&n| n > 0)?;
        let chosen = self.generator.below(total);
        let centre = self.voxel(chosen)?;
        let (patch, scan) = (self.wish.patch.voxels(), self.mask.shape());
        let start = [0, 1, 2].map(|d| {
            let start = centre[d].cast_signed() - (patch[d] / 2).cast_signed();
            match self.wish.border {
                Border::Shift => inside(start, patch[d], scan[d]),
                Border::Pad => start,
            }
        });
        Some(Place {
            start,
            centre: Some(centre),
        })
    }

    /// A patch in the scan, each place as likely as the other; `None` when the mask is empty.
    fn anywhere(&mut self) -> Option<Place> {
        self.up_to_row.last().filter(|&&n| n > 0)?;
        let (patch, scan) = (self.wish.patch.voxels(), self.mask.shape());
        let start = [0, 1, 2].map(|d| match scan[d].checked_sub(patch[d]) {
            Some(room) => self.generator.below(room + 1).cast_signed(),
            None => inside(0, patch[d], scan[d]),
        });
        Some(Place {
            start,
            centre: None,
        })
    }

    /// Index of the mask's voxel number `n`.
    fn voxel(&self, n: usize) -> Option<[usize; 3]> {
        let nj = self.mask.shape()[1];
        let row = self.up_to_row.partition_point(|&up_to| up_to <= n);
        let before = row.checked_sub(1).map_or(0, |above| self.up_to_row[above]);
        let (j, k) = (row % nj, row / nj);
        let i = self.mask.nth_in_row([j, k], n - before)?;
        Some([i, j, k])
    }
}

/// Random numbers that stay the same in every version and on every machine.
///
/// # Source
/// Steele, Lea and Flood, «Fast splittable pseudorandom number generators», OOPSLA 2014,
/// doi:10.1145/2660193.2660195: SplitMix64.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, but without, `end`.
    fn below(&mut self, end: usize) -> usize {
        let scaled = (u128::from(self.next()) * end as u128) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(voxels: [usize; 3], border: Border) -> Wish {
        Wish {
            patch: PatchShape::try_from(voxels).unwrap(),
            border,
            foreground: 1,
        }
    }

    fn packed(shape: Shape, chosen: &[usize]) -> PackedMask {
        let mut voxels = vec![0; shape.iter().product()];
        chosen.iter().for_each(|&n| voxels[n] = 1);
        PackedMask::of(&voxels, shape)
    }

    #[test]
    fn a_patch_stays_in_the_scan_where_that_is_large_enough() {
        assert_eq!(inside(-3, 32, 100), 0);
        assert_eq!(inside(80, 32, 100), 68);
        assert_eq!(inside(7, 32, 20), -6);
        assert_eq!(inside(0, 2, 1), -1);
        assert_eq!(centred(90, 32), 29);
    }

    #[test]
    fn the_grid_covers_the_mask_with_patches_round_its_parts() {
        // Voxels 2 and 17 of a row of 20: two patches of 4.
        let mask = packed([20, 1, 1], &[2, 17]);
        let starts: Vec<Start> = grid(&mask, wish([4, 1, 1], Border::Shift))
            .iter()
            .map(|place| place.start)
            .collect();
        assert_eq!(starts, [[0, 0, 0], [15, 0, 0]]);
        assert_eq!(
            whole_scan_count([20, 1, 1], wish([6, 1, 1], Border::Pad).patch),
            4
        );
    }

    #[test]
    fn the_generator_gives_the_published_numbers() {
        let mut generator = SplitMix(1_234_567);
        let wanted = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([generator.next(), generator.next()], wanted);
    }

    #[test]
    fn draws_are_uniform_over_the_mask() {
        let chosen = [0, 7, 8, 31, 59];
        let mask = packed([5, 4, 3], &chosen);
        for border in [Border::Shift, Border::Pad] {
            let request = (Sampling::Random, 5000, 3);
            let places = drawn(&mask, wish([1, 1, 1], border), request);
            let mut times = [0; 60];
            for place in &places {
                let [i, j, k] = place.start.map(isize::cast_unsigned);
                assert_eq!(place.centre, Some([i, j, k]));
                times[i + 5 * (j + 4 * k)] += 1;
            }
            assert_eq!(places.len(), 5000);
            assert!(chosen.iter().all(|&n| (900..1100).contains(&times[n])));
            assert_eq!(chosen.iter().map(|&n| times[n]).sum::<i32>(), 5000);
        }
    }

    #[test]
    fn only_a_shifted_patch_leaves_its_centre() {
        let mask = packed([9, 1, 1], &[1]);
        let request = (Sampling::Random, 1, 0);
        let start = |border| drawn(&mask, wish([4, 1, 1], border), request)[0].start;
        assert_eq!(start(Border::Pad), [-1, 0, 0]);
        assert_eq!(start(Border::Shift), [0, 0, 0]);
    }

    #[test]
    fn anywhere_means_every_place_with_enough_foreground() {
        // Of the starts 0 to 6, those from 2 to 5 hold both voxels in a patch of 5.
        let mask = packed([11, 1, 1], &[5, 6]);
        let both = Wish {
            foreground: 2,
            ..wish([5, 1, 1], Border::Shift)
        };
        let places = drawn(&mask, both, (Sampling::Anywhere, 4000, 9));
        let mut times = [0; 7];
        for place in places {
            times[place.start[0].cast_unsigned()] += 1;
        }
        assert_eq!((times[0], times[1], times[6]), (0, 0, 0));
        assert!(
            times[2..6].iter().all(|n| (900..1100).contains(n)),
            "{times:?}"
        );
        let too_many = Wish {
            foreground: 3,
            ..both
        };
        assert!(drawn(&mask, too_many, (Sampling::Anywhere, 4, 9)).is_empty());
    }

    #[test]
    fn an_empty_mask_gives_no_patch() {
        let mask = packed([2, 2, 2], &[]);
        for sampling in [Sampling::Random, Sampling::Anywhere] {
            let places = drawn(&mask, wish([1, 1, 1], Border::Pad), (sampling, 3, 0));
            assert!(places.is_empty());
        }
        assert!(grid(&mask, wish([1, 1, 1], Border::Pad)).is_empty());
    }
}
