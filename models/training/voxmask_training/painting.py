"""Heads painted from label maps: any shape, spacing and contrast, with an exact
foreground.

The label map is bent, sampled at the new scan's voxels and given values class by class.
The labels are those of the SynthSeg training maps: brain structures below 100 and 502
vessels, 506 eyes, 507 soft tissue, 508 lenses, 509 cartilage, 511 skin, 512 spinal
cord, 514 marrow, 515 compact bone, 516 air, 530 optic nerves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage as nd

from .scan import Scan, coordinates, resampled, rough_field, smooth_field
from .sources import LabelMap

WHITE = (2, 41, 7, 46, 16, 28, 60, 85, 512, 530)
GREY = (3, 42, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54, 26, 58, 30, 62)
FLUID = (4, 43, 5, 44, 14, 15, 24, 72, 506)
FAT, MUSCLE = 90, 91
AIR, SOFT, SKIN, CARTILAGE, MARROW, BONE, CAVITY = 0, 507, 511, 509, 514, 515, 516
LABELS = 600

# white grey fluid fat muscle skin cartilage marrow bone cavity vessel lens
CONTRASTS = {
    "t1": (1.0, 0.75, 0.3, 1.1, 0.55, 0.65, 0.5, 0.9, 0.12, 0.04, 0.8, 0.4),
    "t1-gre-fatsat": (0.9, 0.7, 0.3, 0.18, 0.55, 0.45, 0.5, 0.2, 0.1, 0.03, 0.9, 0.4),
    "t1-water": (0.75, 0.6, 0.25, 0.4, 0.5, 0.5, 0.4, 0.4, 0.1, 0.05, 0.7, 0.3),
    "t2": (0.35, 0.5, 1.1, 0.6, 0.2, 0.35, 0.4, 0.5, 0.06, 0.03, 0.1, 0.2),
    "t2-fatsat": (0.4, 0.55, 1.1, 0.12, 0.2, 0.25, 0.4, 0.15, 0.05, 0.03, 0.1, 0.2),
    "flair": (0.5, 0.7, 0.12, 0.6, 0.3, 0.4, 0.4, 0.45, 0.06, 0.03, 0.15, 0.2),
    "pd": (0.7, 0.85, 0.9, 0.9, 0.6, 0.6, 0.6, 0.7, 0.15, 0.05, 0.4, 0.5),
    "epi": (0.45, 0.6, 1.0, 0.08, 0.15, 0.1, 0.1, 0.08, 0.03, 0.03, 0.2, 0.3),
}
# air 0, water 1000 added back later: HU
CT_HU = (32, 40, 10, -95, 55, 40, 60, 300, 1100, -990, 50, 70)


@dataclass(frozen=True)
class Look:
    """Values of every label (and of FAT, MUSCLE), [LABELS], and whether they are HU."""

    values: np.ndarray
    ct: bool
    name: str


def spread(tissue: np.ndarray, air: float) -> np.ndarray:
    """Twelve tissue values to a value per label."""
    values = np.zeros(LABELS, np.float32)
    (
        white,
        grey,
        fluid,
        fat,
        muscle,
        skin,
        cartilage,
        marrow,
        bone,
        cavity,
        vessel,
        lens,
    ) = tissue
    values[:] = muscle
    values[:100] = grey
    values[list(WHITE)] = white
    values[list(FLUID)] = fluid
    values[[FAT, MUSCLE, SKIN, CARTILAGE]] = fat, muscle, skin, cartilage
    values[[MARROW, BONE, CAVITY, 502, 508]] = marrow, bone, cavity, vessel, lens
    values[[136, 137, 163, 164, 25, 57]] = grey
    values[AIR] = air
    return values


def mr_look(rng: np.random.Generator) -> Look:
    """A known contrast with jitter, or (a quarter) random values for every tissue."""
    if rng.random() < 0.25:
        tissue = rng.uniform(0.03, 1.0, 12)
        tissue[5] = max(tissue[5], rng.uniform(0.05, 0.3))
        tissue[8:10] *= np.where(rng.random(2) < 0.7, 0.15, 1)
        return Look(spread(tissue, 0.0), False, "random")
    name = str(rng.choice(list(CONTRASTS)))
    tissue = np.array(CONTRASTS[name]) * np.exp(rng.normal(0, 0.22, 12))
    values = spread(tissue, 0.0)
    values[:100] *= np.exp(rng.normal(0, 0.06, 100))
    return Look(values, False, name)


def ct_look(rng: np.random.Generator) -> Look:
    """HU of a head, without or with contrast medium, soft or hard bone."""
    tissue = np.array(CT_HU, float) + rng.normal(0, 1, 12) * (
        4,
        4,
        4,
        12,
        10,
        20,
        25,
        90,
        0,
        15,
        40,
        20,
    )
    tissue[8] = rng.uniform(600, 1700)
    tissue[10] += rng.choice([0, 180])
    return Look(spread(tissue, rng.uniform(-1010, -960)), True, "ct")


def bent_points(
    rng: np.random.Generator,
    shape: tuple,
    source: LabelMap,
    step: np.ndarray,
    start: np.ndarray,
) -> np.ndarray:
    """float32 [3, i, j, k]: places in the label map (voxels = mm) of the new scan's
    voxels.

    step [mm]: the spacing; start: label-map voxel of the first voxel. Turned, stretched
    and bent.
    """
    turn = rng.normal(0, 5, 3) * np.pi / 180 * (rng.random() < 0.6)
    stretch = np.exp(rng.normal(0, 0.045, 3))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(turn) @ np.diag(stretch)
    centre = (np.array(source.labels.shape) - 1) / 2
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre
    grid = np.diag([*step, 1.0])
    grid[:3, 3] = start
    points = coordinates(shape, matrix @ grid)
    size = rng.uniform(0, 5)
    for axis in range(3):
        points[axis] += size * smooth_field(rng, shape, 5)
    return points


def rotation(angles: np.ndarray) -> np.ndarray:
    """3x3 from turns [rad] about i, j, k."""
    (a, b, c), (x, y, z) = np.cos(angles), np.sin(angles)
    about_i = np.array([[1, 0, 0], [0, a, -x], [0, x, a]])
    about_j = np.array([[b, 0, y], [0, 1, 0], [-y, 0, b]])
    about_k = np.array([[c, -z, 0], [z, c, 0], [0, 0, 1]])
    return about_i @ about_j @ about_k


def frame(rng: np.random.Generator, source: LabelMap) -> tuple[np.ndarray, np.ndarray]:
    """Low and high corner [label-map voxels] of a new field of view.

    Air is added where the head is not cut by the label map's box; some fields end at
    the brow, the mouth, or cut the vertex, nose or ears.
    """
    size = np.array(source.labels.shape, float)
    low, high = np.zeros(3), size.copy()
    for axis in range(3):
        for side in range(2):
            room = rng.uniform(0, 42) if rng.random() < 0.75 else rng.uniform(-12, 4)
            if source.open[axis, side]:
                room = min(room, 0) - rng.uniform(0, 3)
            if side:
                high[axis] += room
            else:
                low[axis] -= room
    if rng.random() < 0.35:
        low[2] = size[2] * rng.uniform(0.05, 0.5)
    else:
        low[2] = max(low[2], rng.uniform(-25, 2)) if not source.open[2, 0] else low[2]
    if rng.random() < 0.08:
        high[2] -= rng.uniform(0, 60)
    return low, high


def new_spacing(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Spacing [mm] to paint at, and of the scan (thicker along one axis for 2-D
    scans).
    """
    fine = rng.uniform(1.35, 2.3) if rng.random() < 0.88 else rng.uniform(1.05, 1.35)
    paint = np.full(3, fine) * np.exp(rng.normal(0, 0.03, 3))
    final = paint.copy()
    if rng.random() < 0.3:
        axis = rng.choice(3, p=[0.2, 0.15, 0.65])
        final[axis] = rng.uniform(2.6, 6.5)
        paint[axis] = final[axis] / 2
        others = [a for a in range(3) if a != axis]
        paint[others] = final[others] = rng.uniform(1.15, 1.9)
    return paint, final


def soft_tissue(rng: np.random.Generator, labels: np.ndarray, depth: np.ndarray) -> None:
    """Split soft tissue into fat under the skin, muscle and pads of fat. In place."""
    soft = labels == SOFT
    layer = np.exp(rng.normal(1.5, 0.5)) * (1 + 0.5 * smooth_field(rng, labels.shape, 6))
    pads = rough_field(rng, labels.shape, rng.uniform(4, 12)) > rng.uniform(0.2, 0.8)
    fat = (depth < layer) | (pads & (depth > 2))
    labels[soft] = np.where(fat[soft], FAT, MUSCLE)


def paint(rng: np.random.Generator, source: LabelMap, ct: bool, stripped: bool = False) -> Scan:
    """A head without noise: MR with tissue about 1 and air 0, or CT in HU.

    stripped: only the brain is left.
    """
    step, final = new_spacing(rng)
    low, high = frame(rng, source)
    shape = tuple(int(n) for n in np.maximum(8, (high - low) / step))
    start = low + step / 2 - 0.5
    points = bent_points(rng, shape, source, step, start)
    labels, depth = gather(source, points)
    if stripped:
        brain = (labels > 0) & (labels < 100) & (depth > 2)
        labels *= brain
        depth = np.where(nd.binary_fill_holes(brain), 1.0, -1.0).astype(np.float32)
    soft_tissue(rng, labels, depth)
    look = ct_look(rng) if ct else mr_look(rng)
    if not ct and rng.random() < 0.5:
        darken_shells(rng, look.values)
    values = look.values[labels]
    inside = depth > 0
    if ct:
        texture = 12 * rough_field(rng, shape, rng.uniform(3, 9))
        values[inside] += texture[inside]
    else:
        texture = 1 + rng.uniform(0.02, 0.14) * rough_field(rng, shape, rng.uniform(1.5, 8))
        values *= texture
        np.maximum(values, 0, out=values)
    values[(labels == 0) & inside] = look.values[CAVITY]
    values = nd.gaussian_filter(values, rng.uniform(0.3, 0.75))
    scan = Scan(
        values,
        step,
        ct,
        foreground=inside,
        mni=source.mni @ fitted(points),
        subject=source.name,
        region="head",
        modality=look.name,
    )
    return resampled(scan, final) if (final > step * 1.01).any() else scan


def gather(source: LabelMap, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest labels (uint16) and depth [mm] (nearest too) at label-map places [3, i,
    j, k].

    Outside the box: air; below a side that cuts the head, the last voxel goes on.
    """
    shape = source.labels.shape
    index = np.zeros(points.shape[1:], np.int32)
    valid = np.ones(points.shape[1:], bool)
    for axis in range(3):
        place = np.rint(points[axis]).astype(np.int32)
        if not source.open[axis, 0]:
            valid &= place >= 0
        if not source.open[axis, 1]:
            valid &= place < shape[axis]
        index *= shape[axis]
        index += np.clip(place, 0, shape[axis] - 1)
    labels = source.labels.ravel()[index]
    depth = source.depth.ravel()[index]
    labels[~valid] = 0
    depth[~valid] = -5
    return labels, depth


def fitted(points: np.ndarray) -> np.ndarray:
    """The 4x4 that follows bent places best (voxel indices to label-map voxels)."""
    picks = [np.linspace(0, n - 1, 7).astype(int) for n in points.shape[1:]]
    grid = np.stack(np.meshgrid(*picks, indexing="ij")).reshape(3, -1)
    target = points[:, grid[0], grid[1], grid[2]]
    rows = np.vstack([grid, np.ones(grid.shape[1])])
    out = np.eye(4)
    out[:3] = np.linalg.lstsq(rows.T, target.T, rcond=None)[0].T
    return out


def darken_shells(rng: np.random.Generator, values: np.ndarray) -> None:
    """Suppress skin, fat or bone, singly or together, down to the noise. In place."""
    for labels in ([SKIN], [FAT], [BONE, MARROW], [CARTILAGE]):
        if rng.random() < 0.4:
            values[labels] *= rng.uniform(0.08, 0.5)
