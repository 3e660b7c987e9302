"""Training patches: reads samples and varies them.

A sample lies on the coarse grid of 4 mm cells, without margin. A patch is what the
network sees: the sample turned, stretched, cut, given a margin of zeros and other
intensities. Arrays are turned once, on reading, into tensor order (C, k, j, i).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional

from .network import CHANNELS, IN_VIEW, MULTIPLE_OF

INTENSITY, FLAT, DETAIL, CT = (
    CHANNELS.index(name) for name in ("intensity", "flat", "detail", "ct")
)
FOREGROUND, AREA, COUNTED = range(len(CHANNELS), len(CHANNELS) + 3)
HEAD_REGIONS = ("head", "headchest", "neck")
MR_CLIP = 3.0
DETAIL_DIVISOR = 3.0
MARGIN_CELLS = 8
LEAST_AREA_CELLS = 30.0
FAR_FREE_WEIGHT = 0.2
"""Most that a cell counts for which is mostly free."""


@dataclass(frozen=True)
class Sample:
    """One scan on the coarse grid with what is known about it."""

    name: str
    subject: str
    region: str
    kind: str
    altered: bool
    twin: str
    """Name of the altered sample that this intact scan became; empty if none."""
    foreground_weight: float
    """0 where the foreground is unknown."""
    area_known: bool
    """False for a published scan whose area cannot be told from other background."""
    cells: Tensor
    """float16 (8, k, j, i): the channels, foreground, area, where the area counts."""


@dataclass(frozen=True)
class Patch:
    """What one pass of the network sees, and what it should say."""

    channels: Tensor
    """(1, 5, K, J, I)"""
    foreground: Tensor
    area: Tensor
    """(1, 1, K, J, I), in [0, 1]"""
    counted: Tensor
    """(1, 1, K, J, I): the weight of the area's label, 0 where it is free."""
    foreground_weight: float
    altered: bool | None
    """None where the patch misses an altered scan's area."""


def read_sample(path: Path) -> Sample:
    """Reads a sample (.npz); arrays (i, j, k) become (k, j, i)."""
    with np.load(path) as file:
        channels = file["c"].astype(np.float16)
        nothing = np.zeros(channels.shape[1:], np.float16)
        labels = [
            file[name].astype(np.float16) if name in file else nothing for name in ("F", "A", "W")
        ]
        cells = np.concatenate([channels, np.stack(labels)]).transpose(0, 3, 2, 1)
        return Sample(
            name=path.stem,
            twin=str(file["twin"].item()) if "twin" in file else "",
            subject=str(file["subject"].item()),
            region=str(file["region"].item()),
            kind=str(file["kind"].item()),
            altered=bool(file["altered"].item()),
            foreground_weight=float(file["FW"].item()) if "F" in file else 0.0,
            area_known=bool((labels[2] > 0.5).any()),
            cells=torch.from_numpy(np.ascontiguousarray(cells)),
        )


def whole_patch(sample: Sample) -> Patch:
    """Lays the whole sample out as the executables do, without variation."""
    cells = sample.cells.float()
    high = [MARGIN_CELLS + -(n + 2 * MARGIN_CELLS) % MULTIPLE_OF for n in shape(cells)]
    pads = [p for h in reversed(high) for p in (MARGIN_CELLS, h)]
    return make_patch(functional.pad(cells, pads), sample)


def draw_patch(
    sample: Sample, rng: Generator, most_cells: int, altered_twin: Sample | None = None
) -> Patch:
    """Varies a sample and cuts a patch of at most about `most_cells` cells.

    An intact sample that comes with what a tool made of it is cut where that one is, from equal
    random numbers: otherwise «the face is in the middle» would tell the two apart.
    """
    cells = sample.cells.float()
    twin = altered_twin is not None and altered_twin.cells.shape == sample.cells.shape
    if twin:
        cells[AREA:] = altered_twin.cells[AREA:]
    head = sample.region.startswith(HEAD_REGIONS)
    cells = flip(cells, rng, 0.08 if head else 0.3)
    if rng.random() < 0.35:
        cells = cut_view(cells, rng)
    if rng.random() < 0.6:
        cells = turn(cells, rng, 0.12 if head else 0.2)
    cells = cut_patch(cells, rng, most_cells, sample.altered or twin)
    if twin:
        cells[AREA], cells[COUNTED] = 0.0, 1.0
    is_ct = bool(cells[CT].amax() > 0.5)
    cells = vary_ct(cells, rng) if is_ct else vary_mr(cells, rng)
    return make_patch(cells, sample)


def make_patch(cells: Tensor, sample: Sample) -> Patch:
    """Splits (8, K, J, I) into what goes in and what should come out."""
    cells = cells[None]
    view = (cells[:, IN_VIEW : IN_VIEW + 1] > 0.5).float()
    area = cells[:, AREA : AREA + 1] * view
    counted = cells[:, COUNTED : COUNTED + 1]
    counted = torch.where(counted > 0.5, 1.0, counted.clamp(max=FAR_FREE_WEIGHT)) * view
    altered: bool | None = sample.altered
    if altered and sample.area_known and float((area * counted).sum()) < LEAST_AREA_CELLS:
        altered = None
    return Patch(
        channels=cells[:, : len(CHANNELS)].contiguous(),
        foreground=cells[:, FOREGROUND : FOREGROUND + 1] * view,
        area=area,
        counted=counted,
        foreground_weight=sample.foreground_weight,
        altered=altered,
    )


def shape(cells: Tensor) -> list[int]:
    """Gives the cells along k, j, i."""
    return list(cells.shape[1:])


def flip(cells: Tensor, rng: Generator, probability: float) -> Tensor:
    """Mirrors left and right half of the time, the other axes as told."""
    axes = [3] if rng.random() < 0.5 else []
    axes += [axis for axis in (1, 2) if rng.random() < probability]
    return cells.flip(axes) if axes else cells


def cut_view(cells: Tensor, rng: Generator) -> Tensor:
    """Narrows the field of view at some of its six faces by up to 30 %."""
    for axis, n in enumerate(shape(cells), start=1):
        low, high = (int(rng.uniform(0, 0.3) * n) if rng.random() < 0.35 else 0 for _ in range(2))
        if n - low - high >= 8:
            cells = cells.narrow(axis, low, n - low - high)
    return cells


def turn(cells: Tensor, rng: Generator, angle: float) -> Tensor:
    """Turns (`angle`: standard deviation [rad]) and stretches, view edges kept hard."""
    matrix = rotation(rng.normal(0.0, angle, 3))
    stretch = rng.uniform(0.85, 1.2) * np.exp(rng.normal(0.0, 0.05, 3))
    old = np.array(shape(cells), float)
    new = np.maximum(np.round(old * stretch), 2.0)
    grid = np.zeros((3, 4), np.float32)
    sampling = np.diag(1.0 / old) @ matrix @ np.diag(new / stretch)
    grid[:, :3] = sampling[::-1, ::-1]
    size = (1, 1, *(int(n) for n in new))
    flow = functional.affine_grid(torch.from_numpy(grid)[None], size, False)
    cells = functional.grid_sample(cells[None], flow, align_corners=False)[0]
    view = cells[IN_VIEW]
    return torch.where(view > 0.5, cells / view.clamp(min=0.5), 0.0)


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


def cut_patch(cells: Tensor, rng: Generator, most_cells: int, altered: bool) -> Tensor:
    """Cuts a patch with a random margin; one of an altered scan favours its area."""
    inner = shape(cells)
    low = rng.integers(0, MARGIN_CELLS + 1, 3)
    size = [
        -(-int(n + lo + rng.integers(0, 5)) // MULTIPLE_OF) * MULTIPLE_OF
        for n, lo in zip(inner, low, strict=True)
    ]
    while np.prod(size) > most_cells and max(size) > 2 * MULTIPLE_OF:
        size[int(np.argmax(size))] -= MULTIPLE_OF
    centre = area_cell(cells, rng) if altered and rng.random() < 0.8 else None
    pads: list[int] = []
    for axis in range(3):
        n, window = inner[axis], size[axis]
        start = -int(low[axis])
        if n + int(low[axis]) > window:
            start = int(rng.integers(-4, n - window + 5))
            if centre is not None:
                reach = window // 4
                around = centre[axis] - int(rng.integers(reach, window - reach))
                start = int(np.clip(around, -4, n - window + 4))
        begin, end = max(start, 0), min(start + window, n)
        cells = cells.narrow(axis + 1, begin, end - begin)
        pads = [begin - start, start + window - end, *pads]
    return functional.pad(cells, pads)


def area_cell(cells: Tensor, rng: Generator) -> list[int] | None:
    """Picks a cell of the area at random; None if there is none."""
    found = torch.nonzero((cells[AREA] > 0.5) & (cells[COUNTED] > 0.5))
    if len(found) == 0:
        return None
    return [int(n) for n in found[int(rng.integers(len(found)))]]


def vary_mr(cells: Tensor, rng: Generator) -> Tensor:
    """Changes gain, gamma, coil shading and noise of an MR patch."""
    cells = cells.clone()
    gain = float(rng.uniform(0.7, 1.4)) if rng.random() < 0.7 else 1.0
    x = cells[INTENSITY]
    if rng.random() < 0.6:
        x = x.clamp(min=0.0) ** float(rng.uniform(0.65, 1.5))
    x = x * gain
    if rng.random() < 0.4:
        x = x * shading(x, rng)
    if rng.random() < 0.3:
        noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
        x = x + noise * float(rng.uniform(0.0, 0.04)) * (1.0 - cells[FLAT])
    cells[INTENSITY] = x.clamp(0.0, MR_CLIP) * cells[IN_VIEW]
    grain = gain * (float(rng.uniform(0.8, 1.25)) if rng.random() < 0.3 else 1.0)
    return scale_detail(cells, grain)


def vary_ct(cells: Tensor, rng: Generator) -> Tensor:
    """Changes the offset, the noise and the grain of a CT patch a little."""
    cells = cells.clone()
    x = cells[INTENSITY]
    if rng.random() < 0.3:
        x = x * float(rng.uniform(0.95, 1.05))
    if rng.random() < 0.2:
        x = x + float(rng.uniform(-0.04, 0.06)) * (1.0 - cells[FLAT])
    if rng.random() < 0.3:
        noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
        x = x + noise * float(rng.uniform(0.0, 0.03)) * (1.0 - cells[FLAT])
    cells[INTENSITY] = x.clamp(min=0.0) * cells[IN_VIEW]
    return scale_detail(cells, float(np.exp(rng.normal(0.0, 0.2))))


def shading(x: Tensor, rng: Generator) -> Tensor:
    """Makes a smooth factor around 1, as a surface coil leaves it."""
    coarse = torch.from_numpy(rng.normal(0.0, 0.3, (1, 1, 3, 3, 3)).astype(np.float32))
    size = tuple(x.shape)
    field = functional.interpolate(coarse, size, mode="trilinear", align_corners=True)
    return field[0, 0].exp()


def scale_detail(cells: Tensor, factor: float) -> Tensor:
    """Scales the mean second difference behind the logarithm of `detail`."""
    grain = torch.expm1(DETAIL_DIVISOR * cells[DETAIL])
    cells[DETAIL] = torch.log1p(factor * grain) / DETAIL_DIVISOR
    return cells
