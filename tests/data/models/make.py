"""Makes two tiny networks whose answers can be worked out by hand, for tests of the runtime.

    python tests/data/models/make.py FOLDER

foreground: logit = 20 * (intensity - 0.3). anonymization-area: logit = 20 * (flat - 0.9), and the
scan counts as altered when the largest logit of any cell is above 0. Needs onnx.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = ["intensity", "flat", "detail", "in-view", "ct"]


def network(channel: int, threshold: float, altered: bool) -> onnx.ModelProto:
    """One 1x1x1 convolution: 20 * (channel - threshold), outside the view -20 * threshold."""
    weights = np.zeros((1, len(CHANNELS), 1, 1, 1), np.float32)
    weights[0, channel] = 20
    constants = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.array([-20 * threshold], np.float32), "b"),
    ]
    nodes = [helper.make_node("Conv", ["channels", "w", "b"], ["logits"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, "k", "j", "i"])]
    if altered:
        nodes.append(helper.make_node("ReduceMax", ["logits"], ["most"], axes=[1, 2, 3, 4], keepdims=0))
        nodes.append(helper.make_node("Reshape", ["most", "shape"], ["altered"]))
        constants.append(numpy_helper.from_array(np.array([1, 1], np.int64), "shape"))
        outputs.append(helper.make_tensor_value_info("altered", TensorProto.FLOAT, [1, 1]))
    inputs = [
        helper.make_tensor_value_info("channels", TensorProto.FLOAT, [1, len(CHANNELS), "k", "j", "i"])
    ]
    graph = helper.make_graph(nodes, "threshold", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def card(name: str, weights: bytes) -> dict:
    """The card of such a network."""
    foreground = name == "foreground"
    return {
        "schema": "card/1",
        "name": name,
        "version": "0.0.0",
        "licence": "Apache-2.0",
        "weights": {"file": "model.onnx", "sha256": hashlib.sha256(weights).hexdigest()},
        "input": {
            "orientation": "RAS",
            "cell_mm": 4.0,
            "channels": CHANNELS,
            "margin_cells": 8,
            "multiple_of": 16,
            "ct_below_hu": -200.0,
            "ct_window_hu": [-1000.0, 1500.0],
            "ct_scale_hu": 1000.0,
            "mr_percentile": 99.5,
            "mr_clip": 3.0,
            "detail_gain": 100.0,
            "detail_divisor": 3.0,
            "detail_below_mm": 3.0,
        },
        "output": {"logits": "logits", "altered": None if foreground else "altered"},
        "boundary": {
            "ct_level": 0.5,
            "mr_level": 0.3,
            "logit_weight": 2.0,
            "contrast_gain": 5.0,
            "smoothing_mm": 6.0,
            "band_logit": 8.0,
            "minimum_piece_ml": 1.0,
        }
        if foreground
        else None,
        "area": None
        if foreground
        else {
            "altered_threshold": 0.0,
            "mask_threshold": 0.0,
            "minimum_ml": 1.0,
            "snap": {
                "probability": 0.1,
                "coverage": 0.1,
                "constant_share": 0.3,
                "mixed_radius_mm": 3.0,
                "minimum_piece_ml": 0.5,
            },
        },
        "training": {},
        "evaluation": [],
    }


def main() -> None:
    """Writes both networks and their cards."""
    for name, channel, threshold in [("foreground", 0, 0.3), ("anonymization-area", 1, 0.9)]:
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        weights = network(channel, threshold, name != "foreground").SerializeToString()
        (folder / "model.onnx").write_bytes(weights)
        (folder / "card.json").write_text(json.dumps(card(name, weights), indent=2) + "\n")


if __name__ == "__main__":
    main()
