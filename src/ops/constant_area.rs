//! Where a scan was filled with one value: snaps a roughly found area to the exactly constant voxels.
//!
//! A network finds an area to a few millimetres; a tool that blanked it left exactly one value there,
//! which noise, even of air, does not. So the area's edge is where the constant ends. Where nothing was
//! blanked, and beside it, noise tells what was altered ([`super::air_noise`], [`super::tissue_noise`]), and so do
//! blocks of pixels ([`super::blocks`]).

use serde::{Deserialize, Serialize};

use super::air_noise::AirNoise;
use super::blocks::snap_to_blocks;
use super::components::{Components, Connectivity};
use super::packed_mask::PackedMask;
use super::rough_area::{Rough, crowded_in, holds_ball, leave_unlikely, surest};
use super::tissue_noise::snap_to_smooth;
use crate::volume::coarse_grid::CoarseField;
use crate::volume::{Geometry, Image, Mask, Samples};

/// How the area is snapped to constant voxels.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Snap {
    /// Constant voxels above this probability belong to the area.
    pub probability: f32,
    /// A constant piece of which more than this share lies above that probability belongs to the area as a
    /// whole.
    pub coverage: f64,
    /// Share of the rough area that one value must hold for it to be a constant fill.
    pub constant_share: f64,
    /// What is not constant, surely altered and bright was painted or blurred where a ball of this radius
    /// fits into it [mm]; else it is the rough area's edge, laid over what was not altered.
    pub mixed_radius_mm: f64,
    /// Smaller constant pieces are not taken as a whole [ml].
    pub minimum_piece_ml: f64,
}

/// The value that a rough area mostly holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fill {
    /// The value.
    pub value: f32,
    /// Share of the rough area that holds it.
    pub share: f64,
    /// Share that holds the next commonest value.
    pub next_share: f64,
}

/// Beside a fill no other value is common: it has less than this times the fill's share. Faint noise,
/// blurred and rounded, holds one value often and the next nearly as often.
const MOST_NEXT: f64 = 0.3;

/// The commonest value in a mask, `None` for an empty one.
pub fn fill_of(image: &Image, mask: &PackedMask) -> Option<Fill> {
    let inside = || mask.places();
    match &image.samples {
        Samples::I16(scaled) => {
            let found = commonest(inside().map(|n| scaled.stored[n]))?;
            Some(found.fill(|stored| scaled.real(stored)))
        }
        Samples::U16(scaled) => {
            let found = commonest(inside().map(|n| scaled.stored[n]))?;
            Some(found.fill(|stored| scaled.real(stored)))
        }
        Samples::F32(values) => {
            // Bits, so that values can be counted; -0 and 0 are one value.
            let found = commonest(inside().map(|n| (values[n] + 0.0).to_bits()))?;
            Some(found.fill(f32::from_bits))
        }
    }
}

/// The commonest of some values (the smallest of several), its share and that of the next.
struct Commonest<T> {
    value: T,
    share: f64,
    next_share: f64,
}

impl<T> Commonest<T> {
    fn fill(self, real: impl Fn(T) -> f32) -> Fill {
        Fill {
            value: real(self.value),
            share: self.share,
            next_share: self.next_share,
        }
    }
}

fn commonest<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<Commonest<T>> {
    let mut sorted: Vec<T> = values.collect();
    sorted.sort_unstable();
    let total = sorted.len() as f64;
    let mut longest: Option<(usize, T)> = None;
    let mut next = 0;
    for same in sorted.chunk_by(|a, b| a == b) {
        match longest {
            Some((length, _)) if same.len() <= length => next = next.max(same.len()),
            _ => {
                next = longest.map_or(0, |(length, _)| length);
                longest = Some((same.len(), same[0]));
            }
        }
    }
    longest.map(|(length, value)| Commonest {
        value,
        share: length as f64 / total,
        next_share: next as f64 / total,
    })
}

/// The area above a logit of `threshold`: snapped to the constant fill that it mostly holds; else, and
/// beside it, as rough as the logits are, but for noise that tells more (see [`super::air_noise`]), for blocks of pixels
/// ([`super::blocks`]) or where a blur ends ([`super::tissue_noise`]), for unlikely pieces of what seems painted, and for
/// what a scanner left empty in air.
/// Voxels below `air_below` are as dark as air.
pub fn snap(
    image: &Image,
    logits: &CoarseField,
    threshold: f32,
    air_below: f32,
    rule: &Snap,
) -> Mask {
    let rough = Rough::of(image, logits, threshold, rule.probability, air_below);
    // What the fill is, the core says: at its edge a rough area holds what was not altered.
    let fill = fill_of(image, &rough.core).or_else(|| fill_of(image, &rough.area));
    let fill = fill.filter(|fill| {
        fill.share >= rule.constant_share && fill.next_share <= MOST_NEXT * fill.share
    });
    let constant = fill.map(|fill| equal_to(image, fill.value));
    let painted = is_painted(image, &rough.core, constant.as_ref(), air_below, rule);
    // Zeros that the scanner left before noise, or before what was blurred, fill nothing, nor do those of
    // the noise itself.
    let fill = constant.as_ref().and_then(|constant| {
        let whole = solid(constant, &image.geometry, WHOLE_SHARE);
        let begins = painted || rough.begins_with(constant);
        let surest = surest(image, logits, threshold);
        let massive = is_massive(constant, &whole, [&surest, &rough.core]);
        (begins && massive).then_some((constant, whole))
    });
    let area = match fill {
        Some((constant, whole)) => filled(image, logits, &rough, (constant, whole), painted, rule),
        None => unfilled(image, logits, &rough, (constant.as_ref(), painted)),
    };
    // Together they take as much as the area does at a byte a voxel.
    drop((rough, constant));
    area.unpacked(&image.geometry)
}

/// The area where it holds a fill. `constant`: the voxels of its value, and those that are constant all around;
/// `painted`: something bright in it is not constant and too large for a strip.
fn filled(
    image: &Image,
    logits: &CoarseField,
    rough: &Rough,
    (constant, whole): (&PackedMask, PackedMask),
    painted: bool,
    rule: &Snap,
) -> PackedMask {
    let cut_off = noise_is_cut_off(constant, &whole, &rough.near);
    let solid = if cut_off {
        whole
    } else {
        solid(constant, &image.geometry, SOLID_SHARE)
    };
    let mut pieces = Pieces::of(&solid, &rough.area, &rough.near);
    // A painted area keeps all of them: without them it had holes.
    if cut_off && !painted {
        pieces.leave_chance();
    }
    let mut area = pieces.of_area(rule, image.geometry.voxel_ml());
    drop(pieces);
    rough.leave_air_alone(&mut area);
    area = regrown(&area, constant);
    let is_still = rough.air_around_is(constant);
    if painted {
        let outside = |[area, constant]: [u64; 2]| area & !constant;
        let mut beside = PackedMask::combined([&rough.area, constant], outside);
        leave_unlikely(image, logits, &rough.core, &mut beside);
        let of_blocks = snap_to_blocks(image, rough, Some(constant), &mut beside);
        area = PackedMask::combined([&area, &beside], |[area, beside]| area | beside);
        if !of_blocks {
            snap_to_smooth(image, rough, Some(constant), &mut area);
        }
        if !is_still {
            leave_noise(image, rough, &mut area);
        }
    } else if is_still {
        // Noise where the air around has none was put there.
        let noise = |[part, dark, solid]: [u64; 3]| part & dark & !solid;
        let within = |part| PackedMask::combined([part, &rough.dark, &solid], noise);
        if holds_ball(&within(&rough.core), &image.geometry, NOISE_RADIUS_MM) {
            let noise = within(&rough.area);
            area = PackedMask::combined([&area, &noise], |[area, noise]| area | noise);
        }
    }
    area
}

/// Of a fill's voxels where an area is surest at least this share is constant all around.
const MASSIVE_SHARE: f64 = 0.2;

/// Whether the voxels of a value lie in masses, not among others as in noise. `whole`: those that are constant all
/// around; `parts`: where to look, in the next one if there are none in the first. Where an area is surest comes
/// before its core: beside noise that was put there, a scanner's own zeros may be in the core too.
fn is_massive(constant: &PackedMask, whole: &PackedMask, parts: [&PackedMask; 2]) -> bool {
    let counts = parts.map(|part| (part.count_shared(constant), part.count_shared(whole)));
    let (all, whole) = match counts {
        [(0, _), core] => core,
        [surest, _] => surest,
    };
    whole as f64 >= MASSIVE_SHARE * all as f64
}

/// The area where it holds no fill. `constant`: the value that is the commonest in it, which tells nothing of
/// noise; `painted`: something bright in it is too large for a strip.
fn unfilled(
    image: &Image,
    logits: &CoarseField,
    rough: &Rough,
    (constant, painted): (Option<&PackedMask>, bool),
) -> PackedMask {
    let noise = AirNoise::of(image, rough, constant);
    let is_noise = noise.as_ref().is_some_and(|noise| !noise.is_smooth());
    if !painted && is_noise && rough.core_is_dark() {
        // Noise for a strip of the face: what is bright is what lies behind.
        let dark = |[area, dark]: [u64; 2]| area & dark;
        let mut area = PackedMask::combined([&rough.area, &rough.dark], dark);
        rough.leave_air_alone(&mut area);
        return area;
    }
    let mut area = rough.area.clone();
    if let Some(noise) = noise {
        noise.leave(&mut area);
    }
    if painted {
        leave_unlikely(image, logits, &rough.core, &mut area);
        if !snap_to_blocks(image, rough, constant, &mut area) {
            snap_to_smooth(image, rough, constant, &mut area);
        }
    }
    area
}

/// Takes away the air that was left alone, where there is enough to tell.
fn leave_noise(image: &Image, rough: &Rough, area: &mut PackedMask) {
    if let Some(noise) = AirNoise::of(image, rough, None) {
        noise.leave(area);
    }
}

/// Whether what is bright in an area's core and not constant was painted or blurred: a large ball fits
/// into it. Before a thin strip that was blanked, a rough area holds much of what was not altered.
fn is_painted(
    image: &Image,
    core: &PackedMask,
    constant: Option<&PackedMask>,
    air_below: f32,
    rule: &Snap,
) -> bool {
    let bright = PackedMask::of_image(image, |value| value >= air_below);
    let bright = PackedMask::combined([core, &bright], |[core, bright]| core & bright);
    let bright = bright.without(constant);
    holds_ball(&bright, &image.geometry, rule.mixed_radius_mm)
}

/// Noise in constant air counts where a ball of this radius fits into it [mm]; thinner lie the
/// partial volumes between tissue and a constant.
const NOISE_RADIUS_MM: f64 = 4.0;

/// A piece is taken as a whole only where the rough area covers more than this share of what it covers
/// of the piece that it found most of: zeros that a scanner left beside a fill are not found so well.
const AS_WELL: f64 = 2.0 / 3.0;

/// Below this share of the main piece another one may be of chance: a tool may fill in two halves.
const FAR_SMALLER: f64 = 0.1;

/// The solid pieces of a fill, and how many voxels of each lie in the rough area and near it.
struct Pieces<'a> {
    near: &'a PackedMask,
    components: Components,
    covered: Vec<usize>,
    nearby: Vec<usize>,
}

impl<'a> Pieces<'a> {
    fn of(solid: &PackedMask, rough: &PackedMask, near: &'a PackedMask) -> Self {
        let components = Components::find_packed(solid, Connectivity::Six);
        let covered = components.count_in(rough);
        let nearby = components.count_in(near);
        Self {
            near,
            components,
            covered,
            nearby,
        }
    }

    /// The piece that the rough area found most of.
    fn main(&self) -> Option<usize> {
        (0..self.covered.len()).max_by_key(|n| self.covered[*n])
    }

    /// Leaves out pieces far smaller than the main one that are no larger than noise makes them elsewhere,
    /// where nothing was altered. What touches the border of the volume is padding.
    fn leave_chance(&mut self) {
        let pieces = self.components.pieces();
        let elsewhere = pieces.iter().zip(&self.nearby);
        let elsewhere = elsewhere.filter(|(piece, nearby)| **nearby == 0 && !piece.touches_border);
        let largest = elsewhere.map(|(piece, _)| piece.voxels).max();
        let main = self.main().map_or(0, |main| self.covered[main]);
        for (piece, covered) in pieces.iter().zip(&mut self.covered) {
            let is_small = (piece.voxels as f64) < FAR_SMALLER * main as f64;
            if is_small && Some(piece.voxels) <= largest {
                *covered = 0;
            }
        }
    }

    /// Pieces that the rough area covers to a fair share, whole; of others what is near it; of those that it
    /// does not cover nothing.
    fn of_area(&self, rule: &Snap, voxel_ml: f64) -> PackedMask {
        let pieces = self.components.pieces();
        let share = |counts: &[usize], n: usize| counts[n] as f64 / pieces[n].voxels as f64;
        let least = self
            .main()
            .map_or(0.0, |main| share(&self.covered, main) * AS_WELL);
        let is_whole = |n: usize| {
            share(&self.nearby, n) > rule.coverage
                && share(&self.covered, n) > least
                && pieces[n].voxels as f64 * voxel_ml > rule.minimum_piece_ml
        };
        let mut area = PackedMask::empty(self.near.shape());
        for (run, piece) in self.components.runs() {
            if is_whole(piece) {
                area.fill_run(run);
            } else if self.covered[piece] > 0 {
                area.add_run(self.near, run);
            }
        }
        area
    }
}

/// Voxels that hold exactly this value.
pub fn equal_to(image: &Image, value: f32) -> PackedMask {
    PackedMask::of_image(image, |v| v == value)
}

/// A voxel is solid when most of its 3×3×3 neighbourhood is constant: more than this share.
const SOLID_SHARE: f32 = 0.55;

/// Constant all around is a voxel of whose surroundings more than this share is.
const WHOLE_SHARE: f32 = 0.99;

/// Noise is cut off at a value (CT air at -1024 HU) where more than one share of the voxels away from the
/// area hold it, and less than the other of these are constant all around.
const CHANCE_SHARES: [f64; 2] = [0.002, 0.5];

/// Whether a fill's value is one that noise is cut off at, by how it occurs away from the area; solid is then
/// what is constant all around. `whole`: the fill's voxels that are constant
/// all around.
fn noise_is_cut_off(constant: &PackedMask, whole: &PackedMask, near: &PackedMask) -> bool {
    let [ni, nj, nk] = near.shape();
    let away = ni * nj * nk - near.count();
    let away_of = |mask| PackedMask::count_of([mask, near], |[mask, near]| mask & !near);
    let (holding, inside) = (away_of(constant), away_of(whole));
    let [common, all_around] = CHANCE_SHARES;
    holding as f64 > common * away as f64 && (inside as f64) < all_around * holding as f64
}

/// Constant voxels of whose surroundings more than `share` is constant; chance zeros in noise are
/// none.
fn solid(constant: &PackedMask, geometry: &Geometry, share: f32) -> PackedMask {
    let crowded = crowded_in(constant, geometry, share);
    PackedMask::combined([&crowded, constant], |[crowded, constant]| {
        crowded & constant
    })
}

/// Gives an area back the constant voxels at its edges and corners, which are not solid.
fn regrown(area: &PackedMask, constant: &PackedMask) -> PackedMask {
    let around = area.with_neighbours();
    let grown = |[area, around, constant]: [u64; 3]| area | around & constant;
    PackedMask::combined([area, &around, constant], grown)
}

#[cfg(test)]
mod tests;
