"""Affines from the MNI template to heads that have none yet, by `niimath -allineate`.

    python -m voxmask_training.registration --data DIR [--work DIR]

The header's origin is centred first: far off, it makes the registration fail.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from .channels import CT_BELOW_HU, read_canonical

HEAD_CENTRE_MNI_MM = np.array([0.0, -18.0, 5.0])
HEIGHT_ABOVE_CENTRE_MM = 85.0
CUT_TOPS_MM = {"CT_head_vtk-headsq": -11.0, "T2_head_torchio-fernando": 45.0}
"""How far above the centre the view of a head ends that has no vertex, by eye; 6 mm more or less
end at the same affine."""


def niimath() -> str:
    """Path of the niimath program that the package brings."""
    import niimath as package

    return str(next((Path(package.__file__).parent / "bin").glob("niimath*")))


def centred(
    values: np.ndarray, affine: np.ndarray, height_mm: float = HEIGHT_ABOVE_CENTRE_MM
) -> np.ndarray:
    """The affine with the head's middle (by height from its top in view) at MNI's."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    level = values > np.percentile(values, 60)
    rows = np.flatnonzero(level.mean((0, 1)) > 0.1)
    top = rows[-1] if len(rows) else values.shape[2] - 1
    i, j = (np.array(values.shape[:2]) - 1) / 2
    k = max(top - height_mm / spacing[2], 0)
    out = affine.copy()
    out[:3, 3] = HEAD_CENTRE_MNI_MM - affine[:3, :3] @ np.array([i, j, k])
    return out


def register(
    path: Path,
    template: Path,
    lowest_mm: float | None = None,
    height_mm: float = HEIGHT_ABOVE_CENTRE_MM,
) -> np.ndarray:
    """4x4 from the MNI template's mm to the scan's. Keeps `lowest_mm` below the vertex
    only.
    """
    values, affine = read_canonical(path)
    values = np.clip(values, -200, 300) + 200 if values.min() < CT_BELOW_HU else values
    start = centred(values, affine, height_mm)
    if lowest_mm:
        cut = max(0, int(values.shape[2] - lowest_mm / np.linalg.norm(affine[:3, 2])))
        values = values[:, :, cut:]
        for matrix in (affine, start):
            matrix[:3, 3] += matrix[:3, 2] * cut
    with tempfile.TemporaryDirectory() as folder:
        scan, out, matrix = (Path(folder) / n for n in ("scan.nii.gz", "mni.nii.gz", "m.json"))
        nib.save(nib.Nifti1Image(values.astype(np.float32), start), scan)
        command = [niimath(), scan, "-allineate", template, "-savemat", matrix, out]
        subprocess.run([str(c) for c in command], check=True, capture_output=True)
        fixed_to_moving = np.array(json.loads(matrix.read_text())["fixed_to_moving"])
    return affine @ np.linalg.inv(start) @ fixed_to_moving


def main() -> None:
    """Register every head with a face (or a part of it) that has no affine yet."""
    from .sources import FAILED_REGISTRATIONS, read_table, registration_of
    from .work import default_work

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=default_work())
    args = parser.parse_args()
    folder = args.work / "registrations"
    folder.mkdir(parents=True, exist_ok=True)
    template = args.data / "defacing_templates" / "MNI152_2009_SSW.nii.gz"
    for row in read_table(args.data):
        stem = row["stem"]
        wanted = row["face"].startswith("intact") and "head" in row["region"]
        hopeless = stem in FAILED_REGISTRATIONS and stem not in CUT_TOPS_MM
        known = registration_of(stem, args.data, args.work) is not None
        if not wanted or hopeless or known:
            continue
        tall = 230.0 if row["region"] != "head" else None
        height = CUT_TOPS_MM.get(stem, HEIGHT_ABOVE_CENTRE_MM)
        matrix = register(row["path"], template, tall, height)
        text = json.dumps({"mni_to_scan_world_mm": matrix.tolist()})
        (folder / f"{stem}.json").write_text(text)
        print(stem, np.round(np.linalg.det(matrix[:3, :3]), 3), flush=True)


if __name__ == "__main__":
    main()
