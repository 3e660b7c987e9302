"""The channels against worked-out values and the golden files of the Rust port."""

from pathlib import Path

import numpy as np
import pytest

from voxmask_training.channels import (
    CoarseGrid,
    abrupt,
    air_edge,
    channels,
    ends_of_air,
    ends_of_constants,
    flat_voxels,
    normalised,
    read_canonical,
    second_difference,
    spacing_of,
)

GOLDEN = Path(__file__).parents[3] / "tests" / "data" / "golden"


@pytest.mark.parametrize("name", ["ct", "mr"])
def test_golden_files_are_reproduced(name):
    values, affine = read_canonical(GOLDEN / f"channels_{name}.nii.gz")
    assert values.shape == (23, 31, 17)
    coarse, grid = channels(values, spacing_of(affine))
    assert grid.cells == (10, 7, 20)
    np.testing.assert_allclose(coarse, np.load(GOLDEN / f"channels_{name}.npy"), atol=1e-5)


def test_grid_is_centred_and_rounds_up():
    grid = CoarseGrid((10, 1, 3), (1.0, 2.0, 4.0))
    assert grid.cells == (3, 1, 3)
    cells, voxels = grid.positions(0)
    assert cells.mean() == pytest.approx(voxels.mean())


def test_pooling_weights_by_hand():
    # voxels at 0, 1, 2 mm, one cell at 1 mm: weights 3/4, 1, 3/4
    grid = CoarseGrid((3, 1, 1), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(grid.pooling_weights(0), [[0.3, 0.4, 0.3]], rtol=1e-6)


def test_constants_survive_pooling_and_interpolation():
    grid = CoarseGrid((11, 20, 5), (1.3, 0.7, 6.0))
    values = np.full(grid.shape, 2.5, np.float32)
    np.testing.assert_allclose(grid.pool(values), 2.5, rtol=1e-5)
    np.testing.assert_allclose(grid.up(grid.pool(values)), 2.5, rtol=1e-5)


def test_flat_compares_next_neighbour_and_last_its_previous():
    values = np.array([5, 5, 1, 1], np.float32).reshape(4, 1, 1)
    assert flat_voxels(values).ravel().tolist() == [True, False, True, True]


def test_second_difference_clamps_at_edges_and_skips_thick_axes():
    values = np.array([0, 0, 3, 0], np.float32).reshape(4, 1, 1)
    fine = second_difference(values, np.array([1.0, 1.0, 1.0]))
    assert fine.ravel().tolist() == [0, 3, 6, 3]
    assert not second_difference(values, np.array([3.0, 1.0, 1.0])).any()


def test_normalised_scales_ct_and_mr():
    ct, is_ct = normalised(np.array([-1024, -1000, 0, 2000], np.float32))
    assert is_ct and ct.tolist() == [0, 0, 1, 2.5]
    mr, is_ct = normalised(np.arange(1001, dtype=np.float32))
    assert not is_ct
    assert mr[0] == 0
    assert mr[1000] == pytest.approx(1000 / np.percentile(np.arange(1, 1001), 99.5))


def line(*values: float) -> np.ndarray:
    """A volume of one line along i."""
    return np.array(values, np.float32)[:, None, None]


@pytest.mark.parametrize("turned", [False, True])
def test_a_constant_ends_softly_at_skin_and_abruptly_at_a_cut(turned):
    skin = line(0, 0, 0, 0, 20, 90, 100, 110, 100, 100)
    cut = line(0, 0, 0, 0, 105, 90, 100, 110, 100, 100)
    for values, expected in ((skin, 0.2), (cut, 1.05)):
        values = values[::-1] if turned else values
        places, ratios = ends_of_constants(values, np.ones(3))
        assert places.tolist() == [[6 if turned else 3, 0, 0]]
        assert ratios == pytest.approx([expected])


def test_what_is_no_end_of_a_constant_does_not_count():
    short = line(5, 0, 0, 0, 20, 90, 100, 110, 100, 100)
    thin = line(0, 0, 0, 0, 20, 90, 0, 110, 100, 100)
    at_the_border = line(0, 0, 0, 0, 0, 0, 20, 90, 100, 110)
    for values in (short, thin, at_the_border):
        assert len(ends_of_constants(values, np.ones(3))[1]) == 0
    coarse = line(0, 0, 0, 0, 20, 90, 100, 110, 100, 100)
    assert len(ends_of_constants(coarse, np.array([3.0, 1, 1]))[1]) == 0


@pytest.mark.parametrize("turned", [False, True])
def test_noise_ends_softly_at_skin_and_abruptly_at_a_cut(turned):
    skin = line(0.02, 0.05, 0, 0.03, 0.3, 0.9, 1.0, 1.1, 1.0, 1.0)
    cut = line(0.02, 0.05, 0, 0.03, 1.05, 0.9, 1.0, 1.1, 1.0, 1.0)
    for x, expected in ((skin, 0.275 / 0.975), (cut, 1.025 / 0.975)):
        places, ratios = ends_of_air(x[::-1] if turned else x, np.ones(3))
        assert places.tolist() == [[6 if turned else 3, 0, 0]]
        assert ratios == pytest.approx([expected])


def test_what_is_no_end_of_air_does_not_count():
    bright = line(0.02, 0.25, 0, 0.03, 1.0, 0.9, 1.0, 1.1, 1.0, 1.0)
    thin = line(0.02, 0.05, 0, 0.03, 1.0, 0.9, 0.1, 1.1, 1.0, 1.0)
    faint = 0.07 * line(0.02, 0.05, 0, 0.03, 1.0, 0.9, 1.0, 1.1, 1.0, 1.0)
    at_the_border = line(0, 0, 0, 0, 0, 0, 0.3, 0.9, 1.0, 1.0)
    # Darker than a fifth of the mean, not than a fifth of the second voxel beyond.
    beside = line(0.02, 0.05, 0, 0.15, 0.9, 0.5, 1.0, 1.1, 1.0, 1.0)
    for x in (bright, thin, faint, at_the_border, beside):
        assert len(ends_of_air(x, np.ones(3))[1]) == 0


def test_abruptness_is_averaged_about_a_cell():
    values = np.repeat(line(*[0] * 8, *[100] * 8), 8, 1).repeat(8, 2)
    grid = CoarseGrid(values.shape, (1.0, 1.0, 1.0))
    found = abrupt(values, np.ones(3), grid)
    assert found.shape == (4, 2, 2)
    # Both constants end, at voxels 7 and 8, on the whole half-way between cells 1 and 2. Along
    # j and k a cell counts 3.5 of 8 voxels, and half an end of nothing besides.
    expected = 3.5**2 / (3.5**2 + 0.5) * np.array([0, 1, 1, 0])
    np.testing.assert_allclose(found[:, 0, 0], expected, rtol=1e-5)
    # Air ends at voxel 7 alone, which is nearer to cell 1.
    found = air_edge(values / 100, np.ones(3), grid)
    near = np.array([0.625, 0.375])
    expected = 3.5**2 * near / (3.5**2 * near + 0.5)
    np.testing.assert_allclose(found[1:3, 0, 0], expected, rtol=1e-5)
