//! A mask at one bit a voxel: small enough to keep beside a scan, and quick to count in boxes.

mod bytes;
mod turned;

use std::ops::Range;

use rayon::prelude::*;

use crate::volume::{BoundingBox, Shape};

/// Voxels in a word.
pub(super) const WORD: usize = 64;

/// 0 or 1 for every voxel of a grid, packed along i.
///
/// Each row starts a new word; the bits behind a row's end are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedMask {
    shape: Shape,
    /// Words in a row.
    words: usize,
    bits: Vec<u64>,
}

impl PackedMask {
    /// A mask of zeros.
    pub fn empty(shape: Shape) -> Self {
        let words = shape[0].div_ceil(WORD);
        Self {
            shape,
            words,
            bits: vec![0; words * shape[1] * shape[2]],
        }
    }

    /// A mask of ones.
    pub fn full(shape: Shape) -> Self {
        let mut packed = Self::empty(shape);
        packed.fill(&BoundingBox::whole(shape));
        packed
    }

    /// Adds the slices of another mask of the same shape across k behind the last.
    pub fn append(&mut self, slices: &Self) {
        self.bits.extend_from_slice(&slices.bits);
        self.shape[2] += slices.shape[2];
    }

    /// Voxels along i, j, k.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether a voxel is 1.
    pub fn contains(&self, [i, j, k]: [usize; 3]) -> bool {
        self.row(j, k)[i / WORD] >> (i % WORD) & 1 == 1
    }

    /// Number of voxels that are 1.
    pub fn count(&self) -> usize {
        self.bits.par_iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Number of voxels that are 1 here and there, on the same grid.
    pub fn count_shared(&self, other: &Self) -> usize {
        Self::count_of([self, other], |[here, there]| here & there)
    }

    /// Number of voxels that are 1 in what `bits` makes of masks on the same grid, 64 voxels of each at a
    /// time; of voxels that are 0 in all of them it must make 0.
    pub fn count_of<const N: usize>(
        masks: [&Self; N],
        bits: impl Fn([u64; N]) -> u64 + Sync,
    ) -> usize {
        let words = words_of_all(masks, &bits);
        words
            .map(|n| ones(bits(masks.map(|mask| mask.bits[n]))))
            .sum()
    }

    /// Takes out what lies in another mask, if there is one.
    pub fn without(self, other: Option<&Self>) -> Self {
        match other {
            Some(other) => Self::combined([&self, other], |[all, other]| all & !other),
            None => self,
        }
    }

    /// What `bits` makes of masks on the same grid, as [`Self::count_of`].
    pub fn combined<const N: usize>(
        masks: [&Self; N],
        bits: impl Fn([u64; N]) -> u64 + Sync,
    ) -> Self {
        let words = words_of_all(masks, &bits);
        Self {
            shape: masks[0].shape,
            words: masks[0].words,
            bits: words
                .map(|n| bits(masks.map(|mask| mask.bits[n])))
                .collect(),
        }
    }

    /// Adds to the voxels that are 1 those next to them, by a face, an edge or a corner.
    pub fn with_neighbours(&self) -> Self {
        let mut grown = Self::empty(self.shape);
        let [ni, nj, nk] = self.shape;
        let window = |n: usize, length: usize| n.saturating_sub(1)..(n + 2).min(length);
        let slices = grown.bits.par_chunks_mut((self.words * nj).max(1));
        slices.enumerate().for_each(|(k, slice)| {
            let mut around = vec![0_u64; self.words];
            for (j, words) in slice.chunks_mut(self.words.max(1)).enumerate() {
                around.fill(0);
                for (j, k) in window(k, nk).flat_map(|k| window(j, nj).map(move |j| (j, k))) {
                    let row = around.iter_mut().zip(self.row(j, k));
                    row.for_each(|(around, here)| *around |= here);
                }
                for (n, word) in words.iter_mut().enumerate() {
                    let before = n.checked_sub(1).map_or(0, |n| around[n] >> (WORD - 1));
                    let behind = around.get(n + 1).map_or(0, |next| next << (WORD - 1));
                    let here = around[n];
                    *word = (here | here << 1 | here >> 1 | before | behind) & within(n, &(0..ni));
                }
            }
        });
        grown
    }

    /// Number of voxels of a box that are 1.
    pub fn count_in(&self, bounds: &BoundingBox) -> usize {
        let rows = rows(bounds).map(|(j, k)| self.row(j, k));
        let along = bounds.start[0]..bounds.end[0];
        rows.map(|row| pieces(row, along.clone()).map(ones).sum::<usize>())
            .sum()
    }

    /// Number of voxels that are 1 among some of one row, by their places in a mask of bytes.
    pub fn count_run(&self, run: Range<usize>) -> usize {
        let words = self.words_of(&run);
        words
            .map(|(place, bits)| ones(self.bits[place] & bits))
            .sum()
    }

    /// Number of voxels that are 1 in each row, `j` fastest.
    pub fn count_rows(&self) -> Vec<usize> {
        let rows = self.bits.par_chunks(self.words.max(1));
        rows.map(|row| row.iter().copied().map(ones).sum())
            .collect()
    }

    /// Where the `n`-th 1 of row `(j, k)` lies along i, counted from 0.
    pub fn nth_in_row(&self, [j, k]: [usize; 2], mut n: usize) -> Option<usize> {
        for (place, &word) in self.row(j, k).iter().enumerate() {
            if n < ones(word) {
                let rest = (0..n).fold(word, |word, _| word & (word - 1));
                return Some(place * WORD + rest.trailing_zeros() as usize);
            }
            n -= ones(word);
        }
        None
    }

    /// The smallest box round every 1 within `bounds`; `None` when there is none.
    pub fn bounds_in(&self, bounds: &BoundingBox) -> Option<BoundingBox> {
        let mut found: Option<BoundingBox> = None;
        for (j, k) in rows(bounds) {
            let mut first_and_last = None;
            let along = bounds.start[0]..bounds.end[0];
            let words = pieces(self.row(j, k), along.clone());
            for (word, place) in words.zip(along.start / WORD..) {
                if word != 0 {
                    let first = place * WORD + word.trailing_zeros() as usize;
                    let last = place * WORD + WORD - 1 - word.leading_zeros() as usize;
                    let first = first_and_last.map_or(first, |(first, _)| first);
                    first_and_last = Some((first, last));
                }
            }
            if let Some((first, last)) = first_and_last {
                let here = BoundingBox {
                    start: [first, j, k],
                    end: [last + 1, j + 1, k + 1],
                };
                found = Some(found.map_or(here, |grown| grown.union(&here)));
            }
        }
        found
    }

    /// The smallest box round every 1; `None` when there is none.
    pub fn bounds(&self) -> Option<BoundingBox> {
        self.bounds_in(&BoundingBox::whole(self.shape))
    }

    /// The places of all voxels that are 1 in a mask of bytes, in order.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.bits.iter().enumerate().filter(|(_, bits)| **bits != 0);
        words.flat_map(|(n, &bits)| {
            let first = n / self.words * self.shape[0] + n % self.words * WORD;
            let set = (0..WORD).filter(move |bit| bits >> bit & 1 == 1);
            set.map(move |bit| first + bit)
        })
    }

    /// Sets some voxels of one row, by their places in a mask of bytes, to 0.
    pub fn clear_run(&mut self, run: Range<usize>) {
        for (place, bits) in self.words_of(&run) {
            self.bits[place] &= !bits;
        }
    }

    /// Sets them to 1.
    pub fn fill_run(&mut self, run: Range<usize>) {
        for (place, bits) in self.words_of(&run) {
            self.bits[place] |= bits;
        }
    }

    /// Adds those that are 1 in another mask on the same grid.
    pub fn add_run(&mut self, other: &Self, run: Range<usize>) {
        for (place, bits) in self.words_of(&run) {
            self.bits[place] |= other.bits[place] & bits;
        }
    }

    /// The words in which a run's voxels lie, and their bits.
    fn words_of(&self, run: &Range<usize>) -> impl Iterator<Item = (usize, u64)> + use<> {
        let row = run.start / self.shape[0];
        let start = row * self.shape[0];
        debug_assert!(run.end <= start + self.shape[0], "{run:?} is of two rows");
        let (words, along) = (row * self.words, run.start - start..run.end - start);
        let places = along.start / WORD..along.end.div_ceil(WORD);
        places.map(move |place| (words + place, within(place, &along)))
    }

    /// Sets every voxel of a box to 1.
    pub fn fill(&mut self, bounds: &BoundingBox) {
        for (j, k) in rows(bounds) {
            let start = (j + self.shape[1] * k) * self.words;
            let along = bounds.start[0]..bounds.end[0];
            for place in along.start / WORD..along.end.div_ceil(WORD) {
                self.bits[start + place] |= within(place, &along);
            }
        }
    }

    /// Bits of row `(j, k)`, the first voxel in the lowest bit of the first word.
    pub fn row(&self, j: usize, k: usize) -> &[u64] {
        &self.bits[(j + self.shape[1] * k) * self.words..][..self.words]
    }
}

/// The places of the words of masks that are looked at together.
fn words_of_all<const N: usize>(
    masks: [&PackedMask; N],
    bits: impl Fn([u64; N]) -> u64,
) -> rayon::range::Iter<usize> {
    debug_assert!(masks.iter().all(|mask| mask.shape == masks[0].shape));
    debug_assert_eq!(bits([0; N]), 0, "behind the ends of rows there is nothing");
    (0..masks[0].bits.len()).into_par_iter()
}

/// Bits of a word.
fn ones(word: u64) -> usize {
    word.count_ones() as usize
}

/// The rows `(j, k)` of a box.
fn rows(bounds: &BoundingBox) -> impl Iterator<Item = (usize, usize)> + use<> {
    let [j, k] = [1, 2].map(|d| bounds.start[d]..bounds.end[d]);
    k.flat_map(move |k| j.clone().map(move |j| (j, k)))
}

/// The words of a row that hold a part of `along`, without the bits outside it.
fn pieces(row: &[u64], along: Range<usize>) -> impl Iterator<Item = u64> + '_ {
    let places = along.start / WORD..along.end.div_ceil(WORD);
    places.map(move |place| row[place] & within(place, &along))
}

/// The bits of word `place` of a row that lie in `along`.
fn within(place: usize, along: &Range<usize>) -> u64 {
    let start = along.start.saturating_sub(place * WORD).min(WORD);
    let end = along.end.saturating_sub(place * WORD).min(WORD);
    if start >= end {
        return 0;
    }
    (u64::MAX << start) & (u64::MAX >> (WORD - end))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const SHAPE: Shape = [130, 3, 4];

    /// Every seventh voxel and a run across the first two words.
    pub(super) fn example() -> (Vec<u8>, PackedMask) {
        let voxels: Vec<u8> = (0..130 * 12)
            .map(|n| u8::from(n % 7 == 0 || (60..70).contains(&n)))
            .collect();
        let packed = PackedMask::of(&voxels, SHAPE);
        (voxels, packed)
    }

    fn indices() -> impl Iterator<Item = (usize, [usize; 3])> {
        (0..130 * 12).map(|n| (n, [n % 130, n / 130 % 3, n / 390]))
    }

    fn bounds(start: [usize; 3], end: [usize; 3]) -> BoundingBox {
        BoundingBox { start, end }
    }

    #[test]
    fn a_packed_mask_holds_the_same_voxels() {
        let (voxels, packed) = example();
        assert!(indices().all(|(n, at)| packed.contains(at) == (voxels[n] == 1)));
        assert_eq!(packed.count(), voxels.iter().filter(|&&v| v == 1).count());
        let (j, k) = (2, 3);
        let row = &voxels[130 * (j + 3 * k)..][..130];
        let set: Vec<usize> = (0..130).filter(|&i| row[i] == 1).collect();
        for (n, &i) in set.iter().enumerate() {
            assert_eq!(packed.nth_in_row([j, k], n), Some(i));
        }
        assert_eq!(packed.nth_in_row([j, k], set.len()), None);
        assert_eq!(packed.count_rows()[j + 3 * k], set.len());
        let fill = |_: &mut (), [j, k]: [usize; 2], out: &mut [u8]| {
            out.copy_from_slice(&voxels[130 * (j + 3 * k)..][..130]);
        };
        assert_eq!(PackedMask::of_rows(SHAPE, || (), fill), packed);
        let start = 130 * (j + 3 * k);
        for run in [
            start..start + 130,
            start + 60..start + 71,
            start + 5..start + 5,
        ] {
            let ones = voxels[run.clone()].iter().filter(|v| **v == 1).count();
            assert_eq!(packed.count_run(run), ones);
        }
    }

    #[test]
    fn boxes_are_counted_and_bounded_as_voxel_by_voxel() {
        let (voxels, packed) = example();
        for bounds in [
            bounds([0, 0, 0], SHAPE),
            bounds([61, 0, 0], [66, 2, 1]),
            bounds([64, 1, 1], [128, 3, 3]),
            bounds([1, 0, 0], [2, 1, 1]),
            bounds([127, 2, 3], [130, 3, 4]),
        ] {
            let inside = indices().filter(|(n, at)| bounds.contains(*at) && voxels[*n] == 1);
            let inside: Vec<[usize; 3]> = inside.map(|(_, at)| at).collect();
            assert_eq!(packed.count_in(&bounds), inside.len(), "{bounds:?}");
            let around = inside.iter().fold(None, |grown: Option<BoundingBox>, &at| {
                let here = BoundingBox {
                    start: at,
                    end: at.map(|n| n + 1),
                };
                Some(grown.map_or(here, |grown| grown.union(&here)))
            });
            assert_eq!(packed.bounds_in(&bounds), around, "{bounds:?}");
        }
    }

    #[test]
    fn filling_sets_a_box_and_nothing_else() {
        let filled = bounds([63, 1, 0], [129, 2, 3]);
        let mut packed = PackedMask::empty(SHAPE);
        packed.fill(&filled);
        assert!(indices().all(|(_, at)| packed.contains(at) == filled.contains(at)));
        assert_eq!(PackedMask::full(SHAPE).count(), 130 * 12);
        let (_, other) = example();
        assert_eq!(packed.count_shared(&other), other.count_in(&filled));
    }

    #[test]
    fn masks_are_combined_voxel_by_voxel() {
        let (voxels, packed) = example();
        let mut other = PackedMask::empty(SHAPE);
        other.fill(&bounds([63, 1, 0], [129, 2, 3]));
        let without = PackedMask::combined([&packed, &other], |[a, b]| a & !b);
        let expected = |n: usize, at| voxels[n] == 1 && !other.contains(at);
        assert!(indices().all(|(n, at)| without.contains(at) == expected(n, at)));
        let both = PackedMask::count_of([&packed, &other], |[a, b]| a & b);
        assert_eq!(without.count() + both, packed.count());
        assert_eq!(other.bounds(), Some(bounds([63, 1, 0], [129, 2, 3])));
        assert_eq!(PackedMask::empty(SHAPE).bounds(), None);
    }

    #[test]
    fn runs_are_filled_and_added_and_places_are_those_of_bytes() {
        let (voxels, packed) = example();
        let mut grown = PackedMask::empty(SHAPE);
        for run in [130..260, 60..71, 389..390, 5..5] {
            grown.add_run(&packed, run);
        }
        let inside = |n: usize| (130..260).contains(&n) || (60..71).contains(&n) || n == 389;
        let expected = (0..voxels.len()).filter(|&n| inside(n) && voxels[n] == 1);
        assert!(grown.places().eq(expected));
        grown.fill_run(60..71);
        assert_eq!(grown.count_run(0..130), 11);
        assert!(
            packed
                .places()
                .eq((0..voxels.len()).filter(|&n| voxels[n] == 1))
        );
        let left = packed.clone().without(Some(&grown));
        assert_eq!(left.count() + packed.count_shared(&grown), packed.count());
        assert_eq!(packed.clone().without(None), packed);
    }

    #[test]
    fn a_run_is_cleared_and_nothing_else() {
        let mut packed = PackedMask::full(SHAPE);
        for run in [130..260, 60..71, 389..390, 5..5] {
            let before = packed.count();
            packed.clear_run(run.clone());
            assert_eq!(packed.count(), before - run.len());
            assert_eq!(packed.count_run(run), 0);
        }
    }

    #[test]
    fn neighbours_are_added_on_all_sides_and_none_beyond_the_edge() {
        for at in [[63, 1, 2], [64, 0, 0], [129, 2, 3], [0, 1, 1], [20, 1, 3]] {
            let mut packed = PackedMask::empty(SHAPE);
            let one = bounds(at, at.map(|n| n + 1));
            packed.fill(&one);
            let mut expected = PackedMask::empty(SHAPE);
            expected.fill(&one.grown([1; 3], SHAPE));
            assert_eq!(packed.with_neighbours(), expected, "{at:?}");
        }
    }

    #[test]
    fn slices_can_be_added_one_by_one() {
        let (voxels, packed) = example();
        let mut grown = PackedMask::empty([130, 3, 0]);
        for slices in voxels.chunks(390) {
            grown.append(&PackedMask::of(slices, [130, 3, 1]));
        }
        assert_eq!(grown, packed);
    }
}
