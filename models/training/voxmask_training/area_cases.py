"""Reads the area's evaluation set, a folder for each case."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .executables import read_mask
from .scores import Mask


@dataclass(frozen=True)
class AreaCase:
    """A scan, altered or not, with its area and free voxels on its own grid."""

    folder: Path
    subject: str
    method: str
    background: str
    modality: str
    region: str
    altered: bool

    @property
    def image(self) -> Path:
        """Where the scan lies."""
        return self.folder / "image.nii.gz"

    def read_masks(self) -> tuple[Mask, Mask]:
        """Reads the area and the free voxels."""
        return (
            read_mask(self.folder / "reference.nii.gz"),
            read_mask(self.folder / "free.nii.gz"),
        )


def read_area_cases(folder: Path, subjects: frozenset[str] | None = None) -> list[AreaCase]:
    """Lists the cases of these subjects, or of all."""
    cases = []
    for path in sorted(folder.glob("*/case.json")):
        case = json.loads(path.read_text())
        if subjects is None or case["subject"] in subjects:
            cases.append(
                AreaCase(
                    folder=path.parent,
                    subject=case["subject"],
                    method=case["method"],
                    background=case["background"],
                    modality="CT" if case["modality"] == "CT" else "MR",
                    region=case["region"],
                    altered=bool(case["altered"]),
                )
            )
    return cases
