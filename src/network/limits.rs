//! What a card may ask for: anything that a scan could need, and nothing that fills a machine.

use super::card::{Card, Channel, Input};

/// Most channels of a tensor.
const CHANNELS: usize = 16;
/// Longest distance on a card: no part of a body is as thick [mm].
const LENGTH_MM: f64 = 100.0;
/// What ends are clipped to, and how many of nothing count everywhere: without any, a cell that has no
/// ends would be no number.
const ENDS: std::ops::RangeInclusive<f32> = 0.01..=100.0;
/// Air is darker than tissue.
const SHARES: std::ops::RangeInclusive<f32> = 0.0..=1.0;
/// What logits may be divided by.
const TEMPERATURES: std::ops::RangeInclusive<f32> = 0.01..=100.0;
/// What a logit may count, and how far contrast may reach: a weight of nothing would leave no score.
const WEIGHTS: std::ops::RangeInclusive<f32> = 0.01..=100.0;
const BANDS: std::ops::RangeInclusive<f32> = 0.0..=100.0;
/// Most times that a surface is moved.
const PASSES: usize = 100;

impl Input {
    /// Whether this runtime can make such a tensor.
    ///
    /// # Errors
    /// A line that says why not.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.orientation != "RAS" {
            return Err(format!(
                "orientation {:?}; only RAS is known",
                self.orientation
            ));
        }
        if !(0.5..=64.0).contains(&self.cell_mm) {
            return Err(format!(
                "cell_mm {} is not between 0.5 and 64",
                self.cell_mm
            ));
        }
        if self.margin_cells > 64 || !(1..=256).contains(&self.multiple_of) {
            return Err("margin_cells above 64 or multiple_of not in 1 to 256".to_owned());
        }
        if self.channels.is_empty() {
            return Err("no input channels".to_owned());
        }
        if self.channels.len() > CHANNELS {
            let count = self.channels.len();
            return Err(format!(
                "{count} input channels; at most {CHANNELS} are possible"
            ));
        }
        if self.channels.contains(&Channel::Abrupt) && self.abrupt.is_none() {
            return Err("a channel \"abrupt\" and no input.abrupt".to_owned());
        }
        if self.channels.contains(&Channel::AirEdge) && self.air_edge.is_none() {
            return Err("a channel \"air-edge\" and no input.air_edge".to_owned());
        }
        if self.mirror_axes.len() > 3 || self.mirror_axes.iter().any(|axis| *axis > 2) {
            return Err("mirror_axes must be at most three of 0, 1, 2".to_owned());
        }
        Ok(())
    }
}

impl Card {
    /// Refuses a card with which memory or time would have no end.
    ///
    /// # Errors
    /// A line that says what is out of range.
    pub(super) fn check_limits(&self) -> Result<(), String> {
        let boundary = self.boundary.as_ref();
        let skin = boundary.and_then(|boundary| boundary.skin.as_ref());
        let rim = boundary.and_then(|boundary| boundary.rim.as_ref());
        let abrupt = self.input.abrupt.as_ref();
        let air_edge = self.input.air_edge.as_ref();
        let lengths = [
            ("input.detail_below_mm", Some(self.input.detail_below_mm)),
            ("input.abrupt.run_mm", abrupt.map(|a| a.run_mm)),
            ("input.abrupt.reach_mm", abrupt.map(|a| a.reach_mm)),
            ("input.air_edge.run_mm", air_edge.map(|a| a.run_mm)),
            ("input.air_edge.reach_mm", air_edge.map(|a| a.reach_mm)),
            ("boundary.smoothing_mm", boundary.map(|b| b.smoothing_mm)),
            ("boundary.skin.depth_mm", skin.map(|skin| skin.depth_mm)),
            ("boundary.skin.reach_mm", skin.map(|skin| skin.reach_mm)),
            (
                "boundary.skin.smoothing_mm",
                skin.map(|skin| skin.smoothing_mm),
            ),
            ("boundary.closing_mm", boundary.map(|b| b.closing_mm)),
            ("boundary.rim.reach_mm", rim.map(|rim| rim.reach_mm)),
            ("boundary.rim.between_mm", rim.map(|rim| rim.between_mm[0])),
            ("boundary.rim.between_mm", rim.map(|rim| rim.between_mm[1])),
            (
                "area.snap.mixed_radius_mm",
                self.area.as_ref().map(|a| a.snap.mixed_radius_mm),
            ),
        ];
        for (name, length) in lengths {
            if length.is_some_and(|mm| !(0.0..=LENGTH_MM).contains(&mm)) {
                return Err(format!("{name} is not between 0 and {LENGTH_MM}"));
            }
        }
        let area = self.area.as_ref();
        let numbers = [
            (
                "boundary.temperature",
                boundary.map(|b| b.temperature),
                TEMPERATURES,
            ),
            (
                "area.temperature",
                area.map(|a| a.temperature),
                TEMPERATURES,
            ),
            (
                "boundary.logit_weight",
                boundary.map(|b| b.logit_weight),
                WEIGHTS,
            ),
            ("boundary.band_logit", boundary.map(|b| b.band_logit), BANDS),
            ("input.abrupt.most", abrupt.map(|a| a.most), ENDS),
            ("input.abrupt.prior", abrupt.map(|a| a.prior), ENDS),
            ("input.air_edge.most", air_edge.map(|a| a.most), ENDS),
            ("input.air_edge.prior", air_edge.map(|a| a.prior), ENDS),
            ("input.air_edge.share", air_edge.map(|a| a.share), SHARES),
        ];
        for (name, number, range) in numbers {
            if number.is_some_and(|number| !range.contains(&number)) {
                let (least, most) = (range.start(), range.end());
                return Err(format!("{name} is not between {least} and {most}"));
            }
        }
        match skin {
            Some(skin) if skin.passes > PASSES => {
                Err(format!("boundary.skin.passes is above {PASSES}"))
            }
            _ => Ok(()),
        }
    }
}
