//! How large patches are.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::volume::Shape;

/// Voxels of a patch along i, j, k; none is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "[usize; 3]", into = "[usize; 3]")]
pub struct PatchShape([usize; 3]);

/// Longest side of a patch, in voxels.
const LONGEST_SIDE: usize = 4096;

impl PatchShape {
    /// 96 voxels along each axis.
    pub const DEFAULT: Self = Self([96; 3]);

    /// Voxels along i, j, k.
    pub fn voxels(self) -> Shape {
        self.0
    }
}

impl TryFrom<[usize; 3]> for PatchShape {
    type Error = String;

    fn try_from(shape: [usize; 3]) -> std::result::Result<Self, String> {
        if shape.iter().all(|n| (1..=LONGEST_SIDE).contains(n)) {
            Ok(Self(shape))
        } else {
            Err(format!(
                "patch shape must be three numbers from 1 to {LONGEST_SIDE}, got {shape:?}"
            ))
        }
    }
}

impl From<PatchShape> for [usize; 3] {
    fn from(shape: PatchShape) -> Self {
        shape.0
    }
}

impl FromStr for PatchShape {
    type Err = String;

    /// Reads `96,96,64`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("patch shape must be three numbers such as 96,96,64, got {text:?}");
        let numbers: std::result::Result<Vec<usize>, _> =
            text.split(',').map(|n| n.trim().parse()).collect();
        let shape = <[usize; 3]>::try_from(numbers.map_err(|_| wrong())?).map_err(|_| wrong())?;
        Self::try_from(shape)
    }
}

impl JsonSchema for PatchShape {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PatchShape".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Voxels of a patch along i, j, k.",
            "type": "array",
            "items": { "type": "integer", "minimum": 1, "maximum": LONGEST_SIDE },
            "minItems": 3,
            "maxItems": 3
        })
    }
}
