//! Reading and writing of volumes, through files made here byte by byte.

#![allow(clippy::unwrap_used)]

mod laws;
mod raw;
mod refused;
mod right;
mod speed;
mod written;

/// A folder that goes away, with a name that is not ASCII.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("größe 体")
        .tempdir()
        .unwrap()
}
