"""The weights of shipped models, back in the network that trains.

An export holds the trunk and one head in each of two files, under the network's own names; the
head's convolution is the last one of its file.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from .folds import NO_FOLD
from .network import AREA, CHANNELS, FOREGROUND, Network

FILES = {FOREGROUND: "foreground", AREA: "anonymization-area"}
PREFIX = "network."
JUDGEMENT = "scan."
"""What judges the whole scan; it stands in the area's file alone."""
HALF = ".half"
"""Ends the names of weights that are stored in 16 bits and widened under their own name."""
FURTHER = ("down_more.", "up_more.")
"""Blocks that change nothing until they are trained: weights from before them lack them."""


def read_weights(models: Path, trunk: int = AREA) -> dict[str, Tensor]:
    """Gives the network's state from MODELS/foreground and MODELS/anonymization-area.

    The two files may hold trunks of different runs: that of `trunk` is taken, whole, and the other
    head has to find its way again. Raises ValueError where a weight is missing.
    """
    arrays, heads = {}, []
    for head in (FOREGROUND, AREA):
        path = models / FILES[head] / "model.onnx"
        graph = onnx.load(path).graph
        found = {i.name.removesuffix(HALF): widened(i) for i in graph.initializer}
        last = [node for node in graph.node if node.op_type == "Conv"][-1]
        heads.append([found[name] for name in last.input[1:3]])
        own = {n.removeprefix(PREFIX): a for n, a in found.items() if n.startswith(PREFIX)}
        arrays[head] = own
    judgement = {name: a for name, a in arrays[AREA].items() if name.startswith(JUDGEMENT)}
    state = judgement | arrays[trunk]
    for name, parts in zip(("weight", "bias"), zip(*heads, strict=True), strict=True):
        state[f"head.{name}"] = torch.cat(parts)
    state["stem.weight"] = with_all_channels(state["stem.weight"])
    fresh = Network().state_dict()
    missing = set(fresh) - set(state)
    if any(not name.startswith(FURTHER) for name in missing):
        raise ValueError(f"{models} lacks {sorted(missing)}")
    return state | {name: fresh[name] for name in missing}


def with_all_channels(stem: Tensor) -> Tensor:
    """Adds zeros for the last channels, which weights from before them lack: (C, 8 n, 1, 1, 1).

    `network.spread` puts two views of the intensity behind the channels.
    """
    lacking = 8 * (len(CHANNELS) + 2) - stem.shape[1]
    if lacking <= 0:
        return stem
    channels, views = stem[:, :-16], stem[:, -16:]
    return torch.cat([channels, stem.new_zeros(len(stem), lacking, 1, 1, 1), views], 1)


def read_refinement(path: Path) -> dict[str, Tensor]:
    """Gives a refining network's state from its exported file; of 16 bits where it was rounded."""
    graph = onnx.load(path).graph
    own = {i.name.removesuffix(HALF): widened(i) for i in graph.initializer}
    return {name: array for name, array in own.items() if name.endswith((".weight", ".bias"))}


def refinement_training(path: Path, fold: str) -> dict[str, object]:
    """Gives what the card beside an exported refining network says of its training.

    Raises SystemExit where that saw subjects that FOLD holds out.
    """
    training = json.loads((path.parent / "card.json").read_text())["refinement"]["training"]
    if fold not in (NO_FOLD, training["held_out_fold"]):
        raise SystemExit(f"{path} did not leave out the subjects of fold {fold}")
    return training


def widened(weight: onnx.TensorProto) -> Tensor:
    """Gives a stored weight as floats of 32 bits; other types as they are."""
    tensor = torch.from_numpy(numpy_helper.to_array(weight).copy())
    return tensor.float() if tensor.dtype == torch.float16 else tensor
