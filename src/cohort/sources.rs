//! Which scans a cohort has, and what is known of each beside its voxels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::config::{Config, Naming};
use crate::error::{Error, Result};
use crate::file::csv::Table;
use crate::file::walk::files_below;

/// A scan to work on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// Its file.
    pub path: PathBuf,
    /// Its reference foreground mask.
    pub reference: Option<PathBuf>,
    /// Folders and name that its results get with `--naming subject`: `sub-01/ses-2/sub-01_T1w`.
    pub place: Option<PathBuf>,
    /// Where it was made.
    pub site: Option<String>,
    /// Part of the body.
    pub region: Option<String>,
}

/// Lists the scans of a configuration, in an order that does not depend on the file system.
///
/// # Errors
/// Exit 66 when folder or table cannot be read, 65 when the table is none, 2 when there is no scan
/// or a label is missing that `--naming subject` needs.
pub(super) fn list(config: &Config) -> Result<Vec<Source>> {
    let mut sources = match (&config.table, &config.input) {
        (Some(table), _) => from_table(table)?,
        (None, Some(input)) => from_folder(input, config)?,
        (None, None) => Vec::new(),
    };
    if sources.is_empty() {
        let why = "there is no scan: no .nii or .nii.gz file fits --pattern";
        return Err(Error::Config(why.to_owned()));
    }
    if config.naming == Naming::Subject {
        check_places(&mut sources)?;
    }
    Ok(sources)
}

fn from_folder(input: &Path, config: &Config) -> Result<Vec<Source>> {
    let pattern = glob::Pattern::new(&config.pattern)
        .map_err(|e| Error::Config(format!("--pattern: {e}")))?;
    let found = files_below(input, |_| false)?;
    // Derivatives of a BIDS tree are no scans, nor is what an earlier run wrote.
    let output = std::fs::canonicalize(&config.output).ok();
    let chosen = found.into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let below = path.strip_prefix(input).unwrap_or(path);
        let ours = output.as_ref().is_some_and(|output| {
            std::fs::canonicalize(path).is_ok_and(|path| path.starts_with(output))
        });
        stem(&name).is_some()
            && pattern.matches_path(below)
            && !below.starts_with("derivatives")
            && !ours
    });
    let source = |path: PathBuf| {
        let below = path.strip_prefix(input).unwrap_or(&path).to_owned();
        let reference = config.references.as_ref().map(|folder| folder.join(&below));
        Source {
            reference: reference.filter(|reference| reference.is_file()),
            place: bids_place(&below),
            path,
            ..Source::default()
        }
    };
    Ok(chosen.map(source).collect())
}

/// The name of a volume without its ending.
fn stem(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.strip_suffix(".nii").filter(|stem| !stem.is_empty())
}

/// `sub-01/ses-2/sub-01_ses-2_T1w` for a file below `sub-01/ses-2`; `None` outside a subject's folder.
fn bids_place(below: &Path) -> Option<PathBuf> {
    let name = below.file_name()?.to_str()?;
    let labels = below.parent()?.iter().filter_map(|part| part.to_str());
    let labels = labels.filter(|part| part.starts_with("sub-") || part.starts_with("ses-"));
    let mut place: PathBuf = labels.collect();
    place.iter().next()?.to_str()?.strip_prefix("sub-")?;
    place.push(stem(name)?);
    Some(place)
}

/// Scans of a table; columns that are not known are left alone.
fn from_table(path: &Path) -> Result<Vec<Source>> {
    let table = Table::read(path)?;
    let scan = table.column("scan").ok_or_else(|| {
        Error::unusable(path, "has no column scan; it holds the paths of the scans")
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let of = |record: &Vec<String>| {
        let given = |name: &str| {
            let text = record[table.column(name)?].as_str();
            (!text.is_empty()).then(|| text.to_owned())
        };
        Source {
            path: folder.join(&record[scan]),
            reference: given("reference").map(|path| folder.join(path)),
            place: given("subject").map(PathBuf::from),
            site: given("site"),
            region: given("region"),
        }
    };
    let mut sources: Vec<Source> = table.records.iter().map(of).collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

/// Every scan must have a place of its own; a subject's second scan is numbered.
fn check_places(sources: &mut [Source]) -> Result<()> {
    let mut seen: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for source in sources {
        let Some(place) = &source.place else {
            let why = "--naming subject needs a folder sub-… or a column subject for every scan";
            return Err(Error::Config(why.to_owned()));
        };
        let parts = place.iter().map(|part| part.to_str().unwrap_or("/"));
        if place.as_os_str().is_empty() || !parts.into_iter().all(is_label) {
            let why = "labels of subjects may hold letters, digits, '-', '_' and '.' only";
            return Err(Error::Config(why.to_owned()));
        }
        let count = seen.entry(place.clone()).or_default();
        *count += 1;
        if *count > 1 {
            source.place = Some(PathBuf::from(format!("{}-{count}", place.display())));
        }
    }
    Ok(())
}

fn is_label(part: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    part.chars().all(fine) && !part.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        for file in files {
            let path = base.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        base
    }

    fn listed(base: &tempfile::TempDir, config: Config) -> Vec<Source> {
        let input = Some(base.path().join("in"));
        let found = list(&Config { input, ..config }).unwrap();
        let below = |path: PathBuf| path.strip_prefix(base.path()).unwrap().to_owned();
        let source = |s: Source| Source {
            path: below(s.path),
            reference: s.reference.map(below),
            ..s
        };
        found.into_iter().map(source).collect()
    }

    #[test]
    fn a_folder_gives_its_volumes_in_order_and_nothing_hidden_or_derived() {
        let base = tree(&[
            "in/b.nii",
            "in/a/x.nii.gz",
            "in/.hidden.nii",
            "in/derivatives/m.nii.gz",
            "in/out/scan-1/foreground.nii.gz",
            "in/notes.txt",
            "in/.nii",
        ]);
        let config = || Config {
            output: base.path().join("in/out"),
            ..Config::default()
        };
        let paths: Vec<PathBuf> = listed(&base, config())
            .into_iter()
            .map(|s| s.path)
            .collect();
        assert_eq!(paths, [Path::new("in/a/x.nii.gz"), Path::new("in/b.nii")]);
        let pattern = "a/*.nii.gz".to_owned();
        let chosen = listed(
            &base,
            Config {
                pattern,
                ..config()
            },
        );
        assert_eq!(chosen.len(), 1);
        let none = Config {
            input: Some(base.path().join("in")),
            pattern: "*.mgz".to_owned(),
            ..config()
        };
        assert_eq!(list(&none).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_bids_tree_gives_places_and_references_go_by_name() {
        let scan = "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz";
        let base = tree(&[&format!("in/{scan}"), &format!("refs/{scan}")]);
        let config = Config {
            naming: Naming::Subject,
            references: Some(base.path().join("refs")),
            ..Config::default()
        };
        let found = listed(&base, config);
        let place = Path::new("sub-01/ses-2/sub-01_ses-2_T1w");
        assert_eq!(found[0].place.as_deref(), Some(place));
        assert_eq!(found[0].reference, Some(Path::new("refs").join(scan)));
    }

    #[test]
    fn a_table_gives_what_is_known_and_a_second_scan_of_a_subject_is_numbered() {
        let base = tree(&["x"]);
        let table = base.path().join("t.csv");
        let text = "scan,subject,site,region,age\na.nii,p1,north,head,50\nb.nii,p1,,,\n";
        std::fs::write(&table, text).unwrap();
        let config = |table: PathBuf| Config {
            table: Some(table),
            naming: Naming::Subject,
            ..Config::default()
        };
        let found = list(&config(table.clone())).unwrap();
        assert_eq!(found[0].path, base.path().join("a.nii"));
        assert_eq!(found[0].site.as_deref(), Some("north"));
        assert_eq!(found[1].site, None);
        assert_eq!(found[1].place.as_deref(), Some(Path::new("p1-2")));
        for (text, code) in [
            ("scan,subject\na.nii,../x\n", 2),
            ("scan\na.nii\n", 2),
            ("file\na.nii\n", 65),
            ("scan,subject\na.nii\n", 65),
        ] {
            std::fs::write(&table, text).unwrap();
            let refused = list(&config(table.clone())).unwrap_err();
            assert_eq!(refused.exit_code(), code, "{text}: {refused}");
        }
        let missing = list(&config(base.path().join("none.csv"))).unwrap_err();
        assert_eq!(missing.exit_code(), 66);
    }
}
