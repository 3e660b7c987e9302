"""The refining network: fine cells about the border of the mask that a first network found.

It sees the same channels on cells half as large, and the first network's logit, and gives a better
one. What it decides lies a few centimetres around, so that it can be shown a scan in tiles: no
feature is pooled over all of them.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .network import (
    AREA,
    CHANNELS,
    FOREGROUND,
    ChannelNorm,
    convolve,
    spread,
    to_blocks,
    to_cells,
)

TASKS = {"foreground": FOREGROUND, "area": AREA}

FINE_MM = 2.0
"""Edge of a cell."""
REFINED_WIDTHS = {AREA: (32, 48, 64), FOREGROUND: (24, 32, 48)}
"""A body has a border in every scan and all over it, so that its network must cost little."""
MODALITIES = {AREA: ("ct", "mr"), FOREGROUND: ("mr",)}
"""Where it is used. In CT the threshold half-way between air and skin has found the border already,
and scans are large."""
MORE = 1
"""Further blocks of the coarsest level."""
REFINED_MULTIPLE_OF = 8
LOGIT_MOST, LOGIT_UNIT = 8.0, 4.0
"""The first network's logit is cut here, and seen divided by the second."""


def seen_by(task: int) -> tuple[str, ...]:
    """The channels that a task's networks see: where air ends matters to the area alone."""
    return CHANNELS if task == AREA else CHANNELS[: CHANNELS.index("air-edge")]


def refined_channels(task: int) -> tuple[str, ...]:
    """What its refining network sees."""
    return (*seen_by(task), "logit")


class LocalBlock(nn.Module):
    """Two convolutions around a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.first_norm = ChannelNorm(width)
        self.second = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.second_norm = ChannelNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape (N, C, K, J, I)."""
        h = functional.relu(self.first_norm(convolve(self.first, x)))
        return functional.relu(x + self.second_norm(convolve(self.second, h)))


class Refinement(nn.Module):
    """Channels (N, C, K, J, I), the logit last, to the mask's logits (N, 1, K, J, I)."""

    def __init__(self, task: int) -> None:
        super().__init__()
        widths = REFINED_WIDTHS[task]
        self.stem = nn.Conv3d(8 * (len(refined_channels(task)) + 2), widths[0], 1)
        counts = [1] * (len(widths) - 1) + [1 + MORE]
        self.down = nn.ModuleList(
            [
                nn.Sequential(*(LocalBlock(w) for _ in range(n)))
                for w, n in zip(widths, counts, strict=True)
            ]
        )
        steps = list(zip(widths, widths[1:], strict=False))
        self.widen = nn.ModuleList([nn.Conv3d(a, b, 1) for a, b in steps])
        self.narrow = nn.ModuleList([nn.Conv3d(b, a, 1) for a, b in steps])
        self.up = nn.ModuleList([LocalBlock(w) for w in widths[:-1]])
        self.head = nn.Conv3d(widths[0], 8, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, channels: Tensor) -> Tensor:
        """Adds to the first network's logit."""
        x = functional.relu(self.stem(to_blocks(spread(channels))))
        kept = []
        for level, blocks in enumerate(self.down):
            if level:
                x = self.widen[level - 1](functional.avg_pool3d(x, 2))
            x = blocks(x)
            kept.append(x)
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(self.narrow[level](x), scale_factor=2.0, mode="trilinear")
            x = self.up[level](x + kept[level])
        change = to_cells(self.head(x)).float()
        return channels[:, -1:] * LOGIT_UNIT + change
