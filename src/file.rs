//! Files as a whole: written whole or not at all, read by content, named by digest.

pub mod csv;
pub mod drafts;
pub mod folder;
pub mod gzip;
pub mod walk;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use rustix::fs::OFlags;
use rustix::fs::{AtFlags, CWD};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Mode of a new file before the umask acts: readable to the lab group where the umask lets it be.
const MODE: u32 = 0o666;

/// Writes a file through `fill`, whole or not at all: under no name, or that of a temporary sibling,
/// until it is complete.
///
/// Without `overwrite` a file that appears at `path` meanwhile is not replaced either.
///
/// # Errors
/// Exit 73; also when the file exists and `overwrite` is false. Nothing is left behind.
pub fn write_whole(
    path: &Path,
    overwrite: bool,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            return Err(Error::unwritable(path, "is there and is no regular file"));
        }
        Ok(_) if !overwrite => return Err(exists(path)),
        _ => {}
    }
    let written = Draft::new(path).and_then(|draft| {
        let mut writer = BufWriter::with_capacity(1 << 18, draft.file());
        fill(&mut writer)?;
        writer.flush()?;
        drop(writer);
        draft.publish(path, overwrite)
    });
    written.map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => unwritable(path, &e),
    })
}

/// An output that the system does not let us write, with what to do about a full disk.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Error {
    let full = match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full",
        io::ErrorKind::QuotaExceeded => "the disk quota is used up",
        _ => return Error::unwritable(path, error),
    };
    Error::unwritable(path, format!("{full}; free some space and run again"))
}

fn exists(path: &Path) -> Error {
    Error::unwritable(path, "exists already; use --overwrite to replace it")
}

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file that is being written and goes away with its process unless it is published.
enum Draft {
    /// Has no name at all: not even SIGKILL leaves anything.
    Unnamed(File),
    /// Has a name of its own beside the final one, where the file system offers nothing better.
    Named(drafts::Draft<NamedTempFile>),
}

impl Draft {
    fn new(path: &Path) -> io::Result<Self> {
        match Self::unnamed(folder_of(path)) {
            Some(draft) => Ok(draft),
            None => Self::named(path),
        }
    }

    /// `None` where the file system (NFS, some overlays), another system than Linux or the missing
    /// `/proc` does not allow it.
    fn unnamed(folder: &Path) -> Option<Self> {
        #[cfg(target_os = "linux")]
        {
            let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
            let mode = rustix::fs::Mode::from_raw_mode(MODE);
            let file = File::from(rustix::fs::open(folder, flags, mode).ok()?);
            descriptor_path(&file)
                .exists()
                .then_some(Self::Unnamed(file))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = folder;
            None
        }
    }

    fn named(path: &Path) -> io::Result<Self> {
        drafts::remove_abandoned(folder_of(path));
        drafts::file(folder_of(path), MODE).map(Self::Named)
    }

    fn file(&self) -> &File {
        match self {
            Self::Unnamed(file) => file,
            Self::Named(draft) => draft.made.as_file(),
        }
    }

    fn publish(self, path: &Path, overwrite: bool) -> io::Result<()> {
        match self {
            Self::Unnamed(file) => publish_unnamed(&file, path, overwrite),
            Self::Named(draft) if overwrite => rename(draft.made, path),
            Self::Named(draft) => match draft.made.persist_noclobber(path) {
                Ok(_) => Ok(()),
                // Some network file systems know neither a hard link nor a rename that spares what
                // is there: look, then rename.
                Err(e) if e.error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
                    rename(e.file, path)
                }
                Err(e) => Err(e.error),
            },
        }
    }
}

fn rename(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.persist(path).map(drop).map_err(|e| e.error)
}

fn descriptor_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn publish_unnamed(file: &File, path: &Path, overwrite: bool) -> io::Result<()> {
    match link(file, path) {
        Err(e) if overwrite && e.kind() == io::ErrorKind::AlreadyExists => {
            drafts::rename_over(path, |name| link(file, name))
        }
        done => done,
    }
}

fn link(file: &File, path: &Path) -> io::Result<()> {
    let from = descriptor_path(file);
    rustix::fs::linkat(CWD, &from, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
    Ok(())
}

/// Reads a file that has no reason to be larger than `most` bytes.
///
/// # Errors
/// What the system says; `FileTooLarge` for one that is larger, of which no more than that is read.
pub fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let why = format!("it is larger than {} MB", most / 1_000_000);
        io::Error::new(io::ErrorKind::FileTooLarge, why)
    };
    let file = File::open(path)?;
    if file.metadata()?.len() > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // A device has no length.
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(too_large());
    }
    Ok(bytes)
}

/// SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// Exit 66 when it cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let unreadable = |e| Error::unreadable(path, e);
    let mut file = File::open(path).map_err(unreadable)?;
    sha256_of_reads(|buffer| file.read(buffer)).map_err(unreadable)
}

/// SHA-256 of what `read` puts into a buffer, until it puts in nothing.
///
/// # Errors
/// What `read` comes back with.
pub fn sha256_of_reads(mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match read(&mut buffer) {
            Ok(0) => return Ok(hexadecimal(&digest.finalize())),
            Ok(n) => digest.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// SHA-256 of bytes in memory, in lower-case hexadecimal.
pub fn sha256_of_bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_appears_whole_with_the_mode_that_the_umask_leaves() {
        let folder = folder();
        let path = folder.path().join("größe.txt");
        write_whole(&path, false, |w| w.write_all(b"abc")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert_eq!(names(folder.path()), ["größe.txt"]);
        let plain = folder.path().join("plain");
        File::create(&plain).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }

    #[test]
    fn an_existing_file_is_replaced_only_when_asked_for() {
        let folder = folder();
        let path = folder.path().join("a");
        std::fs::write(&path, b"old").unwrap();
        let refused = write_whole(&path, false, |w| w.write_all(b"new")).unwrap_err();
        assert_eq!(refused.exit_code(), 73);
        assert!(refused.to_string().contains("--overwrite"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        write_whole(&path, true, |w| w.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_not_replaced() {
        let folder = folder();
        let path = folder.path().join("a");
        let refused = write_whole(&path, false, |w| {
            std::fs::write(&path, b"other")?;
            w.write_all(b"mine")
        });
        assert_eq!(refused.unwrap_err().exit_code(), 73);
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn nothing_is_left_when_filling_fails() {
        let folder = folder();
        let path = folder.path().join("a");
        let failed = write_whole(&path, true, |w| {
            w.write_all(&[0; 1 << 20])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        let failed = failed.unwrap_err();
        assert_eq!(failed.exit_code(), 73);
        assert!(failed.to_string().contains("disk is full"), "{failed}");
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_named_draft_does_the_same_where_unnamed_ones_are_not_known() {
        let folder = folder();
        let path = folder.path().join("a");
        let draft = |text: &[u8]| {
            let draft = Draft::named(&path).unwrap();
            draft.file().write_all(text).unwrap();
            draft
        };
        drop(draft(b"dropped"));
        assert!(names(folder.path()).is_empty());
        draft(b"one").publish(&path, false).unwrap();
        assert!(draft(b"two").publish(&path, false).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        draft(b"three").publish(&path, true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn no_more_is_read_than_was_asked_for() {
        let folder = folder();
        let path = folder.path().join("a");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read_at_most(&path, 3).unwrap(), b"abc");
        for path in [path.as_path(), Path::new("/dev/zero")] {
            let refused = read_at_most(path, 2).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        }
    }

    #[test]
    fn folders_and_devices_are_no_place_to_write() {
        let folder = folder();
        for path in [
            folder.path(),
            Path::new("/dev/null"),
            Path::new("/no/such/folder/a"),
        ] {
            let refused = write_whole(path, true, |_| Ok(())).unwrap_err();
            assert_eq!(refused.exit_code(), 73, "{refused}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_standard_example() {
        // FIPS 180-2, appendix B.1
        let folder = folder();
        let path = folder.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(
            sha256(&path).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            sha256(&folder.path().join("none")).unwrap_err().exit_code(),
            66
        );
    }
}
