"""A small masked auto-encoder, and what is done with it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# Side of the blocks that are hidden [voxels], and the share of them.
BLOCK = 8
HIDDEN_SHARE = 0.6


class Network(nn.Module):
    """A U-Net of two levels on half the patch's resolution; in and out are [n, channels, i, j, k]."""

    def __init__(self, width: int = 16, out: int = 1):
        super().__init__()
        self.stem = nn.Conv3d(2, width, 4, 2, 1)
        self.first = block(width, width)
        self.down = nn.Conv3d(width, 2 * width, 2, 2)
        self.second = block(2 * width, 2 * width)
        self.up = nn.ConvTranspose3d(2 * width, width, 2, 2)
        self.third = block(2 * width, width)
        self.head = nn.ConvTranspose3d(width, out, 4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.first(self.stem(x))
        coarse = self.second(self.down(fine))
        return self.head(self.third(torch.cat([fine, self.up(coarse)], 1)))

    def with_new_head(self) -> Network:
        """The same body with an untrained head, for another task."""
        other = Network()
        weights = {k: v for k, v in self.state_dict().items() if not k.startswith("head")}
        other.load_state_dict(weights, strict=False)
        return other


def block(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels, 3, 1, 1),
        nn.InstanceNorm3d(channels, affine=True),
        nn.LeakyReLU(0.01),
        nn.Conv3d(channels, channels, 3, 1, 1),
        nn.LeakyReLU(0.01),
    )


def hidden(count: int, shape: int, generator: torch.Generator) -> torch.Tensor:
    """1 where a patch is hidden, [count, 1, i, j, k]."""
    blocks = torch.rand(count, 1, *[shape // BLOCK] * 3, generator=generator) < HIDDEN_SHARE
    return functional.interpolate(blocks.float(), scale_factor=BLOCK, mode="nearest")


def reconstruct(network: Network, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the network makes of an image of which it does not see ``mask``."""
    return network(torch.cat([image * (1 - mask), mask], 1))


def mean_square(found: torch.Tensor, wanted: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean squared error where ``where`` is 1."""
    return ((found - wanted) ** 2 * where).sum() / where.sum().clamp(min=1)


class Fixed:
    """Patches with fixed hidden blocks, to be measured again and again."""

    def __init__(self, seen: list, truth: list, where: list, seed: int):
        stack = lambda arrays: torch.from_numpy(np.stack(arrays).astype(np.float32))[:, None]
        self.seen, self.truth, self.where = stack(seen), stack(truth), stack(where)
        generator = torch.Generator().manual_seed(seed)
        self.mask = hidden(len(seen), self.seen.shape[-1], generator)

    @torch.no_grad()
    def found(self, network: Network) -> torch.Tensor:
        """Reconstructions, [patch, 1, i, j, k]."""
        parts = zip(self.seen.split(8), self.mask.split(8))
        return torch.cat([reconstruct(network, image, mask) for image, mask in parts])

    def error(self, network: Network) -> float:
        """Mean squared error against the truth over hidden voxels where ``where`` is 1."""
        return float(mean_square(self.found(network), self.truth, self.mask * self.where))


def train(
    images: np.ndarray,
    loss_masks: np.ndarray,
    watched: Fixed,
    steps: int,
    every: int,
    seed: int,
    batch: int = 4,
) -> tuple[Network, list[tuple[int, float]]]:
    """Trains on patches [n, i, j, k]; gives back the network and (step, error of ``watched``)."""
    torch.manual_seed(seed)
    network = Network()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    generator = torch.Generator().manual_seed(seed)
    images, loss_masks = (torch.from_numpy(a.astype(np.float32))[:, None] for a in (images, loss_masks))
    curve = [(0, watched.error(network))]
    for step in range(1, steps + 1):
        chosen = torch.randint(len(images), (batch,), generator=generator)
        image, where = images[chosen], loss_masks[chosen]
        mask = hidden(batch, image.shape[-1], generator)
        loss = mean_square(reconstruct(network, image, mask), image, mask * where)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % every == 0:
            curve.append((step, watched.error(network)))
    return network, curve
