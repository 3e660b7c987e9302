"""Every volume of a collection through all five steps; masks are checked against their scans.

    make sweep DATA=folder

Takes each `.nii` and `.nii.gz` of the folder, or of its `volumes*` subfolders if it has such. For
every volume: each step ends with 0, and both masks have the scan's shape, affine, sform, qform and
codes to the last bit (read with nibabel), hold nothing but 0 and 1, and no text in their headers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np

PROGRAMS = Path(__file__).parents[2] / "target/release"
GRID_FIELDS = ["sform_code", "qform_code", "srow_x", "srow_y", "srow_z"]
GRID_FIELDS += ["quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"]
TEXT_FIELDS = ["descrip", "aux_file", "intent_name", "db_name"]


def main() -> int:
    """Prints a line a volume; returns 1 if any of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of volumes")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    volumes = find(arguments.data)
    failed = 0
    print(f"{'volume':44}{'foreground':>11}{'altered ml':>11}{'seconds':>9}")
    for volume in volumes:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            try:
                share, altered_ml = run_steps(volume, Path(scratch), arguments.threads)
            except Failure as failure:
                failed += 1
                print(f"{volume.name:44}FAILED: {failure}", flush=True)
                continue
        seconds = time.perf_counter() - start
        print(f"{volume.name:44}{share:11.1%}{altered_ml:11.1f}{seconds:9.1f}", flush=True)
    print(f"{len(volumes) - failed} of {len(volumes)} volumes went through all five steps")
    return int(failed > 0 or not volumes)


class Failure(Exception):
    """A step that failed, or a mask that does not fit its scan."""


def find(data: Path) -> list[Path]:
    """The volumes of a folder, in order of name."""
    folders = sorted(data.glob("volumes*/")) or [data]
    return sorted(path for folder in folders for path in folder.glob("*.nii*"))


def run_steps(volume: Path, scratch: Path, threads: int) -> tuple[float, float]:
    """All five steps on one volume; returns the foreground's share and the altered volume [ml]."""
    foreground, area = scratch / "foreground.nii.gz", scratch / "area.nii.gz"
    patches, resampled = scratch / "patches", scratch / "resampled.nii.gz"
    steps = {
        "resample": ["--input", volume, "--output", resampled, "--spacing", "2,2,2"],
        "segment-foreground": ["--input", volume, "--output", foreground],
        "segment-anonymization-area": (
            ["--input", volume, "--foreground", foreground, "--output", area]
        ),
        "crop-patches": (
            ["--input", volume, "--foreground", foreground, "--anonymization-area", area]
            + ["--output", patches, "--patch-shape", "64,64,64"]
        ),
        "qa-metrics": ["--input", foreground, "--image", volume],
    }
    for step, flags in steps.items():
        report = scratch / f"{step}.json"
        command = [PROGRAMS / f"voxmask-{step}", *flags, "--report", report]
        command += ["--threads", str(threads), "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Failure(f"{step} ended with {done.returncode}: {done.stderr.strip()}")
        if json.loads(report.read_text())["step"] != step:
            raise Failure(f"{step} left a report of another step")
    scan = nibabel.load(volume)
    inside = check_mask(foreground, scan)
    altered = check_mask(area, scan)
    voxel_ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    return inside.mean(), altered.sum() * voxel_ml


def check_mask(path: Path, scan: nibabel.Nifti1Image) -> np.ndarray:
    """The voxels of a mask that lies on the scan's own grid exactly."""
    mask = nibabel.load(path)
    if mask.shape != scan.shape or not np.array_equal(mask.affine, scan.affine):
        raise Failure(f"{path.name}: shape or affine differs from the scan's")
    for name in GRID_FIELDS:
        # Bytes, so that NaN equals NaN and -0 differs from 0.
        if mask.header[name].tobytes() != scan.header[name].tobytes():
            raise Failure(f"{path.name}: {name} differs from the scan's")
    if mask.header["pixdim"][:4].tobytes() != scan.header["pixdim"][:4].tobytes():
        raise Failure(f"{path.name}: pixdim differs from the scan's")
    for name in TEXT_FIELDS:
        if mask.header[name].tobytes().strip(b"\0"):
            raise Failure(f"{path.name}: {name} holds text")
    voxels = np.asanyarray(mask.dataobj)
    if voxels.dtype != np.uint8 or voxels.max() > 1:
        raise Failure(f"{path.name}: holds more than 0 and 1 as uint8")
    return voxels


if __name__ == "__main__":
    sys.exit(main())
