//! Which way the axes of a grid run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Affine;
use super::geometry::norm;

/// The orders that three axes can have.
pub const AXIS_ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// Where each index grows, in three letters: `RAS`, `LPS`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Orientation {
    /// World axis (0 = x, 1 = y, 2 = z) that i, j, k follow; a permutation.
    pub axes: [usize; 3],
    /// True where the index grows against that world axis.
    pub flipped: [bool; 3],
}

/// Letters of the two ends of x, y, z: along the axis, against it.
const LETTERS: [[char; 2]; 3] = [['R', 'L'], ['A', 'P'], ['S', 'I']];

impl Orientation {
    /// i to the right, j to the front, k up.
    pub const RAS: Self = Self {
        axes: [0, 1, 2],
        flipped: [false; 3],
    };

    /// i to the left, j to the back, k up: the axes of DICOM and ITK.
    pub const LPS: Self = Self {
        axes: [0, 1, 2],
        flipped: [true, true, false],
    };

    /// The closest orientation of an affine.
    ///
    /// Each index axis takes the world axis that it follows most, the clearest axis first, and no
    /// world axis is taken twice: also at 45° the result is a permutation. Shear is taken out before.
    ///
    /// # Source
    /// The rule of nibabel's `io_orientation`: polar factor of the unit columns, then the largest
    /// entry. N. J. Higham, «Computing the polar decomposition», doi:10.1137/0907079.
    pub fn of(affine: &Affine) -> Self {
        let mut columns = polar_factor(affine.columns().map(|c| c.map(|x| x / norm(c))));
        let clearest = columns.map(|c| c.iter().fold(0.0, |most: f64, x| most.max(x * x)));
        let mut order = [0, 1, 2];
        order.sort_by(|&a, &b| clearest[b].total_cmp(&clearest[a]));
        let mut found = Self::RAS;
        let mut taken = [false; 3];
        for d in order {
            let free = (0..3).filter(|&axis| !taken[axis]);
            // The first of equal entries, as argmax has it.
            let axis = free.fold(None, |best: Option<usize>, axis| match best {
                Some(b) if columns[d][b].abs() >= columns[d][axis].abs() => best,
                _ => Some(axis),
            });
            let axis = axis.unwrap_or_default();
            taken[axis] = true;
            found.axes[d] = axis;
            found.flipped[d] = columns[d][axis] < 0.0;
            columns[d] = [0.0; 3];
        }
        found
    }
}

/// The rotation (or reflection) closest to a 3×3 matrix of unit columns: Newton's iteration
/// X ← (X + X⁻ᵀ) / 2.
fn polar_factor(unit_columns: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let mut columns = unit_columns;
    for _ in 0..60 {
        let inverse = Affine::from_columns(columns, [0.0; 3]).inverse();
        // The columns of the inverse's transpose are its rows.
        let next = [0, 1, 2].map(|c| [0, 1, 2].map(|r| 0.5 * (columns[c][r] + inverse.0[c][r])));
        if !next.iter().flatten().all(|x| x.is_finite()) {
            return columns;
        }
        let change = (0..9).map(|n| (next[n / 3][n % 3] - columns[n / 3][n % 3]).abs());
        let largest = change.fold(0.0, f64::max);
        columns = next;
        if largest < 1e-15 {
            break;
        }
    }
    columns
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for d in 0..3 {
            write!(f, "{}", LETTERS[self.axes[d]][usize::from(self.flipped[d])])?;
        }
        Ok(())
    }
}

impl FromStr for Orientation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "orientation must be three letters, one of each pair R/L, A/P, S/I, such as RAS, got {text:?}"
            )
        };
        let mut found = Self::RAS;
        let mut seen = [false; 3];
        let letters: Vec<char> = text.chars().collect();
        if letters.len() != 3 {
            return Err(wrong());
        }
        for (d, letter) in letters.into_iter().enumerate() {
            let letter = letter.to_ascii_uppercase();
            let axis = LETTERS.iter().position(|ends| ends.contains(&letter));
            let axis = axis.filter(|&axis| !seen[axis]).ok_or_else(wrong)?;
            seen[axis] = true;
            found.axes[d] = axis;
            found.flipped[d] = letter == LETTERS[axis][1];
        }
        Ok(found)
    }
}

impl TryFrom<String> for Orientation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Orientation> for String {
    fn from(orientation: Orientation) -> Self {
        orientation.to_string()
    }
}

impl schemars::JsonSchema for Orientation {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Orientation".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Where each index grows, in three letters: `RAS`, `LPS`, …",
            "type": "string",
            "pattern": "^[RLAPSI]{3}$"
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::geometry::tests::oblique;
    use super::*;

    pub(crate) fn orientation(text: &str) -> Orientation {
        text.parse().unwrap()
    }

    pub(crate) fn all() -> Vec<Orientation> {
        let flips = (0..8_u8).map(|f| [0, 1, 2].map(|d| f >> d & 1 == 1));
        flips
            .flat_map(|flipped| AXIS_ORDERS.map(|axes| Orientation { axes, flipped }))
            .collect()
    }

    #[test]
    fn letters_say_where_each_index_grows() {
        assert_eq!(Orientation::RAS.to_string(), "RAS");
        assert_eq!(Orientation::LPS.to_string(), "LPS");
        let found = orientation("iLa");
        assert_eq!(found.axes, [2, 0, 1]);
        assert_eq!(found.flipped, [true, true, false]);
        for one in all() {
            assert_eq!(orientation(&one.to_string()), one);
        }
    }

    #[test]
    fn letters_that_name_an_axis_twice_are_refused() {
        for text in ["RRS", "RLS", "RA", "RASL", "XYZ", ""] {
            assert!(text.parse::<Orientation>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_oblique_affine_takes_the_axis_it_follows_most() {
        // i = (1.2, 1.6, 0): y; j = (-2.4, 1.8, 0): -x; k = -z
        assert_eq!(oblique().orientation().to_string(), "ALI");
    }

    #[test]
    fn a_tie_still_gives_a_permutation() {
        let h = 0.5_f64.sqrt();
        let affine = Affine::from_columns([[h, h, 0.0], [-h, h, 0.0], [0.0, 0.0, 1.0]], [0.0; 3]);
        let mut axes = Orientation::of(&affine).axes;
        axes.sort_unstable();
        assert_eq!(axes, [0, 1, 2]);
    }

    #[test]
    fn a_sheared_affine_is_judged_without_its_shear() {
        // Gantry tilt: k leans 30° forward.
        let affine = Affine::from_columns(
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.5, 4.33]],
            [0.0; 3],
        );
        assert_eq!(Orientation::of(&affine), Orientation::RAS);
    }
}
