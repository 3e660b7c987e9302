//! Folders that are written whole or not at all.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{drafts, folder_of};
use crate::error::{Error, Result};

/// Mode of a new folder before the umask acts.
const MODE: u32 = 0o777;

/// Fills a hidden sibling of `path` through `fill`, then renames it to `path`.
///
/// A folder that is there already and empty is replaced; one with files only if `overwrite` is true
/// and all of them are `ours` by name, since a folder full of other things was hardly meant. What was
/// there is looked at again at the end: it may have come meanwhile.
///
/// # Errors
/// Exit 73, or what `fill` comes back with. Nothing is left behind.
pub fn write_folder(
    path: &Path,
    overwrite: bool,
    ours: fn(&str) -> bool,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    check_replaceable(path, overwrite, ours)?;
    let unwritable = |e: io::Error| Error::unwritable(path, e);
    let draft = drafts::folder(folder_of(path), MODE).map_err(unwritable)?;
    fill(draft.made.path())?;
    check_replaceable(path, overwrite, ours)?;
    let draft = draft.made.path();
    if overwrite && path.exists() {
        replace(draft, path)
    } else {
        // Takes the place of an empty folder, and fails on one that was filled since.
        drafts::publish(draft, || std::fs::rename(draft, path))
    }
    .map_err(unwritable)
}

/// Puts a folder in the place of another, which then bears a draft's name and goes away with it.
fn replace(draft: &Path, path: &Path) -> io::Result<()> {
    let old = drafts::folder(folder_of(path), MODE)?;
    drafts::publish(draft, || {
        if exchange(draft, path)? {
            return Ok(());
        }
        // Two renames, where the file system knows no exchange: in between there is nothing at `path`.
        std::fs::rename(path, old.made.path())?;
        std::fs::rename(draft, path).inspect_err(|_| {
            let _ = std::fs::rename(old.made.path(), path);
        })
    })
}

/// Exchanges two names in one act; false where that is not known.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    use rustix::io::Errno;
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_one: &Path, _other: &Path) -> io::Result<bool> {
    Ok(false)
}

fn check_replaceable(path: &Path, overwrite: bool, ours: fn(&str) -> bool) -> Result<()> {
    if path.is_symlink() {
        let why = "is a symbolic link; name the folder that it leads to";
        return Err(Error::unwritable(path, why));
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::unwritable(path, e)),
    };
    for entry in entries {
        let name = entry.map_err(|e| Error::unwritable(path, e))?.file_name();
        if !overwrite {
            let why = "is a folder with files in it; use --overwrite to replace them";
            return Err(Error::unwritable(path, why));
        }
        if !name.to_str().is_some_and(ours) {
            let why = "holds files that this step does not write; choose another folder";
            return Err(Error::unwritable(path, why));
        }
    }
    Ok(())
}

/// SHA-256 of a folder: of a line `digest name` for everything in it, sorted by name; what is in a
/// folder below counts by that folder's own digest.
///
/// # Errors
/// Exit 66 when something in it cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let mut lines = String::new();
    for entry in entries(path)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        let digest = if entry.is_dir() {
            sha256(&entry)?
        } else {
            super::sha256(&entry)?
        };
        let _ = writeln!(lines, "{digest} {name}");
    }
    Ok(super::sha256_of_bytes(lines.as_bytes()))
}

/// Digests of all files in a folder and below, and of the folders below.
///
/// # Errors
/// Exit 66 when something in it cannot be read.
pub fn digests(path: &Path) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for entry in entries(path)? {
        if entry.is_dir() {
            all.append(&mut digests(&entry)?);
            all.insert(sha256(&entry)?);
        } else {
            all.insert(super::sha256(&entry)?);
        }
    }
    Ok(all)
}

/// Paths of what a folder holds, sorted.
///
/// # Errors
/// Exit 66 when it cannot be read.
pub fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |e| Error::unreadable(path, e);
    let entries = std::fs::read_dir(path).map_err(unreadable)?;
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|e| e.map(|e| e.path())).collect();
    let mut paths = paths.map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn is_ours(name: &str) -> bool {
        name.starts_with("our")
    }

    #[test]
    fn a_folder_appears_whole() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("out");
        let fill = |folder: &Path| {
            assert!(!path.exists());
            std::fs::write(folder.join("our_1"), "1").unwrap();
            Ok(())
        };
        write_folder(&path, false, is_ours, fill).unwrap();
        assert_eq!(names(base.path()), ["out"]);
        assert_eq!(names(&path), ["our_1"]);
    }

    #[test]
    fn a_failure_leaves_nothing_and_keeps_the_old() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("out");
        let failing = |folder: &Path| {
            std::fs::write(folder.join("our_1"), "1").unwrap();
            Err(Error::Config("no".to_owned()))
        };
        write_folder(&path, false, is_ours, failing).unwrap_err();
        assert!(names(base.path()).is_empty());
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("our_2"), "2").unwrap();
        write_folder(&path, true, is_ours, failing).unwrap_err();
        assert_eq!(names(base.path()), ["out"]);
        assert_eq!(names(&path), ["our_2"]);
    }

    #[test]
    fn only_our_own_files_are_replaced() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("out");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("our_2"), "2").unwrap();
        let fill = |folder: &Path| {
            std::fs::write(folder.join("our_1"), "1").unwrap();
            Ok(())
        };
        assert_eq!(
            write_folder(&path, false, is_ours, fill)
                .unwrap_err()
                .exit_code(),
            73
        );
        write_folder(&path, true, is_ours, fill).unwrap();
        assert_eq!(names(&path), ["our_1"]);
        std::fs::write(path.join("thesis.docx"), "").unwrap();
        assert_eq!(
            write_folder(&path, true, is_ours, fill)
                .unwrap_err()
                .exit_code(),
            73
        );
        assert_eq!(names(&path), ["our_1", "thesis.docx"]);
        assert_eq!(names(base.path()), ["out"]);
    }

    #[test]
    fn a_folder_that_is_filled_meanwhile_is_not_replaced() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("out");
        let fill = |folder: &Path| {
            std::fs::write(folder.join("our_1"), "1").unwrap();
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("our_2"), "2").unwrap();
            Ok(())
        };
        let refused = write_folder(&path, false, is_ours, fill).unwrap_err();
        assert_eq!(refused.exit_code(), 73);
        assert_eq!(names(&path), ["our_2"]);
        assert_eq!(names(base.path()), ["out"]);
    }

    #[test]
    fn a_folder_is_never_missing_while_it_is_replaced() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("out");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("our_0"), "0").unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                let mut missing = 0;
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    missing += u32::from(!path.is_dir());
                }
                missing
            });
            for n in 0..200 {
                let fill = |folder: &Path| {
                    std::fs::write(folder.join(format!("our_{n}")), "1").unwrap();
                    Ok(())
                };
                write_folder(&path, true, is_ours, fill).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
            assert_eq!(looks.join().unwrap(), 0);
        });
        assert_eq!(names(&path), ["our_199"]);
        assert_eq!(names(base.path()), ["out"]);
    }

    #[test]
    fn two_names_change_places_in_one_act() {
        let base = tempfile::tempdir().unwrap();
        let (draft, path) = (base.path().join("draft"), base.path().join("out"));
        for folder in [&draft, &path] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("name"), folder.to_str().unwrap()).unwrap();
        }
        assert!(exchange(&draft, &path).unwrap());
        let read = |folder: &Path| std::fs::read_to_string(folder.join("name")).unwrap();
        assert_eq!(read(&draft), path.to_str().unwrap());
        assert_eq!(read(&path), draft.to_str().unwrap());
    }

    #[test]
    fn a_link_to_a_folder_is_not_replaced() {
        let base = tempfile::tempdir().unwrap();
        let (folder, link) = (base.path().join("folder"), base.path().join("link"));
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        for overwrite in [false, true] {
            let refused = write_folder(&link, overwrite, is_ours, |_| Ok(())).unwrap_err();
            assert_eq!(refused.exit_code(), 73);
        }
        assert!(link.is_symlink() && names(&folder).is_empty());
    }

    #[test]
    fn a_folders_digest_changes_with_names_and_contents_below() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("out");
        std::fs::create_dir_all(path.join("b")).unwrap();
        std::fs::write(path.join("a"), "1").unwrap();
        std::fs::write(path.join("b/c"), "2").unwrap();
        let first = sha256(&path).unwrap();
        let all = digests(base.path()).unwrap();
        assert!(all.contains(&first) && all.contains(&sha256(&path.join("b")).unwrap()));
        assert_eq!(all.len(), 4);
        std::fs::write(path.join("b/c"), "3").unwrap();
        let changed = sha256(&path).unwrap();
        std::fs::rename(path.join("b/c"), path.join("b/d")).unwrap();
        let renamed = sha256(&path).unwrap();
        assert!(first != changed && changed != renamed);
        assert_eq!(
            sha256(&base.path().join("none")).unwrap_err().exit_code(),
            66
        );
    }
}
