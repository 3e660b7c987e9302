//! Half-open boxes of voxels.

use serde::{Deserialize, Serialize};

/// Voxels from `start` up to, but without, `end`, in indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BoundingBox {
    /// First voxel along i, j, k.
    pub start: [usize; 3],
    /// One past the last voxel along i, j, k.
    pub end: [usize; 3],
}
