//! A coarse grid over a volume, for networks: cubic cells along the volume's own axes.
//!
//! Going there averages with a triangle (noise is averaged, not aliased), coming back interpolates
//! linearly. Obliquity plays no part: cells follow i, j, k, so a turned header changes nothing.

use rayon::prelude::*;

use super::Volume;
use super::geometry::{Geometry, Shape};

/// Cells of `cell_mm` along i, j, k, centred on the volume.
#[derive(Clone, Debug, PartialEq)]
pub struct CoarseGrid {
    /// Cells along i, j, k.
    pub shape: Shape,
    /// Edge of a cell, mm.
    pub cell_mm: f64,
    fine: Shape,
    spacing: [f64; 3],
    /// Centre of cell 0 minus centre of voxel 0, mm.
    offset: [f64; 3],
}

/// For each cell along one axis: the voxels that it averages.
pub struct Averaging(Vec<Stretch>);

/// A run of voxels and their weights, which sum to 1.
pub struct Stretch {
    /// First voxel.
    pub start: usize,
    /// One weight a voxel.
    pub weights: Vec<f32>,
}

/// For each voxel along one axis: the lower of the two cells it lies between, and how far (0 to 1)
/// it is on the way to the upper one.
pub struct Between(Vec<(usize, f32)>);

impl CoarseGrid {
    /// Lays cells over a grid, as many as cover its field of view.
    pub fn over(geometry: &Geometry, cell_mm: f64) -> Self {
        let spacing = geometry.spacing().mm();
        let fine = geometry.shape;
        let axis = |a: usize| {
            let extent = fine[a] as f64 * spacing[a];
            // A hair less, so that rounding in an affine adds no cell.
            ((extent / cell_mm - 1e-6).ceil() as usize).max(1)
        };
        let shape = [axis(0), axis(1), axis(2)];
        let offset = [0, 1, 2].map(|a| {
            let voxels = (fine[a] - 1) as f64 * spacing[a];
            let cells = (shape[a] - 1) as f64 * cell_mm;
            (voxels - cells) / 2.0
        });
        Self {
            shape,
            cell_mm,
            fine,
            spacing,
            offset,
        }
    }

    /// Number of cells.
    pub fn cell_count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Voxels along i, j, k of the volume below.
    pub fn fine_shape(&self) -> Shape {
        self.fine
    }

    /// Weights of voxels in cells along one axis: a triangle as wide as a cell, or as a voxel where
    /// voxels are the larger ones.
    pub fn averaging(&self, axis: usize) -> Averaging {
        let width = self.cell_mm.max(self.spacing[axis]);
        let last = self.fine[axis] - 1;
        let stretch = |cell: usize| {
            let centre = self.offset[axis] + cell as f64 * self.cell_mm;
            let index = |mm: f64| (mm / self.spacing[axis]).clamp(0.0, last as f64);
            let start = index(centre - width).ceil() as usize;
            let end = index(centre + width).floor() as usize;
            let weight = |voxel: usize| {
                let distance = (centre - voxel as f64 * self.spacing[axis]).abs();
                (1.0 - distance / width).max(0.0)
            };
            let weights: Vec<f64> = (start..=end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            Stretch {
                start,
                weights: weights.iter().map(|w| (w / sum) as f32).collect(),
            }
        };
        Averaging((0..self.shape[axis]).map(stretch).collect())
    }

    /// Places of voxels between cells along one axis; beyond the outermost centres the edge's value
    /// holds.
    pub fn between(&self, axis: usize) -> Between {
        let last = self.shape[axis] - 1;
        let place = |voxel: usize| {
            let mm = voxel as f64 * self.spacing[axis] - self.offset[axis];
            let cell = (mm / self.cell_mm).clamp(0.0, last as f64);
            let lower = (cell.floor() as usize).min(last.saturating_sub(1));
            (lower, (cell - lower as f64) as f32)
        };
        Between((0..self.fine[axis]).map(place).collect())
    }
}

impl Averaging {
    /// One stretch of voxels a cell.
    pub fn cells(&self) -> &[Stretch] {
        &self.0
    }

    /// Averages a line of voxels into a line of cells.
    pub fn apply(&self, voxels: &[f32], cells: &mut [f32]) {
        for (cell, stretch) in cells.iter_mut().zip(&self.0) {
            let run = &voxels[stretch.start..stretch.start + stretch.weights.len()];
            *cell = run.iter().zip(&stretch.weights).map(|(v, w)| v * w).sum();
        }
    }
}

impl Between {
    /// Where a voxel lies: the lower cell and the share of the upper one.
    pub fn place(&self, voxel: usize) -> (usize, f32) {
        self.0[voxel]
    }

    /// Runs of voxels that lie between the same two cells: `(lower cell, voxels)`.
    pub fn runs(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> + '_ {
        let mut start = 0;
        std::iter::from_fn(move || {
            let &(cell, _) = self.0.get(start)?;
            let length = self.0[start..].iter().take_while(|p| p.0 == cell).count();
            let run = start..start + length;
            start += length;
            Some((cell, run))
        })
    }
}

/// A value for every cell of a coarse grid, `i` fastest.
#[derive(Clone, Debug)]
pub struct CoarseField {
    /// Where the cells lie.
    pub grid: CoarseGrid,
    /// One value a cell, `i` fastest.
    pub values: Vec<f32>,
}

/// Reads a field along rows of voxels; made once for a field, shared by threads.
pub struct RowReader<'a> {
    field: &'a CoarseField,
    j: Between,
    k: Between,
}

impl CoarseField {
    /// A value for every voxel of the volume below, from the field's linear interpolation.
    pub fn map_voxels<T: Copy + Default + Send>(
        &self,
        geometry: &Geometry,
        value: impl Fn(f32) -> T + Sync,
    ) -> Volume<T> {
        let [ni, nj, nk] = geometry.shape;
        let (rows, along_i) = (self.rows(), self.grid.between(0));
        let mut voxels = vec![T::default(); ni * nj * nk];
        let planes = voxels.par_chunks_mut(ni * nj).enumerate();
        planes.for_each(|(k, plane)| {
            let mut cells = vec![0.0; self.grid.shape[0]];
            for (j, row) in plane.chunks_mut(ni).enumerate() {
                rows.read(j, k, &mut cells);
                for (cell, run) in along_i.runs() {
                    let (low, high) = (cells[cell], cells[(cell + 1).min(cells.len() - 1)]);
                    for i in run {
                        row[i] = value(low + along_i.place(i).1 * (high - low));
                    }
                }
            }
        });
        Volume {
            voxels,
            geometry: geometry.clone(),
        }
    }

    /// A reader for rows of voxels.
    pub fn rows(&self) -> RowReader<'_> {
        RowReader {
            field: self,
            j: self.grid.between(1),
            k: self.grid.between(2),
        }
    }
}

impl RowReader<'_> {
    /// Values at the cells' centres along i, for the row of voxels `(j, k)`: interpolated along j
    /// and k only. What lies between two of them is linear along i.
    pub fn read(&self, j: usize, k: usize, row: &mut [f32]) {
        let [ni, nj, nk] = self.field.grid.shape;
        let ((j0, fj), (k0, fk)) = (self.j.place(j), self.k.place(k));
        let (j1, k1) = ((j0 + 1).min(nj - 1), (k0 + 1).min(nk - 1));
        let line = |j: usize, k: usize| {
            let start = ni * (j + nj * k);
            &self.field.values[start..start + ni]
        };
        let corners = [line(j0, k0), line(j1, k0), line(j0, k1), line(j1, k1)];
        let weights = [
            (1.0 - fj) * (1.0 - fk),
            fj * (1.0 - fk),
            (1.0 - fj) * fk,
            fj * fk,
        ];
        for (i, value) in row.iter_mut().enumerate() {
            *value = (0..4).map(|c| weights[c] * corners[c][i]).sum();
        }
    }
}
