"""Volumes through ``voxmask-resample``, SimpleITK and scipy."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

SHAPE = (21, 34, 27)
FILL = -77.0
# Intensities reach ±1000, and neighbours differ by as much.
TOLERANCE = 2e-3

TURN = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix()
TURNS = {
    "parallel": np.eye(3),
    "flipped": np.diag([-1.0, 1.0, -1.0]),
    "rolled": np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
    "swapped": np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    "oblique": Rotation.from_rotvec([0.1, 0.7, -0.3]).as_matrix(),
}
SPACINGS_MM = {"finer": (0.5, 0.9, 1.7), "coarser": (2.3, 3.1, 4.0)}


def scan() -> tuple[np.ndarray, np.ndarray]:
    """Noise, float32, on an oblique grid of 0.9×1.1×2.3 mm, and its affine."""
    voxels = np.random.default_rng(0).normal(size=SHAPE).clip(-3, 3) * 333
    return voxels.astype(np.float32), affine_of(TURN, (0.9, 1.1, 2.3), (10, -20, 30))


def affine_of(direction: np.ndarray, spacing, origin) -> np.ndarray:
    """Index to RAS+ mm, of numbers that f32 holds, since that is what a header keeps."""
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(spacing)
    affine[:3, 3] = origin
    return affine.astype(np.float32).astype(np.float64)


def target(turn: str, spacing: str) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of a grid about the scan's middle that reaches beyond it."""
    shape = (30, 25, 38)
    direction = TURN @ TURNS[turn]
    _, source = scan()
    middle = source @ [*((np.array(SHAPE) - 1) / 2), 1.0]
    linear = direction * np.asarray(SPACINGS_MM[spacing])
    origin = middle[:3] - linear @ ((np.array(shape) - 1) / 2) + [0.13, 0.21, -0.4]
    return shape, affine_of(direction, SPACINGS_MM[spacing], origin)


def as_itk(voxels: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """The same volume in LPS+; directions are made orthogonal, which f32 did not leave them."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    to_lps = np.diag([-1.0, -1.0, 1.0])
    image.SetSpacing(spacing.tolist())
    image.SetDirection((to_lps @ affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((to_lps @ affine[:3, 3]).tolist())
    return image


def by_itk(interpolator: int, shape, affine: np.ndarray) -> np.ndarray:
    """The scan on a grid as SimpleITK sees it."""
    grid = as_itk(np.zeros(shape, np.float32), affine)
    image = sitk.Resample(as_itk(*scan()), grid, sitk.Transform(), interpolator, FILL)
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)


def by_scipy(shape, affine: np.ndarray) -> np.ndarray:
    """The scan on a grid by scipy's cubic B-spline, mirrored; the fill value beyond half a voxel."""
    voxels, source = scan()
    to_source = np.linalg.inv(source) @ affine
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = index @ to_source[:3, :3].T + to_source[:3, 3]
    values = ndimage.map_coordinates(
        voxels.astype(np.float64), np.moveaxis(points, -1, 0), order=3, mode="mirror"
    )
    inside = np.all((points >= -0.5) & (points < np.array(SHAPE) - 0.5), axis=-1)
    return np.where(inside, values, FILL)


@pytest.fixture
def by_voxmask(tmp_path: Path, run_step, save_volume):
    """The scan on a grid as voxmask sees it."""

    def resample(shape, affine: np.ndarray, interpolation: str, coarsening: str = "sample"):
        save_volume(tmp_path / "scan.nii", *scan())
        save_volume(tmp_path / "grid.nii", np.zeros(shape, np.uint8), affine)
        run_step(
            "resample",
            *("--input", tmp_path / "scan.nii", "--like", tmp_path / "grid.nii"),
            *("--output", tmp_path / "output.nii", "--fill-value", FILL),
            *("--interpolation", interpolation, "--coarsening", coarsening, "--overwrite"),
        )
        return np.asarray(nib.load(tmp_path / "output.nii").dataobj)

    return resample


@pytest.mark.parametrize("spacing", SPACINGS_MM)
@pytest.mark.parametrize("turn", TURNS)
def test_linear_equals_simpleitk(turn, spacing, by_voxmask):
    grid = target(turn, spacing)
    found = by_voxmask(*grid, "linear")
    expected = by_itk(sitk.sitkLinear, *grid)
    assert (expected != FILL).any()
    assert np.abs(found - expected).max() < TOLERANCE


@pytest.mark.parametrize("spacing", SPACINGS_MM)
@pytest.mark.parametrize("turn", TURNS)
def test_nearest_equals_simpleitk(turn, spacing, by_voxmask):
    grid = target(turn, spacing)
    np.testing.assert_array_equal(
        by_voxmask(*grid, "nearest"), by_itk(sitk.sitkNearestNeighbor, *grid)
    )


@pytest.mark.parametrize("spacing", SPACINGS_MM)
@pytest.mark.parametrize("turn", TURNS)
def test_cubic_equals_scipy_and_simpleitk(turn, spacing, by_voxmask):
    grid = target(turn, spacing)
    found = by_voxmask(*grid, "cubic")
    assert np.abs(found - by_scipy(*grid)).max() < TOLERANCE
    assert np.abs(found - by_itk(sitk.sitkBSpline3, *grid)).max() < TOLERANCE


@pytest.mark.parametrize("turn", ["parallel", "rolled", "oblique"])
def test_averaging_leaves_less_noise_than_sampling(turn, by_voxmask):
    grid = target(turn, "coarser")
    sampled, averaged = (by_voxmask(*grid, "linear", how) for how in ("sample", "average"))
    inside = sampled != FILL
    np.testing.assert_array_equal(inside, averaged != FILL)
    assert averaged[inside].std() < 0.7 * sampled[inside].std()
