"""The executables called by hand, and how their results are compared with those of a workflow."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATCH_SHAPE = "32,32,32"
# Names that a workflow gives to the results of one scan, after the scan's id.
RESULTS = (
    "foreground.nii.gz",
    "foreground.png",
    "anonymization_area.nii.gz",
    "anonymization_area.png",
    "patches",
)
REPORTS = {
    "foreground.json": "segment-foreground",
    "anonymization_area.json": "segment-anonymization-area",
    "patches.json": "crop-patches",
    "foreground_qa.json": "qa-metrics",
    "anonymization_area_qa.json": "qa-metrics",
}


@dataclass(frozen=True)
class Steps:
    """The executables of one folder."""

    folder: Path

    def __call__(self, step: str, **flags: object) -> None:
        """Runs a step; ``min_dice=0.9`` is ``--min-dice 0.9``."""
        command = [str(self.folder / f"voxmask-{step}"), "--quiet", "--device=cpu", "--threads=2"]
        command += [f"--{flag.replace('_', '-')}={value}" for flag, value in flags.items()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def chain(self, name: str, image: Path, out: Path, modality: str = "auto", **references: Path) -> Path:
        """Runs the four steps on one scan, with the names that the workflows give.

        ``references`` names masks to compare with, by the mask: ``foreground=path``.
        """
        out.mkdir(parents=True)
        at = lambda suffix: out / f"{name}_{suffix}"  # noqa: E731
        masks = {"foreground": at("foreground.nii.gz")}
        self(
            "segment-foreground",
            input=image,
            modality=modality,
            output=masks["foreground"],
            picture=at("foreground.png"),
            report=at("foreground.json"),
        )
        self(
            "segment-anonymization-area",
            input=image,
            modality=modality,
            **masks,
            output=at("anonymization_area.nii.gz"),
            picture=at("anonymization_area.png"),
            report=at("anonymization_area.json"),
        )
        masks["anonymization_area"] = at("anonymization_area.nii.gz")
        self(
            "crop-patches",
            input=image,
            **masks,
            output=at("patches"),
            patch_shape=PATCH_SHAPE,
            minimum_foreground=0.1,
            report=at("patches.json"),
        )
        for mask, path in masks.items():
            compared = {"reference": references[mask]} if mask in references else {}
            self("qa-metrics", input=path, image=image, report=at(f"{mask}_qa.json"), **compared)
        return out


def assert_same_results(name: str, found: Path, by_hand: Path) -> None:
    """Masks, pictures and patches are the same bytes, reports the same but for how they were run."""
    for suffix in RESULTS:
        left, right = found / f"{name}_{suffix}", by_hand / f"{name}_{suffix}"
        assert contents(left) == contents(right), f"{name}_{suffix} differs"
    for suffix, step in REPORTS.items():
        left, right = (report(folder / f"{name}_{suffix}") for folder in (found, by_hand))
        assert left["step"] == step
        assert left["result"] == right["result"], f"{name}_{suffix} differs"


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of all files of a folder by their paths in it.

    Snakemake's own mark in a folder that it made does not count.
    """
    if path.is_file():
        return {"": path.read_bytes()}
    found = (p for p in path.rglob("*") if p.is_file() and p.name != ".snakemake_timestamp")
    files = {str(p.relative_to(path)): p.read_bytes() for p in found}
    assert files, f"{path} has no files"
    return files


def report(path: Path) -> dict:
    """A report of a step."""
    return json.loads(path.read_text())


def write_sheet(path: Path, rows: list[dict[str, object]]) -> Path:
    """Writes a sample sheet (CSV); a key that a row lacks stays empty."""
    columns = ["id", "image", "modality", "foreground_reference", "anonymization_area_reference"]
    lines = [",".join(str(row.get(column, "")) for column in columns) for row in rows]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return path
