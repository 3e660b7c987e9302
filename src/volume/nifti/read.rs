//! Voxels of a file whose header was checked, in the type that they are wanted in.

use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use rayon::prelude::*;

use super::content::{Content, damaged, sibling};
use super::header::{Datatype, Header, Scaling};
use super::pages;
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::file::gzip;
use crate::volume::{Image, LabelMap, Mask, Samples, Scaled, Volume};

/// Bytes that a thread reads at a time.
const PIECE: usize = 8 << 20;

/// Bytes after the voxels that are read for the checksum's sake; a bomb would have no end.
const MOST_TRAILING: u64 = 1 << 26;

/// Voxels that one task converts or checks.
const RUN: usize = 1 << 16;

/// An open file with a checked header, large enough for the voxels that the header speaks of.
pub(super) struct VolumeFile {
    pub header: Header,
    /// The file of the voxels, for messages.
    path: PathBuf,
    content: Content,
}

impl VolumeFile {
    /// Opens a file, checks everything but its voxels, and says in the log what is odd.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Self::open_quietly(path)?;
        for oddity in oddities(&file.header) {
            tracing::warn!("{}: {oddity}", path.display());
        }
        Ok(file)
    }

    /// Opens a file and checks everything but its voxels.
    pub fn open_quietly(path: &Path) -> Result<Self> {
        let header_path = sibling(path, "img", "hdr");
        let header_path = header_path.as_deref().unwrap_or(path);
        let content = Content::open(header_path)?;
        let unusable = |why: String| Error::unusable(header_path, why);
        let start = content.start().map_err(|e| match &content {
            Content::Plain(..) => Error::unreadable(header_path, e),
            Content::Gzip(..) => unusable(damaged(&e)),
        })?;
        let header = Header::parse(&start).map_err(unusable)?;
        let (path, content) = if header.pair {
            let voxels = sibling(header_path, "hdr", "img")
                .ok_or_else(|| unusable("is one of a pair, but not named .hdr".to_owned()))?;
            let content = Content::open(&voxels)?;
            (voxels, content)
        } else {
            (header_path.to_owned(), content)
        };
        let file = Self {
            header,
            path,
            content,
        };
        file.check_size()?;
        Ok(file)
    }

    /// SHA-256 of the bytes that are read, in hexadecimal; of a pair, those of the voxels.
    pub fn sha256(&self) -> Result<String> {
        let digest = self.content.sha256();
        digest.map_err(|e| Error::unreadable(&self.path, e))
    }

    /// Bytes that one voxel takes in memory once it is read as an image.
    pub fn image_bytes_per_voxel(&self) -> usize {
        match self.header.datatype {
            Datatype::I16 | Datatype::U16 | Datatype::U8 | Datatype::I8 => 2,
            _ => 4,
        }
    }

    /// The file itself, if it is no series.
    pub fn single_frame(self) -> Result<Self> {
        match self.header.frames {
            1 => Ok(self),
            n => Err(self.unusable(format!("holds {n} frames; a mask or label map holds one"))),
        }
    }

    /// Intensities, kept in 16 bits where they were stored in 16 or 8.
    pub fn image(self, frame: usize) -> Result<Image> {
        let samples = match self.header.datatype {
            Datatype::I16 => Samples::I16(self.scaled(self.values(frame)?)?),
            Datatype::U16 => Samples::U16(self.scaled(self.values(frame)?)?),
            Datatype::U8 => {
                let values = self.values::<u8>(frame)?;
                Samples::I16(self.scaled(self.converted(&values, |v| Ok(v.into()))?)?)
            }
            Datatype::I8 => {
                let values = self.values::<i8>(frame)?;
                Samples::I16(self.scaled(self.converted(&values, |v| Ok(v.into()))?)?)
            }
            Datatype::F32 => Samples::F32(self.floats(frame)?),
            Datatype::I32 => Samples::F32(self.reals::<i32>(frame)?),
            Datatype::U32 => Samples::F32(self.reals::<u32>(frame)?),
            Datatype::I64 => Samples::F32(self.reals::<i64>(frame)?),
            Datatype::U64 => Samples::F32(self.reals::<u64>(frame)?),
            Datatype::F64 => Samples::F32(self.reals::<f64>(frame)?),
        };
        Ok(Image {
            samples,
            geometry: self.header.geometry,
        })
    }

    /// 0 or 1 for every voxel.
    pub fn mask(self) -> Result<Mask> {
        let voxels = match self.header.datatype {
            Datatype::U8 if self.header.scaling == Scaling::NONE => self.bytes_0_or_1(),
            Datatype::U8 => self.zeros_and_ones::<u8>(),
            Datatype::I8 => self.zeros_and_ones::<i8>(),
            Datatype::I16 => self.zeros_and_ones::<i16>(),
            Datatype::U16 => self.zeros_and_ones::<u16>(),
            Datatype::I32 => self.zeros_and_ones::<i32>(),
            Datatype::U32 => self.zeros_and_ones::<u32>(),
            Datatype::I64 => self.zeros_and_ones::<i64>(),
            Datatype::U64 => self.zeros_and_ones::<u64>(),
            Datatype::F32 => self.zeros_and_ones::<f32>(),
            Datatype::F64 => self.zeros_and_ones::<f64>(),
        }?;
        Ok(Volume {
            voxels,
            geometry: self.header.geometry,
        })
    }

    /// An integer for every voxel, exact.
    pub fn label_map(self) -> Result<LabelMap> {
        let scaling = self.header.scaling;
        if scaling != Scaling::NONE {
            let why = format!(
                "has labels that are scaled by {} + {}; store them as they are",
                scaling.slope, scaling.intercept
            );
            return Err(self.unusable(why));
        }
        let voxels = match self.header.datatype {
            Datatype::I32 => self.values(0),
            Datatype::U8 => self.labels::<u8>(),
            Datatype::I8 => self.labels::<i8>(),
            Datatype::I16 => self.labels::<i16>(),
            Datatype::U16 => self.labels::<u16>(),
            Datatype::U32 => self.labels::<u32>(),
            Datatype::I64 => self.labels::<i64>(),
            Datatype::U64 => self.labels::<u64>(),
            Datatype::F32 => self.labels::<f32>(),
            Datatype::F64 => self.labels::<f64>(),
        }?;
        Ok(Volume {
            voxels,
            geometry: self.header.geometry,
        })
    }

    fn scaled<T: Stored>(&self, stored: Vec<T>) -> Result<Scaled<T>> {
        let Scaling { slope, intercept } = self.header.scaling;
        let (slope, intercept) = (slope as f32, intercept as f32);
        // No 16-bit value is larger, so that every real value is finite.
        let largest = 65536.0 * slope.abs() + intercept.abs();
        if slope == 0.0 || !largest.is_finite() {
            let scaling = self.header.scaling;
            return Err(self.unusable(format!("has a scaling out of range: {scaling:?}")));
        }
        Ok(Scaled {
            stored,
            slope,
            intercept,
        })
    }

    fn floats(&self, frame: usize) -> Result<Vec<f32>> {
        let mut values: Vec<f32> = self.values(frame)?;
        let scaling = self.header.scaling;
        if scaling != Scaling::NONE {
            let scale = |v: &mut f32| *v = scaling.real(f64::from(*v));
            values.par_iter_mut().for_each(scale);
        }
        self.check_finite(&values)?;
        Ok(values)
    }

    fn reals<T: Stored>(&self, frame: usize) -> Result<Vec<f32>> {
        let values: Vec<T> = self.values(frame)?;
        let scaling = self.header.scaling;
        let values = self.converted(&values, |v| Ok(scaling.real(v.to_f64())))?;
        self.check_finite(&values)?;
        Ok(values)
    }

    fn check_finite(&self, values: &[f32]) -> Result<()> {
        let bad = |run: &[f32]| run.iter().filter(|v| !v.is_finite()).count();
        match values.par_chunks(RUN).map(bad).sum::<usize>() {
            0 => Ok(()),
            n => Err(self.unusable(format!(
                "holds {n} voxels that are not finite numbers; replace them first"
            ))),
        }
    }

    fn bytes_0_or_1(&self) -> Result<Vec<u8>> {
        let values: Vec<u8> = self.values(0)?;
        let largest = |run: &[u8]| run.iter().copied().max();
        match values.par_chunks(RUN).filter_map(largest).max() {
            Some(value @ 2..) => Err(self.unusable(no_mask(value.into()))),
            _ => Ok(values),
        }
    }

    fn zeros_and_ones<T: Stored>(&self) -> Result<Vec<u8>> {
        let values: Vec<T> = self.values(0)?;
        let scaling = self.header.scaling;
        self.converted(&values, |v| {
            let real = if scaling == Scaling::NONE {
                v.to_f64()
            } else {
                // As an image reads it, so that 255 * (1 / 255) is 1.
                scaling.real(v.to_f64()).into()
            };
            if real == 0.0 {
                Ok(0)
            } else if real == 1.0 {
                Ok(1)
            } else {
                Err(no_mask(real))
            }
        })
    }

    fn labels<T: Stored>(&self) -> Result<Vec<i32>> {
        let values: Vec<T> = self.values(0)?;
        self.converted(&values, |v| {
            v.to_label().ok_or_else(|| {
                let value = v.to_f64();
                format!("holds the value {value}; a label is a whole number of 32 bits")
            })
        })
    }

    /// Converts on all threads; the first voxel that cannot be converted says why.
    fn converted<T: Stored, U: Pod + Send>(
        &self,
        values: &[T],
        convert: impl Fn(T) -> std::result::Result<U, String> + Sync,
    ) -> Result<Vec<U>> {
        let mut converted: Vec<U> = self.zeroed(values.len())?;
        let runs = converted.par_chunks_mut(RUN).zip(values.par_chunks(RUN));
        let wrong = runs.find_map_first(|(to, from)| {
            let mut pairs = to.iter_mut().zip(from);
            pairs.find_map(|(to, &from)| match convert(from) {
                Ok(value) => {
                    *to = value;
                    None
                }
                Err(why) => Some(why),
            })
        });
        match wrong {
            None => Ok(converted),
            Some(why) => Err(self.unusable(why)),
        }
    }

    /// Voxels of one frame as stored, in this machine's byte order.
    fn values<T: Stored>(&self, frame: usize) -> Result<Vec<T>> {
        let count = self.header.geometry.voxel_count();
        // Cannot overflow: `check_size` has multiplied more.
        let start = self.header.voxel_offset + (frame * count * size_of::<T>()) as u64;
        let mut values: Vec<T> = match &self.content {
            Content::Plain(file, _) => {
                let mut values: Vec<T> = self.zeroed(count)?;
                let all: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
                // What is in the page cache is copied, and the buffer's pages made, by every thread.
                let pieces = all.par_chunks_mut(PIECE).enumerate();
                let read =
                    pieces.map(|(n, piece)| file.read_exact_at(piece, start + (n * PIECE) as u64));
                read.find_map_first(io::Result::err)
                    .map_or(Ok(()), |e| Err(Error::unreadable(&self.path, e)))?;
                values
            }
            Content::Gzip(_, compressed) => self.inflated(compressed, start, count)?,
        };
        if self.header.swapped {
            values.par_iter_mut().for_each(|v| *v = v.swapped());
        }
        Ok(values)
    }

    fn inflated<T: Stored>(&self, compressed: &[u8], start: u64, count: usize) -> Result<Vec<T>> {
        let bytes = self.bytes(start, count * size_of::<T>())?;
        if self.header.frames == 1 {
            // Everything before the voxels is inflated to the same place, then moved over.
            let mut values: Vec<T> = self.zeroed(bytes.end.div_ceil(size_of::<T>()))?;
            let all: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
            let exact = pages::fill(&mut all[..bytes.end], |all| {
                gzip::inflate_exact(compressed, all)
            });
            if exact {
                all.copy_within(bytes, 0);
                values.truncate(count);
                return Ok(values);
            }
        }
        // Several members or frames, trailing bytes, or damage, which this tells apart.
        let mut values: Vec<T> = self.zeroed(count)?;
        let mut members = gzip::Members::new(compressed);
        // The checksum is at the end, behind other frames and whatever was put there.
        let frames = (self.header.frames as u64).saturating_mul(bytes.len() as u64);
        let after = frames.saturating_add(MOST_TRAILING);
        let wanted = bytemuck::cast_slice_mut(&mut values);
        let read = io::copy(&mut (&mut members).take(start), &mut io::sink())
            .and_then(|_| members.read_exact(wanted))
            .and_then(|()| io::copy(&mut members.take(after + 1), &mut io::sink()));
        match read {
            Ok(rest) if rest > after => {
                let why = "holds far more than its header says";
                Err(self.unusable(why.to_owned()))
            }
            Ok(_) => Ok(values),
            Err(e) => Err(self.unusable(damaged(&e))),
        }
    }

    fn bytes(&self, start: u64, length: usize) -> Result<Range<usize>> {
        let range = usize::try_from(start)
            .ok()
            .and_then(|start| Some(start..start.checked_add(length)?));
        range.ok_or_else(|| self.unusable("is larger than this machine can address".to_owned()))
    }

    /// Refuses a header that speaks of more voxels than the file can hold.
    fn check_size(&self) -> Result<()> {
        let header = &self.header;
        let lengths = header.geometry.shape.iter().chain([&header.frames]);
        let needed = lengths
            .chain([&header.datatype.bytes()])
            .try_fold(1_usize, |product, &n| product.checked_mul(n))
            .and_then(|bytes| header.voxel_offset.checked_add(bytes.try_into().ok()?))
            .ok_or_else(|| self.unusable("claims more voxels than can be counted".to_owned()))?;
        let (most, how) = match &self.content {
            Content::Plain(_, length) => (*length, ""),
            Content::Gzip(_, map) => (gzip::most_inflated(map.len() as u64), " (inflated) at most"),
        };
        if needed > most {
            let [i, j, k] = header.geometry.shape;
            return Err(self.unusable(format!(
                "is truncated or its header is wrong: {i} x {j} x {k} voxels, {} frame(s), need {needed} bytes, the file holds{how} {most}",
                header.frames
            )));
        }
        Ok(())
    }

    fn zeroed<T: Pod>(&self, count: usize) -> Result<Vec<T>> {
        let path = self.path.display();
        let bytes = count as f64 * size_of::<T>() as f64;
        crate::memory::check(bytes, &format!("{path}"))?;
        pages::zeroed(count).ok_or_else(|| {
            let needed = (bytes / 1e6).ceil();
            Error::TryAgain(format!(
                "{path}: not enough memory for its voxels ({needed} MB)"
            ))
        })
    }

    fn unusable(&self, why: String) -> Error {
        Error::unusable(&self.path, why)
    }
}

fn no_mask(value: f64) -> String {
    format!("holds the value {value}; a mask holds 0 and 1 only")
}

/// What a header says that is taken in a way that may not be meant.
pub(super) fn oddities(header: &Header) -> Vec<&'static str> {
    let Some(stored) = header.geometry.stored else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if stored.sform_code <= 0 && stored.qform_code <= 0 {
        found.push("says nothing of its place in the world; taken to be LAS, centred");
    }
    match stored.xyzt_units & 7 {
        1 => found.push("says its unit is the metre; taken to be the millimetre"),
        3 => found.push("says its unit is the micrometre; taken to be the millimetre"),
        _ => {}
    }
    found
}

impl Scaling {
    fn real(self, stored: f64) -> f32 {
        (self.slope * stored + self.intercept) as f32
    }
}
