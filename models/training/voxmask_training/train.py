"""Trains the network on samples made by the data engine.

`python -m voxmask_training.train --samples DIR --run DIR --fold 0 --hours 8`

One step sees as many patches of scans that nobody altered as of altered ones (for the foreground
alone: of any scans, every subject as often), all in a window of one size. The samples' folder is
read again every minute, so the engine may still be writing; it may hold packs (`packs.py`)
instead. A checkpoint is written every two minutes and taken up again when the command is repeated;
the rate falls to 0 when the run has trained for `--hours`, or, so that it can be repeated exactly,
for `--steps`. `--initial` starts from exported models instead of random weights; `--only` trains
one task, from the trunk of its file. On a GPU (`--device cuda`) a step takes more patches.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import nn

from .folds import held_out
from .losses import patch_losses
from .network import AREA, FOREGROUND, Network, fuse, mixed_precision
from .packs import ENDING, read_packs
from .patches import Sample, compressed, expanded, read_sample
from .variation import draw_patch
from .watch import watch
from .weights import read_weights

REFRESH_S = 60.0
CHECKPOINT_S = 120.0
WATCH_STEPS = 2000
LOG_STEPS = 50
WARM_UP_STEPS = 200
AVERAGE_DECAY = 0.999
WORST_OF, WORST_SHARE = 5, 0.3
TWIN_SHARE = 0.5
MOST_WATCHED = 200
UNSEEN_ERROR = 1.0
WINDOWS = {(48, 48, 48): 0.25, (48, 64, 48): 0.25, (64, 80, 64): 0.35, (64, 112, 112): 0.15}
"""Cells k, j, i of a step's window, and how often it is taken: part of a head twice, a head, a
trunk: whether a scan was altered is asked of whole ones."""
FOREGROUND_WINDOWS = {(48, 64, 48): 0.3, (64, 80, 64): 0.45, (64, 112, 112): 0.25}
"""The same where the foreground alone is trained: whether dark cells are lung or air is seen from
what lies around them."""
ORIGINAL_SHARE = 0.45
"""Samples that are scans as they are (`originals.py`), where there are any."""
HEAD_SHARE = 0.5
"""Heads among the patches that train the foreground alone."""
STEP_CELLS = {"cpu": 260_000, "cuda": 3_300_000}
ROOM_BYTES = {"cpu": 0, "cuda": 9_000_000_000}
"""Samples that lie on the device as they are; further ones in the CPU's memory, compressed. A run
takes some 10 GB of a GPU beside them, and four go on side by side."""
WEIGHT_DECAY = 0.03


@dataclass
class Piles:
    """Samples that a step draws from, by what was done to the scan and by subject."""

    intact: list[Sample] = field(default_factory=list)
    altered: list[Sample] = field(default_factory=list)
    subjects: dict[bool, dict[str, list[Sample]]] = field(
        default_factory=lambda: {True: {}, False: {}}
    )
    """All whose foreground is known by subject, those of heads (True) and of others."""

    def add(self, sample: Sample) -> None:
        """Puts a sample where it belongs; twins are drawn for the foreground alone."""
        if sample.foreground_weight > 0.0:
            self.subjects[sample.head].setdefault(sample.subject, []).append(sample)
        if sample.altered:
            self.altered.append(sample)
        elif not sample.twin:
            self.intact.append(sample)


@dataclass
class Library:
    """The samples read so far: restaged, as they are, and held out."""

    folder: Path
    held_out: frozenset[str]
    device: str = "cpu"
    seen: set[Path] = field(default_factory=set)
    staged: Piles = field(default_factory=Piles)
    originals: Piles = field(default_factory=Piles)
    twins: dict[str, Sample] = field(default_factory=dict)
    """Intact scans by the name of the altered sample that was made from them."""
    errors: dict[str, float] = field(default_factory=dict)
    """The last losses of samples on the area and the judgement, by name; on the foreground where
    that alone is trained."""
    watched: list[Sample] = field(default_factory=list)
    refreshed: float = -REFRESH_S
    used_bytes: int = 0
    """of `ROOM_BYTES`"""

    def refresh(self) -> None:
        """Reads samples written since the last call, at most once a minute."""
        if time.monotonic() - self.refreshed < REFRESH_S:
            return
        for path in sorted(set(self.folder.glob("*/*.npz")) - self.seen):
            self.seen.add(path)
            self.add(read_sample(path))
        packs = sorted(set(self.folder.glob(f"*{ENDING}")) - self.seen)
        self.seen |= set(packs)
        for sample in read_packs(packs):
            self.add(sample)
        self.refreshed = time.monotonic()

    def add(self, sample: Sample) -> None:
        """Puts a sample on its pile: in a GPU's memory while there is room, or compressed."""
        if sample.subject in self.held_out:
            if len(self.watched) < MOST_WATCHED:
                self.watched.append(self.at_hand(sample))
            return
        size = sample.cells.numel()
        if self.used_bytes + size <= ROOM_BYTES[self.device]:
            self.used_bytes += size
            sample = self.at_hand(sample)
        else:
            sample = compressed(sample)
        if sample.twin:
            self.twins[sample.twin] = sample
        (self.originals if sample.original else self.staged).add(sample)

    def at_hand(self, sample: Sample) -> Sample:
        """Gives a sample whose cells lie on the device as they are."""
        sample = expanded(sample)
        return replace(sample, cells=sample.cells.to(self.device, non_blocking=True))

    def kind(self, rng: Generator, there: Callable[[Piles], object]) -> Piles:
        """Chooses between restaged scans and those as they are, where both have what is wanted."""
        both = [piles for piles in (self.originals, self.staged) if there(piles)]
        return both[0] if len(both) == 2 and rng.random() < ORIGINAL_SHARE else both[-1]

    def draw(self, rng: Generator, pairs: int) -> tuple[list[Sample], list[int]]:
        """Picks intact and altered samples for a step, and which of them are to be varied alike.

        Most altered samples that have a twin, the same scan before the alteration, come with it:
        what tells the two apart is the alteration alone.
        """
        samples: list[Sample] = []
        groups: list[int] = []
        for _ in range(pairs):
            group = max(groups, default=-1) + 1
            altered = self.pick(self.kind(rng, lambda piles: piles.altered).altered, rng)
            twin = self.twins.get(altered.name)
            if twin is not None and rng.random() < TWIN_SHARE:
                samples += [altered, twin]
                groups += [group, group + (twin.cells.shape != altered.cells.shape)]
            else:
                pile = self.kind(rng, lambda piles: piles.intact).intact
                samples += [altered, self.pick(pile, rng)]
                groups += [group, group + 1]
        return [self.at_hand(sample) for sample in samples], groups

    def draw_bodies(self, rng: Generator, count: int) -> tuple[list[Sample], list[int]]:
        """Picks scans for a step on the foreground alone: every subject of a kind is as likely."""
        samples = []
        for _ in range(count):
            head = bool(rng.random() < HEAD_SHARE)
            subjects = self.kind(rng, lambda piles: any(piles.subjects.values())).subjects
            piles = list((subjects[head] or subjects[not head]).values())
            samples.append(self.pick(piles[int(rng.integers(len(piles)))], rng))
        return [self.at_hand(sample) for sample in samples], list(range(count))

    def pick(self, pile: list[Sample], rng: Generator) -> Sample:
        """Picks any sample most of the time, else the worst of a few: most are no longer wrong."""
        choice = [pile[int(n)] for n in rng.integers(len(pile), size=WORST_OF)]
        if rng.random() >= WORST_SHARE:
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
        state = torch.load(path, "cpu", weights_only=False)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.step, self.trained_s = state["step"], state["trained_s"]


def start_run(
    rate: float, seed: int, initial: Path | None = None, trunk: int = AREA, device: str = "cpu"
) -> Run:
    """Makes a network with random weights, or those of exported models, and what trains it.

    `trunk`: the head whose file the trunk comes from.
    """
    torch.manual_seed(seed)
    network = Network()
    if initial:
        network.load_state_dict(read_weights(initial, trunk))
    network = network.to(device, memory_format=torch.channels_last_3d)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        network.parameters(), rate, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True
    )
    return Run(network, average, optimizer, np.random.default_rng(seed))


def take_step(run: Run, library: Library, rate: float, only: str | None = None) -> dict[str, float]:
    """Takes one step, for one task or both; gives the losses."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    bodies = only == "foreground"
    shares = FOREGROUND_WINDOWS if bodies else WINDOWS
    window = list(shares)[int(run.rng.choice(len(shares), p=list(shares.values())))]
    fit = STEP_CELLS[library.device] / int(np.prod(window))
    if bodies:
        samples, groups = library.draw_bodies(run.rng, max(1, round(fit)))
    else:
        samples, groups = library.draw(run.rng, max(1, int(fit / 2)))
    patch = draw_patch(samples, groups, run.rng, window)
    with mixed_precision(library.device):
        logits, scan = run.network(patch.channels)
    losses = {
        name: loss
        for name, loss in patch_losses(logits.float(), scan.float(), patch).items()
        if only is None or (name == "foreground") == (only == "foreground")
    }
    torch.stack([loss for loss, _ in losses.values()]).sum(0).mean().backward()
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
    found = torch.stack([part for pair in losses.values() for part in pair]).detach()
    values = torch.cat([found.flatten(), norm[None]]).tolist()  # the only wait for the device
    found, norm = np.reshape(values[:-1], found.shape), values[-1]
    if np.isfinite(norm):
        run.optimizer.step()
    else:
        patches = [f"{sample.subject} {sample.kind}" for sample in samples]
        print(f"step {run.step}: no finite gradient, left out: {patches}", flush=True)
    run.optimizer.zero_grad()
    run.step += 1
    follow(run)
    sums = {"patches": float(len(samples)), "gradient": norm}
    altered = np.array([sample.altered for sample in samples])
    hard = np.zeros(len(samples))
    for n, name in enumerate(losses):
        loss, known = found[2 * n], found[2 * n + 1] > 0
        hard += loss * (only is not None or name != "foreground")
        for word, mine in (("altered", altered & known), ("intact", ~altered & known)):
            if mine.any():
                sums[f"{name}_{word}"] = float(loss[mine].mean())
    library.errors |= {sample.name: float(h) for sample, h in zip(samples, hard, strict=True)}
    return sums


def follow(run: Run) -> None:
    """Moves the averaged weights towards the current ones."""
    decay = min(AVERAGE_DECAY, (1 + run.step) / (10 + run.step))
    slow, fast = (list(network.parameters()) for network in (run.average, run.network))
    with torch.no_grad():
        torch._foreach_lerp_(slow, fast, 1.0 - decay)


def done(run: Run, options: argparse.Namespace) -> float:
    """Gives the share of the training that is over."""
    if options.steps:
        return run.step / options.steps
    return run.trained_s / (options.hours * 3600.0)


def rate_at(run: Run, peak: float, share: float) -> float:
    """Gives the learning rate: a short warm-up, then a cosine down to 0."""
    fall = 0.5 * float(1.0 + np.cos(np.pi * min(share, 1.0)))
    return peak * min(1.0, (run.step + 1) / WARM_UP_STEPS) * fall


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
        row |= {"rate": rate, "intact": len(library.staged.intact)}
        row |= {"altered": len(library.staged.altered), "twins": len(library.twins)}
        originals = library.originals
        row |= {"originals": len(originals.intact) + len(originals.altered)}
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
    library.refresh()  # some ten minutes for 10,000 samples, which are no training time
    saved = clock = time.monotonic()
    while (share := done(run, options)) < 1.0:
        library.refresh()
        rate = rate_at(run, options.rate, share)
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
    parser.add_argument("--fold", default="0", help="subjects held out; none: every subject trains")
    parser.add_argument("--initial", type=Path, help="folder of exported models to start from")
    parser.add_argument("--only", choices=["foreground", "area"], help="train one task")
    parser.add_argument("--hours", type=float, default=8.0, help="training time")
    parser.add_argument("--steps", type=int, help="instead of a time")
    parser.add_argument("--device", choices=sorted(STEP_CELLS), default="cpu")
    parser.add_argument("--fuse", action="store_true", help="compile parts of the network first")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    if options.fuse:
        fuse()
    options.run.mkdir(parents=True, exist_ok=True)
    trunk = FOREGROUND if options.only == "foreground" else AREA
    run = start_run(options.rate, options.seed, options.initial, trunk, options.device)
    if (options.run / "checkpoint.pt").exists():
        run.load(options.run / "checkpoint.pt")
    library = Library(options.samples, held_out(options.fold), options.device)
    train(run, library, options)


if __name__ == "__main__":
    main()
