//! From logits on the tensor to labels on the scan's grid.
//!
//! Logits come back by straight lines, a row at a time, and are rounded to 16 bits as nnU-Net rounds
//! them; what is held at full size is the labels alone. Where one class leads by more than rounding
//! at all eight corners between which a voxel lies, it leads in between too, and nothing is
//! interpolated. Probabilities take the same way, without that short cut.
//!
//! # Source
//! nnU-Net 2.8.1, `export_prediction` and `LabelManager.convert_logits_to_segmentation`.

use rayon::prelude::*;

use super::card::{Class, Decision};
use super::prepare::{Placement, Walk};
use super::sliding::Logits;
use crate::ops::half;
use crate::ops::resize::{Place, linear_places, nearest_places};
use crate::volume::{Geometry, LabelMap, Volume};

/// The label of every voxel of a grid; where the tensor does not lie, the first class's, or, of regions,
/// 0.
pub fn label_map(
    logits: &Logits,
    placement: &Placement,
    geometry: &Geometry,
    (decision, classes): (Decision, &[Class]),
) -> LabelMap {
    let ask = Ask {
        decision,
        sure: sure(logits, decision),
    };
    let way = Way::new(logits, placement);
    let label = |class: u16| match decision {
        Decision::Regions if class == BACKGROUND => 0,
        Decision::Highest | Decision::Regions => i32::from(classes[usize::from(class)].label),
    };
    let [_, n1, n2] = placement.native;
    let plane = |a: usize| {
        let mut plane = vec![BACKGROUND; n1 * n2];
        let mut highest = vec![0.0; n2];
        for (b, row) in plane.chunks_mut(n2).enumerate() {
            way.decide((a, b), &ask, &mut highest, row);
        }
        plane
    };
    let outside = match decision {
        Decision::Highest => label(0),
        Decision::Regions => 0,
    };
    spread(placement, geometry, outside, plane, label)
}

/// The probability of a class at every voxel of a grid, in thousandths: by the softmax of all classes,
/// or, of regions, by the logistic function of its own logit. Where the tensor does not lie, all is
/// the first class, or no region.
pub fn probability(
    logits: &Logits,
    placement: &Placement,
    geometry: &Geometry,
    (decision, class): (Decision, usize),
) -> Volume<i16> {
    let way = Way::new(logits, placement);
    let [_, n1, n2] = placement.native;
    let plane = |a: usize| {
        let mut plane = vec![0; n1 * n2];
        let mut said = vec![0.0; logits.classes * n2];
        for (b, row) in plane.chunks_mut(n2).enumerate() {
            for (class, said) in said.chunks_mut(n2).enumerate() {
                way.interpolate((a, b), class, said);
            }
            for (n, value) in row.iter_mut().enumerate() {
                let all = said.iter().skip(n).step_by(n2).copied();
                let share = match decision {
                    Decision::Highest => softmax(all, class),
                    Decision::Regions => 1.0 / (1.0 + (-said[class * n2 + n]).exp()),
                };
                *value = (THOUSAND * share).round() as i16;
            }
        }
        plane
    };
    let outside = match decision {
        Decision::Highest if class == 0 => THOUSAND as i16,
        Decision::Highest | Decision::Regions => 0,
    };
    spread(placement, geometry, outside, plane, |value| value)
}

/// 1, in the unit of probabilities.
const THOUSAND: f32 = 1000.0;

fn softmax(logits: impl Iterator<Item = f32> + Clone, class: usize) -> f32 {
    let highest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut own) = (0.0, 0.0);
    for (n, logit) in logits.enumerate() {
        let share = (logit - highest).exp();
        sum += share;
        if n == class {
            own = share;
        }
    }
    own / sum
}

/// A volume of what `plane` says of each plane along the tensor's slowest axis, by way of `value`;
/// `outside` where the tensor does not lie. Only a few planes are held beside the volume.
fn spread<T: Copy + Send, V: Copy>(
    placement: &Placement,
    geometry: &Geometry,
    outside: V,
    plane: impl Fn(usize) -> Vec<T> + Sync,
    value: impl Fn(T) -> V,
) -> Volume<V> {
    let mut voxels = vec![outside; geometry.voxel_count()];
    let walk = Walk::new(&placement.bounds, geometry.shape, placement.axes);
    let [n0, _, n2] = placement.native;
    let planes: Vec<usize> = (0..n0).collect();
    for some in planes.chunks(PLANES) {
        let found: Vec<Vec<T>> = some.par_iter().map(|&a| plane(a)).collect();
        for (&a, plane) in some.iter().zip(&found) {
            for (b, row) in plane.chunks(n2).enumerate() {
                let start = walk.start + a * walk.steps[0] + b * walk.steps[1];
                for (c, &found) in row.iter().enumerate() {
                    voxels[start + c * walk.steps[2]] = value(found);
                }
            }
        }
    }
    Volume {
        voxels,
        geometry: geometry.clone(),
    }
}

/// Planes that are held at the same time.
const PLANES: usize = 16;
/// No region at all.
const BACKGROUND: u16 = u16::MAX;
/// No class leads by more than rounding.
const UNSURE: u16 = u16::MAX - 1;

/// Two numbers of 16 bits next to each other differ by up to a 1024th; a lead of two steps is safe.
fn margin(a: f32, b: f32) -> f32 {
    a.abs().max(b.abs()) / 512.0 + 2.0_f32.powi(-22)
}

/// For each voxel of the tensor the class that is decided for, [`BACKGROUND`], or [`UNSURE`].
fn sure(logits: &Logits, decision: Decision) -> Vec<u16> {
    let size: usize = logits.lengths.iter().product();
    let class = |c: usize, n: usize| half::value(logits.values[c * size + n]);
    let mut found = vec![UNSURE; size];
    let runs = found.par_chunks_mut(RUN).enumerate();
    runs.for_each(|(run, found)| match decision {
        Decision::Highest => {
            // The best and the next best.
            let mut best = vec![[f32::NEG_INFINITY; 2]; found.len()];
            for c in 0..logits.classes {
                for (m, (best, found)) in best.iter_mut().zip(&mut *found).enumerate() {
                    let value = class(c, run * RUN + m);
                    if value > best[0] {
                        *best = [value, best[0]];
                        *found = c as u16;
                    } else {
                        best[1] = best[1].max(value);
                    }
                }
            }
            for ([first, second], found) in best.into_iter().zip(found) {
                if logits.classes > 1 && first - second <= margin(first, second) {
                    *found = UNSURE;
                }
            }
        }
        Decision::Regions => {
            for (m, found) in found.iter_mut().enumerate() {
                *found = BACKGROUND;
                for c in 0..logits.classes {
                    let value = class(c, run * RUN + m);
                    if value.abs() <= margin(0.0, 0.0) {
                        // Its sign may change on the way; only a region after it can decide.
                        *found = UNSURE;
                    } else if value > 0.0 {
                        *found = c as u16;
                    }
                }
            }
        }
    });
    found
}

/// Voxels of one task.
const RUN: usize = 1 << 12;

/// Where the grid's voxels lie between those of the tensor.
struct Way<'a> {
    logits: &'a Logits,
    places: [Vec<Place>; 3],
    /// Runs of voxels along the fastest axis between the same two voxels of the tensor.
    runs: Vec<(usize, std::ops::Range<usize>)>,
}

impl<'a> Way<'a> {
    fn new(logits: &'a Logits, placement: &Placement) -> Self {
        let places = [0, 1, 2].map(|d| {
            let (from, to) = (logits.lengths[d], placement.native[d]);
            if placement.slice_axis == Some(d) {
                nearest_places(from, to)
            } else {
                linear_places(from, to)
            }
        });
        let mut runs: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
        for (n, place) in places[2].iter().enumerate() {
            match runs.last_mut() {
                Some((lower, run)) if *lower == place.lower => run.end = n + 1,
                _ => runs.push((place.lower, n..n + 1)),
            }
        }
        Self {
            logits,
            places,
            runs,
        }
    }

    /// The four rows of the tensor round row `(a, b)` of the grid, and their weights.
    fn rows(&self, a: usize, b: usize) -> [(usize, f64); 4] {
        let [n0, n1, n2] = self.logits.lengths;
        let (a, b) = (self.places[0][a], self.places[1][b]);
        let upper = |place: Place, length: usize| (place.lower + 1).min(length - 1);
        let row = |a: usize, b: usize| (a * n1 + b) * n2;
        let (a1, b1) = (upper(a, n0), upper(b, n1));
        let [sa, sb] = [a.share, b.share];
        [
            (row(a.lower, b.lower), (1.0 - sa) * (1.0 - sb)),
            (row(a.lower, b1), (1.0 - sa) * sb),
            (row(a1, b.lower), sa * (1.0 - sb)),
            (row(a1, b1), sa * sb),
        ]
    }

    /// Decides on the voxels of row `(a, b)` of the grid; `highest` is scratch of as many numbers.
    fn decide(&self, (a, b): (usize, usize), ask: &Ask, highest: &mut [f32], row: &mut [u16]) {
        let rows = self.rows(a, b);
        let last = self.logits.lengths[2] - 1;
        for (lower, run) in &self.runs {
            let upper = (lower + 1).min(last);
            let corners = rows.map(|(start, _)| [ask.sure[start + lower], ask.sure[start + upper]]);
            let first = corners[0][0];
            let row = &mut row[run.clone()];
            if first != UNSURE && corners.iter().flatten().all(|&class| class == first) {
                row.fill(first);
                continue;
            }
            let highest = &mut highest[run.clone()];
            highest.fill(match ask.decision {
                Decision::Highest => f32::NEG_INFINITY,
                Decision::Regions => 0.0,
            });
            for class in 0..self.logits.classes {
                let logits = self.between(&rows, class, (*lower, run));
                for ((lead, found), logit) in highest.iter_mut().zip(&mut *row).zip(logits) {
                    if logit > *lead {
                        *found = class as u16;
                        if ask.decision == Decision::Highest {
                            *lead = logit;
                        }
                    }
                }
            }
        }
    }

    /// The logits of a class in row `(a, b)` of the grid.
    fn interpolate(&self, (a, b): (usize, usize), class: usize, row: &mut [f32]) {
        let rows = self.rows(a, b);
        for (lower, run) in &self.runs {
            let logits = self.between(&rows, class, (*lower, run));
            row[run.clone()]
                .iter_mut()
                .zip(logits)
                .for_each(|(value, logit)| *value = logit);
        }
    }

    /// The logits of a class along a run of voxels between four rows of the tensor.
    fn between(
        &self,
        rows: &[(usize, f64); 4],
        class: usize,
        (lower, run): (usize, &std::ops::Range<usize>),
    ) -> impl Iterator<Item = f32> {
        let size = self.logits.values.len() / self.logits.classes;
        let logits = &self.logits.values[class * size..][..size];
        let at = |n: usize| -> f64 {
            let value = |start: usize| f64::from(half::value(logits[start + n]));
            rows.map(|(start, weight)| weight * value(start))
                .iter()
                .sum()
        };
        let last = self.logits.lengths[2] - 1;
        let (low, high) = (at(lower), at((lower + 1).min(last)));
        self.places[2][run.clone()].iter().map(move |place| {
            let logit = low * (1.0 - place.share) + high * place.share;
            half::rounded(logit as f32)
        })
    }
}

/// What is decided, and where it is decided already.
struct Ask {
    decision: Decision,
    sure: Vec<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::grid;
    use crate::volume::BoundingBox;

    fn classes(count: u16) -> Vec<Class> {
        let class = |label| Class {
            name: format!("label {label}"),
            label,
        };
        (0..count).map(class).collect()
    }

    /// The logits of every class at every voxel by the plain formula.
    fn plain_logits(logits: &Logits, placement: &Placement) -> Vec<Vec<f32>> {
        let [m0, m1, m2] = logits.lengths;
        let to = placement.native;
        let places = [0, 1, 2].map(|d| match placement.slice_axis {
            Some(axis) if axis == d => nearest_places(logits.lengths[d], to[d]),
            _ => linear_places(logits.lengths[d], to[d]),
        });
        let value = |c: usize, at: [usize; 3]| {
            let mut sum = 0.0;
            for corner in 0..8 {
                let mut weight = 1.0;
                let mut index = [0; 3];
                for d in 0..3 {
                    let place = places[d][at[d]];
                    let up = corner >> d & 1;
                    weight *= if up == 1 {
                        place.share
                    } else {
                        1.0 - place.share
                    };
                    index[d] = (place.lower + up).min(logits.lengths[d] - 1);
                }
                let n = ((c * m0 + index[0]) * m1 + index[1]) * m2 + index[2];
                sum += weight * f64::from(half::value(logits.values[n]));
            }
            half::rounded(sum as f32)
        };
        let all = |n: usize| {
            let at = [n / (to[1] * to[2]), n / to[2] % to[1], n % to[2]];
            (0..logits.classes).map(|c| value(c, at)).collect()
        };
        (0..to.iter().product()).map(all).collect()
    }

    /// Every class of every voxel, without a short cut.
    fn plainly(logits: &Logits, placement: &Placement, decision: Decision) -> Vec<u16> {
        let values = plain_logits(logits, placement).into_iter();
        let decide = |values: Vec<f32>| match decision {
            Decision::Highest => {
                let best = values.iter().copied().fold(f32::MIN, f32::max);
                values.iter().position(|&v| v == best).unwrap() as u16
            }
            Decision::Regions => {
                let last = values.iter().rposition(|&v| v > 0.0);
                last.map_or(0, |c| c as u16 + 1)
            }
        };
        values.map(decide).collect()
    }

    /// Smooth fields with many near ties.
    fn some_logits(classes: usize, lengths: [usize; 3]) -> Logits {
        let size: usize = lengths.iter().product();
        let value = |n: usize| {
            let (c, m) = (n / size, n % size);
            let (a, b) = (m / lengths[2], m % lengths[2]);
            let wave = (0.37 * a as f32 + c as f32).sin() + (0.9 * b as f32 - c as f32).cos();
            half::bits(wave)
        };
        Logits {
            values: (0..classes * size).map(value).collect(),
            classes,
            lengths,
        }
    }

    #[test]
    fn short_cuts_change_no_label() {
        let geometry = grid([23, 9, 14], [1.0; 3]);
        let bounds = BoundingBox {
            start: [2, 0, 1],
            end: [22, 9, 12],
        };
        for (axes, slice_axis) in [([2, 1, 0], None), ([2, 1, 0], Some(0)), ([0, 2, 1], None)] {
            let native = axes.map(|axis: usize| bounds.shape()[axis]);
            let placement = Placement {
                bounds,
                axes,
                native,
                slice_axis,
            };
            let logits = some_logits(4, [5, 7, 6]);
            for decision in [Decision::Highest, Decision::Regions] {
                let mut classes = classes(5);
                if decision == Decision::Regions {
                    classes.remove(0);
                }
                let found = label_map(&logits, &placement, &geometry, (decision, &classes));
                let wanted = plainly(&logits, &placement, decision);
                let mut inside = 0;
                for (n, label) in wanted.into_iter().enumerate() {
                    let at = [
                        n / (native[1] * native[2]),
                        n / native[2] % native[1],
                        n % native[2],
                    ];
                    let mut index = bounds.start;
                    (0..3).for_each(|d| index[axes[d]] += at[d]);
                    let found = found.voxels[geometry.offset(index)];
                    assert_eq!(found, i32::from(label), "{index:?}");
                    inside += usize::from(found != 0);
                }
                let all = found.voxels.iter().filter(|&&label| label != 0).count();
                assert_eq!(all, inside);
                assert!(inside > 100);
            }
        }
    }

    #[test]
    fn probabilities_are_those_of_the_logits_in_between() {
        let geometry = grid([11, 9, 14], [1.0; 3]);
        let bounds = BoundingBox {
            start: [2, 0, 1],
            end: [10, 9, 12],
        };
        let placement = Placement {
            bounds,
            axes: [2, 1, 0],
            native: [11, 9, 8],
            slice_axis: None,
        };
        let logits = some_logits(4, [5, 7, 6]);
        let wanted = plain_logits(&logits, &placement);
        for (decision, class, outside) in [
            (Decision::Highest, 0, 1000),
            (Decision::Highest, 2, 0),
            (Decision::Regions, 1, 0),
        ] {
            let found = probability(&logits, &placement, &geometry, (decision, class));
            let mut inside = 0;
            for (n, values) in wanted.iter().enumerate() {
                let index = [2 + n % 8, n / 8 % 9, 1 + n / 72];
                let own = f64::from(values[class]).exp();
                let share = match decision {
                    Decision::Highest => {
                        own / values.iter().map(|&v| f64::from(v).exp()).sum::<f64>()
                    }
                    Decision::Regions => own / (1.0 + own),
                };
                let found = f64::from(found.voxels[geometry.offset(index)]);
                assert!((found - 1000.0 * share).abs() < 0.51, "{found}, {share}");
                inside += usize::from(found != f64::from(outside));
            }
            let all = found.voxels.iter().filter(|&&v| v != outside).count();
            assert_eq!(all, inside);
        }
    }

    #[test]
    fn of_equal_logits_the_first_class_wins() {
        let logits = Logits {
            values: vec![half::bits(1.5); 3 * 8],
            classes: 3,
            lengths: [2, 2, 2],
        };
        let geometry = grid([3, 3, 3], [1.0; 3]);
        let placement = Placement {
            bounds: BoundingBox::whole([3, 3, 3]),
            axes: [2, 1, 0],
            native: [3, 3, 3],
            slice_axis: None,
        };
        let ask = (Decision::Highest, &*classes(3));
        let found = label_map(&logits, &placement, &geometry, ask);
        assert_eq!(found.voxels, [0; 27]);
    }
}
