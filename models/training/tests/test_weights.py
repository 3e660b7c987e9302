"""Exported models can be trained on."""

from pathlib import Path

import torch

from voxmask_training.export import export_head, mean_of
from voxmask_training.network import AREA, CHANNELS, FOREGROUND, Network, spread, to_blocks
from voxmask_training.weights import FILES, read_weights, with_all_channels


def test_an_export_gives_back_the_weights_it_was_made_of(tmp_path: Path):
    torch.manual_seed(0)
    network = Network()
    for parameter in network.parameters():  # equal arrays would be stored once
        torch.nn.init.normal_(parameter, std=0.1)
    for head in (FOREGROUND, AREA):
        (tmp_path / FILES[head]).mkdir()
        export_head(network, head, tmp_path / FILES[head] / "model.onnx")
    found, expected = read_weights(tmp_path), network.state_dict()
    assert set(found) == set(expected)
    for name, weight in expected.items():
        stored = weight.half().float() if weight.ndim > 1 else weight
        assert torch.equal(found[name], stored), name


def test_the_trunk_is_that_of_the_wanted_file_alone(tmp_path: Path):
    networks = {}
    for head in (FOREGROUND, AREA):
        torch.manual_seed(head)
        networks[head] = Network()
        for parameter in networks[head].parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        (tmp_path / FILES[head]).mkdir()
        export_head(networks[head], head, tmp_path / FILES[head] / "model.onnx")
    channels = torch.rand(1, len(CHANNELS), 16, 16, 16)
    for trunk, network in networks.items():
        read = Network()
        read.load_state_dict(read_weights(tmp_path, trunk))
        with torch.no_grad():
            found, expected = read(channels)[0][:, trunk], network(channels)[0][:, trunk]
        assert torch.allclose(found, expected, rtol=0.05, atol=0.05)


def test_channels_that_came_later_change_nothing_at_first():
    stem = torch.rand(4, 8 * 7, 1, 1, 1)
    wide = with_all_channels(stem)
    values = torch.rand(1, len(CHANNELS), 4, 4, 4)
    values[:, 5] = 0.0
    old = to_blocks(spread(values[:, :5]))
    for later in (0.0, 1.0):
        values[:, 5] = later
        found = torch.nn.functional.conv3d(to_blocks(spread(values)), wide)
        assert torch.allclose(found, torch.nn.functional.conv3d(old, stem))
    assert with_all_channels(wide) is wide


def test_the_mean_of_runs_counts_a_run_named_twice_twice():
    one, other = ({"a": torch.full((2,), value)} for value in (0.0, 3.0))
    assert mean_of([one, one, other])["a"].tolist() == [1.0, 1.0]
