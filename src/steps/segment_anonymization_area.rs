//! Placeholder silhouette of the step; its owner replaces it whole.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::step::{Context, FileArgument, FileKind, Step};

/// The step.
pub struct SegmentAnonymizationArea;

/// What to do.
#[derive(Clone, Debug, Default, Args, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["input"]))]
pub struct Config {
    /// Volume to read (`.nii` or `.nii.gz`).
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
}

/// What was found.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {}

impl Step for SegmentAnonymizationArea {
    const NAME: &'static str = "segment-anonymization-area";
    const ABOUT: &'static str = "Not built yet";
    type Config = Config;
    type Report = Report;

    fn files(config: &Config) -> Vec<FileArgument<'_>> {
        vec![FileArgument::required(
            "input",
            "image",
            FileKind::Input,
            &config.input,
        )]
    }

    fn validate(_config: &Config) -> Result<()> {
        Ok(())
    }

    fn run(_config: &Config, _context: &Context) -> Result<Report> {
        Ok(Report {})
    }
}
