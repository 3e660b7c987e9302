//! How a scan gets into a data set; it stays where it was, whatever the way.

use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::file;
use crate::volume;

/// How scans get into the data set. Masks are always written anew.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Files {
    /// As symbolic links, which name the folder that the scan lies in.
    Link,
    /// As further names of the same file, on the same disk.
    HardLink,
    /// As copies, byte for byte, header text included.
    Copy,
    /// Written anew as `.nii.gz`, with a header made of the grid alone.
    Rewrite,
}

/// Puts a scan to where it belongs, in a folder that is there.
///
/// `target` lies in a draft of the data set that will be renamed to a sibling, so that relative links
/// stay right.
///
/// # Errors
/// Exit 66 when the scan cannot be read, 73 when the other place cannot be written.
pub(super) fn place(scan: &Path, target: &Path, files: Files) -> Result<()> {
    let unwritable = |e: std::io::Error| Error::unwritable(target, e);
    match files {
        Files::Link => {
            let link = relative(scan, target).map_err(unwritable)?;
            std::os::unix::fs::symlink(link, target).map_err(unwritable)
        }
        Files::HardLink => {
            let file = std::fs::canonicalize(scan).map_err(|e| Error::unreadable(scan, e))?;
            std::fs::hard_link(file, target).map_err(|e| {
                Error::unwritable(target, format!("{e}; choose another way for --files"))
            })
        }
        Files::Copy => {
            let mut source = std::fs::File::open(scan).map_err(|e| Error::unreadable(scan, e))?;
            file::write_whole(target, false, |writer| {
                std::io::copy(&mut source, writer).map(drop)
            })
        }
        Files::Rewrite => volume::write_image(target, &volume::read_image(scan, None)?, false),
    }
}

/// The way from the folder of `link` to `file`.
fn relative(file: &Path, link: &Path) -> std::io::Result<PathBuf> {
    let file = std::fs::canonicalize(file)?;
    let folder = std::fs::canonicalize(link.parent().unwrap_or(Path::new(".")))?;
    let shared = file.components().zip(folder.components());
    let shared = shared.take_while(|(a, b)| a == b).count();
    let up = folder
        .components()
        .skip(shared)
        .map(|_| Component::ParentDir);
    Ok(up.chain(file.components().skip(shared)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_the_scan_and_nothing_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let scan = folder.path().join("in/a.nii");
        let target = folder.path().join("out/x/y");
        std::fs::create_dir_all(scan.parent().unwrap()).unwrap();
        std::fs::create_dir_all(&target).unwrap();
        std::fs::write(&scan, "voxels").unwrap();
        for (files, name) in [
            (Files::Link, "link.nii"),
            (Files::HardLink, "hard.nii"),
            (Files::Copy, "copy.nii"),
        ] {
            let target = target.join(name);
            place(&scan, &target, files).unwrap();
            assert_eq!(std::fs::read(&target).unwrap(), b"voxels");
        }
        let link = std::fs::read_link(target.join("link.nii")).unwrap();
        assert_eq!(link, Path::new("../../../in/a.nii"));
        assert_eq!(std::fs::read(&scan).unwrap(), b"voxels");
    }
}
