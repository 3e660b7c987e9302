"""Real de-facing programs run on a scan: niimath's -deface and -reface, quickshear.

Each returns the tool's output on the scan's own grid and the voxels it altered. The
scan's header is centred for niimath, whose registration fails when the origin is
far off.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import scipy.ndimage as nd

from .alterations import constant_voxels, points_on
from .registration import centred, niimath
from .scan import Scan
from .templates import Templates

NIIMATH_TOOLS = ("niimath-deface", "niimath-reface-211", "niimath-reface-212")
TOOLS = (*NIIMATH_TOOLS, "quickshear")


def niimath_arguments(tool: str, data: Path) -> list[str]:
    """The operation and its templates."""
    folder = data / "defacing_templates"
    if tool == "niimath-deface":
        return ["-deface", f"{folder}/avg152T1.nii.gz", f"{folder}/avg152T1mask.nii.gz"]
    shell = folder / f"refacer_shell_sym{tool[-3:]}.nii.gz"
    base, weight = (folder / f"MNI152_2009_SSW{w}.nii.gz" for w in ("", "_weight"))
    return ["-reface", str(base), str(shell), str(weight)]


def run_niimath(scan: Scan, affine: np.ndarray, tool: str, data: Path) -> np.ndarray:
    """float32 [i, j, k]: the output of a niimath tool on whole numbers."""
    lowest = min(float(scan.values.min()), 0.0)
    raw = np.rint(scan.values - lowest).astype(np.int16)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.nii.gz", Path(folder) / "out.nii.gz"
        nib.save(nib.Nifti1Image(raw, centred(scan.values, affine)), source)
        command = [niimath(), str(source), *niimath_arguments(tool, data), str(target)]
        subprocess.run(command, check=True, capture_output=True)
        out = np.asanyarray(nib.load(target).dataobj).astype(np.float32)
    return out + np.float32(lowest)


def run_quickshear(scan: Scan, templates: Templates) -> np.ndarray:
    """float32 [i, j, k]: quickshear's output, with the template's brain mask."""
    from quickshear import quickshear

    grid, points = points_on(scan, scan.mni, 3.0)
    brain = grid.up(templates.brain.at(points)) > 0
    affine = np.diag([*scan.spacing, 1.0])
    image = nib.Nifti1Image(scan.values, affine)
    buffer = 10 / float(scan.spacing[1:].mean())
    mask = nib.Nifti1Image(brain.astype(np.uint8), affine)
    return np.asanyarray(quickshear(image, mask, buffer).dataobj).astype(np.float32)


def with_output(scan: Scan, output: np.ndarray, blanked_to: float | None) -> Scan:
    """The scan after a tool: area is what it changed or blanked; foreground updated.

    blanked_to: the value the tool blanks with; an air voxel that held it by chance
    counts as altered when nearly all its neighbours were blanked as well.
    """
    changed = np.abs(output - scan.values) > 0.5
    body = scan.foreground
    if blanked_to is not None:
        blank = output == blanked_to
        near = nd.uniform_filter(blank.astype(np.float32), 3) > 0.9
        changed |= blank & near & (nd.uniform_filter(changed.astype(np.float32), 5) > 0.2)
        body = body & ~(changed & blank)
        painted = changed & ~blank & (output > np.percentile(output[body], 10))
        body = body | painted
    free = (scan.values == output) & constant_voxels(scan)
    return replace(scan, values=output, area=changed & ~free, free=free, foreground=body)


def with_tool(scan: Scan, affine: np.ndarray, tool: str, data: Path, templates: Templates) -> Scan:
    """A scan after one of the real programs."""
    if tool == "quickshear":
        return with_output(scan, run_quickshear(scan, templates), 0.0)
    if tool not in NIIMATH_TOOLS:
        raise ValueError(f"unknown tool {tool}")
    return with_output(scan, run_niimath(scan, affine, tool, data), 0.0)
