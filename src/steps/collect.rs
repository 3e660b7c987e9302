//! Gathers the masks and reports of many scans into one data set to train from.
//!
//! In: a folder of scans and a folder of what the other steps wrote for them. Out: a folder in the
//! layout of nnssl and OpenMind, of a MONAI datalist or of BIDS derivatives, and `cohort.tsv`, which
//! lists every scan, those whose steps failed too. Scans, masks and reports find each other by their
//! digests; every scan and mask is read and checked on the way. Nothing is moved.

mod bids;
mod cohort;
mod identity;
mod layout;
mod nnssl;
mod place;
mod scan;
mod search;

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file;
use crate::ledger::{self, Verification};
use crate::step::{Context, FileArgument, FileKind, Step};
use identity::Table;
pub use layout::Layout;
pub use nnssl::NnsslFields;
pub use place::Files;
use scan::Scan;
use search::{Found, Results};

/// The step.
pub struct Collect;

/// Gather the masks and reports of many scans into one data set to train from.
#[derive(Clone, Debug, Args, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["input", "results", "output"]))]
pub struct Config {
    /// Folder of the scans (`.nii`, `.nii.gz`), with all folders below it.
    #[arg(long, value_name = "FOLDER")]
    pub input: PathBuf,
    /// Folder of masks and reports, with all folders below it; may be the same.
    #[arg(long, value_name = "FOLDER")]
    pub results: PathBuf,
    /// Folder to make and fill; for nnssl named like `Dataset901_Heads`.
    #[arg(long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Table with the column `image` (path below the folder of scans, or file name) and any of
    /// `subject`, `session`, `modality`, `dataset`, separated by tabs.
    #[arg(long, value_name = "FILE.tsv")]
    pub subjects: Option<PathBuf>,
    /// Ledger of `voxmask-prepare` that must hold: no line changed, no result missing or changed.
    #[arg(long, value_name = "FILE.jsonl")]
    pub verify: Option<PathBuf>,
    /// Layout of the data set.
    #[arg(long, value_enum)]
    pub layout: Layout,
    /// How scans get into the data set.
    #[arg(long, value_enum)]
    pub files: Files,
    /// In which field of `pretrain_data.json` each mask is named.
    #[arg(long, value_enum)]
    pub nnssl_fields: NnsslFields,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            input: PathBuf::new(),
            results: PathBuf::new(),
            output: PathBuf::new(),
            subjects: None,
            verify: None,
            layout: Layout::Nnssl,
            files: Files::Link,
            nnssl_fields: NnsslFields::AsNamed,
        }
    }
}

/// What was gathered.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Scans in the data set.
    pub count: usize,
    /// Of those, scans with a foreground mask.
    pub with_foreground: usize,
    /// Of those, scans with a mask of their anonymization area.
    pub with_anonymization_area: usize,
    /// Scans that are not in the data set.
    pub failed: Vec<Failed>,
    /// What the ledger's lines say, if one was checked.
    pub ledger: Option<Verification>,
}

/// A scan that is not in the data set.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Failed {
    /// What it is called in `cohort.tsv`.
    pub name: String,
    /// SHA-256 of the scan's file.
    pub sha256: String,
    /// What is missing or wrong.
    pub why: String,
}

impl Step for Collect {
    const NAME: &'static str = "collect";
    const ABOUT: &'static str =
        "Gather the masks and reports of many scans into one data set to train from";
    type Config = Config;
    type Report = Report;

    fn files(config: &Config) -> Vec<FileArgument<'_>> {
        use FileKind::{Input, InputFolder, OutputFolder};
        let subjects = config.subjects.as_deref();
        vec![
            FileArgument::required("input", "scans", InputFolder, &config.input),
            FileArgument::required("results", "results", InputFolder, &config.results),
            FileArgument::optional("subjects", "subjects", Input, subjects),
            FileArgument::optional("verify", "ledger", Input, config.verify.as_deref()),
            FileArgument::required("output", "data_set", OutputFolder, &config.output),
        ]
    }

    fn validate(config: &Config) -> Result<()> {
        match config.layout {
            Layout::Nnssl => nnssl::collection_index(&config.output).map(drop),
            Layout::Monai | Layout::Bids => Ok(()),
        }
    }

    fn run(config: &Config, context: &Context) -> Result<Report> {
        let ledger = config.verify.as_deref().map(|path| verify(path, config));
        let ledger = ledger.transpose()?;
        context.stage("searching");
        let mut scans = gather(config)?;
        context.stage("checking and writing");
        let fill = |folder: &Path| write(&mut scans, config, folder);
        file::folder::write_folder(&config.output, context.overwrite, Layout::is_ours, fill)?;
        Ok(report(&scans, ledger))
    }
}

/// Checks a ledger against the results.
///
/// # Errors
/// Exit 65 when a line was changed, or when a result that one speaks of is missing or was changed.
fn verify(ledger: &Path, config: &Config) -> Result<Verification> {
    let found = ledger::verify(&ledger::read(ledger)?, &config.results)?;
    let Some(first) = found.missing.first() else {
        return Ok(found);
    };
    let why = format!(
        "speaks of {} results that are missing or were changed; the first is the {} with SHA-256 {}",
        found.missing.len(),
        first.role,
        first.sha256
    );
    Err(Error::unusable(ledger, why))
}

/// Every scan with what belongs to it.
fn gather(config: &Config) -> Result<Vec<Scan>> {
    let table = config.subjects.as_deref().map(Table::read).transpose()?;
    let results = Results::search(&config.results)?;
    let found = search::scans(&config.input, &results)?;
    if found.is_empty() {
        return Err(Error::unusable(&config.input, "holds no scan"));
    }
    let below = |found: &Found| {
        let below = found.path.strip_prefix(&config.input);
        below.unwrap_or(&found.path).to_owned()
    };
    let paths: Vec<PathBuf> = found.iter().map(below).collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let identities = identity::identify(&paths, &table.unwrap_or_default())?;
    let scans = found.into_iter().zip(identities);
    Ok(scans
        .map(|(found, identity)| Scan::gather(found, identity, &results))
        .collect())
}

/// Reads, checks and writes one scan after the other, then the lists.
fn write(scans: &mut [Scan], config: &Config, folder: &Path) -> Result<()> {
    let places = config.layout.places(scans);
    for (scan, places) in scans.iter_mut().zip(&places) {
        if scan.failed.is_none() {
            match scan.read_masks() {
                Ok(read) => config
                    .layout
                    .write(scan, read, (places, folder, config.files))?,
                Err(error @ (Error::InputUnusable { .. } | Error::InputUnreadable { .. })) => {
                    scan.failed = Some(scan::without_path(&error));
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(why) = &scan.failed {
            tracing::warn!("{}: left out: {why}", scan.path.display());
        }
    }
    cohort::write(scans, folder)?;
    let written = scans.iter().zip(places);
    let written: Vec<_> = written.filter(|(scan, _)| scan.failed.is_none()).collect();
    if written.is_empty() {
        let why = "holds no scan with masks that can be used; see the warnings";
        return Err(Error::unusable(&config.input, why));
    }
    let lists = (folder, config.output.as_path(), config.nnssl_fields);
    config.layout.write_lists(written, lists)
}

fn report(scans: &[Scan], ledger: Option<Verification>) -> Report {
    let done = || scans.iter().filter(|scan| scan.failed.is_none());
    let failed = scans.iter().filter_map(|scan| {
        Some(Failed {
            name: scan.identity.stem.clone(),
            sha256: scan.sha256.clone(),
            why: scan.failed.clone()?,
        })
    });
    Report {
        count: done().count(),
        with_foreground: done().filter(|s| s.masks.foreground.is_some()).count(),
        with_anonymization_area: done().filter(|s| s.masks.area.is_some()).count(),
        failed: failed.collect(),
        ledger,
    }
}
