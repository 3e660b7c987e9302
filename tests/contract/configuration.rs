//! Flags, configuration files and reports.

use crate::common::table::{Case, Content, TABLE};
use crate::common::{files, read_json, run};
use crate::with;

#[test]
fn help_and_version_are_short_and_on_stdout() {
    for row in TABLE {
        let help = run(row.step, ["--help"]).expect(0);
        assert!(
            help.stdout
                .contains(&format!("Usage: voxmask-{}", row.step))
        );
        for (flag, _) in row.inputs {
            assert!(help.stdout.contains(flag), "{} {flag}", row.step);
        }
        let version = run(row.step, ["--version"]).expect(0);
        let wanted = format!("voxmask-{} {}\n", row.step, env!("CARGO_PKG_VERSION"));
        assert_eq!(version.stdout, wanted);
    }
}

#[test]
fn a_good_call_writes_its_output_and_is_silent_on_stdout() {
    for row in TABLE {
        let case = Case::new(row);
        let done = run(row.step, with(&case.arguments(), &["--quiet"])).expect(0);
        assert_eq!(
            (done.stdout.as_str(), done.stderr.as_str()),
            ("", ""),
            "{}",
            row.step
        );
        assert!(case.output().exists(), "{}", row.step);
    }
}

#[test]
fn unknown_keys_flags_and_wrong_values_are_refused() {
    for row in TABLE {
        let case = Case::new(row);
        let before = files(case.folder());
        let config = case.path("config.json");
        for (text, hint) in [
            (r#"{"no_such_key": 1}"#, "no_such_key"),
            (r#"{"input": 5}"#, "config.json"),
            ("{", "config.json"),
            (r#"{"step": "other", "config": {}}"#, "report of other"),
        ] {
            std::fs::write(&config, text).unwrap();
            let flags = ["--config", config.to_str().unwrap()];
            let refused = run(row.step, with(&case.arguments(), &flags)).expect(2);
            assert!(
                refused.stderr.contains(hint),
                "{}: {}",
                row.step,
                refused.stderr
            );
        }
        std::fs::remove_file(&config).unwrap();
        for flags in [
            ["--no-such-flag", "1"],
            ["--threads", "0"],
            ["--device", "toaster"],
        ] {
            run(row.step, with(&case.arguments(), &flags)).expect(2);
        }
        assert_eq!(files(case.folder()), before, "{}", row.step);
    }
}

#[test]
fn a_missing_required_flag_is_named() {
    for row in TABLE {
        let case = Case::new(row);
        let mut required = vec!["--input"];
        required.extend(row.output.map(|_| "--output"));
        for flag in required {
            let mut arguments = case.arguments();
            let at = arguments.iter().position(|a| a == flag).unwrap();
            arguments.drain(at..at + 2);
            let refused = run(row.step, arguments).expect(2);
            let wanted = format!("{flag} is missing");
            assert!(
                refused.stderr.contains(&wanted),
                "{}: {}",
                row.step,
                refused.stderr
            );
        }
    }
}

#[test]
fn a_report_on_stdout_is_one_json_and_names_no_folder() {
    for row in TABLE {
        let case = Case::new(row);
        let mut arguments = case.arguments();
        if row.output.is_none() {
            arguments.truncate(arguments.len() - 2);
        }
        let done = run(row.step, with(&arguments, &["--report", "-"])).expect(0);
        let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(report["schema"], format!("{}.report/1", row.step));
        let inputs = report["inputs"].as_array().unwrap().len();
        assert_eq!(inputs, row.inputs.len() + row.fixed.len());
        let folder = case.folder().file_name().unwrap().to_str().unwrap();
        assert!(!done.stdout.contains(folder), "{}", done.stdout);
        assert!(!done.stdout.contains("PATIENT"), "{}", done.stdout);
    }
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    for row in TABLE {
        let (key, in_file, flag, by_flag) = row.setting;
        let case = Case::new(row);
        let config = case.path("config.json");
        std::fs::write(&config, format!("{{\"{key}\": {in_file}}}")).unwrap();
        let report = case.path("report.json");
        let mut flags = vec!["--overwrite", "--config", config.to_str().unwrap()];
        if row.output.is_some() {
            flags.extend(["--report", report.to_str().unwrap()]);
        }
        run(row.step, with(&case.arguments(), &flags)).expect(0);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(
            read_json(&report)["config"][key],
            value(in_file),
            "{}",
            row.step
        );
        flags.push(flag);
        run(row.step, with(&case.arguments(), &flags)).expect(0);
        assert_eq!(
            read_json(&report)["config"][key],
            value(by_flag),
            "{}",
            row.step
        );
    }
}

#[test]
fn every_path_can_come_from_the_file() {
    for row in TABLE.iter().filter(|row| row.output.is_some()) {
        let case = Case::new(row);
        let mut config = serde_json::Map::new();
        for pair in case.paths().chunks(2) {
            let key = pair[0].trim_start_matches('-').replace('-', "_");
            config.insert(key, pair[1].clone().into());
        }
        let file = case.path("config.json");
        std::fs::write(&file, serde_json::Value::from(config).to_string()).unwrap();
        let mut arguments: Vec<&str> = row.flags.to_vec();
        arguments.extend(["--config", file.to_str().unwrap()]);
        run(row.step, arguments).expect(0);
        assert!(case.output().exists(), "{}", row.step);
    }
}

#[test]
fn a_report_repeats_its_run_to_the_byte_on_any_number_of_threads() {
    for row in TABLE {
        let case = Case::new(row);
        let report = case.path("first.json");
        let without_report = |case: &Case| {
            let mut arguments = case.arguments();
            if row.output.is_none() {
                let at = arguments.iter().position(|a| a == "--report").unwrap();
                arguments.drain(at..at + 2);
            }
            arguments
        };
        let flags = ["--threads", "1", "--report", report.to_str().unwrap()];
        run(row.step, with(&without_report(&case), &flags)).expect(0);
        let outputs = |case: &Case| {
            let mut found = files(case.folder());
            found.retain(|name, _| row.output.is_some_and(|o| name.starts_with(o.name())));
            found
        };
        let (first, first_report) = (outputs(&case), read_json(&report));
        assert_eq!(first.is_empty(), row.output.is_none(), "{}", row.step);
        for threads in ["1", "2", "8"] {
            let again = case.path("again.json");
            let mut arguments = case.paths();
            if row.output.is_none() {
                arguments.truncate(arguments.len() - 2);
            }
            let flags = [
                "--overwrite",
                "--config",
                report.to_str().unwrap(),
                "--threads",
                threads,
                "--report",
                again.to_str().unwrap(),
            ];
            run(row.step, with(&arguments, &flags)).expect(0);
            assert!(outputs(&case) == first, "{} on {threads} threads", row.step);
            let mut second_report = read_json(&again);
            second_report["run"] = first_report["run"].clone();
            assert_eq!(
                second_report, first_report,
                "{} on {threads} threads",
                row.step
            );
        }
    }
}

#[test]
fn the_table_names_an_image_or_a_mask_first() {
    assert!(TABLE.iter().all(|row| row.inputs[0].0 == "--input"));
    assert!(TABLE.iter().any(|row| row.inputs[0].1 == Content::Mask));
}
