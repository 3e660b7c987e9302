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
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    windows = [noise, np.zeros_like(noise)]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        wanted = [network(torch.from_numpy(window)).numpy() for window in windows]
        center_norms(network)
        torch.onnx.export(
            network,
            (torch.from_numpy(noise),),
            str(path),
            input_names=["window"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = [session.run(["logits"], {"window": window})[0] for window in windows]
    difference, of_zeros = (float(np.abs(a - b).max()) for a, b in zip(got, wanted))
    largest = float(np.abs(wanted[0]).max())
    # A network that was never trained may make anything of what rounding leaves of zeros: that is
    # said, and decides nothing.
    print(f"{path.name}: largest difference from PyTorch {difference:.2e}, "
          f"largest logit {largest:.3g}; of zeros alone {of_zeros:.2e}")
    if not difference <= TOLERANCE * max(largest, 1e-3):
        raise Refused(f"{path.name}: differs from PyTorch by {difference}")
    return difference


def center_norms(network: nn.Module) -> None:
    """Takes the mean off what each instance normalisation sees.

    That changes nothing but rounding. PyTorch sums in 64 bits, so that a constant is 0 after the
    normalisation; ONNX Runtime sums in 32, and divides what rounding leaves by the square root of
    epsilon. In a scan of zeros all is constant but for the window's rim.
    """
    for norm in network.modules():
        if isinstance(norm, nn.InstanceNorm3d) and not getattr(norm, "is_centered", False):
            norm.is_centered = True
            norm.register_forward_pre_hook(center)


def center(_: nn.Module, seen: tuple[Tensor]) -> tuple[Tensor]:
    """What a normalisation sees, with a mean of about 0 in each channel."""
    return (seen[0] - seen[0].mean((2, 3, 4), keepdim=True),)
