//! Writes NIfTI files byte by byte, right ones and wrong ones, without a line of the code under test.

use std::io::Write;
use std::path::Path;

/// Every field of a header that matters, in numbers that hold either version's.
#[derive(Clone, Debug)]
pub struct Raw {
    pub version: u8,
    pub big_endian: bool,
    pub magic: Vec<u8>,
    pub dim: [i64; 8],
    pub datatype: i16,
    pub bitpix: i16,
    pub pixdim: [f64; 8],
    pub vox_offset: f64,
    pub slope: f64,
    pub intercept: f64,
    pub xyzt_units: u8,
    pub qform_code: i16,
    pub sform_code: i16,
    pub quaternion: [f64; 3],
    pub quaternion_offset: [f64; 3],
    pub sform: [[f64; 4]; 3],
    /// Put into every text field.
    pub text: &'static str,
}

/// Spacing 2, 3, 4 mm, turned about z by the angle with cosine 0.6, k downwards.
pub const SFORM: [[f64; 4]; 3] = [
    [1.2, -2.4, 0.0, 10.0],
    [1.6, 1.8, 0.0, -20.0],
    [0.0, 0.0, -4.0, 30.0],
];

/// Numbers that are exact in `f32`, so that files can be compared bit for bit.
pub fn in_f32(sform: [[f64; 4]; 3]) -> [[f64; 4]; 3] {
    sform.map(|row| row.map(|x| f64::from(x as f32)))
}

impl Raw {
    pub fn new(shape: &[i64], datatype: i16) -> Self {
        let mut dim = [1; 8];
        dim[0] = shape.len() as i64;
        dim[1..=shape.len()].copy_from_slice(shape);
        Self {
            version: 1,
            big_endian: false,
            magic: b"n+1\0".to_vec(),
            dim,
            datatype,
            bitpix: 8 * size_of_type(datatype),
            pixdim: [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0],
            vox_offset: 352.0,
            slope: 1.0,
            intercept: 0.0,
            xyzt_units: 10,
            qform_code: 0,
            sform_code: 2,
            quaternion: [0.0; 3],
            quaternion_offset: [0.0; 3],
            sform: in_f32(SFORM),
            text: "Doe^Jane 1970-01-01",
        }
    }

    pub fn version_2(mut self) -> Self {
        self.version = 2;
        self.magic = b"n+2\0\r\n\x1a\n".to_vec();
        self.vox_offset = 544.0;
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn header(&self) -> Vec<u8> {
        if self.version == 1 {
            self.header_1()
        } else {
            self.header_2()
        }
    }

    /// Header, gap up to the voxels, voxels.
    pub fn file(&self, voxels: &[u8]) -> Vec<u8> {
        let mut bytes = self.header();
        let offset = self.vox_offset as usize;
        // The gap holds no zeros, so that nobody mistakes it for voxels unseen.
        bytes.resize(offset.max(bytes.len() + 4), 0);
        if bytes.len() > 400 {
            bytes[400.max(self.header().len() + 4)..].fill(0x55);
        }
        bytes.extend_from_slice(voxels);
        bytes
    }

    fn header_1(&self) -> Vec<u8> {
        let mut b = Bytes::new(348, self.big_endian);
        b.i32(0, 348);
        for n in 0..8 {
            b.i16(40 + 2 * n, self.dim[n] as i16);
            b.f32(76 + 4 * n, self.pixdim[n]);
        }
        b.i16(70, self.datatype);
        b.i16(72, self.bitpix);
        b.f32(108, self.vox_offset);
        b.f32(112, self.slope);
        b.f32(116, self.intercept);
        b.0[123] = self.xyzt_units;
        b.i16(252, self.qform_code);
        b.i16(254, self.sform_code);
        for n in 0..3 {
            b.f32(256 + 4 * n, self.quaternion[n]);
            b.f32(268 + 4 * n, self.quaternion_offset[n]);
        }
        for n in 0..12 {
            b.f32(280 + 4 * n, self.sform[n / 4][n % 4]);
        }
        for (at, length) in [(4, 10), (14, 18), (148, 80), (228, 24), (328, 16)] {
            b.text(at, length, self.text);
        }
        b.bytes(344, &self.magic);
        b.0
    }

    fn header_2(&self) -> Vec<u8> {
        let mut b = Bytes::new(540, self.big_endian);
        b.i32(0, 540);
        b.bytes(4, &self.magic);
        b.i16(12, self.datatype);
        b.i16(14, self.bitpix);
        for n in 0..8 {
            b.i64(16 + 8 * n, self.dim[n]);
            b.f64(104 + 8 * n, self.pixdim[n]);
        }
        b.i64(168, self.vox_offset as i64);
        b.f64(176, self.slope);
        b.f64(184, self.intercept);
        b.i32(344, self.qform_code.into());
        b.i32(348, self.sform_code.into());
        for n in 0..3 {
            b.f64(352 + 8 * n, self.quaternion[n]);
            b.f64(376 + 8 * n, self.quaternion_offset[n]);
        }
        for n in 0..12 {
            b.f64(400 + 8 * n, self.sform[n / 4][n % 4]);
        }
        b.i32(500, self.xyzt_units.into());
        for (at, length) in [(240, 80), (320, 24), (508, 16)] {
            b.text(at, length, self.text);
        }
        b.0
    }
}

pub fn size_of_type(datatype: i16) -> i16 {
    match datatype {
        2 | 256 => 1,
        4 | 512 => 2,
        8 | 16 | 768 => 4,
        _ => 8,
    }
}

/// Whole numbers as voxels of a type.
pub fn voxels(datatype: i16, big_endian: bool, values: &[i64]) -> Vec<u8> {
    let size = size_of_type(datatype) as usize;
    let mut bytes = Vec::new();
    for &value in values {
        let little = match datatype {
            16 => (value as f32).to_le_bytes().to_vec(),
            64 => (value as f64).to_le_bytes().to_vec(),
            _ => value.to_le_bytes()[..size].to_vec(),
        };
        if big_endian {
            bytes.extend(little.iter().rev());
        } else {
            bytes.extend(little);
        }
    }
    bytes
}

/// One gzip member.
pub fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

pub fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

struct Bytes(Vec<u8>, bool);

impl Bytes {
    fn new(length: usize, big_endian: bool) -> Self {
        Self(vec![0; length], big_endian)
    }

    fn number(&mut self, at: usize, little: &[u8]) {
        for (n, &byte) in little.iter().enumerate() {
            let place = if self.1 { little.len() - 1 - n } else { n };
            self.0[at + place] = byte;
        }
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn text(&mut self, at: usize, length: usize, text: &str) {
        let kept = text.len().min(length);
        self.bytes(at, &text.as_bytes()[..kept]);
    }

    fn i16(&mut self, at: usize, value: i16) {
        self.number(at, &value.to_le_bytes());
    }

    fn i32(&mut self, at: usize, value: i32) {
        self.number(at, &value.to_le_bytes());
    }

    fn i64(&mut self, at: usize, value: i64) {
        self.number(at, &value.to_le_bytes());
    }

    fn f32(&mut self, at: usize, value: f64) {
        self.number(at, &(value as f32).to_le_bytes());
    }

    fn f64(&mut self, at: usize, value: f64) {
        self.number(at, &value.to_le_bytes());
    }
}
