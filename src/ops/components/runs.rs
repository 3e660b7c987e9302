//! Runs of equal voxels along i, and joining those that touch.

use std::ops::Range;

use rayon::prelude::*;

use super::super::packed_mask::{PackedMask, WORD};
use super::Connectivity;
use crate::volume::{BoundingBox, Shape};

/// Voxels `[start, end)` of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u32,
    end: u32,
}

/// All runs of one value, row by row.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    shape: Shape,
    runs: Vec<Run>,
    /// First run of each row; one more entry than rows.
    first: Vec<usize>,
}

impl Runs {
    /// Finds the runs of `value` (0 or 1) in voxels that are 0 or 1.
    pub fn of(voxels: &[u8], shape: Shape, value: u8) -> Self {
        Self::of_rows(shape, |row, runs| {
            push_runs(&voxels[row * shape[0]..][..shape[0]], value, runs);
        })
    }

    /// Finds the runs of 1 in a packed mask.
    pub fn of_packed(mask: &PackedMask) -> Self {
        let shape = mask.shape();
        Self::of_rows(shape, |row, runs| {
            push_packed_runs(mask.row(row % shape[1], row / shape[1]), shape[0], runs);
        })
    }

    /// Gathers the runs that `push` finds in each row.
    fn of_rows(shape: Shape, push: impl Fn(usize, &mut Vec<Run>) + Sync) -> Self {
        let slices = (0..shape[2]).into_par_iter().map(|k| {
            let mut runs = Vec::new();
            let ends = (0..shape[1]).map(|j| {
                push(j + shape[1] * k, &mut runs);
                runs.len()
            });
            let ends = ends.collect();
            (runs, ends)
        });
        let slices: Vec<(Vec<Run>, Vec<usize>)> = slices.collect();
        let mut all = Self {
            shape,
            runs: Vec::with_capacity(slices.iter().map(|(runs, _)| runs.len()).sum()),
            first: Vec::with_capacity(shape[1] * shape[2] + 1),
        };
        all.first.push(0);
        for (runs, ends) in slices {
            let before = all.runs.len();
            all.first.extend(ends.iter().map(|end| before + end));
            all.runs.extend(runs);
        }
        all
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The place of each run in memory.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.rows().flat_map(|(row, runs)| {
            let start = row * self.shape[0];
            runs.iter()
                .map(move |run| start + run.start as usize..start + run.end as usize)
        })
    }

    /// The box of each run.
    pub fn places(&self) -> impl Iterator<Item = BoundingBox> {
        self.rows().flat_map(|(row, runs)| {
            let (j, k) = (row % self.shape[1], row / self.shape[1]);
            runs.iter().map(move |run| BoundingBox {
                start: [run.start as usize, j, k],
                end: [run.end as usize, j + 1, k + 1],
            })
        })
    }

    /// For each run the first run of its connected piece.
    pub fn join(&self, connectivity: Connectivity) -> Vec<u32> {
        let mut parents: Vec<u32> = (0..self.runs.len() as u32).collect();
        for row in 0..self.first.len() - 1 {
            for (neighbour, reach) in self.earlier_rows(row, connectivity) {
                self.join_rows(row, neighbour, reach, &mut parents);
            }
        }
        // Parents come before their children, so one pass flattens all.
        for n in 0..parents.len() {
            parents[n] = parents[parents[n] as usize];
        }
        parents
    }

    fn rows(&self) -> impl Iterator<Item = (usize, &[Run])> {
        self.first
            .windows(2)
            .map(|ends| &self.runs[ends[0]..ends[1]])
            .enumerate()
    }

    /// Rows before `row` that touch it.
    fn earlier_rows(
        &self,
        row: usize,
        connectivity: Connectivity,
    ) -> impl Iterator<Item = (usize, u32)> {
        let height = self.shape[1];
        let (j, k) = (row % height, row / height);
        let steps: &[(isize, usize)] = match connectivity {
            Connectivity::Six => &[(-1, 0), (0, 1)],
            Connectivity::TwentySix => &[(-1, 0), (-1, 1), (0, 1), (1, 1)],
        };
        let reach = u32::from(connectivity == Connectivity::TwentySix);
        steps.iter().filter_map(move |&(step_j, back_k)| {
            let j = j.checked_add_signed(step_j).filter(|&j| j < height)?;
            Some((j + height * k.checked_sub(back_k)?, reach))
        })
    }

    /// Joins runs of two rows that overlap, or come within `reach` voxels of it.
    fn join_rows(&self, row: usize, other: usize, reach: u32, parents: &mut [u32]) {
        let (mut a, a_end) = (self.first[row], self.first[row + 1]);
        let (mut b, b_end) = (self.first[other], self.first[other + 1]);
        while a < a_end && b < b_end {
            let (run, neighbour) = (self.runs[a], self.runs[b]);
            if run.start < neighbour.end + reach && neighbour.start < run.end + reach {
                unite(parents, a as u32, b as u32);
            }
            if run.end < neighbour.end {
                a += 1;
            } else {
                b += 1;
            }
        }
    }
}

fn root(parents: &mut [u32], mut n: u32) -> u32 {
    while parents[n as usize] != n {
        parents[n as usize] = parents[parents[n as usize] as usize];
        n = parents[n as usize];
    }
    n
}

fn unite(parents: &mut [u32], a: u32, b: u32) {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b) as usize] = a.min(b);
}

fn push_runs(row: &[u8], value: u8, runs: &mut Vec<Run>) {
    let mut start = end_of_run(row, 0, 1 - value);
    while start < row.len() {
        let end = end_of_run(row, start, value);
        runs.push(Run {
            start: start as u32,
            end: end as u32,
        });
        start = end_of_run(row, end, 1 - value);
    }
}

/// The same of a row of `length` bits.
fn push_packed_runs(words: &[u64], length: usize, runs: &mut Vec<Run>) {
    // The first place from `from` on whose bit, with `flip`, is 1.
    let next = |from: usize, flip: u64| {
        let bits = |place: usize| {
            let first = if place == from / WORD { from % WORD } else { 0 };
            (words[place] ^ flip) & (u64::MAX << first)
        };
        let mut places = from / WORD..words.len();
        let place = places.find(|&place| bits(place) != 0);
        place.map_or(length, |place| {
            (place * WORD + bits(place).trailing_zeros() as usize).min(length)
        })
    };
    let mut start = next(0, 0);
    while start < length {
        let end = next(start, u64::MAX);
        runs.push(Run {
            start: start as u32,
            end: end as u32,
        });
        start = next(end, 0);
    }
}

/// The first place from `start` on that does not hold `value`; eight voxels at a time.
fn end_of_run(row: &[u8], start: usize, value: u8) -> usize {
    let (words, _) = row[start..].as_chunks::<8>();
    let same = words.iter().take_while(|word| **word == [value; 8]).count() * 8;
    let rest = row[start + same..]
        .iter()
        .take_while(|voxel| **voxel == value);
    start + same + rest.count()
}
