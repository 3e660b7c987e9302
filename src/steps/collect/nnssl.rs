//! The layout of OpenMind, and the `pretrain_data.json` that nnssl reads.
//!
//! Both count the other way round than we do: of `fb_mask` 1 is background, of `deface_mask` 1 is
//! altered. nnssl draws patches round voxels whose anatomy mask is not 1, and takes its loss where
//! neither mask is 1.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::layout::{Places, write_json};
use super::scan::Scan;
use super::search::name_of;
use crate::error::{Error, Result};
use crate::file;

/// In which field of `pretrain_data.json` each mask is named.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NnsslFields {
    /// Each in its own.
    AsNamed,
    /// Of a scan with both masks, each in the field of the other: for a preprocessing that swaps them
    /// when it stores them, as that of nnssl at commit 7044864 does.
    Exchanged,
}

/// Folder of the scans.
const TREE: &str = "OpenMind";
/// What nnssl calls the session of a scan that has none.
const NO_SESSION: &str = "ses-DEFAULT";

/// True for the names that are written here.
pub(super) fn is_ours(name: &str) -> bool {
    [TREE, "pretrain_data.json", "openneuro_metadata.csv"].contains(&name)
}

/// Number of a data set, from the folder's name `DatasetNNN_Name`.
///
/// # Errors
/// Exit 2 for another name.
pub(super) fn collection_index(folder: &Path) -> Result<u64> {
    let name = name_of(folder);
    let number = name.strip_prefix("Dataset").and_then(|n| n.split_once('_'));
    let number = number.filter(|(digits, rest)| {
        digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()) && !rest.is_empty()
    });
    let number = number.and_then(|(digits, _)| digits.parse().ok());
    number.ok_or_else(|| {
        Error::Config(format!(
            "{}: nnssl finds data sets by names such as Dataset901_Heads; choose such an --output",
            folder.display()
        ))
    })
}

/// Where the files of a scan lie below the data set's folder.
pub(super) fn places(scan: &Scan) -> Places {
    let identity = &scan.identity;
    let mut folder = format!("{TREE}/{}/sub-{}", identity.dataset, identity.subject);
    if let Some(session) = &identity.session {
        folder = format!("{folder}/ses-{session}");
    }
    let stem = format!("{folder}/anat/{}", identity.stem);
    Places {
        image: Some(format!("{stem}.nii.gz")),
        foreground: format!("{stem}__Data/fb_mask.nii.gz"),
        area: format!("{stem}__Data/deface_mask.nii.gz"),
    }
}

/// Writes both lists of the scans.
pub(super) fn write_lists(
    scans: &[&Scan],
    (folder, output, fields): (&Path, &Path, NnsslFields),
) -> Result<()> {
    let name = name_of(output);
    let mut collection = json!({
        "collection_index": collection_index(output)?,
        "collection_name": name,
        "datasets": {},
    });
    for scan in scans {
        add(&mut collection["datasets"], scan, (name.as_str(), fields));
    }
    write_json(&folder.join("pretrain_data.json"), &collection)?;
    write_metadata(scans, folder)
}

/// Adds a scan to the data sets, and what it needs above it.
fn add(datasets: &mut Value, scan: &Scan, (name, fields): (&str, NnsslFields)) {
    let identity = &scan.identity;
    let subject = format!("sub-{}", identity.subject);
    let session = identity.session.as_ref();
    let session = session.map_or_else(|| NO_SESSION.to_owned(), |s| format!("ses-{s}"));
    let dataset = datasets[&identity.dataset].take();
    let mut dataset = or_new(dataset, || {
        json!({
            "dataset_index": identity.dataset,
            "name": null,
            "dataset_info": {},
            "subjects": {},
        })
    });
    let mut one = or_new(
        dataset["subjects"][&subject].take(),
        || json!({"subject_id": subject, "subject_info": {}, "sessions": {}}),
    );
    let mut visit = or_new(
        one["sessions"][&session].take(),
        || json!({"session_id": session, "session_info": null, "images": []}),
    );
    if let Some(images) = visit["images"].as_array_mut() {
        images.push(image(scan, name, fields));
    }
    one["sessions"][&session] = visit;
    dataset["subjects"][&subject] = one;
    datasets[&identity.dataset] = dataset;
}

fn or_new(value: Value, new: impl FnOnce() -> Value) -> Value {
    if value.is_null() { new() } else { value }
}

fn image(scan: &Scan, name: &str, fields: NnsslFields) -> Value {
    let places = places(scan);
    let path = |place: &str| Value::from(format!("$nnssl_raw/{name}/{place}"));
    let mut anatomy = scan
        .masks
        .foreground
        .as_ref()
        .map(|_| path(&places.foreground));
    let mut altered = scan.masks.area.as_ref().map(|_| path(&places.area));
    // With one mask alone nothing is swapped.
    if fields == NnsslFields::Exchanged && anatomy.is_some() && altered.is_some() {
        std::mem::swap(&mut anatomy, &mut altered);
    }
    let masks = (anatomy.is_some() || altered.is_some())
        .then(|| json!({"anatomy_mask": anatomy, "anonymization_mask": altered}));
    json!({
        "name": format!("{}.nii.gz", scan.identity.stem),
        "modality": modality(scan),
        "image_info": info(scan),
        "image_path": path(places.image.as_deref().unwrap_or_default()),
        "associated_masks": masks,
    })
}

fn modality(scan: &Scan) -> &str {
    scan.identity.modality.as_deref().unwrap_or("unknown")
}

/// What is known of a scan's masks; extra keys are allowed here alone.
fn info(scan: &Scan) -> Map<String, Value> {
    let figures = &scan.figures;
    let mut info = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            info.insert(key.to_owned(), value);
        }
    };
    set("sha256", Some(scan.sha256.clone().into()));
    set(
        "foreground_share",
        figures.foreground_share.map(Value::from),
    );
    set("altered_share", figures.altered_share.map(Value::from));
    set(
        "altered_probability",
        figures.altered_probability.map(Value::from),
    );
    set("voxmask_version", figures.version.clone().map(Value::from));
    info
}

/// The table of OpenMind, as much of it as is known; paths start below the folder of scans.
fn write_metadata(scans: &[&Scan], folder: &Path) -> Result<()> {
    let mut table = "unique_id,image_path,modality,anon_mask_path,anat_mask_path\n".to_owned();
    for scan in scans {
        let identity = &scan.identity;
        let places = places(scan);
        let below = |place: &str| place.trim_start_matches(TREE).trim_matches('/').to_owned();
        let mask = |there: bool, place: &str| if there { below(place) } else { String::new() };
        let row = [
            format!("{}_{}", identity.dataset, identity.stem),
            below(places.image.as_deref().unwrap_or_default()),
            modality(scan).to_owned(),
            mask(scan.masks.area.is_some(), &places.area),
            mask(scan.masks.foreground.is_some(), &places.foreground),
        ];
        // Labels are letters, digits and hyphens: nothing needs quotes.
        table += &format!("{}\n", row.join(","));
    }
    let path = folder.join("openneuro_metadata.csv");
    file::write_whole(&path, false, |writer| writer.write_all(table.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_set_is_known_by_its_number() {
        let index = |name: &str| collection_index(Path::new(name)).ok();
        assert_eq!(index("raw/Dataset901_Heads"), Some(901));
        assert_eq!(index("Dataset007_a_b"), Some(7));
        for wrong in [
            "Dataset1_A",
            "Dataset9011_A",
            "Dataset901_",
            "heads",
            "Dataset9a1_A",
        ] {
            assert_eq!(index(wrong), None, "{wrong}");
        }
    }
}
