"""Training samples of scans as they are: nothing restaged, at the scan's own resolution.

    python -m voxmask_training.originals --data DIR [--work DIR] [--heads 16]

What `samples` draws is varied widely and mostly resampled, so that the scans that people have are
the rarest of all. These are each volume as published, once more with its air zeroed, and heads
altered by simulated tools, each beside its twin. Files as those of `samples`, their names begin
with `patches.ORIGINAL`; what is there already is kept.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import scenes
from .alterations import altered
from .patches import ORIGINAL
from .samples import Sample, arrays, published, rounded, store
from .scan import Scan
from .sources import Volume, read_volumes, safe_name
from .templates import Templates
from .work import default_work

MOST_ZEROED_VOXELS = 20_000_000
"""Larger volumes are not zeroed: distances in them take gigabytes."""
ZEROED_SHARE = 0.45
ROUNDED_SHARE = 0.8
TRIES = 5
"""Draws for a pair: some tools do not meet some heads."""


def read(volume: Volume) -> Scan:
    """Reads a volume, nothing of it altered."""
    scan = volume.read()
    nothing = np.zeros(scan.shape, bool)
    return replace(scan, area=nothing, free=nothing)


def intact(volume: Volume, scan: Scan, rng: np.random.Generator) -> Iterator[tuple[str, Sample]]:
    """Gives the scan as published and, where its air is not constant, with zeroed air."""
    if volume.defaced:
        yield "", Sample(published(scan, volume), "published", "unknown", True)
        return
    yield "", Sample(scan, volume.kind, "none", False)
    if scan.foreground is None or scan.values.size > MOST_ZEROED_VOXELS:
        return
    if scan.background != "zeroed":
        yield "_zeroed", Sample(scenes.air_zeroed(rng, scan), volume.kind, "none", False)


def pair(scan: Scan, templates: Templates, rng: np.random.Generator) -> list[Sample]:
    """Gives a head before and after a simulated tool; nothing where no tool met it."""
    for _ in range(TRIES):
        start = scan
        if scan.background != "zeroed" and rng.random() < ZEROED_SHARE:
            start = scenes.air_zeroed(rng, scan)
        after, method, fill = altered(rng, start, templates)
        if method == "intact":
            continue
        if scan.values.max() > 100 and rng.random() < ROUNDED_SHARE:
            start, after = rounded(start), rounded(after)
        before = Sample(start, "intact", "none", False)
        return [before, Sample(after, f"{method}-{fill}", fill, True)]
    return []


def write(volume: Volume, folder: Path, count: int, templates: Templates, seed: list[int]) -> int:
    """Writes a volume's samples that are not there yet; gives how many.

    `count`: pairs, where it is a registered head with its face; each has a seed of its own.
    """
    stem, folder = f"{ORIGINAL}{volume.stem}", folder / safe_name(volume.subject)
    paired = volume.shows_face and volume.mni is not None
    names = {n: f"{stem}_{n:03d}" for n in range(count if paired else 0)}
    missing = {n: name for n, name in names.items() if not (folder / f"{name}.npz").exists()}
    whole = (folder / f"{stem}.npz").exists()
    if whole and not missing:
        return 0
    scan, written = read(volume), 0

    def keep(name: str, sample: Sample, twin: str = "") -> None:
        nonlocal written
        store(folder / f"{name}.npz", arrays(sample) | {"twin": np.asarray(twin)})
        written += 1

    # What comes last says that both are there: the scan as it is, the altered one.
    if not whole:
        alone = list(intact(volume, scan, np.random.default_rng(seed)))
        for ending, sample in reversed(alone):
            keep(f"{stem}{ending}", sample)
    for n, name in missing.items():
        for sample in pair(scan, templates, np.random.default_rng([*seed, n])):
            keep(*((name, sample) if sample.altered else (f"{name}_before", sample, name)))
    return written


def main() -> None:
    """Writes the samples of every volume with a foreground reference."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=default_work())
    parser.add_argument("--heads", type=int, default=16, help="pairs of each head")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    templates = Templates(options.data)
    folder = options.work / "samples"
    for n, volume in enumerate(read_volumes(options.data, options.work)):
        try:
            written = write(volume, folder, options.heads, templates, [options.seed, n])
        except Exception:  # one bad volume must not end the run
            print(f"{volume.stem} failed\n{traceback.format_exc()}", flush=True)
            continue
        print(f"{volume.stem}: {written} written", flush=True)


if __name__ == "__main__":
    main()
