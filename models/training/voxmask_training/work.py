"""Where samples, runs and evaluations lie unless told otherwise, and making samples one by one."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np


def default_work() -> Path:
    """Gives $VOXMASK_TRAINING, or a folder in the user's cache."""
    folder = os.environ.get("VOXMASK_TRAINING", "~/.cache/voxmask-training")
    return Path(folder).expanduser()


def make_missing(
    folder: Path, seed: int, count: int, make: Callable[[np.random.Generator, str], bool]
) -> None:
    """Makes the samples 0 to COUNT - 1 of a seed that FOLDER lacks, and says how fast.

    `make` draws and stores one under a name; False where it met nothing.
    """
    done = {p.stem for p in folder.glob(f"*/{seed}_*.npz")}
    start, made = time.time(), 0
    for index in range(count):
        name = f"{seed}_{index:05d}"
        if name in done:
            continue
        try:
            if not make(np.random.default_rng([seed, index]), name):
                continue
        except Exception:  # one bad draw must not end the run
            print(f"{name} failed\n{traceback.format_exc()}", flush=True)
            continue
        made += 1
        if made % 25 == 0:
            print(f"{name}: {made} made, {(time.time() - start) / made:.2f} s each", flush=True)
