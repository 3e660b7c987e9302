//! The report that every step writes: one envelope, of which only `result` differs between steps
//! and only `run` between two runs of the same call.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::file;
use crate::step::{Context, Device, FileArgument, FileKind, Step};

/// A report as it is written.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Envelope<R> {
    /// Name and version of this layout: `resample.report/1`.
    pub schema: String,
    /// The step that wrote it.
    pub step: String,
    /// Version of voxmask.
    pub version: String,
    /// Everything that was configured but for the paths; `--config` takes it back.
    pub config: Map<String, Value>,
    /// Files that were read.
    pub inputs: Vec<FileDigest>,
    /// Files that were written.
    pub outputs: Vec<FileDigest>,
    /// What was found.
    pub result: R,
    /// How it was run; the only part that differs between two runs of the same call.
    pub run: Run,
}

/// A file, known by its content: the name without its folders, and the digest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct FileDigest {
    /// What the file holds: `image`, `foreground_mask`, …
    pub role: String,
    /// File name without folders.
    pub name: String,
    /// SHA-256 in hexadecimal; of a folder: `null`.
    pub sha256: Option<String>,
}

/// How a step was run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Run {
    /// `auto`, `cpu` or `cuda`, as asked for.
    pub device: String,
    /// Threads that could be used.
    pub threads: usize,
    /// When it started, UTC, RFC 3339, to the second.
    pub started: String,
    /// How long it took [s].
    pub seconds: f64,
}

/// A measured number; or, since JSON has no NaN, why there is none.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Measure {
    /// The number.
    Value(f64),
    /// No number.
    Undefined {
        /// Always `null`.
        value: (),
        /// Why: `the mask is empty`.
        why: String,
    },
}

impl Measure {
    /// The number, if it is one; else the reason.
    pub fn new(value: Option<f64>, why: &str) -> Self {
        match value.filter(|number| number.is_finite()) {
            Some(number) => Self::Value(number),
            None => Self::Undefined {
                value: (),
                why: why.to_owned(),
            },
        }
    }

    /// The number, if there is one.
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Value(number) => Some(*number),
            Self::Undefined { .. } => None,
        }
    }

    /// One number of all, so many of them that fulfil something.
    pub fn share(part: usize, whole: usize, why: &str) -> Self {
        Self::new((whole > 0).then(|| part as f64 / whole as f64), why)
    }
}

/// A moment, UTC, RFC 3339, to the second. A clock that is set before 1970 or beyond 9999 gives the nearest
/// moment that can be written.
pub fn timestamp(moment: SystemTime) -> String {
    // 9999-12-31T23:59:59Z
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    let shown = SystemTime::UNIX_EPOCH + since.unwrap_or_default().min(LAST);
    humantime::format_rfc3339_seconds(shown).to_string()
}

/// Takes the time of a run.
pub struct Clock {
    started: SystemTime,
    instant: Instant,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            started: SystemTime::now(),
            instant: Instant::now(),
        }
    }

    /// How it was run until now.
    pub fn stop(&self, context: &Context) -> Run {
        let seconds = self.instant.elapsed().as_secs_f64();
        Run {
            device: match context.device {
                Device::Auto => "auto",
                Device::Cpu => "cpu",
                Device::Cuda => "cuda",
            }
            .to_owned(),
            threads: context.threads,
            started: timestamp(self.started),
            seconds: (seconds * 1000.0).round() / 1000.0,
        }
    }
}

/// Puts the envelope round the result of a step; `digest` says what a file is known by, which is
/// [`digest`] unless it is known already.
///
/// # Errors
/// When a file cannot be read back for its digest.
pub fn envelope<S: Step>(
    config: &S::Config,
    result: S::Report,
    run: Run,
    digest: impl Fn(&FileArgument, &Path) -> Result<FileDigest>,
) -> Result<Envelope<S::Report>> {
    let files = S::files(config);
    let digests = |kinds: &[FileKind]| -> Result<Vec<FileDigest>> {
        let chosen = files.iter().filter(|f| kinds.contains(&f.kind));
        chosen
            .filter_map(|file| file.path.map(|path| digest(file, path)))
            .collect()
    };
    Ok(Envelope {
        schema: format!("{}.report/1", S::NAME),
        step: S::NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: without_paths::<S>(config)?,
        inputs: digests(&[FileKind::Input, FileKind::InputFolder])?,
        outputs: digests(&[FileKind::Output, FileKind::OutputFolder])?,
        result,
        run,
    })
}

/// JSON schema of a step's report.
pub fn schema<S: Step>() -> Schema {
    schemars::schema_for!(Envelope<S::Report>)
}

/// A configuration as a report has it: everything but the paths.
///
/// # Errors
/// Exit 70.
pub fn without_paths<S: Step>(config: &S::Config) -> Result<Map<String, Value>> {
    let value = serde_json::to_value(config).map_err(|e| Error::Bug(e.to_string()))?;
    let Value::Object(mut map) = value else {
        return Err(Error::Bug("a configuration is no JSON object".to_owned()));
    };
    for file in S::files(config) {
        map.remove(file.key);
    }
    Ok(map)
}

/// Name without folders and digest of a file that a configuration names.
///
/// # Errors
/// Exit 66 when it cannot be read.
pub fn digest(file: &FileArgument, path: &Path) -> Result<FileDigest> {
    let is_file = matches!(file.kind, FileKind::Input | FileKind::Output);
    Ok(FileDigest {
        role: file.role.to_owned(),
        name: path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        sha256: if is_file {
            Some(file::sha256(path)?)
        } else {
            None
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_wrong_still_gives_a_moment() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(timestamp(at(86_400)), "1970-01-02T00:00:00Z");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(timestamp(before), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(at(1 << 40)), "9999-12-31T23:59:59Z");
    }
}
