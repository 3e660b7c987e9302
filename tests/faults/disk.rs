//! Disks that are full, read-only, elsewhere, or can do less than others.

use std::path::Path;
use std::process::Command;

use crate::common::{Run, files};
use crate::scene::{Drafts, Scene};
use crate::{Mount, shim, skipped};

/// The disk is full from the n-th write on, for every n (or every `stride`-th) until the run succeeds.
fn full_at_every_write(stride: usize) {
    let Some(shim) = shim() else { return };
    for scene in Scene::all() {
        for n in (0..).step_by(stride) {
            let out = tempfile::tempdir().unwrap();
            let mut command = scene.command(out.path(), &[]);
            command.env("LD_PRELOAD", shim);
            let done = Run::of(command.env("FAULT_WRITES", n.to_string()));
            if done.code == Some(0) {
                assert!(n > 0, "{}: no write was disturbed", scene.step);
                scene.check_whole(out.path());
                break;
            }
            let stderr = done.expect(73).stderr;
            assert!(stderr.contains("disk is full"), "{}: {stderr}", scene.step);
            scene.check(out.path(), Drafts::None);
        }
    }
}

#[test]
fn a_disk_that_is_full_at_some_writes_is_73() {
    full_at_every_write(7);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn a_disk_that_is_full_at_every_write_is_73() {
    full_at_every_write(1);
}

/// Real file systems of growing size, until the run succeeds.
fn disks_of_growing_size(pages: impl Fn(u32) -> u32) {
    for scene in Scene::all() {
        for n in 0.. {
            let out = tempfile::tempdir().unwrap();
            let options = format!("size={}k", 4 * pages(n));
            let Some(_mount) = Mount::new(out.path(), &options) else {
                return;
            };
            let done = scene.run(out.path(), &[]);
            if done.code == Some(0) {
                scene.check_whole(out.path());
                break;
            }
            done.expect(73);
            scene.check(out.path(), Drafts::None);
        }
    }
}

#[test]
fn a_small_disk_is_73_and_a_large_one_does() {
    disks_of_growing_size(|n| 4 << n);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn disks_of_every_size_hold_all_or_nothing() {
    disks_of_growing_size(|n| 1 + 2 * n);
}

#[test]
fn a_disk_without_room_for_a_name_is_73() {
    for scene in Scene::all() {
        let out = tempfile::tempdir().unwrap();
        let Some(_mount) = Mount::new(out.path(), "size=64m,nr_inodes=1") else {
            return;
        };
        scene.run(out.path(), &[]).expect(73);
        scene.check(out.path(), Drafts::None);
    }
}

#[test]
fn a_read_only_disk_is_73() {
    for scene in Scene::all() {
        let out = tempfile::tempdir().unwrap();
        let Some(mount) = Mount::new(out.path(), "size=64m") else {
            return;
        };
        mount.remount("ro");
        scene.run(out.path(), &[]).expect(73);
        assert!(files(out.path()).is_empty(), "{}", scene.step);
    }
}

#[test]
fn another_file_system_takes_outputs_as_well() {
    for scene in Scene::all() {
        let out = tempfile::tempdir().unwrap();
        let Some(_mount) = Mount::new(out.path(), "size=64m") else {
            return;
        };
        scene.run(out.path(), &[]).expect(0);
        scene.check_whole(out.path());
    }
}

/// Without `/proc` a file without a name cannot get one: drafts have names then, as on NFS.
fn with_named_drafts(scene: &Scene, out: &Path) -> Option<Command> {
    let hide = "mount -t tmpfs tmpfs /proc && exec \"$@\"";
    let allowed = Command::new("unshare")
        .args(["-m", "sh", "-c", hide, "sh", "true"])
        .output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        skipped("a mount namespace is not allowed here");
        return None;
    }
    let mut command = scene.command_after(&["unshare", "-m", "sh", "-c", hide, "sh"], out);
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib");
    let libraries = std::fs::read_dir(library)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_library = |path: &std::path::PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        name.starts_with("libonnxruntime.so")
    };
    command.env("ORT_DYLIB_PATH", libraries.into_iter().find(is_library)?);
    Some(command)
}

#[test]
fn drafts_with_names_do_the_same() {
    for scene in Scene::all() {
        let out = tempfile::tempdir().unwrap();
        let Some(mut command) = with_named_drafts(&scene, out.path()) else {
            return;
        };
        Run::of(&mut command).expect(0);
        scene.check_whole(out.path());
        for (signal, drafts) in [("-KILL", Drafts::Some), ("-TERM", Drafts::None)] {
            if scene.is_cohort() {
                continue;
            }
            for part in [0.5, 0.7, 0.8, 0.9, 1.0] {
                let out = tempfile::tempdir().unwrap();
                let Some(mut command) = with_named_drafts(&scene, out.path()) else {
                    return;
                };
                scene.signalled(&mut command, scene.takes.mul_f32(part), signal);
                scene.check(out.path(), drafts);
                let Some(mut command) = with_named_drafts(&scene, out.path()) else {
                    return;
                };
                Run::of(command.arg("--overwrite")).expect(0);
                scene.check_whole(out.path());
            }
        }
    }
}

#[test]
fn a_full_disk_is_73_for_drafts_with_names() {
    let Some(shim) = shim() else { return };
    for scene in Scene::single() {
        for n in [0, 1, 3] {
            let out = tempfile::tempdir().unwrap();
            let Some(mut command) = with_named_drafts(&scene, out.path()) else {
                return;
            };
            command
                .env("LD_PRELOAD", shim)
                .env("FAULT_WRITES", n.to_string());
            let done = Run::of(&mut command);
            assert!([Some(0), Some(73)].contains(&done.code), "{done:?}");
            scene.check(out.path(), Drafts::None);
        }
    }
}
