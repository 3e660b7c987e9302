//! A face that was pixelated: equal voxels in blocks tell, to the voxel, what was altered.
//!
//! Of a block that is two voxels or more along each axis every voxel lies in a cube of 2×2×2 equal ones;
//! blocks of one slice are not found. Tissue as it was measured hardly ever has such cubes, and noise of air few.

use rayon::prelude::*;

use super::components::{Components, Connectivity};
use super::morphology::{crowded, dilate};
use super::packed_mask::PackedMask;
use super::rough_area::Rough;
use crate::volume::{BoundingBox, Image, Mask};

/// Of the surely altered tissue at least this share lies in cubes where it was pixelated, and of what lies around
/// the area at most the other.
const TISSUE_SHARES: [f64; 2] = [0.9, 0.01];

/// In air cubes tell something where at most this share of the air around lies in them: they are more common
/// than in tissue where noise has few levels, and all of it where there is none.
const AIR_SHARE: f64 = 0.005;

/// What lies around the area is looked at up to this far from it [mm].
const MARGIN_MM: f64 = 15.0;

/// A block belongs to the area up to this far from where it may lie [mm].
const REACH_MM: f64 = 6.0;

/// Fewer voxels say nothing.
const LEAST_VOXELS: usize = 500;

/// The mask that pixels are kept within cuts blocks; so many voxels of a block may lie outside its cubes.
const CUT_VOXELS: usize = 2;

/// A piece of blocks belongs to the area where that covers more than one share of it, and it has more than the other of
/// the largest one's voxels.
const PIECE_SHARES: [f64; 2] = [0.3, 0.01];

/// A gap between blocks is filled where more than this share of its surroundings lies in them.
const GAP_SHARE: f32 = 0.55;

/// Beside a block that ends at once the next voxel differs from it nearly as much as one so far off [mm]: at least by
/// this share. At a soft edge blocks fade out, and the area ends beyond them.
const FAR_MM: f64 = 4.0;
const SHARP_SHARE: f64 = 0.68;

/// Where an area is made of blocks, says so and gives it exactly these where they end sharply: in tissue, and in air
/// where its noise allows. What is `constant`, a fill or a scanner's zeros, stays as it is.
pub(super) fn snap_to_blocks(
    image: &Image,
    rough: &Rough,
    constant: Option<&PackedMask>,
    area: &mut PackedMask,
) -> bool {
    let found = is_made_of_blocks(image, rough, constant);
    if let Some(bounds) = rough.near.bounds().filter(|_| found) {
        snap_within(&bounds, image, rough, constant, area);
    }
    found
}

/// The same of an area that is made of blocks, which may lie in a box.
fn snap_within(
    bounds: &BoundingBox,
    image: &Image,
    rough: &Rough,
    constant: Option<&PackedMask>,
    area: &mut PackedMask,
) {
    let geometry = &image.geometry;
    let bounds = geometry.grown(bounds, MARGIN_MM);
    let crop = |mask: &PackedMask| mask.crop(&bounds, geometry);
    let constant = constant.map(crop);
    let [near, dark] = [&rough.near, &rough.dark].map(crop);
    let varies = |n: usize| constant.as_ref().map_or(1, |all| 1 - all.voxels[n]);
    let mut piece = crop(area);
    let image = image.crop(&bounds);
    let mut blocks = cubes(&image);
    let voxels = blocks.voxels.par_iter_mut().enumerate();
    voxels.for_each(|(n, block)| *block &= varies(n));

    let share = |counts: &(dyn Fn(usize) -> u8 + Sync)| share_of(&blocks, counts);
    let around = share(&|n| varies(n) & (1 - near.voxels[n]) & (1 - dark.voxels[n]));
    if around.is_some_and(|share| share > TISSUE_SHARES[1]) {
        return;
    }
    let air = share(&|n| varies(n) & (1 - near.voxels[n]) & dark.voxels[n]);
    let air_tells = u8::from(air.is_some_and(|share| share <= AIR_SHARE));
    let counts = |n: usize| varies(n) & (air_tells | (1 - dark.voxels[n]));

    let reach = dilate(&near, REACH_MM);
    let voxels = blocks.voxels.par_iter_mut().enumerate();
    voxels.for_each(|(n, block)| *block &= reach.voxels[n] & counts(n));
    for _ in 0..CUT_VOXELS {
        blocks = with_equal_neighbours(&image, &blocks);
        let voxels = blocks.voxels.par_iter_mut().enumerate();
        voxels.for_each(|(n, block)| *block &= counts(n));
    }
    keep_covered(&mut blocks, &piece);
    if !ends_at_once(&image, &blocks, |n| counts(n) & (1 - dark.voxels[n])) {
        return;
    }
    let gaps = crowded(&blocks, GAP_SHARE);
    let voxels = piece.voxels.par_iter_mut().enumerate();
    voxels.for_each(|(n, area)| {
        if counts(n) != 0 {
            *area = blocks.voxels[n] | gaps.voxels[n];
        }
    });
    area.paste(&piece, bounds.start);
}

/// Whether the tissue of an area's core lies in blocks.
fn is_made_of_blocks(image: &Image, rough: &Rough, constant: Option<&PackedMask>) -> bool {
    let Some(bounds) = rough.core.bounds() else {
        return false;
    };
    // At the box's own border a cube may be cut off.
    let bounds = bounds.grown([1; 3], image.shape());
    let tissue = |[core, dark]: [u64; 2]| core & !dark;
    let tissue = PackedMask::combined([&rough.core, &rough.dark], tissue).without(constant);
    let all = tissue.count();
    let cubes = |slab: &BoundingBox| cubes(&image.crop(slab));
    let enough = all >= LEAST_VOXELS;
    enough && {
        let cubes = PackedMask::of_slabs(image.shape(), &bounds, 1, cubes);
        tissue.count_shared(&cubes) as f64 >= TISSUE_SHARES[0] * all as f64
    }
}

/// The share of the voxels that count which lie in a mask; `None` where they are few.
fn share_of(mask: &Mask, counts: impl Fn(usize) -> u8 + Sync) -> Option<f64> {
    let voxels = mask.voxels.par_iter().enumerate();
    let (all, both) = voxels
        .filter(|(n, _)| counts(*n) != 0)
        .map(|(_, mask)| (1_usize, usize::from(*mask)))
        .reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    (all >= LEAST_VOXELS).then(|| both as f64 / all as f64)
}

/// Takes out the pieces that an area does not cover to a fair share, and far smaller ones; the one that it covers most
/// of stays, however little of it was found.
fn keep_covered(blocks: &mut Mask, area: &Mask) {
    let pieces = Components::find(blocks, Connectivity::TwentySix);
    let covered = pieces.count_in(area);
    let main = (0..covered.len()).max_by_key(|n| covered[*n]);
    let largest = pieces.pieces().iter().map(|piece| piece.voxels).max();
    let [share, size] = PIECE_SHARES;
    pieces.keep(blocks, |n, piece| {
        let is_covered = covered[n] as f64 > share * piece.voxels as f64;
        let is_small = piece.voxels as f64 <= size * largest.unwrap_or(0) as f64;
        Some(n) == main || is_covered && !is_small
    });
}

/// Whether blocks end at once where they end in voxels that count; false where they nowhere do.
fn ends_at_once(image: &Image, blocks: &Mask, counts: impl Fn(usize) -> u8 + Sync) -> bool {
    let shape = image.shape();
    let spacing = image.geometry.spacing().mm();
    let strides = [1, shape[0], shape[0] * shape[1]];
    let far = spacing.map(|mm| (FAR_MM / mm).round().max(2.0) as usize);
    let is_inside = |n: usize| blocks.voxels[n] != 0;
    let counts = |n: usize| counts(n) != 0;
    let differences = |n: usize| {
        let mut sums = [0.0_f64; 2];
        if !is_inside(n) || !counts(n) {
            return sums;
        }
        for axis in 0..3 {
            let at = n / strides[axis] % shape[axis];
            let (step, reach) = (strides[axis], far[axis] * strides[axis]);
            let ahead = (at + far[axis] < shape[axis]).then(|| (n + step, n + reach));
            let back = (at >= far[axis]).then(|| (n - step, n - reach));
            for (next, far) in [ahead, back].into_iter().flatten() {
                if [next, far].iter().all(|&n| counts(n) && !is_inside(n)) {
                    let here = image.samples.value(n);
                    let differs = |n: usize| f64::from((image.samples.value(n) - here).abs());
                    sums[0] += differs(next);
                    sums[1] += differs(far);
                }
            }
        }
        sums
    };
    // Planes one by one and then in order: the same sum whatever the number of threads.
    let planes = (0..shape[2]).into_par_iter().map(|k| {
        let plane = k * strides[2]..(k + 1) * strides[2];
        plane
            .map(differences)
            .fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]])
    });
    let planes: Vec<[f64; 2]> = planes.collect();
    let [next, far] = planes
        .iter()
        .fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
    far > 0.0 && next >= SHARP_SHARE * far
}

/// Voxels that lie in a cube of 2×2×2 equal ones.
fn cubes(image: &Image) -> Mask {
    let [ni, nj, nk] = image.shape();
    let mut voxels = vec![0_u8; image.geometry.voxel_count()];
    let planes = voxels.par_chunks_mut(ni * nj).enumerate();
    planes.for_each(|(k, plane)| {
        let here = image.plane(k);
        for other in [k.checked_sub(1), Some(k + 1).filter(|k| *k < nk)] {
            let Some(other) = other else { continue };
            let other = image.plane(other);
            for j in 1..nj {
                for i in 1..ni {
                    let corners = [0, 1, ni, ni + 1].map(|back| i + ni * j - back);
                    let x = here[corners[0]];
                    if corners.iter().all(|&n| here[n] == x && other[n] == x) {
                        corners.into_iter().for_each(|n| plane[n] = 1);
                    }
                }
            }
        }
    });
    Mask {
        voxels,
        geometry: image.geometry.clone(),
    }
}

/// Adds to a mask the voxels that are next to one of its own, along an axis, and equal to it.
fn with_equal_neighbours(image: &Image, mask: &Mask) -> Mask {
    let [ni, nj, nk] = image.shape();
    let mut voxels = mask.voxels.clone();
    let planes = voxels.par_chunks_mut(ni * nj).enumerate();
    planes.for_each(|(k, plane)| {
        let before = &mask.voxels[k * ni * nj..][..ni * nj];
        let here = image.plane(k);
        for j in 0..nj {
            for i in 0..ni {
                let n = i + ni * j;
                let beside = [
                    (i > 0).then(|| n - 1),
                    (i + 1 < ni).then(|| n + 1),
                    (j > 0).then(|| n - ni),
                    (j + 1 < nj).then(|| n + ni),
                ];
                let mut beside = beside.into_iter().flatten();
                plane[n] |= u8::from(beside.any(|m| before[m] != 0 && here[m] == here[n]));
            }
        }
        for other in [k.checked_sub(1), Some(k + 1).filter(|k| *k < nk)] {
            let Some(other) = other else { continue };
            let before = &mask.voxels[other * ni * nj..][..ni * nj];
            let there = image.plane(other);
            let voxels = plane.iter_mut().zip(before).zip(here.iter().zip(&there));
            voxels.for_each(|((voxel, before), (here, there))| {
                *voxel |= before & u8::from(here == there);
            });
        }
    });
    Mask {
        voxels,
        geometry: mask.geometry.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::phantom::{box_mask, grid, volume};
    use crate::volume::Samples;

    const SHAPE: [usize; 3] = [60, 48, 40];
    /// Cuts blocks of 4 voxels on all sides.
    const AREA: [[usize; 3]; 2] = [[25, 9, 9], [60, 39, 31]];

    /// Tissue of many values, the same every time.
    fn tissue([i, j, k]: [usize; 3]) -> f32 {
        let mut bits = (i + SHAPE[0] * (j + SHAPE[1] * k)) as u32;
        for factor in [0x7feb_352d_u32, 0x846c_a68b] {
            bits = (bits ^ (bits >> 15)).wrapping_mul(factor);
        }
        400.0 + (bits >> 24) as f32
    }

    /// How much of a voxel is pixels: `fade` voxels from nothing to all, about the area's border.
    fn weight(index: [usize; 3], fade: f32) -> f32 {
        let depth = (0..3).flat_map(|a| {
            let x = index[a] as f32 + 0.5;
            let end = if AREA[1][a] == SHAPE[a] {
                9e9
            } else {
                AREA[1][a] as f32
            };
            [x - AREA[0][a] as f32, end - x]
        });
        (depth.fold(f32::INFINITY, f32::min) / fade + 0.5).clamp(0.0, 1.0)
    }

    fn scan(fade: f32) -> Image {
        let volume = volume(grid(SHAPE, [1.0; 3]), |index| {
            let weight = weight(index, fade);
            let pixel = tissue(index.map(|n| n / 4 * 4));
            (tissue(index) * (1.0 - weight) + pixel * weight).round()
        });
        Image {
            samples: Samples::F32(volume.voxels),
            geometry: volume.geometry,
        }
    }

    /// How many voxels differ from the true area: of a rough one that lies 3 voxels off, and once it is snapped.
    fn wrong(image: &Image) -> [usize; 2] {
        wrong_from(image, [22, 6, 12], None)
    }

    /// The same of a rough area that begins there.
    fn wrong_from(image: &Image, start: [usize; 3], constant: Option<&PackedMask>) -> [usize; 2] {
        let of = |start, end| PackedMask::of_mask(&box_mask(image.geometry.clone(), start, end));
        let truth = of(AREA[0], AREA[1]);
        let rough = Rough {
            geometry: image.geometry.clone(),
            area: of(start, [60, 36, 34]),
            core: of([29, 13, 13], [60, 35, 27]),
            near: of([20, 4, 6], [60, 40, 34]),
            dark: of([0; 3], [0; 3]),
        };
        let mut area = rough.area.clone();
        snap_to_blocks(image, &rough, constant, &mut area);
        [&rough.area, &area]
            .map(|area| PackedMask::count_of([area, &truth], |[area, truth]| area ^ truth))
    }

    #[test]
    fn an_area_made_of_blocks_is_found_to_the_voxel() {
        // But for some next to it that equal it by chance.
        let [before, after] = wrong(&scan(0.01));
        assert!(before > 12_000 && after < 200, "{before} {after}");
    }

    #[test]
    fn an_area_of_which_little_was_found_is_found_whole() {
        let [before, after] = wrong_from(&scan(0.01), [52, 24, 12], None);
        assert!(before > 20_000 && after < 200, "{before} {after}");
    }

    #[test]
    fn a_fill_stays_as_it_is() {
        // The upper part of the area holds one value, which the rough area takes 3 voxels too far.
        let image = scan(0.01);
        let constant = box_mask(image.geometry.clone(), [22, 6, 22], [60, 39, 34]);
        let values = (0..image.geometry.voxel_count()).map(|n| match constant.voxels[n] {
            0 => image.samples.value(n),
            _ => 7.0,
        });
        let image = Image {
            samples: Samples::F32(values.collect()),
            geometry: image.geometry.clone(),
        };
        let [before, after] =
            wrong_from(&image, [22, 6, 12], Some(&PackedMask::of_mask(&constant)));
        // What differs then are the rough area's own faults in the fill: 3 voxels of three sides.
        assert!(after < before && after > 3000, "{before} {after}");
    }

    #[test]
    fn an_area_whose_blocks_fade_out_stays_as_it_is() {
        let [before, after] = wrong(&scan(8.0));
        assert_eq!(before, after);
    }

    #[test]
    fn an_area_stays_where_nothing_or_everything_is_made_of_blocks() {
        for coarse in [1, 4] {
            let volume = volume(grid(SHAPE, [1.0; 3]), |index| {
                tissue(index.map(|n| n / coarse))
            });
            let image = Image {
                samples: Samples::F32(volume.voxels),
                geometry: volume.geometry,
            };
            let [before, after] = wrong(&image);
            assert_eq!(before, after);
        }
    }
}
