"""Exports a refining network's averaged weights as ONNX, into the area's model and its card.

`python -m voxmask_training.export_refinement --run DIR --models ../held-out`

The weights are compared with the network in PyTorch before the card is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from .cards import refined_as
from .export import INPUT, OPSET, TOLERANCE, round_to_half, store_in_half
from .refinement import (
    FINE_MM,
    LOGIT_MOST,
    LOGIT_UNIT,
    REFINED_CHANNELS,
    REFINED_MULTIPLE_OF,
    Refinement,
)
from .weights import AREA, FILES

FILE = "refinement.onnx"
SHAPES = ((48, 40, 56), (64, 64, 64))
TILES = {
    "share": 0.5,
    "unsure_logit": 4.0,
    "around_cells": 6,
    "tile_cells": 96,
    "overlap_cells": 8,
}
"""Where it is used; see `src/network/refinement.rs`."""


def export_network(network: Refinement, path: Path) -> float:
    """Writes the ONNX file; gives its largest difference from PyTorch [logit]."""
    network = network.eval()
    round_to_half(network)
    axes = {2: "K", 3: "J", 4: "I"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.rand(1, len(REFINED_CHANNELS), *SHAPES[0]),),
            str(path),
            input_names=["channels"],
            output_names=["logits"],
            dynamic_axes={"channels": axes, "logits": axes},
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.save(store_in_half(onnx.load(path)), path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng, worst = np.random.default_rng(0), 0.0
    for shape in SHAPES:
        channels = rng.random((1, len(REFINED_CHANNELS), *shape), np.float32)
        found = session.run(None, {"channels": channels})[0]
        with torch.no_grad():
            expected = network(torch.from_numpy(channels)).numpy()
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def section(weights: Path, run: dict[str, object], old: dict[str, object]) -> dict[str, object]:
    """Gives the card's part about the refinement; what was fitted before is kept."""
    return {
        "weights": {"file": FILE, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "input": INPUT
        | {
            "cell_mm": FINE_MM,
            "channels": list(REFINED_CHANNELS),
            "multiple_of": REFINED_MULTIPLE_OF,
            "margin_cells": 0,
            "mirror_axes": [],
        },
        "output": {"logits": "logits", "altered": None},
        "logit_most": LOGIT_MOST,
        "logit_unit": LOGIT_UNIT,
        **TILES,
        **{name: old[name] for name in TILES if name in old},
        "training": run,
    }


def main() -> None:
    """Exports the run and writes it into the card."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="folder of exported models")
    parser.add_argument("--fold", default="0", help="what the run left out")
    options = parser.parse_args()
    state = torch.load(options.run / "checkpoint.pt", "cpu", weights_only=False)
    network = Refinement()
    network.load_state_dict(state["average"])
    folder = options.models / FILES[AREA]
    worst = export_network(network, folder / FILE)
    print(f"{FILE}: {(folder / FILE).stat().st_size} bytes, largest difference {worst:.2g} logit")
    if worst > TOLERANCE:
        raise SystemExit("the exported network differs from the trained one")
    path = folder / "card.json"
    card = json.loads(path.read_text())
    run = {"steps": state["step"], "held_out_fold": options.fold}
    source = {"refinement": section(folder / FILE, run, card.get("refinement", {}))}
    card = refined_as(card, source, folder, folder)
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
