//! Little memory, few open files, no place for temporary files, a clock that is wrong.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Run, executable};
use crate::scene::{Drafts, Scene};
use crate::{shim, skipped};

#[test]
fn twenty_open_files_are_enough() {
    for scene in Scene::all() {
        let out = tempfile::tempdir().unwrap();
        let words = ["sh", "-c", "ulimit -n 20; exec \"$@\"", "sh"];
        Run::of(&mut scene.command_after(&words, out.path())).expect(0);
        scene.check_whole(out.path());
    }
}

#[test]
fn no_temporary_folder_and_no_home_are_needed() {
    for scene in Scene::all() {
        let out = tempfile::tempdir().unwrap();
        let mut command = scene.command(out.path(), &[]);
        command
            .env("TMPDIR", "/no/such/folder")
            .env("HOME", "/no/such/home");
        Run::of(&mut command).expect(0);
        scene.check_whole(out.path());
    }
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let Some(shim) = shim() else { return };
    for scene in Scene::all() {
        // An hour, and a century: before 1970.
        for step in ["3600", "3155760000"] {
            let out = tempfile::tempdir().unwrap();
            let mut command = scene.command(out.path(), &[]);
            command.env("LD_PRELOAD", shim).env("FAULT_CLOCK", step);
            Run::of(&mut command).expect(0);
            scene.check_whole(out.path());
        }
    }
}

/// The address space that `--version` needs [KiB], which is what an executable needs before it can say
/// anything at all.
fn least_address_space(step: &str) -> u32 {
    let starts = |kib: u32| {
        let script = format!("ulimit -v {kib}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", executable(step), "--version"]);
        Run::of(&mut command).code == Some(0)
    };
    (1..).map(|n| n << 10).find(|&kib| starts(kib)).unwrap()
}

fn little_address_space(steps: u32) {
    for scene in Scene::all() {
        let least = least_address_space(scene.step);
        let (mut refused, mut done) = (0, 0);
        for n in 0..=steps {
            let out = tempfile::tempdir().unwrap();
            // Evenly up to 1 GiB above the least.
            let kib = least + (1 << 20) / steps * n;
            let script = format!("ulimit -v {kib}; exec \"$@\"");
            let words = ["sh", "-c", &script, "sh"];
            let run = Run::of(&mut scene.command_after(&words, out.path()));
            match run.code {
                Some(0) => {
                    done += 1;
                    scene.check_whole(out.path());
                }
                Some(75) => {
                    refused += 1;
                    run.expect(75);
                    scene.check(out.path(), Drafts::None);
                }
                _ => panic!("{} with {kib} KiB: {run:#?}", scene.step),
            }
        }
        assert!(refused > 0 && done > 0, "{}: {refused} {done}", scene.step);
    }
}

#[test]
fn too_little_address_space_is_75() {
    little_address_space(8);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn every_amount_of_address_space_is_75_or_enough() {
    little_address_space(128);
}

/// A control group with a limit of memory, until it is dropped.
struct Group(PathBuf);

impl Group {
    fn new(bytes: u64) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let (parent, limit) = match root.join("memory").is_dir() {
            true => (root.join("memory"), "memory.limit_in_bytes"),
            false => (root.to_owned(), "memory.max"),
        };
        let folder = parent.join(format!("voxmask-faults-{}", std::process::id()));
        std::fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        std::fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        let swap = group.0.join("memory.swap.max");
        let _ = std::fs::write(swap, "0");
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_control_group_that_kills_leaves_nothing_half_done() {
    for scene in Scene::single() {
        for mebibytes in [4, 12, 24, 48, 512] {
            let Some(group) = Group::new(mebibytes << 20) else {
                skipped("control groups cannot be made here");
                return;
            };
            let out = tempfile::tempdir().unwrap();
            let enter = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", group.0.display());
            let mut command = scene.command_after(&["sh", "-c", &enter, "sh"], out.path());
            let run = Run::of(command.process_group(0));
            // The kernel sends SIGKILL, which has no exit code.
            let ended = [None, Some(0), Some(75)].contains(&run.code);
            assert!(ended, "{} {mebibytes} MiB: {run:?}", scene.step);
            assert!(run.code == Some(0) || mebibytes < 512, "{run:?}");
            scene.check(out.path(), Drafts::Some);
            scene.finish(out.path());
        }
    }
}
