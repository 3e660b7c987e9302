"""Writes weights as ONNX, and compares them with PyTorch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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
        with summing_by_axes(network):
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


@contextmanager
def summing_by_axes(network: nn.Module) -> Iterator[None]:
    """Has the network's instance normalisations sum along one axis after the other, for a while.

    That changes nothing but rounding. PyTorch sums in 64 bits. ONNX Runtime's own normalisation
    adds all voxels of a window up in 32: where many are the same, as round a scan smaller than the
    window, each rounding errs to the same side, and logits were 14 to 37 times as far from those
    of 64 bits as PyTorch's.
    """
    norms = [norm for norm in network.modules() if isinstance(norm, nn.InstanceNorm3d)]
    for norm in norms:
        norm.forward = partial(normalize, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def normalize(norm: nn.InstanceNorm3d, seen: Tensor) -> Tensor:
    """Instance normalisation of (N, C, k, j, i) with short sums, and no second array of its size.

    What rounding leaves of the mean is taken off too: of a constant, it would be divided by the
    square root of epsilon.
    """
    centered = seen - mean(seen.mean(4, keepdim=True))
    left = mean(centered.mean(4, keepdim=True))
    rows = torch.linalg.vector_norm(centered, dim=4, keepdim=True) / math.sqrt(seen.shape[4])
    scale = 1 / torch.sqrt(mean(rows * rows) - left * left + norm.eps)
    if norm.weight is None:
        return centered * scale - left * scale
    scale = scale * norm.weight.view(1, -1, 1, 1, 1)
    return centered * scale + (norm.bias.view(1, -1, 1, 1, 1) - left * scale)


def mean(rows: Tensor) -> Tensor:
    """Mean of (N, C, k, j, 1) along j, then k."""
    return rows.mean(3, keepdim=True).mean(2, keepdim=True)
