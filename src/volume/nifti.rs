//! NIfTI-1 and NIfTI-2: the only module that knows the format.
//!
//! In: `.nii`, `.nii.gz` and pairs of `.hdr` and `.img`, both byte orders, every integer and float
//! type, gzip known by content. Out: `.nii` and `.nii.gz`, one frame, no text of the input's header.
//!
//! The header is checked before a voxel is read, and the file's size against the header before
//! memory is asked for. The affine is the sform if its code is above 0, else the qform, else the
//! spacing alone with the middle of the volume at the origin and x to the left, as nibabel has it.
//!
//! # Source
//! The NIfTI-1 and NIfTI-2 headers (`nifti1.h`, `nifti2.h`), <https://nifti.nimh.nih.gov>.

mod content;
mod forms;
mod header;
mod pages;
mod read;
mod stored;
mod write;

use std::path::{Path, PathBuf};

use super::{Geometry, Image, LabelMap, Mask};
use crate::error::{Error, Result};

pub use write::check_output_name;

/// Reads an image: `.nii`, `.nii.gz` or `.hdr` + `.img`; frame `frame` of a 4-D file (`None`: a 4-D
/// file with more than one frame is refused).
///
/// # Errors
/// Exit 66 when it cannot be read, 65 when it is no usable volume (the message says why), 2 when
/// there is no such frame, 75 when memory does not suffice.
pub fn read_image(path: &Path, frame: Option<usize>) -> Result<Image> {
    image_of(read::VolumeFile::open(path)?, path, frame)
}

/// A volume whose header was checked, open for its voxels to be read; nothing is logged.
pub struct OpenVolume {
    file: read::VolumeFile,
    path: PathBuf,
}

impl OpenVolume {
    /// Opens a volume and checks its header.
    ///
    /// # Errors
    /// As [`read_image`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            file: read::VolumeFile::open_quietly(path)?,
            path: path.to_owned(),
        })
    }

    /// SHA-256 of the file, in hexadecimal; of a pair, that of the voxels.
    ///
    /// # Errors
    /// Exit 66 when it cannot be read.
    pub fn sha256(&self) -> Result<String> {
        self.file.sha256()
    }

    /// The grid.
    pub fn geometry(&self) -> &Geometry {
        &self.file.header.geometry
    }

    /// Bytes that the image will take.
    pub fn image_bytes(&self) -> usize {
        self.geometry().voxel_count() * self.file.image_bytes_per_voxel()
    }

    /// What the header says that is taken in a way that may not be meant.
    pub fn oddities(&self) -> Vec<&'static str> {
        read::oddities(&self.file.header)
    }

    /// Reads the voxels.
    ///
    /// # Errors
    /// As [`read_image`].
    pub fn image(self, frame: Option<usize>) -> Result<Image> {
        image_of(self.file, &self.path, frame)
    }
}

fn image_of(file: read::VolumeFile, path: &Path, frame: Option<usize>) -> Result<Image> {
    let frames = file.header.frames;
    let frame = match frame {
        None if frames > 1 => {
            let last = frames - 1;
            let why = format!("holds {frames} frames; choose one with --frame N (0 to {last})");
            return Err(Error::unusable(path, why));
        }
        Some(n) if n >= frames => {
            let path = path.display();
            let why = format!(
                "{path}: has no frame {n}; its frames are 0 to {}",
                frames - 1
            );
            return Err(Error::Config(why));
        }
        chosen => chosen.unwrap_or(0),
    };
    file.image(frame)
}

/// Reads the grid of a volume without its voxels; a 4-D file has one as well.
///
/// # Errors
/// As [`read_image`].
pub fn read_geometry(path: &Path) -> Result<Geometry> {
    Ok(read::VolumeFile::open(path)?.header.geometry)
}

/// Reads a mask; every value must be 0 or 1.
///
/// # Errors
/// As [`read_image`].
pub fn read_mask(path: &Path) -> Result<Mask> {
    read::VolumeFile::open(path)?.single_frame()?.mask()
}

/// Reads a label map of integers, exactly; floats that are whole numbers will do.
///
/// # Errors
/// As [`read_image`].
pub fn read_label_map(path: &Path) -> Result<LabelMap> {
    read::VolumeFile::open(path)?.single_frame()?.label_map()
}

/// Writes an image in the type it is kept in, whole or not at all; gzip when the name ends in `.gz`.
///
/// # Errors
/// Exit 73, also when the file exists and `overwrite` is false; 2 for a name that does not end in
/// `.nii` or `.nii.gz`.
pub fn write_image(path: &Path, image: &Image, overwrite: bool) -> Result<()> {
    write::image(path, image, overwrite)
}

/// Writes a mask as `uint8`.
///
/// # Errors
/// As [`write_image`].
pub fn write_mask(path: &Path, mask: &Mask, overwrite: bool) -> Result<()> {
    write::mask(path, mask, overwrite)
}

/// Writes a label map in the smallest integer type that holds it.
///
/// # Errors
/// As [`write_image`].
pub fn write_label_map(path: &Path, labels: &LabelMap, overwrite: bool) -> Result<()> {
    write::label_map(path, labels, overwrite)
}
