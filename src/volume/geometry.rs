//! The grid of a volume: how many voxels, and where they lie in the world.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::turn::Turn;
use super::{BoundingBox, Orientation};

/// Voxels along i, j, k.
pub type Shape = [usize; 3];

/// A position in the world, mm, RAS+.
pub type Point = [f64; 3];

/// Distance between voxel centres along i, j, k, in mm; all positive and finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 3]", into = "[f64; 3]")]
pub struct Spacing([f64; 3]);

/// Index to point: the upper three rows of a 4×4 matrix, mm, RAS+.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Affine(pub [[f64; 4]; 3]);

/// Shape and affine; and, for a grid that was read from a file, the header's own words for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Voxels along i, j, k; none is 0.
    pub shape: Shape,
    /// Index to point.
    pub affine: Affine,
    /// How a NIfTI header spelt the grid that this one was read as or derived from. A file repeats
    /// these words bit for bit as long as they still describe `affine`; after a crop or a turn only
    /// their codes and units are used. `None` for a grid that was made here.
    pub stored: Option<StoredForms>,
}

/// The fields of a NIfTI header that place a grid, as they were read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredForms {
    /// `pixdim[0..4]` (the first is qfac).
    pub pixdim: [f64; 4],
    /// Unit codes.
    pub xyzt_units: u8,
    /// `qform_code`.
    pub qform_code: i16,
    /// `sform_code`.
    pub sform_code: i16,
    /// `quatern_b, _c, _d`.
    pub quaternion: [f64; 3],
    /// `qoffset_x, _y, _z`.
    pub quaternion_offset: [f64; 3],
    /// `srow_x, _y, _z`.
    pub sform: [[f64; 4]; 3],
}

impl Geometry {
    /// A grid that no file has spelt.
    pub fn new(shape: Shape, affine: Affine) -> Self {
        Self {
            shape,
            affine,
            stored: None,
        }
    }

    /// Number of voxels.
    pub fn voxel_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Place of voxel `[i, j, k]` in memory.
    pub fn offset(&self, [i, j, k]: [usize; 3]) -> usize {
        i + self.shape[0] * (j + self.shape[1] * k)
    }

    /// Volume of one voxel, in ml.
    pub fn voxel_ml(&self) -> f64 {
        self.affine.determinant().abs() / 1000.0
    }

    /// Distance between voxel centres along i, j, k, in mm: the lengths of the affine's columns.
    pub fn spacing(&self) -> Spacing {
        Spacing(self.affine.columns().map(norm))
    }

    /// The spacing as the header (`pixdim`) of the file that this grid was read from spells it, where
    /// it agrees with the affine up to a thousandth; else [`Geometry::spacing`].
    ///
    /// Other tools take their spacing from there. The two differ by rounding alone, but a rule that
    /// asks whether two axes have equal spacings is decided by it.
    pub fn header_spacing(&self) -> Spacing {
        let spacing = self.spacing();
        let Some(stored) = self.stored else {
            return spacing;
        };
        let pixdim = [1, 2, 3].map(|n| stored.pixdim[n].abs());
        let mut pairs = spacing.0.iter().zip(pixdim);
        if pairs.all(|(mm, pixdim)| (mm - pixdim).abs() <= 1e-3 * mm) {
            Spacing(pixdim)
        } else {
            spacing
        }
    }

    /// Which way the axes run: the closest of the 48 orientations.
    pub fn orientation(&self) -> Orientation {
        Orientation::of(&self.affine)
    }

    /// Outer corner of voxel `[0, 0, 0]`: half a voxel before its centre along every axis.
    pub fn first_corner(&self) -> Point {
        self.affine.apply([-0.5; 3])
    }

    /// Outer corner of the last voxel, opposite to [`Geometry::first_corner`].
    pub fn last_corner(&self) -> Point {
        self.affine.apply(self.shape.map(|n| n as f64 - 0.5))
    }

    /// Lays a grid of `spacing` over the same field of view.
    ///
    /// The first outer face stays put, so the first centre moves by half the change in spacing,
    /// along oblique axes too. The last face stays put where the field of view is a multiple of the
    /// spacing, and else moves by less than half a new voxel: the spacing is met, not bent. Each
    /// axis keeps at least one voxel.
    ///
    /// # Source
    /// NIfTI-1 standard, «3D image orientation and location in space» (voxels are centred at their
    /// index).
    pub fn with_spacing(&self, spacing: Spacing) -> Self {
        let (old, new) = (self.spacing().mm(), spacing.mm());
        let ratio = [0, 1, 2].map(|d| new[d] / old[d]);
        let first_centre = ratio.map(|r| 0.5 * r - 0.5);
        let scale = Affine::from_columns(
            [
                [ratio[0], 0.0, 0.0],
                [0.0, ratio[1], 0.0],
                [0.0, 0.0, ratio[2]],
            ],
            first_centre,
        );
        Self {
            // A float to integer cast saturates; a shape beyond memory is refused on allocation.
            shape: [0, 1, 2].map(|d| (self.shape[d] as f64 / ratio[d]).round().max(1.0) as usize),
            affine: self.affine.multiply(&scale),
            stored: self.stored,
        }
    }

    /// The grid of the same voxels, stored so that the axes run as `orientation` says.
    pub fn reoriented(&self, orientation: Orientation) -> Self {
        Turn::between(self.orientation(), orientation).geometry(self)
    }

    /// Voxels along i, j, k that a distance reaches over, the last one in part.
    pub fn voxels_within(&self, mm: f64) -> [usize; 3] {
        self.spacing()
            .mm()
            .map(|spacing| (mm / spacing).ceil() as usize)
    }

    /// A box grown by `margin_mm` on every side, in whole voxels, as far as the grid goes.
    pub fn grown(&self, bounds: &BoundingBox, margin_mm: f64) -> BoundingBox {
        bounds.grown(self.voxels_within(margin_mm), self.shape)
    }

    /// The grid of the voxels in `bounds`; each keeps its place in the world.
    pub fn crop(&self, bounds: &BoundingBox) -> Self {
        self.moved(bounds.start.map(|n| n as f64), bounds.shape())
    }

    /// The grid with `before` and `after` more voxels at the two ends of every axis.
    pub fn pad(&self, before: [usize; 3], after: [usize; 3]) -> Self {
        let shape = [0, 1, 2].map(|d| before[d] + self.shape[d] + after[d]);
        self.moved(before.map(|n| -(n as f64)), shape)
    }

    fn moved(&self, first: [f64; 3], shape: Shape) -> Self {
        let mut affine = self.affine;
        let origin = affine.apply(first);
        for (row, x) in affine.0.iter_mut().zip(origin) {
            row[3] = x;
        }
        Self {
            shape,
            affine,
            stored: self.stored,
        }
    }

    /// True when both have the same shape and no corner of one lies further from the other's than
    /// 1 % of the smallest spacing: what rounding to `f32` or to a quaternion does to a header.
    pub fn same_grid(&self, other: &Self) -> bool {
        let smallest = self.spacing().mm().into_iter().fold(f64::MAX, f64::min);
        self.shape == other.shape
            && self
                .corner_distance_mm(&other.affine)
                .is_some_and(|distance| distance <= 0.01 * smallest)
    }

    /// Largest distance in mm between the centres of this grid's corner voxels under its own affine
    /// and under another; `None` when it is not a number.
    pub(crate) fn corner_distance_mm(&self, affine: &Affine) -> Option<f64> {
        let last = self.shape.map(|n| n as f64 - 1.0);
        let distances = (0..8_u8).map(|corner| {
            let index = [0, 1, 2].map(|d| if corner >> d & 1 == 1 { last[d] } else { 0.0 });
            let (one, other) = (self.affine.apply(index), affine.apply(index));
            norm([0, 1, 2].map(|d| one[d] - other[d]))
        });
        distances
            .reduce(|a, b| if b.is_nan() || b > a { b } else { a })
            .filter(|distance| !distance.is_nan())
    }
}

impl Affine {
    /// From three columns (one step along i, j, k) and the point of voxel `[0, 0, 0]`, in mm.
    pub fn from_columns(columns: [[f64; 3]; 3], origin: Point) -> Self {
        Self([0, 1, 2].map(|r| [columns[0][r], columns[1][r], columns[2][r], origin[r]]))
    }

    /// The point at an index, which need not be integral.
    pub fn apply(&self, index: [f64; 3]) -> Point {
        self.0
            .map(|row| row[0] * index[0] + row[1] * index[1] + row[2] * index[2] + row[3])
    }

    /// The affine that does `first` and then this one.
    pub fn multiply(&self, first: &Self) -> Self {
        let columns = first.columns().map(|column| self.apply_direction(column));
        Self::from_columns(columns, self.apply(first.origin()))
    }

    /// Point to index. Every affine that was read from a file is invertible; of a singular one the
    /// entries are not finite.
    pub fn inverse(&self) -> Self {
        let [a, b, c] = self.columns();
        let det = self.determinant();
        let rows = [cross(b, c), cross(c, a), cross(a, b)].map(|row| row.map(|x| x / det));
        let origin = self.origin();
        Self(rows.map(|row| [row[0], row[1], row[2], -dot(row, origin)]))
    }

    /// Signed volume of a voxel, in mm³; negative for left-handed axes.
    pub fn determinant(&self) -> f64 {
        let [a, b, c] = self.columns();
        dot(a, cross(b, c))
    }

    /// The point of voxel `[0, 0, 0]`, in mm.
    pub fn origin(&self) -> Point {
        self.0.map(|row| row[3])
    }

    fn apply_direction(&self, step: [f64; 3]) -> [f64; 3] {
        self.0.map(|row| dot([row[0], row[1], row[2]], step))
    }

    /// The first three columns: one step along i, j, k, in mm.
    pub fn columns(&self) -> [[f64; 3]; 3] {
        [0, 1, 2].map(|c| [0, 1, 2].map(|r| self.0[r][c]))
    }
}

impl Spacing {
    /// Millimetres along i, j, k.
    pub fn mm(&self) -> [f64; 3] {
        self.0
    }
}

impl TryFrom<[f64; 3]> for Spacing {
    type Error = String;

    fn try_from(mm: [f64; 3]) -> Result<Self, String> {
        if mm.iter().all(|s| s.is_finite() && *s > 0.0) {
            Ok(Self(mm))
        } else {
            Err(format!(
                "spacing must be three positive numbers [mm], got {mm:?}"
            ))
        }
    }
}

impl From<Spacing> for [f64; 3] {
    fn from(spacing: Spacing) -> Self {
        spacing.0
    }
}

impl FromStr for Spacing {
    type Err = String;

    /// Reads `1,1,2.5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("spacing must be three numbers [mm] such as 1,1,2.5, got {text:?}");
        let numbers: Result<Vec<f64>, _> = text.split(',').map(|n| n.trim().parse()).collect();
        let mm = <[f64; 3]>::try_from(numbers.map_err(|_| wrong())?).map_err(|_| wrong())?;
        Self::try_from(mm)
    }
}

impl schemars::JsonSchema for Spacing {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Spacing".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Distance between voxel centres along i, j, k [mm].",
            "type": "array",
            "items": { "type": "number", "exclusiveMinimum": 0 },
            "minItems": 3,
            "maxItems": 3
        })
    }
}

/// Scalar product.
pub(crate) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Length.
pub(crate) fn norm(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

/// Vector product.
pub(crate) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Spacing 2, 3, 4 mm; turned by the angle with cosine 0.6 about z, k flipped.
    pub(crate) fn oblique() -> Geometry {
        Geometry::new(
            [10, 12, 8],
            Affine([
                [1.2, -2.4, 0.0, 10.0],
                [1.6, 1.8, 0.0, -20.0],
                [0.0, 0.0, -4.0, 30.0],
            ]),
        )
    }

    fn spacing(i: f64, j: f64, k: f64) -> Spacing {
        Spacing::try_from([i, j, k]).unwrap()
    }

    #[track_caller]
    pub(crate) fn assert_close(found: Point, expected: Point) {
        for d in 0..3 {
            assert!(
                (found[d] - expected[d]).abs() < 1e-9,
                "{found:?} is not {expected:?}"
            );
        }
    }

    #[test]
    fn an_index_is_taken_to_its_point() {
        // 10 + 1.2 * 1 - 2.4 * 2 = 6.4; -20 + 1.6 + 3.6 = -14.8; 30 - 12 = 18
        assert_close(oblique().affine.apply([1.0, 2.0, 3.0]), [6.4, -14.8, 18.0]);
    }

    #[test]
    fn the_inverse_takes_the_point_back() {
        let affine = oblique().affine;
        assert_close(affine.inverse().apply([6.4, -14.8, 18.0]), [1.0, 2.0, 3.0]);
        let identity = affine.multiply(&affine.inverse());
        assert_close(identity.apply([5.0, 6.0, 7.0]), [5.0, 6.0, 7.0]);
    }

    #[test]
    fn a_product_does_the_right_hand_side_first() {
        let shift = Affine([
            [1.0, 0.0, 0.0, 1.0],
            [0.0, 1.0, 0.0, 0.0],
            [0.0, 0.0, 1.0, 0.0],
        ]);
        let scale = Affine([
            [2.0, 0.0, 0.0, 0.0],
            [0.0, 2.0, 0.0, 0.0],
            [0.0, 0.0, 2.0, 0.0],
        ]);
        assert_close(
            scale.multiply(&shift).apply([1.0, 0.0, 0.0]),
            [4.0, 0.0, 0.0],
        );
        assert_close(
            shift.multiply(&scale).apply([1.0, 0.0, 0.0]),
            [3.0, 0.0, 0.0],
        );
    }

    #[test]
    fn spacing_and_volume_come_from_the_columns() {
        let grid = oblique();
        assert_close(grid.spacing().mm(), [2.0, 3.0, 4.0]);
        assert!((grid.voxel_ml() - 0.024).abs() < 1e-12);
        assert!((grid.affine.determinant() + 24.0).abs() < 1e-9);
    }

    #[test]
    fn finer_spacing_keeps_the_field_of_view() {
        let coarse = oblique();
        let fine = coarse.with_spacing(spacing(1.0, 1.5, 2.0));
        assert_eq!(fine.shape, [20, 24, 16]);
        assert_close(fine.spacing().mm(), [1.0, 1.5, 2.0]);
        assert_close(fine.first_corner(), coarse.first_corner());
        assert_close(fine.last_corner(), coarse.last_corner());
    }

    #[test]
    fn a_spacing_that_does_not_divide_the_field_of_view_keeps_the_first_face() {
        // 20 mm / 3 mm = 6.67 -> 7; 36 / 5 = 7.2 -> 7; 32 / 100 -> at least 1
        let grid = oblique().with_spacing(spacing(3.0, 5.0, 100.0));
        assert_eq!(grid.shape, [7, 7, 1]);
        assert_close(grid.spacing().mm(), [3.0, 5.0, 100.0]);
        assert_close(grid.first_corner(), oblique().first_corner());
    }

    #[test]
    fn the_own_spacing_gives_the_own_grid() {
        let grid = oblique();
        assert_eq!(grid.with_spacing(grid.spacing()), grid);
    }

    #[test]
    fn a_crop_keeps_voxels_in_place_and_padding_undoes_it() {
        let grid = oblique();
        let bounds = BoundingBox {
            start: [1, 2, 3],
            end: [5, 12, 4],
        };
        let part = grid.crop(&bounds);
        assert_eq!(part.shape, [4, 10, 1]);
        assert_close(part.affine.origin(), [6.4, -14.8, 18.0]);
        let back = part.pad([1, 2, 3], [5, 0, 4]);
        assert_eq!(back.shape, grid.shape);
        assert_close(back.affine.origin(), grid.affine.origin());
        assert!(back.same_grid(&grid));
    }

    #[test]
    fn a_tenth_of_a_voxel_is_another_grid_and_rounding_is_not() {
        let grid = oblique();
        let mut rounded = grid.clone();
        rounded.affine.0 = rounded.affine.0.map(|row| row.map(|x| f64::from(x as f32)));
        assert!(grid.same_grid(&rounded));
        let mut moved = grid.clone();
        moved.affine.0[1][3] += 0.2;
        assert!(!grid.same_grid(&moved));
        moved.affine.0[1][3] = f64::NAN;
        assert!(!grid.same_grid(&moved));
        let mut longer = grid.clone();
        longer.shape[2] += 1;
        assert!(!grid.same_grid(&longer));
    }
}
