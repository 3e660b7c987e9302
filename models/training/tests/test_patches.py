"""Facts about training patches."""

import numpy as np
import torch

from voxmask_training.network import IN_VIEW, MULTIPLE_OF
from voxmask_training.patches import (
    AREA,
    COUNTED,
    FOREGROUND,
    Sample,
    draw_patch,
    turn,
    whole_patch,
)


def ball(altered: bool = True) -> Sample:
    """A bright ball of radius 10 cells in a view of 40×30×50 cells (k, j, i)."""
    grid = torch.meshgrid(*(torch.arange(n) for n in (40, 30, 50)), indexing="ij")
    centre = (20, 15, 25)
    square = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))
    cells = torch.zeros(8, 40, 30, 50)
    cells[FOREGROUND] = (square < 100).float()
    cells[0] = cells[FOREGROUND]
    cells[IN_VIEW] = 1.0
    cells[COUNTED] = 1.0
    if altered:
        cells[AREA, :, 20:] = 1.0
    return Sample("1_0", "a", "head", "plane", altered, "", 1.0, altered, cells.half())


def test_a_whole_patch_has_the_margin_of_the_executables():
    patch = whole_patch(ball())
    assert patch.channels.shape == (1, 5, 64, 48, 80)
    view = patch.channels[0, IN_VIEW]
    assert float(view.sum()) == 40 * 30 * 50
    assert view[8, 8, 8] == 1.0 and view[7, 8, 8] == 0.0


def test_drawn_patches_keep_labels_beside_intensities():
    for seed in range(20):
        patch = draw_patch(ball(), np.random.default_rng(seed), 100_000)
        assert all(n % MULTIPLE_OF == 0 for n in patch.area.shape[2:])
        bright = patch.channels[:, :1] > 0.2
        inside = patch.foreground > 0.5
        both = float((bright & inside).sum())
        assert both > 0.9 * float(inside.sum())


def test_an_intact_twin_is_cut_where_the_altered_one_is():
    altered, intact = ball(), ball(altered=False)
    for seed in range(20):
        after = draw_patch(altered, np.random.default_rng(seed), 30_000)
        before = draw_patch(intact, np.random.default_rng(seed), 30_000, altered)
        assert torch.equal(before.channels, after.channels)
        assert float(before.area.sum()) == 0.0 and before.altered is False
        view = before.channels[:, IN_VIEW : IN_VIEW + 1] > 0.5
        assert torch.equal(before.counted > 0.5, view)


def test_turning_by_nothing_only_stretches():
    rng = np.random.default_rng(3)
    turned = turn(ball().cells.float(), rng, 0.0)
    volume = float(turned[FOREGROUND].sum())
    stretch = np.prod(turned.shape[1:]) / (40 * 30 * 50)
    assert abs(volume / float(ball().cells[FOREGROUND].sum()) / stretch - 1) < 0.05


def test_an_area_out_of_the_patch_leaves_the_scan_unjudged():
    sample = ball()
    cells = sample.cells.clone()
    cells[AREA] = 0.0
    bare = Sample("1_0", "a", "head", "plane", True, "", 1.0, True, cells)
    assert whole_patch(bare).altered is None


def test_free_cells_far_from_the_area_count_a_little():
    sample = ball()
    sample.cells[COUNTED, :, :5] = 0.2
    sample.cells[COUNTED, :, 5:10] = 0.4
    counted = whole_patch(sample).counted[0, 0, 8:48, 8:38, 8:58]
    assert torch.allclose(counted[:, :10], torch.tensor(0.2), atol=1e-3)
    assert (counted[:, 10:] == 1.0).all()
