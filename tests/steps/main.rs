//! Each step by itself, and all of them in a row, through their executables.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod chain;
mod collect;
mod crop_patches;
mod gpu;
mod prepare;
mod qa_metrics;
mod refinement;
mod resample;
mod segment;
