//! The list of `unsafe` in the documentation, and what valgrind says of the executables.

use std::path::Path;
use std::process::Command;

use crate::common::Run;
use crate::scene::Scene;
use crate::skipped;

/// What a fault ends with.
const FAULT: &str = "--error-exitcode=99";
/// Faults that lie in libraries.
const KNOWN: &str = concat!(
    "--suppressions=",
    env!("CARGO_MANIFEST_DIR"),
    "/tests/faults/valgrind.supp"
);

/// Source files below a folder that use `unsafe`, by their path from the repository.
fn files_with_unsafe(folder: &Path, found: &mut Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_with_unsafe(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            if code.into_iter().any(|line| line.contains("unsafe ")) {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
}

#[test]
fn every_file_with_unsafe_is_in_the_documentation_with_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    files_with_unsafe(&root.join("src"), &mut found);
    let page = std::fs::read_to_string(root.join("docs/safety.md")).unwrap();
    assert!(!found.is_empty());
    for file in found {
        let row = page
            .lines()
            .find(|l| l.starts_with('|') && l.contains(&format!("`{file}`")));
        assert!(row.is_some(), "{file} is not listed in docs/safety.md");
    }
}

#[test]
#[ignore = "valgrind takes fifty times as long: minutes"]
fn valgrind_finds_no_fault() {
    let found = Command::new("valgrind").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        skipped("valgrind is not there");
        return;
    }
    for scene in Scene::all() {
        let out = tempfile::tempdir().unwrap();
        let words = ["valgrind", "--quiet", FAULT, KNOWN];
        Run::of(&mut scene.command_after(&words, out.path())).expect(0);
        scene.check_whole(out.path());
    }
}
