//! How well masks fit references, site by site: what a site looks at before it relies on them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::scan::{Agreement, Row};

/// Samples that the bootstrap draws.
const DRAWS: usize = 2000;

/// Half-width of the limits of agreement, in standard deviations.
///
/// # Source
/// J. M. Bland, D. G. Altman, «Statistical methods for assessing agreement between two methods of
/// clinical measurement», Lancet 1986, doi:10.1016/S0140-6736(86)90837-8.
const LIMITS: f64 = 1.96;

/// How well the foregrounds of a site fit their references.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SiteFigures {
    /// The site; `all` for all of them.
    pub site: String,
    /// Scans with a reference.
    pub scans: usize,
    /// Mean Dice.
    pub dice_mean: f64,
    /// Smallest Dice.
    pub dice_worst: f64,
    /// 95 % confidence interval of the mean Dice (percentiles of 2,000 bootstrap samples).
    pub dice_interval: [f64; 2],
    /// Mean surface Dice at the tolerance; null without a surface.
    pub nsd_mean: Option<f64>,
    /// Largest 95th percentile of the surface distance [mm]; null without a surface.
    pub hd95_worst_mm: Option<f64>,
    /// Mean difference of the volumes, mask less reference [ml].
    pub volume_bias_ml: f64,
    /// Limits of agreement of the volumes: mean difference ± 1.96 standard deviations [ml]; null
    /// for fewer than two scans.
    pub volume_limits_ml: Option<[f64; 2]>,
    /// Mean Dice on the network's card, on subjects that it was not trained on; null if it states
    /// none.
    pub card_dice_mean: Option<f64>,
    /// Whether the card's figure lies above the interval: masks are worse here than they should be.
    pub below_card: bool,
}

/// Figures of every site that has references, then of all together, if there are several.
pub(super) fn figures(rows: &[Row], evaluation: &Value) -> Vec<SiteFigures> {
    let mut sites: BTreeMap<String, Vec<&Agreement>> = BTreeMap::new();
    let mut all = Vec::new();
    for row in rows {
        if let Some(agreement) = &row.agreement {
            let site = row.site.clone().unwrap_or_else(|| "unnamed".to_owned());
            sites.entry(site).or_default().push(agreement);
            all.push(agreement);
        }
    }
    let card = card_dice(evaluation);
    let several = sites.len() > 1;
    let together = several.then(|| of("all", &all, card));
    let each = sites.iter().map(|(site, some)| of(site, some, card));
    each.chain(together).collect()
}

/// Mean Dice over all scans, as a card states it.
fn card_dice(evaluation: &Value) -> Option<f64> {
    let groups = evaluation.as_array()?.iter();
    let all = groups.into_iter().find(|group| group["group"] == "all")?;
    all["dice_mean"].as_f64()
}

fn of(site: &str, agreements: &[&Agreement], card: Option<f64>) -> SiteFigures {
    let mut dice: Vec<f64> = agreements.iter().map(|a| a.dice).collect();
    // Rows come in the order of their scores; sums should not depend on it.
    dice.sort_by(f64::total_cmp);
    let mut differences: Vec<f64> = agreements
        .iter()
        .map(|a| a.volume_ml - a.reference_volume_ml)
        .collect();
    differences.sort_by(f64::total_cmp);
    let mut nsd: Vec<f64> = agreements.iter().filter_map(|a| a.nsd).collect();
    nsd.sort_by(f64::total_cmp);
    let bias = mean(&differences).unwrap_or(0.0);
    let interval = bootstrap(&dice);
    SiteFigures {
        site: site.to_owned(),
        scans: agreements.len(),
        dice_mean: mean(&dice).unwrap_or(0.0),
        dice_worst: dice.first().copied().unwrap_or(0.0),
        dice_interval: interval,
        nsd_mean: mean(&nsd),
        hd95_worst_mm: agreements.iter().filter_map(|a| a.hd95_mm).reduce(f64::max),
        volume_bias_ml: bias,
        volume_limits_ml: deviation(&differences)
            .map(|deviation| [bias - LIMITS * deviation, bias + LIMITS * deviation]),
        card_dice_mean: card,
        below_card: card.is_some_and(|card| card > interval[1]),
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Standard deviation of a sample; `None` for fewer than two values.
fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// 2.5th and 97.5th percentile of the means of samples drawn with replacement; always the same ones.
fn bootstrap(values: &[f64]) -> [f64; 2] {
    let count = values.len() as u64;
    let mut state = 0_u64;
    let mut draw = || {
        // SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        values[((z ^ (z >> 31)) % count) as usize]
    };
    let mut means: Vec<f64> = (0..DRAWS)
        .map(|_| (0..count).map(|_| draw()).sum::<f64>() / count as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    [means[DRAWS / 40], means[DRAWS - 1 - DRAWS / 40]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreement(dice: f64, volume_ml: f64, reference_volume_ml: f64) -> Agreement {
        Agreement {
            dice,
            hd95_mm: Some(10.0 * (1.0 - dice)),
            nsd: Some(dice),
            volume_ml,
            reference_volume_ml,
        }
    }

    #[test]
    fn limits_of_agreement_are_worked_out_by_hand() {
        // Differences -10, 0, 10: mean 0, sample standard deviation 10.
        let some = [
            agreement(0.9, 90.0, 100.0),
            agreement(0.99, 100.0, 100.0),
            agreement(0.96, 110.0, 100.0),
        ];
        let figures = of("north", &some.iter().collect::<Vec<_>>(), Some(0.995));
        assert!((figures.dice_mean - 0.95).abs() < 1e-12);
        assert_eq!(figures.dice_worst, 0.9);
        assert_eq!(figures.volume_bias_ml, 0.0);
        let [low, high] = figures.volume_limits_ml.unwrap();
        assert!((low + 19.6).abs() < 1e-9 && (high - 19.6).abs() < 1e-9);
        assert!((figures.hd95_worst_mm.unwrap() - 1.0).abs() < 1e-9);
        assert!(figures.below_card);
    }

    #[test]
    fn the_interval_holds_the_mean_narrows_with_scans_and_is_repeated() {
        let values =
            |n: usize| -> Vec<f64> { (0..n).map(|i| if i % 2 == 0 { 0.9 } else { 1.0 }).collect() };
        let [low, high] = bootstrap(&values(10));
        assert!(low < 0.95 && 0.95 < high && low >= 0.9 && high <= 1.0);
        let [closer, nearer] = bootstrap(&values(1000));
        assert!(low < closer && nearer < high);
        assert_eq!(bootstrap(&values(10)), [low, high]);
        assert_eq!(bootstrap(&[0.5]), [0.5, 0.5]);
    }

    #[test]
    fn a_card_states_its_mean_under_all() {
        let card = serde_json::json!([{"group": "head", "dice_mean": 0.9},
                                      {"group": "all", "dice_mean": 0.99}]);
        assert_eq!(card_dice(&card), Some(0.99));
        assert_eq!(card_dice(&Value::Null), None);
    }
}
