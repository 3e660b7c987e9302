"""Runs voxmask's executables on files; nothing is computed here."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from .scores import Mask


@dataclass(frozen=True)
class Found:
    """What a step wrote, and how long the whole command took."""

    mask: Mask
    report: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Step:
    """One executable with the model that it is to use (None: its own)."""

    executable: Path
    folder: Path
    """Where masks and reports are written."""
    model: Path | None = None
    threads: int = 1

    def run(self, image: Path, name: str, probability: Path | None = None) -> Found:
        """Segments a volume into `NAME.nii.gz`; raises if the executable fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        mask, report = self.folder / f"{name}.nii.gz", self.folder / f"{name}.json"
        command = [str(self.executable), "--input", str(image), "--output", str(mask)]
        command += ["--report", str(report), "--threads", str(self.threads)]
        command += ["--overwrite", "--quiet"]
        if probability is not None:
            command += ["--probability", str(probability)]
        if self.model is not None:
            command += ["--model", str(self.model)]
        start = time.monotonic()
        subprocess.run(command, check=True)
        seconds = time.monotonic() - start
        return Found(read_mask(mask), json.loads(report.read_text()), seconds)


def read_mask(path: Path) -> Mask:
    """Reads a mask on its own grid."""
    return np.asarray(nibabel.load(path).dataobj) > 0.5


def read_voxels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads float32 voxels as stored (first volume of a series) and spacing [mm]."""
    image = nibabel.load(path)
    voxels = np.asarray(image.dataobj, np.float32)
    while voxels.ndim > 3:
        voxels = voxels[..., 0]
    return voxels, np.array(image.header.get_zooms()[:3], float)
