//! The whole chain over many scans in one process: `voxmask-prepare`.
//!
//! In: a folder of scans, a BIDS tree, or a table. Out: a folder for each scan with its masks, their
//! reports, a picture and what can be said about their quality; and for all of them a page to look
//! at, a table, MultiQC content and a ledger.
//!
//! Every scan is read once and each network is loaded once for each scan that is worked on at the
//! same time. A scan's folder appears whole or not at all, and says by digest and configuration what
//! it was made from: that is what `--resume` goes by. A scan that cannot be used is reported and
//! left out.
//!
//! No file name and no path reaches an output or the log: a scan is known by the first digits of its
//! digest, or, with `--naming subject`, by the labels of a BIDS tree or of the table.

mod config;
mod found;
mod memory;
mod multiqc;
mod networks;
mod page;
mod quality;
mod run;
mod scan;
mod site;
mod sources;
mod summary;
mod table;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::step::{Context, FileArgument, FileKind, Step};
pub use config::{Config, Naming, PatchSettings, Switch};
pub use quality::{Flag, Level, Quality};
pub use scan::{Row, ScanReport};
pub use site::SiteFigures;
pub use summary::Totals;

/// The step.
pub struct Prepare;

/// What was done.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The cohort in numbers.
    pub totals: Totals,
    /// Scans that could not be used.
    pub left_out: Vec<LeftOut>,
    /// Scans that somebody should look at, the most doubtful first.
    pub review: Vec<Review>,
    /// Per site, how well masks fit the references, if there are any.
    pub sites: Vec<SiteFigures>,
}

/// A scan that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct LeftOut {
    /// What the scan is known by.
    pub id: String,
    /// The exit code that the executable for a single scan would have had.
    pub exit_code: u8,
    /// What is wrong with it.
    pub why: String,
}

/// A scan that somebody should look at.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Review {
    /// What the scan is known by.
    pub id: String,
    /// How far its worst measure lies beyond its threshold.
    pub score: f64,
    /// Names of its flags.
    pub flags: Vec<String>,
    /// Its flags in sentences.
    pub reasons: Vec<String>,
}

impl Step for Prepare {
    const NAME: &'static str = "prepare";
    const ABOUT: &'static str =
        "Find foreground and anonymization area of many scans, and show which to look at";
    const COHORT: bool = true;
    type Config = Config;
    type Report = Report;

    fn files(config: &Config) -> Vec<FileArgument<'_>> {
        use FileKind::{Input, InputFolder, Output, OutputFolder};
        let optional = FileArgument::optional;
        let (input, table) = (config.input.as_deref(), config.table.as_deref());
        let references = config.references.as_deref();
        let foreground = config.foreground_model.as_deref();
        let area = config.area_model.as_deref();
        vec![
            optional("input", "images", InputFolder, input),
            optional("table", "table", Input, table),
            optional("references", "references", InputFolder, references),
            optional("foreground_model", "model", InputFolder, foreground),
            optional("area_model", "model", InputFolder, area),
            FileArgument::required("output", "cohort", OutputFolder, &config.output),
            optional("key", "key", Output, config.key.as_deref()),
        ]
    }

    fn validate(config: &Config) -> Result<()> {
        config.validate()
    }

    fn run(config: &Config, context: &Context) -> Result<Report> {
        run::cohort(config, context)
    }

    fn missed(config: &Config, report: &Report) -> Vec<String> {
        if config.strict == Switch::Off {
            return Vec::new();
        }
        let flagged = report.review.iter();
        flagged
            .flat_map(|scan| scan.reasons.iter().map(|why| format!("{}: {why}", scan.id)))
            .collect()
    }

    fn left_out(report: &Report) -> Option<Error> {
        let count = report.left_out.len();
        let code = report.left_out.iter().map(|scan| scan.exit_code).min()?;
        let names: Vec<&str> = report.left_out.iter().map(|s| s.id.as_str()).collect();
        let text = format!(
            "{count} of {} scans could not be used: {}; the rest is done",
            report.totals.scans,
            names.join(", ")
        );
        Some(match code {
            66 => Error::Unreadable(text),
            75 => Error::TryAgain(text),
            _ => Error::Unusable(text),
        })
    }
}
