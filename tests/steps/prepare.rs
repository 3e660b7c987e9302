//! `voxmask-prepare` over small cohorts, with the tiny networks of the tests.

mod reports;
mod resume;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::common::phantom::{self, PLAIN, Phantom, oblique};
use crate::common::{Run, files, read_json, run};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models");

/// A folder with scans, and room for results beside it.
struct Cohort {
    base: tempfile::TempDir,
}

impl Cohort {
    /// So many different scans, some of them oblique.
    fn of(count: usize) -> Self {
        let cohort = Self {
            base: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(cohort.path("in")).unwrap();
        for n in 0..count {
            let affine = if n % 2 == 0 { PLAIN } else { oblique() };
            let shape = [30 + 2 * n, 28, 20 + n];
            Phantom::head(shape, affine).write(&cohort.path(&format!("in/s{n}.nii.gz")));
        }
        cohort
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn arguments(&self, output: &str, more: &[&str]) -> Vec<String> {
        let mut arguments = vec![
            "--input".to_owned(),
            self.path("in").display().to_string(),
            "--output".to_owned(),
            self.path(output).display().to_string(),
            "--foreground-model".to_owned(),
            format!("{MODELS}/foreground"),
            "--area-model".to_owned(),
            format!("{MODELS}/anonymization-area"),
        ];
        arguments.extend(more.iter().map(|&flag| flag.to_owned()));
        arguments
    }

    fn prepare(&self, output: &str, more: &[&str]) -> Run {
        run("prepare", self.arguments(output, more))
    }

    /// Everything that was written, without what says how long it took and when.
    fn written(&self, output: &str) -> BTreeMap<String, Vec<u8>> {
        let mut written = files(&self.path(output));
        written.retain(|name, _| name != "ledger.jsonl");
        for (name, bytes) in &mut written {
            if name.ends_with(".json") {
                let mut report: Value = serde_json::from_slice(bytes).unwrap();
                if let Some(report) = report.as_object_mut() {
                    report.remove("run");
                }
                *bytes = report.to_string().into_bytes();
            }
        }
        written
    }
}

#[test]
fn good_scans_are_done_and_broken_ones_named() {
    let cohort = Cohort::of(3);
    let broken = |name: &str| cohort.path(&format!("in/{name}"));
    std::fs::write(broken("empty.nii"), "").unwrap();
    std::fs::write(broken("letter.nii"), "Dear Sir or Madam, ".repeat(100)).unwrap();
    let whole = std::fs::read(broken("s0.nii.gz")).unwrap();
    std::fs::write(broken("cut.nii.gz"), &whole[..whole.len() / 2]).unwrap();
    let nothing = phantom::nifti([8, 8, 8], PLAIN, (16, 32), &[0xff; 4 * 512]);
    phantom::write(&broken("nan.nii.gz"), &nothing);
    std::os::unix::fs::symlink("/no/such/file.nii", broken("gone.nii")).unwrap();

    let report = cohort.path("report.json");
    let key = cohort.path("key.csv");
    let flags = [
        "--report",
        report.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    let done = cohort.prepare("out", &flags).expect(65);
    let report = read_json(&report);
    let totals = &report["result"]["totals"];
    assert_eq!((&totals["scans"], &totals["done"]), (&8.into(), &3.into()));
    let left_out = report["result"]["left_out"].as_array().unwrap();
    assert_eq!(left_out.len(), 5);
    let key = std::fs::read_to_string(key).unwrap();
    let id_of = |name: &str| {
        let line = key.lines().find(|line| line.ends_with(name)).unwrap();
        line.split(',').next().unwrap().to_owned()
    };
    for (name, code, why) in [
        ("empty.nii", 65, "empty"),
        ("letter.nii", 65, ""),
        ("cut.nii.gz", 65, "truncated"),
        ("nan.nii.gz", 65, "not finite"),
        ("gone.nii", 66, "cannot be read"),
    ] {
        let id = id_of(name);
        let found = left_out.iter().find(|scan| scan["id"] == *id).unwrap();
        assert_eq!(found["exit_code"], code, "{name}");
        assert!(found["why"].as_str().unwrap().contains(why), "{found}");
        assert!(
            done.stderr.contains(&format!("{id}: left out")),
            "{}",
            done.stderr
        );
        let error = done
            .stderr
            .lines()
            .find(|l| l.starts_with("error: "))
            .unwrap();
        assert!(error.contains(&id), "{error}");
    }
    for n in 0..3 {
        let folder = cohort
            .path("out/scans")
            .join(id_of(&format!("s{n}.nii.gz")));
        let names: Vec<String> = files(&folder).into_keys().collect();
        let wanted = [
            "anonymization_area.json",
            "anonymization_area.nii.gz",
            "foreground.json",
            "foreground.nii.gz",
            "picture.png",
            "quality.json",
            "scan.json",
            "slices.jpg",
        ];
        assert_eq!(names, wanted);
    }
    let table = std::fs::read_to_string(cohort.path("out/cohort.tsv")).unwrap();
    assert_eq!(table.lines().count(), 4);
    let page = std::fs::read_to_string(cohort.path("out/cohort.html")).unwrap();
    assert_eq!(page.matches("id=\"picture-scan-").count(), 3);
}

#[test]
fn masks_and_reports_are_those_of_the_single_executables() {
    let cohort = Cohort::of(2);
    cohort.prepare("out", &["--threads", "2"]).expect(0);
    let model = |name: &str| format!("{MODELS}/{name}");
    for (_, scan) in scans(&cohort, "out") {
        let input = cohort.path(&format!("in/s{}.nii.gz", (scan.shape[0] - 30) / 2));
        let single = tempfile::tempdir().unwrap();
        let at = |name: &str| single.path().join(name).display().to_string();
        let step = |name: &str, pairs: &[(&str, String)]| {
            let pairs = pairs
                .iter()
                .flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]);
            run(name, pairs).expect(0);
        };
        let input = input.display().to_string();
        step(
            "segment-foreground",
            &[
                ("--input", input.clone()),
                ("--model", model("foreground")),
                ("--output", at("foreground.nii.gz")),
                ("--report", at("foreground.json")),
            ],
        );
        step(
            "segment-anonymization-area",
            &[
                ("--input", input.clone()),
                ("--foreground", at("foreground.nii.gz")),
                ("--model", model("anonymization-area")),
                ("--output", at("anonymization_area.nii.gz")),
                ("--picture", at("picture.png")),
                ("--report", at("anonymization_area.json")),
            ],
        );
        step(
            "qa-metrics",
            &[
                ("--input", at("foreground.nii.gz")),
                ("--image", input),
                ("--report", at("quality.json")),
            ],
        );
        for (name, bytes) in files(single.path()) {
            let ours = scan.folder.join(&name);
            if name.ends_with(".json") {
                let (ours, single) = (read_json(&ours), read_json(&single.path().join(&name)));
                for part in ["schema", "config", "result", "outputs"] {
                    assert_eq!(ours[part], single[part], "{name}: {part}");
                }
                assert_eq!(digests(&ours), digests(&single), "{name}");
            } else {
                assert!(std::fs::read(ours).unwrap() == bytes, "{name}");
            }
        }
    }
}

fn digests(report: &Value) -> Vec<&Value> {
    let inputs = report["inputs"].as_array().unwrap();
    inputs.iter().map(|input| &input["sha256"]).collect()
}

/// A scan's folder, and the shape that its report states.
struct Scan {
    folder: PathBuf,
    shape: [usize; 3],
}

fn scans(cohort: &Cohort, output: &str) -> BTreeMap<String, Scan> {
    let folders = std::fs::read_dir(cohort.path(output).join("scans")).unwrap();
    // A killed run may have left a folder half-written, hidden.
    let folders = folders.map(|entry| entry.unwrap());
    folders
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| {
            let folder = entry.path();
            let report = read_json(&folder.join("scan.json"));
            let shape = serde_json::from_value(report["result"]["shape"].clone()).unwrap();
            let id = report["result"]["id"].as_str().unwrap().to_owned();
            (id, Scan { folder, shape })
        })
        .collect()
}

#[test]
fn a_cohorts_report_and_a_scans_repeat_the_run_to_the_byte_on_any_number_of_threads() {
    let cohort = Cohort::of(4);
    let report = cohort.path("report.json");
    let flags = [
        "--max-pieces=2",
        "--self-check=on",
        "--patches",
        r#"{"patch_shape": [8, 8, 8], "sampling": "random", "count": 3}"#,
        "--report",
        report.to_str().unwrap(),
    ];
    cohort.prepare("first", &flags).expect(0);
    let first = cohort.written("first");
    let (_, scan) = scans(&cohort, "first").pop_first().unwrap();
    for (n, config) in [report, scan.folder.join("scan.json")].iter().enumerate() {
        let again = format!("again{n}");
        let threads = ["1", "5"][n];
        let flags = ["--config", config.to_str().unwrap(), "--threads", threads];
        cohort.prepare(&again, &flags).expect(0);
        let second = cohort.written(&again);
        assert_eq!(
            first.keys().collect::<Vec<_>>(),
            second.keys().collect::<Vec<_>>()
        );
        for (name, bytes) in &first {
            assert!(second[name] == *bytes, "{name} on {threads} threads");
        }
    }
}

#[test]
fn copies_are_worked_on_once_and_counted() {
    let cohort = Cohort::of(2);
    for n in 0..3 {
        let copy = cohort.path(&format!("in/copy{n}.nii.gz"));
        std::fs::copy(cohort.path("in/s0.nii.gz"), copy).unwrap();
    }
    let report = cohort.path("report.json");
    cohort
        .prepare("out", &["--report", report.to_str().unwrap()])
        .expect(0);
    let totals = read_json(&report)["result"]["totals"].clone();
    let count = |key: &str| totals[key].as_u64().unwrap();
    assert_eq!((count("scans"), count("done"), count("copies")), (5, 2, 3));
}

#[test]
fn a_scan_that_needs_more_memory_than_there_may_be_is_left_out_with_75() {
    let cohort = Cohort::of(1);
    let refused = cohort.prepare("out", &["--memory=200M"]).expect(75);
    assert!(
        refused.stderr.contains("raise --memory"),
        "{}",
        refused.stderr
    );
}

#[test]
fn results_lie_by_subject_when_asked_for() {
    let cohort = Cohort::of(1);
    let anat = cohort.path("in/sub-01/ses-2/anat");
    std::fs::create_dir_all(&anat).unwrap();
    let scan = anat.join("sub-01_ses-2_T1w.nii.gz");
    std::fs::rename(cohort.path("in/s0.nii.gz"), scan).unwrap();
    cohort.prepare("out", &["--naming=subject"]).expect(0);
    let folder = cohort.path("out/sub-01/ses-2/sub-01_ses-2_T1w");
    assert!(folder.join("foreground.nii.gz").exists());
    let report = read_json(&folder.join("scan.json"));
    assert_eq!(report["result"]["id"], "sub-01_ses-2_T1w");
}

#[test]
fn labels_of_a_network_through_windows_are_the_masks_of_the_steps_alone() {
    let windows = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/nnunet/model");
    let cohort = Cohort::of(2);
    let prepare = |output: &str, more: &[&str]| {
        let report = cohort.path(&format!("{output}.json"));
        let (input, output) = (cohort.path("in"), cohort.path(output));
        let paths = [
            ("--input", input),
            ("--output", output),
            ("--report", report),
        ];
        let mut arguments: Vec<String> = paths
            .iter()
            .flat_map(|(flag, path)| [(*flag).to_owned(), path.display().to_string()])
            .collect();
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        run("prepare", arguments)
    };
    let foreground = [
        "--foreground-model",
        windows,
        "--foreground-label",
        "bright",
    ];
    let area = ["--area-model", windows, "--area-label", "dark"];
    let both = [&foreground[..], &area[..], &["--mirroring"]].concat();
    prepare("both", &both).expect(0);
    let report = read_json(&cohort.path("both.json"));
    assert_eq!(report["config"]["foreground_label"], "bright");
    assert_eq!(report["result"]["totals"]["done"], 2);
    for n in 0..2 {
        let scan = cohort.path(&format!("in/s{n}.nii.gz"));
        let id = &voxmask::file::sha256(&scan).unwrap()[..12];
        let folder = cohort.path(&format!("both/scans/scan-{id}"));
        for (step, label, name) in [
            ("segment-foreground", "bright", "foreground"),
            ("segment-anonymization-area", "dark", "anonymization_area"),
        ] {
            let alone = cohort.path(&format!("{n}_{name}.nii.gz"));
            let paths = [
                "--input",
                scan.to_str().unwrap(),
                "--output",
                alone.to_str().unwrap(),
            ];
            let rest = ["--model", windows, "--label", label, "--mirroring"];
            run(step, paths.iter().chain(&rest)).expect(0);
            let found = std::fs::read(folder.join(format!("{name}.nii.gz"))).unwrap();
            assert!(found == std::fs::read(&alone).unwrap(), "{n}: {name}");
            let step = read_json(&folder.join(format!("{name}.json")));
            assert_eq!(step["config"]["label"], label);
            assert_eq!(step["config"]["mirroring"], "on");
        }
        let row = read_json(&folder.join("scan.json"));
        let row = &row["result"];
        assert!(row["foreground_voxels"].as_u64().unwrap() > 0);
        assert_eq!(row["modality"], "MR");
        // What only a network on a coarse grid can say.
        for measure in ["edge_entropy", "doubtful_cells", "network_agreement"] {
            assert!(row["measures"][measure].is_null(), "{measure}");
        }
    }
    // One network of each kind.
    let model = format!("{MODELS}/anonymization-area");
    let mixed = [&foreground[..], &["--area-model", &model]].concat();
    prepare("mixed", &mixed).expect(0);
    let again = [&foreground[..2], &["--area-model", &model]].concat();
    let refused = prepare("refused", &again).expect(2);
    assert!(refused.stderr.contains("\"bright\""), "{}", refused.stderr);
    let checked = [&foreground[..], &["--self-check", "on"]].concat();
    prepare("refused", &checked).expect(2);
    prepare("refused", &["--mirroring"]).expect(2);
    assert!(!cohort.path("refused").exists());
}
