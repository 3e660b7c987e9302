#![doc = "voxmask: the anatomical foreground and the anonymization area of 3-D CT and MR."]
//!
//! # Conventions
//!
//! - Triples are always `i, j, k`. Voxels lie in memory with `i` fastest, as in a NIfTI file.
//! - World points are millimetres in RAS+ (x to the right, y to the front, z up).
//! - An affine takes an index `[i, j, k]` (the centre of that voxel) to a point.
//! - `spacing` is the distance between voxel centres along i, j, k, in mm.
//! - A bounding box is half-open, `[start, end)`, in indices.
//! - Masks hold 0 and 1 as `u8`.
//!
//! # From file to report
//!
//! [`volume`] reads and checks a file once, [`steps`] compute on one grid with the pure functions of
//! [`ops`] and the networks of [`network`], results come back to the input's grid, [`file`] writes
//! them whole or not at all, and [`report`] says what was done. [`cli`] is the only `main`.

pub mod cli;
pub mod cohort;
pub mod error;
pub mod file;
pub mod lanes;
pub mod ledger;
pub mod memory;
pub mod network;
pub mod ops;
pub mod picture;
pub mod report;
pub mod step;
pub mod steps;
pub mod volume;
