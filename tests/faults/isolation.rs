//! No network, no home, no environment.

use std::path::Path;
use std::process::Command;

use crate::common::{Run, executable};
use crate::scene::Scene;
use crate::skipped;

#[test]
fn without_any_network_interface_everything_works() {
    let allowed = Command::new("unshare").args(["-n", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        skipped("a network namespace is not allowed here");
        return;
    }
    for scene in Scene::all() {
        let out = tempfile::tempdir().unwrap();
        Run::of(&mut scene.command_after(&["unshare", "-n"], out.path())).expect(0);
        scene.check_whole(out.path());
    }
}

#[test]
fn the_environment_changes_no_output() {
    for scene in Scene::all() {
        let out = tempfile::tempdir().unwrap();
        Run::of(scene.command(out.path(), &[]).env_clear()).expect(0);
        scene.check_whole(out.path());
        let out = tempfile::tempdir().unwrap();
        let mut command = scene.command(out.path(), &[]);
        for name in [
            "RUST_LOG",
            "OMP_NUM_THREADS",
            "RAYON_NUM_THREADS",
            "LANG",
            "LC_ALL",
            "TZ",
        ] {
            command.env(name, "7");
        }
        command
            .env("RUST_BACKTRACE", "full")
            .env("NO_COLOR", "1")
            .env("COLUMNS", "1");
        Run::of(&mut command).expect(0);
        scene.check_whole(out.path());
    }
}

/// System calls of a run, one a line; `None` where tracing is not allowed.
fn traced(scene: &Scene, calls: &str, home: &Path) -> Option<String> {
    let (out, log) = (
        tempfile::tempdir().unwrap(),
        tempfile::NamedTempFile::new().unwrap(),
    );
    let path = log.path().to_str()?;
    // The kernel stops at these calls alone, or strace would write more calls of no name (`named_calls`).
    let words = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        calls,
        "-e",
        "signal=none",
        "-o",
        path,
    ];
    let probe = Command::new(words[0])
        .args(&words[1..])
        .arg("true")
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        skipped("strace is not there, or not allowed to trace");
        return None;
    }
    let mut command = scene.command_after(&words, out.path());
    Run::of(command.env("HOME", home)).expect(0);
    std::fs::read_to_string(log.path()).ok().map(named_calls)
}

/// A trace without the lines of threads that ended as strace looked at them, which name no call.
fn named_calls(trace: String) -> String {
    let named = trace
        .lines()
        .filter(|line| !line.ends_with("???( <detached ...>"));
    named.map(|line| format!("{line}\n")).collect()
}

#[test]
fn no_socket_is_asked_for_and_nothing_in_home() {
    for scene in Scene::all() {
        let home = tempfile::tempdir().unwrap();
        let Some(network) = traced(&scene, "trace=network", home.path()) else {
            return;
        };
        assert!(network.trim().is_empty(), "{}: {network}", scene.step);
        let Some(paths) = traced(&scene, "trace=file", home.path()) else {
            return;
        };
        assert!(paths.contains("execve"), "nothing was traced");
        let home = home.path().to_str().unwrap();
        // The command line of the trace itself names no home.
        let touched = paths.lines().find(|line| line.contains(home));
        assert_eq!(touched, None, "{}", scene.step);
    }
}

#[test]
fn help_version_and_schema_ask_for_no_socket() {
    for scene in Scene::all() {
        for flag in ["--help", "--version", "--print-schema"] {
            let log = tempfile::NamedTempFile::new().unwrap();
            let mut command = Command::new("strace");
            command.args([
                "-f",
                "--seccomp-bpf",
                "-qq",
                "-e",
                "trace=network",
                "-e",
                "signal=none",
                "-o",
            ]);
            command.arg(log.path()).args([executable(scene.step), flag]);
            match command.output() {
                Ok(output) if output.status.success() => {}
                _ => return skipped("strace is not there, or not allowed to trace"),
            }
            let network = named_calls(std::fs::read_to_string(log.path()).unwrap());
            assert!(
                network.trim().is_empty(),
                "{} {flag}: {network}",
                scene.step
            );
        }
    }
}
