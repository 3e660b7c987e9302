//! What becomes of the memory that a network took for a scan.

use crate::memory;
use crate::volume::coarse_grid::CoarseGrid;

/// What becomes of the memory that a run took, where a session keeps any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It stays for the next run.
    Kept,
    /// It goes back to the system: what follows needs it more than a next run does.
    GivenBack,
}

/// Of a scan of more cells than these what networks took goes back to the system. A whole body has 3 million of 4 mm,
/// which take 0.9 GB; its masks need it next. A head has a tenth.
const MOST_HELD_CELLS: f64 = 1e6;

impl Afterwards {
    /// What is best for a scan on these cells, once a network has seen all of it.
    pub fn of(grid: &CoarseGrid) -> Self {
        if memory::voxels(grid.shape) > MOST_HELD_CELLS {
            Self::GivenBack
        } else {
            Self::Kept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::grid;

    #[test]
    fn what_a_head_took_is_kept_and_what_a_whole_body_took_is_not() {
        let of = |shape| Afterwards::of(&CoarseGrid::over(&grid(shape, [1.0; 3]), 4.0));
        assert_eq!(of([256, 256, 256]), Afterwards::Kept);
        assert_eq!(of([400, 400, 1800]), Afterwards::GivenBack);
    }
}
