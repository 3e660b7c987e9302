//! The committed schemas are those that the executables print, and what they write keeps to them.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;

use common::table::{Case, TABLE};
use common::{read_json, run};
use serde_json::Value;

fn printed(step: &str, which: &str) -> Value {
    let schema = run(step, [format!("--print-schema={which}")])
        .expect(0)
        .stdout;
    serde_json::from_str(&schema).unwrap()
}

/// All executables, those that take no single scan too.
fn steps() -> impl Iterator<Item = &'static str> {
    TABLE
        .iter()
        .map(|row| row.step)
        .chain(["collect", "prepare"])
}

#[test]
fn committed_schemas_are_fresh() {
    for step in steps() {
        for which in ["config", "report"] {
            let name = format!("{step}.{which}.json");
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("schemas")
                .join(&name);
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            let fresh = run(step, [format!("--print-schema={which}")]).expect(0);
            assert!(
                committed == fresh.stdout,
                "{name} is out of date: run `make schemas`"
            );
        }
    }
}

#[test]
fn print_schema_alone_means_the_configuration() {
    for step in steps() {
        let schema = run(step, ["--print-schema"]).expect(0).stdout;
        assert_eq!(
            serde_json::from_str::<Value>(&schema).unwrap(),
            printed(step, "config")
        );
    }
}

#[test]
fn every_flag_is_described_and_every_key_is_a_flag() {
    for step in steps() {
        let schema = printed(step, "config");
        let help = run(step, ["--help"]).expect(0).stdout;
        assert_eq!(schema["additionalProperties"], false, "{step}");
        for (key, property) in schema["properties"].as_object().unwrap() {
            let flag = format!("--{} ", key.replace('_', "-"));
            assert!(help.contains(&flag), "{step}: {flag}");
            let description = property["description"].as_str();
            assert!(description.is_some_and(|d| !d.is_empty()), "{step}: {key}");
        }
        for required in schema["required"].as_array().unwrap() {
            assert!(
                schema["properties"]
                    .get(required.as_str().unwrap())
                    .is_some()
            );
        }
    }
}

#[test]
fn reports_and_their_configurations_keep_to_the_schemas() {
    for row in TABLE {
        let case = Case::new(row);
        let report = case.path("report.json");
        let mut arguments = case.arguments();
        if row.output.is_some() {
            arguments.extend(["--report".to_owned(), report.display().to_string()]);
        }
        run(row.step, arguments).expect(0);
        let report = read_json(&report);
        let validator = jsonschema::validator_for(&printed(row.step, "report")).unwrap();
        let faults: Vec<String> = validator
            .iter_errors(&report)
            .map(|e| e.to_string())
            .collect();
        assert!(faults.is_empty(), "{}: {faults:?}", row.step);
        assert!(!validator.is_valid(&serde_json::json!({})), "{}", row.step);

        let mut config = report["config"].as_object().unwrap().clone();
        for pair in case.paths().chunks(2).filter(|pair| pair[0] != "--report") {
            let key = pair[0].trim_start_matches('-').replace('-', "_");
            config.insert(key, pair[1].clone().into());
        }
        let config = Value::Object(config);
        let validator = jsonschema::validator_for(&printed(row.step, "config")).unwrap();
        let faults: Vec<String> = validator
            .iter_errors(&config)
            .map(|e| e.to_string())
            .collect();
        assert!(faults.is_empty(), "{}: {faults:?}", row.step);
    }
}
