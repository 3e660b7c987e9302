"""Makes a CT of full clinical size out of a small real one: finer voxels, fresh noise.

python benches/volume.py tests/data/ct_abdomen.nii.gz ct_512.nii.gz
"""

import sys

import nibabel
import numpy as np

SHAPE = (512, 512, 300)
NOISE_HU = 20.0


def main() -> None:
    """Writes an int16 volume of `SHAPE` voxels over the field of view of the source."""
    source, target = sys.argv[1:]
    image = nibabel.load(source)
    voxels = np.asanyarray(image.dataobj).astype(np.float32)
    for axis, count in enumerate(SHAPE):
        voxels = stretch(voxels, axis, count)
    noise = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    voxels = np.clip(np.rint(voxels + NOISE_HU * noise), -32768, 32767).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, finer_affine(image)), target)


def stretch(voxels: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Interpolates linearly to `count` voxels along an axis; the outer faces stay put."""
    size = voxels.shape[axis]
    place = np.clip((np.arange(count) + 0.5) * size / count - 0.5, 0, size - 1)
    low = np.minimum(place.astype(int), size - 2)
    weight = (place - low).astype(np.float32)
    weight = weight.reshape([-1 if a == axis else 1 for a in range(3)])
    below, above = np.take(voxels, low, axis), np.take(voxels, low + 1, axis)
    return below + weight * (above - below)


def finer_affine(image: nibabel.Nifti1Image) -> np.ndarray:
    """Affine of the finer grid over the same field of view, index to RAS+ point [mm]."""
    step = np.array(image.shape) / np.array(SHAPE)
    affine = image.affine.copy()
    affine[:3, :3] = image.affine[:3, :3] * step
    affine[:3, 3] += image.affine[:3, :3] @ ((step - 1) / 2)
    return affine


if __name__ == "__main__":
    main()
