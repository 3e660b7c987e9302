"""Scores worked out by hand."""

import numpy as np
import pytest

from voxmask_training.baselines import constant_area, otsu_foreground
from voxmask_training.scores import dice, ranking, surface, surface_scores

SPACING = np.array([1.0, 2.0, 4.0])


def box(shape, start, end):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, end, strict=True))] = True
    return mask


def test_ranking_counts_pairs_in_the_right_order_and_half_of_the_ties():
    assert ranking([0.9, 0.8], [0.1, 0.2, 0.3]) == 1.0
    assert ranking([0.5], [0.5]) == 0.5
    assert ranking([0.9, 0.2], [0.2, 0.5]) == (1 + 1 + 0.5 + 0) / 4


def test_dice_leaves_free_voxels_out():
    a = box((4, 4, 4), (0, 0, 0), (2, 4, 4))
    b = box((4, 4, 4), (1, 0, 0), (3, 4, 4))
    assert dice(a, b) == 0.5
    assert dice(a, b, free=~(a & b)) == 1.0
    assert dice(a & ~a, b & ~b) == 1.0


def test_the_surface_of_a_box_has_its_area():
    _, areas = surface(box((6, 6, 6), (1, 1, 1), (4, 3, 2)), SPACING)
    # 3×4×4 mm: two faces each of 16, 12 and 12 mm²
    assert areas.sum() == pytest.approx(80.0)


def test_a_cut_body_has_no_surface_on_the_border():
    _, areas = surface(box((6, 6, 6), (0, 0, 0), (3, 6, 6)), SPACING)
    assert areas.sum() == pytest.approx(12.0 * 24.0)


def test_a_shifted_plane_is_as_far_as_its_shift():
    a = box((9, 6, 6), (0, 0, 0), (3, 6, 6))
    b = box((9, 6, 6), (0, 0, 0), (6, 6, 6))
    assert surface_scores(a, b, SPACING, 2.0) == (0.0, pytest.approx(3.0))
    assert surface_scores(a, b, SPACING, 3.0) == (1.0, pytest.approx(3.0))
    assert surface_scores(a & ~a, b, SPACING, 2.0) is None


def test_baselines_find_a_bright_box_and_a_blanked_corner():
    rng = np.random.default_rng(0)
    voxels = rng.normal(0.0, 1.0, (20, 20, 20)).astype(np.float32)
    body = box((20, 20, 20), (5, 5, 5), (15, 15, 15))
    voxels[body] += 50.0
    assert dice(otsu_foreground(voxels), body) == 1.0
    blank = box((20, 20, 20), (0, 0, 0), (10, 8, 20))
    voxels[blank] = 0.0
    assert dice(constant_area(voxels, 0.1, every=False), blank) == 1.0
