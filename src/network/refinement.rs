//! A second look at a mask's border: a small network on finer cells, in tiles.
//!
//! The first network sees the whole scan on coarse cells and knows what is anatomy, or was altered; where
//! that ends it says to a few millimetres. This one sees the same channels on finer cells and what the first
//! one said, in the tiles in which the first was not sure of every cell.

use serde::{Deserialize, Serialize};

use super::card::{Channel, Input, Output, Weights};
use super::channels::channels;
use super::session::Session;
use super::{Prediction, Tensor, run_mirrored};
use crate::error::Result;
use crate::memory;
use crate::volume::coarse_grid::{CoarseField, CoarseGrid};
use crate::volume::{Image, Shape};

/// What a refinement's weights expect and where they are used.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Refinement {
    /// The file that holds the weights.
    pub weights: Weights,
    /// How a tile becomes a tensor; its last channel is `logit`.
    pub input: Input,
    /// Names of the outputs.
    pub output: Output,
    /// The first network's logit is clipped to this, either way.
    pub logit_most: f32,
    /// The channel `logit` is the logit divided by this.
    pub logit_unit: f32,
    /// How far the logit goes from the first look's to the second's; that way both are clipped.
    pub share: f32,
    /// What lies within this of the logit at the border is looked at again.
    pub unsure_logit: f32,
    /// And this much around it [cells].
    pub around_cells: usize,
    /// Longest side of a tile [cells].
    pub tile_cells: usize,
    /// What a tile sees beyond its sides [cells].
    pub overlap_cells: usize,
    /// What the weights were trained on.
    #[serde(default)]
    pub training: serde_json::Value,
}

/// Longest side of a tile and of what it sees beyond [cells].
const MOST_CELLS: usize = 256;

impl Refinement {
    /// Whether this runtime can follow it; `first`: the input of the network that it refines.
    ///
    /// # Errors
    /// A line that says why not.
    pub(super) fn check(&self, first: &Input) -> std::result::Result<(), String> {
        self.input
            .check()
            .map_err(|why| format!("refinement: {why}"))?;
        let same_values = Input {
            cell_mm: first.cell_mm,
            multiple_of: first.multiple_of,
            margin_cells: first.margin_cells,
            ..self.input.clone()
        };
        if !same_values.sees_as(first) || self.input.margin_cells != 0 {
            return Err("a refinement that sees other intensities than its network".to_owned());
        }
        // What the first one does not see is not checked for its range elsewhere.
        let ends = (&self.input.abrupt, &self.input.air_edge);
        if ends != (&first.abrupt, &first.air_edge) {
            return Err("a refinement with other rules for ends than its network".to_owned());
        }
        if !self.input.channels.contains(&Channel::Logit) {
            return Err("a refinement that is not shown its network's logit".to_owned());
        }
        if self.output.altered.is_some() {
            return Err("a refinement that judges the scan".to_owned());
        }
        let sides = [self.tile_cells, self.overlap_cells, self.around_cells];
        // Where little of what is seen is used, there is no end of tiles.
        let longest = self.tile_cells.min(MOST_CELLS);
        if self.tile_cells < 8 || sides.iter().any(|cells| *cells > longest) {
            return Err(format!(
                "refinement: tile_cells not in 8 to {MOST_CELLS}, or overlap_cells or around_cells \
                 above that"
            ));
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Err("refinement: share is not between 0 and 1".to_owned());
        }
        let logits = [self.logit_most, self.logit_unit, self.unsure_logit];
        if logits.iter().any(|l| !(0.01..=100.0).contains(l)) {
            return Err("refinement: a logit is not between 0.01 and 100".to_owned());
        }
        Ok(())
    }
}

/// A refinement, loaded.
pub(super) struct Refiner {
    rule: Refinement,
    session: Session,
}

/// Cells of a grid, `start` to `end` (exclusive) along i, j, k.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cells {
    start: Shape,
    end: Shape,
}

impl Refiner {
    pub fn new(rule: Refinement, session: Session) -> Self {
        Self { rule, session }
    }

    /// See [`super::Network::refine`].
    pub fn refine(
        &mut self,
        image: &Image,
        first: &Prediction,
        threshold: f32,
    ) -> Result<CoarseField> {
        let grid = CoarseGrid::over(&image.geometry, self.rule.input.cell_mm);
        // What the first network said, and what comes of it.
        let bytes = 2.0 * size_of::<f32>() as f64 * memory::voxels(grid.shape);
        memory::check(bytes, "the refined logits")?;
        let said = first.logits.on(&grid);
        let mut refined = said.clone();
        let within = self.rule.unsure_logit;
        let unsure = |logit: f32| (logit - threshold).abs() < within;
        let Some(all) = Cells::around(&said, unsure) else {
            return Ok(refined);
        };
        let all = all.grown(self.rule.around_cells, grid.shape);
        for tile in all.tiles(self.rule.tile_cells) {
            let near = tile.grown(self.rule.around_cells, grid.shape);
            if near.any(&said, unsure) {
                self.look(image, first, &said, tile, &mut refined)?;
            }
        }
        Ok(refined)
    }

    /// Lets the network see a tile, and puts in what it says.
    fn look(
        &mut self,
        image: &Image,
        first: &Prediction,
        said: &CoarseField,
        tile: Cells,
        refined: &mut CoarseField,
    ) -> Result<()> {
        let rule = &self.rule;
        let seen = tile.grown(rule.overlap_cells, said.grid.shape);
        let (bounds, grid) = said.grid.part(seen.start, seen.end, margin_mm(&rule.input));
        let tensor = Tensor::around(&grid, &rule.input);
        tensor.check_memory(&rule.input)?;
        let piece = image.crop(&bounds);
        let mut made = channels(&piece, &grid, &first.normalization, &rule.input);
        let logit = |logit: f32| logit.clamp(-rule.logit_most, rule.logit_most) / rule.logit_unit;
        made.logit = Some(seen.take(said).map(logit).collect());
        let values = tensor.fill(&made, first.normalization.modality, &rule.input);
        let ends = (&rule.input, &rule.output);
        let (logits, _) = run_mirrored(&mut self.session, ends, &tensor, values)?;
        let logits = CoarseField {
            values: tensor.take(&logits)?,
            grid,
        };
        let within = |cells: Shape| [0, 1, 2].map(|a| cells[a] - seen.start[a]);
        let inner = Cells {
            start: within(tile.start),
            end: within(tile.end),
        };
        let both = |first: f32, second: f32| {
            let clip = |logit: f32| logit.clamp(-rule.logit_most, rule.logit_most);
            first + rule.share * (clip(second) - clip(first))
        };
        let rows = tile.rows(said.grid.shape);
        for (to, from) in rows.zip(inner.rows(logits.grid.shape)) {
            let seen = said.values[to.clone()].iter().zip(&logits.values[from]);
            let refined = refined.values[to].iter_mut().zip(seen);
            refined.for_each(|(refined, (&first, &second))| *refined = both(first, second));
        }
        Ok(())
    }
}

/// How far beyond its cells voxels tell of a tile: the longest that a channel looks along a line.
fn margin_mm(input: &Input) -> f64 {
    let abrupt = input.abrupt_rule().map(|rule| rule.run_mm + rule.reach_mm);
    let edge = input
        .air_edge_rule()
        .map(|rule| rule.run_mm + rule.reach_mm);
    let longest = abrupt.into_iter().chain(edge).fold(0.0, f64::max);
    // Runs and reaches are a few voxels at least, of axes finer than this.
    longest.max(2.0 * input.detail_below_mm)
}

impl Cells {
    /// The smallest that hold every cell for which `wanted` is true; `None` without any.
    fn around(field: &CoarseField, wanted: impl Fn(f32) -> bool) -> Option<Self> {
        let [ni, nj, _] = field.grid.shape;
        let mut found: Option<Self> = None;
        let cells = field.values.iter().enumerate();
        for (n, _) in cells.filter(|(_, logit)| wanted(**logit)) {
            let at = [n % ni, n / ni % nj, n / (ni * nj)];
            let before = found.unwrap_or(Self {
                start: at,
                end: at.map(|a| a + 1),
            });
            found = Some(Self {
                start: [0, 1, 2].map(|a| before.start[a].min(at[a])),
                end: [0, 1, 2].map(|a| before.end[a].max(at[a] + 1)),
            });
        }
        found
    }

    /// With more cells on every side, as far as the grid goes.
    fn grown(&self, cells: usize, shape: Shape) -> Self {
        Self {
            start: self.start.map(|a| a.saturating_sub(cells)),
            end: [0, 1, 2].map(|a| (self.end[a] + cells).min(shape[a])),
        }
    }

    /// As few tiles as possible with no side longer than `longest`, of about one size along an axis.
    fn tiles(&self, longest: usize) -> Vec<Self> {
        let cuts = [0, 1, 2].map(|a| {
            let (start, length) = (self.start[a], self.end[a] - self.start[a]);
            let count = length.div_ceil(longest).max(1);
            let cut = move |n: usize| start + n * length / count;
            (0..count).map(|n| (cut(n), cut(n + 1))).collect::<Vec<_>>()
        });
        let [along_i, along_j, along_k] = &cuts;
        let mut tiles = Vec::new();
        for k in along_k {
            for j in along_j {
                for i in along_i {
                    tiles.push(Self {
                        start: [i.0, j.0, k.0],
                        end: [i.1, j.1, k.1],
                    });
                }
            }
        }
        tiles
    }

    /// Where the cells of each row along i lie in a field of `shape` cells.
    fn rows(&self, [ni, nj, _]: Shape) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (start, end) = (self.start, self.end);
        let row = move |(k, j): (usize, usize)| {
            let first = ni * (j + nj * k);
            first + start[0]..first + end[0]
        };
        (start[2]..end[2])
            .flat_map(move |k| (start[1]..end[1]).map(move |j| (k, j)))
            .map(row)
    }

    /// Their values.
    fn take<'a>(&self, field: &'a CoarseField) -> impl Iterator<Item = f32> + use<'a> {
        let rows = self.rows(field.grid.shape);
        rows.flat_map(|row| field.values[row].iter().copied())
    }

    /// Whether `wanted` is true for any.
    fn any(&self, field: &CoarseField, wanted: impl Fn(f32) -> bool) -> bool {
        self.take(field).any(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::grid;

    #[test]
    fn tiles_cover_the_cells_once_and_none_is_longer_than_asked() {
        let cells = Cells {
            start: [3, 0, 10],
            end: [103, 20, 75],
        };
        let tiles = cells.tiles(48);
        assert_eq!(tiles.len(), 3 * 2);
        let shape = [110, 20, 80];
        let mut seen = vec![0; shape.iter().product()];
        for tile in &tiles {
            assert!((0..3).all(|a| tile.end[a] - tile.start[a] <= 48));
            tile.rows(shape).flatten().for_each(|n| seen[n] += 1);
        }
        assert!(seen.iter().all(|n| *n <= 1));
        assert_eq!(seen.iter().sum::<i32>(), 100 * 20 * 65);
    }

    #[test]
    fn cells_that_are_wanted_are_found_with_what_lies_around() {
        let over = CoarseGrid::over(&grid([20, 20, 20], [2.0; 3]), 2.0);
        let mut field = CoarseField {
            values: vec![0.0; over.cell_count()],
            grid: over,
        };
        assert_eq!(Cells::around(&field, |l| l > 0.5), None);
        for at in [[4, 1, 9], [6, 2, 9]] {
            field.values[at[0] + 20 * (at[1] + 20 * at[2])] = 1.0;
        }
        let found = Cells::around(&field, |l| l > 0.5).unwrap();
        assert_eq!((found.start, found.end), ([4, 1, 9], [7, 3, 10]));
        let grown = found.grown(2, field.grid.shape);
        assert_eq!((grown.start, grown.end), ([2, 0, 7], [9, 5, 12]));
        assert!(grown.any(&field, |l| l > 0.5));
    }
}
