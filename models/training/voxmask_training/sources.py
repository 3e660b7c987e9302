"""The real volumes and label maps, cached in the forms that samples are made from.

A volume is cached (npy, memory-mapped) as it is when it is small, averaged to about 1.6
mm, and decimated to about 2 mm without averaging, which keeps the noise of single
voxels.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import scipy.ndimage as nd

from .channels import CT_BELOW_HU, read_canonical, spacing_of
from .scan import Scan, resampled, shifted
from .templates import read_affine, signed_distance

TABLES = (("volumes.csv", "volumes"), ("volumes_more.csv", "volumes_more"))
FAILED_REGISTRATIONS = (
    "T2_head_vtkhead",
    "T2_head_torchio-fernando",
    "CT_head_vtk-headsq",
)
"""Whose affine in the data folder is wrong; `registration` finds another for some of them."""
QUALITY = {"A": 1.0, "B": 0.7, "C": 0.25}
LARGEST_VOXELS = 3_000_000


def safe_name(subject: str) -> str:
    """A subject's name as a folder: letters, digits, dot, dash; anything else an
    underscore.
    """
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in subject)


def read_table(data: Path) -> list[dict]:
    """Rows of both tables of volumes, with `path`, `stem` and the foreground's
    quality.
    """
    with open(data / "foreground.csv", newline="") as file:
        quality = {r["file"]: r["quality"] for r in csv.DictReader(file)}
    rows = []
    for table, folder in TABLES:
        with open(data / table, newline="") as file:
            for row in csv.DictReader(file):
                stem = row["file"].removesuffix(".nii.gz")
                path = data / folder / row["file"]
                rows.append(row | {"path": path, "stem": stem, "quality": quality.get(row["file"])})
    return rows


def registration_of(stem: str, data: Path, work: Path) -> np.ndarray | None:
    """4x4 from MNI mm to the scan's mm, or None when there is none to be trusted."""
    for folder in (data / "registrations", work / "registrations"):
        trusted = stem not in FAILED_REGISTRATIONS or folder != data / "registrations"
        if trusted and (folder / f"{stem}.json").exists():
            return read_affine(folder / f"{stem}.json")
    return None


@dataclass(frozen=True)
class Volume:
    """A row of the tables, ready to be read in one of its cached forms."""

    stem: str
    subject: str
    region: str
    modality: str
    face: str
    background: str
    quality: str | None
    path: Path
    data: Path
    work: Path

    @property
    def shows_face(self) -> bool:
        """True for a head whose face nobody altered, whole or in part."""
        return self.face.startswith("intact") and "head" in self.region

    @property
    def defaced(self) -> bool:
        """True for a head that was published without its face."""
        return self.face.startswith("defaced")

    @property
    def kind(self) -> str:
        """What a sample of it is that is not altered."""
        return "skull-stripped" if self.face == "skullstripped" else "intact"

    @property
    def mni(self) -> np.ndarray | None:
        """MNI mm to scan mm, if the head is registered."""
        return registration_of(self.stem, self.data, self.work)

    def read(self) -> Scan:
        """The scan as published, with its foreground reference."""
        scan = self.in_world()
        return replace(scan, mni=self.to_mni(scan.mni))

    def to_mni(self, affine: np.ndarray) -> np.ndarray | None:
        """4x4 from voxels to MNI mm, given the one from voxels to the scan's mm."""
        move = self.mni
        return None if move is None else np.linalg.inv(move) @ affine

    def in_world(self) -> Scan:
        """The scan as published, `mni` being its own affine (to the scan's mm) for
        now.
        """
        values, affine = read_canonical(self.path)
        mask = self.data / "foreground" / self.path.name
        foreground = read_canonical(mask)[0] > 0.5 if mask.exists() else None
        return Scan(
            values,
            spacing_of(affine),
            ct=bool(values.min() < CT_BELOW_HU),
            foreground=foreground,
            quality=QUALITY.get(self.quality or "", 0.0),
            mni=affine,
            subject=self.subject,
            region=self.region,
            modality=self.modality,
            background=self.background.split()[0],
        )

    def variants(self) -> list[str]:
        """Names of the cached forms."""
        folder = self.work / "cache"
        return sorted(p.name[len(self.stem) + 2 :] for p in folder.glob(f"{self.stem}--*"))

    def cached(self, variant: str) -> Scan:
        """A cached form of the scan."""
        folder = self.work / "cache" / f"{self.stem}--{variant}"
        info = np.load(folder / "info.npz")
        foreground = folder / "foreground.npy"
        return Scan(
            np.load(folder / "values.npy").astype(np.float32),
            info["spacing"],
            ct=bool(info["ct"]),
            foreground=np.load(foreground) if foreground.exists() else None,
            quality=float(info["quality"]),
            mni=self.to_mni(info["affine"]),
            subject=self.subject,
            region=self.region,
            modality=self.modality,
            background=self.background.split()[0],
        )

    def prepare(self) -> None:
        """Write the cached forms that are not there yet."""
        if self.variants():
            return
        scan = self.in_world()
        forms = {}
        fine = np.prod(scan.shape) > LARGEST_VOXELS
        if np.prod(scan.shape) < 2.5 * LARGEST_VOXELS:
            forms["native"] = scan
        if fine or scan.spacing.min() < 1.3:
            coarse = np.maximum(scan.spacing, 1.6)
            mean = resampled(scan, coarse)
            forms["mean"] = mean.mapped(lambda a: np.rint(a) if a.dtype != bool else a)
        step = np.maximum(1, np.round(2.0 / scan.spacing)).astype(int)
        if fine and step.max() > 1:
            box = tuple(slice(None, None, int(s)) for s in step)
            matrix = np.diag([*step, 1.0])
            mni, spacing = shifted(scan.mni, matrix), scan.spacing * step
            forms["decimated"] = scan.mapped(lambda a: a[box], mni=mni, spacing=spacing)
        for name, form in forms.items():
            self._store(name, form)

    def _store(self, name: str, scan: Scan) -> None:
        folder = self.work / "cache" / f"{self.stem}--{name}"
        folder.mkdir(parents=True, exist_ok=True)
        whole = np.array_equal(scan.values, np.rint(scan.values))
        np.save(folder / "values.npy", scan.values.astype(np.int16 if whole else np.float32))
        if scan.foreground is not None:
            np.save(folder / "foreground.npy", np.ascontiguousarray(scan.foreground))
        info = {"spacing": scan.spacing, "ct": scan.ct, "quality": scan.quality}
        np.savez(folder / "info.npz", **info, affine=scan.mni)


def read_volumes(data: Path, work: Path) -> list[Volume]:
    """Every volume of the tables."""
    keys = (
        "stem",
        "subject",
        "region",
        "modality",
        "face",
        "background",
        "quality",
        "path",
    )
    return [Volume(**{k: r[k] for k in keys}, data=data, work=work) for r in read_table(data)]


def tool_run_folder(work: Path) -> Path:
    """Where results of real de-facing programs are kept, a folder for each subject."""
    return work / "tool_runs"


def read_tool_run(path: Path) -> tuple[Scan, str]:
    """A head that a real program altered, and the program's name."""
    with np.load(path) as file:
        values = file["values"].astype(np.float32)
        layers = {
            name: np.unpackbits(file[name], count=values.size).reshape(values.shape).astype(bool)
            for name in ("foreground", "area", "free")
        }
        words = ("subject", "region", "modality", "background")
        scan = Scan(
            values,
            file["spacing"],
            ct=False,
            quality=float(file["quality"]),
            mni=file["mni"],
            **layers,
            **{k: str(file[k]) for k in words},
        )
        return scan, str(file["tool"])


@dataclass(frozen=True)
class LabelMap:
    """A head label map at 1 mm.

    labels  uint16 [i, j, k], 0 = air
    depth   float32 [mm] below the outer surface (negative outside)
    mni     4x4 from voxels to MNI mm
    open    bool [3, 2]: whether the head is cut by that side of the box
    """

    name: str
    labels: np.ndarray
    depth: np.ndarray
    mni: np.ndarray
    open: np.ndarray


def solid(mask: np.ndarray) -> np.ndarray:
    """A mask with its openings (nostrils, mouth, ear canals) closed and its cavities
    filled.
    """
    wide = np.pad(mask, 6)
    distance = signed_distance(wide, np.ones(3))
    grown = distance > -4.5
    closed = signed_distance(grown, np.ones(3)) > 5.0
    both = (closed | wide)[6:-6, 6:-6, 6:-6]
    capped = both.copy()
    capped[:, :, 0] = nd.binary_fill_holes(capped[:, :, 0])
    return nd.binary_fill_holes(capped)


def bounds(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest index, and one past the highest, of a mask along each axis."""
    axes = [np.flatnonzero(mask.any(tuple(b for b in range(3) if b != a))) for a in range(3)]
    return np.array([a[0] for a in axes]), np.array([a[-1] + 1 for a in axes])


def read_label_map(name: str, data: Path, work: Path) -> LabelMap:
    """A label map, its depth cached."""
    image = nib.as_closest_canonical(nib.load(data / "head_labels" / f"{name}.nii.gz"))
    labels = np.asanyarray(image.dataobj).astype(np.uint16)
    low, high = bounds(labels > 0)
    labels = np.ascontiguousarray(
        labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    )
    origin = np.eye(4)
    origin[:3, 3] = low
    path = work / "cache" / f"{name}-depth.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, signed_distance(solid(labels > 0), np.ones(3)).astype(np.float16))
    depth = np.load(path).astype(np.float32)
    move = registration_of(name, data, work)
    sides = [[depth.take(0, a), depth.take(-1, a)] for a in range(3)]
    cut = np.array([[(s > 0).mean() > 0.1 for s in pair] for pair in sides])
    return LabelMap(name, labels, depth, np.linalg.inv(move) @ image.affine @ origin, cut)
