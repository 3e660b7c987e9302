"""A CT as an MR scanner might have shown it.

Few open MR scans show a trunk, many CT scans do, with an exact foreground. Their HU, smoothed,
tell air, lung, fat, fluid, soft tissue, vessels, marrow and compact bone apart; each gets an MR
value at random. What lies outside the body, tables too, gives no signal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.ndimage as nd

from .scan import Scan, resampled, rough_field
from .sources import Volume

KNOTS = (-1000, -850, -500, -130, -60, 0, 35, 80, 170, 350, 900)
"""HU between which values are interpolated: air, lung, dense lung, fat, its rim, fluid, soft
tissue, organs with contrast medium, vessels, marrow, compact bone."""


def mr_values(rng: np.random.Generator) -> np.ndarray:
    """The MR value of every knot: air 0, tissue up to about 1."""
    lung, fluid, soft = rng.uniform(0.01, 0.2), rng.uniform(0.15, 1.1), rng.uniform(0.2, 0.8)
    fat = rng.uniform(0.05, 0.2) if rng.random() < 0.35 else rng.uniform(0.3, 1.2)
    organ, vessel = rng.uniform(0.2, 0.9), rng.uniform(0.03, 1.2)
    marrow, compact = fat * rng.uniform(0.5, 1.0), rng.uniform(0.02, 0.15)
    dense = lung * rng.uniform(1.0, 1.6)
    values = (0, lung, dense, fat, (fat + soft) / 2, fluid, soft, organ, vessel, marrow, compact)
    return np.array(values, np.float32)


def recastable(volume: Volume) -> bool:
    """True for a CT whose foreground is surely known."""
    return volume.modality == "CT" and volume.quality in ("A", "B")


def seen_as_mr(rng: np.random.Generator, scan: Scan) -> Scan:
    """A CT with its foreground known as MR without noise: tissue about 1, air 0.

    Half of the scans have thick slices, more often coronal ones than others.
    """
    sigma = rng.uniform(0.6, 1.6) / scan.spacing
    smooth = nd.gaussian_filter(scan.values, sigma, truncate=3)
    values = np.interp(smooth, KNOTS, mr_values(rng)).astype(np.float32)
    texture = rng.uniform(0.02, 0.14) * rough_field(rng, scan.shape, rng.uniform(1.5, 8))
    values = np.maximum(values * (1 + texture), 0) * scan.foreground
    out = replace(scan, values=values, ct=False, modality="mr-of-ct", background="zeroed")
    if rng.random() < 0.5 and scan.spacing.max() < 3:
        axis = int(rng.choice(3, p=[0.2, 0.45, 0.35]))
        spacing = scan.spacing.copy()
        spacing[axis] = rng.uniform(3.0, 9.0)
        out = resampled(out, spacing)
    return out
