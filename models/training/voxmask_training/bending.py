"""Heads and bodies of other shapes: a scan that is bent smoothly."""

from __future__ import annotations

import numpy as np
import scipy.ndimage as nd

from .scan import Scan, coordinates, smooth_field

DEVIATION_MM = (1.0, 4.0)
"""Standard deviation of what a voxel moves by along each axis, least and most."""
WAVES = 6
NEAREST_SHARE = 0.6
"""Scans whose voxels keep their values, each that of the nearest one: interpolation would wipe out
what tells noise from a constant."""


def bent(rng: np.random.Generator, scan: Scan) -> Scan:
    """A scan whose voxels come from places near their own; nothing moves relative to MNI.

    The waves are at least a third of the volume long, so that it does not fold: a nose may grow
    or a chin recede, and no skin is torn.
    """
    place = coordinates(scan.shape, np.eye(4))
    size = rng.uniform(*DEVIATION_MM)
    for axis in range(3):
        field = smooth_field(rng, scan.shape, WAVES)
        place[axis] += field * np.float32(size / scan.spacing[axis])
    last = np.array(scan.shape).reshape(3, 1, 1, 1) - 1
    place = np.clip(place, 0, last)
    nearest = tuple(np.rint(place).astype(np.intp))
    between = rng.random() > NEAREST_SHARE

    def moved(values: np.ndarray) -> np.ndarray:
        if values.dtype == bool or not between:
            return values[nearest]
        return nd.map_coordinates(values, place, order=1)

    return scan.mapped(moved)
