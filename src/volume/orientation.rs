//! Which way the axes of a grid run, and turning a volume so that they run another way.

/// Where each index grows, in three letters: `RAS`, `LPS`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation {
    /// World axis (0 = x, 1 = y, 2 = z) that i, j, k follow; a permutation.
    pub axes: [usize; 3],
    /// True where the index grows against that world axis.
    pub flipped: [bool; 3],
}
