//! How much two masks, or two label maps, share.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::volume::{LabelMap, Mask};

/// Voxels of one structure in a prediction, in a reference and in both; the two lie on one grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Voxels of the prediction.
    pub prediction: usize,
    /// Voxels of the reference.
    pub reference: usize,
    /// Voxels of both.
    pub both: usize,
}

impl Overlap {
    /// Counts the voxels of two masks.
    pub fn between(prediction: &Mask, reference: &Mask) -> Self {
        let chunks = prediction.voxels.par_chunks(1 << 16);
        chunks
            .zip(reference.voxels.par_chunks(1 << 16))
            .map(|(prediction, reference)| {
                let pairs = || prediction.iter().zip(reference);
                Self {
                    prediction: prediction.iter().filter(|&&p| p != 0).count(),
                    reference: reference.iter().filter(|&&r| r != 0).count(),
                    both: pairs().filter(|(p, r)| **p != 0 && **r != 0).count(),
                }
            })
            .reduce(Self::default, Self::add)
    }

    /// Counts the voxels of every label but 0 that occurs in either label map.
    pub fn per_label(prediction: &LabelMap, reference: &LabelMap) -> BTreeMap<i32, Self> {
        let chunks = prediction.voxels.par_chunks(1 << 18);
        chunks
            .zip(reference.voxels.par_chunks(1 << 18))
            .map(|(prediction, reference)| count_pairs(prediction, reference))
            .reduce(BTreeMap::new, |mut all, some| {
                for (label, overlap) in some {
                    let sum: &mut Self = all.entry(label).or_default();
                    *sum = sum.add(overlap);
                }
                all
            })
    }

    /// Sørensen–Dice coefficient: 2·both / (prediction + reference), from 0 to 1. Two empty masks
    /// agree: 1.
    pub fn dice(&self) -> f64 {
        match self.prediction + self.reference {
            0 => 1.0,
            sum => 2.0 * self.both as f64 / sum as f64,
        }
    }

    fn add(self, other: Self) -> Self {
        Self {
            prediction: self.prediction + other.prediction,
            reference: self.reference + other.reference,
            both: self.both + other.both,
        }
    }
}

/// Sørensen–Dice coefficient of two masks on one grid; see [`Overlap::dice`].
pub fn dice(prediction: &Mask, reference: &Mask) -> f64 {
    Overlap::between(prediction, reference).dice()
}

/// Volume of a mask [ml].
pub fn volume_ml(mask: &Mask) -> f64 {
    let voxels = mask.voxels.par_chunks(1 << 16);
    let voxels: usize = voxels
        .map(|chunk| chunk.iter().filter(|&&v| v != 0).count())
        .sum();
    voxels as f64 * mask.geometry.voxel_ml()
}

/// The mask of one label.
pub fn label_mask(labels: &LabelMap, label: i32) -> Mask {
    let voxels = labels
        .voxels
        .par_iter()
        .map(|&voxel| u8::from(voxel == label));
    Mask {
        voxels: voxels.collect(),
        geometry: labels.geometry.clone(),
    }
}

/// Counts runs of equal pairs, so that the map is asked once a run.
fn count_pairs(prediction: &[i32], reference: &[i32]) -> BTreeMap<i32, Overlap> {
    let mut overlaps: BTreeMap<i32, Overlap> = BTreeMap::new();
    let pairs: Vec<(i32, i32)> = prediction
        .iter()
        .copied()
        .zip(reference.iter().copied())
        .collect();
    for run in pairs.chunk_by(|a, b| a == b) {
        let (prediction, reference) = run[0];
        if prediction != 0 {
            let overlap = overlaps.entry(prediction).or_default();
            overlap.prediction += run.len();
            overlap.both += if prediction == reference {
                run.len()
            } else {
                0
            };
        }
        if reference != 0 {
            overlaps.entry(reference).or_default().reference += run.len();
        }
    }
    overlaps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::phantom::{box_mask, grid, mask, oblique_grid, volume};

    #[test]
    fn two_shifted_boxes_share_half() {
        let geometry = oblique_grid([8, 4, 4], [0.5, 2.0, 3.0]);
        let left = box_mask(geometry.clone(), [0, 0, 0], [4, 4, 4]);
        let right = box_mask(geometry, [2, 0, 0], [6, 4, 4]);
        let overlap = Overlap::between(&left, &right);
        assert_eq!(
            overlap,
            Overlap {
                prediction: 64,
                reference: 64,
                both: 32
            }
        );
        assert_eq!(dice(&left, &right), 0.5);
        // 64 voxels of 3 mm³.
        assert!((volume_ml(&left) - 0.192).abs() < 1e-12);
    }

    #[test]
    fn empty_masks_agree_with_each_other_and_with_nothing_else() {
        let empty = mask(grid([3, 3, 3], [1.0; 3]), |_| false);
        let full = mask(grid([3, 3, 3], [1.0; 3]), |_| true);
        assert_eq!(dice(&empty, &empty), 1.0);
        assert_eq!(dice(&empty, &full), 0.0);
        assert_eq!(volume_ml(&empty), 0.0);
    }

    #[test]
    fn labels_are_counted_one_by_one() {
        let prediction = volume(grid([6, 1, 1], [1.0; 3]), |[i, _, _]| [0, 1, 1, 1, 3, 3][i]);
        let reference = volume(grid([6, 1, 1], [1.0; 3]), |[i, _, _]| [1, 1, 1, 0, 2, 3][i]);
        let overlaps = Overlap::per_label(&prediction, &reference);
        let counts = overlaps
            .iter()
            .map(|(label, o)| (*label, o.prediction, o.reference, o.both));
        assert_eq!(
            counts.collect::<Vec<_>>(),
            [(1, 3, 3, 2), (2, 0, 1, 0), (3, 2, 1, 1)]
        );
        for (label, overlap) in overlaps {
            let masks = (
                label_mask(&prediction, label),
                label_mask(&reference, label),
            );
            assert_eq!(overlap, Overlap::between(&masks.0, &masks.1));
        }
    }

    proptest! {
        #[test]
        fn dice_is_symmetric_and_at_most_one(a in 0_u32..1 << 12, b in 0_u32..1 << 12) {
            let geometry = grid([12, 1, 1], [1.0; 3]);
            let bits = |bits: u32| mask(geometry.clone(), |[i, _, _]| bits >> i & 1 == 1);
            let (a, b) = (bits(a), bits(b));
            prop_assert_eq!(dice(&a, &b), dice(&b, &a));
            prop_assert!((0.0..=1.0).contains(&dice(&a, &b)));
        }
    }
}
