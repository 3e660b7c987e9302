//! Every step under faults: whatever happens, an output is whole or absent, the exit code says why, no
//! draft stays (after SIGKILL: until the next run), and the inputs are as they were.
//!
//! `cargo test --test faults` takes a few samples of each fault, `make test-faults` all of them. Some need
//! root, `cc`, `strace` or `valgrind`; a test that cannot run says so on stderr.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod disk;
mod hostile;
mod isolation;
mod killed;
mod limits;
mod reads;
mod scene;
mod together;
mod unsafety;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Path of the library of faults (`shim.c`), built once; `None` without a C compiler.
fn shim() -> Option<&'static Path> {
    static SHIM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = SHIM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join(format!("shim-{}.so", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path);
        let done = compiler.arg(&source).arg("-ldl").status();
        done.is_ok_and(|status| status.success()).then_some(path)
    });
    if built.is_none() {
        skipped("there is no C compiler");
    }
    built.as_deref()
}

/// Says that a test could not run.
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// A file system of its own at a folder, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    /// An empty one in memory; `None` where mounting is not allowed.
    fn new(at: &Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        skipped("mount is not allowed here");
        None
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mut mount = Command::new("mount");
        assert!(
            mount
                .args(["-o", &options])
                .arg(&self.0)
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}
