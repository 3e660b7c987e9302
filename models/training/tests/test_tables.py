"""Tables of scores."""

import numpy as np

from voxmask_training.tables import interval


def test_an_interval_is_drawn_over_subjects_not_over_scans():
    few = [{"subject": str(n % 4), "dice": 0.5 + 0.1 * (n % 4)} for n in range(400)]
    many = [{"subject": str(n), "dice": 0.5 + 0.1 * (n % 4)} for n in range(400)]
    mean = 0.65
    for rows, width in ((few, 0.2), (many, 0.022)):
        low, high = interval(rows, "dice")
        assert low < mean < high
        assert np.isclose(high - low, width, rtol=0.2)


def test_rows_without_a_score_are_left_out():
    rows = [{"subject": "a", "dice": 0.5}, {"subject": "b", "dice": None}, {"subject": "b"}]
    assert interval(rows, "dice") == (0.5, 0.5)
