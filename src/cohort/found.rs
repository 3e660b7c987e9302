//! What both networks find in a scan, and what can be measured of it without a reference.

use super::config::{Config, Switch};
use super::networks::Networks;
use super::quality::Measures;
use crate::error::Result;
use crate::network::Modality;
use crate::network::mask::MaskNetwork;
use crate::ops::plausibility;
use crate::report::{self, Clock};
use crate::step::Context;
use crate::steps::{
    qa_metrics, segment_anonymization_area as area, segment_foreground as foreground,
};
use crate::volume::{CT_BELOW_HU, Canonical};

/// What was found in a scan, in memory.
pub(super) struct Found {
    /// Its foreground.
    pub body: foreground::Segmented,
    /// How long that took, and where.
    pub body_run: report::Run,
    self_agreement: Option<f64>,
    /// Its anonymization area.
    pub altered: area::Segmented,
    /// How long that took, and where.
    pub altered_run: report::Run,
}

impl Found {
    /// Lets both networks look at a scan.
    ///
    /// # Errors
    /// Those of the steps.
    pub fn of(
        scan: &Canonical,
        networks: &Networks,
        config: &Config,
        context: &Context,
    ) -> Result<Self> {
        let modality = config.modality;
        let clock = Clock::start();
        let mut self_agreement = None;
        let body = networks.foreground.with(|network| match network {
            MaskNetwork::Windows(network) => foreground::segment_label(scan, network, modality),
            MaskNetwork::CoarseGrid(network) => {
                let found = foreground::segment(scan, network, modality)?;
                if let (Switch::On, Some(said)) = (config.self_check, found.prediction()) {
                    self_agreement = Some(network.self_agreement(said)?);
                }
                Ok(found)
            }
        })?;
        let body_run = clock.stop(context);
        let clock = Clock::start();
        let altered = networks.area.with(|network| match network {
            MaskNetwork::Windows(network) => area::segment_label(scan, network, modality),
            MaskNetwork::CoarseGrid(network) => {
                let said = match body.prediction() {
                    Some(seen) => network.predict_after(seen, &scan.image, modality)?,
                    None => network.predict(&scan.image, modality)?,
                };
                area::segment(scan, network, said)
            }
        })?;
        Ok(Self {
            body,
            body_run,
            self_agreement,
            altered,
            altered_run: clock.stop(context),
        })
    }

    /// The kind of scan that a network took it for.
    pub fn kind_of_scan(&self, lowest: f64) -> &'static str {
        let taken_for = [self.body.report.modality, self.altered.report.modality];
        kind_of_scan(taken_for, lowest)
    }

    /// All measures but those that the judgement of the mask gives.
    pub fn measures(&self, scan: &Canonical) -> Measures {
        let mask = &self.body.mask;
        let body = self.body.prediction().map(|said| &said.logits);
        let doubt = body.and_then(|logits| plausibility::doubt(logits, 0.0));
        let area = self.altered.prediction().and_then(|(said, threshold)| {
            let doubt = plausibility::doubt(&said.logits, threshold);
            doubt.filter(|_| self.altered.report.altered)
        });
        let probability = self.altered.report.altered_probability;
        let [low, high] = scan.image.samples.range();
        // Contrast is that of the means on both sides; `complete` takes care of the rest.
        Measures {
            edge_sharpness: plausibility::edge_sharpness(&scan.image, mask, 1.0),
            edge_entropy: doubt.map(|d| d.edge_entropy),
            doubtful_cells: doubt.map(|d| d.doubtful_per_edge_cell),
            expected_dice: doubt.map(|d| d.expected_dice),
            network_agreement: body.map(|logits| plausibility::network_agreement(mask, logits)),
            self_agreement: self.self_agreement,
            altered_certainty: probability.map(|p| (2.0 * p - 1.0).abs()),
            area_entropy: area.map(|d| d.edge_entropy),
            border_share: plausibility::border_share(mask),
            padding_share: plausibility::padding_share(&scan.image),
            values: [low.into(), high.into()],
            ..Measures::default()
        }
    }
}

impl Measures {
    /// Adds what the judgement of the foreground says.
    pub(super) fn complete(&mut self, judged: &qa_metrics::Report) {
        let facts = &judged.mask;
        self.foreground_share = facts.share;
        self.foreground_ml = facts.volume_ml;
        self.pieces = facts.pieces;
        self.holes_ml = facts.holes_ml;
        self.touched_borders = facts.touched_borders.len();
        let means = facts.intensities.as_ref().and_then(|values| {
            let (inside, outside) = (values.inside_mean.value()?, values.outside_mean.value()?);
            Some(inside - outside).filter(|contrast| *contrast != 0.0)
        });
        let step = self.edge_sharpness;
        self.edge_sharpness = step.zip(means).map(|(step, contrast)| step / contrast);
    }
}

/// The kind of scan that a network took it for; networks that see scans through windows ask for none,
/// so that the lowest value decides where both do.
fn kind_of_scan(taken_for: [Modality; 2], lowest: f64) -> &'static str {
    match taken_for.into_iter().find(|kind| *kind != Modality::Auto) {
        Some(Modality::Ct) => "CT",
        None if lowest < f64::from(CT_BELOW_HU) => "CT",
        _ => "MR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_is_what_some_network_took_it_for_or_what_its_values_say() {
        use Modality::{Auto, Ct, Mr};
        assert_eq!(kind_of_scan([Mr, Ct], -1000.0), "MR");
        assert_eq!(kind_of_scan([Auto, Ct], 0.0), "CT");
        assert_eq!(kind_of_scan([Auto, Auto], -1000.0), "CT");
        assert_eq!(kind_of_scan([Auto, Auto], -200.0), "MR");
    }
}
