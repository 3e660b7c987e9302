"""Masks through ``voxmask-qa-metrics`` and through DeepMind's ``surface-distance``."""

from __future__ import annotations

import numpy as np
import pytest
import surface_distance as peer
from scipy import ndimage

PAIRS = 20


def blob(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """A random bool mask with rounded pieces; some touch the border."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.5, 3.0))
    return noise > np.quantile(noise, rng.uniform(0.6, 0.95))


def pair(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, reference and spacing [mm]; odd seeds are unlike, even ones nearly equal."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(6, 40, size=3))
    reference = blob(rng, shape)
    if seed % 2:
        prediction = blob(rng, shape)
    else:
        prediction = reference ^ (ndimage.gaussian_filter(rng.normal(size=shape), 1.0) > 0.3)
    # Spacings that f32 holds exactly, since that is what a header keeps.
    return prediction, reference, rng.integers(2, 30, size=3) / 8


def measure(prediction: np.ndarray, reference: np.ndarray, spacing, tolerance_mm: float) -> dict:
    """The peer's figures; its two average distances are joined by the area that each stands for."""
    distances = peer.compute_surface_distances(reference, prediction, spacing)
    areas = [distances[f"surfel_areas_{side}"].sum() for side in ("gt", "pred")]
    averages = peer.compute_average_surface_distance(distances)
    return {
        "dice": peer.compute_dice_coefficient(reference, prediction),
        "hd_mm": peer.compute_robust_hausdorff(distances, 100),
        "hd95_mm": peer.compute_robust_hausdorff(distances, 95),
        "nsd": peer.compute_surface_dice_at_tolerance(distances, tolerance_mm),
        "assd_mm": np.dot(averages, areas) / sum(areas),
        "volume_ml": prediction.sum() * np.prod(spacing) / 1000,
        "reference_volume_ml": reference.sum() * np.prod(spacing) / 1000,
    }


def values(scores: dict) -> dict:
    """Scores as plain numbers; a measure that may be undefined is an object."""
    return {key: s["value"] if isinstance(s, dict) else s for key, s in scores.items()}


@pytest.mark.parametrize("seed", range(PAIRS))
def test_scores_equal_those_of_surface_distance(seed, tmp_path, run_step, save_volume):
    prediction, reference, spacing = pair(seed)
    affine = np.diag([*spacing, 1.0])
    save_volume(tmp_path / "prediction.nii", prediction.astype(np.uint8), affine)
    save_volume(tmp_path / "reference.nii", reference.astype(np.uint8), affine)
    tolerance_mm = 1.7
    result = run_step(
        "qa-metrics",
        *("--input", tmp_path / "prediction.nii", "--reference", tmp_path / "reference.nii"),
        *("--tolerance-mm", tolerance_mm),
    )
    [label] = result["comparison"]["labels"]
    found = values(label["scores"])
    expected = measure(prediction, reference, spacing, tolerance_mm)
    assert found["tolerance_mm"] == tolerance_mm
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_each_label_is_scored_by_itself(tmp_path, run_step, save_volume):
    rng = np.random.default_rng(5)
    spacing = np.array([0.75, 1.5, 2.5])
    maps = [np.zeros((30, 25, 20), np.int16) for _ in range(2)]
    for label in (2, 300):
        mask = blob(rng, maps[0].shape)
        maps[0][mask] = label
        maps[1][np.roll(mask, 1, axis=label % 3)] = label
    for name, label_map in zip(("prediction", "reference"), maps, strict=True):
        save_volume(tmp_path / f"{name}.nii.gz", label_map, np.diag([*spacing, 1.0]))
    result = run_step(
        "qa-metrics",
        *("--input", tmp_path / "prediction.nii.gz", "--reference", tmp_path / "reference.nii.gz"),
    )
    scores = {entry["label"]: values(entry["scores"]) for entry in result["comparison"]["labels"]}
    assert sorted(scores) == [2, 300]
    for label, found in scores.items():
        expected = measure(maps[0] == label, maps[1] == label, spacing, 2.0)
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_without_a_prediction_distances_are_undefined(tmp_path, run_step, save_volume):
    reference = np.zeros((8, 9, 10), np.uint8)
    reference[2:5, 3:6, 4:7] = 1
    save_volume(tmp_path / "prediction.nii", np.zeros_like(reference), np.eye(4))
    save_volume(tmp_path / "reference.nii", reference, np.eye(4))
    result = run_step(
        "qa-metrics",
        *("--input", tmp_path / "prediction.nii", "--reference", tmp_path / "reference.nii"),
    )
    scores = result["comparison"]["overall"]
    for key in ("hd_mm", "hd95_mm", "assd_mm"):
        assert scores[key]["value"] is None
        assert "prediction" in scores[key]["why"]
    assert values(scores)["dice"] == 0
    assert values(scores)["nsd"] == 0
