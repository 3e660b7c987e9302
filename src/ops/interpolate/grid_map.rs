//! Where the voxels of one grid lie among those of another.

use crate::error::{Error, Result};
use crate::volume::geometry::norm;
use crate::volume::{Affine, Geometry, Shape};

/// Off-axis drift over a whole grid [voxels] below which two axes count as parallel; headers keep
/// `f32`, which rounds directions by less.
pub(super) const PARALLEL_DRIFT: f64 = 1e-4;

/// Adding and taking away 1.5 · 2²² rounds a coordinate to 2⁻³⁰ of a voxel, so that rounding in our own
/// arithmetic does not decide on which side of a half it falls.
const SNAPPING: f64 = 6_291_456.0;

/// Takes target indices to source indices: `source = matrix · target + offset`.
pub(super) struct GridMap {
    /// Voxels of the source.
    pub source: Shape,
    /// Voxels of the target.
    pub target: Shape,
    /// Rows follow the source's axes, columns the target's.
    pub matrix: [[f64; 3]; 3],
    /// Source index of the target's first voxel.
    pub offset: [f64; 3],
}

/// One target axis that runs along one source axis: `source = scale · target + offset`.
#[derive(Clone, Copy, Debug)]
pub(super) struct AxisMap {
    /// The source axis.
    pub axis: usize,
    /// Source voxels along it.
    pub source: usize,
    /// Target voxels along it.
    pub target: usize,
    /// Source voxels for each target voxel; negative where the axes run against each other.
    pub scale: f64,
    /// Source index of the first target voxel.
    pub offset: f64,
}

impl GridMap {
    /// The map from the indices of `target` to those of `source`.
    pub fn between(source: &Geometry, target: &Geometry) -> Result<Self> {
        let Affine(rows) = source.affine.inverse().multiply(&target.affine);
        if !rows.iter().flatten().all(|x| x.is_finite()) {
            return Err(Error::Config(
                "the affine of the volume to resample cannot be inverted".into(),
            ));
        }
        Ok(Self {
            source: source.shape,
            target: target.shape,
            matrix: rows.map(|[i, j, k, _]| [i, j, k]),
            offset: rows.map(|row| row[3]),
        })
    }

    /// The map of each target axis, when all of them run along source axes.
    pub fn axes(&self) -> Option<[AxisMap; 3]> {
        let axes = [0, 1, 2].map(|t| self.main_source_axis(t));
        let mut used = [false; 3];
        axes.iter().for_each(|&axis| used[axis] = true);
        if used != [true; 3] {
            return None;
        }
        let mut maps = [0, 1, 2].map(|t| AxisMap {
            axis: axes[t],
            source: self.source[axes[t]],
            target: self.target[t],
            scale: self.matrix[axes[t]][t],
            offset: self.offset[axes[t]],
        });
        for (t, map) in maps.iter_mut().enumerate() {
            let others = (0..3).filter(|&other| other != t);
            let drifts = others.map(|o| self.matrix[map.axis][o] * last_index(self.target[o]));
            let (sum, spread) =
                drifts.fold((0.0, 0.0), |(sum, spread), d| (sum + d, spread + d.abs()));
            if spread > PARALLEL_DRIFT {
                return None;
            }
            map.offset += sum / 2.0;
        }
        Some(maps)
    }

    /// Source voxels that a target voxel is wide along each source axis: the spread of a box whose
    /// sides are the target's axes.
    pub fn widths(&self) -> [f64; 3] {
        self.matrix.map(norm)
    }

    fn main_source_axis(&self, target_axis: usize) -> usize {
        let reach = |s: usize| self.matrix[s][target_axis].abs();
        (1..3).fold(0, |best, s| if reach(s) > reach(best) { s } else { best })
    }
}

impl AxisMap {
    /// An axis laid onto itself.
    pub fn identity(axis: usize, length: usize) -> Self {
        Self {
            axis,
            source: length,
            target: length,
            scale: 1.0,
            offset: 0.0,
        }
    }

    /// Source coordinate of a target index.
    pub fn coordinate(&self, target: usize) -> f64 {
        snap(self.scale * target as f64 + self.offset)
    }

    /// The target indices whose coordinates lie in the source, half-voxel rim included.
    pub fn inside(&self) -> std::ops::Range<usize> {
        let mut inside = (0..self.target).filter(|&t| is_inside(self.coordinate(t), self.source));
        match inside.next() {
            Some(first) => first..inside.next_back().unwrap_or(first) + 1,
            None => 0..0,
        }
    }
}

/// Whether a coordinate lies on the source: from half a voxel before the first centre up to, but
/// without, half a voxel after the last (as ITK).
pub(super) fn is_inside(coordinate: f64, length: usize) -> bool {
    coordinate >= -0.5 && coordinate < length as f64 - 0.5
}

/// Rounds to 2⁻³⁰ of a voxel.
pub(super) fn snap(coordinate: f64) -> f64 {
    (coordinate + SNAPPING) - SNAPPING
}

fn last_index(length: usize) -> f64 {
    length.saturating_sub(1) as f64
}
