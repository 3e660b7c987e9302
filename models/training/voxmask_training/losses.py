"""What training minimises: a loss for each mask and for the scan's `altered` logit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .network import AREA, FOREGROUND, IN_VIEW
from .patches import Patch

BOUNDARY_WEIGHT = 3.0
FALSE_AREA_CELLS = 60
ALTERED_WEIGHT = 1.0
FALSE_AREA_WEIGHT = 1.0
SMOOTH_CELLS = 20.0
SPACE = (1, 2, 3, 4)


def patch_losses(logits: Tensor, altered: Tensor, patch: Patch) -> dict[str, tuple[Tensor, Tensor]]:
    """Gives the weighted losses of N scans by name, each with 1 where its label is known.

    `logits`: (N, 2, K, J, I), `altered`: (N, 1). Losses and marks are (N,); a loss is 0 where its
    label is unknown. Their sum is minimised.
    """
    known = {
        "foreground": (patch.foreground_weight > 0.0).float(),
        "area": (patch.counted.sum(SPACE) > 0.0).float(),
        "altered": patch.judged,
    }
    judgement = functional.binary_cross_entropy_with_logits(
        altered[:, 0], patch.altered, reduction="none"
    )
    losses = {
        "foreground": patch.foreground_weight
        * foreground_loss(logits[:, FOREGROUND : FOREGROUND + 1], patch),
        "area": area_loss(logits[:, AREA : AREA + 1], patch),
        "altered": ALTERED_WEIGHT * judgement,
    }
    return {name: (loss * known[name], known[name]) for name, loss in losses.items()}


def foreground_loss(logits: Tensor, patch: Patch) -> Tensor:
    """Cross entropy that leans on the skin, plus soft Dice of the whole: (N,)."""
    target = patch.foreground
    view = (patch.channels[:, IN_VIEW : IN_VIEW + 1] > 0.5).float()
    weight = view * (1.0 + BOUNDARY_WEIGHT * near_boundary(target, view))
    return mean_entropy(logits, target, weight) + dice_loss(logits, target, view)


def near_boundary(target: Tensor, view: Tensor) -> Tensor:
    """Gives 1 where a cell in view within 1 of this one is on the other side."""
    target = torch.where(view > 0.5, target, 0.5)
    highest = functional.max_pool3d(target, 3, 1, 1)
    lowest = -functional.max_pool3d(-target, 3, 1, 1)
    return ((highest > 0.52) & (lowest < 0.48)).float()


def area_loss(logits: Tensor, patch: Patch) -> Tensor:
    """Cross entropy, plus soft Dice where altered, plus the worst cells where not: (N,)."""
    target, counted = patch.area, patch.counted
    hidden = logits.masked_fill(counted <= 0.5, -torch.inf).flatten(1)
    worst = hidden.topk(min(FALSE_AREA_CELLS, hidden.shape[1])).values
    false_area = FALSE_AREA_WEIGHT * functional.softplus(worst).mean(1)
    there = (target * counted).sum(SPACE) >= SMOOTH_CELLS
    overlap = dice_loss(logits, target, counted)
    return 2.0 * mean_entropy(logits, target, counted) + torch.where(there, overlap, false_area)


def mean_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Gives the weighted mean cross entropy of each scan."""
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (entropy * weight).sum(SPACE) / weight.sum(SPACE).clamp(min=1.0)


def dice_loss(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Gives 1 - soft Dice of each scan over its counted cells."""
    p, q = logits.sigmoid() * counted, target * counted
    overlap = 2.0 * (p * q).sum(SPACE) + SMOOTH_CELLS
    return 1.0 - overlap / ((p * p).sum(SPACE) + (q * q).sum(SPACE) + SMOOTH_CELLS)
