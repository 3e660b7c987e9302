"""A short run of the refinement: crops are made, it learns from them, and is exported."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_train import phantom

from voxmask_training import export_refinement, train_refinement
from voxmask_training.channels import CoarseGrid
from voxmask_training.network import AREA, FOREGROUND
from voxmask_training.refinement import (
    LOGIT_MOST,
    LOGIT_UNIT,
    MODALITIES,
    TASKS,
    Refinement,
    refined_channels,
    seen_by,
)
from voxmask_training.refinement_samples import CROP_CELLS, CROPS, LOGIT, TARGET, crops
from voxmask_training.samples import store
from voxmask_training.weights import FILES, read_refinement


def first_network(task: int) -> SimpleNamespace:
    """What a first network might say of a phantom: dark is altered, and no body."""
    dark = 3.0 if task == AREA else -3.0
    return SimpleNamespace(task=task, logits=lambda cells: np.where(cells[0] < 0.01, dark, -dark))


def made(seed: int, task: int = AREA) -> np.ndarray:
    """Crops of a phantom: of the area a blanked one."""
    rng = np.random.default_rng(seed)
    found = crops(phantom(rng, task == AREA), first_network(task), rng)
    assert found is not None
    return found


def test_a_field_is_laid_on_finer_cells():
    coarse = CoarseGrid((20, 20, 20), (2.0, 2.0, 2.0))
    fine = CoarseGrid((20, 20, 20), (2.0, 2.0, 2.0), 2.0)
    ramp = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((1, 10, 10), np.float32)
    found = fine.from_coarser(coarse, ramp)
    assert found.shape == (20, 20, 20)
    # A quarter of a coarse cell outside, then by halves.
    assert found[:4, 3, 3] == pytest.approx([0.0, 0.25, 0.75, 1.25])
    assert found[-1, 3, 3] == pytest.approx(9.0)


@pytest.mark.parametrize("task", [AREA, FOREGROUND])
def test_crops_hold_the_border_and_what_the_first_network_said(task):
    cells = made(0, task)
    assert cells.shape == (CROPS[task], LOGIT + 1, *[CROP_CELLS] * 3)
    layers = train_refinement.restored(torch.from_numpy(cells))
    mask, logit = layers[:, TARGET], layers[:, LOGIT] * LOGIT_UNIT
    assert (mask.amax((1, 2, 3)) == 1.0).all() and (mask.amin((1, 2, 3)) == 0.0).all()
    assert float(logit.max()) == pytest.approx(3.0, abs=0.1)
    assert float(logit.abs().max()) <= LOGIT_MOST


@pytest.mark.parametrize("task", [AREA, FOREGROUND])
def test_an_untrained_refinement_says_what_the_first_network_said(task):
    channels = torch.rand(1, len(refined_channels(task)), 16, 8, 24)
    with torch.no_grad():
        said = Refinement(task)(channels)
    assert torch.allclose(said, channels[:, -1:] * LOGIT_UNIT)


def judged_on(fold: str, card: dict) -> dict:
    training = card["refinement"]["training"] | {"held_out_fold": fold}
    return card | {"refinement": card["refinement"] | {"training": training}}


@pytest.mark.parametrize("name", TASKS)
def test_it_trains_goes_on_and_is_exported(name, tmp_path, monkeypatch):
    task = TASKS[name]
    for n in range(3):
        kind = "plane-blur" if task == AREA else "intact-MR"
        about = {"kind": kind, "subject": f"phantom {n}", "modality": "t1"}
        about = {key: np.asarray(value) for key, value in about.items()}
        cells = {"cells": made(n, task)}
        store(tmp_path / "samples" / "phantom" / f"1_{n:05d}.npz", cells | about)
    run = tmp_path / "run"

    def train(steps: int) -> None:
        words = ["train_refinement", "--task", name, "--samples", tmp_path / "samples"]
        words += ["--run", run]
        words += ["--fold", "none", "--steps", steps, "--threads", 1]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        train_refinement.main()

    train(2)
    train(3)
    state = torch.load(run / "checkpoint.pt", "cpu", weights_only=False)
    assert state["step"] == 3
    folder = tmp_path / "models" / FILES[task]
    folder.mkdir(parents=True)
    seen = {"channels": list(seen_by(task)), "margin_cells": 0}
    (folder / "card.json").write_text(json.dumps({"input": seen, "area": {}, "training": {}}))
    words = [
        "export_refinement",
        "--task",
        name,
        "--run",
        run,
        run,
        "--models",
        tmp_path / "models",
    ]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    export_refinement.main()
    card = json.loads((folder / "card.json").read_text())
    assert list(card) == ["input", "area", "refinement", "training"]
    assert card["refinement"]["input"]["channels"][-1] == "logit"
    assert card["refinement"]["training"]["steps"] == [3, 3]
    assert card["refinement"]["modalities"] == list(MODALITIES[task])
    assert (folder / card["refinement"]["weights"]["file"]).stat().st_size > 100_000
    # What was exported can be a part of a mean,
    words[words.index(run)] = folder / export_refinement.FILE
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    export_refinement.main()
    card = json.loads((folder / "card.json").read_text())
    assert card["refinement"]["training"]["steps"] == [[3, 3], 3]
    # but not of one that leaves out others,
    (folder / "card.json").write_text(json.dumps(judged_on("none", card)))
    with pytest.raises(SystemExit, match="did not leave out"):
        export_refinement.main()
    # and be trained further.
    exported = read_refinement(folder / export_refinement.FILE)
    assert set(exported) == set(state["average"])
    for key, weight in exported.items():
        assert torch.allclose(weight, state["average"][key], rtol=1e-3, atol=1e-6), key
    run = tmp_path / "further"
    words = ["--task", name, "--run", run, "--fold", "none", "--steps", 1, "--threads", 1]
    words += ["--samples", tmp_path / "samples", "--initial", folder / export_refinement.FILE]
    monkeypatch.setattr(sys, "argv", ["train_refinement", *(str(word) for word in words)])
    train_refinement.main()
    assert torch.load(run / "checkpoint.pt", "cpu", weights_only=False)["step"] == 1
