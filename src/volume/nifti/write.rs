//! A volume to a file: a header made from the grid, then the voxels.

use std::path::Path;

use rayon::prelude::*;

use super::forms;
use super::header::{MAGIC_2, SIZE_1, SIZE_2};
use crate::error::{Error, Result};
use crate::file::{self, gzip};
use crate::volume::{Geometry, Image, LabelMap, Mask, Samples, Scaled, StoredForms};

/// Gzip level of images. On CT and MR, level 1 takes half the time and leaves files a third larger;
/// level 6 takes twice the time for 3 % (zlib-rs 0.6).
const IMAGE_LEVEL: u32 = 2;
/// Gzip level of masks and label maps.
const LABEL_LEVEL: u32 = 6;

/// Checks that a volume can be written under this name, without opening anything.
///
/// # Errors
/// Exit 2 for a name that does not end in `.nii` or `.nii.gz`.
pub fn check_output_name(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    match plain.strip_suffix(".nii") {
        Some(stem) if !stem.is_empty() => Ok(()),
        _ => Err(Error::Config(format!(
            "{}: volumes are written as .nii or .nii.gz; choose such a name",
            path.display()
        ))),
    }
}

pub(super) fn image(path: &Path, image: &Image, overwrite: bool) -> Result<()> {
    let header = Header::new(&image.geometry);
    match &image.samples {
        Samples::I16(scaled) => {
            let header = header.datatype(4, 16).scaled(scaled);
            header.write(path, overwrite, &scaled.stored, IMAGE_LEVEL)
        }
        Samples::U16(scaled) => {
            let header = header.datatype(512, 16).scaled(scaled);
            header.write(path, overwrite, &scaled.stored, IMAGE_LEVEL)
        }
        Samples::F32(values) => header
            .datatype(16, 32)
            .write(path, overwrite, values, IMAGE_LEVEL),
    }
}

pub(super) fn mask(path: &Path, mask: &Mask, overwrite: bool) -> Result<()> {
    if mask.voxels.par_iter().any(|&v| v > 1) {
        return Err(Error::Bug("a mask holds more than 0 and 1".to_owned()));
    }
    let header = Header::new(&mask.geometry).datatype(2, 8);
    header.write(path, overwrite, &mask.voxels, LABEL_LEVEL)
}

pub(super) fn label_map(path: &Path, labels: &LabelMap, overwrite: bool) -> Result<()> {
    let header = Header::new(&labels.geometry);
    let voxels = &labels.voxels;
    if let Some(narrow) = narrowed::<u8>(voxels) {
        let header = header.datatype(2, 8);
        header.write(path, overwrite, &narrow, LABEL_LEVEL)
    } else if let Some(narrow) = narrowed::<i16>(voxels) {
        let header = header.datatype(4, 16);
        header.write(path, overwrite, &narrow, LABEL_LEVEL)
    } else if let Some(narrow) = narrowed::<u16>(voxels) {
        let header = header.datatype(512, 16);
        header.write(path, overwrite, &narrow, LABEL_LEVEL)
    } else {
        let header = header.datatype(8, 32);
        header.write(path, overwrite, voxels, LABEL_LEVEL)
    }
}

fn narrowed<T: TryFrom<i32> + Send>(labels: &[i32]) -> Option<Vec<T>> {
    labels.par_iter().map(|&v| T::try_from(v).ok()).collect()
}

/// What goes into a header; everything else in it is 0 or empty.
struct Header<'a> {
    geometry: &'a Geometry,
    forms: StoredForms,
    datatype: i16,
    bits: i16,
    slope: f32,
    intercept: f32,
}

impl<'a> Header<'a> {
    fn new(geometry: &'a Geometry) -> Self {
        Self {
            geometry,
            forms: forms::of(geometry),
            datatype: 0,
            bits: 0,
            slope: 1.0,
            intercept: 0.0,
        }
    }

    fn datatype(self, datatype: i16, bits: i16) -> Self {
        Self {
            datatype,
            bits,
            ..self
        }
    }

    fn scaled<T>(self, scaled: &Scaled<T>) -> Self {
        Self {
            slope: scaled.slope,
            intercept: scaled.intercept,
            ..self
        }
    }

    fn write<T: bytemuck::NoUninit>(
        &self,
        path: &Path,
        overwrite: bool,
        voxels: &[T],
        level: u32,
    ) -> Result<()> {
        check_output_name(path)?;
        if voxels.len() != self.geometry.voxel_count() {
            let (held, shape) = (voxels.len(), self.geometry.shape);
            return Err(Error::Bug(format!("{held} voxels on a grid of {shape:?}")));
        }
        let header = self.bytes().map_err(|why| Error::unwritable(path, why))?;
        let voxels: &[u8] = bytemuck::cast_slice(voxels);
        let zipped = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        file::write_whole(path, overwrite, |writer| {
            if zipped {
                gzip::write_member(writer, &[&header, voxels], level)
            } else {
                writer.write_all(&header)?;
                writer.write_all(voxels)
            }
        })
    }

    /// NIfTI-1 wherever it can say the grid exactly, else NIfTI-2; in this machine's byte order, as
    /// the voxels are.
    fn bytes(&self) -> std::result::Result<Vec<u8>, String> {
        let short = self.geometry.shape.iter().all(|&n| n <= 32767);
        if short && self.forms_fit_f32() {
            self.version_1()
        } else {
            self.version_2()
        }
    }

    fn forms_fit_f32(&self) -> bool {
        let forms = &self.forms;
        let numbers = forms.pixdim.iter().chain(&forms.quaternion);
        let numbers = numbers.chain(&forms.quaternion_offset);
        let mut numbers = numbers.chain(forms.sform.iter().flatten());
        numbers.all(|&x| x.is_nan() || f64::from(x as f32) == x)
    }

    fn version_1(&self) -> std::result::Result<Vec<u8>, String> {
        let forms = &self.forms;
        let mut bytes = Bytes(vec![0; SIZE_1 + 4]);
        let f32s = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
        bytes.put(0, &[348_i32]);
        bytes.put(38, b"r");
        bytes.put(40, &self.dim()?.map(|n: i16| n));
        bytes.put(70, &[self.datatype, self.bits]);
        bytes.put(76, &[1.0_f32; 8]);
        bytes.put(76, &f32s(&forms.pixdim));
        bytes.put(108, &[352.0, self.slope, self.intercept]);
        bytes.put(123, &[forms.xyzt_units]);
        bytes.put(252, &[forms.qform_code, forms.sform_code]);
        bytes.put(256, &f32s(&forms.quaternion));
        bytes.put(268, &f32s(&forms.quaternion_offset));
        bytes.put(280, &f32s(forms.sform.as_flattened()));
        bytes.put(344, b"n+1\0");
        Ok(bytes.0)
    }

    fn version_2(&self) -> std::result::Result<Vec<u8>, String> {
        let forms = &self.forms;
        let mut bytes = Bytes(vec![0; SIZE_2 + 4]);
        bytes.put(0, &[540_i32]);
        bytes.put(4, MAGIC_2);
        bytes.put(12, &[self.datatype, self.bits]);
        bytes.put(16, &self.dim()?.map(|n: i64| n));
        bytes.put(104, &[1.0_f64; 8]);
        bytes.put(104, &forms.pixdim);
        bytes.put(168, &[544_i64]);
        bytes.put(176, &[f64::from(self.slope), f64::from(self.intercept)]);
        bytes.put(344, &[forms.qform_code, forms.sform_code].map(i32::from));
        bytes.put(352, &forms.quaternion);
        bytes.put(376, &forms.quaternion_offset);
        bytes.put(400, forms.sform.as_flattened());
        bytes.put(500, &[i32::from(forms.xyzt_units)]);
        Ok(bytes.0)
    }

    fn dim<T: TryFrom<usize> + Copy>(&self) -> std::result::Result<[T; 8], String> {
        let [i, j, k] = self.geometry.shape;
        let mut dim = Vec::new();
        for n in [3, i, j, k, 1, 1, 1, 1] {
            dim.push(T::try_from(n).map_err(|_| format!("{n} voxels along an axis are too many"))?);
        }
        <[T; 8]>::try_from(dim).map_err(|_| "has not eight dimensions".to_owned())
    }
}

struct Bytes(Vec<u8>);

impl Bytes {
    fn put<T: bytemuck::NoUninit>(&mut self, at: usize, values: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
