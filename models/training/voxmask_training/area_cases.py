"""Reads the area's evaluation set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from .scores import Mask


@dataclass(frozen=True)
class AreaCase:
    """A scan, altered or not, with its area and free voxels on its own grid."""

    name: str
    subject: str
    method: str
    background: str
    modality: str
    region: str
    altered: bool
    image: Path
    masks: Path

    def read_masks(self) -> tuple[Mask, Mask]:
        """Reads the area and the free voxels."""
        values = np.asarray(nibabel.load(self.masks).dataobj)
        return values == 1, values == 2
