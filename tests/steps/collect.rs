//! `voxmask-collect`, from the scans on: the other steps run with the tiny networks of the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::phantom::{self, Phantom, oblique};
use crate::common::{Run, files, read_json, run};

const SHAPE: [usize; 3] = [24, 20, 12];
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models");

/// Folders with three scans whose steps ran, and one whose steps did not.
struct Cohort {
    folder: tempfile::TempDir,
}

const BOTH: &str = "sub-01/ses-A/anat/sub-01_ses-A_T1w.nii.gz";
const FOREGROUND_ALONE: &str = "sub-02/anat/sub-02_T2w.nii.gz";
const UNNAMED: &str = "Doe_John_1970.nii";
const FAILED: &str = "sub-03/anat/sub-03_T1w.nii.gz";

impl Cohort {
    fn new() -> Self {
        let cohort = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for (n, name) in [BOTH, FOREGROUND_ALONE, UNNAMED, FAILED].iter().enumerate() {
            let path = cohort.path("scans").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut head = Phantom::head(SHAPE, oblique());
            // Of another length each, so that no two masks are the same.
            head.values[..2 * n * SHAPE[0] * SHAPE[1]].fill(0.0);
            head.values[0] = n as f32;
            head.write(&path);
        }
        for (n, name) in [BOTH, FOREGROUND_ALONE, UNNAMED].iter().enumerate() {
            let folder = cohort.path("results").join(n.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            cohort.segment("foreground", name, &folder);
            if *name != FOREGROUND_ALONE {
                cohort.segment("anonymization-area", name, &folder);
            }
        }
        cohort
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn segment(&self, what: &str, scan: &str, folder: &Path) {
        let input = self.path("scans").join(scan);
        let name = |ending: &str| folder.join(format!("{what}{ending}"));
        let model = Path::new(MODELS).join(what);
        let mut arguments = vec!["--quiet".to_owned()];
        for (flag, path) in [
            ("--input", input),
            ("--output", name(".nii.gz")),
            ("--report", name(".json")),
            ("--model", model),
        ] {
            arguments.extend([flag.to_owned(), path.display().to_string()]);
        }
        run(&format!("segment-{what}"), arguments).expect(0);
    }

    fn collect(&self, output: &str, flags: &[&str]) -> Run {
        let mut arguments = vec!["--overwrite".to_owned()];
        for (flag, name) in [
            ("--input", "scans"),
            ("--results", "results"),
            ("--output", output),
            ("--report", "report.json"),
        ] {
            if !flags.contains(&flag) {
                arguments.extend([flag.to_owned(), self.path(name).display().to_string()]);
            }
        }
        arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        run("collect", arguments)
    }

    /// Rows of the cohort's table by name.
    fn table(&self, output: &str) -> BTreeMap<String, BTreeMap<String, String>> {
        let text = std::fs::read_to_string(self.path(output).join("cohort.tsv")).unwrap();
        let mut rows = text.lines().map(|line| line.split('\t'));
        let names: Vec<&str> = rows.next().unwrap().collect();
        let rows = rows.map(|row| {
            let row: BTreeMap<String, String> = names
                .iter()
                .zip(row)
                .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
                .collect();
            (row["name"].clone(), row)
        });
        rows.collect()
    }
}

/// What nnssl takes: keys beyond these raise an error in its readers.
fn pretrain_schema() -> Value {
    let path = json!({"type": ["string", "null"], "pattern": r"^\$nnssl_raw/.*\.nii\.gz$"});
    let exact = |required: Value, properties: Value| {
        json!({
            "type": "object",
            "required": required,
            "additionalProperties": false,
            "properties": properties,
        })
    };
    let masks = exact(
        json!(["anatomy_mask", "anonymization_mask"]),
        json!({"anatomy_mask": path, "anonymization_mask": path}),
    );
    let image = exact(
        json!(["name", "image_path", "modality"]),
        json!({
            "name": {"type": "string", "pattern": r"\.nii\.gz$"},
            "modality": {"type": "string"},
            "image_info": {"type": "object"},
            "image_path": {"type": "string", "pattern": r"^\$nnssl_raw/.*\.nii\.gz$"},
            "associated_masks": {"anyOf": [{"type": "null"}, masks]},
        }),
    );
    let map = |of: Value| json!({"type": "object", "additionalProperties": of});
    let session = json!({
        "type": "object",
        "required": ["session_id", "images"],
        "properties": {"images": {"type": "array", "items": image, "minItems": 1}},
    });
    let subject = json!({
        "type": "object",
        "required": ["subject_id", "sessions"],
        "properties": {"sessions": map(session)},
    });
    let dataset = json!({
        "type": "object",
        "required": ["dataset_index", "subjects"],
        "properties": {"subjects": map(subject)},
    });
    json!({
        "type": "object",
        "required": ["collection_index", "collection_name", "datasets"],
        "properties": {
            "collection_index": {"type": "integer"},
            "collection_name": {"type": "string", "pattern": "^Dataset[0-9]{3}_"},
            "datasets": map(dataset),
        },
    })
}

/// Where `$nnssl_raw` leads.
fn resolved(cohort: &Cohort, path: &Value) -> PathBuf {
    cohort.path(path.as_str().unwrap().strip_prefix("$nnssl_raw/").unwrap())
}

/// The two masks of an image that the tiny networks found, as the steps wrote them.
fn found(cohort: &Cohort, n: usize, what: &str) -> Vec<f64> {
    phantom::read(&cohort.path(&format!("results/{n}/{what}.nii.gz"))).values
}

const DATASET: &str = "Dataset901_Heads";

#[test]
fn nnssl_gets_openminds_layout_and_polarity() {
    let cohort = Cohort::new();
    cohort.collect(DATASET, &[]).expect(0);
    let list = read_json(&cohort.path(DATASET).join("pretrain_data.json"));
    let validator = jsonschema::validator_for(&pretrain_schema()).unwrap();
    let faults: Vec<_> = validator
        .iter_errors(&list)
        .map(|e| e.to_string())
        .collect();
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(list["collection_index"], 901);
    assert_eq!(list["collection_name"], DATASET);
    let dataset = &list["datasets"]["ds000001"];
    assert_eq!(dataset["dataset_index"], "ds000001");
    let image = |subject: &str, session: &str| -> Value {
        let session = &dataset["subjects"][subject]["sessions"][session];
        let images = session["images"].as_array().unwrap();
        assert_eq!(images.len(), 1);
        images[0].clone()
    };

    let both = image("sub-01", "ses-A");
    let stem = "OpenMind/ds000001/sub-01/ses-A/anat/sub-01_ses-A_T1w";
    assert_eq!(
        both["image_path"],
        format!("$nnssl_raw/{DATASET}/{stem}.nii.gz")
    );
    assert_eq!(both["name"], "sub-01_ses-A_T1w.nii.gz");
    assert_eq!(both["modality"], "T1w");
    let masks = &both["associated_masks"];
    let scan = phantom::read(&cohort.path("scans").join(BOTH));
    assert_eq!(
        phantom::read(&resolved(&cohort, &both["image_path"])).values,
        scan.values
    );
    let anatomy = phantom::read(&resolved(&cohort, &masks["anatomy_mask"]));
    let altered = phantom::read(&resolved(&cohort, &masks["anonymization_mask"]));
    assert_eq!((anatomy.shape, anatomy.affine), (scan.shape, scan.affine));
    // 1 = background.
    let body = found(&cohort, 0, "foreground");
    assert!(body.contains(&1.0) && body.contains(&0.0));
    let turned: Vec<f64> = body.iter().map(|v| 1.0 - v).collect();
    assert_eq!(anatomy.values, turned);
    assert_eq!(altered.values, found(&cohort, 0, "anonymization-area"));
    let name = masks["anatomy_mask"].as_str().unwrap();
    assert!(name.ends_with(&format!("{stem}__Data/fb_mask.nii.gz")));

    let alone = image("sub-02", "ses-DEFAULT");
    assert!(alone["associated_masks"]["anatomy_mask"].is_string());
    assert!(alone["associated_masks"]["anonymization_mask"].is_null());
    // The scan that was stored as .nii is .nii.gz as all others.
    let subjects = dataset["subjects"].as_object().unwrap();
    assert_eq!(subjects.len(), 3);
    let unnamed = image("sub-0001", "ses-DEFAULT");
    let rewritten = phantom::read(&resolved(&cohort, &unnamed["image_path"]));
    assert_eq!(
        rewritten.values,
        phantom::read(&cohort.path("scans").join(UNNAMED)).values
    );
    let table = std::fs::read_to_string(cohort.path(DATASET).join("openneuro_metadata.csv"));
    let table = table.unwrap();
    assert!(table.contains("ds000001/sub-02/anat/sub-02_T2w.nii.gz,T2w,,ds000001/sub-02/anat/"));
}

#[test]
fn the_fields_of_two_masks_can_be_exchanged_and_of_one_stay() {
    let cohort = Cohort::new();
    let read = || read_json(&cohort.path(DATASET).join("pretrain_data.json"));
    let masks = |list: &Value, subject: &str, session: &str| {
        let subject = &list["datasets"]["ds000001"]["subjects"][subject];
        subject["sessions"][session]["images"][0]["associated_masks"].clone()
    };
    cohort.collect(DATASET, &[]).expect(0);
    let named = read();
    cohort
        .collect(DATASET, &["--nnssl-fields", "exchanged"])
        .expect(0);
    let exchanged = read();
    let (a, b) = (
        masks(&named, "sub-01", "ses-A"),
        masks(&exchanged, "sub-01", "ses-A"),
    );
    assert_eq!(a["anatomy_mask"], b["anonymization_mask"]);
    assert_eq!(a["anonymization_mask"], b["anatomy_mask"]);
    let alone = |list| masks(list, "sub-02", "ses-DEFAULT");
    assert_eq!(alone(&named), alone(&exchanged));
}

#[test]
fn a_scan_whose_step_failed_is_listed_and_nothing_is_moved() {
    let cohort = Cohort::new();
    // A mask that was changed after its report.
    let changed = cohort.path("results/1/foreground.nii.gz");
    Phantom::ball(SHAPE, oblique()).write(&changed);
    let before = (files(&cohort.path("scans")), files(&cohort.path("results")));
    for way in ["link", "hard-link", "copy", "rewrite"] {
        let done = cohort.collect(DATASET, &["--files", way]).expect(0);
        assert!(done.stderr.contains("left out"), "{}", done.stderr);
        let after = (files(&cohort.path("scans")), files(&cohort.path("results")));
        assert!(before == after, "{way}");
        let table = cohort.table(DATASET);
        assert_eq!(table.len(), 4);
        let status = |name: &str| (table[name]["status"].as_str(), table[name]["why"].as_str());
        assert_eq!(status("sub-01_ses-A_T1w"), ("done", "n/a"));
        assert_eq!(status("sub-0001"), ("done", "n/a"));
        let missing = "no report of segment-foreground or segment-anonymization-area";
        assert_eq!(status("sub-03_T1w").0, "failed");
        assert!(status("sub-03_T1w").1.starts_with(missing));
        assert_eq!(status("sub-02_T2w").0, "failed");
        assert!(status("sub-02_T2w").1.contains("was changed"));
        let result = &read_json(&cohort.path("report.json"))["result"];
        assert_eq!(result["count"], 2);
        assert_eq!(result["failed"].as_array().unwrap().len(), 2);
        let list = read_json(&cohort.path(DATASET).join("pretrain_data.json"));
        let subjects = list["datasets"]["ds000001"]["subjects"].as_object();
        assert_eq!(subjects.unwrap().len(), 2);
    }
}

#[test]
fn no_file_name_of_a_patient_and_no_header_text_gets_out() {
    let cohort = Cohort::new();
    for (layout, output) in [("nnssl", DATASET), ("monai", "monai"), ("bids", "bids")] {
        cohort
            .collect(output, &["--layout", layout, "--files", "rewrite"])
            .expect(0);
        let mut written = files(&cohort.path(output));
        written.insert(
            "report".to_owned(),
            std::fs::read(cohort.path("report.json")).unwrap(),
        );
        for (name, bytes) in written {
            let mut plain = bytes;
            if plain.starts_with(&[0x1f, 0x8b]) {
                let zipped = std::mem::take(&mut plain);
                let mut decoder = flate2::read::GzDecoder::new(&zipped[..]);
                std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
            }
            let text = String::from_utf8_lossy(&plain);
            let folder = cohort.folder.path().file_name().unwrap().to_string_lossy();
            for planted in ["Doe", "1970", "PATIENT", folder.as_ref()] {
                assert!(
                    !text.contains(planted) && !name.contains(planted),
                    "{layout} {name}"
                );
            }
        }
    }
}

#[test]
fn monai_finds_every_file_of_its_list() {
    let cohort = Cohort::new();
    cohort.collect("monai", &["--layout", "monai"]).expect(0);
    let list = read_json(&cohort.path("monai/datalist.json"));
    let items = list["training"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    for item in items {
        for key in ["image", "foreground", "anonymization_area"] {
            if let Some(path) = item.get(key) {
                assert!(cohort.path("monai").join(path.as_str().unwrap()).exists());
            }
        }
        let alone = item["subject"] == "sub-02";
        assert_eq!(item.get("anonymization_area").is_none(), alone);
    }
    // 1 = anatomy, as everywhere but with nnssl.
    let item = items
        .iter()
        .find(|item| item["subject"] == "sub-02")
        .unwrap();
    let mask = cohort
        .path("monai")
        .join(item["foreground"].as_str().unwrap());
    assert_eq!(phantom::read(&mask).values, found(&cohort, 1, "foreground"));
}

#[test]
fn bids_derivatives_carry_their_description() {
    let cohort = Cohort::new();
    cohort.collect("bids", &["--layout", "bids"]).expect(0);
    let description = read_json(&cohort.path("bids/dataset_description.json"));
    assert_eq!(description["DatasetType"], "derivative");
    assert_eq!(description["GeneratedBy"][0]["Name"], "voxmask");
    let stem = "bids/sub-01/ses-A/anat/sub-01_ses-A_desc";
    let mask = phantom::read(&cohort.path(&format!("{stem}-foreground_mask.nii.gz")));
    assert_eq!(mask.values, found(&cohort, 0, "foreground"));
    let sidecar = read_json(&cohort.path(&format!("{stem}-altered_mask.json")));
    assert_eq!(sidecar["RawSources"], json!([BOTH]));
    let names = files(&cohort.path("bids"));
    assert!(names.contains_key("sub-02/anat/sub-02_desc-foreground_mask.nii.gz"));
    assert!(!names.contains_key("sub-02/anat/sub-02_desc-altered_mask.nii.gz"));
    assert!(names.contains_key("sub-0001/anat/sub-0001_desc-foreground_mask.json"));
}

#[test]
fn a_table_gives_names_and_the_same_call_the_same_bytes() {
    let cohort = Cohort::new();
    let table = cohort.path("subjects.tsv");
    let rows = format!("image\tsubject\tsession\tmodality\tdataset\n{UNNAMED}\tX7\t2\tCT\tdsB\n");
    std::fs::write(&table, rows).unwrap();
    let flags = ["--subjects", table.to_str().unwrap(), "--files", "copy"];
    cohort.collect(DATASET, &flags).expect(0);
    let first = files(&cohort.path(DATASET));
    let name = "OpenMind/dsB/sub-X7/ses-2/anat/sub-X7_ses-2_CT.nii.gz";
    assert!(first.contains_key(name));
    cohort
        .collect(DATASET, &[&flags[..], &["--threads", "1"]].concat())
        .expect(0);
    assert!(files(&cohort.path(DATASET)) == first);
    std::fs::write(&table, "image\tsubject\na.nii\tJohn Doe\n").unwrap();
    cohort.collect(DATASET, &flags).expect(65);
}

#[test]
fn the_folders_may_be_one() {
    let cohort = Cohort::new();
    let scan = cohort.path("results/0/sub-01_T1w.nii.gz");
    std::fs::copy(cohort.path("scans").join(BOTH), scan).unwrap();
    let results = cohort.path("results").display().to_string();
    // Masks among the scans are not taken for scans.
    let flags = ["--layout", "monai", "--input", &results];
    cohort.collect("one", &flags).expect(0);
    assert_eq!(cohort.table("one").len(), 1);
}

#[test]
fn a_ledger_of_prepare_is_checked_and_what_prepare_wrote_is_found() {
    let cohort = Cohort::new();
    let path = |name: &str| cohort.path(name).display().to_string();
    let model = |name: &str| Path::new(MODELS).join(name).display().to_string();
    let arguments = [
        "--quiet".to_owned(),
        format!("--input={}", path("scans")),
        format!("--output={}", path("prepared")),
        format!("--foreground-model={}", model("foreground")),
        format!("--area-model={}", model("anonymization-area")),
    ];
    run("prepare", arguments).expect(0);
    let (results, ledger) = (path("prepared"), path("prepared/ledger.jsonl"));
    let flags = ["--results", &results, "--verify", &ledger];
    cohort.collect(DATASET, &flags).expect(0);
    let result = &read_json(&cohort.path("report.json"))["result"];
    assert_eq!(result["count"], 4);
    assert_eq!(result["ledger"]["missing"], json!([]));
    assert_eq!(result["ledger"]["entries"], 4);
    // A mask that was changed.
    let masks = files(&cohort.path("prepared"));
    let mask = masks
        .keys()
        .find(|name| name.ends_with("foreground.nii.gz"));
    let mask = cohort.path("prepared").join(mask.unwrap());
    let kept = std::fs::read(&mask).unwrap();
    Phantom::block(SHAPE, oblique(), [1, 1, 1], [2, 2, 2]).write(&mask);
    let refused = cohort.collect(DATASET, &flags).expect(65);
    assert!(refused.stderr.contains("changed"), "{}", refused.stderr);
    std::fs::write(&mask, kept).unwrap();
    // A line that was taken out.
    let lines = std::fs::read_to_string(&ledger).unwrap();
    let shortened = lines.split_once('\n').unwrap().1;
    std::fs::write(&ledger, shortened).unwrap();
    let refused = cohort.collect(DATASET, &flags).expect(65);
    assert!(refused.stderr.contains("line 1"), "{}", refused.stderr);
}

#[test]
fn calls_that_make_no_sense_are_refused_and_leave_nothing() {
    let cohort = Cohort::new();
    let before = files(cohort.folder.path());
    let empty = cohort.path("empty");
    let missing = cohort.path("missing").display().to_string();
    cohort.collect("heads", &[]).expect(2);
    cohort.collect(DATASET, &["--layout", "coco"]).expect(2);
    cohort.collect(DATASET, &["--input", &missing]).expect(66);
    cohort.collect(DATASET, &["--results", &missing]).expect(66);
    cohort
        .collect(DATASET, &["--subjects", &missing])
        .expect(66);
    assert!(files(cohort.folder.path()) == before);
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.display().to_string();
    cohort.collect(DATASET, &["--input", &empty]).expect(65);
    // No scan has a report: nothing to train from.
    cohort.collect(DATASET, &["--results", &empty]).expect(65);
    std::fs::create_dir(cohort.path(DATASET)).unwrap();
    std::fs::write(cohort.path(DATASET).join("thesis.tex"), "years").unwrap();
    cohort.collect(DATASET, &[]).expect(73);
    assert_eq!(files(&cohort.path(DATASET)).len(), 1);
}

#[test]
fn reports_and_configurations_keep_to_the_schemas() {
    let cohort = Cohort::new();
    cohort.collect(DATASET, &[]).expect(0);
    let report = read_json(&cohort.path("report.json"));
    for (which, value) in [("report", &report), ("config", &report["config"])] {
        let printed = run("collect", [format!("--print-schema={which}")]).expect(0);
        let mut schema: Value = serde_json::from_str(&printed.stdout).unwrap();
        if which == "config" {
            // A report's configuration leaves out the paths.
            schema["required"] = json!([]);
        }
        let validator = jsonschema::validator_for(&schema).unwrap();
        let faults: Vec<_> = validator
            .iter_errors(value)
            .map(|e| e.to_string())
            .collect();
        assert!(faults.is_empty(), "{which}: {faults:?}");
    }
    let config = cohort.path("report.json").display().to_string();
    let again = ["--config", &config, "--report", "-"];
    let arguments = [
        "--input",
        "scans",
        "--results",
        "results",
        "--output",
        DATASET,
    ];
    let paths: Vec<String> = arguments
        .chunks(2)
        .flat_map(|pair| {
            [
                pair[0].to_owned(),
                cohort.path(pair[1]).display().to_string(),
            ]
        })
        .chain(again.iter().map(|&flag| flag.to_owned()))
        .chain(["--overwrite".to_owned()])
        .collect();
    let repeated: Value = serde_json::from_str(&run("collect", paths).expect(0).stdout).unwrap();
    assert_eq!(repeated["result"], report["result"]);
}
