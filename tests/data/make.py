"""Cuts the three scans of this folder out of the published files named in README.md.

    python tests/data/make.py example_ct.nii.gz 5_anat-T1w_acq-tfl.nii sub-01_T1w.nii.gz

Needs nibabel and numpy. Voxel values and the affine are kept; no text field of a header is.
"""

import gzip
import io
import sys
from pathlib import Path

import nibabel
import numpy as np

# Name here -> the voxels kept of the source, along i, j, k.
SCANS = {
    "ct_abdomen": np.s_[:, :, 16:],
    "mr_head_intact": np.s_[:, :, 16:],
    "mr_head_defaced": np.s_[::2, :, :168],
}


def main() -> None:
    """Writes the scans beside this script."""
    for (name, kept), source in zip(SCANS.items(), sys.argv[1:], strict=True):
        image = nibabel.load(source)
        voxels = np.asanyarray(image.dataobj)
        assert voxels.min() >= -32768 and voxels.max() <= 32767
        cut = image.slicer[kept]
        clean = nibabel.Nifti1Image(voxels[kept].astype(np.int16), cut.affine)
        clean.header.set_xyzt_units("mm")
        write(Path(__file__).parent / f"{name}.nii.gz", clean)


def write(path: Path, image: nibabel.Nifti1Image) -> None:
    """Writes a gzip file that depends on nothing but the image."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(image.to_bytes())
    path.write_bytes(packed.getvalue())
    print(path.name, image.shape, f"{path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
