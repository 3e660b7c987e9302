//! Where something ends along the lines of a scan's own grid, and how abruptly: averaged about each cell.
//!
//! Where a tool blanked a part of the body, the first voxel that it left is tissue like those behind it;
//! skin rises over a voxel or two. Resampling wipes that out.

mod air;
mod constant;

use rayon::prelude::*;

pub(super) use air::air_edge;
pub(super) use constant::abrupt;

use crate::lanes::{self, Lanes, Task};
use crate::volume::coarse_grid::CoarseGrid;
use crate::volume::{Image, Shape};

/// Slabs that are looked through before their ends are put into cells; bounds the memory.
const SLABS_AT_ONCE: usize = 64;
/// Lines that are passed over together where none of them has an end.
const LINES_AT_ONCE: usize = 64;

/// What counts as an end along a line.
trait Rule: Sync {
    /// Makes the values of a slab into those that are looked at.
    fn prepare(&self, slab: &mut [f32]);

    /// Looks along `across` lines that lie beside each other, with room that is used again: calls
    /// `found` with step, line and abruptness of each end.
    fn look(
        &self,
        line: Line,
        values: &[f32],
        across: usize,
        room: &mut Vec<u32>,
        found: impl FnMut(usize, usize, f32),
    );
}

/// [`Rule::look`] with the processor's widest registers, along lines of values `across` of which lie side by side.
fn look(
    rule: &impl Rule,
    line: Line,
    (values, across): (&[f32], usize),
    room: &mut Vec<u32>,
    found: impl FnMut(usize, usize, f32),
) {
    lanes::run(Look {
        rule,
        line,
        values,
        across,
        room,
        found,
    });
}

/// What [`look`] gets.
struct Look<'a, R, F> {
    rule: &'a R,
    line: Line,
    values: &'a [f32],
    across: usize,
    room: &'a mut Vec<u32>,
    found: F,
}

impl<R: Rule, F: FnMut(usize, usize, f32)> Task for Look<'_, R, F> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { rule, line, .. } = self;
        rule.look(line, self.values, self.across, self.room, self.found);
    }
}

/// How far a rule looks [mm].
struct Reach {
    run_mm: f64,
    reach_mm: f64,
    below_mm: f64,
}

/// Voxels that something lasts, and voxels beyond it that are looked at, along one axis.
#[derive(Clone, Copy)]
struct Line {
    run: usize,
    reach: usize,
}

impl Reach {
    /// Along each axis that is sampled finely enough and long enough.
    fn lines(&self, image: &Image) -> [Option<Line>; 3] {
        let spacing = image.geometry.spacing().mm();
        // A hair less, so that rounding in an oblique affine takes in no axis at the limit.
        let below = self.below_mm - 1e-3;
        [0, 1, 2].map(|axis| {
            let run = ((self.run_mm / spacing[axis]).round_ties_even() as usize + 1).max(3);
            let reach = ((self.reach_mm / spacing[axis]).round_ties_even() as usize).max(2);
            let counts = spacing[axis] < below && image.shape()[axis] >= run + reach;
            counts.then_some(Line { run, reach })
        })
    }
}

/// Mean abruptness of the ends about each cell of some grids, 0 where there are none; `i` fastest.
///
/// An end counts in the two nearest cells of each axis, by its distance; `prior` ends of no abruptness
/// count everywhere.
fn mean_abruptness(
    image: &Image,
    grids: &[CoarseGrid],
    reach: &Reach,
    rule: &impl Rule,
    prior: f32,
) -> Vec<Vec<f32>> {
    let lines = reach.lines(image);
    let sums = grids.iter().map(|grid| Sums::new(grid, image.shape()));
    let mut sums: Vec<Sums> = sums.collect();
    let [_, nj, nk] = image.shape();
    if lines[0].is_some() || lines[1].is_some() {
        add_all(&mut sums, nk, |work, k| {
            ends_in_plane(image, k, &lines, rule, work)
        });
    }
    if let Some(line) = lines[2] {
        add_all(&mut sums, nj, |work, j| {
            ends_along_k(image, j, line, rule, work)
        });
    }
    sums.iter().map(|sums| sums.mean(prior)).collect()
}

/// Adds the ends of slabs 0 to `count` − 1, in order whatever the number of threads.
fn add_all(sums: &mut [Sums], count: usize, ends: impl Fn(&mut Work, usize) -> Vec<End> + Sync) {
    let slabs: Vec<usize> = (0..count).collect();
    let look = |some: &[usize]| -> Vec<Vec<End>> {
        let some = some.par_iter();
        some.map_init(Work::default, |work, &slab| ends(work, slab))
            .collect()
    };
    let mut add = |found: &[Vec<End>]| {
        // One thread for each grid.
        let each = sums.par_iter_mut();
        each.for_each(|sums| found.iter().flatten().for_each(|end| sums.add(end)));
    };
    let mut found: Vec<Vec<End>> = Vec::new();
    for some in slabs.chunks(SLABS_AT_ONCE) {
        // What was found before is added meanwhile.
        let ((), next) = rayon::join(|| add(&found), || look(some));
        found = next;
    }
    add(&found);
}

/// The last voxel of a constant or of air, and how abruptly that ends.
struct End {
    voxel: [u32; 3],
    abruptness: f32,
}

/// What a thread uses again for slab after slab.
#[derive(Default)]
struct Work {
    slab: Vec<f32>,
    turned: Vec<f32>,
    room: Vec<u32>,
}

fn ends_in_plane(
    image: &Image,
    k: usize,
    lines: &[Option<Line>; 3],
    rule: &impl Rule,
    work: &mut Work,
) -> Vec<End> {
    let [ni, nj, _] = image.shape();
    let Work { slab, turned, room } = work;
    slab.resize(ni * nj, 0.0);
    image.samples.read_run(k * ni * nj, slab);
    rule.prepare(slab);
    let mut ends = Vec::new();
    let mut push = |i: usize, j: usize, abruptness| {
        ends.push(End {
            voxel: [i as u32, j as u32, k as u32],
            abruptness,
        });
    };
    if let Some(line) = lines[0] {
        // Turned, so that lines lie beside each other here too.
        turned.resize(ni * nj, 0.0);
        transpose(slab, ni, turned);
        look(rule, line, (turned, nj), room, &mut push);
    }
    if let Some(line) = lines[1] {
        look(rule, line, (slab, ni), room, |j, i, abruptness| {
            push(i, j, abruptness);
        });
    }
    ends
}

/// Puts rows of `ni` values side by side as columns, in squares whose lines stay in the cache.
fn transpose(rows: &[f32], ni: usize, columns: &mut [f32]) {
    const SIDE: usize = 16;
    let nj = rows.len() / ni;
    for j in (0..nj).step_by(SIDE) {
        let height = SIDE.min(nj - j);
        for i in (0..ni).step_by(SIDE) {
            let square = columns[i * nj..].chunks_mut(nj).take(SIDE.min(ni - i));
            for (n, column) in square.enumerate() {
                let values = rows[j * ni + i + n..].iter().step_by(ni);
                let column = column[j..j + height].iter_mut();
                column.zip(values).for_each(|(to, value)| *to = *value);
            }
        }
    }
}

fn ends_along_k(
    image: &Image,
    j: usize,
    line: Line,
    rule: &impl Rule,
    work: &mut Work,
) -> Vec<End> {
    let [ni, nj, nk] = image.shape();
    let Work { slab, room, .. } = work;
    slab.resize(ni * nk, 0.0);
    for (k, row) in slab.chunks_exact_mut(ni).enumerate() {
        image.samples.read_run(ni * (j + nj * k), row);
    }
    rule.prepare(slab);
    let mut ends = Vec::new();
    look(rule, line, (slab, ni), room, |k, i, abruptness| {
        ends.push(End {
            voxel: [i as u32, j as u32, k as u32],
            abruptness,
        });
    });
    ends
}

/// The two nearest cells along an axis, none for one outside, and a voxel's weight in them.
type Near = [Option<(usize, f64)>; 2];

/// Sums over ends about each cell: of abruptness times weight, and of weights.
struct Sums {
    /// Cells of the grid.
    shape: Shape,
    /// Of each voxel along each axis.
    near: [Vec<Near>; 3],
    abruptness: Vec<f64>,
    weight: Vec<f64>,
}

impl Sums {
    /// None yet, of a volume of `voxels`.
    fn new(grid: &CoarseGrid, voxels: Shape) -> Self {
        let near = |axis: usize, voxel: usize| {
            let place = grid.place(axis, voxel);
            let low = place.floor();
            [(low, 1.0 - (place - low)), (low + 1.0, place - low)].map(|(cell, weight)| {
                (cell >= 0.0 && cell < grid.shape[axis] as f64).then_some((cell as usize, weight))
            })
        };
        Self {
            shape: grid.shape,
            near: [0, 1, 2].map(|axis| (0..voxels[axis]).map(|n| near(axis, n)).collect()),
            abruptness: vec![0.0; grid.cell_count()],
            weight: vec![0.0; grid.cell_count()],
        }
    }

    fn add(&mut self, end: &End) {
        let shape = self.shape;
        let [along_i, along_j, along_k] =
            [0, 1, 2].map(|axis| self.near[axis][end.voxel[axis] as usize]);
        for (k, wk) in along_k.into_iter().flatten() {
            for (j, wj) in along_j.into_iter().flatten() {
                for (i, wi) in along_i.into_iter().flatten() {
                    let (cell, weight) = (i + shape[0] * (j + shape[1] * k), wi * wj * wk);
                    self.abruptness[cell] += weight * f64::from(end.abruptness);
                    self.weight[cell] += weight;
                }
            }
        }
    }

    fn mean(&self, prior: f32) -> Vec<f32> {
        let cells = self.abruptness.iter().zip(&self.weight);
        cells
            .map(|(sum, weight)| (sum / (weight + f64::from(prior))) as f32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Normalization;
    use crate::network::card::{AbruptRule, AirEdgeRule};
    use crate::ops::phantom::grid;
    use crate::volume::Samples;

    /// Both channels of 70×12×12 mm that are 1 from voxel `from` of an axis on, else 0, by `[i, j, k]`.
    fn both(axis: usize, from: usize) -> [impl Fn([usize; 3]) -> f32; 2] {
        let geometry = grid([70, 12, 12], [1.0; 3]);
        let index = |n: usize| [n % 70, n / 70 % 12, n / 840];
        let value = |n: usize| f32::from(u8::from(index(n)[axis] >= from));
        let image = Image {
            samples: Samples::F32((0..geometry.voxel_count()).map(value).collect()),
            geometry,
        };
        let grids = [CoarseGrid::over(&image.geometry, 4.0)];
        let normalization = Normalization::of_nothing();
        let constant = AbruptRule {
            run_mm: 3.0,
            reach_mm: 5.0,
            below_mm: 3.0,
            most: 1.5,
            prior: 0.5,
        };
        let air = AirEdgeRule::for_tests();
        [
            abrupt(&image, &grids, &constant),
            air_edge(&image, &grids, &normalization, &air),
        ]
        .map(|mut found| {
            let found = found.remove(0);
            let [mi, mj, _] = grids[0].shape;
            move |[i, j, k]: [usize; 3]| found[i + mi * (j + mj * k)]
        })
    }

    #[test]
    fn ends_are_found_along_every_axis_and_in_lines_far_apart() {
        for axis in [1, 2] {
            // Voxels 5 and 6 lie between cells 0, 1 and 2, nearest to cell 1.
            for channel in both(axis, 6) {
                let middle = [2, 1, 1];
                assert!(channel(middle) > 0.9, "{axis}");
                for i in 3..16 {
                    assert!((channel([i, 1, 1]) - channel(middle)).abs() < 1e-5, "{i}");
                }
                let mut before = middle;
                before[axis] = 0;
                assert!(channel(before) < channel(middle));
            }
        }
        // Cells 15 and 16 have voxels 63 and 64 between them.
        for channel in both(0, 64) {
            for i in 0..18 {
                assert_eq!(channel([i, 1, 1]) > 0.5, [15, 16].contains(&i), "{i}");
            }
        }
    }
}
