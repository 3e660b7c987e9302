"""Packs samples into few files, for training on another machine.

    python -m voxmask_training.packs --samples DIR --output DIR [--pack-mb 40]

A pack holds samples in a random order (of a seed) as the bytes that training keeps
(`patches.stored`): a restaged one beside its twin, and those of one scan as it is
(`originals.py`) together, of which each but the first then takes a third of the space.
`train --samples DIR` reads packs as well as samples. Scans of more than MOST_CELLS are cut at
their largest axis, at a random place.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch

from .patches import CT, IN_VIEW, ORIGINAL, STEPS, Sample, read_sample, some_area_cells
from .tools import TOOLS

MOST_CELLS = 400_000
ENDING = ".pack"
FIELDS = ("name", "subject", "region", "kind", "altered", "twin", "foreground_weight", "area_known")
STORED = [n for n in range(len(STEPS)) if n != CT]
"""Layers that a pack holds: the view and `is_ct` tell the other."""
TOGETHER = 48
"""Samples that one process compresses together."""
DRAWING = re.compile(rf"_(\d+|air_\d+|zeroed|(zeroed_)?({'|'.join(TOOLS)}))$")
"""Ends the names of samples of one scan as it is."""


def cut(sample: Sample, rng: np.random.Generator) -> Sample:
    """Narrows a large scan."""
    cells = sample.cells.numpy()
    while cells[0].size > MOST_CELLS:
        axis = int(np.argmax(cells.shape[1:])) + 1
        rest = cells[0].size // cells.shape[axis]
        length = max(MOST_CELLS // rest, cells.shape[axis] // 2)
        first = int(rng.integers(cells.shape[axis] - length + 1))
        cells = cells.take(range(first, first + length), axis)
    whole = torch.from_numpy(np.ascontiguousarray(cells))
    return replace(sample, cells=whole, area_cells=some_area_cells(cells))


def packed(paths: list[Path], seed: int) -> bytes:
    """Packs some samples: a line of JSON for each, an empty line, their bytes layer by layer."""
    rng = np.random.default_rng(seed)
    lines, bodies = [], []
    for path in paths:
        sample = read_sample(path)
        sample = sample if sample.altered or sample.twin else cut(sample, rng)
        cells = sample.cells.numpy()
        facts = {name: getattr(sample, name) for name in FIELDS}
        facts |= {"shape": cells.shape, "is_ct": sample.is_ct, "steps": STEPS}
        lines.append(json.dumps(facts))
        bodies.append(cells)
    text = "\n".join(lines) + "\n\n"
    layers = (body[layer].tobytes() for layer in STORED for body in bodies)
    return lzma.compress(text.encode() + b"".join(layers))


def read_pack(data: bytes) -> Iterator[Sample]:
    """Gives the samples of a pack's part; ValueError where its bytes are of other steps."""
    again = "packed in another way, or with other steps of the layers (patches.STEPS): pack again"
    try:
        text, body = lzma.decompress(data).split(b"\n\n", 1)
    except lzma.LZMAError as error:
        raise ValueError(again) from error
    facts = [json.loads(line) for line in text.splitlines()]
    if any(fact.pop("steps", None) != list(STEPS) for fact in facts):
        raise ValueError(again)
    cells = [np.zeros(fact.pop("shape"), np.uint8) for fact in facts]
    start = 0
    for layer in STORED:
        for one in cells:
            count = one[layer].size
            one[layer] = np.frombuffer(body, np.uint8, count, start).reshape(one[layer].shape)
            start += count
    for fact, one in zip(facts, cells, strict=True):
        one[CT] = (one[IN_VIEW] > 0) * fact["is_ct"]
        yield Sample(**fact, cells=torch.from_numpy(one), area_cells=some_area_cells(one))


def read_packs(paths: list[Path]) -> Iterator[Sample]:
    """Gives the samples of packs, in their order, decompressed by several threads."""
    parts = []
    for path in paths:
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:4], "little")
            parts.append(data[4 : 4 + length])
            data = data[4 + length :]
    with ThreadPool(os.cpu_count()) as pool:
        for samples in pool.imap(lambda part: list(read_pack(part)), parts):
            yield from samples


def groups_of(paths: list[Path], rng: np.random.Generator) -> list[list[Path]]:
    """Deals samples out at random, those of a scan as it is, and a restaged pair, together."""
    families: dict[str, list[Path]] = {}
    for path in sorted(paths):
        name = path.stem.removesuffix("_before")
        original = name.startswith(ORIGINAL)
        families.setdefault(DRAWING.sub("", name) if original else name, []).append(path)
    groups: list[list[Path]] = []
    mixed: list[Path] = []
    order = list(families.values())
    for n in rng.permutation(len(families)):
        family = order[n]
        if len(family) > 2:
            groups += [family[a : a + TOGETHER] for a in range(0, len(family), TOGETHER)]
            continue
        mixed += family
        if len(mixed) >= TOGETHER:
            groups.append(mixed)
            mixed = []
    return [*groups, mixed] if mixed else groups


def main() -> None:
    """Writes the packs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pack-mb", type=float, default=40.0, help="size of a file")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    paths = list(options.samples.glob("*/*.npz"))
    groups = groups_of(paths, np.random.default_rng(options.seed))
    pack, number, count = b"", 0, 0

    def write() -> None:
        (options.output / f"{number:02d}{ENDING}").write_bytes(pack)
        print(f"pack {number}: {len(pack) / 1e6:.1f} MB, {count} samples so far", flush=True)

    with ProcessPoolExecutor(options.processes) as workers:
        seeds = range(options.seed, options.seed + len(groups))
        for group, part in zip(groups, workers.map(packed, groups, seeds), strict=True):
            if pack and len(pack) + len(part) + 4 > options.pack_mb * 1e6:
                write()
                pack, number = b"", number + 1
            pack += len(part).to_bytes(4, "little") + part
            count += len(group)
    write()


if __name__ == "__main__":
    main()
