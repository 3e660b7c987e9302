//! The files that patches are written to.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::dtype::{Dtype, Encoded};
use super::index::Entry;
use super::patch::Patch;
use super::zarr::Chunks;
use super::{npy, zarr};
use crate::error::{Error, Result};
use crate::file;
use crate::volume::{self, Image, Mask, Samples, Scaled, Shape};

/// File format of the patches.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// NumPy arrays of shape (I, J, K).
    Npy,
    /// NIfTI with the patch's place in the world, rounded as NIfTI-1 does; `.nii.gz`.
    Nifti,
    /// One group of zarr version 3, with the arrays `image` and `loss_mask` of shape (N, I, J, K).
    Zarr,
}

/// Where and how patches are written.
pub(super) struct PatchFiles<'a> {
    folder: &'a Path,
    format: Format,
    dtype: Dtype,
}

/// The zarr group.
const GROUP: &str = "patches.zarr";
const IMAGE: &str = "image";
const LOSS_MASK: &str = "loss_mask";

/// True for the names of files that are written here.
pub(super) fn is_ours(name: &str) -> bool {
    name == GROUP || name.starts_with("patch_")
}

impl<'a> PatchFiles<'a> {
    /// Gets a folder ready for `count` patches of `shape`.
    pub(super) fn begin(
        folder: &'a Path,
        (format, dtype): (Format, Dtype),
        (count, shape): (usize, Shape),
    ) -> Result<Self> {
        let files = Self {
            folder,
            format,
            dtype,
        };
        if format == Format::Zarr && count > 0 {
            let about = json!({"index": ["../index.jsonl", "../index.tsv"]});
            zarr::write_group(&folder.join(GROUP), about)?;
            let size = (count, shape);
            zarr::write_array(&files.array(IMAGE), dtype.name(), size, Chunks::Plain)?;
            zarr::write_array(&files.array(LOSS_MASK), "uint8", size, Chunks::Gzip)?;
        }
        Ok(files)
    }

    fn array(&self, name: &str) -> PathBuf {
        self.folder.join(GROUP).join(name)
    }

    /// Writes patch number `n`.
    pub(super) fn write(&self, patch: Patch, n: usize) -> Result<Entry> {
        let mut entry = patch.entry();
        entry.number = n;
        (entry.name, entry.loss_mask) = self.names(n);
        match self.format {
            Format::Npy => self.write_npy(patch, &entry)?,
            Format::Nifti => self.write_nifti(patch, &entry)?,
            Format::Zarr => {
                let values = self.dtype.encode(patch.values);
                zarr::write_chunk(&self.array(IMAGE), n, values.bytes(), Chunks::Plain)?;
                zarr::write_chunk(&self.array(LOSS_MASK), n, &patch.loss, Chunks::Gzip)?;
            }
        }
        Ok(entry)
    }

    fn names(&self, n: usize) -> (String, String) {
        let ending = match self.format {
            Format::Npy => "npy",
            Format::Nifti => "nii.gz",
            Format::Zarr => return (format!("{GROUP}/{IMAGE}"), format!("{GROUP}/{LOSS_MASK}")),
        };
        (
            format!("patch_{n:04}.{ending}"),
            format!("patch_{n:04}_loss.{ending}"),
        )
    }

    fn write_npy(&self, patch: Patch, entry: &Entry) -> Result<()> {
        let shape = patch.geometry.shape;
        let values = self.dtype.encode(patch.values);
        file::write_whole(&self.folder.join(&entry.name), false, |writer| {
            npy::write(writer, self.dtype.descr(), shape, values.bytes())
        })?;
        file::write_whole(&self.folder.join(&entry.loss_mask), false, |writer| {
            npy::write(writer, "|u1", shape, &patch.loss)
        })
    }

    fn write_nifti(&self, patch: Patch, entry: &Entry) -> Result<()> {
        let samples = match self.dtype.encode(patch.values) {
            Encoded::F32(values) => Samples::F32(values),
            Encoded::I16(stored) => Samples::I16(Scaled {
                stored,
                slope: 1.0,
                intercept: 0.0,
            }),
            Encoded::F16(_) => return Err(Error::Bug("NIfTI has no float16".to_owned())),
        };
        let image = Image {
            samples,
            geometry: patch.geometry.clone(),
        };
        volume::write_image(&self.folder.join(&entry.name), &image, false)?;
        let loss = Mask {
            voxels: patch.loss,
            geometry: patch.geometry,
        };
        volume::write_mask(&self.folder.join(&entry.loss_mask), &loss, false)
    }
}
