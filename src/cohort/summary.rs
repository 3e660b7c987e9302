//! A cohort in numbers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::LeftOut;
use super::config::Config;
use super::scan::Row;

/// A cohort in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Totals {
    /// Files that were found.
    pub scans: usize,
    /// Scans that have their masks.
    pub done: usize,
    /// Files that are equal to another, and were worked on once.
    pub copies: usize,
    /// Scans that could not be used.
    pub left_out: usize,
    /// Scans in which altered voxels were found.
    pub altered: usize,
    /// Scans in which no anatomy was found.
    pub without_anatomy: usize,
    /// Scans that somebody should look at.
    pub flagged: usize,
    /// Voxels of the scans that are done.
    pub voxels: usize,
    /// Of those, voxels outside the foreground.
    pub saved_voxels: usize,
    /// Of all voxels, those outside the foreground; 0 without a scan.
    pub saved_share: f64,
    /// Hours that a training run spends less in each pass over the data, at
    /// `training_voxels_per_s`.
    pub saved_hours_per_pass: f64,
}

impl Totals {
    pub(super) fn of(
        rows: &[Row],
        left_out: &[LeftOut],
        copies: &BTreeMap<String, usize>,
        config: &Config,
    ) -> Self {
        let copies = copies.values().sum();
        let count = |is_it: fn(&Row) -> bool| rows.iter().filter(|row| is_it(row)).count();
        let voxels: usize = rows.iter().map(|row| row.voxels).sum();
        let body: usize = rows.iter().map(|row| row.foreground_voxels).sum();
        let saved_voxels = voxels - body;
        Self {
            scans: rows.len() + left_out.len() + copies,
            done: rows.len(),
            copies,
            left_out: left_out.len(),
            altered: count(|row| row.altered),
            without_anatomy: count(|row| row.foreground_voxels == 0),
            flagged: count(|row| row.quality.score > 0.0),
            voxels,
            saved_voxels,
            saved_share: saved_voxels as f64 / voxels.max(1) as f64,
            saved_hours_per_pass: saved_voxels as f64 / config.training_voxels_per_s / 3600.0,
        }
    }
}
