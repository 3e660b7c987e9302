"""Exports a run's averaged weights as two ONNX files with their cards.

`python -m voxmask_training.export --run DIR [DIR …] --models ../ --fold 0`

Of several runs that went on from the same weights, the mean of their weights: a run named twice
counts twice. Each file holds the trunk and one head. The result is compared with the network in
PyTorch on volumes of several shapes before a card is written. What a card already
says about the rest of the method (boundary, area, evaluation) is kept.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from . import channels
from .folds import held_out
from .network import AREA, CHANNELS, FOREGROUND, MULTIPLE_OF, Network, to_cells
from .weights import FILES, HALF, read_weights

VERSION = "0.1.0"
OPSET = 17
MOST_BYTES = 6_000_000
TOLERANCE = 2e-3
SHAPES = ((64, 80, 64), (48, 48, 48), (32, 96, 64))
INPUT = {
    "orientation": "RAS",
    "cell_mm": channels.CELL_MM,
    "channels": list(CHANNELS),
    "multiple_of": MULTIPLE_OF,
    "ct_below_hu": channels.CT_BELOW_HU,
    "ct_window_hu": list(channels.CT_WINDOW_HU),
    "ct_scale_hu": channels.CT_SCALE_HU,
    "mr_percentile": channels.MR_PERCENTILE,
    "mr_clip": channels.MR_CLIP,
    "detail_gain": channels.DETAIL_GAIN,
    "detail_divisor": channels.DETAIL_DIVISOR,
    "detail_below_mm": channels.DETAIL_BELOW_MM,
    "abrupt": {
        "run_mm": channels.ABRUPT_RUN_MM,
        "reach_mm": channels.ABRUPT_REACH_MM,
        "below_mm": channels.DETAIL_BELOW_MM,
        "most": channels.ABRUPT_MOST,
        "prior": channels.ABRUPT_PRIOR,
    },
    "air_edge": {
        "run_mm": channels.AIR_RUN_MM,
        "reach_mm": channels.AIR_REACH_MM,
        "below_mm": channels.DETAIL_BELOW_MM,
        "share": channels.AIR_SHARE,
        "tissue_least": channels.TISSUE_LEAST,
        "most": channels.AIR_MOST,
        "prior": channels.AIR_PRIOR,
    },
    "mirror_axes": [0],
}
BOUNDARY = {
    "ct_level": 0.5,
    "mr_level": 0.2,
    "logit_weight": 2.0,
    "contrast_gain": 30.0,
    "smoothing_mm": 6.0,
    "band_logit": 8.0,
    "minimum_piece_ml": 1.0,
    "skin": {
        "level": 0.3,
        "depth_mm": 2.5,
        "reach_mm": 1.0,
        "floor": 0.18,
        "smoothing_mm": 5.0,
        "passes": 1,
    },
    "rim": {"reach_mm": 1.6, "between_mm": [2.1, 4.0], "least_constant": 0.95},
    "closing_mm": 1.5,
}
SNAP = {
    "probability": 0.1,
    "coverage": 0.5,
    "constant_share": 0.3,
    "mixed_radius_mm": 9.5,
    "minimum_piece_ml": 0.5,
}
GATE = {
    "altered_threshold": 2.2,
    "mask_threshold": 0.0,
    "minimum_ml": 1.0,
    "snap": SNAP,
}


class OneHead(nn.Module):
    """The trunk with one head: logits (N, 1, K, J, I) and, for the area, `altered`."""

    def __init__(self, network: Network, head: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        round_to_half(self.network)
        self.head = head

    def forward(self, channels: Tensor) -> tuple[Tensor, ...]:
        """Gives this head's outputs alone; the exporter drops the other's weights."""
        features, deepest = self.network.features(channels)
        part = slice(8 * self.head, 8 * self.head + 8)
        conv = self.network.head
        x = nn.functional.conv3d(features, conv.weight[part], conv.bias[part], padding=1)
        logits = to_cells(x)
        if self.head == FOREGROUND:
            return (logits,)
        return logits, self.network.altered(deepest, logits, channels)


def export_head(network: Network, head: int, path: Path) -> float:
    """Writes one ONNX file; gives its largest difference from PyTorch [logit]."""
    module = OneHead(network, head).eval()
    outputs = ["logits"] if head == FOREGROUND else ["logits", "altered"]
    write_onnx(module, (1, len(CHANNELS), *SHAPES[0]), outputs, path)
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes: over {MOST_BYTES}")
    return compare(module, path)


def write_onnx(module: nn.Module, shape: tuple[int, ...], outputs: list[str], path: Path) -> None:
    """Writes and checks one ONNX file, its large weights in 16 bits; axes of cells are free."""
    axes = {2: "K", 3: "J", 4: "I"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.rand(shape),),
            str(path),
            input_names=["channels"],
            output_names=outputs,
            dynamic_axes={"channels": axes, "logits": axes},
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.save(store_in_half(onnx.load(path)), path)
    onnx.checker.check_model(onnx.load(path), full_check=True)


def round_to_half(network: nn.Module) -> None:
    """Rounds the weights that are stored in 16 bits, so that what is compared is what is stored."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()


def store_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Stores large weights in 16 bits, half the size; the runtime widens them once, on loading."""
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) > 1:
            name, values = weight.name, numpy_helper.to_array(weight)
            stored = numpy_helper.from_array(values.astype(np.float16), name + HALF)
            weight.CopyFrom(stored)
            casts.append(helper.make_node("Cast", [name + HALF], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@torch.no_grad()
def compare(module: nn.Module, path: Path) -> float:
    """Runs PyTorch and ONNX Runtime side by side; prints the time on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst = 0.0
    for shape in SHAPES:
        channels = np.zeros((1, len(CHANNELS), *shape), np.float32)
        # In use a scan begins with the first cell and fills what it can.
        inner = channels[:, :, :, :-8, :-8]
        inner[:] = rng.random(inner.shape, np.float32)
        inner[:, CHANNELS.index("in-view")] = 1.0
        start = time.process_time()
        found = session.run(None, {"channels": channels})
        seconds = time.process_time() - start
        expected = module(torch.from_numpy(channels))
        for a, b in zip(found, expected, strict=True):
            worst = max(worst, float(np.abs(a - b.numpy()).max()))
        print(f"{path.parent.name} {shape}: {seconds:.2f} s on one thread")
    return worst


def write_card(folder: Path, name: str, training: dict[str, object]) -> None:
    """Writes `card.json`, keeping what was fitted and measured before."""
    path = folder / "card.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    area = name == "anonymization-area"
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    card = {
        "schema": "card/1",
        "name": name,
        "version": VERSION,
        "licence": "Apache-2.0",
        "weights": {"file": "model.onnx", "sha256": digest},
        "input": INPUT | {"margin_cells": 0},
        "output": {"logits": "logits", "altered": "altered" if area else None},
        "boundary": None if area else BOUNDARY | old.get("boundary", {}),
        "area": old.get("area", GATE) if area else None,
        **{name: old[name] for name in ("refinement",) if name in old},
        "training": training,
        "evaluation": old.get("evaluation", []),
    }
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def describe_training(options: argparse.Namespace, step: int) -> dict[str, object]:
    """Counts the samples and subjects that the run could see."""
    out = held_out(options.fold)
    subjects: dict[str, int] = {}
    for path in options.samples.glob("*/*.npz"):
        with np.load(path) as file:
            subject = str(file["subject"].item())
        subjects[subject] = subjects.get(subject, 0) + 1
    used = {name: n for name, n in subjects.items() if name not in out}
    return {
        "data": "open CT and MR scans and painted label maps; see ../README.md",
        "scans": sum(used.values()),
        "subjects": len(used),
        "held_out_subjects": sorted(out),
        "steps": step,
        "seed": options.seed,
    }


def trained(run: Path, trunk: int) -> tuple[dict[str, Tensor], int]:
    """Gives weights and steps of a run's checkpoint, or of a folder of exported models.

    `trunk`: the head whose file the trunk comes from, of exported models.
    """
    if (run / "checkpoint.pt").exists():
        state = torch.load(run / "checkpoint.pt", "cpu", weights_only=False)
        return state["average"], state["step"]
    card = json.loads((run / FILES[trunk] / "card.json").read_text())
    return read_weights(run, trunk), card["training"]["steps"]


def mean_of(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Gives the mean of several networks' weights."""
    return {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}


def main() -> None:
    """Exports the heads and writes their cards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run",
        type=Path,
        required=True,
        nargs="+",
        help="one, or several: mean; exported models are as good",
    )
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="folder to write to")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--only", choices=["foreground", "area"], help="write one task's model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trunk = FOREGROUND if options.only == "foreground" else AREA
    states = {run: trained(run, trunk) for run in options.run}
    network = Network()
    network.load_state_dict(mean_of([states[run][0] for run in options.run]))
    training = describe_training(options, sum(steps for _, steps in states.values()))
    for head, name in FILES.items():
        if options.only and (options.only == "foreground") != (head == FOREGROUND):
            continue
        folder = options.models / name
        folder.mkdir(parents=True, exist_ok=True)
        worst = export_head(network, head, folder / "model.onnx")
        size = (folder / "model.onnx").stat().st_size
        print(f"{name}: {size} bytes, largest difference {worst:.2g} logit")
        if worst > TOLERANCE:
            raise SystemExit("the exported network differs from the trained one")
        write_card(folder, name, training)


if __name__ == "__main__":
    main()
