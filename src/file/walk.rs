//! The files in a folder and in all folders below it.

use std::path::{Path, PathBuf};

use super::folder::entries;
use crate::error::{Error, Result};

/// Files below a folder, sorted folder by folder, without hidden ones.
///
/// Folders that are links count as folders, because workflow managers hand folders over as links;
/// one that leads back to a folder above it is left out. A link that leads nowhere counts as a file, so
/// that it can be said to be missing. `leave_out` sees what a folder holds, sorted,
/// and tells whether the folder is of no interest.
///
/// # Errors
/// Exit 66 when a folder cannot be read.
pub fn files_below(folder: &Path, leave_out: fn(&[PathBuf]) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    descend(folder, leave_out, &mut Vec::new(), &mut files)?;
    Ok(files)
}

fn descend(
    folder: &Path,
    leave_out: fn(&[PathBuf]) -> bool,
    above: &mut Vec<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> Result<()> {
    let place = std::fs::canonicalize(folder).map_err(|e| Error::unreadable(folder, e))?;
    if above.contains(&place) {
        return Ok(());
    }
    let paths = entries(folder)?;
    if leave_out(&paths) {
        return Ok(());
    }
    above.push(place);
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            descend(&path, leave_out, above, files)?;
        } else {
            files.push(path);
        }
    }
    above.pop();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn linked_folders_are_entered_and_loops_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("scans/a")).unwrap();
        std::fs::create_dir(at("elsewhere")).unwrap();
        for name in ["scans/a/1.nii", "scans/.hidden", "elsewhere/2.nii"] {
            std::fs::write(at(name), "").unwrap();
        }
        symlink(at("elsewhere"), at("scans/b")).unwrap();
        symlink(at("elsewhere"), at("scans/c")).unwrap();
        symlink(at("scans"), at("scans/a/loop")).unwrap();
        symlink(at("nowhere"), at("scans/d.nii")).unwrap();
        let found = files_below(&at("scans"), |_| false).unwrap();
        let expected =
            ["a/1.nii", "b/2.nii", "c/2.nii", "d.nii"].map(|name| at("scans").join(name));
        assert_eq!(found, expected);
        let without_2 = files_below(&at("scans"), |held| {
            held.iter().any(|p| p.ends_with("2.nii"))
        });
        assert_eq!(
            without_2.unwrap(),
            [expected[0].clone(), expected[3].clone()]
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(files_below(&folder.path().join("none"), |_| false).is_err());
    }
}
