//! A volume: voxels and the grid they lie on.
//!
//! [`read_image`], [`read_mask`] and [`read_label_map`] check a file once; what they give back is
//! three-dimensional, finite and lies on an invertible affine.

use rayon::prelude::*;

use crate::lanes::{self, Lanes, Task};

pub mod bounding_box;
pub mod canonical;
pub mod coarse_grid;
mod crop;
pub mod geometry;
pub mod nifti;
pub mod orientation;
pub mod summary;
mod turn;

pub use bounding_box::BoundingBox;
pub use canonical::Canonical;
pub use geometry::{Affine, Geometry, Point, Shape, Spacing, StoredForms};
pub use nifti::{
    OpenVolume, check_output_name, read_geometry, read_image, read_label_map, read_mask,
    write_image, write_label_map, write_mask,
};
pub use orientation::Orientation;
pub use summary::Summary;

/// A scan that reaches below this is CT, as far as its values alone can say; MR has none such [HU].
pub const CT_BELOW_HU: f32 = -200.0;

/// Voxels of one type on a grid, `i` fastest; `voxels.len()` is the product of the shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume<T> {
    /// Values, `i` fastest.
    pub voxels: Vec<T>,
    /// The grid.
    pub geometry: Geometry,
}

/// 0 or 1 for every voxel.
pub type Mask = Volume<u8>;

/// An integer class for every voxel.
pub type LabelMap = Volume<i32>;

/// Measured intensities on a grid, kept in the type that they were stored in.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Values, `i` fastest.
    pub samples: Samples,
    /// The grid.
    pub geometry: Geometry,
}

/// Intensities as stored; 16-bit scans stay 16-bit, so that memory stays near the file's size.
///
/// The real value is `slope * stored + intercept` for the integer kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// Stored as `i16` (also `u8` and `i8` files).
    I16(Scaled<i16>),
    /// Stored as `u16`.
    U16(Scaled<u16>),
    /// Everything else, real values.
    F32(Vec<f32>),
}

/// Stored integers and the line that takes them to real values.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled<T> {
    /// Stored values, `i` fastest.
    pub stored: Vec<T>,
    /// Factor, never 0.
    pub slope: f32,
    /// Added after the factor.
    pub intercept: f32,
}

/// Voxels that one task looks at.
const RUN: usize = 4096;
/// The range of no value.
const NO_RANGE: [f32; 2] = [f32::INFINITY, f32::NEG_INFINITY];

impl Samples {
    /// Number of voxels.
    pub fn len(&self) -> usize {
        match self {
            Self::I16(scaled) => scaled.stored.len(),
            Self::U16(scaled) => scaled.stored.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// True without any voxel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Real value of one voxel.
    pub fn value(&self, n: usize) -> f32 {
        match self {
            Self::I16(scaled) => scaled.real(scaled.stored[n]),
            Self::U16(scaled) => scaled.real(scaled.stored[n]),
            Self::F32(values) => values[n],
        }
    }

    /// Lowest and highest real value; the first is above the second without any voxel.
    pub fn range(&self) -> [f32; 2] {
        match self {
            Self::I16(scaled) => scaled.range([i16::MAX, i16::MIN]),
            Self::U16(scaled) => scaled.range([u16::MAX, u16::MIN]),
            Self::F32(values) => {
                let wider = |[low, high]: [f32; 2], &v: &f32| [low.min(v), high.max(v)];
                let runs = values.par_chunks(RUN);
                let runs = runs.map(|run| run.iter().fold(NO_RANGE, wider));
                runs.reduce(|| NO_RANGE, |a, b| [a[0].min(b[0]), a[1].max(b[1])])
            }
        }
    }

    /// Real values of the run of voxels from `start` on, as many as `run` holds.
    ///
    /// Kernels work row by row on such runs: one conversion, no copy of the whole scan.
    pub fn read_run(&self, start: usize, run: &mut [f32]) {
        let end = start + run.len();
        match self {
            Self::I16(scaled) => scaled.read(start..end, run),
            Self::U16(scaled) => scaled.read(start..end, run),
            Self::F32(values) => run.copy_from_slice(&values[start..end]),
        }
    }
}

impl<T: Copy + Into<f32> + Ord + Send + Sync> Scaled<T> {
    /// The range of the stored values, which the processor compares many at a time, made real.
    fn range(&self, nothing: [T; 2]) -> [f32; 2] {
        let runs = self.stored.par_chunks(RUN).map(|run| {
            let low = run.iter().fold(nothing[0], |low, &v| low.min(v));
            let high = run.iter().fold(nothing[1], |high, &v| high.max(v));
            [low, high]
        });
        let wider = |a: [T; 2], b: [T; 2]| [a[0].min(b[0]), a[1].max(b[1])];
        let [low, high] = runs.reduce(|| nothing, wider);
        if low > high {
            return NO_RANGE;
        }
        let (a, b) = (self.real(low), self.real(high));
        [a.min(b), a.max(b)]
    }
}

/// Makes stored values real, with the processor's widest registers.
struct Reading<'a, T> {
    stored: &'a [T],
    slope: f32,
    intercept: f32,
    run: &'a mut [f32],
}

impl<T: Copy + Into<f32>> Task for Reading<'_, T> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        for (value, &stored) in self.run.iter_mut().zip(self.stored) {
            *value = self.slope * stored.into() + self.intercept;
        }
    }
}

impl<T: Copy + Into<f32>> Scaled<T> {
    /// Real value of a stored one.
    pub fn real(&self, stored: T) -> f32 {
        self.slope * stored.into() + self.intercept
    }

    fn read(&self, range: std::ops::Range<usize>, run: &mut [f32]) {
        let stored = &self.stored[range];
        lanes::run(Reading {
            stored,
            slope: self.slope,
            intercept: self.intercept,
            run,
        });
    }
}

impl<T> Volume<T> {
    /// Voxels along i, j, k.
    pub fn shape(&self) -> Shape {
        self.geometry.shape
    }

    /// Place of voxel `[i, j, k]` in `voxels`.
    pub fn offset(&self, index: [usize; 3]) -> usize {
        self.geometry.offset(index)
    }
}

impl Image {
    /// Real values of the plane across k, i fastest.
    pub fn plane(&self, k: usize) -> Vec<f32> {
        self.plane_in(&BoundingBox::whole(self.shape()), k)
    }

    /// Real values of what lies of a box in the plane across k, i fastest.
    pub fn plane_in(&self, bounds: &BoundingBox, k: usize) -> Vec<f32> {
        let [ni, nj, _] = bounds.shape();
        let mut values = vec![0.0; ni * nj];
        for (j, row) in values.chunks_mut(ni.max(1)).enumerate() {
            let first = [bounds.start[0], bounds.start[1] + j, k];
            self.samples.read_run(self.geometry.offset(first), row);
        }
        values
    }

    /// What `keep` says (0 or 1) of each voxel, by its place in memory and its value.
    pub fn mask_where(&self, keep: impl Fn(usize, f32) -> u8 + Sync) -> Mask {
        let run = 1 << 14;
        let mut voxels = vec![0_u8; self.geometry.voxel_count()];
        let chunks = voxels.par_chunks_mut(run).enumerate();
        chunks.for_each(|(chunk, kept)| {
            let mut values = vec![0.0; kept.len()];
            self.samples.read_run(chunk * run, &mut values);
            for (n, (kept, value)) in kept.iter_mut().zip(values).enumerate() {
                *kept = keep(chunk * run + n, value);
            }
        });
        Mask {
            voxels,
            geometry: self.geometry.clone(),
        }
    }

    /// An image of probabilities that are given in thousandths: 0 to 1 at two bytes a voxel.
    pub fn of_thousandths(probabilities: Volume<i16>) -> Self {
        Self {
            samples: Samples::I16(Scaled {
                stored: probabilities.voxels,
                slope: 0.001,
                intercept: 0.0,
            }),
            geometry: probabilities.geometry,
        }
    }

    /// Voxels along i, j, k.
    pub fn shape(&self) -> Shape {
        self.geometry.shape
    }
}
