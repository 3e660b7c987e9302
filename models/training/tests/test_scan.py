"""Moves keep values, layers and MNI coordinates together."""

import numpy as np
import pytest

from voxmask_training import bending
from voxmask_training.scan import Scan, cropped, flipped, padded, resampled, turned


@pytest.fixture
def scan():
    values = np.zeros((12, 14, 16), np.float32)
    values[3, 5, 7] = 100
    mni = np.diag([1.5, 2.0, 1.0, 1.0])
    mni[:3, 3] = (-10, -20, 5)
    layer = values > 0
    return Scan(values, np.array([1.5, 2.0, 1.0]), False, foreground=layer, mni=mni, area=layer)


def peak_in_mni(scan):
    voxel = np.unravel_index(scan.values.argmax(), scan.shape)
    return (scan.mni @ np.r_[voxel, 1])[:3]


@pytest.mark.parametrize(
    "move",
    [
        lambda s: cropped(s, np.array([1, 2, 3]), np.array([10, 11, 12])),
        lambda s: padded(s, np.array([2, 0, 1]), np.array([0, 3, 1]), -5.0),
        lambda s: flipped(s, 1),
        lambda s: turned(s, (2, 0, 1)),
    ],
)
def test_moves_keep_the_place(scan, move):
    out = move(scan)
    np.testing.assert_allclose(peak_in_mni(out), peak_in_mni(scan))
    assert out.area.sum() == 1 and out.area[np.unravel_index(out.values.argmax(), out.shape)]


def test_padding_uses_the_value_and_leaves_layers_empty(scan):
    out = padded(scan, np.array([1, 0, 0]), np.array([0, 0, 0]), -5.0)
    assert (out.values[0] == -5).all() and not out.foreground[0].any()


def test_resampling_keeps_centre_and_constants(scan):
    out = resampled(scan, np.array([3.0, 2.0, 2.0]))
    assert out.shape == (6, 14, 8)
    old = scan.mni @ np.r_[(np.array(scan.shape) - 1) / 2, 1]
    new = out.mni @ np.r_[(np.array(out.shape) - 1) / 2, 1]
    np.testing.assert_allclose(new, old)
    flat = resampled(Scan(np.full((9, 9, 9), 7.0, np.float32), np.ones(3), False), np.full(3, 1.7))
    np.testing.assert_allclose(flat.values, 7, rtol=1e-6)


@pytest.mark.parametrize("nearest", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_a_bent_scan_has_another_shape_and_its_layers_go_with_it(seed, nearest, monkeypatch):
    monkeypatch.setattr(bending, "NEAREST_SHARE", nearest)
    i, j, k = np.ogrid[:40, :50, :30]
    ball = (i - 20) ** 2 + (j - 25) ** 2 + (k - 15) ** 2 < 100
    values = np.where(ball, np.float32(7), np.float32(0))
    whole = Scan(values, np.array([2.0, 2.0, 3.0]), False, foreground=ball, mni=np.eye(4))
    out = bending.bent(np.random.default_rng(seed), whole)
    assert out.shape == whole.shape and out.foreground.dtype == bool
    assert 20 < (out.foreground != ball).sum() < 0.6 * ball.sum()
    assert 0.6 * ball.sum() < out.foreground.sum() < 1.5 * ball.sum()
    # Half-way values round to either side at the border.
    assert ((out.values > 3.5) != out.foreground).sum() < 0.05 * ball.sum()
    assert out.values.min() == 0 and out.values.max() == 7
    # Whole numbers stay such, and the nearest voxel's value is one of the scan's.
    assert set(np.unique(out.values)) == (set(range(8)) if nearest == 0.0 else {0, 7})
