//! Covering a mask with few boxes of one size.
//!
//! The fewest boxes of all are out of reach (covering is NP-hard), so the mask is cut into slabs
//! across one axis, each slab into strips across a second, and each strip is covered along the third
//! from its first voxel on, which no other way does with less. Where to cut is searched for, in all
//! six orders of the axes; cuts that spread boxes evenly over the mask are among those tried, so that
//! the result never takes more boxes than such a grid whose empty boxes are left out.

use std::ops::Range;

use rayon::prelude::*;

use super::packed_mask::PackedMask;
use crate::volume::orientation::AXIS_ORDERS;
use crate::volume::{BoundingBox, Shape};

/// Places to cut at that are tried for each box's length.
const CUTS_A_BOX: usize = 8;
/// Places to cut at that are tried along an axis, about.
const CUTS_AN_AXIS: usize = 96;

/// Boxes of at most `largest` voxels along each axis that hold every voxel of the mask. Each is the
/// smallest box round the voxels that fall to it.
pub fn cover(mask: &PackedMask, largest: Shape) -> Vec<BoundingBox> {
    let Some(bounds) = mask.bounds_in(&BoundingBox::whole(mask.shape())) else {
        return Vec::new();
    };
    if mask.count_in(&bounds) == bounds.voxel_count() {
        return even(&bounds, largest);
    }
    // Along, across, and slabs.
    let covers = AXIS_ORDERS.par_iter().map(|&order| {
        let turned = mask.permuted(order);
        let boxes = cover_in_order(
            &turned,
            &turned_box(&bounds, order),
            order.map(|d| largest[d]),
        );
        (boxes, order)
    });
    // The first of equals, so that the number of threads decides nothing.
    let best = covers.min_by(|a, b| a.0.len().cmp(&b.0.len()).then(a.1.cmp(&b.1)));
    let (boxes, order) = best.unwrap_or_default();
    let boxes = boxes.iter().map(|turned| turned_back(turned, order));
    boxes.filter_map(|bounds| mask.bounds_in(&bounds)).collect()
}

/// A full box cut evenly, which no other way does with fewer.
fn even(bounds: &BoundingBox, largest: Shape) -> Vec<BoundingBox> {
    let ranges = [0, 1, 2].map(|d| {
        let (start, extent) = (bounds.start[d], bounds.end[d] - bounds.start[d]);
        let count = extent.div_ceil(largest[d]);
        (0..count)
            .map(|n| start + n * extent / count..start + (n + 1) * extent / count)
            .collect::<Vec<_>>()
    });
    let mut boxes = Vec::new();
    for k in &ranges[2] {
        for j in &ranges[1] {
            boxes.extend(ranges[0].iter().map(|i| boxed([i, j, k])));
        }
    }
    boxes
}

fn boxed(ranges: [&Range<usize>; 3]) -> BoundingBox {
    BoundingBox {
        start: ranges.map(|r| r.start),
        end: ranges.map(|r| r.end),
    }
}

fn turned_box(bounds: &BoundingBox, order: [usize; 3]) -> BoundingBox {
    BoundingBox {
        start: order.map(|d| bounds.start[d]),
        end: order.map(|d| bounds.end[d]),
    }
}

fn turned_back(bounds: &BoundingBox, order: [usize; 3]) -> BoundingBox {
    let mut back = *bounds;
    for (n, d) in order.into_iter().enumerate() {
        back.start[d] = bounds.start[n];
        back.end[d] = bounds.end[n];
    }
    back
}

/// Boxes for a mask whose axes are in the order in which they are cut; all its voxels lie in
/// `bounds`.
fn cover_in_order(mask: &PackedMask, bounds: &BoundingBox, largest: Shape) -> Vec<BoundingBox> {
    let across = bounds.start[1]..bounds.end[1];
    let cuts = cuts(bounds.start[2]..bounds.end[2], largest[2]);
    let empty = || Plane::empty(mask);
    let grow = |plane: &mut Plane, slices: Range<usize>| plane.add(mask, &across, slices);
    let (_, slabs) = cheapest(&cuts, largest[2], empty, grow, |plane| {
        plane.strips(across.clone(), largest).0
    });
    let boxes = slabs.into_iter().flat_map(|slab| {
        let mut plane = empty();
        grow(&mut plane, slab.clone());
        let boxes = plane.boxes(across.clone(), largest).into_iter();
        boxes.map(move |[run, strip]| boxed([&run, &strip, &slab]))
    });
    boxes.collect()
}

/// What lies in any slice of a slab, one bit for each place along and across.
struct Plane {
    /// Places along.
    length: usize,
    words: usize,
    bits: Vec<u64>,
}

impl Plane {
    fn empty(mask: &PackedMask) -> Self {
        let words = mask.row(0, 0).len();
        Self {
            length: mask.shape()[0],
            words,
            bits: vec![0; words * mask.shape()[1]],
        }
    }

    /// Takes in what lies in some more slices.
    fn add(&mut self, mask: &PackedMask, across: &Range<usize>, slices: Range<usize>) {
        for k in slices {
            for j in across.clone() {
                gather(
                    &mut self.bits[j * self.words..][..self.words],
                    mask.row(j, k),
                );
            }
        }
    }

    /// Takes what lies in some more rows into a strip's row.
    fn add_rows(&self, row: &mut [u64], rows: Range<usize>) {
        for j in rows {
            gather(row, &self.bits[j * self.words..][..self.words]);
        }
    }

    /// How many boxes hold the plane's 1s, and the strips that these lie in.
    fn strips(&self, across: Range<usize>, largest: Shape) -> (usize, Vec<Range<usize>>) {
        cheapest(
            &cuts(across, largest[1]),
            largest[1],
            || vec![0; self.words],
            |row: &mut Vec<u64>, rows| self.add_rows(row, rows),
            |row| runs(row, largest[0]).count(),
        )
    }

    /// Ranges along and across that hold the plane's 1s.
    fn boxes(&self, across: Range<usize>, largest: Shape) -> Vec<[Range<usize>; 2]> {
        let (_, strips) = self.strips(across, largest);
        let boxes = strips.into_iter().flat_map(|strip| {
            let mut row = vec![0; self.words];
            self.add_rows(&mut row, strip.clone());
            let runs: Vec<_> = runs(&row, largest[0]).collect();
            let inside = move |run: Range<usize>| run.start..run.end.min(self.length);
            runs.into_iter()
                .map(move |run| [inside(run), strip.clone()])
        });
        boxes.collect()
    }
}

fn gather(sum: &mut [u64], row: &[u64]) {
    for (sum, word) in sum.iter_mut().zip(row) {
        *sum |= word;
    }
}

/// Where `range` may be cut, its two ends among them: evenly for boxes of length `largest`, and in
/// between.
fn cuts(range: Range<usize>, largest: usize) -> Vec<usize> {
    let extent = range.len();
    let count = extent.div_ceil(largest);
    let step = (largest / CUTS_A_BOX)
        .max(extent / CUTS_AN_AXIS)
        .clamp(1, largest);
    let mut cuts: Vec<usize> = range.clone().step_by(step).collect();
    cuts.extend((0..count).map(|n| range.start + n * extent / count));
    cuts.extend(range.clone().step_by(largest));
    cuts.push(range.end);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Cuts from the first of `cuts` to the last into pieces of at most `largest` so that the sum of
/// their costs is least; gives that sum and the pieces, without those that cost nothing.
///
/// A piece is made from `empty` by `grow`, which is given the next part of it, so that pieces with
/// one start are made of one another.
fn cheapest<P>(
    cuts: &[usize],
    largest: usize,
    empty: impl Fn() -> P,
    grow: impl Fn(&mut P, Range<usize>),
    cost: impl Fn(&P) -> usize,
) -> (usize, Vec<Range<usize>>) {
    let last = cuts.len() - 1;
    // From each cut on: the least cost, and where the first piece ends.
    let mut best = vec![(0, last); cuts.len()];
    for from in (0..last).rev() {
        let mut least = (usize::MAX, last);
        let mut piece = empty();
        for to in from + 1..=last {
            if cuts[to] - cuts[from] > largest {
                break;
            }
            grow(&mut piece, cuts[to - 1]..cuts[to]);
            if best[to].0 < least.0 {
                let whole = cost(&piece) + best[to].0;
                if whole < least.0 {
                    least = (whole, to);
                }
            }
        }
        best[from] = least;
    }
    let mut pieces = Vec::new();
    let mut from = 0;
    while from < last {
        let to = best[from].1;
        if best[from].0 > best[to].0 {
            pieces.push(cuts[from]..cuts[to]);
        }
        from = to;
    }
    (best[0].0, pieces)
}

/// Ranges of `length` that hold every 1 of a row, each from the first 1 that is left: no other way
/// does with fewer.
fn runs(row: &[u64], length: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = first_from(row, from)?;
        from = start + length;
        Some(start..from)
    })
}

/// Place of the first 1 at or behind `from`.
fn first_from(row: &[u64], from: usize) -> Option<usize> {
    let mut place = from / 64;
    let mut word = row.get(place)? & (u64::MAX << (from % 64));
    while word == 0 {
        place += 1;
        word = *row.get(place)?;
    }
    Some(place * 64 + word.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(shape: Shape, inside: impl Fn([usize; 3]) -> bool) -> PackedMask {
        let mut voxels = Vec::new();
        for k in 0..shape[2] {
            for j in 0..shape[1] {
                voxels.extend((0..shape[0]).map(|i| u8::from(inside([i, j, k]))));
            }
        }
        PackedMask::of(&voxels, shape)
    }

    fn check(mask: &PackedMask, largest: Shape) -> usize {
        let boxes = cover(mask, largest);
        let mut covered = PackedMask::empty(mask.shape());
        for bounds in &boxes {
            assert!(
                (0..3).all(|d| bounds.shape()[d] <= largest[d]),
                "{bounds:?}"
            );
            assert!(mask.count_in(bounds) > 0, "{bounds:?}");
            covered.fill(bounds);
        }
        assert_eq!(covered.count_shared(mask), mask.count());
        boxes.len()
    }

    /// Boxes of an even grid over the mask's own box, without the empty ones.
    fn even_count(mask: &PackedMask, largest: Shape) -> usize {
        let bounds = mask.bounds_in(&BoundingBox::whole(mask.shape())).unwrap();
        let starts = [0, 1, 2].map(|d| {
            let extent = bounds.shape()[d];
            let count = extent.div_ceil(largest[d]);
            (0..count)
                .map(|n| {
                    let room = extent.saturating_sub(largest[d]);
                    bounds.start[d] + n * room / count.saturating_sub(1).max(1)
                })
                .collect::<Vec<_>>()
        });
        let mut boxes = 0;
        for &k in &starts[2] {
            for &j in &starts[1] {
                for &i in &starts[0] {
                    let start = [i, j, k];
                    let end = [0, 1, 2].map(|d| (start[d] + largest[d]).min(mask.shape()[d]));
                    boxes += usize::from(mask.count_in(&BoundingBox { start, end }) > 0);
                }
            }
        }
        boxes
    }

    #[test]
    fn a_full_box_is_cut_evenly() {
        let mask = packed([20, 9, 7], |[i, j, k]| i >= 3 && j < 8 && k > 0);
        // 17 / 6, 8 / 8, 6 / 5
        assert_eq!(check(&mask, [6, 8, 5]), 6);
    }

    #[test]
    fn two_legs_apart_take_two_rows_of_boxes() {
        // Two columns of 4 × 4 voxels, 3 voxels apart, over 40 slices: boxes of 5 × 5 × 10.
        let leg = |i: usize| (2..6).contains(&i) || (9..13).contains(&i);
        let mask = packed([16, 8, 40], |[i, j, _]| leg(i) && (1..5).contains(&j));
        assert_eq!(check(&mask, [5, 5, 10]), 8);
    }

    #[test]
    fn steps_that_an_even_grid_misses_are_followed() {
        // A stair: in each slab of 4 slices a row of exactly 8 voxels, shifted by 5 each time.
        let mask = packed([40, 3, 16], |[i, _, k]| {
            let start = 5 * (k / 4);
            (start..start + 8).contains(&i)
        });
        assert_eq!(check(&mask, [8, 3, 4]), 4);
        assert!(even_count(&mask, [8, 3, 4]) > 4);
    }

    #[test]
    fn a_ball_takes_fewer_boxes_than_an_even_grid() {
        let mask = packed([48, 44, 40], |[i, j, k]| {
            let away = |n: usize, middle: f64| (n as f64 - middle).powi(2);
            away(i, 24.0) + away(j, 22.0) + away(k, 20.0) < 19.0_f64.powi(2)
        });
        let (few, even) = (check(&mask, [8; 3]), even_count(&mask, [8; 3]));
        assert!(few < even, "{few} against {even}");
    }

    #[test]
    fn an_empty_mask_needs_no_box() {
        assert!(cover(&PackedMask::empty([5, 5, 5]), [2; 3]).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pieces_that_grow_cost_what_they_cost_by_themselves(
            costs in proptest::collection::vec(0_u64..16, 1..40),
            step in 1_usize..5,
            largest in 4_usize..12,
        ) {
            // A piece costs as much as there are different bits in it.
            let places = cuts(0..costs.len(), largest);
            let bits = |piece: Range<usize>| costs[piece].iter().fold(0, |sum, cost| sum | cost);
            let cost = |bits: &u64| bits.count_ones() as usize * step;
            let grow = |sum: &mut u64, piece| *sum |= bits(piece);
            let (total, pieces) = cheapest(&places, largest, || 0, grow, cost);
            let alone = pieces.iter().map(|piece| cost(&bits(piece.clone())));
            prop_assert_eq!(alone.sum::<usize>(), total);
            prop_assert!(pieces.iter().all(|piece| piece.len() <= largest));
            let left_out = (0..costs.len()).filter(|n| !pieces.iter().any(|p| p.contains(n)));
            prop_assert_eq!(left_out.map(|n| costs[n]).sum::<u64>(), 0);
            // No other way to cut costs less.
            let mut best = vec![0; places.len()];
            for from in (0..places.len() - 1).rev() {
                let ways = (from + 1..places.len()).filter(|&to| places[to] - places[from] <= largest);
                let costs = ways.map(|to| cost(&bits(places[from]..places[to])) + best[to]);
                best[from] = costs.min().unwrap();
            }
            prop_assert_eq!(best[0], total);
        }

        #[test]
        fn never_more_than_an_even_grid(
            shape in [1_usize..70, 1_usize..20, 1_usize..20],
            largest in [1_usize..9, 1_usize..9, 1_usize..9],
            seed in any::<u64>(),
        ) {
            // A few balls at places that the seed gives.
            let place = |n: u64, d: usize| {
                let mixed = seed.wrapping_add(n * 3 + d as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (mixed >> 33) as usize % shape[d]
            };
            let mask = packed(shape, |at| (0..3).any(|n| {
                let away = |d: usize| at[d].abs_diff(place(n, d)).pow(2);
                away(0) + away(1) + away(2) <= 9 * (n as usize + 1)
            }));
            let few = check(&mask, largest);
            prop_assert!(few <= even_count(&mask, largest));
        }
    }
}
