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
TRIES = 3
"""Draws for each pair that is wanted: some tools do not meet some heads."""


def read(volume: Volume) -> Scan:
    """Reads a volume, nothing of it altered."""
    scan = volume.read()
    nothing = np.zeros(scan.shape, bool)
    return replace(scan, area=nothing, free=nothing)


def intact(volume: Volume, scan: Scan, rng: np.random.Generator) -> Iterator[tuple[str, Sample]]:
    """Gives the scan as published and, where its air is not constant, with zeroed air."""
    if volume.face.startswith("defaced"):
        yield "", Sample(published(scan, volume), "published", "unknown", True)
        return
    kind = "skull-stripped" if volume.face == "skullstripped" else "intact"
    yield "", Sample(scan, kind, "none", False)
    if scan.foreground is None or scan.values.size > MOST_ZEROED_VOXELS:
        return
    if scan.background != "zeroed":
        yield "_zeroed", Sample(scenes.air_zeroed(rng, scan), kind, "none", False)


def heads(
    scan: Scan, count: int, templates: Templates, rng: np.random.Generator
) -> Iterator[tuple[str, list[Sample]]]:
    """Gives `count` pairs of a head before and after a simulated tool."""
    made = 0
    for _ in range(TRIES * count):
        start = scan
        if scan.background != "zeroed" and rng.random() < ZEROED_SHARE:
            start = scenes.air_zeroed(rng, scan)
        after, method, fill = altered(rng, start, templates)
        if method == "intact":
            continue
        if scan.values.max() > 100 and rng.random() < ROUNDED_SHARE:
            start, after = rounded(start), rounded(after)
        before = Sample(start, "intact", "none", False)
        yield f"_{made:03d}", [before, Sample(after, f"{method}-{fill}", fill, True)]
        made += 1
        if made == count:
            return


def write(
    volume: Volume, folder: Path, count: int, templates: Templates, rng: np.random.Generator
) -> int:
    """Writes a volume's samples that are not there yet; gives how many."""
    stem = f"{ORIGINAL}{volume.stem}"
    folder = folder / safe_name(volume.subject)
    whole = folder / f"{stem}.npz"
    with_face = volume.face.startswith("intact") and "head" in volume.region
    paired = with_face and volume.mni is not None and volume.quality is not None
    wanted = count > 0 and not (folder / f"{stem}_{count - 1:03d}.npz").exists()
    if whole.exists() and not (paired and wanted):
        return 0
    scan = read(volume)
    written = 0
    if not whole.exists():
        # The scan as it is comes last: it says that both are there.
        for ending, sample in reversed(list(intact(volume, scan, rng))):
            data = arrays(sample) | {"twin": np.asarray("")}
            store(folder / f"{stem}{ending}.npz", data)
            written += 1
    if paired and wanted:
        for ending, pair in heads(scan, count, templates, rng):
            name = f"{stem}{ending}"
            for sample in pair:
                twin = "" if sample.altered else name
                path = folder / f"{name}{'' if sample.altered else '_before'}.npz"
                store(path, arrays(sample) | {"twin": np.asarray(twin)})
                written += 1
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
        rng = np.random.default_rng([options.seed, n, options.heads])
        try:
            written = write(volume, folder, options.heads, templates, rng)
        except Exception:  # one bad volume must not end the run
            print(f"{volume.stem} failed\n{traceback.format_exc()}", flush=True)
            continue
        print(f"{volume.stem}: {written} written", flush=True)


if __name__ == "__main__":
    main()
