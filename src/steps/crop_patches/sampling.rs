//! Where patches lie.

use super::PatchShape;
use crate::volume::{BoundingBox, Mask, Shape};

/// First voxel of a patch along i, j, k; below 0 where the scan is smaller than the patch.
pub(super) type Start = [isize; 3];

/// Starts of the patches that cover a box: as few as it takes, spread evenly, moved into the scan
/// where that is large enough.
pub(super) fn grid(bounds: &BoundingBox, patch: PatchShape, scan: Shape) -> Vec<Start> {
    let starts =
        [0, 1, 2].map(|d| line(bounds.start[d], bounds.end[d], patch.voxels()[d], scan[d]));
    let mut all = Vec::new();
    for &k in &starts[2] {
        for &j in &starts[1] {
            all.extend(starts[0].iter().map(|&i| [i, j, k]));
        }
    }
    all
}

fn line(start: usize, end: usize, patch: usize, scan: usize) -> Vec<isize> {
    let extent = end - start;
    let count = extent.div_ceil(patch);
    if count < 2 {
        return vec![inside(centred(start + end, patch), patch, scan)];
    }
    let spread = |n: usize| start + n * (extent - patch) / (count - 1);
    (0..count)
        .map(|n| inside(spread(n).cast_signed(), patch, scan))
        .collect()
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

/// Draws patches whose centres are uniform over the voxels of a mask.
pub(super) struct Draw<'a> {
    mask: &'a Mask,
    patch: PatchShape,
    /// Voxels of the mask in all rows up to and with each one.
    up_to_row: Vec<usize>,
    generator: SplitMix,
}

impl<'a> Draw<'a> {
    pub(super) fn new(mask: &'a Mask, patch: PatchShape, seed: u64) -> Self {
        let mut total = 0;
        let rows = mask.voxels.chunks(mask.shape()[0]);
        let up_to_row = rows.map(|row| {
            total += row.iter().filter(|&&v| v != 0).count();
            total
        });
        Self {
            mask,
            patch,
            up_to_row: up_to_row.collect(),
            generator: SplitMix(seed),
        }
    }

    /// The next patch; `None` when the mask is empty.
    pub(super) fn next(&mut self) -> Option<Start> {
        let total = self.up_to_row.last().copied().filter(|&n| n > 0)?;
        let chosen = self.generator.below(total);
        let centre = self.voxel(chosen)?;
        let (patch, scan) = (self.patch.voxels(), self.mask.shape());
        Some([0, 1, 2].map(|d| {
            let start = centre[d].cast_signed() - (patch[d] / 2).cast_signed();
            inside(start, patch[d], scan[d])
        }))
    }

    /// Index of the mask's voxel number `n`.
    fn voxel(&self, n: usize) -> Option<[usize; 3]> {
        let [ni, nj, _] = self.mask.shape();
        let row = self.up_to_row.partition_point(|&up_to| up_to <= n);
        let before = row.checked_sub(1).map_or(0, |above| self.up_to_row[above]);
        let voxels = self.mask.voxels[row * ni..][..ni].iter().enumerate();
        let (i, _) = voxels.filter(|(_, v)| **v != 0).nth(n - before)?;
        Some([i, row % nj, row / nj])
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
    use crate::volume::{Affine, Geometry};

    fn patch(voxels: [usize; 3]) -> PatchShape {
        PatchShape::try_from(voxels).unwrap()
    }

    #[test]
    fn a_line_is_covered_by_evenly_spread_patches() {
        assert_eq!(line(10, 90, 32, 100), [10, 34, 58]);
        assert_eq!(line(0, 96, 32, 96), [0, 32, 64]);
        assert_eq!(line(40, 50, 32, 100), [29]);
        assert_eq!(line(0, 4, 32, 100), [0]);
        assert_eq!(line(96, 100, 32, 100), [68]);
        assert_eq!(line(2, 9, 32, 20), [-6]);
        assert_eq!(line(0, 1, 2, 1), [-1]);
    }

    #[test]
    fn a_grid_covers_its_box() {
        let bounds = BoundingBox {
            start: [3, 0, 17],
            end: [50, 7, 61],
        };
        let scan = [55, 9, 64];
        let starts = grid(&bounds, patch([16, 8, 20]), scan);
        assert_eq!(starts.len(), 9);
        for d in 0..3 {
            for n in bounds.start[d]..bounds.end[d] {
                let size = [16, 8, 20][d];
                let n = n.cast_signed();
                assert!(starts.iter().any(|s| (s[d]..s[d] + size).contains(&n)));
            }
        }
    }

    #[test]
    fn the_generator_gives_the_published_numbers() {
        let mut generator = SplitMix(1_234_567);
        let wanted = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([generator.next(), generator.next()], wanted);
    }

    #[test]
    fn draws_are_uniform_over_the_mask() {
        let shape = [5, 4, 3];
        let geometry = Geometry::new(
            shape,
            Affine::from_columns(
                [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
                [0.0; 3],
            ),
        );
        let mut voxels = vec![0; 60];
        let chosen = [0, 7, 8, 31, 59];
        chosen.iter().for_each(|&n| voxels[n] = 1);
        let mask = Mask { voxels, geometry };
        let mut draw = Draw::new(&mask, patch([1, 1, 1]), 3);
        let mut drawn = [0; 60];
        for _ in 0..5000 {
            let start = draw.next().unwrap().map(|s| s.cast_unsigned());
            drawn[mask.offset(start)] += 1;
        }
        assert_eq!(drawn.iter().sum::<i32>(), 5000);
        assert!(chosen.iter().all(|&n| (900..1100).contains(&drawn[n])));
        assert_eq!(chosen.iter().map(|&n| drawn[n]).sum::<i32>(), 5000);
    }

    #[test]
    fn an_empty_mask_gives_no_patch() {
        let geometry = Geometry::new(
            [2, 2, 2],
            Affine::from_columns(
                [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
                [0.0; 3],
            ),
        );
        let mask = Mask {
            voxels: vec![0; 8],
            geometry,
        };
        assert_eq!(Draw::new(&mask, patch([1, 1, 1]), 3).next(), None);
    }
}
