//! Wall time of the operations on a volume of 512×512×300 voxels: `cargo bench --bench ops`.
//!
//! An ellipsoid with holes in a box of air, int16; the best and the median of some rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use voxmask::error::Result;
use voxmask::ops::components::{
    Components, Connectivity, fill_holes, fill_holes_per_slice, keep_pieces,
};
use voxmask::ops::interpolate::{Coarsening, Interpolation, Resampling, resample};
use voxmask::ops::surface::SurfaceDistances;
use voxmask::ops::{distance, morphology, overlap};
use voxmask::volume::{Affine, Geometry, Image, Mask, Samples, Scaled, Spacing};

const SHAPE: [usize; 3] = [512, 512, 300];
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let mask = body(0);
    let other = body(3);
    measure("components, 26-connected", || {
        Components::find(&mask, Connectivity::TwentySix)
            .pieces()
            .len()
    });
    let mut work = mask.clone();
    measure("keep pieces from 1 ml", || keep_pieces(&mut work, 1.0));
    measure("fill holes", || fill_holes(&mut mask.clone()));
    measure("fill holes in slices across k", || {
        fill_holes_per_slice(&mut mask.clone(), 2)
    });
    measure("squared distances", || {
        distance::squared_distance_mm2(&mask)
    });
    measure("dilate by 3 mm", || morphology::dilate(&mask, 3.0));
    measure("dice", || overlap::dice(&mask, &other));
    measure("surface distances, 2 masks", || {
        SurfaceDistances::between(&mask, &other).hd95_mm()
    });

    let scan = scan();
    let spacing = Spacing::try_from([1.5; 3]).map_err(voxmask::error::Error::Bug)?;
    let grid = scan.geometry.with_spacing(spacing);
    for interpolation in [
        Interpolation::Nearest,
        Interpolation::Linear,
        Interpolation::Cubic,
    ] {
        for coarsening in [Coarsening::Sample, Coarsening::Average] {
            let resampling = Resampling {
                interpolation,
                coarsening,
                fill_value: -1000.0,
            };
            let name = format!("resample to 1.5 mm, {interpolation:?}, {coarsening:?}");
            measure(&name, || resample(&scan, &grid, resampling));
        }
    }
    Ok(())
}

/// Prints the best and the median time of some rounds.
fn measure<T>(name: &str, mut operation: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(operation());
            start.elapsed()
        })
        .collect();
    times.sort();
    let [best, median] = [0, ROUNDS / 2].map(|n| times[n].as_secs_f64());
    println!("{name:44} {best:7.3} s best {median:7.3} s median");
}

fn geometry() -> Geometry {
    let affine = Affine([
        [0.7, 0.0, 0.0, 0.0],
        [0.0, 0.7, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0],
    ]);
    Geometry::new(SHAPE, affine)
}

/// A value for every voxel from its index.
fn voxels<T>(value: impl Fn([usize; 3]) -> T) -> Vec<T> {
    let [width, height, depth] = SHAPE;
    let mut voxels = Vec::with_capacity(width * height * depth);
    for k in 0..depth {
        for j in 0..height {
            voxels.extend((0..width).map(|i| value([i, j, k])));
        }
    }
    voxels
}

/// Steps of a generator that scatters voxels the same way every time.
fn scatter([i, j, k]: [usize; 3]) -> usize {
    (i / 4).wrapping_mul(73_856_093)
        ^ (j / 4).wrapping_mul(19_349_663)
        ^ (k / 4).wrapping_mul(83_492_791)
}

/// An ellipsoid, moved by some voxels along i, with holes of four voxels a side.
fn body(moved: usize) -> Mask {
    let voxels = voxels(|[i, j, k]| {
        let from_centre = |n: usize, length: usize, radius: f64| {
            ((n as f64 - length as f64 / 2.0) / radius).powi(2)
        };
        let [width, height, depth] = SHAPE;
        let square = from_centre(i, width + 2 * moved, 205.0)
            + from_centre(j, height, 150.0)
            + from_centre(k, depth, 320.0);
        u8::from(square < 1.0 && !scatter([i, j, k]).is_multiple_of(211))
    });
    Mask {
        voxels,
        geometry: geometry(),
    }
}

fn scan() -> Image {
    let stored = voxels(|index| i16::try_from(scatter(index) % 2000).unwrap_or(0) - 1000);
    Image {
        samples: Samples::I16(Scaled {
            stored,
            slope: 1.0,
            intercept: 0.0,
        }),
        geometry: geometry(),
    }
}
