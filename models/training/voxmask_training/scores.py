"""Scores of a mask against a reference on the native grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]


def dice(prediction: Mask, reference: Mask, free: Mask | None = None) -> float:
    """Gives 2|A∩B| / (|A|+|B|) less the free voxels; 1 if both are empty."""
    if free is not None:
        prediction, reference = prediction & ~free, reference & ~free
    total = int(prediction.sum()) + int(reference.sum())
    return 2.0 * int((prediction & reference).sum()) / total if total else 1.0


def ranking(altered: list[float], intact: list[float]) -> float:
    """Gives the share of pairs in which the altered scan has the higher score; ties count half.

    The area under the receiver operating characteristic, whatever the threshold.
    """
    above, below = np.array(altered)[:, None], np.array(intact)[None]
    return float((0.5 * (above > below) + 0.5 * (above >= below)).mean())


def surface(mask: Mask, spacing: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    """Gives the centres [mm] and areas [mm²] of the faces between inside and outside.

    Faces on the volume's own border do not count: there the body is cut, not bounded.
    """
    centres, areas = [], []
    for axis in range(3):
        ahead = np.moveaxis(mask, axis, 0)
        index = np.argwhere(ahead[1:] != ahead[:-1]).astype(float)
        index[:, 0] += 0.5
        order = [axis, *(n for n in range(3) if n != axis)]
        points = np.empty_like(index)
        points[:, order] = index
        centres.append(points * spacing)
        areas.append(np.full(len(index), float(np.prod(np.delete(spacing, axis)))))
    return np.concatenate(centres), np.concatenate(areas)


def surface_scores(
    prediction: Mask, reference: Mask, spacing: NDArray[np.float64], tolerance_mm: float
) -> tuple[float, float] | None:
    """Gives NSD at the tolerance and HD95 [mm]; None if either has no surface."""
    a, a_area = surface(prediction, spacing)
    b, b_area = surface(reference, spacing)
    if not len(a) or not len(b):
        return None
    to_b = cKDTree(b).query(a)[0]
    to_a = cKDTree(a).query(b)[0]
    near = a_area[to_b <= tolerance_mm].sum() + b_area[to_a <= tolerance_mm].sum()
    nsd = float(near / (a_area.sum() + b_area.sum()))
    hd95 = max(percentile(to_b, a_area, 95.0), percentile(to_a, b_area, 95.0))
    return nsd, hd95


def percentile(values: NDArray, weights: NDArray, percent: float) -> float:
    """Gives the smallest value that at least `percent` of the weight does not pass."""
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(share, percent / 100.0)])
