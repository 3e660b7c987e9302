//! A network of nnU-Net's, run by `voxmask-segment`, against what nnU-Net 2.8.1 made of the same scan
//! (`tests/nnunet/golden.py`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use voxmask::network::windows::WindowNetwork;
use voxmask::step::{Context, Device};
use voxmask::volume::{self, Mask};

use crate::common::phantom::{PLAIN, Phantom};
use crate::common::{executable, read_json, run};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/nnunet")
        .join(name)
}

fn model(change: impl Fn(&mut serde_json::Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut card = read_json(&data("model/card.json"));
    change(&mut card);
    std::fs::write(folder.path().join("card.json"), card.to_string()).unwrap();
    let weights = folder.path().join("model.onnx");
    std::fs::copy(data("model/model.onnx"), weights).unwrap();
    folder
}

/// What is done to a good card, and what is then said.
type Change = (fn(&mut serde_json::Value), &'static str);

fn arguments(model: &Path, output: &Path) -> Vec<PathBuf> {
    let flags = ["--input", "--model", "--output"].map(PathBuf::from);
    let paths = [data("scan.nii.gz"), model.into(), output.into()];
    flags
        .into_iter()
        .zip(paths)
        .flat_map(|(f, p)| [f, p])
        .collect()
}

#[test]
fn labels_are_those_of_nnunet() {
    let folder = tempfile::tempdir().unwrap();
    for (mirroring, golden) in [("off", "labels.nii.gz"), ("on", "labels_mirrored.nii.gz")] {
        let output = folder.path().join(golden);
        let flag = format!("--mirroring={mirroring}");
        let mut arguments = arguments(&data("model"), &output);
        arguments.push(flag.into());
        run("segment", arguments).expect(0);
        let found = volume::read_label_map(&output).unwrap();
        let wanted = volume::read_label_map(&data(golden)).unwrap();
        assert_eq!(found.shape(), wanted.shape());
        let pairs = found.voxels.iter().zip(&wanted.voxels);
        let differing = pairs.filter(|(a, b)| a != b).count();
        assert!(differing <= 1, "{differing} of {}", found.voxels.len());
        for label in 0..3 {
            assert!(wanted.voxels.iter().filter(|&&v| v == label).count() > 100);
        }
        let scan = volume::read_image(&data("scan.nii.gz"), None).unwrap();
        assert_eq!(found.geometry.affine, scan.geometry.affine);
    }
}

#[test]
fn the_tensor_is_that_of_nnunet() {
    let context = Context {
        device: Device::Cpu,
        ..Context::default()
    };
    let network = WindowNetwork::load(&data("model"), &context).unwrap();
    let scan = volume::read_image(&data("scan.nii.gz"), None).unwrap();
    let tensor = network.tensor(vec![scan]).unwrap();
    let bytes = std::fs::read(data("tensor.npy")).unwrap();
    // NumPy's header is followed by the values; nnU-Net's axes are ours.
    let values = &bytes[bytes.len() - 4 * tensor.channels[0].len()..];
    let wanted = values
        .chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    let wanted: Vec<f32> = wanted.collect();
    let mean = wanted.iter().sum::<f32>() / wanted.len() as f32;
    let variance = wanted.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / wanted.len() as f32;
    let pairs = tensor.channels[0].iter().zip(&wanted);
    let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most <= 1e-4 * variance.sqrt(), "{most}");
}

#[test]
fn a_network_that_is_damaged_or_foreign_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("labels.nii.gz");
    let cases: [Change; 5] = [
        (|card| card["weights"][0]["sha256"] = "00".into(), "sha256"),
        (
            |card| card["weights"][0]["file"] = "other.onnx".into(),
            "other.onnx",
        ),
        (|card| card["kind"] = "of-another-kind".into(), "windows"),
        (
            |card| card["input"]["axes"] = serde_json::json!([0, 0, 1]),
            "axes",
        ),
        (
            |card| card["window"]["shape"] = serde_json::json!([8, 12, 16]),
            "cannot be run",
        ),
    ];
    for (change, said) in cases {
        let model = model(change);
        let refused = run("segment", arguments(model.path(), &output)).expect(69);
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
        assert!(!output.exists());
    }
    let mut two = arguments(&data("model"), &output);
    two.extend(["--input".into(), data("scan.nii.gz")]);
    let refused = run("segment", two).expect(2);
    assert!(
        refused.stderr.contains("takes 1 images"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_network_on_a_coarse_grid_gives_no_label_map_and_has_no_labels() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("labels.nii.gz");
    let coarse = data("../models/foreground");
    let refused = run("segment", arguments(&coarse, &output)).expect(69);
    assert!(refused.stderr.contains("windows"), "{}", refused.stderr);
    for flag in ["--label=bright", "--mirroring"] {
        let mut arguments = arguments(&coarse, &output);
        arguments.push(flag.into());
        run("segment-foreground", arguments).expect(2);
    }
    assert!(!output.exists());
}

/// Runs a mask step for a label, with its probability; gives back both.
fn mask_and_probability(step: &str, model: &Path, label: &str) -> (Mask, Vec<f32>) {
    let folder = tempfile::tempdir().unwrap();
    let mask = folder.path().join("mask.nii.gz");
    let probability = folder.path().join("probability.nii.gz");
    let mut arguments = arguments(model, &mask);
    arguments.extend(["--label".into(), label.into()]);
    arguments.extend(["--probability".into(), probability.clone()]);
    run(step, arguments).expect(0);
    let image = volume::read_image(&probability, None).unwrap();
    let mask = volume::read_mask(&mask).unwrap();
    assert_eq!(image.geometry, mask.geometry);
    let mut values = vec![0.0; image.geometry.voxel_count()];
    image.samples.read_run(0, &mut values);
    (mask, values)
}

#[test]
fn probabilities_of_all_labels_sum_to_1_and_the_label_has_the_highest() {
    let labels = ["background", "dark", "bright"];
    let steps = ["segment-foreground", "segment-anonymization-area"];
    let found: Vec<(Mask, Vec<f32>)> = labels
        .iter()
        .zip(steps.iter().cycle())
        .map(|(label, step)| mask_and_probability(step, &data("model"), label))
        .collect();
    let golden = volume::read_label_map(&data("labels.nii.gz")).unwrap();
    let (mut clear, mut outside) = (0, 0);
    for (n, &label) in golden.voxels.iter().enumerate() {
        let shares = [0, 1, 2].map(|c| found[c].1[n]);
        let sum: f32 = shares.iter().sum();
        assert!((sum - 1.0).abs() < 0.0016, "{shares:?}");
        assert_eq!(found.iter().map(|(mask, _)| mask.voxels[n]).sum::<u8>(), 1);
        let own = shares[label as usize];
        let others = (0..3).filter(|&c| c != label as usize);
        let next = others.map(|c| shares[c]).fold(0.0, f32::max);
        assert!(own > next - 0.0021, "{label}: {shares:?}");
        clear += usize::from(own - next > 0.1 && own < 0.999);
        outside += usize::from(shares == [1.0, 0.0, 0.0]);
    }
    // Neither certain everywhere nor a toss-up; and what is cropped away is background.
    assert!(clear > 1000 && outside > 1000, "{clear}, {outside}");
}

#[test]
fn the_probability_of_a_region_is_above_a_half_where_its_mask_is() {
    let regions = model(|card| card["output"]["decision"] = "regions".into());
    let (mask, shares) = mask_and_probability("segment-foreground", regions.path(), "bright");
    let (mut inside, mut between) = (0, 0);
    for (&marked, &share) in mask.voxels.iter().zip(&shares) {
        assert!(
            if marked == 1 {
                share >= 0.5
            } else {
                share <= 0.5
            },
            "{marked}: {share}"
        );
        inside += usize::from(marked);
        between += usize::from((0.05..0.95).contains(&share));
    }
    assert!(inside > 100 && between > 100, "{inside}, {between}");
}

#[test]
fn a_card_for_windows_does_not_run_on_a_coarse_grid() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("mask.nii.gz");
    let mut arguments = arguments(&data("model"), &output);
    let refused = run("segment-foreground", &arguments).expect(2);
    assert!(refused.stderr.contains("\"bright\""), "{}", refused.stderr);
    arguments.extend(["--label".into(), "bright".into()]);
    run("segment-foreground", &arguments).expect(0);
    let mask = volume::read_mask(&output).unwrap();
    let golden = volume::read_label_map(&data("labels.nii.gz")).unwrap();
    let pairs = mask.voxels.iter().zip(&golden.voxels);
    let differing = pairs
        .filter(|(a, b)| i32::from(**a) != i32::from(**b == 2))
        .count();
    assert!(differing <= 1, "{differing}");
}

/// Runs `voxmask-segment` and gives back the most memory that it held [MB].
fn peak_mb(model: &Path, scan: &Path, output: &Path) -> f64 {
    let mut child = Command::new(executable("segment"))
        .args([Path::new("--input"), scan, Path::new("--model"), model])
        .args([Path::new("--output"), output])
        .args(["--threads", "2", "--quiet", "--device", "cpu"])
        .spawn()
        .unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak_kb = 0.0;
    while child.try_wait().unwrap().is_none() {
        // The kernel's own high-water mark; gone once the process is.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kb) = line.and_then(|line| line.split_whitespace().next()) {
            peak_kb = kb.parse().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
    peak_kb / 1024.0
}

#[test]
fn twenty_five_labels_are_right_and_take_hardly_more_memory_than_two() {
    const SHAPE: [usize; 3] = [160, 160, 120];
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("ramp.nii.gz");
    // 0 to 24 along the diagonal: an image that splines and straight lines keep as it is, but at its
    // ends.
    let value = |[i, j, _]: [usize; 3]| 24.0 * (i + j) as f32 / (SHAPE[0] + SHAPE[1] - 2) as f32;
    Phantom::new(SHAPE, PLAIN, value).write_floats(&scan);
    let run = |labels: u16| {
        let output = folder.path().join(format!("{labels}.nii.gz"));
        let peak = peak_mb(
            &data(&format!("../models/nearest-{labels}")),
            &scan,
            &output,
        );
        (peak, volume::read_label_map(&output).unwrap())
    };
    let ((few_mb, few), (many_mb, many)) = (run(2), run(25));
    let mut checked = 0;
    for (n, (&few, &many)) in few.voxels.iter().zip(&many.voxels).enumerate() {
        let index = [
            n % SHAPE[0],
            n / SHAPE[0] % SHAPE[1],
            n / (SHAPE[0] * SHAPE[1]),
        ];
        let value = value(index);
        let near_an_end = (0..2).any(|d| !(12..SHAPE[d] - 12).contains(&index[d]));
        let tie = (value.fract() - 0.5).abs() < 0.03;
        if near_an_end || tie {
            continue;
        }
        checked += 1;
        assert_eq!(many, value.round() as i32, "{index:?}");
        assert_eq!(few, (value.round() as i32).min(1), "{index:?}");
    }
    assert!(checked > 2_000_000, "{checked}");
    // All classes at full size, at two bytes each.
    let voxels: usize = SHAPE.iter().product();
    let whole_mb = 25.0 * 2.0 * voxels as f64 / f64::from(1 << 20);
    println!("{few_mb:.0} MB with 2 labels, {many_mb:.0} MB with 25; full size {whole_mb:.0} MB");
    assert!(many_mb - few_mb < 0.25 * whole_mb, "{few_mb}, {many_mb}");
}
