//! Each step by itself, and all of them in a row, through their executables.

#[path = "../common/mod.rs"]
mod common;

mod chain;
mod crop_patches;
mod qa_metrics;
mod resample;
