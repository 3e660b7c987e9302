"""Training patches: reads samples and lays them out for the network.

A sample lies on the coarse grid of 4 mm cells, without margin. A patch is what one pass of the
network sees: one or several samples, whole or varied (`variation.py`). Arrays are turned once, on
reading, into tensor order (C, k, j, i), and kept as bytes: thousands of samples then fit beside the
network.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .network import CHANNELS, IN_VIEW, MULTIPLE_OF

INTENSITY, FLAT, DETAIL, CT = (
    CHANNELS.index(name) for name in ("intensity", "flat", "detail", "ct")
)
FOREGROUND, AREA, COUNTED = range(len(CHANNELS), len(CHANNELS) + 3)
HEAD_REGIONS = ("head", "headchest", "neck")
MR_CLIP = 3.0
LEAST_AREA_CELLS = 30.0
FAR_FREE_WEIGHT = 0.2
"""Most that a cell counts for which is mostly free."""
STEPS = (255.0 / MR_CLIP**0.5, 40.0, 100.0, 20.0, 1.0, 150.0, 150.0, 20.0, 20.0, 10.0)
"""Bytes per unit of each layer; the intensity is stored as its square root."""
AREA_CELLS = 64
ORIGINAL = "original_"
"""How the names of samples begin that are scans as they are (`originals.py`)."""


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
    cells: Tensor | CompressedCells
    """uint8 (10, k, j, i): the channels, foreground, area, where the area counts (`stored`)."""
    area_cells: np.ndarray
    """int16 (n, 3): indices k, j, i of some cells of the area."""
    is_ct: bool

    @property
    def head(self) -> bool:
        """True where mirroring front and back, or top and bottom, is out of place."""
        return self.region.startswith(HEAD_REGIONS)

    @property
    def original(self) -> bool:
        """True for a scan as it is, which nothing restaged."""
        return self.name.startswith(ORIGINAL)


@dataclass(frozen=True)
class CompressedCells:
    """A sample's cells, compressed: what is out of view, constant or air takes little."""

    shape: tuple[int, ...]
    data: bytes


def compressed(sample: Sample) -> Sample:
    """Compresses a sample's cells, about fivefold; `expanded` undoes it in some 20 ms."""
    cells = sample.cells.numpy()
    return replace(sample, cells=CompressedCells(cells.shape, zlib.compress(cells.tobytes(), 1)))


def expanded(sample: Sample) -> Sample:
    """Undoes `compressed`; gives a sample that is not compressed as it is."""
    if isinstance(sample.cells, Tensor):
        return sample
    values = bytearray(zlib.decompress(sample.cells.data))
    cells = torch.frombuffer(values, dtype=torch.uint8).reshape(sample.cells.shape)
    return replace(sample, cells=cells)


@dataclass(frozen=True)
class Patch:
    """What one pass of the network sees, and what it should say; N scans."""

    channels: Tensor
    """(N, 7, K, J, I)"""
    foreground: Tensor
    area: Tensor
    """(N, 1, K, J, I), in [0, 1]"""
    counted: Tensor
    """(N, 1, K, J, I): the weight of the area's label, 0 where it is free."""
    foreground_weight: Tensor
    """(N,)"""
    altered: Tensor
    """(N,): 1 or 0"""
    judged: Tensor
    """(N,): 0 where the patch misses an altered scan's area, else 1."""


def read_sample(path: Path) -> Sample:
    """Reads a sample (.npz); arrays (i, j, k) become (k, j, i)."""
    with np.load(path) as file:
        channels = file["c"]
        nothing = np.zeros(channels.shape[1:], np.float16)
        labels = [file.get(name, nothing) for name in ("F", "A", "W")]
        return Sample(
            name=path.stem,
            twin=str(file["twin"].item()) if "twin" in file else "",
            subject=str(file["subject"].item()),
            region=str(file["region"].item()),
            kind=str(file["kind"].item()),
            altered=bool(file["altered"].item()),
            foreground_weight=float(file["FW"].item()) if "F" in file else 0.0,
            area_known=bool((labels[2] > 0.5).any()),
            **cells_of(np.concatenate([channels, np.stack(labels)])),
        )


def cells_of(layers: np.ndarray) -> dict[str, Tensor | np.ndarray | bool]:
    """Gives a sample's `cells`, `area_cells` and `is_ct` from layers (10, i, j, k)."""
    cells = stored(layers.transpose(0, 3, 2, 1))
    return {
        "cells": torch.from_numpy(cells),
        "area_cells": some_area_cells(cells),
        "is_ct": bool(cells[CT].any()),
    }


def stored(layers: np.ndarray) -> np.ndarray:
    """Rounds layers (10, …) to bytes."""
    layers = layers.astype(np.float32)
    layers[INTENSITY] = np.sqrt(np.maximum(layers[INTENSITY], 0.0))
    steps = np.array(STEPS, np.float32).reshape(-1, *[1] * (layers.ndim - 1))
    return np.ascontiguousarray(np.clip(np.rint(layers * steps), 0, 255).astype(np.uint8))


def restored(cells: Tensor) -> Tensor:
    """Undoes `stored`: float32 of the same shape."""
    steps = torch.tensor(STEPS, device=cells.device).reshape(-1, *[1] * (cells.ndim - 1))
    layers = cells.float() / steps
    layers[INTENSITY] **= 2
    return layers


def some_area_cells(cells: np.ndarray) -> np.ndarray:
    """Gives evenly chosen cells of the area that count (`Sample.area_cells`)."""
    found = np.argwhere((cells[AREA] > STEPS[AREA] / 2) & (cells[COUNTED] > STEPS[COUNTED] / 2))
    return found[:: max(1, len(found) // AREA_CELLS)].astype(np.int16)


def whole_patch(sample: Sample) -> Patch:
    """Lays the whole sample out as the executables do, without variation."""
    cells = restored(sample.cells)
    pads = [p for n in reversed(cells.shape[1:]) for p in (0, -n % MULTIPLE_OF)]
    return make_patch(functional.pad(cells, pads)[None], [sample])


def make_patch(cells: Tensor, samples: list[Sample]) -> Patch:
    """Splits (N, 10, K, J, I) into what goes in and what should come out."""

    def each(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).to(cells.device, non_blocking=True)

    view = (cells[:, IN_VIEW : IN_VIEW + 1] > 0.5).float()
    area = cells[:, AREA : AREA + 1] * view
    counted = cells[:, COUNTED : COUNTED + 1]
    counted = torch.where(counted > 0.5, 1.0, counted.clamp(max=FAR_FREE_WEIGHT)) * view
    known = each([float(sample.altered and sample.area_known) for sample in samples])
    missed = (area * counted).sum((1, 2, 3, 4)) < LEAST_AREA_CELLS
    return Patch(
        channels=cells[:, : len(CHANNELS)].contiguous(memory_format=torch.channels_last_3d),
        foreground=cells[:, FOREGROUND : FOREGROUND + 1] * view,
        area=area,
        counted=counted,
        foreground_weight=each([sample.foreground_weight for sample in samples]),
        altered=each([float(sample.altered) for sample in samples]),
        judged=1.0 - known * missed,
    )
