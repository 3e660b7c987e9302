"""Where samples, runs and evaluations lie unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_work() -> Path:
    """Gives $VOXMASK_TRAINING, or a folder in the user's cache."""
    folder = os.environ.get("VOXMASK_TRAINING", "~/.cache/voxmask-training")
    return Path(folder).expanduser()
