"""Trains the network on samples made by the data engine.

`python -m voxmask_training.train --samples DIR --run DIR --fold 0 --hours 8`

One step sees a patch of a scan that nobody altered and one of an altered scan. The
samples' folder is read again every minute, so the engine may still be writing. A
checkpoint is written every two minutes and taken up again when the command is
repeated; the rate falls to 0 when the run has trained for `--hours`. `--initial` starts
from exported models instead of random weights; `--only` trains one task, from the trunk
of its file.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import nn

from .folds import held_out
from .losses import patch_losses
from .network import AREA, FOREGROUND, Network
from .patches import Sample, draw_patch, read_sample
from .watch import watch
from .weights import read_weights

REFRESH_S = 60.0
CHECKPOINT_S = 120.0
WATCH_STEPS = 2000
LOG_STEPS = 50
WARM_UP_STEPS = 100
AVERAGE_DECAY = 0.998
WORST_OF = 5
TWIN_SHARE = 0.6
UNSEEN_ERROR = 1.0
USUAL_CELLS, MOST_CELLS, MOST_CELLS_SHARE = 150_000, 530_000, 0.15


@dataclass
class Library:
    """The samples read so far, split by fold and by what was done to the scan."""

    folder: Path
    held_out: frozenset[str]
    seen: set[Path] = field(default_factory=set)
    intact: list[Sample] = field(default_factory=list)
    altered: list[Sample] = field(default_factory=list)
    twins: dict[str, Sample] = field(default_factory=dict)
    """Intact scans by the name of the altered sample that was made from them."""
    errors: dict[str, float] = field(default_factory=dict)
    """The last losses of samples on the area and the judgement, by name; on the foreground where
    that alone is trained."""
    watched: list[Sample] = field(default_factory=list)
    refreshed: float = -REFRESH_S

    def refresh(self) -> None:
        """Reads samples written since the last call, at most once a minute."""
        if time.monotonic() - self.refreshed < REFRESH_S:
            return
        for path in sorted(set(self.folder.glob("*/*.npz")) - self.seen):
            self.seen.add(path)
            self.add(read_sample(path))
        self.refreshed = time.monotonic()

    def add(self, sample: Sample) -> None:
        """Puts a sample on its pile."""
        if sample.subject in self.held_out:
            self.watched.append(sample)
        elif sample.altered:
            self.altered.append(sample)
        else:
            self.intact.append(sample)
            if sample.twin:
                self.twins[sample.twin] = sample

    def draw(self, rng: Generator) -> tuple[Sample, Sample]:
        """Picks an intact and an altered sample for a step.

        Most altered samples that have a twin, the same scan before the alteration, come with it:
        what tells the two apart is the alteration alone.
        """
        altered = self.pick(self.altered, rng)
        twin = self.twins.get(altered.name)
        if twin is not None and rng.random() < TWIN_SHARE:
            return twin, altered
        return self.pick(self.intact, rng), altered

    def pick(self, pile: list[Sample], rng: Generator) -> Sample:
        """Picks any sample half of the time, else the worst of a few: most are no longer wrong."""
        choice = [pile[int(n)] for n in rng.integers(len(pile), size=WORST_OF)]
        if rng.random() < 0.5:
            return choice[0]
        return max(choice, key=lambda sample: self.errors.get(sample.name, UNSEEN_ERROR))


@dataclass
class Run:
    """Everything a checkpoint holds."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    rng: Generator
    step: int = 0
    trained_s: float = 0.0

    def save(self, path: Path) -> None:
        """Writes a checkpoint, whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "step": self.step,
            "trained_s": self.trained_s,
        }
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Takes up a checkpoint."""
        state = torch.load(path, weights_only=False)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.step, self.trained_s = state["step"], state["trained_s"]


def start_run(rate: float, seed: int, initial: Path | None = None, trunk: int = AREA) -> Run:
    """Makes a network with random weights, or those of exported models, and what trains it.

    `trunk`: the head whose file the trunk comes from.
    """
    torch.manual_seed(seed)
    network = Network()
    if initial:
        network.load_state_dict(read_weights(initial, trunk))
    network = network.to(memory_format=torch.channels_last_3d)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01)
    return Run(network, average, optimizer, np.random.default_rng(seed))


def take_step(run: Run, library: Library, rate: float, only: str | None = None) -> dict[str, float]:
    """Takes one step on one intact and one altered scan, for one task or both; gives the losses."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    sums: dict[str, float] = {}
    patches: list[str] = []
    pair = library.draw(run.rng)
    twin = pair[1] if pair[0].twin == pair[1].name else None
    large = run.rng.random() < MOST_CELLS_SHARE
    most_cells = MOST_CELLS if large else USUAL_CELLS
    seeds = run.rng.integers(2**63, size=2)
    for altered, sample in enumerate(pair):
        patches.append(f"{sample.subject} {sample.kind}")
        rng = np.random.default_rng(seeds[altered if twin is None else 0])
        patch = draw_patch(sample, rng, most_cells, None if altered else twin)
        channels = patch.channels.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            logits, scan = run.network(channels)
        losses = patch_losses(logits.float(), scan.float(), patch)
        losses = {
            name: loss
            for name, loss in losses.items()
            if only is None or (name == "foreground") == (only == "foreground")
        }
        hard = [float(v.detach()) for k, v in losses.items() if only or k != "foreground"]
        library.errors[sample.name] = sum(hard)
        if losses:
            (torch.stack(list(losses.values())).sum() / 2.0).backward()
        for name, loss in losses.items():
            key = f"{name}_{'altered' if altered else 'intact'}"
            sums[key] = float(loss.detach())
        sums["cells"] = sums.get("cells", 0.0) + patch.area.numel()
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
    sums["gradient"] = float(norm)
    if torch.isfinite(norm):
        run.optimizer.step()
    else:
        print(f"step {run.step}: no finite gradient, left out: {patches}", flush=True)
    run.optimizer.zero_grad()
    run.step += 1
    follow(run)
    return sums


def follow(run: Run) -> None:
    """Moves the averaged weights towards the current ones."""
    decay = min(AVERAGE_DECAY, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        for slow, fast in zip(run.average.parameters(), run.network.parameters(), strict=True):
            slow.lerp_(fast, 1.0 - decay)


def rate_at(run: Run, peak: float, hours: float) -> float:
    """Gives the learning rate: a short warm-up, then a cosine down to 0."""
    done = min(run.trained_s / (hours * 3600.0), 1.0)
    return peak * min(1.0, (run.step + 1) / WARM_UP_STEPS) * 0.5 * float(1.0 + np.cos(np.pi * done))


class Curve:
    """The run's log: a row of mean losses every few steps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, list[float]] = {}

    def add(self, values: dict[str, float]) -> None:
        """Collects the losses of a step."""
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def write(self, run: Run, rate: float, library: Library) -> None:
        """Appends `step,hours,name,value` rows and prints them on one line."""
        row = {name: float(np.mean(v)) for name, v in sorted(self.values.items())}
        row |= {"rate": rate, "intact": len(library.intact)}
        row |= {"altered": len(library.altered)}
        append_rows(self.path, run, row)
        self.values.clear()


def append_rows(path: Path, run: Run, row: dict[str, float]) -> None:
    """Appends named values to a CSV of `step,hours,name,value` and prints them."""
    with path.open("a", newline="") as lines:
        writer = csv.writer(lines)
        for name, value in row.items():
            hours = f"{run.trained_s / 3600:.4f}"
            writer.writerow([run.step, hours, name, f"{value:.5g}"])
    text = " ".join(f"{name} {value:.4g}" for name, value in row.items())
    print(f"{run.step} {run.trained_s:.0f}s {text}", flush=True)


def train(run: Run, library: Library, options: argparse.Namespace) -> None:
    """Trains until the run has had its hours."""
    curve = Curve(options.run / "curve.csv")
    checkpoint = options.run / "checkpoint.pt"
    saved = clock = time.monotonic()
    while run.trained_s < options.hours * 3600.0:
        library.refresh()
        rate = rate_at(run, options.rate, options.hours)
        curve.add(take_step(run, library, rate, options.only))
        now = time.monotonic()
        run.trained_s += now - clock
        clock = now
        if run.step % LOG_STEPS == 0:
            curve.write(run, rate, library)
        if run.step % WATCH_STEPS == 0:
            append_rows(curve.path, run, watch(run.average, library.watched))
        if now - saved > CHECKPOINT_S:
            run.save(checkpoint)
            saved = now
    run.save(checkpoint)
    append_rows(curve.path, run, watch(run.average, library.watched))


def main() -> None:
    """Starts a run or takes it up again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="checkpoint and curve")
    parser.add_argument("--fold", type=int, default=0, help="subjects held out")
    parser.add_argument("--initial", type=Path, help="folder of exported models to start from")
    parser.add_argument("--only", choices=["foreground", "area"], help="train one task")
    parser.add_argument("--hours", type=float, default=8.0, help="training time")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.run.mkdir(parents=True, exist_ok=True)
    trunk = FOREGROUND if options.only == "foreground" else AREA
    run = start_run(options.rate, options.seed, options.initial, trunk)
    if (options.run / "checkpoint.pt").exists():
        run.load(options.run / "checkpoint.pt")
    library = Library(options.samples, held_out(options.fold))
    train(run, library, options)


if __name__ == "__main__":
    main()
