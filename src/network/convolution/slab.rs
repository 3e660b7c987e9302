//! Some planes of a convolution's output, from turning tiles into points to normalising channels.

use std::ops::Range;

use super::points::{POINTS, SIDE, TILE, from_points, rows_of, to_points, values_of};
use super::{Convolution, Norm, PANEL, TAPS};
use crate::lanes::{Lanes, Task};

/// Vectors of tiles whose sums are kept in registers: 16 of them hold eight sums and their terms.
const WIDE: usize = 2;
/// Tiles of a plane that are worked on together, so that all that they need stays in the cache.
const TILES: usize = 48;
/// Voxels whose channels are normalised together: whole lines of the cache.
const TOGETHER: usize = 64;
/// What lies between points, so that those of a tile do not all fall into the same lines of the cache.
const APART: usize = 16;

/// Some planes of the output, of every channel.
pub(super) struct Slab<'a, 'b> {
    pub of: &'a Convolution,
    pub input: &'a [f32],
    /// Along k, j and i.
    pub shape: [usize; 3],
    /// Along k.
    pub range: Range<usize>,
    /// `[output][k]`.
    pub planes: &'a mut [&'b mut [f32]],
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
        let mut ready = 0;
        for k in self.range.clone() {
            // Each plane takes the place of the one that is no longer seen.
            let seen = k.saturating_sub(1)..(k + TAPS - 1).min(self.shape[0]);
            for plane in seen.start.max(ready)..seen.end {
                for input in 0..self.of.inputs {
                    self.look::<V>(input, plane, tiles, sections, room);
                }
            }
            ready = seen.end;
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
                        // What is no number stays none.
                        for (to, &mut value) in plane.iter_mut().zip(value) {
                            *to = if value < 0.0 { 0.0 } else { value };
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
