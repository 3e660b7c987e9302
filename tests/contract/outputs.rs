//! Outputs that cannot be written, and what stays when they cannot.

use std::path::Path;
use std::process::Command;

use crate::common::table::{Case, Output, TABLE};
use crate::common::{Run, executable, files, run};
use crate::with;

#[test]
fn an_output_that_exists_stays_unless_overwrite_is_given() {
    for row in TABLE {
        let case = Case::new(row);
        run(row.step, case.arguments()).expect(0);
        let before = files(case.folder());
        let refused = run(row.step, case.arguments()).expect(73);
        assert!(refused.stderr.contains("--overwrite"), "{}", refused.stderr);
        assert_eq!(files(case.folder()), before, "{}", row.step);
        run(row.step, with(&case.arguments(), &["--overwrite"])).expect(0);
        let names =
            |f: &std::collections::BTreeMap<String, Vec<u8>>| f.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&files(case.folder())), names(&before), "{}", row.step);
    }
}

#[test]
fn an_output_that_cannot_be_written_is_73() {
    for row in TABLE {
        let case = Case::new(row);
        let before = files(case.folder());
        let report = case.path("no-such-folder/report.json");
        let flags = ["--report", report.to_str().unwrap()];
        let mut arguments = case.arguments();
        if row.output.is_none() {
            arguments.truncate(arguments.len() - 2);
        }
        run(row.step, with(&arguments, &flags)).expect(73);
        assert_eq!(files(case.folder()), before, "{}", row.step);

        let at = |path: &Path| {
            let mut arguments = case.arguments();
            let at = arguments
                .iter()
                .position(|a| a == case.output_flag())
                .unwrap();
            arguments[at + 1] = path.display().to_string();
            arguments
        };
        let name = case.output().file_name().unwrap().to_owned();
        run(row.step, at(&case.path("no-such-folder").join(&name))).expect(73);
        // A file where a folder should be.
        run(row.step, at(&case.input("--input").join(&name))).expect(73);
        assert_eq!(files(case.folder()), before, "{}", row.step);
        match row.output {
            Some(Output::Folder(_)) => std::fs::write(case.output(), "").unwrap(),
            _ => std::fs::create_dir(case.output()).unwrap(),
        }
        run(row.step, with(&case.arguments(), &["--overwrite"])).expect(73);
    }
}

#[test]
fn an_input_is_never_overwritten() {
    for row in TABLE {
        let case = Case::new(row);
        let before = files(case.folder());
        for (flag, _) in row.inputs {
            let input = case.input(flag).display().to_string();
            let mut flags = vec!["--report", &input];
            if matches!(row.output, Some(Output::File(_))) {
                flags = vec!["--output", &input];
            }
            let mut arguments = case.arguments();
            let at = arguments.iter().position(|a| a == flags[0]);
            if let Some(at) = at {
                arguments.drain(at..at + 2);
            }
            flags.push("--overwrite");
            run(row.step, with(&arguments, &flags)).expect(2);
            assert_eq!(files(case.folder()), before, "{} {flag}", row.step);
        }
    }
}

#[test]
fn a_file_size_limit_is_73_and_leaves_nothing_behind() {
    for row in TABLE {
        let case = Case::new(row);
        let before = files(case.folder());
        // Ignored, the signal becomes an error of the write.
        let script = "trap '' XFSZ; ulimit -f 0; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", executable(row.step)]);
        Run::of(command.args(case.arguments())).expect(73);
        assert_eq!(files(case.folder()), before, "{}", row.step);
    }
}

#[test]
fn a_full_disk_is_73_and_leaves_nothing_behind() {
    let disk = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"])
        .arg(disk.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: a_full_disk_is_73_and_leaves_nothing_behind: mount is not allowed here"
        );
        return;
    }
    let unmount = Unmount(disk.path());
    std::fs::write(disk.path().join("filler"), [1; 4096]).unwrap();
    for row in TABLE {
        let case = Case::new(row);
        let mut arguments = case.arguments();
        let at = arguments
            .iter()
            .position(|a| a == case.output_flag())
            .unwrap();
        let name = case.output().file_name().unwrap().to_owned();
        arguments[at + 1] = disk.path().join(name).display().to_string();
        let before = files(disk.path());
        run(row.step, arguments).expect(73);
        assert_eq!(files(disk.path()), before, "{}", row.step);
    }
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn outputs_carry_no_text_of_the_inputs_header() {
    for row in TABLE {
        let case = Case::new(row);
        run(row.step, case.arguments()).expect(0);
        let inputs: Vec<_> = row
            .inputs
            .iter()
            .map(|(flag, _)| case.input(flag))
            .collect();
        for (name, mut bytes) in files(case.folder()) {
            if inputs.contains(&case.path(&name)) {
                continue;
            }
            if bytes.starts_with(&[0x1f, 0x8b]) {
                let mut plain = Vec::new();
                let mut decoder = flate2::read::MultiGzDecoder::new(&bytes[..]);
                std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
                bytes = plain;
            }
            let found = bytes.windows(7).any(|window| window == b"PATIENT");
            assert!(!found, "{}: {name}", row.step);
        }
    }
}

#[test]
fn one_name_for_two_outputs_is_refused() {
    for row in TABLE
        .iter()
        .filter(|row| matches!(row.output, Some(Output::File(_))))
    {
        let case = Case::new(row);
        let before = files(case.folder());
        let report = case.output();
        let flags = ["--report", report.to_str().unwrap()];
        let refused = run(row.step, with(&case.arguments(), &flags)).expect(2);
        assert!(refused.stderr.contains("two outputs"), "{}", refused.stderr);
        assert_eq!(files(case.folder()), before, "{}", row.step);
    }
}

#[test]
fn a_volume_under_a_name_that_is_none_is_refused_before_anything_is_read() {
    for step in [
        "segment-foreground",
        "segment-anonymization-area",
        "resample",
    ] {
        let row = TABLE.iter().find(|row| row.step == step).unwrap();
        let case = Case::new(row);
        let mut arguments = case.arguments();
        let at = arguments.iter().position(|a| a == "--output").unwrap();
        arguments[at + 1] = case.path("mask.txt").display().to_string();
        std::fs::write(case.input("--input"), "no volume").unwrap();
        let refused = run(step, arguments).expect(2);
        assert!(refused.stderr.contains(".nii.gz"), "{}", refused.stderr);
    }
}
