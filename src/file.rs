//! Files as a whole: written whole or not at all, read by content, named by digest.

use std::io::Write;
use std::path::Path;

use crate::error::Result;

/// Writes a file through `fill`, whole or not at all: a temporary sibling first, then a rename.
///
/// # Errors
/// Exit 73; also when the file exists and `overwrite` is false. Nothing is left behind.
pub fn write_whole(
    _path: &Path,
    _overwrite: bool,
    _fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    todo!()
}

/// SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// Exit 66 when it cannot be read.
pub fn sha256(_path: &Path) -> Result<String> {
    todo!()
}

/// SHA-256 of bytes in memory, in lower-case hexadecimal.
pub fn sha256_of_bytes(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
