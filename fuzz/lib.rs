//! What the targets share.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};

/// A file in memory that a path names, as long as this lives.
pub struct MemoryFile {
    _file: File,
    path: PathBuf,
}

impl MemoryFile {
    /// With these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let fd = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a file in memory");
        let mut file = File::from(fd);
        file.write_all(bytes).expect("room in memory");
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Self { _file: file, path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Panics for an error that says that voxmask itself is at fault.
pub fn no_bug<T>(result: voxmask::error::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert_ne!(error.exit_code(), 70, "{error}");
            None
        }
    }
}
