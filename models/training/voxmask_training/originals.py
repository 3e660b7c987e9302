"""Training samples of scans as they are: nothing restaged, at the scan's own resolution.

    python -m voxmask_training.originals --data DIR [--work DIR] [--heads 64] [--slices 32]

What `samples` draws is varied widely and mostly resampled, so that the scans that people have are
the rarest of all. These are each volume as published, once more with its air zeroed and a few
times with other air, and heads altered by real programs, in their own air and in zeroed air, and
by simulated ones, each beside its twin; simulated ones once more in thick slices, which a tool then
meets as they are. Files as those of `samples`, their names begin with `patches.ORIGINAL`; what is
there already is kept.
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
from .slices import in_slices
from .sources import Volume, read_volumes, safe_name
from .templates import Templates
from .tools import TOOLS, with_tool
from .work import default_work

MOST_ZEROED_VOXELS = 20_000_000
"""Larger volumes are not zeroed: distances in them take gigabytes."""
ZEROED_SHARE = 0.45
AIRS, DENOISED_SHARE = 4, 0.35
"""Further drawings of an MR scan's air, and how many of these keep a little of their noise."""
TOOL_QUALITY = 0.7
"""Weight of the foreground after a real program: where it painted, it is doubtful."""
TOOL_VALUES = (-1.0, 50.0)
"""The lowest value of a scan that the programs take, and the least that its highest has to be."""
ROUNDED_SHARE = 0.8
TOOLS_SEED = 1_000_000
SLICES_SEED = 2_000_000
TRIES = 5
"""Draws for a pair: some tools do not meet some heads."""


def read(volume: Volume) -> tuple[Scan, np.ndarray]:
    """Reads a volume, nothing of it altered, and its affine (4, 4) to the scan's mm."""
    scan = volume.in_world()
    nothing = np.zeros(scan.shape, bool)
    mni = volume.to_mni(scan.mni)
    return replace(scan, mni=mni, area=nothing, free=nothing), scan.mni


def intact(volume: Volume, scan: Scan, rng: np.random.Generator) -> Iterator[tuple[str, Sample]]:
    """Gives the scan as published and, where its air is not constant, with other air."""
    if volume.defaced:
        yield "", Sample(published(scan, volume), "published", "unknown", True)
        return
    yield "", Sample(scan, volume.kind, "none", False)
    if scan.foreground is None or scan.values.size > MOST_ZEROED_VOXELS:
        return
    if scan.background == "zeroed":
        return
    yield "_zeroed", Sample(scenes.air_zeroed(rng, scan), volume.kind, "none", False)
    for n in range(0 if scan.ct else AIRS):
        change = scenes.air_denoised if rng.random() < DENOISED_SHARE else scenes.air_zeroed
        yield f"_air_{n}", Sample(change(rng, scan), volume.kind, "none", False)


def after_tools(
    volume: Volume, scan: Scan, affine: np.ndarray, templates: Templates, rng: np.random.Generator
) -> Iterator[tuple[str, list[Sample]]]:
    """Gives an MR head before and after each real program, in its own and in zeroed air.

    Programs that register a head to a template want a whole one.
    """
    scan = rounded(scan)
    if scan.ct or scan.values.min() < TOOL_VALUES[0] or scan.values.max() < TOOL_VALUES[1]:
        return
    airs = {"": scan}
    if scan.background != "zeroed":
        airs["_zeroed"] = rounded(scenes.air_zeroed(rng, scan))
    for ending, start in airs.items():
        for tool in TOOLS[-1:] if "partial" in volume.face else TOOLS:
            try:
                after = with_tool(start, affine, tool, volume.data, templates)
            except Exception:  # not every program takes every head
                print(f"{volume.stem} {tool}\n{traceback.format_exc()}", flush=True)
                continue
            if not after.area.any():
                continue
            after = replace(after, quality=scan.quality * TOOL_QUALITY)
            before = Sample(start, "intact", "none", False)
            yield f"{ending}_{tool}", [before, Sample(after, f"{tool}-tool", "tool", True)]


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


def write(
    volume: Volume,
    folder: Path,
    count: int,
    templates: Templates,
    seed: list[int],
    thick: int = 0,
) -> int:
    """Writes a volume's samples that are not there yet; gives how many.

    `count`: simulated pairs, where it is a registered head with its face, `thick`: those in thick
    slices; each has a seed of its own.
    """
    stem, folder = f"{ORIGINAL}{volume.stem}", folder / safe_name(volume.subject)
    paired = volume.shows_face and volume.mni is not None and count + thick > 0
    names = {n: f"{stem}_{n:03d}" for n in range(count)}
    names |= {SLICES_SEED + n: f"{stem}_thick_{n:03d}" for n in range(thick)}
    names = names if paired else {}
    missing = {n: name for n, name in names.items() if not (folder / f"{name}.npz").exists()}
    alone, tools = folder / f"{stem}.npz", folder / f"{stem}.tools"
    if alone.exists() and (tools.exists() or not paired) and not missing:
        return 0
    (scan, affine), written = read(volume), 0

    def keep(name: str, sample: Sample, twin: str = "") -> None:
        nonlocal written
        store(folder / f"{name}.npz", arrays(sample) | {"twin": np.asarray(twin)})
        written += 1

    def keep_pair(name: str, samples: list[Sample]) -> None:
        for sample in samples:
            keep(*((name, sample) if sample.altered else (f"{name}_before", sample, name)))

    # What comes last says that all are there: the scan as it is, the altered one of a pair.
    if not alone.exists():
        for ending, sample in reversed(list(intact(volume, scan, np.random.default_rng(seed)))):
            keep(f"{stem}{ending}", sample)
    for n, name in missing.items():
        rng = np.random.default_rng([*seed, n])
        start = in_slices(rng, scan) if n >= SLICES_SEED else scan
        keep_pair(name, pair(start, templates, rng))
    if paired and not tools.exists():
        rng = np.random.default_rng([*seed, TOOLS_SEED])
        for ending, samples in after_tools(volume, scan, affine, templates, rng):
            if not (folder / f"{stem}{ending}.npz").exists():
                keep_pair(f"{stem}{ending}", samples)
        tools.touch()
    return written


def main() -> None:
    """Writes the samples of every volume with a foreground reference."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=default_work())
    parser.add_argument("--heads", type=int, default=64, help="simulated pairs of each head")
    parser.add_argument("--slices", type=int, default=32, help="further ones in thick slices")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    templates = Templates(options.data)
    folder = options.work / "samples"
    for n, volume in enumerate(read_volumes(options.data, options.work)):
        try:
            seed = [options.seed, n]
            written = write(volume, folder, options.heads, templates, seed, options.slices)
        except Exception:  # one bad volume must not end the run
            print(f"{volume.stem} failed\n{traceback.format_exc()}", flush=True)
            continue
        print(f"{volume.stem}: {written} written", flush=True)


if __name__ == "__main__":
    main()
