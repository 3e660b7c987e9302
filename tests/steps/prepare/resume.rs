//! Runs that were stopped, and what goes on from them.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Cohort, scans};
use crate::common::phantom::{Phantom, oblique};
use crate::common::{executable, files};

#[test]
fn what_is_finished_is_kept_and_a_changed_scan_or_configuration_is_done_again() {
    let cohort = Cohort::of(3);
    cohort.prepare("out", &[]).expect(0);
    let refused = cohort.prepare("out", &[]).expect(73);
    assert!(refused.stderr.contains("--overwrite"));
    let kept = |flags: &[&str]| {
        let flags: Vec<&str> = flags.iter().copied().chain(["--resume"]).collect();
        let done = cohort.prepare("out", &flags).expect(0);
        done.stderr.matches("(kept)").count()
    };
    assert_eq!(kept(&[]), 3);
    Phantom::head([40, 30, 20], oblique()).write(&cohort.path("in/s1.nii.gz"));
    assert_eq!(kept(&[]), 2);
    let (_, scan) = scans(&cohort, "out").pop_first().unwrap();
    std::fs::write(scan.folder.join("foreground.nii.gz"), "changed").unwrap();
    assert!(kept(&[]) >= 2);
    assert_eq!(kept(&[]), 3);
    assert_eq!(kept(&["--max-pieces=3"]), 0);
}

fn start(cohort: &Cohort, output: &str, more: &[&str]) -> Child {
    let mut command = Command::new(executable("prepare"));
    command.args(cohort.arguments(output, more));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Waits until a scan is finished, so that a signal comes in the middle.
fn wait_for_a_scan(cohort: &Cohort, output: &str) {
    let ledger = cohort.path(output).join("ledger.jsonl");
    let started = Instant::now();
    while std::fs::metadata(&ledger).map_or(0, |found| found.len()) == 0 {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "no scan was finished"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn killed_in_the_middle_and_resumed_it_gives_the_same_bytes() {
    let cohort = Cohort::of(12);
    cohort.prepare("whole", &[]).expect(0);
    let mut child = start(&cohort, "killed", &["--threads", "2"]);
    wait_for_a_scan(&cohort, "killed");
    // SIGKILL: nobody can clean up.
    child.kill().unwrap();
    child.wait().unwrap();
    let before = scans(&cohort, "killed").len();
    let done = cohort.prepare("killed", &["--resume"]).expect(0);
    assert!(done.stderr.matches("(kept)").count() >= before.min(1));
    let (whole, killed) = (cohort.written("whole"), cohort.written("killed"));
    assert_eq!(
        whole.keys().collect::<Vec<_>>(),
        killed.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &whole {
        assert!(killed[name] == *bytes, "{name}");
    }
}

#[test]
fn an_interrupt_ends_cleanly_and_the_rest_can_follow() {
    let cohort = Cohort::of(16);
    let child = start(&cohort, "out", &["--threads", "1"]);
    wait_for_a_scan(&cohort, "out");
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let ended = child.wait_with_output().unwrap();
    // It may just have been done.
    if ended.status.code() == Some(130) {
        let names = files(&cohort.path("out"));
        assert!(
            !names.keys().any(|name| name.contains(".voxmask-")),
            "{names:?}"
        );
        assert!(!names.contains_key("cohort.html"));
        let done = scans(&cohort, "out").len();
        assert!((1..16).contains(&done));
        let rest = cohort.prepare("out", &["--resume"]).expect(0);
        assert_eq!(rest.stderr.matches("(kept)").count(), done);
    }
    assert_eq!(scans(&cohort, "out").len(), 16);
}
