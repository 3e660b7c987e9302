"""Inputs of `make compare`, made of the scans that are there.

python inputs.py grid   SCAN                 prints shape and spacing [mm] as JSON
python inputs.py shift  MASK TARGET          the mask 2 mm off along i
python inputs.py slices SCAN TARGET COUNT    the scan repeated along k, every other copy turned over
python inputs.py blank  SCAN TARGET          its lowest value in front of the middle, on the last ninth of its slices
python inputs.py cube   TARGET SIDE          a ball of tissue in noisy air, int16, 0.5 mm
"""

import json
import sys

import nibabel
import numpy as np

SHIFT_MM = 2.0
SPACING_MM = 0.5


def main() -> None:
    """Does one of them."""
    what, *rest = sys.argv[1:]
    {"grid": grid, "shift": shift, "slices": slices, "blank": blank, "cube": cube}[what](*rest)


def grid(scan: str) -> None:
    header = nibabel.load(scan).header
    spacing = [float(mm) for mm in header.get_zooms()[:3]]
    print(json.dumps({"shape": list(map(int, header.get_data_shape())), "spacing": spacing}))


def shift(mask: str, target: str) -> None:
    image = nibabel.load(mask)
    voxels = np.asanyarray(image.dataobj)
    by = max(1, round(SHIFT_MM / float(image.header.get_zooms()[0])))
    moved = np.zeros_like(voxels)
    moved[by:] = voxels[:-by]
    nibabel.save(nibabel.Nifti1Image(moved, image.affine), target)


def slices(scan: str, target: str, count: str) -> None:
    image = nibabel.load(scan)
    voxels = np.asanyarray(image.dataobj)
    pairs = -(-int(count) // (2 * voxels.shape[2]))
    # Turned over, so that the body goes on where a copy ends.
    both = np.concatenate([voxels, voxels[:, :, ::-1]], axis=2)
    long = np.concatenate([both] * pairs, axis=2)[:, :, : int(count)]
    nibabel.save(nibabel.Nifti1Image(np.asfortranarray(long), image.affine), target)


def blank(scan: str, target: str) -> None:
    image = nibabel.load(scan)
    voxels = np.array(np.asanyarray(image.dataobj), order="F")
    half, first = voxels.shape[1] // 2, voxels.shape[2] * 8 // 9
    front = slice(half, None) if image.affine[1, 1] > 0 else slice(None, half)
    voxels[:, front, first:] = voxels.min()
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), target)


def cube(target: str, side: str) -> None:
    side = int(side)
    away = (np.arange(side) - side / 2 + 0.5) ** 2
    random = np.random.default_rng(0)
    voxels = np.empty((side,) * 3, np.int16, order="F")
    for k in range(side):
        noise = random.standard_normal((side, side), dtype=np.float32)
        inside = away[:, None] + away[None, :] + away[k] < (0.4 * side) ** 2
        voxels[:, :, k] = np.where(inside, 40 + 20 * noise, -1000 + 20 * noise)
    affine = np.diag([SPACING_MM * max(1, 256 / side)] * 3 + [1])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), target)


if __name__ == "__main__":
    main()
