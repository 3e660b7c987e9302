"""Scans in thick slices: resampled for variety, or as a scanner measures them, slice by slice."""

from __future__ import annotations

import numpy as np

from . import scenes
from .scan import Scan, regridded, resampled

THICK_MM = 2.9
"""Slices from here on are thick."""
SLICE_MM = (3.0, 6.5)
NOISIEST_SLICE = 0.04
"""Most noise that a slice has of its own, of the scan's scale."""
SLICE_AXES = (0.15, 0.15, 0.7)
"""How often slices are sagittal, coronal and axial."""
MEASURED_SHARE = 0.75
"""Slices that are measured one by one: noise of their own on each, and often a gap between."""


def thick_slices(rng: np.random.Generator, scan: Scan) -> Scan:
    """Averaged to 3 to 7 mm along one axis; a body to 9 mm, in coronal slices more often."""
    head = "head" in scan.region
    axis = int(rng.choice(3, p=[0.2, 0.2, 0.6] if head else [0.15, 0.45, 0.4]))
    spacing = scan.spacing.copy()
    spacing[axis] = max(spacing[axis], rng.uniform(3, 7 if head else 9))
    if scan.shape[axis] * scan.spacing[axis] < 4 * spacing[axis]:
        return scan
    return resampled(scan, spacing)


def in_slices(rng: np.random.Generator, scan: Scan) -> Scan:
    """Gives a scan in thick slices: those it has, or means over slabs of 3 to 6.5 mm of it.

    A slice is as thick as they are apart, or thinner, a gap between. Averaged noise is gone, and so
    is its distribution in the air, unless the slices are measured one by one.
    """
    if scan.spacing.max() >= THICK_MM:
        return scan
    axis = int(rng.choice(3, p=SLICE_AXES))
    old, apart = scan.spacing[axis], rng.uniform(*SLICE_MM)
    count = int(scan.shape[axis] * old / apart)
    thick = apart * rng.uniform(0.7, 1.0)
    starts = (np.arange(scan.shape[axis]) - scan.shape[axis] / 2) * old
    middles = (np.arange(count) - (count - 1) / 2) * apart
    first, last = middles[:, None] - thick / 2, middles[:, None] + thick / 2
    shares = np.clip(np.minimum(starts + old, last) - np.maximum(starts, first), 0.0, None)
    shares = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    spacing = scan.spacing.copy()
    spacing[axis] = apart
    out = regridded(scan, spacing, {axis: shares})
    if scan.ct or scan.background == "zeroed" or rng.random() > MEASURED_SHARE:
        return out
    return scenes.noisy(rng, out, NOISIEST_SLICE)
