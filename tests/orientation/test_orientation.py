"""The same scan, stored along other axes or tilted, gets the same masks.

Each of the 48 ways to permute and flip the three axes keeps every voxel at its place in the world;
a tilted affine moves the whole scan. Masks are turned back and compared with those of the scan as
it is. `make setup` builds the executables that are asked.
"""

import itertools
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCANS = ["ct_abdomen", "mr_head_intact", "mr_head_defaced"]
STEPS = ["segment-foreground", "segment-anonymization-area"]
LEAST_DICE = 0.999
TURNS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product([1, -1], repeat=3)
]
# Degrees about the x, y and z axis of the world.
TILTS = [(15.0, 0.0, 0.0), (-10.0, 20.0, 8.0), (5.0, -12.0, 25.0)]


def turned(image, order, flips):
    """The same scan with its axes permuted, then flipped; every voxel keeps its place."""
    ornt = np.array([[order.index(axis), flips[axis]] for axis in range(3)])
    return image.as_reoriented(ornt)


def turned_back(voxels, order, flips):
    """Undoes `turned` on an array of voxels."""
    for axis in range(3):
        if flips[axis] < 0:
            voxels = np.flip(voxels, order.index(axis))
    return voxels.transpose(np.argsort(order))


def tilted(image, degrees):
    """The same voxels in a scan that is rotated about its centre."""
    rotation = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(3)
        a, b = [other for other in range(3) if other != axis]
        turn[[a, a, b, b], [a, b, a, b]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        rotation = turn @ rotation
    centre = image.affine @ [*(np.array(image.shape) - 1) / 2, 1]
    affine = image.affine.copy()
    affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = centre[:3] - affine[:3, :3] @ ((np.array(image.shape) - 1) / 2)
    return nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine)


def segment(step, image, folder, name):
    """Runs a step on an image that is not on disk yet; returns the mask's voxels."""
    source, target = folder / f"{name}.nii", folder / f"{name}.mask.nii"
    nibabel.save(image, source)
    program = ROOT / "target/release" / f"voxmask-{step}"
    command = [program, "--input", source, "--output", target, "--threads", "1", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    mask = nibabel.load(target)
    assert mask.shape == image.shape
    assert np.array_equal(mask.affine, nibabel.load(source).affine)
    voxels = np.asanyarray(mask.dataobj) > 0
    source.unlink()
    target.unlink()
    return voxels


def dice(one, other):
    """Sørensen-Dice of two masks; 1 when both are empty."""
    total = one.sum() + other.sum()
    return 1.0 if total == 0 else 2.0 * (one & other).sum() / total


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("scan", SCANS)
def test_masks_turn_with_the_scan(scan, step, tmp_path, figure):
    image = nibabel.load(ROOT / f"tests/data/{scan}.nii.gz")
    image = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
    expected = segment(step, image, tmp_path, "as-is")

    def of_turn(turn):
        found = segment(step, turned(image, *turn), tmp_path, f"turn-{TURNS.index(turn)}")
        return dice(turned_back(found, *turn), expected)

    def of_tilt(tilt):
        found = segment(step, tilted(image, tilt), tmp_path, f"tilt-{TILTS.index(tilt)}")
        return dice(found, expected)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        turns = list(pool.map(of_turn, TURNS))
        tilts = list(pool.map(of_tilt, TILTS))
    figure(
        f"{scan} {step}: {expected.sum()} voxels; worst Dice of {len(turns)} turns "
        f"{min(turns):.5f}, of {len(tilts)} tilts {min(tilts):.5f}"
    )
    assert min(turns) >= LEAST_DICE
    assert min(tilts) >= LEAST_DICE


def test_turning_back_undoes_turning():
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(voxels, np.diag([1.0, 2.0, 3.0, 1.0]))
    for order, flips in TURNS:
        there = turned(image, order, flips)
        back = turned_back(np.asanyarray(there.dataobj), order, flips)
        assert np.array_equal(back, voxels)
        # The voxel of value 0 is where it was in the world.
        index = np.argwhere(np.asanyarray(there.dataobj) == 0)[0]
        assert np.allclose(there.affine @ [*index, 1], image.affine @ [0, 0, 0, 1])
