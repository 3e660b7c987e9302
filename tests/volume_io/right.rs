//! Files that are unusual and right: read as they are meant.

use voxmask::volume::{self, Image, Samples};

use crate::folder;
use crate::raw::{Raw, SFORM, gzipped, voxels, write};

const TYPES: [i16; 10] = [2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280];

fn values(image: &Image) -> Vec<f32> {
    (0..image.samples.len())
        .map(|n| image.samples.value(n))
        .collect()
}

fn read(bytes: &[u8]) -> Image {
    let folder = folder();
    let path = folder.path().join("image.nii");
    write(&path, bytes);
    volume::read_image(&path, None).unwrap()
}

#[test]
fn every_type_is_read_in_both_byte_orders_both_versions_and_gzipped() {
    let numbers: Vec<i64> = (0..24).map(|n| n * 5).collect();
    let expected: Vec<f32> = numbers.iter().map(|&n| n as f32).collect();
    for datatype in TYPES {
        for (version, big_endian) in [(1, false), (1, true), (2, false), (2, true)] {
            let mut raw = Raw::new(&[2, 3, 4], datatype);
            if version == 2 {
                raw = raw.version_2();
            }
            raw.big_endian = big_endian;
            let plain = raw.file(&voxels(datatype, big_endian, &numbers));
            for file in [gzipped(&plain), plain] {
                let image = read(&file);
                assert_eq!(
                    values(&image),
                    expected,
                    "{datatype} {version} {big_endian}"
                );
                assert_eq!(image.geometry.shape, [2, 3, 4]);
                assert_eq!(image.geometry.affine.0, raw.sform);
                let narrow = !matches!(image.samples, Samples::F32(_));
                assert_eq!(narrow, [2, 4, 256, 512].contains(&datatype));
            }
        }
    }
}

#[test]
fn negative_values_and_the_ends_of_types_are_kept() {
    let cases: [(i16, &[i64]); 5] = [
        (256, &[-128, 127]),
        (4, &[-32768, 32767]),
        (512, &[0, 65535]),
        (8, &[-16_777_216, 16_777_216]),
        (1024, &[-5, 7]),
    ];
    for (datatype, ends) in cases {
        let file = Raw::new(&[2, 1, 1], datatype).file(&voxels(datatype, false, ends));
        assert_eq!(values(&read(&file)), [ends[0] as f32, ends[1] as f32]);
    }
}

#[test]
fn voxels_begin_where_vox_offset_says() {
    for offset in [352.0, 353.0, 1024.0, 3001.0] {
        let raw = Raw::new(&[3, 1, 1], 4).with(|r| r.vox_offset = offset);
        let file = raw.file(&voxels(4, false, &[1, -2, 3]));
        assert_eq!(values(&read(&file)), [1.0, -2.0, 3.0], "{offset}");
        assert_eq!(
            values(&read(&gzipped(&file))),
            [1.0, -2.0, 3.0],
            "{offset} gz"
        );
    }
}

#[test]
fn a_slope_is_applied_and_one_that_means_nothing_is_not() {
    let read = |slope: f64, intercept: f64, datatype: i16| {
        let raw = Raw::new(&[3, 1, 1], datatype).with(|r| {
            r.slope = slope;
            r.intercept = intercept;
        });
        values(&read(&raw.file(&voxels(datatype, false, &[0, 1, 100]))))
    };
    for datatype in TYPES {
        assert_eq!(read(0.5, -3.0, datatype), [-3.0, -2.5, 47.0]);
        assert_eq!(read(0.5, f64::NAN, datatype), [0.0, 0.5, 50.0]);
        for nothing in [0.0, f64::NAN, f64::INFINITY] {
            assert_eq!(read(nothing, 7.0, datatype), [0.0, 1.0, 100.0], "{nothing}");
        }
    }
}

#[test]
fn bitpix_is_not_believed() {
    let raw = Raw::new(&[3, 1, 1], 4).with(|r| r.bitpix = 8);
    assert_eq!(
        values(&read(&raw.file(&voxels(4, false, &[1, 2, 300])))),
        [1.0, 2.0, 300.0]
    );
}

#[test]
fn gzip_is_known_by_content_and_may_have_several_members() {
    let folder = folder();
    let numbers: Vec<i64> = (0..1000).collect();
    let file = Raw::new(&[10, 10, 10], 4).file(&voxels(4, false, &numbers));
    let mut members = gzipped(&file[..700]);
    members.extend(gzipped(&[]));
    members.extend(gzipped(&file[700..]));
    members.extend([0; 100]);
    for (name, bytes) in [
        ("a.nii", gzipped(&file)),
        ("b.nii.gz", file),
        ("c.nii.gz", members),
    ] {
        let path = folder.path().join(name);
        write(&path, &bytes);
        let image = volume::read_image(&path, None).unwrap();
        assert_eq!(image.samples.value(999), 999.0, "{name}");
    }
}

#[test]
fn bytes_after_the_voxels_do_no_harm() {
    let mut file = Raw::new(&[3, 1, 1], 4).file(&voxels(4, false, &[1, 2, 3]));
    file.extend([9; 100]);
    assert_eq!(values(&read(&file)), [1.0, 2.0, 3.0]);
    assert_eq!(values(&read(&gzipped(&file))), [1.0, 2.0, 3.0]);
}

#[test]
fn labels_are_exact() {
    let folder = folder();
    let path = folder.path().join("labels.nii");
    let labels = [0, 16_777_217, -7, i64::from(i32::MAX)];
    for datatype in [8, 64, 1024] {
        write(
            &path,
            &Raw::new(&[2, 2, 1], datatype).file(&voxels(datatype, false, &labels)),
        );
        let read = volume::read_label_map(&path).unwrap();
        assert_eq!(read.voxels, [0, 16_777_217, -7, i32::MAX]);
    }
    write(
        &path,
        &Raw::new(&[2, 2, 1], 16).file(&voxels(16, true, &[0, 1, 2, 3])),
    );
    let raw = Raw::new(&[2, 2, 1], 16).with(|r| r.big_endian = true);
    write(&path, &raw.file(&voxels(16, true, &[0, 1, 2, 3])));
    assert_eq!(volume::read_label_map(&path).unwrap().voxels, [0, 1, 2, 3]);
}

#[test]
fn a_mask_may_be_of_any_type_even_a_scaled_one() {
    let folder = folder();
    let path = folder.path().join("mask.nii");
    for datatype in TYPES {
        write(
            &path,
            &Raw::new(&[2, 2, 1], datatype).file(&voxels(datatype, false, &[0, 1, 1, 0])),
        );
        assert_eq!(volume::read_mask(&path).unwrap().voxels, [0, 1, 1, 0]);
    }
    // What nibabel makes of a float mask saved as uint8.
    let raw = Raw::new(&[2, 2, 1], 2).with(|r| r.slope = 1.0 / 255.0);
    write(&path, &raw.file(&[0, 255, 0, 255]));
    assert_eq!(volume::read_mask(&path).unwrap().voxels, [0, 1, 0, 1]);
}

#[test]
fn one_slice_and_trailing_dimensions_of_1_are_volumes() {
    for shape in [
        &[3, 2][..],
        &[3, 2, 1],
        &[3, 2, 1, 1],
        &[3, 2, 1, 1, 1, 1, 1],
    ] {
        let image = read(&Raw::new(shape, 4).file(&voxels(4, false, &[1, 2, 3, 4, 5, 6])));
        assert_eq!(image.geometry.shape, [3, 2, 1]);
    }
    // What stands behind the last dimension means nothing.
    let raw = Raw::new(&[3, 2], 4).with(|r| r.dim[3] = 0);
    assert_eq!(read(&raw.file(&[0; 12])).geometry.shape, [3, 2, 1]);
    assert_eq!(
        read(&Raw::new(&[1, 1, 1], 4).file(&[7, 0]))
            .samples
            .value(0),
        7.0
    );
}

#[test]
fn a_frame_is_chosen_by_number() {
    let folder = folder();
    let path = folder.path().join("series.nii");
    let numbers: Vec<i64> = (0..18).collect();
    let file = Raw::new(&[3, 2, 1, 3], 4).file(&voxels(4, false, &numbers));
    for bytes in [gzipped(&file), file] {
        write(&path, &bytes);
        for frame in 0..3 {
            let image = volume::read_image(&path, Some(frame)).unwrap();
            let first = 6.0 * frame as f32;
            assert_eq!(
                values(&image),
                [0.0, 1.0, 2.0, 3.0, 4.0, 5.0].map(|v| v + first)
            );
        }
    }
}

#[test]
fn a_pair_of_header_and_voxels_is_found_from_either_name() {
    let folder = folder();
    let raw = Raw::new(&[3, 1, 1], 4).with(|r| {
        r.magic = b"ni1\0".to_vec();
        r.vox_offset = 0.0;
    });
    let data = voxels(4, false, &[1, 2, 3]);
    write(&folder.path().join("a.hdr"), &raw.header());
    write(&folder.path().join("a.img"), &data);
    write(&folder.path().join("b.hdr"), &raw.header());
    write(&folder.path().join("b.img.gz"), &gzipped(&data));
    write(&folder.path().join("c.hdr.gz"), &gzipped(&raw.header()));
    write(&folder.path().join("c.img.gz"), &gzipped(&data));
    for name in [
        "a.hdr", "a.img", "b.hdr", "b.img.gz", "c.hdr.gz", "c.img.gz",
    ] {
        let image = volume::read_image(&folder.path().join(name), None).unwrap();
        assert_eq!(values(&image), [1.0, 2.0, 3.0], "{name}");
    }
}

#[test]
fn the_qform_places_a_volume_without_sform() {
    // Half the angle with cosine 0.6: sin² = 0.2. qfac -1 turns k over.
    let raw = Raw::new(&[2, 2, 2], 2).with(|r| {
        r.qform_code = 1;
        r.sform_code = 0;
        r.pixdim[0] = -1.0;
        r.quaternion = [0.0, 0.0, 0.2_f64.sqrt()];
        r.quaternion_offset = [10.0, -20.0, 30.0];
    });
    let affine = |raw: &Raw| read(&raw.file(&[0; 8])).geometry.affine.0;
    let close = |found: [[f64; 4]; 3]| {
        for n in 0..12 {
            assert!(
                (found[n / 4][n % 4] - SFORM[n / 4][n % 4]).abs() < 1e-6,
                "{found:?}"
            );
        }
    };
    close(affine(&raw));
    close(affine(&raw.clone().version_2()));
    let negative = raw.clone().with(|r| r.pixdim[2] = -3.0);
    close(affine(&negative));
    let upwards = affine(&raw.with(|r| r.pixdim[0] = 0.0));
    assert_eq!(upwards[2][2], 4.0);
}

#[test]
fn without_any_form_the_middle_is_the_origin() {
    let raw = Raw::new(&[5, 7], 2).with(|r| r.sform_code = 0);
    let found = read(&raw.file(&[0; 35])).geometry.affine.0;
    let expected = [
        [-2.0, 0.0, 0.0, 4.0],
        [0.0, 3.0, 0.0, -9.0],
        [0.0, 0.0, 4.0, 0.0],
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_sform_wins_where_it_and_the_qform_differ() {
    let raw = Raw::new(&[2, 2, 2], 2).with(|r| r.qform_code = 1);
    let found = read(&raw.file(&[0; 8])).geometry.affine.0;
    assert_eq!(found, raw.sform);
    // A code below 0 is no code.
    let raw = raw.with(|r| r.sform_code = -1);
    let found = read(&raw.file(&[0; 8])).geometry.affine.0;
    let expected = [
        [2.0, 0.0, 0.0, 0.0],
        [0.0, 3.0, 0.0, 0.0],
        [0.0, 0.0, 4.0, 0.0],
    ];
    assert_eq!(found, expected);
}
