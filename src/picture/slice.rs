//! Slices of a volume, turned and scaled to pixels.

use rayon::prelude::*;

use crate::volume::{Geometry, Image, Mask};

/// A pair of world axes to look at, 0 = x, 1 = y, 2 = z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plane {
    /// World axis from left to right, from its positive end to its negative one.
    across: usize,
    /// World axis from top to bottom, from its positive end to its negative one.
    down: usize,
    /// World axis that slices are counted along.
    through: usize,
}

impl Plane {
    /// Axial, coronal, sagittal.
    pub(super) const ALL: [Self; 3] = [Self::new(0, 1, 2), Self::new(0, 2, 1), Self::new(1, 2, 0)];

    const fn new(across: usize, down: usize, through: usize) -> Self {
        Self {
            across,
            down,
            through,
        }
    }

    /// Directions at the left, right, top and bottom side.
    pub(super) fn letters(self) -> [char; 4] {
        let (left, right) = ENDS[self.across];
        let (top, bottom) = ENDS[self.down];
        [left, right, top, bottom]
    }
}

/// Names of the positive and of the negative end of the world axes.
const ENDS: [(char, char); 3] = [('R', 'L'), ('A', 'P'), ('S', 'I')];

/// A slice in pixels: rows from the top left.
pub(super) struct Tile {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) values: Vec<f32>,
    pub(super) masks: Vec<Vec<bool>>,
}

/// How many slices a row shows.
#[derive(Clone, Copy)]
pub(super) struct Slices {
    /// Pixels from left to right that the row should fill.
    pub(super) room: usize,
    /// However wide they are, at least this many.
    pub(super) least: usize,
    /// However narrow they are, at most this many.
    pub(super) most: usize,
}

/// How a grid is looked at.
pub(super) struct View {
    /// For each world axis, the voxel axis that follows it most closely.
    axes: [Axis; 3],
    /// Longer side of a tile, in pixels.
    tile: usize,
}

#[derive(Clone, Copy)]
struct Axis {
    /// 0 = i, 1 = j, 2 = k.
    voxel: usize,
    /// Voxels along it.
    count: usize,
    /// Voxels between neighbours along it, in memory.
    stride: usize,
    /// Millimetres along it.
    extent: f64,
    /// True where the index grows with the world axis, so that pixels run against it.
    reversed: bool,
}

impl View {
    pub(super) fn new(geometry: &Geometry, tile: usize) -> Self {
        let orientation = geometry.orientation();
        let spacing = geometry.spacing().mm();
        let strides = [1, geometry.shape[0], geometry.shape[0] * geometry.shape[1]];
        let axes = [0, 1, 2].map(|world| {
            let voxel = (0..3)
                .find(|&voxel| orientation.axes[voxel] == world)
                .unwrap_or(world);
            Axis {
                voxel,
                count: geometry.shape[voxel],
                stride: strides[voxel],
                extent: geometry.shape[voxel] as f64 * spacing[voxel],
                reversed: !orientation.flipped[voxel],
            }
        });
        Self { axes, tile }
    }

    /// Slices of a plane to show, as many as fill a row. Each has behind it the same share of the voxels that `profiles` counts.
    pub(super) fn depths(&self, plane: Plane, profiles: &Profiles, slices: Slices) -> Vec<usize> {
        let axis = self.axes[plane.through];
        let (width, _) = self.tile_shape(plane);
        let count = (slices.room / width).clamp(slices.least, slices.most);
        let mut depths = quantiles(&profiles[axis.voxel], count);
        depths.dedup();
        // From the positive end to the negative one, as pixels run.
        if axis.reversed {
            depths.reverse();
        }
        depths
    }

    /// So many slices of a plane, chosen alike; a thin volume has some of them twice.
    pub(super) fn spread(&self, plane: Plane, profiles: &Profiles, count: usize) -> Vec<usize> {
        let axis = self.axes[plane.through];
        let mut depths = quantiles(&profiles[axis.voxel], count);
        if axis.reversed {
            depths.reverse();
        }
        depths
    }

    /// Pixels across and down a tile of a plane.
    fn tile_shape(&self, plane: Plane) -> (usize, usize) {
        let (across, down) = (self.axes[plane.across], self.axes[plane.down]);
        let scale = self.tile as f64 / across.extent.max(down.extent);
        let pixels = |extent: f64| ((extent * scale).round() as usize).clamp(1, self.tile);
        (pixels(across.extent), pixels(down.extent))
    }

    /// One slice in pixels, true to the grid's spacing.
    pub(super) fn tile(&self, image: &Image, masks: &[&Mask], plane: Plane, depth: usize) -> Tile {
        let (across, down) = (self.axes[plane.across], self.axes[plane.down]);
        let (width, height) = self.tile_shape(plane);
        let scaling = Scaling {
            columns: taps(&across, width),
            rows: taps(&down, height),
            lines: down.count,
        };
        let start = depth * self.axes[plane.through].stride;
        let offset = |x: usize, y: usize| start + x * across.stride + y * down.stride;
        let inside = |mask: &&Mask| {
            let shares = scaling.apply(|x, y| f32::from(mask.voxels[offset(x, y)]));
            shares.into_iter().map(|share| share >= 0.5).collect()
        };
        Tile {
            width,
            height,
            values: scaling.apply(|x, y| image.samples.value(offset(x, y))),
            masks: masks.iter().map(inside).collect(),
        }
    }
}

/// The voxels that make up one pixel along one axis, and their weights (sum 1).
struct Tap {
    first: usize,
    weights: Vec<f32>,
}

/// Linear interpolation where pixels are finer than voxels, a mean over the pixel where coarser.
fn taps(axis: &Axis, pixels: usize) -> Vec<Tap> {
    let ratio = axis.count as f64 / pixels as f64;
    let mut taps: Vec<Tap> = (0..pixels)
        .map(|pixel| {
            tap(
                (pixel as f64 + 0.5) * ratio - 0.5,
                ratio.max(1.0),
                axis.count,
            )
        })
        .collect();
    if axis.reversed {
        taps.reverse();
    }
    taps
}

/// A triangle of half-width `width` voxels round `centre`, cut off at the border.
fn tap(centre: f64, width: f64, count: usize) -> Tap {
    let centre = centre.clamp(0.0, (count - 1) as f64);
    let first = (centre - width).ceil().max(0.0) as usize;
    let last = ((centre + width).floor() as usize).min(count - 1);
    let weight = |voxel: usize| (1.0 - (voxel as f64 - centre).abs() / width).max(0.0);
    let total: f64 = (first..=last).map(weight).sum();
    Tap {
        first,
        weights: (first..=last)
            .map(|voxel| (weight(voxel) / total) as f32)
            .collect(),
    }
}

/// Turns voxels of a slice into pixels, one axis after the other.
struct Scaling {
    columns: Vec<Tap>,
    rows: Vec<Tap>,
    /// Voxels from top to bottom.
    lines: usize,
}

impl Scaling {
    /// Pixels in rows from the top left; `value` is called with voxels across and down.
    fn apply(&self, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
        let mut across = Vec::with_capacity(self.lines * self.columns.len());
        for y in 0..self.lines {
            across.extend(self.columns.iter().map(|tap| tap.mean(|x| value(x, y))));
        }
        let width = self.columns.len();
        let mut pixels = Vec::with_capacity(self.rows.len() * width);
        for tap in &self.rows {
            pixels.extend((0..width).map(|x| tap.mean(|y| across[y * width + x])));
        }
        pixels
    }
}

impl Tap {
    fn mean(&self, value: impl Fn(usize) -> f32) -> f32 {
        let voxels = self.weights.iter().zip(self.first..);
        voxels.map(|(weight, voxel)| weight * value(voxel)).sum()
    }
}

/// Voxels of a mask in each slice along i, j and k.
pub(super) type Profiles = [Vec<u32>; 3];

/// Counts a mask's voxels slice by slice.
pub(super) fn profiles(mask: &Mask) -> Profiles {
    let shape = mask.shape();
    let none = || shape.map(|count| vec![0; count]);
    let slabs = mask.voxels.par_chunks(shape[0] * shape[1]).enumerate();
    slabs
        .fold(none, |mut counts, (k, slab)| {
            for (j, row) in slab.chunks(shape[0]).enumerate() {
                let inside: u32 = row.iter().map(|&v| u32::from(v)).sum();
                counts[1][j] += inside;
                counts[2][k] += inside;
                if inside > 0 {
                    let columns = counts[0].iter_mut().zip(row);
                    columns.for_each(|(count, &v)| *count += u32::from(v));
                }
            }
            counts
        })
        .reduce(none, |mut one, other| {
            let pairs = one.iter_mut().flatten().zip(other.iter().flatten());
            pairs.for_each(|(count, more)| *count += more);
            one
        })
}

/// Slices that split what a profile counts evenly: the first has 1/(2 `count`) of it before it.
fn quantiles(profile: &[u32], count: usize) -> Vec<usize> {
    let total: u64 = profile.iter().map(|&n| u64::from(n)).sum();
    let mut before = 0;
    let mut ends = profile.iter().map(|&n| {
        before += u64::from(n);
        before
    });
    let mut slice = 0;
    let mut end = ends.next().unwrap_or(0);
    (0..count as u64)
        .map(|n| {
            while end * 2 * (count as u64) <= total * (2 * n + 1) && slice + 1 < profile.len() {
                end = ends.next().unwrap_or(total);
                slice += 1;
            }
            slice
        })
        .collect()
}

/// Pixels of a mask that touch one outside it (above, below, left or right); the side of the tile
/// is no outside.
pub(super) fn outline(mask: &[bool], width: usize) -> Vec<usize> {
    let outside = |n: usize| {
        let x = n % width;
        (x > 0 && !mask[n - 1])
            || (x + 1 < width && !mask[n + 1])
            || (n >= width && !mask[n - width])
            || (n + width < mask.len() && !mask[n + width])
    };
    (0..mask.len()).filter(|&n| mask[n] && outside(n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_pixel_sum_to_one_and_stay_inside() {
        for (centre, width) in [(0.0, 1.0), (3.7, 2.5), (9.0, 1.0), (-4.0, 3.0), (12.0, 3.0)] {
            let tap = tap(centre, width, 10);
            assert!((tap.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(tap.first + tap.weights.len() <= 10);
        }
    }

    #[test]
    fn slices_split_a_profile_evenly() {
        assert_eq!(quantiles(&[1; 10], 5), [1, 3, 5, 7, 9]);
        assert_eq!(quantiles(&[0, 0, 8, 0, 2, 0], 5), [2, 2, 2, 2, 4]);
        assert_eq!(quantiles(&[3], 5), [0; 5]);
    }

    #[test]
    fn outline_is_the_inside_that_touches_the_outside() {
        let picture = [
            "......", //
            ".####.", ".####.", ".#####", "......",
        ];
        let mask: Vec<bool> = picture.concat().bytes().map(|b| b == b'#').collect();
        let mut outline = outline(&mask, 6);
        outline.retain(|n| !(6..12).contains(n) && !(18..24).contains(n));
        assert_eq!(outline, [13, 16]);
    }
}
