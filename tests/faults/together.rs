//! Several processes that write the same output.

use std::process::{Child, Stdio};

use crate::scene::{Drafts, Scene};

fn start(scene: &Scene, out: &std::path::Path, flags: &[&str]) -> Child {
    let mut command = scene.command(out, flags);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn codes(children: Vec<Child>) -> Vec<Option<i32>> {
    let wait = |mut child: Child| child.wait().unwrap().code();
    children.into_iter().map(wait).collect()
}

#[test]
fn of_several_that_may_not_replace_one_wins_and_the_others_are_73() {
    for scene in Scene::single() {
        for _ in 0..3 {
            let out = tempfile::tempdir().unwrap();
            let children = (0..4).map(|_| start(&scene, out.path(), &[])).collect();
            let codes = codes(children);
            let count = |code| codes.iter().filter(|c| **c == Some(code)).count();
            // Each output has one that won; that one may have lost another output.
            assert!(
                count(0) <= 1 && count(0) + count(73) == 4,
                "{}: {codes:?}",
                scene.step
            );
            scene.check(out.path(), Drafts::None);
            let output = scene.whole.keys().find(|name| *name != "report.json");
            let there = output.is_none_or(|name| out.path().join(name).exists());
            assert!(there, "{}: nobody won", scene.step);
        }
    }
}

#[test]
fn of_several_that_may_replace_all_are_done() {
    for scene in Scene::single() {
        let out = tempfile::tempdir().unwrap();
        scene.run(out.path(), &[]).expect(0);
        for _ in 0..3 {
            let flags = ["--overwrite"];
            let children = (0..4).map(|_| start(&scene, out.path(), &flags)).collect();
            assert_eq!(codes(children), [Some(0); 4], "{}", scene.step);
            scene.check_whole(out.path());
        }
    }
}

#[test]
fn two_cohorts_in_one_folder_wait_for_each_other() {
    let scene = Scene::cohort();
    let out = tempfile::tempdir().unwrap();
    let children = (0..3)
        .map(|_| start(&scene, out.path(), &["--resume"]))
        .collect();
    let codes = codes(children);
    assert!(codes.contains(&Some(0)), "{codes:?}");
    assert!(
        codes.iter().all(|code| [Some(0), Some(75)].contains(code)),
        "{codes:?}"
    );
    scene.finish(out.path());
}
