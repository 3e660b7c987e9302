//! The table of all scans, of those that failed too.

use std::path::Path;

use super::scan::Scan;
use crate::error::Result;
use crate::file;

/// File name of the table.
pub(super) const NAME: &str = "cohort.tsv";
/// Stands for no value, as in BIDS.
const NONE: &str = "n/a";

const COLUMNS: [&str; 18] = [
    "dataset",
    "subject",
    "session",
    "modality",
    "name",
    "sha256",
    "status",
    "why",
    "foreground_voxels",
    "foreground_share",
    "foreground_pieces",
    "altered",
    "altered_probability",
    "altered_ml",
    "altered_share",
    "patches",
    "whole_scan_patches",
    "voxmask_version",
];

/// Writes the table: a row for each scan.
pub(super) fn write(scans: &[Scan], folder: &Path) -> Result<()> {
    let mut table = format!("{}\n", COLUMNS.join("\t"));
    for scan in scans {
        table += &format!("{}\n", row(scan).join("\t"));
    }
    file::write_whole(&folder.join(NAME), false, |writer| {
        writer.write_all(table.as_bytes())
    })
}

fn row(scan: &Scan) -> [String; COLUMNS.len()] {
    let (identity, figures) = (&scan.identity, &scan.figures);
    let status = if scan.failed.is_some() {
        "failed"
    } else {
        "done"
    };
    [
        identity.dataset.clone(),
        format!("sub-{}", identity.subject),
        shown(identity.session.as_ref().map(|s| format!("ses-{s}"))),
        shown(identity.modality.as_ref()),
        identity.stem.clone(),
        scan.sha256.clone(),
        status.to_owned(),
        shown(scan.failed.as_ref()),
        shown(figures.foreground_voxels),
        shown(figures.foreground_share),
        shown(figures.foreground_pieces),
        shown(figures.altered),
        shown(figures.altered_probability),
        shown(figures.altered_ml),
        shown(figures.altered_share),
        shown(figures.patches),
        shown(figures.whole_scan_patches),
        shown(figures.version.as_ref()),
    ]
}

fn shown(value: Option<impl ToString>) -> String {
    let shown = value.map(|value| value.to_string().replace(['\t', '\n'], " "));
    shown.unwrap_or_else(|| NONE.to_owned())
}
