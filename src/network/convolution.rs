//! Convolutions of 3×3×3 by minimal filtering: a quarter of the multiplications.
//!
//! Each plane of the input is cut into tiles of 6×6 that overlap by two, each tile is turned into 36
//! points, and what the kernel does to a tile is a product at each point; the products of all inputs and of
//! the three planes that the kernel sees are summed up before they are turned back into 4×4 outputs.
//!
//! # Source
//! Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016), F(4×4, 3×3); the planes are
//! summed up directly.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::lanes::{self, Lanes, Task};

/// What a kernel sees along each axis.
const TAPS: usize = 3;
/// Outputs of a tile along i and j.
const TILE: usize = 4;
/// What a tile sees along i and j.
const SIDE: usize = TILE + TAPS - 1;
const POINTS: usize = SIDE * SIDE;
/// Outputs whose factors lie side by side.
const PANEL: usize = 4;
/// Vectors of tiles whose sums are kept in registers: 16 of them hold eight sums and their terms.
const WIDE: usize = 2;
/// Tiles of a plane that are worked on together, so that all that they need stays in the cache.
const TILES: usize = 48;
/// Voxels whose channels are normalised together: whole lines of the cache.
const TOGETHER: usize = 64;
/// Planes that are worked on one after the other: two more than these are turned into points.
const SLAB: usize = 12;

/// What lies between points, so that those of a tile do not all fall into the same lines of the cache.
const APART: usize = 16;

/// A convolution of 3×3×3 with zeros around its input, and what follows on it.
pub struct Convolution {
    inputs: usize,
    outputs: usize,
    /// `[point][panel][tap][input][output of the panel]`.
    factors: Vec<f32>,
    bias: Vec<f32>,
    norm: Option<Norm>,
    relu: bool,
}

/// Normalises the channels of each voxel to mean 0 and variance 1, then scales and shifts each channel.
pub struct Norm {
    /// Added to the variance.
    pub epsilon: f32,
    /// A factor for each channel.
    pub scale: Vec<f32>,
    /// A summand for each channel.
    pub shift: Vec<f32>,
}

impl Convolution {
    /// Takes weights `[output][input][k][j][i]`, and a bias for each output or none.
    pub fn new(weights: &[f32], [outputs, inputs]: [usize; 2], bias: &[f32]) -> Self {
        let panels = outputs.div_ceil(PANEL);
        let apart = panels * TAPS * inputs * PANEL;
        let mut factors = vec![0.0; POINTS * apart];
        for panel in 0..panels {
            for (tap, input) in (0..TAPS).flat_map(|tap| (0..inputs).map(move |n| (tap, n))) {
                let kernel = |output: usize| {
                    let first = ((output * inputs + input) * TAPS + tap) * TAPS * TAPS;
                    weights.get(first..first + TAPS * TAPS)
                };
                let mut kernels = [[0.0; PANEL]; TAPS * TAPS];
                for n in 0..PANEL.min(outputs - panel * PANEL) {
                    let kernel = kernel(panel * PANEL + n).into_iter().flatten();
                    kernels
                        .iter_mut()
                        .zip(kernel)
                        .for_each(|(to, &w)| to[n] = w);
                }
                let at = ((panel * TAPS + tap) * inputs + input) * PANEL;
                for (point, factor) in filter(&kernels).into_iter().enumerate() {
                    factors[point * apart + at..][..PANEL].copy_from_slice(&factor);
                }
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(outputs, 0.0);
        Self {
            inputs,
            outputs,
            factors,
            bias,
            norm: None,
            relu: false,
        }
    }

    /// Normalises the outputs, and leaves out what is negative.
    pub fn followed_by(self, norm: Option<Norm>, relu: bool) -> Self {
        Self { norm, relu, ..self }
    }

    /// Convolves `input`, `[input][k][j][i]`, into `output`, `[output][k][j][i]`, both of that many voxels
    /// along k, j and i. Each part of the work is a call by number; `each` calls all of them, below the
    /// number that it gets, in any order. `threads`: how many it calls at once.
    pub fn run(
        &self,
        input: &[f32],
        [nk, nj, ni]: [usize; 3],
        output: &mut [f32],
        threads: usize,
        each: impl FnOnce(usize, &(dyn Fn(usize) + Send + Sync)),
    ) {
        let count = nk.div_ceil(SLAB).next_multiple_of(threads.max(1)).min(nk);
        let cut = |n: usize| n * nk / count;
        let mut slabs: Vec<(Range<usize>, Vec<&mut [f32]>)> = (0..count)
            .map(|n| (cut(n)..cut(n + 1), Vec::new()))
            .collect();
        for channel in output.chunks_exact_mut(nk * nj * ni) {
            let mut planes = channel.chunks_exact_mut(nj * ni);
            for (range, own) in &mut slabs {
                own.extend(planes.by_ref().take(range.len()));
            }
        }
        let slabs: Vec<_> = slabs.into_iter().map(Mutex::new).collect();
        each(slabs.len(), &|n| {
            let mut slab = slabs[n].lock().unwrap_or_else(PoisonError::into_inner);
            let (range, planes) = &mut *slab;
            lanes::run(Slab {
                of: self,
                input,
                shape: [nk, nj, ni],
                range: range.clone(),
                planes,
            });
        });
    }
}

/// A 3×3 kernel of each output of a panel as 36 factors.
fn filter(kernels: &[[f32; PANEL]; TAPS * TAPS]) -> [[f32; PANEL]; POINTS] {
    let turned = |[a, b, c]: [[f32; PANEL]; TAPS]| {
        let mut out = [[0.0; PANEL]; SIDE];
        for n in 0..PANEL {
            let (a, b, c) = (a[n], b[n], c[n]);
            let (even, odd) = ((a + c) / 6.0, b / 6.0);
            let (far, near) = ((a + 4.0 * c) / 24.0, b / 12.0);
            let points = [a / 4.0, -even - odd, odd - even, far + near, far - near, c];
            out.iter_mut().zip(points).for_each(|(to, p)| to[n] = p);
        }
        out
    };
    let rows = [0, 3, 6].map(|row| turned([kernels[row], kernels[row + 1], kernels[row + 2]]));
    let mut out = [[0.0; PANEL]; POINTS];
    for i in 0..SIDE {
        let column = turned([rows[0][i], rows[1][i], rows[2][i]]);
        for (j, factor) in column.into_iter().enumerate() {
            out[j * SIDE + i] = factor;
        }
    }
    out
}

/// The start of each of six rows.
#[inline(always)]
fn rows_of<V: Lanes>(from: &[f32], apart: usize) -> [V; SIDE] {
    let mut rows = [V::splat(0.0); SIDE];
    for (n, row) in rows.iter_mut().enumerate() {
        *row = V::load(&from[n * apart..]);
    }
    rows
}

/// What the tiles of a row see: the first value of each, the second of each, …
#[inline(always)]
fn values_of<V: Lanes>(line: &[f32]) -> [V; SIDE] {
    let mut values = [V::splat(0.0); SIDE];
    for (n, value) in values.iter_mut().enumerate() {
        *value = V::load_fourth(&line[n..]);
    }
    values
}

/// Six inputs along an axis as points.
#[inline(always)]
fn to_points<V: Lanes>([a, b, c, d, e, f]: [V; SIDE]) -> [V; SIDE] {
    let (four, minus_four, minus_five) = (V::splat(4.0), V::splat(-4.0), V::splat(-5.0));
    let even = c.mul_add(minus_four, e);
    let odd = b.mul_add(minus_four, d);
    let far = e.sub(c);
    let near = d.sub(b).add(d.sub(b));
    [
        a.mul_add(four, c.mul_add(minus_five, e)),
        even.add(odd),
        even.sub(odd),
        far.add(near),
        far.sub(near),
        b.mul_add(four, d.mul_add(minus_five, f)),
    ]
}

/// Points along an axis as four outputs.
#[inline(always)]
fn from_points<V: Lanes>([a, b, c, d, e, f]: [V; SIDE]) -> [V; TILE] {
    let (even, odd) = (b.add(c), b.sub(c));
    let (far, near) = (d.add(e), d.sub(e));
    [
        a.add(even).add(far),
        near.mul_add(V::splat(2.0), odd),
        far.mul_add(V::splat(4.0), even),
        near.mul_add(V::splat(8.0), odd).add(f),
    ]
}

/// Some planes of the output, of every channel.
struct Slab<'a, 'b> {
    of: &'a Convolution,
    input: &'a [f32],
    /// Along k, j and i.
    shape: [usize; 3],
    /// Along k.
    range: Range<usize>,
    /// `[output][k]`.
    planes: &'a mut [&'b mut [f32]],
}

/// Tiles of a plane that lie side by side.
struct Section {
    /// Place of the first one among those that are worked on together.
    first: usize,
    /// Which row of tiles.
    row: usize,
    /// Which of the row.
    columns: Range<usize>,
}

impl Section {
    /// Cuts a range of a plane's tiles at the ends of its rows.
    fn all_of(tiles: Range<usize>, length: usize) -> Vec<Self> {
        let rows = tiles.start / length..tiles.end.div_ceil(length);
        let cut = |row: usize| {
            let start = tiles.start.max(row * length);
            let end = tiles.end.min((row + 1) * length);
            Self {
                first: start - tiles.start,
                row,
                columns: start - row * length..end - row * length,
            }
        };
        rows.map(cut).collect()
    }
}

impl Task for Slab<'_, '_> {
    #[inline(always)]
    fn run<V: Lanes>(mut self) {
        let [_, nj, ni] = self.shape;
        let row = ni.div_ceil(TILE);
        let tiles = nj.div_ceil(TILE) * row;
        let block = WIDE * V::COUNT;
        let blocks = tiles.div_ceil(block);
        let groups = blocks.div_ceil((TILES / block).max(1));
        let mut room = Room::of::<V>(&self, blocks.div_ceil(groups), row);
        for n in 0..groups {
            let cut = |n: usize| (n * blocks / groups * block).min(tiles);
            let tiles = cut(n)..cut(n + 1);
            self.fill::<V>(tiles.len(), &Section::all_of(tiles, row), &mut room);
        }
        if self.of.norm.is_some() || self.of.relu {
            self.finish::<V>();
        }
    }
}

/// What a slab is worked out in. Tiles lie in blocks, as many as [`multiply`] takes at once.
struct Room {
    /// `[plane][point][block][input][tile]`, of the three planes that are seen.
    seen: Vec<f32>,
    /// Length of a point of `seen`.
    seen_point: usize,
    /// `[point][block][output][tile]`.
    sums: Vec<f32>,
    /// Length of a point of `sums`.
    sums_point: usize,
    /// Tiles that there is room for.
    tiles: usize,
    /// A row of the input from before the first tile to behind the last.
    line: Vec<f32>,
    /// `[point along i][row of the tile][tile]`.
    half: Vec<f32>,
    /// Length of a row of `half`: a vector more than there are tiles.
    width: usize,
    /// `[row of the tile][tile][4]`.
    rows: Vec<f32>,
}

impl Room {
    fn of<V: Lanes>(slab: &Slab, blocks: usize, row: usize) -> Self {
        let tiles = blocks * WIDE * V::COUNT;
        let outputs = slab.of.outputs.next_multiple_of(PANEL);
        let (seen_point, sums_point) = (tiles * slab.of.inputs + APART, tiles * outputs + APART);
        Self {
            seen: vec![0.0; TAPS * POINTS * seen_point],
            seen_point,
            sums: vec![0.0; POINTS * sums_point],
            sums_point,
            tiles,
            line: vec![0.0; TILE * (row + 1 + V::COUNT)],
            half: vec![0.0; SIDE * SIDE * (tiles + V::COUNT)],
            width: tiles + V::COUNT,
            rows: vec![0.0; TILE * TILE * tiles],
        }
    }
}

impl Slab<'_, '_> {
    /// Works out the outputs of a few tiles in every plane.
    #[inline(always)]
    fn fill<V: Lanes>(&mut self, tiles: usize, sections: &[Section], room: &mut Room) {
        let depth = self.range.len();
        let mut ready = self.range.start;
        for k in self.range.clone() {
            // What the first tap sees of plane 0 lies before the input; each plane takes the place of the one
            // that is no longer seen.
            let seen = k.saturating_sub(1)..(k + TAPS - 1).min(self.shape[0]);
            for plane in ready.saturating_sub(1).max(seen.start)..seen.end {
                for input in 0..self.of.inputs {
                    self.look::<V>(input, plane, tiles, sections, room);
                }
            }
            ready = seen.end + 1;
            self.sum_up::<V>(k, seen, tiles, room);
            for output in 0..self.of.outputs {
                turn_back::<V>(room, output, self.of, tiles);
                let plane = &mut self.planes[output * depth + k - self.range.start];
                put(room, sections, plane, self.shape[2]);
            }
        }
    }

    /// Turns the tiles of a plane into points.
    #[inline(always)]
    fn look<V: Lanes>(
        &self,
        input: usize,
        plane: usize,
        tiles: usize,
        sections: &[Section],
        room: &mut Room,
    ) {
        let [nk, nj, ni] = self.shape;
        let field = &self.input[(input * nk + plane) * nj * ni..][..nj * ni];
        let width = room.width;
        for section in sections {
            let count = section.columns.len();
            for a in 0..SIDE {
                let at = a * width + section.first;
                // Row 0 lies before the first one of the input.
                let j = TILE * section.row + a;
                if !(1..=nj).contains(&j) {
                    for i in 0..SIDE {
                        room.half[i * SIDE * width + at..][..count].fill(0.0);
                    }
                    continue;
                }
                let line = &mut room.line[..TILE * (count + 1)];
                copy_padded(
                    &field[(j - 1) * ni..][..ni],
                    TILE * section.columns.start,
                    line,
                );
                let mut t = 0;
                while t < count {
                    let points = to_points(values_of::<V>(&room.line[TILE * t..]));
                    for (i, point) in points.into_iter().enumerate() {
                        point.store(&mut room.half[i * SIDE * width + at + t..]);
                    }
                    t += V::COUNT;
                }
            }
        }
        let block = WIDE * V::COUNT;
        let first = plane % TAPS * POINTS * room.seen_point + input * block;
        let mut t = 0;
        while t < tiles {
            let at = first + t / block * block * self.of.inputs + t % block;
            for i in 0..SIDE {
                let half = &room.half[i * SIDE * width + t..];
                let points = to_points(rows_of::<V>(half, width));
                for (j, point) in points.into_iter().enumerate() {
                    point.store(&mut room.seen[(j * SIDE + i) * room.seen_point + at..]);
                }
            }
            t += V::COUNT;
        }
    }

    /// Sums up the products of all inputs and of the planes that are seen from one.
    #[inline(always)]
    fn sum_up<V: Lanes>(&self, k: usize, planes: Range<usize>, tiles: usize, room: &mut Room) {
        let inputs = self.of.inputs;
        let block = WIDE * V::COUNT;
        let panel = TAPS * inputs * PANEL;
        let panels = self.of.outputs.div_ceil(PANEL);
        // The first tap sees the plane before.
        let taps = planes.start + 1 - k..planes.end + 1 - k;
        let factors = self.of.factors.chunks_exact(panels * panel);
        let sums = room.sums.chunks_exact_mut(room.sums_point);
        for (point, (factors, sums)) in factors.zip(sums).enumerate() {
            let sums = sums.chunks_exact_mut(panels * PANEL * block);
            for (n, sums) in (0..tiles.div_ceil(block)).zip(sums) {
                let mut seen: [&[f32]; TAPS] = [&[]; TAPS];
                for (seen, plane) in seen.iter_mut().zip(planes.clone()) {
                    let at = (plane % TAPS * POINTS + point) * room.seen_point;
                    *seen = &room.seen[at + n * inputs * block..][..inputs * block];
                }
                let seen = &seen[..planes.len()];
                let one = tiles - n * block <= V::COUNT;
                let sums = sums.chunks_exact_mut(PANEL * block);
                for (factors, sums) in factors.chunks_exact(panel).zip(sums) {
                    let (first, last) = (taps.start * inputs * PANEL, taps.end * inputs * PANEL);
                    let factors = &factors[first..last];
                    match one {
                        true => multiply::<V, 1>(factors, seen, sums),
                        false => multiply::<V, WIDE>(factors, seen, sums),
                    }
                }
            }
        }
    }

    /// Normalises the channels of each voxel, and leaves out what is negative.
    #[inline(always)]
    fn finish<V: Lanes>(&mut self) {
        let depth = self.range.len();
        let size = self.shape[1] * self.shape[2];
        let mut values = vec![0.0; self.of.outputs * TOGETHER];
        for k in 0..depth {
            let mut start = 0;
            while start < size {
                let length = TOGETHER.min(size - start);
                let planes = self.planes[k..].iter().step_by(depth);
                for (value, plane) in values.chunks_exact_mut(TOGETHER).zip(planes) {
                    value[..length].copy_from_slice(&plane[start..start + length]);
                }
                if let Some(norm) = &self.of.norm {
                    for t in 0..length.div_ceil(V::COUNT) {
                        norm.apply::<V>(&mut values[t * V::COUNT..]);
                    }
                }
                let planes = self.planes[k..].iter_mut().step_by(depth);
                for (value, plane) in values.chunks_exact_mut(TOGETHER).zip(planes) {
                    let plane = &mut plane[start..start + length];
                    if self.of.relu {
                        for (to, value) in plane.iter_mut().zip(value) {
                            *to = value.max(0.0);
                        }
                    } else {
                        plane.copy_from_slice(&value[..length]);
                    }
                }
                start += length;
            }
        }
    }
}

impl Norm {
    /// Normalises a vector of voxels: `[channel][voxel]`, [`TOGETHER`] apart.
    #[inline(always)]
    fn apply<V: Lanes>(&self, values: &mut [f32]) {
        let zero = V::splat(0.0);
        let share = V::splat(1.0 / self.scale.len() as f32);
        let mut sum = zero;
        for value in values.chunks(TOGETHER) {
            sum = sum.add(V::load(value));
        }
        let mean = sum.mul_add(share, zero);
        let mut squares = zero;
        for value in values.chunks(TOGETHER) {
            let apart = V::load(value).sub(mean);
            squares = apart.mul_add(apart, squares);
        }
        let variance = squares.mul_add(share, V::splat(self.epsilon));
        let factor = variance.inverse_root();
        let channels = values
            .chunks_mut(TOGETHER)
            .zip(&self.scale)
            .zip(&self.shift);
        for ((value, &scale), &shift) in channels {
            let unit = V::load(value).sub(mean).mul_add(factor, zero);
            unit.mul_add(V::splat(scale), V::splat(shift)).store(value);
        }
    }
}

/// The sums of a panel of outputs for `N` vectors of tiles, over what is `seen` of each plane.
#[inline(always)]
fn multiply<V: Lanes, const N: usize>(factors: &[f32], seen: &[&[f32]], sums: &mut [f32]) {
    let block = WIDE * V::COUNT;
    let mut found = [[V::splat(0.0); N]; PANEL];
    let (mut factors, _) = factors.as_chunks::<PANEL>();
    for seen in seen {
        let (of_plane, rest) = factors.split_at(seen.len() / block);
        factors = rest;
        for (factors, row) in of_plane.iter().zip(seen.chunks_exact(block)) {
            let mut values = [V::splat(0.0); N];
            for (n, value) in values.iter_mut().enumerate() {
                *value = V::load(&row[n * V::COUNT..]);
            }
            for m in 0..PANEL {
                let factor = V::splat(factors[m]);
                for n in 0..N {
                    found[m][n] = factor.mul_add(values[n], found[m][n]);
                }
            }
        }
    }
    for (found, row) in found.iter().zip(sums.chunks_exact_mut(block)) {
        for (n, found) in found.iter().enumerate() {
            found.store(&mut row[n * V::COUNT..]);
        }
    }
}

/// Turns the sums of an output into rows of its tiles.
#[inline(always)]
fn turn_back<V: Lanes>(room: &mut Room, output: usize, of: &Convolution, tiles: usize) {
    let block = WIDE * V::COUNT;
    let outputs = of.outputs.next_multiple_of(PANEL);
    let bias = V::splat(of.bias[output]);
    let mut t = 0;
    while t < tiles {
        let at = (t / block * outputs + output) * block + t % block;
        let mut half = [[V::splat(0.0); SIDE]; TILE];
        for i in 0..SIDE {
            let sums = &room.sums[i * room.sums_point + at..];
            let column = from_points(rows_of::<V>(sums, SIDE * room.sums_point));
            for (row, value) in half.iter_mut().zip(column) {
                row[i] = value;
            }
        }
        for (a, half) in half.into_iter().enumerate() {
            let [x, y, z, w] = from_points(half);
            let values = [x.add(bias), y.add(bias), z.add(bias), w.add(bias)];
            V::store_quads(values, &mut room.rows[TILE * (a * room.tiles + t)..]);
        }
        t += V::COUNT;
    }
}

/// Puts rows of tiles into the plane that they are of, `ni` long, as far as they lie within.
fn put(room: &Room, sections: &[Section], plane: &mut [f32], ni: usize) {
    for Section {
        first,
        row,
        columns,
    } in sections
    {
        let left = TILE * columns.start;
        let length = (TILE * columns.len()).min(ni - left);
        let lines = plane[TILE * row * ni..].chunks_exact_mut(ni);
        for (line, values) in lines.zip(room.rows.chunks_exact(TILE * room.tiles)) {
            line[left..left + length].copy_from_slice(&values[TILE * first..][..length]);
        }
    }
}

/// Copies a row from one value before `left` on, with zeros where it has none.
#[inline(always)]
fn copy_padded(row: &[f32], left: usize, to: &mut [f32]) {
    let before = usize::from(left == 0);
    let from = &row[(left + before - 1).min(row.len())..];
    let (edge, to) = to.split_at_mut(before);
    let there = from.len().min(to.len());
    edge.fill(0.0);
    to[..there].copy_from_slice(&from[..there]);
    to[there..].fill(0.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers between -1 and 1 that look random.
    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        };
        (0..count).map(next).collect()
    }

    /// A convolution by its definition.
    fn defined(
        weights: &[f32],
        [outputs, inputs]: [usize; 2],
        bias: &[f32],
        input: &[f32],
        shape: [usize; 3],
    ) -> Vec<f64> {
        let size: usize = shape.iter().product();
        let index = |at: [usize; 3]| {
            at.iter()
                .zip(shape)
                .fold(0, |n, (a, length)| n * length + a)
        };
        let mut out = vec![0.0; outputs * size];
        let taps = |n: usize| [n / 9, n / 3 % 3, n % 3];
        for (n, value) in out.iter_mut().enumerate() {
            let (output, voxel) = (n / size, n % size);
            let at = [
                voxel / shape[2] / shape[1],
                voxel / shape[2] % shape[1],
                voxel % shape[2],
            ];
            *value = f64::from(bias[output]);
            for (m, tap) in (0..27).map(|m| (m, taps(m))) {
                let near = [0, 1, 2].map(|a| (at[a] + tap[a]).wrapping_sub(1));
                if near.iter().zip(shape).any(|(at, length)| *at >= length) {
                    continue;
                }
                for c in 0..inputs {
                    let weight = f64::from(weights[(output * inputs + c) * 27 + m]);
                    *value += weight * f64::from(input[c * size + index(near)]);
                }
            }
        }
        out
    }

    /// The same with lanes of one width.
    struct With<'a, 'b, const N: usize>(Slab<'a, 'b>);

    fn found<const N: usize>(of: &Convolution, input: &[f32], shape: [usize; 3]) -> Vec<f32> {
        let size: usize = shape.iter().product();
        let mut output = vec![f32::NAN; of.outputs * size];
        let mut planes: Vec<_> = output.chunks_exact_mut(shape[1] * shape[2]).collect();
        let slab = Slab {
            of,
            input,
            shape,
            range: 0..shape[0],
            planes: &mut planes,
        };
        With::<N>(slab).0.run::<[f32; N]>();
        output
    }

    fn largest_difference(found: &[f32], expected: &[f64]) -> f64 {
        assert_eq!(found.len(), expected.len());
        let apart = |(found, expected): (&f32, &f64)| (f64::from(*found) - expected).abs();
        found
            .iter()
            .zip(expected)
            .map(apart)
            .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn it_is_a_convolution_whatever_the_shape(
            channels in [1..10_usize, 1..10_usize],
            shape in [1..24_usize, 1..34_usize, 1..50_usize],
            threads in 1..5_usize,
            seed in any::<u64>(),
        ) {
            let [outputs, inputs] = channels;
            let weights = numbers(outputs * inputs * 27, seed);
            let bias = numbers(outputs, seed ^ 1);
            let input = numbers(inputs * shape.iter().product::<usize>(), seed ^ 2);
            let expected = defined(&weights, channels, &bias, &input, shape);
            let of = Convolution::new(&weights, channels, &bias);
            let mut output = vec![f32::NAN; expected.len()];
            of.run(&input, shape, &mut output, threads, |count, part| (0..count).rev().for_each(part));
            prop_assert!(largest_difference(&output, &expected) < 2e-4);
            for other in [found::<4>(&of, &input, shape), found::<16>(&of, &input, shape)] {
                prop_assert!(largest_difference(&other, &expected) < 2e-4);
            }
        }
    }

    #[test]
    fn how_the_work_is_shared_changes_no_bit() {
        let (channels, shape) = ([6, 5], [19, 30, 41]);
        let weights = numbers(6 * 5 * 27, 3);
        let input = numbers(5 * shape.iter().product::<usize>(), 4);
        let of = Convolution::new(&weights, channels, &[]);
        let run = |threads: usize| {
            let mut output = vec![f32::NAN; 6 * shape.iter().product::<usize>()];
            of.run(&input, shape, &mut output, threads, |count, part| {
                (0..count).for_each(part)
            });
            output
        };
        assert!(run(1) == run(2) && run(1) == run(7) && run(1) == run(64));
        // The widths of x86's registers round alike.
        assert!(found::<8>(&of, &input, shape) == found::<16>(&of, &input, shape));
    }

    #[test]
    fn channels_are_normalised_and_what_is_negative_left_out() {
        let (channels, shape) = ([5, 3], [3, 7, 9]);
        let size: usize = shape.iter().product();
        let weights = numbers(5 * 3 * 27, 5);
        let input = numbers(3 * size, 6);
        let (scale, shift) = (numbers(5, 7), numbers(5, 8));
        let plain = defined(&weights, channels, &[0.0; 5], &input, shape);
        let mut expected = plain.clone();
        for voxel in 0..size {
            let mean = (0..5).map(|c| plain[c * size + voxel]).sum::<f64>() / 5.0;
            let apart = |c: usize| plain[c * size + voxel] - mean;
            let variance = (0..5).map(|c| apart(c).powi(2)).sum::<f64>() / 5.0;
            for c in 0..5 {
                let unit = apart(c) / (variance + 1e-3).sqrt();
                let value = unit * f64::from(scale[c]) + f64::from(shift[c]);
                expected[c * size + voxel] = value.max(0.0);
            }
        }
        let norm = Norm {
            epsilon: 1e-3,
            scale,
            shift,
        };
        let of = Convolution::new(&weights, channels, &[]).followed_by(Some(norm), true);
        for found in [
            found::<4>(&of, &input, shape),
            found::<16>(&of, &input, shape),
        ] {
            assert!(largest_difference(&found, &expected) < 1e-4);
        }
    }
}
