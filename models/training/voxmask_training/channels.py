"""The coarse grid and the input channels of the networks.

Everything here is a contract with the Rust runtime (`src/network`): the same numbers
must come out of both. `tests/data/golden` holds a small case of each modality.

Axes are i, j, k of a volume reoriented to closest RAS; `spacing` is in millimetres
along i, j, k; arrays are float32 unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

CELL_MM = 4.0
CHANNELS = ("intensity", "flat", "detail", "in-view", "ct", "abrupt", "air-edge")
CT_BELOW_HU = -200.0
CT_WINDOW_HU = (-1000.0, 1500.0)
CT_SCALE_HU = 1000.0
MR_PERCENTILE = 99.5
MR_CLIP = 3.0
DETAIL_GAIN = 100.0
DETAIL_DIVISOR = 3.0
DETAIL_BELOW_MM = 3.0
ABRUPT_RUN_MM, ABRUPT_REACH_MM = 3.0, 5.0
"""A constant that ends counts for «abrupt» where it was this long, by how it goes on over this."""
ABRUPT_MOST = 1.5
ABRUPT_PRIOR = 0.5
AIR_RUN_MM, AIR_REACH_MM = 3.0, 5.0
"""Air that ends counts for «air-edge» where it was this deep, by the tissue this far behind it."""
AIR_SHARE, TISSUE_LEAST = 0.2, 0.08
"""Air lies below this share of the tissue behind it, which is this bright at least."""
AIR_MOST = 1.5
AIR_PRIOR = 0.5


def read_canonical(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI volume in closest RAS order.

    Returns the values after slope and intercept, float32 [i, j, k] (the first volume of
    a series), and the 4x4 affine from voxel indices to RAS+ millimetres.
    """
    image = nib.as_closest_canonical(nib.load(path))
    values = np.asanyarray(image.dataobj)
    while values.ndim > 3:
        values = values[..., 0]
    return np.ascontiguousarray(values, dtype=np.float32), image.affine


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Voxel spacing [mm] along i, j, k: the norms of the affine's columns."""
    return np.linalg.norm(affine[:3, :3], axis=0)


@dataclass(frozen=True)
class CoarseGrid:
    """Cells of `cell` mm centred on a volume of `shape` voxels of `spacing` mm."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    cell: float = CELL_MM

    @property
    def cells(self) -> tuple[int, int, int]:
        """Number of cells along i, j, k."""
        return tuple(
            max(1, int(np.ceil(n * s / self.cell - 1e-3)))
            for n, s in zip(self.shape, self.spacing, strict=True)
        )

    def positions(self, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Centres [mm] of the cells and of the voxels along an axis, from voxel 0's
        centre.
        """
        n, s, m = self.shape[axis], self.spacing[axis], self.cells[axis]
        first = ((n - 1) * s - (m - 1) * self.cell) / 2
        return first + self.cell * np.arange(m), s * np.arange(n)

    def pooling_weights(self, axis: int) -> np.ndarray:
        """[cells, voxels] triangle kernel of half width max(spacing, cell), rows sum
        to 1.
        """
        cells, voxels = self.positions(axis)
        width = max(self.spacing[axis], self.cell)
        weights = np.clip(1 - np.abs(cells[:, None] - voxels[None]) / width, 0, None)
        return (weights / weights.sum(1, keepdims=True)).astype(np.float32)

    def interpolation_weights(self, axis: int) -> np.ndarray:
        """[voxels, cells] linear interpolation between cell centres, clamped outside
        them.
        """
        cells, voxels = self.positions(axis)
        place = np.clip((voxels - cells[0]) / self.cell, 0, len(cells) - 1)
        low = np.minimum(place.astype(int), max(len(cells) - 2, 0))
        high = np.minimum(low + 1, len(cells) - 1)
        weights = np.zeros((len(voxels), len(cells)), np.float32)
        rows = np.arange(len(voxels))
        weights[rows, low] += 1 - (place - low)
        weights[rows, high] += place - low
        return weights

    def from_coarser(self, coarser: CoarseGrid, values: np.ndarray) -> np.ndarray:
        """A field on a coarser grid over the same volume, linearly at this grid's cells."""
        matrices = []
        for axis in range(3):
            (cells, _), (mine, _) = coarser.positions(axis), self.positions(axis)
            count = len(cells)
            place = np.clip((mine - cells[0]) / coarser.cell, 0, count - 1)
            matrices.append(
                np.clip(1 - np.abs(place[:, None] - np.arange(count)), 0, None).astype(np.float32)
            )
        return _separable(values, matrices)

    def pool(self, values: np.ndarray) -> np.ndarray:
        """Native [i, j, k] to coarse [mi, mj, mk]."""
        return _separable(values, [self.pooling_weights(a) for a in range(3)])

    def up(self, values: np.ndarray) -> np.ndarray:
        """Coarse [mi, mj, mk] to native [i, j, k]."""
        return _separable(values, [self.interpolation_weights(a) for a in range(3)])


def _separable(values: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Apply one [out, in] matrix along each axis."""
    out = np.asarray(values, np.float32)
    for axis, matrix in enumerate(matrices):
        out = np.moveaxis(np.tensordot(matrix, out, (1, axis)), 0, axis)
    return np.ascontiguousarray(out)


def normalised(values: np.ndarray, ct: bool | None = None) -> tuple[np.ndarray, bool]:
    """Intensities on the networks' scale, and whether CT's scale was used.

    CT (anything below -200 HU, unless `ct` says so): air 0, water 1. MR: the 99.5th
    percentile of what is above the minimum becomes 1; clipped to [0, 3].
    """
    lowest = float(values.min())
    ct = lowest < CT_BELOW_HU if ct is None else ct
    if ct:
        return (np.clip(values, *CT_WINDOW_HU) - CT_WINDOW_HU[0]) / np.float32(CT_SCALE_HU), True
    base = min(lowest, 0.0)
    above = values[values > lowest]
    top = float(np.percentile(above, MR_PERCENTILE)) if above.size >= 50 else base + 1
    scale = np.float32(max(top - base, 1e-6))
    return np.clip((values - np.float32(base)) / scale, 0, MR_CLIP), False


def flat_voxels(values: np.ndarray) -> np.ndarray:
    """bool [i, j, k]: equal to the next neighbour along every axis of at least 3
    voxels.

    The last index of an axis looks at its previous neighbour.
    """
    flat = np.ones(values.shape, bool)
    for axis in range(3):
        if values.shape[axis] < 3:
            continue
        along = np.moveaxis(values, axis, 0)
        view = np.moveaxis(flat, axis, 0)
        same = along[1:] == along[:-1]
        view[:-1] &= same
        view[-1] &= same[-1]
    return flat


def second_difference(x: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Mean of |2x - previous - next| over the axes finer than 3 mm with at least 3
    voxels.
    """
    # A hair less, so that rounding in an oblique affine takes in no axis at the limit.
    limit = DETAIL_BELOW_MM - 1e-3
    axes = [a for a in range(3) if spacing[a] < limit and x.shape[a] >= 3]
    total = np.zeros(x.shape, np.float32)
    for axis in axes:
        along = np.moveaxis(x, axis, 0)
        out = np.moveaxis(total, axis, 0)
        out[1:-1] += np.abs(2 * along[1:-1] - along[:-2] - along[2:])
        out[0] += np.abs(along[0] - along[1])
        out[-1] += np.abs(along[-1] - along[-2])
    return total / np.float32(max(len(axes), 1))


def ends_of_constants(values: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a constant ends along an axis finer than 3 mm, either way, and how abruptly.

    Gives the last constant voxels, int64 (n, 3), after `ABRUPT_RUN_MM` of their value, and
    float32 (n,): the change to the next voxel over the mean change to those behind it,
    within `ABRUPT_REACH_MM`, at most `ABRUPT_MOST`. At skin in zeroed air the next voxel is
    darkened by partial volume; at a cut it is tissue as any. Where the value comes again
    within the reach, and at the border of the volume, it does not count.
    """
    limit = DETAIL_BELOW_MM - 1e-3
    places, ratios = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.float32)]
    for axis in range(3):
        run = max(3, int(np.rint(ABRUPT_RUN_MM / spacing[axis])) + 1)
        reach = max(2, int(np.rint(ABRUPT_REACH_MM / spacing[axis])))
        count = values.shape[axis]
        if spacing[axis] >= limit or count < run + reach:
            continue
        for way in (1, -1):
            along = np.moveaxis(values, axis, 0)[::way]
            equal = along[1:] == along[:-1]
            # Entry n is about voxel n + run - 1, the last of its run.
            ends = ~equal[run - 1 : count - reach]
            for back in range(run - 1):
                ends &= equal[back : back + len(ends)]
            found = np.argwhere(ends)
            last = found[:, 0] + run - 1
            rest = (found[:, 1], found[:, 2])
            value = along[last, *rest]
            changes = np.stack(
                [np.abs(along[last + n, *rest] - value) for n in range(1, reach + 1)]
            )
            ratio = np.minimum(changes[0] / np.maximum(changes[1:].mean(0), 1e-12), ABRUPT_MOST)
            place = np.insert(found[:, 1:], axis, last if way == 1 else count - 1 - last, 1)
            kept = (changes > 0.0).all(0)
            places.append(place[kept])
            ratios.append(ratio[kept].astype(np.float32))
    return np.concatenate(places), np.concatenate(ratios)


def ends_of_air(x: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where air ends along an axis finer than 3 mm, either way, and how abruptly.

    `x`: normalised intensities. Gives the last voxels of the air, int64 (n, 3), and float32 (n,):
    the change from the mean of the air to the next voxel over that to the mean of those behind it,
    within `AIR_REACH_MM`, at most `AIR_MOST`. Air, constant or noise, lies below `AIR_SHARE` of
    the mean of those behind for `AIR_RUN_MM`, its last voxel below that share of the second
    beyond too; all beyond it lie above. That mean and that second are above `TISSUE_LEAST`.
    Partial volume and the scanner's point spread soften skin, but not the edge that a tool left.
    """
    limit = DETAIL_BELOW_MM - 1e-3
    places, ratios = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.float32)]
    for axis in range(3):
        run = max(3, int(np.rint(AIR_RUN_MM / spacing[axis])) + 1)
        reach = max(2, int(np.rint(AIR_REACH_MM / spacing[axis])))
        count = x.shape[axis]
        if spacing[axis] >= limit or count < run + reach:
            continue
        for way in (1, -1):
            along = np.moveaxis(x, axis, 0)[::way]
            air, tissue = along[run - 1 : count - reach], along[run + 1 : count - reach + 2]
            found = np.argwhere((tissue > TISSUE_LEAST) & (air < np.float32(AIR_SHARE) * tissue))
            last = found[:, 0] + run - 1
            rest = (found[:, 1], found[:, 2])
            air = np.stack([along[last - n, *rest] for n in range(run)])
            beyond = np.stack([along[last + n, *rest] for n in range(1, reach + 1)])
            tissue, level = beyond[1:].mean(0), air.mean(0)
            kept = (air.max(0) < AIR_SHARE * tissue) & (beyond.min(0) >= AIR_SHARE * tissue)
            kept &= tissue > TISSUE_LEAST
            ratio = (beyond[0] - level)[kept] / (tissue - level)[kept]
            place = np.insert(found[:, 1:], axis, last if way == 1 else count - 1 - last, 1)
            places.append(place[kept])
            ratios.append(np.minimum(ratio, AIR_MOST).astype(np.float32))
    return np.concatenate(places), np.concatenate(ratios)


def about_cells(
    places: np.ndarray, values: np.ndarray, grid: CoarseGrid, prior: float
) -> np.ndarray:
    """Mean of values at voxels (n, 3) about each cell, [mi, mj, mk]; 0 without any.

    Each counts in the two nearest cells of each axis, by its distance; `prior` values of 0 count
    everywhere.
    """
    sums = np.zeros((2, *grid.cells))
    cells, weights = [], []
    for axis in range(3):
        centres, voxels = grid.positions(axis)
        at = (voxels[places[:, axis]] - centres[0]) / grid.cell
        low = np.floor(at).astype(np.int64)
        cells.append((low, low + 1))
        weights.append((1.0 - (at - low), at - low))
    for corner in np.ndindex(2, 2, 2):
        index = [cells[a][c] for a, c in enumerate(corner)]
        inside = np.all([(i >= 0) & (i < n) for i, n in zip(index, grid.cells, strict=True)], 0)
        weight = np.prod([weights[a][c] for a, c in enumerate(corner)], 0)[inside]
        index = np.ravel_multi_index([i[inside] for i in index], grid.cells)
        for layer, value in zip(sums, (weight * values[inside], weight), strict=True):
            layer += np.bincount(index, value, layer.size).reshape(layer.shape)
    return (sums[0] / (sums[1] + prior)).astype(np.float32)


def abrupt(values: np.ndarray, spacing: np.ndarray, grid: CoarseGrid) -> np.ndarray:
    """Mean abruptness of the ends of constants about each cell, [mi, mj, mk]."""
    return about_cells(*ends_of_constants(values, spacing), grid, ABRUPT_PRIOR)


def air_edge(x: np.ndarray, spacing: np.ndarray, grid: CoarseGrid) -> np.ndarray:
    """Mean abruptness of the ends of air about each cell, [mi, mj, mk]; `x` normalised."""
    return about_cells(*ends_of_air(x, spacing), grid, AIR_PRIOR)


def channels(
    values: np.ndarray, spacing: np.ndarray, ct: bool | None = None, cell: float = CELL_MM
) -> tuple[np.ndarray, CoarseGrid]:
    """The networks' input [7, mi, mj, mk] (order of `CHANNELS`, no margin) and its
    grid, of cells of `cell` mm.
    """
    grid = CoarseGrid(tuple(values.shape), tuple(float(s) for s in spacing), cell)
    x, ct = normalised(values, ct)
    intensity = grid.pool(x)
    flat = grid.pool(flat_voxels(values))
    detail = grid.pool(second_difference(x, spacing))
    detail = np.log1p(DETAIL_GAIN * detail) / np.float32(DETAIL_DIVISOR)
    inside = np.ones_like(intensity)
    ends = [abrupt(values, spacing, grid), air_edge(x, spacing, grid)]
    return np.stack([intensity, flat, detail, inside, inside * np.float32(ct), *ends]), grid
