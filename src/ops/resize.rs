//! Stretching an array over another number of samples, as nnU-Net does it.
//!
//! Sample `n` of `to` lies at `(n + ½)·from/to − ½`; beyond its ends an array goes on with its
//! outermost values. This is not the grid of [`crate::ops::interpolate`]: there the affine says where
//! a voxel lies, here the ratio of the two lengths does, whatever the spacings say.
//!
//! Axes of the arrays here are in the order of their strides, the last one fastest.
//!
//! # Source
//! `resize` of scikit-image 0.26 (`mode="edge"`, no anti-aliasing, clipped to the range of the
//! input), which nnU-Net's `resample_data_or_seg` calls; cubic B-splines: Unser,
//! doi:10.1109/79.799930, with the sums of box 2 taken over a signal that is constant beyond its ends.

use rayon::prelude::*;

/// Samples along the three axes, the slowest first.
pub type Lengths = [usize; 3];

/// √3 − 2, the pole of the cubic B-spline's inverse filter.
const POLE: f64 = -0.267_949_192_431_122_7;
/// Gain of the filter's two passes together.
const GAIN: f64 = 6.0;
/// Coefficients beyond each end that a sample may reach.
const RIM: usize = 2;
/// Columns that one task works on.
const WIDTH: usize = 32;
/// Tasks whose results are held at the same time.
const BATCH: usize = 512;

/// Where a sample lies between two others: the lower one, and how far (0 to 1) it is to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// The lower sample; the last one has no upper neighbour and a share of 0.
    pub lower: usize,
    /// Share of the upper sample.
    pub share: f64,
}

/// Places of `to` samples between `from` samples, for a straight line between neighbours.
pub fn linear_places(from: usize, to: usize) -> Vec<Place> {
    let last = (from - 1) as f64;
    let place = |n| {
        let x = position(from, to, n).clamp(0.0, last);
        Place {
            lower: x as usize,
            share: x.fract(),
        }
    };
    (0..to).map(place).collect()
}

/// For each of `to` samples the closest of `from`; half-way, the higher one.
pub fn nearest_places(from: usize, to: usize) -> Vec<Place> {
    let last = (from - 1) as f64;
    let place = |n| Place {
        lower: (position(from, to, n).clamp(0.0, last) + 0.5) as usize,
        share: 0.0,
    };
    (0..to).map(place).collect()
}

fn position(from: usize, to: usize, n: usize) -> f64 {
    (n as f64 + 0.5) * (from as f64 / to as f64) - 0.5
}

/// Stretches an array by cubic B-splines and holds it within its own range.
///
/// With a `slice_axis`, each slice across that axis is stretched and held by itself, and along the
/// axis each sample takes the closest slice.
pub fn resize_cubic(
    values: Vec<f32>,
    from: Lengths,
    to: Lengths,
    slice_axis: Option<usize>,
) -> Vec<f32> {
    if from == to {
        return values;
    }
    let ranges = ranges(&values, from, slice_axis);
    let (mut values, mut now) = (values, from);
    // What shrinks most comes first, so that the least is left for the other axes.
    let mut order: Vec<usize> = (0..3).filter(|&axis| Some(axis) != slice_axis).collect();
    order.sort_by(|&a, &b| (to[a] * from[b]).cmp(&(to[b] * from[a])));
    for axis in order {
        if now[axis] != to[axis] {
            values = stretched(&values, now, axis, to[axis]);
            now[axis] = to[axis];
        }
    }
    hold(&mut values, now, slice_axis, &ranges);
    match slice_axis {
        Some(axis) if now[axis] != to[axis] => chosen(&values, now, axis, to[axis]),
        _ => values,
    }
}

/// Samples before and after an axis: `values` are `outer` blocks of lines that are `inner` apart.
fn strides(lengths: Lengths, axis: usize) -> (usize, usize) {
    let outer = lengths[..axis].iter().product();
    let inner = lengths[axis + 1..].iter().product();
    (outer, inner)
}

fn range_of(values: impl Iterator<Item = f32>) -> [f32; 2] {
    values.fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], v| {
        [low.min(v), high.max(v)]
    })
}

fn wider(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    [a[0].min(b[0]), a[1].max(b[1])]
}

/// The range of the array, or that of each slice.
fn ranges(values: &[f32], lengths: Lengths, slice_axis: Option<usize>) -> Vec<[f32; 2]> {
    let Some(axis) = slice_axis else {
        let runs = values.par_chunks(1 << 16);
        let runs = runs.map(|run| range_of(run.iter().copied()));
        let nothing = || [f32::INFINITY, f32::NEG_INFINITY];
        return vec![runs.reduce(nothing, wider)];
    };
    let (outer, inner) = strides(lengths, axis);
    let slice = |n| {
        let pieces = (0..outer).map(|o| (o * lengths[axis] + n) * inner);
        range_of(pieces.flat_map(|start| values[start..start + inner].iter().copied()))
    };
    (0..lengths[axis]).into_par_iter().map(slice).collect()
}

fn hold(values: &mut [f32], lengths: Lengths, slice_axis: Option<usize>, ranges: &[[f32; 2]]) {
    let clamp = |run: &mut [f32], [low, high]: [f32; 2]| {
        run.iter_mut().for_each(|v| *v = v.clamp(low, high));
    };
    let Some(axis) = slice_axis else {
        let runs = values.par_chunks_mut(1 << 16);
        return runs.for_each(|run| clamp(run, ranges[0]));
    };
    let (_, inner) = strides(lengths, axis);
    let pieces = values.par_chunks_mut(inner).enumerate();
    pieces.for_each(|(n, piece)| clamp(piece, ranges[n % lengths[axis]]));
}

/// Takes the closest slice for each sample along an axis.
fn chosen(values: &[f32], lengths: Lengths, axis: usize, to: usize) -> Vec<f32> {
    let (outer, inner) = strides(lengths, axis);
    let places = nearest_places(lengths[axis], to);
    let mut taken = Vec::with_capacity(outer * to * inner);
    for o in 0..outer {
        for place in &places {
            let start = (o * lengths[axis] + place.lower) * inner;
            taken.extend_from_slice(&values[start..start + inner]);
        }
    }
    taken
}

/// The four coefficients round a sample, as rows of a filtered block, and their weights.
struct Taps {
    first: usize,
    weights: [f64; 4],
}

fn taps(from: usize, to: usize) -> Vec<Taps> {
    let tap = |n| {
        let x: f64 = position(from, to, n);
        let floor = x.floor();
        let (t, u) = (x - floor, 1.0 - (x - floor));
        let near = |t: f64| (t * t * (t - 2.0) * 3.0 + 4.0) / 6.0;
        let far = |u: f64| u * u * u / 6.0;
        Taps {
            // Row 0 is coefficient −2, and the first tap lies one before the floor, which is −1 or more.
            first: (floor as isize - 1 + RIM as isize) as usize,
            weights: [far(u), near(t), near(u), far(t)],
        }
    };
    (0..to).map(tap).collect()
}

/// Stretches along one axis.
fn stretched(values: &[f32], lengths: Lengths, axis: usize, to: usize) -> Vec<f32> {
    let from = lengths[axis];
    let (outer, inner) = strides(lengths, axis);
    let taps = taps(from, to);
    let columns = Columns::new(outer, inner);
    let mut found = vec![0.0; outer * to * inner];
    let mut start = 0;
    while start < columns.count() {
        let end = (start + BATCH).min(columns.count());
        let blocks: Vec<Vec<f32>> = (start..end)
            .into_par_iter()
            .map(|task| {
                let mut block = vec![0.0; (from + 2 * RIM) * WIDTH];
                columns.gather(task, values, from, &mut block[RIM * WIDTH..]);
                filter(&mut block, from);
                sample(&block, &taps)
            })
            .collect();
        for (task, block) in (start..end).zip(&blocks) {
            columns.scatter(task, block, to, &mut found);
        }
        start = end;
    }
    found
}

/// Lines along an axis, [`WIDTH`] at a time: neighbours in memory, or, along the fastest axis, lines
/// one after the other.
struct Columns {
    outer: usize,
    inner: usize,
    blocks: usize,
}

impl Columns {
    fn new(outer: usize, inner: usize) -> Self {
        let along_lines = if inner == 1 { outer } else { inner };
        Self {
            outer,
            inner,
            blocks: along_lines.div_ceil(WIDTH),
        }
    }

    fn count(&self) -> usize {
        if self.inner == 1 {
            self.blocks
        } else {
            self.blocks * self.outer
        }
    }

    /// Block of lines, first column and number of columns of a task.
    fn place(&self, task: usize) -> (usize, usize, usize) {
        let (block, column) = (task / self.blocks, task % self.blocks * WIDTH);
        let most = if self.inner == 1 {
            self.outer
        } else {
            self.inner
        };
        (block, column, WIDTH.min(most - column))
    }

    fn gather(&self, task: usize, values: &[f32], length: usize, block: &mut [f64]) {
        let (outer, column, width) = self.place(task);
        if self.inner == 1 {
            for c in 0..width {
                let line = &values[(column + c) * length..][..length];
                for (n, &value) in line.iter().enumerate() {
                    block[n * WIDTH + c] = value.into();
                }
            }
            return;
        }
        for n in 0..length {
            let start = (outer * length + n) * self.inner + column;
            let row = &mut block[n * WIDTH..][..width];
            for (to, &value) in row.iter_mut().zip(&values[start..start + width]) {
                *to = value.into();
            }
        }
    }

    fn scatter(&self, task: usize, block: &[f32], length: usize, values: &mut [f32]) {
        let (outer, column, width) = self.place(task);
        if self.inner == 1 {
            for c in 0..width {
                let line = &mut values[(column + c) * length..][..length];
                for (n, value) in line.iter_mut().enumerate() {
                    *value = block[n * WIDTH + c];
                }
            }
            return;
        }
        for n in 0..length {
            let start = (outer * length + n) * self.inner + column;
            values[start..start + width].copy_from_slice(&block[n * WIDTH..][..width]);
        }
    }
}

fn row(block: &[f64], n: usize) -> [f64; WIDTH] {
    let mut row = [0.0; WIDTH];
    row.copy_from_slice(&block[n * WIDTH..][..WIDTH]);
    row
}

/// Makes coefficients out of samples, which lie in rows `RIM..RIM + length` of a block; the rows
/// before and after become those of a signal that is constant there.
fn filter(block: &mut [f64], length: usize) {
    let (first, end) = (RIM, RIM + length);
    // What the forward pass comes to on a constant.
    let settled = |value: f64| GAIN * value / (1.0 - POLE);
    let before = row(block, first).map(settled);
    let after = row(block, end - 1).map(settled);
    let mut previous = before;
    for n in first..end {
        let row = &mut block[n * WIDTH..][..WIDTH];
        for (value, previous) in row.iter_mut().zip(&mut previous) {
            *previous = GAIN * *value + POLE * *previous;
            *value = *previous;
        }
    }
    // Beyond the end the forward pass runs from its last value to the settled one.
    for c in 0..WIDTH {
        let away = previous[c] - after[c];
        let mut share = POLE / (1.0 - POLE * POLE);
        for n in end - 1..end + RIM {
            block[n * WIDTH + c] = -POLE / (1.0 - POLE) * after[c] - share * away;
            share *= POLE;
        }
    }
    let mut next = row(block, end - 1);
    for n in (0..end - 1).rev() {
        let row = &mut block[n * WIDTH..][..WIDTH];
        for c in 0..WIDTH {
            let forward = if n < first { before[c] } else { row[c] };
            next[c] = POLE * (next[c] - forward);
            row[c] = next[c];
        }
    }
}

fn sample(block: &[f64], taps: &[Taps]) -> Vec<f32> {
    let mut found = vec![0.0; taps.len() * WIDTH];
    for (values, tap) in found.chunks_mut(WIDTH).zip(taps) {
        let rows = &block[tap.first * WIDTH..][..4 * WIDTH];
        let (a, rest) = rows.split_at(WIDTH);
        let (b, rest) = rest.split_at(WIDTH);
        let (c, d) = rest.split_at(WIDTH);
        let [wa, wb, wc, wd] = tap.weights;
        for n in 0..WIDTH {
            values[n] = (wa * a[n] + wb * b[n] + wc * c[n] + wd * d[n]) as f32;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_stays_constant_to_the_edge() {
        for (from, to) in [([5, 1, 7], [9, 4, 3]), ([1, 1, 1], [3, 2, 1])] {
            let count: usize = from.iter().product();
            let found = resize_cubic(vec![2.5; count], from, to, None);
            assert_eq!(found, vec![2.5; to.iter().product()]);
        }
    }

    #[test]
    fn splines_agree_with_scikit_image() {
        // resize(array([3, -1, 4, 1, -5, 9, 2, 6.]), n, order=3, mode="edge", anti_aliasing=False,
        // clip=False) of scikit-image 0.26.0.
        let values = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0];
        let coarse = WANTED_5;
        for (to, wanted) in [(5, coarse.as_slice()), (11, WANTED_11.as_slice())] {
            // Along each axis in turn; the same numbers must come out, held within -5 and 9.
            for axis in 0..3 {
                let (mut from, mut lengths) = ([1; 3], [1; 3]);
                (from[axis], lengths[axis]) = (8, to);
                let found = resize_cubic(values.to_vec(), from, lengths, None);
                for (found, wanted) in found.iter().zip(wanted) {
                    let wanted: f64 = wanted.clamp(-5.0, 9.0);
                    assert!(
                        (f64::from(*found) - wanted).abs() < 1e-6,
                        "{found} {wanted}"
                    );
                }
            }
        }
    }

    const WANTED_5: [f64; 5] = [
        1.594_393_045,
        3.566_168_461,
        -4.088_975_225,
        9.214_395_324,
        4.202_915_046,
    ];
    const WANTED_11: [f64; 11] = [
        3.359_998_501,
        0.028_551_878,
        0.040_505_752,
        4.154_008_617,
        2.829_094_797,
        -4.088_975_225,
        -2.360_546_629,
        8.740_963_36,
        4.655_447_559,
        2.381_081_385,
        6.468_607_269,
    ];

    #[test]
    fn slices_are_stretched_by_themselves_and_repeated() {
        // Two slices of one row, along axis 0; each is held within its own range.
        let values = vec![0.0, 0.0, 1.0, 1.0, 10.0, 10.0, 20.0, 20.0];
        let found = resize_cubic(values, [2, 1, 4], [4, 1, 8], Some(0));
        let slices: Vec<&[f32]> = found.chunks(8).collect();
        assert_eq!((slices[0], slices[2]), (slices[1], slices[3]));
        for (slice, range) in [(slices[0], 0.0..=1.0), (slices[2], 10.0..=20.0)] {
            assert!(slice.iter().all(|v| range.contains(v)), "{slice:?}");
            // A spline would swing beyond the steps' ends.
            assert!(slice.contains(range.start()) && slice.contains(range.end()));
        }
    }

    #[test]
    fn places_are_half_a_sample_off_and_held_at_the_ends() {
        let shares = |places: Vec<Place>| -> Vec<f64> {
            places.iter().map(|p| p.lower as f64 + p.share).collect()
        };
        assert_eq!(shares(linear_places(2, 4)), [0.0, 0.25, 0.75, 1.0]);
        assert_eq!(shares(linear_places(6, 3)), [0.5, 2.5, 4.5]);
        // Half-way, the higher one.
        assert_eq!(shares(nearest_places(6, 3)), [1.0, 3.0, 5.0]);
        assert_eq!(shares(nearest_places(2, 4)), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn many_columns_are_what_each_is_alone() {
        let lengths = [3, 9, 41];
        let values: Vec<f32> = (0..3 * 9 * 41).map(|n| ((n * 37) % 101) as f32).collect();
        for axis in 0..3 {
            let to = 7;
            let (outer, inner) = strides(lengths, axis);
            let found = stretched(&values, lengths, axis, to);
            for line in 0..outer * inner {
                let (o, c) = (line / inner, line % inner);
                let at = |n: usize, length: usize| (o * length + n) * inner + c;
                let alone: Vec<f32> = (0..lengths[axis])
                    .map(|n| values[at(n, lengths[axis])])
                    .collect();
                let alone = stretched(&alone, [1, 1, lengths[axis]], 2, to);
                let together: Vec<f32> = (0..to).map(|n| found[at(n, to)]).collect();
                assert_eq!(alone, together);
            }
        }
    }
}
