//! Inputs that cannot be read to their end.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::Run;
use crate::common::phantom::Phantom;
use crate::common::table::{Case, TABLE};
use crate::scene::{Drafts, Scene};
use crate::shim;

/// Bytes from `from` of 100 parts of a file on cannot be read.
fn failing(command: &mut Command, file: &std::path::Path, from: u64) {
    let length = std::fs::metadata(file).unwrap().len();
    let name = file.file_name().unwrap();
    command
        .env("FAULT_READ", name)
        .env("FAULT_FROM", (length * from / 100).to_string());
}

#[test]
fn a_disk_that_fails_half_way_through_an_input_is_66() {
    let Some(shim) = shim() else { return };
    for scene in Scene::single()
        .iter()
        .filter(|scene| scene.step != "collect")
    {
        let row = TABLE.iter().find(|row| row.step == scene.step).unwrap();
        for (flag, _) in row.inputs {
            let name = format!("{}.nii.gz", flag.trim_start_matches('-'));
            // The header alone is read of a grid to be like; the report reads the rest.
            for from in [0, 50, 99] {
                let out = tempfile::tempdir().unwrap();
                let mut command = scene.command(out.path(), &[]);
                failing(&mut command, &scene.input(&name), from);
                let done = Run::of(command.env("LD_PRELOAD", shim));
                assert_eq!(
                    done.code,
                    Some(66),
                    "{} {flag} {from}: {done:?}",
                    scene.step
                );
                done.expect(66);
                scene.check(out.path(), Drafts::None);
            }
        }
    }
}

#[test]
fn a_disk_that_fails_under_a_plain_volume_is_66_and_names_it() {
    let Some(shim) = shim() else { return };
    for row in TABLE {
        let case = Case::plain(row);
        let plain = case.path("image.nii");
        let phantom = match row.step {
            "qa-metrics" => Phantom::ball([16; 3], crate::common::phantom::PLAIN),
            _ => Phantom::head([16; 3], crate::common::phantom::PLAIN),
        };
        phantom.write(&plain);
        for from in [50, 99] {
            let mut command = Command::new(crate::common::executable(row.step));
            let mut arguments = case.arguments();
            arguments[1] = plain.display().to_string();
            failing(command.args(arguments), &plain, from);
            let failed = Run::of(command.env("LD_PRELOAD", shim)).expect(66);
            assert!(failed.stderr.contains("image.nii"), "{}", failed.stderr);
            assert!(!case.output().exists());
        }
    }
}

#[test]
fn a_cohort_leaves_out_the_scan_that_cannot_be_read() {
    let Some(shim) = shim() else { return };
    let scene = Scene::cohort();
    let out = tempfile::tempdir().unwrap();
    let mut command = scene.command(out.path(), &[]);
    failing(&mut command, &scene.input("s1.nii.gz"), 50);
    let done = Run::of(command.env("LD_PRELOAD", shim)).expect(66);
    assert!(done.stderr.contains("left out"), "{}", done.stderr);
    let scans = std::fs::read_dir(out.path().join("prepared/scans")).unwrap();
    assert_eq!(scans.count(), 2);
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    for row in TABLE {
        for (flag, _) in row.inputs {
            let case = Case::plain(row);
            let path = case.input(flag);
            std::fs::remove_file(&path).unwrap();
            assert!(
                Command::new("mkfifo")
                    .arg(&path)
                    .status()
                    .unwrap()
                    .success()
            );
            let start = Instant::now();
            let mut command = Command::new("timeout");
            command.args(["20", crate::common::executable(row.step)]);
            Run::of(command.args(case.arguments())).expect(65);
            assert!(start.elapsed() < Duration::from_secs(20));
        }
    }
}
