//! The channel «abrupt»: where a constant ends, and how abruptly.
//!
//! Where the air of a scan was set to one value, skin rises out of it over a voxel or two: partial
//! volume. Where a tool blanked a part of the body, the first voxel that it left is tissue like those
//! behind it. Resampling wipes that out, so it is looked at along the lines of the scan's own grid.

use rayon::prelude::*;

use super::card::AbruptRule;
use crate::volume::Image;
use crate::volume::coarse_grid::CoarseGrid;

/// Slabs that are looked through before their ends are put into cells; bounds the memory.
const SLABS_AT_ONCE: usize = 64;
/// Lines that are passed over together where none of them has an end.
const LINES_AT_ONCE: usize = 64;

/// Mean abruptness of the ends of constants about each cell, 0 where there are none; `i` fastest.
///
/// An end's abruptness is the change from the constant to the next voxel over the mean change to those
/// behind it (see [`AbruptRule`]). It counts in the two nearest cells of each axis, by its distance.
pub(super) fn abrupt(image: &Image, grid: &CoarseGrid, rule: &AbruptRule) -> Vec<f32> {
    let spacing = image.geometry.spacing().mm();
    // A hair less, so that rounding in an oblique affine takes in no axis at the limit.
    let below = rule.below_mm - 1e-3;
    let lines = [0, 1, 2].map(|axis| {
        let run = ((rule.run_mm / spacing[axis]).round_ties_even() as usize + 1).max(3);
        let reach = ((rule.reach_mm / spacing[axis]).round_ties_even() as usize).max(2);
        let counts = spacing[axis] < below && image.shape()[axis] >= run + reach;
        counts.then_some(Line {
            run,
            reach,
            most: rule.most,
        })
    });
    let mut sums = Sums::new(grid);
    let [_, nj, nk] = image.shape();
    if lines[0].is_some() || lines[1].is_some() {
        sums.add_all(nk, |work, k| ends_in_plane(image, k, &lines, work));
    }
    if let Some(line) = &lines[2] {
        sums.add_all(nj, |work, j| ends_along_k(image, j, line, work));
    }
    sums.mean(rule.prior)
}

/// The last voxel of a constant, and how abruptly it ends.
struct End {
    voxel: [u32; 3],
    abruptness: f32,
}

/// Voxels that a constant lasts, and voxels beyond it that are looked at, along one axis.
struct Line {
    run: usize,
    reach: usize,
    most: f32,
}

/// What a thread uses again for slab after slab.
#[derive(Default)]
struct Work {
    slab: Vec<f32>,
    turned: Vec<f32>,
    same: Vec<u32>,
}

fn ends_in_plane(image: &Image, k: usize, lines: &[Option<Line>; 3], work: &mut Work) -> Vec<End> {
    let [ni, nj, _] = image.shape();
    let Work { slab, turned, same } = work;
    slab.resize(ni * nj, 0.0);
    image.samples.read_run(k * ni * nj, slab);
    let mut ends = Vec::new();
    let mut push = |i: usize, j: usize, abruptness| {
        ends.push(End {
            voxel: [i as u32, j as u32, k as u32],
            abruptness,
        });
    };
    if let Some(line) = &lines[0] {
        // Turned, so that lines lie beside each other here too.
        turned.resize(ni * nj, 0.0);
        for (j, row) in slab.chunks_exact(ni).enumerate() {
            for (value, turned) in row.iter().zip(turned[j..].iter_mut().step_by(nj)) {
                *turned = *value;
            }
        }
        line.look(turned, nj, same, &mut push);
    }
    if let Some(line) = &lines[1] {
        line.look(slab, ni, same, |j, i, abruptness| push(i, j, abruptness));
    }
    ends
}

fn ends_along_k(image: &Image, j: usize, line: &Line, work: &mut Work) -> Vec<End> {
    let [ni, nj, nk] = image.shape();
    let Work { slab, same, .. } = work;
    slab.resize(ni * nk, 0.0);
    for (k, row) in slab.chunks_exact_mut(ni).enumerate() {
        image.samples.read_run(ni * (j + nj * k), row);
    }
    let mut ends = Vec::new();
    line.look(slab, ni, same, |k, i, abruptness| {
        ends.push(End {
            voxel: [i as u32, j as u32, k as u32],
            abruptness,
        });
    });
    ends
}

impl Line {
    /// Looks along `across` lines that lie beside each other: `(step, line, abruptness)` of each end.
    ///
    /// `same` is overwritten: voxels up to the step before that hold one value, of each line.
    fn look(
        &self,
        values: &[f32],
        across: usize,
        same: &mut Vec<u32>,
        mut found: impl FnMut(usize, usize, f32),
    ) {
        let steps = values.len() / across;
        same.clear();
        same.resize(across, 1);
        for step in 1..steps {
            let (before, here) = values[(step - 1) * across..].split_at(across);
            let here = &here[..across];
            for start in (0..across).step_by(LINES_AT_ONCE) {
                let some = start..(start + LINES_AT_ONCE).min(across);
                let (before, here) = (&before[some.clone()], &here[some.clone()]);
                let same = &mut same[some];
                if self.any_end(before, here, same) {
                    for (n, ((a, b), same)) in before.iter().zip(here).zip(&*same).enumerate() {
                        let line = start + n;
                        let end = self.end(a == b, step, *same as usize, steps);
                        let judged = end
                            .and_then(|end| self.judge(end, |step| values[step * across + line]));
                        if let (Some(end), Some(abruptness)) = (end, judged) {
                            found(end.last, line, abruptness);
                        }
                    }
                }
                for ((a, b), same) in before.iter().zip(here).zip(same) {
                    *same = if a == b { *same + 1 } else { 1 };
                }
            }
        }
    }

    /// Whether a constant that lasts long enough begins or ends at a step, on any of some lines.
    fn any_end(&self, before: &[f32], here: &[f32], same: &[u32]) -> bool {
        let run = self.run as u32;
        let mut any = false;
        for ((a, b), same) in before.iter().zip(here).zip(same) {
            any |= if a == b {
                *same + 1 == run
            } else {
                *same >= run
            };
        }
        any
    }

    /// The end, at either side, of a constant that is `same` voxels long before `step`.
    fn end(&self, goes_on: bool, step: usize, same: usize, steps: usize) -> Option<Ending> {
        if goes_on {
            let first = step - same;
            (same + 1 == self.run && first >= self.reach).then_some(Ending {
                last: first,
                forwards: false,
            })
        } else {
            (same >= self.run && step + self.reach <= steps).then_some(Ending {
                last: step - 1,
                forwards: true,
            })
        }
    }

    /// How abruptly a constant ends, from the values of its line; `None` where its value comes again.
    fn judge(&self, end: Ending, value: impl Fn(usize) -> f32) -> Option<f32> {
        let constant = value(end.last);
        let change = |d: usize| {
            let beyond = if end.forwards {
                end.last + d
            } else {
                end.last - d
            };
            (value(beyond) - constant).abs()
        };
        // Also false for NaN.
        if !(1..=self.reach).all(|d| change(d) > 0.0) {
            return None;
        }
        let behind: f32 = (2..=self.reach).map(change).sum();
        let mean = behind / (self.reach - 1) as f32;
        Some((change(1) / mean.max(1e-12)).min(self.most))
    }
}

/// Where a constant ends along a line.
#[derive(Clone, Copy)]
struct Ending {
    /// Step of its last voxel.
    last: usize,
    /// Whether what is beyond comes later.
    forwards: bool,
}

/// Sums over ends about each cell: of abruptness times weight, and of weights.
struct Sums<'a> {
    grid: &'a CoarseGrid,
    abruptness: Vec<f64>,
    weight: Vec<f64>,
}

impl<'a> Sums<'a> {
    fn new(grid: &'a CoarseGrid) -> Self {
        Self {
            grid,
            abruptness: vec![0.0; grid.cell_count()],
            weight: vec![0.0; grid.cell_count()],
        }
    }

    /// Adds the ends of slabs 0 to `count` − 1, in order whatever the number of threads.
    fn add_all(&mut self, count: usize, ends: impl Fn(&mut Work, usize) -> Vec<End> + Sync) {
        let slabs: Vec<usize> = (0..count).collect();
        for some in slabs.chunks(SLABS_AT_ONCE) {
            let found: Vec<Vec<End>> = some
                .par_iter()
                .map_init(Work::default, |work, &slab| ends(work, slab))
                .collect();
            found.iter().flatten().for_each(|end| self.add(end));
        }
    }

    fn add(&mut self, end: &End) {
        let shape = self.grid.shape;
        let near = [0, 1, 2].map(|axis| {
            let place = self.grid.place(axis, end.voxel[axis] as usize);
            let low = place.floor();
            [(low, 1.0 - (place - low)), (low + 1.0, place - low)].map(|(cell, weight)| {
                (cell >= 0.0 && cell < shape[axis] as f64).then_some((cell as usize, weight))
            })
        });
        let [along_i, along_j, along_k] = near;
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

    const LINE: Line = Line {
        run: 4,
        reach: 5,
        most: 1.5,
    };

    fn ends(values: &[f32], across: usize) -> Vec<(usize, usize, f32)> {
        let mut found = Vec::new();
        let mut same = Vec::new();
        LINE.look(values, across, &mut same, |step, line, a| {
            found.push((step, line, a))
        });
        found
    }

    const SKIN: [f32; 10] = [0., 0., 0., 0., 20., 90., 100., 110., 100., 100.];
    const CUT: [f32; 10] = [0., 0., 0., 0., 105., 90., 100., 110., 100., 100.];

    #[test]
    fn a_constant_ends_softly_at_skin_and_abruptly_at_a_cut() {
        assert_eq!(ends(&SKIN, 1), [(3, 0, 0.2)]);
        assert_eq!(ends(&CUT, 1), [(3, 0, 1.05)]);
        let turned: Vec<f32> = SKIN.into_iter().rev().collect();
        assert_eq!(ends(&turned, 1), [(6, 0, 0.2)]);
    }

    #[test]
    fn lines_beside_each_other_are_looked_at_one_by_one() {
        let both: Vec<f32> = SKIN.iter().zip(&CUT).flat_map(|(a, b)| [*a, *b]).collect();
        assert_eq!(ends(&both, 2), [(3, 0, 0.2), (3, 1, 1.05)]);
    }

    #[test]
    fn what_is_no_end_of_a_constant_does_not_count() {
        let short = [5., 0., 0., 0., 20., 90., 100., 110., 100., 100.];
        let thin = [0., 0., 0., 0., 20., 90., 0., 110., 100., 100.];
        let at_the_border = [0., 0., 0., 0., 0., 0., 20., 90., 100., 110.];
        let unknown = [0., 0., 0., 0., 20., f32::NAN, 100., 110., 100., 100.];
        for values in [short, thin, at_the_border, unknown] {
            assert!(ends(&values, 1).is_empty(), "{values:?}");
        }
    }
}
