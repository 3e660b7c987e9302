"""Scans for the pilot: put on one grid, altered in a known way, and cut into patches by voxmask."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

# Share of the body that is blanked, in front of and below an oblique plane, as defacing tools do.
ALTERED_SHARE = 0.15
# Tilt of that plane against the coronal one [degrees]: lowest and highest.
TILT = (15.0, 45.0)
# Intensity of what is outside the scan or blanked, in standard deviations below the body's mean.
BLANK_QUANTILE = 0.001


@dataclass
class Scan:
    """A scan on the working grid (RAS); arrays are [i, j, k], intensities are z-scores of the body."""

    name: str
    image: np.ndarray
    foreground: np.ndarray
    area: np.ndarray
    blank: float

    @property
    def altered(self) -> np.ndarray:
        """The scan with its area blanked."""
        return np.where(self.area, self.blank, self.image).astype(np.float32)


class Voxmask:
    """The executables."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, step: str, *arguments: object) -> dict:
        """Runs a step and gives back the ``result`` of its report."""
        command = [self.folder / f"voxmask-{step}", "--overwrite", "--quiet", "--report", "-"]
        command = [str(a) for a in (*command, *arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{step} of {arguments}: {done.stderr.strip()}")
        return json.loads(done.stdout)["result"]


def prepare(voxmask: Voxmask, path: Path, spacing_mm: float, work: Path, seed: int) -> Scan | None:
    """Finds the foreground and resamples both; ``None`` when no anatomy is found."""
    folder = work / path.name.removesuffix(".gz").removesuffix(".nii")
    folder.mkdir(parents=True, exist_ok=True)
    mask, image = folder / "foreground.nii.gz", folder / "image.nii.gz"
    if not voxmask("segment-foreground", "--input", path, "--output", mask)["anatomy_found"]:
        return None
    spacing = ("--spacing", ",".join([str(spacing_mm)] * 3), "--orientation", "RAS")
    voxmask("resample", "--input", path, "--output", image, *spacing)
    small = folder / "small.nii.gz"
    nearest = ("--interpolation", "nearest", "--fill-value", 0)
    voxmask("resample", "--input", mask, "--output", small, *spacing, *nearest)
    values = nib.load(image).get_fdata(dtype=np.float32)
    foreground = np.asanyarray(nib.load(small).dataobj) > 0
    body = values[foreground]
    values = (values - body.mean()) / max(float(body.std()), 1e-6)
    area = in_front_of_a_plane(foreground, np.random.default_rng(seed))
    blank = float(np.quantile(values, BLANK_QUANTILE))
    return Scan(folder.name, values, foreground, area, blank)


def in_front_of_a_plane(foreground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Voxels that are blanked: in front of a tilted plane that leaves the rest of the body alone."""
    tilt = np.radians(rng.uniform(*TILT))
    _, j, k = np.indices(foreground.shape, sparse=True)
    along = np.cos(tilt) * j - np.sin(tilt) * k + 0 * foreground
    return along > np.quantile(along[foreground], 1 - ALTERED_SHARE)


def near(scan: Scan, distance_voxels: float) -> np.ndarray:
    """True anatomy outside the area, no further from it than so many voxels."""
    away = ndimage.distance_transform_edt(~scan.area)
    return scan.foreground & ~scan.area & (away <= distance_voxels)


def save(path: Path, voxels: np.ndarray, spacing_mm: float) -> None:
    nib.save(nib.Nifti1Image(voxels, np.diag([spacing_mm] * 3 + [1.0])), path)


def patches(
    voxmask: Voxmask, scan: Scan, folder: Path, shape: int, count: int, seed: int, foreground: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Training patches of the altered scan and their loss masks, both [patch, i, j, k].

    With ``foreground`` centres are drawn over the body, else places over the whole scan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "image.nii.gz", scan.altered, 1.0)
    save(folder / "area.nii.gz", scan.area.astype(np.uint8), 1.0)
    save(folder / "foreground.nii.gz", scan.foreground.astype(np.uint8), 1.0)
    sampling = ("--sampling", "anywhere")
    if foreground:
        mask = folder / "foreground.nii.gz"
        sampling = ("--sampling", "random", "--foreground", mask)
    voxmask(
        *("crop-patches", "--input", folder / "image.nii.gz", "--output", folder / "patches"),
        *("--anonymization-area", folder / "area.nii.gz", "--seed", seed, "--count", count),
        *("--patch-shape", f"{shape},{shape},{shape}", *sampling),
    )
    lines = (folder / "patches" / "index.jsonl").read_text().splitlines()
    index = [json.loads(line) for line in lines]
    load = [[np.load(folder / "patches" / e[key]) for e in index] for key in ("name", "loss_mask")]
    return np.stack(load[0]), np.stack(load[1])


def saving(voxmask: Voxmask, scan: Scan, folder: Path, shape: int) -> dict:
    """What cutting only where the body is saves in one scan: patches of a grid, and voxels."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "image.nii.gz", scan.image, 1.0)
    save(folder / "foreground.nii.gz", scan.foreground.astype(np.uint8), 1.0)
    result = voxmask(
        *("crop-patches", "--input", folder / "image.nii.gz", "--output", folder / "grid"),
        *("--foreground", folder / "foreground.nii.gz"),
        *("--patch-shape", f"{shape},{shape},{shape}"),
    )
    voxels = int(np.prod(result["grid"]["shape"]))
    return {
        "patches": result["count"],
        "whole": result["whole_scan_count"],
        "voxels": voxels,
        "body": result["foreground_voxels"],
        "unused": round(result["unused_share"] * voxels),
    }


def cut(array: np.ndarray, centre: np.ndarray, shape: int, fill: float) -> np.ndarray:
    """A cube of ``shape`` voxels round a centre [i, j, k]; ``fill`` outside the array."""
    half = shape // 2
    padded = np.pad(array, half, constant_values=fill)
    i, j, k = centre
    return padded[i : i + shape, j : j + shape, k : k + shape]
