//! The model card: everything the runtime must know about a network's weights.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder::Kind;
use super::refinement::Refinement;
use crate::error::{Error, Result};
use crate::ops::constant_area::Snap;
use crate::ops::rim::Rim;
use crate::ops::skin::Skin;

/// What weights expect, what comes out, and what is done with it. `card.json` beside `model.onnx`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Layout of this file: `card/1`.
    pub schema: String,
    /// What kind of network it is; this struct is for the first kind.
    #[serde(default)]
    pub kind: Kind,
    /// What is segmented: `foreground` or `anonymization-area`.
    pub name: String,
    /// Version of the weights.
    pub version: String,
    /// SPDX licence of the weights.
    pub licence: String,
    /// The file that holds the weights.
    pub weights: Weights,
    /// How a scan becomes a tensor.
    pub input: Input,
    /// Names of the network's outputs.
    pub output: Output,
    /// How the foreground's boundary is placed on the scan's own grid.
    pub boundary: Option<Boundary>,
    /// How the anonymization area is decided and snapped to constant voxels.
    pub area: Option<Area>,
    /// The network that looks at the mask's border once more, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refinement: Option<Refinement>,
    /// What the weights were trained on.
    #[serde(default)]
    pub training: serde_json::Value,
    /// How good they were on subjects that they were not trained on.
    #[serde(default)]
    pub evaluation: serde_json::Value,
}

/// The file that holds the weights, beside the card.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// File name, without folders.
    pub file: PathBuf,
    /// SHA-256 of that file in hexadecimal.
    pub sha256: String,
}

/// How a scan becomes a tensor.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Orientation of the tensor's i, j, k.
    pub orientation: String,
    /// Edge of a cell of the network's grid [mm].
    pub cell_mm: f64,
    /// Channels in order.
    pub channels: Vec<Channel>,
    /// Cells of zeros round the volume.
    pub margin_cells: usize,
    /// Every side of the tensor is a multiple of this.
    pub multiple_of: usize,
    /// A scan that reaches below this is CT in Hounsfield units.
    pub ct_below_hu: f32,
    /// CT is clipped to this.
    pub ct_window_hu: [f32; 2],
    /// Hounsfield units that become 1 (from the lower end of the window).
    pub ct_scale_hu: f32,
    /// Percentile of an MR scan's values above its minimum that becomes 1.
    pub mr_percentile: f64,
    /// MR is clipped to [0, this].
    pub mr_clip: f32,
    /// `detail` is log(1 + gain × mean) / divisor.
    pub detail_gain: f32,
    /// See `detail_gain`.
    pub detail_divisor: f32,
    /// Only axes with a spacing below this count for `detail` [mm].
    pub detail_below_mm: f64,
    /// How `abrupt` is made; needed where it is a channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abrupt: Option<AbruptRule>,
    /// How `air-edge` is made; needed where it is a channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub air_edge: Option<AirEdgeRule>,
    /// Axes (0 = i, 1 = j, 2 = k) along which the network also sees the scan mirrored; the logits of
    /// all combinations are averaged.
    #[serde(default)]
    pub mirror_axes: Vec<usize>,
}

/// How abruptly constants end.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AbruptRule {
    /// A constant counts where it lasts this long along a line [mm]; three voxels at least.
    pub run_mm: f64,
    /// How far what is beyond its end is looked at [mm]; two voxels at least.
    pub reach_mm: f64,
    /// Only axes with a spacing below this are looked along [mm].
    pub below_mm: f64,
    /// Abruptness is clipped to [0, this].
    pub most: f32,
    /// Ends of no abruptness that every cell has besides its own.
    pub prior: f32,
}

/// How abruptly air ends.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AirEdgeRule {
    /// Air counts where it lasts this long along a line [mm]; three voxels at least.
    pub run_mm: f64,
    /// How far what is beyond its end is looked at [mm]; two voxels at least.
    pub reach_mm: f64,
    /// Only axes with a spacing below this are looked along [mm].
    pub below_mm: f64,
    /// Air is darker, and all beyond it brighter, than this share of the tissue, the mean of what is
    /// beyond the next voxel; its last voxel is also darker than this share of the second beyond it.
    pub share: f32,
    /// That mean and that second voxel are brighter than this (normalised intensity).
    pub tissue_least: f32,
    /// Abruptness is clipped to this.
    pub most: f32,
    /// Ends of no abruptness that every cell has besides its own.
    pub prior: f32,
}

#[cfg(test)]
impl AirEdgeRule {
    /// That of the shipped network.
    pub(crate) fn for_tests() -> Self {
        Self {
            run_mm: 3.0,
            reach_mm: 5.0,
            below_mm: 3.0,
            share: 0.2,
            tissue_least: 0.08,
            most: 1.5,
            prior: 0.5,
        }
    }
}

/// What a channel of the tensor holds; see [`crate::network::channels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// Normalised intensity.
    Intensity,
    /// Share of voxels that equal their next neighbour on every axis.
    Flat,
    /// Logarithm of the mean second difference.
    Detail,
    /// 1 inside the volume.
    InView,
    /// 1 inside a volume that was normalised as CT.
    Ct,
    /// Mean abruptness of the ends of constants.
    Abrupt,
    /// Mean abruptness of the ends of air.
    AirEdge,
    /// The logit that a first network gave; of refinements alone.
    Logit,
}

/// Names of the network's outputs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// A logit for every cell.
    pub logits: String,
    /// A logit for the scan: was it altered at all?
    pub altered: Option<String>,
}

/// How the foreground's boundary is placed on the scan's own grid; see [`crate::ops::boundary`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Boundary {
    /// CT: level of the skin, as a share of the way from air (−1000 HU) to soft tissue (+50 HU).
    pub ct_level: f32,
    /// MR: level of the skin, as a share of the way from the local air to the local tissue.
    pub mr_level: f32,
    /// Weight of the network's logit against the contrast term.
    pub logit_weight: f32,
    /// Slope of the contrast term, per unit of local contrast.
    pub contrast_gain: f32,
    /// Local means are taken with a Gaussian of this standard deviation [mm].
    pub smoothing_mm: f64,
    /// Beyond this logit the network alone decides.
    pub band_logit: f32,
    /// Smaller pieces are dropped [ml].
    pub minimum_piece_ml: f64,
    /// Scores are divided by this before they become probabilities; it changes no mask.
    #[serde(default = "temperature_of_1")]
    pub temperature: f32,
    /// MR: how the surface is then moved to the skin; not at all if it is missing.
    #[serde(default)]
    pub skin: Option<Skin>,
    /// MR: how the rim in front of blanked air is taken in; not at all if it is missing.
    #[serde(default)]
    pub rim: Option<Rim>,
    /// MR: gaps of the surface that a ball of this radius does not fit into are filled then [mm].
    #[serde(default)]
    pub closing_mm: f64,
}

/// How the anonymization area is decided and snapped to constant voxels.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Area {
    /// The mask is empty when the scan's logit is below this.
    pub altered_threshold: f32,
    /// A cell belongs to the area above this logit, or above a lower one where none is sure.
    pub mask_threshold: f32,
    /// Logits of cells are divided by this before they become probabilities; it changes no mask.
    #[serde(default = "temperature_of_1")]
    pub temperature: f32,
    /// A smaller area is none [ml].
    pub minimum_ml: f64,
    /// How the area is snapped to constant voxels; see [`crate::ops::constant_area`].
    pub snap: Snap,
}

impl Area {
    /// The logit above which a cell of a scan that was altered belongs to the area: that of
    /// [`Area::mask_threshold`]'s probability times the highest probability of any cell.
    /// `logits`: those of all cells.
    ///
    /// A mask overlaps best with what is there when it holds the cells of more than half the Dice
    /// that can be expected, for which the highest probability stands here.
    ///
    /// # Source
    /// Lipton, Elkan and Naryanaswamy 2014, <https://doi.org/10.1007/978-3-662-44851-9_15>.
    pub fn threshold(&self, logits: &[f32]) -> f32 {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !highest.is_finite() {
            return self.mask_threshold;
        }
        // The logit of a product of two probabilities, from their logits.
        let (a, b) = (f64::from(self.mask_threshold), f64::from(highest));
        -((-a).exp() + (-b).exp() + (-a - b).exp()).ln() as f32
    }
}

fn temperature_of_1() -> f32 {
    1.0
}

impl Input {
    /// True when both make the same channels out of a scan, but for those that only one of them has.
    pub fn sees_as(&self, other: &Self) -> bool {
        let rules = |input: &Self| Self {
            mirror_axes: Vec::new(),
            channels: Vec::new(),
            abrupt: None,
            air_edge: None,
            ..input.clone()
        };
        agree(self.abrupt_rule(), other.abrupt_rule())
            && agree(self.air_edge_rule(), other.air_edge_rule())
            && rules(self) == rules(other)
    }

    /// Whether the rules for ends agree, used or not: a refinement may use what its network does not.
    pub fn has_ends_of(&self, other: &Self) -> bool {
        agree(self.abrupt.as_ref(), other.abrupt.as_ref())
            && agree(self.air_edge.as_ref(), other.air_edge.as_ref())
    }

    /// How the channel «abrupt» is made; `None` where there is none.
    pub fn abrupt_rule(&self) -> Option<&AbruptRule> {
        let rule = self.abrupt.as_ref();
        rule.filter(|_| self.channels.contains(&Channel::Abrupt))
    }

    /// How the channel «air-edge» is made; `None` where there is none.
    pub fn air_edge_rule(&self) -> Option<&AirEdgeRule> {
        let rule = self.air_edge.as_ref();
        rule.filter(|_| self.channels.contains(&Channel::AirEdge))
    }
}

/// Whether two rules are one, where there are two.
fn agree<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

impl Card {
    /// Whether this runtime can follow it; a line that says why not.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        self.input.check()?;
        if self.input.channels.contains(&Channel::Logit) {
            return Err("a channel \"logit\", which only a refinement has".to_owned());
        }
        self.check_limits()?;
        self.refinement
            .as_ref()
            .map_or(Ok(()), |refinement| refinement.check(&self.input))
    }

    /// The files of weights: the network's, then its refinement's.
    pub(super) fn all_weights(&self) -> Vec<&Weights> {
        let refinement = self.refinement.iter().map(|r| &r.weights);
        std::iter::once(&self.weights).chain(refinement).collect()
    }
}

impl Weights {
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let file = &self.file;
        if file.components().count() != 1 || file.file_name() != Some(file.as_os_str()) {
            return Err("weights.file must be a file name without folders".to_owned());
        }
        Ok(())
    }

    /// Reads the file in the card's folder, compares it with its digest, and sees that it holds all.
    ///
    /// # Errors
    /// Exit 69 when it is missing, another one, or keeps values in further files.
    pub fn read(&self, folder: &Path) -> Result<Vec<u8>> {
        let path = folder.join(&self.file);
        let origin = path.display().to_string();
        let weights = crate::file::read_at_most(&path, LARGEST_WEIGHTS)
            .map_err(|e| Error::Unavailable(format!("{origin}: cannot be read: {e}")))?;
        self.compare(&weights, &origin)?;
        super::onnx::check_self_contained(&weights)
            .map_err(|why| Error::Unavailable(format!("{origin}: {why}")))?;
        Ok(weights)
    }

    /// Compares weights with the digest that the card states.
    ///
    /// # Errors
    /// Exit 69 when they differ.
    fn compare(&self, weights: &[u8], origin: &str) -> Result<()> {
        let found = crate::file::sha256_of_bytes(weights);
        if found == self.sha256.to_lowercase() {
            return Ok(());
        }
        Err(Error::Unavailable(format!(
            "{origin}: its sha256 is {found}, but the card says {}; the weights are damaged or \
             belong to another card",
            self.sha256
        )))
    }
}

/// Most bytes of weights: Protocol Buffers hold no more.
const LARGEST_WEIGHTS: u64 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::super::folder::AnyCard;
    use super::*;

    const CARD: &str = include_str!("../../tests/data/models/foreground/card.json");

    fn refused(change: impl Fn(&mut serde_json::Value)) -> String {
        let mut card: serde_json::Value = serde_json::from_str(CARD).unwrap();
        change(&mut card);
        let error = AnyCard::parse(card.to_string().as_bytes(), "card").unwrap_err();
        assert_eq!(error.exit_code(), 69);
        error.to_string()
    }

    #[test]
    fn a_card_of_another_layout_is_refused() {
        assert!(refused(|card| card["schema"] = "card/2".into()).contains("card/1"));
    }

    #[test]
    fn where_no_cell_is_sure_less_makes_an_area() {
        let snap = serde_json::json!({
            "probability": 0.1, "coverage": 0.5, "constant_share": 0.3,
            "mixed_radius_mm": 3.0, "minimum_piece_ml": 0.5,
        });
        let area: Area = serde_json::from_value(serde_json::json!({
            "altered_threshold": 0.0, "mask_threshold": 0.0, "minimum_ml": 1.0, "snap": snap,
        }))
        .unwrap();
        assert!(area.threshold(&[-3.0, 20.0]).abs() < 1e-5);
        // Half of 0.2 is 0.1.
        let (fifth, tenth) = (0.25_f32.ln(), (1.0_f32 / 9.0).ln());
        assert!((area.threshold(&[-3.0, fifth]) - tenth).abs() < 1e-5);
        // Half of next to nothing lies below it, half of nothing is the card's.
        let faint = area.threshold(&[-120.0]);
        assert!(faint < -120.0 && faint > -121.0, "{faint}");
        assert_eq!(area.threshold(&[]), 0.0);
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(refused(|card| card["input"]["flip"] = true.into()).contains("flip"));
    }

    #[test]
    fn weights_outside_the_cards_folder_are_refused() {
        for file in ["../model.onnx", "/model.onnx", "a/b.onnx", ".."] {
            let message = refused(|card| card["weights"]["file"] = file.into());
            assert!(message.contains("without folders"), "{file}: {message}");
        }
    }

    #[test]
    fn an_absurd_grid_is_refused() {
        refused(|card| card["input"]["cell_mm"] = 0.001.into());
        refused(|card| card["input"]["margin_cells"] = 100_000.into());
        refused(|card| card["input"]["multiple_of"] = 0.into());
        refused(|card| card["input"]["channels"] = vec!["flat"; 17].into());
        refused(|card| card["boundary"]["smoothing_mm"] = 1e9.into());
        refused(|card| card["boundary"]["smoothing_mm"] = (-1).into());
        refused(|card| card["boundary"]["closing_mm"] = 1e9.into());
        refused(|card| card["boundary"]["closing_mm"] = (-1).into());
        refused(|card| card["boundary"]["temperature"] = 0.into());
    }

    fn with_abrupt(run_mm: f64) -> impl Fn(&mut serde_json::Value) {
        move |card| {
            card["input"]["channels"] = vec!["flat", "abrupt"].into();
            card["input"]["abrupt"] = serde_json::json!(
                {"run_mm": run_mm, "reach_mm": 5.0, "below_mm": 3.0, "most": 1.5, "prior": 0.5}
            );
        }
    }

    fn with_air_edge(name: &'static str, value: f64) -> impl Fn(&mut serde_json::Value) {
        move |card| {
            card["input"]["channels"] = vec!["flat", "air-edge"].into();
            card["input"]["air_edge"] = serde_json::json!(
                {"run_mm": 3.0, "reach_mm": 5.0, "below_mm": 3.0, "share": 0.2,
                 "tissue_least": 0.08, "most": 1.5, "prior": 0.5}
            );
            card["input"]["air_edge"][name] = value.into();
        }
    }

    #[test]
    fn a_channel_without_its_rule_is_refused() {
        for (channel, rule) in [("abrupt", "input.abrupt"), ("air-edge", "input.air_edge")] {
            let message = refused(|card| card["input"]["channels"] = vec![channel].into());
            assert!(message.contains(rule), "{message}");
        }
        assert!(refused(with_abrupt(-1.0)).contains("input.abrupt.run_mm"));
        assert!(refused(with_air_edge("run_mm", -1.0)).contains("input.air_edge.run_mm"));
        // Without a prior a cell that has no ends is nothing over nothing.
        assert!(refused(with_air_edge("prior", 0.0)).contains("input.air_edge.prior"));
        assert!(refused(with_air_edge("share", 1.5)).contains("input.air_edge.share"));
    }

    #[test]
    fn a_further_channel_is_no_other_sight_but_another_rule_is() {
        let input = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut card: serde_json::Value = serde_json::from_str(CARD).unwrap();
            change(&mut card);
            serde_json::from_value::<Card>(card).unwrap().input
        };
        let (plain, three) = (input(&|_| ()), input(&with_abrupt(3.0)));
        assert!(plain.sees_as(&three) && three.sees_as(&plain));
        assert!(!three.sees_as(&input(&with_abrupt(4.0))));
        let edge = |share| input(&with_air_edge("share", share));
        assert!(plain.sees_as(&edge(0.2)) && three.sees_as(&edge(0.2)));
        assert!(!edge(0.2).sees_as(&edge(0.3)));
        assert!(!plain.sees_as(&input(&|card| card["input"]["mr_clip"] = 2.0.into())));
    }

    #[test]
    fn weights_that_are_not_the_cards_are_refused() {
        let card: Card = serde_json::from_str(CARD).unwrap();
        let error = card
            .weights
            .compare(b"other weights", "model.onnx")
            .unwrap_err();
        assert!(error.to_string().contains("sha256"));
    }
}
