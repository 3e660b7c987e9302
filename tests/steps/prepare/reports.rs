//! What a cohort's reports, its ledger and its page say.

use std::path::Path;

use serde_json::Value;

use super::{Cohort, scans};
use crate::common::phantom::{self, PLAIN, Phantom, oblique, put};
use crate::common::{files, read_json, run};

#[test]
fn strict_thresholds_give_1_name_the_measure_and_change_no_mask() {
    let cohort = Cohort::of(2);
    cohort.prepare("out", &[]).expect(0);
    let flags = ["--strict=on", "--min-foreground-share=0.99"];
    let missed = cohort.prepare("strict", &flags).expect(1);
    let named = missed
        .stderr
        .lines()
        .filter(|line| line.starts_with("missed: scan-"));
    let named: Vec<&str> = named
        .filter(|line| line.contains("small-foreground"))
        .collect();
    assert_eq!(named.len(), 2, "{}", missed.stderr);
    assert!(named[0].contains("below 0.99"), "{named:?}");
    let (plain, strict) = (cohort.written("out"), cohort.written("strict"));
    for (name, bytes) in plain.iter().filter(|(name, _)| name.ends_with(".nii.gz")) {
        assert!(strict[name] == *bytes, "{name}");
    }
}

#[test]
fn references_give_agreement_and_figures_of_each_site() {
    let cohort = Cohort::of(2);
    let mut table = "scan,site,region,reference\n".to_owned();
    for (n, site) in ["north", "south"].iter().enumerate() {
        let affine = if n % 2 == 0 { PLAIN } else { oblique() };
        let reference = cohort.path(&format!("r{n}.nii.gz"));
        Phantom::ball([30 + 2 * n, 28, 20 + n], affine).write(&reference);
        table.push_str(&format!("in/s{n}.nii.gz,{site},head,r{n}.nii.gz\n"));
    }
    std::fs::write(cohort.path("t.csv"), table).unwrap();
    let mut arguments = cohort.arguments("out", &["--report", "-", "--quiet"]);
    arguments.splice(
        ..2,
        [
            "--table".to_owned(),
            cohort.path("t.csv").display().to_string(),
        ],
    );
    let report: Value = serde_json::from_str(&run("prepare", arguments).expect(0).stdout).unwrap();
    let sites = report["result"]["sites"].as_array().unwrap();
    let names: Vec<&str> = sites.iter().map(|s| s["site"].as_str().unwrap()).collect();
    assert_eq!(names, ["north", "south", "all"]);
    assert_eq!(sites[2]["scans"], 2);
    let mean = sites[0]["dice_mean"].as_f64().unwrap() + sites[1]["dice_mean"].as_f64().unwrap();
    assert!((sites[2]["dice_mean"].as_f64().unwrap() - mean / 2.0).abs() < 1e-9);
    assert!(sites[0]["dice_mean"].as_f64().unwrap() > 0.5);
}

#[test]
fn a_planted_name_is_in_no_output_no_log_and_no_page() {
    const NAME: &str = "Zyxwvut^Quirinia";
    let cohort = Cohort::of(0);
    let folder = cohort.path(&format!("in/{NAME}/{NAME}"));
    std::fs::create_dir_all(&folder).unwrap();
    for n in 0..2_usize {
        let head = Phantom::head([30 + n, 28, 20], oblique());
        let voxels: Vec<u8> = head
            .values
            .iter()
            .flat_map(|&v| (v as i16).to_le_bytes())
            .collect();
        let mut file = phantom::nifti(head.shape, head.affine, (4, 16), &voxels);
        // data_type, db_name, descrip, aux_file, intent_name: every field of text.
        for (at, length) in [(4, 10), (14, 18), (148, 80), (228, 24), (328, 16)] {
            put(&mut file, at, &NAME.as_bytes()[..length.min(NAME.len())]);
        }
        // No place in the world, so that there is something to remark.
        put(&mut file, 252, &[0; 4]);
        phantom::write(&folder.join(format!("{NAME}{n}.nii.gz")), &file);
    }
    std::fs::write(folder.join(format!("{NAME}-broken.nii")), NAME.repeat(100)).unwrap();
    std::fs::write(folder.join(format!("{NAME}-empty.nii")), "").unwrap();
    let output = cohort.path("out");
    let report = cohort.path("report.json");
    let flags = [
        "--report",
        report.to_str().unwrap(),
        "--patches",
        r#"{"patch_shape": [8, 8, 8], "sampling": "random", "count": 2, "format": "nifti"}"#,
    ];
    let done = cohort.prepare("out", &flags).expect(65);
    assert_eq!(scans(&cohort, "out").len(), 2);
    let mut written = files(&output);
    written.insert("log".to_owned(), done.stderr.into_bytes());
    written.insert("stdout".to_owned(), done.stdout.into_bytes());
    written.insert("report.json".to_owned(), std::fs::read(&report).unwrap());
    // Ten letters fit the shortest field.
    let part = NAME.as_bytes()[..7].to_ascii_lowercase();
    for (name, bytes) in written {
        let holds = |bytes: &[u8]| bytes.to_ascii_lowercase().windows(7).any(|w| w == part);
        assert!(!name.contains(NAME) && !holds(&bytes), "{name}");
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            let mut decoder = flate2::read::MultiGzDecoder::new(&bytes[..]);
            std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
            assert!(!holds(&plain), "{name}");
        }
    }
}

#[test]
fn reports_keep_to_the_schema() {
    let cohort = Cohort::of(2);
    let printed = |which: &str| -> Value {
        let schema = run("prepare", [format!("--print-schema={which}")])
            .expect(0)
            .stdout;
        serde_json::from_str(&schema).unwrap()
    };
    let report = cohort.path("report.json");
    let flags = ["--report", report.to_str().unwrap(), "--patches={}"];
    cohort.prepare("out", &flags).expect(0);
    let report = read_json(&report);
    let validator = jsonschema::validator_for(&printed("report")).unwrap();
    let faults: Vec<String> = validator
        .iter_errors(&report)
        .map(|e| e.to_string())
        .collect();
    assert!(faults.is_empty(), "{faults:?}");
    let mut config = report["config"].clone();
    config["output"] = "x".into();
    let validator = jsonschema::validator_for(&printed("config")).unwrap();
    let faults: Vec<String> = validator
        .iter_errors(&config)
        .map(|e| e.to_string())
        .collect();
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn the_ledger_says_what_was_written_and_notices_what_was_changed() {
    let cohort = Cohort::of(2);
    std::fs::write(cohort.path("in/broken.nii"), "x").unwrap();
    cohort.prepare("out", &[]).expect(65);
    let output = cohort.path("out");
    let ledger = output.join("ledger.jsonl");
    let entries = voxmask::ledger::read(&ledger).unwrap();
    let mut codes: Vec<u8> = entries.iter().map(|entry| entry.exit_code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 0, 65]);
    let found = voxmask::ledger::verify(&entries, &output).unwrap();
    assert!(found.missing.is_empty() && found.found == 8, "{found:?}");
    let (_, scan) = scans(&cohort, "out").pop_first().unwrap();
    std::fs::write(scan.folder.join("picture.png"), "changed").unwrap();
    let found = voxmask::ledger::verify(&entries, Path::new(&output)).unwrap();
    let roles: Vec<&str> = found.missing.iter().map(|m| m.role.as_str()).collect();
    assert_eq!(roles, ["picture"]);
}
