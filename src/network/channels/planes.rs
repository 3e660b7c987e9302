//! Planes of voxels as planes of cells: the channels that need no line of voxels.
//!
//! A row of voxels is looked at once, with the rows beside it, and added to the cells that it lies in while it is
//! in the processor's nearest cache. Of three planes the values are kept, of «flat» and «detail» one row.

use crate::lanes::{self, Lanes, Task};
use crate::network::card::Input;
use crate::network::normalize::Normalization;
use crate::volume::Image;
use crate::volume::coarse_grid::{Averaging, CoarseGrid};

/// Intensity, flat and second difference.
pub(super) const FIELDS: usize = 3;

/// Makes planes of voxels into planes of cells (intensity, flat, second difference), averaged along j and i.
pub(super) struct PlaneMaker<'a> {
    image: &'a Image,
    normalization: &'a Normalization,
    /// Of each grid, along i and along j.
    averaging: Vec<[Averaging; 2]>,
    /// Of each grid, cells along j that a row may lie in.
    at_once: Vec<usize>,
    /// Axes that count for «flat»: three voxels or more.
    flat_axes: [bool; 3],
    /// How much each axis counts for «detail»: nothing where it has few voxels or is coarsely sampled.
    detail_shares: [f32; 3],
}

/// Stored and normalised values of a plane.
#[derive(Default)]
struct Plane {
    real: Vec<f32>,
    normal: Vec<f32>,
}

/// What a thread uses again for run after run.
#[derive(Default)]
pub(super) struct Work {
    before: Plane,
    here: Plane,
    after: Plane,
    flat: Vec<f32>,
    detail: Vec<f32>,
    /// Of each grid.
    begun: Vec<Begun>,
}

/// Cells along j that some but not all rows were added to.
#[derive(Default)]
struct Begun {
    /// `[cell, those finished taking turns with those that begin][field][i]`.
    sums: Vec<f32>,
    /// The first cell along j that lacks rows.
    first: usize,
}

impl<'a> PlaneMaker<'a> {
    pub fn new(
        image: &'a Image,
        grids: &[CoarseGrid],
        normalization: &'a Normalization,
        input: &Input,
    ) -> Self {
        let spacing = image.geometry.spacing().mm();
        let flat_axes = image.shape().map(|n| n >= 3);
        // A hair less, so that rounding in an oblique affine takes in no axis at the limit.
        let detail_below = input.detail_below_mm - 1e-3;
        let detail_axes = [0, 1, 2].map(|a| flat_axes[a] && spacing[a] < detail_below);
        let detail_count = detail_axes.iter().filter(|counts| **counts).count();
        let share = 1.0 / detail_count.max(1) as f32;
        let averaging = grids.iter().map(|grid| [0, 1].map(|a| grid.averaging(a)));
        let averaging: Vec<[Averaging; 2]> = averaging.collect();
        Self {
            image,
            normalization,
            at_once: averaging
                .iter()
                .map(|[_, along_j]| along_j.overlapping())
                .collect(),
            averaging,
            flat_axes,
            detail_shares: detail_axes.map(|counts| if counts { share } else { 0.0 }),
        }
    }

    /// Of each grid the planes of cells of some planes that follow each other: `[plane][field][j][i]`.
    pub fn make(&self, planes: &[usize], work: &mut Work) -> Vec<Vec<f32>> {
        let cells = self.averaging.iter().map(|along| {
            let [mi, mj] = along.each_ref().map(|averaging| averaging.cells().len());
            vec![0.0; planes.len() * FIELDS * mi * mj]
        });
        let mut made = cells.collect();
        lanes::run(MakePlanes {
            maker: self,
            planes,
            work,
            made: &mut made,
        });
        made
    }

    /// Reads row `j` of plane `k`.
    #[inline(always)]
    fn read(&self, k: usize, j: usize, plane: &mut Plane) {
        let [ni, nj, _] = self.image.shape();
        let row = j * ni..(j + 1) * ni;
        let real = &mut plane.real[row.clone()];
        self.image.samples.read_run((k * nj + j) * ni, real);
        let normal = &mut plane.normal[row];
        normal.copy_from_slice(real);
        self.normalization.apply(normal);
    }
}

/// [`PlaneMaker::make`].
struct MakePlanes<'a, 'b> {
    maker: &'a PlaneMaker<'b>,
    planes: &'a [usize],
    work: &'a mut Work,
    made: &'a mut Vec<Vec<f32>>,
}

impl Task for MakePlanes<'_, '_> {
    /// The same sums with lanes of any width.
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let maker = self.maker;
        let [ni, nj, nk] = maker.image.shape();
        let last = nk - 1;
        let (Some(&first), Some(&end)) = (self.planes.first(), self.planes.last()) else {
            return;
        };
        let Work {
            before,
            here,
            after,
            flat,
            detail,
            begun,
        } = self.work;
        for plane in [&mut *before, here, after] {
            plane.real.resize(ni * nj, 0.0);
            plane.normal.resize(ni * nj, 0.0);
        }
        flat.resize(ni, 0.0);
        detail.resize(ni, 0.0);
        begun.resize_with(maker.averaging.len(), Begun::default);
        for j in 0..nj {
            maker.read(first.saturating_sub(1), j, before);
            maker.read(first, j, here);
        }
        for k in first..=end {
            let begun_of = begun.iter_mut().zip(&maker.at_once);
            begun_of.for_each(|(begun, &at_once)| begun.start(at_once, ni));
            for j in 0..nj {
                maker.read((k + 1).min(last), j, after);
                // The next neighbour; the last plane has only the one before.
                let next = if k < last { &*after } else { &*before };
                maker.flat([&here.real, &next.real], j, flat);
                maker.detail([&before.normal, &here.normal, &after.normal], j, detail);
                let fields = [&here.normal[j * ni..(j + 1) * ni], flat, detail];
                let grids = begun.iter_mut().zip(&maker.averaging);
                for ((begun, averaging), made) in grids.zip(&mut *self.made) {
                    let plane = made.len() / self.planes.len();
                    let cells = &mut made[(k - first) * plane..(k - first + 1) * plane];
                    begun.add(j, fields, averaging, cells);
                }
            }
            std::mem::swap(before, here);
            std::mem::swap(here, after);
        }
    }
}

impl PlaneMaker<'_> {
    /// 1 for each voxel of row `j` that equals its next neighbour on every axis that counts, else 0.
    #[inline(always)]
    fn flat(&self, [here, next]: [&[f32]; 2], j: usize, flat: &mut [f32]) {
        let [ni, nj, _] = self.image.shape();
        let row_of = |j: usize| j * ni..(j + 1) * ni;
        let row = &here[row_of(j)];
        // An axis that does not count compares a voxel with itself.
        let [counts_i, counts_j, counts_k] = self.flat_axes;
        let below = if counts_k { &next[row_of(j)] } else { row };
        let beside = match counts_j {
            true if j + 1 < nj => &here[row_of(j + 1)],
            true => &here[row_of(j - 1)],
            false => row,
        };
        let equal = |i: usize, other: f32| {
            let x = row[i];
            f32::from(u8::from(x == below[i] && x == beside[i] && x == other))
        };
        if !counts_i {
            (0..ni).for_each(|i| flat[i] = equal(i, row[i]));
            return;
        }
        let (inner, end) = flat.split_at_mut(ni - 1);
        let others = row[1..].iter().zip(row).zip(below).zip(beside);
        for (flat, (((other, x), below), beside)) in inner.iter_mut().zip(others) {
            let same = (x == below) & (x == beside) & (x == other);
            *flat = if same { 1.0 } else { 0.0 };
        }
        end[0] = equal(ni - 1, row[ni - 2]);
    }

    /// Mean over the axes that count of |2x − previous − next| for row `j`, neighbours clamped to the edge.
    #[inline(always)]
    fn detail(&self, [before, here, after]: [&[f32]; 3], j: usize, detail: &mut [f32]) {
        let [ni, nj, _] = self.image.shape();
        let row_of = |j: usize| &here[j * ni..(j + 1) * ni];
        let row = row_of(j);
        let beside = [row_of(j.saturating_sub(1)), row_of((j + 1).min(nj - 1))];
        let across = [before, after].map(|plane| &plane[j * ni..(j + 1) * ni]);
        let [share_i, share_j, share_k] = self.detail_shares;
        let along = |share: f32, x: f32, low: f32, high: f32| share * (2.0 * x - low - high).abs();
        let others = across[0]
            .iter()
            .zip(across[1])
            .zip(beside[0].iter().zip(beside[1]));
        for ((to, &x), ((k0, k1), (j0, j1))) in detail.iter_mut().zip(row).zip(others) {
            *to = along(share_k, x, *k0, *k1) + along(share_j, x, *j0, *j1);
        }
        if share_i == 0.0 {
            return;
        }
        let (inner, end) = (&mut detail[1..ni - 1], ni - 1);
        let others = row.iter().zip(&row[2..]);
        for ((to, &x), (low, high)) in inner.iter_mut().zip(&row[1..]).zip(others) {
            *to += along(share_i, x, *low, *high);
        }
        detail[0] += share_i * (row[0] - row[1]).abs();
        detail[end] += share_i * (row[end] - row[end - 1]).abs();
    }
}

impl Begun {
    /// Makes room for so many cells, and begins a plane.
    fn start(&mut self, at_once: usize, ni: usize) {
        self.first = 0;
        self.sums.resize(at_once * FIELDS * ni, 0.0);
    }

    /// Adds row `j` to the cells that it lies in, and finishes those that it is the last row of: averages them along
    /// i into the plane's `cells`, `[field][j][i]`.
    #[inline(always)]
    fn add(
        &mut self,
        j: usize,
        fields: [&[f32]; FIELDS],
        [along_i, along_j]: &[Averaging; 2],
        cells: &mut [f32],
    ) {
        let ni = fields[0].len();
        let [mi, mj] = [along_i, along_j].map(|along| along.cells().len());
        let turns = self.sums.len() / (FIELDS * ni);
        for cell in self.first..mj {
            let stretch = &along_j.cells()[cell];
            let Some(n) = j.checked_sub(stretch.start) else {
                break;
            };
            let weight = stretch.weights[n];
            let sums = &mut self.sums[cell % turns * FIELDS * ni..][..FIELDS * ni];
            for (sums, values) in sums.chunks_exact_mut(ni).zip(fields) {
                let values = sums.iter_mut().zip(values);
                if n == 0 {
                    values.for_each(|(sum, value)| *sum = weight * value);
                } else {
                    values.for_each(|(sum, value)| *sum += weight * value);
                }
            }
            if n + 1 == stretch.weights.len() {
                for (field, sums) in sums.chunks_exact(ni).enumerate() {
                    along_i.apply(sums, &mut cells[(field * mj + cell) * mi..][..mi]);
                }
                self.first = cell + 1;
            }
        }
    }
}
