//! Scans, and the reports and masks that belong to them, out of folders.
//!
//! Nothing is taken to belong together because of its name: a report belongs to the scan whose digest
//! it holds, and a mask to the report that holds the mask's digest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::file;
use crate::file::walk::files_below;

/// A report of a step, as much of it as is needed here.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct StepReport {
    pub(super) schema: String,
    pub(super) step: String,
    pub(super) version: String,
    pub(super) inputs: Vec<Digest>,
    pub(super) outputs: Vec<Digest>,
    pub(super) result: Value,
    run: Run,
}

/// A file that a report names.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Digest {
    pub(super) role: String,
    pub(super) name: String,
    pub(super) sha256: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Run {
    started: String,
}

impl StepReport {
    /// Digest of what was read or written in a role.
    fn digest_of(files: &[Digest], role: &str) -> Option<String> {
        let file = files.iter().find(|file| file.role == role)?;
        file.sha256.clone()
    }
}

/// Reports larger than this are none of ours [bytes].
const LARGEST_REPORT: u64 = 16 << 20;
/// Roles of volumes that steps write and that are no scans.
const DERIVED: [&str; 4] = [
    "foreground_mask",
    "anonymization_area",
    "foreground_probability",
    "anonymization_probability",
];

/// All reports and volumes below a folder of results.
pub(super) struct Results {
    reports: Vec<StepReport>,
    /// Volumes by file name.
    volumes: BTreeMap<String, Vec<PathBuf>>,
}

impl Results {
    /// Searches a folder and all below it.
    ///
    /// # Errors
    /// Exit 66 when a folder or a report cannot be read.
    pub(super) fn search(folder: &Path) -> Result<Self> {
        let mut results = Self {
            reports: Vec::new(),
            volumes: BTreeMap::new(),
        };
        for path in files(folder)? {
            let name = name_of(&path);
            if is_volume(&name) {
                results.volumes.entry(name).or_default().push(path);
            } else if name.ends_with(".json") {
                results.reports.extend(report(&path)?);
            }
        }
        Ok(results)
    }

    /// The report of the latest run of a step that read a file in a role.
    pub(super) fn report(&self, step: &str, (role, sha256): (&str, &str)) -> Option<&StepReport> {
        let read = |report: &&StepReport| {
            let digest = StepReport::digest_of(&report.inputs, role);
            report.step == step && digest.as_deref() == Some(sha256)
        };
        let reports = self.reports.iter().filter(read);
        // Of those of one second the last by path.
        reports.max_by(|a, b| a.run.started.cmp(&b.run.started))
    }

    /// The file that a report says was written in a role: with that name and that digest.
    ///
    /// # Errors
    /// A line that says why there is none.
    pub(super) fn written(
        &self,
        report: &StepReport,
        role: &str,
    ) -> std::result::Result<PathBuf, String> {
        let step = &report.step;
        let file = report.outputs.iter().find(|file| file.role == role);
        let file = file.ok_or_else(|| format!("the report of {step} names no {role}"))?;
        let named = self.volumes.get(&file.name).into_iter().flatten();
        let is_same = |path: &&PathBuf| {
            let digest = file::sha256(path).ok();
            digest.is_some() && digest == file.sha256
        };
        let mut same = named.filter(is_same);
        let found = same.next().cloned();
        found.ok_or_else(|| format!("the {role} that {step} wrote is missing or was changed"))
    }

    /// Digests of volumes that steps wrote and that are no scans.
    fn derived(&self) -> BTreeSet<&str> {
        let outputs = self.reports.iter().flat_map(|report| &report.outputs);
        let derived = outputs.filter(|file| DERIVED.contains(&file.role.as_str()));
        derived.filter_map(|file| file.sha256.as_deref()).collect()
    }
}

/// A scan and its digest.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) sha256: String,
}

/// The volumes below a folder that no step wrote as a mask, by path.
///
/// # Errors
/// Exit 66 when a folder or a volume cannot be read.
pub(super) fn scans(folder: &Path, results: &Results) -> Result<Vec<Found>> {
    let derived = results.derived();
    let mut scans = Vec::new();
    for path in files(folder)? {
        if is_volume(&name_of(&path)) {
            let sha256 = file::sha256(&path)?;
            if !derived.contains(sha256.as_str()) {
                scans.push(Found { path, sha256 });
            }
        }
    }
    Ok(scans)
}

/// File name without folders.
pub(super) fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn is_volume(name: &str) -> bool {
    name.ends_with(".nii") || name.ends_with(".nii.gz")
}

/// Files that can be read, without those of patches.
fn files(folder: &Path) -> Result<impl Iterator<Item = PathBuf>> {
    let found = files_below(folder, is_of_patches)?;
    Ok(found.into_iter().filter(|path| path.is_file()))
}

/// True for a folder of patches, whose images are no scans.
fn is_of_patches(held: &[PathBuf]) -> bool {
    held.iter().any(|path| name_of(path) == "index.jsonl")
}

/// The report that a JSON file holds, if it holds one.
fn report(path: &Path) -> Result<Option<StepReport>> {
    let unreadable = |e| Error::unreadable(path, e);
    if std::fs::metadata(path).map_err(unreadable)?.len() > LARGEST_REPORT {
        return Ok(None);
    }
    let text = std::fs::read(path).map_err(unreadable)?;
    let report: Option<StepReport> = serde_json::from_slice(&text).ok();
    let ours = |report: &StepReport| report.schema == format!("{}.report/1", report.step);
    Ok(report.filter(ours))
}
