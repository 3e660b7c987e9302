//! The channel «air-edge»: where air ends, and how abruptly.
//!
//! Air is what is dark beside the tissue behind it, constant or noise (see [`AirEdgeRule`]): a tool that fills with noise
//! leaves no constant, but the edge of its mask is as sharp as that of one that fills with zeros.

use super::{LINES_AT_ONCE, Line, Reach, Rule, mean_abruptness};
use crate::network::Normalization;
use crate::network::card::AirEdgeRule;
use crate::volume::Image;
use crate::volume::coarse_grid::CoarseGrid;

/// Mean abruptness of the ends of air about each cell of some grids, 0 where there are none; `i` fastest.
///
/// An end's abruptness is the change from the mean of the air to the next voxel over that to the mean of
/// those behind it (see [`AirEdgeRule`]).
pub(in crate::network) fn air_edge(
    image: &Image,
    grids: &[CoarseGrid],
    normalization: &Normalization,
    rule: &AirEdgeRule,
) -> Vec<Vec<f32>> {
    let reach = Reach {
        run_mm: rule.run_mm,
        reach_mm: rule.reach_mm,
        below_mm: rule.below_mm,
    };
    let air = Air {
        normalization,
        rule,
    };
    mean_abruptness(image, grids, &reach, &air, rule.prior)
}

/// Air ends where brighter values come and stay.
struct Air<'a> {
    normalization: &'a Normalization,
    rule: &'a AirEdgeRule,
}

impl Rule for Air<'_> {
    fn prepare(&self, slab: &mut [f32]) {
        self.normalization.apply(slab);
    }

    #[inline(always)]
    fn look(
        &self,
        line: Line,
        values: &[f32],
        across: usize,
        _: &mut Vec<u32>,
        mut found: impl FnMut(usize, usize, f32),
    ) {
        let steps = values.len() / across;
        for last in 0..steps {
            let forwards = last + 1 >= line.run && last + line.reach < steps;
            let backwards = last >= line.reach && last + line.run <= steps;
            if forwards {
                self.look_at(line, values, across, (last, 1), &mut found);
            }
            if backwards {
                self.look_at(line, values, across, (last, -1), &mut found);
            }
        }
    }
}

impl Air<'_> {
    /// Looks whether air has its last voxel at a step, and tissue lies beyond in the way of `by` (±1).
    #[inline(always)]
    fn look_at(
        &self,
        line: Line,
        values: &[f32],
        across: usize,
        (last, by): (usize, isize),
        found: &mut impl FnMut(usize, usize, f32),
    ) {
        let at = |steps: usize| last.wrapping_add_signed(by * steps as isize) * across;
        let before = |steps: usize| last.wrapping_add_signed(-by * steps as isize) * across;
        let (here, second) = (&values[at(0)..][..across], &values[at(2)..][..across]);
        let blocks = here.chunks(LINES_AT_ONCE).zip(second.chunks(LINES_AT_ONCE));
        for (block, (here, second)) in blocks.enumerate() {
            if !self.any_end(here, second) {
                continue;
            }
            for (n, (&air, &tissue)) in here.iter().zip(second).enumerate() {
                let n = block * LINES_AT_ONCE + n;
                let ends = self.may_end(air, tissue);
                let judged = ends.then(|| {
                    let air = |steps| values[before(steps) + n];
                    self.judge(line, air, |steps| values[at(steps) + n])
                });
                if let Some(abruptness) = judged.flatten() {
                    found(last, n, abruptness);
                }
            }
        }
    }

    /// Whether air may end at a voxel of which the second beyond is this bright.
    #[inline(always)]
    fn may_end(&self, air: f32, second: f32) -> bool {
        // Both are asked, so that several voxels can be asked at once.
        (second > self.rule.tissue_least) & (air < self.rule.share * second)
    }

    #[inline(always)]
    fn any_end(&self, air: &[f32], second: &[f32]) -> bool {
        let pairs = air.iter().zip(second);
        let ends = pairs.map(|(&air, &second)| u32::from(self.may_end(air, second)));
        ends.fold(0, |any, ends| any | ends) != 0
    }

    /// How abruptly air ends, from the values before (0: its last) and beyond (1: the next); `None`
    /// where it does not.
    fn judge(
        &self,
        line: Line,
        before: impl Fn(usize) -> f32,
        beyond: impl Fn(usize) -> f32,
    ) -> Option<f32> {
        let behind: f32 = (2..=line.reach).map(&beyond).sum();
        let tissue = behind / (line.reach - 1) as f32;
        let limit = self.rule.share * tissue;
        let ends = tissue > self.rule.tissue_least
            && (0..line.run).all(|d| before(d) < limit)
            && (1..=line.reach).all(|d| beyond(d) >= limit);
        if !ends {
            return None;
        }
        let level = (0..line.run).map(&before).sum::<f32>() / line.run as f32;
        Some(((beyond(1) - level) / (tissue - level)).min(self.rule.most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { run: 4, reach: 5 };
    const SKIN: [f32; 10] = [0.02, 0.05, 0., 0.03, 0.3, 0.9, 1., 1.1, 1., 1.];
    const CUT: [f32; 10] = [0.02, 0.05, 0., 0.03, 1.05, 0.9, 1., 1.1, 1., 1.];

    fn ends(values: &[f32], across: usize) -> Vec<(usize, usize, f32)> {
        let normalization = Normalization::of_nothing();
        let rule = AirEdgeRule::for_tests();
        let air = Air {
            normalization: &normalization,
            rule: &rule,
        };
        let mut found = Vec::new();
        air.look(LINE, values, across, &mut Vec::new(), |step, line, a| {
            found.push((step, line, (100.0 * a).round()))
        });
        found
    }

    #[test]
    fn noise_ends_softly_at_skin_and_abruptly_at_a_cut() {
        assert_eq!(ends(&SKIN, 1), [(3, 0, 28.0)]);
        assert_eq!(ends(&CUT, 1), [(3, 0, 105.0)]);
        let turned: Vec<f32> = SKIN.into_iter().rev().collect();
        assert_eq!(ends(&turned, 1), [(6, 0, 28.0)]);
        let both: Vec<f32> = SKIN.iter().zip(&CUT).flat_map(|(a, b)| [*a, *b]).collect();
        assert_eq!(ends(&both, 2), [(3, 0, 28.0), (3, 1, 105.0)]);
    }

    #[test]
    fn what_is_no_end_of_air_does_not_count() {
        let bright = [0.02, 0.25, 0., 0.03, 1., 0.9, 1., 1.1, 1., 1.];
        let thin = [0.02, 0.05, 0., 0.03, 1., 0.9, 0.1, 1.1, 1., 1.];
        let faint = CUT.map(|v| 0.07 * v);
        let at_the_border = [0., 0., 0., 0., 0., 0., 0.3, 0.9, 1., 1.];
        let unknown = [0.02, 0.05, 0., 0.03, 1., f32::NAN, 1., 1.1, 1., 1.];
        // Darker than a fifth of the mean, not than a fifth of the second voxel beyond.
        let beside = [0.02, 0.05, 0., 0.15, 0.9, 0.5, 1., 1.1, 1., 1.];
        for values in [bright, thin, faint, at_the_border, unknown, beside] {
            assert!(ends(&values, 1).is_empty(), "{values:?}");
        }
    }
}
