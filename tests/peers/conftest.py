"""Executables to ask and volumes to ask them about.

Executables are looked for in the folder ``VOXMASK_BIN`` (default ``target/release``).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def run_step() -> Callable[..., dict]:
    """Runs a step, such as ``resample``, and gives back the ``result`` of its report."""
    folder = Path(os.environ.get("VOXMASK_BIN", ROOT / "target" / "release"))

    def run(step: str, *arguments: object) -> dict:
        command = [folder / f"voxmask-{step}", "--report", "-", "--quiet", *arguments]
        done = subprocess.run(
            [str(a) for a in command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["result"]

    return run


@pytest.fixture(scope="session")
def save_volume() -> Callable[[Path, np.ndarray, np.ndarray], None]:
    """Saves voxels [i, j, k] and their affine (index to RAS+ mm), which the file keeps as f32."""

    def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
        image = nib.Nifti1Image(voxels, affine)
        image.set_sform(affine, code=1)
        image.set_qform(None, code=0)
        nib.save(image, path)

    return save
