//! What every step has in common: its name, configuration, report and files.

use std::path::Path;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// One executable: a configuration in, files and a report out.
pub trait Step {
    /// Name without the prefix, in kebab case: `segment-foreground`.
    const NAME: &'static str;
    /// One sentence for `--help`.
    const ABOUT: &'static str;
    /// True for a step that works on many scans: it also takes `--memory` and `--resume`.
    const COHORT: bool = false;
    /// What to do. Field names are flags (kebab case) and JSON keys (snake case) at once.
    type Config: Args + Clone + Default + Serialize + DeserializeOwned + JsonSchema;
    /// What was found: the `result` of the report.
    type Report: Serialize + JsonSchema;

    /// Lists the files that a configuration names, set or not.
    ///
    /// From this list come the checks before a run (missing input, output that exists, output on top
    /// of an input), the digests in the report, and which keys the report leaves out as paths.
    fn files(config: &Self::Config) -> Vec<FileArgument<'_>>;

    /// Checks what can be checked without opening a file.
    ///
    /// # Errors
    /// [`crate::error::Error::Config`] for values that make no sense together.
    fn validate(config: &Self::Config) -> Result<()>;

    /// Reads, computes, writes.
    ///
    /// # Errors
    /// Any [`crate::error::Error`]; no output is left half-written.
    fn run(config: &Self::Config, context: &Context) -> Result<Self::Report>;

    /// The thresholds that a result missed, for exit code 1. Most steps have none.
    fn missed(_config: &Self::Config, _report: &Self::Report) -> Vec<String> {
        Vec::new()
    }

    /// Why something had to be left out although the rest is done; its exit code is that of the
    /// run. Only a step that works on many scans has a reason.
    fn left_out(_report: &Self::Report) -> Option<Error> {
        None
    }
}

/// A file that a configuration names.
#[derive(Clone, Copy, Debug)]
pub struct FileArgument<'a> {
    /// Key in the configuration, snake case: `input`.
    pub key: &'static str,
    /// What the file holds, for the report: `image`, `foreground_mask`, …
    pub role: &'static str,
    /// Read or written, and what kind of thing it is.
    pub kind: FileKind,
    /// A run without it makes no sense.
    pub required: bool,
    /// The path, if the configuration has one.
    pub path: Option<&'a Path>,
}

/// How a step uses a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file that is read.
    Input,
    /// A folder that is read.
    InputFolder,
    /// A file that is written.
    Output,
    /// A folder that is made and filled.
    OutputFolder,
}

impl<'a> FileArgument<'a> {
    /// An argument that must be given. An empty path counts as not given.
    pub fn required(key: &'static str, role: &'static str, kind: FileKind, path: &'a Path) -> Self {
        let path = (!path.as_os_str().is_empty()).then_some(path);
        Self {
            key,
            role,
            kind,
            required: true,
            path,
        }
    }

    /// An argument that may be left out.
    pub fn optional(
        key: &'static str,
        role: &'static str,
        kind: FileKind,
        path: Option<&'a Path>,
    ) -> Self {
        Self {
            key,
            role,
            kind,
            required: false,
            path,
        }
    }
}

/// How a step is run; nothing here changes a voxel.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where networks run.
    pub device: Device,
    /// Threads that may be used, at least 1. Rayon's global pool has as many.
    pub threads: usize,
    /// Existing outputs may be replaced.
    pub overwrite: bool,
    /// Bytes that may be used at most; `None`: what is free. Only for steps that work on many scans.
    pub memory: Option<u64>,
    /// What is finished already is kept. Only for steps that work on many scans.
    pub resume: bool,
    /// Nothing is said but errors.
    pub quiet: bool,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            threads: 1,
            overwrite: false,
            memory: None,
            resume: false,
            quiet: false,
        }
    }
}

impl Context {
    /// Says on stderr (unless quiet) that the next part of the work begins.
    pub fn stage(&self, what: &str) {
        if !self.quiet {
            tracing::info!("{what}");
        }
    }
}

/// Where networks run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// A GPU if ONNX Runtime finds one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first visible NVIDIA GPU; exit 69 without one.
    Cuda,
}
