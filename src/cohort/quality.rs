//! «Does it look right?»: measures of a scan's masks, flags where one is out of bounds, and a score
//! that says which scan to look at first. No flag changes a mask.
//!
//! | flag | level | measure |
//! |---|---|---|
//! | `no-anatomy` | review | the foreground is empty |
//! | `small-foreground` | review | share of the scan |
//! | `many-pieces` | review | pieces of the foreground |
//! | `holes` | review | holes of the foreground [ml] |
//! | `volume` | review | the foreground is larger than the region, or smaller |
//! | `blurred-edge` | review | step in intensity at the edge, in units of the contrast |
//! | `unsure-edge` | review | entropy of the network at the edge [bit] |
//! | `unsure-inside` | review | doubtful cells away from the edge, per cell of the edge |
//! | `network-overruled` | review | Dice of the mask with what the network alone would have drawn |
//! | `unsteady` | review | Dice of the network's masks of mirrored scans |
//! | `altered-or-not` | review | how sure the network is whether the scan was altered |
//! | `unsure-area` | review | entropy at the anonymization area's edge [bit] |
//! | `cut-out` | note | share of the volume's sides that is body |
//! | `padding` | note | share of the scan that holds one value |
//! | `unit-values` | note | all values lie in [0, 1] |
//!
//! The score is the largest distance of a measure from its threshold, in units of the measure's
//! scale, positive beyond it: a scan is flagged for review exactly when its score is above 0.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::Config;

/// What can be measured of a scan and its masks; what could not be is `null`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Measures {
    /// Share of the scan that is foreground.
    pub foreground_share: f64,
    /// Volume of the foreground [ml].
    pub foreground_ml: f64,
    /// Pieces of the foreground.
    pub pieces: usize,
    /// Volume of the holes of the foreground [ml].
    pub holes_ml: f64,
    /// Sides of the volume that the foreground reaches.
    pub touched_borders: usize,
    /// Mean step in intensity at the foreground's edge, in units of the contrast.
    pub edge_sharpness: Option<f64>,
    /// Mean entropy of the network at the foreground's edge [bit].
    pub edge_entropy: Option<f64>,
    /// Doubtful cells away from the foreground's edge, per cell of the edge.
    pub doubtful_cells: Option<f64>,
    /// Dice of the network's foreground that is to be expected if its probabilities are right.
    pub expected_dice: Option<f64>,
    /// Dice of the foreground with what the network alone would have drawn; null where that is the
    /// foreground.
    pub network_agreement: Option<f64>,
    /// Least Dice of the network's mask with those of mirrored scans.
    pub self_agreement: Option<f64>,
    /// How sure the network is whether the scan was altered: 0 (a toss-up) to 1.
    pub altered_certainty: Option<f64>,
    /// Mean entropy of the network at the anonymization area's edge [bit].
    pub area_entropy: Option<f64>,
    /// Share of the volume's sides that is foreground.
    pub border_share: f64,
    /// Share of the scan that holds the commonest value of the volume's sides.
    pub padding_share: f64,
    /// Smallest and largest value.
    pub values: [f64; 2],
}

/// Something that stands out.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Flag {
    /// Name, kebab case.
    pub name: String,
    /// Whether somebody should look, or it is only worth knowing.
    pub level: Level,
    /// The measure.
    pub value: f64,
    /// What it was compared with.
    pub threshold: f64,
    /// The flag in a sentence.
    pub reason: String,
}

/// Whether somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Somebody should look.
    Review,
    /// Worth knowing; most such scans are fine.
    Note,
}

/// What stands out in a scan.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Quality {
    /// Largest distance of a measure beyond its threshold, in units of the measure's scale; above 0
    /// somebody should look.
    pub score: f64,
    /// What stands out.
    pub flags: Vec<Flag>,
}

/// What a region of the body can hold [ml], from a small child's to a large adult's, as cut by a
/// field of view.
const REGIONS: &[(&str, f64, f64)] = &[
    ("head", 300.0, 12_000.0),
    ("neck", 100.0, 15_000.0),
    ("chest", 300.0, 60_000.0),
    ("abdomen", 300.0, 80_000.0),
    ("pelvis", 300.0, 60_000.0),
    ("limb", 20.0, 40_000.0),
    ("whole-body", 1_000.0, 250_000.0),
];

/// A bound on a measure.
struct Bound<'a> {
    name: &'a str,
    what: &'a str,
    value: Option<f64>,
    threshold: f64,
    /// Beyond is above, else below.
    above: bool,
    /// Difference that counts as one in the score.
    scale: f64,
}

impl Bound<'_> {
    /// How far the measure lies beyond the threshold, in units of its scale.
    fn distance(&self) -> Option<f64> {
        let beyond = self.value? - self.threshold;
        Some(if self.above { beyond } else { -beyond } / self.scale)
    }

    fn flag(&self, level: Level) -> Option<Flag> {
        let value = self.value?;
        self.distance().filter(|distance| *distance > 0.0)?;
        let side = if self.above { "above" } else { "below" };
        let (what, threshold) = (self.what, self.threshold);
        Some(Flag {
            name: self.name.to_owned(),
            level,
            value,
            threshold,
            reason: format!("{}: {what} is {value:.4}, {side} {threshold}", self.name),
        })
    }
}

impl Quality {
    /// Compares measures with the thresholds of a configuration, and volume with what a region, if
    /// it is known, can hold.
    pub(super) fn of(measures: &Measures, region: Option<&str>, config: &Config) -> Self {
        let empty = measures.foreground_share == 0.0;
        let bounds = bounds(measures, region, config);
        // An empty mask has no edge to speak of: one flag says it all.
        let bounds: Vec<&Bound> = bounds
            .iter()
            .filter(|bound| !empty || bound.name == "altered-or-not")
            .collect();
        let nothing = Bound {
            name: "no-anatomy",
            what: "share of the scan that is foreground",
            value: empty.then_some(-1.0),
            threshold: 0.0,
            above: false,
            scale: 0.1,
        };
        let distances = bounds.iter().filter_map(|bound| bound.distance());
        let score = distances.chain(nothing.distance()).reduce(f64::max);
        let mut flags: Vec<Flag> = bounds
            .iter()
            .filter_map(|b| b.flag(Level::Review))
            .collect();
        flags.extend(empty.then(|| Flag {
            name: "no-anatomy".to_owned(),
            level: Level::Review,
            value: 0.0,
            threshold: 0.0,
            reason: "no-anatomy: no anatomy was found".to_owned(),
        }));
        flags.extend(
            notes(measures, config)
                .iter()
                .filter_map(|b| b.flag(Level::Note)),
        );
        Self {
            score: (score.unwrap_or(0.0) * 1e4).round() / 1e4,
            flags,
        }
    }

    /// Flags that ask somebody to look.
    pub fn review(&self) -> impl Iterator<Item = &Flag> {
        self.flags.iter().filter(|flag| flag.level == Level::Review)
    }
}

fn bounds<'a>(m: &Measures, region: Option<&str>, config: &Config) -> Vec<Bound<'a>> {
    let known = REGIONS.iter().find(|(name, ..)| Some(*name) == region);
    let (least_ml, most_ml) = known.map_or((0.0, config.max_volume_ml), |r| (r.1, r.2));
    let bound = |name, what, value, threshold, above, scale| Bound {
        name,
        what,
        value,
        threshold,
        above,
        scale,
    };
    let (below, above) = (false, true);
    vec![
        bound(
            "small-foreground",
            "share of the scan that is foreground",
            Some(m.foreground_share),
            config.min_foreground_share,
            below,
            0.02,
        ),
        bound(
            "many-pieces",
            "pieces of the foreground",
            Some(m.pieces as f64),
            config.max_pieces,
            above,
            5.0,
        ),
        bound(
            "holes",
            "volume of the foreground's holes [ml]",
            Some(m.holes_ml),
            config.max_holes_ml,
            above,
            1.0,
        ),
        bound(
            "volume",
            "volume of the foreground [ml]",
            Some(m.foreground_ml),
            most_ml,
            above,
            most_ml,
        ),
        bound(
            "volume",
            "volume of the foreground [ml]",
            Some(m.foreground_ml),
            least_ml,
            below,
            least_ml.max(1.0),
        ),
        bound(
            "blurred-edge",
            "step in intensity at the edge [contrast]",
            m.edge_sharpness,
            config.min_edge_sharpness,
            below,
            0.1,
        ),
        bound(
            "unsure-edge",
            "entropy of the network at the edge [bit]",
            m.edge_entropy,
            config.max_edge_entropy,
            above,
            0.1,
        ),
        bound(
            "unsure-inside",
            "doubtful cells away from the edge, per cell of the edge",
            m.doubtful_cells,
            config.max_doubtful_cells,
            above,
            0.2,
        ),
        bound(
            "network-overruled",
            "Dice with the network's own mask",
            m.network_agreement,
            config.min_network_agreement,
            below,
            0.03,
        ),
        bound(
            "unsteady",
            "Dice with the masks of mirrored scans",
            m.self_agreement,
            config.min_self_agreement,
            below,
            0.03,
        ),
        bound(
            "altered-or-not",
            "certainty of the network whether the scan was altered",
            m.altered_certainty,
            config.min_altered_certainty,
            below,
            0.5,
        ),
        bound(
            "unsure-area",
            "entropy of the network at the area's edge [bit]",
            m.area_entropy,
            config.max_area_entropy,
            above,
            0.1,
        ),
    ]
}

fn notes<'a>(m: &Measures, config: &Config) -> Vec<Bound<'a>> {
    let [lowest, highest] = m.values;
    let unit = lowest >= 0.0 && highest <= 1.0 && highest > lowest;
    let bound = |name, what, value, threshold: f64| Bound {
        name,
        what,
        value,
        // «From this share on», unlike the flags.
        threshold,
        above: true,
        scale: 1.0,
    };
    vec![
        bound(
            "cut-out",
            "the scan looks cut out of a body; share of its sides that is body",
            Some(m.border_share).filter(|_| m.foreground_share > 0.0),
            config.cut_out_share,
        ),
        bound(
            "padding",
            "the scan is padded, or its air was set to one value; share of it",
            Some(m.padding_share),
            config.padding_share,
        ),
        bound(
            "unit-values",
            "values seem to be scaled to [0, 1]; the largest",
            unit.then_some(highest),
            0.0,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Measures {
        Measures {
            foreground_share: 0.4,
            foreground_ml: 4000.0,
            pieces: 1,
            edge_sharpness: Some(0.5),
            edge_entropy: Some(0.3),
            doubtful_cells: Some(0.02),
            network_agreement: Some(0.99),
            altered_certainty: Some(0.98),
            values: [-1000.0, 2000.0],
            ..Measures::default()
        }
    }

    fn names(measures: &Measures, region: Option<&str>, config: &Config) -> Vec<String> {
        let quality = Quality::of(measures, region, config);
        assert_eq!(
            quality.score > 0.0,
            quality.review().count() > 0,
            "{quality:?}"
        );
        quality.flags.into_iter().map(|flag| flag.name).collect()
    }

    #[test]
    fn every_measure_out_of_bounds_raises_its_own_flag() {
        let config = Config::default();
        assert!(names(&sound(), None, &config).is_empty());
        let with = |change: fn(&mut Measures)| {
            let mut measures = sound();
            change(&mut measures);
            names(&measures, None, &config).join(" ")
        };
        assert_eq!(with(|m| m.foreground_share = 0.001), "small-foreground");
        assert_eq!(with(|m| m.pieces = 60), "many-pieces");
        assert_eq!(with(|m| m.holes_ml = 5.0), "holes");
        assert_eq!(with(|m| m.foreground_ml = 1e6), "volume");
        assert_eq!(with(|m| m.edge_sharpness = Some(0.0)), "blurred-edge");
        assert_eq!(with(|m| m.edge_entropy = Some(0.99)), "unsure-edge");
        assert_eq!(with(|m| m.doubtful_cells = Some(3.0)), "unsure-inside");
        assert_eq!(
            with(|m| m.network_agreement = Some(0.5)),
            "network-overruled"
        );
        assert_eq!(with(|m| m.self_agreement = Some(0.5)), "unsteady");
        assert_eq!(with(|m| m.altered_certainty = Some(0.0)), "altered-or-not");
        assert_eq!(with(|m| m.area_entropy = Some(1.0)), "unsure-area");
        assert_eq!(with(|m| m.border_share = 1.0), "cut-out");
        assert_eq!(with(|m| m.padding_share = 0.5), "padding");
        assert_eq!(with(|m| m.values = [0.0, 1.0]), "unit-values");
        assert_eq!(with(|m| m.foreground_share = 0.0), "no-anatomy");
    }

    #[test]
    fn a_region_says_how_much_it_can_hold() {
        let config = Config::default();
        assert!(names(&sound(), Some("head"), &config).is_empty());
        let mut measures = sound();
        measures.foreground_ml = 30_000.0;
        assert_eq!(names(&measures, Some("head"), &config), ["volume"]);
        assert!(names(&measures, Some("chest"), &config).is_empty());
        measures.foreground_ml = 5.0;
        assert_eq!(names(&measures, Some("limb"), &config), ["volume"]);
    }

    #[test]
    fn the_score_is_the_worst_distance_and_orders_scans_without_a_flag_too() {
        let config = Config {
            max_edge_entropy: 0.75,
            ..Config::default()
        };
        let score = |entropy| {
            let measures = Measures {
                edge_entropy: Some(entropy),
                ..sound()
            };
            Quality::of(&measures, None, &config).score
        };
        assert!((score(0.95) - 2.0).abs() < 1e-9);
        assert!(score(0.74) < 0.0 && score(0.74) > score(0.73));
        let threshold = Config {
            max_edge_entropy: 0.9,
            ..Config::default()
        };
        let measures = Measures {
            edge_entropy: Some(0.95),
            ..sound()
        };
        let quality = Quality::of(&measures, None, &threshold);
        assert!((quality.score - 0.5).abs() < 1e-9);
        assert!(quality.flags[0].reason.contains("0.9500, above 0.9"));
    }
}
