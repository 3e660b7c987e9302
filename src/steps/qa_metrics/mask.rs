//! What a mask tells by itself.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::ops::components::{Components, Connectivity};
use crate::report::Measure;
use crate::volume::{BoundingBox, Geometry, Image, Mask};

/// Voxels that are summed up in one go, whatever the number of threads, so that sums are the same.
const CHUNK: usize = 1 << 16;

/// What a mask tells by itself.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Facts {
    /// Volume [ml].
    pub volume_ml: f64,
    /// Voxels in the mask.
    pub voxels: usize,
    /// Voxels in the mask, of all voxels of the scan.
    pub share: f64,
    /// Smallest box round the mask, in indices; `null` when the mask is empty.
    pub bounding_box: Option<BoundingBox>,
    /// Connected pieces (voxels that share a face, an edge or a corner).
    pub pieces: usize,
    /// Voxels of the largest piece, of all in the mask.
    pub largest_piece_share: Measure,
    /// Pieces of background that the mask encloses (voxels that share a face).
    pub holes: usize,
    /// Volume of the holes [ml].
    pub holes_ml: f64,
    /// Sides of the volume that the mask reaches, by the direction that they lie in.
    pub touched_borders: Vec<Side>,
    /// Voxels outside the mask, of all: what a loss or a statistic over the mask leaves out.
    pub saved_share: f64,
    /// Voxels outside the bounding box, of all: what cropping to it saves.
    pub saved_by_cropping_share: f64,
    /// Intensities of the image, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intensities: Option<Intensities>,
}

/// A side of the volume: right, left, anterior, posterior, superior or inferior.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Side {
    R,
    L,
    A,
    P,
    S,
    I,
}

/// Intensities inside and outside a mask.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Intensities {
    /// Mean inside.
    pub inside_mean: Measure,
    /// Standard deviation inside.
    pub inside_deviation: Measure,
    /// Mean outside.
    pub outside_mean: Measure,
    /// Standard deviation outside.
    pub outside_deviation: Measure,
    /// Difference of the means in standard deviations outside: how clearly the mask stands out.
    pub contrast: Measure,
}

impl Facts {
    /// Looks at a mask.
    pub(super) fn of(mask: &Mask) -> Self {
        let all = mask.voxels.len();
        let pieces = Components::find(mask, Connectivity::TwentySix);
        let voxels: usize = pieces.pieces().iter().map(|piece| piece.voxels).sum();
        let largest = pieces.largest().map_or(0, |n| pieces.pieces()[n].voxels);
        let holes = holes(mask);
        let boxes = pieces.pieces().iter().map(|piece| piece.bounding_box);
        let bounds = boxes.reduce(|all, piece| all.union(&piece));
        let boxed = bounds.map_or(0, |b| b.voxel_count());
        let voxel_ml = mask.geometry.voxel_ml();
        Self {
            volume_ml: voxels as f64 * voxel_ml,
            voxels,
            share: voxels as f64 / all as f64,
            bounding_box: bounds,
            pieces: pieces.pieces().len(),
            largest_piece_share: Measure::share(largest, voxels, "the mask is empty"),
            holes: holes.len(),
            holes_ml: holes.iter().sum::<usize>() as f64 * voxel_ml,
            touched_borders: bounds.map_or(Vec::new(), |b| touched(&b, &mask.geometry)),
            saved_share: (all - voxels) as f64 / all as f64,
            saved_by_cropping_share: (all - boxed) as f64 / all as f64,
            intensities: None,
        }
    }

    /// Adds what the image's values tell.
    pub(super) fn add_intensities(&mut self, mask: &Mask, image: &Image) {
        self.intensities = Some(intensities(mask, image));
    }
}

/// Sizes of the holes, in voxels.
fn holes(mask: &Mask) -> Vec<usize> {
    let pieces = Components::find_outside(mask, Connectivity::Six);
    let enclosed = pieces.pieces().iter().filter(|p| !p.touches_border);
    enclosed.map(|piece| piece.voxels).collect()
}

/// Names of the positive and of the negative side along the world axes.
const SIDES: [[Side; 2]; 3] = [[Side::R, Side::L], [Side::A, Side::P], [Side::S, Side::I]];

fn touched(bounds: &BoundingBox, geometry: &Geometry) -> Vec<Side> {
    let orientation = geometry.orientation();
    let mut sides = Vec::new();
    for d in 0..3 {
        let ends = SIDES[orientation.axes[d]];
        let grows_to = usize::from(orientation.flipped[d]);
        if bounds.end[d] == geometry.shape[d] {
            sides.push(ends[grows_to]);
        }
        if bounds.start[d] == 0 {
            sides.push(ends[1 - grows_to]);
        }
    }
    sides.sort();
    sides
}

/// Number, sum and sum of squares of values.
#[derive(Clone, Copy, Default)]
struct Sums {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    fn deviation(&self) -> Option<f64> {
        let mean = self.mean()?;
        let variance = self.squares / self.count as f64 - mean * mean;
        Some(variance.max(0.0).sqrt())
    }
}

fn intensities(mask: &Mask, image: &Image) -> Intensities {
    let [outside, inside] = sums(mask, image);
    let difference = inside.mean().zip(outside.mean()).map(|(i, o)| i - o);
    let contrast = difference.zip(outside.deviation().filter(|d| *d > 0.0));
    Intensities {
        inside_mean: Measure::new(inside.mean(), "the mask is empty"),
        inside_deviation: Measure::new(inside.deviation(), "the mask is empty"),
        outside_mean: Measure::new(outside.mean(), "the mask holds every voxel"),
        outside_deviation: Measure::new(outside.deviation(), "the mask holds every voxel"),
        contrast: Measure::new(
            contrast.map(|(difference, deviation)| difference / deviation),
            "there is nothing inside, nothing outside, or one value outside",
        ),
    }
}

/// Voxels that are summed up beside each other, so that the processor need not wait for each sum.
const BESIDE: usize = 8;

/// Outside and inside.
fn sums(mask: &Mask, image: &Image) -> [Sums; 2] {
    let chunks = mask.voxels.par_chunks(CHUNK).enumerate();
    let parts = chunks.map_init(Vec::new, |values, (n, voxels)| {
        values.resize(voxels.len(), 0.0);
        image.samples.read_run(n * CHUNK, values);
        sums_of(voxels, values)
    });
    let parts: Vec<[Sums; 2]> = parts.collect();
    let mut total = [Sums::default(); 2];
    for part in parts {
        total[0].add(part[0]);
        total[1].add(part[1]);
    }
    total
}

/// Outside and inside, of some voxels of a mask and their values.
fn sums_of(voxels: &[u8], values: &[f32]) -> [Sums; 2] {
    // By inside or not, then by place among those that are summed up beside each other.
    let (mut sums, mut squares) = ([[0.0; BESIDE]; 2], [[0.0; BESIDE]; 2]);
    let mut add = |n: usize, side: usize, value: f32| {
        let value = f64::from(value);
        sums[side][n] += value;
        squares[side][n] += value * value;
    };
    let (voxels_beside, last_voxels) = voxels.as_chunks::<BESIDE>();
    let (values_beside, last_values) = values.as_chunks::<BESIDE>();
    for (voxels, values) in voxels_beside.iter().zip(values_beside) {
        // Most lie on one side of the mask together.
        let side = usize::from(voxels[0] != 0);
        if *voxels == [voxels[0]; BESIDE] {
            (0..BESIDE).for_each(|n| add(n, side, values[n]));
        } else {
            (0..BESIDE).for_each(|n| add(n, usize::from(voxels[n] != 0), values[n]));
        }
    }
    for (n, (&voxel, &value)) in last_voxels.iter().zip(last_values).enumerate() {
        add(n, usize::from(voxel != 0), value);
    }
    let inside = voxels.iter().filter(|&&voxel| voxel != 0).count();
    let counts = [voxels.len() - inside, inside];
    [0, 1].map(|side| Sums {
        count: counts[side],
        sum: sums[side].iter().sum(),
        squares: squares[side].iter().sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Samples};

    fn shell() -> Mask {
        // i to the left, j up, k to the front; 2 × 1 × 0.5 mm.
        let columns = [[-2.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.5, 0.0]];
        let geometry = Geometry::new([6, 7, 8], Affine::from_columns(columns, [0.0; 3]));
        let mut mask = Mask {
            voxels: vec![0; geometry.voxel_count()],
            geometry,
        };
        // A block of 4 × 3 × 3 with a hole of one voxel, on the border at low i and at high k.
        for k in 5..8 {
            for j in 2..5 {
                for i in 0..4 {
                    let n = mask.offset([i, j, k]);
                    mask.voxels[n] = u8::from([i, j, k] != [1, 3, 6]);
                }
            }
        }
        mask
    }

    #[test]
    fn a_block_with_a_hole_is_measured() {
        let facts = Facts::of(&shell());
        assert_eq!((facts.voxels, facts.pieces, facts.holes), (35, 1, 1));
        assert!((facts.volume_ml - 0.035).abs() < 1e-12);
        assert!((facts.holes_ml - 0.001).abs() < 1e-12);
        assert_eq!(facts.touched_borders, [Side::R, Side::A]);
        assert_eq!(facts.largest_piece_share, Measure::Value(1.0));
        assert!((facts.saved_share - 301.0 / 336.0).abs() < 1e-12);
        assert!((facts.saved_by_cropping_share - 300.0 / 336.0).abs() < 1e-12);
    }

    #[test]
    fn an_empty_mask_has_no_largest_piece() {
        let mut mask = shell();
        mask.voxels.fill(0);
        let facts = Facts::of(&mask);
        assert_eq!((facts.pieces, facts.holes), (0, 0));
        assert_eq!(facts.largest_piece_share.value(), None);
        assert_eq!(facts.bounding_box, None);
        assert!(facts.touched_borders.is_empty());
    }

    #[test]
    fn a_full_mask_touches_every_side() {
        let mut mask = shell();
        mask.voxels.fill(1);
        let facts = Facts::of(&mask);
        let all = [Side::R, Side::L, Side::A, Side::P, Side::S, Side::I];
        assert_eq!(facts.touched_borders, all);
        assert_eq!((facts.holes, facts.saved_share), (0, 0.0));
    }

    #[test]
    fn intensities_are_those_inside_and_outside() {
        let mask = shell();
        let values = mask.voxels.iter().enumerate();
        let values = values.map(|(n, &v)| if v == 1 { 10.0 } else { (n % 2) as f32 });
        let image = Image {
            samples: Samples::F32(values.collect()),
            geometry: mask.geometry.clone(),
        };
        let found = intensities(&mask, &image);
        assert_eq!(found.inside_mean, Measure::Value(10.0));
        assert_eq!(found.inside_deviation, Measure::Value(0.0));
        let outside = found.outside_mean.value().unwrap();
        assert!((0.45..0.55).contains(&outside));
        assert!(found.contrast.value().unwrap() > 15.0);
    }
}
