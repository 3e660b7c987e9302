"""Fine-tuning: what it learns from, and what it leaves."""

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from voxmask_training import fine_tune

MODELS = Path(__file__).parents[2]


def site(folder: Path, count: int) -> tuple[Path, Path]:
    """Scans of a dim block in air, whose masks leave out its lower half."""
    rng = np.random.default_rng(0)
    scans, masks = folder / "scans", folder / "masks"
    scans.mkdir()
    masks.mkdir()
    for n in range(count):
        values = rng.rayleigh(20, (20, 24, 16))
        values[4:16, 4:20, 2:14] += 300
        mask = np.zeros(values.shape, np.uint8)
        mask[4:16, 4:20, 8:14] = 1
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), affine), scans / f"{n}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, affine), masks / f"{n}.nii.gz")
    return scans, masks


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["fine_tune", *map(str, arguments)])
    fine_tune.main()


def test_a_site_is_learnt_and_its_card_claims_no_old_figures(tmp_path, monkeypatch, capsys):
    scans, masks = site(tmp_path, 4)
    run(
        monkeypatch,
        *("--data", scans, "--references", masks, "--models", MODELS),
        *("--output", tmp_path / "out", "--steps", 60, "--threads", 1),
    )
    printed = capsys.readouterr().out
    assert "3 scans to learn from, 1 kept aside" in printed
    words = next(line for line in printed.splitlines() if "learnt from:" in line).split()
    before, after = float(words[4]), float(words[6])
    assert after > before
    card = json.loads((tmp_path / "out/foreground/card.json").read_text())
    assert card["evaluation"] == [] and card["training"]["scans"] == 3
    shipped = json.loads((MODELS / "foreground/card.json").read_text())
    assert card["boundary"].items() >= shipped["boundary"].items()
    assert not (tmp_path / "out/anonymization-area").exists()


def test_a_mask_on_another_grid_is_refused(tmp_path):
    scans, masks = site(tmp_path, 1)
    wrong = nibabel.Nifti1Image(np.zeros((20, 24, 15), np.uint8), np.diag([4.0, 4.0, 4.0, 1.0]))
    nibabel.save(wrong, masks / "0.nii.gz")
    with pytest.raises(ValueError, match="not on the grid"):
        fine_tune.read_annotated(scans / "0.nii.gz", masks / "0.nii.gz", "foreground")


def test_an_area_is_learnt_and_its_scans_are_judged(tmp_path, monkeypatch, capsys):
    scans, masks = site(tmp_path, 3)
    # Of two of them the block's upper half is blanked, one is as it was.
    for n in range(3):
        scan, mask = (nibabel.load(folder / f"{n}.nii.gz") for folder in (scans, masks))
        values, area = np.asarray(scan.dataobj).copy(), np.asarray(mask.dataobj) * (n > 0)
        values[area > 0] = 0
        nibabel.save(nibabel.Nifti1Image(values, scan.affine), scans / f"{n}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(area, mask.affine), masks / f"{n}.nii.gz")
    monkeypatch.setattr(fine_tune, "WINDOW", (16, 32, 32))
    run(
        monkeypatch,
        *("--data", scans, "--references", masks, "--models", MODELS, "--task", "area"),
        *("--output", tmp_path / "out", "--steps", 240, "--threads", 1),
    )
    printed = capsys.readouterr().out
    assert "3 scans to learn from, 0 kept aside" in printed
    words = next(line for line in printed.splitlines() if "learnt from:" in line).split()
    assert float(words[6]) > float(words[4])
    folder = tmp_path / "out/anonymization-area"
    card = json.loads((folder / "card.json").read_text())
    shipped = json.loads((MODELS / "anonymization-area/card.json").read_text())
    assert card["area"] == shipped["area"] and card["evaluation"] == []
    assert (folder / "refinement.onnx").exists()
    annotated = fine_tune.read_annotated(scans / "0.nii.gz", masks / "0.nii.gz", "area")
    assert not annotated.altered and annotated.area_known
