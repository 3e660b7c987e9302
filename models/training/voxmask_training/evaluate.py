"""Scores the executables on held-out subjects, classical methods beside them.

`python -m voxmask_training.evaluate --executables ../../target/release --data DIR
--models .. --output ../README.md`

Foreground: every held-out volume with a reference, on its own grid. Area: the
evaluation set that `voxmask_training.evaluation_set` wrote, intact scans among it.
Scores of each scan go to `WORK/evaluation/*.csv`; tables go between the markers of
the document; figures of each group go into the cards.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from . import baselines
from .area_cases import AreaCase, read_area_cases
from .executables import Step, read_mask, read_voxels
from .folds import TABLES, held_out
from .scores import Mask, dice, ranking, surface_scores
from .tables import (
    Row,
    group_rows,
    markdown,
    mean_and_worst,
    mean_with_interval,
    put_between,
    values_of,
)
from .work import default_work

TOLERANCE_MM = 2.0
REGIONS = {
    "head": ("head", "headchest"),
    "neck": ("neck",),
    "chest": ("chest", "chestcrop", "breast"),
    "limb": ("limb", "leg", "thigh", "knee"),
}


def region_of(name: str) -> str:
    """Gives the part of the body that a scan's row counts under."""
    return next((part for part, names in REGIONS.items() if name in names), "abdomen")


def foreground_rows(data: Path, step: Step, subjects: frozenset[str]) -> list[Row]:
    """Scores every volume of these subjects that has a foreground reference."""
    with (data / "foreground.csv").open(newline="") as lines:
        quality = {row["file"]: row["quality"] for row in csv.DictReader(lines)}
    rows = []
    for table in TABLES:
        with (data / table).open(newline="") as lines:
            volumes = list(csv.DictReader(lines))
        for volume in volumes:
            if volume["subject"] in subjects and volume["file"] in quality:
                path = data / table.removesuffix(".csv") / volume["file"]
                reference = read_mask(data / "foreground" / volume["file"])
                row = foreground_row(path, reference, step)
                row["subject"] = volume["subject"]
                row["region"] = region_of(volume["region"])
                row["modality"] = "CT" if volume["modality"] == "CT" else "MR"
                row["quality"] = quality[volume["file"]]
                rows.append(row)
                print(row, flush=True)
    return rows


def foreground_row(path: Path, reference: Mask, step: Step) -> Row:
    """Scores one volume, and Otsu's method on it."""
    voxels, spacing = read_voxels(path)
    name = path.name.removesuffix(".nii.gz")
    found = step.run(path, name)
    row: Row = {"name": name, "seconds": found.seconds}
    otsu = baselines.otsu_foreground(voxels)
    for prefix, mask in (("", found.mask), ("otsu_", otsu)):
        row[f"{prefix}dice"] = dice(mask, reference)
        surfaces = surface_scores(mask, reference, spacing, TOLERANCE_MM)
        row[f"{prefix}nsd"], row[f"{prefix}hd95_mm"] = surfaces or (None, None)
    return row


def area_rows(cases: list[AreaCase], step: Step) -> list[Row]:
    """Scores every case of the area's evaluation set."""
    rows = []
    for case in cases:
        row = area_row(case, step)
        rows.append(row)
        print(row, flush=True)
    return rows


def area_row(case: AreaCase, step: Step) -> Row:
    """Scores one case, and the constant-region methods on it."""
    voxels, spacing = read_voxels(case.image)
    voxel_ml = float(np.prod(spacing)) / 1000.0
    found = step.run(case.image, case.folder.name)
    row: Row = {"name": case.folder.name, "subject": case.subject, "method": case.method}
    row |= {"background": case.background, "modality": case.modality}
    row |= {"region": region_of(case.region), "seconds": found.seconds}
    row["altered_probability"] = found.report["result"]["altered_probability"]
    masks = {
        "": found.mask,
        "largest_": baselines.constant_area(voxels, voxel_ml, every=False),
        "every_": baselines.constant_area(voxels, voxel_ml, every=True),
    }
    if not case.altered:
        return row | {f"{k}false_area_ml": voxel_ml * int(m.sum()) for k, m in masks.items()}
    area, free = case.read_masks()
    row |= {f"{k}dice": dice(m, area, free) for k, m in masks.items()}
    row |= {f"{k}free_ml": voxel_ml * int((m & free).sum()) for k, m in masks.items()}
    return row


def foreground_table(rows: list[Row]) -> str:
    """Region by modality: mean and worst of each score."""
    head = ["region", "modality", "scans", "Dice", "NSD 2 mm", "HD95 [mm]", "Otsu: Dice"]
    head += ["Otsu: NSD 2 mm", "Otsu: HD95 [mm]"]
    body = []
    sound = [row for row in rows if row["quality"] != "C"]
    groups = [(key, part) for key, part in group_rows(sound, ("region", "modality")).items()]
    groups.append((("all", ""), sound))
    doubtful = [row for row in rows if row["quality"] == "C"]
    if doubtful:
        groups.append((("quality C, kept apart", ""), doubtful))
    for key, part in groups:
        cells = [*key, str(len(part))]
        for prefix in ("", "otsu_"):
            cells += [mean_and_worst(part, f"{prefix}{name}", min) for name in ("dice", "nsd")]
            cells.append(mean_and_worst(part, f"{prefix}hd95_mm", max))
        body.append(cells)
    return markdown(head, body)


def area_table(rows: list[Row]) -> str:
    """Method by modality and background: mean and worst Dice, and free volume marked."""
    head = ["method", "modality", "background", "scans", "Dice", "free marked [ml]"]
    head += ["largest constant region: Dice", "every constant region: Dice"]
    altered = [row for row in rows if "dice" in row]
    groups = [*group_rows(altered, ("method", "modality", "background")).items()]
    groups.append((("all", "", ""), altered))
    body = [
        [
            *key,
            str(len(part)),
            mean_and_worst(part, "dice", min),
            mean_and_worst(part, "free_ml", max),
            mean_and_worst(part, "largest_dice", min),
            mean_and_worst(part, "every_dice", min),
        ]
        for key, part in groups
    ]
    return markdown(head, body)


def intact_table(rows: list[Row]) -> str:
    """Scans that nobody altered: how many got an empty mask, and false millilitres."""
    head = ["region", "modality", "background", "scans", "empty mask", "false area [ml]"]
    head += ["largest constant region [ml]", "every constant region [ml]"]
    intact = [row for row in rows if "false_area_ml" in row]
    groups = [*group_rows(intact, ("region", "modality", "background")).items()]
    groups.append((("all", "", ""), intact))
    body = []
    for key, part in groups:
        empty = sum(value == 0.0 for value in values_of(part, "false_area_ml"))
        names = ("false_area_ml", "largest_false_area_ml", "every_false_area_ml")
        figures = [mean_and_worst(part, name, max) for name in names]
        body.append([*key, str(len(part)), str(empty), *figures])
    return markdown(head, body)


def overall_line(rows: list[Row]) -> str:
    """Mean Dice over every case, where two empty masks agree (1) and one empty does not (0)."""
    means = []
    for prefix in ("", "largest_", "every_"):
        altered = values_of(rows, f"{prefix}dice")
        intact = [float(ml == 0.0) for ml in values_of(rows, f"{prefix}false_area_ml")]
        means.append(float(np.mean(altered + intact)))
    network, largest, every = (f"{mean:.3f}" for mean in means)
    return (
        f"Over all {len(rows)} cases, altered and intact (Dice 1 for an empty mask on an intact "
        f"scan, else 0): {network}; largest constant region {largest}, "
        f"every constant region {every}."
    )


def ranking_line(rows: list[Row]) -> str:
    """Says how well the judgement ranks altered before intact scans."""
    altered = [row for row in rows if "dice" in row]
    intact = [row for row in rows if "false_area_ml" in row]
    probabilities = [values_of(part, "altered_probability") for part in (altered, intact)]
    return (
        "The probability that a scan was altered ranks altered before intact scans, whatever the "
        f"threshold, in {100.0 * ranking(*probabilities):.1f} % of pairs (area under the curve)."
    )


def foreground_lines(rows: list[Row]) -> str:
    """The means' intervals, for every modality, and the time."""
    sound = [row for row in rows if row["quality"] != "C"]
    lines = []
    for (modality,), part in group_rows(sound, ("modality",)).items():
        lines.append(f"{modality} {mean_with_interval(part, 'dice')}")
    lines.append(f"all {mean_with_interval(sound, 'dice')}")
    return f"Mean Dice: {'; '.join(lines)}; bootstrap over subjects. {time_line(rows)}"


def area_lines(rows: list[Row]) -> str:
    """The means' intervals on altered scans, for every modality, and the time."""
    altered = [row for row in rows if "dice" in row]
    lines = []
    for (modality,), part in group_rows(altered, ("modality",)).items():
        found = sum(float(row["dice"]) > 0.0 for row in part)
        lines.append(
            f"{modality} {mean_with_interval(part, 'dice')}, {found} of {len(part)} found, "
            f"every constant region {mean_with_interval(part, 'every_dice')}"
        )
    return f"Altered scans: {'; '.join(lines)}; bootstrap over subjects. {time_line(rows)}"


def time_line(rows: list[Row]) -> str:
    """Says how long the executable took for a scan."""
    seconds = values_of(rows, "seconds")
    return (
        f"Wall time on one thread of a busy machine: median {np.median(seconds):.1f} s, "
        f"longest {max(seconds):.1f} s."
    )


def card_figures(rows: list[Row], keys: tuple[str, ...], names: dict[str, str]) -> list[Row]:
    """Gives a card's `evaluation`: for each group the count, mean and worst."""
    figures: list[Row] = []
    for key, part in [*group_rows(rows, keys).items(), (("all",), rows)]:
        entry: Row = {"group": " ".join(k for k in key if k), "count": len(part)}
        for name, worst in names.items():
            values = values_of(part, name)
            if values:
                entry[f"{name}_mean"] = round(float(np.mean(values)), 4)
                entry[f"{name}_worst"] = round(max(values) if worst == "max" else min(values), 4)
        figures.append(entry)
    return figures


def fill_card(folder: Path, figures: list[Row]) -> None:
    """Puts the figures into `card.json`."""
    path = folder / "card.json"
    card = json.loads(path.read_text())
    card["evaluation"] = figures
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: list[Row]) -> None:
    """Writes the scores of every scan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, names)
        writer.writeheader()
        writer.writerows(rows)


def evaluate_foreground(options: argparse.Namespace, folder: Path) -> None:
    """Writes the foreground's figures."""
    model = options.models / "foreground"
    step = Step(options.executables / "voxmask-segment-foreground", folder / "foreground", model)
    rows = foreground_rows(options.data, step, held_out(options.fold))
    write_rows(folder / "foreground.csv", rows)
    text = f"{foreground_table(rows)}\n\n{foreground_lines(rows)}"
    put_between(options.output, "foreground-figures", text)
    sound = [row for row in rows if row["quality"] != "C"]
    names = {"dice": "min", "nsd": "min", "hd95_mm": "max", "otsu_dice": "min"}
    fill_card(model, card_figures(sound, ("region", "modality"), names))


def evaluate_area(options: argparse.Namespace, folder: Path) -> None:
    """Writes the area's figures."""
    model = options.models / "anonymization-area"
    executable = options.executables / "voxmask-segment-anonymization-area"
    step = Step(executable, folder / "area", model)
    cases = read_area_cases(options.work / "evaluate" / "area", held_out(options.fold))
    rows = area_rows(cases, step)
    write_rows(folder / "area.csv", rows)
    parts = [area_table(rows), area_lines(rows), "Intact scans:", intact_table(rows)]
    text = "\n\n".join([*parts, overall_line(rows), ranking_line(rows)])
    put_between(options.output, "area-figures", text)
    names = {"dice": "min", "false_area_ml": "max", "largest_dice": "min", "every_dice": "min"}
    fill_card(model, card_figures(rows, ("method", "modality", "background"), names))


def main() -> None:
    """Evaluates one task or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executables", type=Path, required=True, help="folder")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=default_work())
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--output", type=Path, required=True, help="document with markers")
    parser.add_argument("--task", choices=["foreground", "area", "both"], default="both")
    options = parser.parse_args()
    if options.task != "area":
        evaluate_foreground(options, options.work / "evaluation")
    if options.task != "foreground":
        evaluate_area(options, options.work / "evaluation")


if __name__ == "__main__":
    main()
