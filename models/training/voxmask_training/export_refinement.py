"""Exports a refining network's averaged weights as ONNX, into its task's model and its card.

`python -m voxmask_training.export_refinement --run DIR --models ../held-out [--task foreground]`

The weights are compared with the network in PyTorch before the card is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from .cards import refined_as
from .export import TOLERANCE, mean_of, round_to_half, write_onnx
from .network import AREA, FOREGROUND
from .refinement import (
    FINE_MM,
    LOGIT_MOST,
    LOGIT_UNIT,
    MODALITIES,
    REFINED_MULTIPLE_OF,
    TASKS,
    Refinement,
    refined_channels,
    seen_by,
)
from .train_refinement import CHECKPOINT
from .weights import FILES, read_refinement, refinement_training

FILE = "refinement.onnx"
SHAPES = ((48, 40, 56), (64, 64, 64))
TILES = {
    "share": 0.5,
    "unsure_logit": 4.0,
    "around_cells": 6,
    "overlap_cells": 8,
}
"""Where it is used; see `src/network/refinement.rs`."""
TILE_CELLS = {AREA: 96, FOREGROUND: 128}
"""Fewer overlaps in larger tiles take less time, and half as much memory again."""


def export_network(network: Refinement, path: Path, channels: int) -> float:
    """Writes the ONNX file; gives its largest difference from PyTorch [logit]."""
    network = network.eval()
    round_to_half(network)
    write_onnx(network, (1, channels, *SHAPES[0]), ["logits"], path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng, worst = np.random.default_rng(0), 0.0
    for shape in SHAPES:
        seen = rng.random((1, channels, *shape), np.float32)
        found = session.run(None, {"channels": seen})[0]
        with torch.no_grad():
            expected = network(torch.from_numpy(seen)).numpy()
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def read_run(run: Path, fold: str) -> tuple[dict[str, Tensor], int | list]:
    """Gives the averaged weights of a run, or those of an exported file, and their steps.

    Raises SystemExit where an exported file's subjects are not those that FOLD leaves.
    """
    if run.suffix == ".onnx":
        return read_refinement(run), refinement_training(run, fold)["steps"]
    state = torch.load(run / CHECKPOINT, "cpu", weights_only=False)
    return state["average"], state["step"]


def section(
    weights: Path, task: int, run: dict[str, object], card: dict[str, object]
) -> dict[str, object]:
    """Gives the card's part about the refinement; what was fitted before is kept."""
    old = card.get("refinement", {})
    return {
        "weights": {"file": FILE, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "input": card["input"]
        | {
            "cell_mm": FINE_MM,
            "channels": list(refined_channels(task)),
            "multiple_of": REFINED_MULTIPLE_OF,
            "margin_cells": 0,
            "mirror_axes": [],
        },
        "output": {"logits": "logits", "altered": None},
        "modalities": list(MODALITIES[task]),
        "logit_most": LOGIT_MOST,
        "logit_unit": LOGIT_UNIT,
        **(tiles := TILES | {"tile_cells": TILE_CELLS[task]}),
        **{name: old[name] for name in tiles if name in old},
        "training": run,
    }


def main() -> None:
    """Exports the run and writes it into the card."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    several = (
        "folder, or exported refinement.onnx beside its card; of several the mean in equal parts"
    )
    parser.add_argument("--run", type=Path, required=True, nargs="+", help=several)
    parser.add_argument("--models", type=Path, required=True, help="folder of exported models")
    parser.add_argument("--task", choices=TASKS, default="area")
    parser.add_argument("--fold", default="0", help="what the run left out")
    options = parser.parse_args()
    states, steps = zip(*(read_run(run, options.fold) for run in options.run), strict=True)
    task = TASKS[options.task]
    network = Refinement(task)
    network.load_state_dict(mean_of(states))
    folder = options.models / FILES[task]
    worst = export_network(network, folder / FILE, len(refined_channels(task)))
    print(f"{FILE}: {(folder / FILE).stat().st_size} bytes, largest difference {worst:.2g} logit")
    if worst > TOLERANCE:
        raise SystemExit("the exported network differs from the trained one")
    path = folder / "card.json"
    card = json.loads(path.read_text())
    if card["input"]["channels"] != list(seen_by(task)):
        raise SystemExit("the first network sees other channels than the refining one was shown")
    run = {"steps": list(steps), "held_out_fold": options.fold}
    source = {"refinement": section(folder / FILE, task, run, card)}
    card = refined_as(card, source, folder, folder)
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
