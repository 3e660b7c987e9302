"""A scan with its references, and what moves both of them together.

`Scan` holds a volume in closest RAS order with every layer on the same grid. All
functions return a new scan and leave their argument alone. Millimetres throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

LAYERS = ("foreground", "area", "free")


@dataclass(frozen=True)
class Scan:
    """A volume and what is known about it.

    values      float32 [i, j, k], HU for CT
    spacing     voxel spacing [mm] along i, j, k
    ct          whether the values are HU
    foreground  bool [i, j, k] reference, or None when unknown
    quality     weight of the foreground reference in a loss
    mni         4x4 from voxel indices to RAS+ mm of MNI152_2009_SSW, or None
    area        bool [i, j, k]: altered by a de-identification tool, or None
    free        bool [i, j, k]: left out of the area's loss, or None
    background  noise | zeroed | denoised | constant | air
    """

    values: np.ndarray
    spacing: np.ndarray
    ct: bool
    foreground: np.ndarray | None = None
    quality: float = 1.0
    mni: np.ndarray | None = None
    area: np.ndarray | None = None
    free: np.ndarray | None = None
    subject: str = ""
    region: str = ""
    modality: str = ""
    background: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along i, j, k."""
        return self.values.shape

    def mapped(self, function: Callable[[np.ndarray], np.ndarray], **changes) -> Scan:
        """The same function (a flip, a crop) on the values and every layer."""
        layers = {
            k: None if getattr(self, k) is None else function(getattr(self, k)) for k in LAYERS
        }
        return replace(self, values=function(self.values), **layers, **changes)


def shifted(mni: np.ndarray | None, matrix: np.ndarray) -> np.ndarray | None:
    """The MNI affine of a grid whose voxel v lies at `matrix @ v` of the old grid."""
    return None if mni is None else mni @ matrix


def cropped(scan: Scan, low: np.ndarray, high: np.ndarray) -> Scan:
    """Voxels low (inclusive) to high (exclusive) along i, j, k."""
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    matrix = np.eye(4)
    matrix[:3, 3] = low
    return scan.mapped(lambda a: a[box], mni=shifted(scan.mni, matrix))


def padded(scan: Scan, low: np.ndarray, high: np.ndarray, value: float) -> Scan:
    """Add voxels of a value on the low and high side of each axis; layers are padded
    with 0.
    """
    width = [(int(a), int(b)) for a, b in zip(low, high, strict=True)]
    matrix = np.eye(4)
    matrix[:3, 3] = [-a for a, _ in width]
    out = scan.mapped(lambda a: np.pad(a, width), mni=shifted(scan.mni, matrix))
    values = np.pad(scan.values, width, constant_values=value)
    return replace(out, values=values)


def flipped(scan: Scan, axis: int) -> Scan:
    """Mirror one axis, as a wrong header would."""
    matrix = np.eye(4)
    matrix[axis, axis] = -1
    matrix[axis, 3] = scan.shape[axis] - 1
    return scan.mapped(lambda a: np.flip(a, axis), mni=shifted(scan.mni, matrix))


def turned(scan: Scan, order: tuple[int, int, int]) -> Scan:
    """Permute the axes, as a wrong header would."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for new, old in enumerate(order):
        matrix[old, new] = 1
    mni = shifted(scan.mni, matrix)
    return scan.mapped(lambda a: a.transpose(order), spacing=scan.spacing[list(order)], mni=mni)


def axis_weights(old: int, old_mm: float, new: int, new_mm: float, width: float) -> np.ndarray:
    """[new, old] triangle kernel of half width `width` mm between two centred axes."""
    x = old_mm * (np.arange(old) - (old - 1) / 2)
    y = new_mm * (np.arange(new) - (new - 1) / 2)
    weights = np.clip(1 - np.abs(y[:, None] - x[None]) / width, 0, None)
    total = weights.sum(1, keepdims=True)
    nearest = np.abs(y[:, None] - x[None]).argmin(1)
    weights[total[:, 0] <= 0, nearest[total[:, 0] <= 0]] = 1
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def along(values: np.ndarray, matrices: dict[int, np.ndarray]) -> np.ndarray:
    """Apply [new, old] matrices along the given axes."""
    out = values
    for axis, matrix in matrices.items():
        out = np.moveaxis(np.tensordot(matrix, out, (1, axis)), 0, axis)
    return np.ascontiguousarray(out)


def resampled(scan: Scan, spacing: np.ndarray, smooth: bool = True) -> Scan:
    """On a centred grid of another spacing: averaging when it is coarser, linear when
    finer.

    smooth=False interpolates linearly also when it is coarser, which keeps the noise.
    """
    shape = np.maximum(1, np.round(np.array(scan.shape) * scan.spacing / spacing)).astype(int)
    matrices = {}
    for a in range(3):
        if abs(spacing[a] - scan.spacing[a]) < 1e-4 * spacing[a]:
            shape[a] = scan.shape[a]
            continue
        width = max(scan.spacing[a], spacing[a]) if smooth else scan.spacing[a]
        matrices[a] = axis_weights(scan.shape[a], scan.spacing[a], shape[a], spacing[a], width)
    return regridded(scan, np.array(spacing, float), matrices)


def regridded(scan: Scan, spacing: np.ndarray, matrices: dict[int, np.ndarray]) -> Scan:
    """On a grid of another spacing about the same middle, by [new, old] matrices along axes."""
    shape = [matrices[a].shape[0] if a in matrices else scan.shape[a] for a in range(3)]
    matrix = to_indices(scan, np.array(shape), spacing)

    def move(layer: np.ndarray) -> np.ndarray:
        if layer.dtype == bool:
            return along(layer.astype(np.float32), matrices) > 0.5
        return along(layer, matrices)

    return scan.mapped(move, spacing=spacing, mni=shifted(scan.mni, matrix))


def to_indices(scan: Scan, shape: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The matrix (4, 4) from indices of another grid about the same middle to those of a scan."""
    matrix = np.diag([*(spacing / scan.spacing), 1.0])
    matrix[:3, 3] = (np.array(scan.shape) - 1) / 2 - matrix[:3, :3] @ ((shape - 1) / 2)
    return matrix


def coordinates(shape: tuple[int, int, int], matrix: np.ndarray) -> np.ndarray:
    """float32 [3, i, j, k]: `matrix` applied to the voxel indices of a grid."""
    i, j, k = (np.arange(n, dtype=np.float32) for n in shape)
    m = matrix.astype(np.float32)
    rows = [
        (m[r, 0] * i + m[r, 3])[:, None, None] + (m[r, 1] * j)[:, None] + m[r, 2] * k
        for r in range(3)
    ]
    return np.stack(rows)


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], waves: int) -> np.ndarray:
    """float32 [i, j, k]: a random smooth field of standard deviation 1 and mean about
    0.

    A sum of cosines with up to `waves` half periods along each axis.
    """
    order = np.arange(waves + 1)
    decay = 1 / (1 + sum(q**2 for q in np.meshgrid(order, order, order, indexing="ij")))
    weights = rng.standard_normal((waves + 1,) * 3) * np.sqrt(decay)
    weights[0, 0, 0] = 0
    weights /= np.sqrt((weights**2 * 0.5).sum()) + 1e-9
    out = weights.astype(np.float32)
    for axis, n in enumerate(shape):
        basis = np.cos(np.pi * (np.arange(n)[:, None] + 0.5) * order / n).astype(np.float32)
        out = np.moveaxis(np.tensordot(basis, out, (1, axis)), 0, axis)
    return np.ascontiguousarray(out)


def rough_field(rng: np.random.Generator, shape: tuple[int, ...], cell: float) -> np.ndarray:
    """float32 [i, j, k]: random values every `cell` voxels, linear in between,
    deviation < 1.
    """
    knots = [max(2, int(n / cell) + 2) for n in shape]
    out = rng.standard_normal(knots).astype(np.float32)
    for axis, (n, m) in enumerate(zip(shape, knots, strict=True)):
        place = (np.arange(n) + rng.uniform()) / cell
        low = np.minimum(place.astype(int), m - 2)
        fraction = np.clip(place - low, 0, 1)
        weights = np.zeros((n, m), np.float32)
        weights[np.arange(n), low] = 1 - fraction
        weights[np.arange(n), low + 1] += fraction
        out = np.moveaxis(np.tensordot(weights, out, (1, axis)), 0, axis)
    return np.ascontiguousarray(out)


def padding_left_free(wide: Scan, scan: Scan, changed: bool) -> Scan:
    """Padding of an altered scan is constant before and after: it is free."""
    if not changed or wide.free is None:
        return wide
    low = np.rint(np.linalg.solve(scan.mni, wide.mni)[:3, 3]) if scan.mni is not None else None
    if low is None:
        return wide
    free = np.ones(wide.shape, bool)
    start = (-low).astype(int)
    free[tuple(slice(a, a + n) for a, n in zip(start, scan.shape, strict=True))] = scan.free
    return replace(wide, free=free)
