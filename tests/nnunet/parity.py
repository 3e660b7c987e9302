"""Compares voxmask-segment with nnU-Net, voxel by voxel, and prints a table.

    python tests/nnunet/parity.py --work FOLDER [--networks NAME ...] [--volumes NAME ...]

Needs the environment of models/import (nnunetv2 2.8.1, PyTorch) with nibabel, and the executable
(`--executable`). nnU-Net runs on the CPU through `nnUNetPredictor.predict_from_files_sequential`,
which does what nnUNetv2_predict does without its processes for reading and writing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

# Before nnU-Net is imported, which reads them.
os.environ.setdefault("nnUNet_def_n_proc", "1")
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, "/nonexistent")

import nibabel  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from networks import SPECS, Spec, make  # noqa: E402
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (  # noqa: E402
    DefaultPreprocessor,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402
from volumes import write  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
# The scans that networks are trained on.
TRAINED_ON = ("ct", "mr", "defaced")
LEAST_DICE = 0.9999
MOST_DIFFERING_PER_MILLION = 10
# In standard deviations.
MOST_TENSOR_DIFFERENCE = 1e-4


def main() -> int:
    """Runs every network on every volume; gives back 1 when a row is out of bounds."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    volumes = write(arguments.work / "volumes")
    chosen = arguments.volumes or list(volumes)
    specs = [s for s in SPECS if not arguments.networks or s.name in arguments.networks]
    rows = []
    warnings.filterwarnings("ignore")
    for spec in specs:
        scans = [volumes[name][: len(spec.schemes)] for name in TRAINED_ON]
        results = make(arguments.work / "results", spec, scans, arguments.steps)
        model = arguments.work / "models" / spec.name
        import_results(results, spec.folds, model, spec.name)
        if arguments.tensor_executable:
            for name in chosen:
                row = compare_tensors(arguments, spec.name, results, model, (name, volumes[name]))
                rows.append(row)
                print(json.dumps(row), flush=True)
        for mirroring in () if arguments.tensors_only else (False, True):
            for name in chosen:
                row = compare(arguments, spec, results, model, (name, volumes[name]), mirroring)
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(table(rows))
    (arguments.work / "rows.json").write_text(json.dumps(rows, indent=1))
    bad = [r for r in rows if not r["holds"]]
    print(f"{len(rows) - len(bad)} passed, {len(bad)} failed")
    return int(bool(bad))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--work", type=lambda p: Path(p).resolve(), required=True)
    parser.add_argument("--executable", type=Path, default=ROOT / "target/release/voxmask-segment")
    parser.add_argument(
        "--tensor-executable", type=Path,
        help="compare tensors too: target/release/examples/window_tensor",
    )
    parser.add_argument("--tensors-only", action="store_true")
    parser.add_argument("--networks", nargs="*")
    parser.add_argument("--volumes", nargs="*")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def import_results(results: Path, folds: tuple[str, ...], model: Path, name: str) -> None:
    """Turns a result folder into a model."""
    run(
        [sys.executable, "-m", "voxmask_import", results, "--fold", *folds,
         "--output", model, "--name", name],
        cwd=ROOT / "models/import",
    )


def run(command: list, **options) -> None:
    """Runs a command, which must succeed."""
    subprocess.run([str(word) for word in command], check=True, **options)


def compare(arguments, spec: Spec, results: Path, model: Path, volume, mirroring: bool) -> dict:
    """One row: nnU-Net's label map against ours."""
    name, paths = volume
    paths = [str(path) for path in paths[: len(spec.schemes)]]
    out = arguments.work / "out" / spec.name / ("mirrored" if mirroring else "plain")
    out.mkdir(parents=True, exist_ok=True)
    predictor = nnUNetPredictor(
        use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False,
        perform_everything_on_device=False,
    )
    predictor.initialize_from_trained_model_folder(str(results), spec.folds)
    started = time.perf_counter()
    predictor.predict_from_files_sequential([paths], [str(out / name)], overwrite=True)
    theirs_s = time.perf_counter() - started
    ours = out / f"{name}_voxmask.nii.gz"
    started = time.perf_counter()
    run(
        [arguments.executable, *[word for path in paths for word in ("--input", path)],
         "--model", model, "--output", ours, "--threads", arguments.threads, "--overwrite",
         "--quiet", "--mirroring", "on" if mirroring else "off"]
    )
    ours_s = time.perf_counter() - started
    return {
        "network": spec.name, "volume": name, "mirroring": mirroring,
        **score(nibabel.load(out / f"{name}.nii.gz"), nibabel.load(ours)),
        "nnunet_s": round(theirs_s, 2), "voxmask_s": round(ours_s, 2),
    }


def compare_tensors(arguments, network: str, results: Path, model: Path, volume) -> dict:
    """One row: the largest difference of the prepared scans, in standard deviations of theirs."""
    name, paths = volume
    content = json.loads((results / "dataset.json").read_text())
    paths = [str(path) for path in paths[: len(content["channel_names"])]]
    plans = PlansManager(str(results / "plans.json"))
    theirs = DefaultPreprocessor(verbose=False).run_case(
        paths, None, plans, plans.get_configuration("3d_fullres"), content
    )[0]
    raw = arguments.work / "tensor.raw"
    run([arguments.tensor_executable, model, raw, *paths], stdout=subprocess.DEVNULL)
    ours = np.fromfile(raw, np.float32)
    if ours.size != theirs.size:
        return {"network": network, "volume": name, "holds": False, "why": "sizes differ"}
    worst = 0.0
    for a, b in zip(ours.reshape(theirs.shape), theirs):
        worst = max(worst, float(np.abs(a - b).max() / max(b.std(), 1e-8)))
    return {
        "network": network, "volume": name, "tensor_difference_sd": worst,
        "holds": worst <= MOST_TENSOR_DIFFERENCE,
    }


def score(theirs, ours) -> dict:
    """Differing voxels, the lowest Dice of any label, and whether both are within bounds."""
    a, b = np.asarray(theirs.dataobj), np.asarray(ours.dataobj)
    if a.shape != b.shape:
        return {"holds": False, "why": f"shapes {a.shape} and {b.shape}"}
    labels = sorted(set(np.unique(a)) | set(np.unique(b)))
    dice = min(
        2 * np.sum((a == label) & (b == label)) / (np.sum(a == label) + np.sum(b == label))
        for label in labels
    )
    differing = int(np.sum(a != b))
    per_million = 1e6 * differing / a.size
    return {
        "voxels": int(a.size), "labels": len(labels), "differing": differing,
        "per_million": round(per_million, 2), "dice": round(float(dice), 6),
        "holds": bool(dice >= LEAST_DICE and per_million <= MOST_DIFFERING_PER_MILLION),
    }


def table(rows: list[dict]) -> str:
    """A row for each network and mirroring, in Markdown."""
    lines = [
        "| network | mirroring | volumes | voxels | differing | worst per million | worst Dice |",
        "|---|---|---|---|---|---|---|",
    ]
    for network in dict.fromkeys(row["network"] for row in rows):
        for mirroring in (False, True):
            some = [r for r in rows if r["network"] == network and "voxels" in r]
            some = [r for r in some if r["mirroring"] == mirroring]
            if some:
                lines.append(
                    f"| {network} | {'on' if mirroring else 'off'} | {len(some)} "
                    f"| {sum(r['voxels'] for r in some)} | {sum(r['differing'] for r in some)} "
                    f"| {max(r['per_million'] for r in some)} | {min(r['dice'] for r in some)} |"
                )
    tensors = [row["tensor_difference_sd"] for row in rows if "tensor_difference_sd" in row]
    if tensors:
        lines.append(f"\n{len(tensors)} tensors, worst difference {max(tensors):.1e} SD")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
