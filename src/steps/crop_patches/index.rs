//! The index of a folder of patches: as JSON lines, and as a table.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::sampling::{Place, Start};
use crate::error::{Error, Result};
use crate::file;
use crate::volume::{Geometry, Shape};

/// One patch of the index.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    /// Place in the index, from 0; in a zarr array the place along its first axis.
    pub(super) number: usize,
    /// Image file of the patch, or the array that it lies in.
    pub(super) name: String,
    /// Loss mask of the patch, or the array that it lies in.
    pub(super) loss_mask: String,
    /// The foreground voxel that was drawn as the patch's centre, in indices of the grid that it was
    /// cut from; of random sampling only.
    centre: Option<[usize; 3]>,
    /// Where it lies, in indices of the grid that it was cut from; half-open.
    bounding_box: Extent,
    /// Index in the patch to point, RAS+ [mm].
    affine: [[f64; 4]; 4],
    /// Foreground voxels of all the patch's voxels.
    foreground_share: f64,
    /// Altered voxels of all the patch's voxels.
    pub(super) altered_share: f64,
}

/// A box that may begin before the scan and end after it.
#[derive(Clone, Copy, Debug, Serialize)]
struct Extent {
    start: Start,
    end: Start,
}

/// What a patch holds of the masks, of all its voxels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shares {
    pub(super) foreground: f64,
    pub(super) altered: f64,
}

impl Entry {
    /// Describes a patch; the names are still empty.
    pub(super) fn new(place: Place, patch: &Geometry, shares: Shares) -> Self {
        let shape: Shape = patch.shape;
        Self {
            number: 0,
            name: String::new(),
            loss_mask: String::new(),
            centre: place.centre,
            bounding_box: Extent {
                start: place.start,
                end: [0, 1, 2].map(|d| place.start[d] + shape[d].cast_signed()),
            },
            affine: patch.summary().affine,
            foreground_share: shares.foreground,
            altered_share: shares.altered,
        }
    }

    /// Tab-separated values in the order of [`COLUMNS`].
    fn row(&self) -> String {
        let mut row = format!("{}\t{}\t{}", self.number, self.name, self.loss_mask);
        for d in 0..3 {
            let centre = self.centre.map(|centre| centre[d].to_string());
            let _ = write!(row, "\t{}", centre.as_deref().unwrap_or(NONE));
        }
        for n in self.bounding_box.start.iter().chain(&self.bounding_box.end) {
            let _ = write!(row, "\t{n}");
        }
        for x in self.affine[..3].iter().flatten() {
            let _ = write!(row, "\t{x}");
        }
        let _ = write!(row, "\t{}\t{}", self.foreground_share, self.altered_share);
        row
    }
}

/// File with one JSON object a line.
pub(super) const LINES: &str = "index.jsonl";
/// File with tab-separated values.
pub(super) const TABLE: &str = "index.tsv";
/// Stands for no value in the table, as in BIDS.
const NONE: &str = "n/a";

const COLUMNS: &str = "number\tname\tloss_mask\tcentre_i\tcentre_j\tcentre_k\t\
    start_i\tstart_j\tstart_k\tend_i\tend_j\tend_k\t\
    affine_xi\taffine_xj\taffine_xk\taffine_x\taffine_yi\taffine_yj\taffine_yk\taffine_y\t\
    affine_zi\taffine_zj\taffine_zk\taffine_z\tforeground_share\taltered_share";

/// Writes both files of the index into a folder.
pub(super) fn write(entries: &[Entry], folder: &Path) -> Result<()> {
    let mut lines = String::new();
    let mut table = format!("{COLUMNS}\n");
    for entry in entries {
        let line = serde_json::to_string(entry).map_err(|e| Error::Bug(e.to_string()))?;
        let _ = writeln!(lines, "{line}");
        let _ = writeln!(table, "{}", entry.row());
    }
    for (name, text) in [(LINES, lines), (TABLE, table)] {
        file::write_whole(&folder.join(name), false, |w| w.write_all(text.as_bytes()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    #[test]
    fn a_row_has_as_many_values_as_there_are_columns() {
        let columns = [[0.0, 2.0, 0.0], [-1.5, 0.0, 0.0], [0.0, 0.0, 4.0]];
        let patch = Geometry::new([2, 3, 4], Affine::from_columns(columns, [10.0, 20.0, 30.5]));
        let shares = Shares {
            foreground: 0.5,
            altered: 0.25,
        };
        let place = |centre| Place {
            start: [-1, 0, 7],
            centre,
        };
        let row = Entry::new(place(Some([0, 1, 9])), &patch, shares).row();
        let wanted = "0\t\t\t0\t1\t9\t-1\t0\t7\t1\t3\t11\t\
            0\t-1.5\t0\t10\t2\t0\t0\t20\t0\t0\t4\t30.5\t0.5\t0.25";
        assert_eq!(row, wanted);
        assert_eq!(row.split('\t').count(), COLUMNS.split('\t').count());
        let row = Entry::new(place(None), &patch, shares).row();
        assert!(row.starts_with("0\t\t\tn/a\tn/a\tn/a\t-1"));
    }
}
