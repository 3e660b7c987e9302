"""Facts about training patches: how samples are stored, laid out, varied and packed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from voxmask_training import packs, variation
from voxmask_training.network import IN_VIEW, MULTIPLE_OF
from voxmask_training.patches import (
    AREA,
    COUNTED,
    FLAT,
    FOREGROUND,
    INTENSITY,
    Sample,
    cells_of,
    compressed,
    expanded,
    restored,
    stored,
    whole_patch,
)
from voxmask_training.samples import store
from voxmask_training.variation import draw_patch

WINDOW = (48, 48, 64)


def layers(altered: bool = True) -> np.ndarray:
    """A bright ball of radius 10 cells in a view of 50×30×40 cells (i, j, k)."""
    grid = np.meshgrid(*(np.arange(n) for n in (50, 30, 40)), indexing="ij")
    square = sum((g - c) ** 2 for g, c in zip(grid, (25, 15, 20), strict=True))
    out = np.zeros((10, 50, 30, 40), np.float32)
    out[FOREGROUND] = out[INTENSITY] = square < 100
    out[IN_VIEW] = out[COUNTED] = 1.0
    if altered:
        out[AREA, :, 20:] = 1.0
    return out


def ball(altered: bool = True, **changes) -> Sample:
    """A sample of `layers`."""
    sample = Sample(
        name="1_0" if altered else "1_0_before",
        subject="a",
        region="head",
        kind="plane",
        altered=altered,
        twin="" if altered else "1_0",
        foreground_weight=1.0,
        area_known=altered,
        **cells_of(layers(altered)),
    )
    return replace(sample, **changes)


def test_stored_layers_come_back_nearly_as_they_were():
    rng = np.random.default_rng(0)
    given = rng.random((10, 4, 5, 6), np.float32)
    given[:, 0] = 0.0
    found = restored(torch.from_numpy(stored(given))).numpy()
    assert (found[:, 0] == 0.0).all()
    # A step of the intensity's square root is 3**0.5 / 255.
    assert np.abs(found[INTENSITY] - given[INTENSITY]).max() < 3**0.5 / 255 + 1e-3
    assert np.abs(found[1:4] - given[1:4]).max() < 0.5 / 20 + 1e-3


def test_a_whole_patch_fills_the_grid_from_its_first_cell_as_in_the_executables():
    patch = whole_patch(ball())
    assert patch.channels.shape == (1, 7, 48, 32, 64)
    view = patch.channels[0, IN_VIEW]
    assert float(view.sum()) == 40 * 30 * 50
    assert view[0, 0, 0] == view[39, 29, 49] == 1.0 and view[40, 0, 0] == 0.0


def test_drawn_patches_keep_labels_beside_intensities():
    assert all(n % MULTIPLE_OF == 0 for n in WINDOW)
    for seed in range(10):
        patch = draw_patch([ball(), ball()], [0, 1], np.random.default_rng(seed), WINDOW)
        assert patch.area.shape == (2, 1, *WINDOW)
        assert not torch.equal(patch.channels[0], patch.channels[1])
        bright = patch.channels[:, :1] > 0.05
        inside = patch.foreground > 0.5
        both = float((bright & inside).sum())
        assert both > 0.9 * float(inside.sum())


def test_a_scan_is_varied_as_its_altered_twin_is():
    altered, intact = ball(), ball(altered=False)
    for seed in range(10):
        patch = draw_patch([altered, intact], [0, 0], np.random.default_rng(seed), WINDOW)
        assert torch.equal(patch.channels[0], patch.channels[1])
        assert patch.altered.tolist() == [1.0, 0.0]
        assert float(patch.area[1].sum()) == 0.0
        view = patch.channels[:, IN_VIEW : IN_VIEW + 1] > 0.5
        assert torch.equal(patch.counted > 0.5, view)


def test_the_view_keeps_straight_sides_and_constants_stay_constant():
    flat = layers()
    flat[FLAT] = 1.0 - flat[FOREGROUND]
    sample = replace(ball(), **cells_of(flat))
    patch = draw_patch([sample], [0], np.random.default_rng(4), WINDOW)
    air = (patch.channels[:, FLAT] == 1.0) & (patch.channels[:, IN_VIEW] > 0.5)
    assert float(air.sum()) > 1000 and float(patch.channels[:, INTENSITY][air].abs().max()) == 0.0


def test_an_area_out_of_the_patch_leaves_the_scan_unjudged():
    bare = layers()
    bare[AREA] = 0.0
    assert whole_patch(replace(ball(), **cells_of(bare))).judged.tolist() == [0.0]
    assert whole_patch(ball()).judged.tolist() == [1.0]


def test_free_cells_far_from_the_area_count_a_little():
    free = layers()
    free[COUNTED, :, :5] = 0.2
    free[COUNTED, :, 5:10] = 0.4
    counted = whole_patch(replace(ball(), **cells_of(free))).counted[0, 0, :40, :30, :50]
    assert torch.allclose(counted[:, :10], torch.tensor(0.2), atol=1e-3)
    assert (counted[:, 10:] == 1.0).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An altered scan, its twin, and a large one."""
    for name, altered, size in (("1_0", 1, 1), ("1_0_before", 0, 1), ("1_1", 0, 2)):
        cells = np.repeat(layers(bool(altered)), size, axis=1).astype(np.float16)
        data = {"c": cells[:FOREGROUND], "F": cells[FOREGROUND]}
        data |= {"A": cells[AREA], "W": cells[COUNTED]}
        data |= {"FW": np.float32(0.7), "altered": np.int64(altered)}
        words = {"subject": "a", "region": "head", "kind": "plane"}
        words["twin"] = "1_0" if name == "1_0_before" else ""
        store(tmp_path / "a" / f"{name}.npz", data | {k: np.asarray(v) for k, v in words.items()})
    return tmp_path


def test_compressed_cells_take_less_and_come_back_as_they_were():
    sample = ball()
    kept = compressed(sample)
    assert kept.cells.shape == sample.cells.shape
    assert len(kept.cells.data) < sample.cells.numel() / 5
    assert torch.equal(expanded(kept).cells, sample.cells)
    assert expanded(sample) is sample


def test_a_pack_gives_back_its_samples(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packs, "MOST_CELLS", 90_000)
    arguments = ["packs", "--samples", str(folder), "--output", str(folder / "packs")]
    monkeypatch.setattr("sys.argv", [*arguments, "--processes", "1"])
    packs.main()
    found = {s.name: s for s in packs.read_packs(sorted((folder / "packs").glob("*.pack")))}
    assert sorted(found) == ["1_0", "1_0_before", "1_1"]
    for name in ("1_0", "1_0_before"):
        expected = packs.read_sample(folder / "a" / f"{name}.npz")
        assert torch.equal(found[name].cells, expected.cells)
        assert np.array_equal(found[name].area_cells, expected.area_cells)
        assert (found[name].twin, found[name].altered) == (expected.twin, expected.altered)
    # The large one, of 100×30×40 cells, is cut along its longest axis.
    assert found["1_1"].cells.shape == (10, 40, 30, 75)
    # Bytes that mean something else now are refused, not read wrongly.
    monkeypatch.setattr(packs, "STEPS", (1.0,) * 10)
    with pytest.raises(ValueError, match="pack again"):
        list(packs.read_packs(sorted((folder / "packs").glob("*.pack"))))
    with pytest.raises(ValueError, match="pack again"):
        list(packs.read_pack(b"BZh9"))


def test_half_of_the_patches_of_a_scan_as_it_is_hardly_change_it(monkeypatch):
    monkeypatch.setattr(variation, "CALM_SHARE", 1.0)
    sample = ball(False, name="original_a", twin="")
    whole = whole_patch(sample)
    size = float(whole.foreground.sum())
    for seed in range(5):
        patch = draw_patch([sample], [0], np.random.default_rng(seed), (64, 64, 80))
        assert float(patch.foreground.sum()) == pytest.approx(size, rel=0.2)
        # All of it is in view, and no intensity changed.
        assert float(patch.channels[0, IN_VIEW].sum()) == pytest.approx(40 * 30 * 50, rel=0.25)
        assert float(patch.channels[0, INTENSITY].max()) == pytest.approx(1.0, abs=0.02)


def test_a_view_smaller_than_the_window_lies_at_its_edge_now_and_then(monkeypatch):
    monkeypatch.setattr(variation, "CALM_SHARE", 1.0)
    sample = ball(False, name="original_a", twin="")
    rng = np.random.default_rng(0)
    touches = []
    for _ in range(40):
        view = draw_patch([sample], [0], rng, (64, 64, 80)).channels[0, IN_VIEW]
        touches.append([bool(side.any()) for side in (view[0], view[-1], view[:, 0], view[:, -1])])
    shares = np.mean(touches, 0)
    assert (shares > 0.05).all() and (shares < 0.5).all()
