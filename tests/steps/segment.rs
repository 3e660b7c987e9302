//! A network of nnU-Net's, run by `voxmask-segment`, against what nnU-Net 2.8.1 made of the same scan
//! (`tests/nnunet/golden.py`).

use std::path::{Path, PathBuf};

use voxmask::network::windows::WindowNetwork;
use voxmask::step::{Context, Device};
use voxmask::volume;

use crate::common::{read_json, run};

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
        (|card| card["kind"] = "coarse-grid".into(), "windows"),
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
fn a_card_for_windows_does_not_run_on_a_coarse_grid() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("mask.nii.gz");
    let mut arguments = arguments(&data("model"), &output);
    let refused = run("segment-foreground", &arguments).expect(2);
    assert!(refused.stderr.contains("--label"), "{}", refused.stderr);
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
