//! Pure functions on volumes: no files, no configuration, no logging.
//!
//! Each gives the same bits whatever the number of threads. Lengths are millimetres, so that a
//! result does not depend on how fine or how oblique the grid is.

pub mod air_noise;
mod blocks;
pub mod boundary;
pub mod components;
pub mod constant_area;
pub mod covering;
pub mod distance;
pub mod extent;
pub mod fill;
pub mod half;
pub mod interpolate;
pub mod morphology;
pub mod overlap;
pub mod packed_mask;
pub mod plausibility;
pub mod resize;
pub mod rim;
pub mod rough_area;
pub mod skin;
mod soft_edge;
pub mod surface;
mod tissue_noise;

#[cfg(test)]
pub(crate) mod phantom;
