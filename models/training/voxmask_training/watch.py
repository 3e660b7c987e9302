"""Coarse scores on held-out samples while training goes on; no part of the loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .network import AREA, FOREGROUND, IN_VIEW, mixed_precision
from .patches import Sample, whole_patch

CELL_ML = 0.064
MOST_SAMPLES = 40
MOST_CELLS = 300_000
HEADLINE_WEIGHT = 0.7
"""Least weight of a foreground label that is scored."""


def dice(a: Tensor, b: Tensor) -> float:
    """Gives the overlap of two boolean masks; 1 if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 1.0


@torch.no_grad()
def watch(network: nn.Module, samples: list[Sample]) -> dict[str, float]:
    """Scores about 40 samples of at most 300,000 cells, whole and without variation."""
    scores: dict[str, list[float]] = {}
    samples = [sample for sample in samples if sample.cells[0].numel() <= MOST_CELLS]
    stride = max(1, len(samples) // MOST_SAMPLES)
    for sample in samples[::stride]:
        for name, value in score(network, sample).items():
            scores.setdefault(f"watch_{name}", []).append(value)
    return {name: float(np.mean(values)) for name, values in sorted(scores.items())}


def score(network: nn.Module, sample: Sample) -> dict[str, float]:
    """Scores one sample: coarse Dice, false area [ml], right or wrong on `altered`."""
    patch = whole_patch(sample)
    with mixed_precision(patch.channels.device.type):
        logits, scan = network(patch.channels)
    view = patch.channels[:, IN_VIEW : IN_VIEW + 1] > 0.5
    result: dict[str, float] = {}
    if sample.foreground_weight >= HEADLINE_WEIGHT:
        found = (logits[:, FOREGROUND : FOREGROUND + 1] > 0.0) & view
        result["foreground_dice"] = dice(found, patch.foreground > 0.5)
    counted = patch.counted > 0.5
    if not bool(counted.any()):
        return result
    found = (logits[:, AREA : AREA + 1] > 0.0) & counted
    gated = bool(scan > 0.0)
    if sample.altered:
        target = (patch.area > 0.5) & counted
        result["area_dice"] = dice(found, target)
        result["altered_found"] = float(gated)
    else:
        result["false_area_ml"] = CELL_ML * float(found.sum())
        result["gated_false_area_ml"] = CELL_ML * float(found.sum()) * gated
        result["intact_found"] = float(not gated)
    return result
