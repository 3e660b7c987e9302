//! `voxmask-qa-metrics`.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::phantom::{Phantom, oblique};
use crate::common::{Run, read_json, run};

const SHAPE: [usize; 3] = [24, 20, 12];

fn block(start: [usize; 3], end: [usize; 3]) -> Phantom {
    Phantom::block(SHAPE, oblique(), start, end)
}

/// Runs with what lies in the folder: a prediction and, if it is there, a reference.
fn measure(folder: &Path, flags: &[&str]) -> Run {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut arguments = vec!["--overwrite".to_owned(), "--quiet".to_owned()];
    arguments.extend(["--input".to_owned(), path("prediction.nii.gz")]);
    if folder.join("reference.nii.gz").exists() {
        arguments.extend(["--reference".to_owned(), path("reference.nii.gz")]);
    }
    arguments.extend(["--report".to_owned(), path("report.json")]);
    arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
    run("qa-metrics", arguments)
}

fn measured(folder: &Path, flags: &[&str]) -> Value {
    measure(folder, flags).expect(0);
    read_json(&folder.join("report.json"))["result"].clone()
}

fn folder(prediction: &Phantom, reference: &Phantom) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    prediction.write(&folder.path().join("prediction.nii.gz"));
    reference.write(&folder.path().join("reference.nii.gz"));
    folder
}

fn close(found: &Value, wanted: f64) -> bool {
    found
        .as_f64()
        .is_some_and(|found| (found - wanted).abs() < 1e-4)
}

#[test]
fn a_shifted_block_scores_as_worked_out_by_hand() {
    // Shifted by two voxels of 1.5 mm along i: 6 of 8 voxels are shared.
    let folder = folder(
        &block([6, 4, 3], [14, 12, 9]),
        &block([4, 4, 3], [12, 12, 9]),
    );
    let result = measured(folder.path(), &["--tolerance-mm", "3.01"]);
    let overall = &result["comparison"]["overall"];
    assert!(close(&overall["dice"], 0.75), "{overall}");
    assert!(close(&overall["hd_mm"], 3.0), "{overall}");
    assert!(close(&overall["hd95_mm"], 3.0), "{overall}");
    assert!(close(&overall["nsd"], 1.0), "{overall}");
    assert_eq!(overall["tolerance_mm"], 3.01);
    // 8 × 8 × 6 voxels of 4.5 mm³.
    assert!(close(&overall["volume_ml"], 1.728), "{overall}");
    assert!(close(&overall["reference_volume_ml"], 1.728), "{overall}");
    assert_eq!(result["comparison"]["labels"][0]["label"], 1);
    let strict = measured(folder.path(), &["--tolerance-mm", "0.5"]);
    let nsd = strict["comparison"]["overall"]["nsd"].as_f64().unwrap();
    assert!((0.4..0.8).contains(&nsd), "{nsd}");
}

#[test]
fn missed_thresholds_end_with_1_only_when_strict() {
    let folder = folder(
        &block([6, 4, 3], [14, 12, 9]),
        &block([4, 4, 3], [12, 12, 9]),
    );
    let result = measured(folder.path(), &["--min-dice", "0.9"]);
    assert_eq!(
        result["missed"],
        json!(["dice of label 1 is 0.7500, below 0.9"])
    );
    for (flags, name) in [
        (["--min-dice", "0.9"], "dice"),
        (["--max-hd95-mm", "2"], "hd95_mm"),
        (["--min-nsd", "0.99"], "nsd"),
    ] {
        let run = measure(folder.path(), &[&flags[..], &["--strict", "on"]].concat()).expect(1);
        let missed: Vec<&str> = run.stderr.lines().collect();
        assert_eq!(missed.len(), 1, "{missed:?}");
        assert!(
            missed[0].starts_with(&format!("missed: {name} of label 1 is ")),
            "{missed:?}"
        );
    }
    let reached = [
        "--min-dice",
        "0.7",
        "--max-hd95-mm",
        "4",
        "--min-nsd",
        "0.3",
        "--strict",
        "on",
    ];
    assert_eq!(measured(folder.path(), &reached)["missed"], json!([]));
}

#[test]
fn empty_masks_have_no_distance_and_say_why() {
    let (empty, full) = (block([0; 3], [0; 3]), block([4, 4, 3], [12, 12, 9]));
    let strict = [
        "--strict",
        "on",
        "--max-hd95-mm",
        "5",
        "--min-nsd",
        "0.5",
        "--min-dice",
        "0.5",
    ];

    let both = folder(&empty, &empty);
    let result = measured(both.path(), &strict);
    let overall = &result["comparison"]["overall"];
    assert_eq!(overall["dice"], 1.0);
    assert_eq!(
        overall["hd_mm"],
        json!({"value": null, "why": "both masks are empty"})
    );
    assert_eq!(result["mask"]["bounding_box"], Value::Null);

    for (prediction, reference, why) in [
        (&empty, &full, "the prediction is empty"),
        (&full, &empty, "the reference is empty"),
    ] {
        let one = folder(prediction, reference);
        let result = measured(one.path(), &[]);
        let overall = &result["comparison"]["overall"];
        assert_eq!(overall["dice"], 0.0);
        assert_eq!(overall["hd95_mm"], json!({"value": null, "why": why}));
        assert_eq!(
            measure(one.path(), &strict)
                .expect(1)
                .stderr
                .lines()
                .count(),
            3
        );
    }
}

#[test]
fn labels_are_measured_one_by_one_and_together() {
    let mut prediction = block([4, 4, 3], [12, 12, 9]);
    let mut reference = prediction.clone();
    let other = block([16, 4, 3], [20, 12, 9]);
    let half = block([16, 4, 3], [18, 12, 9]);
    for n in 0..prediction.values.len() {
        prediction.values[n] += 7.0 * half.values[n];
        reference.values[n] += 7.0 * other.values[n];
    }
    let folder = folder(&prediction, &reference);
    let result = measured(folder.path(), &[]);
    let labels = result["comparison"]["labels"].as_array().unwrap();
    assert_eq!(labels.len(), 2);
    assert_eq!(
        (&labels[0]["label"], &labels[0]["scores"]["dice"]),
        (&json!(1), &json!(1.0))
    );
    assert_eq!(labels[1]["label"], 7);
    assert!(close(&labels[1]["scores"]["dice"], 2.0 / 3.0));
    // 384 + 96 voxels against 384 + 192.
    assert!(close(
        &result["comparison"]["overall"]["dice"],
        2.0 * 480.0 / (480.0 + 576.0)
    ));

    let result = measured(folder.path(), &["--label", "7"]);
    assert_eq!(result["comparison"]["labels"].as_array().unwrap().len(), 1);
    assert!(close(&result["comparison"]["overall"]["dice"], 2.0 / 3.0));
    let missed = measured(folder.path(), &["--min-dice", "0.8"]);
    assert_eq!(missed["missed"].as_array().unwrap().len(), 1);
}

#[test]
fn ignored_voxels_count_on_neither_side() {
    let folder = folder(
        &block([4, 4, 3], [14, 12, 9]),
        &block([4, 4, 3], [12, 12, 9]),
    );
    let ignored = folder.path().join("ignored.nii.gz");
    block([12, 0, 0], [24, 20, 12]).write(&ignored);
    let result = measured(folder.path(), &["--ignore", ignored.to_str().unwrap()]);
    let overall = &result["comparison"]["overall"];
    assert_eq!(
        (&overall["dice"], &overall["hd_mm"]),
        (&json!(1.0), &json!(0.0))
    );
}

#[test]
fn a_mask_alone_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let mut mask = block([0, 4, 3], [10, 12, 9]);
    mask.values[5 + 24 * (8 + 20 * 6)] = 0.0;
    mask.write(&folder.path().join("prediction.nii.gz"));
    let image = folder.path().join("image.nii.gz");
    Phantom::new(SHAPE, oblique(), |[i, _, _]| i as f32).write(&image);
    let result = measured(folder.path(), &["--image", image.to_str().unwrap()]);
    assert_eq!(result.get("comparison"), None);
    let mask = &result["mask"];
    assert_eq!(
        (&mask["pieces"], &mask["holes"], &mask["voxels"]),
        (&json!(1), &json!(1), &json!(479))
    );
    assert_eq!(
        mask["bounding_box"],
        json!({"start": [0, 4, 3], "end": [10, 12, 9]})
    );
    // i runs to the left.
    assert_eq!(mask["touched_borders"], json!(["R"]));
    assert!(close(&mask["saved_share"], 1.0 - 479.0 / 5760.0));
    assert!(close(
        &mask["saved_by_cropping_share"],
        1.0 - 480.0 / 5760.0
    ));
    assert!(close(
        &mask["intensities"]["inside_mean"],
        (480.0 * 4.5 - 5.0) / 479.0
    ));
}

#[test]
fn an_image_is_no_label_map() {
    let folder = tempfile::tempdir().unwrap();
    let image = Phantom::new(SHAPE, oblique(), |[i, j, k]| (i + 24 * (j + 20 * k)) as f32);
    image.write(&folder.path().join("prediction.nii.gz"));
    let refused = measure(folder.path(), &[]).expect(65);
    assert!(
        refused.stderr.contains("5759 different labels"),
        "{}",
        refused.stderr
    );
}

#[test]
fn thresholds_that_make_no_sense_are_refused() {
    let alone = tempfile::tempdir().unwrap();
    block([4, 4, 3], [12, 12, 9]).write(&alone.path().join("prediction.nii.gz"));
    measure(alone.path(), &["--min-dice", "0.9"]).expect(2);
    let both = folder(
        &block([4, 4, 3], [12, 12, 9]),
        &block([4, 4, 3], [12, 12, 9]),
    );
    for flags in [
        ["--min-dice", "1.1"],
        ["--min-nsd", "nan"],
        ["--max-hd95-mm=-1", "--quiet"],
        ["--tolerance-mm", "inf"],
        ["--label", "0"],
        ["--strict", "maybe"],
    ] {
        measure(both.path(), &flags).expect(2);
    }
}
