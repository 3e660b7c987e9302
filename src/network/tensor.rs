//! The tensor that a network gets of a coarse grid.

use super::card::{Channel, Input};
use super::channels::Channels;
use super::mirror::mirror;
use super::normalize::Modality;
use crate::error::{Error, Result};
use crate::memory;
use crate::volume::coarse_grid::CoarseGrid;

/// The tensor round a coarse grid: a margin of zeros on the low side, and on the high side a margin
/// and what makes each length a multiple.
pub(super) struct Tensor {
    cells: [usize; 3],
    margin: usize,
    padded: [usize; 3],
}

impl Tensor {
    /// Around a grid, as a card asks for.
    pub fn around(grid: &CoarseGrid, input: &Input) -> Self {
        let margin = input.margin_cells;
        Self {
            cells: grid.shape,
            margin,
            padded: grid
                .shape
                .map(|n| (n + 2 * margin).next_multiple_of(input.multiple_of)),
        }
    }

    /// Tensor order: batch, channel, k, j, i. The only place that turns our triples round.
    pub fn shape(&self, input: &Input) -> [usize; 5] {
        let [i, j, k] = self.padded;
        [1, input.channels.len(), k, j, i]
    }

    /// Refuses a tensor that does not fit into memory, as it is filled and as it is mirrored.
    pub fn check_memory(&self, input: &Input) -> Result<()> {
        let channels = input.channels.len() as f64;
        let bytes = 2.0 * size_of::<f32>() as f64 * channels * memory::voxels(self.padded);
        memory::check(bytes, "the network's input")
    }

    /// Place of the first cell of row `(j, k)` in one channel of the tensor.
    fn row(&self, j: usize, k: usize) -> usize {
        let [ni, nj, _] = self.padded;
        self.margin + ni * (j + self.margin + nj * (k + self.margin))
    }

    fn rows(&self) -> impl Iterator<Item = (usize, usize)> {
        let [_, nj, nk] = self.cells;
        (0..nk).flat_map(move |k| (0..nj).map(move |j| (j, k)))
    }

    /// The values of all channels.
    pub fn fill(&self, channels: &Channels, modality: Modality, input: &Input) -> Vec<f32> {
        let size: usize = self.padded.iter().product();
        let mut values = vec![0.0; size * input.channels.len()];
        for (channel, values) in input.channels.iter().zip(values.chunks_mut(size)) {
            match channel {
                Channel::Intensity => self.copy(&channels.intensity, values),
                Channel::Flat => self.copy(&channels.flat, values),
                Channel::Detail => self.copy(&channels.detail, values),
                Channel::InView => self.fill_view(values),
                Channel::Ct if modality == Modality::Ct => self.fill_view(values),
                Channel::Abrupt => {
                    self.copy(channels.abrupt.as_deref().unwrap_or_default(), values)
                }
                Channel::AirEdge => {
                    self.copy(channels.air_edge.as_deref().unwrap_or_default(), values)
                }
                Channel::Logit => self.copy(channels.logit.as_deref().unwrap_or_default(), values),
                Channel::Ct => {}
            }
        }
        values
    }

    fn copy(&self, field: &[f32], values: &mut [f32]) {
        let ni = self.cells[0];
        for ((j, k), line) in self.rows().zip(field.chunks(ni)) {
            values[self.row(j, k)..][..ni].copy_from_slice(line);
        }
    }

    fn fill_view(&self, values: &mut [f32]) {
        for (j, k) in self.rows() {
            values[self.row(j, k)..][..self.cells[0]].fill(1.0);
        }
    }

    /// Mirrors every channel along an axis (0 = i, 1 = j, 2 = k), margins and all.
    pub fn mirror(&self, values: &mut [f32], axis: usize) {
        let [i, j, k] = self.padded;
        mirror(values, [k, j, i], 2 - axis);
    }

    /// Takes the cells out of one channel of an output tensor.
    pub fn take(&self, values: &[f32]) -> Result<Vec<f32>> {
        let expected: usize = self.padded.iter().product();
        if values.len() != expected {
            return Err(Error::Unavailable(format!(
                "the network gave {} values for {expected} cells; its card does not fit it",
                values.len()
            )));
        }
        let line = |(j, k)| &values[self.row(j, k)..][..self.cells[0]];
        Ok(self.rows().flat_map(line).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Card;
    use crate::ops::phantom::grid;

    fn card() -> Card {
        serde_json::from_str(include_str!("../../tests/data/models/foreground/card.json")).unwrap()
    }

    #[test]
    fn cells_go_into_a_tensor_and_come_out_as_they_were() {
        let input = card().input;
        let cells = CoarseGrid::over(&grid([11, 22, 5], [4.0; 3]), 4.0);
        let tensor = Tensor::around(&cells, &input);
        // A margin of 8 on both sides, then up to a multiple of 16; slowest axis first.
        assert_eq!(tensor.shape(&input), [1, 5, 32, 48, 32]);
        let field: Vec<f32> = (0..cells.cell_count()).map(|n| n as f32 + 1.0).collect();
        let mut values = vec![0.0; 32 * 48 * 32];
        tensor.copy(&field, &mut values);
        assert_eq!(values[8 + 32 * (8 + 48 * 8)], 1.0);
        assert_eq!(values.iter().filter(|v| **v != 0.0).count(), field.len());
        assert!(tensor.take(&values).unwrap() == field);
    }

    #[test]
    fn the_axes_of_a_grid_are_mirrored_in_their_own_order() {
        let tensor = Tensor {
            cells: [3, 2, 2],
            margin: 0,
            padded: [3, 2, 2],
        };
        let values: Vec<f32> = (0..24).map(|n| n as f32).collect();
        for (axis, first) in [(0, 2.0), (1, 3.0), (2, 6.0)] {
            let mut mirrored = values.clone();
            tensor.mirror(&mut mirrored, axis);
            assert_eq!((mirrored[0], mirrored[12]), (first, 12.0 + first));
            tensor.mirror(&mut mirrored, axis);
            assert_eq!(mirrored, values);
        }
    }

    #[test]
    fn an_output_of_another_size_is_refused() {
        let input = card().input;
        let cells = CoarseGrid::over(&grid([11, 22, 5], [4.0; 3]), 4.0);
        let error = Tensor::around(&cells, &input).take(&[0.0; 7]).unwrap_err();
        assert_eq!(error.exit_code(), 69);
    }
}
