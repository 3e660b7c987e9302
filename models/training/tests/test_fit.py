"""Facts about how parameters of a card are chosen."""

from voxmask_training.fit import middle_of_best


def test_the_middle_of_equally_good_thresholds_is_kept():
    scores = {-1.0: 0.7, 0.0: 0.8, 1.0: 0.9, 2.0: 0.9, 3.0: 0.9, 4.0: 0.9, 5.0: 0.9, 6.0: 0.6}
    assert middle_of_best(scores) == 3.0
    assert middle_of_best({0.0: 0.5, 1.0: 0.6, 2.0: 0.1}) == 1.0
