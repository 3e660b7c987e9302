"""Fits a card's post-processing parameters on training subjects, by the executables.

`python -m voxmask_training.fit foreground --executables DIR --data DIR --models ..`

Each parameter in turn takes the candidate with the best mean score over the chosen
scans; the card keeps it if the gain is worth it. Last comes the temperature, which makes
the probabilities of voxels right on the whole. Held-out subjects are never read.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .area_cases import AreaCase, read_area_cases
from .evaluate import region_of
from .executables import Step, read_mask, read_voxels
from .folds import TABLES, held_out
from .scores import Mask, dice
from .work import default_work

LEAST_GAIN = 2e-4
AREA_LEAST_GAIN = 4e-3
"""A fifth of what one case of 48 counts for: less is chance."""
BOUNDARY_CANDIDATES = {
    "mr_level": (0.2, 0.3, 0.4),
    "ct_level": (0.45, 0.5),
    "logit_weight": (1.0, 1.5, 2.0, 3.0),
    "contrast_gain": (5.0, 10.0, 20.0, 30.0),
    "skin.level": (0.2, 0.25, 0.3, 0.4),
    "skin.floor": (0.06, 0.12, 0.18, 0.25),
    "skin.passes": (0, 1, 2),
    "closing_mm": (0.0, 1.5),
}
AREA_CANDIDATES = {"mask_threshold": (-0.5, 0.0, 0.5, 1.0)}
ALTERED_THRESHOLDS = tuple(np.arange(-2.0, 8.5, 0.5))
"""Candidates for the judgement «altered» [logit]; the highest of those that do equally well is
kept: most scans were never altered, and a false area of one costs more than a missed one."""
NO_THRESHOLD = -100.0
TEMPERATURES = np.round(np.arange(0.3, 5.01, 0.1), 1)
VOXELS_PER_SCAN = 20_000
SCANS_LEFT_OUT = 0.25
"""Share of the worst scans that do not count: there the region is wrong, not its edge."""
FALSE_ML_WEIGHT = 1.0 / 50.0
"""An intact scan's score falls from 1 to 0 as its false area grows to 50 ml."""


@dataclass(frozen=True)
class Trial:
    """A copy of a model's folder whose card may be changed."""

    folder: Path
    block: str

    def parameters(self) -> dict[str, object]:
        """Reads the block of the card that is being fitted."""
        return json.loads((self.folder / "card.json").read_text())[self.block]

    def change(self, name: str, value: float) -> None:
        """Sets one parameter; `a.b` names a field inside a group."""
        path = self.folder / "card.json"
        card = json.loads(path.read_text())
        place = card[self.block]
        *groups, last = name.split(".")
        for group in groups:
            place = place[group]
        place[last] = value
        path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")

    def value(self, name: str) -> float:
        """Reads one parameter; a whole number stays one, and what a card lacks is 0."""
        *groups, last = name.split(".")
        place = self.parameters()
        for group in groups:
            place = place[group]
        return place.get(last, 0.0)


def descend(
    trial: Trial,
    candidates: dict[str, tuple[float, ...]],
    score: Callable[[], float],
    least_gain: float,
) -> float:
    """Goes through the parameters once; gives the best mean score."""
    best = score()
    print(f"start {best:.5f}", flush=True)
    for name, values in candidates.items():
        start = kept = trial.value(name)
        for value in values:
            if value == start:
                continue
            trial.change(name, value)
            found = score()
            print(f"{name} {value}: {found:.5f}", flush=True)
            if found > best + least_gain:
                best, kept = found, value
        trial.change(name, kept)
    return best


def foreground_scans(data: Path, out: frozenset[str], count: int) -> list[tuple[Path, Path]]:
    """Picks training scans with a sound reference, spread over regions and modalities."""
    with (data / "foreground.csv").open(newline="") as lines:
        sound = {row["file"] for row in csv.DictReader(lines) if row["quality"] in "AB"}
    kinds: dict[tuple[str, bool], list[tuple[Path, Path]]] = {}
    for table in TABLES:
        with (data / table).open(newline="") as lines:
            for row in csv.DictReader(lines):
                if row["subject"] in out or row["file"] not in sound:
                    continue
                image = data / table.removesuffix(".csv") / row["file"]
                kind = (region_of(row["region"]), row["modality"] == "CT")
                pair = (image, data / "foreground" / row["file"])
                kinds.setdefault(kind, []).append(pair)
    rng = np.random.default_rng(0)
    piles = [list(rng.permutation(np.array(pile, object))) for _, pile in sorted(kinds.items())]
    picked: list[tuple[Path, Path]] = []
    while len(picked) < count and any(piles):
        picked += [tuple(pile.pop()) for pile in piles if pile]
    return picked[:count]


def area_cases(work: Path, out: frozenset[str], count: int) -> list[AreaCase]:
    """Picks cases of training subjects, as many altered as not, from the evaluation set."""
    cases = [case for case in read_area_cases(work / "evaluate/area") if case.subject not in out]
    order = np.random.default_rng(0).permutation(len(cases))
    altered = [cases[n] for n in order if cases[n].altered]
    intact = [cases[n] for n in order if not cases[n].altered]
    return altered[: count // 2] + intact[: count // 2]


def foreground_score(step: Step, scans: list[tuple[Path, Path]]) -> float:
    """Gives the mean Dice over the better scans."""
    scores = sorted(dice(step.run(i, "fit").mask, read_mask(r)) for i, r in scans)
    return float(np.mean(scores[int(SCANS_LEFT_OUT * len(scores)) :]))


def area_score(step: Step, cases: list[AreaCase]) -> float:
    """Gives the mean over altered scans' Dice and intact scans' lack of false area."""
    return float(np.mean([case_score(case, step.run(case.image, "fit").mask) for case in cases]))


def case_score(case: AreaCase, mask: Mask) -> float:
    """Gives an altered scan's Dice, or how little of an intact one is marked."""
    if case.altered:
        return dice(mask, *case.read_masks())
    _, spacing = read_voxels(case.image)
    false_ml = float(mask.sum()) * float(np.prod(spacing)) / 1000.0
    return max(0.0, 1.0 - false_ml * FALSE_ML_WEIGHT)


def counted_case(case: AreaCase) -> tuple[Path, Mask, Mask]:
    """Gives a case's image, its area (empty for an intact scan), and the voxels that count."""
    if case.altered:
        area, free = case.read_masks()
        return case.image, area, ~free
    voxels, _ = read_voxels(case.image)
    return case.image, np.zeros(voxels.shape, bool), np.ones(voxels.shape, bool)


def fit_threshold(trial: Trial, step: Step, cases: list[AreaCase]) -> None:
    """Chooses the threshold of «altered» from one pass without any."""
    trial.change("altered_threshold", NO_THRESHOLD)
    judged = []
    for case in cases:
        found = step.run(case.image, "fit")
        probability = np.clip(found.report["result"]["altered_probability"], 1e-9, 1.0 - 1e-9)
        logit = float(np.log(probability / (1.0 - probability)))
        empty = case_score(case, np.zeros_like(found.mask))
        judged.append((logit, case_score(case, found.mask), empty))
    scores = {
        threshold: float(np.mean([kept if g > threshold else empty for g, kept, empty in judged]))
        for threshold in ALTERED_THRESHOLDS
    }
    for threshold, score in scores.items():
        print(f"altered_threshold {threshold}: {score:.5f}", flush=True)
    trial.change("altered_threshold", highest_of_best(scores))


def fit_temperature(trial: Trial, step: Step, cases: Iterable[tuple[Path, Mask, Mask]]) -> None:
    """Chooses the temperature from (image, reference, voxels that count).

    Voxels that the executable calls impossible or certain, to a thousandth, do not count: how far
    beyond they are cannot be read.
    """
    trial.change("temperature", 1.0)
    path = step.folder / "probability.nii.gz"
    rng = np.random.default_rng(0)
    logits, truths = [], []
    for image, reference, counted in cases:
        step.run(image, "fit", path)
        probability, _ = read_voxels(path)
        doubtful = np.flatnonzero((probability > 1e-3) & (probability < 1 - 1e-3) & counted)
        if doubtful.size == 0:
            continue
        picked = rng.choice(doubtful, min(doubtful.size, VOXELS_PER_SCAN), replace=False)
        p = probability.ravel()[picked].astype(np.float64)
        logits.append(np.log(p / (1.0 - p)))
        truths.append(reference.ravel()[picked])
    losses = {
        float(t): float(np.mean([entropy(z / t, y) for z, y in zip(logits, truths, strict=True)]))
        for t in TEMPERATURES
    }
    best = min(losses, key=losses.__getitem__)
    print(f"temperature 1: {losses[1.0]:.4f}, {best:g}: {losses[best]:.4f} nats", flush=True)
    trial.change("temperature", best)


def entropy(logits: np.ndarray, truth: np.ndarray) -> float:
    """Gives the mean cross entropy [nat]."""
    return float(np.mean(np.logaddexp(0.0, logits) - logits * truth))


def highest_of_best(scores: dict[float, float]) -> float:
    """Gives the highest of the candidates that score within `LEAST_GAIN` of the best."""
    best = max(scores.values())
    return float(max(value for value, score in scores.items() if score >= best - LEAST_GAIN))


def main() -> None:
    """Fits one model's card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["foreground", "area"])
    parser.add_argument("--executables", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=default_work())
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--count", type=int, default=16, help="scans")
    options = parser.parse_args()
    out = held_out(options.fold)
    foreground = options.task == "foreground"
    name = "foreground" if foreground else "anonymization-area"
    folder = options.work / "fit" / name
    shutil.copytree(options.models / name, folder, dirs_exist_ok=True)
    step = Step(options.executables / f"voxmask-segment-{name}", folder / "masks", folder)
    if foreground:
        trial = Trial(folder, "boundary")
        scans = foreground_scans(options.data, out, options.count)
        descend(trial, BOUNDARY_CANDIDATES, lambda: foreground_score(step, scans), LEAST_GAIN)
        pairs = ((image, mask := read_mask(path), np.ones_like(mask)) for image, path in scans)
        fit_temperature(trial, step, pairs)
    else:
        trial = Trial(folder, "area")
        cases = area_cases(options.work, out, options.count)
        fit_threshold(trial, step, cases)
        descend(trial, AREA_CANDIDATES, lambda: area_score(step, cases), AREA_LEAST_GAIN)
        fit_temperature(trial, step, map(counted_case, cases))
    print(json.dumps(trial.parameters(), indent=2))
    shutil.copy(folder / "card.json", options.models / name / "card.json")


if __name__ == "__main__":
    main()
