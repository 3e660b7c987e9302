//! A call of each step that works, and what it writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use voxmask::file::drafts;

use crate::common::phantom::{PLAIN, Phantom, oblique};
use crate::common::table::{Case, TABLE};
use crate::common::{Run, executable, files};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models");

/// Files by their path, as [`files`] gives them.
type Files = BTreeMap<String, Vec<u8>>;

/// One step with inputs that nothing may change.
pub struct Scene {
    pub step: &'static str,
    /// Everything but the outputs.
    flags: Vec<String>,
    /// Flags that name an output, and its name.
    outputs: Vec<(&'static str, &'static str)>,
    inputs: PathBuf,
    before: Files,
    /// What an undisturbed run writes, and how long it takes.
    pub whole: Files,
    pub takes: Duration,
    _folders: Vec<tempfile::TempDir>,
    _case: Option<Case>,
}

/// What may lie in a folder of outputs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Drafts {
    None,
    /// Left by a SIGKILL.
    Some,
}

impl Scene {
    /// One for every executable.
    pub fn all() -> Vec<Self> {
        let mut scenes: Vec<Self> = TABLE
            .iter()
            .map(|row| Self::of(Case::with_grid(row, [40, 36, 24], oblique())))
            .collect();
        scenes.push(Self::collect());
        scenes.push(Self::cohort());
        scenes
    }

    /// All but `voxmask-prepare`, whose output grows scan by scan.
    pub fn single() -> Vec<Self> {
        let mut scenes = Self::all();
        scenes.retain(|scene| !scene.is_cohort());
        scenes
    }

    pub fn is_cohort(&self) -> bool {
        self.step == "prepare"
    }

    fn of(case: Case) -> Self {
        let mut flags = case.arguments();
        let at = flags.iter().position(|a| a == case.output_flag()).unwrap();
        flags.drain(at..at + 2);
        let mut outputs = vec![("--report", "report.json")];
        outputs.extend(case.row.output.map(|output| ("--output", output.name())));
        if case.row.step.starts_with("segment") {
            outputs.push(("--picture", "picture.png"));
        }
        let (step, inputs) = (case.row.step, case.folder().to_owned());
        Self::begin(step, flags, outputs, inputs, Vec::new(), Some(case))
    }

    fn collect() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().to_owned();
        std::fs::create_dir_all(base.join("scans")).unwrap();
        std::fs::create_dir_all(base.join("results")).unwrap();
        for n in 0..3 {
            let name = format!("scans/s{n}.nii.gz");
            Phantom::head([20 + n, 20, 12], PLAIN).write(&base.join(&name));
            let results = base.join("results");
            let mut segment = Command::new(executable("segment-foreground"));
            segment.arg("--input").arg(base.join(&name));
            segment
                .arg("--output")
                .arg(results.join(format!("s{n}.nii.gz")));
            segment
                .arg("--report")
                .arg(results.join(format!("s{n}.json")));
            Run::of(segment.args(["--model", &format!("{MODELS}/foreground")])).expect(0);
        }
        let at = |name: &str| base.join(name).display().to_string();
        let flags = [
            ["--input", &at("scans")],
            ["--results", &at("results")],
            ["--files", "copy"],
        ];
        let flags = flags.concat().into_iter().map(str::to_owned).collect();
        let outputs = vec![
            ("--output", "Dataset901_Heads"),
            ("--report", "report.json"),
        ];
        Self::begin("collect", flags, outputs, base, vec![folder], None)
    }

    /// `voxmask-prepare` on three scans.
    pub fn cohort() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().to_owned();
        for n in 0..3 {
            Phantom::head([30 + n, 28, 20], PLAIN).write(&base.join(format!("s{n}.nii.gz")));
        }
        let at = |name: &str| format!("{MODELS}/{name}");
        let input = base.display().to_string();
        let flags = [
            ["--input", &input],
            ["--foreground-model", &at("foreground")],
            ["--area-model", &at("anonymization-area")],
            ["--threads", "2"],
        ];
        let flags = flags.concat().into_iter().map(str::to_owned).collect();
        let outputs = vec![("--output", "prepared"), ("--report", "report.json")];
        Self::begin("prepare", flags, outputs, base, vec![folder], None)
    }

    fn begin(
        step: &'static str,
        flags: Vec<String>,
        outputs: Vec<(&'static str, &'static str)>,
        inputs: PathBuf,
        folders: Vec<tempfile::TempDir>,
        case: Option<Case>,
    ) -> Self {
        let before = files(&inputs);
        let mut scene = Self {
            step,
            flags,
            outputs,
            inputs,
            before,
            whole: Files::new(),
            takes: Duration::ZERO,
            _folders: folders,
            _case: case,
        };
        let out = tempfile::tempdir().unwrap();
        let start = Instant::now();
        scene.run(out.path(), &[]).expect(0);
        scene.takes = start.elapsed();
        scene.whole = content(out.path());
        scene
    }

    /// The command line, with outputs in a folder.
    pub fn arguments(&self, out: &Path, more: &[&str]) -> Vec<String> {
        let mut arguments = self.flags.clone();
        for (flag, name) in &self.outputs {
            arguments.extend([(*flag).to_owned(), out.join(name).display().to_string()]);
        }
        arguments.extend(more.iter().map(|&flag| flag.to_owned()));
        arguments
    }

    pub fn command(&self, out: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(executable(self.step));
        command.args(self.arguments(out, more));
        command
    }

    /// The executable behind other words: `sh -c … sh`, `unshare -n`.
    pub fn command_after(&self, words: &[&str], out: &Path) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(executable(self.step));
        command.args(self.arguments(out, &[]));
        command
    }

    pub fn run(&self, out: &Path, more: &[&str]) -> Run {
        Run::of(&mut self.command(out, more))
    }

    /// Path of an input file by its name.
    pub fn input(&self, name: &str) -> PathBuf {
        self.inputs.join(name)
    }

    /// Starts a run, sends it a signal after a while, and waits for its end.
    pub fn signalled(&self, command: &mut Command, after: Duration, signal: &str) -> ExitStatus {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(after);
        let id = child.id().to_string();
        let _ = Command::new("kill")
            .args([signal, &id])
            .stderr(Stdio::null())
            .status();
        child.wait().unwrap()
    }

    /// Runs again what a fault stopped; then everything is there.
    #[track_caller]
    pub fn finish(&self, out: &Path) {
        let again = if self.is_cohort() {
            "--resume"
        } else {
            "--overwrite"
        };
        self.run(out, &[again]).expect(0);
        self.check_whole(out);
    }

    /// Panics unless all outputs are there, and nothing else.
    #[track_caller]
    pub fn check_whole(&self, out: &Path) {
        let found = content(out);
        let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&self.whole), "{}", self.step);
        self.check(out, Drafts::None);
    }

    /// Panics unless every output is whole or absent, nothing else is there, and the inputs are as they
    /// were.
    #[track_caller]
    pub fn check(&self, out: &Path, drafts: Drafts) {
        let step = self.step;
        assert!(files(&self.inputs) == self.before, "{step}: inputs changed");
        let mut found = content(out);
        found.retain(|name, _| {
            let draft = name.split('/').any(drafts::is_draft);
            assert!(!draft || drafts == Drafts::Some, "{step}: {name} was left");
            !draft
        });
        for unit in self.units() {
            let inside = |name: &String| *name == unit || name.starts_with(&format!("{unit}/"));
            let wanted: Vec<_> = self.whole.iter().filter(|(name, _)| inside(name)).collect();
            let there: Vec<_> = found.iter().filter(|(name, _)| inside(name)).collect();
            assert!(
                there.is_empty() || there == wanted,
                "{step}: {unit} is not whole"
            );
            found.retain(|name, _| !inside(name));
        }
        // A cohort's folder comes before what is put in.
        found.retain(|name, _| !(self.is_cohort() && name.ends_with('/')));
        let more: Vec<_> = found.keys().collect();
        assert!(more.is_empty(), "{step}: {more:?} do not belong there");
    }

    /// What is there as a whole or not at all.
    fn units(&self) -> Vec<String> {
        let depth = |name: &str| name.trim_end_matches('/').matches('/').count();
        let trimmed = self
            .whole
            .keys()
            .map(|name| name.trim_end_matches('/').to_owned());
        if self.is_cohort() {
            let unit = |name: &String| match name.starts_with("prepared/scans/") {
                true => depth(name) == 2,
                false => name != "prepared" && name != "prepared/scans",
            };
            return trimmed.filter(unit).collect();
        }
        trimmed.filter(|name| depth(name) == 0).collect()
    }
}

/// What a run wrote, without what says how long it took and when.
fn content(out: &Path) -> Files {
    let mut found = files(out);
    found.retain(|name, _| !name.ends_with("ledger.jsonl"));
    for (name, bytes) in &mut found {
        if !name.ends_with(".json") {
            continue;
        }
        if let Ok(Value::Object(mut report)) = serde_json::from_slice(bytes) {
            report.remove("run");
            *bytes = Value::from(report).to_string().into_bytes();
        }
    }
    found
}
