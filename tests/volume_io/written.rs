//! What is written: the grid bit for bit, nothing of the input's text, the same bytes every time.

use std::io::Read;
use std::path::Path;

use voxmask::volume::{
    self, Affine, BoundingBox, Geometry, Image, LabelMap, Mask, Samples, Scaled,
};

use crate::folder;
use crate::raw::{Raw, SFORM, in_f32, voxels, write};

fn content(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes;
    }
    let mut content = Vec::new();
    // One member: `GzDecoder` stops after the first.
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_end(&mut content)
        .unwrap();
    content
}

fn mask_on(geometry: Geometry) -> Mask {
    let voxels = (0..geometry.voxel_count())
        .map(|n| u8::from(n % 3 == 0))
        .collect();
    Mask { voxels, geometry }
}

/// Numbers that differ in every field, none of them nice.
fn odd(raw: Raw) -> Raw {
    raw.with(|r| {
        r.qform_code = 1;
        r.sform_code = 4;
        r.xyzt_units = 10;
        r.pixdim =
            [-1.0, 2.000_03, 2.999_97, 4.000_01, 2.5, 7.0, 8.0, 9.0].map(|x| f64::from(x as f32));
        r.quaternion = [0.1, -0.2, 0.3].map(|x| f64::from(x as f32));
        r.quaternion_offset = [10.123, -20.456, 30.789].map(|x| f64::from(x as f32));
        r.sform = in_f32([
            [1.2001, -2.4002, 0.0003, 10.1],
            [1.6004, 1.8005, 0.0006, -20.2],
            [0.0007, 0.0008, -4.0009, 30.3],
        ]);
    })
}

#[test]
fn a_mask_repeats_the_words_for_the_grid_bit_for_bit() {
    let folder = folder();
    let (input, output) = (folder.path().join("a.nii"), folder.path().join("b.nii.gz"));
    for sform_code in [4, 0] {
        let raw = odd(Raw::new(&[2, 3, 4], 4)).with(|r| r.sform_code = sform_code);
        let bytes = raw.file(&[0; 48]);
        write(&input, &bytes);
        let image = volume::read_image(&input, None).unwrap();
        volume::write_mask(&output, &mask_on(image.geometry.clone()), true).unwrap();
        let written = content(&output);
        for field in [40..56, 76..92, 123..124, 252..328] {
            assert_eq!(written[field.clone()], bytes[field.clone()], "{field:?}");
        }
        assert_eq!(written.len(), 352 + 24);
        assert_eq!(volume::read_mask(&output).unwrap().geometry, image.geometry);
    }
}

#[test]
fn a_grid_that_f32_cannot_say_goes_to_nifti_2() {
    let folder = folder();
    let (input, output) = (folder.path().join("a.nii"), folder.path().join("b.nii"));
    let raw = odd(Raw::new(&[2, 3, 4], 4))
        .version_2()
        .with(|r| r.sform[0][3] = 0.1);
    let bytes = raw.file(&[0; 48]);
    write(&input, &bytes);
    let image = volume::read_image(&input, None).unwrap();
    volume::write_mask(&output, &mask_on(image.geometry.clone()), true).unwrap();
    let written = content(&output);
    for field in [0..12, 16..80, 104..136, 344..496, 500..504] {
        assert_eq!(written[field.clone()], bytes[field.clone()], "{field:?}");
    }
    assert_eq!(volume::read_mask(&output).unwrap().geometry, image.geometry);

    // A NIfTI-2 file with a grid that NIfTI-1 can say.
    write(
        &input,
        &odd(Raw::new(&[2, 3, 4], 4)).version_2().file(&[0; 48]),
    );
    let image = volume::read_image(&input, None).unwrap();
    volume::write_mask(&output, &mask_on(image.geometry.clone()), true).unwrap();
    assert_eq!(content(&output)[..4], [0x5c, 1, 0, 0]);
    assert_eq!(volume::read_mask(&output).unwrap().geometry, image.geometry);
}

#[test]
fn a_long_axis_goes_to_nifti_2() {
    let folder = folder();
    let path = folder.path().join("a.nii.gz");
    let mask = mask_on(Geometry::new([40_000, 2, 1], Affine(in_f32(SFORM))));
    volume::write_mask(&path, &mask, false).unwrap();
    assert_eq!(content(&path)[4..12], *b"n+2\0\r\n\x1a\n");
    let back = volume::read_mask(&path).unwrap();
    assert_eq!(back.voxels, mask.voxels);
    assert_eq!(back.geometry.affine, mask.geometry.affine);
}

#[test]
fn no_text_of_the_input_reaches_an_output() {
    let folder = folder();
    let (input, output) = (folder.path().join("a.nii"), folder.path().join("b.nii"));
    for raw in [Raw::new(&[2, 3, 4], 4), Raw::new(&[2, 3, 4], 4).version_2()] {
        write(&input, &raw.with(|r| r.vox_offset = 1024.0).file(&[0; 48]));
        let image = volume::read_image(&input, None).unwrap();
        volume::write_image(&output, &image, true).unwrap();
        let written = content(&output);
        assert!(!written.windows(4).any(|w| w == b"Jane" || w == b"Doe^"));
        assert_eq!(written.len(), 352 + 48);
    }
}

#[test]
fn an_image_keeps_its_type_and_its_scaling() {
    let folder = folder();
    let geometry = Geometry::new([2, 3, 1], Affine(in_f32(SFORM)));
    let scaled = |slope, intercept| Scaled {
        stored: vec![-3_i16, -2, -1, 0, 1, 32767],
        slope,
        intercept,
    };
    let all = [
        Samples::I16(scaled(1.0, 0.0)),
        Samples::I16(scaled(0.1, -1024.0)),
        Samples::U16(Scaled {
            stored: vec![0, 1, 2, 3, 4, 65535],
            slope: 2.0,
            intercept: 1.0,
        }),
        Samples::F32(vec![-1.5, 0.1, 1e-30, 3e30, 0.0, 7.0]),
    ];
    for samples in all {
        for name in ["a.nii", "a.NII.GZ"] {
            let path = folder.path().join(name);
            let image = Image {
                samples: samples.clone(),
                geometry: geometry.clone(),
            };
            volume::write_image(&path, &image, true).unwrap();
            let back = volume::read_image(&path, None).unwrap();
            assert_eq!(back.samples, image.samples);
            assert_eq!(back.geometry.affine, geometry.affine);
        }
    }
}

#[test]
fn labels_take_the_smallest_type_that_holds_them() {
    let folder = folder();
    let path = folder.path().join("labels.nii");
    for (labels, datatype) in [
        ([0, 255], 2_i16),
        ([-1, 7], 4),
        ([0, 40_000], 512),
        ([-1, 40_000], 8),
        ([i32::MIN, 16_777_217], 8),
    ] {
        let map = LabelMap {
            voxels: labels.to_vec(),
            geometry: Geometry::new([2, 1, 1], Affine(in_f32(SFORM))),
        };
        volume::write_label_map(&path, &map, true).unwrap();
        assert_eq!(content(&path)[70..72], datatype.to_le_bytes());
        assert_eq!(volume::read_label_map(&path).unwrap().voxels, labels);
    }
}

#[test]
fn a_cropped_volume_has_new_words_and_the_old_codes() {
    let folder = folder();
    let (input, output) = (folder.path().join("a.nii"), folder.path().join("b.nii"));
    let numbers: Vec<i64> = (0..24).collect();
    write(
        &input,
        &Raw::new(&[2, 3, 4], 4).file(&voxels(4, false, &numbers)),
    );
    let image = volume::read_image(&input, None).unwrap();
    let piece = image.crop(&BoundingBox {
        start: [1, 2, 3],
        end: [2, 3, 4],
    });
    volume::write_image(&output, &piece, false).unwrap();
    let back = volume::read_image(&output, None).unwrap();
    assert_eq!(back.samples.value(0), 23.0);
    // 10 + 1.2 - 4.8 = 6.4, -20 + 1.6 + 3.6 = -14.8, 30 - 12 = 18
    let origin = back.geometry.affine.origin();
    for (found, expected) in origin.iter().zip([6.4, -14.8, 18.0]) {
        assert!((found - expected).abs() < 1e-5, "{origin:?}");
    }
    let stored = back.geometry.stored.unwrap();
    assert_eq!((stored.sform_code, stored.qform_code), (2, 2));
    assert_eq!(stored.pixdim[0], -1.0);
}

#[test]
fn two_writes_and_two_thread_counts_give_the_same_bytes() {
    let folder = folder();
    let path = folder.path().join("a.nii.gz");
    let geometry = Geometry::new([200, 200, 100], Affine(in_f32(SFORM)));
    let stored = (0..4_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 18) as i16 - 8192);
    let image = Image {
        samples: Samples::I16(Scaled {
            stored: stored.collect(),
            slope: 1.0,
            intercept: 0.0,
        }),
        geometry,
    };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| volume::write_image(&path, &image, true))
            .unwrap();
        std::fs::read(&path).unwrap()
    };
    let one = with(1);
    assert!(one == with(8));
    // No name, no time.
    assert_eq!(one[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    assert_eq!(
        volume::read_image(&path, None).unwrap().samples,
        image.samples
    );
}

#[test]
fn a_name_that_promises_another_format_is_refused() {
    let folder = folder();
    let mask = mask_on(Geometry::new([2, 2, 2], Affine(in_f32(SFORM))));
    for name in [
        "a.hdr",
        "a.img",
        "a.mha",
        "a.nii.tmp123",
        "a",
        ".nii",
        ".nii.gz",
        "nii.gz",
    ] {
        let refused = volume::write_mask(&folder.path().join(name), &mask, false).unwrap_err();
        assert_eq!(refused.exit_code(), 2, "{name}: {refused}");
        assert!(volume::check_output_name(Path::new(name)).is_err());
    }
    assert!(volume::check_output_name(Path::new("größe.v2.nii.gz")).is_ok());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_existing_file_is_kept() {
    let folder = folder();
    let path = folder.path().join("a.nii");
    write(&path, b"mine");
    let mask = mask_on(Geometry::new([2, 2, 2], Affine(in_f32(SFORM))));
    assert_eq!(
        volume::write_mask(&path, &mask, false)
            .unwrap_err()
            .exit_code(),
        73
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}
