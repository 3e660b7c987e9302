//! A packed mask with its axes in another order: 64×64 bits are turned at once.

use rayon::prelude::*;

use super::{PackedMask, WORD};

impl PackedMask {
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

#[cfg(test)]
mod tests {
    use super::super::tests::SHAPE;
    use super::*;
    use crate::volume::orientation::AXIS_ORDERS;

    #[test]
    fn permuted_axes_only_move_voxels() {
        for shape in [SHAPE, [70, 130, 3], [5, 64, 129]] {
            let voxels = (0..shape.iter().product::<usize>()).map(|n| u8::from(n * n % 11 < 3));
            let voxels: Vec<u8> = voxels.collect();
            let packed = PackedMask::of(&voxels, shape);
            for axes in AXIS_ORDERS {
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
