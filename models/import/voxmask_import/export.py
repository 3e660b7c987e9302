"""Writes weights as ONNX, and compares them with PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor, nn

from .errors import Refused
from .folder import first_line

OPSET = 17
ARCHITECTURES = ("PlainConvUNet", "ResidualEncoderUNet")
# Of the largest logit: sums in another order differ by a few units in the last place a layer.
TOLERANCE = 1e-4


def build(found: ConfigurationManager, channels: int, classes: int) -> nn.Module:
    """The network that a configuration describes, without weights."""
    name = found.network_arch_class_name
    if name.rsplit(".", 1)[-1] not in ARCHITECTURES:
        raise Refused(f"the architecture {name} is unknown; known are {', '.join(ARCHITECTURES)}")
    return get_network_from_plans(
        name,
        found.network_arch_init_kwargs,
        found.network_arch_init_kwargs_req_import,
        channels,
        classes,
        allow_init=False,
        deep_supervision=False,
    )


def export(network: nn.Module, weights: dict[str, Tensor], shape: list[int], path: Path) -> float:
    """Writes a network with some weights for windows of (1, channels, *shape).

    Gives back the largest difference from PyTorch, as a share of the largest logit.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise Refused(
            f"the checkpoint's weights do not fit the architecture of plans.json: "
            f"{first_line(error)}"
        ) from error
    network.eval()
    window = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (window,),
            str(path),
            input_names=["window"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=False,
        )
        wanted = network(window).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(["logits"], {"window": window.numpy()})
    difference = float(np.abs(got - wanted).max())
    largest = float(np.abs(wanted).max())
    print(f"{path.name}: largest difference from PyTorch {difference:.2e}, "
          f"largest logit {largest:.3g}")
    if not difference <= TOLERANCE * max(largest, 1e-3):
        raise Refused(f"{path.name}: differs from PyTorch by {difference}")
    return difference
