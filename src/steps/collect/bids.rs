//! Masks as derivatives in the layout of BIDS; the scans stay in the data set they come from.

use std::path::Path;

use serde_json::{Value, json};

use super::cohort;
use super::layout::{Places, write_json};
use super::scan::Scan;
use crate::error::Result;
use crate::file;

/// Version of the standard that is kept to.
const BIDS_VERSION: &str = "1.10.0";

/// File that tells validators what is none of BIDS's.
const IGNORED: &str = ".bidsignore";

/// True for the names that are written here.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with("sub-") || [IGNORED, "dataset_description.json", "README"].contains(&name)
}

/// Where the masks of a scan lie below the data set's folder: named after the scan with its suffix as
/// part of the description, so that two scans of a session do not share a name.
pub(super) fn places(scan: &Scan, shares_name: bool) -> Places {
    let identity = &scan.identity;
    let mut folder = format!("sub-{}", identity.subject);
    if let Some(session) = &identity.session {
        folder = format!("{folder}/ses-{session}");
    }
    let entities = entities(scan);
    let suffix = identity.modality.as_deref().filter(|_| shares_name);
    let mask = |what: &str| {
        let suffix = suffix.unwrap_or_default();
        format!("{folder}/anat/{entities}_desc-{what}{suffix}_mask.nii.gz")
    };
    Places {
        image: None,
        foreground: mask("foreground"),
        area: mask("altered"),
    }
}

/// A scan's stem without its suffix.
pub(super) fn entities(scan: &Scan) -> String {
    let identity = &scan.identity;
    let stem = identity.stem.as_str();
    let last = stem
        .rsplit_once('_')
        .filter(|(_, last)| !last.contains('-'));
    last.map_or(stem, |(entities, _)| entities).to_owned()
}

/// Describes the data set, and every mask in a file beside it.
pub(super) fn write_lists(scans: &[(&Scan, Places)], folder: &Path) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let generated_by = json!([{
        "Name": "voxmask",
        "Version": version,
        "Description": "Foreground and anonymization area of CT and MR",
    }]);
    let description = json!({
        "Name": "Foreground and anonymization area",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": generated_by,
    });
    write_json(&folder.join("dataset_description.json"), &description)?;
    let text = "Masks on the grids of the scans that they were found in: desc-foreground, 1 = \
        anatomy; desc-altered, 1 = altered by a de-identification tool. cohort.tsv lists every scan, \
        those without masks too, and why.\n";
    file::write_whole(&folder.join("README"), false, |w| {
        w.write_all(text.as_bytes())
    })?;
    let ignored = format!("{}\n", cohort::NAME);
    file::write_whole(&folder.join(IGNORED), false, |w| {
        w.write_all(ignored.as_bytes())
    })?;
    for (scan, places) in scans {
        let masks = [
            (
                &places.foreground,
                scan.masks.foreground.is_some(),
                "anatomy",
            ),
            (
                &places.area,
                scan.masks.area.is_some(),
                "altered by a de-identification tool",
            ),
        ];
        for (place, _, meaning) in masks.iter().filter(|mask| mask.1) {
            let path = folder.join(place.replace(".nii.gz", ".json"));
            write_json(&path, &sidecar(scan, meaning))?;
        }
    }
    Ok(())
}

fn sidecar(scan: &Scan, meaning: &str) -> Value {
    let mut sidecar = json!({
        "Type": "ROI",
        "Description": format!("1 = {meaning}, 0 = not"),
        "SourceSHA256": scan.sha256,
        "VoxmaskVersion": scan.figures.version,
    });
    if let Some(source) = bids_path(scan) {
        sidecar["RawSources"] = json!([source]);
    }
    sidecar
}

/// The scan's place below its data set, if its own name says it.
fn bids_path(scan: &Scan) -> Option<String> {
    let identity = &scan.identity;
    let name = scan.path.file_name()?.to_str()?;
    identity.is_bids.then(|| {
        let session = identity.session.as_ref();
        let session = session.map_or_else(String::new, |s| format!("ses-{s}/"));
        format!("sub-{}/{session}anat/{name}", identity.subject)
    })
}
