"""Varies samples: the field of view, the pose, the shape and the intensities, on any device.

All samples of a step are cut to one window. Samples of one group, a scan before and after an
alteration, get equal random numbers: otherwise where the window lies would tell the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional

from .network import IN_VIEW
from .patches import DETAIL, FLAT, INTENSITY, MR_CLIP, Patch, Sample, make_patch, restored

DETAIL_DIVISOR = 3.0
BEYOND_CELLS = 4.0
"""How far the window may reach out of a scan that is larger than it."""
AT_EDGE = 0.3
"""A view smaller than the window lies at each of its edges with a probability of
`AT_EDGE / (1 + 2 AT_EDGE)`: in use there is no margin where the view's cells fill the grid."""
FINE_BEND_EVERY, FINE_BEND_CELLS, WIDE_BEND_CELLS = 9, 0.7, 1.2
"""Elastic change: standard deviations with control points every so many cells, and 3 an axis."""
CALM_SHARE = 0.5
"""Scans as they are that stay nearly so, in half of their patches."""
TONES = (0.0, 0.25, 0.5, 1.0)
"""Intensities between which an MR scan's contrast is changed."""


@dataclass(frozen=True)
class Pose:
    """Where the cells of the window come from."""

    matrix: np.ndarray
    """(3, 4): indices (k, j, i, 1) of the window to indices of the sample"""
    low: np.ndarray
    high: np.ndarray
    """(3,): the part of the sample that stays in view, high exclusive"""
    bent: float
    """Factor of the elastic change."""


@dataclass(frozen=True)
class Look:
    """How intensities are changed."""

    gamma: float
    slopes: tuple[float, ...]
    """of the tones between `TONES`, and beyond them"""
    gain: float
    shading: float
    offset: float
    noise: float
    grain: float


def draw_patch(
    samples: list[Sample], groups: list[int], rng: Generator, window: tuple[int, int, int]
) -> Patch:
    """Varies N samples and cuts each to `window` (K, J, I), on the device they lie on.

    `groups`: N numbers from 0 on; samples of one number have one shape and are varied alike.
    """
    device = samples[0].cells.device
    members: list[list[Sample]] = [[] for _ in range(max(groups) + 1)]
    for sample, group in zip(samples, groups, strict=True):
        members[group].append(sample)
    calm = [group[0].original and rng.random() < CALM_SHARE for group in members]
    poses = [draw_pose(*drawn, rng, window) for drawn in zip(members, calm, strict=True)]
    looks = [draw_look(group[0], still, rng) for group, still in zip(members, calm, strict=True)]
    noise = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    where, inside = sources(poses, window, noise, device)
    cells = []
    for sample, group in zip(samples, groups, strict=True):
        size = torch.tensor(sample.cells.shape[1:], dtype=torch.float32)
        flow = (2.0 * where[group] + 1.0) / size.to(device, non_blocking=True) - 1.0
        layers = restored(sample.cells)[None]
        flow = flow.flip(-1)[None]
        cells.append(
            functional.grid_sample(layers, flow, "bilinear", "border", align_corners=False)
        )
    order = torch.tensor(groups).to(device, non_blocking=True)
    cut = torch.cat(cells) * inside[order]
    view = cut[:, IN_VIEW : IN_VIEW + 1]
    cut = torch.where(view > 0.5, cut / view.clamp(min=0.5), 0.0)
    return make_patch(recoloured(cut, looks, order, noise), samples)


def draw_pose(
    group: list[Sample], calm: bool, rng: Generator, window: tuple[int, int, int]
) -> Pose:
    """Draws flips, a narrower view, a turn, a stretch and where the window lies.

    `calm`: left and right at most change places, and the rest hardly changes.
    """
    size = np.array(group[0].cells.shape[1:])
    head = group[0].head
    flips = rng.random(3) < (0.08, 0.08, 0.5) if head else rng.random(3) < (0.3, 0.3, 0.5)
    flips &= (not calm, not calm, True)
    low, high = np.zeros(3), size.astype(float)
    if not calm and rng.random() < 0.35:
        cut = np.floor(rng.uniform(0, 0.3, (2, 3)) * size) * (rng.random((2, 3)) < 0.35)
        cut *= size - cut.sum(0) >= 8
        low, high = low + cut[0], high - cut[1]
    stretch = rng.uniform(0.82, 1.22) * np.exp(rng.normal(0.0, 0.05, 3))
    angles = rng.normal(0.0, 0.12 if head else 0.2, 3) * (rng.random() < 0.7)
    if calm:
        stretch, angles = stretch**0.2, angles * 0.2
    around = area_cell(group, rng)
    first = np.zeros(3)
    for axis, cells in enumerate(window):
        length = (high[axis] - low[axis]) * stretch[axis]
        free = cells - length
        first[axis] = np.clip(rng.uniform(-AT_EDGE, 1.0 + AT_EDGE), 0.0, 1.0) * max(free, 0.0)
        if free < 0.0:
            first[axis] = rng.uniform(free - BEYOND_CELLS, BEYOND_CELLS)
            if around is not None:
                at = (around[axis] + 0.5 - low[axis]) * stretch[axis]
                at = length - at if flips[axis] else at
                wanted = rng.uniform(0.25, 0.75) * cells - at
                first[axis] = np.clip(wanted, free - BEYOND_CELLS, BEYOND_CELLS)
    middle = first + (high - low) * stretch / 2.0 - 0.5
    matrix = np.where(flips, -1.0, 1.0)[:, None] * rotation(angles) / stretch
    offset = (low + high - 1.0) / 2.0 - matrix @ middle
    bent = float(rng.uniform(0.3, 1.5) * (rng.random() < 0.6)) * (0.3 if calm else 1.0)
    return Pose(np.concatenate([matrix, offset[:, None]], 1), low, high, bent)


def area_cell(group: list[Sample], rng: Generator) -> np.ndarray | None:
    """Picks a cell of the group's area, most of the time; None if there is none."""
    found = [sample.area_cells for sample in group if sample.altered and len(sample.area_cells)]
    if not found or rng.random() > 0.8:
        return None
    return found[0][int(rng.integers(len(found[0])))]


def rotation(angles: np.ndarray) -> np.ndarray:
    """Gives the 3×3 rotation by three angles [rad] about the three axes."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (n for n in range(3) if n != axis)
        turn_one = np.eye(3)
        turn_one[a, a] = turn_one[b, b] = np.cos(angle)
        turn_one[a, b], turn_one[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn_one
    return matrix


def sources(
    poses: list[Pose], window: tuple[int, int, int], noise: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Gives the indices that the window's cells come from, and which of them are in view.

    (G, K, J, I, 3), in the order k, j, i, and (G, 1, K, J, I), 1 or 0.
    """

    def each(values: list[object]) -> Tensor:
        return torch.from_numpy(np.stack(values).astype(np.float32)).to(device, non_blocking=True)

    axes = [torch.arange(n, device=device, dtype=torch.float32) for n in window]
    at = torch.stack([*torch.meshgrid(*axes, indexing="ij")], -1)
    matrix = each([pose.matrix for pose in poses])
    where = torch.einsum("kjia,gba->gkjib", at, matrix[:, :, :3])
    where = where + matrix[:, None, None, None, :, 3]
    low, high = (each([getattr(pose, name) for pose in poses]) for name in ("low", "high"))
    inside = (where >= low[:, None, None, None] - 0.5) & (where <= high[:, None, None, None] - 0.5)
    bent = each([np.float32(pose.bent) for pose in poses]).reshape(-1, 1, 1, 1, 1)
    # The sides of the view stay straight.
    where = where + bent * bends(len(poses), window, noise, device)
    return where, inside.all(-1)[:, None].float()


def bends(
    count: int, window: tuple[int, int, int], noise: torch.Generator, device: torch.device
) -> Tensor:
    """Gives smooth random displacements [cells], (count, K, J, I, 3)."""
    total = torch.zeros((), device=device)
    fine = [n // FINE_BEND_EVERY + 2 for n in window]
    for knots, sd in ((fine, FINE_BEND_CELLS), ((3, 3, 3), WIDE_BEND_CELLS)):
        field = torch.randn((count, 3, *knots), generator=noise, device=device) * sd
        total = total + functional.interpolate(field, window, mode="trilinear", align_corners=True)
    return total.permute(0, 2, 3, 4, 1)


def draw_look(sample: Sample, calm: bool, rng: Generator) -> Look:
    """Draws how the intensities of a scan change: much for MR, little for CT, not if `calm`."""
    slopes = [1.0] * len(TONES)
    if calm:
        return Look(1.0, tuple(slopes), gain=1.0, shading=0.0, offset=0.0, noise=0.0, grain=1.0)
    if sample.is_ct:
        return Look(
            gamma=1.0,
            slopes=tuple(slopes),
            gain=float(rng.uniform(0.95, 1.05)) if rng.random() < 0.3 else 1.0,
            shading=0.0,
            offset=float(rng.uniform(-0.04, 0.06)) if rng.random() < 0.2 else 0.0,
            noise=float(rng.uniform(0.0, 0.03)) if rng.random() < 0.3 else 0.0,
            grain=float(np.exp(rng.normal(0.0, 0.2))),
        )
    gain = float(rng.uniform(0.7, 1.4)) if rng.random() < 0.7 else 1.0
    if rng.random() < 0.25:
        # Tissue changes places; what is dark stays dark.
        tones = np.array([0.0, *rng.uniform(0.1, 1.1, len(TONES) - 1)])
        slopes = [*(np.diff(tones) / np.diff(TONES)), 1.0]
    return Look(
        gamma=float(rng.uniform(0.65, 1.5)) if rng.random() < 0.6 else 1.0,
        slopes=tuple(slopes),
        gain=gain,
        shading=0.3 if rng.random() < 0.4 else 0.0,
        offset=0.0,
        noise=float(rng.uniform(0.0, 0.04)) if rng.random() < 0.3 else 0.0,
        grain=gain * (float(rng.uniform(0.8, 1.25)) if rng.random() < 0.3 else 1.0),
    )


def recoloured(cells: Tensor, looks: list[Look], order: Tensor, noise: torch.Generator) -> Tensor:
    """Changes intensities and grain of (N, 10, K, J, I); `order`: the look of each of the N."""
    window, device = cells.shape[2:], cells.device

    def each(name: str) -> Tensor:
        values = torch.tensor([getattr(look, name) for look in looks], dtype=torch.float32)
        return values.to(device, non_blocking=True)[order].reshape(-1, 1, 1, 1)

    def random(*shape: int) -> Tensor:
        return torch.randn((len(looks), *shape), generator=noise, device=device)

    x, moving = cells[:, INTENSITY].clamp(min=0.0), 1.0 - cells[:, FLAT]
    x = x ** each("gamma")
    slopes = torch.tensor([look.slopes for look in looks], dtype=torch.float32)
    slopes = slopes.to(device, non_blocking=True)[order].T.reshape(len(TONES), -1, 1, 1, 1)
    tops = [b - a for a, b in zip(TONES, TONES[1:], strict=False)] + [None]
    x = sum(s * (x - a).clamp(0.0, t) for s, a, t in zip(slopes, TONES, tops, strict=True))
    shading = functional.interpolate(
        random(1, 3, 3, 3), window, mode="trilinear", align_corners=True
    )
    x = x * each("gain") * (each("shading") * shading[order, 0]).exp()
    grainy = each("offset") + each("noise") * random(*window)[order]
    x = x + grainy * moving
    grain = torch.expm1(DETAIL_DIVISOR * cells[:, DETAIL])
    cells[:, INTENSITY] = x.clamp(0.0, MR_CLIP) * cells[:, IN_VIEW]
    cells[:, DETAIL] = torch.log1p(each("grain") * grain) / DETAIL_DIVISOR
    return cells
