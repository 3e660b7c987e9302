//! Volumes made of boxes and balls, and the NIfTI files that hold them.

use std::io::Write;
use std::path::Path;

/// Index to point: three rows of four [mm].
pub type Affine = [[f64; 4]; 3];

/// A volume, `i` fastest, that a file is made of.
#[derive(Clone)]
pub struct Phantom {
    pub shape: [usize; 3],
    pub affine: Affine,
    pub values: Vec<f32>,
}

/// Axes along x, y and z with 1 mm between voxels.
pub const PLAIN: Affine = [
    [1.0, 0.0, 0.0, 0.0],
    [0.0, 1.0, 0.0, 0.0],
    [0.0, 0.0, 1.0, 0.0],
];

/// Turned by 20° about z, then by 10° about x; i to the left; 1.5 × 1 × 3 mm.
pub fn oblique() -> Affine {
    let (sz, cz) = 20_f64.to_radians().sin_cos();
    let (sx, cx) = 10_f64.to_radians().sin_cos();
    let turn = [
        [cz, -sz, 0.0],
        [sz * cx, cz * cx, -sx],
        [sz * sx, cz * sx, cx],
    ];
    let steps = [-1.5, 1.0, 3.0];
    let origin = [31.0, -22.5, 7.25];
    [0, 1, 2].map(|r| {
        let row = turn[r];
        [
            row[0] * steps[0],
            row[1] * steps[1],
            row[2] * steps[2],
            origin[r],
        ]
    })
}

/// A number between 0 and 1 that looks like noise and is the same everywhere.
pub fn noise(n: usize) -> f32 {
    let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 40) as f32 / (1 << 24) as f32
}

impl Phantom {
    /// A volume whose value at each index is what `value` says.
    pub fn new(shape: [usize; 3], affine: Affine, value: impl Fn([usize; 3]) -> f32) -> Self {
        let [ni, nj, nk] = shape;
        let mut values = Vec::with_capacity(ni * nj * nk);
        for k in 0..nk {
            for j in 0..nj {
                values.extend((0..ni).map(|i| value([i, j, k])));
            }
        }
        Self {
            shape,
            affine,
            values,
        }
    }

    /// 1 from `start` up to, but without, `end`.
    pub fn block(shape: [usize; 3], affine: Affine, start: [usize; 3], end: [usize; 3]) -> Self {
        let inside = |index: [usize; 3]| (0..3).all(|d| (start[d]..end[d]).contains(&index[d]));
        Self::new(shape, affine, |index| f32::from(u8::from(inside(index))))
    }

    /// 1 in an ellipsoid that fills four fifths of the volume along each axis.
    pub fn ball(shape: [usize; 3], affine: Affine) -> Self {
        Self::new(shape, affine, |index| {
            let away = |d: usize| {
                let half = 0.5 * shape[d] as f32;
                (index[d] as f32 + 0.5 - half) / (0.8 * half)
            };
            let squared: f32 = (0..3).map(|d| away(d) * away(d)).sum();
            f32::from(u8::from(squared <= 1.0))
        })
    }

    /// Like an MR of a head: noisy tissue in an ellipsoid, faint noise round it.
    pub fn head(shape: [usize; 3], affine: Affine) -> Self {
        let mut head = Self::ball(shape, affine);
        for (n, value) in head.values.iter_mut().enumerate() {
            *value = if *value > 0.0 {
                (600.0 + 200.0 * noise(n)).round()
            } else {
                (20.0 * noise(n)).round()
            };
        }
        head
    }

    /// Writes the values as 16-bit integers.
    pub fn write(&self, path: &Path) {
        let values = self.values.iter().map(|&v| v as i16);
        let bytes: Vec<u8> = values.flat_map(i16::to_le_bytes).collect();
        write(path, &nifti(self.shape, self.affine, (4, 16), &bytes));
    }

    /// Writes the values as 32-bit floats.
    pub fn write_floats(&self, path: &Path) {
        let bytes: Vec<u8> = self.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        write(path, &nifti(self.shape, self.affine, (16, 32), &bytes));
    }

    /// Writes the values as 32-bit integers.
    pub fn write_wide(&self, path: &Path, values: &[i32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        write(path, &nifti(self.shape, self.affine, (8, 32), &bytes));
    }
}

/// Writes bytes as they are, or as gzip if the name says so.
pub fn write(path: &Path, bytes: &[u8]) {
    let zipped = path.extension().is_some_and(|e| e == "gz");
    let bytes = if zipped { gzip(bytes) } else { bytes.to_vec() };
    std::fs::write(path, bytes).unwrap();
}

/// One gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A little-endian NIfTI-1 file with an sform; `kind` is the code of its type, and its bits.
pub fn nifti(shape: [usize; 3], affine: Affine, kind: (i16, i16), voxels: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 352];
    put(&mut file, 0, &348_i32.to_le_bytes());
    put_dim(&mut file, 0, 3);
    for (d, n) in shape.iter().chain(&[1; 4]).enumerate() {
        put_dim(&mut file, d + 1, i16::try_from(*n).unwrap());
    }
    put(&mut file, 70, &kind.0.to_le_bytes());
    put(&mut file, 72, &kind.1.to_le_bytes());
    put(&mut file, 76, &1_f32.to_le_bytes());
    for d in 0..3 {
        let squared: f64 = affine.iter().map(|row| row[d] * row[d]).sum();
        put(
            &mut file,
            80 + 4 * d,
            &(squared.sqrt() as f32).to_le_bytes(),
        );
    }
    put(&mut file, 108, &352_f32.to_le_bytes());
    file[123] = 2;
    put(&mut file, 148, b"NAME OF A PATIENT");
    put(&mut file, 254, &1_i16.to_le_bytes());
    for (n, number) in affine.iter().flatten().enumerate() {
        put(&mut file, 280 + 4 * n, &(*number as f32).to_le_bytes());
    }
    put(&mut file, 344, b"n+1\0");
    file.extend_from_slice(voxels);
    file
}

/// Overwrites bytes of a header.
pub fn put(file: &mut [u8], offset: usize, bytes: &[u8]) {
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Overwrites `dim[n]` of a header.
pub fn put_dim(file: &mut [u8], n: usize, value: i16) {
    put(file, 40 + 2 * n, &value.to_le_bytes());
}

/// Voxels and header fields of a NIfTI-1 file that voxmask wrote.
pub struct Written {
    pub shape: [usize; 3],
    pub affine: Affine,
    pub datatype: i16,
    pub values: Vec<f64>,
}

/// Reads a file that voxmask wrote, with a reader of its own: little-endian, scaling applied.
pub fn read(path: &Path) -> Written {
    let mut bytes = std::fs::read(path).unwrap();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&bytes[..]);
        std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
        bytes = plain;
    }
    let short = |at: usize| i16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let float = |at: usize| f64::from(f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
    assert_eq!(&bytes[344..348], b"n+1\0");
    let dim = |n: usize| usize::try_from(short(40 + 2 * n)).unwrap();
    let voxels = &bytes[float(108) as usize..];
    let stored: Vec<f64> = match short(70) {
        2 => voxels.iter().map(|&v| f64::from(v)).collect(),
        4 => of_size(voxels, |b: [u8; 2]| f64::from(i16::from_le_bytes(b))),
        8 => of_size(voxels, |b: [u8; 4]| f64::from(i32::from_le_bytes(b))),
        16 => of_size(voxels, |b: [u8; 4]| f64::from(f32::from_le_bytes(b))),
        512 => of_size(voxels, |b: [u8; 2]| f64::from(u16::from_le_bytes(b))),
        other => panic!("type {other}"),
    };
    let (slope, intercept) = match float(112) {
        0.0 => (1.0, 0.0),
        slope => (slope, float(116)),
    };
    Written {
        shape: [dim(1), dim(2), dim(3)],
        affine: [0, 1, 2].map(|r| [0, 1, 2, 3].map(|c| float(280 + 16 * r + 4 * c))),
        datatype: short(70),
        values: stored.into_iter().map(|v| slope * v + intercept).collect(),
    }
}

fn of_size<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let chunks = bytes.chunks_exact(N);
    chunks
        .map(|chunk| value(chunk.try_into().unwrap()))
        .collect()
}

impl Written {
    /// The value at an index.
    pub fn at(&self, [i, j, k]: [usize; 3]) -> f64 {
        self.values[i + self.shape[0] * (j + self.shape[1] * k)]
    }

    /// Every index, `i` fastest.
    pub fn indices(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [ni, nj, nk] = self.shape;
        (0..ni * nj * nk).map(move |n| [n % ni, n / ni % nj, n / ni / nj])
    }
}

/// The point of an index.
pub fn point(affine: &Affine, index: [f64; 3]) -> [f64; 3] {
    affine.map(|row| row[0] * index[0] + row[1] * index[1] + row[2] * index[2] + row[3])
}

/// The index of a point, by Cramer's rule.
pub fn index(affine: &Affine, point: [f64; 3]) -> [f64; 3] {
    let matrix = affine.map(|row| [row[0], row[1], row[2]]);
    let away = [0, 1, 2].map(|r| point[r] - affine[r][3]);
    [0, 1, 2].map(|column| {
        let mut replaced = matrix;
        (0..3).for_each(|r| replaced[r][column] = away[r]);
        determinant(replaced) / determinant(matrix)
    })
}

fn determinant(m: [[f64; 3]; 3]) -> f64 {
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
        - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
}
