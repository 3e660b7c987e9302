//! What all executables have in common, checked over one table.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod configuration;
mod inputs;
mod outputs;

/// A command line with more flags.
fn with(arguments: &[String], more: &[&str]) -> Vec<String> {
    let more = more.iter().map(|&flag| flag.to_owned());
    arguments.iter().cloned().chain(more).collect()
}
