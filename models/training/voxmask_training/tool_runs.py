"""Heads that a real program has altered, as sources of training samples.

    python -m voxmask_training.tool_runs --data DIR [--work DIR] [--painted 3]

runs niimath's -deface and -reface and quickshear on every registered MR head with
noisy air as it is and with zeroed air, and one of them on painted heads, and keeps
the results in WORK/tool_runs/SUBJECT/. What is there already is kept.
"""

from __future__ import annotations

import argparse
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import scenes
from .painting import paint
from .samples import LABEL_MAPS, Engine, rounded, scanned_mr
from .scan import Scan
from .sources import safe_name, tool_run_folder
from .tools import TOOLS, with_tool
from .work import default_work

LEAST_ML = 20.0


def keep(path: Path, scan: Scan, tool: str) -> None:
    """Write a result, unless the tool hardly met the head."""
    if (scan.area & ~scan.free).sum() * np.prod(scan.spacing) / 1000 < LEAST_ML:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    layers = {k: np.packbits(getattr(scan, k)) for k in ("foreground", "area", "free")}
    words = ("subject", "region", "modality", "background")
    np.savez_compressed(
        part,
        values=scan.values.astype(np.int16),
        spacing=scan.spacing,
        mni=scan.mni,
        quality=scan.quality,
        tool=tool,
        **layers,
        **{k: getattr(scan, k) for k in words},
    )
    part.replace(path)


def run(engine: Engine, scan: Scan, tool: str, path: Path) -> None:
    """One tool on one scan; a failure is printed and passed over."""
    if path.exists():
        return
    affine = np.diag([*scan.spacing, 1.0])
    try:
        out = with_tool(rounded(scan), affine, tool, engine.data, engine.templates)
        keep(path, replace(out, quality=scan.quality * 0.7), tool)
        print(path.parent.name, path.name, flush=True)
    except Exception:
        print(path, traceback.format_exc(), flush=True)


def run_real(engine: Engine, folder: Path) -> None:
    """Every tool on every MR head, in its own and in zeroed air."""
    for number, volume in enumerate(engine.faces):
        if volume.modality == "CT" or "partial" in volume.face:
            continue
        names = volume.variants()
        scan = volume.cached("mean" if "mean" in names else names[0])
        if scan.values.max() < 50 or scan.values.min() < -1:
            continue
        rng = np.random.default_rng(number)
        still = scenes.air_zeroed(rng, scan) if scan.background != "zeroed" else scan
        for turn, tool in enumerate(TOOLS):
            path = folder / safe_name(scan.subject) / f"{volume.stem}--{tool}.npz"
            run(engine, still if turn % 3 == number % 3 else scan, tool, path)


def run_painted(engine: Engine, folder: Path, count: int) -> None:
    """One tool on each of `count` painted heads per label map."""
    for number, name in enumerate(LABEL_MAPS):
        if name not in engine.maps:
            continue
        for turn in range(count):
            rng = np.random.default_rng([77, number, turn])
            tool = TOOLS[(number + turn) % len(TOOLS)]
            path = folder / name / f"{turn}--{tool}.npz"
            if path.exists():
                continue
            scan = scanned_mr(rng, paint(rng, engine.label_map(name), False), False)
            run(engine, scenes.quantised(rng, scan), tool, path)


def main() -> None:
    """Run the tools."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=default_work())
    parser.add_argument("--painted", type=int, default=3, help="per label map")
    parser.add_argument("--subjects", nargs="*", help="only these (default: all)")
    args = parser.parse_args()
    engine = Engine(args.data, args.work, args.subjects)
    folder = tool_run_folder(args.work)
    run_real(engine, folder)
    run_painted(engine, folder, args.painted)


if __name__ == "__main__":
    main()
