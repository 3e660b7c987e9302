//! One scan of the data set: what belongs to it, whether it is sound, and what its reports say.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::identity::Identity;
use super::search::{Found, Results, StepReport};
use crate::error::{Error, Result};
use crate::volume::{self, Geometry, Mask};

/// A scan with its masks.
pub(super) struct Scan {
    pub(super) path: PathBuf,
    pub(super) sha256: String,
    pub(super) identity: Identity,
    pub(super) masks: Masks,
    pub(super) figures: Figures,
    /// Why it cannot be used, if it cannot.
    pub(super) failed: Option<String>,
}

/// Files of the masks that were found for a scan.
#[derive(Clone, Debug, Default)]
pub(super) struct Masks {
    pub(super) foreground: Option<PathBuf>,
    pub(super) area: Option<PathBuf>,
}

/// What reports say of a scan.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) modality: Option<String>,
    pub(super) foreground_voxels: Option<u64>,
    pub(super) foreground_share: Option<f64>,
    pub(super) foreground_pieces: Option<u64>,
    pub(super) altered: Option<bool>,
    pub(super) altered_probability: Option<f64>,
    pub(super) altered_ml: Option<f64>,
    pub(super) altered_share: Option<f64>,
    pub(super) patches: Option<u64>,
    pub(super) whole_scan_patches: Option<u64>,
    pub(super) version: Option<String>,
}

const FOREGROUND: &str = "segment-foreground";
const AREA: &str = "segment-anonymization-area";

impl Scan {
    /// Finds what belongs to a scan; what is missing or changed makes it a failed one.
    pub(super) fn gather(found: Found, identity: Identity, results: &Results) -> Self {
        let image = ("image", found.sha256.as_str());
        let reports = [FOREGROUND, AREA, "crop-patches"].map(|step| results.report(step, image));
        let mut scan = Self {
            masks: Masks::default(),
            figures: Figures::of(reports),
            failed: None,
            identity,
            path: found.path,
            sha256: found.sha256.clone(),
        };
        if reports[..2].iter().all(Option::is_none) {
            let why = format!("no report of {FOREGROUND} or {AREA} belongs to it");
            scan.failed = Some(why);
        }
        let mut written = |report: Option<&StepReport>, role| match results.written(report?, role) {
            Ok(path) => Some(path),
            Err(why) => {
                scan.failed = Some(why);
                None
            }
        };
        let foreground = written(reports[0], "foreground_mask");
        let area = written(reports[1], "anonymization_area");
        scan.masks = Masks { foreground, area };
        if scan.identity.modality.is_none() {
            scan.identity.modality = scan.figures.modality.clone();
        }
        scan
    }

    /// Reads the scan and its masks and checks that they can be trained from: every voxel a number,
    /// masks of 0 and 1 on the scan's grid.
    ///
    /// # Errors
    /// Those of reading, exit 65 for a mask on another grid.
    pub(super) fn read_masks(&self) -> Result<Read> {
        let geometry = volume::read_image(&self.path, None)?.geometry;
        let mask = |path: &PathBuf| read_mask(path, &geometry);
        let foreground = self.masks.foreground.as_ref().map(mask).transpose()?;
        let area = self.masks.area.as_ref().map(mask).transpose()?;
        Ok(Read { foreground, area })
    }
}

/// Masks of a scan, on its grid.
pub(super) struct Read {
    pub(super) foreground: Option<Mask>,
    pub(super) area: Option<Mask>,
}

fn read_mask(path: &Path, geometry: &Geometry) -> Result<Mask> {
    let mask = volume::read_mask(path)?;
    if !mask.geometry.same_grid(geometry) {
        return Err(Error::unusable(path, "does not lie on the image's grid"));
    }
    // The image's own words, so that both say the same place to the last bit.
    Ok(Mask {
        voxels: mask.voxels,
        geometry: geometry.clone(),
    })
}

impl Figures {
    fn of([foreground, area, patches]: [Option<&StepReport>; 3]) -> Self {
        let found = |report: Option<&StepReport>, pointer: &str| -> Option<Value> {
            let value = report?.result.pointer(pointer).cloned()?;
            (!value.is_null()).then_some(value)
        };
        let number = |report, pointer: &str| found(report, pointer).and_then(|v| v.as_f64());
        let count = |report, pointer: &str| found(report, pointer).and_then(|v| v.as_u64());
        let modality = found(foreground, "/modality").or_else(|| found(area, "/modality"));
        let version = foreground.or(area).map(|report| report.version.clone());
        Self {
            modality: modality.and_then(|v| Some(v.as_str()?.to_uppercase())),
            foreground_voxels: count(foreground, "/foreground/voxels"),
            foreground_share: number(foreground, "/foreground/share"),
            foreground_pieces: count(foreground, "/foreground/pieces"),
            altered: found(area, "/altered").and_then(|v| v.as_bool()),
            altered_probability: number(area, "/altered_probability"),
            altered_ml: number(area, "/anonymization_area/volume_ml"),
            altered_share: number(area, "/anonymization_area/share"),
            patches: count(patches, "/count"),
            whole_scan_patches: count(patches, "/whole_scan_count"),
            version,
        }
    }
}

/// What is wrong, without the path, which may hold a name.
pub(super) fn without_path(error: &Error) -> String {
    match error {
        Error::InputUnusable { why, .. } => why.clone(),
        Error::InputUnreadable { .. } => "cannot be read".to_owned(),
        other => other.to_string(),
    }
}
