//! Where a scan was filled with one value: snaps a roughly found area to the exactly constant voxels.
//!
//! A network finds an area to a few millimetres; a tool that blanked it left exactly one value there,
//! which noise, even of air, does not. So the area's edge is where the constant ends. Where nothing was
//! blanked, and beside it, noise tells what was altered ([`super::air_noise`], [`super::tissue_noise`]), and so do
//! blocks of pixels ([`super::blocks`]). A fill may fade into tissue ([`super::soft_edge`]).

use serde::{Deserialize, Serialize};

use super::air_noise::AirNoise;
use super::blocks::snap_to_blocks;
use super::components::{Components, Connectivity};
use super::fill::fill_of;
use super::packed_mask::PackedMask;
use super::rough_area::{Rough, crowded_in, dilated, holds_ball, leave_unlikely, surest};
use super::soft_edge::soft_edge_mm;
use super::tissue_noise::snap_to_smooth;
use crate::volume::coarse_grid::CoarseField;
use crate::volume::{Geometry, Image, Mask};

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

/// Values that tell air from tissue.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    /// Voxels below are as dark as air.
    pub air_below: f32,
    /// Tissue lies above, if that is known, as in CT; what is below is not all air.
    pub tissue_above: Option<f32>,
}

/// The area above a logit of `threshold`: snapped to the constant fill that it mostly holds; else, and
/// beside it, as rough as the logits are, but for noise that tells more (see [`super::air_noise`]), for blocks of pixels
/// ([`super::blocks`]) or where a blur ends ([`super::tissue_noise`]), for unlikely pieces of what seems painted, and for
/// what a scanner left empty in air.
pub fn snap(
    image: &Image,
    logits: &CoarseField,
    threshold: f32,
    levels: Levels,
    rule: &Snap,
) -> Mask {
    let air_below = levels.air_below;
    let rough = Rough::of(image, logits, threshold, rule.probability, air_below);
    let surest = surest(image, logits, threshold);
    let parts = [&surest, &rough.core];
    let (constant, other) = constants(image, &rough, parts, rule).unzip();
    let other = other.flatten().map(|other: Constant| other.voxels);
    let voxels = constant.as_ref().map(|constant| &constant.voxels);
    let painted = is_painted(
        image,
        &rough.core,
        [voxels, other.as_ref()],
        air_below,
        rule,
    );
    // Zeros that the scanner left before noise, or before what was blurred, fill nothing, nor do those of
    // the noise itself.
    let fills = |constant: &&Constant| {
        let begins = painted || rough.begins_with(&constant.voxels, other.as_ref());
        begins && constant.is_massive
    };
    let area = match constant.as_ref().filter(fills) {
        Some(fill) if painted => painted_and_filled(image, logits, &rough, fill, rule),
        Some(fill) => filled(image, &rough, fill, levels, rule),
        None => unfilled(image, logits, &rough, (voxels, painted)),
    };
    // Together they take as much as the area does at a byte a voxel.
    drop((rough, constant, other, surest));
    area.unpacked(&image.geometry)
}

/// A value that an area holds often.
struct Constant {
    value: f32,
    /// The voxels that hold it.
    voxels: PackedMask,
    /// Those of them that are constant all around.
    whole: PackedMask,
    /// Whether its voxels in the area lie in masses, not among others as in noise.
    is_massive: bool,
}

impl Constant {
    /// `parts`: as of [`is_massive`].
    fn of(image: &Image, value: f32, parts: [&PackedMask; 2]) -> Self {
        let voxels = equal_to(image, value);
        let whole = solid(&voxels, &image.geometry, WHOLE_SHARE);
        Self {
            value,
            is_massive: is_massive(&voxels, &whole, parts),
            voxels,
            whole,
        }
    }

    /// Share of its voxels that lie away from an area.
    fn away(&self, rough: &Rough) -> f64 {
        1.0 - self.voxels.count_shared(&rough.near) as f64 / self.voxels.count() as f64
    }
}

/// The value that an area mostly holds, and another one that lies there in masses too. Of two that are both common, as a
/// fill and the constant air before it may be, the first is the one that there is less of away from the area.
fn constants(
    image: &Image,
    rough: &Rough,
    parts: [&PackedMask; 2],
    rule: &Snap,
) -> Option<(Constant, Option<Constant>)> {
    // What the fill is, the core says: at its edge a rough area holds what was not altered.
    let fill = fill_of(image, &rough.core).or_else(|| fill_of(image, &rough.area))?;
    if fill.share < rule.constant_share {
        return None;
    }
    let first = Constant::of(image, fill.value, parts);
    let next = fill.has_other(image);
    let next = next.then(|| Constant::of(image, fill.next, parts));
    let next = next.filter(|next| next.is_massive);
    if fill.is_alone() {
        return Some((first, next));
    }
    let next = next.filter(|_| first.is_massive)?;
    Some(if first.away(rough) <= next.away(rough) {
        (first, Some(next))
    } else {
        (next, Some(first))
    })
}

/// The voxels of a fill that belong to an area, and all of it that is solid. `painted`: there is something else, too.
fn fill_in(
    image: &Image,
    rough: &Rough,
    fill: &Constant,
    painted: bool,
    rule: &Snap,
) -> (PackedMask, PackedMask) {
    let cut_off = noise_is_cut_off(&fill.voxels, &fill.whole, &rough.near);
    let solid = if cut_off {
        fill.whole.clone()
    } else {
        solid(&fill.voxels, &image.geometry, SOLID_SHARE)
    };
    let mut pieces = Pieces::of(&solid, &rough.area, &rough.near);
    // A painted area keeps all of them: without them it had holes.
    if cut_off && !painted {
        pieces.leave_chance();
    }
    let mut area = pieces.of_area(rule, image.geometry.voxel_ml());
    drop(pieces);
    rough.leave_air_alone(&mut area);
    (regrown(&area, &fill.voxels), solid)
}

/// The area where it holds a fill alone.
fn filled(
    image: &Image,
    rough: &Rough,
    fill: &Constant,
    levels: Levels,
    rule: &Snap,
) -> PackedMask {
    let (mut area, solid) = fill_in(image, rough, fill, false, rule);
    if rough.air_around_is(&fill.voxels) {
        // Noise where the air around has none was put there.
        let noise = |[part, dark, solid]: [u64; 3]| part & dark & !solid;
        let within = |part| PackedMask::combined([part, &rough.dark, &solid], noise);
        if holds_ball(&within(&rough.core), &image.geometry, NOISE_RADIUS_MM) {
            let noise = within(&rough.area);
            area = PackedMask::combined([&area, &noise], |[area, noise]| area | noise);
        }
    } else {
        // Before a scanner's own constant air skin rises as softly as at a soft edge.
        soften(image, rough, fill, levels, &mut area);
    }
    area
}

/// The area where something bright in it is not constant and too large for a strip, beside a fill.
fn painted_and_filled(
    image: &Image,
    logits: &CoarseField,
    rough: &Rough,
    fill: &Constant,
    rule: &Snap,
) -> PackedMask {
    let (mut area, _) = fill_in(image, rough, fill, true, rule);
    let constant = &fill.voxels;
    let outside = |[area, constant]: [u64; 2]| area & !constant;
    let mut beside = PackedMask::combined([&rough.area, constant], outside);
    leave_unlikely(image, logits, &rough.core, &mut beside);
    let of_blocks = snap_to_blocks(image, rough, Some(constant), &mut beside);
    area = PackedMask::combined([&area, &beside], |[area, beside]| area | beside);
    if !of_blocks {
        snap_to_smooth(image, rough, Some(constant), &mut area);
    }
    if !rough.air_around_is(constant) {
        leave_noise(image, rough, &mut area);
    }
    area
}

/// Adds to an area that holds a fill the tissue that this fades into, where tissue tells.
fn soften(image: &Image, rough: &Rough, fill: &Constant, levels: Levels, area: &mut PackedMask) {
    // A fill as bright as tissue does not tell where it ends.
    let Some(tissue_above) = levels
        .tissue_above
        .filter(|_| fill.value < levels.air_below)
    else {
        return;
    };
    let value = fill.value;
    let fill = PackedMask::combined([area, &fill.voxels], |[area, fill]| area & fill);
    let Some(bounds) = fill.bounds() else {
        return;
    };
    if let Some(reach) = soft_edge_mm(image, &fill, value, tissue_above) {
        let bounds = image.geometry.grown(&bounds, reach);
        let faded = dilated(&fill, &image.geometry, &bounds, reach);
        let bright = PackedMask::of_image(image, |value| value >= levels.air_below);
        let with_faded = |[area, faded, bright, near]: [u64; 4]| area | faded & bright & near;
        *area = PackedMask::combined([area, &faded, &bright, &rough.near], with_faded);
    }
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
    constants: [Option<&PackedMask>; 2],
    air_below: f32,
    rule: &Snap,
) -> bool {
    let bright = PackedMask::of_image(image, |value| value >= air_below);
    let bright = PackedMask::combined([core, &bright], |[core, bright]| core & bright);
    let bright = constants.into_iter().fold(bright, PackedMask::without);
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
