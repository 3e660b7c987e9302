//! Phantoms, NIfTI files, runs of the executables, and the table of steps that tests share.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod phantom;
pub mod table;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What an executable came back with.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Panics unless the run ended with `code`, and with a message that fits it.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        let errors = self.stderr.lines().filter(|l| l.starts_with("error: "));
        if ![0, 1].contains(&code) {
            assert_eq!(
                errors.count(),
                1,
                "one line must say what is wrong: {self:#?}"
            );
            assert!(self.stdout.is_empty(), "{self:#?}");
        }
        self
    }
}

/// Path of a step's executable.
pub fn executable(step: &str) -> &'static str {
    match step {
        "resample" => env!("CARGO_BIN_EXE_voxmask-resample"),
        "segment" => env!("CARGO_BIN_EXE_voxmask-segment"),
        "segment-foreground" => env!("CARGO_BIN_EXE_voxmask-segment-foreground"),
        "segment-anonymization-area" => env!("CARGO_BIN_EXE_voxmask-segment-anonymization-area"),
        "crop-patches" => env!("CARGO_BIN_EXE_voxmask-crop-patches"),
        "collect" => env!("CARGO_BIN_EXE_voxmask-collect"),
        "qa-metrics" => env!("CARGO_BIN_EXE_voxmask-qa-metrics"),
        "prepare" => env!("CARGO_BIN_EXE_voxmask-prepare"),
        _ => panic!("there is no step {step}"),
    }
}

/// Runs a step.
pub fn run<S: AsRef<OsStr>>(step: &str, arguments: impl IntoIterator<Item = S>) -> Run {
    Run::of(Command::new(executable(step)).args(arguments))
}

/// Reads a JSON file.
pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Every file in a folder and below, by its path from there, hidden ones too.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            found.insert(format!("{name}/"), Vec::new());
            let below = files(&entry.path());
            found.extend(
                below
                    .into_iter()
                    .map(|(n, bytes)| (format!("{name}/{n}"), bytes)),
            );
        } else {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}
