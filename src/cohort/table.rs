//! The cohort as one table of tab-separated values, a line for each scan, worst first.

use std::collections::BTreeMap;
use std::path::Path;

use super::scan::Row;
use crate::error::Result;
use crate::file::{self, csv};

/// A column: its name, what it says (unit in brackets), and a scan's value; empty where there is none.
pub(super) type Column = (&'static str, &'static str, fn(&Row) -> String);

/// All columns but the number of copies, which no scan knows of itself.
pub(super) const COLUMNS: &[Column] = &[
    ("id", "what the scan is known by", |r| r.id.clone()),
    ("folder", "folder of its results", |r| r.folder.clone()),
    ("site", "where it was made", |r| text(r.site.as_ref())),
    ("region", "part of the body", |r| text(r.region.as_ref())),
    ("modality", "CT or MR", |r| r.modality.clone()),
    ("shape", "voxels along i, j, k", |r| {
        r.shape.map(|n| n.to_string()).join("x")
    }),
    ("spacing_mm", "spacing along i, j, k [mm]", |r| {
        r.spacing_mm.map(|mm| format!("{mm:.3}")).join("x")
    }),
    ("orientation", "which way i, j, k run", |r| {
        r.orientation.clone()
    }),
    ("voxels", "voxels of the scan", |r| r.voxels.to_string()),
    (
        "score",
        "distance of the worst measure beyond its threshold",
        |r| number(r.quality.score),
    ),
    ("flags", "names of flags that ask for a review", |r| {
        r.quality
            .review()
            .map(|f| f.name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }),
    ("notes", "names of what is worth knowing", |r| {
        let notes = r
            .quality
            .flags
            .iter()
            .filter(|f| f.level == super::Level::Note);
        notes.map(|f| f.name.as_str()).collect::<Vec<_>>().join(" ")
    }),
    (
        "foreground_share",
        "share of the scan that is foreground",
        |r| number(r.measures.foreground_share),
    ),
    ("foreground_ml", "volume of the foreground [ml]", |r| {
        number(r.measures.foreground_ml)
    }),
    (
        "saved_share",
        "voxels outside the foreground, of all",
        |r| number(r.saved_share),
    ),
    (
        "saved_by_cropping_share",
        "voxels outside the foreground's box, of all",
        |r| number(r.saved_by_cropping_share),
    ),
    ("altered", "whether altered voxels were found", |r| {
        r.altered.to_string()
    }),
    (
        "altered_probability",
        "probability that the scan was altered",
        |r| maybe(r.altered_probability),
    ),
    ("area_ml", "volume of the anonymization area [ml]", |r| {
        number(r.area_ml)
    }),
    ("pieces", "pieces of the foreground", |r| {
        r.measures.pieces.to_string()
    }),
    ("holes_ml", "holes of the foreground [ml]", |r| {
        number(r.measures.holes_ml)
    }),
    (
        "touched_borders",
        "sides of the volume that the foreground reaches",
        |r| r.measures.touched_borders.to_string(),
    ),
    (
        "edge_sharpness",
        "step in intensity at the edge [contrast]",
        |r| maybe(r.measures.edge_sharpness),
    ),
    (
        "edge_entropy",
        "entropy of the network at the edge [bit]",
        |r| maybe(r.measures.edge_entropy),
    ),
    (
        "doubtful_cells",
        "doubtful cells per cell of the edge",
        |r| maybe(r.measures.doubtful_cells),
    ),
    (
        "expected_dice",
        "Dice to be expected if the network's probabilities are right",
        |r| maybe(r.measures.expected_dice),
    ),
    (
        "network_agreement",
        "Dice with the network's own mask",
        |r| maybe(r.measures.network_agreement),
    ),
    (
        "self_agreement",
        "Dice with the masks of mirrored scans",
        |r| maybe(r.measures.self_agreement),
    ),
    (
        "altered_certainty",
        "certainty whether the scan was altered",
        |r| maybe(r.measures.altered_certainty),
    ),
    ("area_entropy", "entropy at the area's edge [bit]", |r| {
        maybe(r.measures.area_entropy)
    }),
    (
        "border_share",
        "share of the volume's sides that is body",
        |r| number(r.measures.border_share),
    ),
    (
        "padding_share",
        "share of the scan that holds one value",
        |r| number(r.measures.padding_share),
    ),
    ("dice", "Dice with the reference", |r| {
        maybe(r.agreement.as_ref().map(|a| a.dice))
    }),
    (
        "hd95_mm",
        "95th percentile of the distance to the reference [mm]",
        |r| maybe(r.agreement.as_ref().and_then(|a| a.hd95_mm)),
    ),
    ("nsd", "surface Dice with the reference", |r| {
        maybe(r.agreement.as_ref().and_then(|a| a.nsd))
    }),
    ("reference_ml", "volume of the reference [ml]", |r| {
        maybe(r.agreement.as_ref().map(|a| a.reference_volume_ml))
    }),
];

/// Writes the table.
pub(super) fn write(rows: &[Row], copies: &BTreeMap<String, usize>, path: &Path) -> Result<()> {
    file::write_whole(path, true, |writer| {
        let names = COLUMNS.iter().map(|(name, ..)| *name);
        csv::write_record(writer, '\t', names.chain(["copies"]))?;
        for row in rows {
            let values = COLUMNS.iter().map(|(_, _, value)| value(row));
            let copies = copies.get(&row.id).copied().unwrap_or(0);
            csv::write_record(writer, '\t', values.chain([copies.to_string()]))?;
        }
        Ok(())
    })
}

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

fn number(value: f64) -> String {
    // Six digits are more than any measure is worth.
    format!("{}", (value * 1e6).round() / 1e6)
}

fn maybe(value: Option<f64>) -> String {
    value.map(number).unwrap_or_default()
}
