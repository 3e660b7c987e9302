"""Training samples of the refining networks: crops of fine cells at the border of a mask.

    python -m voxmask_training.refinement_samples --data DIR [--work DIR] --model DIR --count 2000

Of the area: altered heads, drawn by the data engine (`samples.py`) or altered as they are, a
quarter of them bent, at their own resolution. Of the foreground: MR scans of all regions, drawn in
the same two ways, whose reference has quality A or B. `--model` is the folder of the first
networks, whose logits the refining network is shown; they should not have seen the subjects that
are held out. A file
WORK/refinement/SUBJECT/SEED_INDEX.npz (of the foreground: WORK/refinement-foreground) has

    cells    uint8 [n, 10, k, j, i]  crops of `CROP_CELLS` cells: the channels, the mask, where it
                                     counts, and the first network's logit (`stored`)
    kind, subject, modality          str

Sample INDEX of a seed is always the same one; what is there already is skipped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from . import scenes
from .bending import bent
from .channels import CHANNELS, CoarseGrid, channels
from .network import AREA, FOREGROUND, IN_VIEW, MULTIPLE_OF
from .patches import stored
from .refinement import FINE_MM, LOGIT_MOST, TASKS
from .samples import (
    BENT_SHARE,
    Engine,
    Sample,
    chance,
    finished,
    real,
    recast,
    rounded,
    store,
)
from .scan import Scan
from .sources import Volume, safe_name
from .weights import FILES
from .work import default_work, make_missing

CROP_CELLS = 48
CROPS = {AREA: 4, FOREGROUND: 6}
LOGIT_STEPS = 15.0
"""Bytes per unit of the stored logit."""
TARGET, COUNTED, LOGIT = range(len(CHANNELS), len(CHANNELS) + 3)
PLAIN_HIDING_KEPT = 0.35
"""Constants in the place of tissue are found to the voxel by rule: fewer of them."""
TOOL_SHARE, AS_IT_IS_SHARE, REAL_SHARE, CT_SHARE = 0.12, 0.5, 0.6, 0.4
ZEROED_SHARE = 0.45
JITTER_CELLS = 14
LEAST_QUALITY = 0.5
"""Weight of the least reference whose border is worth following to 2 mm."""
DENOISED_SHARE, PAINTED_SHARE, PAIR_SHARE, RECAST_SHARE = 0.1, 0.15, 0.1, 0.08
WRONG_SHARE = 0.5
"""Crops of the foreground whose middle the first network got wrong."""


class Coarse:
    """The first network of a task, as the executables run it."""

    def __init__(self, folder: Path, task: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        folder = folder / FILES[task]
        card = json.loads((folder / "card.json").read_text())
        self.seen = [CHANNELS.index(name) for name in card["input"]["channels"]]
        self.task = task
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options)

    def logits(self, cells: np.ndarray) -> np.ndarray:
        """The mask's logits [mi, mj, mk] of channels [7, mi, mj, mk]."""
        cells = cells[self.seen]
        shape = cells.shape[1:]
        pads = [(0, 0), *((0, -n % MULTIPLE_OF) for n in shape)]
        tensor = np.ascontiguousarray(np.pad(cells, pads).transpose(0, 3, 2, 1))[None]
        name = self.session.get_inputs()[0].name
        total = 0.0
        for mirrored in (False, True):
            seen = np.ascontiguousarray(tensor[..., ::-1]) if mirrored else tensor
            (logits,) = self.session.run(["logits"], {name: seen})
            total = total + (logits[..., ::-1] if mirrored else logits) / 2
        out = total.reshape(tensor.shape[2:]).transpose(2, 1, 0)
        return out[tuple(slice(n) for n in shape)]


def as_it_is(volume: Volume) -> Scan:
    """The finest form that is kept of a volume, nothing of it altered."""
    names = volume.variants()
    scan = volume.cached("native" if "native" in names else names[0])
    nothing = np.zeros(scan.shape, bool)
    return replace(scan, area=nothing, free=nothing)


def draw_body(engine: Engine, rng: np.random.Generator) -> Sample | None:
    """The next MR scan with a foreground; None for a CT, and where its border is not known well."""
    u = rng.random()
    if u < PAINTED_SHARE and engine.maps:
        sample = finished(rng, engine.painted(rng, ct=False), "intact", "none")
    elif u < PAINTED_SHARE + PAIR_SHARE and (engine.faces or engine.maps):
        sample = engine.pair(rng)[-1]
    elif u < PAINTED_SHARE + PAIR_SHARE + RECAST_SHARE and engine.trunks:
        sample = finished(rng, recast(rng, engine.pick(rng, engine.trunks)), "intact", "none")
    else:
        volumes = [v for v in engine.volumes if v.quality in ("A", "B") and not v.defaced]
        volumes = [v for v in volumes if v.modality != "CT"]
        if not volumes:
            return None
        volume = engine.pick(rng, volumes)
        if chance(rng, AS_IT_IS_SHARE):
            scan = as_it_is(volume)
            scan = bent(rng, scan) if chance(rng, BENT_SHARE) else scan
            v = rng.random()
            if scan.background != "zeroed" and v < ZEROED_SHARE:
                scan = scenes.air_zeroed(rng, scan)
            elif scan.background != "zeroed" and v < ZEROED_SHARE + DENOISED_SHARE:
                scan = scenes.air_denoised(rng, scan)
            sample = Sample(scan, volume.kind, "none", False)
        else:
            sample = finished(rng, real(rng, volume), volume.kind, "none")
    known = sample.scan.foreground is not None and sample.scan.quality >= LEAST_QUALITY
    return sample if known and not sample.scan.ct else None


def draw_altered(engine: Engine, rng: np.random.Generator) -> Sample | None:
    """The next altered head; None where nothing was met."""
    u = rng.random()
    if u < TOOL_SHARE and engine.tool_runs:
        return engine.tool_sample(rng)
    ct = chance(rng, CT_SHARE)
    faces = [v for v in engine.faces if (v.modality == "CT") == ct]
    unchanged = u < TOOL_SHARE + AS_IT_IS_SHARE and bool(faces)
    if unchanged:
        scan = as_it_is(engine.pick(rng, faces))
        scan = bent(rng, scan) if chance(rng, BENT_SHARE) else scan
        if scan.background != "zeroed" and chance(rng, ZEROED_SHARE):
            scan = scenes.air_zeroed(rng, scan)
    elif faces and chance(rng, REAL_SHARE):
        scan = real(rng, engine.pick(rng, faces))
    elif engine.maps:
        scan = engine.painted(rng, ct=ct)
    elif faces:
        scan = real(rng, engine.pick(rng, faces))
    else:
        return None
    after, kind, fill = engine.alter(rng, scan)
    if kind == "intact":
        return None
    if fill in ("zero", "constant", "minimum") and not chance(rng, PLAIN_HIDING_KEPT):
        return None
    if unchanged:
        after = rounded(after) if chance(rng, 0.8) and scenes.top_of(after) > 100 else after
        return Sample(after, f"{kind}-{fill}", fill, True)
    return finished(rng, after, kind, fill)


def crops(sample: Sample, coarse: Coarse, rng: np.random.Generator) -> np.ndarray | None:
    """uint8 [n, 10, k, j, i]: crops about the border of the mask, or of what was taken for it."""
    scan = sample.scan
    values = np.ascontiguousarray(scan.values)
    seen, grid = channels(values, scan.spacing)
    fine_grid = CoarseGrid(grid.shape, grid.spacing, FINE_MM)
    logit = fine_grid.from_coarser(grid, coarse.logits(seen))
    of_area = coarse.task == AREA
    mask = scan.area if of_area else scan.foreground
    target = fine_grid.pool(mask.astype(np.float32))
    wrong = (target > 0.5) != (logit > 0)
    unsure = ((target > 0.2) & (target < 0.8)) | wrong
    if of_area:
        counted = 1 - fine_grid.pool(scan.free.astype(np.float32))
        unsure &= counted > 0.5
    if unsure.sum() < 20 or (of_area and not (logit > 0).any()):
        return None
    fine, _ = channels(values, scan.spacing, cell=FINE_MM)
    if not of_area:
        counted = fine[IN_VIEW]
    layers = np.concatenate([fine, np.stack([target, counted, logit])])
    pads = [(0, max(0, CROP_CELLS - n)) for n in fine_grid.cells]
    layers = np.pad(layers, [(0, 0), *pads])
    places, faults = np.argwhere(unsure), np.argwhere(unsure & wrong)
    out = []
    for _ in range(CROPS[coarse.task]):
        among = faults if not of_area and len(faults) and chance(rng, WRONG_SHARE) else places
        centre = among[int(rng.integers(len(among)))]
        centre = centre + rng.integers(-JITTER_CELLS, JITTER_CELLS + 1, 3)
        room = np.array(layers.shape[1:]) - CROP_CELLS
        low = np.clip(centre - CROP_CELLS // 2, 0, room)
        box = tuple(slice(int(a), int(a) + CROP_CELLS) for a in low)
        out.append(stored_crop(layers[(slice(None), *box)]))
    return np.stack(out)


def kind_of_body(sample: Sample) -> str:
    """What `train_refinement` knows crops of MR by."""
    return f"{sample.kind}-MR"


def stored_crop(layers: np.ndarray) -> np.ndarray:
    """Layers [10, i, j, k] as bytes in tensor order [10, k, j, i]."""
    own = layers[:LOGIT]
    # `stored` knows a foreground before the area.
    with_foreground = np.insert(own, len(CHANNELS), 0.0, 0)
    cells = np.delete(stored(with_foreground), len(CHANNELS), 0)
    logit = np.clip(layers[LOGIT], -LOGIT_MOST, LOGIT_MOST) + LOGIT_MOST
    logit = np.rint(logit * LOGIT_STEPS).astype(np.uint8)
    return np.ascontiguousarray(np.concatenate([cells, logit[None]]).transpose(0, 3, 2, 1))


def crops_folder(task: int) -> str:
    """The name of the folder of a task's crops."""
    return "refinement" if task == AREA else f"refinement-{FILES[task]}"


def main() -> None:
    """Makes samples until `count` of this seed exist."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of volumes and references")
    parser.add_argument("--work", type=Path, default=default_work(), help="cache and samples")
    parser.add_argument("--model", type=Path, required=True, help="folder of the first networks")
    parser.add_argument("--task", choices=TASKS, default="area")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000, help="indices 0 to COUNT - 1")
    parser.add_argument("--subjects", nargs="*", help="only these (default: all)")
    args = parser.parse_args()
    task = TASKS[args.task]
    engine, coarse = Engine(args.data, args.work, args.subjects), Coarse(args.model, task)
    draw = draw_altered if task == AREA else draw_body
    folder = args.work / crops_folder(task)

    def make(rng: np.random.Generator, name: str) -> bool:
        sample = draw(engine, rng)
        cells = None if sample is None else crops(sample, coarse, rng)
        if cells is None:
            return False
        about = {
            "cells": cells,
            "kind": np.asarray(sample.kind if task == AREA else kind_of_body(sample)),
            "subject": np.asarray(sample.scan.subject),
            "modality": np.asarray(sample.scan.modality),
        }
        store(folder / safe_name(sample.scan.subject) / f"{name}.npz", about)
        return True

    make_missing(folder, args.seed, args.count, make)


if __name__ == "__main__":
    main()
