//! NIfTI-1 and NIfTI-2: the only file that knows the format.

use std::path::Path;

use super::{Image, LabelMap, Mask};
use crate::error::Result;

/// Reads an image: `.nii`, `.nii.gz` or `.hdr` + `.img`; frame `frame` of a 4-D file (`None`: a 4-D
/// file with more than one frame is refused).
///
/// # Errors
/// Exit 66 when it cannot be read, 65 when it is no usable volume (the message says why).
pub fn read_image(_path: &Path, _frame: Option<usize>) -> Result<Image> {
    todo!()
}

/// Reads a mask; every value must be 0 or 1.
///
/// # Errors
/// As [`read_image`].
pub fn read_mask(_path: &Path) -> Result<Mask> {
    todo!()
}

/// Reads a label map of integers.
///
/// # Errors
/// As [`read_image`].
pub fn read_label_map(_path: &Path) -> Result<LabelMap> {
    todo!()
}

/// Writes an image in the type it is kept in, whole or not at all; gzip when the name ends in `.gz`.
///
/// # Errors
/// Exit 73; also when the file exists and `overwrite` is false.
pub fn write_image(_path: &Path, _image: &Image, _overwrite: bool) -> Result<()> {
    todo!()
}

/// Writes a mask as `uint8`.
///
/// # Errors
/// As [`write_image`].
pub fn write_mask(_path: &Path, _mask: &Mask, _overwrite: bool) -> Result<()> {
    todo!()
}

/// Writes a label map in the smallest integer type that holds it.
///
/// # Errors
/// As [`write_image`].
pub fn write_label_map(_path: &Path, _labels: &LabelMap, _overwrite: bool) -> Result<()> {
    todo!()
}
