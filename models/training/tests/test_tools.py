"""What counts as altered in a real program's output, and how results are kept."""

import numpy as np

from voxmask_training.scan import Scan
from voxmask_training.sources import read_tool_run, safe_name
from voxmask_training.tool_runs import keep
from voxmask_training.tools import with_output


def noisy_block():
    """A bright block in noisy air that holds zeros by chance."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, (30, 30, 30)).astype(np.float32)
    body = np.zeros(values.shape, bool)
    body[8:22, 5:25, 8:22] = True
    values[body] += 400
    return Scan(values, np.full(3, 4.0), False, foreground=body, mni=np.eye(4))


def test_blanked_front_is_altered_even_where_air_was_zero():
    scan = noisy_block()
    output = scan.values.copy()
    output[:, 18:] = 0
    out = with_output(scan, output, 0.0)
    assert out.area[2:-2, 20:-2, 2:-2].all()
    assert not out.area[:, :17].any()
    assert not out.foreground[:, 18:].any() and out.foreground[:, 5:18].any()


def test_painted_tissue_becomes_foreground():
    scan = noisy_block()
    output = scan.values.copy()
    output[8:22, 25:28, 8:22] = 300
    output[8:22, 20:25, 8:22] = 410
    out = with_output(scan, output, 0.0)
    assert out.foreground[8:22, 20:25, 8:22].all()


def test_constant_air_is_free():
    scan = noisy_block()
    still = np.where(scan.foreground, scan.values, 0)
    output = still.copy()
    output[:, 18:] = 0
    out = with_output(Scan(still, scan.spacing, False, scan.foreground), output, 0.0)
    assert out.free[0, 0, 0] and out.free[0, -1, 0]
    assert not (out.area & ~scan.foreground).any()


def test_kept_results_come_back(tmp_path):
    scan = noisy_block()
    output = scan.values.copy()
    output[:, 18:] = 0
    out = with_output(scan, output, 0.0)
    keep(tmp_path / "a" / "run.npz", out, "quickshear")
    back, tool = read_tool_run(tmp_path / "a" / "run.npz")
    assert tool == "quickshear"
    for name in ("values", "area", "free", "foreground"):
        assert np.array_equal(getattr(back, name), getattr(out, name))


def test_subjects_make_safe_folders():
    assert safe_name("ds000031-01 (MyConnectome)") == "ds000031-01__MyConnectome_"
