//! Inputs that are missing, spoiled, or odd but sound.

use std::path::Path;

use crate::common::phantom::{self, PLAIN, Phantom, oblique, put, put_dim};
use crate::common::table::{Case, TABLE};
use crate::common::{files, run};
use crate::with;

#[test]
fn a_missing_input_or_a_folder_as_input_is_66() {
    for row in TABLE {
        for (flag, _) in row.inputs {
            let case = Case::new(row);
            let input = case.input(flag);
            std::fs::remove_file(&input).unwrap();
            let before = files(case.folder());
            let refused = run(row.step, case.arguments()).expect(66);
            assert!(
                refused.stderr.contains(input.to_str().unwrap()),
                "{}",
                refused.stderr
            );
            assert_eq!(files(case.folder()), before);
            std::fs::create_dir(&input).unwrap();
            let refused = run(row.step, case.arguments()).expect(66);
            assert!(refused.stderr.contains("is a folder"), "{}", refused.stderr);
        }
    }
}

/// A way to spoil a file: its name, and what it makes of a good one before gzip.
type Spoiled = (&'static str, fn(&Path));

fn spoil(path: &Path, header: impl Fn(&mut Vec<u8>)) {
    let phantom = Phantom::ball([24, 20, 12], oblique());
    let bytes: Vec<u8> = phantom
        .values
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let mut file = phantom::nifti(phantom.shape, phantom.affine, (16, 32), &bytes);
    header(&mut file);
    phantom::write(path, &file);
}

const SPOILED: &[Spoiled] = &[
    ("an empty file", |path| std::fs::write(path, "").unwrap()),
    ("no NIfTI", |path| {
        std::fs::write(path, "Dear Sir or Madam, ".repeat(100)).unwrap();
    }),
    ("a truncated gzip", |path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() * 2 / 3]).unwrap();
    }),
    ("a gzip cut off in its header", |path| {
        std::fs::write(path, [0x1f, 0x8b, 8]).unwrap();
    }),
    ("a wrong checksum", |path| {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.len() - 8;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }),
    ("a size that the file does not have", |path| {
        spoil(path, |file| put_dim(file, 3, 500));
    }),
    ("30 dimensions", |path| {
        spoil(path, |file| put_dim(file, 0, 30))
    }),
    ("a negative dimension", |path| {
        spoil(path, |file| put_dim(file, 2, -5))
    }),
    ("no voxel along an axis", |path| {
        spoil(path, |file| put_dim(file, 1, 0))
    }),
    ("32767 voxels along each axis", |path| {
        spoil(path, |file| (1..4).for_each(|n| put_dim(file, n, i16::MAX)));
    }),
    ("a type that is none", |path| {
        spoil(path, |file| put(file, 70, &77_i16.to_le_bytes()));
    }),
    ("a singular affine", |path| {
        spoil(path, |file| put(file, 296, &[0; 16]));
    }),
    ("an affine that is not a number", |path| {
        spoil(path, |file| put(file, 284, &f32::NAN.to_le_bytes()));
    }),
    ("voxels beyond the file's end", |path| {
        spoil(path, |file| put(file, 108, &1e9_f32.to_le_bytes()));
    }),
    ("NaN voxels", |path| {
        spoil(path, |file| put(file, 1000, &f32::NAN.to_le_bytes()));
    }),
    ("infinite voxels", |path| {
        spoil(path, |file| put(file, 1000, &f32::INFINITY.to_le_bytes()));
    }),
];

/// Faults that do not concern the header.
const BEYOND_THE_HEADER: &[&str] = &[
    "a truncated gzip",
    "a wrong checksum",
    "a size that the file does not have",
    "32767 voxels along each axis",
    "voxels beyond the file's end",
    "NaN voxels",
    "infinite voxels",
];

#[test]
fn an_unusable_input_is_65_and_leaves_nothing_behind() {
    for row in TABLE {
        for (flag, _) in row.inputs {
            for (name, spoil) in SPOILED {
                // Of a grid to be like, only the header is read.
                if *flag == "--like" && BEYOND_THE_HEADER.contains(name) {
                    continue;
                }
                let case = Case::new(row);
                spoil(&case.input(flag));
                let before = files(case.folder());
                let refused = run(row.step, case.arguments());
                assert_eq!(
                    refused.code,
                    Some(65),
                    "{} {flag}: {name}: {refused:?}",
                    row.step
                );
                let refused = refused.expect(65);
                let named = refused.stderr.contains(case.input(flag).to_str().unwrap());
                assert!(named, "{} {flag}: {name}: {}", row.step, refused.stderr);
                assert_eq!(files(case.folder()), before, "{} {flag}: {name}", row.step);
            }
        }
    }
}

#[test]
fn a_mask_must_hold_0_and_1_on_the_images_grid() {
    for row in TABLE.iter().filter(|row| row.inputs.len() > 1) {
        for (flag, _) in row.inputs[1..].iter().filter(|(f, _)| *f != "--like") {
            let case = Case::new(row);
            Phantom::ball([24, 20, 12], PLAIN).write(&case.input(flag));
            let refused = run(row.step, case.arguments()).expect(65);
            assert!(
                refused.stderr.contains("grid"),
                "{} {flag}: {}",
                row.step,
                refused.stderr
            );
        }
    }
    let row = TABLE.iter().find(|row| row.step == "crop-patches").unwrap();
    let case = Case::new(row);
    let mut mask = Phantom::ball([24, 20, 12], oblique());
    mask.values[100] = 2.0;
    mask.write(&case.input("--foreground"));
    let blamed = |name: &str| {
        let refused = run(row.step, case.arguments()).expect(65);
        let path = case.input(name);
        assert!(
            refused.stderr.contains(path.to_str().unwrap()),
            "{name}: {}",
            refused.stderr
        );
    };
    blamed("--foreground");
    // They are read side by side; which is named does not depend on which is done first.
    spoil(&case.input("--input"), |file| {
        put(file, 1000, &f32::NAN.to_le_bytes())
    });
    blamed("--foreground");
    // A mask may lie off the grid because the image is no good.
    Phantom::ball([24, 20, 12], PLAIN).write(&case.input("--foreground"));
    blamed("--input");
}

#[test]
fn odd_but_sound_volumes_are_taken() {
    let mirrored = [
        [1.0, 0.0, 0.0, 0.0],
        [0.0, -2.0, 0.0, 5.0],
        [0.0, 0.0, 0.7, 0.0],
    ];
    for row in TABLE {
        for (shape, affine) in [
            ([16, 12, 1], oblique()),
            ([1, 1, 1], oblique()),
            ([1, 30, 9], PLAIN),
            ([16, 12, 9], mirrored),
        ] {
            let case = Case::with_grid(row, shape, affine);
            let done = run(row.step, with(&case.arguments(), &["--quiet"]));
            assert_eq!(done.code, Some(0), "{} {shape:?}: {done:?}", row.step);
        }
        let case = Case::new(row);
        for (flag, _) in row.inputs {
            Phantom::new([24, 20, 12], oblique(), |_| 0.0).write(&case.input(flag));
        }
        let done = run(row.step, case.arguments());
        assert_eq!(done.code, Some(0), "{} all zero: {done:?}", row.step);
    }
}

#[test]
fn paths_need_not_be_ascii() {
    for row in TABLE {
        let case = Case::new(row);
        let folder = case.path("Größe 大きさ");
        std::fs::create_dir(&folder).unwrap();
        let image = folder.join("бэ ü.nii.gz");
        std::fs::copy(case.input("--input"), &image).unwrap();
        let mut arguments = case.arguments();
        arguments[1] = image.display().to_string();
        assert_eq!(arguments[0], "--input");
        run(row.step, arguments).expect(0);
    }
}
