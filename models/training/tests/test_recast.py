"""CT as MR: what is bright, what is dark, and what goes."""

import numpy as np

from voxmask_training import recast, scenes
from voxmask_training.scan import Scan


def trunk() -> Scan:
    """A block of soft tissue with a lung, on a table, in air."""
    values = np.full((40, 40, 40), -1000, np.float32)
    body = np.zeros(values.shape, bool)
    body[8:32, 12:34] = True
    values[body] = 40
    values[12:20, 16:28] = -850
    values[5:35, 4:8] = 300
    return Scan(values, np.full(3, 2.0), True, foreground=body, mni=np.eye(4), region="chest")


def test_only_the_body_gives_a_signal_and_the_lung_little():
    for seed in range(20):
        out = recast.seen_as_mr(np.random.default_rng(seed), trunk())
        assert not out.ct and out.foreground.shape == out.shape and out.values.min() >= 0
        deep, lung = (28, 20), (16, 22)
        at = [n // 2 for n in out.shape]
        ratio = np.array(out.shape) / 40

        def value(place, out=out, at=at, ratio=ratio):
            return out.values[int(place[0] * ratio[0]), int(place[1] * ratio[1]), at[2]]

        assert value((20, 5)) == 0, "the table is gone"
        assert value(lung) < 0.35 < 0.05 + 2 * value(deep)
        share = out.foreground.mean() / trunk().foreground.mean()
        assert 0.8 < share < 1.25, share


def test_a_bowed_frame_blanks_the_rim_alone():
    scan = trunk()
    for seed in range(20):
        out = scenes.bowed_frame(np.random.default_rng(seed), scan)
        blank = out.values != scan.values
        assert not blank[10:30, 10:30, 10:30].any()
        assert (out.values[blank] == -1024).all() and not out.foreground[blank].any()
        assert (out.foreground == scan.foreground)[10:30, 10:30, 10:30].all()
