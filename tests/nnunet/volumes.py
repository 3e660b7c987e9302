"""Volumes that try every turn of nnU-Net's preprocessing, out of the scans in tests/data."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

DATA = Path(__file__).resolve().parents[1] / "data"


def rotation(degrees: float, axis: int) -> np.ndarray:
    """A turn round x, y or z."""
    angle = np.deg2rad(degrees)
    matrix = np.eye(3)
    a, b = [n for n in range(3) if n != axis]
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    return matrix


def volumes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Voxels and affine of each volume, by name."""
    scans = {
        name: nibabel.load(DATA / f"{file}.nii.gz")
        for name, file in (
            ("ct", "ct_abdomen"), ("mr", "mr_head_intact"), ("defaced", "mr_head_defaced")
        )
    }
    voxels = {name: np.asarray(scan.dataobj).astype(np.int16) for name, scan in scans.items()}
    affine = {name: scan.affine for name, scan in scans.items()}

    def grid(spacing, turn=None, origin=(-40.0, 17.5, 93.0)):
        matrix = np.eye(4)
        matrix[:3, :3] = (np.eye(3) if turn is None else turn) * np.array(spacing)
        matrix[:3, 3] = origin
        return matrix

    tilt = rotation(17, 0) @ rotation(-8, 2)
    padded = np.zeros((70, 90, 80), np.int16)
    padded[11:51, 20:61, 7:46] = voxels["mr"][20:60, 40:81, 40:79]
    hollow = padded.copy()
    hollow[25:35, 35:45, 20:30] = 0
    ct, mr, defaced = voxels["ct"], voxels["mr"], voxels["defaced"]
    return {
        "ct": (ct[40:85, 30:75, 25:65], affine["ct"]),
        "mr": (mr[20:75, 35:95, 30:85], affine["mr"]),
        "defaced": (defaced[10:60, 60:150, 40:120], affine["defaced"]),
        "oblique": (mr[20:70, 30:90, 40:85], grid((2.0, 2.0, 2.0), tilt)),
        "oblique-anisotropic": (
            ct[30:90, 20:80:2, 10:85:3], grid((2.0, 4.0, 6.0), rotation(33, 1) @ tilt)
        ),
        "lps": (mr[70:20:-1, 90:35:-1, 40:90], grid((2.0, 2.0, 2.0), np.diag([-1.0, -1.0, 1.0]))),
        "sagittal": (
            np.ascontiguousarray(ct.transpose(1, 2, 0)[30:70, 20:60, 40:80]),
            grid((3.0, 3.0, 3.0), np.array([[0, 0, 1.0], [1.0, 0, 0], [0, 1.0, 0]])),
        ),
        "thick-slices": (mr[10:90, 20:110, ::6], grid((1.0, 1.0, 6.0))),
        "thick-in-plane": (ct[::8, 10:70, 20:70], grid((9.0, 1.7, 2.1))),
        "two-thick-axes": (ct[20:100:5, 10:90:5, :60], grid((8.0, 8.0, 2.0))),
        "fine": (mr[30:80, 40:90, 30:70], grid((0.9, 0.8, 1.1))),
        "smaller-than-window": (mr[40:59, 50:73, 40:57], grid((2.0, 2.0, 2.0))),
        "one-slice": (mr[:, :, 60:61], grid((2.0, 2.0, 6.0))),
        "zeros-around": (padded, grid((2.0, 2.2, 1.9))),
        "hole-of-zeros": (hollow, grid((1.5, 2.0, 1.5))),
        "zeros": (np.zeros((40, 50, 30), np.int16), grid((2.0, 2.0, 2.0))),
        "fractions": (
            gaussian_filter(ct[30:90, 30:80, 20:70].astype(np.float32), 0.7),
            grid((2.0, 3.0, 2.5)),
        ),
    }


def write(folder: Path) -> dict[str, list[Path]]:
    """Writes each volume and a second channel of it (blurred); gives back the paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (voxels, affine) in volumes().items():
        paths = [folder / f"{name}_{channel:04d}.nii.gz" for channel in range(2)]
        blurred = gaussian_filter(voxels.astype(np.float32), 1.0)
        for path, values in zip(paths, (voxels, blurred)):
            image = nibabel.Nifti1Image(np.ascontiguousarray(values), affine)
            image.set_qform(affine, 1)
            image.set_sform(affine, 1)
            nibabel.save(image, path)
        found[name] = paths
    return found
