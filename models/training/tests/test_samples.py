"""Stored samples: names, types and layout."""

from dataclasses import replace

import numpy as np

from voxmask_training.samples import Sample, arrays, finished, store
from voxmask_training.scan import Scan, padded, padding_left_free


def scan():
    values = np.random.default_rng(0).integers(0, 500, (20, 24, 28)).astype(np.float32)
    area = np.zeros(values.shape, bool)
    area[:8] = True
    return Scan(
        values,
        np.array([2.0, 2.0, 3.0]),
        False,
        foreground=~area,
        quality=0.7,
        mni=np.eye(4),
        area=area,
        free=np.zeros(values.shape, bool),
        subject="someone",
    )


def test_sample_holds_what_the_trainer_reads(tmp_path):
    path = tmp_path / "someone" / "1_00000.npz"
    store(path, arrays(Sample(scan(), "plane-zero", "zero", True)))
    data = np.load(path)
    assert data["c"].shape == (7, 10, 12, 21) and data["c"].dtype == np.float16
    for name in ("F", "A", "W"):
        assert data[name].shape == (10, 12, 21) and data[name].dtype == np.float16
    assert data["A"][0].min() == 1 and data["F"][-1].min() == 1 and data["W"].min() == 1
    assert float(data["FW"]) == np.float32(0.7) and int(data["altered"]) == 1
    assert str(data["kind"]) == "plane-zero" and str(data["subject"]) == "someone"
    assert not list(tmp_path.glob("**/*.part"))


def test_free_air_far_from_the_area_counts_a_little_unless_a_tool_blanks_it_all():
    start = scan()
    values, free = np.zeros((60, 24, 28), np.float32), np.ones((60, 24, 28), bool)
    area = np.zeros(values.shape, bool)
    area[:8], free[:8] = True, False
    wide = replace(start, values=values, foreground=~area, area=area, free=free)
    weights = arrays(Sample(wide, "plane-zero", "zero", True))["W"][:, 6, 10]
    assert weights[:3].tolist() == [1] * 3
    assert np.allclose(weights[5:10], 0) and np.allclose(weights[11:], 0.2, atol=1e-3)
    assert arrays(Sample(wide, "brain-box-zero", "zero", True))["W"][:, 6, 10].max() == 1
    assert arrays(Sample(wide, "brain-box-zero", "zero", True))["W"][5:].max() == 0


def test_unknown_foreground_is_left_out():
    data = arrays(
        Sample(
            Scan(np.ones((9, 9, 9), np.float32), np.ones(3), False),
            "intact",
            "none",
            False,
        )
    )
    assert "F" not in data and data["FW"] == 0 and data["W"].min() == 1


def test_padding_of_an_altered_scan_is_free():
    small = scan()
    wide = padded(small, np.array([2, 0, 1]), np.array([0, 3, 0]), 0.0)
    out = padding_left_free(wide, small, True)
    assert out.free[:2].all() and out.free[:, 24:].all() and out.free[:, :, 0].all()
    assert not out.free[2:, :24, 1:].any()


def test_finishing_keeps_layers_on_the_grid():
    for seed in range(30):
        out = finished(np.random.default_rng(seed), scan(), "plane", "zero").scan
        assert out.area.shape == out.free.shape == out.foreground.shape == out.shape
