"""Gives the shipped cards what was fitted and measured on the weights that left a fold out.

`python -m voxmask_training.cards --judged ../held-out --shipped ..`

The shipped weights saw every subject, so that nobody is left to judge them on: their cards take the
parameters and the figures of those in `--judged`, and say so; the refining network too, unless the
shipped one has one that saw every subject itself.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from .folds import NO_FOLD

TASKS = ("foreground", "anonymization-area")
OWN = ("weights", "training")
"""What a refining network that saw every subject keeps."""
SHOWN = ("input", "logit_most", "logit_unit")
"""What decides whether parameters of one refining network are good for another."""
SHARED = ("boundary", "area", "evaluation")


def refined_as(card: dict, source: dict, judged: Path, shipped: Path) -> dict:
    """Gives a card with the refining network of another, or none; its file is copied too."""
    old = card.get("refinement")
    found = {name: value for name, value in card.items() if name != "refinement"}
    if "refinement" not in source:
        if old:
            (shipped / old["weights"]["file"]).unlink(missing_ok=True)
        return found
    file = source["refinement"]["weights"]["file"]
    if judged.resolve() != shipped.resolve():
        shutil.copyfile(judged / file, shipped / file)
    last = {name: found.pop(name) for name in ("training", "evaluation") if name in found}
    return found | {"refinement": source["refinement"]} | last


def alike(own: dict, source: dict) -> bool:
    """Whether a refining network is shown the same as that of another card."""
    other = source.get("refinement", {})
    return all(own[name] == other.get(name) for name in SHOWN)


def share(judged: Path, shipped: Path) -> None:
    """Copies the blocks of one model's `card.json` into the other's."""
    source = json.loads((judged / "card.json").read_text())
    path = shipped / "card.json"
    card = json.loads(path.read_text())
    card |= {block: source[block] for block in SHARED}
    own = card.get("refinement")
    if own and own.get("training", {}).get("held_out_fold") == NO_FOLD and alike(own, source):
        card["refinement"] = source["refinement"] | {name: own[name] for name in OWN}
    else:
        card = refined_as(card, source, judged, shipped)
    card["training"]["figures_of"] = {
        "weights": source["weights"]["sha256"],
        "held_out_subjects": source["training"]["held_out_subjects"],
        "steps": source["training"]["steps"],
    }
    if "refinement" in source:
        digest = source["refinement"]["weights"]["sha256"]
        card["training"]["figures_of"]["refinement_weights"] = digest
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Does so for both tasks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--judged", type=Path, required=True, help="models that left a fold out")
    parser.add_argument("--shipped", type=Path, required=True, help="models that saw every subject")
    options = parser.parse_args()
    for task in TASKS:
        share(options.judged / task, options.shipped / task)


if __name__ == "__main__":
    main()
