//! `voxmask-crop-patches`.

mod formats;

use std::path::{Path, PathBuf};

use serde_json::Value;

use self::formats::read_npy;
use crate::common::phantom::{self, Phantom, oblique};
use crate::common::{Run, files, read_json, run};

const SHAPE: [usize; 3] = [40, 30, 20];

/// A scan with a ball of body, of which a corner was altered.
fn scan(folder: &Path) {
    Phantom::head(SHAPE, oblique()).write(&folder.join("image.nii.gz"));
    Phantom::ball(SHAPE, oblique()).write(&folder.join("foreground.nii.gz"));
    let area = Phantom::block(SHAPE, oblique(), [0, 0, 0], [18, 12, 20]);
    area.write(&folder.join("area.nii.gz"));
}

fn crop(folder: &Path, flags: &[&str]) -> Run {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut arguments = vec!["--overwrite".to_owned(), "--quiet".to_owned()];
    for (flag, name) in [
        ("--input", "image.nii.gz"),
        ("--foreground", "foreground.nii.gz"),
        ("--anonymization-area", "area.nii.gz"),
        ("--output", "patches"),
        ("--report", "report.json"),
    ] {
        arguments.extend([flag.to_owned(), path(name)]);
    }
    arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
    run("crop-patches", arguments)
}

fn index(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("patches/index.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn bounds(entry: &Value) -> ([i64; 3], [i64; 3]) {
    let corner = |name: &str| {
        let corner = entry["bounding_box"][name].as_array().unwrap();
        [0, 1, 2].map(|d| corner[d].as_i64().unwrap())
    };
    (corner("start"), corner("end"))
}

fn affine(entry: &Value) -> phantom::Affine {
    [0, 1, 2].map(|r| [0, 1, 2, 3].map(|c| entry["affine"][r][c].as_f64().unwrap()))
}

fn inside(at: [i64; 3], shape: [usize; 3]) -> Option<[usize; 3]> {
    let inside = (0..3).all(|d| (0..shape[d] as i64).contains(&at[d]));
    inside.then(|| at.map(|n| n as usize))
}

/// Checks every voxel of every patch against the scan.
fn check_patches(folder: &Path, patch: [usize; 3]) {
    let read = |name: &str| phantom::read(&folder.join(name));
    let (image, body, area) = (
        read("image.nii.gz"),
        read("foreground.nii.gz"),
        read("area.nii.gz"),
    );
    let lowest = image.values.iter().copied().fold(f64::MAX, f64::min);
    for entry in index(folder) {
        let (start, end) = bounds(&entry);
        assert_eq!([0, 1, 2].map(|d| (end[d] - start[d]) as usize), patch);
        let file = |key: &str| folder.join("patches").join(entry[key].as_str().unwrap());
        let (shape, values) = read_npy(&file("name"));
        let (loss_shape, loss) = read_npy(&file("loss_mask"));
        assert_eq!((shape, loss_shape), (patch, patch));
        let (mut bodies, mut altered) = (0.0, 0.0);
        for n in 0..values.len() {
            let local = [
                n % patch[0],
                n / patch[0] % patch[1],
                n / patch[0] / patch[1],
            ];
            let at = [0, 1, 2].map(|d| start[d] + local[d] as i64);
            match inside(at, SHAPE) {
                Some(at) => {
                    assert_eq!(values[n], image.at(at));
                    assert_eq!(loss[n], 1.0 - area.at(at));
                    bodies += body.at(at);
                    altered += area.at(at);
                }
                None => assert_eq!((values[n], loss[n]), (lowest, 0.0)),
            }
        }
        let share = |key: &str| entry[key].as_f64().unwrap() * values.len() as f64;
        assert!((share("foreground_share") - bodies).abs() < 1e-6);
        assert!((share("altered_share") - altered).abs() < 1e-6);
        // The corners of the patch are where the scan has them.
        let affine = affine(&entry);
        for corner in [[0, 0, 0], [patch[0], 0, 0], [0, patch[1], patch[2]]] {
            let found = phantom::point(&affine, corner.map(|n| n as f64));
            let at = [0, 1, 2].map(|d| (start[d] + corner[d] as i64) as f64);
            let wanted = phantom::point(&image.affine, at);
            assert!((0..3).all(|d| (found[d] - wanted[d]).abs() < 1e-6));
        }
    }
}

fn patch_file(folder: &Path, entry: &Value) -> PathBuf {
    let name = entry["name"].as_str().unwrap();
    folder.join("patches").join(name)
}

/// Every value of a patch inside a scan, which begins at `start` there, with its place in the scan.
fn voxels(file: &Path, start: [i64; 3]) -> Vec<([usize; 3], f64)> {
    let ([width, height, _], values) = read_npy(file);
    let place = |n: usize| {
        let local = [n % width, n / width % height, n / width / height];
        [0, 1, 2].map(|d| start[d] as usize + local[d])
    };
    let values = values.into_iter().enumerate();
    values.map(|(n, value)| (place(n), value)).collect()
}

fn held(entries: &[Value], at: [usize; 3]) -> bool {
    entries.iter().any(|entry| {
        let (start, end) = bounds(entry);
        (0..3).all(|d| (start[d]..end[d]).contains(&(at[d] as i64)))
    })
}

#[test]
fn a_grid_covers_the_foreground_with_few_patches() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    crop(folder.path(), &["--patch-shape", "8,7,6"]).expect(0);
    check_patches(folder.path(), [8, 7, 6]);
    let entries = index(folder.path());
    let body = phantom::read(&folder.path().join("foreground.nii.gz"));
    assert!(
        body.indices()
            .all(|at| body.at(at) == 0.0 || held(&entries, at))
    );
    let unused = body.indices().filter(|at| !held(&entries, *at)).count();

    let result = &read_json(&folder.path().join("report.json"))["result"];
    assert_eq!(result["count"], entries.len());
    assert_eq!(result["foreground_covered_share"], 1.0);
    // 5 × 5 × 4 patches would cover the whole scan.
    assert_eq!(result["whole_scan_count"], 100);
    assert_eq!(result["saved_share"], (100 - entries.len()) as f64 / 100.0);
    assert_eq!(result["unused_share"], unused as f64 / (40.0 * 30.0 * 20.0));
    assert!(entries.len() < 60, "{}", entries.len());
}

#[test]
fn patches_larger_than_the_scan_are_filled_up() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    crop(folder.path(), &["--patch-shape", "64,16,32"]).expect(0);
    check_patches(folder.path(), [64, 16, 32]);
    let entries = index(folder.path());
    assert_eq!(entries.len(), 2);
    for entry in &entries {
        let start = bounds(entry).0;
        assert_eq!((start[0], start[2]), (-12, -6));
        assert!((0..=14).contains(&start[1]));
    }
}

#[test]
fn random_patches_follow_the_seed_and_the_foreground() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    let draw = |seed: &str, threads: &str| {
        let flags = [
            "--sampling",
            "random",
            "--count",
            "30",
            "--patch-shape",
            "6,6,6",
        ];
        crop(
            folder.path(),
            &[&flags[..], &["--seed", seed, "--threads", threads]].concat(),
        )
        .expect(0);
        files(&folder.path().join("patches"))
    };
    let first = draw("1", "1");
    check_patches(folder.path(), [6, 6, 6]);
    let entries = index(folder.path());
    assert_eq!(entries.len(), 30);
    for entry in &entries {
        let (start, end) = bounds(entry);
        assert!((0..3).all(|d| start[d] >= 0 && end[d] <= SHAPE[d] as i64));
        assert!(entry["foreground_share"].as_f64().unwrap() > 0.0);
    }
    assert!(draw("1", "3") == first);
    assert!(draw("2", "1") != first);
}

#[test]
fn a_patch_holds_the_least_foreground_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    for sampling in ["grid", "random"] {
        let flags = ["--patch-shape", "8,8,8", "--minimum-foreground", "0.9"];
        crop(
            folder.path(),
            &[&flags[..], &["--sampling", sampling]].concat(),
        )
        .expect(0);
        let entries = index(folder.path());
        assert!(!entries.is_empty());
        assert!(
            entries
                .iter()
                .all(|e| e["foreground_share"].as_f64().unwrap() >= 0.9)
        );
    }
}

#[test]
fn spacing_turns_to_ras_and_keeps_every_trace_of_alteration() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    // One altered voxel of 1.5 × 1 × 3 mm in the middle.
    let area = Phantom::block(SHAPE, oblique(), [20, 15, 10], [21, 16, 11]);
    area.write(&folder.path().join("area.nii.gz"));
    crop(
        folder.path(),
        &["--patch-shape", "16,16,16", "--spacing", "4,4,4"],
    )
    .expect(0);
    let result = &read_json(&folder.path().join("report.json"))["result"];
    assert_eq!(result["grid"]["orientation"], "RAS");
    assert_eq!(result["grid"]["shape"], serde_json::json!([15, 8, 15]));
    let altered: f64 = index(folder.path())
        .iter()
        .map(|e| e["altered_share"].as_f64().unwrap())
        .sum();
    assert!(altered > 0.0);
}

#[test]
fn threads_decide_nothing_whatever_the_format() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    for format in ["npy", "nifti", "zarr"] {
        let with = |threads| {
            // Patches of more than one block of gzip, some more than there are threads.
            let flags = [
                "--patch-shape",
                "80,80,64",
                "--format",
                format,
                "--count",
                "9",
            ];
            let random = [
                "--sampling",
                "random",
                "--border",
                "pad",
                "--threads",
                threads,
            ];
            crop(folder.path(), &[flags, random].concat()).expect(0);
            files(&folder.path().join("patches"))
        };
        let one = with("1");
        assert!(one.len() > 9, "{format}");
        assert!(one == with("4"), "{format}");
    }
}

#[test]
fn an_empty_foreground_gives_an_empty_index() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    Phantom::new(SHAPE, oblique(), |_| 0.0).write(&folder.path().join("foreground.nii.gz"));
    for sampling in ["grid", "random"] {
        crop(folder.path(), &["--sampling", sampling]).expect(0);
        let written = files(&folder.path().join("patches"));
        assert_eq!(written.len(), 2);
        assert!(written["index.jsonl"].is_empty());
        assert_eq!(written["index.tsv"].split(|&b| b == b'\n').count(), 2);
        let result = &read_json(&folder.path().join("report.json"))["result"];
        assert_eq!(result["count"], 0);
        assert_eq!(result["foreground_covered_share"]["value"], Value::Null);
    }
}

#[test]
fn a_folder_with_other_files_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    let patches = folder.path().join("patches");
    std::fs::create_dir(&patches).unwrap();
    std::fs::write(patches.join("thesis.tex"), "years of work").unwrap();
    crop(folder.path(), &[]).expect(73);
    assert_eq!(files(&patches).len(), 1);
}

/// A random call with small patches.
const RANDOM: [&str; 6] = [
    "--sampling",
    "random",
    "--patch-shape",
    "6,5,4",
    "--seed",
    "11",
];

#[test]
fn centres_are_uniform_over_the_foreground() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    let count = 2000;
    for border in ["pad", "shift"] {
        let flags = ["--count", "2000", "--border", border, "--dtype", "int16"];
        crop(folder.path(), &[&RANDOM[..], &flags].concat()).expect(0);
        let block = |at: [usize; 3]| [at[0] / 8, at[1] / 6, at[2] / 5];
        let body = phantom::read(&folder.path().join("foreground.nii.gz"));
        let mut blocks: std::collections::BTreeMap<[usize; 3], (f64, f64)> = Default::default();
        let inside: Vec<_> = body.indices().filter(|at| body.at(*at) == 1.0).collect();
        for &at in &inside {
            let expected = f64::from(count) / inside.len() as f64;
            blocks.entry(block(at)).or_default().0 += expected;
        }
        for entry in index(folder.path()) {
            let centre = entry["centre"].as_array().unwrap();
            let centre = [0, 1, 2].map(|d| centre[d].as_u64().unwrap() as usize);
            assert_eq!(body.at(centre), 1.0);
            blocks.get_mut(&block(centre)).unwrap().1 += 1.0;
            let start = bounds(&entry).0;
            for d in 0..3 {
                let wanted = centre[d] as i64 - [3, 2, 2][d];
                let room = SHAPE[d] as i64 - [6, 5, 4][d];
                let wanted = if border == "pad" {
                    wanted
                } else {
                    wanted.clamp(0, room)
                };
                assert_eq!(start[d], wanted);
            }
        }
        let enough: Vec<_> = blocks.values().filter(|block| block.0 >= 5.0).collect();
        let chi_square: f64 = enough.iter().map(|(e, o)| (o - e).powi(2) / e).sum();
        // One in a thousand fair draws lies beyond, after Wilson and Hilferty.
        let freedom = enough.len() as f64 - 1.0;
        let part = 2.0 / (9.0 * freedom);
        let limit = freedom * (1.0 - part + 3.09 * part.sqrt()).powi(3);
        assert!(
            enough.len() > 50 && chi_square < limit,
            "{chi_square} of {limit}"
        );
    }
}

#[test]
fn every_patch_holds_body_and_padded_ones_too() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    for sampling in ["grid", "random", "anywhere"] {
        for border in ["pad", "shift"] {
            let flags = [
                "--patch-shape",
                "4,4,4",
                "--count",
                "60",
                "--border",
                border,
            ];
            crop(
                folder.path(),
                &[&flags[..], &["--sampling", sampling]].concat(),
            )
            .expect(0);
            check_patches(folder.path(), [4, 4, 4]);
            let entries = index(folder.path());
            assert!(entries.len() >= 60);
            let body = |e: &Value| e["foreground_share"].as_f64().unwrap() > 0.0;
            assert!(entries.iter().all(body), "{sampling} {border}");
            let drawn = entries.iter().all(|e| e["centre"].is_array());
            assert_eq!(drawn, sampling == "random");
        }
    }
}

#[test]
fn too_few_places_are_said_and_not_made_up() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    let area = Phantom::block(SHAPE, oblique(), [3, 3, 3], [5, 5, 5]);
    area.write(&folder.path().join("foreground.nii.gz"));
    let flags = ["--patch-shape", "8,8,8", "--sampling", "anywhere"];
    crop(
        folder.path(),
        &[&flags[..], &["--minimum-foreground", "0.5"]].concat(),
    )
    .expect(0);
    assert!(index(folder.path()).is_empty());
}

#[test]
fn resampled_patches_are_pieces_of_the_resampled_scan() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let arguments = [
        "--quiet".to_owned(),
        "--input".to_owned(),
        path("image.nii.gz"),
        "--output".to_owned(),
        path("resampled.nii.gz"),
        "--orientation=RAS".to_owned(),
        "--spacing=1.2,1.2,2".to_owned(),
    ];
    run("resample", arguments).expect(0);
    let whole = phantom::read(&folder.path().join("resampled.nii.gz"));
    let flags = ["--spacing", "1.2,1.2,2", "--threads"];
    let cut = |threads| {
        crop(folder.path(), &[&RANDOM[..], &flags, &[threads]].concat()).expect(0);
        files(&folder.path().join("patches"))
    };
    let first = cut("4");
    assert!(first == cut("1"));
    for entry in index(folder.path()) {
        let start = bounds(&entry).0;
        for (at, value) in voxels(&patch_file(folder.path(), &entry), start) {
            // The resampled scan is rounded to whole numbers.
            assert!((value - whole.at(at)).abs() <= 0.51);
        }
        let origin = phantom::point(&whole.affine, start.map(|n| n as f64));
        let found = phantom::point(&affine(&entry), [0.0; 3]);
        // As far as the f32 of the resampled scan's header goes.
        assert!((0..3).all(|d| (found[d] - origin[d]).abs() < 1e-4));
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    for flags in [
        ["--patch-shape", "0,8,8"],
        ["--patch-shape", "8,8"],
        ["--patch-shape", "8,8,-8"],
        ["--patch-shape", "8,8,99999999"],
        ["--count", "0"],
        ["--minimum-foreground", "1.5"],
        ["--minimum-foreground", "nan"],
        ["--spacing", "0,1,1"],
        ["--window", "5,5"],
        ["--window", "1"],
    ] {
        crop(folder.path(), &flags).expect(2);
    }
}
