//! The part of a rough area that lies in tissue: where a face was blurred, noise tells to the voxel where that ends.
//!
//! A blur takes the noise of tissue away, all but a few hundredths of it, and leaves edges that are smooth over a few
//! voxels. Fourth differences tell noise from such edges, and of the stretches of five voxels that hold a voxel the
//! smoothest one lies on its own side of where the blur ends. A face that took the place of another may be as smooth,
//! but its edges are sharp: where it ends they do not tell.

use rayon::prelude::*;

use super::components::{Components, Connectivity};
use super::morphology::crowded;
use super::packed_mask::PackedMask;
use super::rough_area::{Rough, dilated, eroded};
use crate::volume::{BoundingBox, Image, Mask};

/// Smoothness is measured this deep in the area [mm].
const DEEP_MM: f64 = 3.0;

/// And that of other tissue between these distances from it [mm].
const AROUND_MM: [f64; 2] = [4.0, 15.0];

/// A rough area ends at most this far from where the alteration does [mm].
const BAND_MM: f64 = 6.0;

/// The area is smooth where its grain is at most this share of that around; of blurred heads it is 0.09 at most.
const SMOOTH_SHARE: f32 = 0.15;

/// And it was blurred where its edges are at most this share of those around: of most blurred heads they are, of faces
/// that took the place of others 0.09 at least (but for one in 22).
const EDGE_SHARE: f32 = 0.075;

/// Edges are what so large a share of second differences lies below.
const EDGE_QUANTILE: f64 = 0.9;

/// A voxel is noise from this share of the way from the area's grain to that around.
const LEVEL_SHARE: f32 = 0.1;

/// And where more than this share of its surroundings is.
const NOISE_SHARE: f32 = 0.5;

/// A piece belongs to the area where that covered more than this share of it.
const COVERED_SHARE: f64 = 0.3;

/// Fewer voxels say nothing.
const LEAST_VOXELS: usize = 500;

/// Of more, some are measured.
const MOST_MEASURED: usize = 200_000;

/// Along axes of thicker slices the next voxel is another place [mm].
const GRAIN_BELOW_MM: f64 = 2.5;

/// Voxels in a fourth difference.
const WINDOW: usize = 5;

/// Lets an area end in tissue where its smoothness does. What is `constant`, a fill or a scanner's zeros, stays as it
/// is, and so does what is as dark as air.
pub(super) fn snap_to_smooth(
    image: &Image,
    rough: &Rough,
    constant: Option<&PackedMask>,
    area: &mut PackedMask,
) {
    let Some(inner) = area.bounds() else {
        return;
    };
    let bounds = image.geometry.grown(&inner, AROUND_MM[1]);
    let mut tissue = PackedMask::empty(image.shape());
    tissue.fill(&bounds);
    let tissue = tissue.without(Some(&rough.dark)).without(constant);
    let grain = Grain::of(image);
    if let Some(level) = grain.level(area, &tissue, [&inner, &bounds]) {
        end_at_noise(&grain, level, &tissue, [&inner, &bounds], area);
    }
}

/// Lets an area end in `tissue` where the grain passes a level. Boxes: the area's, and what is looked at.
fn end_at_noise(
    grain: &Grain,
    level: f32,
    tissue: &PackedMask,
    [inner, bounds]: [&BoundingBox; 2],
    area: &mut PackedMask,
) {
    let geometry = &grain.image.geometry;
    // Only where the area may end.
    let deep = eroded(area, geometry, inner, BAND_MM);
    let wide = dilated(area, geometry, bounds, BAND_MM);
    let band = |[wide, deep, tissue]: [u64; 3]| wide & !deep & tissue;
    let band = PackedMask::combined([&wide, &deep, tissue], band);
    drop((deep, wide));
    let noise = PackedMask::of_slabs(area.shape(), bounds, WINDOW, |slab| {
        let grain = grain.in_slab(slab);
        let above = grain.into_par_iter().map(|grain| u8::from(grain > level));
        let above = Mask {
            voxels: above.collect(),
            geometry: geometry.crop(slab),
        };
        crowded(&above, NOISE_SHARE)
    });
    let ended = |[area, band, noise]: [u64; 3]| area & !band | band & !noise;
    let all = PackedMask::combined([area, &band, &noise], ended);
    drop((band, noise));
    let mut kept = all.clone();
    let pieces = Components::find_packed(&all, Connectivity::TwentySix);
    let covered = pieces.count_in(area);
    pieces.keep(&mut kept, |n, piece| {
        covered[n] as f64 > COVERED_SHARE * piece.voxels as f64
    });
    // Of pieces that are mostly new the area keeps what it had.
    let with_old = |[kept, all, area]: [u64; 3]| kept | all & area;
    *area = PackedMask::combined([&kept, &all, area], with_old);
}

/// How far voxels of a box stand out of the smoothest stretch that they lie in.
struct Grain<'a> {
    image: &'a Image,
    /// Along which axes it is measured.
    counts: [bool; 3],
}

impl<'a> Grain<'a> {
    fn of(image: &'a Image) -> Self {
        let (shape, spacing) = (image.shape(), image.geometry.spacing().mm());
        Self {
            image,
            counts: [0, 1, 2].map(|a| spacing[a] < GRAIN_BELOW_MM && shape[a] >= WINDOW),
        }
    }

    /// Above which grain `tissue` is not blurred; `None` where an area was not. Boxes: the area's, and what is looked at.
    fn level(
        &self,
        area: &PackedMask,
        tissue: &PackedMask,
        [inner, bounds]: [&BoundingBox; 2],
    ) -> Option<f32> {
        let geometry = &self.image.geometry;
        let both = |[part, tissue]: [u64; 2]| part & tissue;
        let deep = eroded(area, geometry, inner, DEEP_MM);
        let deep = PackedMask::combined([&deep, tissue], both);
        let [near, far] = AROUND_MM.map(|mm| dilated(area, geometry, bounds, mm));
        let around = |[near, far, tissue]: [u64; 3]| far & !near & tissue;
        let around = PackedMask::combined([&near, &far, tissue], around);
        drop((near, far));
        let parts = [&deep, &around];
        let is_below = |[inside, outside]: [f32; 2], share: f32| {
            outside > 0.0 && outside.is_finite() && inside <= share * outside
        };
        self.quantiles(parts, EDGE_QUANTILE, |place| self.edge_at(place))
            .filter(|edges| is_below(*edges, EDGE_SHARE))?;
        let [inside, outside] = self
            .quantiles(parts, 0.5, |place| self.at(place))
            .filter(|grain| is_below(*grain, SMOOTH_SHARE))?;
        Some(inside + LEVEL_SHARE * (outside - inside))
    }

    /// What a share of two masks' voxels lies below of what is measured at places; `None` where one has few, or no axis
    /// counts.
    fn quantiles(
        &self,
        masks: [&PackedMask; 2],
        share: f64,
        measure: impl Fn(usize) -> f32 + Sync,
    ) -> Option<[f32; 2]> {
        let counts = masks.map(PackedMask::count);
        if counts.iter().any(|count| *count < LEAST_VOXELS) || self.counts == [false; 3] {
            return None;
        }
        let of = |mask: &PackedMask, count: usize| {
            let places: Vec<usize> = mask
                .places()
                .step_by(count.div_ceil(MOST_MEASURED))
                .collect();
            let mut found: Vec<f32> = places.into_par_iter().map(&measure).collect();
            let place = (share * found.len() as f64) as usize;
            *found.select_nth_unstable_by(place, f32::total_cmp).1
        };
        Some([of(masks[0], counts[0]), of(masks[1], counts[1])])
    }

    /// For each axis that counts a voxel's place along it, the volume's length and the step between neighbours.
    fn lines(&self, place: usize) -> impl Iterator<Item = [usize; 3]> {
        let [ni, nj, nk] = self.image.shape();
        let along = [
            [place % ni, ni, 1],
            [place / ni % nj, nj, ni],
            [place / ni / nj, nk, ni * nj],
        ];
        let counts = self.counts;
        (0..3).filter(move |&a| counts[a]).map(move |a| along[a])
    }

    /// That of one voxel, as [`Grain::in_slab`] measures all of a slab.
    fn at(&self, place: usize) -> f32 {
        let (mut sum, mut axes) = (0.0, 0.0);
        for [at, length, step] in self.lines(place) {
            let starts = (at + 1).saturating_sub(WINDOW)..=at.min(length - WINDOW);
            let found = starts.map(|start| {
                fourth(std::array::from_fn(|n| {
                    self.image
                        .samples
                        .value(place - step * at + step * (start + n))
                }))
            });
            sum += found.fold(f32::INFINITY, f32::min);
            axes += 1.0;
        }
        sum / axes
    }

    /// The largest second difference of a voxel along the axes that count; none at the volume's border.
    fn edge_at(&self, place: usize) -> f32 {
        let value = |n: usize| self.image.samples.value(n);
        let inner = self.lines(place);
        let inner = inner.filter(|[at, length, _]| *at > 0 && at + 1 < *length);
        let found = inner.map(|[_, _, step]| {
            (value(place - step) + value(place + step) - 2.0 * value(place)).abs()
        });
        found.fold(0.0, f32::max)
    }

    /// That of the voxels of a slab of the box: the mean over the axes that count of the least fourth difference in
    /// the stretches that hold the voxel. At the box's ends, and the slab's across k, stretches are cut off; a box that is
    /// [`AROUND_MM`] wider than an area holds a stretch along each axis that counts.
    fn in_slab(&self, slab: &BoundingBox) -> Vec<f32> {
        let [ni, nj, nk] = slab.shape();
        let planes = (slab.start[2]..slab.end[2]).into_par_iter();
        let planes: Vec<Vec<f32>> = planes.map(|k| self.image.plane_in(slab, k)).collect();
        let row = |j: usize, k: usize| &planes[k][ni * j..][..ni];
        let share = 1.0 / self.counts.iter().filter(|counts| **counts).count().max(1) as f32;
        let mut grain = vec![0.0; ni * nj * nk];
        let slices = grain.par_chunks_mut(ni * nj).enumerate();
        slices.for_each(|(k, slice)| {
            let mut least = vec![0.0; ni];
            for (j, sums) in slice.chunks_mut(ni).enumerate() {
                let mut add = |least: &[f32]| {
                    let sums = sums.iter_mut().zip(least);
                    sums.for_each(|(sum, least)| *sum += share * least);
                };
                if self.counts[0] {
                    least_along(row(j, k), &mut least);
                    add(&least);
                }
                if self.counts[1] {
                    least_across(|j| row(j, k), j, nj, &mut least);
                    add(&least);
                }
                if self.counts[2] && nk >= WINDOW {
                    least_across(|k| row(j, k), k, nk, &mut least);
                    add(&least);
                }
            }
        });
        grain
    }
}

/// The fourth difference of five values.
fn fourth([a, b, c, d, e]: [f32; WINDOW]) -> f32 {
    (a + e - 4.0 * (b + d) + 6.0 * c).abs()
}

/// For each voxel of a row the least in the stretches along it that hold the voxel.
fn least_along(row: &[f32], least: &mut [f32]) {
    least.fill(f32::INFINITY);
    for (start, values) in row.windows(WINDOW).enumerate() {
        let found = fourth(std::array::from_fn(|n| values[n]));
        for least in &mut least[start..start + WINDOW] {
            *least = least.min(found);
        }
    }
}

/// The same in the stretches across rows, of which there are `length`, for those of row `at`.
fn least_across<'a>(row: impl Fn(usize) -> &'a [f32], at: usize, length: usize, least: &mut [f32]) {
    least.fill(f32::INFINITY);
    for start in (at + 1).saturating_sub(WINDOW)..=at.min(length - WINDOW) {
        let rows: [&[f32]; WINDOW] = std::array::from_fn(|n| row(start + n));
        for (i, least) in least.iter_mut().enumerate() {
            *least = least.min(fourth(rows.map(|row| row[i])));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{box_mask, grid, volume};
    use crate::volume::Samples;

    const SHAPE: [usize; 3] = [70, 48, 40];
    const AREA: [[usize; 3]; 2] = [[30, 8, 8], [70, 40, 32]];

    /// Noise of -1 to 1, the same every time.
    fn noise([i, j, k]: [usize; 3]) -> f32 {
        let mut bits = (i + SHAPE[0] * (j + SHAPE[1] * k)) as u32;
        for factor in [0x7feb_352d_u32, 0x846c_a68b] {
            bits = (bits ^ (bits >> 15)).wrapping_mul(factor);
        }
        (bits >> 24) as f32 / 128.0 - 1.0
    }

    /// Tissue whose noise of 20 is this strong in `AREA`, on a slope and with an edge that is smooth over some voxels.
    fn scan(spacing: [f64; 3], inside: f32) -> Image {
        let volume = volume(grid(SHAPE, spacing), |index| {
            let blurred = (0..3).all(|a| (AREA[0][a]..AREA[1][a]).contains(&index[a]));
            let edge = 100.0 * ((index[1] as f32 - 24.0) / 6.0).tanh();
            let size = if blurred { inside } else { 20.0 };
            400.0 + edge + 2.0 * index[0] as f32 + size * noise(index)
        });
        Image {
            samples: Samples::F32(volume.voxels),
            geometry: volume.geometry,
        }
    }

    /// How many voxels differ from the true area: of a rough one that lies 3 voxels off, and once it is snapped.
    fn wrong(image: &Image, dark: [[usize; 3]; 2]) -> [usize; 2] {
        let of = |start, end| PackedMask::of_mask(&box_mask(image.geometry.clone(), start, end));
        let truth = of(AREA[0], AREA[1]);
        let area = of([27, 11, 8], [70, 42, 29]);
        let rough = Rough {
            geometry: image.geometry.clone(),
            area: area.clone(),
            core: area.clone(),
            near: area.clone(),
            dark: of(dark[0], dark[1]),
        };
        let mut snapped = area.clone();
        snap_to_smooth(image, &rough, None, &mut snapped);
        [&area, &snapped].map(|area| PackedMask::count_of([area, &truth], |[a, b]| a ^ b))
    }

    const NOWHERE: [[usize; 3]; 2] = [[0; 3], [0; 3]];

    #[test]
    fn a_blurred_area_ends_where_noise_begins() {
        for spacing in [[1.0; 3], [0.7, 0.9, 1.5]] {
            let [before, after] = wrong(&scan(spacing, 0.4), NOWHERE);
            assert!(before > 9_000 && after < before / 8, "{before} {after}");
        }
        // Along k nothing is measured, and the area ends there within a slice.
        let [before, after] = wrong(&scan([0.7, 0.9, 4.0], 0.4), NOWHERE);
        assert!(after < before / 3, "{before} {after}");
    }

    #[test]
    fn an_area_with_noise_of_its_own_or_in_smooth_tissue_stays_as_it_is() {
        for inside in [8.0, 20.0, 40.0] {
            let [before, after] = wrong(&scan([1.0; 3], inside), NOWHERE);
            assert_eq!(before, after);
        }
    }

    #[test]
    fn a_face_with_sharp_edges_stays_as_it_is_however_smooth_it_is_between() {
        let mut image = scan([1.0; 3], 0.4);
        let Samples::F32(values) = &mut image.samples else {
            unreachable!()
        };
        for (n, value) in values.iter_mut().enumerate() {
            if (n / SHAPE[0] % SHAPE[1]).is_multiple_of(8) {
                *value -= 60.0;
            }
        }
        let [before, after] = wrong(&image, NOWHERE);
        assert_eq!(before, after);
    }

    #[test]
    fn what_is_as_dark_as_air_stays_as_it_is() {
        let image = scan([1.0; 3], 0.4);
        let [before, after] = wrong(&image, [[0; 3], SHAPE]);
        assert_eq!(before, after);
        let [_, all] = wrong(&image, NOWHERE);
        let [_, half] = wrong(&image, [[0; 3], [70, 24, 40]]);
        assert!(half > 2 * all, "{half} {all}");
    }

    #[test]
    fn of_a_small_piece_in_smooth_tissue_the_area_keeps_what_it_had() {
        let image = scan([1.0; 3], 0.4);
        let of = |start, end| PackedMask::of_mask(&box_mask(image.geometry.clone(), start, end));
        // Far from the other piece, each in tissue that is smooth well beyond it.
        let (large, small) = (of([31, 9, 9], [48, 39, 31]), of([63, 22, 18], [66, 25, 21]));
        let mut area = PackedMask::combined([&large, &small], |[large, small]| large | small);
        let bounds = BoundingBox::whole(image.shape());
        let mut tissue = PackedMask::empty(image.shape());
        tissue.fill(&bounds);
        end_at_noise(&Grain::of(&image), 2.0, &tissue, [&bounds; 2], &mut area);
        assert_eq!(area.count_shared(&small), small.count());
        let near = of([58, 17, 13], [70, 30, 26]);
        assert_eq!(area.count_shared(&near), small.count());
    }

    #[test]
    fn one_voxel_is_measured_as_all_of_them_are() {
        for spacing in [[1.0; 3], [0.7, 0.9, 4.0]] {
            let image = scan(spacing, 0.4);
            let grain = Grain::of(&image);
            let all = grain.in_slab(&BoundingBox::whole(image.shape()));
            for (place, all) in all.iter().enumerate().step_by(7) {
                let one = grain.at(place);
                assert!(
                    (one - all).abs() <= 1e-4 * (1.0 + all),
                    "{place} {one} {all}"
                );
            }
        }
    }

    #[test]
    fn the_least_difference_of_a_line_is_the_same_along_and_across() {
        let line: Vec<f32> = (0..12).map(|n| noise([n, 3, 1])).collect();
        let mut along = vec![0.0; 12];
        least_along(&line, &mut along);
        let rows: Vec<[f32; 1]> = line.iter().map(|v| [*v]).collect();
        for (at, along) in along.iter().enumerate() {
            let mut across = [0.0];
            least_across(|n| &rows[n], at, 12, &mut across);
            assert_eq!(across[0], *along);
            let from = at.saturating_sub(4)..=at.min(7);
            let all = from.map(|n| fourth(std::array::from_fn(|m| line[n + m])));
            assert_eq!(all.fold(f32::INFINITY, f32::min), *along);
        }
    }
}
