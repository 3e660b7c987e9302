//! The channel «abrupt»: where a constant ends, and how abruptly.
//!
//! Where the air of a scan was set to one value, skin rises out of it by partial volume.

use super::{LINES_AT_ONCE, Line, Reach, Rule, mean_abruptness};
use crate::network::card::AbruptRule;
use crate::volume::Image;
use crate::volume::coarse_grid::CoarseGrid;

/// Mean abruptness of the ends of constants about each cell of some grids, 0 where there are none; `i`
/// fastest.
///
/// An end's abruptness is the change from the constant to the next voxel over the mean change to those
/// behind it (see [`AbruptRule`]).
pub(in crate::network) fn abrupt(
    image: &Image,
    grids: &[CoarseGrid],
    rule: &AbruptRule,
) -> Vec<Vec<f32>> {
    let reach = Reach {
        run_mm: rule.run_mm,
        reach_mm: rule.reach_mm,
        below_mm: rule.below_mm,
    };
    let constant = Constant { most: rule.most };
    mean_abruptness(image, grids, &reach, &constant, rule.prior)
}

/// A constant ends where another value comes; abruptness is clipped to [0, `most`].
struct Constant {
    most: f32,
}

impl Rule for Constant {
    fn prepare(&self, _: &mut [f32]) {}

    /// The room holds, of each line, the voxels up to the step before that hold one value.
    #[inline(always)]
    fn look(
        &self,
        line: Line,
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
                if line.any_end(before, here, same) {
                    for (n, ((a, b), same)) in before.iter().zip(here).zip(&*same).enumerate() {
                        let end = line.end(a == b, step, *same as usize, steps);
                        let value = |step| values[step * across + start + n];
                        let judged = end.and_then(|end| line.judge(end, value));
                        if let (Some(end), Some(abruptness)) = (end, judged) {
                            found(end.last, start + n, abruptness.min(self.most));
                        }
                    }
                }
                for ((a, b), same) in before.iter().zip(here).zip(same) {
                    *same = if a == b { *same + 1 } else { 1 };
                }
            }
        }
    }
}

impl Line {
    /// Whether a constant that lasts long enough begins or ends at a step, on any of some lines.
    #[inline(always)]
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
        Some(change(1) / mean.max(1e-12))
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

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { run: 4, reach: 5 };

    fn ends(values: &[f32], across: usize) -> Vec<(usize, usize, f32)> {
        let mut found = Vec::new();
        let mut same = Vec::new();
        Constant { most: 1.5 }.look(LINE, values, across, &mut same, |step, line, a| {
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
