//! Files that are wrong: refused with the right exit code and a line that says why.

use std::path::Path;

use voxmask::error::Error;
use voxmask::volume;

use crate::folder;
use crate::raw::{Raw, gzipped, voxels, write};

fn error(bytes: &[u8]) -> Error {
    let folder = folder();
    let path = folder.path().join("image.nii.gz");
    write(&path, bytes);
    volume::read_image(&path, None).unwrap_err()
}

#[track_caller]
fn refused(bytes: &[u8], why: &str) {
    for bytes in [bytes, &gzipped(bytes)] {
        let error = error(bytes);
        assert_eq!(error.exit_code(), 65, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

fn small(change: impl FnOnce(&mut Raw)) -> Vec<u8> {
    Raw::new(&[2, 2, 2], 4).with(change).file(&[1; 16])
}

#[test]
fn what_is_not_there_or_no_file_cannot_be_read() {
    for path in ["/no/such/file.nii", "/"] {
        let error = volume::read_image(Path::new(path), None).unwrap_err();
        assert_eq!(error.exit_code(), 66, "{error}");
    }
    assert_eq!(error(&[]).exit_code(), 65);
    let pipe = volume::read_image(Path::new("/dev/null"), None).unwrap_err();
    assert_eq!(pipe.exit_code(), 65, "{pipe}");
}

#[test]
fn what_is_no_nifti_file_is_named_so() {
    refused(b"x", "too short");
    refused(&[0; 1000], "no NIfTI file");
    refused(b"\x89PNG\r\n\x1a\n and so on", "no NIfTI file");
    refused(&small(|r| r.magic = vec![0; 4]), "ANALYZE");
    refused(&small(|_| {})[..347], "ends within");
    let second = Raw::new(&[2, 2, 2], 4).version_2();
    refused(&second.file(&[0; 16])[..539], "ends within");
    refused(
        &second
            .with(|r| r.magic = b"n+2\0\n\n\x1a\n".to_vec())
            .file(&[0; 16]),
        "text transfer",
    );
}

#[test]
fn dimensions_that_are_none_are_refused() {
    refused(&small(|r| r.dim[0] = 0), "dimensions");
    refused(&small(|r| r.dim[0] = 8), "dimensions");
    refused(&small(|r| r.dim[0] = -1), "dimensions");
    refused(&small(|r| r.dim[0] = 1), "one dimension");
    refused(&small(|r| r.dim[2] = 0), "0 voxels along dimension 2");
    refused(&small(|r| r.dim[3] = -5), "-5 voxels along dimension 3");
    let vectors = Raw::new(&[2, 2, 2, 1, 3], 4).file(&[0; 48]);
    refused(&vectors, "vectors");
}

#[test]
fn types_without_one_number_a_voxel_are_refused() {
    for (code, why) in [
        (1, "bits"),
        (32, "complex"),
        (1792, "complex"),
        (128, "colours"),
        (2304, "colours"),
        (1536, "128-bit"),
        (0, "datatype 0"),
        (77, "datatype 77"),
        (-4, "datatype -4"),
    ] {
        refused(&small(|r| r.datatype = code), why);
    }
}

#[test]
fn a_vox_offset_that_is_no_place_is_refused() {
    for offset in [0.0, 347.0, -352.0, 352.5, f64::NAN, f64::INFINITY, 1e30] {
        let mut file = small(|_| {});
        let bytes = (offset as f32).to_le_bytes();
        file[108..112].copy_from_slice(&bytes);
        refused(&file, "vox_offset");
    }
}

#[test]
fn affines_that_place_nothing_are_refused() {
    refused(&small(|r| r.sform[0][0] = f64::NAN), "not finite");
    refused(&small(|r| r.sform[2][3] = f64::INFINITY), "not finite");
    refused(&small(|r| r.sform[2] = [0.0; 4]), "spacing");
    refused(&small(|r| r.sform = [[1.0, 2.0, 3.0, 0.0]; 3]), "singular");
    let forms = |q: i16, change: fn(&mut Raw)| {
        small(|r| {
            r.sform_code = 0;
            r.qform_code = q;
            change(r);
        })
    };
    refused(&forms(1, |r| r.quaternion = [0.9, 0.9, 0.0]), "quaternion");
    refused(&forms(1, |r| r.quaternion[1] = f64::NAN), "quaternion");
    refused(
        &forms(1, |r| r.quaternion_offset[1] = f64::NAN),
        "not finite",
    );
    refused(&forms(1, |r| r.pixdim[3] = 0.0), "spacing");
    refused(&forms(0, |r| r.pixdim[1] = 0.0), "spacing");
    refused(&forms(0, |r| r.pixdim[1] = f64::NAN), "spacing");
}

#[test]
fn too_few_voxels_are_refused() {
    let file = small(|_| {});
    refused(&file[..file.len() - 1], "");
    refused(&file[..360], "");
    let one = error(&file[..file.len() - 1]);
    assert!(one.to_string().contains("truncated"), "{one}");
    let series = Raw::new(&[2, 2, 2, 3], 4).file(&[1; 40]);
    let folder = folder();
    let path = folder.path().join("series.nii");
    write(&path, &series);
    assert_eq!(
        volume::read_image(&path, Some(0)).unwrap_err().exit_code(),
        65
    );
}

#[test]
fn a_header_that_lies_is_refused_before_memory_is_asked_for() {
    let lie = |r: &mut Raw| r.dim[1..4].fill(32767);
    refused(&small(lie), "need 70362301923678 bytes");
    let bomb = Raw::new(&[32767, 32767, 32767], 64).file(&vec![0; 1 << 22]);
    refused(&bomb, "need");
    let huge = |r: &mut Raw| r.dim = [7, i64::MAX, i64::MAX, i64::MAX, i64::MAX, 1, 1, 1];
    refused(
        &Raw::new(&[1, 1, 1], 64)
            .version_2()
            .with(huge)
            .file(&[0; 8]),
        "more voxels than",
    );
}

#[test]
fn damaged_gzip_is_refused() {
    let numbers: Vec<i64> = (0..4000).map(|n| n * n % 977).collect();
    let whole = gzipped(&Raw::new(&[20, 20, 10], 4).file(&voxels(4, false, &numbers)));
    for length in [
        1,
        2,
        10,
        18,
        200,
        whole.len() / 2,
        whole.len() - 8,
        whole.len() - 1,
    ] {
        let error = error(&whole[..length]);
        assert_eq!(error.exit_code(), 65, "{length}: {error}");
    }
    for byte in [whole.len() - 1, whole.len() - 6, whole.len() / 2] {
        let mut damaged = whole.clone();
        damaged[byte] ^= 0x10;
        let error = error(&damaged);
        assert_eq!(error.exit_code(), 65, "{byte}: {error}");
    }
    let mut second = gzipped(&[0; 100]);
    let end = second.len() - 5;
    second[end] ^= 1;
    let error = error(&[whole, second].concat());
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn a_series_names_the_flag_that_chooses_a_frame() {
    let folder = folder();
    let path = folder.path().join("series.nii");
    write(&path, &Raw::new(&[2, 2, 2, 3], 4).file(&[1; 48]));
    let refused = volume::read_image(&path, None).unwrap_err();
    assert_eq!(refused.exit_code(), 65);
    assert!(
        refused.to_string().contains("--frame N (0 to 2)"),
        "{refused}"
    );
    let refused = volume::read_image(&path, Some(3)).unwrap_err();
    assert_eq!(refused.exit_code(), 2);
    assert!(refused.to_string().contains("no frame 3"), "{refused}");
    for refused in [
        volume::read_mask(&path).err(),
        volume::read_label_map(&path).err(),
    ] {
        assert_eq!(refused.unwrap().exit_code(), 65);
    }
}

#[test]
fn voxels_that_are_no_numbers_are_counted() {
    let mut values = [1.0_f32; 8];
    values[2] = f32::NAN;
    values[5] = f32::INFINITY;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    refused(
        &Raw::new(&[2, 2, 2], 16).file(&bytes),
        "2 voxels that are not finite",
    );
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|v| f64::from(*v).to_le_bytes())
        .collect();
    refused(
        &Raw::new(&[2, 2, 2], 64).file(&bytes),
        "2 voxels that are not finite",
    );
    let large = [1e300_f64; 8].map(f64::to_le_bytes).concat();
    refused(
        &Raw::new(&[2, 2, 2], 64).file(&large),
        "8 voxels that are not finite",
    );
    refused(&small(|r| r.slope = 1e36), "scaling");
}

#[test]
fn masks_and_labels_hold_what_they_may() {
    let folder = folder();
    let path = folder.path().join("labels.nii");
    let mask = |raw: Raw, bytes: &[u8]| {
        write(&path, &raw.file(bytes));
        volume::read_mask(&path).unwrap_err().to_string()
    };
    let labels = |raw: Raw, bytes: &[u8]| {
        write(&path, &raw.file(bytes));
        volume::read_label_map(&path).unwrap_err().to_string()
    };
    assert!(mask(Raw::new(&[4, 1, 1], 2), &[0, 1, 2, 0]).contains("the value 2"));
    assert!(mask(Raw::new(&[4, 1, 1], 256), &[0, 1, 255, 0]).contains("the value -1"));
    let half = [0.0, 0.5_f32].map(f32::to_le_bytes).concat();
    assert!(mask(Raw::new(&[2, 1, 1], 16), &half).contains("0.5"));
    let nan = [0.0, f32::NAN].map(f32::to_le_bytes).concat();
    assert!(mask(Raw::new(&[2, 1, 1], 16), &nan).contains("NaN"));
    assert!(labels(Raw::new(&[2, 1, 1], 16), &half).contains("0.5"));
    assert!(labels(Raw::new(&[2, 1, 1], 16), &nan).contains("NaN"));
    let large = voxels(768, false, &[1, 1 << 31]);
    assert!(labels(Raw::new(&[2, 1, 1], 768), &large).contains("2147483648"));
    let scaled = Raw::new(&[2, 1, 1], 2).with(|r| r.slope = 2.0);
    assert!(labels(scaled, &[0, 1]).contains("scaled"));
}

#[test]
fn a_lonely_half_of_a_pair_is_refused() {
    let folder = folder();
    let raw = Raw::new(&[2, 2, 2], 4).with(|r| r.magic = b"ni1\0".to_vec());
    let path = folder.path().join("a.hdr");
    write(&path, &raw.header());
    assert_eq!(volume::read_image(&path, None).unwrap_err().exit_code(), 66);
    let path = folder.path().join("b.img");
    write(&path, &[0; 16]);
    assert_eq!(volume::read_image(&path, None).unwrap_err().exit_code(), 66);
    let path = folder.path().join("c.nii");
    write(&path, &raw.file(&[0; 16]));
    assert_eq!(volume::read_image(&path, None).unwrap_err().exit_code(), 65);
}
