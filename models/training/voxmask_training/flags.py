"""Says how well the flags of voxmask-prepare find bad masks, and which thresholds would.

`python -m voxmask_training.flags --executables ../../target/release --data DIR
--models .. --output ../README.md`

Runs the cohort step over every held-out volume whose foreground reference has quality
A or B, with the thresholds that it ships with, and writes the table between the
markers `flag-figures` of the document. A mask with a Dice below 0.98 is bad: at least
80 % of those should be flagged, and at most 10 % of the others. For each measure the
threshold is printed that flags at most 10 % of the good masks, and what it finds, and
how its order of the scans goes with that by Dice. `--training` does so for the scans that
trained, on which thresholds are chosen: held-out bad masks are too few for both.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .evaluate import region_of
from .folds import TABLES, held_out
from .tables import markdown, put_between
from .work import default_work

GOOD_DICE = 0.98
FALSE_ALARMS = 0.1
# Measure -> flag, key of its threshold, and whether large values are bad.
MEASURES = {
    "foreground_share": ("small-foreground", "min_foreground_share", False),
    "pieces": ("many-pieces", "max_pieces", True),
    "edge_sharpness": ("blurred-edge", "min_edge_sharpness", False),
    "edge_entropy": ("unsure-edge", "max_edge_entropy", True),
    "doubtful_cells": ("unsure-inside", "max_doubtful_cells", True),
    "network_agreement": ("network-overruled", "min_network_agreement", False),
    "self_agreement": ("unsteady", "min_self_agreement", False),
}


NO_FLAG = {"expected_dice": False}
"""Measures without a flag, and whether large values are bad."""


@dataclass(frozen=True)
class Scan:
    """A scan's line in the cohort's table."""

    values: dict[str, str]

    @property
    def bad(self) -> bool:
        """Whether the mask misses the reference."""
        return float(self.values["dice"]) < GOOD_DICE

    @property
    def flags(self) -> list[str]:
        """Names of the flags that ask for a review of the foreground."""
        of_the_area = ("altered-or-not", "unsure-area")
        return [flag for flag in self.values["flags"].split() if flag not in of_the_area]

    def measure(self, name: str) -> float | None:
        """A measure, where there is one."""
        return float(self.values[name]) if self.values[name] else None


def write_table(data: Path, out: frozenset[str], training: bool, path: Path) -> int:
    """Lists the held-out scans, or those that trained; gives back how many they are."""
    with (data / "foreground.csv").open(newline="") as lines:
        quality = {row["file"]: row["quality"] for row in csv.DictReader(lines)}
    rows = []
    for table in TABLES:
        with (data / table).open(newline="") as lines:
            for volume in csv.DictReader(lines):
                name = volume["file"]
                if quality.get(name) in ("A", "B") and (volume["subject"] in out) != training:
                    scan = (data / table.removesuffix(".csv") / name).resolve()
                    reference = (data / "foreground" / name).resolve()
                    rows.append([scan, region_of(volume["region"]), reference])
    with path.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["scan", "region", "reference"])
        writer.writerows(rows)
    return len(rows)


def read_scans(path: Path) -> list[Scan]:
    """Reads the cohort's table."""
    with path.open(newline="") as lines:
        return [Scan(row) for row in csv.DictReader(lines, delimiter="\t")]


def share(scans: Sequence[Scan], flagged: Sequence[Scan]) -> str:
    """Writes «3 of 4 (75 %)»."""
    if not scans:
        return "0 of 0"
    return f"{len(flagged)} of {len(scans)} ({100 * len(flagged) / len(scans):.0f} %)"


def table_of(scans: list[Scan]) -> str:
    """Which flags found which masks."""
    bad = [scan for scan in scans if scan.bad]
    good = [scan for scan in scans if not scan.bad]
    names = sorted({flag for scan in scans for flag in scan.flags})
    body = []
    for name in [*names, "any"]:
        found = [
            [s for s in part if name in s.flags or (name == "any" and s.flags)]
            for part in (bad, good)
        ]
        body.append([name, share(bad, found[0]), share(good, found[1])])
    head = ["flag", f"masks with Dice below {GOOD_DICE}", "other masks"]
    return markdown(head, body)


def suggestions(scans: list[Scan]) -> str:
    """For each measure, the threshold that flags at most one good mask in ten."""
    body = []
    for name, (flag, key, large_is_bad) in MEASURES.items():
        sign = 1.0 if large_is_bad else -1.0
        known = [
            (sign * value, scan) for scan in scans if (value := scan.measure(name)) is not None
        ]
        good = sorted(value for value, scan in known if not scan.bad)
        if not good:
            continue
        # So many good masks may lie beyond it.
        allowed = int(FALSE_ALARMS * len(good))
        threshold = good[len(good) - 1 - allowed]
        bad = [scan for _, scan in known if scan.bad]
        found = [scan for value, scan in known if scan.bad and value > threshold]
        order = separation(known)
        body.append([flag, key, f"{sign * threshold:.4g}", share(bad, found), f"{order:.2f}"])
    return markdown(
        ["flag", "key", "threshold", "bad masks found", "area under the ROC curve"], body
    )


def ranking(scans: list[Scan]) -> str:
    """For each measure, Spearman's rank correlation of how bad it looks with 1 - Dice."""
    body = []
    signs = {name: large for name, (_, _, large) in MEASURES.items()} | NO_FLAG
    for name, large_is_bad in signs.items():
        known = [(v, s) for s in scans if (v := s.measure(name)) is not None]
        if len(known) < 3:
            continue
        looks = np.array([value if large_is_bad else -value for value, _ in known])
        misses = np.array([1.0 - float(scan.values["dice"]) for _, scan in known])
        body.append(
            [name, str(len(known)), f"{np.corrcoef(ranks(looks), ranks(misses))[0, 1]:.2f}"]
        )
    return markdown(["measure", "scans", "rank correlation with 1 - Dice"], body)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean."""
    below = (values[:, None] > values).sum(1)
    return below + ((values[:, None] == values).sum(1) - 1) / 2.0


def separation(known: list[tuple[float, Scan]]) -> float:
    """Probability that a bad mask has a larger value than a good one."""
    bad = np.array([value for value, scan in known if scan.bad])
    good = np.array([value for value, scan in known if not scan.bad])
    if bad.size == 0:
        return float("nan")
    above = (bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean()
    return float(above)


def folder_of(options: argparse.Namespace) -> Path:
    """Where the cohort's results go."""
    return options.work / "evaluation" / ("flags-training" if options.training else "flags")


def prepare(options: argparse.Namespace) -> list[Scan]:
    """Runs the cohort step with the thresholds that it ships with."""
    output = folder_of(options)
    output.parent.mkdir(parents=True, exist_ok=True)
    table = output.with_suffix(".csv")
    count = write_table(options.data, held_out(options.fold), options.training, table)
    shutil.rmtree(output, ignore_errors=True)
    command = [options.executables / "voxmask-prepare", "--table", table, "--output", output]
    command += ["--foreground-model", options.models / "foreground", "--self-check", "on"]
    command += ["--area-model", options.models / "anonymization-area"]
    subprocess.run([str(part) for part in command], check=True)
    scans = read_scans(output / "cohort.tsv")
    assert len(scans) == count, "some scans were left out"
    return scans


def main() -> None:
    """Prints the tables, and writes the first into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executables", type=Path, required=True, help="folder")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=default_work())
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--output", type=Path, help="document with markers")
    parser.add_argument(
        "--training", action="store_true", help="scans that trained: thresholds are chosen on these"
    )
    parser.add_argument("--again", action="store_true", help="use the last run's table")
    options = parser.parse_args()
    last = folder_of(options) / "cohort.tsv"
    scans = read_scans(last) if options.again else prepare(options)
    for scan in sorted(scans, key=lambda scan: float(scan.values["dice"])):
        measures = " ".join(f"{name} {scan.values[name]}" for name in MEASURES)
        print(f"{scan.values['id']} dice {scan.values['dice']} {measures} {' '.join(scan.flags)}")
    print(f"\n{table_of(scans)}\n\n{suggestions(scans)}\n\n{ranking(scans)}")
    if options.output:
        put_between(options.output, "flag-figures", table_of(scans))


if __name__ == "__main__":
    main()
