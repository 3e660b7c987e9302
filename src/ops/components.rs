//! Connected pieces of a mask, and holes in it.
//!
//! Voxels are joined as runs along i, so time and memory follow the number of runs, not of voxels.
//!
//! # Source
//! He, Chao and Suzuki, «A run-based two-scan labeling algorithm», IEEE Transactions on Image
//! Processing 17(5), 2008, doi:10.1109/TIP.2008.919369.

mod runs;
mod slices;

use std::ops::Range;

use self::runs::Runs;
pub use self::slices::fill_holes_per_slice;
use super::packed_mask::PackedMask;
use crate::volume::{BoundingBox, LabelMap, Mask, Shape};

/// Which voxels touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// Those that share a face.
    Six,
    /// Those that share a face, an edge or a corner.
    TwentySix,
}

/// One connected piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Number of voxels.
    pub voxels: usize,
    /// Whether any of them lies on the border of the volume.
    pub touches_border: bool,
    /// The smallest box around it.
    pub bounding_box: BoundingBox,
}

/// A mask whose voxels are looked at in runs, each of one row and given by its places in memory, `i` fastest.
pub trait InRuns {
    /// Number of a run's voxels that are 1.
    fn count(&self, run: Range<usize>) -> usize;
    /// Sets a run's voxels to 0.
    fn clear(&mut self, run: Range<usize>);
}

impl InRuns for Mask {
    fn count(&self, run: Range<usize>) -> usize {
        self.voxels[run].iter().filter(|v| **v != 0).count()
    }

    fn clear(&mut self, run: Range<usize>) {
        self.voxels[run].fill(0);
    }
}

impl InRuns for PackedMask {
    fn count(&self, run: Range<usize>) -> usize {
        self.count_run(run)
    }

    fn clear(&mut self, run: Range<usize>) {
        self.clear_run(run);
    }
}

/// The connected pieces of a mask.
#[derive(Clone, Debug)]
pub struct Components {
    runs: Runs,
    /// Piece of each run.
    piece_of_run: Vec<u32>,
    pieces: Vec<Piece>,
}

impl Components {
    /// Finds the pieces of a mask.
    pub fn find(mask: &Mask, connectivity: Connectivity) -> Self {
        let runs = Runs::of(&mask.voxels, mask.geometry.shape, 1);
        Self::join(runs, connectivity)
    }

    /// Finds the pieces of a packed mask.
    pub fn find_packed(mask: &PackedMask, connectivity: Connectivity) -> Self {
        Self::join(Runs::of_packed(mask), connectivity)
    }

    /// Finds the pieces of what lies outside a mask.
    pub fn find_outside(mask: &Mask, connectivity: Connectivity) -> Self {
        let runs = Runs::of(&mask.voxels, mask.geometry.shape, 0);
        Self::join(runs, connectivity)
    }

    /// The pieces, in the order of their first voxels in memory.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The index of the largest piece, the first of several; `None` for an empty mask.
    pub fn largest(&self) -> Option<usize> {
        let sizes = self.pieces.iter().enumerate().rev();
        sizes.max_by_key(|(_, piece)| piece.voxels).map(|(n, _)| n)
    }

    /// Runs of voxels in memory and the index of the piece that each belongs to.
    pub fn runs(&self) -> impl Iterator<Item = (Range<usize>, usize)> + '_ {
        let pieces = self.piece_of_run.iter().map(|&piece| piece as usize);
        self.runs.ranges().zip(pieces)
    }

    /// How many voxels of each piece lie in another mask on the same grid.
    pub fn count_in(&self, mask: &impl InRuns) -> Vec<usize> {
        let mut counts = vec![0; self.pieces.len()];
        for (run, piece) in self.runs() {
            counts[piece] += mask.count(run);
        }
        counts
    }

    /// Clears in `mask`, which they were found in, the pieces that are not to be kept.
    pub fn keep(&self, mask: &mut impl InRuns, keep: impl Fn(usize, &Piece) -> bool) {
        self.for_runs_of(|n, piece| !keep(n, piece), |run| mask.clear(run));
    }

    /// Numbers the voxels of the first piece 1, of the second 2, and so on; 0 elsewhere.
    pub fn label_map(&self, mask: &Mask) -> LabelMap {
        let mut voxels = vec![0; mask.voxels.len()];
        for (run, piece) in self.runs.ranges().zip(&self.piece_of_run) {
            voxels[run].fill(i32::try_from(*piece).map_or(i32::MAX, |piece| piece + 1));
        }
        LabelMap {
            voxels,
            geometry: mask.geometry.clone(),
        }
    }

    fn join(runs: Runs, connectivity: Connectivity) -> Self {
        let roots = runs.join(connectivity);
        let mut piece_of_run = vec![0_u32; roots.len()];
        let mut pieces: Vec<Piece> = Vec::new();
        for (n, (&root, place)) in roots.iter().zip(runs.places()).enumerate() {
            // A root is the first run of its piece.
            if root as usize == n {
                piece_of_run[n] = pieces.len() as u32;
                pieces.push(Piece::of_run(place));
            } else {
                piece_of_run[n] = piece_of_run[root as usize];
            }
            pieces[piece_of_run[n] as usize].add(place, runs.shape());
        }
        Self {
            runs,
            piece_of_run,
            pieces,
        }
    }

    /// Does something with the runs of the pieces that are chosen.
    fn for_runs_of(
        &self,
        choose: impl Fn(usize, &Piece) -> bool,
        mut act: impl FnMut(Range<usize>),
    ) {
        let pieces = self.pieces.iter().enumerate();
        let chosen: Vec<bool> = pieces.map(|(n, piece)| choose(n, piece)).collect();
        for (run, piece) in self.runs() {
            if chosen[piece] {
                act(run);
            }
        }
    }
}

impl Piece {
    fn of_run(run: BoundingBox) -> Self {
        Self {
            voxels: 0,
            touches_border: false,
            bounding_box: run,
        }
    }

    fn add(&mut self, run: BoundingBox, shape: Shape) {
        self.voxels += run.end[0] - run.start[0];
        let bounds = &mut self.bounding_box;
        for (axis, &length) in shape.iter().enumerate() {
            bounds.start[axis] = bounds.start[axis].min(run.start[axis]);
            bounds.end[axis] = bounds.end[axis].max(run.end[axis]);
            self.touches_border |= run.start[axis] == 0 || run.end[axis] == length;
        }
    }
}

/// Clears the pieces (26-connected) smaller than `minimum_ml` and gives back how many they were.
pub fn keep_pieces(mask: &mut Mask, minimum_ml: f64) -> usize {
    let voxel_ml = mask.geometry.voxel_ml();
    let components = Components::find(mask, Connectivity::TwentySix);
    let is_kept = |piece: &Piece| piece.voxels as f64 * voxel_ml >= minimum_ml;
    components.keep(mask, |_, piece| is_kept(piece));
    components
        .pieces()
        .iter()
        .filter(|piece| !is_kept(piece))
        .count()
}

/// Clears all but the largest piece (26-connected; the first in memory of several).
pub fn keep_largest_piece(mask: &mut Mask) {
    let components = Components::find(mask, Connectivity::TwentySix);
    let largest = components.largest();
    components.keep(mask, |n, _| Some(n) == largest);
}

/// Fills every piece of background (6-connected) that does not touch the border of the volume.
///
/// In a volume of one or two slices everything touches the border: see [`fill_holes_per_slice`].
pub fn fill_holes(mask: &mut Mask) {
    let background = Components::find_outside(mask, Connectivity::Six);
    let inside = |_, piece: &Piece| !piece.touches_border;
    background.for_runs_of(inside, |run| mask.voxels[run].fill(1));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::phantom::{ball_mask, box_mask, grid, mask, oblique_grid};

    #[test]
    fn corners_join_pieces_only_when_asked() {
        let diagonal = mask(grid([3, 3, 3], [1.0; 3]), |[i, j, k]| i == j && j == k);
        assert_eq!(
            Components::find(&diagonal, Connectivity::TwentySix)
                .pieces()
                .len(),
            1
        );
        assert_eq!(
            Components::find(&diagonal, Connectivity::Six)
                .pieces()
                .len(),
            3
        );
        // i falls while j grows: the run before it in the row below lies to its right.
        let other = mask(grid([3, 3, 1], [1.0; 3]), |[i, j, _]| i + j == 2);
        assert_eq!(
            Components::find(&other, Connectivity::TwentySix)
                .pieces()
                .len(),
            1
        );
    }

    #[test]
    fn a_horseshoe_is_one_piece() {
        let horseshoe = mask(grid([5, 1, 3], [1.0; 3]), |[i, _, k]| {
            i == 0 || i == 4 || k == 2
        });
        let components = Components::find(&horseshoe, Connectivity::Six);
        assert_eq!(
            components.pieces(),
            [Piece {
                voxels: 9,
                touches_border: true,
                bounding_box: BoundingBox {
                    start: [0, 0, 0],
                    end: [5, 1, 3]
                },
            }]
        );
    }

    #[test]
    fn pieces_are_told_from_the_border_and_from_each_other() {
        let geometry = oblique_grid([9, 8, 7], [1.0, 2.0, 3.0]);
        let mut two = box_mask(geometry.clone(), [1, 1, 1], [4, 3, 3]);
        two.voxels[geometry.offset([8, 7, 6])] = 1;
        let components = Components::find(&two, Connectivity::TwentySix);
        let [large, corner] = components.pieces() else {
            panic!("{:?}", components.pieces());
        };
        assert_eq!((large.voxels, large.touches_border), (12, false));
        assert_eq!(
            large.bounding_box,
            BoundingBox {
                start: [1, 1, 1],
                end: [4, 3, 3]
            }
        );
        assert_eq!((corner.voxels, corner.touches_border), (1, true));
        let labels = components.label_map(&two);
        assert_eq!(labels.voxels[geometry.offset([2, 2, 2])], 1);
        assert_eq!(labels.voxels[geometry.offset([8, 7, 6])], 2);
        assert_eq!(labels.voxels[0], 0);
    }

    #[test]
    fn small_pieces_go_by_their_volume_in_ml() {
        // Voxels of 6 mm³: 12 of them are 0.072 ml, one is 0.006 ml.
        let geometry = oblique_grid([9, 8, 7], [1.0, 2.0, 3.0]);
        let large = box_mask(geometry.clone(), [1, 1, 1], [4, 3, 3]);
        let mut both = large.clone();
        both.voxels[geometry.offset([8, 7, 6])] = 1;
        let mut kept = both.clone();
        assert_eq!(keep_pieces(&mut kept, 0.006 - 1e-9), 0);
        assert_eq!(kept, both);
        assert_eq!(keep_pieces(&mut kept, 0.01), 1);
        assert_eq!(kept, large);
        assert_eq!(keep_pieces(&mut kept, 0.1), 1);
        assert!(kept.voxels.iter().all(|&voxel| voxel == 0));
        keep_largest_piece(&mut both);
        assert_eq!(both, large);
    }

    #[test]
    fn an_empty_mask_has_no_pieces_and_no_largest() {
        let mut empty = mask(grid([4, 3, 2], [1.0; 3]), |_| false);
        assert_eq!(Components::find(&empty, Connectivity::Six).largest(), None);
        keep_largest_piece(&mut empty);
        fill_holes(&mut empty);
        assert!(empty.voxels.iter().all(|&voxel| voxel == 0));
    }

    #[test]
    fn a_closed_hole_is_filled_and_an_open_one_is_not() {
        let geometry = grid([21, 19, 23], [1.0, 1.2, 0.8]);
        let ball = ball_mask(geometry.clone(), 8.0);
        let core = ball_mask(geometry.clone(), 4.0);
        let shell = mask(geometry.clone(), |index| {
            let n = geometry.offset(index);
            ball.voxels[n] == 1 && core.voxels[n] == 0
        });
        let mut filled = shell.clone();
        fill_holes(&mut filled);
        assert_eq!(filled, ball);
        let drilled = mask(geometry.clone(), |[i, j, k]| {
            shell.voxels[geometry.offset([i, j, k])] == 1 && !(i == 10 && j == 9 && k >= 11)
        });
        let mut still_open = drilled.clone();
        fill_holes(&mut still_open);
        assert_eq!(still_open, drilled);
    }

    #[test]
    fn background_that_meets_the_border_only_at_an_edge_is_a_hole() {
        let mut pierced = mask(grid([3, 3, 3], [1.0; 3]), |index| {
            index != [1, 1, 1] && index != [0, 0, 1]
        });
        fill_holes(&mut pierced);
        assert_eq!(
            pierced,
            mask(grid([3, 3, 3], [1.0; 3]), |index| index != [0, 0, 1])
        );
    }

    #[test]
    fn a_tube_is_filled_slice_by_slice_across_its_axis_alone() {
        for axis in 0..3 {
            let [a, b] = [(axis + 1) % 3, (axis + 2) % 3];
            let geometry = grid([20, 21, 22], [1.0; 3]);
            let distance = |index: [usize; 3]| index[a].abs_diff(10).max(index[b].abs_diff(10));
            let tube = mask(geometry.clone(), |index| (3..6).contains(&distance(index)));
            let rod = mask(geometry, |index| distance(index) < 6);
            let mut filled = tube.clone();
            fill_holes(&mut filled);
            assert_eq!(filled, tube);
            for other in [a, b] {
                fill_holes_per_slice(&mut filled, other);
                assert_eq!(filled, tube);
            }
            fill_holes_per_slice(&mut filled, axis);
            assert_eq!(filled, rod);
        }
    }

    /// Pieces by flooding, one voxel at a time.
    fn flood(mask: &Mask, connectivity: Connectivity) -> Vec<i32> {
        let shape = mask.shape();
        let mut labels = vec![0; mask.voxels.len()];
        let mut next = 0;
        for seed in 0..labels.len() {
            if mask.voxels[seed] == 0 || labels[seed] != 0 {
                continue;
            }
            next += 1;
            let mut todo = vec![seed];
            while let Some(n) = todo.pop() {
                if std::mem::replace(&mut labels[n], next) == next {
                    continue;
                }
                let index = [
                    n % shape[0],
                    n / shape[0] % shape[1],
                    n / shape[0] / shape[1],
                ];
                for step in 0..27_usize {
                    let steps = [step % 3, step / 3 % 3, step / 9];
                    let moved = steps.iter().filter(|&&s| s != 1).count();
                    if connectivity == Connectivity::Six && moved != 1 {
                        continue;
                    }
                    let at = [0, 1, 2].map(|axis| (index[axis] + steps[axis]).wrapping_sub(1));
                    if (0..3).all(|axis| at[axis] < shape[axis]) {
                        let n = mask.offset(at);
                        if mask.voxels[n] == 1 && labels[n] == 0 {
                            todo.push(n);
                        }
                    }
                }
            }
        }
        labels
    }

    proptest! {
        #[test]
        fn runs_find_the_same_pieces_as_flooding(
            mut shape in prop::array::uniform3(1_usize..24),
            longer in 0_usize..7,
            share in 1_u64..10,
            seed in 0_u64..1000,
        ) {
            // Some rows take two words of bits.
            shape[0] *= 1 + longer;
            let mut state = seed;
            let speckle = mask(grid(shape, [1.0; 3]), |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % 10 < share
            });
            for connectivity in [Connectivity::Six, Connectivity::TwentySix] {
                let components = Components::find(&speckle, connectivity);
                let labels = components.label_map(&speckle);
                prop_assert_eq!(&labels.voxels, &flood(&speckle, connectivity));
                let packed = PackedMask::of_mask(&speckle);
                let of_bits = Components::find_packed(&packed, connectivity);
                prop_assert_eq!(&of_bits.label_map(&speckle).voxels, &labels.voxels);
                prop_assert_eq!(of_bits.count_in(&packed), components.count_in(&speckle));
            }
        }
    }
}
