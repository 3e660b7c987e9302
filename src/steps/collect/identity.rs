//! Who a scan is of, and what it is called in the data set.
//!
//! Names come from a table of the user's, or from file names in the form of BIDS. Any other file name
//! may hold a patient's name: such scans are numbered, and their file names reach no output.

use std::collections::BTreeMap;
use std::path::Path;

use super::search::name_of;
use crate::error::{Error, Result};

/// Labels of a scan; all are letters and digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Folder of the data set that it comes from: `ds000001`.
    pub(super) dataset: String,
    /// Label behind `sub-`.
    pub(super) subject: String,
    /// Label behind `ses-`.
    pub(super) session: Option<String>,
    /// `T1w`, `CT`, …
    pub(super) modality: Option<String>,
    /// File name without its ending; unique in the data set's session.
    pub(super) stem: String,
    /// The stem is the scan's own name, in the form of BIDS.
    pub(super) is_bids: bool,
}

/// What a table says of one file; an empty label says nothing.
#[derive(Clone, Debug, Default)]
struct Row {
    dataset: Option<String>,
    subject: Option<String>,
    session: Option<String>,
    modality: Option<String>,
}

/// A table of tab-separated values with the column `image` and any of `subject`, `session`,
/// `modality`, `dataset`.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<String, Row>,
}

/// The data set of scans for which none is named.
const DATASET: &str = "ds000001";
/// Stands for no value, as in BIDS.
const NONE: &str = "n/a";

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// Exit 66 when it cannot be read, 65 when it has no column `image` or a label that is none.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::unreadable(path, e))?;
        let text = text.trim_start_matches('\u{feff}');
        Self::parse(text).map_err(|why| Error::unusable(path, why))
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
        let column = |name: &str| names.iter().position(|n| n.trim() == name);
        let image = column("image").ok_or("has no column \"image\", separated by tabs")?;
        let mut rows = BTreeMap::new();
        for line in lines.filter(|line| !line.trim().is_empty()) {
            let values: Vec<&str> = line.split('\t').map(str::trim).collect();
            let value = |name: &str| {
                let value = column(name).and_then(|n| values.get(n)).copied();
                value.filter(|v| !v.is_empty() && *v != NONE)
            };
            let label = |name: &str, prefix: &str| match value(name) {
                Some(text) => label(name, text.strip_prefix(prefix).unwrap_or(text)).map(Some),
                None => Ok(None),
            };
            let row = Row {
                dataset: label("dataset", "")?,
                subject: label("subject", "sub-")?,
                session: label("session", "ses-")?,
                modality: label("modality", "")?,
            };
            let image = values.get(image).copied().unwrap_or_default();
            if rows.insert(image.to_owned(), row).is_some() {
                return Err(format!("names {image:?} twice"));
            }
        }
        Ok(Self { rows })
    }

    /// What is said of a file, by its path below the folder of scans or by its name alone.
    fn row(&self, path: &Path) -> Row {
        let below = path.to_string_lossy();
        let row = self.rows.get(below.as_ref());
        let row = row.or_else(|| self.rows.get(&name_of(path)));
        row.cloned().unwrap_or_default()
    }
}

fn label(name: &str, text: &str) -> std::result::Result<String, String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric()) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "has the {name} {text:?}; labels are letters and digits"
        ))
    }
}

/// Names scans, given by their paths below the folder of scans, in order.
///
/// # Errors
/// Exit 65 when two would have the same name.
pub(super) fn identify(paths: &[&Path], table: &Table) -> Result<Vec<Identity>> {
    let mut identities: Vec<Identity> = Vec::with_capacity(paths.len());
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    for (n, path) in paths.iter().enumerate() {
        let mut identity = identity(path, &table.row(path), n + 1);
        let place = format!("{}/{}", identity.dataset, identity.stem);
        let times = taken.entry(place).or_default();
        *times += 1;
        if *times > 1 {
            if identity.is_bids {
                let why = "has the name of another scan; name both in a --subjects table";
                return Err(Error::unusable(path, why));
            }
            identity.stem = stem(&identity, Some(*times));
        }
        identities.push(identity);
    }
    Ok(identities)
}

fn identity(path: &Path, row: &Row, number: usize) -> Identity {
    let name = name_of(path);
    let own_stem = stem_of(&name);
    let bids = bids_labels(own_stem);
    let (of_name, is_bids) = match &bids {
        Some(labels) if row.subject.is_none() && row.session.is_none() => (labels.clone(), true),
        labels => (labels.clone().unwrap_or_default(), false),
    };
    let modality = row.modality.clone().or(of_name.modality);
    let mut identity = Identity {
        dataset: row.dataset.clone().unwrap_or_else(|| DATASET.to_owned()),
        subject: row
            .subject
            .clone()
            .or(of_name.subject)
            .unwrap_or_else(|| format!("{number:04}")),
        session: row.session.clone().or(of_name.session),
        modality,
        stem: own_stem.to_owned(),
        is_bids,
    };
    if !is_bids {
        identity.stem = stem(&identity, None);
    }
    identity
}

fn stem(identity: &Identity, run: Option<usize>) -> String {
    let mut stem = format!("sub-{}", identity.subject);
    if let Some(session) = &identity.session {
        stem = format!("{stem}_ses-{session}");
    }
    if let Some(run) = run {
        stem = format!("{stem}_run-{run:02}");
    }
    match &identity.modality {
        Some(modality) => format!("{stem}_{modality}"),
        None => stem,
    }
}

/// A file name without `.nii` or `.nii.gz`.
fn stem_of(name: &str) -> &str {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.strip_suffix(".nii").unwrap_or(name)
}

/// Labels of a name such as `sub-01_ses-2_acq-mprage_T1w`; `None` for any other.
fn bids_labels(stem: &str) -> Option<Row> {
    let (entities, suffix) = stem.rsplit_once('_')?;
    let entities: Option<Vec<(&str, &str)>> =
        entities.split('_').map(|e| e.split_once('-')).collect();
    let entities = entities?;
    let plain = |text: &str| label("", text).is_ok();
    let sound = entities
        .iter()
        .all(|(key, value)| plain(key) && plain(value));
    let value = |key: &str| {
        let entity = entities.iter().find(|entity| entity.0 == key)?;
        Some(entity.1.to_owned())
    };
    (sound && plain(suffix) && entities.first()?.0 == "sub").then(|| Row {
        dataset: None,
        subject: value("sub"),
        session: value("ses"),
        modality: Some(suffix.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(paths: &[&str], table: &str) -> Vec<Identity> {
        let paths: Vec<&Path> = paths.iter().map(Path::new).collect();
        let table = Table::parse(table).unwrap();
        identify(&paths, &table).unwrap()
    }

    #[test]
    fn names_in_the_form_of_bids_are_kept() {
        let found = &named(&["a/sub-01_ses-B_acq-x_T1w.nii.gz"], "image")[0];
        assert_eq!(found.stem, "sub-01_ses-B_acq-x_T1w");
        assert_eq!(
            (found.subject.as_str(), found.session.as_deref()),
            ("01", Some("B"))
        );
        assert_eq!(found.modality.as_deref(), Some("T1w"));
        assert!(found.is_bids);
    }

    #[test]
    fn other_names_are_numbered_and_not_kept() {
        let found = named(
            &["Doe_John.nii.gz", "sub-X Y_T1w.nii", "sub-1_T1w.nii"],
            "image",
        );
        let stems: Vec<_> = found.iter().map(|i| i.stem.as_str()).collect();
        assert_eq!(stems, ["sub-0001", "sub-0002", "sub-1_T1w"]);
    }

    #[test]
    fn a_table_names_scans_by_path_or_name() {
        let table = "image\tsubject\tsession\tmodality\tdataset\n\
            a/one.nii\tsub-A1\tn/a\tCT\tds7\n\
            two.nii\tA1\t\tCT\tds7\n\
            sub-9_T2w.nii\tB\tses-3\t\t\n";
        let found = named(&["a/one.nii", "b/two.nii", "sub-9_T2w.nii"], table);
        let stems: Vec<_> = found.iter().map(|i| i.stem.as_str()).collect();
        assert_eq!(stems, ["sub-A1_CT", "sub-A1_run-02_CT", "sub-B_ses-3_T2w"]);
        assert_eq!(found[1].dataset, "ds7");
        assert_eq!(found[2].dataset, DATASET);
    }

    #[test]
    fn tables_and_names_that_make_no_sense_are_refused() {
        assert!(Table::parse("file\tsubject\n").is_err());
        assert!(Table::parse("image\tsubject\na.nii\tJohn Doe\n").is_err());
        assert!(Table::parse("image\na.nii\na.nii\n").is_err());
        let twice = ["a/sub-1_T1w.nii", "b/sub-1_T1w.nii"].map(Path::new);
        assert!(identify(&twice, &Table::default()).is_err());
    }
}
