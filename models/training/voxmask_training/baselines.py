"""Classical methods that the networks must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .scores import Mask

Voxels = NDArray[np.float32]
SMALLEST_REGION_ML = 0.5


def otsu_foreground(voxels: Voxels) -> Mask:
    """Otsu's threshold, the largest piece, holes filled in 3-D and in each slice.

    # Source
    N. Otsu, IEEE Trans. SMC 9 (1979) 62-66.
    """
    mask = largest_piece(voxels > otsu_level(voxels))
    mask = ndimage.binary_fill_holes(mask)
    for axis in range(3):
        for layer in np.moveaxis(mask, axis, 0):
            layer[:] = ndimage.binary_fill_holes(layer)
    return mask


def otsu_level(voxels: Voxels) -> float:
    """Gives the level that parts a histogram of 256 bins best."""
    low, high = np.percentile(voxels[::2, ::2, ::2], [0.1, 99.5])
    counts, edges = np.histogram(np.clip(voxels, low, high), 256)
    centres = (edges[1:] + edges[:-1]) / 2.0
    share = np.cumsum(counts) / counts.sum()
    moment = np.cumsum(counts * centres) / counts.sum()
    between = (moment[-1] * share - moment) ** 2
    between /= np.maximum(share * (1.0 - share), 1e-12)
    return float(centres[int(np.argmax(between))])


def largest_piece(mask: Mask) -> Mask:
    """Keeps the largest piece, neighbours by faces."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == int(sizes.argmax())


def constant_area(voxels: Voxels, voxel_ml: float, every: bool) -> Mask:
    """Solid, exactly constant regions that touch the border: the largest, or every.

    Solid: voxels whose 3×3×3 surroundings all hold one value, grown back by a voxel.
    """
    if min(voxels.shape) < 3:
        return np.zeros(voxels.shape, bool)
    solid = ndimage.maximum_filter(voxels, 3) == ndimage.minimum_filter(voxels, 3)
    labels, count = ndimage.label(solid)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = np.zeros(count + 1, bool)
    for axis in range(3):
        faces = np.moveaxis(labels, axis, 0)
        keep[np.unique(faces[0])] = keep[np.unique(faces[-1])] = True
    keep &= sizes * voxel_ml > SMALLEST_REGION_ML
    keep[0] = False
    if not every and keep.any():
        best = int(np.argmax(np.where(keep, sizes, 0)))
        keep[:] = False
        keep[best] = True
    region = keep[labels]
    level = ndimage.maximum_filter(np.where(region, voxels, -np.inf), 3)
    return voxels == level
