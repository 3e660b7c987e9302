"""Cases that the networks are judged on: thick slices lie where the scan does."""

import numpy as np

from tests.test_originals import head
from voxmask_training.evaluation_set import (
    APART,
    IN_SLICES,
    MASKS,
    SIMULATED,
    affine_of,
    methods_in_slices,
)
from voxmask_training.scan import resampled


def test_methods_in_slices_are_known_and_take_turns():
    assert set(IN_SLICES) <= {*MASKS, *SIMULATED, *APART}  # programs want the thin grid
    thin = resampled(head(), np.array([1.0, 1.0, 2.0]))
    three = [methods_in_slices(thin, False, turn) for turn in range(3)]
    assert sorted(sum(three, [])) == sorted(IN_SLICES)
    assert methods_in_slices(thin, True, 0) == three[1]
    assert methods_in_slices(head(), False, 0) == []


def test_the_middle_of_a_scan_in_slices_stays():
    scan = head()
    thick = resampled(scan, np.array([4.0, 4.0, 7.0]))
    affine = np.array([[0, -4, 0, 7], [4, 0, 0, 3], [0, 0, 4, 1], [0, 0, 0, 1]], float)
    new = affine_of(thick, scan, affine)
    middles = [a @ [*(np.array(s.shape) - 1) / 2, 1.0] for a, s in ((affine, scan), (new, thick))]
    np.testing.assert_allclose(*middles)
    np.testing.assert_allclose(np.linalg.norm(new[:3, :3], axis=0), [4, 4, 7])
