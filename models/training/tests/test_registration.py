"""Which registration of a head is taken, and where one begins."""

import json

import numpy as np

from voxmask_training.registration import HEAD_CENTRE_MNI_MM, centred
from voxmask_training.sources import FAILED_REGISTRATIONS, registration_of


def test_a_registration_that_failed_is_replaced_by_one_of_ones_own(tmp_path):
    data, work = tmp_path / "data", tmp_path / "work"

    def write(folder, stem, scale):
        (folder / "registrations").mkdir(parents=True, exist_ok=True)
        matrix = {"mni_to_scan_world_mm": (scale * np.eye(4)).tolist()}
        (folder / "registrations" / f"{stem}.json").write_text(json.dumps(matrix))

    failed = FAILED_REGISTRATIONS[0]
    for stem in ("head", failed):
        write(data, stem, 1.0)
    assert registration_of("head", data, work)[0, 0] == 1.0
    assert registration_of(failed, data, work) is None
    for stem in ("head", failed):
        write(work, stem, 2.0)
    assert registration_of("head", data, work)[0, 0] == 1.0
    assert registration_of(failed, data, work)[0, 0] == 2.0


def test_a_head_that_is_cut_above_begins_as_far_below_the_centre():
    values = np.ones((20, 20, 30))
    values[5:15, 5:15] = 100.0
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for height in (40.0, -10.0):
        top = centred(values, affine, height) @ [9.5, 9.5, 29.0, 1.0]
        wanted = HEAD_CENTRE_MNI_MM + [0.0, 0.0, height]
        assert np.allclose(top[:3], wanted), (height, top)
