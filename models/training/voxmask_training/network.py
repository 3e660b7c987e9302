"""The network: one trunk, a head for each mask, and a logit for the whole scan.

Tensors are (N, C, K, J, I) on the coarse grid. The input is cut into blocks of two
cells along each axis, the blocks' channels are the network's first features, and the
output puts eight logits back into each block. Features are normalised over the
channels of each voxel, which keeps what is the same all over a scan (is the air noise
or a constant?); what a voxel cannot see comes from the mean and the maximum over all
cells in view, at every level. Cells out of view are set to zero after every block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = ("intensity", "flat", "detail", "in-view", "ct", "abrupt", "air-edge")
IN_VIEW = CHANNELS.index("in-view")
WIDTHS = (32, 48, 64, 72)
MORE_DOWN, MORE_UP = (1, 1, 1, 2), (1, 1, 1)
"""Further blocks of each level on the way down and up. What tells an intact head in zeroed air from
an altered one is its shape, and blocks of the coarse levels cost little time; those of the finest
level, for what is seen in a few cells, half as much again as all others."""
MULTIPLE_OF = 2 ** len(WIDTHS)
FOREGROUND, AREA = 0, 1
NORM_EPSILON = 1e-3
"""Large enough that empty, constant air is not blown up into features."""


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (N, C, K, J, I) to mean 0 and variance 1 over C.

        In full precision: PyTorch adds up the gradients of a bfloat16 layer norm's weights in
        bfloat16, which loses most of them.
        """
        if x.is_cuda:
            return normalised(x, self.weight, self.bias)
        x = x.float().permute(0, 2, 3, 4, 1)
        x = functional.layer_norm(x, (self.width,), self.weight, self.bias, NORM_EPSILON)
        return x.permute(0, 4, 1, 2, 3)


class GlobalPool(nn.Module):
    """Gives the mean and the maximum over the cells in view: (N, 2 C)."""

    def forward(self, x: Tensor, view: Tensor) -> Tensor:
        """Pools (N, C, K, J, I) where `view`, (N, 1, K, J, I), is 1."""
        x = x * view
        mean = x.sum((2, 3, 4)) / view.sum((2, 3, 4)).clamp(min=1.0)
        return torch.cat([mean, x.amax((2, 3, 4))], 1)


class Block(nn.Module):
    """Two convolutions around a residual, scaled and shifted by the whole scan."""

    def __init__(self, width: int, hidden: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.first_norm = ChannelNorm(width)
        self.second = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.second_norm = ChannelNorm(width)
        self.pool = GlobalPool()
        self.scan = nn.Sequential(
            nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, 2 * width)
        )
        nn.init.zeros_(self.scan[-1].weight)
        nn.init.zeros_(self.scan[-1].bias)

    def forward(self, x: Tensor, view: Tensor) -> Tensor:
        """Keeps the shape; cells out of view become zero."""
        h = functional.relu(self.first_norm(convolve(self.first, x)))
        h = self.second_norm(convolve(self.second, h))
        scale, shift = self.scan(self.pool(h, view))[:, :, None, None, None].chunk(2, 1)
        return joined(x, h, scale, shift, view)


class Network(nn.Module):
    """Channels (N, 7, K, J, I) to two masks' logits and the scan's `altered` logit."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.stem = nn.Conv3d(8 * (len(CHANNELS) + 2), widths[0], 1)
        self.down = nn.ModuleList([Block(w) for w in widths])
        self.widen = nn.ModuleList(
            [nn.Conv3d(a, b, 1) for a, b in zip(widths, widths[1:], strict=False)]
        )
        self.narrow = nn.ModuleList(
            [nn.Conv3d(b, a, 1) for a, b in zip(widths, widths[1:], strict=False)]
        )
        self.up = nn.ModuleList([Block(w) for w in widths[:-1]])
        self.down_more = nn.ModuleList(map(further_blocks, widths, MORE_DOWN))
        self.up_more = nn.ModuleList(map(further_blocks, widths[:-1], MORE_UP))
        self.head = nn.Conv3d(widths[0], 16, 3, padding=1)
        self.pool = GlobalPool()
        self.scan = nn.Sequential(nn.Linear(2 * widths[-1] + 2, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """Gives logits (N, 2, K, J, I), foreground and area, and `altered` (N, 1)."""
        features, deepest = self.features(channels)
        logits = to_cells(self.head(features))
        area = logits[:, AREA : AREA + 1]
        return logits, self.altered(deepest, area, channels)

    def features(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the trunk's features (N, C, K/2, J/2, I/2) and its deepest, pooled."""
        x = self.stem(to_blocks(spread(channels)))
        view = functional.max_pool3d(channels[:, IN_VIEW : IN_VIEW + 1], 2)
        view = (view > 0.5).to(x.dtype)
        x = functional.relu(x) * view
        kept: list[tuple[Tensor, Tensor]] = []
        for level, block in enumerate(self.down):
            if level:
                x = self.widen[level - 1](functional.avg_pool3d(x, 2))
                view = functional.max_pool3d(view, 2)
                x = x * view
            x = block(x, view)
            for more in self.down_more[level]:
                x = more(x, view)
            kept.append((x, view))
        deepest = self.pool(x, view)
        for level in reversed(range(len(self.up))):
            skip, view = kept[level]
            x = functional.interpolate(self.narrow[level](x), scale_factor=2.0, mode="trilinear")
            x = self.up[level](x * view + skip, view)
            for more in self.up_more[level]:
                x = more(x, view)
        return x, deepest

    def altered(self, deepest: Tensor, area: Tensor, channels: Tensor) -> Tensor:
        """Judges the scan from its deepest features and the area's logits: (N, 1)."""
        view = (channels[:, IN_VIEW : IN_VIEW + 1] > 0.5).to(area.dtype)
        highest = (area * view - 20.0 * (1.0 - view)).amax((2, 3, 4))
        count = torch.log1p((area.sigmoid() * view).sum((2, 3, 4)))
        return self.scan(torch.cat([deepest, 0.1 * highest, 0.2 * count], 1))


def normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Does what `ChannelNorm` does, by sums: on a GPU layer norm takes a block for each voxel."""
    x = x.float()
    x = x - x.mean(1, keepdim=True)
    x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + NORM_EPSILON)
    shape = (1, -1, 1, 1, 1)
    return x * weight.view(shape) + bias.view(shape)


def joined(x: Tensor, h: Tensor, scale: Tensor, shift: Tensor, view: Tensor) -> Tensor:
    """Gives the end of a block: what came in plus what was found, scaled by the whole scan."""
    return functional.relu(x + h * (1.0 + scale) + shift) * view


def fuse() -> None:
    """Lets PyTorch fuse what lies between convolutions: half of a step's time on a GPU."""
    for name in ("normalised", "joined"):
        globals()[name] = torch.compile(globals()[name], dynamic=True)


def further_blocks(width: int, count: int) -> nn.ModuleList:
    """Makes blocks that change nothing until they are trained.

    So weights of a network without them go on where they were.
    """
    blocks = nn.ModuleList([Block(width) for _ in range(count)])
    for block in blocks:
        nn.init.zeros_(block.second_norm.weight)
    return blocks


def mixed_precision(device: str) -> torch.autocast:
    """Computes in bfloat16 from here on where the device has instructions for it.

    A CPU without them takes up to twenty times as long as in full precision.
    """
    able = device != "cpu" or any(
        has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16")
    )
    return torch.autocast(device, torch.bfloat16, enabled=able)


def convolve(convolution: nn.Conv3d, x: Tensor) -> Tensor:
    """Convolves; in full precision where an axis has at most two voxels.

    PyTorch 2.15 on CPUs gives wrong gradients of bfloat16 weights there.
    """
    if torch.is_autocast_enabled("cpu") and min(x.shape[2:]) <= 2:
        with torch.autocast("cpu", enabled=False):
            return convolution(x.float())
    return convolution(x)


def spread(channels: Tensor) -> Tensor:
    """Adds two views of the intensity that set dark air and noise apart: (N, 9, …)."""
    intensity = channels[:, :1].clamp(min=0.0)
    root = torch.sqrt(intensity + 1e-4) - 0.01
    log = torch.log1p(50.0 * intensity) * 0.25
    return torch.cat([channels, root, log], 1)


def to_blocks(x: Tensor) -> Tensor:
    """Moves blocks of 2×2×2 cells into channels: (N, 8 C, K/2, J/2, I/2)."""
    n, c, k, j, i = x.shape
    x = x.reshape(n, c, k // 2, 2, j // 2, 2, i // 2, 2)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, 8 * c, k // 2, j // 2, i // 2)


def to_cells(x: Tensor) -> Tensor:
    """Undoes `to_blocks`: (N, C, K, J, I) to (N, C/8, 2 K, 2 J, 2 I)."""
    n, c, k, j, i = x.shape
    x = x.reshape(n, c // 8, 2, 2, 2, k, j, i).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(n, c // 8, 2 * k, 2 * j, 2 * i)
