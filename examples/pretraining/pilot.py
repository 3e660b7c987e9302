"""Shows on anybody's scans what foreground sampling and the loss mask do for pre-training.

``make pilot DATA=folder`` runs it and writes ``docs/pilot.md``. Each scan is blanked in a known place,
as a de-facing tool would; a third of the scans is held out, unaltered, as the truth.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import page
import torch
from downstream import dice, read
from downstream import patches as painted_patches
from network import Fixed, Network, train
from scans import Scan, Voxmask, cut, near, patches, prepare, saving

# Where patches come from, and whether altered voxels are left out of the loss.
ARMS = {
    "foreground, loss mask": (True, True),
    "anywhere, loss mask": (False, True),
    "foreground, no loss mask": (True, False),
    "anywhere, no loss mask": (False, False),
}
SCRATCH = "not pre-trained"
# Patches of each held-out scan that errors are measured on.
WATCHED = 32


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    voxmask = Voxmask(options.bin)
    started = time.monotonic()
    scans = read_scans(voxmask, options)
    held_out = scans[::3] if len(scans) > 2 else []
    training = [scan for n, scan in enumerate(scans) if n % 3][: options.training]
    if not held_out or not training:
        raise SystemExit(f"{options.data}: holds {len(scans)} usable scans; three are needed")
    watched = watch(held_out, options)
    savings = [saving(voxmask, scan, options.work / "grid", options.patch) for scan in scans]
    runs = []
    for seed in range(options.seeds):
        for arm, (foreground, masked) in ARMS.items():
            runs.append(run(voxmask, training, watched, options, (seed, arm, foreground, masked)))
            print(f"{arm}, seed {seed}: {runs[-1].curve[-1][1]:.4f}", flush=True)
    downstream = check_downstream(runs, options) if options.labels else None
    facts = {
        "scans": len(training),
        "held_out": len(held_out),
        "minutes": (time.monotonic() - started) / 60,
        "options": options,
    }
    page.write(options.page, facts, savings, runs, downstream)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of volumes, .nii or .nii.gz")
    add("--labels", type=Path, help="folder of label maps for the check on another task")
    add("--structure", default="7,8,46,47", help="labels of the structure that is learnt there")
    add("--page", type=Path, default=Path("docs/pilot.md"), help="page to write; plots lie beside it")
    add("--work", type=Path, default=Path(".pilot"), help="folder for files on the way")
    add("--bin", type=Path, default=Path("target/release"), help="folder of the executables")
    add("--seeds", type=int, default=3, help="repetitions of every run")
    add("--steps", type=int, default=300, help="training steps of every run")
    add("--patches", type=int, default=48, help="patches drawn from each scan")
    add("--patch", type=int, default=32, help="side of a patch [voxels], a multiple of 8")
    add("--spacing", type=float, default=3.0, help="spacing that is trained at [mm]")
    add("--limit", type=int, default=12, help="scans to take at most")
    add("--training", type=int, help="of these, scans to train on at most")
    add("--threads", type=int, default=1, help="threads of PyTorch")
    return parser.parse_args()


def read_scans(voxmask: Voxmask, options: argparse.Namespace) -> list[Scan]:
    paths = sorted(p for p in options.data.iterdir() if p.name.endswith((".nii", ".nii.gz")))
    scans = []
    for n, path in enumerate(paths[: options.limit]):
        scan = prepare(voxmask, path, options.spacing, options.work / "scans", n)
        if scan is not None:
            scans.append(scan)
    return scans


class Run:
    """One trained network and its errors."""

    def __init__(self, seed: int, arm: str, network: Network, curve: list, seconds: float):
        self.seed, self.arm, self.network, self.curve = seed, arm, network, curve
        self.seconds_a_step = seconds / max(1, curve[-1][0])
        self.errors: dict[str, float] = {}


def run(voxmask, training, watched, options, what) -> Run:
    """Trains one network on patches of the altered scans."""
    seed, arm, foreground, masked = what
    drawn = [
        patches(
            voxmask, scan, options.work / "patches", options.patch, options.patches,
            1000 * seed + n, foreground,
        )
        for n, scan in enumerate(training)
    ]
    images, loss_masks = (np.concatenate(parts) for parts in zip(*drawn))
    if not masked:
        loss_masks = np.ones_like(loss_masks)
    started = time.monotonic()
    every = max(1, options.steps // 20)
    network, curve = train(images, loss_masks, watched["body"], options.steps, every, seed)
    result = Run(seed, arm, network, curve, time.monotonic() - started)
    for name in ("near", "area"):
        result.errors[name] = watched[name].error(network)
    result.errors["painted"] = painted_blank(network, watched["area"], watched["blanks"])
    return result


def watch(held_out: list[Scan], options: argparse.Namespace) -> dict:
    """Fixed patches of the held-out scans.

    ``body``: unaltered scans, round voxels of the body. ``near``: altered scans, measured on true
    anatomy within 15 mm of the altered area. ``area``: the same patches, measured inside the area
    against what was there before.
    """
    rng = np.random.default_rng(12345)
    reach = 15 / options.spacing
    body, close, area, blanks = [], [], [], []
    for scan in held_out:
        ring = near(scan, reach)
        places = np.argwhere(scan.foreground)
        for centre in places[rng.integers(len(places), size=WATCHED)]:
            piece = lambda array, fill: cut(array, centre, options.patch, fill)
            image = piece(scan.image, scan.blank)
            body.append((image, image, piece(scan.foreground, 0)))
        places = np.argwhere(ring)
        for centre in places[rng.integers(len(places), size=WATCHED)]:
            piece = lambda array, fill: cut(array, centre, options.patch, fill)
            seen, truth = piece(scan.altered, scan.blank), piece(scan.image, scan.blank)
            close.append((seen, truth, piece(ring, 0)))
            area.append((seen, truth, piece(scan.area & scan.foreground, 0)))
            blanks.append(scan.blank)
    fixed = lambda parts: Fixed(*(list(p) for p in zip(*parts)), seed=7)
    return {"body": fixed(body), "near": fixed(close), "area": fixed(area), "blanks": blanks}


def painted_blank(network: Network, area: Fixed, blanks: list[float]) -> float:
    """Share of the hidden voxels inside altered areas where the answer is closer to the blank than to
    what was there."""
    found = area.found(network)
    blank = torch.tensor(blanks).view(-1, 1, 1, 1, 1)
    where = (area.mask * area.where) > 0
    closer = (found - blank).abs() < (found - area.truth).abs()
    return float((closer & where).sum() / where.sum())


def check_downstream(runs: list[Run], options: argparse.Namespace) -> dict:
    """Dice by arm and seed, of a structure learnt from two label maps; and without pre-training."""
    paths = sorted(p for p in options.labels.iterdir() if p.name.endswith((".nii", ".nii.gz")))
    maps = [read(path, options.spacing) for path in paths[:6]]
    structure = [int(label) for label in options.structure.split(",")]
    test = painted_patches(maps[2:], structure, 8, seed=99)
    scores: dict[str, dict[int, float]] = {arm: {} for arm in (*ARMS, SCRATCH)}
    for seed in range(options.seeds):
        few = painted_patches(maps[:2], structure, 8, seed=seed)
        steps = max(1, options.steps // 5)
        starts = {r.arm: r.network for r in runs if r.seed == seed} | {SCRATCH: None}
        for arm, start in starts.items():
            scores[arm][seed] = dice(start, few, test, steps, seed)
    return scores


if __name__ == "__main__":
    main()
