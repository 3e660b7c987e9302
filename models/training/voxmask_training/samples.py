"""Training samples: coarse channels with their foreground and anonymization area.

    python -m voxmask_training.samples --data DIR [--work DIR] --seed 1 --count 2000

Nearly half are heads that a tool altered (a fifth of them by a real program when `tool_runs`
has been run, the others simulated, on real heads and painted label maps, nearly half of them CT),
15 % intact, skull-stripped or cut heads, the others any other volume with a reference, or a CT of
them as MR (`recast`). A sample lies in a folder of its subject,
WORK/samples/SUBJECT/SEED_INDEX.npz, so that a fold leaves
out whole folders; beside a simulated one lies its twin, SEED_INDEX_before.npz, the same scan
finished in the same way without the alteration. Sample INDEX of a seed is always the same one
(from the same sources); what is there already is skipped.

Arrays of a sample, i, j, k order, on the 4 mm grid of `channels.CoarseGrid`, no margin:

    c        float16 [7, mi, mj, mk]  the channels
    F        float16 [mi, mj, mk]     pooled foreground; absent if unknown
    FW       float                    weight of the foreground: quality A 1.0, B 0.7, C 0.25,
                                      less where an alteration makes it doubtful
    A        float16 [mi, mj, mk]     pooled anonymization area, less its free voxels
    W        float16 [mi, mj, mk]     1 where the area counts, 0 where it is free or unknown,
                                      FAR_FREE where it is free far from any altered voxel
    altered  int                      1 if a tool altered the scan
    twin     str                      of a twin: the name of the altered sample
    kind     str                      intact, skull-stripped, published, METHOD-FILL
    fill, subject, region, modality, background    str
"""

from __future__ import annotations

import argparse
import io
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.ndimage as nd

from . import scenes
from .alterations import altered
from .bending import bent
from .channels import channels
from .painting import paint
from .recast import recastable, seen_as_mr
from .scan import Scan, padding_left_free, resampled
from .slices import in_slices, thick_slices
from .sources import (
    LabelMap,
    Volume,
    read_label_map,
    read_tool_run,
    read_volumes,
    safe_name,
    tool_run_folder,
)
from .templates import Templates
from .work import default_work, make_missing

LABEL_MAPS = tuple(f"head_{n:02d}" for n in range(1, 21))
MOST_VOXELS = 3_500_000
FAR_FREE, FAR_CELLS = 0.2, 6.0
"""Free voxels this many cells from the area are «not area», with this weight. Without it, nothing
keeps a mask near what was altered where all air is constant."""
EVERYWHERE = ("brain-box", "outside-brain", "niimath-deface", "published")
"""Methods that blank air far from the head: had it been noise, it would belong to the area, and the
scan would look the same."""
CT_SHARE = 0.45
RECAST_SHARE = 0.08
"""Samples that are a CT of a trunk as MR: of such, few MR scans are there."""
RECAST_FACES_SHARE = 0.2
"""Real faces of MR pairs that come from a CT."""
ZEROED_SHARE = 0.42
"""MR scans whose air is zero: whether they were altered is the hardest question of all."""

BENT_SHARE = 0.25
"""Real scans that are bent into another shape."""
INTERPOLATED_SHARE = 0.15
"""MR scans on finer voxels than were measured."""
PAINTED_SLICES_SHARE = 0.25
"""Painted heads in thick slices."""


@dataclass(frozen=True)
class Sample:
    """A finished scan and what was done to it."""

    scan: Scan
    kind: str
    fill: str
    altered: bool


class Engine:
    """Draws samples from the volumes and label maps of a data folder."""

    def __init__(
        self,
        data: Path,
        work: Path,
        subjects: list[str] | None = None,
        recast_share: float = RECAST_SHARE,
        pairs_alone: bool = False,
    ):
        self.data, self.work, self.recast_share = data, work, recast_share
        self.pairs_alone = pairs_alone
        volumes = [v for v in read_volumes(data, work) if v.quality]
        self.volumes = [v for v in volumes if not subjects or v.subject in subjects]
        self.maps = [n for n in LABEL_MAPS if not subjects or n in subjects]
        for volume in self.volumes:
            volume.prepare()
        heads = [v for v in self.volumes if v.shows_face]
        self.faces = [v for v in heads if v.mni is not None]
        stripped = [v for v in self.volumes if v.kind == "skull-stripped"]
        self.intact_heads = heads + stripped
        known = {v.stem for v in self.intact_heads}
        self.others = [v for v in self.volumes if v.stem not in known]
        self.trunks = [v for v in self.others if recastable(v) and "limb" not in v.region]
        self.templates = Templates(data)
        folder = tool_run_folder(work)
        runs = sorted({p.parent for p in folder.glob("*/*.npz")})
        allowed = {safe_name(s) for s in subjects or []}
        self.tool_runs = [p for p in runs if not subjects or p.name in allowed]
        self.read_maps: dict[str, LabelMap] = {}

    def label_map(self, name: str) -> LabelMap:
        """A label map, kept in memory."""
        if name not in self.read_maps:
            self.read_maps[name] = read_label_map(name, self.data, self.work)
        return self.read_maps[name]

    def draw(self, rng: np.random.Generator) -> list[Sample]:
        """The next sample; before a simulated alteration its twin, which is intact.

        None where a real tool's result is wanted and `tool_runs` has not been run yet.
        """
        if self.pairs_alone:
            return self.pair(rng)
        u = rng.random()
        if u < 0.1:
            return [self.tool_sample(rng)] if self.tool_runs else []
        if u < 0.45 and (self.faces or self.maps):
            return self.pair(rng)
        if (u < 0.6 or not self.others) and (self.maps or self.intact_heads):
            if (rng.random() < 0.5 and self.intact_heads) or not self.maps:
                volume = self.pick(rng, self.intact_heads)
                return [finished(rng, real(rng, volume), volume.kind, "none")]
            stripped = rng.random() < 0.22
            kind = "skull-stripped" if stripped else "intact"
            return [finished(rng, self.painted(rng, stripped), kind, "none")]
        if u > 1.0 - self.recast_share and self.trunks:
            scan = recast(rng, self.pick(rng, self.trunks))
            return [finished(rng, scan, "intact", "none")]
        volume = self.pick(rng, self.others)
        if volume.defaced:
            return [finished(rng, published(real(rng, volume), volume), "published", "unknown")]
        return [finished(rng, real(rng, volume), "intact", "none")]

    def pair(self, rng: np.random.Generator) -> list[Sample]:
        """A head before and after a simulated tool, finished alike."""
        ct = chance(rng, CT_SHARE)
        faces = [v for v in self.faces if (v.modality == "CT") == ct] or self.faces
        if (chance(rng, 0.35 if ct else 0.5) and faces) or not self.maps:
            from_ct = [v for v in self.faces if recastable(v)]
            if not ct and from_ct and chance(rng, RECAST_FACES_SHARE):
                scan = recast(rng, self.pick(rng, from_ct))
            else:
                scan = real(rng, self.pick(rng, faces))
        else:
            scan = self.painted(rng, ct=ct)
        seed = int(rng.integers(2**63))
        nothing = np.zeros(scan.shape, bool)
        intact = replace(scan, area=nothing, free=nothing)
        before = finished(np.random.default_rng(seed), intact, "intact", "none")
        after, kind, fill = self.alter(rng, scan)
        if kind == "intact":
            return [before]
        return [before, finished(np.random.default_rng(seed), after, kind, fill)]

    def tool_sample(self, rng: np.random.Generator) -> Sample:
        """A head that a real program altered, restaged without losing its constants."""
        subject = self.tool_runs[int(rng.integers(len(self.tool_runs)))]
        paths = sorted(subject.glob("*.npz"))
        scan, tool = read_tool_run(paths[int(rng.integers(len(paths)))])
        scan = scenes.sized(rng, scan)
        scan = scenes.higher_bottom(rng, scan) if chance(rng, 0.25) else scan
        scan = scenes.smaller_view(rng, scan, 120) if chance(rng, 0.1) else scan
        scan = scenes.contrast_changed(rng, scan) if chance(rng, 0.3) else scan
        scan = scenes.shaded(rng, scan) if chance(rng, 0.3) else scan
        scan = scenes.quantised(rng, scan) if chance(rng, 0.7) else scan
        return finished(rng, scan, tool, "tool")

    def pick(self, rng: np.random.Generator, volumes: list[Volume]) -> Volume:
        """A volume: subjects are equally likely, whole heads more than cut ones."""
        subjects = sorted({v.subject for v in volumes})

        def of(subject: str) -> list[Volume]:
            return [v for v in volumes if v.subject == subject]

        def worth(volume: Volume) -> float:
            return 0.4 if "partial" in volume.face or "FOV" in volume.face else 1.0

        weights = np.array([max(map(worth, of(s))) for s in subjects])
        subject = rng.choice(subjects, p=weights / weights.sum())
        mine = of(subject)
        return mine[int(rng.integers(len(mine)))]

    def painted(
        self, rng: np.random.Generator, stripped: bool = False, ct: bool | None = None
    ) -> Scan:
        """A head painted from a label map, as scanned."""
        if ct is None:
            ct = not stripped and chance(rng, CT_SHARE)
        source = self.label_map(self.maps[int(rng.integers(len(self.maps)))])
        scan = paint(rng, source, ct, stripped)
        return scanned_ct(rng, scan) if ct else scanned_mr(rng, scan, stripped)

    def alter(self, rng: np.random.Generator, scan: Scan) -> tuple[Scan, str, str]:
        """A scan after a tool."""
        return altered(rng, scan, self.templates)


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with a probability."""
    return bool(rng.random() < probability)


def scanned_mr(rng: np.random.Generator, scan: Scan, stripped: bool) -> Scan:
    """A painted head with what an MR scanner adds."""
    if stripped:
        scan = scenes.shaded(rng, scan) if chance(rng, 0.7) else scan
        noise = scenes.noisy(rng, scan, 0.03)
        values = np.where(scan.foreground, noise.values, 0)
        scan = replace(scan, values=values.astype(np.float32), background="zeroed")
        return scenes.quantised(rng, scan) if chance(rng, 0.8) else scan
    steps = (
        (scenes.voided, 0.1),
        (scenes.with_markers, 0.12),
        (scenes.shaded, 0.75),
        (scenes.saturated, 0.1),
        (scenes.ghosted, 0.4),
        (scenes.wrapped, 0.06),
        (scenes.noisy, 0.9),
        (scenes.interpolated, INTERPOLATED_SHARE),
        (scenes.zippered, 0.06),
    )
    scan = replace(scan, background="zeroed")
    for step, probability in steps:
        if chance(rng, probability):
            scan = step(rng, scan)
    scan = in_slices(rng, scan) if chance(rng, PAINTED_SLICES_SHARE) else scan
    scan = other_air(rng, scan, ZEROED_SHARE, 0.12)
    scan = scenes.quantised(rng, scan) if chance(rng, 0.85) else scan
    return scenes.turned_frame(rng, scan) if chance(rng, 0.06) else scan


def scanned_ct(rng: np.random.Generator, scan: Scan) -> Scan:
    """A painted head with what a CT scanner adds."""
    steps = (
        (scenes.with_wrapping, 0.6),
        (scenes.with_wrapping, 0.3),
        (scenes.with_table, 0.4),
        (scenes.with_streaks, 0.2),
        (scenes.ct_noisy, 1.0),
    )
    for step, probability in steps:
        if chance(rng, probability):
            scan = step(rng, scan)
    scan = in_slices(rng, scan) if chance(rng, PAINTED_SLICES_SHARE) else scan
    scan = other_air(rng, scan, 0.3, 0.08)
    return scenes.round_field(rng, scan) if chance(rng, 0.15) else scan


def other_air(rng: np.random.Generator, scan: Scan, zeroed: float, denoised: float) -> Scan:
    """With zeroed or denoised air, with the given probabilities."""
    if scan.foreground is None:
        return scan
    u = rng.random()
    if u < zeroed:
        return scenes.air_zeroed(rng, scan)
    return scenes.air_denoised(rng, scan) if u < zeroed + denoised else scan


def recast(rng: np.random.Generator, volume: Volume) -> Scan:
    """A real CT as MR, as scanned."""
    scan = scanned_mr(rng, seen_as_mr(rng, framed(rng, volume)), stripped=False)
    return scenes.bowed_frame(rng, scan) if chance(rng, 0.2) else scan


def real(rng: np.random.Generator, volume: Volume) -> Scan:
    """A real volume in a cached form, as another scanner might have made it."""
    scan = framed(rng, volume)
    return restaged_ct(rng, scan) if scan.ct else restaged_mr(rng, scan, volume.defaced)


def framed(rng: np.random.Generator, volume: Volume) -> Scan:
    """A real volume in a cached form: another body size, field of view, slices."""
    names = volume.variants()
    big = len(names) > 1
    weights = np.array([0.3 if n == "native" and big else 1.0 for n in names])
    scan = volume.cached(str(rng.choice(names, p=weights / weights.sum())))
    scan = replace(scan, area=np.zeros(scan.shape, bool), free=np.zeros(scan.shape, bool))
    scan = scenes.sized(rng, scan)
    if "head" in volume.region:
        scan = scenes.higher_bottom(rng, scan) if chance(rng, 0.3) else scan
        scan = scenes.smaller_view(rng, scan, 120) if chance(rng, 0.12) else scan
    elif chance(rng, 0.6):
        scan = scenes.smaller_view(rng, scan)
    if np.prod(scan.shape) > MOST_VOXELS:
        factor = (np.prod(scan.shape) / MOST_VOXELS) ** (1 / 3)
        scan = resampled(scan, scan.spacing * factor, smooth=False)
    scan = bent(rng, scan) if chance(rng, BENT_SHARE) else scan
    if scan.spacing.max() < 2.6 and chance(rng, 0.2 if "head" in volume.region else 0.35):
        scan = thick_slices(rng, scan)
    return scan


def restaged_mr(rng: np.random.Generator, scan: Scan, defaced: bool) -> Scan:
    """A real MR volume with other shading, contrast, noise and air."""
    constant = scan.background == "zeroed" or defaced
    steps = (
        (scenes.contrast_changed, 0.3),
        (scenes.shaded, 0.4),
        (scenes.saturated, 0.05),
        (scenes.voided, 0.04),
        (scenes.with_markers, 0.0 if defaced else 0.08),
        (scenes.ghosted, 0.0 if constant else 0.2),
        (scenes.wrapped, 0.0 if constant else 0.04),
        (scenes.noisy, 0.12 if constant and not defaced else 0.0 if defaced else 0.4),
        (scenes.interpolated, 0.0 if defaced else INTERPOLATED_SHARE),
        (scenes.zippered, 0.0 if constant else 0.04),
    )
    whole = np.array_equal(scan.values[::4, ::4, ::4], np.rint(scan.values[::4, ::4, ::4]))
    for step, probability in steps:
        if scan.values.min() >= 0 and chance(rng, probability):
            scan = step(rng, scan)
    if not constant:
        scan = other_air(rng, scan, ZEROED_SHARE, 0.12)
    if whole and chance(rng, 0.85):
        scan = scenes.quantised(rng, scan) if scan.values.min() >= 0 else rounded(scan)
    if not defaced and not constant and "head" not in scan.region and chance(rng, 0.15):
        scan = scenes.bowed_frame(rng, scan)
    return scenes.turned_frame(rng, scan) if not defaced and chance(rng, 0.06) else scan


def rounded(scan: Scan) -> Scan:
    """With whole numbers."""
    return replace(scan, values=np.rint(scan.values))


def restaged_ct(rng: np.random.Generator, scan: Scan) -> Scan:
    """A real CT volume with other things around it, noise, air and padding."""
    steps = (
        (scenes.with_wrapping, 0.3),
        (scenes.with_table, 0.2),
        (scenes.with_streaks, 0.08),
        (scenes.ct_noisy, 0.3),
    )
    for step, probability in steps:
        if chance(rng, probability):
            scan = step(rng, scan)
    scan = other_air(rng, scan, 0.2, 0.06)
    scan = scenes.round_field(rng, scan) if chance(rng, 0.2) else scan
    scan = scenes.turned_frame(rng, scan) if chance(rng, 0.05) else scan
    return rounded(scan)


def published(scan: Scan, volume: Volume) -> Scan:
    """A published de-faced scan: the area counts only where zeros in noisy air show
    it.
    """
    unknown = replace(scan, free=np.ones(scan.shape, bool))
    if not volume.background.startswith("noise + zeroed"):
        return unknown
    lowest = float(scan.values.min())
    zero = scan.values == lowest
    labels, count = nd.label(nd.binary_opening(zero, iterations=2))
    if not count:
        return unknown
    sizes = np.bincount(labels.ravel())[1:]
    core = labels == int(sizes.argmax()) + 1
    if sizes.max() * np.prod(scan.spacing) < 30_000:
        return unknown
    area = nd.binary_dilation(core, iterations=2) & zero
    return replace(scan, area=area, free=np.zeros(scan.shape, bool))


def finished(rng: np.random.Generator, scan: Scan, kind: str, fill: str) -> Sample:
    """The scan as exported: resampled or smoothed, padded, turned, on another scale."""
    changed = kind not in ("intact", "skull-stripped")
    if chance(rng, 0.14 if changed else 0.08):
        scan = scenes.zoomed(rng, scan)
    elif chance(rng, 0.07):
        scan = replace(scan, values=nd.gaussian_filter(scan.values, rng.uniform(0.25, 0.5)))
    if chance(rng, 0.6) and (scan.ct or scenes.top_of(scan) > 100):
        scan = rounded(scan)
    if chance(rng, 0.15):
        scan = padding_left_free(scenes.edge_padded(rng, scan), scan, changed)
    scan = scenes.exported(rng, scenes.misoriented(rng, scan))
    if changed and kind != "published":
        kind = f"{kind}-{fill}"
    return Sample(scan, kind, fill, changed)


def arrays(sample: Sample) -> dict[str, np.ndarray]:
    """What is stored of a sample (see above)."""
    scan = sample.scan
    coarse, grid = channels(np.ascontiguousarray(scan.values), scan.spacing)

    def pooled(mask: np.ndarray | None, otherwise: float = 0.0) -> np.ndarray:
        if mask is None:
            return np.full(grid.cells, otherwise, np.float16)
        return grid.pool(np.ascontiguousarray(mask, np.float32)).astype(np.float16)

    area, free = pooled(scan.area), pooled(scan.free)
    out = {
        "c": coarse.astype(np.float16),
        "A": area,
        "W": 1 - free + far_free(sample, area, free),
        "FW": np.float32(scan.quality if scan.foreground is not None else 0),
        "altered": np.int64(sample.altered),
        "kind": sample.kind,
        "fill": sample.fill,
        "subject": scan.subject,
        "region": scan.region,
        "modality": scan.modality,
        "background": scan.background,
    }
    if scan.foreground is not None:
        out["F"] = pooled(scan.foreground)
    return {k: np.asarray(v) for k, v in out.items()}


def far_free(sample: Sample, area: np.ndarray, free: np.ndarray) -> np.ndarray:
    """float16 [mi, mj, mk]: the weight of free cells far from the area (see FAR_FREE)."""
    nothing = np.zeros_like(free)
    if not sample.altered or sample.kind.startswith(EVERYWHERE) or not (area > 0.5).any():
        return nothing
    far = nd.distance_transform_edt(area <= 0.5) > FAR_CELLS
    return np.where(far, np.float16(FAR_FREE) * free, nothing)


def store(path: Path, data: dict[str, np.ndarray]) -> None:
    """Write an npz, lightly compressed, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, value in data.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(value, order="C"))
            archive.writestr(f"{name}.npy", buffer.getvalue())
    os.replace(part, path)


def main() -> None:
    """Make samples until `count` of this seed exist."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of volumes and references")
    parser.add_argument("--work", type=Path, default=default_work(), help="cache and samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000, help="indices 0 to COUNT - 1")
    parser.add_argument("--recast", type=float, default=RECAST_SHARE, help="share of CT as MR")
    parser.add_argument("--pairs", action="store_true", help="heads with their twins alone")
    parser.add_argument("--subjects", nargs="*", help="only these (default: all)")
    args = parser.parse_args()
    engine = Engine(args.data, args.work, args.subjects, args.recast, args.pairs)
    folder = args.work / "samples"

    def make(rng: np.random.Generator, name: str) -> bool:
        drawn = engine.draw(rng)
        # The altered one, drawn last, is stored last: it says that the index is done.
        for sample in drawn:
            twin = len(drawn) == 2 and not sample.altered
            stem = f"{name}_before" if twin else name
            data = arrays(sample) | {"twin": np.asarray(name if twin else "")}
            store(folder / safe_name(sample.scan.subject) / f"{stem}.npz", data)
        return True

    make_missing(folder, args.seed, args.count, make)


if __name__ == "__main__":
    main()
