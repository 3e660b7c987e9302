"""Golden files for the Rust port of the channels: small synthetic volumes and what
comes out.

    python -m voxmask_training.golden ../../tests/data/golden

writes channels_{ct,mr}.nii.gz (int16) and channels_{ct,mr}.npy (float32 [7, mi, mj,
mk], the order of `channels.CHANNELS`, no margin). The CT is stored in RAS order with
slope 1; the MR is stored with its axes permuted and flipped (orientation PLS), slope
0.25 and intercept 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from .channels import channels, read_canonical, spacing_of

SHAPE = (23, 31, 17)
SPACING_MM = (1.7, 0.9, 4.5)


def ellipsoid() -> np.ndarray:
    """float [23, 31, 17]: radius 1 at the surface of a centred ellipsoid."""
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    parts = [(2.6 * (a - (n - 1) / 2) / n) ** 2 for a, n in zip(axes, SHAPE, strict=True)]
    return np.sqrt(sum(parts))


def body(rng: np.random.Generator, air: float, tissue: float, noise: float) -> np.ndarray:
    """A noisy ellipsoid in noisy air, its front cut to the lowest value."""
    radius = ellipsoid()
    values = np.where(radius < 1, tissue * (1 + 0.3 * np.sin(9 * radius)), air)
    values = np.rint(values + rng.normal(0, noise, SHAPE))
    values[:, 20:, :9] = values.min()
    return values.astype(np.int16)


def affine(origin: tuple[float, float, float]) -> np.ndarray:
    """RAS+ affine of the golden grid."""
    matrix = np.diag([*SPACING_MM, 1.0])
    matrix[:3, 3] = origin
    return matrix


def write(folder: Path) -> None:
    """Write both golden cases."""
    rng = np.random.default_rng(20240501)
    folder.mkdir(parents=True, exist_ok=True)
    ct = nib.Nifti1Image(body(rng, -990, 60, 12), affine((-18.5, 7.25, 101.0)))
    ct.header.set_slope_inter(1, 0)
    mr = nib.Nifti1Image(np.abs(body(rng, 6, 700, 9)), affine((3.0, -40.5, -22.0)))
    target = nib.orientations.axcodes2ornt(("P", "L", "S"))
    mr = mr.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(mr.affine), target))
    mr.header.set_slope_inter(0.25, 2.0)
    for name, image in (("ct", ct), ("mr", mr)):
        path = folder / f"channels_{name}.nii.gz"
        save_raw(image, path)
        values, matrix = read_canonical(path)
        np.save(folder / f"channels_{name}.npy", channels(values, spacing_of(matrix))[0])


def save_raw(image: nib.Nifti1Image, path: Path) -> None:
    """Write the stored integers as they are: nibabel would divide them by the slope."""
    slope, inter = image.header.get_slope_inter()
    raw = np.asanyarray(image.dataobj).astype(np.int16)
    scaled = nib.Nifti1Image(raw * slope + inter, image.affine)
    scaled.header.set_data_dtype(np.int16)
    scaled.header.set_slope_inter(slope, inter)
    scaled.header["xyzt_units"] = 2
    nib.save(scaled, path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
