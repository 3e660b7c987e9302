//! Between a byte and a bit a voxel.

use rayon::current_num_threads;
use rayon::prelude::*;

use super::{PackedMask, WORD};
use crate::volume::coarse_grid::CoarseField;
use crate::volume::{BoundingBox, Geometry, Image, Mask, Shape};

/// Voxels of a slab that is made as bytes before it is packed, unless its margins or the threads ask for more; few in
/// tests, so that what is done slab by slab is.
const SLAB: usize = if cfg!(test) { 1 << 12 } else { 8 << 20 };

/// A slab has so many slices for each slice of margin on one side, which is made twice.
const SLICES_PER_MARGIN: usize = 4;

/// And so many for each thread, which takes a slice at a time.
const SLICES_PER_THREAD: usize = 4;

impl PackedMask {
    /// Packs a mask's voxels, `i` fastest; whatever is not 0 counts as 1.
    pub fn of(voxels: &[u8], shape: Shape) -> Self {
        let mut packed = Self::empty(shape);
        let rows = packed.bits.par_chunks_mut(packed.words);
        rows.zip(voxels.par_chunks(shape[0]))
            .for_each(|(words, row)| pack(row, words));
        packed
    }

    /// Packs a mask.
    pub fn of_mask(mask: &Mask) -> Self {
        Self::of(&mask.voxels, mask.geometry.shape)
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

    /// Voxels whose value is one that is wanted.
    pub fn of_image(image: &Image, wanted: impl Fn(f32) -> bool + Sync) -> Self {
        let [ni, nj, _] = image.shape();
        let make = || vec![0.0; ni];
        Self::of_rows(image.shape(), make, |values, [j, k], row| {
            image.samples.read_run(ni * (j + nj * k), values);
            let voxels = row.iter_mut().zip(values);
            voxels.for_each(|(voxel, v)| *voxel = u8::from(wanted(*v)));
        })
    }

    /// Voxels at which a field's linear interpolation lies above a level. `shape`: of the volume below.
    pub fn of_field(field: &CoarseField, shape: Shape, level: f32) -> Self {
        let (rows, along_i) = (field.rows(), field.grid.between(0));
        let make = || vec![0.0; field.grid.shape[0]];
        Self::of_rows(shape, make, |cells, [j, k], row| {
            rows.read(j, k, cells);
            if level == 0.0 {
                along_i.above_zero(cells, row);
            } else {
                along_i.map(cells, row, |value| u8::from(value > level));
            }
        })
    }

    /// Packs what is made of a box slab by slab of slices across k; 0 elsewhere. `make` is given the place of a slab
    /// that reaches `around` slices further on either side, as far as the box goes, and makes all of that.
    pub fn of_slabs(
        shape: Shape,
        bounds: &BoundingBox,
        around: usize,
        make: impl Fn(&BoundingBox) -> Mask,
    ) -> Self {
        let mut packed = Self::empty(shape);
        for (slab, place) in slabs(bounds, around) {
            let made = make(&slab);
            let first = slab.shape()[0] * slab.shape()[1] * (place.start[2] - slab.start[2]);
            packed.put(&made.voxels[first..][..place.voxel_count()], &place);
        }
        packed
    }

    /// The voxels of a box, a byte each. `geometry`: of the whole.
    pub fn crop(&self, bounds: &BoundingBox, geometry: &Geometry) -> Mask {
        let [ni, nj, _] = bounds.shape();
        let mut voxels = vec![0; bounds.voxel_count()];
        let slices = voxels.par_chunks_mut((ni * nj).max(1)).enumerate();
        slices.for_each(|(k, slice)| {
            for (j, row) in slice.chunks_mut(ni.max(1)).enumerate() {
                let words = self.row(bounds.start[1] + j, bounds.start[2] + k);
                unpack(words, bounds.start[0], row);
            }
        });
        Mask {
            voxels,
            geometry: geometry.crop(bounds),
        }
    }

    /// All voxels, a byte each.
    pub fn unpacked(&self, geometry: &Geometry) -> Mask {
        self.crop(&BoundingBox::whole(self.shape), geometry)
    }

    /// Puts the voxels of `piece`, which must fit, where its voxel `[0, 0, 0]` is this mask's voxel `start`.
    pub fn paste(&mut self, piece: &Mask, start: [usize; 3]) {
        let shape = piece.geometry.shape;
        let end = [0, 1, 2].map(|axis| start[axis] + shape[axis]);
        self.put(&piece.voxels, &BoundingBox { start, end });
    }

    /// Puts the voxels of a box, `i` fastest.
    fn put(&mut self, voxels: &[u8], bounds: &BoundingBox) {
        let [ni, nj, nk] = bounds.shape();
        let slices = self
            .bits
            .par_chunks_mut((self.words * self.shape[1]).max(1));
        let slices = slices.skip(bounds.start[2]).take(nk);
        let pieces = voxels.par_chunks((ni * nj).max(1));
        slices.zip(pieces).for_each(|(slice, piece)| {
            let mut row = vec![0; self.shape[0]];
            let rows = slice.chunks_mut(self.words.max(1)).skip(bounds.start[1]);
            for (words, voxels) in rows.zip(piece.chunks(ni.max(1))) {
                // What lies beside the box in its words stays.
                if ni < self.shape[0] {
                    unpack(words, 0, &mut row);
                }
                row[bounds.start[0]..bounds.end[0]].copy_from_slice(voxels);
                pack(&row, words);
            }
        });
    }
}

/// Slabs of slices across k that a box is looked at in, one after the other: each with `around` slices more on either
/// side, as far as the box goes, and without.
fn slabs(bounds: &BoundingBox, around: usize) -> impl Iterator<Item = (BoundingBox, BoundingBox)> {
    let [ni, nj, _] = bounds.shape();
    let least = (SLICES_PER_MARGIN * around).max(SLICES_PER_THREAD * current_num_threads());
    let slices = (SLAB / (ni * nj).max(1)).max(least).max(1);
    let (bounds, [first, last]) = (*bounds, [bounds.start[2], bounds.end[2]]);
    (first..last).step_by(slices).map(move |start| {
        let end = (start + slices).min(last);
        let across = |start: usize, end: usize| BoundingBox {
            start: [bounds.start[0], bounds.start[1], start],
            end: [bounds.end[0], bounds.end[1], end],
        };
        let wider = [
            start.saturating_sub(around).max(first),
            (end + around).min(last),
        ];
        (across(wider[0], wider[1]), across(start, end))
    })
}

/// A row's voxels as bits.
fn pack(row: &[u8], words: &mut [u64]) {
    for (word, voxels) in words.iter_mut().zip(row.chunks(WORD)) {
        let (eights, rest) = voxels.as_chunks::<8>();
        let bits = eights.iter().map(|eight| bits_of(*eight));
        let rest = rest.iter().enumerate();
        let rest = rest.fold(0, |bits, (n, &v)| bits | (u64::from(v != 0) << n));
        let bits = bits.chain([rest]).enumerate();
        *word = bits.fold(0, |word, (n, bits)| word | bits.unbounded_shl(8 * n as u32));
    }
}

/// Bits of a row from voxel `start` on as voxels.
fn unpack(words: &[u64], start: usize, row: &mut [u8]) {
    let (mut from, mut row) = (start, row);
    while !row.is_empty() {
        let word = words[from / WORD] >> (from % WORD);
        let length = (WORD - from % WORD).min(row.len());
        let (here, rest) = row.split_at_mut(length);
        let (eights, last) = here.as_chunks_mut::<8>();
        for (n, eight) in eights.iter_mut().enumerate() {
            *eight = bytes_of((word >> (8 * n)) as u8);
        }
        let first = length - last.len();
        for (n, voxel) in last.iter_mut().enumerate() {
            *voxel = (word >> (first + n) & 1) as u8;
        }
        (from, row) = (from + length, rest);
    }
}

/// Every byte's own value of 1.
const ONES: u64 = 0x0101_0101_0101_0101;

/// For each of eight voxels whether it is not 0, the first in the lowest bit.
fn bits_of(eight: [u8; 8]) -> u64 {
    let bytes = u64::from_le_bytes(eight);
    // The highest bit of each byte: without a carry into the next.
    let set = ((((bytes & (0x7F * ONES)) + 0x7F * ONES) | bytes) >> 7) & ONES;
    // Moves the lowest bit of byte n to bit 56 + n.
    set.wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// The reverse: 0 or 1 for each bit.
fn bytes_of(bits: u8) -> [u8; 8] {
    // Bit n of byte n, made the highest of its byte and moved down.
    let each = (u64::from(bits) * ONES) & 0x8040_2010_0804_0201;
    (((each + 0x7F * ONES) >> 7) & ONES).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SHAPE, example};
    use super::*;
    use crate::ops::phantom::grid;

    #[test]
    fn whatever_is_not_zero_is_one() {
        for bits in 0..=255_u8 {
            let bytes = bytes_of(bits);
            assert!((0..8).all(|n| bytes[n] == bits >> n & 1));
            assert_eq!(bits_of(bytes), u64::from(bits));
            assert_eq!(bits_of(bytes.map(|b| b * (bits | 1))), u64::from(bits));
            assert_eq!(bits_of(bytes.map(|b| b * 128)), u64::from(bits));
        }
    }

    #[test]
    fn a_box_is_taken_out_and_put_back() {
        let (voxels, packed) = example();
        let geometry = grid(SHAPE, [1.0; 3]);
        let whole = packed.unpacked(&geometry);
        assert_eq!(whole.voxels, voxels);
        for (start, end) in [
            ([0, 0, 0], SHAPE),
            ([61, 0, 0], [66, 2, 1]),
            ([3, 1, 1], [128, 3, 3]),
            ([129, 2, 3], [130, 3, 4]),
        ] {
            let bounds = BoundingBox { start, end };
            let mut piece = packed.crop(&bounds, &geometry);
            assert_eq!(piece, whole.crop(&bounds));
            piece.voxels.iter_mut().for_each(|v| *v = 1 - *v);
            let (mut bytes, mut bits) = (whole.clone(), packed.clone());
            bytes.paste(&piece, start);
            bits.paste(&piece, start);
            assert_eq!(bits.unpacked(&geometry), bytes);
        }
    }

    #[test]
    fn slabs_are_told_what_lies_around_them() {
        let (shape, slice) = ([512, 4, 200], 500 * 4);
        let geometry = grid(shape, [1.0; 3]);
        let bounds = BoundingBox {
            start: [7, 0, 3],
            end: [507, 4, 200],
        };
        let seen = std::sync::Mutex::new(Vec::new());
        let pack = || {
            PackedMask::of_slabs(shape, &bounds, 5, |slab| {
                let [first, end] = [slab.start[2], slab.end[2]];
                seen.lock().unwrap().push([first, end]);
                let voxels = (0..slab.voxel_count()).map(|n| ((n / slice + first) % 2) as u8);
                Mask {
                    voxels: voxels.collect(),
                    geometry: geometry.crop(slab),
                }
            })
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(16).build();
        let packed = pool.unwrap().install(pack);
        // Sixty-four slices each, and five around them.
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen, [[3, 72], [62, 136], [126, 200], [190, 200]]);
        assert_eq!(packed.count(), slice * 99);
        assert!(packed.contains([506, 3, 199]) && !packed.contains([7, 0, 66]));
        assert!(!packed.contains([6, 0, 199]) && !packed.contains([507, 0, 199]));
    }
}
