//! The cohort as MultiQC content: a table of all scans and one of what was left out.
//!
//! # Source
//! MultiQC, «Custom content», JSON with `id`, `plot_type`, `headers` and `data`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Report;
use super::scan::Row;
use crate::error::{Error, Result};
use crate::file;

/// A column of the table: key, title, description, and a scan's value.
type Column = (&'static str, &'static str, &'static str, fn(&Row) -> Value);

const COLUMNS: &[Column] = &[
    (
        "score",
        "Score",
        "Distance of the worst measure beyond its threshold; above 0: look at it",
        |r| json!(r.quality.score),
    ),
    ("flags", "Flags", "Flags that ask for a review", |r| {
        json!(
            r.quality
                .review()
                .map(|f| f.name.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        )
    }),
    ("modality", "Modality", "CT or MR", |r| json!(r.modality)),
    (
        "foreground_share",
        "Foreground",
        "Share of the scan that is foreground",
        |r| json!(r.measures.foreground_share),
    ),
    (
        "foreground_ml",
        "Volume",
        "Volume of the foreground [ml]",
        |r| json!(r.measures.foreground_ml),
    ),
    (
        "saved_share",
        "Saved",
        "Voxels outside the foreground, of all",
        |r| json!(r.saved_share),
    ),
    (
        "altered",
        "Altered",
        "Whether altered voxels were found",
        |r| json!(r.altered),
    ),
    (
        "area_ml",
        "Area",
        "Volume of the anonymization area [ml]",
        |r| json!(r.area_ml),
    ),
    ("pieces", "Pieces", "Pieces of the foreground", |r| {
        json!(r.measures.pieces)
    }),
    (
        "edge_entropy",
        "Edge entropy",
        "Entropy of the network at the edge [bit]",
        |r| json!(r.measures.edge_entropy),
    ),
    ("dice", "Dice", "Dice with the reference", |r| {
        json!(r.agreement.as_ref().map(|a| a.dice))
    }),
];

/// Columns that are shares, shown from 0 to 1.
const SHARES: &[&str] = &["foreground_share", "saved_share", "edge_entropy", "dice"];

/// Writes the content; the name of the file is one that MultiQC looks for.
pub(super) fn write(rows: &[Row], report: &Report, path: &Path) -> Result<()> {
    let content = content(rows, report);
    let text = serde_json::to_string_pretty(&content).map_err(|e| Error::Bug(e.to_string()))?;
    file::write_whole(path, true, |writer| writeln!(writer, "{text}"))
}

fn content(rows: &[Row], report: &Report) -> Value {
    let totals = &report.totals;
    let headers: Map<String, Value> = COLUMNS
        .iter()
        .map(|(key, title, description, _)| {
            let mut header = json!({"title": title, "description": description});
            if SHARES.contains(key) {
                header["min"] = json!(0);
                header["max"] = json!(1);
                header["format"] = json!("{:,.3f}");
            }
            ((*key).to_owned(), header)
        })
        .collect();
    let data: Map<String, Value> = rows
        .iter()
        .map(|row| {
            let values = COLUMNS
                .iter()
                .map(|(key, .., value)| ((*key).to_owned(), value(row)));
            let known = values.filter(|(_, value)| !value.is_null());
            (row.id.clone(), Value::Object(known.collect()))
        })
        .collect();
    json!({
        "id": "voxmask",
        "section_name": "voxmask",
        "description": format!(
            "Foreground and anonymization area: {} of {} scans done, {} to be looked at, {} altered; \
             {:.1} % of all voxels lie outside the foreground.",
            totals.done, totals.scans, totals.flagged, totals.altered, 100.0 * totals.saved_share
        ),
        "plot_type": "table",
        "pconfig": {"id": "voxmask_table", "title": "voxmask: scans"},
        "headers": headers,
        "data": data,
    })
}
