"""Time and memory of voxmask-segment and nnU-Net, side by side on one large CT.

    python tests/nnunet/speed.py --work FOLDER [--labels 2 25] [--spacing 2.5]

Needs the environment of models/import with nibabel, and the executable. The CT of 512×512×300
voxels is the one that `make bench` makes; the networks have random weights of a fixed seed, since
time and memory do not depend on them. Each program runs by itself, with the same number of threads;
the stages are taken from the log of the one and from round the network's call in the other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("nnUNet_def_n_proc", "2")
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, "/nonexistent")

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "running the network"
AFTER = "deciding on labels"


def main() -> int:
    """Runs both for each number of labels, or, as a child, nnU-Net alone."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=lambda p: Path(p).resolve(), required=True)
    parser.add_argument("--executable", type=Path, default=ROOT / "target/release/voxmask-segment")
    parser.add_argument("--labels", type=int, nargs="*", default=[2, 25])
    parser.add_argument("--spacing", type=float, default=2.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-gb", type=float, help="nnU-Net stops beyond this")
    parser.add_argument("--child", nargs=3, metavar=("RESULTS", "SCAN", "OUTPUT"))
    arguments = parser.parse_args()
    if arguments.child:
        return nnunet(arguments)
    scan = arguments.work / "ct_0000.nii.gz"
    arguments.work.mkdir(parents=True, exist_ok=True)
    if not scan.exists():
        source = ROOT / "tests/data/ct_abdomen.nii.gz"
        subprocess.run([sys.executable, ROOT / "benches/volume.py", source, scan], check=True)
    for labels in arguments.labels:
        results, model = network(arguments, labels, scan)
        ours = {"labels": labels, "program": "voxmask", **voxmask(arguments, model, scan)}
        print(json.dumps(ours), flush=True)
        theirs = {"labels": labels, "program": "nnU-Net", **other(arguments, results, scan)}
        print(json.dumps(theirs), flush=True)
        same(arguments)
    return 0


def network(arguments, labels: int, scan: Path) -> tuple[Path, Path]:
    """A plain network with so many labels, and its import."""
    from networks import SPECS, make

    names = {"background": 0, **{f"label {n}": n for n in range(1, labels)}}
    spec = replace(
        SPECS[0], name=f"speed-{labels}", spacing=(arguments.spacing,) * 3, patch=(64, 64, 64),
        labels=names,
    )
    results = make(arguments.work, spec, [[scan]], 0)
    model = arguments.work / f"model-{labels}"
    subprocess.run(
        [sys.executable, "-m", "voxmask_import", results, "--output", model],
        check=True, cwd=ROOT / "models/import",
    )
    return results, model


def voxmask(arguments, model: Path, scan: Path) -> dict:
    """One run of ours; the log says when the network began and ended."""
    command = [
        arguments.executable, "--input", scan, "--model", model, "--overwrite",
        "--output", arguments.work / "ours.nii.gz", "--threads", str(arguments.threads),
    ]
    started = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    at = {}
    for line in process.stderr:
        for stage in (NETWORK, AFTER):
            if stage in line:
                at[stage] = time.perf_counter() - started
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    assert status == 0, status
    return row(wall, at[AFTER] - at[NETWORK], usage)


def other(arguments, results: Path, scan: Path) -> dict:
    """One run of nnU-Net in a process of its own; without the time of its imports."""
    command = [
        sys.executable, __file__, "--work", arguments.work, "--threads", str(arguments.threads),
        "--child", results, scan, arguments.work / "theirs",
    ]
    if arguments.memory_gb:
        command += ["--memory-gb", str(arguments.memory_gb)]
    process = subprocess.Popen([str(w) for w in command], stdout=subprocess.PIPE, text=True)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    wall, inside = json.loads(said.strip().splitlines()[-1])
    return row(wall, inside, usage)


def row(wall: float, inside: float, usage) -> dict:
    """Seconds in all, in the network, and outside it; peak memory."""
    return {
        "wall_s": round(wall, 2), "network_s": round(inside, 2),
        "outside_s": round(wall - inside, 2), "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss / 1000),
    }


def nnunet(arguments) -> int:
    """Segments one scan and prints seconds in all and in the network."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    if arguments.memory_gb:
        most = int(arguments.memory_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    torch.set_num_threads(arguments.threads)
    results, scan, output = arguments.child
    started = time.perf_counter()
    predictor = nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False,
        perform_everything_on_device=False,
    )
    predictor.initialize_from_trained_model_folder(results, ("0",))
    run, inside = predictor.predict_logits_from_preprocessed_data, []

    def timed(data):
        begun = time.perf_counter()
        logits = run(data)
        inside.append(time.perf_counter() - begun)
        return logits

    predictor.predict_logits_from_preprocessed_data = timed
    predictor.predict_from_files_sequential([[scan]], [output])
    print(json.dumps([time.perf_counter() - started, sum(inside)]))
    return 0


def same(arguments) -> None:
    """Says how many voxels the last two label maps differ in."""
    import nibabel
    import numpy as np

    names = ("ours.nii.gz", "theirs.nii.gz")
    ours, theirs = (np.asarray(nibabel.load(arguments.work / n).dataobj) for n in names)
    print(json.dumps({"differing": int((ours != theirs).sum()), "voxels": ours.size}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
