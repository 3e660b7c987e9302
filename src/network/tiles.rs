//! Which parts of a grid a refinement looks at: boxes that hold the cells in doubt.

use std::ops::Range;

use crate::volume::{BoundingBox, Shape};

/// Disjoint boxes, no longer than `longest` cells along an axis, that hold every cell within
/// `around` cells of a doubt along each axis: equal parts of what holds them all, shrunk to what each holds.
///
/// `doubts` lie `i` fastest, 1 where the cell is in doubt; their number is the product of `shape`.
pub(super) fn tiles(
    doubts: &[u8],
    shape: Shape,
    around: usize,
    longest: usize,
) -> Vec<BoundingBox> {
    let Some(bounds) = BoundingBox::around(doubts, shape) else {
        return Vec::new();
    };
    let parts = parts(&bounds.grown([around; 3], shape), longest);
    let tight = |part: BoundingBox| {
        let near = around_within(doubts, shape, &part.grown([around; 3], shape))?;
        let near = near.grown([around; 3], shape);
        Some(BoundingBox {
            start: [0, 1, 2].map(|axis| near.start[axis].max(part.start[axis])),
            end: [0, 1, 2].map(|axis| near.end[axis].min(part.end[axis])),
        })
    };
    parts.into_iter().filter_map(tight).collect()
}

/// The smallest box around the doubts in another.
fn around_within(doubts: &[u8], shape: Shape, within: &BoundingBox) -> Option<BoundingBox> {
    let cells = rows(within, shape).flat_map(|row| &doubts[row]);
    let cells: Vec<u8> = cells.copied().collect();
    let found = BoundingBox::around(&cells, within.shape())?;
    let placed = |at: [usize; 3]| [0, 1, 2].map(|axis| within.start[axis] + at[axis]);
    Some(BoundingBox {
        start: placed(found.start),
        end: placed(found.end),
    })
}

/// As few parts of a box as possible with no side longer than `longest`, of about one size along an axis.
fn parts(of: &BoundingBox, longest: usize) -> Vec<BoundingBox> {
    let counts = of.shape().map(|length| length.div_ceil(longest));
    let cut = |axis: usize, n: usize| of.start[axis] + n * of.shape()[axis] / counts[axis];
    let part = |n: [usize; 3]| BoundingBox {
        start: [0, 1, 2].map(|axis| cut(axis, n[axis])),
        end: [0, 1, 2].map(|axis| cut(axis, n[axis] + 1)),
    };
    let rows = (0..counts[2]).flat_map(|k| (0..counts[1]).map(move |j| (j, k)));
    let places = rows.flat_map(|(j, k)| (0..counts[0]).map(move |i| [i, j, k]));
    places.map(part).collect()
}

/// Where the cells of each row of a box along i lie in a field of `shape` cells.
pub(super) fn rows(
    cells: &BoundingBox,
    [ni, nj, _]: Shape,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let (start, end) = (cells.start, cells.end);
    let row = move |(k, j): (usize, usize)| {
        let first = ni * (j + nj * k);
        first + start[0]..first + end[0]
    };
    (start[2]..end[2])
        .flat_map(move |k| (start[1]..end[1]).map(move |j| (k, j)))
        .map(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell of doubts around a ball, and the grid it lies on.
    fn shell(shape: Shape, radius: f64) -> Vec<u8> {
        let mut doubts = vec![0; shape.iter().product()];
        for (n, doubt) in doubts.iter_mut().enumerate() {
            let away =
                [0, 1, 2].map(|a| (index(n, shape)[a] as f64 - shape[a] as f64 / 2.0).powi(2));
            *doubt = u8::from((away.iter().sum::<f64>().sqrt() - radius).abs() < 1.5);
        }
        doubts
    }

    fn index(n: usize, shape: Shape) -> [usize; 3] {
        [
            n % shape[0],
            n / shape[0] % shape[1],
            n / shape[0] / shape[1],
        ]
    }

    #[test]
    fn what_lies_around_a_doubt_is_in_one_tile_and_no_cell_in_two() {
        let cases = [
            ([150, 61, 97], 96, 6),
            ([20, 9, 7], 96, 6),
            ([50, 40, 30], 16, 0),
            ([50, 40, 30], 8, 3),
            ([41, 70, 33], 256, 9),
        ];
        for (shape, longest, around) in cases {
            let doubts = shell(shape, shape[1] as f64 / 2.5);
            let mut seen = vec![0_u8; doubts.len()];
            for tile in tiles(&doubts, shape, around, longest) {
                assert!(tile.fits(shape) && tile.shape().iter().all(|n| *n <= longest));
                rows(&tile, shape).for_each(|row| seen[row].iter_mut().for_each(|n| *n += 1));
            }
            assert!(seen.iter().all(|times| *times <= 1));
            for n in (0..doubts.len()).filter(|n| doubts[*n] == 1) {
                let start = index(n, shape);
                let end = start.map(|a| a + 1);
                let near = BoundingBox { start, end }.grown([around; 3], shape);
                assert!(rows(&near, shape).all(|row| !seen[row].contains(&0)));
            }
        }
    }

    #[test]
    fn parts_without_a_doubt_are_left_out_and_others_are_no_larger_than_they_must_be() {
        assert_eq!(tiles(&[0; 60], [3, 4, 5], 6, 96), []);
        let mut far = vec![0; 40 * 40 * 200];
        (far[0], far[40 * 40 * 200 - 1]) = (1, 1);
        let tiles = tiles(&far, [40, 40, 200], 6, 64);
        let ends = [([0, 0, 0], [7, 7, 7]), ([33, 33, 193], [40, 40, 200])];
        assert_eq!(tiles, ends.map(|(start, end)| BoundingBox { start, end }));
    }
}
