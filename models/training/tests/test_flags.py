"""How well flags find bad masks is counted right."""

import numpy as np

from voxmask_training.flags import (
    MEASURES,
    NO_FLAG,
    Scan,
    ranking,
    ranks,
    separation,
    suggestions,
    table_of,
)


def scan(dice: float, entropy: float, flags: str = "") -> Scan:
    values = dict.fromkeys([*MEASURES, *NO_FLAG], "") | {"edge_entropy": str(entropy)}
    return Scan(values | {"dice": str(dice), "flags": flags})


def test_flags_of_the_area_say_nothing_of_the_foreground() -> None:
    scans = [scan(0.9, 0.8, "unsure-edge"), scan(0.97, 0.2), scan(0.99, 0.3, "altered-or-not")]
    table = table_of(scans)
    assert "| unsure-edge | 1 of 2 (50 %) | 0 of 1 (0 %) |" in table
    assert "altered" not in table
    assert "| any | 1 of 2 (50 %) | 0 of 1 (0 %) |" in table


def test_a_threshold_leaves_one_good_mask_in_ten_beyond_it() -> None:
    good = [scan(0.99, n / 100) for n in range(20)]
    bad = [scan(0.9, 0.5), scan(0.9, 0.05)]
    line = next(line for line in suggestions(good + bad).splitlines() if "unsure-edge" in line)
    # Of 20 good ones, 0.18 and 0.19 lie beyond 0.17.
    assert "| 0.17 | 1 of 2 (50 %) |" in line


def test_separation_is_the_share_of_pairs_in_the_right_order() -> None:
    scans = [(0.1, scan(0.99, 0)), (0.3, scan(0.99, 0)), (0.2, scan(0.9, 0)), (0.3, scan(0.9, 0))]
    assert separation(scans) == (1 + 1.5) / 4


def test_a_measure_that_falls_with_the_dice_ranks_as_the_dice_does() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 7.0])).tolist() == [1.5, 0, 1.5, 3]
    table = ranking([scan(0.99 - n / 100, n / 10) for n in range(5)])
    assert "| edge_entropy | 5 | 1.00 |" in table
    assert "pieces" not in table
