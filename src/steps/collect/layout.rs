//! The layouts of data sets, and what is written for every scan in each.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::nnssl::NnsslFields;
use super::place::{self, Files};
use super::scan::{Read, Scan};
use super::search::name_of;
use super::{bids, cohort, nnssl};
use crate::error::{Error, Result};
use crate::file;
use crate::volume::{self, Mask};

/// Layout of a data set.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// OpenMind's folders and masks (`fb_mask` 1 = background) with nnssl's `pretrain_data.json`.
    Nnssl,
    /// Scans and masks with `datalist.json`, which MONAI's `load_decathlon_datalist` reads.
    Monai,
    /// Masks as BIDS derivatives, without the scans.
    Bids,
}

/// Where the files of a scan lie below the data set's folder.
pub(super) struct Places {
    /// The scan itself, unless the layout leaves it out.
    pub(super) image: Option<String>,
    pub(super) foreground: String,
    pub(super) area: String,
}

const DATALIST: &str = "datalist.json";

impl Layout {
    /// True for the names that any layout writes.
    pub(super) fn is_ours(name: &str) -> bool {
        [cohort::NAME, DATALIST, "images", "masks"].contains(&name)
            || nnssl::is_ours(name)
            || bids::is_ours(name)
    }

    /// Where each scan's files lie.
    pub(super) fn places(self, scans: &[Scan]) -> Vec<Places> {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for scan in scans {
            *times.entry(bids::entities(scan)).or_default() += 1;
        }
        let shares_name = |scan: &Scan| times[&bids::entities(scan)] > 1;
        let places = scans.iter().map(|scan| match self {
            Self::Nnssl => nnssl::places(scan),
            Self::Monai => monai_places(scan),
            Self::Bids => bids::places(scan, shares_name(scan)),
        });
        places.collect()
    }

    /// Writes a scan and its masks into the data set.
    pub(super) fn write(
        self,
        scan: &Scan,
        read: Read,
        (places, folder, files): (&Places, &Path, Files),
    ) -> Result<()> {
        let masks = [
            (read.foreground, &places.foreground),
            (read.area, &places.area),
        ];
        for (n, (mask, place)) in masks.into_iter().enumerate() {
            let Some(mut mask) = mask else { continue };
            if self == Self::Nnssl && n == 0 {
                turn_over(&mut mask);
            }
            volume::write_mask(&ready(folder, place)?, &mask, false)?;
        }
        if let Some(place) = &places.image {
            let zipped = name_of(&scan.path).ends_with(".gz");
            // One ending for all scans: nnssl takes no mixture.
            let files = if zipped { files } else { Files::Rewrite };
            place::place(&scan.path, &ready(folder, place)?, files)?;
        }
        Ok(())
    }

    /// Writes the lists of the scans that were written.
    pub(super) fn write_lists(
        self,
        scans: Vec<(&Scan, Places)>,
        (folder, output, fields): (&Path, &Path, NnsslFields),
    ) -> Result<()> {
        match self {
            Self::Nnssl => {
                let scans: Vec<&Scan> = scans.iter().map(|(scan, _)| *scan).collect();
                nnssl::write_lists(&scans, (folder, output, fields))
            }
            Self::Monai => write_datalist(&scans, folder),
            Self::Bids => bids::write_lists(&scans, folder),
        }
    }
}

/// The path of a file, whose folder is made if it is not there.
fn ready(folder: &Path, place: &str) -> Result<std::path::PathBuf> {
    let path = folder.join(place);
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent).map_err(|e| Error::unwritable(parent, e))?;
    Ok(path)
}

fn turn_over(mask: &mut Mask) {
    mask.voxels.iter_mut().for_each(|v| *v = 1 - *v);
}

fn monai_places(scan: &Scan) -> Places {
    let name = format!("{}_{}", scan.identity.dataset, scan.identity.stem);
    Places {
        image: Some(format!("images/{name}.nii.gz")),
        foreground: format!("masks/{name}_foreground.nii.gz"),
        area: format!("masks/{name}_anonymization_area.nii.gz"),
    }
}

/// Paths start at the list's folder; a mask that is not there has no key.
fn write_datalist(scans: &[(&Scan, Places)], folder: &Path) -> Result<()> {
    let items = scans.iter().map(|(scan, places)| {
        let identity = &scan.identity;
        let mut item = json!({
            "image": places.image,
            "subject": format!("sub-{}", identity.subject),
        });
        let mut set = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                item[key] = value.into();
            }
        };
        set("session", identity.session.as_deref());
        set("modality", identity.modality.as_deref());
        let foreground = scan.masks.foreground.as_ref();
        set("foreground", foreground.map(|_| places.foreground.as_str()));
        let area = scan.masks.area.as_ref();
        set("anonymization_area", area.map(|_| places.area.as_str()));
        item
    });
    let items: Vec<Value> = items.collect();
    let list = json!({
        "name": "voxmask",
        "description": "foreground: 1 = anatomy; anonymization_area: 1 = altered",
        "training": items,
    });
    write_json(&folder.join(DATALIST), &list)
}

/// Writes JSON in several lines.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Bug(e.to_string()))?;
    file::write_whole(path, false, |writer| writeln!(writer, "{text}"))
}
