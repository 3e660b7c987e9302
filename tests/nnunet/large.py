"""Memory and time of voxmask-segment with a network as large as nnU-Net's ResEnc-L.

    python tests/nnunet/large.py --work FOLDER [--most-gb 6]

Needs the environment of models/import with nibabel, and the executable. The network has the 102
million weights of that plan, random ones of a fixed seed, and one window of 192³ voxels; the scan
fits into it. Ends with 1 where the executable took more memory than told.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from speed import ROOT, voxmask

WINDOW = (192, 192, 192)
SPACING = (2.0, 2.0, 2.0)
STRIDES = ((1, 1, 1), *[(2, 2, 2)] * 5)
BLOCKS = (1, 3, 4, 6, 6, 6)


def main() -> int:
    """Makes the network in a process of its own, runs the executable and prints a row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=lambda p: Path(p).resolve(), required=True)
    parser.add_argument("--executable", type=Path, default=ROOT / "target/release/voxmask-segment")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most-gb", type=float, default=6.0)
    parser.add_argument("--make", action="store_true", help="make the network, and stop")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    model = arguments.work / "model"
    if arguments.make:
        make_network(arguments.work, model)
        return 0
    # In another process: see speed.network.
    if not (model / "card.json").exists():
        command = [sys.executable, __file__, "--work", arguments.work, "--make"]
        subprocess.run([str(word) for word in command], check=True)
    row = voxmask(arguments, model, ROOT / "tests/data/ct_abdomen.nii.gz")
    row["holds"] = row["peak_mb"] <= 1000.0 * arguments.most_gb
    print(json.dumps(row), flush=True)
    return int(not row["holds"])


def make_network(work: Path, model: Path) -> None:
    """Writes the result folder and imports it."""
    from networks import Spec, make
    from parity import import_results

    spec = Spec(
        "large", True, SPACING, WINDOW, ("CTNormalization",), strides=STRIDES, features=32,
        blocks=BLOCKS,
    )
    import_results(make(work, spec, [], 0), spec.folds, model, spec.name)


if __name__ == "__main__":
    sys.exit(main())
