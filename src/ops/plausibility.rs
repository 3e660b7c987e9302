//! Measures that say, without a reference, how far a mask can be trusted.

use rayon::prelude::*;

use super::overlap;
use crate::volume::coarse_grid::CoarseField;
use crate::volume::{Image, Mask, Samples};

/// Cells with a probability between this and 1 minus it are doubtful.
const DOUBTFUL: f64 = 0.1;

/// What a network's probabilities say about its mask, on its own cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Doubt {
    /// Mean entropy of the cells on both sides of the mask's edge, in bits, 0 to 1.
    pub edge_entropy: f64,
    /// Cells away from the edge with a probability between 0.1 and 0.9, per cell of the edge.
    pub doubtful_per_edge_cell: f64,
    /// Dice of the mask that is to be expected if the probabilities are right: 2 Σ p over the mask's
    /// cells, divided by their number and Σ p over all cells.
    pub expected_dice: f64,
}

/// Looks at the cells of a network's mask (logit above `threshold`); `None` where it has no edge.
///
/// An edge cell is one that shares a face with a cell on the other side of the threshold.
pub fn doubt(logits: &CoarseField, threshold: f32) -> Option<Doubt> {
    let [ni, nj, nk] = logits.grid.shape;
    let inside = |n: usize| logits.values[n] > threshold;
    let (mut edge, mut entropy, mut doubtful) = (0_usize, 0.0, 0_usize);
    let (mut cells, mut likely_inside, mut likely) = (0_usize, 0.0, 0.0);
    for n in 0..logits.values.len() {
        let (i, j, k) = (n % ni, n / ni % nj, n / (ni * nj));
        let differs = |there: bool, other: usize| there && inside(other) != inside(n);
        let is_edge = differs(i > 0, n.wrapping_sub(1))
            || differs(i + 1 < ni, n + 1)
            || differs(j > 0, n.wrapping_sub(ni))
            || differs(j + 1 < nj, n + ni)
            || differs(k > 0, n.wrapping_sub(ni * nj))
            || differs(k + 1 < nk, n + ni * nj);
        let p = 1.0 / (1.0 + (-f64::from(logits.values[n] - threshold)).exp());
        likely += p;
        if inside(n) {
            cells += 1;
            likely_inside += p;
        }
        if is_edge {
            edge += 1;
            entropy += bits(p) + bits(1.0 - p);
        } else if (DOUBTFUL..=1.0 - DOUBTFUL).contains(&p) {
            doubtful += 1;
        }
    }
    (edge > 0).then(|| Doubt {
        edge_entropy: entropy / edge as f64,
        doubtful_per_edge_cell: doubtful as f64 / edge as f64,
        expected_dice: 2.0 * likely_inside / (cells as f64 + likely),
    })
}

fn bits(p: f64) -> f64 {
    if p > 0.0 { -p * p.log2() } else { 0.0 }
}

/// Dice of a mask with what the network alone would have drawn: cells with a logit above 0.
pub fn network_agreement(mask: &Mask, logits: &CoarseField) -> f64 {
    let drawn = logits.map_voxels(&mask.geometry, |logit| u8::from(logit > 0.0));
    overlap::dice(mask, &drawn)
}

/// Mean step in intensity from a voxel of the mask to a neighbour outside it (over faces), in units
/// of the difference between the means inside and outside: near 0 where the mask's edge follows
/// nothing that can be seen. `None` without an edge or a difference.
pub fn edge_sharpness(image: &Image, mask: &Mask, contrast: f64) -> Option<f64> {
    let [ni, nj, nk] = mask.shape();
    let plane = ni * nj;
    // Sums plane by plane, so that they do not depend on the number of threads.
    let sums: Vec<(usize, f64)> = (0..nk)
        .into_par_iter()
        .map(|k| {
            let (mut faces, mut sum) = (0, 0.0);
            let mut step = |here: usize, there: usize| {
                if mask.voxels[here] != mask.voxels[there] {
                    let fall = image.samples.value(here) - image.samples.value(there);
                    let outward = mask.voxels[here] != 0;
                    sum += f64::from(if outward { fall } else { -fall });
                    faces += 1;
                }
            };
            for j in 0..nj {
                for i in 0..ni {
                    let n = i + ni * j + plane * k;
                    if i + 1 < ni {
                        step(n, n + 1);
                    }
                    if j + 1 < nj {
                        step(n, n + ni);
                    }
                    if k + 1 < nk {
                        step(n, n + plane);
                    }
                }
            }
            (faces, sum)
        })
        .collect();
    let faces: usize = sums.iter().map(|s| s.0).sum();
    let sum: f64 = sums.iter().map(|s| s.1).sum();
    (faces > 0 && contrast != 0.0).then(|| sum / faces as f64 / contrast)
}

/// Share of the voxels on the six sides of the volume that lie in the mask.
pub fn border_share(mask: &Mask) -> f64 {
    let (mut inside, mut all) = (0_usize, 0_usize);
    border(mask.shape(), |n| {
        inside += usize::from(mask.voxels[n] != 0);
        all += 1;
    });
    inside as f64 / all as f64
}

/// Share of the scan that holds exactly the commonest value of its six sides: padding, or air that
/// was set to one value. 0 where no value makes up half of the sides.
pub fn padding_share(image: &Image) -> f64 {
    let mut values = Vec::new();
    // -0 and 0 are one value.
    border(image.shape(), |n| {
        values.push((image.samples.value(n) + 0.0).to_bits())
    });
    values.sort_unstable();
    let total = values.len();
    let runs = values.chunk_by(|a, b| a == b);
    let Some(commonest) = runs
        .max_by_key(|run| run.len())
        .filter(|run| 2 * run.len() > total)
    else {
        return 0.0;
    };
    let value = f32::from_bits(commonest[0]);
    let count = match &image.samples {
        Samples::I16(scaled) => count(&scaled.stored, |v| scaled.real(v) == value),
        Samples::U16(scaled) => count(&scaled.stored, |v| scaled.real(v) == value),
        Samples::F32(values) => count(values, |v| v == value),
    };
    count as f64 / image.samples.len() as f64
}

fn count<T: Copy + Sync>(values: &[T], is_it: impl Fn(T) -> bool + Sync) -> usize {
    let chunks = values.par_chunks(1 << 16);
    chunks
        .map(|c| c.iter().filter(|v| is_it(**v)).count())
        .sum()
}

/// Visits every voxel on the sides of a volume once.
fn border([ni, nj, nk]: [usize; 3], mut visit: impl FnMut(usize)) {
    for k in 0..nk {
        for j in 0..nj {
            let row = ni * (j + nj * k);
            if k == 0 || k + 1 == nk || j == 0 || j + 1 == nj {
                (row..row + ni).for_each(&mut visit);
            } else {
                visit(row);
                if ni > 1 {
                    visit(row + ni - 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{box_mask, grid};
    use crate::volume::coarse_grid::CoarseGrid;

    fn field(shape: [usize; 3], value: impl Fn([usize; 3]) -> f32) -> CoarseField {
        let grid = CoarseGrid::over(&grid(shape, [4.0; 3]), 4.0);
        let [ni, nj, nk] = grid.shape;
        let cells = (0..ni * nj * nk).map(|n| value([n % ni, n / ni % nj, n / (ni * nj)]));
        CoarseField {
            values: cells.collect(),
            grid,
        }
    }

    #[test]
    fn a_sure_edge_has_no_entropy_and_an_even_one_a_bit() {
        let sure = field([8, 4, 4], |[i, ..]| if i < 4 { 50.0 } else { -50.0 });
        let sure = doubt(&sure, 0.0).unwrap();
        assert!(sure.edge_entropy < 1e-9 && sure.doubtful_per_edge_cell == 0.0);
        assert!((sure.expected_dice - 1.0).abs() < 1e-9);
        // Logits of ±0.001 are a toss-up everywhere: 2 planes of edge, 6 of doubt.
        let even = field([8, 4, 4], |[i, ..]| if i < 4 { 1e-3 } else { -1e-3 });
        let even = doubt(&even, 0.0).unwrap();
        assert!((even.edge_entropy - 1.0).abs() < 1e-6);
        assert_eq!(even.doubtful_per_edge_cell, 3.0);
        // Half of each half: 2 · 32 / (64 + 64).
        assert!((even.expected_dice - 0.5).abs() < 1e-3);
        assert_eq!(doubt(&field([4, 4, 4], |_| -1.0), 0.0), None);
    }

    #[test]
    fn sharpness_is_1_where_the_mask_ends_with_the_thing_and_0_inside_it() {
        let (start, end) = ([4, 4, 4], [12, 12, 12]);
        let geometry = grid([16, 16, 16], [1.0, 2.0, 3.0]);
        let thing = box_mask(geometry.clone(), start, end);
        let values = thing.voxels.iter().map(|&v| 7.0 + 100.0 * f32::from(v));
        let image = Image {
            samples: Samples::F32(values.collect()),
            geometry: geometry.clone(),
        };
        assert_eq!(edge_sharpness(&image, &thing, 100.0), Some(1.0));
        let inner = box_mask(geometry.clone(), [6; 3], [10; 3]);
        assert_eq!(edge_sharpness(&image, &inner, 100.0), Some(0.0));
        assert_eq!(edge_sharpness(&image, &thing, 0.0), None);
        let nothing = box_mask(geometry, [0; 3], [0; 3]);
        assert_eq!(edge_sharpness(&image, &nothing, 100.0), None);
    }

    #[test]
    fn sides_are_counted_once() {
        // 4 × 3 × 2 voxels: all of them lie on a side; the mask is one of four planes along i.
        let mask = box_mask(grid([4, 3, 2], [1.0; 3]), [0; 3], [1, 3, 2]);
        assert_eq!(border_share(&mask), 0.25);
        let mut visited = vec![0; 60];
        border([5, 4, 3], |n| visited[n] += 1);
        assert_eq!(visited.iter().sum::<usize>(), 60 - 3 * 2);
        assert!(visited.iter().all(|&n| n <= 1));
    }

    #[test]
    fn padding_is_the_value_of_the_sides_wherever_it_is() {
        let geometry = grid([6, 6, 6], [1.0; 3]);
        let body = box_mask(geometry.clone(), [2; 3], [4; 3]);
        let values: Vec<f32> = body.voxels.iter().map(|&v| f32::from(v) - 1024.0).collect();
        let image = |values: Vec<f32>| Image {
            samples: Samples::F32(values),
            geometry: geometry.clone(),
        };
        assert_eq!(padding_share(&image(values)), (216.0 - 8.0) / 216.0);
        let noise = (0..216).map(|n| n as f32).collect();
        assert_eq!(padding_share(&image(noise)), 0.0);
    }
}
