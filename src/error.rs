//! What can go wrong, and the exit code that says so.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a step could not be done. Messages are lower case, without a full stop, and say what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Flags or configuration that make no sense (exit 2).
    #[error("{0}")]
    Config(String),
    /// An input that is there but cannot be used (exit 65).
    #[error("{}: {why}", path.display())]
    InputUnusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An input that is missing or cannot be read (exit 66).
    #[error("{}: cannot be read: {source}", path.display())]
    InputUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A device, library or model that is not there (exit 69).
    #[error("{0}")]
    Unavailable(String),
    /// A fault of ours (exit 70).
    #[error("{0}; this is a bug in voxmask, please report it")]
    Bug(String),
    /// An output that cannot be written (exit 73).
    #[error("{}: cannot be written: {why}", path.display())]
    OutputUnwritable {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        why: String,
    },
    /// Not enough memory, or a busy device: the same call may work later (exit 75).
    #[error("{0}")]
    TryAgain(String),
}

impl Error {
    /// An input file whose content cannot be used.
    pub fn unusable(path: &Path, why: impl Into<String>) -> Self {
        Self::InputUnusable {
            path: path.to_owned(),
            why: why.into(),
        }
    }

    /// An input file that the system does not let us read.
    pub fn unreadable(path: &Path, source: std::io::Error) -> Self {
        Self::InputUnreadable {
            path: path.to_owned(),
            source,
        }
    }

    /// An output file that cannot be written.
    pub fn unwritable(path: &Path, why: impl ToString) -> Self {
        Self::OutputUnwritable {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }

    /// The exit code of an executable that stops with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::InputUnusable { .. } => 65,
            Self::InputUnreadable { .. } => 66,
            Self::Unavailable(_) => 69,
            Self::Bug(_) => 70,
            Self::OutputUnwritable { .. } => 73,
            Self::TryAgain(_) => 75,
        }
    }
}

impl From<&Error> for ExitCode {
    fn from(error: &Error) -> Self {
        ExitCode::from(error.exit_code())
    }
}
