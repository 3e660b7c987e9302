"""The check on another task: a structure of label maps, learnt from very few of them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from network import Network
from scipy import ndimage
from torch.nn import functional

PATCH = 32


def painted(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image with an intensity for each label, noise and blur; z-scores over what is not 0."""
    lowest = np.zeros(labels.max() + 1)
    lowest[1:] = rng.uniform(0.2, 1.0, labels.max())
    image = ndimage.gaussian_filter(lowest[labels], 0.7) + rng.normal(0, 0.04, labels.shape)
    body = image[labels > 0]
    return ((image - body.mean()) / body.std()).astype(np.float32)


def read(path: Path, spacing_mm: float) -> np.ndarray:
    """A label map in RAS at about the working spacing, every n-th voxel."""
    image = nib.as_closest_canonical(nib.load(path))
    step = [max(1, round(spacing_mm / s)) for s in image.header.get_zooms()[:3]]
    return np.asanyarray(image.dataobj).astype(np.int32)[:: step[0], :: step[1], :: step[2]]


def patches(maps: list[np.ndarray], structure: list[int], count: int, seed: int):
    """Painted patches round the structure and its masks, [n, 1, i, j, k]."""
    rng = np.random.default_rng(seed)
    images, masks = [], []
    for labels in maps:
        image, mask = painted(labels, rng), np.isin(labels, structure)
        pad = PATCH // 2
        image = np.pad(image, pad, constant_values=image.min())
        places = np.argwhere(mask)
        mask = np.pad(mask, pad)
        for place in places[rng.integers(len(places), size=count)]:
            place = np.clip(place + rng.integers(-8, 9, 3), 0, np.array(labels.shape) - 1)
            box = tuple(slice(p, p + PATCH) for p in place)
            images.append(image[box])
            masks.append(mask[box])
    pack = lambda arrays: torch.from_numpy(np.stack(arrays).astype(np.float32))[:, None]
    return pack(images), pack(masks)


def dice(start: Network | None, few, test, steps: int, seed: int) -> float:
    """Dice on ``test`` after fine-tuning on ``few``, from a pre-trained network or from nothing."""
    torch.manual_seed(seed)
    network = start.with_new_head() if start else Network()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(seed)
    visible = lambda image: torch.cat([image, torch.zeros_like(image)], 1)
    for _ in range(steps):
        chosen = torch.randint(len(few[0]), (4,), generator=generator)
        logits = network(visible(few[0][chosen]))
        loss = functional.binary_cross_entropy_with_logits(logits, few[1][chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found = torch.cat([network(visible(part)) > 0 for part in test[0].split(8)])
    both = float((found * test[1]).sum())
    return 2 * both / max(1.0, float(found.sum() + test[1].sum()))
