"""Heads and bodies of other shapes: a scan that is bent smoothly."""

from __future__ import annotations

import numpy as np
import scipy.ndimage as nd

from .scan import Scan, coordinates, smooth_field

DEVIATION_MM = (1.0, 4.0)
"""Least and most of what voxels move by along each axis, about a standard deviation."""
LEAST_EXTENTS = 25.0
"""At most this part of the volume's least extent."""
WAVES = 6
NEAREST_SHARE = 0.6
"""Scans whose voxels keep their values, each that of the nearest one: interpolation would wipe out
what tells noise from a constant."""


def bent(rng: np.random.Generator, scan: Scan) -> Scan:
    """A scan whose voxels come from places near their own; its affine to MNI stays.

    The waves are at least a third of the volume long, and a thin volume moves less, so that it
    hardly folds: a nose may grow or a chin recede, and no skin is torn.
    """
    place = coordinates(scan.shape, np.eye(4))
    extent = float((np.array(scan.shape) * scan.spacing).min())
    size = min(rng.uniform(*DEVIATION_MM), extent / LEAST_EXTENTS)
    for axis in range(3):
        field = smooth_field(rng, scan.shape, WAVES)
        place[axis] += field * np.float32(size / scan.spacing[axis])
    last = np.array(scan.shape, np.float32).reshape(3, 1, 1, 1) - 1
    place = np.clip(place, 0, last)
    nearest = tuple(np.rint(place).astype(np.int32))
    between = rng.random() > NEAREST_SHARE
    whole = np.array_equal(scan.values, np.rint(scan.values))

    def moved(values: np.ndarray) -> np.ndarray:
        if values.dtype == bool or not between:
            return values[nearest]
        out = nd.map_coordinates(values, place, order=1)
        return np.rint(out) if whole else out

    return scan.mapped(moved)
