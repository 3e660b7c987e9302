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
    /// Some of many inputs cannot be used (exit 65).
    #[error("{0}")]
    Unusable(String),
    /// Some of many inputs cannot be read (exit 66).
    #[error("{0}")]
    Unreadable(String),
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
    /// The user or the scheduler asked for an end (exit 130).
    #[error("{0}")]
    Interrupted(String),
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

    /// What is wrong, without naming any of these paths: for reports that must hold none.
    pub fn without_paths(&self, paths: &[&Path]) -> String {
        let mut text = self.to_string();
        for path in paths {
            let shown = path.display().to_string();
            if let Some(why) = text.strip_prefix(&format!("{shown}: ")) {
                text = why.to_owned();
            }
            text = text.replace(&shown, "the file");
        }
        text
    }

    /// The exit code of an executable that stops with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::InputUnusable { .. } | Self::Unusable(_) => 65,
            Self::InputUnreadable { .. } | Self::Unreadable(_) => 66,
            Self::Unavailable(_) => 69,
            Self::Bug(_) => 70,
            Self::OutputUnwritable { .. } => 73,
            Self::TryAgain(_) => 75,
            Self::Interrupted(_) => 130,
        }
    }
}

impl From<&Error> for ExitCode {
    fn from(error: &Error) -> Self {
        ExitCode::from(error.exit_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_left_out_of_a_message() {
        let (path, other) = (
            Path::new("/data/DOE^JANE/scan.nii.gz"),
            Path::new("/data/ref.nii"),
        );
        let unusable = Error::unusable(path, "is empty");
        assert_eq!(unusable.without_paths(&[path, other]), "is empty");
        assert_eq!(
            Error::unusable(other, "is empty").without_paths(&[path, other]),
            "is empty"
        );
        let config = Error::Config(format!("frame 7 of {} is missing", path.display()));
        assert_eq!(
            config.without_paths(&[path]),
            "frame 7 of the file is missing"
        );
    }
}
