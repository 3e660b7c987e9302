"""Samples of scans as they are: which there are, and what they are called."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from voxmask_training import alterations, originals
from voxmask_training.patches import read_sample
from voxmask_training.scan import Scan
from voxmask_training.slices import in_slices
from voxmask_training.sources import Volume


def head() -> Scan:
    """A ball of 100 mm in faint noise, on whole numbers, its middle where MNI's is."""
    shape, spacing = (56, 60, 56), np.full(3, 4.0)
    grid = np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij")
    inside = sum(g**2 for g in grid) < 25**2
    values = np.abs(np.random.default_rng(0).normal(0, 9, shape)) + 400 * inside
    mni = np.diag([4.0, 4.0, 4.0, 1.0])
    mni[:3, 3] = [-112, -120, -112]
    nothing = np.zeros(shape, bool)
    return Scan(
        np.rint(values).astype(np.float32),
        spacing,
        ct=False,
        foreground=inside,
        mni=mni,
        area=nothing,
        free=nothing,
        subject="some one",
        region="head",
        background="noise",
    )


def blanked(scan: Scan, *_: object) -> Scan:
    """What a program leaves that blanks the front of a head."""
    area = np.zeros(scan.shape, bool)
    area[:, 45:] = True
    values = np.where(area, np.float32(0), scan.values)
    return replace(scan, values=values, area=area, foreground=scan.foreground & ~area)


@pytest.fixture
def volume(monkeypatch) -> Volume:
    monkeypatch.setattr(originals, "read", lambda _: (head(), np.eye(4)))
    monkeypatch.setattr(originals, "TOOLS", ("quickshear",))
    monkeypatch.setattr(originals, "with_tool", blanked)
    monkeypatch.setattr(Volume, "mni", property(lambda _: np.eye(4)))
    monkeypatch.setattr(alterations, "METHODS", {"plane": 1.0})
    monkeypatch.setattr(alterations, "draw_fill", lambda *_: "zero")  # no doubtful foreground
    nowhere = Path("/nowhere")
    return Volume("t1", "some one", "head", "T1", "intact", "noise", "A", nowhere, nowhere, nowhere)


def test_a_head_comes_as_it_is_with_other_air_and_altered_beside_its_twin(volume, tmp_path):
    written = originals.write(volume, tmp_path, 2, None, [1])
    pairs = ["_000", "_001", "_quickshear", "_zeroed_quickshear"]
    names = ["", "_zeroed", *(f"_air_{n}" for n in range(4)), *pairs]
    names = sorted(names + [f"{pair}_before" for pair in pairs])
    folder = tmp_path / "some_one"
    found = {path.stem: read_sample(path) for path in sorted(folder.glob("*.npz"))}
    assert sorted(found) == [f"original_t1{name}" for name in names] and written == len(names)
    assert all(one.original for one in found.values())
    doubtful = {name for name, one in found.items() if one.foreground_weight < 1.0}
    assert doubtful == {"original_t1_quickshear", "original_t1_zeroed_quickshear"}
    plain = found["original_t1"]
    assert not plain.altered and not plain.twin
    assert plain.cells.shape == (10, 56, 60, 56)
    for pair in pairs:
        after, before = (found[f"original_t1{pair}{ending}"] for ending in ("", "_before"))
        pair = f"original_t1{pair}"
        assert after.altered and after.kind.startswith(("plane-", "quickshear-tool"))
        assert len(after.area_cells) > 9
        assert before.twin == pair and not before.altered
        assert (after.cells != before.cells).any()


def test_what_is_there_is_kept_and_more_pairs_can_be_asked_for(volume, tmp_path):
    assert originals.write(volume, tmp_path, 0, None, [1]) == 6
    assert originals.write(volume, tmp_path, 1, None, [1]) == 2 + 4
    assert originals.write(volume, tmp_path, 3, None, [1]) == 4
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    assert originals.write(volume, tmp_path, 3, None, [1]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")} == before


def test_thick_slices_lie_where_the_scan_did():
    scan = replace(head(), spacing=np.full(3, 1.0), mni=np.eye(4))
    for seed in range(6):
        thick = in_slices(np.random.default_rng(seed), scan)
        (axis,) = np.flatnonzero(thick.spacing != scan.spacing)
        assert 3.0 <= thick.spacing[axis] <= 6.5
        ends = [s.mni @ [*(np.array(s.shape) - 1) / 2, 1.0] for s in (scan, thick)]
        np.testing.assert_allclose(*ends)
        size = [s.foreground.sum() * s.spacing.prod() for s in (scan, thick)]
        assert abs(size[1] / size[0] - 1) < 0.05
        inside = thick.values[thick.foreground].mean()
        assert 340 < inside < 420 and thick.values[~thick.foreground].mean() < 80


def test_slices_that_are_thick_stay_and_altered_ones_are_kept_by_name(volume, tmp_path):
    scan = head()  # slices of 4 mm
    assert in_slices(np.random.default_rng(0), scan) is scan
    assert originals.write(volume, tmp_path, 0, None, [1], 2) == 6 + 4 + 4
    names = sorted(path.stem for path in tmp_path.glob("*/*thick*"))
    assert names == [
        f"original_t1_thick_00{n}{ending}" for n in range(2) for ending in ("", "_before")
    ]
