"""Facts about the network that the runtime relies on."""

import pytest
import torch
from torch.nn import functional

from voxmask_training.network import (
    CHANNELS,
    IN_VIEW,
    Network,
    convolve,
    mixed_precision,
    to_blocks,
    to_cells,
)


def volume(margin: int, size: int) -> torch.Tensor:
    """Lays one 32-cell scan into a cube of `size` cells, `margin` from its corner."""
    torch.manual_seed(1)
    scan = torch.rand(1, len(CHANNELS), 32, 32, 32)
    scan[:, IN_VIEW] = 1.0
    channels = torch.zeros(1, len(CHANNELS), size, size, size)
    inner = slice(margin, margin + 32)
    channels[:, :, inner, inner, inner] = scan
    return channels


def test_blocks_and_cells_are_inverse():
    x = torch.rand(2, 3, 4, 6, 8)
    assert torch.equal(to_cells(to_blocks(x)), x)


@torch.no_grad()
def test_the_margin_changes_nothing():
    torch.manual_seed(0)
    network = Network().eval()
    narrow, narrow_scan = network(volume(16, 64))
    wide, wide_scan = network(volume(32, 96))
    a = narrow[:, :, 16:48, 16:48, 16:48]
    b = wide[:, :, 32:64, 32:64, 32:64]
    assert torch.allclose(a, b, atol=1e-4)
    assert torch.allclose(narrow_scan, wide_scan, atol=1e-4)


@torch.no_grad()
def test_answers_have_the_shape_of_the_grid():
    logits, altered = Network()(torch.zeros(1, len(CHANNELS), 16, 32, 48))
    assert logits.shape == (1, 2, 16, 32, 48)
    assert altered.shape == (1, 1)


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 8, 8), (4, 1, 4)])
def test_convolutions_of_thin_scans_have_gradients_of_full_precision(shape):
    torch.manual_seed(0)
    layer, x = torch.nn.Conv3d(16, 16, 3, padding=1, bias=False), torch.rand(1, 16, *shape)
    gradients = []
    for mixed in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            out = convolve(layer, x)
        out.float().square().sum().backward()
        gradients.append(layer.weight.grad.clone())
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-5)


def test_mixed_precision_gives_the_gradients_of_full_precision_in_thin_scans():
    torch.manual_seed(0)
    network = Network()
    channels = torch.rand(1, len(CHANNELS), 16, 32, 32)
    channels[:, IN_VIEW] = 1.0
    target = (channels[:, :1] > 0.5).float().expand(-1, 2, -1, -1, -1)
    gradients = []
    for mixed in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits, altered = network(channels)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), target)
        (loss + altered.float().sum()).backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    # Rounding moves which cell is the highest: up to a third. Wrong gradients are off by far more.
    for full, half in zip(*gradients):
        assert float((full - half).norm()) <= 0.5 * float(full.norm()) + 1e-3


def test_further_blocks_change_nothing_until_they_are_trained():
    torch.manual_seed(1)
    network = Network()
    channels = torch.rand(1, len(CHANNELS), 32, 32, 32)
    with torch.no_grad():
        expected, judged = network(channels)
        for levels in (network.down_more, network.up_more):
            for level, _ in enumerate(levels):
                levels[level] = torch.nn.ModuleList()
        found, judged_without = network(channels)
    assert torch.equal(found, expected) and torch.equal(judged_without, judged)


@pytest.mark.parametrize(
    ("has", "able"),
    [({"avx2": True, "avx512_bf16": False}, False), ({"amx_bf16": True}, True), ({}, False)],
)
def test_a_cpu_without_bfloat16_computes_in_full_precision(has, able, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    with mixed_precision("cpu"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if able else torch.float32)
