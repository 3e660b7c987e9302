"""Trains a refining network on crops made by `refinement_samples`.

`python -m voxmask_training.train_refinement --samples DIR --run DIR --fold 0 --hours 1`

As `train`: the folder is read again every minute, a checkpoint is written every two minutes and
taken up again, the rate falls to 0 when the hours (or steps) are over, and a step takes more crops
on a GPU (`--device cuda`), in whose memory all of them lie.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional

from .folds import held_out
from .losses import dice_loss, mean_entropy, near_boundary
from .network import AREA, CHANNELS, FOREGROUND, mixed_precision
from .patches import INTENSITY, STEPS
from .refinement import LOGIT_MOST, LOGIT_UNIT, TASKS, Refinement, seen_by
from .refinement_samples import COUNTED, LOGIT, LOGIT_STEPS, TARGET
from .train import (
    CHECKPOINT_S,
    LOG_STEPS,
    REFRESH_S,
    WEIGHT_DECAY,
    Curve,
    Run,
    append_rows,
    done,
    follow,
    rate_at,
)
from .weights import read_refinement, refinement_training

WINDOW = 40
BATCH = {"cpu": 2, "cuda": 24}
RIM_CELLS = 4
"""What lies closer to the rim of a window is not asked of the network."""
BORDER_WEIGHT = 3.0
FREE_WEIGHT = 0.5
CT = CHANNELS.index("ct")
HEAVY = ("blur", "pixels", "face", "surroundings", "tool", "air-noise", "-MR")
"""Ends of the kinds whose border is hard to see: fills of areas, bodies in MR."""
HEAVY_SHARE = {AREA: 0.65, FOREGROUND: 1.0}
"""The foreground's is used in MR alone (`refinement.MODALITIES`)."""
WATCH_S = 600.0
CHECKPOINT = "checkpoint.pt"


@dataclass
class Crops:
    """The crops read so far."""

    folder: Path
    held_out: frozenset[str]
    heavy_share: float = HEAVY_SHARE[AREA]
    device: str = "cpu"
    seen: set[Path] = field(default_factory=set)
    heavy: list[Tensor] = field(default_factory=list)
    light: list[Tensor] = field(default_factory=list)
    watched: list[Tensor] = field(default_factory=list)
    refreshed: float = -REFRESH_S

    def refresh(self) -> None:
        """Reads samples written since the last call, at most once a minute."""
        if time.monotonic() - self.refreshed < REFRESH_S:
            return
        for path in sorted(set(self.folder.glob("*/*.npz")) - self.seen):
            self.seen.add(path)
            with np.load(path) as file:
                cells = torch.from_numpy(file["cells"]).to(self.device)
                kind = str(file["kind"].item())
                if str(file["subject"].item()) in self.held_out:
                    self.watched.extend(cells)
                else:
                    (self.heavy if kind.endswith(HEAVY) else self.light).extend(cells)
        self.refreshed = time.monotonic()

    def draw(self, rng: Generator, count: int) -> Tensor:
        """Picks crops, uint8 (N, 10, K, J, I), cut and mirrored; raises ValueError without any."""
        if not (self.heavy or self.light):
            raise ValueError(f"no crops of subjects that train in {self.folder}")
        out = []
        for _ in range(count):
            heavy = (rng.random() < self.heavy_share and self.heavy) or not self.light
            pile = self.heavy if heavy else self.light
            crop = pile[int(rng.integers(len(pile)))]
            low = rng.integers(0, np.array(crop.shape[1:]) - WINDOW + 1)
            box = tuple(slice(int(a), int(a) + WINDOW) for a in low)
            crop = crop[(slice(None), *box)]
            out.append(crop.flip(-1) if rng.random() < 0.5 else crop)
        return torch.stack(out)


def restored(cells: Tensor) -> Tensor:
    """Undoes the crops' storing: float32 (N, 10, K, J, I), the logit in units of its channel."""
    steps = torch.tensor([*STEPS[: len(CHANNELS)], *STEPS[-2:], LOGIT_STEPS], device=cells.device)
    layers = cells.float() / steps.view(1, -1, 1, 1, 1)
    layers[:, INTENSITY] **= 2
    layers[:, LOGIT] = (layers[:, LOGIT] - LOGIT_MOST) / LOGIT_UNIT
    return layers


def varied(layers: Tensor, rng: Generator) -> Tensor:
    """Changes brightness, and the logit as a first network might err on a scan it never saw."""
    count, device = len(layers), layers.device

    def each(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device).view(-1, 1, 1, 1)

    is_ct = layers[:, CT].flatten(1).any(1).view(-1, 1, 1, 1)
    brighter = each(np.exp(rng.normal(0.0, 0.12, count)))
    layers[:, INTENSITY] *= torch.where(is_ct, 1.0, brighter)
    logit = layers[:, LOGIT]
    for n in np.flatnonzero(rng.random(count) < 0.2):
        logit[n] = torch.roll(logit[n], [int(s) for s in rng.integers(-2, 3, 3)], (0, 1, 2))
    knots = rng.normal(0.0, 0.6, (count, 1, 4, 4, 4)) * (rng.random((count, 1, 1, 1, 1)) < 0.4)
    knots = torch.from_numpy(knots.astype(np.float32)).to(device)
    logit = logit + functional.interpolate(knots, logit.shape[1:], mode="trilinear")[:, 0]
    weaker = rng.random(count) < 0.3
    scale = np.where(weaker, rng.uniform(0.3, 1.0, count), 1.0)
    shift = np.where(weaker, rng.normal(0.0, 0.25, count), 0.0)
    most = LOGIT_MOST / LOGIT_UNIT
    layers[:, LOGIT] = (logit * each(scale) + each(shift)).clamp(-most, most)
    return layers


def split(layers: Tensor, task: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gives what goes in (N, C, …), the mask, where it counts and what is asked (N, 1, …)."""
    channels = torch.cat([layers[:, : len(seen_by(task))], layers[:, LOGIT : LOGIT + 1]], 1)
    counted = (layers[:, COUNTED : COUNTED + 1] > 0.5).float()
    inner = torch.zeros_like(counted)
    inner[:, :, RIM_CELLS:-RIM_CELLS, RIM_CELLS:-RIM_CELLS, RIM_CELLS:-RIM_CELLS] = 1.0
    return channels, layers[:, TARGET : TARGET + 1], counted * inner, inner


def loss_of(logits: Tensor, first: Tensor, mask: Tensor, counted: Tensor, inner: Tensor) -> Tensor:
    """Cross entropy that leans on the border, plus soft Dice: (N,).

    Where nothing counts, in an area's free air, the first network's word stands: the rules that
    follow ask what a rough area mostly holds, and all of a scan's constant air would be taken in.
    """
    weight = counted * (1.0 + BORDER_WEIGHT * near_boundary(mask, counted))
    loss = 2.0 * mean_entropy(logits, mask, weight) + dice_loss(logits, mask, counted)
    return loss + FREE_WEIGHT * mean_entropy(logits, torch.sigmoid(first), inner * (1 - counted))


def take_step(run: Run, crops: Crops, task: int, rate: float) -> dict[str, float]:
    """Takes one step; gives the loss and the gradient's norm."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    layers = varied(restored(crops.draw(run.rng, BATCH[crops.device])), run.rng)
    channels, mask, counted, inner = split(layers, task)
    first = channels[:, -1:] * LOGIT_UNIT
    channels = channels.contiguous(memory_format=torch.channels_last_3d)
    with mixed_precision(crops.device):
        logits = run.network(channels)
    loss = loss_of(logits.float(), first, mask, counted, inner).mean()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
    value, gradient = torch.stack([loss.detach(), norm]).tolist()  # one wait for both
    if np.isfinite(gradient):
        run.optimizer.step()
    run.optimizer.zero_grad()
    run.step += 1
    follow(run)
    return {"loss": value, "gradient": gradient}


@torch.no_grad()
def watch(network: nn.Module, crops: list[Tensor], task: int, most: int = 160) -> dict[str, float]:
    """Dice of held-out crops, pooled over all: of the first network and of this one."""
    sums = np.zeros((2, 2))
    for crop in crops[:: max(1, len(crops) // most)]:
        channels, area, counted, _ = split(restored(crop[None]), task)
        truth = (area > 0.5) & (counted > 0.0)
        for n, logits in enumerate((channels[:, -1:], network(channels))):
            found = (logits > 0.0) & (counted > 0.0)
            sums[n] += (2.0 * float((found & truth).sum()), float(found.sum() + truth.sum()))
    dice = sums[:, 0] / np.maximum(sums[:, 1], 1.0)
    return {"watched_first": float(dice[0]), "watched": float(dice[1])}


def started(options: argparse.Namespace) -> Run:
    """Gives a run at its last checkpoint, or at its start."""
    network = Refinement(TASKS[options.task])
    if options.initial and options.initial.suffix == ".onnx":
        refinement_training(options.initial, options.fold)
        network.load_state_dict(read_refinement(options.initial))
    elif options.initial:
        state = torch.load(options.initial, "cpu", weights_only=False)
        network.load_state_dict(state["average"])
    network = network.to(options.device, memory_format=torch.channels_last_3d)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        network.parameters(), options.rate, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True
    )
    run = Run(network, average, optimizer, np.random.default_rng(options.seed))
    if (options.run / CHECKPOINT).exists():
        run.load(options.run / CHECKPOINT)
    return run


def main() -> None:
    """Starts a run or takes it up again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="checkpoint and curve")
    parser.add_argument("--task", choices=TASKS, default="area")
    parser.add_argument("--fold", default="0", help="subjects held out; none: every subject trains")
    initial = "checkpoint of a run to start from, or a refinement.onnx beside its card"
    parser.add_argument("--initial", type=Path, help=initial)
    parser.add_argument("--hours", type=float, default=1.0, help="training time")
    parser.add_argument("--steps", type=int, help="instead of a time")
    parser.add_argument("--device", choices=sorted(BATCH), default="cpu")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    options.run.mkdir(parents=True, exist_ok=True)
    run, task, checkpoint = started(options), TASKS[options.task], options.run / CHECKPOINT
    crops = Crops(options.samples, held_out(options.fold), HEAVY_SHARE[task], options.device)
    crops.refresh()
    curve = Curve(options.run / "curve.csv")
    saved = clock = watched = time.monotonic()
    while (share := done(run, options)) < 1.0:
        crops.refresh()
        rate = rate_at(run, options.rate, share)
        curve.add(take_step(run, crops, task, rate))
        now = time.monotonic()
        run.trained_s += now - clock
        clock = now
        if run.step % LOG_STEPS == 0:
            row = {name: float(np.mean(v)) for name, v in sorted(curve.values.items())}
            row |= {"rate": rate, "crops": len(crops.heavy) + len(crops.light)}
            append_rows(curve.path, run, row)
            curve.values.clear()
        if now - saved > CHECKPOINT_S:
            run.save(checkpoint)
            if now - watched > WATCH_S:
                append_rows(curve.path, run, watch(run.average, crops.watched, task))
                watched = now
            saved = clock = time.monotonic()
    run.save(checkpoint)
    append_rows(curve.path, run, watch(run.average, crops.watched, task, 1000))


if __name__ == "__main__":
    main()
