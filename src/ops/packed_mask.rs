//! A mask at one bit a voxel: small enough to keep beside a scan, and quick to count in boxes.

use std::ops::Range;

use rayon::prelude::*;

use crate::volume::{BoundingBox, Shape};

/// Voxels in a word.
const WORD: usize = 64;

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
    /// Packs a mask's voxels, `i` fastest; whatever is not 0 counts as 1.
    pub fn of(voxels: &[u8], shape: Shape) -> Self {
        let mut packed = Self::empty(shape);
        let rows = packed.bits.par_chunks_mut(packed.words);
        rows.zip(voxels.par_chunks(shape[0]))
            .for_each(|(words, row)| pack(row, words));
        packed
    }

    /// Packs rows that are made one by one, each as soon as it is made. `fill` is given what `make` makes for
    /// each slice, the row's place `[j, k]` and its voxels, all of which it must set.
    pub fn of_rows<T>(
        shape: Shape,
        make: impl Fn() -> T + Sync,
        fill: impl Fn(&mut T, [usize; 2], &mut [u8]) + Sync,
    ) -> Self {
        let mut packed = Self::empty(shape);
        let words = packed.words.max(1);
        let slices = packed.bits.par_chunks_mut(words * shape[1].max(1));
        slices.enumerate().for_each(|(k, slice)| {
            let (mut work, mut row) = (make(), vec![0; shape[0]]);
            for (j, words) in slice.chunks_mut(words).enumerate() {
                fill(&mut work, [j, k], &mut row);
                pack(&row, words);
            }
        });
        packed
    }

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
        let both = self.bits.par_iter().zip(&other.bits);
        both.map(|(a, b)| (a & b).count_ones() as usize).sum()
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
        let row = run.start / self.shape[0];
        let start = row * self.shape[0];
        debug_assert!(run.end <= start + self.shape[0], "{run:?} is of two rows");
        let words = &self.bits[row * self.words..][..self.words];
        pieces(words, run.start - start..run.end - start)
            .map(ones)
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

    /// The same voxels with the axes in another order: axis `d` of the result is axis `axes[d]`, a
    /// permutation of 0, 1, 2.
    pub fn permuted(&self, axes: [usize; 3]) -> Self {
        let mut turned = Self::empty(axes.map(|axis| self.shape[axis]));
        let slice = turned.words * turned.shape[1];
        // A word along i becomes as many slices, where i comes last.
        let together = if axes[2] == 0 { WORD } else { 1 };
        let slices = turned.bits.par_chunks_mut((slice * together).max(1));
        slices.enumerate().for_each(|(n, slices)| match axes {
            [0, _, third] => self.copy_rows(third, n, slices),
            [first, ..] => self.turn_rows(first, axes[2] == 0, n, slices),
        });
        turned
    }

    /// Slice `n` along axis `third` of [`Self::permuted`], where i stays first.
    fn copy_rows(&self, third: usize, n: usize, slice: &mut [u64]) {
        let rows = slice.chunks_mut(self.words.max(1)).enumerate();
        rows.for_each(|(second, row)| {
            let [j, k] = if third == 2 { [second, n] } else { [n, second] };
            row.copy_from_slice(self.row(j, k));
        });
    }

    /// Part `n` of [`Self::permuted`], where axis `first` comes first: a slice, or where i comes last the
    /// slices that come of a word.
    fn turn_rows(&self, first: usize, i_is_last: bool, n: usize, slices: &mut [u64]) {
        let words = self.shape[first].div_ceil(WORD);
        let other = 3 - first;
        // Between two values of i, and of the other axis, in the result.
        let (places, others, step_i, step_other) = if i_is_last {
            let others = 0..self.shape[other];
            (n..n + 1, others, words * self.shape[other], words)
        } else {
            (0..self.words, n..n + 1, words, 0)
        };
        for (place, at) in places.flat_map(|place| others.clone().map(move |at| (place, at))) {
            let start = if i_is_last { 0 } else { place * WORD * step_i };
            for word in 0..words {
                let mut block = [0; WORD];
                let rows = word * WORD..((word + 1) * WORD).min(self.shape[first]);
                for (bits, row) in block.iter_mut().zip(rows) {
                    let [j, k] = if first == 1 { [row, at] } else { [at, row] };
                    *bits = self.row(j, k)[place];
                }
                transpose(&mut block);
                let out = slices[start + at * step_other + word..].iter_mut();
                out.step_by(step_i)
                    .zip(block)
                    .for_each(|(out, bits)| *out = bits);
            }
        }
    }
}

/// A row's voxels as bits.
fn pack(row: &[u8], words: &mut [u64]) {
    for (word, voxels) in words.iter_mut().zip(row.chunks(WORD)) {
        let bits = voxels.iter().enumerate();
        *word = bits.fold(0, |word, (n, &v)| word | (u64::from(v != 0) << n));
    }
}

/// Swaps the rows and columns of 64×64 bits, by halves of ever smaller blocks.
fn transpose(rows: &mut [u64; WORD]) {
    let (mut half, mut low) = (WORD / 2, u64::from(u32::MAX));
    while half > 0 {
        for n in (0..WORD).filter(|n| n & half == 0) {
            let swapped = (rows[n] >> half ^ rows[n + half]) & low;
            rows[n] ^= swapped << half;
            rows[n + half] ^= swapped;
        }
        half /= 2;
        low ^= low << half;
    }
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

    const SHAPE: Shape = [130, 3, 4];

    /// Every seventh voxel and a run across the first two words.
    fn example() -> (Vec<u8>, PackedMask) {
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
    fn slices_can_be_added_one_by_one() {
        let (voxels, packed) = example();
        let mut grown = PackedMask::empty([130, 3, 0]);
        for slices in voxels.chunks(390) {
            grown.append(&PackedMask::of(slices, [130, 3, 1]));
        }
        assert_eq!(grown, packed);
    }

    #[test]
    fn permuted_axes_only_move_voxels() {
        let orders = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        for shape in [SHAPE, [70, 130, 3], [5, 64, 129]] {
            let voxels = (0..shape.iter().product::<usize>()).map(|n| u8::from(n * n % 11 < 3));
            let voxels: Vec<u8> = voxels.collect();
            let packed = PackedMask::of(&voxels, shape);
            for axes in orders {
                let turned = packed.permuted(axes);
                assert_eq!(turned.shape(), axes.map(|axis| shape[axis]));
                assert_eq!(turned.count(), packed.count());
                for (n, &voxel) in voxels.iter().enumerate() {
                    let at = [
                        n % shape[0],
                        n / shape[0] % shape[1],
                        n / shape[0] / shape[1],
                    ];
                    let moved = axes.map(|axis| at[axis]);
                    assert_eq!(turned.contains(moved), voxel == 1, "{axes:?}");
                }
            }
        }
    }
}
