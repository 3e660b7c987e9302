"""Makes tiny networks whose answers can be worked out by hand, for tests of the runtime.

    python tests/data/models/make.py FOLDER

foreground: logit = 20 * (intensity - 0.3). anonymization-area: logit = 20 * (flat - 0.9), and the
scan counts as altered when the largest logit of any cell is above 0. nearest-2 and nearest-25 see a
scan through windows: the logit of label c is -(intensity - c)^2, so that the label is the whole number
that is nearest. refined-area and refined-foreground are anonymization-area and foreground with a refinement by
the same rule on cells of 2 mm; the first snaps nothing, the second asks no contrast. Needs onnx.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = ["intensity", "flat", "detail", "in-view", "ct"]


def network(
    channel: int, threshold: float, altered: bool, channels: int = len(CHANNELS)
) -> onnx.ModelProto:
    """One 1x1x1 convolution: 20 * (channel - threshold), outside the view -20 * threshold."""
    weights = np.zeros((1, channels, 1, 1, 1), np.float32)
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
        helper.make_tensor_value_info("channels", TensorProto.FLOAT, [1, channels, "k", "j", "i"])
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
                "coverage": 0.5,
                "constant_share": 0.3,
                "mixed_radius_mm": 3.0,
                "minimum_piece_ml": 0.5,
            },
        },
        "training": {},
        "evaluation": [],
    }


def refined(card: dict, weights: bytes) -> dict:
    """The card with a refinement, and without snapping or contrast."""
    if card["area"]:
        card["area"]["snap"]["constant_share"] = 2.0
    else:
        card["boundary"]["contrast_gain"] = 0.0
    card["refinement"] = {
        "weights": {"file": "refinement.onnx", "sha256": hashlib.sha256(weights).hexdigest()},
        "input": card["input"]
        | {
            "cell_mm": 2.0,
            "channels": [*CHANNELS, "logit"],
            "margin_cells": 0,
            "multiple_of": 8,
        },
        "output": {"logits": "logits", "altered": None},
        "modalities": ["ct", "mr"],
        "logit_most": 8.0,
        "logit_unit": 4.0,
        "share": 1.0,
        "unsure_logit": 4.0,
        "around_cells": 4,
        "tile_cells": 16,
        "overlap_cells": 4,
    }
    return card


def nearest(labels: int) -> onnx.ModelProto:
    """-(intensity - c)^2 for every label c."""
    shape = ["batch", 1, "k", "j", "i"]
    values = np.arange(labels, dtype=np.float32).reshape(1, labels, 1, 1, 1)
    nodes = [
        helper.make_node("Sub", ["image", "labels"], ["away"]),
        helper.make_node("Mul", ["away", "away"], ["squared"]),
        helper.make_node("Neg", ["squared"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)]
    shape = ["batch", labels, "k", "j", "i"]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)]
    constants = [numpy_helper.from_array(values, "labels")]
    graph = helper.make_graph(nodes, "nearest", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def window_card(name: str, labels: int, weights: bytes) -> dict:
    """The card of such a network: windows of 32 voxels of 3 mm."""
    return {
        "schema": "card/1",
        "kind": "windows",
        "name": name,
        "version": "0.0.0",
        "licence": "Apache-2.0",
        "weights": [{"file": "model.onnx", "sha256": hashlib.sha256(weights).hexdigest()}],
        "input": {
            "orientation": "stored",
            "axes": [2, 1, 0],
            "spacing_mm": [3.0, 3.0, 3.0],
            "slices": "anisotropic",
            "channels": [{"name": "any", "normalization": {"kind": "none"}}],
        },
        "window": {"shape": [32, 32, 32], "step": 0.5, "sigma": 0.125, "mirror_axes": [0, 1, 2]},
        "output": {
            "logits": "logits",
            "decision": "highest",
            "classes": [{"name": f"label {label}", "label": label} for label in range(labels)],
        },
        "training": None,
        "evaluation": None,
    }


def write(folder: Path, weights: bytes, card: dict) -> None:
    """Writes a network and its card."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(weights)
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def main() -> None:
    """Writes the networks and their cards."""
    root = Path(sys.argv[1])
    for name, channel, threshold in [("foreground", 0, 0.3), ("anonymization-area", 1, 0.9)]:
        weights = network(channel, threshold, name != "foreground").SerializeToString()
        write(root / name, weights, card(name, weights))
        finer = network(channel, threshold, False, len(CHANNELS) + 1).SerializeToString()
        folder = root / f"refined-{name.removeprefix('anonymization-')}"
        write(folder, weights, refined(card(name, weights), finer))
        (folder / "refinement.onnx").write_bytes(finer)
    for labels in (2, 25):
        name = f"nearest-{labels}"
        weights = nearest(labels).SerializeToString()
        write(root / name, weights, window_card(name, labels, weights))


if __name__ == "__main__":
    main()
