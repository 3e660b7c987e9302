"""A pilot of a few steps on phantoms; skipped where PyTorch is not installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PILOT = ROOT / "examples" / "pretraining"
SHAPE = (64, 72, 56)


def missing(*libraries: str) -> list[str]:
    return [name for name in libraries if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Three heads and three label maps: two nested ellipsoids of 3 mm voxels."""
    base = tmp_path_factory.mktemp("pilot")
    away = [(np.arange(n) - (n - 1) / 2) / (0.42 * n) for n in SHAPE]
    i, j, k = np.meshgrid(*away, indexing="ij")
    labels = (i**2 + j**2 + k**2 < 1).astype(np.int16) + (i**2 + j**2 + k**2 < 0.3)
    for folder in ("scans", "labels"):
        (base / folder).mkdir()
    for n in range(3):
        noise = np.random.default_rng(n).random(SHAPE)
        image = np.array([0, 400, 800])[labels] + 60 * noise
        affine = np.diag([3, 3, 3, 1])
        nib.save(nib.Nifti1Image(image.astype(np.int16), affine), base / "scans" / f"{n}.nii.gz")
        nib.save(nib.Nifti1Image(labels, affine), base / "labels" / f"{n}.nii.gz")
    return base


@pytest.mark.skipif(bool(missing("torch", "matplotlib")), reason="PyTorch is not installed")
def test_a_pilot_writes_its_page_with_every_figure(data):
    folder = Path(os.environ.get("VOXMASK_BIN", ROOT / "target" / "release"))
    page = data / "pilot.md"
    command = [sys.executable, PILOT / "pilot.py", "--data", data / "scans", "--bin", folder]
    command += ["--labels", data / "labels", "--structure", "2", "--page", page]
    command += ["--work", data / "work", "--steps", "20", "--seeds", "2", "--patches", "4"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    for part in ("## Saved", "## Steps to the same", "## Altered areas", "## Another task"):
        assert part in text
    assert "nan" not in text
    plots = {path.name for path in (data / "pilot").glob("*.png")}
    assert plots == {"curves.png", "altered.png", "downstream.png"}


@pytest.mark.skipif(bool(missing("torch", "matplotlib")), reason="PyTorch is not installed")
def test_steps_to_an_error_are_read_between_measurements(monkeypatch):
    monkeypatch.syspath_prepend(str(PILOT))
    import page

    curve = [(0, 1.0), (10, 0.6), (20, 0.2)]
    assert page.steps_to(curve, 0.8) == pytest.approx(5)
    assert page.steps_to(curve, 0.2) == pytest.approx(20)
    assert page.steps_to(curve, 0.1) == float("inf")


@pytest.mark.skipif(bool(missing("torch")), reason="PyTorch is not installed")
def test_a_loss_mask_leaves_altered_voxels_without_gradient(monkeypatch):
    monkeypatch.syspath_prepend(str(PILOT))
    import network
    import torch

    found = torch.zeros(1, 1, 4, 4, 4, requires_grad=True)
    where = torch.ones(1, 1, 4, 4, 4)
    where[..., 2:] = 0
    network.mean_square(found, torch.ones_like(where), where).backward()
    assert (found.grad[..., 2:] == 0).all() and (found.grad[..., :2] != 0).all()
