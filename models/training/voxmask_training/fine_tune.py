"""Fine-tunes the shipped weights on a few annotated scans of a site.

    python -m voxmask_training.fine_tune --data SCANS --references MASKS --models ..
        --output DIR [--task foreground] [--steps 1500]

SCANS holds volumes (`.nii`, `.nii.gz`), MASKS a mask of the same name for each of them that is
to be learnt from, on the scan's grid: the foreground, or, with `--task area`, the anonymization
area (all zero for an intact scan). DIR/foreground or DIR/anonymization-area then serves as
`--model` of the executable.

A few scans say little about all the others. So the weights are pulled back to where they came
from, the rate is low, the average of the weights is kept, and, with `--samples`, every other step
goes to the samples that the weights were trained on. A quarter of the scans (none of fewer than
four) is kept aside, and the Dice on the coarse grid before and after is printed for both parts.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import nn

from .cards import refined_as
from .channels import channels, read_canonical, spacing_of
from .export import TOLERANCE, export_head, write_card
from .losses import patch_losses
from .network import AREA, FOREGROUND, IN_VIEW, Network, mixed_precision
from .patches import Patch, Sample, cells_of, read_sample, whole_patch
from .variation import draw_patch
from .watch import dice
from .weights import FILES, read_weights

RATE = 3e-4
PULL = 0.02
"""Share of the way back to the first weights that each step takes, times the rate over RATE."""
AVERAGE_DECAY = 0.98
WINDOW = (48, 64, 48)
TASKS = {"foreground": FOREGROUND, "area": AREA}
ENDINGS = (".nii.gz", ".nii")


@dataclass
class Tuning:
    """The network under way, its average, and where both came from."""

    network: nn.Module
    average: nn.Module
    first: nn.Module
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, models: Path, head: int) -> Tuning:
        """Starts from exported models, with the trunk of the file whose head is tuned."""
        network = Network()
        network.load_state_dict(read_weights(models, head))
        network = network.to(memory_format=torch.channels_last_3d)
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.0)
        still = [copy.deepcopy(network).requires_grad_(False) for _ in range(2)]
        return cls(network, *still, optimizer)

    def step(self, patches: list[Patch], names: tuple[str, ...], rate: float) -> float:
        """Takes one step on some patches and the losses of these names; gives their mean."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        for patch in patches:
            with mixed_precision(patch.channels.device.type):
                logits, altered = self.network(patch.channels)
            losses = patch_losses(logits.float(), altered.float(), patch)
            kept = [loss for name, (loss, _) in losses.items() if name in names]
            loss = torch.stack(kept).sum() / len(patches)
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        triples = (self.network.parameters(), self.average.parameters(), self.first.parameters())
        with torch.no_grad():
            for fast, slow, first in zip(*triples, strict=True):
                fast.lerp_(first, PULL * rate / RATE)
                slow.lerp_(fast, 1.0 - AVERAGE_DECAY)
        return total


def stem(path: Path) -> str | None:
    """Gives a volume's name without its ending; None if it is no volume."""
    return next((path.name.removesuffix(e) for e in ENDINGS if path.name.endswith(e)), None)


def volumes(folder: Path) -> dict[str, Path]:
    """Gives the volumes of a folder by name."""
    paths = {stem(path): path for path in sorted(folder.iterdir())}
    return {name: path for name, path in paths.items() if name}


def read_annotated(scan: Path, mask: Path, task: str) -> Sample:
    """Makes a sample of a scan and its mask; raises ValueError where they do not fit."""
    values, affine = read_canonical(scan)
    reference, other = read_canonical(mask)
    if reference.shape != values.shape or not np.allclose(affine, other, atol=1e-3):
        raise ValueError(f"{mask.name} is not on the grid of the scan")
    coarse, grid = channels(np.ascontiguousarray(values), spacing_of(affine))
    pooled = grid.pool(np.ascontiguousarray(reference > 0.5, np.float32))
    nothing, everything = np.zeros_like(pooled), np.ones_like(pooled)
    foreground = task == "foreground"
    layers = [pooled, nothing, nothing] if foreground else [nothing, pooled, everything]
    altered = bool(not foreground and (reference > 0.5).any())
    return Sample(
        name=scan.name,
        twin="",
        subject=scan.name,
        # What may be flipped and turned freely; a head is not, and it may be one.
        region="head",
        kind="annotated",
        altered=altered,
        foreground_weight=1.0 if foreground else 0.0,
        area_known=not foreground,
        **cells_of(np.concatenate([coarse, np.stack(layers)])),
    )


@torch.no_grad()
def mean_dice(network: nn.Module, samples: list[Sample], head: int) -> float:
    """Gives the mean Dice on the coarse grid, whole scans."""
    scores = []
    for sample in samples:
        patch = whole_patch(sample)
        logits, _ = network(patch.channels)
        view = patch.channels[:, IN_VIEW : IN_VIEW + 1] > 0.5
        target = patch.foreground if head == FOREGROUND else patch.area
        scores.append(dice((logits[:, head : head + 1] > 0.0) & view, target > 0.5))
    return float(np.mean(scores)) if scores else float("nan")


def tune(
    tuning: Tuning,
    samples: list[Sample],
    replay: list[Path],
    names: tuple[str, ...],
    steps: int,
    rng: Generator,
) -> None:
    """Fine-tunes for so many steps."""
    start, losses = time.monotonic(), []
    for step in range(1, steps + 1):
        rate = RATE * min(1.0, step / 20) * 0.5 * (1.0 + np.cos(np.pi * step / steps))
        patches = [draw_patch([samples[int(rng.integers(len(samples)))]], [0], rng, WINDOW)]
        kinds = names
        if replay:
            sample = read_sample(replay[int(rng.integers(len(replay)))])
            patches.append(draw_patch([sample], [0], rng, WINDOW))
            kinds = ("foreground", "area", "altered")
        losses.append(tuning.step(patches, kinds, float(rate)))
        if step % 50 == 0:
            left = (time.monotonic() - start) * (steps - step) / step / 60.0
            mean = np.mean(losses[-50:])
            print(f"step {step}: loss {mean:.4f}, {left:.0f} minutes left", flush=True)


def main() -> None:
    """Fine-tunes and exports."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of scans")
    parser.add_argument("--references", type=Path, required=True, help="folder of their masks")
    parser.add_argument("--models", type=Path, required=True, help="weights to start from")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--task", choices=sorted(TASKS), default="foreground")
    parser.add_argument("--samples", type=Path, help="samples that the weights were trained on")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = TASKS[options.task]
    scans, masks = volumes(options.data), volumes(options.references)
    both = sorted(scans.keys() & masks.keys())
    if not both:
        parser.error("no mask in REFERENCES has the name of a scan in DATA")
    samples = [read_annotated(scans[name], masks[name], options.task) for name in both]
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(len(samples))
    aside = len(samples) // 4
    kept, learnt = ([samples[n] for n in part] for part in (order[:aside], order[aside:]))
    print(f"{len(learnt)} scans to learn from, {len(kept)} kept aside", flush=True)
    tuning = Tuning.of(options.models, head)
    replay = sorted(options.samples.glob("*/*.npz")) if options.samples else []
    names = ("foreground",) if head == FOREGROUND else ("area", "altered")
    before = [mean_dice(tuning.first, part, head) for part in (learnt, kept)]
    tune(tuning, learnt, replay, names, options.steps, rng)
    after = [mean_dice(tuning.average, part, head) for part in (learnt, kept)]
    for part, old, new in zip(("learnt from", "kept aside"), before, after, strict=True):
        print(f"coarse Dice, {part}: {old:.4f} before, {new:.4f} after")
    folder = options.output / FILES[head]
    folder.mkdir(parents=True, exist_ok=True)
    worst = export_head(tuning.average, head, folder / "model.onnx")
    if worst > TOLERANCE:
        raise SystemExit("the exported network differs from the trained one")
    # What was fitted stays; what was measured was measured on other weights.
    source = options.models / FILES[head]
    card = json.loads((source / "card.json").read_text())
    card = refined_as(card, card, source, folder)
    (folder / "card.json").write_text(json.dumps(card | {"evaluation": []}))
    training = {
        "fine_tuned_from": "the shipped weights",
        "scans": len(learnt),
        "steps": options.steps,
    }
    write_card(folder, FILES[head], training | {"seed": options.seed})
    print(f"{folder}: for --model")


if __name__ == "__main__":
    main()
