//! The bytes of a file, compressed or not.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::header::SIZE_2;
use crate::error::{Error, Result};
use crate::file::{self, gzip};

/// A file, compressed or not, whatever its name.
pub(super) enum Content {
    Plain(File, u64),
    Gzip(File, Mmap),
}

impl Content {
    pub fn open(path: &Path) -> Result<Self> {
        let unreadable = |e| Error::unreadable(path, e);
        // A pipe that nobody writes to must not hold us up until it is refused.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = opened.map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        if found.is_dir() {
            return Err(unreadable(io::ErrorKind::IsADirectory.into()));
        }
        if !found.is_file() {
            return Err(Error::unusable(
                path,
                "is no regular file; copy it to one first",
            ));
        }
        if found.len() == 0 {
            return Err(Error::unusable(path, "is empty"));
        }
        let mut magic = [0; 2];
        match file.read_exact_at(&mut magic, 0) {
            Ok(()) if gzip::is_gzip(&magic) => {}
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(unreadable(e)),
            _ => return Ok(Self::Plain(file, found.len())),
        }
        // SAFETY: the map is read only, and dropped before the volume is handed on. A file that
        // someone shortens meanwhile ends the process with SIGBUS, which `cli` makes an exit code of.
        let map = unsafe { Mmap::map(&file) };
        match map {
            Ok(map) => Ok(Self::Gzip(file, map)),
            Err(e) => Err(unreadable(e)),
        }
    }

    /// SHA-256 of all bytes, in hexadecimal.
    ///
    /// Read, not mapped: a disk that fails is an error here, and no end of the process.
    pub fn sha256(&self) -> io::Result<String> {
        let (Self::Plain(file, _) | Self::Gzip(file, _)) = self;
        let mut at = 0;
        file::sha256_of_reads(|buffer| {
            let read = file.read_at(buffer, at)?;
            at += read as u64;
            Ok(read)
        })
    }

    /// The first bytes, as many as the longest header.
    pub fn start(&self) -> io::Result<Vec<u8>> {
        let mut start = Vec::new();
        let most = SIZE_2 as u64;
        match self {
            Self::Plain(file, _) => file.take(most).read_to_end(&mut start)?,
            Self::Gzip(_, map) => gzip::Members::new(map).take(most).read_to_end(&mut start)?,
        };
        Ok(start)
    }
}

/// The other file of a pair: `x.img.gz` to `x.hdr.gz` or `x.hdr`, whichever is there.
pub(super) fn sibling(path: &Path, from: &str, to: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let stem = plain.strip_suffix(from)?.strip_suffix('.')?;
    let zipped = path.with_file_name(format!("{stem}.{to}.gz"));
    let plain = path.with_file_name(format!("{stem}.{to}"));
    Some(if !plain.exists() && zipped.exists() {
        zipped
    } else {
        plain
    })
}

/// Why reading compressed bytes failed.
pub(super) fn damaged(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        "ends too early: it is truncated, or holds fewer voxels than its header says".to_owned()
    } else {
        format!("is damaged: {error}")
    }
}
