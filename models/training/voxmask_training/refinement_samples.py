"""Training samples of the refining network: crops of fine cells at the border of an area.

    python -m voxmask_training.refinement_samples --data DIR [--work DIR] --model DIR --count 2000

Altered heads, drawn by the data engine (`samples.py`) or altered as they are, at their own
resolution. `--model` is the area's network, whose logits the refining network is shown; it should
not have seen the subjects that are held out. A file WORK/refinement/SUBJECT/SEED_INDEX.npz has

    cells    uint8 [n, 10, k, j, i]  crops of `CROP_CELLS` cells: the channels, the area, where it
                                     counts, and the network's logit (`stored`)
    kind, subject, modality          str

Sample INDEX of a seed is always the same one; what is there already is skipped.
"""

from __future__ import annotations

import argparse
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from . import scenes
from .channels import CHANNELS, CoarseGrid, channels
from .network import MULTIPLE_OF
from .patches import stored
from .refinement import FINE_MM, LOGIT_MOST
from .samples import Engine, Sample, chance, finished, real, rounded, store
from .sources import safe_name
from .work import default_work

CROP_CELLS = 48
CROPS = 4
LOGIT_STEPS = 15.0
"""Bytes per unit of the stored logit."""
AREA, COUNTED, LOGIT = range(len(CHANNELS), len(CHANNELS) + 3)
PLAIN_HIDING_KEPT = 0.35
"""Constants in the place of tissue are found to the voxel by rule: fewer of them."""
TOOL_SHARE, AS_IT_IS_SHARE, REAL_SHARE, CT_SHARE = 0.12, 0.5, 0.6, 0.4
ZEROED_SHARE = 0.45
JITTER_CELLS = 14


class Coarse:
    """The area's network, as the executables run it."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = folder / "anonymization-area" / "model.onnx"
        self.session = onnxruntime.InferenceSession(path, options)

    def logits(self, cells: np.ndarray) -> tuple[np.ndarray, float]:
        """The area's logits [mi, mj, mk] of channels [7, mi, mj, mk], and the judgement's."""
        shape = cells.shape[1:]
        pads = [(0, 0), *((0, -n % MULTIPLE_OF) for n in shape)]
        tensor = np.ascontiguousarray(np.pad(cells, pads).transpose(0, 3, 2, 1))[None]
        name = self.session.get_inputs()[0].name
        total, altered = 0.0, 0.0
        for mirrored in (False, True):
            seen = np.ascontiguousarray(tensor[..., ::-1]) if mirrored else tensor
            logits, judged = self.session.run(["logits", "altered"], {name: seen})
            total = total + (logits[..., ::-1] if mirrored else logits) / 2
            altered += float(judged.ravel()[0]) / 2
        out = total.reshape(tensor.shape[2:]).transpose(2, 1, 0)
        return out[tuple(slice(n) for n in shape)], altered


def draw(engine: Engine, rng: np.random.Generator) -> Sample | None:
    """The next altered head; None where nothing was met."""
    u = rng.random()
    if u < TOOL_SHARE and engine.tool_runs:
        return engine.tool_sample(rng)
    ct = chance(rng, CT_SHARE)
    faces = [v for v in engine.faces if (v.modality == "CT") == ct]
    as_it_is = u < TOOL_SHARE + AS_IT_IS_SHARE and bool(faces)
    if as_it_is:
        volume = engine.pick(rng, faces)
        names = volume.variants()
        scan = volume.cached("native" if "native" in names else names[0])
        nothing = np.zeros(scan.shape, bool)
        scan = replace(scan, area=nothing, free=nothing)
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
    if as_it_is:
        after = rounded(after) if chance(rng, 0.8) and scenes.top_of(after) > 100 else after
        return Sample(after, f"{kind}-{fill}", fill, True)
    return finished(rng, after, kind, fill)


def crops(sample: Sample, coarse: Coarse, rng: np.random.Generator) -> np.ndarray | None:
    """uint8 [n, 10, k, j, i]: crops about the border of the area, or of what was taken for it."""
    scan = sample.scan
    values = np.ascontiguousarray(scan.values)
    seen, grid = channels(values, scan.spacing)
    logits, _ = coarse.logits(seen)
    fine_grid = CoarseGrid(grid.shape, grid.spacing, FINE_MM)
    logit = fine_grid.from_coarser(grid, logits)
    area = fine_grid.pool(scan.area.astype(np.float32))
    counted = 1 - fine_grid.pool(scan.free.astype(np.float32))
    unsure = ((area > 0.2) & (area < 0.8)) | ((area > 0.5) != (logit > 0))
    places = np.argwhere(unsure & (counted > 0.5))
    if len(places) < 20 or not (logit > 0).any():
        return None
    fine, _ = channels(values, scan.spacing, cell=FINE_MM)
    layers = np.concatenate([fine, np.stack([area, counted, logit])])
    pads = [(0, max(0, CROP_CELLS - n)) for n in fine_grid.cells]
    layers = np.pad(layers, [(0, 0), *pads])
    out = []
    for _ in range(CROPS):
        centre = places[int(rng.integers(len(places)))]
        centre = centre + rng.integers(-JITTER_CELLS, JITTER_CELLS + 1, 3)
        room = np.array(layers.shape[1:]) - CROP_CELLS
        low = np.clip(centre - CROP_CELLS // 2, 0, room)
        box = tuple(slice(int(a), int(a) + CROP_CELLS) for a in low)
        out.append(stored_crop(layers[(slice(None), *box)]))
    return np.stack(out)


def stored_crop(layers: np.ndarray) -> np.ndarray:
    """Layers [10, i, j, k] as bytes in tensor order [10, k, j, i]."""
    own = layers[:LOGIT]
    # `stored` knows a foreground before the area.
    with_foreground = np.insert(own, len(CHANNELS), 0.0, 0)
    cells = np.delete(stored(with_foreground), len(CHANNELS), 0)
    logit = np.clip(layers[LOGIT], -LOGIT_MOST, LOGIT_MOST) + LOGIT_MOST
    logit = np.rint(logit * LOGIT_STEPS).astype(np.uint8)
    return np.ascontiguousarray(np.concatenate([cells, logit[None]]).transpose(0, 3, 2, 1))


def main() -> None:
    """Makes samples until `count` of this seed exist."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of volumes and references")
    parser.add_argument("--work", type=Path, default=default_work(), help="cache and samples")
    parser.add_argument("--model", type=Path, required=True, help="folder of the area's network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000, help="indices 0 to COUNT - 1")
    parser.add_argument("--subjects", nargs="*", help="only these (default: all)")
    args = parser.parse_args()
    engine, coarse = Engine(args.data, args.work, args.subjects), Coarse(args.model)
    folder = args.work / "refinement"
    done = {p.stem for p in folder.glob(f"*/{args.seed}_*.npz")}
    start, made = time.time(), 0
    for index in range(args.count):
        name = f"{args.seed}_{index:05d}"
        if name in done:
            continue
        rng = np.random.default_rng([args.seed, index])
        try:
            sample = draw(engine, rng)
            cells = None if sample is None else crops(sample, coarse, rng)
        except Exception:  # one bad draw must not end the run
            print(f"{name} failed\n{traceback.format_exc()}", flush=True)
            continue
        if cells is None:
            continue
        about = {
            "cells": cells,
            "kind": np.asarray(sample.kind),
            "subject": np.asarray(sample.scan.subject),
            "modality": np.asarray(sample.scan.modality),
        }
        store(folder / safe_name(sample.scan.subject) / f"{name}.npz", about)
        made += 1
        if made % 25 == 0:
            print(f"{name}: {made} made, {(time.time() - start) / made:.2f} s each", flush=True)


if __name__ == "__main__":
    main()
