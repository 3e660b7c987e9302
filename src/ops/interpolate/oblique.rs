//! Grids whose axes are not parallel: voxel by voxel.

use rayon::prelude::*;

use super::grid_map::{GridMap, is_inside, snap};
use super::sample::Sample;
use super::separable::{self, Plan};
use super::taps::{Kernel, Taps};
use super::{Coarsening, Resampling};
use crate::volume::Shape;

/// Interpolates as asked. Averaging smooths the source along its own axes first, by the spread of a
/// target voxel along each; that and the cubic B-spline take a copy of the source as `f32`.
pub(super) fn interpolate<T: Sample>(
    source: &[T],
    map: &GridMap,
    kernel: Kernel,
    resampling: Resampling,
) -> Vec<T> {
    let widths = map.widths();
    let averages = resampling.coarsening == Coarsening::Average;
    let smoothed = (averages && widths.iter().any(|&width| width > 1.0)).then(|| {
        let smoothing = |axis: &super::grid_map::AxisMap| Taps::smoothing(axis, widths[axis.axis]);
        let plan = Plan::in_place(map.source, smoothing);
        separable::interpolate(source, &plan, 0.0, |value| value)
    });
    let fill = resampling.fill_value;
    match (kernel, smoothed) {
        (Kernel::Linear, None) => linear(source, map, fill, T::from_f32),
        (Kernel::Linear, Some(smoothed)) => linear(&smoothed, map, fill, T::from_f32),
        (Kernel::Cubic, None) => cubic(&coefficients(source, map), map, fill),
        (Kernel::Cubic, Some(smoothed)) => cubic(&coefficients(&smoothed, map), map, fill),
    }
}

/// Interpolates linearly; `convert` turns values into what is kept, `fill` too.
pub(super) fn linear<T, O>(
    source: &[T],
    map: &GridMap,
    fill: f32,
    convert: impl Fn(f32) -> O + Sync,
) -> Vec<O>
where
    T: Copy + Into<f32> + Sync,
    O: Copy + Default + Send,
{
    fill_rows(map, |point| {
        if !is_within(point, map.source) {
            return convert(fill);
        }
        let axes = [0, 1, 2].map(|axis| {
            let x = point[axis].clamp(0.0, map.source[axis] as f64 - 1.0);
            let low = x as usize;
            (
                [low, (low + 1).min(map.source[axis] - 1)],
                (x - low as f64) as f32,
            )
        });
        let [(i, u), (j, v), (k, w)] = axes;
        let along = |j: usize, k: usize| {
            let row = map.source[0] * (j + map.source[1] * k);
            mix(source[row + i[0]].into(), source[row + i[1]].into(), u)
        };
        let low = mix(along(j[0], k[0]), along(j[1], k[0]), v);
        let high = mix(along(j[0], k[1]), along(j[1], k[1]), v);
        convert(mix(low, high, w))
    })
}

/// Takes the closest voxel; `fill` lies outside.
pub(super) fn nearest<T>(source: &[T], map: &GridMap, fill: T) -> Vec<T>
where
    T: Copy + Default + Send + Sync,
{
    fill_rows(map, |point| {
        if !is_within(point, map.source) {
            return fill;
        }
        let [i, j, k] = point.map(|x| (x + 0.5).floor() as usize);
        source[i + map.source[0] * (j + map.source[1] * k)]
    })
}

fn coefficients<T: Copy + Into<f32> + Sync>(source: &[T], map: &GridMap) -> Vec<f32> {
    let plan = Plan::in_place(map.source, Taps::coefficients);
    separable::interpolate(source, &plan, 0.0, |value| value)
}

fn cubic<T: Sample>(coefficients: &[f32], map: &GridMap, fill: f32) -> Vec<T> {
    fill_rows(map, |point| {
        if !is_within(point, map.source) {
            return T::from_f32(fill);
        }
        let [i, j, k] = [0, 1, 2].map(|axis| cubic_taps(point[axis], map.source[axis]));
        let mut sum = 0.0;
        for (&k, weight_k) in k.0.iter().zip(k.1) {
            let mut plane = 0.0;
            for (&j, weight_j) in j.0.iter().zip(j.1) {
                let row = map.source[0] * (j + map.source[1] * k);
                let values = i.0.map(|i| coefficients[row + i]);
                let along: f32 = values.iter().zip(i.1).map(|(v, w)| v * w).sum();
                plane += weight_j * along;
            }
            sum += weight_k * plane;
        }
        T::from_f32(sum)
    })
}

/// The four coefficients around a coordinate, and their weights.
fn cubic_taps(x: f64, length: usize) -> ([usize; 4], [f32; 4]) {
    let low = x.floor();
    let t = (x - low) as f32;
    let s = 1.0 - t;
    let indices = [-1, 0, 1, 2].map(|step| super::taps::mirrored(low as isize + step, length));
    let near = |t: f32| 2.0 / 3.0 - t * t + t * t * t / 2.0;
    (
        indices,
        [s * s * s / 6.0, near(t), near(s), t * t * t / 6.0],
    )
}

/// Computes each target voxel from its source coordinates.
fn fill_rows<O>(map: &GridMap, value: impl Fn([f64; 3]) -> O + Sync) -> Vec<O>
where
    O: Copy + Default + Send,
{
    let mut target = vec![O::default(); map.target.iter().product()];
    let rows = target.par_chunks_mut(map.target[0]).enumerate();
    rows.with_min_len(16).for_each(|(n, row)| {
        let (j, k) = ((n % map.target[1]) as f64, (n / map.target[1]) as f64);
        let start = [0, 1, 2].map(|s| map.offset[s] + map.matrix[s][1] * j + map.matrix[s][2] * k);
        for (i, kept) in row.iter_mut().enumerate() {
            *kept = value([0, 1, 2].map(|s| snap(start[s] + map.matrix[s][0] * i as f64)));
        }
    });
    target
}

fn is_within(point: [f64; 3], source: Shape) -> bool {
    (0..3).all(|axis| is_inside(point[axis], source[axis]))
}

fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + t * (b - a)
}
