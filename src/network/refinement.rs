//! A second look at a mask's border: a small network on finer cells, in tiles.
//!
//! The first network sees the whole scan on coarse cells and knows what is anatomy, or was altered; where
//! that ends it says to a few millimetres. This one sees the same channels on finer cells and what the first
//! one said, in tiles around the cells of which the first was not sure.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::afterwards::Afterwards;
use super::card::{Channel, Input, Output, Weights};
use super::channels::{channels, values_in};
use super::session::Session;
use super::tensor::Tensor;
use super::tiles::{rows, tiles};
use super::{Modality, Prediction, run_mirrored};
use crate::error::Result;
use crate::memory;
use crate::volume::coarse_grid::{CoarseField, CoarseGrid};
use crate::volume::{BoundingBox, Image, Shape};

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
    /// Scans that are looked at again.
    pub modalities: Vec<Modality>,
    /// The first network's logit is clipped to this, either way.
    pub logit_most: f32,
    /// The channel `logit` is the logit divided by this.
    pub logit_unit: f32,
    /// The logit is the first look's, and this share of what the second adds; for that both are clipped.
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

/// Longest sides that tiles may have [cells].
const LENGTHS: RangeInclusive<usize> = 8..=256;

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
        if !same_values.sees_as(first) {
            return Err("a refinement that sees other intensities than its network".to_owned());
        }
        if self.input.margin_cells != 0 {
            return Err("refinement: margin_cells is not 0".to_owned());
        }
        // What the first one does not see is not checked for its range elsewhere.
        let ends = (&self.input.abrupt, &self.input.air_edge);
        if ends != (&first.abrupt, &first.air_edge) {
            return Err("a refinement with other rules for ends than its network".to_owned());
        }
        if !self.input.channels.contains(&Channel::Logit) {
            return Err("a refinement that is not shown its network's logit".to_owned());
        }
        if self.modalities.is_empty() || self.modalities.contains(&Modality::Auto) {
            return Err("refinement: modalities are not ct, mr or both".to_owned());
        }
        if self.output.altered.is_some() {
            return Err("a refinement that judges the scan".to_owned());
        }
        let sides = [
            self.overlap_cells,
            self.around_cells,
            self.input.multiple_of,
        ];
        // Where little of what is seen is used, there is no end of tiles.
        if !LENGTHS.contains(&self.tile_cells) {
            return Err(format!(
                "refinement: tile_cells {} is not between {} and {}",
                self.tile_cells,
                LENGTHS.start(),
                LENGTHS.end()
            ));
        }
        if sides.iter().any(|cells| *cells > self.tile_cells) {
            return Err(
                "refinement: overlap_cells, around_cells or multiple_of is above tile_cells"
                    .to_owned(),
            );
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

    /// The logit of both looks. Where both are surer than `logit_most`, the first one's stays: nothing comes
    /// near a threshold that lies lower still, as that of an area may which no cell is sure of.
    fn both(&self, first: f32, second: f32) -> f32 {
        let clip = |logit: f32| logit.clamp(-self.logit_most, self.logit_most);
        first + self.share * (clip(second) - clip(first))
    }
}

/// A refinement, loaded.
pub(super) struct Refiner {
    rule: Refinement,
    session: Session,
}

impl Refiner {
    pub fn new(rule: Refinement, session: Session) -> Self {
        Self { rule, session }
    }

    /// The weights at work.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What it wants to see.
    pub fn input(&self) -> &Input {
        &self.rule.input
    }

    /// The cells that it sees a scan in.
    pub fn grid(&self, image: &Image) -> CoarseGrid {
        CoarseGrid::over(&image.geometry, self.rule.input.cell_mm)
    }

    /// Whether scans of a modality are looked at again.
    pub fn sees(&self, modality: Modality) -> bool {
        self.rule.modalities.contains(&modality)
    }

    /// See [`super::Network::refine`].
    pub fn refine(
        &mut self,
        image: &Image,
        first: &Prediction,
        threshold: f32,
    ) -> Result<CoarseField> {
        let grid = self.grid(image);
        // What the first network said, where it was not sure, and what comes of it.
        let bytes = (2 * size_of::<f32>() + 1) as f64 * memory::voxels(grid.shape);
        memory::check(bytes, "the refined logits")?;
        let said = first.logits.on(&grid);
        let mut refined = said.clone();
        let within = self.rule.unsure_logit;
        let unsure = |logit: f32| (logit - threshold).abs() < within;
        let doubts: Vec<u8> = said.values.iter().map(|l| u8::from(unsure(*l))).collect();
        let (around, longest) = (self.rule.around_cells, self.rule.tile_cells);
        let tiles = tiles(&doubts, grid.shape, around, longest);
        drop(doubts);
        for (n, tile) in tiles.iter().enumerate() {
            let afterwards = if n + 1 == tiles.len() {
                Afterwards::of(&first.logits.grid)
            } else {
                Afterwards::Kept
            };
            self.look((image, first, &said), *tile, &mut refined, afterwards)?;
        }
        Ok(refined)
    }

    /// Lets the network see a tile, and puts in what it says.
    fn look(
        &mut self,
        (image, first, said): (&Image, &Prediction, &CoarseField),
        tile: BoundingBox,
        refined: &mut CoarseField,
        afterwards: Afterwards,
    ) -> Result<()> {
        let rule = &self.rule;
        let seen = tile.grown([rule.overlap_cells; 3], said.grid.shape);
        let (bounds, grid) = said.grid.part(seen.start, seen.end, margin_mm(&rule.input));
        let tensor = Tensor::around(&grid, &rule.input);
        tensor.check_memory(&rule.input)?;
        let kept = first.finer.as_ref().filter(|kept| kept.grid == said.grid);
        let mut made = match kept {
            Some(kept) => kept.part(&seen, grid.clone()),
            None => {
                let piece = image.crop(&bounds);
                channels(&piece, grid.clone(), &first.normalization, &rule.input)
            }
        };
        let logit = |logit: f32| logit.clamp(-rule.logit_most, rule.logit_most) / rule.logit_unit;
        let logits = values_in(&seen, &said.grid, &said.values);
        made.logit = Some(logits.into_iter().map(logit).collect());
        let values = tensor.fill(&made, first.normalization.modality, &rule.input);
        let ends = (&rule.input, &rule.output);
        let session = (&mut self.session, afterwards);
        let (logits, _) = run_mirrored(session, ends, &tensor, values)?;
        let logits = CoarseField {
            values: tensor.take(&logits)?,
            grid,
        };
        let within = |cell: Shape| [0, 1, 2].map(|a| cell[a] - seen.start[a]);
        let inner = BoundingBox {
            start: within(tile.start),
            end: within(tile.end),
        };
        for (to, from) in rows(&tile, said.grid.shape).zip(rows(&inner, logits.grid.shape)) {
            let seen = said.values[to.clone()].iter().zip(&logits.values[from]);
            let refined = refined.values[to].iter_mut().zip(seen);
            refined.for_each(|(refined, (&first, &second))| *refined = rule.both(first, second));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logit_moves_by_its_share_and_stays_where_both_looks_are_sure() {
        let card = include_str!("../../tests/data/models/refined-area/card.json");
        let card: serde_json::Value = serde_json::from_str(card).unwrap();
        let mut rule: Refinement = serde_json::from_value(card["refinement"].clone()).unwrap();
        (rule.logit_most, rule.share) = (8.0, 0.25);
        assert_eq!(rule.both(-2.0, 2.0), -1.0);
        assert_eq!(rule.both(6.0, 100.0), 6.5);
        assert_eq!(rule.both(-20.0, -9.0), -20.0);
        assert_eq!(rule.both(-20.0, 8.0), -16.0);
        rule.share = 1.0;
        assert_eq!(rule.both(-2.0, 2.0), 2.0);
    }
}
