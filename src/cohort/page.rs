//! The cohort as one HTML file that needs no network and no server: a table to sort and filter,
//! charts, pictures to leaf through, and keys to accept or reject.
//!
//! The libraries are Tabulator and Chart.js, embedded in the file; `page/` holds the rest.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::config::Config;
use super::quality::Level;
use super::scan::{Row, SHEET};
use super::{Report, table};
use crate::error::{Error, Result};
use crate::file;
use crate::picture::{SHEET_COLUMNS, SHEET_TILE};

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const TABULATOR: &str = include_str!(concat!(env!("OUT_DIR"), "/tabulator.min.js"));
const TABULATOR_STYLE: &str = include_str!(concat!(env!("OUT_DIR"), "/tabulator.min.css"));
const CHART: &str = include_str!(concat!(env!("OUT_DIR"), "/chart.umd.min.js"));

/// Refuses to go on where the page's libraries are missing.
///
/// # Errors
/// Exit 69.
pub(super) fn check_libraries() -> Result<()> {
    if TABULATOR.is_empty() || TABULATOR_STYLE.is_empty() || CHART.is_empty() {
        let why = "this voxmask-prepare was built without the libraries of its page; run \
                   `make setup` in the source folder and build again";
        return Err(Error::Unavailable(why.to_owned()));
    }
    Ok(())
}

/// Writes the page; pictures come out of the scans' folders.
pub(super) fn write(rows: &[Row], report: &Report, config: &Config, path: &Path) -> Result<()> {
    let data = script_json(&data(rows, report, config))?;
    file::write_whole(path, true, |writer| {
        // The template is cut at its marks: nothing in the data can be taken for one.
        for part in TEMPLATE.split("<!--").flat_map(|part| part.split("-->")) {
            let text = match part {
                "style" => STYLE,
                "script" => SCRIPT,
                "tabulator" => TABULATOR,
                "tabulator-style" => TABULATOR_STYLE,
                "chart" => CHART,
                "data" => &data,
                "pictures" => {
                    for row in rows {
                        write_picture(writer, row, &config.output)?;
                    }
                    continue;
                }
                other => other,
            };
            writer.write_all(text.as_bytes())?;
        }
        Ok(())
    })
}

/// A scan's picture as text that is decoded only when it is shown.
fn write_picture(writer: &mut dyn std::io::Write, row: &Row, output: &Path) -> std::io::Result<()> {
    let bytes = std::fs::read(output.join(&row.folder).join(SHEET))?;
    let text = STANDARD.encode(bytes);
    writeln!(
        writer,
        "<script type=\"text/plain\" id=\"picture-{}\">{text}</script>",
        row.id
    )
}

fn data(rows: &[Row], report: &Report, config: &Config) -> Value {
    let scans = rows.iter().map(|row| {
        let flags = |level| {
            let chosen = row
                .quality
                .flags
                .iter()
                .filter(move |flag| flag.level == level);
            chosen
                .map(|f| json!({"name": f.name, "reason": f.reason}))
                .collect::<Vec<_>>()
        };
        json!({
            "id": row.id,
            "site": row.site,
            "modality": row.modality,
            "region": row.region,
            "shape": row.shape.map(|n| n.to_string()).join("×"),
            "spacing": row.spacing_mm.map(|mm| format!("{mm:.2}")).join("×"),
            "score": row.quality.score,
            "review": flags(Level::Review),
            "notes": flags(Level::Note),
            "remarks": row.remarks,
            "share": row.measures.foreground_share,
            "volume_ml": row.measures.foreground_ml,
            "saved": row.saved_share,
            "altered": row.altered,
            "altered_probability": row.altered_probability,
            "area_ml": row.area_ml,
            "edge_entropy": row.measures.edge_entropy,
            "edge_sharpness": row.measures.edge_sharpness,
            "expected_dice": row.measures.expected_dice,
            "network_agreement": row.measures.network_agreement,
            "dice": row.agreement.as_ref().map(|a| a.dice),
        })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "totals": report.totals,
        "training_voxels_per_s": config.training_voxels_per_s,
        "left_out": report.left_out,
        "sites": report.sites,
        "agreements": rows.iter().filter_map(|row| row.agreement.as_ref().map(|a| json!({
            "id": row.id,
            "site": row.site,
            "mean": (a.volume_ml + a.reference_volume_ml) / 2.0,
            "difference": a.volume_ml - a.reference_volume_ml,
        }))).collect::<Vec<_>>(),
        "columns": table::COLUMNS.iter().map(|(name, what, _)| json!([name, what])).collect::<Vec<_>>(),
        "sheet": {"columns": SHEET_COLUMNS, "tile": SHEET_TILE},
        "scans": scans.collect::<Vec<_>>(),
    })
}

/// JSON that may stand inside a script element.
fn script_json(value: &Value) -> Result<String> {
    let text = serde_json::to_string(value).map_err(|e| Error::Bug(e.to_string()))?;
    Ok(text.replace('<', "\\u003c"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_cannot_end_the_script_that_holds_it() {
        let text = script_json(&json!({"site": "</script><!-- x"})).unwrap();
        assert!(!text.contains('<'));
        let back: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back["site"], "</script><!-- x");
    }

    #[test]
    fn the_template_has_each_mark_once_and_names_no_address() {
        for mark in [
            "style",
            "script",
            "tabulator",
            "tabulator-style",
            "chart",
            "data",
            "pictures",
        ] {
            let mark = format!("<!--{mark}-->");
            assert_eq!(TEMPLATE.matches(&mark).count(), 1, "{mark}");
        }
        for text in [TEMPLATE, STYLE, SCRIPT] {
            assert!(!text.contains("http://") && !text.contains("https://"));
        }
    }
}
