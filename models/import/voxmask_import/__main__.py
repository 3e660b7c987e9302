"""Turns an nnU-Net v2 result folder into a network that voxmask runs.

`python -m voxmask_import RESULT_FOLDER --fold 0 --output DIR`

RESULT_FOLDER is what training leaves in `nnUNet_results`:
`DatasetXXX_Name/Trainer__Plans__configuration`. The output folder gets the weights (one ONNX file
a fold), `card.json`, and `SOURCE.md`, which says where they came from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

from . import export, plan
from .errors import Refused
from .folder import CHECKPOINT, ResultFolder, read_folder


def main() -> int:
    """Runs the import; gives back the exit code."""
    arguments = parse()
    try:
        run(arguments)
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 65
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="voxmask_import", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="RESULT_FOLDER")
    parser.add_argument(
        "--fold", nargs="+", default=["0"], metavar="N",
        help="fold, or several whose logits are averaged; `all` is nnU-Net's fold_all [default: 0]",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--checkpoint", default=CHECKPOINT, metavar="NAME")
    parser.add_argument("--name", help="name on the card [default: that of the data set]")
    parser.add_argument("--version", default="1", help="version on the card [default: 1]")
    parser.add_argument(
        "--licence", default="not stated", help="licence of the weights: SPDX, or a sentence"
    )
    parser.add_argument(
        "--trust-checkpoint", action="store_true",
        help="read checkpoints that hold more than weights; they may run any code",
    )
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> None:
    """Reads the folder, writes the network, checks it."""
    folder = read_folder(
        arguments.folder, arguments.fold, arguments.checkpoint, arguments.trust_checkpoint
    )
    plans, found = plan.configuration(folder)
    card = {
        "schema": "card/1",
        "kind": "windows",
        "name": arguments.name or plans.dataset_name,
        "version": arguments.version,
        "licence": arguments.licence,
        "weights": [],
        "input": plan.input_of(folder, plans, found),
        "window": plan.window_of(folder, found),
        "output": plan.output_of(folder, plans),
        "training": training(folder, found.configuration),
        "evaluation": None,
    }
    channels, classes = len(card["input"]["channels"]), len(card["output"]["classes"])
    network = export.build(found, channels, classes)
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    for n, fold in enumerate(folder.folds):
        path = output / ("model.onnx" if n == 0 else f"model_{n + 1}.onnx")
        export.export(network, fold.weights, [1, channels, *card["window"]["shape"]], path)
        card["weights"].append({"file": path.name, "sha256": sha256(path)})
    (output / "SOURCE.md").write_text(source(card, folder))
    # Last: a folder without a card is no network.
    (output / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(f"done: {output / 'card.json'}")


def training(folder: ResultFolder, configuration: dict) -> dict:
    """What is known of how the weights were trained."""
    first = folder.folds[0]
    return {
        "by": f"nnU-Net, trainer {first.trainer}, configuration {first.configuration}",
        "folds": [fold.name for fold in folder.folds],
        "epochs": [fold.epochs for fold in folder.folds],
        "scans": folder.dataset.get("numTraining"),
        "architecture": configuration["architecture"]["network_class_name"].rsplit(".", 1)[-1],
    }


def source(card: dict, folder: ResultFolder) -> str:
    """Where the weights came from and under which terms."""
    dataset = folder.dataset
    lines = [
        f"# {card['name']}, version {card['version']}",
        "",
        f"Licence of the weights: {card['licence']}. Whoever passes this folder on answers for it.",
        "",
        f"- Trained by {card['training']['by']}.",
        f"- Data set: {folder.plans.get('dataset_name')}; licence of the data: "
        f"{dataset.get('licence') or dataset.get('license') or 'not stated'}; reference: "
        f"{dataset.get('reference') or 'not stated'}.",
        f"- Converted with nnunetv2 {version('nnunetv2')}, PyTorch {version('torch')}.",
    ]
    lines += [
        f"- Checkpoint of fold {fold.name}: `{fold.path.name}`, sha256 {sha256(fold.path)}."
        for fold in folder.folds
    ]
    return "\n".join(lines) + "\n"


def sha256(path: Path) -> str:
    """Digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
