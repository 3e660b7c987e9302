"""Networks as ONNX against PyTorch."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from voxmask_import import export

sys.path.append(str(Path(__file__).resolve().parents[3] / "tests" / "nnunet"))
from networks import SPECS, plans  # noqa: E402
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402

CLASSES = 3


@pytest.mark.parametrize("spec", SPECS[:3], ids=lambda spec: spec.name)
def test_noise_and_zeros_are_seen_as_pytorch_sees_them(tmp_path, spec):
    torch.manual_seed(1)
    channels = len(spec.schemes)
    found = PlansManager(plans(spec)).get_configuration("3d_fullres")
    network = export.build(found, channels, CLASSES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    shape = [1, channels, *spec.patch]
    difference = export.export(network, weights, shape, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    fresh = export.build(found, channels, CLASSES)
    fresh.load_state_dict(weights)
    fresh.eval()
    for window in (torch.randn(shape), torch.zeros(shape)):
        with torch.inference_mode():
            wanted = fresh(window).numpy()
        (got,) = session.run(["logits"], {"window": window.numpy()})
        # Without a mean taken off before it is normalised, zeros differ by 4e-3 to 1e-2.
        assert np.abs(got - wanted).max() < 5e-5 * np.abs(wanted).max()
    assert difference < 1e-3


@pytest.mark.parametrize("spec", SPECS[:2], ids=lambda spec: spec.name)
def test_a_scan_smaller_than_the_window_is_seen_as_closely_as_by_pytorch(tmp_path, spec):
    torch.manual_seed(1)
    found = PlansManager(plans(spec)).get_configuration("3d_fullres")
    network = export.build(found, 1, CLASSES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    shape = [1, 1, *spec.patch]
    export.export(network, weights, shape, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    window = torch.zeros(shape)
    window[..., 8:20, 8:20, 8:20] = 3 + torch.randn(12, 12, 12)
    (ours,) = session.run(["logits"], {"window": window.numpy()})
    with torch.inference_mode():
        theirs = network(window).numpy()
        exact = network.double()(window.double()).numpy()
    ours, theirs = (np.sqrt(np.mean((found - exact) ** 2)) for found in (ours, theirs))
    # With ONNX Runtime's own normalisation 28 and 37 times as far.
    assert ours < 3 * theirs


def test_a_network_that_was_never_trained_is_taken_whatever_it_makes_of_zeros(tmp_path, capsys):
    spec = SPECS[0]
    torch.manual_seed(0)
    found = PlansManager(plans(spec)).get_configuration("3d_fullres")
    network = export.build(found, 1, CLASSES)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    assert export.export(network, weights, [1, 1, *spec.patch], tmp_path / "model.onnx") < 1e-4
    assert "of zeros alone" in capsys.readouterr().out
