//! `voxmask-crop-patches`.

use std::path::Path;

use serde_json::Value;

use crate::common::phantom::{self, Phantom, Written, oblique};
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

/// Shape and values of a NumPy file in Fortran order.
fn read_npy(path: &Path) -> ([usize; 3], Vec<f64>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(header.contains("'fortran_order': True"), "{header}");
    let (_, shape) = header.split_once("'shape': (").unwrap();
    let (shape, _) = shape.split_once(')').unwrap();
    let shape: Vec<usize> = shape.split(", ").map(|n| n.parse().unwrap()).collect();
    let values = if header.contains("'<f4'") {
        let floats = bytes[start..].chunks_exact(4);
        floats
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect()
    } else {
        assert!(header.contains("'|u1'"), "{header}");
        bytes[start..].iter().map(|&v| f64::from(v)).collect()
    };
    (shape.try_into().unwrap(), values)
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
        let origin = phantom::point(&image.affine, start.map(|n| n as f64));
        for (d, wanted) in origin.iter().enumerate() {
            let found = entry["affine"][d][3].as_f64().unwrap();
            assert!((found - wanted).abs() < 1e-4);
        }
    }
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
    assert_eq!(bounds(&entries[0]).0, [-12, 3, -6]);
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
fn an_empty_foreground_gives_an_empty_index() {
    let folder = tempfile::tempdir().unwrap();
    scan(folder.path());
    Phantom::new(SHAPE, oblique(), |_| 0.0).write(&folder.path().join("foreground.nii.gz"));
    for sampling in ["grid", "random"] {
        crop(folder.path(), &["--sampling", sampling]).expect(0);
        let written = files(&folder.path().join("patches"));
        assert_eq!(written.len(), 1);
        assert!(written["index.jsonl"].is_empty());
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
    ] {
        crop(folder.path(), &flags).expect(2);
    }
}
