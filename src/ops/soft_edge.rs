//! Where a fill fades into tissue: how far beyond its constant voxels it still is in what lies there.
//!
//! In CT anything of the body is far from air, so that from a fill as dark as air tissue rises at once; where it rises over
//! millimetres, the fill was blended with it. MR has tissue as dark as air right behind many a fill (bone), and tells nothing.

use super::packed_mask::PackedMask;
use super::rough_area::dilated;
use crate::volume::Image;

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
    let lines = lines(image, fill, value, tissue_above);
    let first: Vec<f32> = lines.iter().map(|line| line[0].1).collect();
    if first.len() < LEAST_LINES || median(first)? >= FIRST_SHARE {
        return None;
    }
    let geometry = &image.geometry;
    let bounds = geometry.grown(&fill.bounds()?, FARTHEST_MM);
    let (mut end, mut within) = (None, fill.clone());
    for step in 1..=(FARTHEST_MM / STEP_MM) as usize {
        let reach = step as f64 * STEP_MM;
        let wider = dilated(fill, geometry, &bounds, reach);
        let ring = lines.iter().flatten();
        let ring = ring.filter(|(place, _)| wider.contains(*place) && !within.contains(*place));
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

/// The voxels before tissue along a line that leaves a fill, the nearest first, and which share of the way from the fill to
/// that tissue each is risen.
type Rise = Vec<([usize; 3], f32)>;

/// The lines that leave a fill for tissue, along axes of fine voxels, both ways.
fn lines(image: &Image, fill: &PackedMask, value: f32, tissue_above: f32) -> Vec<Rise> {
    let outside = PackedMask::full(fill.shape()).without(Some(fill));
    let around = outside.with_neighbours();
    let rim = PackedMask::combined([fill, &around], |[fill, around]| fill & around);
    let [ni, nj, _] = fill.shape();
    let spacing = image.geometry.spacing().mm();
    let fine = (0..3).filter(|&axis| spacing[axis] <= COARSEST_MM);
    let ways: Vec<(usize, bool)> = fine
        .flat_map(|axis| [(axis, false), (axis, true)])
        .collect();
    let from = rim.places().flat_map(|n| {
        let place = [n % ni, n / ni % nj, n / ni / nj];
        ways.iter()
            .map(move |&(axis, back)| Line { place, axis, back })
    });
    from.filter_map(|line| rise(image, fill, &line, value, tissue_above))
        .collect()
}

/// What lies before tissue along a line; `None` where it does not leave the fill, three voxels of it at least, for tissue.
fn rise(
    image: &Image,
    fill: &PackedMask,
    line: &Line,
    value: f32,
    tissue_above: f32,
) -> Option<Rise> {
    let spacing = image.geometry.spacing().mm()[line.axis];
    let [from, to] = BEHIND_MM.map(|mm| (mm / spacing).ceil() as isize);
    let at = |step: isize| line.at(step, fill.shape());
    let holds = |step: isize| at(step).is_some_and(|place| fill.contains(place));
    at(to)?;
    if holds(1) || !holds(-1) || !holds(-2) || (2..=to).any(holds) {
        return None;
    }
    let read = |place: [usize; 3]| image.samples.value(image.geometry.offset(place));
    let behind: Vec<f32> = (from..=to).filter_map(at).map(read).collect();
    if behind.iter().any(|v| *v <= tissue_above) {
        return None;
    }
    let height = behind.iter().sum::<f32>() / behind.len() as f32 - value;
    let before = (1..from).filter_map(at);
    let rise = before.map(|place| (place, (read(place) - value) / height));
    Some(rise.collect())
}

/// The voxels of a grid along an axis from a place on, or back.
struct Line {
    place: [usize; 3],
    axis: usize,
    back: bool,
}

impl Line {
    /// The one so many steps ahead; `None` beyond the grid.
    fn at(&self, step: isize, shape: [usize; 3]) -> Option<[usize; 3]> {
        let step = if self.back { -step } else { step };
        let along = self.place[self.axis].checked_add_signed(step)?;
        let mut place = self.place;
        place[self.axis] = along;
        (along < shape[self.axis]).then_some(place)
    }
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
