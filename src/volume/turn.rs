//! Turning a volume so that its axes run another way.

use std::ops::Range;

use rayon::prelude::*;

use super::{Affine, Geometry, Image, Orientation, Samples, Shape, Volume};

impl Image {
    /// The same image, stored so that its axes run as `orientation` says.
    ///
    /// Nothing is copied when nothing turns, and flips alone are done in place. Turning back to the
    /// orientation it came from restores every voxel to its place.
    pub fn oriented(self, orientation: Orientation) -> Self {
        let turn = Turn::between(self.geometry.orientation(), orientation);
        let shape = self.geometry.shape;
        Self {
            geometry: turn.geometry(&self.geometry),
            samples: match self.samples {
                Samples::I16(mut scaled) => {
                    scaled.stored = turn.voxels(scaled.stored, shape);
                    Samples::I16(scaled)
                }
                Samples::U16(mut scaled) => {
                    scaled.stored = turn.voxels(scaled.stored, shape);
                    Samples::U16(scaled)
                }
                Samples::F32(values) => Samples::F32(turn.voxels(values, shape)),
            },
        }
    }
}

impl<T: Copy + Send + Sync> Volume<T> {
    /// The same volume, stored so that its axes run as `orientation` says; see [`Image::oriented`].
    pub fn oriented(self, orientation: Orientation) -> Self {
        let turn = Turn::between(self.geometry.orientation(), orientation);
        Self {
            voxels: turn.voxels(self.voxels, self.geometry.shape),
            geometry: turn.geometry(&self.geometry),
        }
    }
}

/// A permutation of axes with flips: axis `d` of the result is axis `source[d]`, backwards if
/// `flip[d]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    source: [usize; 3],
    flip: [bool; 3],
}

/// Edge of the cubes that voxels are copied in, so that both sides stay in the cache.
const TILE: usize = 16;

impl Turn {
    /// What has to be done to voxels that lie as `from` says so that they lie as `to` says.
    pub(crate) fn between(from: Orientation, to: Orientation) -> Self {
        let source = to
            .axes
            .map(|axis| from.axes.iter().position(|&a| a == axis).unwrap_or(axis));
        Self {
            source,
            flip: [0, 1, 2].map(|d| from.flipped[source[d]] != to.flipped[d]),
        }
    }

    pub(crate) fn geometry(&self, grid: &Geometry) -> Geometry {
        let columns = grid.affine.columns();
        let mut first = [0.0; 3];
        let turned = [0, 1, 2].map(|d| {
            let source = self.source[d];
            if !self.flip[d] {
                return columns[source];
            }
            first[source] = grid.shape[source] as f64 - 1.0;
            columns[source].map(|x| -x)
        });
        Geometry {
            shape: self.shape(grid.shape),
            affine: Affine::from_columns(turned, grid.affine.apply(first)),
            stored: grid.stored,
        }
    }

    fn shape(&self, shape: Shape) -> Shape {
        self.source.map(|source| shape[source])
    }

    fn voxels<T: Copy + Send + Sync>(&self, mut voxels: Vec<T>, shape: Shape) -> Vec<T> {
        if voxels.is_empty() {
            return voxels;
        }
        if self.source == [0, 1, 2] {
            self.flip_in_place(&mut voxels, shape);
            return voxels;
        }
        self.permuted(&voxels, shape)
    }

    fn flip_in_place<T: Send>(&self, voxels: &mut [T], [ni, nj, nk]: Shape) {
        let slice = ni * nj;
        if self.flip[0] {
            voxels.par_chunks_mut(ni).for_each(<[T]>::reverse);
        }
        if self.flip[1] {
            let swap_rows = |rows: &mut [T]| swap_ends(rows, ni, nj);
            voxels.par_chunks_mut(slice).for_each(swap_rows);
        }
        if self.flip[2] {
            swap_ends(voxels, slice, nk);
        }
    }

    fn permuted<T: Copy + Send + Sync>(&self, voxels: &[T], shape: Shape) -> Vec<T> {
        let [ni, nj, _] = self.shape(shape);
        let slice = ni * nj;
        let Walk { start, steps } = self.walk(shape);
        let mut turned = vec![voxels[0]; voxels.len()];
        let slabs = turned.par_chunks_mut(slice * TILE).enumerate();
        slabs.for_each(|(slab, values)| {
            for (tile_i, tile_j) in tiles(ni, nj) {
                for (k, values) in values.chunks_mut(slice).enumerate() {
                    for j in tile_j.clone() {
                        let index = [tile_i.start, j, slab * TILE + k];
                        let moved = (0..3).map(|d| steps[d].wrapping_mul(index[d]));
                        let mut place = moved.fold(start, usize::wrapping_add);
                        for value in &mut values[ni * j..][tile_i.clone()] {
                            *value = voxels[place];
                            place = place.wrapping_add(steps[0]);
                        }
                    }
                }
            }
        });
        turned
    }

    /// Where the source of the result's first voxel lies, and how far it moves with i, j, k.
    fn walk(&self, shape: Shape) -> Walk {
        let strides = [1, shape[0], shape[0] * shape[1]];
        let mut start = 0;
        let steps = [0, 1, 2].map(|d| {
            let source = self.source[d];
            if !self.flip[d] {
                return strides[source];
            }
            start += strides[source] * (shape[source] - 1);
            strides[source].wrapping_neg()
        });
        Walk { start, steps }
    }
}

/// Offsets in the source; a step backwards is a wrapped negative number.
struct Walk {
    start: usize,
    steps: [usize; 3],
}

fn tiles(ni: usize, nj: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let edges = |n: usize| (0..n).step_by(TILE).map(move |i| i..(i + TILE).min(n));
    edges(nj).flat_map(move |j| edges(ni).map(move |i| (i, j.clone())))
}

/// Swaps the first of `count` pieces of length `piece` with the last, the second with the last but
/// one, and so on.
fn swap_ends<T: Send>(values: &mut [T], piece: usize, count: usize) {
    let (front, back) = values.split_at_mut(count / 2 * piece);
    let pairs = front.par_chunks_mut(piece).zip(back.par_rchunks_mut(piece));
    pairs.for_each(|(one, other)| one.swap_with_slice(other));
}

#[cfg(test)]
mod tests {
    use super::super::geometry::tests::{assert_close, oblique};
    use super::super::orientation::tests::{all, orientation};
    use super::*;

    #[test]
    fn turning_moves_values_as_worked_out_by_hand() {
        // 2×3×1, RAS; to ALS: axis 0 of the result is j, axis 1 is i backwards.
        let grid = Geometry::new(
            [2, 3, 1],
            Affine::from_columns(
                [[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 4.0]],
                [0.0; 3],
            ),
        );
        let volume = Volume {
            voxels: vec![0, 1, 2, 3, 4, 5],
            geometry: grid,
        };
        let turned = volume.oriented(orientation("ALS"));
        assert_eq!(turned.voxels, [1, 3, 5, 0, 2, 4]);
        assert_eq!(turned.shape(), [3, 2, 1]);
        assert_close(turned.geometry.affine.origin(), [2.0, 0.0, 0.0]);
        assert_eq!(turned.geometry.orientation().to_string(), "ALS");
    }

    #[test]
    fn every_voxel_keeps_its_place_in_the_world() {
        let geometry = oblique();
        let place: Vec<usize> = (0..geometry.voxel_count()).collect();
        for target in all() {
            let volume = Volume {
                voxels: place.clone(),
                geometry: geometry.clone(),
            };
            let turned = volume.oriented(target);
            assert_eq!(turned.geometry.orientation(), target);
            for index in [[0, 0, 0], [1, 2, 3], [7, 7, 7], [4, 0, 5]] {
                let n = turned.voxels[turned.offset(index)];
                let source = [n % 10, n / 10 % 12, n / 120];
                assert_close(
                    turned.geometry.affine.apply(index.map(|n| n as f64)),
                    geometry.affine.apply(source.map(|n| n as f64)),
                );
            }
            let back = turned.oriented(geometry.orientation());
            assert_eq!(back.voxels, place);
            assert!(back.geometry.same_grid(&geometry));
        }
    }

    #[test]
    fn volumes_of_many_tiles_are_turned_whole() {
        let shape = [37, 18, 33];
        let geometry = Geometry::new(shape, oblique().affine);
        let from = geometry.orientation();
        for target in all() {
            let turn = Turn::between(from, target);
            let turned = turn.voxels((0..geometry.voxel_count()).collect(), shape);
            let grid = turn.geometry(&geometry);
            for (n, source) in turned.into_iter().enumerate() {
                let [ni, nj, _] = grid.shape;
                let here = [n % ni, n / ni % nj, n / (ni * nj)];
                let there = [0, 1, 2].map(|d| {
                    let length = shape[turn.source[d]];
                    if turn.flip[d] {
                        length - 1 - here[d]
                    } else {
                        here[d]
                    }
                });
                let mut index = [0; 3];
                (0..3).for_each(|d| index[turn.source[d]] = there[d]);
                assert_eq!(source, geometry.offset(index), "{target}");
            }
        }
    }
}
