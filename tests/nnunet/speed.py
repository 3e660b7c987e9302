"""Time and memory of voxmask-segment and nnU-Net, side by side on one large CT.

    python tests/nnunet/speed.py --work FOLDER [--labels 2 25] [--spacing 2.5]

Needs the environment of models/import with nibabel, and the executable. The CT of 512×512×300
voxels is the one that `make bench` makes; the networks have random weights of a fixed seed, since
time and memory do not depend on them. Each program runs by itself, with the same number of threads;
the stages are taken from the log of the one and from round the network's call in the other. On a
busy machine wall times mean little: the processor's time is given too.
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
    parser.add_argument("--make", type=int, help="make the network with so many labels, and stop")
    parser.add_argument("--child", nargs=3, metavar=("RESULTS", "SCAN", "OUTPUT"))
    arguments = parser.parse_args()
    if arguments.child:
        return nnunet(arguments)
    if arguments.make:
        make_network(arguments, arguments.make)
        return 0
    scan = arguments.work / "ct_0000.nii.gz"
    arguments.work.mkdir(parents=True, exist_ok=True)
    if not scan.exists():
        source = ROOT / "tests/data/ct_abdomen.nii.gz"
        subprocess.run([sys.executable, ROOT / "benches/volume.py", source, scan], check=True)
    for labels in arguments.labels:
        results, model = network(arguments, labels)
        ours = {"labels": labels, "program": "voxmask", **voxmask(arguments, model, scan)}
        print(json.dumps(ours), flush=True)
        theirs = {"labels": labels, "program": "nnU-Net", **other(arguments, results, scan)}
        print(json.dumps(theirs), flush=True)
        same(arguments)
    return 0


def network(arguments, labels: int) -> tuple[Path, Path]:
    """Result folder and import of a plain network with so many labels.

    Made in another process: the kernel counts the memory of the process that starts a program as
    the program's own, and PyTorch is large.
    """
    command = [sys.executable, __file__, "--work", arguments.work, "--make", labels]
    command += ["--spacing", arguments.spacing]
    subprocess.run([str(word) for word in command], check=True)
    results = f"Dataset900_speed-{labels}/nnUNetTrainer__nnUNetPlans__3d_fullres"
    return arguments.work / results, arguments.work / f"model-{labels}"


def make_network(arguments, labels: int) -> None:
    """Writes both folders."""
    from networks import SPECS, make

    names = {"background": 0, **{f"label {n}": n for n in range(1, labels)}}
    spec = replace_spec(SPECS[0], labels, names, arguments.spacing)
    results = make(arguments.work, spec, [], 0)
    subprocess.run(
        [sys.executable, "-m", "voxmask_import", results, "--output",
         arguments.work / f"model-{labels}"],
        check=True, cwd=ROOT / "models/import",
    )


def replace_spec(spec, labels: int, names: dict, spacing: float):
    """The network's specification."""
    return replace(
        spec, name=f"speed-{labels}", spacing=(spacing,) * 3, patch=(64, 64, 64), labels=names
    )


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
                at[stage] = (time.perf_counter() - started, cpu_of(process.pid))
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    assert status == 0, status
    whole = (wall, usage.ru_utime + usage.ru_stime)
    return row(whole, [after - before for before, after in zip(at[NETWORK], at[AFTER])], usage)


def cpu_of(process: int) -> float:
    """Processor time of a running process until now [s]."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
    whole, inside = json.loads(said.strip().splitlines()[-1])
    return row(whole, inside, usage)


def row(whole: list[float], inside: list[float], usage) -> dict:
    """Seconds in all and outside the network, by the clock and of the processor; peak memory."""
    outside = [w - n for w, n in zip(whole, inside)]
    return {
        "wall_s": round(whole[0], 2), "outside_wall_s": round(outside[0], 2),
        "cpu_s": round(whole[1], 2), "outside_cpu_s": round(outside[1], 2),
        "peak_mb": round(usage.ru_maxrss * 1024 / 1e6),
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
    started = clocks()
    predictor = nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False,
        perform_everything_on_device=False,
    )
    predictor.initialize_from_trained_model_folder(results, ("0",))
    run, inside = predictor.predict_logits_from_preprocessed_data, []

    def timed(data):
        begun = clocks()
        logits = run(data)
        inside.extend(since(begun))
        return logits

    predictor.predict_logits_from_preprocessed_data = timed
    predictor.predict_from_files_sequential([[scan]], [output])
    print(json.dumps([since(started), inside]))
    return 0


def clocks() -> list[float]:
    """The clock's and this process's time [s]."""
    return [time.perf_counter(), time.process_time()]


def since(then: list[float]) -> list[float]:
    """What passed of both."""
    return [now - then for now, then in zip(clocks(), then)]


def same(arguments) -> None:
    """Says how many voxels the last two label maps differ in."""
    import nibabel
    import numpy as np

    names = ("ours.nii.gz", "theirs.nii.gz")
    ours, theirs = (np.asarray(nibabel.load(arguments.work / n).dataobj) for n in names)
    print(json.dumps({"differing": int((ours != theirs).sum()), "voxels": ours.size}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
