//! A signal at any moment.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::common::phantom::noise;
use crate::scene::{Drafts, Scene};

/// The n-th moment of a run, a little beyond its end at most.
fn moment(scene: &Scene, n: usize) -> Duration {
    scene.takes.mul_f32(1.15 * noise(n))
}

fn kill_at(moments: std::ops::Range<usize>) {
    for scene in Scene::all() {
        for n in moments.clone() {
            let out = tempfile::tempdir().unwrap();
            let mut command = scene.command(out.path(), &[]);
            scene.signalled(&mut command, moment(&scene, n), "-KILL");
            scene.check(out.path(), Drafts::Some);
            scene.finish(out.path());
        }
    }
}

#[test]
fn killed_at_some_moments_a_step_leaves_nothing_half_done() {
    kill_at(0..4);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn killed_at_50_moments_a_step_leaves_nothing_half_done() {
    kill_at(4..54);
}

/// The old output is there until the new one is.
fn kill_over_an_old_output(moments: std::ops::Range<usize>) {
    for scene in Scene::single() {
        let out = tempfile::tempdir().unwrap();
        scene.run(out.path(), &[]).expect(0);
        for n in moments.clone() {
            let mut command = scene.command(out.path(), &["--overwrite"]);
            scene.signalled(&mut command, moment(&scene, n), "-KILL");
            let found: Vec<_> = crate::common::files(out.path()).into_keys().collect();
            for name in scene.whole.keys() {
                assert!(found.contains(name), "{}: {name} is gone", scene.step);
            }
        }
        scene.finish(out.path());
    }
}

#[test]
fn killed_while_it_replaces_an_output_a_step_keeps_the_old_or_has_the_new() {
    kill_over_an_old_output(0..4);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn killed_at_50_moments_while_it_replaces_an_output_a_step_keeps_one() {
    kill_over_an_old_output(4..54);
}

fn end_at(moments: std::ops::Range<usize>) {
    for scene in Scene::all() {
        for n in moments.clone() {
            for (signal, number) in [("-TERM", 15), ("-INT", 2), ("-HUP", 1)] {
                let out = tempfile::tempdir().unwrap();
                let mut command = scene.command(out.path(), &[]);
                let status = scene.signalled(&mut command, moment(&scene, n), signal);
                let ended = match (status.code(), status.signal()) {
                    (Some(0), None) => true,
                    // It finishes the scans that it is at.
                    (Some(130), None) => scene.is_cohort(),
                    (None, Some(by)) => by == number,
                    _ => false,
                };
                assert!(ended, "{} {signal}: {status}", scene.step);
                // A cohort knows no SIGHUP, and leaves its drafts to --resume.
                let drafts = match scene.is_cohort() && status.signal().is_some() {
                    true => Drafts::Some,
                    false => Drafts::None,
                };
                scene.check(out.path(), drafts);
            }
        }
    }
}

#[test]
fn asked_to_end_a_step_does_so_at_once_and_leaves_nothing() {
    end_at(0..2);
}

#[test]
#[ignore = "takes minutes: make test-faults"]
fn asked_to_end_at_17_moments_a_step_leaves_nothing() {
    end_at(2..19);
}

#[test]
fn what_the_parent_ignores_stays_ignored() {
    for scene in Scene::single() {
        let out = tempfile::tempdir().unwrap();
        let words = ["sh", "-c", "trap '' HUP INT; exec \"$@\"", "sh"];
        let mut command = scene.command_after(&words, out.path());
        let status = scene.signalled(&mut command, scene.takes / 2, "-HUP");
        assert_eq!(status.code(), Some(0), "{}", scene.step);
        scene.check_whole(out.path());
    }
}
