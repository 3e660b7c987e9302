"""Patches through ``voxmask-crop-patches``, read by NumPy, nibabel and zarr."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import zarr
from scipy import ndimage
from scipy.spatial.transform import Rotation

SHAPE = (40, 33, 21)
PATCH = (9, 8, 7)
MEASURED = ["--sampling", "random", "--count", 12, "--seed", 5]


@pytest.fixture
def scan(tmp_path: Path, save_volume) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image (float32), foreground, altered area and affine; saved as files in ``tmp_path``."""
    noise = np.random.default_rng(1).normal(size=SHAPE)
    image = (100 * ndimage.gaussian_filter(noise, 2) + 50).astype(np.float32)
    middle = [(n - 1) / 2 for n in SHAPE]
    away = [(np.arange(n) - m) / (0.45 * n) for n, m in zip(SHAPE, middle)]
    i, j, k = np.meshgrid(*away, indexing="ij")
    foreground = (i**2 + j**2 + k**2 < 1).astype(np.uint8)
    area = np.zeros(SHAPE, np.uint8)
    area[:, 24:, :] = 1
    affine = np.eye(4)
    turn = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix()
    affine[:3, :3] = np.float32(turn * (0.9, 1.1, 2.3))
    affine[:3, 3] = (10, -20, 30)
    for name, voxels in (("image", image), ("foreground", foreground), ("area", area)):
        save_volume(tmp_path / f"{name}.nii.gz", voxels, affine)
    return image, foreground, area, affine


def crop(run_step, folder: Path, *flags: object) -> tuple[dict, list[dict]]:
    """The report's ``result`` and the index."""
    result = run_step(
        "crop-patches",
        *("--input", folder / "image.nii.gz", "--output", folder / "patches", "--overwrite"),
        *("--foreground", folder / "foreground.nii.gz"),
        *("--anonymization-area", folder / "area.nii.gz"),
        *("--patch-shape", ",".join(map(str, PATCH)), *flags),
    )
    lines = (folder / "patches" / "index.jsonl").read_text().splitlines()
    return result, [json.loads(line) for line in lines]


def box(entry: dict) -> tuple[slice, ...]:
    bounds = entry["bounding_box"]
    return tuple(slice(a, b) for a, b in zip(bounds["start"], bounds["end"]))


def test_numpy_reads_every_type(scan, run_step, tmp_path):
    image, _, area, _ = scan
    for dtype, tolerance in (("float32", 0), ("float16", 0.04)):
        _, index = crop(run_step, tmp_path, *MEASURED, "--dtype", dtype)
        for entry in index:
            values = np.load(tmp_path / "patches" / entry["name"])
            loss = np.load(tmp_path / "patches" / entry["loss_mask"])
            assert (values.dtype, loss.dtype) == (np.dtype(dtype), np.dtype("uint8"))
            assert values.shape == loss.shape == PATCH
            np.testing.assert_allclose(values, image[box(entry)], atol=tolerance)
            np.testing.assert_array_equal(loss, 1 - area[box(entry)])


def test_zarr_reads_the_same_patches(scan, run_step, tmp_path):
    image, _, area, _ = scan
    _, index = crop(run_step, tmp_path, *MEASURED, "--format", "zarr", "--dtype", "float16")
    group = zarr.open_group(tmp_path / "patches" / "patches.zarr", mode="r")
    assert group["image"].shape == (12, *PATCH) == group["loss_mask"].shape
    assert group["image"].dtype == np.float16
    for entry in index:
        values = group["image"][entry["number"]]
        np.testing.assert_allclose(values, image[box(entry)], atol=0.04)
        np.testing.assert_array_equal(group["loss_mask"][entry["number"]], 1 - area[box(entry)])


def test_nibabel_finds_patches_where_they_were(scan, run_step, tmp_path):
    image, _, _, affine = scan
    _, index = crop(run_step, tmp_path, *MEASURED, "--format", "nifti")
    for entry in index:
        patch = nib.load(tmp_path / "patches" / entry["name"])
        start = np.array([*entry["bounding_box"]["start"], 1.0])
        exact = affine.copy()
        exact[:, 3] = affine @ start
        np.testing.assert_allclose(entry["affine"], exact, atol=1e-6)
        # The header keeps f32.
        np.testing.assert_allclose(patch.affine, exact, atol=1e-5)
        np.testing.assert_array_equal(patch.get_fdata(dtype=np.float32), image[box(entry)])


def test_z_scores_are_numpys(scan, run_step, tmp_path):
    image, foreground, area, _ = scan
    result, index = crop(run_step, tmp_path, *MEASURED, "--normalization", "z-score")
    values = image[(foreground == 1) & (area == 0)].astype(np.float64)
    np.testing.assert_allclose(result["intensity"]["offset"], values.mean(), rtol=1e-9)
    np.testing.assert_allclose(result["intensity"]["scale"], values.std(), rtol=1e-9)
    for entry in index:
        patch = np.load(tmp_path / "patches" / entry["name"])
        expected = (image[box(entry)] - values.mean()) / values.std()
        np.testing.assert_allclose(patch, expected, atol=1e-5)


def test_the_table_is_the_index(scan, run_step, tmp_path):
    _, index = crop(run_step, tmp_path, *MEASURED)
    with (tmp_path / "patches" / "index.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["name"] for row in rows] == [entry["name"] for entry in index]
    assert [int(row["centre_j"]) for row in rows] == [entry["centre"][1] for entry in index]
