//! How much of a scan a mask takes up.

use schemars::JsonSchema;
use serde::Serialize;

use super::components::{Components, Connectivity};
use crate::volume::Mask;

/// Size and shape of a mask in a few numbers.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Extent {
    /// Voxels that are 1.
    pub voxels: usize,
    /// Their volume [ml].
    pub volume_ml: f64,
    /// Share of the scan, 0 to 1.
    pub share: f64,
    /// Connected pieces (over faces, edges and corners).
    pub pieces: usize,
}

impl Extent {
    /// Measures a mask.
    pub fn of(mask: &Mask) -> Self {
        let components = Components::find(mask, Connectivity::TwentySix);
        let voxels: usize = components.pieces().iter().map(|piece| piece.voxels).sum();
        Self {
            voxels,
            volume_ml: voxels as f64 * mask.geometry.voxel_ml(),
            share: voxels as f64 / mask.voxels.len() as f64,
            pieces: components.pieces().len(),
        }
    }
}
