//! Which way the axes of a grid run, and turning a volume so that they run another way.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::geometry::norm;
use super::{Affine, Geometry, Image, Samples, Shape, Volume};

/// Where each index grows, in three letters: `RAS`, `LPS`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Orientation {
    /// World axis (0 = x, 1 = y, 2 = z) that i, j, k follow; a permutation.
    pub axes: [usize; 3],
    /// True where the index grows against that world axis.
    pub flipped: [bool; 3],
}

/// Letters of the two ends of x, y, z: along the axis, against it.
const LETTERS: [[char; 2]; 3] = [['R', 'L'], ['A', 'P'], ['S', 'I']];

impl Orientation {
    /// i to the right, j to the front, k up.
    pub const RAS: Self = Self {
        axes: [0, 1, 2],
        flipped: [false; 3],
    };

    /// i to the left, j to the back, k up: the axes of DICOM and ITK.
    pub const LPS: Self = Self {
        axes: [0, 1, 2],
        flipped: [true, true, false],
    };

    /// The closest orientation of an affine.
    ///
    /// Each index axis takes the world axis that it follows most, the clearest axis first, and no
    /// world axis is taken twice: also at 45° the result is a permutation. Shear is taken out before.
    ///
    /// # Source
    /// The rule of nibabel's `io_orientation`: polar factor of the unit columns, then the largest
    /// entry. N. J. Higham, «Computing the polar decomposition», doi:10.1137/0907079.
    pub fn of(affine: &Affine) -> Self {
        let mut columns = polar_factor(affine.columns().map(|c| c.map(|x| x / norm(c))));
        let clearest = columns.map(|c| c.iter().fold(0.0, |most: f64, x| most.max(x * x)));
        let mut order = [0, 1, 2];
        order.sort_by(|&a, &b| clearest[b].total_cmp(&clearest[a]));
        let mut found = Self::RAS;
        let mut taken = [false; 3];
        for d in order {
            let free = (0..3).filter(|&axis| !taken[axis]);
            // The first of equal entries, as argmax has it.
            let axis = free.fold(None, |best: Option<usize>, axis| match best {
                Some(b) if columns[d][b].abs() >= columns[d][axis].abs() => best,
                _ => Some(axis),
            });
            let axis = axis.unwrap_or_default();
            taken[axis] = true;
            found.axes[d] = axis;
            found.flipped[d] = columns[d][axis] < 0.0;
            columns[d] = [0.0; 3];
        }
        found
    }

    /// What has to be done to voxels that lie as `self` says so that they lie as `target` says.
    pub(crate) fn turn_to(self, target: Self) -> Turn {
        let source = target
            .axes
            .map(|axis| self.axes.iter().position(|&a| a == axis).unwrap_or(axis));
        Turn {
            source,
            flip: [0, 1, 2].map(|d| self.flipped[source[d]] != target.flipped[d]),
        }
    }
}

/// The rotation (or reflection) closest to a 3×3 matrix of unit columns: Newton's iteration
/// X ← (X + X⁻ᵀ) / 2.
fn polar_factor(unit_columns: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let mut columns = unit_columns;
    for _ in 0..60 {
        let inverse = Affine::from_columns(columns, [0.0; 3]).inverse();
        // The columns of the inverse's transpose are its rows.
        let next = [0, 1, 2].map(|c| [0, 1, 2].map(|r| 0.5 * (columns[c][r] + inverse.0[c][r])));
        if !next.iter().flatten().all(|x| x.is_finite()) {
            return columns;
        }
        let change = (0..9).map(|n| (next[n / 3][n % 3] - columns[n / 3][n % 3]).abs());
        let largest = change.fold(0.0, f64::max);
        columns = next;
        if largest < 1e-15 {
            break;
        }
    }
    columns
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for d in 0..3 {
            write!(f, "{}", LETTERS[self.axes[d]][usize::from(self.flipped[d])])?;
        }
        Ok(())
    }
}

impl FromStr for Orientation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "orientation must be three letters, one of each pair R/L, A/P, S/I, such as RAS, got {text:?}"
            )
        };
        let mut found = Self::RAS;
        let mut seen = [false; 3];
        let letters: Vec<char> = text.chars().collect();
        if letters.len() != 3 {
            return Err(wrong());
        }
        for (d, letter) in letters.into_iter().enumerate() {
            let letter = letter.to_ascii_uppercase();
            let axis = LETTERS.iter().position(|ends| ends.contains(&letter));
            let axis = axis.filter(|&axis| !seen[axis]).ok_or_else(wrong)?;
            seen[axis] = true;
            found.axes[d] = axis;
            found.flipped[d] = letter == LETTERS[axis][1];
        }
        Ok(found)
    }
}

impl TryFrom<String> for Orientation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Orientation> for String {
    fn from(orientation: Orientation) -> Self {
        orientation.to_string()
    }
}

impl schemars::JsonSchema for Orientation {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Orientation".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Where each index grows, in three letters: `RAS`, `LPS`, …",
            "type": "string",
            "pattern": "^[RLAPSI]{3}$"
        })
    }
}

impl Image {
    /// The same image, stored so that its axes run as `orientation` says.
    ///
    /// Nothing is copied when nothing turns, and flips alone are done in place. Turning back to the
    /// orientation it came from restores every voxel to its place.
    pub fn oriented(self, orientation: Orientation) -> Self {
        let turn = self.geometry.orientation().turn_to(orientation);
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
        let turn = self.geometry.orientation().turn_to(orientation);
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
    use super::*;

    fn orientation(text: &str) -> Orientation {
        text.parse().unwrap()
    }

    fn all() -> Vec<Orientation> {
        let axes = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        let flips = (0..8_u8).map(|f| [0, 1, 2].map(|d| f >> d & 1 == 1));
        flips
            .flat_map(|flipped| axes.map(|axes| Orientation { axes, flipped }))
            .collect()
    }

    #[test]
    fn letters_say_where_each_index_grows() {
        assert_eq!(Orientation::RAS.to_string(), "RAS");
        assert_eq!(Orientation::LPS.to_string(), "LPS");
        let found = orientation("iLa");
        assert_eq!(found.axes, [2, 0, 1]);
        assert_eq!(found.flipped, [true, true, false]);
        for one in all() {
            assert_eq!(orientation(&one.to_string()), one);
        }
    }

    #[test]
    fn letters_that_name_an_axis_twice_are_refused() {
        for text in ["RRS", "RLS", "RA", "RASL", "XYZ", ""] {
            assert!(text.parse::<Orientation>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_oblique_affine_takes_the_axis_it_follows_most() {
        // i = (1.2, 1.6, 0): y; j = (-2.4, 1.8, 0): -x; k = -z
        assert_eq!(oblique().orientation().to_string(), "ALI");
    }

    #[test]
    fn a_tie_still_gives_a_permutation() {
        let h = 0.5_f64.sqrt();
        let affine = Affine::from_columns([[h, h, 0.0], [-h, h, 0.0], [0.0, 0.0, 1.0]], [0.0; 3]);
        let mut axes = Orientation::of(&affine).axes;
        axes.sort_unstable();
        assert_eq!(axes, [0, 1, 2]);
    }

    #[test]
    fn a_sheared_affine_is_judged_without_its_shear() {
        // Gantry tilt: k leans 30° forward.
        let affine = Affine::from_columns(
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.5, 4.33]],
            [0.0; 3],
        );
        assert_eq!(Orientation::of(&affine), Orientation::RAS);
    }

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
}
