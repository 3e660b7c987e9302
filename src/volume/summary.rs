//! A grid in a few words, for reports.

use serde::Serialize;

use super::{Geometry, Orientation, Shape, Spacing};

/// Where a volume lies.
#[derive(Clone, Debug, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Summary {
    /// Voxels along i, j, k.
    pub shape: Shape,
    /// Distance between voxel centres along i, j, k [mm].
    pub spacing: Spacing,
    /// Which way i, j, k run.
    pub orientation: Orientation,
    /// Index to point, RAS+ [mm].
    pub affine: [[f64; 4]; 4],
}

impl Geometry {
    /// What a report says about this grid.
    pub fn summary(&self) -> Summary {
        let [x, y, z] = self.affine.0;
        Summary {
            shape: self.shape,
            spacing: self.spacing(),
            orientation: self.orientation(),
            affine: [x, y, z, [0.0, 0.0, 0.0, 1.0]],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    #[test]
    fn a_summary_names_the_grid() {
        let columns = [[0.0, -2.0, 0.0], [1.5, 0.0, 0.0], [0.0, 0.0, 3.0]];
        let geometry = Geometry::new([4, 5, 6], Affine::from_columns(columns, [7.0, 8.0, 9.0]));
        let summary = serde_json::to_value(geometry.summary()).unwrap();
        let wanted = serde_json::json!({
            "shape": [4, 5, 6],
            "spacing": [2.0, 1.5, 3.0],
            "orientation": "PRS",
            "affine": [[0.0, 1.5, 0.0, 7.0], [-2.0, 0.0, 0.0, 8.0], [0.0, 0.0, 3.0, 9.0],
                       [0.0, 0.0, 0.0, 1.0]],
        });
        assert_eq!(summary, wanted);
    }

    #[test]
    fn spacing_is_three_positive_numbers() {
        assert_eq!("1, 2,0.5".parse::<Spacing>().unwrap().mm(), [1.0, 2.0, 0.5]);
        for wrong in [
            "1,1", "1,1,1,1", "1,1,0", "1,1,-1", "1,1,nan", "1,1,inf", "", "a,b,c",
        ] {
            assert!(wrong.parse::<Spacing>().is_err(), "{wrong}");
        }
    }
}
