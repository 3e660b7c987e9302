//! The table of steps that every contract is checked against.

use std::path::{Path, PathBuf};

use super::phantom::{Affine, PLAIN, Phantom, oblique};

/// One step and a call of it that works.
pub struct Row {
    pub step: &'static str,
    /// Flags that name an input, the first of them required, and what they name.
    pub inputs: &'static [(&'static str, Content)],
    /// Paths of the repository that the call needs, and the flags that name them.
    pub fixed: &'static [(&'static str, &'static str)],
    /// Flags that say what to do.
    pub flags: &'static [&'static str],
    /// Name of what `--output` makes.
    pub output: Option<Output>,
    /// A configuration key, a value for the file, the flag's spelling of another value, and that
    /// value as JSON.
    pub setting: (&'static str, &'static str, &'static str, &'static str),
}

/// What an input file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Image,
    Mask,
}

/// What a step writes.
#[derive(Clone, Copy)]
pub enum Output {
    File(&'static str),
    Folder(&'static str),
}

impl Output {
    pub fn name(self) -> &'static str {
        match self {
            Self::File(name) | Self::Folder(name) => name,
        }
    }
}

/// Tiny networks whose answers can be worked out by hand.
const MODEL_FOREGROUND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/foreground");
const MODEL_AREA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/models/anonymization-area"
);

/// A tiny network that nnU-Net trained; see tests/nnunet/golden.py.
const MODEL_WINDOWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/nnunet/model");

pub const TABLE: &[Row] = &[
    Row {
        step: "resample",
        inputs: &[("--input", Content::Image), ("--like", Content::Image)],
        fixed: &[],
        flags: &["--interpolation=linear"],
        output: Some(Output::File("resampled.nii.gz")),
        setting: (
            "coarsening",
            "\"average\"",
            "--coarsening=sample",
            "\"sample\"",
        ),
    },
    Row {
        step: "segment",
        inputs: &[("--input", Content::Image)],
        fixed: &[("--model", MODEL_WINDOWS)],
        flags: &[],
        output: Some(Output::File("labels.nii.gz")),
        setting: ("mirroring", "\"off\"", "--mirroring=on", "\"on\""),
    },
    Row {
        step: "segment-foreground",
        inputs: &[("--input", Content::Image)],
        fixed: &[("--model", MODEL_FOREGROUND)],
        flags: &[],
        output: Some(Output::File("foreground.nii.gz")),
        setting: ("modality", "\"mr\"", "--modality=ct", "\"ct\""),
    },
    Row {
        step: "segment-anonymization-area",
        inputs: &[("--input", Content::Image), ("--foreground", Content::Mask)],
        fixed: &[("--model", MODEL_AREA)],
        flags: &[],
        output: Some(Output::File("anonymization_area.nii.gz")),
        setting: ("modality", "\"mr\"", "--modality=ct", "\"ct\""),
    },
    Row {
        step: "crop-patches",
        inputs: &[
            ("--input", Content::Image),
            ("--foreground", Content::Mask),
            ("--anonymization-area", Content::Mask),
        ],
        fixed: &[],
        flags: &["--patch-shape=8,8,4", "--sampling=random", "--count=5"],
        output: Some(Output::Folder("patches")),
        setting: ("seed", "7", "--seed=8", "8"),
    },
    Row {
        step: "qa-metrics",
        inputs: &[
            ("--input", Content::Mask),
            ("--reference", Content::Mask),
            ("--image", Content::Image),
        ],
        fixed: &[],
        flags: &[],
        output: None,
        setting: ("tolerance_mm", "1.0", "--tolerance-mm=3", "3.0"),
    },
];

/// A folder with inputs for a call of a step.
pub struct Case {
    pub row: &'static Row,
    folder: tempfile::TempDir,
}

impl Case {
    /// With oblique, anisotropic inputs.
    pub fn new(row: &'static Row) -> Self {
        Self::with_grid(row, [24, 20, 12], oblique())
    }

    pub fn with_grid(row: &'static Row, shape: [usize; 3], affine: Affine) -> Self {
        let case = Self {
            row,
            folder: tempfile::tempdir().unwrap(),
        };
        for (flag, content) in row.inputs {
            match content {
                Content::Image => Phantom::head(shape, affine).write(&case.input(flag)),
                Content::Mask => Phantom::ball(shape, affine).write(&case.input(flag)),
            }
        }
        case
    }

    /// On a small grid with 1 mm along every axis.
    pub fn plain(row: &'static Row) -> Self {
        Self::with_grid(row, [16, 16, 16], PLAIN)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Path of the input that a flag names.
    pub fn input(&self, flag: &str) -> PathBuf {
        self.path(&format!("{}.nii.gz", flag.trim_start_matches('-')))
    }

    /// Path of the output; the report, if the step writes nothing else.
    pub fn output(&self) -> PathBuf {
        self.path(self.row.output.map_or("report.json", Output::name))
    }

    /// Flag that names what [`Case::output`] is.
    pub fn output_flag(&self) -> &'static str {
        self.row.output.map_or("--report", |_| "--output")
    }

    /// Flags that name files.
    pub fn paths(&self) -> Vec<String> {
        let named = |flag: &str, path: PathBuf| [flag.to_owned(), path.display().to_string()];
        let mut flags: Vec<String> = Vec::new();
        for (flag, _) in self.row.inputs {
            flags.extend(named(flag, self.input(flag)));
        }
        for (flag, path) in self.row.fixed {
            flags.extend(named(flag, path.into()));
        }
        flags.extend(named(self.output_flag(), self.output()));
        flags
    }

    /// The whole command line.
    pub fn arguments(&self) -> Vec<String> {
        let mut flags = self.paths();
        flags.extend(self.row.flags.iter().map(|&flag| flag.to_owned()));
        flags
    }
}
