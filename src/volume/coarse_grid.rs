//! A coarse grid over a volume, for networks: cubic cells along the volume's own axes.
//!
//! Going there averages with a triangle (noise is averaged, not aliased), coming back interpolates
//! linearly. Obliquity plays no part: cells follow i, j, k, so a turned header changes nothing.

use std::ops::Range;

use rayon::prelude::*;

use super::geometry::{Geometry, Shape};
use super::{BoundingBox, Volume};

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
pub struct Between {
    places: Vec<(usize, f32)>,
    /// Runs of voxels that lie between the same two cells, and the lower one of these.
    runs: Vec<(usize, Range<usize>)>,
}

impl CoarseGrid {
    /// Lays cells over a grid, as many as cover its field of view.
    pub fn over(geometry: &Geometry, cell_mm: f64) -> Self {
        let spacing = geometry.spacing().mm();
        let fine = geometry.shape;
        let axis = |a: usize| {
            let extent = fine[a] as f64 * spacing[a];
            // A thousandth of a cell less: affines are stored as f32, and the rounding of an oblique
            // one must add no cell.
            ((extent / cell_mm - 1e-3).ceil() as usize).max(1)
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

    /// Some of the cells, `start` to `end` (exclusive) along i, j, k, as a grid of their own, and the
    /// voxels that it lies over: those that the cells average, and `margin_mm` more on every side.
    pub fn part(&self, start: Shape, end: Shape, margin_mm: f64) -> (BoundingBox, Self) {
        let centre = |axis: usize, cell: usize| self.offset[axis] + cell as f64 * self.cell_mm;
        let voxel = |axis: usize, mm: f64| {
            (mm / self.spacing[axis]).clamp(0.0, (self.fine[axis] - 1) as f64)
        };
        let reach = |axis: usize| self.cell_mm.max(self.spacing[axis]) + margin_mm;
        let bounds = BoundingBox {
            start: [0, 1, 2].map(|a| voxel(a, centre(a, start[a]) - reach(a)).floor() as usize),
            end: [0, 1, 2].map(|a| voxel(a, centre(a, end[a] - 1) + reach(a)).ceil() as usize + 1),
        };
        let part = Self {
            shape: [0, 1, 2].map(|a| end[a] - start[a]),
            cell_mm: self.cell_mm,
            fine: bounds.shape(),
            spacing: self.spacing,
            offset: [0, 1, 2]
                .map(|a| centre(a, start[a]) - bounds.start[a] as f64 * self.spacing[a]),
        };
        (bounds, part)
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

    /// Place of a voxel's centre along one axis, in cells from the centre of cell 0.
    pub fn place(&self, axis: usize, voxel: usize) -> f64 {
        (voxel as f64 * self.spacing[axis] - self.offset[axis]) / self.cell_mm
    }

    /// Places of another grid's cells, over the same volume, between these along one axis; beyond the
    /// outermost centres the edge's value holds.
    pub fn between_cells_of(&self, other: &Self, axis: usize) -> Between {
        let last = self.shape[axis] - 1;
        let place = |cell: usize| {
            let mm = other.offset[axis] + cell as f64 * other.cell_mm - self.offset[axis];
            let cell = (mm / self.cell_mm).clamp(0.0, last as f64);
            let lower = (cell.floor() as usize).min(last.saturating_sub(1));
            (lower, (cell - lower as f64) as f32)
        };
        Between::of((0..other.shape[axis]).map(place).collect())
    }

    /// Places of voxels between cells along one axis; beyond the outermost centres the edge's value
    /// holds.
    pub fn between(&self, axis: usize) -> Between {
        let last = self.shape[axis] - 1;
        let place = |voxel: usize| {
            let cell = self.place(axis, voxel).clamp(0.0, last as f64);
            let lower = (cell.floor() as usize).min(last.saturating_sub(1));
            (lower, (cell - lower as f64) as f32)
        };
        Between::of((0..self.fine[axis]).map(place).collect())
    }
}

impl Averaging {
    /// One stretch of voxels a cell.
    pub fn cells(&self) -> &[Stretch] {
        &self.0
    }

    /// Most cells that one voxel lies in.
    pub fn overlapping(&self) -> usize {
        // Cells start in order.
        let begun = self.0.iter().enumerate().map(|(n, cell)| {
            let end = cell.start + cell.weights.len();
            self.0[n..].partition_point(|other| other.start < end)
        });
        begun.max().unwrap_or(0)
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
    fn of(places: Vec<(usize, f32)>) -> Self {
        let mut start = 0;
        let runs = places.chunk_by(|a, b| a.0 == b.0).map(|run| {
            start += run.len();
            (run[0].0, start - run.len()..start)
        });
        Self {
            runs: runs.collect(),
            places,
        }
    }

    /// Where a voxel lies: the lower cell and the share of the upper one.
    pub fn place(&self, voxel: usize) -> (usize, f32) {
        self.places[voxel]
    }

    /// Values at all places, from those of the cells.
    pub fn read(&self, cells: &[f32], values: &mut [f32]) {
        for (value, &(low, share)) in values.iter_mut().zip(&self.places) {
            let high = (low + 1).min(cells.len() - 1);
            *value = cells[low] + share * (cells[high] - cells[low]);
        }
    }

    /// What a function makes of the values at all places, from those of the cells.
    pub fn map<T>(&self, cells: &[f32], places: &mut [T], value: impl Fn(f32) -> T) {
        for (cell, run) in &self.runs {
            let [low, high] = self.ends(*cell, cells);
            for (to, (_, share)) in places[run.clone()]
                .iter_mut()
                .zip(&self.places[run.clone()])
            {
                *to = value(low + share * (high - low));
            }
        }
    }

    /// 1 at each place whose value is above 0, else 0, from the values of the cells.
    pub fn above_zero(&self, cells: &[f32], places: &mut [u8]) {
        for (cell, run) in &self.runs {
            let [low, high] = self.ends(*cell, cells);
            let places = &mut places[run.clone()];
            // Between two cells of one side there is nothing of the other.
            if (low > 0.0) == (high > 0.0) {
                places.fill(u8::from(low > 0.0));
                continue;
            }
            for (to, (_, share)) in places.iter_mut().zip(&self.places[run.clone()]) {
                *to = u8::from(low + share * (high - low) > 0.0);
            }
        }
    }

    /// The values of a cell and of the next.
    fn ends(&self, cell: usize, cells: &[f32]) -> [f32; 2] {
        [cells[cell], cells[(cell + 1).min(cells.len() - 1)]]
    }

    /// Runs of voxels that lie between the same two cells: `(lower cell, voxels)`.
    pub fn runs(&self) -> &[(usize, Range<usize>)] {
        &self.runs
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
    /// The field at the cells of another grid over the same volume, by linear interpolation.
    pub fn on(&self, grid: &CoarseGrid) -> Self {
        let [along_i, j, k] = [0, 1, 2].map(|axis| self.grid.between_cells_of(grid, axis));
        let rows = RowReader { field: self, j, k };
        let [ni, nj, _] = grid.shape;
        let mut values = vec![0.0; grid.cell_count()];
        let planes = values.par_chunks_mut(ni * nj).enumerate();
        planes.for_each(|(k, plane)| {
            let mut cells = vec![0.0; self.grid.shape[0]];
            for (j, row) in plane.chunks_mut(ni).enumerate() {
                rows.read(j, k, &mut cells);
                along_i.read(&cells, row);
            }
        });
        Self {
            grid: grid.clone(),
            values,
        }
    }

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
                along_i.map(&cells, row, &value);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{grid, oblique_grid, volume};

    fn average(grid: &CoarseGrid, fine: &[f32]) -> Vec<f32> {
        let mut values = fine.to_vec();
        let mut shape = grid.fine_shape();
        for axis in 0..3 {
            let cells = grid.averaging(axis);
            let stride: usize = shape[..axis].iter().product();
            let (from, to) = (shape[axis], grid.shape[axis]);
            let lines = values.len() / from;
            let mut next = vec![0.0; lines * to];
            for line in 0..lines {
                let start = |length: usize| line % stride + line / stride * stride * length;
                let voxels: Vec<f32> = (0..from)
                    .map(|n| values[start(from) + n * stride])
                    .collect();
                let mut averaged = vec![0.0; to];
                cells.apply(&voxels, &mut averaged);
                for (n, value) in averaged.iter().enumerate() {
                    next[start(to) + n * stride] = *value;
                }
            }
            values = next;
            shape[axis] = to;
        }
        values
    }

    #[test]
    fn cells_cover_the_field_of_view_and_are_centred_on_it() {
        let cells = CoarseGrid::over(&grid([21, 10, 3], [1.0, 0.5, 7.0]), 4.0);
        // 21 mm, 5 mm, 21 mm.
        assert_eq!(cells.shape, [6, 2, 6]);
        // Centres 0..20 mm and -0..20 mm: both middle at 10 mm.
        assert!((cells.offset[0] - (10.0 - 10.0)).abs() < 1e-12);
        assert!((cells.offset[1] - (2.25 - 2.0)).abs() < 1e-12);
        assert!((cells.offset[2] - (7.0 - 10.0)).abs() < 1e-12);
    }

    #[test]
    fn rounding_in_an_affine_adds_no_cell() {
        let spacing = 4.0 + 1e-9;
        assert_eq!(
            CoarseGrid::over(&grid([5, 5, 5], [spacing; 3]), 4.0).shape,
            [5, 5, 5]
        );
    }

    #[test]
    fn an_oblique_affine_in_single_precision_adds_no_cell() {
        // 96 voxels of 3 mm are 72 cells of 4 mm exactly; f32 makes the voxels a little larger.
        let spacing = [3.000_000_4, 3.0, 3.0];
        let cells = CoarseGrid::over(&grid([96, 96, 97], spacing), 4.0);
        assert_eq!(cells.shape, [72, 72, 73]);
    }

    #[test]
    fn an_average_of_a_ramp_and_back_is_the_ramp_away_from_the_edge() {
        for geometry in [
            grid([40, 60, 9], [1.0, 0.7, 3.0]),
            oblique_grid([40, 60, 9], [1.0, 0.7, 3.0]),
        ] {
            let ramp = volume(geometry.clone(), |[i, j, k]| (i + 2 * j + 3 * k) as f32);
            let cells = CoarseGrid::over(&geometry, 4.0);
            let field = CoarseField {
                values: average(&cells, &ramp.voxels),
                grid: cells,
            };
            let back = field.map_voxels(&geometry, |value| value);
            for index in [[20, 30, 4], [12, 20, 4], [25, 40, 4]] {
                let n = geometry.offset(index);
                assert!((back.voxels[n] - ramp.voxels[n]).abs() < 0.05, "{index:?}");
            }
        }
    }

    #[test]
    fn a_part_of_a_grid_averages_as_the_whole_does() {
        let geometry = grid([40, 50, 13], [0.9, 0.7, 3.0]);
        let ramp = volume(geometry.clone(), |[i, j, k]| {
            (i * i + 2 * j + 30 * k) as f32
        });
        let whole = CoarseGrid::over(&geometry, 2.0);
        let (start, end) = ([3, 0, 5], [11, 9, whole.shape[2]]);
        let (bounds, part) = whole.part(start, end, 2.0);
        assert!(bounds.fits(geometry.shape) && part.fine_shape() == bounds.shape());
        let all = average(&whole, &ramp.voxels);
        let some = average(&part, &ramp.crop(&bounds).voxels);
        assert_eq!(some.len(), 8 * 9 * (whole.shape[2] - 5));
        for (n, value) in some.iter().enumerate() {
            let index = [n % 8 + 3, n / 8 % 9, n / 72 + 5];
            let same = all[index[0] + whole.shape[0] * (index[1] + whole.shape[1] * index[2])];
            assert!((value - same).abs() < 1e-2, "{index:?}: {value} {same}");
        }
    }

    #[test]
    fn a_field_is_read_between_its_cells_by_a_finer_grid() {
        let geometry = grid([40, 50, 13], [1.0, 0.7, 3.0]);
        let coarse = CoarseGrid::over(&geometry, 4.0);
        let values = (0..coarse.cell_count()).map(|n| (n % coarse.shape[0]) as f32);
        let field = CoarseField {
            values: values.collect(),
            grid: coarse,
        };
        let fine = field.on(&CoarseGrid::over(&geometry, 2.0));
        // Twenty fine cells over ten: a quarter of a cell outside, then by halves.
        assert_eq!(fine.values[..4], [0.0, 0.25, 0.75, 1.25]);
        assert_eq!(fine.values[fine.grid.shape[0] - 1], 9.0);
    }

    #[test]
    fn weights_of_a_cell_sum_to_one_even_where_voxels_are_larger() {
        let cells = CoarseGrid::over(&grid([3, 200, 1], [9.0, 0.3, 2.0]), 4.0);
        for axis in 0..3 {
            for stretch in cells.averaging(axis).cells() {
                assert!((stretch.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert!(stretch.start + stretch.weights.len() <= cells.fine_shape()[axis]);
            }
        }
    }

    #[test]
    fn what_is_above_zero_between_cells_is_what_their_interpolation_says() {
        let cells = CoarseGrid::over(&grid([50, 1, 7], [0.9, 1.0, 5.0]), 4.0);
        for axis in 0..3 {
            let between = cells.between(axis);
            let values: Vec<f32> = (0..cells.shape[axis])
                .map(|n| [2.0, 1.0, -3.0, 0.0, 0.0, 5.0, -0.5][n % 7])
                .collect();
            let mut expected = vec![0; cells.fine_shape()[axis]];
            let mut found = expected.clone();
            between.map(&values, &mut expected, |value| u8::from(value > 0.0));
            between.above_zero(&values, &mut found);
            assert_eq!(found, expected, "{axis}");
        }
    }

    #[test]
    fn runs_between_cells_cover_every_voxel_once() {
        let cells = CoarseGrid::over(&grid([50, 1, 7], [0.9, 1.0, 5.0]), 4.0);
        for axis in 0..3 {
            let between = cells.between(axis);
            let voxels: Vec<usize> = between
                .runs()
                .iter()
                .flat_map(|(_, run)| run.clone())
                .collect();
            assert_eq!(voxels, (0..cells.fine_shape()[axis]).collect::<Vec<_>>());
        }
    }
}
