"""The loaders of docs/loaders.md, run as they stand there; each is skipped where its library is not."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "data" / "models"
PAGE = (ROOT / "docs" / "loaders.md").read_text()
SHAPE = (32, 28, 20)
ALTERED = slice(20, None)


def blocks(title: str) -> list[str]:
    """Code of the section whose title starts so."""
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (section,) = [s for s in sections if s.startswith(title)]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)


def run_blocks(title: str, folder: Path, *libraries: str) -> dict:
    """What the section's code leaves behind."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    names: dict = {"folder": str(folder)}
    for block in blocks(title):
        exec(compile(block, f"docs/loaders.md: {title}", "exec"), names)
    return names


def voxmask(step: str, *arguments: object) -> None:
    folder = Path(os.environ.get("VOXMASK_BIN", ROOT / "target" / "release"))
    command = [folder / f"voxmask-{step}", "--quiet", *arguments]
    subprocess.run([str(a) for a in command], check=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Two scans with an ellipsoid of tissue, their masks and reports."""
    base = tmp_path_factory.mktemp("loaders")
    away = [(np.arange(n) - (n - 1) / 2) / (0.4 * n) for n in SHAPE]
    i, j, k = np.meshgrid(*away, indexing="ij")
    for n in (1, 2):
        noise = np.random.default_rng(n).random(SHAPE)
        image = np.where(i**2 + j**2 + k**2 < 1, 600 + 200 * noise, 20 * noise)
        scan = base / "scans" / f"sub-{n:02}_T1w.nii.gz"
        scan.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(image.astype(np.int16), np.diag([1, 1, 2, 1])), scan)
        results = base / "results" / f"{n}"
        results.mkdir(parents=True)
        for step in ("foreground", "anonymization-area")[: 3 - n]:
            voxmask(
                *(f"segment-{step}", "--input", scan, "--model", MODELS / step),
                *("--output", results / f"{step}.nii.gz", "--report", results / f"{step}.json"),
            )
    return base


@pytest.fixture(scope="module")
def patches(base) -> Path:
    """Patches of the first scan as files, and as zarr in ``zarr`` beside them."""
    area = np.zeros(SHAPE, np.uint8)
    area[ALTERED] = 1
    nib.save(nib.Nifti1Image(area, np.diag([1, 1, 2, 1])), base / "area.nii.gz")
    for form in ("npy", "zarr"):
        voxmask(
            *("crop-patches", "--input", base / "scans" / "sub-01_T1w.nii.gz"),
            *("--foreground", base / "results" / "1" / "foreground.nii.gz"),
            *("--anonymization-area", base / "area.nii.gz", "--patch-shape", "16,16,8"),
            *("--sampling", "random", "--normalization", "z-score", "--dtype", "float16"),
            *("--format", form, "--output", base / form),
        )
    return base


@pytest.fixture(scope="module")
def datalist(base) -> Path:
    voxmask(
        *("collect", "--input", base / "scans", "--results", base / "results"),
        *("--layout", "monai", "--output", base / "list"),
    )
    return base / "list"


def check(names: dict) -> None:
    """A batch of two patches with a loss mask of zeros and ones."""
    image, loss_mask = names["image"], names["loss_mask"]
    assert tuple(image.shape) == tuple(loss_mask.shape) == (2, 1, 16, 16, 8)
    assert float(np.asarray(image).std()) > 0
    assert set(np.unique(np.asarray(loss_mask))) <= {0, 1}


def test_pytorch_reads_npy_and_leaves_altered_voxels_out(patches):
    names = run_blocks("PyTorch, from `.npy`", patches / "npy", "torch")
    check(names)
    image, loss_mask, loss = (names[key] for key in ("image", "loss_mask", "loss"))
    measured = np.asarray(image)[np.asarray(loss_mask) == 1]
    np.testing.assert_allclose(float(loss), np.square(measured).mean(), rtol=1e-4)


def test_pytorch_reads_zarr_as_npy(patches):
    npy = run_blocks("PyTorch, from `.npy`", patches / "npy", "torch")
    zarr = run_blocks("PyTorch, from one zarr", patches / "zarr", "torch", "zarr")
    check(zarr)
    for key in ("image", "loss_mask"):
        np.testing.assert_array_equal(np.asarray(npy[key]), np.asarray(zarr[key]))


def test_monai_draws_from_the_foreground(datalist):
    check(run_blocks("MONAI", datalist, "monai"))


def test_torchio_draws_from_the_foreground(datalist):
    names = run_blocks("TorchIO", datalist, "torchio")
    check(names)
    # The centre of each patch is body.
    foreground = np.asarray(names["batch"]["foreground"]["data"])
    assert (foreground[:, 0, 8, 8, 4] == 1).all()


def test_every_loader_is_about_ten_lines():
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        lines = [line for line in block.splitlines() if line.strip()]
        assert len(lines) <= 14, block
