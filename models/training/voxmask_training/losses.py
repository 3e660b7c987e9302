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


def patch_losses(logits: Tensor, altered: Tensor, patch: Patch) -> dict[str, Tensor]:
    """Gives the weighted losses of one patch, by name; their sum is minimised.

    `logits`: (1, 2, K, J, I), `altered`: (1, 1). A loss whose label is unknown is
    left out.
    """
    view = (patch.channels[:, IN_VIEW : IN_VIEW + 1] > 0.5).float()
    losses: dict[str, Tensor] = {}
    if patch.foreground_weight > 0.0:
        loss = foreground_loss(logits[:, FOREGROUND : FOREGROUND + 1], patch, view)
        losses["foreground"] = patch.foreground_weight * loss
    if float(patch.counted.sum()) > 0.0:
        losses["area"] = area_loss(logits[:, AREA : AREA + 1], patch)
    if patch.altered is not None:
        target = torch.full_like(altered, float(patch.altered))
        loss = functional.binary_cross_entropy_with_logits(altered, target)
        losses["altered"] = ALTERED_WEIGHT * loss
    return losses


def foreground_loss(logits: Tensor, patch: Patch, view: Tensor) -> Tensor:
    """Cross entropy that leans on the skin, plus soft Dice of the whole."""
    target = patch.foreground
    weight = view * (1.0 + BOUNDARY_WEIGHT * near_boundary(target, view))
    entropy = functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    return entropy / weight.sum().clamp(min=1.0) + dice_loss(logits, target, view)


def near_boundary(target: Tensor, view: Tensor) -> Tensor:
    """Gives 1 where a cell in view within 1 of this one is on the other side."""
    target = torch.where(view > 0.5, target, 0.5)
    highest = functional.max_pool3d(target, 3, 1, 1)
    lowest = -functional.max_pool3d(-target, 3, 1, 1)
    return ((highest > 0.52) & (lowest < 0.48)).float()


def area_loss(logits: Tensor, patch: Patch) -> Tensor:
    """Cross entropy, plus soft Dice where altered, plus the worst cells where not."""
    target, counted = patch.area, patch.counted
    entropy = functional.binary_cross_entropy_with_logits(logits, target, counted, reduction="sum")
    loss = entropy / counted.sum().clamp(min=1.0)
    if float((target * counted).sum()) >= SMOOTH_CELLS:
        return 2.0 * loss + dice_loss(logits, target, counted)
    worst = logits[counted > 0.5]
    worst = worst.topk(min(FALSE_AREA_CELLS, worst.numel())).values
    return 2.0 * loss + FALSE_AREA_WEIGHT * functional.softplus(worst).mean()


def dice_loss(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Gives 1 - soft Dice over the counted cells."""
    p, q = logits.sigmoid() * counted, target * counted
    overlap = 2.0 * (p * q).sum() + SMOOTH_CELLS
    return 1.0 - overlap / ((p * p).sum() + (q * q).sum() + SMOOTH_CELLS)
