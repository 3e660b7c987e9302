//! Wall time of the operations on a volume of 512×512×300 voxels: `cargo bench --bench ops`.
//!
//! An ellipsoid with holes in a box of air, int16; the best and the median of some rounds. `make compare`
//! gives files instead (`--image FILE --mask FILE --other FILE`), names one operation (`--only NAME`) and
//! takes one line of JSON (`--json`), so that peers do the same work on the same voxels.

use std::cell::OnceCell;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use voxmask::error::{Error, Result};
use voxmask::network::session::Session;
use voxmask::ops::components::{
    Components, Connectivity, fill_holes, fill_holes_per_slice, keep_pieces,
};
use voxmask::ops::interpolate::{Coarsening, Interpolation, Resampling, resample};
use voxmask::ops::surface::SurfaceDistances;
use voxmask::ops::{distance, morphology, overlap};
use voxmask::step::{Context, Device};
use voxmask::volume::{self, Affine, Geometry, Image, Mask, Samples, Scaled, Spacing};

const SHAPE: [usize; 3] = [512, 512, 300];
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let call = Call::parse(std::env::args().skip(1))?;
    if let Some(threads) = call.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global()
            .map_err(|e| Error::TryAgain(e.to_string()))?;
    }
    masks(&call)?;
    images(&call)?;
    network(&call)
}

/// A second network's look at one tile: what of a run are convolutions.
fn network(call: &Call) -> Result<()> {
    let name = "second network, 96³ cells";
    if !call.wants(name) {
        return Ok(());
    }
    let context = Context {
        device: Device::Cpu,
        threads: rayon::current_num_threads(),
        ..Context::default()
    };
    let weights = include_bytes!("../models/foreground/refinement.onnx");
    let mut session = Session::load(weights, &context)?;
    let shape = [1, 7, 96, 96, 96];
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|n: usize| (n % 89) as f32 / 89.0)
        .collect();
    // The first run makes what the others use.
    session.run(&shape, &values, ["logits"])?;
    call.measure(name, || session.run(&shape, &values, ["logits"]))
}

/// What the command line asks for.
#[derive(Default)]
struct Call {
    image: Option<PathBuf>,
    mask: Option<PathBuf>,
    other: Option<PathBuf>,
    /// Where `load` and `save` have their files; they are left out without it.
    folder: Option<PathBuf>,
    only: Option<String>,
    threads: Option<usize>,
    json: bool,
}

impl Call {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut call = Self::default();
        while let Some(flag) = arguments.next() {
            let mut value = || {
                let missing = || Error::Config(format!("{flag} names nothing"));
                arguments.next().ok_or_else(missing)
            };
            match flag.as_str() {
                "--image" => call.image = Some(value()?.into()),
                "--mask" => call.mask = Some(value()?.into()),
                "--other" => call.other = Some(value()?.into()),
                "--folder" => call.folder = Some(value()?.into()),
                "--only" => call.only = Some(value()?),
                "--threads" => call.threads = value()?.parse().ok(),
                "--json" => call.json = true,
                // Cargo's own.
                "--bench" => {}
                other => return Err(Error::Config(format!("{other} is not known"))),
            }
        }
        Ok(call)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }

    /// Prints the best and the median time of some rounds; of one that was named, the time of one.
    fn measure<T>(&self, name: &str, mut operation: impl FnMut() -> Result<T>) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let rounds = if self.only.is_some() { 1 } else { ROUNDS };
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            black_box(operation()?);
            times.push(start.elapsed());
        }
        times.sort();
        let [best, median] = [0, rounds / 2].map(|n| times[n].as_secs_f64());
        if self.json {
            println!("{{\"seconds\": {median}}}");
        } else {
            println!("{name:44} {best:7.3} s best {median:7.3} s median");
        }
        Ok(())
    }
}

/// Operations on masks.
fn masks(call: &Call) -> Result<()> {
    let mask = Lazy::new(|| {
        call.mask
            .as_deref()
            .map_or_else(|| Ok(body(0)), volume::read_mask)
    });
    let other = Lazy::new(|| {
        call.other
            .as_deref()
            .map_or_else(|| Ok(body(3)), volume::read_mask)
    });
    let names = [
        "components, 26-connected",
        "keep pieces from 1 ml",
        "fill holes",
        "fill holes in slices across k",
        "squared distances",
        "dilate by 3 mm",
        "dice",
        "surface distances, 2 masks",
        "save mask",
    ];
    for name in names.into_iter().filter(|name| call.wants(name)) {
        let mask = mask.get()?;
        match name {
            "components, 26-connected" => call.measure(name, || {
                let found = Components::find(mask, Connectivity::TwentySix);
                Ok(found.pieces().len())
            }),
            "keep pieces from 1 ml" => {
                let mut work = mask.clone();
                call.measure(name, || Ok(keep_pieces(&mut work, 1.0)))
            }
            "fill holes" => call.measure(name, || {
                fill_holes(&mut mask.clone());
                Ok(())
            }),
            "fill holes in slices across k" => call.measure(name, || {
                fill_holes_per_slice(&mut mask.clone(), 2);
                Ok(())
            }),
            "squared distances" => call.measure(name, || Ok(distance::squared_distance_mm2(mask))),
            "dilate by 3 mm" => call.measure(name, || Ok(morphology::dilate(mask, 3.0))),
            "dice" => {
                let other = other.get()?;
                call.measure(name, || Ok(overlap::dice(mask, other)))
            }
            "surface distances, 2 masks" => {
                let other = other.get()?;
                call.measure(name, || {
                    let distances = SurfaceDistances::between(mask, other);
                    Ok((distances.hd95_mm().ok(), distances.nsd(2.0).ok()))
                })
            }
            _ => match &call.folder {
                Some(folder) => call.measure(name, || {
                    volume::write_mask(&folder.join("ours_mask.nii.gz"), mask, true)
                }),
                None => Ok(()),
            },
        }?;
    }
    Ok(())
}

/// Operations on images.
fn images(call: &Call) -> Result<()> {
    let image = Lazy::new(|| match &call.image {
        Some(path) => volume::read_image(path, None),
        None => Ok(scan()),
    });
    if let Some(path) = &call.image {
        call.measure("load", || volume::read_image(path, None))?;
    }
    if let Some(folder) = call.folder.as_ref().filter(|_| call.wants("save")) {
        let image = image.get()?;
        let path = folder.join("ours.nii.gz");
        call.measure("save", || volume::write_image(&path, image, true))?;
    }
    for interpolation in [
        Interpolation::Nearest,
        Interpolation::Linear,
        Interpolation::Cubic,
    ] {
        for coarsening in [Coarsening::Sample, Coarsening::Average] {
            let name = format!("resample to 1.5 mm, {interpolation:?}, {coarsening:?}");
            if !call.wants(&name) {
                continue;
            }
            let resampling = Resampling {
                interpolation,
                coarsening,
                fill_value: -1000.0,
            };
            let scan = image.get()?;
            let spacing = Spacing::try_from([1.5; 3]).map_err(Error::Bug)?;
            let grid = scan.geometry.with_spacing(spacing);
            call.measure(&name, || resample(scan, &grid, resampling))?;
        }
    }
    Ok(())
}

/// Something that is made when it is needed first.
struct Lazy<T, F: Fn() -> Result<T>> {
    made: OnceCell<T>,
    make: F,
}

impl<T, F: Fn() -> Result<T>> Lazy<T, F> {
    fn new(make: F) -> Self {
        let made = OnceCell::new();
        Self { made, make }
    }

    fn get(&self) -> Result<&T> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let made = (self.make)()?;
        Ok(self.made.get_or_init(|| made))
    }
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
