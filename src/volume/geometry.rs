//! The grid of a volume: how many voxels, and where they lie in the world.

use serde::{Deserialize, Serialize};

/// Voxels along i, j, k.
pub type Shape = [usize; 3];

/// A position in the world, mm, RAS+.
pub type Point = [f64; 3];

/// Distance between voxel centres along i, j, k, in mm; all positive and finite.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// How a NIfTI header spelt this grid, so that a mask repeats it bit for bit. `None` for a grid
    /// that was made here.
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
        let [a, b, c] = self.affine.columns();
        let cross = [
            b[1] * c[2] - b[2] * c[1],
            b[2] * c[0] - b[0] * c[2],
            b[0] * c[1] - b[1] * c[0],
        ];
        (a[0] * cross[0] + a[1] * cross[1] + a[2] * cross[2]).abs() / 1000.0
    }

    /// Distance between voxel centres along i, j, k, in mm: the lengths of the affine's columns.
    pub fn spacing(&self) -> Spacing {
        Spacing(
            self.affine
                .columns()
                .map(|c| c.iter().map(|x| x * x).sum::<f64>().sqrt()),
        )
    }
}

impl Affine {
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
