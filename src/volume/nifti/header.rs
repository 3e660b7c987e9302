//! Header bytes to a checked [`Header`].

use nifti::{Endianness, NiftiHeader};

use super::forms;
use crate::volume::{Geometry, Shape, StoredForms};

/// Bytes of a NIfTI-1 header.
pub(super) const SIZE_1: usize = 348;
/// Bytes of a NIfTI-2 header.
pub(super) const SIZE_2: usize = 540;
/// Magic of a NIfTI-2 file that holds its own voxels.
pub(super) const MAGIC_2: &[u8; 8] = b"n+2\0\r\n\x1a\n";
const MAGIC_2_PAIR: &[u8; 8] = b"ni2\0\r\n\x1a\n";

/// What a header says, checked: three dimensions of at least one voxel, a type that can be read, a
/// finite and invertible affine.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub geometry: Geometry,
    /// Volumes along the fourth dimension, at least 1.
    pub frames: usize,
    pub datatype: Datatype,
    /// Where the voxels begin in their file, in bytes.
    pub voxel_offset: u64,
    pub scaling: Scaling,
    /// The voxels' byte order is not this machine's.
    pub swapped: bool,
    /// The voxels are in a file of their own.
    pub pair: bool,
}

/// Takes stored values to real ones: `slope * stored + intercept`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scaling {
    pub slope: f64,
    pub intercept: f64,
}

/// Types that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datatype {
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
}

/// The fields of either version, as they stand in the file.
#[derive(Clone, Debug, PartialEq)]
struct Fields {
    dim: [i64; 8],
    datatype: i16,
    voxel_offset: f64,
    slope: f64,
    intercept: f64,
    stored: StoredForms,
    swapped: bool,
    pair: bool,
    size: usize,
}

impl Header {
    /// Parses the first bytes of a file (at least 540 of them, or all there are).
    ///
    /// # Errors
    /// A line that says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let size = bytes
            .first_chunk::<4>()
            .ok_or("is too short for a NIfTI header")?;
        let (size, swapped) = match i32::from_ne_bytes(*size) {
            n @ (348 | 540) => (n, false),
            n if matches!(n.swap_bytes(), 348 | 540) => (n.swap_bytes(), true),
            _ => return Err("is no NIfTI file: it does not begin with 348 or 540".to_owned()),
        };
        let fields = match size {
            348 => parse_1(bytes, swapped)?,
            _ => parse_2(bytes, swapped)?,
        };
        fields.check()
    }
}

/// NIfTI-1, through the `nifti` crate, which trusts some fields: they are looked at first.
fn parse_1(bytes: &[u8], swapped: bool) -> Result<Fields, String> {
    let reader = Reader { bytes, swapped };
    let truncated = || "ends within its NIfTI-1 header".to_owned();
    let bytes = bytes.get(..SIZE_1).ok_or_else(truncated)?;
    let pair = match bytes.last_chunk::<4>() {
        Some(b"n+1\0") => false,
        Some(b"ni1\0") => true,
        _ => {
            let why = "is no NIfTI file (ANALYZE 7.5?): its magic is not n+1; convert it first";
            return Err(why.to_owned());
        }
    };
    // The crate takes the byte order from dim[0] and reads dimensions unsigned.
    let dim: [i16; 8] = std::array::from_fn(|n| reader.i16(40 + 2 * n));
    check_rank(dim[0].into())?;
    let header = NiftiHeader::from_reader(bytes).map_err(|e| e.to_string())?;
    if (header.endianness != Endianness::native()) != swapped {
        return Err("has a header of mixed byte order".to_owned());
    }
    Ok(Fields {
        dim: dim.map(i64::from),
        datatype: header.datatype,
        voxel_offset: header.vox_offset.into(),
        slope: header.scl_slope.into(),
        intercept: header.scl_inter.into(),
        stored: forms_1(&header),
        swapped,
        pair,
        size: SIZE_1,
    })
}

fn forms_1(header: &NiftiHeader) -> StoredForms {
    let row = |row: [f32; 4]| row.map(f64::from);
    let [qfac, i, j, k, ..] = header.pixdim.map(f64::from);
    let quaternion = [header.quatern_b, header.quatern_c, header.quatern_d];
    let offset = [header.quatern_x, header.quatern_y, header.quatern_z];
    StoredForms {
        pixdim: [qfac, i, j, k],
        xyzt_units: header.xyzt_units,
        qform_code: header.qform_code,
        sform_code: header.sform_code,
        quaternion: quaternion.map(f64::from),
        quaternion_offset: offset.map(f64::from),
        sform: [header.srow_x, header.srow_y, header.srow_z].map(row),
    }
}

fn parse_2(bytes: &[u8], swapped: bool) -> Result<Fields, String> {
    let truncated = || "ends within its NIfTI-2 header".to_owned();
    let bytes = bytes.get(..SIZE_2).ok_or_else(truncated)?;
    let reader = Reader { bytes, swapped };
    let pair = is_pair_2(bytes)?;
    let code = |at: usize, name: &str| {
        let code = reader.i32(at);
        i16::try_from(code).map_err(|_| format!("has {name} {code}, which means nothing"))
    };
    let row = |at: usize| std::array::from_fn(|n| reader.f64(at + 8 * n));
    let [x, y, z] = [400, 432, 464].map(row);
    let units = reader.i32(500);
    Ok(Fields {
        dim: std::array::from_fn(|n| reader.i64(16 + 8 * n)),
        datatype: reader.i16(12),
        // Offsets beyond 2⁵³ bytes are refused by size in any case.
        voxel_offset: reader.i64(168) as f64,
        slope: reader.f64(176),
        intercept: reader.f64(184),
        stored: StoredForms {
            pixdim: std::array::from_fn(|n| reader.f64(104 + 8 * n)),
            xyzt_units: u8::try_from(units).map_err(|_| format!("has xyzt_units {units}"))?,
            qform_code: code(344, "qform_code")?,
            sform_code: code(348, "sform_code")?,
            quaternion: std::array::from_fn(|n| reader.f64(352 + 8 * n)),
            quaternion_offset: std::array::from_fn(|n| reader.f64(376 + 8 * n)),
            sform: [x, y, z],
        },
        swapped,
        pair,
        size: SIZE_2,
    })
}

fn is_pair_2(header: &[u8]) -> Result<bool, String> {
    match &header[4..12] {
        magic if magic == MAGIC_2 => Ok(false),
        magic if magic == MAGIC_2_PAIR => Ok(true),
        _ => Err("is no NIfTI-2 file, or a text transfer damaged it: wrong magic".to_owned()),
    }
}

impl Fields {
    fn check(self) -> Result<Header, String> {
        let (shape, frames) = self.dimensions()?;
        let affine = forms::affine(&self.stored, shape)?;
        Ok(Header {
            geometry: Geometry {
                shape,
                affine,
                stored: Some(self.stored),
            },
            frames,
            datatype: Datatype::from_code(self.datatype)?,
            voxel_offset: self.offset()?,
            scaling: Scaling::new(self.slope, self.intercept),
            swapped: self.swapped,
            pair: self.pair,
        })
    }

    /// Shape and number of frames. Trailing dimensions of 1 are no dimensions.
    fn dimensions(&self) -> Result<(Shape, usize), String> {
        let rank = check_rank(self.dim[0])?;
        let mut lengths = [1; 7];
        for (d, length) in lengths.iter_mut().enumerate().take(rank) {
            let stated = self.dim[d + 1];
            *length = usize::try_from(stated)
                .ok()
                .filter(|&n| n > 0)
                .ok_or_else(|| format!("has {stated} voxels along dimension {}", d + 1))?;
        }
        let [i, j, k, frames, rest @ ..] = lengths;
        if rank < 2 {
            return Err("has one dimension; a volume has three".to_owned());
        }
        if rest.iter().any(|&n| n > 1) {
            let dim = &self.dim[1..=rank];
            return Err(format!(
                "holds vectors or more than four dimensions ({dim:?}); split it"
            ));
        }
        Ok(([i, j, k], frames))
    }

    fn offset(&self) -> Result<u64, String> {
        let offset = self.voxel_offset;
        let smallest = if self.pair { 0 } else { self.size };
        // 2⁵³: beyond, a float is no exact byte count.
        let sane = offset.fract() == 0.0 && (smallest as f64..9.0e15).contains(&offset);
        if !sane {
            return Err(format!(
                "has vox_offset {offset}, which is no place for voxels after {smallest} bytes of header"
            ));
        }
        Ok(offset as u64)
    }
}

fn check_rank(rank: i64) -> Result<usize, String> {
    usize::try_from(rank)
        .ok()
        .filter(|rank| (1..=7).contains(rank))
        .ok_or_else(|| format!("has {rank} dimensions; a volume has three"))
}

impl Scaling {
    pub const NONE: Self = Self {
        slope: 1.0,
        intercept: 0.0,
    };

    /// A slope that is 0 or no number means that nothing is scaled; an intercept that is no number
    /// means 0.
    fn new(slope: f64, intercept: f64) -> Self {
        if slope == 0.0 || !slope.is_finite() {
            return Self::NONE;
        }
        let intercept = if intercept.is_finite() {
            intercept
        } else {
            0.0
        };
        Self { slope, intercept }
    }
}

impl Datatype {
    fn from_code(code: i16) -> Result<Self, String> {
        let refused = match code {
            2 => return Ok(Self::U8),
            4 => return Ok(Self::I16),
            8 => return Ok(Self::I32),
            16 => return Ok(Self::F32),
            64 => return Ok(Self::F64),
            256 => return Ok(Self::I8),
            512 => return Ok(Self::U16),
            768 => return Ok(Self::U32),
            1024 => return Ok(Self::I64),
            1280 => return Ok(Self::U64),
            1 => "single bits",
            32 | 1792 | 2048 => "complex numbers; take the magnitude first",
            128 | 2304 => "colours; convert them to intensities first",
            1536 => "128-bit floats; convert them to 64 bits first",
            _ => return Err(format!("has datatype {code}, which NIfTI does not know")),
        };
        Err(format!("holds {refused}"))
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

/// Numbers at offsets of a header that is known to be long enough.
struct Reader<'a> {
    bytes: &'a [u8],
    swapped: bool,
}

impl Reader<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[at..at + N]);
        if self.swapped {
            bytes.reverse();
        }
        bytes
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_ne_bytes(self.array(at))
    }

    fn i32(&self, at: usize) -> i32 {
        i32::from_ne_bytes(self.array(at))
    }

    fn i64(&self, at: usize) -> i64 {
        i64::from_ne_bytes(self.array(at))
    }

    fn f64(&self, at: usize) -> f64 {
        f64::from_ne_bytes(self.array(at))
    }
}
