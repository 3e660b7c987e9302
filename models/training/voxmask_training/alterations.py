"""Simulated de-identification: where a tool works, and what it leaves there.

`altered` draws a method (where) and a fill (what), changes a scan and records the area,
the voxels that are free (constant background before and after) and the foreground that
is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import edt
import numpy as np
import scipy.ndimage as nd

from .channels import CoarseGrid, flat_voxels
from .painting import rotation
from .scan import Scan, coordinates, smooth_field
from .templates import Field, Templates

Level = Callable[[np.ndarray], np.ndarray]  # MNI points [3, ...] in mm -> mm, > 0 inside

METHODS = {
    "brain-box": 0.13,
    "face-wedge": 0.12,
    "face-teeth-ears": 0.12,
    "shell-211": 0.10,
    "shell-212": 0.11,
    "plane": 0.09,
    "planes": 0.06,
    "box": 0.05,
    "strip": 0.17,
    "outside-brain": 0.02,
    "warp": 0.03,
}
HIDING = ("zero", "constant", "minimum", "air-noise", "noise")


@dataclass(frozen=True)
class Region:
    """Where a tool works: float32 level [mm] (> 0 inside), and the shell's grey
    values.
    """

    level: np.ndarray
    shell: np.ndarray | None = None


def jittered(rng: np.random.Generator, mni: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """The affine to MNI, off by a registration's error: turn 3 deg, stretch 3 %, shift
    3 mm.
    """
    out = np.eye(4)
    turn = rng.normal(0, 3 * strength, 3) * np.pi / 180
    out[:3, :3] = rotation(turn) @ np.diag(1 + rng.normal(0, 0.03 * strength, 3))
    out[:3, 3] = rng.normal(0, 3 * strength, 3)
    return out @ mni


def points_on(scan: Scan, mni: np.ndarray, cell: float) -> tuple[CoarseGrid, np.ndarray]:
    """A grid of `cell` mm on the scan and its MNI points [3, mi, mj, mk]."""
    grid = CoarseGrid(scan.shape, tuple(scan.spacing), cell)
    first = [grid.positions(a)[0][0] / scan.spacing[a] for a in range(3)]
    matrix = np.diag([*(cell / scan.spacing), 1.0])
    matrix[:3, 3] = first
    return grid, coordinates(grid.cells, mni @ matrix)


def bent(rng: np.random.Generator, points: np.ndarray, most: float) -> np.ndarray:
    """Points moved by a smooth field of up to `most` mm deviation."""
    size = rng.uniform(0, most)
    return points + size * np.stack([smooth_field(rng, points.shape[1:], 5) for _ in range(3)])


def blocks(grid: CoarseGrid, level: np.ndarray) -> np.ndarray:
    """Coarse [mi, mj, mk] to native by the nearest cell: a mask in steps."""
    index = [grid.interpolation_weights(a).argmax(1) for a in range(3)]
    return level[np.ix_(*index)]


def plane_level(rng: np.random.Generator, steep: bool = False) -> Level:
    """In front of a plane near the tangent of the brain: frontal, oblique or (steep)
    below.
    """
    angle = np.deg2rad(rng.uniform(65, 110) if steep else rng.uniform(-10, 58))
    normal = np.array([rng.normal(0, 0.08), np.cos(angle), -np.sin(angle)])
    normal /= np.linalg.norm(normal)
    centre, radii = np.array([0.0, -18.0, 12.0]), np.array([70.0, 90.0, 66.0])
    margin = rng.uniform(0, 35) if steep else rng.uniform(-6, 18)
    offset = normal @ centre + np.linalg.norm(radii * normal) + margin
    n = normal.astype(np.float32)
    return lambda p: n[0] * p[0] + n[1] * p[1] + n[2] * p[2] - np.float32(offset)


def box_level(rng: np.random.Generator) -> Level:
    """An ellipsoid or a box over the face or a part of it."""
    centre = [rng.normal(0, 10), rng.uniform(65, 105), rng.uniform(-85, -10)]
    radii = np.array([rng.uniform(30, 80), rng.uniform(20, 55), rng.uniform(18, 70)])
    power = float(rng.choice([2.0, 3.0, 10.0]))

    def level(p: np.ndarray) -> np.ndarray:
        total = sum(np.abs((p[k] - centre[k]) / radii[k]) ** power for k in range(3))
        return (1 - total ** (1 / power)) * np.float32(radii.min())

    return level


def face_level(rng: np.random.Generator) -> Level:
    """The front of the head below the forehead: where surface strips are cut."""
    front, below, wide = rng.uniform(30, 68), rng.uniform(-22, 18), rng.uniform(50, 100)
    tilt, floor = rng.uniform(0.1, 0.5), rng.uniform(-150, -75)

    def level(p: np.ndarray) -> np.ndarray:
        parts = (
            p[1] - tilt * p[2] - front,
            below - p[2],
            wide - np.abs(p[0]),
            p[2] - floor,
        )
        return np.minimum.reduce(parts)

    return level


def surface_distance(scan: Scan) -> np.ndarray:
    """float32 [mm] below the skin (negative outside)."""
    step = tuple(float(s) for s in scan.spacing)
    mask = np.ascontiguousarray(scan.foreground)
    return edt.edt(mask, anisotropy=step) - edt.edt(~mask, anisotropy=step)


def strip_region(rng: np.random.Generator, scan: Scan, mni: np.ndarray) -> Region:
    """The face's surface, 3 to 15 mm deep, and some of the air before it."""
    below = surface_distance(scan)
    deep = rng.uniform(3, 15) * np.exp(0.25 * smooth_field(rng, scan.shape, 8))
    out = rng.uniform(0, 18)
    grid, points = points_on(scan, mni, 5.0)
    where = grid.up(face_level(rng)(bent(rng, points, 4)))
    return Region(np.minimum(np.minimum(deep - below, below + out), where))


def region_of(rng: np.random.Generator, scan: Scan, method: str, templates: Templates) -> Region:
    """Where a method works on this scan."""
    mni = jittered(rng, scan.mni, rng.choice([0.4, 1.0, 1.6]))
    if method == "strip":
        return strip_region(rng, scan, mni)
    if method.startswith("shell"):
        return shell_region(rng, scan, mni, templates.shells[int(method[-3:])])
    in_steps = rng.random() < 0.25
    grid, points = points_on(scan, mni, rng.uniform(2, 4) if in_steps else 4.0)
    if method in ("plane", "planes"):
        points = points if rng.random() < 0.8 else bent(rng, points, 3)
        level = plane_level(rng)(points)
        if method == "planes":
            level = np.maximum(level, plane_level(rng, steep=True)(points))
    elif method == "box":
        level = box_level(rng)(bent(rng, points, 3))
    elif method == "warp":
        level = np.minimum(face_level(rng)(points), 30)
    elif method == "outside-brain":
        level = -templates.brain.at(bent(rng, points, 3)) - rng.uniform(6, 35)
        if rng.random() < 0.5:  # nothing behind the brain is touched
            level = np.minimum(level, points[1] - rng.uniform(-20, 40))
    else:
        field = templates.masks[method]
        if method == "brain-box" and rng.random() < 0.35:
            field = replace(field, outside=-60.0)
        level = field.at(bent(rng, points, 4)) + rng.normal(0, 2)
    level = level.astype(np.float32)
    return Region(blocks(grid, level) if in_steps else grid.up(level))


def shell_region(rng: np.random.Generator, scan: Scan, mni: np.ndarray, field: Field) -> Region:
    """Where a refacing shell paints or blanks, and its grey values on the scan."""
    grid, points = points_on(scan, mni, 6.0)
    points = bent(rng, points, 3)
    native = np.stack([grid.up(p) for p in points])
    shell = field.at(native, order=0)
    inside = shell > 0 if rng.random() < 0.3 else shell != 0
    return Region(np.where(inside, np.float32(5), np.float32(-5)), shell)


def constant_voxels(scan: Scan) -> np.ndarray:
    """bool [i, j, k]: voxels of the air that hold a constant background.

    Equal to their next neighbours, and so are most voxels around them (not noise that
    is equal by chance); where a third of the air is such, all air of the most frequent
    such value, so that the rim along the skin is not left out. Air is what is not
    foreground, and what inside it has the lowest value.
    """
    values = scan.values
    air = ~scan.foreground | (values == values.min())
    flat = flat_voxels(values) & air
    if flat.sum() < 0.33 * air.sum():
        return flat & (nd.uniform_filter(flat.astype(np.float32), 3) > 0.6)
    found, counts = np.unique(values[flat][::7], return_counts=True)
    return flat | (air & (values == found[counts.argmax()])) if counts.size else flat


def draw_fill(rng: np.random.Generator, method: str, ct: bool) -> str:
    """A fill that goes with a method."""
    if method == "warp":
        return "warp"
    if method.startswith("shell") and rng.random() < 0.7:
        return "face"
    names = [
        "zero",
        "constant",
        "minimum",
        "air-noise",
        "noise",
        "blur",
        "pixels",
        "surroundings",
    ]
    weights = [0.28, 0.04, 0.05, 0.07, 0.08, 0.32, 0.12, 0.04]
    if method == "strip":
        weights = [0.22, 0.05, 0.04, 0.35, 0.12, 0.13, 0.05, 0.04]
    return str(rng.choice(names, p=weights))


def air_values(rng: np.random.Generator, scan: Scan, count: int) -> np.ndarray:
    """Values drawn from the scan's air."""
    pool = scan.values[~scan.foreground]
    if pool.size < 100:
        pool = scan.values[scan.values <= np.percentile(scan.values[::3, ::3, ::3], 10)]
    return rng.choice(pool[:: max(1, pool.size // 50000)], count)


def filled(
    rng: np.random.Generator, scan: Scan, region: Region, mask: np.ndarray, fill: str
) -> np.ndarray:
    """float32 [i, j, k]: what the tool puts inside the mask (anything outside it)."""
    x = scan.values
    lowest = float(x.min())
    base = lowest if scan.ct else 0.0
    tissue = (
        float(np.percentile(x[scan.foreground & mask], 85))
        if (scan.foreground & mask).any()
        else 1.0
    )
    if fill == "zero":
        value = rng.choice([lowest, -1024, -1000, 0], p=[0.4, 0.25, 0.25, 0.1]) if scan.ct else 0.0
        return np.full(x.shape, value, np.float32)
    if fill == "constant":
        return np.full(x.shape, base + rng.uniform(0.02, 1) * (tissue - base), np.float32)
    if fill == "minimum":
        return np.full(x.shape, lowest, np.float32)
    if fill == "air-noise":
        out = x.copy()
        out[mask] = air_values(rng, scan, int(mask.sum()))
        return out
    if fill == "noise":
        size = (tissue - base) * rng.uniform(0.1, 0.7)
        level = base + rng.uniform(0, 0.8) * (tissue - base)
        if rng.random() < 0.5:
            return level + size * rng.uniform(-0.5, 1, x.shape).astype(np.float32)
        return level + size * np.abs(rng.standard_normal(x.shape, np.float32))
    if fill == "blur":
        sigma = np.exp(rng.uniform(np.log(1.5), np.log(8))) / scan.spacing
        return nd.gaussian_filter(x, np.maximum(sigma, 0.7), truncate=3)
    if fill == "pixels":
        return pixels(rng, scan)
    if fill == "surroundings":
        return from_surroundings(rng, scan, mask)
    if fill == "face":
        return face(rng, scan, region.shell, tissue)
    if fill == "warp":
        return warped(rng, scan, region.level)
    raise ValueError(f"unknown fill {fill}")


def pixels(rng: np.random.Generator, scan: Scan) -> np.ndarray:
    """Means over blocks of 4 to 14 mm."""
    edge = rng.uniform(4, 14)
    size = [max(2, int(round(edge / s))) for s in scan.spacing]
    mean = nd.uniform_filter(scan.values, size)
    index = [
        np.minimum(np.arange(n) // q * q + q // 2, n - 1)
        for n, q in zip(scan.shape, size, strict=True)
    ]
    return mean[np.ix_(*index)]


def from_surroundings(rng: np.random.Generator, scan: Scan, mask: np.ndarray) -> np.ndarray:
    """The wide mean of what lies outside the mask, a little noise on it."""
    grid = CoarseGrid(scan.shape, tuple(scan.spacing), 5.0)
    keep = grid.pool((~mask).astype(np.float32))
    total = grid.pool(np.where(mask, 0, scan.values))
    sigma = rng.uniform(1, 3)
    mean = nd.gaussian_filter(total, sigma) / np.maximum(nd.gaussian_filter(keep, sigma), 1e-3)
    out = grid.up(mean.astype(np.float32))
    if rng.random() < 0.5:
        spread = np.std(scan.values[::3, ::3, ::3]) * rng.uniform(0, 0.05)
        out += spread * rng.standard_normal(out.shape, np.float32)
    return out


def face(rng: np.random.Generator, scan: Scan, shell: np.ndarray, tissue: float) -> np.ndarray:
    """The average face of a shell, scaled to the scan; its air is the background."""
    base = float(scan.values.min()) if scan.ct else 0.0
    air = base if not scan.ct or rng.random() < 0.7 else float(rng.choice([-1000, -1024]))
    top = np.percentile(shell[shell > 0], 85) if (shell > 0).any() else 1.0
    scale = (tissue - base) / top * rng.uniform(0.7, 1.3)
    out = np.where(shell > 0, base + shell * np.float32(scale), np.float32(air))
    return out if rng.random() < 0.3 else np.rint(out)


def warped(rng: np.random.Generator, scan: Scan, level: np.ndarray) -> np.ndarray:
    """The scan bent by several millimetres inside the region, fading to nothing at its
    edge.
    """
    fade = np.clip(level / 15, 0, 1)
    place = coordinates(scan.shape, np.eye(4))
    for axis in range(3):
        field = smooth_field(rng, scan.shape, 12)
        place[axis] += fade * field * np.float32(rng.uniform(4, 10) / scan.spacing[axis])
    return nd.map_coordinates(scan.values, place, order=1, mode="nearest")


def altered(
    rng: np.random.Generator,
    scan: Scan,
    templates: Templates,
    method: str | None = None,
    fill: str | None = None,
) -> tuple[Scan, str, str]:
    """A scan after a de-identification tool, with its area; the method and the fill.

    When the method meets less than 3 ml of the head, the scan comes back as it was,
    intact.
    """
    method = method or str(rng.choice(list(METHODS), p=list(METHODS.values())))
    fill = fill or draw_fill(rng, method, scan.ct)
    region = region_of(rng, scan, method, templates)
    mask = region.level > 0
    inside = mask & scan.foreground
    voxel_ml = float(np.prod(scan.spacing)) / 1000
    untouched = replace(scan, area=np.zeros(scan.shape, bool)), "intact", "none"
    if inside.sum() * voxel_ml < 3 or mask.mean() > 0.93:
        return untouched
    new = filled(rng, scan, region, mask, fill)
    if rng.random() < 0.15 and fill != "warp":  # a soft edge
        weight = np.clip(region.level / rng.uniform(2, 5) + 0.5, 0, 1)
        values = scan.values + weight * (new - scan.values)
        mask = weight > 0.3
    else:
        values = np.where(mask, new, scan.values)
    values = values.astype(np.float32)
    free = (scan.values == values) & constant_voxels(scan)
    if fill == "air-noise":  # noise for noise: nothing there to find
        near = surface_distance(scan) > -4
        free |= mask & ~near
    if fill == "warp":  # at the rim almost nothing moves
        free |= mask & (region.level < 5)
    if (mask & ~free).sum() * voxel_ml < 3:
        return untouched
    body, quality = foreground_after(scan, region, mask, fill)
    out = replace(
        scan,
        values=values,
        area=mask & ~free,
        free=free,
        foreground=body,
        quality=quality,
    )
    return out, method, fill


def foreground_after(
    scan: Scan, region: Region, mask: np.ndarray, fill: str
) -> tuple[np.ndarray, float]:
    """What looks like anatomy after the alteration, and how sure that is."""
    if fill == "face":
        painted = region.shell > 0
        return np.where(mask, painted, scan.foreground), scan.quality * 0.7
    if fill in HIDING:
        return scan.foreground & ~mask, scan.quality
    if fill == "surroundings":
        return scan.foreground, scan.quality * 0.2
    return scan.foreground, scan.quality * (0.5 if fill == "warp" else 0.8)
