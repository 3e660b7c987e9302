"""Facts about the sheets of pictures."""

import numpy as np

from voxmask_training.pictures import MASK, REFERENCE, TILE, Scored, chosen, sheet


def test_the_best_the_median_and_the_five_worst_are_shown():
    rows = [{"name": str(n), "dice": str(n / 10)} for n in range(10)] + [{"name": "intact"}]
    picked = [(word, row["name"]) for word, row in chosen(rows, "dice")]
    assert picked[:2] == [("best", "9"), ("median", "4")]
    worst = [("worst 5", "4"), ("worst 4", "3"), ("worst 3", "2"), ("worst 2", "1")]
    assert picked[2:] == [*worst, ("worst 1", "0")]


def test_outlines_lie_on_the_slice_where_mask_and_reference_differ():
    mask = np.zeros((10, 20, 40), bool)
    mask[2:8, 4:16, 8:32] = True
    reference = mask.copy()
    reference[:, 10:16, 30] = False
    spacing = np.array([2.0, 1.0, 1.0])
    picture = np.asarray(sheet([Scored("a", mask.astype(float), mask, reference, spacing)]))
    assert picture.shape == (TILE + 16, 3 * TILE, 3)
    tiles = [picture[16:, n * TILE : (n + 1) * TILE].reshape(-1, 3).tolist() for n in range(3)]
    assert all(list(MASK) in tile for tile in tiles)
    # Across k they differ in slice 30 alone, where the mask's outline is the longer one.
    assert list(REFERENCE) in tiles[2]
