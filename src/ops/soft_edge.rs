//! Where a fill fades into tissue: how far beyond its constant voxels it still is in what lies there.
//!
//! In CT anything of the body is far from air, so that from a fill as dark as air tissue rises at once; where it rises over
//! millimetres, the fill was blended with it. MR has tissue as dark as air right behind many a fill (bone), and tells nothing.

use super::morphology::dilate;
use super::packed_mask::PackedMask;
use crate::volume::{Image, Mask};

/// Tissue behind a fill is measured between these distances [mm]; nearer it may be blended.
const BEHIND_MM: [f64; 2] = [5.0, 9.0];

/// Lines along coarser axes tell nothing [mm].
const COARSEST_MM: f64 = 1.6;

/// A fill ends softly where the first voxel behind it rises less than this share of the way to the tissue: at a sharp
/// edge of CT it rises all the way.
const FIRST_SHARE: f32 = 0.35;

/// As far as less than this share of the way is gone, the fill is in what lies there.
const END_SHARE: f32 = 0.7;

/// How far an edge is followed, and in which steps [mm].
const FARTHEST_MM: f64 = 4.0;
const STEP_MM: f64 = 0.5;

/// Fewer lines, and fewer voxels at a distance, tell nothing.
const LEAST_LINES: usize = 200;
const LEAST_VOXELS: usize = 30;

/// How far a fill goes on beyond its constant voxels [mm], `None` where it ends sharply or nothing tells. `fill`: these
/// voxels; `value`: what they hold; tissue lies above `tissue_above`.
pub(super) fn soft_edge_mm(
    image: &Image,
    fill: &PackedMask,
    value: f32,
    tissue_above: f32,
) -> Option<f64> {
    let bounds = image.geometry.grown(&fill.bounds()?, BEHIND_MM[1] + 1.0);
    let fill = fill.crop(&bounds, &image.geometry);
    let image = image.crop(&bounds);
    let lines = [0, 1, 2].map(|axis| lines(&image, &fill, axis, value, tissue_above));
    let first = lines.iter().flat_map(|lines| &lines.first).copied();
    let first: Vec<f32> = first.collect();
    if first.len() < LEAST_LINES || median(first)? >= FIRST_SHARE {
        return None;
    }
    let risen: Vec<(usize, f32)> = lines.into_iter().flat_map(|lines| lines.risen).collect();
    let (mut end, mut within) = (None, fill.voxels.clone());
    for step in 1..=(FARTHEST_MM / STEP_MM) as usize {
        let reach = step as f64 * STEP_MM;
        let wider = dilate(&fill, reach).voxels;
        let ring = risen.iter().filter(|(n, _)| wider[*n] > within[*n]);
        let ring: Vec<f32> = ring.map(|(_, share)| *share).collect();
        if ring.len() >= LEAST_VOXELS {
            if median(ring)? >= END_SHARE {
                break;
            }
            end = Some(reach);
        }
        within = wider;
    }
    end
}

/// What lies behind a fill along the lines of an axis.
#[derive(Default)]
struct Lines {
    /// Share of the way from the fill to the tissue behind it that the first voxel of each line is risen.
    first: Vec<f32>,
    /// The same of each voxel before that tissue, with its place in memory.
    risen: Vec<(usize, f32)>,
}

/// The lines along an axis, both ways, that leave a fill (three voxels of it at least) for tissue.
fn lines(image: &Image, fill: &Mask, axis: usize, value: f32, tissue_above: f32) -> Lines {
    let mut found = Lines::default();
    let spacing = image.geometry.spacing().mm()[axis];
    if spacing > COARSEST_MM {
        return found;
    }
    let [first, last] = BEHIND_MM.map(|mm| (mm / spacing).ceil() as usize);
    let shape = image.geometry.shape;
    let stride: usize = shape[..axis].iter().product();
    let ends = fill
        .voxels
        .iter()
        .enumerate()
        .filter(|(_, voxel)| **voxel != 0);
    for (n, _) in ends {
        let place = n / stride % shape[axis];
        for (before, behind, back) in [
            (place, shape[axis] - 1 - place, false),
            (shape[axis] - 1 - place, place, true),
        ] {
            if before < 2 || behind < last {
                continue;
            }
            let at = |t: usize| if back { n - t * stride } else { n + t * stride };
            let into = |t: usize| if back { n + t * stride } else { n - t * stride };
            let leaves = (1..=2).all(|t| fill.voxels[into(t)] != 0)
                && (1..=last).all(|t| fill.voxels[at(t)] == 0);
            if !leaves {
                continue;
            }
            let behind = (first..=last).map(|t| image.samples.value(at(t)));
            if !behind.clone().all(|v| v > tissue_above) {
                continue;
            }
            let height = behind.sum::<f32>() / (last - first + 1) as f32 - value;
            let share = |t: usize| (image.samples.value(at(t)) - value) / height;
            found.first.push(share(1));
            found.risen.extend((1..first).map(|t| (at(t), share(t))));
        }
    }
    found
}

fn median(mut values: Vec<f32>) -> Option<f32> {
    let half = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(half, f32::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{box_mask, grid};
    use crate::volume::Samples;

    /// How far a fill of -1024 HU goes on that fades over these millimetres into tissue of some 40 HU along i.
    fn edge(fades_mm: f32) -> Option<f64> {
        let geometry = grid([60, 30, 20], [0.9, 0.9, 2.0]);
        let fill = box_mask(geometry.clone(), [0, 0, 0], [20, 30, 20]);
        let value = |n: usize| {
            let beyond = 0.9 * ((n % 60) as f32 - 19.0);
            let tissue = 40.0 + (n.wrapping_mul(2_654_435_761) >> 9 & 63) as f32;
            -1024.0 + (beyond / fades_mm).clamp(0.0, 1.0) * (tissue + 1024.0)
        };
        let image = Image {
            samples: Samples::F32((0..geometry.voxel_count()).map(value).collect()),
            geometry,
        };
        soft_edge_mm(&image, &PackedMask::of_mask(&fill), -1024.0, -300.0)
    }

    #[test]
    fn a_sharp_edge_goes_no_further() {
        assert_eq!(edge(0.01), None);
        assert_eq!(edge(1.0), None);
    }

    #[test]
    fn a_soft_edge_goes_on_as_far_as_the_fill_shows() {
        // 0.7 of 4.5 mm, to a voxel.
        let end = edge(4.5).unwrap();
        assert!((2.4..3.6).contains(&end), "{end}");
        let end = edge(3.0).unwrap();
        assert!((1.5..2.7).contains(&end), "{end}");
    }

    #[test]
    fn air_behind_a_fill_tells_nothing() {
        let geometry = grid([60, 30, 20], [0.9, 0.9, 2.0]);
        let fill = box_mask(geometry.clone(), [0, 0, 0], [20, 30, 20]);
        let image = Image {
            samples: Samples::F32(vec![-1000.0; geometry.voxel_count()]),
            geometry,
        };
        let fill = PackedMask::of_mask(&fill);
        assert_eq!(soft_edge_mm(&image, &fill, -1024.0, -300.0), None);
    }
}
