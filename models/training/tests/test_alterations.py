"""What counts as altered, free and foreground after a simulated tool on a ball."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from voxmask_training import alterations, scenes
from voxmask_training.alterations import altered
from voxmask_training.scan import Scan
from voxmask_training.templates import Field, signed_distance

SHAPE = (60, 70, 64)


@pytest.fixture
def head():
    """A noisy ball of 75 mm radius in noisy air, its middle at MNI (0, -15, 0) mm."""
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    r = np.sqrt(sum((3.0 * (a - (n - 1) / 2)) ** 2 for a, n in zip(axes, SHAPE, strict=True)))
    body = r < 75
    noise = np.abs(np.random.default_rng(0).normal(0, 10, SHAPE))
    mni = np.diag([3.0, 3.0, 3.0, 1.0])
    mni[:3, 3] = -1.5 * (np.array(SHAPE) - 1) + (0, -15, 0)
    values = np.rint(500.0 * body + noise).astype(np.float32)
    return Scan(values, np.full(3, 3.0), False, foreground=body, mni=mni, background="noise")


@pytest.fixture
def templates():
    """The face as a box in front, brain and shell as balls."""
    points = np.stack(np.meshgrid(*[np.arange(-120, 121, 4.0)] * 3, indexing="ij"))
    to_voxel = np.diag([0.25, 0.25, 0.25, 1.0])
    to_voxel[:3, 3] = 30
    face = signed_distance((points[1] > 30) & (points[2] < 0), np.full(3, 4.0)).astype(np.float32)
    brain = (60 - np.linalg.norm(points, axis=0)).astype(np.float32)
    shell = np.where(points[1] > 20, 300, 0).astype(np.float32)
    masks = {
        k: Field(face, to_voxel, -60.0) for k in ("brain-box", "face-wedge", "face-teeth-ears")
    }
    shells = {k: Field(shell, to_voxel, 0.0) for k in (211, 212)}
    return SimpleNamespace(masks=masks, brain=Field(brain, to_voxel, -60.0), shells=shells)


def test_zeroed_wedge_in_noisy_air_is_area_with_its_air(head, templates):
    for seed in range(5):
        out, kind, fill = altered(
            np.random.default_rng(seed), head, templates, "face-wedge", "zero"
        )
        assert (kind, fill) == ("face-wedge", "zero")
        assert (out.area & ~head.foreground).any(), "the zeroed air belongs to the area"
        assert not (out.foreground & out.area).any(), "what was blanked is no foreground"
        changed = out.values != head.values
        assert (changed & ~out.area).mean() < 0.02


def test_constant_air_is_free(head, templates):
    still = replace(head, values=np.where(head.foreground, head.values, 0).astype(np.float32))
    rng = np.random.default_rng(3)
    out, *_ = altered(rng, still, templates, "face-wedge", "zero")
    assert out.free[0, 0, 0] and not (out.area & out.free).any()
    assert (out.area & ~still.foreground).sum() < 0.02 * out.area.sum()


def test_blur_keeps_the_foreground(head, templates):
    out, *_ = altered(np.random.default_rng(1), head, templates, "face-wedge", "blur")
    assert np.array_equal(out.foreground, head.foreground) and out.area.any()


def test_painted_face_is_foreground(head, templates):
    out, *_ = altered(np.random.default_rng(1), head, templates, "shell-212", "face")
    assert (out.foreground & out.area & ~head.foreground).any()


@pytest.mark.parametrize("method", list(alterations.METHODS))
def test_every_method_alters_or_leaves_alone(head, templates, method):
    for seed in range(4):
        out, kind, _ = altered(np.random.default_rng(seed), head, templates, method)
        assert out.values.dtype == np.float32 and np.isfinite(out.values).all()
        if kind == "intact":
            assert np.array_equal(out.values, head.values) and not out.area.any()
        else:
            assert out.area.any() and not (out.area & out.free).any()


@pytest.mark.parametrize(
    "step",
    [
        scenes.shaded, scenes.saturated, scenes.ghosted, scenes.zippered, scenes.voided,
        scenes.with_markers, scenes.noisy, scenes.quantised, scenes.contrast_changed,
        scenes.air_zeroed, scenes.air_denoised, scenes.with_table, scenes.with_wrapping,
        scenes.with_streaks, scenes.round_field, scenes.turned_frame, scenes.interpolated,
    ],
)  # fmt: skip
def test_scenes_never_add_foreground(head, step):
    for seed in range(3):
        out = step(np.random.default_rng(seed), head)
        assert out.shape == head.shape and np.isfinite(out.values).all()
        assert not (out.foreground & ~head.foreground).any()


def test_wrapped_view_keeps_layers_in_step(head):
    out = scenes.wrapped(np.random.default_rng(0), head)
    assert out.foreground.shape == out.shape and np.prod(out.shape) < np.prod(head.shape)


def test_an_interpolated_scan_is_smooth_and_its_zeroed_air_stays_zero(head):
    rng = np.random.default_rng(0)
    noisy = scenes.noisy(rng, head)
    out = scenes.interpolated(np.random.default_rng(1), noisy)

    def grain(scan):
        return np.abs(np.diff(scan.values, 2, axis=0))[~head.foreground[1:-1]].mean()

    assert grain(out) < 0.8 * grain(noisy)
    assert abs(out.values[head.foreground].mean() / noisy.values[head.foreground].mean() - 1) < 0.05
    still = scenes.air_zeroed(rng, noisy)
    after = scenes.interpolated(np.random.default_rng(1), still)
    assert not after.values[still.values == still.values.min()].any()
