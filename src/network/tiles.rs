//! Which parts of a grid a refinement looks at: boxes that hug the cells in doubt.
//!
//! A border lies all over a body, but thinly. Boxes that follow it hold fewer cells than equal parts of the
//! box around all of it, by up to a seventh; what each sees beyond its sides speaks against small ones.

use std::ops::Range;

use crate::volume::{BoundingBox, Shape};

/// Edge of the blocks that boxes are made of [cells].
pub(super) const BLOCK: usize = 8;
/// What a box costs beside the cells that it sees, in cells: a run of the network has a price of its own.
const COST_OF_A_BOX: usize = 30_000;

/// What boxes must keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How far around a doubt is looked [cells].
    pub around: usize,
    /// What a box sees beyond its sides [cells].
    pub overlap: usize,
    /// Longest side of a box [cells]; a multiple of [`BLOCK`].
    pub longest: usize,
    /// What the network sees has sides of a multiple of this [cells].
    pub multiple_of: usize,
}

/// Boxes, apart from each other, that hold every cell within `plan.around` of a doubt.
///
/// `doubts` lie `i` fastest, 1 where the cell is in doubt; their number is the product of `shape`.
pub(super) fn tiles(doubts: &[u8], shape: Shape, plan: Plan) -> Vec<BoundingBox> {
    let Some(around) = BoundingBox::around(doubts, shape) else {
        return Vec::new();
    };
    let blocks = Blocks::near(doubts, shape, around, plan);
    // A cut that is cheap at once may cost much in the end: what has to be cut is cut into equal parts.
    let parts = parts(&BoundingBox::whole(blocks.shape), plan.longest / BLOCK);
    let parts = parts.iter().filter_map(|part| blocks.tight(part));
    let tiles = parts.flat_map(|part| blocks.cheapest(part).1);
    tiles.map(|tile| blocks.cells(&tile)).collect()
}

/// As few parts of a box as possible with no side longer than `longest`, of about one size along an axis.
fn parts(of: &BoundingBox, longest: usize) -> Vec<BoundingBox> {
    let counts = of.shape().map(|length| length.div_ceil(longest));
    let cut = |axis: usize, n: usize| of.start[axis] + n * of.shape()[axis] / counts[axis];
    let part = |n: [usize; 3]| BoundingBox {
        start: [0, 1, 2].map(|axis| cut(axis, n[axis])),
        end: [0, 1, 2].map(|axis| cut(axis, n[axis] + 1)),
    };
    each(&BoundingBox::whole(counts)).map(part).collect()
}

/// Every place of a box, `i` fastest.
fn each(of: &BoundingBox) -> impl Iterator<Item = [usize; 3]> + use<> {
    let (start, end) = (of.start, of.end);
    let rows = (start[2]..end[2]).flat_map(move |k| (start[1]..end[1]).map(move |j| (j, k)));
    rows.flat_map(move |(j, k)| (start[0]..end[0]).map(move |i| [i, j, k]))
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

/// The blocks of all that is near a doubt, and in which of them something is.
struct Blocks {
    all: BoundingBox,
    /// Of the grid [cells].
    grid: Shape,
    shape: Shape,
    wanted: Vec<bool>,
    plan: Plan,
}

impl Blocks {
    /// `around`: the box around the doubts.
    fn near(doubts: &[u8], shape: Shape, around: BoundingBox, plan: Plan) -> Self {
        let all = around.grown([plan.around; 3], shape);
        let blocks = all.shape().map(|n| n.div_ceil(BLOCK));
        let [bi, bj, bk] = blocks;
        let mut wanted = vec![false; bi * bj * bk];
        let reach = |axis: usize, cell: usize| {
            let first = cell.saturating_sub(plan.around).max(all.start[axis]);
            let last = (cell + plan.around).min(all.end[axis] - 1);
            (first - all.start[axis]) / BLOCK..(last - all.start[axis]) / BLOCK + 1
        };
        // Along i at first, so that a row of cells is read once.
        let mut row_wanted = vec![false; bi];
        for (row, cells) in rows(&around, shape).enumerate() {
            let in_doubt = doubts[cells].iter().enumerate().filter(|(_, d)| **d == 1);
            row_wanted.fill(false);
            for (i, _) in in_doubt {
                row_wanted[reach(0, around.start[0] + i)].fill(true);
            }
            if !row_wanted.contains(&true) {
                continue;
            }
            let [_, nj, _] = around.shape();
            let (j, k) = (around.start[1] + row % nj, around.start[2] + row / nj);
            for k in reach(2, k) {
                for j in reach(1, j) {
                    let blocks = &mut wanted[bi * (j + bj * k)..][..bi];
                    let both = blocks.iter_mut().zip(&row_wanted);
                    both.for_each(|(block, wanted)| *block |= wanted);
                }
            }
        }
        Self {
            all,
            grid: shape,
            shape: blocks,
            wanted,
            plan,
        }
    }

    /// A box of blocks as one of cells.
    fn cells(&self, of: &BoundingBox) -> BoundingBox {
        let cell =
            |a: usize, block: usize| (self.all.start[a] + block * BLOCK).min(self.all.end[a]);
        BoundingBox {
            start: [0, 1, 2].map(|a| cell(a, of.start[a])),
            end: [0, 1, 2].map(|a| cell(a, of.end[a])),
        }
    }

    /// What it costs to see a box of blocks, in cells.
    fn cost(&self, of: &BoundingBox) -> usize {
        let seen = self.cells(of).grown([self.plan.overlap; 3], self.grid);
        let seen = seen
            .shape()
            .map(|n| n.next_multiple_of(self.plan.multiple_of));
        seen.iter().product::<usize>() + COST_OF_A_BOX
    }

    /// The smallest box in this one that holds all of it that is wanted.
    fn tight(&self, of: &BoundingBox) -> Option<BoundingBox> {
        union_of(self.slabs(of, 2))
    }

    /// The same of each slab one block thick across an axis.
    fn slabs(&self, of: &BoundingBox, axis: usize) -> Vec<Option<BoundingBox>> {
        let mut slabs = vec![None; of.shape()[axis]];
        for start in each(of) {
            let [i, j, k] = start;
            if self.wanted[i + self.shape[0] * (j + self.shape[1] * k)] {
                let slab = &mut slabs[start[axis] - of.start[axis]];
                let end = start.map(|n| n + 1);
                *slab = union_of([*slab, Some(BoundingBox { start, end })]);
            }
        }
        slabs
    }

    /// The cheapest two boxes that a tight box comes to when it is cut once; `None` for a single block.
    fn halves(&self, of: &BoundingBox) -> Option<(BoundingBox, BoundingBox)> {
        let cuts = (0..3).flat_map(|axis| {
            let slabs = self.slabs(of, axis);
            let below = unions(slabs.iter());
            let mut above = unions(slabs.iter().rev());
            above.reverse();
            // A tight box has something in its first slab and in its last.
            let cuts = below.into_iter().zip(above.into_iter().skip(1));
            cuts.filter_map(|(below, above)| below.zip(above))
        });
        cuts.min_by_key(|(below, above)| self.cost(below) + self.cost(above))
    }

    /// A tight box, cut up as long as that pays, and what that costs.
    fn cheapest(&self, of: BoundingBox) -> (usize, Vec<BoundingBox>) {
        let whole = self.cost(&of);
        let Some((below, above)) = self.halves(&of) else {
            return (whole, vec![of]);
        };
        let (cost_below, mut boxes) = self.cheapest(below);
        let (cost_above, others) = self.cheapest(above);
        if whole <= cost_below + cost_above {
            return (whole, vec![of]);
        }
        boxes.extend(others);
        (cost_below + cost_above, boxes)
    }
}

fn union_of(boxes: impl IntoIterator<Item = Option<BoundingBox>>) -> Option<BoundingBox> {
    let boxes = boxes.into_iter().flatten();
    boxes.reduce(|all, one| all.union(&one))
}

/// The union of all boxes up to each.
fn unions<'a>(boxes: impl Iterator<Item = &'a Option<BoundingBox>>) -> Vec<Option<BoundingBox>> {
    let grown = boxes.scan(None, |so_far, one| {
        *so_far = union_of([*so_far, *one]);
        Some(*so_far)
    });
    grown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        around: 6,
        overlap: 8,
        longest: 96,
        multiple_of: 8,
    };

    /// A shell of doubts around a ball, and the grid it lies on.
    fn shell(shape: Shape, radius: f64) -> Vec<u8> {
        let mut doubts = vec![0; shape.iter().product()];
        for (n, doubt) in doubts.iter_mut().enumerate() {
            let at = [
                n % shape[0],
                n / shape[0] % shape[1],
                n / shape[0] / shape[1],
            ];
            let away = [0, 1, 2].map(|a| (at[a] as f64 - shape[a] as f64 / 2.0).powi(2));
            *doubt = u8::from((away.iter().sum::<f64>().sqrt() - radius).abs() < 1.5);
        }
        doubts
    }

    fn times_seen(tiles: &[BoundingBox], shape: Shape) -> Vec<u8> {
        let mut seen = vec![0; shape.iter().product()];
        for tile in tiles {
            assert!(tile.fits(shape), "{tile:?}");
            for k in tile.start[2]..tile.end[2] {
                for j in tile.start[1]..tile.end[1] {
                    for i in tile.start[0]..tile.end[0] {
                        seen[i + shape[0] * (j + shape[1] * k)] += 1;
                    }
                }
            }
        }
        seen
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
            let plan = Plan {
                longest,
                around,
                ..PLAN
            };
            let tiles = tiles(&doubts, shape, plan);
            let long = |tile: &BoundingBox| tile.shape().iter().any(|n| *n > longest);
            assert!(!tiles.iter().any(long), "{tiles:?}");
            let seen = times_seen(&tiles, shape);
            assert!(seen.iter().all(|times| *times <= 1));
            let near = each(&BoundingBox::whole(shape)).zip(&doubts);
            for (start, _) in near.filter(|(_, doubt)| **doubt == 1) {
                let end = start.map(|a| a + 1);
                let near = BoundingBox { start, end }.grown([around; 3], shape);
                assert!(rows(&near, shape).all(|row| !seen[row].contains(&0)));
            }
        }
    }

    #[test]
    fn tiles_hug_a_wide_border_and_never_see_more_than_equal_parts_would() {
        // A small closed shell is seen whole, whatever is cut off it.
        for (shape, radius, most) in [([200; 3], 90.0, 0.86), ([120, 100, 90], 45.0, 1.0)] {
            let doubts = shell(shape, radius);
            let seen = |tiles: &[BoundingBox]| -> usize {
                let seen = |tile: &BoundingBox| tile.grown([8; 3], shape).voxel_count();
                tiles.iter().map(seen).sum()
            };
            let all = BoundingBox::around(&doubts, shape).unwrap();
            let equal = seen(&parts(&all.grown([6; 3], shape), 96)) as f64;
            let hugging = seen(&tiles(&doubts, shape, PLAN)) as f64;
            assert!(hugging <= most * equal, "{hugging} {equal}");
        }
    }

    #[test]
    fn without_a_doubt_nothing_is_looked_at() {
        assert_eq!(tiles(&[0; 60], [3, 4, 5], PLAN), []);
        let mut far = vec![0; 40 * 40 * 200];
        (far[0], far[40 * 40 * 200 - 1]) = (1, 1);
        assert_eq!(tiles(&far, [40, 40, 200], PLAN).len(), 2);
    }
}
