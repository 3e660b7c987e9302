//! What the patches are written as: NIfTI, NumPy, Zarr, tables; types and normalisations.

use std::path::Path;

use super::{RANDOM, SHAPE, bounds, crop, index, patch_file, scan, voxels};
use crate::common::phantom::{self, Phantom, Written, oblique};
use crate::common::read_json;

/// Shape and values of a NumPy file in Fortran order.
pub(super) fn read_npy(path: &Path) -> ([usize; 3], Vec<f64>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(header.contains("'fortran_order': True"), "{header}");
    let (_, shape) = header.split_once("'shape': (").unwrap();
    let (shape, _) = shape.split_once(')').unwrap();
    let shape: Vec<usize> = shape.split(", ").map(|n| n.parse().unwrap()).collect();
    let (_, descr) = header.split_once("'descr': '").unwrap();
    let values = numbers(&descr[..3], &bytes[start..]);
    (shape.try_into().unwrap(), values)
}

/// Numbers of a little-endian type of NumPy.
fn numbers(descr: &str, bytes: &[u8]) -> Vec<f64> {
    let twos = bytes.chunks_exact(2).map(|b| b.try_into().unwrap());
    match descr {
        "<f4" => bytes
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect(),
        "<i2" => twos.map(|b| f64::from(i16::from_le_bytes(b))).collect(),
        "<f2" => twos.map(|b| half_float(u16::from_le_bytes(b))).collect(),
        other => {
            assert_eq!(other, "|u1");
            bytes.iter().map(|&v| f64::from(v)).collect()
        }
    }
}

/// Value of a normal binary16 number, or 0.
fn half_float(bits: u16) -> f64 {
    let exponent = i32::from(bits >> 10 & 31);
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    match exponent {
        0 => sign * f64::from(bits & 1023) * 2_f64.powi(-24),
        _ => sign * (1.0 + f64::from(bits & 1023) / 1024.0) * 2_f64.powi(exponent - 15),
    }
}

#[test]
fn nifti_patches_lie_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    crop(
        folder.path(),
        &["--patch-shape", "16,16,16", "--format", "nifti"],
    )
    .expect(0);
    let image = phantom::read(&folder.path().join("image.nii.gz"));
    for entry in index(folder.path()) {
        let file = |key: &str| -> Written {
            phantom::read(
                &folder
                    .path()
                    .join("patches")
                    .join(entry[key].as_str().unwrap()),
            )
        };
        let (patch, loss) = (file("name"), file("loss_mask"));
        assert_eq!((patch.datatype, loss.datatype), (16, 2));
        assert_eq!(patch.affine, loss.affine);
        for at in patch.indices() {
            let world = phantom::point(&patch.affine, at.map(|n| n as f64));
            let source = phantom::index(&image.affine, world).map(|x| x.round() as usize);
            assert_eq!(patch.at(at), image.at(source));
        }
    }
}

#[test]
fn types_and_normalizations_are_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    let read = |name: &str| phantom::read(&folder.path().join(name));
    let (image, body, area) = (
        read("image.nii.gz"),
        read("foreground.nii.gz"),
        read("area.nii.gz"),
    );
    let counted = |at: &[usize; 3]| body.at(*at) == 1.0 && area.at(*at) == 0.0;
    let values: Vec<f64> = image
        .indices()
        .filter(counted)
        .map(|at| image.at(at))
        .collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    let deviation = (squares / values.len() as f64).sqrt();
    let window = |v: f64| (v.clamp(100.0, 700.0) - 100.0) / 600.0;
    type Case<'a> = (&'a [&'a str], &'a str, &'a dyn Fn(f64) -> f64, f64);
    let cases: [Case; 5] = [
        (&["--dtype", "int16"], "<i2", &|v| v, 0.0),
        (&["--dtype", "float16"], "<f2", &|v| v, 0.5),
        (
            &["--normalization", "z-score"],
            "<f4",
            &|v| (v - mean) / deviation,
            1e-5,
        ),
        (
            &["--normalization", "z-score", "--dtype", "float16"],
            "<f2",
            &|v| (v - mean) / deviation,
            4e-3,
        ),
        (
            &["--normalization", "window", "--window", "100,700"],
            "<f4",
            &window,
            1e-6,
        ),
    ];
    for (flags, descr, wanted, tolerance) in cases {
        crop(folder.path(), &[&RANDOM[..], flags].concat()).expect(0);
        for entry in index(folder.path()) {
            let file = patch_file(folder.path(), &entry);
            let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
            assert!(text.contains(descr), "{flags:?}");
            for (at, value) in voxels(&file, bounds(&entry).0) {
                let wanted = wanted(image.at(at));
                assert!(
                    (value - wanted).abs() <= tolerance,
                    "{flags:?} {value} {wanted}"
                );
            }
        }
    }
}

#[test]
fn types_that_would_spoil_values_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    for (flags, code) in [
        (["--dtype", "int16", "--normalization", "z-score"], 2),
        (["--dtype", "float16", "--format", "nifti"], 2),
    ] {
        crop(folder.path(), &flags).expect(code);
    }
    let mut wide = Phantom::head(SHAPE, oblique());
    wide.values[7] = 70_000.0;
    wide.write_floats(&folder.path().join("image.nii.gz"));
    for dtype in ["int16", "float16"] {
        let refused = crop(folder.path(), &["--dtype", dtype]).expect(65);
        assert!(refused.stderr.contains("70000"), "{}", refused.stderr);
    }
    wide.values[7] = 0.5;
    wide.write_floats(&folder.path().join("image.nii.gz"));
    crop(folder.path(), &["--dtype", "int16"]).expect(65);
    Phantom::new(SHAPE, oblique(), |_| 5.0).write(&folder.path().join("image.nii.gz"));
    let refused = crop(folder.path(), &["--normalization", "z-score"]).expect(65);
    assert!(refused.stderr.contains("z-scores"), "{}", refused.stderr);
}

#[test]
fn a_zarr_array_holds_the_same_patches_as_files() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    let flags = ["--dtype", "int16", "--format"];
    crop(folder.path(), &[&RANDOM[..], &flags, &["npy"]].concat()).expect(0);
    let patches: Vec<_> = index(folder.path())
        .iter()
        .map(|entry| {
            let file = |key: &str| {
                folder
                    .path()
                    .join("patches")
                    .join(entry[key].as_str().unwrap())
            };
            (read_npy(&file("name")).1, read_npy(&file("loss_mask")).1)
        })
        .collect();
    crop(folder.path(), &[&RANDOM[..], &flags, &["zarr"]].concat()).expect(0);
    let group = folder.path().join("patches/patches.zarr");
    assert_eq!(read_json(&group.join("zarr.json"))["node_type"], "group");
    let array = read_json(&group.join("image/zarr.json"));
    assert_eq!(array["shape"], serde_json::json!([8, 6, 5, 4]));
    assert_eq!(array["data_type"], "int16");
    for (n, entry) in index(folder.path()).iter().enumerate() {
        assert_eq!(entry["number"], n);
        assert_eq!(entry["name"], "patches.zarr/image");
        let chunk = |name: &str| std::fs::read(group.join(name).join(format!("c.{n}.0.0.0")));
        // Axes turned to (k, j, i), C order: i is the fastest, as in the other files.
        assert_eq!(numbers("<i2", &chunk("image").unwrap()), patches[n].0);
        let mut loss = Vec::new();
        let zipped = chunk("loss_mask").unwrap();
        let mut decoder = flate2::read::GzDecoder::new(&zipped[..]);
        std::io::Read::read_to_end(&mut decoder, &mut loss).unwrap();
        assert_eq!(numbers("|u1", &loss), patches[n].1);
    }
}

#[test]
fn the_table_says_what_the_lines_say() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    crop(folder.path(), &RANDOM).expect(0);
    let text = std::fs::read_to_string(folder.path().join("patches/index.tsv")).unwrap();
    let mut rows = text
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let names = rows.next().unwrap();
    let entries = index(folder.path());
    assert_eq!(rows.clone().count(), entries.len());
    for (row, entry) in rows.zip(&entries) {
        let value = |name: &str| row[names.iter().position(|n| *n == name).unwrap()];
        assert_eq!(value("name"), entry["name"].as_str().unwrap());
        for (d, axis) in ["i", "j", "k"].iter().enumerate() {
            let number = |name: &str| value(&format!("{name}_{axis}")).parse::<i64>().unwrap();
            assert_eq!(number("centre"), entry["centre"][d].as_i64().unwrap());
            assert_eq!(number("end"), bounds(entry).1[d]);
        }
        let float = |name: &str| value(name).parse::<f64>().unwrap();
        assert_eq!(float("affine_zk"), entry["affine"][2][2].as_f64().unwrap());
        assert_eq!(
            float("altered_share"),
            entry["altered_share"].as_f64().unwrap()
        );
    }
}
