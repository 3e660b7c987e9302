"""A short run of everything from samples to a model: it learns, goes on, and is exported."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from voxmask_training import export, train
from voxmask_training.folds import FOLDS_FILE
from voxmask_training.samples import Sample, arrays, store
from voxmask_training.scan import Scan


def phantom(rng: np.random.Generator, blank: bool) -> Sample:
    """An ellipsoid with noise around it, or with all that lies in front of a plane set to 0."""
    shape = tuple(int(n) for n in rng.integers(30, 40, 3))
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum((g / rng.uniform(0.5, 0.8)) ** 2 for g in grid) < 1
    values = np.abs(rng.normal(0, 12, shape)) + inside * rng.normal(300, 20, shape)
    area = np.zeros(shape, bool)
    if blank:
        area = grid[1] > rng.uniform(0.1, 0.4)
        values[area] = 0
    scan = Scan(
        np.rint(values).astype(np.float32),
        np.full(3, 4.0),
        False,
        foreground=inside & ~area,
        quality=1.0,
        mni=np.eye(4),
        area=area,
        free=np.zeros(shape, bool),
        subject="phantom",
        region="head",
    )
    return Sample(scan, "plane-zero" if blank else "intact", "zero" if blank else "none", blank)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    """Eight phantoms and their altered ones, and one of a held-out subject."""
    folder = tmp_path_factory.mktemp("samples")
    rng = np.random.default_rng(0)
    for n in range(16):
        store(folder / "phantom" / f"1_{n:05d}.npz", arrays(phantom(rng, n % 2 == 1)))
    held_out = json.loads(FOLDS_FILE.read_text())["0"][0]
    other = arrays(phantom(rng, True)) | {"subject": np.asarray(held_out)}
    store(folder / "held-out" / "1_00016.npz", other)
    return folder


def run(monkeypatch, module, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


def losses(run_folder: Path, name: str) -> list[float]:
    with (run_folder / "curve.csv").open() as lines:
        return [float(row[3]) for row in csv.reader(lines) if row[2] == name]


def test_a_short_run_learns_goes_on_and_becomes_a_model(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "LOG_STEPS", 5)
    monkeypatch.setattr(train, "WINDOWS", {(48, 48, 48): 1.0})
    monkeypatch.setattr(train, "FOREGROUND_WINDOWS", {(48, 48, 48): 1.0})
    common = ("--samples", samples, "--run", tmp_path / "run", "--fold", 0)
    run(monkeypatch, train, *common, "--steps", 30)
    first = losses(tmp_path / "run", "foreground_intact")
    assert len(first) == 6 and first[-1] < 0.8 * first[0]
    run(monkeypatch, train, *common, "--steps", 36)
    # It has had a second at the least, so no step is left for it.
    run(monkeypatch, train, *common, "--hours", 1 / 3600)
    state = train.torch.load(tmp_path / "run/checkpoint.pt", weights_only=False)
    assert state["step"] == 36 and len(losses(tmp_path / "run", "foreground_intact")) == 7

    models = ("--models", tmp_path / "models", "--fold", 0)
    run(monkeypatch, export, "--run", tmp_path / "run", "--samples", samples, *models)
    for name in ("foreground", "anonymization-area"):
        card = json.loads((tmp_path / "models" / name / "card.json").read_text())
        # The held-out subject was there, and was not trained on.
        assert card["training"]["subjects"] == 1 and card["training"]["scans"] == 16
        assert card["training"]["steps"] == state["step"]

    # From the model on, not from random weights: the first losses are those of the end.
    again = ("--samples", samples, "--run", tmp_path / "again", "--fold", 0)
    initial = ("--initial", tmp_path / "models", "--rate", 1e-5)
    run(monkeypatch, train, *again, *initial, "--steps", 5)
    assert losses(tmp_path / "again", "foreground_intact")[0] < 0.8 * first[0]

    alone = ("--samples", samples, "--run", tmp_path / "alone", "--only", "foreground")
    run(monkeypatch, train, *alone, *initial, "--steps", 5)
    assert losses(tmp_path / "alone", "foreground_altered")
    assert not losses(tmp_path / "alone", "area_altered")
    alone = ("--samples", samples, "--models", tmp_path / "one", "--only", "foreground")
    run(monkeypatch, export, "--run", tmp_path / "alone", tmp_path / "models", *alone)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["foreground"]
    # A mean of a run and of exported models has the steps of both.
    card = json.loads((tmp_path / "one/foreground/card.json").read_text())
    own = train.torch.load(tmp_path / "alone/checkpoint.pt", weights_only=False)["step"]
    assert card["training"]["steps"] == own + state["step"]


def sample(name: str, altered: bool = True, twin: str = "") -> train.Sample:
    cells, nothing = train.torch.zeros(10, 1, 1, 1, dtype=train.torch.uint8), np.zeros((0, 3))
    return train.Sample(name, "", "", "", altered, twin, 0.0, True, cells, nothing, False)


def test_as_many_steps_as_asked_for_repeat(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "WINDOWS", {(48, 48, 48): 1.0})
    weights = []
    for name in ("one", "other"):
        common = ("--samples", samples, "--run", tmp_path / name, "--fold", "none")
        run(monkeypatch, train, *common, "--steps", 4)
        state = train.torch.load(tmp_path / name / "checkpoint.pt", weights_only=False)
        assert state["step"] == 4
        weights.append(state["average"])
    for key, value in weights[0].items():
        assert train.torch.equal(value, weights[1][key]), key


def test_a_twin_comes_with_its_altered_scan_alone(tmp_path):
    library = train.Library(tmp_path, frozenset())
    for one in (sample("1_0"), sample("1_0_before", False, "1_0"), sample("1_1", False)):
        library.add(one)
    rng = np.random.default_rng(0)
    drawn = [library.draw(rng, 1) for _ in range(400)]
    names = [tuple(s.name for s in samples) for samples, _ in drawn]
    assert set(names) == {("1_0", "1_0_before"), ("1_0", "1_1")}
    pairs = [groups for samples, groups in drawn if samples[1].twin]
    assert len(pairs) == pytest.approx(400 * train.TWIN_SHARE, abs=50)
    assert all(groups == [0, 0] for groups in pairs)


def test_for_the_foreground_every_subject_of_a_kind_comes_as_often(tmp_path):
    library = train.Library(tmp_path, frozenset())
    scans = [("head", "a", 9), ("head", "b", 1), ("chest", "c", 3), ("chest", "d", 1)]
    for region, subject, count in scans:
        for n in range(count):
            one = sample(f"{subject}{n}", False)
            library.add(replace(one, region=region, subject=subject, foreground_weight=1.0))
    library.add(replace(sample("unknown"), subject="e"))
    rng = np.random.default_rng(0)
    drawn, groups = library.draw_bodies(rng, 2000)
    assert groups == list(range(2000))
    shares = {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}
    for subject, share in shares.items():
        found = sum(one.subject == subject for one in drawn) / 2000
        assert found == pytest.approx(share, abs=0.04), subject


def test_some_samples_of_a_step_are_the_worst_of_a_few(tmp_path):
    library = train.Library(tmp_path, frozenset())
    names = [f"{n}" for n in range(10)]
    pile = [sample(name) for name in names]
    library.errors = {name: float(name == "7") for name in names}
    rng = np.random.default_rng(0)
    picked = [library.pick(pile, rng).name for _ in range(2000)]
    # One in ten of any, and of the worst, where it is among five of ten drawn with return.
    share = 0.1 + train.WORST_SHARE * (0.9 - 0.9**5)
    assert picked.count("7") / 2000 == pytest.approx(share, abs=0.04)
    assert set(picked) == set(names)


def test_scans_as_they_are_come_in_their_share_where_there_are_any(tmp_path):
    library = train.Library(tmp_path, frozenset())
    for name in ("1_0", "original_a_000"):
        library.add(replace(sample(name), foreground_weight=1.0, subject=name))
    library.add(sample("1_1", altered=False))  # the one intact scan of both kinds
    rng = np.random.default_rng(0)
    areas = [s.name for _ in range(1000) for s in library.draw(rng, 1)[0]]
    bodies = [s.name for s in library.draw_bodies(rng, 1000)[0]]
    for drawn in (areas, bodies):
        share = drawn.count("original_a_000") / 1000
        assert share == pytest.approx(train.ORIGINAL_SHARE, abs=0.05)
    assert areas.count("1_1") == 1000


def test_samples_that_find_no_room_on_the_device_are_kept_compressed(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "ROOM_BYTES", {"cpu": sample("").cells.numel()})
    library = train.Library(tmp_path, frozenset())
    for n in range(2):
        library.add(sample(f"1_{n}", altered=False))
    kept = [type(one.cells).__name__ for one in library.staged.intact]
    assert kept == ["Tensor", "CompressedCells"]
    drawn = [library.at_hand(one).cells for one in library.staged.intact]
    assert all(train.torch.equal(cells, drawn[0]) for cells in drawn)
