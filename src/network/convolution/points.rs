//! Tiles of 6×6 values and kernels of 3×3 as 36 points each, whose products turned back are 4×4 outputs.

use super::{PANEL, TAPS};
use crate::lanes::Lanes;

/// Outputs of a tile along i and j.
pub(super) const TILE: usize = 4;
/// What a tile sees along i and j.
pub(super) const SIDE: usize = TILE + TAPS - 1;
pub(super) const POINTS: usize = SIDE * SIDE;

/// A 3×3 kernel of each output of a panel as 36 factors.
pub(super) fn filter(kernels: &[[f32; PANEL]; TAPS * TAPS]) -> [[f32; PANEL]; POINTS] {
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
pub(super) fn rows_of<V: Lanes>(from: &[f32], apart: usize) -> [V; SIDE] {
    let mut rows = [V::splat(0.0); SIDE];
    for (n, row) in rows.iter_mut().enumerate() {
        *row = V::load(&from[n * apart..]);
    }
    rows
}

/// What the tiles of a row see: the first value of each, the second of each, …
#[inline(always)]
pub(super) fn values_of<V: Lanes>(line: &[f32]) -> [V; SIDE] {
    let mut values = [V::splat(0.0); SIDE];
    for (n, value) in values.iter_mut().enumerate() {
        *value = V::load_fourth(&line[n..]);
    }
    values
}

/// Six inputs along an axis as points.
#[inline(always)]
pub(super) fn to_points<V: Lanes>([a, b, c, d, e, f]: [V; SIDE]) -> [V; SIDE] {
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
pub(super) fn from_points<V: Lanes>([a, b, c, d, e, f]: [V; SIDE]) -> [V; TILE] {
    let (even, odd) = (b.add(c), b.sub(c));
    let (far, near) = (d.add(e), d.sub(e));
    [
        a.add(even).add(far),
        near.mul_add(V::splat(2.0), odd),
        far.mul_add(V::splat(4.0), even),
        near.mul_add(V::splat(8.0), odd).add(f),
    ]
}
