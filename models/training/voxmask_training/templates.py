"""Masks and shells of real de-facing tools, as fields over the MNI template's space.

Each mask is kept as a signed distance [mm], positive inside what the tool removes, so
that it can be moved, bent, grown and shrunk before it is cut out of a scan.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import edt
import nibabel as nib
import numpy as np
import scipy.ndimage as nd


@dataclass(frozen=True)
class Field:
    """A volume over MNI space: float32 values, 4x4 from MNI mm to its voxels, value
    outside.
    """

    values: np.ndarray
    to_voxel: np.ndarray
    outside: float

    def at(self, points: np.ndarray, order: int = 1) -> np.ndarray:
        """Values [...] at MNI points [3, ...] in mm."""
        m = self.to_voxel.astype(np.float32)
        place = np.tensordot(m[:3, :3], points, 1) + m[:3, 3].reshape(3, *[1] * (points.ndim - 1))
        return nd.map_coordinates(
            self.values, place, order=order, mode="constant", cval=self.outside
        )


def signed_distance(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """float32 [mm]: positive inside the mask, negative outside, 0 half-way between
    voxels.
    """
    mask = np.ascontiguousarray(mask)
    step = tuple(float(s) for s in spacing)
    inside = edt.edt(mask, anisotropy=step, black_border=False)
    outside = edt.edt(~mask, anisotropy=step, black_border=False)
    limit = 200.0
    return np.clip(inside, 0, limit) - np.clip(outside, 0, limit)


def read_affine(path: Path) -> np.ndarray:
    """The 4x4 from MNI mm to a scan's (or template's) RAS+ mm."""
    return np.array(json.loads(path.read_text())["mni_to_scan_world_mm"])


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values [i, j, k] and affine as stored."""
    image = nib.load(path)
    values = np.asanyarray(image.dataobj)
    return values.reshape(values.shape[:3]), image.affine


class Templates:
    """All masks and shells. `data` is the folder with defacing_templates and
    registrations.
    """

    def __init__(self, data: Path):
        folder, moves = data / "defacing_templates", data / "registrations"
        self.masks: dict[str, Field] = {}
        self._add(
            "brain-box",
            *read(folder / "avg152T1mask.nii.gz"),
            moves / "avg152T1.json",
            60.0,
        )
        # the mask's own header is wrong: its voxels are those of the template
        affine = read(folder / "mridefacer_head_tmpl.nii.gz")[1]
        face = read(folder / "mridefacer_face_teeth_ear_mask.nii.gz")[0]
        self._add("face-teeth-ears", face, affine, moves / "mridefacer_head_tmpl.json", -60.0)
        package = find_spec("pydeface")
        if package and package.origin:
            path = Path(package.origin).parent / "data" / "facemask.nii.gz"
            self._add("face-wedge", *read(path), moves / "pydeface.json", -60.0)
        brain, affine = read(data / "registrations" / "brain_mni.nii.gz")
        self.brain = Field(signed_distance(brain > 0, np.ones(3)), np.linalg.inv(affine), -60.0)
        self.shells = {k: self._shell(folder / f"refacer_shell_sym{k}.nii.gz") for k in (211, 212)}

    def _add(
        self,
        name: str,
        keep: np.ndarray,
        affine: np.ndarray,
        move: Path,
        outside: float,
    ):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        distance = signed_distance(keep < 0.5, spacing).astype(np.float32)
        to_voxel = np.linalg.inv(affine) @ read_affine(move)
        self.masks[name] = Field(distance, to_voxel, outside)

    @staticmethod
    def _shell(path: Path) -> Field:
        """Grey values of an average face: > 0 painted, -1 blanked, 0 kept."""
        values, affine = read(path)
        return Field(values.astype(np.float32), np.linalg.inv(affine), 0.0)
