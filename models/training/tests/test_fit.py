"""Facts about how parameters of a card are chosen."""

import json
from types import SimpleNamespace

import nibabel
import numpy as np

from voxmask_training.fit import Trial, descend, fit_temperature, highest_of_best


def test_the_highest_of_equally_good_thresholds_is_kept():
    scores = {-1.0: 0.7, 0.0: 0.8, 1.0: 0.9, 2.0: 0.9, 3.0: 0.9, 4.0: 0.9, 5.0: 0.9, 6.0: 0.6}
    assert highest_of_best(scores) == 5.0
    assert highest_of_best({0.0: 0.5, 1.0: 0.6, 2.0: 0.1}) == 1.0


def test_what_a_card_lacks_is_zero_and_can_be_fitted(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps({"boundary": {"skin": {"level": 0.3}}}))
    trial = Trial(tmp_path, "boundary")
    assert trial.value("closing_mm") == 0.0 and trial.value("skin.level") == 0.3
    candidates = {"closing_mm": (0.0, 1.5), "skin.level": (0.2, 0.3)}
    best = descend(trial, candidates, lambda: 1.0 - abs(trial.value("closing_mm") - 1.5), 0.01)
    assert best == 1.0
    assert trial.parameters() == {"skin": {"level": 0.3}, "closing_mm": 1.5}


def test_the_temperature_undoes_overconfidence_and_leaves_out_what_is_certain(tmp_path):
    rng = np.random.default_rng(0)
    right = rng.normal(0.0, 1.2, (40, 40, 40))
    truth = rng.random(right.shape) < 1.0 / (1.0 + np.exp(-right))
    said = 1.0 / (1.0 + np.exp(-2.0 * right))
    said[:4], truth[:4] = 1.0, False

    def run(image, name, probability):
        nibabel.save(nibabel.Nifti1Image(said.astype(np.float32), np.eye(4)), probability)

    (tmp_path / "card.json").write_text(json.dumps({"boundary": {"mr_level": 0.2}}))
    step = SimpleNamespace(run=run, folder=tmp_path)
    trial = Trial(tmp_path, "boundary")
    fit_temperature(trial, step, [(tmp_path / "image", truth, np.ones_like(truth))])
    assert abs(trial.value("temperature") - 2.0) < 0.15
