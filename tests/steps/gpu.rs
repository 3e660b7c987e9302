//! `--device cuda` against the CPU: `make check-gpu`, on a machine with an NVIDIA GPU and ONNX
//! Runtime's GPU build (`ORT_DYLIB_PATH`). Prints seconds and how many voxels differ.

use std::path::{Path, PathBuf};
use std::time::Instant;

use voxmask::volume::{self, LabelMap};

use crate::common::{read_json, run};

/// Voxels of a million that may differ: sums are added up in another order.
const MOST_DIFFERING: f64 = 10.0;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// Runs a step on a device; gives the labels and the seconds, which the first run on a GPU spends
/// mostly on starting it.
fn labels(step: &str, input: &Path, model: Option<&Path>, device: &str) -> (LabelMap, f64) {
    let folder = tempfile::tempdir().unwrap();
    let (output, report) = (
        folder.path().join("labels.nii.gz"),
        folder.path().join("r.json"),
    );
    let mut arguments: Vec<&Path> = vec!["--input".as_ref(), input];
    arguments.extend(["--output".as_ref(), output.as_path()]);
    arguments.extend(["--report".as_ref(), report.as_path()]);
    arguments.extend(["--device".as_ref(), Path::new(device)]);
    if let Some(model) = model {
        arguments.extend(["--model".as_ref(), model]);
    }
    let start = Instant::now();
    run(step, arguments).expect(0);
    let seconds = start.elapsed().as_secs_f64();
    let ran_on = &read_json(&report)["result"]["network"]["device"];
    assert_eq!(ran_on, device, "{step}");
    (volume::read_label_map(&output).unwrap(), seconds)
}

#[test]
#[ignore = "needs an NVIDIA GPU and ONNX Runtime's GPU build: make check-gpu"]
fn a_gpu_gives_the_masks_of_the_cpu() {
    let nnunet = data("nnunet/model");
    let runs = [
        ("segment-foreground", "ct_abdomen.nii.gz", None),
        ("segment-foreground", "mr_head_intact.nii.gz", None),
        ("segment-anonymization-area", "mr_head_defaced.nii.gz", None),
        ("segment", "nnunet/scan.nii.gz", Some(nnunet.as_path())),
    ];
    for (step, input, model) in runs {
        let (expected, on_cpu) = labels(step, &data(input), model, "cpu");
        let (found, on_gpu) = labels(step, &data(input), model, "cuda");
        let pairs = expected.voxels.iter().zip(&found.voxels);
        let differing = pairs.filter(|(a, b)| a != b).count();
        let share = 1e6 * differing as f64 / expected.voxels.len() as f64;
        println!("{step} {input}: cpu {on_cpu:.2} s, cuda {on_gpu:.2} s, {share:.2} ppm differ");
        assert!(expected.voxels.iter().any(|&v| v > 0), "{step} {input}");
        assert!(share <= MOST_DIFFERING, "{step} {input}: {share} ppm");
    }
}
