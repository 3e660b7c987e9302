"""Collected derivatives through the BIDS validator (``bids-validator-deno``)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "data" / "models"
VALIDATOR = shutil.which("bids-validator-deno", path=Path(sys.executable).parent)


def voxmask(step: str, *arguments: object) -> None:
    folder = Path(os.environ.get("VOXMASK_BIN", ROOT / "target" / "release"))
    command = [folder / f"voxmask-{step}", "--quiet", *arguments]
    subprocess.run([str(a) for a in command], check=True)


@pytest.fixture(scope="module")
def derivatives(tmp_path_factory) -> Path:
    """Masks of three scans: one of a session, two of one subject, one whose name is none of BIDS."""
    base = tmp_path_factory.mktemp("bids")
    shape = (24, 28, 20)
    away = [(np.arange(n) - (n - 1) / 2) / (0.4 * n) for n in shape]
    i, j, k = np.meshgrid(*away, indexing="ij")
    names = (
        "sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-02/anat/sub-02_T2w.nii.gz",
        "other/scan of somebody.nii.gz",
    )
    for n, name in enumerate(names):
        noise = np.random.default_rng(n).random(shape)
        image = np.where(i**2 + j**2 + k**2 < 1, 600 + 200 * noise, 20 * noise)
        scan = base / "scans" / name
        scan.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(image.astype(np.int16), np.diag([1, 1, 2, 1])), scan)
        results = base / "results" / f"{n}"
        results.mkdir(parents=True)
        for step in ("foreground", "anonymization-area"):
            voxmask(
                *(f"segment-{step}", "--input", scan, "--model", MODELS / step),
                *("--output", results / f"{step}.nii.gz", "--report", results / f"{step}.json"),
            )
    voxmask(
        *("collect", "--input", base / "scans", "--results", base / "results"),
        *("--layout", "bids", "--output", base / "derivatives"),
    )
    return base / "derivatives"


def test_every_mask_has_a_name_of_its_own(derivatives):
    masks = sorted(path.name for path in derivatives.rglob("*_mask.nii.gz"))
    assert len(masks) == 8
    assert "sub-01_ses-a_acq-mprage_desc-foreground_mask.nii.gz" in masks
    assert "sub-02_desc-foregroundT2w_mask.nii.gz" in masks
    assert all(path.with_name(path.name[:-7] + ".json").exists()
               for path in derivatives.rglob("*_mask.nii.gz"))


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_bids_validator_accepts_the_derivatives(derivatives):
    done = subprocess.run(
        [VALIDATOR, str(derivatives), "--format", "json"], capture_output=True, text=True
    )
    report = json.loads(done.stdout)
    issues = report["issues"]["issues"]
    errors = [issue for issue in issues if issue.get("severity") == "error"]
    assert not errors, errors
    assert done.returncode == 0
    # It has looked at the masks, and would have refused something else.
    (derivatives / "sub-01" / "anatomy.txt").write_text("no BIDS")
    refused = subprocess.run(
        [VALIDATOR, str(derivatives), "--format", "json"], capture_output=True, text=True
    )
    (derivatives / "sub-01" / "anatomy.txt").unlink()
    assert "anatomy.txt" in refused.stdout
