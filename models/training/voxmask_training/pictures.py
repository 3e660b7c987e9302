"""Pictures of the best, the median and the five worst masks that `evaluate` scored.

`python -m voxmask_training.pictures --data DIR --output ../pictures`

Each row is a scan, each column the slice across one axis (in closest RAS order) where mask and
reference differ most; blue: outline of the mask, orange: of the reference. Free voxels are left
out.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .folds import TABLES
from .tables import Row
from .work import default_work

TILE = 200
"""Side of a slice's square [pixels]."""
WORST = 5
MASK, REFERENCE, TEXT = (86, 180, 233), (230, 159, 0), (255, 255, 255)
"""Two colours of Okabe and Ito's palette, which the colour-blind tell apart."""


@dataclass(frozen=True)
class Scored:
    """A scan with its mask and reference; booleans i, j, k in closest RAS order."""

    caption: str
    voxels: np.ndarray
    mask: np.ndarray
    reference: np.ndarray
    spacing: np.ndarray


def read_ras(path: Path) -> nibabel.Nifti1Image:
    """Reads a volume turned to the closest RAS order; the first frame of a series."""
    image = nibabel.load(path)
    if image.ndim > 3:
        image = image.slicer[..., 0] if image.ndim == 4 else image.slicer[..., 0, 0]
    return nibabel.as_closest_canonical(image)


def read_scored(
    caption: str, image: Path, mask: Path, reference: Path, free: Path | None = None
) -> Scored:
    """Reads what a row of pictures shows."""
    scan = read_ras(image)
    masks = [np.asarray(read_ras(path).dataobj) > 0.5 for path in (mask, reference)]
    if free is not None:
        left = np.asarray(read_ras(free).dataobj) <= 0.5
        masks = [m & left for m in masks]
    voxels = np.asarray(scan.dataobj, np.float32)
    return Scored(caption, voxels, *masks, np.array(scan.header.get_zooms()[:3], float))


def chosen(rows: list[Row], score: str) -> list[tuple[str, Row]]:
    """Picks the best row, the median and the five worst by a score, best first."""
    order = sorted(
        (row for row in rows if row.get(score)), key=lambda row: float(row[score]), reverse=True
    )
    worst = order[-WORST:]
    picked = [("best", order[0]), ("median", order[len(order) // 2])]
    return picked + [(f"worst {len(worst) - n}", row) for n, row in enumerate(worst)]


def slices(scored: Scored) -> list[Image.Image]:
    """Draws a slice across each axis."""
    differs, either = scored.mask ^ scored.reference, scored.mask | scored.reference
    low, high = np.percentile(scored.voxels[::2, ::2, ::2], [1.0, 99.5])
    grey = np.clip((scored.voxels - low) / max(high - low, 1e-6), 0.0, 1.0) ** 0.6
    tiles = []
    for axis in range(3):
        others = tuple(n for n in range(3) if n != axis)
        counted = (differs if differs.any() else either).sum(others)
        at = int(counted.argmax())
        flat = [np.take(x, at, axis).T[::-1] for x in (grey, scored.mask, scored.reference)]
        extent = scored.spacing[list(others)] * [flat[0].shape[1], flat[0].shape[0]]
        size = np.maximum(1, np.rint(TILE * extent / extent.max())).astype(int)
        tiles.append(slice_tile(*flat, tuple(int(n) for n in size)))
    return tiles


def slice_tile(
    grey: np.ndarray, mask: np.ndarray, reference: np.ndarray, size: tuple[int, int]
) -> Image.Image:
    """Draws one slice with both outlines, the mask's on top, in the middle of a square."""
    picture = Image.fromarray(np.rint(255 * grey).astype(np.uint8)).resize(size)
    pixels = np.repeat(np.asarray(picture)[..., None], 3, axis=2)
    for shape, colour in ((reference, REFERENCE), (mask, MASK)):
        large = Image.fromarray(shape.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        inside = np.asarray(large) > 0
        pixels[inside & ~ndimage.binary_erosion(inside, border_value=1)] = colour
    tile = Image.new("RGB", (TILE, TILE))
    tile.paste(Image.fromarray(pixels), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


def sheet(rows: list[Scored]) -> Image.Image:
    """Puts the scans below each other, a caption over each."""
    bar = 16
    height = TILE + bar
    picture = Image.new("RGB", (3 * TILE, height * len(rows)))
    draw = ImageDraw.Draw(picture)
    for n, scored in enumerate(rows):
        draw.text((3, n * height + 2), scored.caption, TEXT)
        for column, tile in enumerate(slices(scored)):
            picture.paste(tile, (column * TILE, n * height + bar))
    return picture


def read_rows(path: Path) -> list[Row]:
    """Reads the scores that `evaluate` wrote."""
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def read_volumes(data: Path) -> list[Row]:
    """Lists the volumes, each with its `path`."""
    found = []
    for table in TABLES:
        folder = data / table.removesuffix(".csv")
        found += [row | {"path": str(folder / row["file"])} for row in read_rows(data / table)]
    return found


def caption(word: str, row: Row, volumes: list[Row]) -> str:
    """Says what a row of pictures shows, and the licence of the scan."""
    licence = next(v["licence"] for v in volumes if v["subject"] == row["subject"])
    licence = str(licence).split(" (")[0].split(";")[0]
    return f"{word}: {row['name']}, Dice {float(row['dice']):.3f} ({licence})"


def foreground_scored(data: Path, folder: Path) -> list[Scored]:
    """What the foreground's sheet shows."""
    volumes = read_volumes(data)
    paths = {Path(str(v["path"])).name.removesuffix(".nii.gz"): v["path"] for v in volumes}
    sound = [row for row in read_rows(folder / "foreground.csv") if row["quality"] != "C"]
    found = []
    for word, row in chosen(sound, "dice"):
        image = Path(str(paths[row["name"]]))
        masks = (folder / "foreground" / image.name, data / "foreground" / image.name)
        found.append(read_scored(caption(word, row, volumes), image, *masks))
    return found


def area_scored(data: Path, cases: Path, folder: Path) -> list[Scored]:
    """What the anonymization area's sheet shows: altered scans."""
    volumes = read_volumes(data)
    found = []
    for word, row in chosen(read_rows(folder / "area.csv"), "dice"):
        case, mask = cases / str(row["name"]), folder / "area" / f"{row['name']}.nii.gz"
        masks = (mask, case / "reference.nii.gz", case / "free.nii.gz")
        found.append(read_scored(caption(word, row, volumes), case / "image.nii.gz", *masks))
    return found


def main() -> None:
    """Writes a sheet for each task."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=default_work())
    parser.add_argument("--output", type=Path, required=True, help="folder")
    options = parser.parse_args()
    folder = options.work / "evaluation"
    sheets = {
        "foreground": foreground_scored(options.data, folder),
        "anonymization-area": area_scored(options.data, options.work / "evaluate" / "area", folder),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    for name, rows in sheets.items():
        path = options.output / f"{name}.jpg"
        sheet(rows).save(path, quality=60, optimize=True)
        print(f"{path}: {len(rows)} scans, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
