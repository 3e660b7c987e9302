"""Compares voxmask-segment with nnUNetv2_predict, on networks that nnUNetv2_train trained.

    python tests/nnunet/trained.py --data FOLDER --work FOLDER [--networks NAME ...]

FOLDER holds scans in `volumes` or `volumes_more` and reference masks under the same names in
`foreground`. Out of some of them come four data sets in nnU-Net's layout; nnU-Net's own commands
find their fingerprints, plan, prepare and train (plans are made small and coarse in between, and
epochs have 40 steps, see trainers/short.py, so that a CPU is enough). The networks are imported;
then both programs segment whole scans, turned copies of some and one smaller than a window. What
is there already is not made again. Needs the environment of models/import with nibabel.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from parity import ROOT, compare_tensors, import_results, run, score, table
from scipy.ndimage import gaussian_filter
from volumes import rotation

TRAINER = "ShortTrainer"
CONFIGURATION = "3d_fullres"
CT = (
    "CT_chestcrop_elastix", "CT_head_vtk-headsq", "CT_limb_sts-042", "CT_limb_sts-003",
    "CT_abdomen_totalseg",
)
MR = (
    "T2_head_vtkhead", "T1_limb_sts-042", "T1_limb_sts-024", "b0_head_tractor", "T1_head_ixi012",
)
# Whole scans that both programs segment: CT and MR, RAS, LPS, LAS, PSR, LSP and IAR as stored, some
# oblique by themselves, spacings of 0.5 to 8 mm, some with zeros around.
WHOLE = (
    "T2_head_vtkhead", "T1_limb_sts-042", "CT_chestcrop_elastix", "PD_knee_pymskt",
    "T1_limb_sts-018", "T2_head_ds000011-01", "b0_head_tractor", "T2_fetus_mialsrtk-run5",
    "T2s_neck_sct-t2s", "GRE_abdomen_ukat-ge01", "CT_limb_sts-024", "T1_head_ixi012",
    "T1_head_papaya", "CT_abdomen_totalseg", "T1_head_rorden-xa30", "CT_head_dcmqa-ge",
    "T1_head_vrd-stroke",
)
# nnU-Net's files of probabilities are large.
WITH_PROBABILITIES = ("T2_head_vtkhead", "oblique", "smaller-than-window")
# Ours are written in steps of 0.001. Both round logits to 16 bits: where rounding before that falls
# on either side, a logit differs by a step of 1/256 if it is 4 to 8, a probability by up to 0.001.
HALF_A_STEP = 0.00051
MOST_PROBABILITY_DIFFERENCE = 0.003


@dataclass(frozen=True)
class Network:
    """What is trained; triples follow nnU-Net's axes after its transpose."""

    number: int
    name: str
    residual: bool
    scans: tuple[str, ...]
    channels: tuple[str, ...]
    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    labels: tuple[str, ...] = ("body", "dense")
    regions: bool = False

    @property
    def dataset(self) -> str:
        """Name of the data set's folder."""
        return f"Dataset{self.number}_{self.name}"

    @property
    def plans(self) -> str:
        """Name that nnU-Net's planner gives to its plans."""
        return "nnUNetResEncUNetMPlans" if self.residual else "nnUNetPlans"


NETWORKS = (
    Network(701, "plain-isotropic", False, CT, ("CT",), (5.0, 5.0, 5.0), (32, 32, 32)),
    Network(
        702, "residual-anisotropic", True, MR, ("MR",), (8.0, 4.0, 4.0), (16, 40, 40),
        labels=("body",),
    ),
    Network(
        703, "residual-two-channels", True, MR, ("MR", "smoothed"), (5.0, 5.0, 5.0), (32, 32, 24)
    ),
    Network(
        704, "plain-anisotropic-regions", False, CT, ("CT",), (9.0, 2.5, 2.5), (12, 40, 48),
        regions=True,
    ),
)


def main() -> int:
    """Trains, imports and compares; gives back 1 when a row is out of bounds."""
    arguments = parse()
    work = arguments.work
    networks = [n for n in NETWORKS if not arguments.networks or n.name in arguments.networks]
    os.environ |= {
        f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")
    }
    os.environ |= {
        "nnUNet_extTrainer": str(Path(__file__).parent / "trainers"),
        # nnU-Net takes a thread for every core of the machine, also of those it may not use.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    train(arguments.data, work, networks)
    scans = write_scans(arguments.data, work / "scans", arguments.scans)
    rows = []
    for network in networks:
        results = checkpoint(work, network).parents[1]
        model = work / "models" / network.name
        import_results(results, ("0",), model, network.name)
        if arguments.tensor_executable:
            rows += [
                compare_tensors(arguments, network.name, results, model, scan)
                for scan in scans.items()
            ]
        for mirroring in () if arguments.tensors_only else (False, True):
            rows += compare(arguments, network, model, scans, mirroring)
    print(table(rows))
    holds = all(row["holds"] for row in rows)
    if networks[0] == NETWORKS[0] and not arguments.tensors_only:
        holds &= compare_probabilities(arguments, networks[0], scans)
    (work / "rows.json").write_text(json.dumps(rows, indent=1))
    bad = [row for row in rows if not row["holds"]]
    print(f"{len(rows) - len(bad)} passed, {len(bad)} failed")
    return int(not holds)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=lambda p: Path(p).resolve(), required=True)
    parser.add_argument("--work", type=lambda p: Path(p).resolve(), required=True)
    parser.add_argument(
        "--executables", type=Path, default=ROOT / "target/release",
        help="folder of voxmask-segment and voxmask-segment-foreground",
    )
    parser.add_argument(
        "--tensor-executable", type=Path,
        help="compare tensors too: target/release/examples/window_tensor",
    )
    parser.add_argument("--tensors-only", action="store_true")
    parser.add_argument("--networks", nargs="*")
    parser.add_argument("--scans", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def command(name: str, *words) -> None:
    """Runs a command of nnU-Net, out of the environment that runs this script."""
    started = time.perf_counter()
    path = Path(sys.executable).with_name(name)
    run([path, *words], stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    print(f"{name} {' '.join(map(str, words))}: {seconds:.0f} s", flush=True)


# Training


def train(data: Path, work: Path, networks: list[Network]) -> None:
    """Makes data sets, plans and networks, but for those that are there."""
    prepared = work / "preprocessed"
    missing = [n for n in networks if not (prepared / n.dataset / f"{n.plans}.json").exists()]
    for network in missing:
        write_dataset(data, work / "raw" / network.dataset, network)
    if missing:
        command(
            "nnUNetv2_extract_fingerprint", "--no_pbar", "-np", 1, "-d",
            *[n.number for n in missing],
        )
    for residual in (False, True):
        some = [n for n in missing if n.residual == residual]
        if not some:
            continue
        numbers = [n.number for n in some]
        planner = "nnUNetPlannerResEncM" if residual else "ExperimentPlanner"
        command("nnUNetv2_plan_experiment", "-pl", planner, "-d", *numbers)
        for network in some:
            make_small(prepared / network.dataset / f"{network.plans}.json", network)
        command(
            "nnUNetv2_preprocess", "-plans_name", some[0].plans, "-c", CONFIGURATION, "-np", 1,
            "--no_pbar", "-d", *numbers,
        )
    # Augments in the process that trains; nnU-Net's planner takes no 0 here.
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    for network in networks:
        if not checkpoint(work, network).exists():
            command(
                "nnUNetv2_train", network.number, CONFIGURATION, 0, "-tr", TRAINER,
                "-p", network.plans, "-device", "cpu",
            )


def checkpoint(work: Path, network: Network) -> Path:
    """What training leaves."""
    folder = f"{TRAINER}__{network.plans}__{CONFIGURATION}"
    return work / "results" / network.dataset / folder / "fold_0/checkpoint_final.pth"


def write_dataset(data: Path, folder: Path, network: Network) -> None:
    """Writes a data set in nnU-Net's layout: body is 1, its brightest fifth 2."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in network.scans:
        path = find(data, name)
        scan, reference = nibabel.load(path), nibabel.load(data / "foreground" / path.name)
        link(path, folder / "imagesTr" / f"{name}_0000.nii.gz")
        smooth = smoothed(scan)
        if len(network.channels) > 1:
            save(smooth, scan.affine, folder / "imagesTr" / f"{name}_0001.nii.gz")
        body = np.asarray(reference.dataobj) > 0
        label_map = body.astype(np.uint8)
        if len(network.labels) > 1:
            label_map[body & (smooth > np.quantile(smooth[body], 0.8))] = 2
        save(label_map, scan.affine, folder / "labelsTr" / f"{name}.nii.gz")
    labels: dict = {name: n for n, name in enumerate(("background", *network.labels))}
    content = {
        "channel_names": {str(n): name for n, name in enumerate(network.channels)},
        "numTraining": len(network.scans),
        "file_ending": ".nii.gz",
    }
    if network.regions:
        labels[network.labels[0]] = [1, 2]
        content["regions_class_order"] = [1, 2]
    content["labels"] = labels
    (folder / "dataset.json").write_text(json.dumps(content, indent=1))


def make_small(path: Path, network: Network) -> None:
    """Edits nnU-Net's plans: coarser, with small windows and three stages of few features."""
    plans = json.loads(path.read_text())
    configuration = plans["configurations"][CONFIGURATION]
    configuration |= {
        "spacing": network.spacing, "patch_size": network.patch, "batch_size": 2,
    }
    thick = network.spacing[0] > network.spacing[1]
    blocks = "n_blocks_per_stage" if network.residual else "n_conv_per_stage"
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": 3,
        "features_per_stage": [4, 8, 16],
        "kernel_sizes": [[1, 3, 3] if thick else [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2] if thick else [2, 2, 2], [2, 2, 2]],
        blocks: [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
    }
    plans["configurations"] = {CONFIGURATION: configuration}
    path.write_text(json.dumps(plans, indent=1))


# Scans


def find(data: Path, name: str) -> Path:
    """Path of a scan."""
    for folder in ("volumes", "volumes_more"):
        path = data / folder / f"{name}.nii.gz"
        if path.exists():
            return path
    raise FileNotFoundError(f"{data}: {name}.nii.gz is in neither volumes nor volumes_more")


def write_scans(data: Path, folder: Path, chosen: list[str] | None) -> dict[str, list[Path]]:
    """Links scans, writes copies and each one's second channel; gives back the paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = turned(data)
    found = {}
    for name in chosen or (*WHOLE, *copies):
        paths = [folder / f"{name}_{channel:04d}.nii.gz" for channel in range(2)]
        if name in copies:
            save(*copies[name], paths[0])
        else:
            link(find(data, name), paths[0])
        scan = nibabel.load(paths[0])
        save(smoothed(scan), scan.affine, paths[1])
        found[name] = paths
    return found


def turned(data: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Voxels and affine of copies that try what no whole scan does, by name."""
    head, limb, body = (
        nibabel.load(find(data, name))
        for name in ("b0_head_tractor", "T1_limb_sts-024", "CT_abdomen_totalseg")
    )
    turn = np.eye(4)
    turn[:3, :3] = rotation(17, 0) @ rotation(-8, 2)
    more = np.eye(4)
    more[:3, :3] = rotation(33, 1)
    ras = nibabel.as_closest_canonical(body)
    flip_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip_ras[:2, 3] = np.array(ras.shape[:2]) - 1
    voxels = [np.asarray(scan.dataobj) for scan in (head, limb, ras)]
    return {
        "oblique": (voxels[0], turn @ head.affine),
        "oblique-anisotropic": (voxels[1], more @ turn @ limb.affine),
        "lps": (voxels[2][::-1, ::-1], ras.affine @ flip_ras),
        "smaller-than-window": (voxels[2][50:69, 40:63, 50:67], ras.affine),
    }


def smoothed(scan) -> np.ndarray:
    """A scan's blurred copy, float32."""
    return gaussian_filter(np.asarray(scan.dataobj).astype(np.float32), 1.0)


def save(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Writes a volume; both affines of the header are set."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(voxels), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, path)


def link(source: Path, path: Path) -> None:
    """Makes a link, or makes it anew."""
    path.unlink(missing_ok=True)
    path.symlink_to(source)


# Comparing


def predict(arguments, network: Network, scans: dict, folder: Path, *words) -> Path:
    """Runs nnUNetv2_predict in one process on some scans; gives back the folder of label maps."""
    wanted, found = folder / "scans", folder / "nnunet"
    trained = checkpoint(arguments.work, network).stat().st_mtime
    there = [found / f"{name}.nii.gz" for name in scans]
    if all(path.exists() and path.stat().st_mtime > trained for path in there):
        return found
    wanted.mkdir(parents=True, exist_ok=True)
    for path in wanted.iterdir():
        path.unlink()
    for paths in scans.values():
        for path in paths[: len(network.channels)]:
            link(path, wanted / path.name)
    command(
        "nnUNetv2_predict", "-i", wanted, "-o", found, "-d", network.number,
        "-tr", TRAINER, "-p", network.plans, "-c", CONFIGURATION, "-f", 0, "-device", "cpu",
        "-npp", 0, "-nps", 0, "--disable_progress_bar", *words,
    )
    return found


def compare(arguments, network: Network, model: Path, scans: dict, mirroring: bool) -> list[dict]:
    """One row a scan: nnU-Net's label map against ours."""
    folder = arguments.work / "out" / network.name / ("mirrored" if mirroring else "plain")
    theirs = predict(arguments, network, scans, folder, *([] if mirroring else ["--disable_tta"]))
    rows = []
    for name, paths in scans.items():
        ours = folder / f"{name}.nii.gz"
        inputs = [word for path in paths[: len(network.channels)] for word in ("--input", path)]
        run(
            [arguments.executables / "voxmask-segment", *inputs, "--model", model,
             "--output", ours, "--threads", arguments.threads, "--overwrite", "--quiet",
             "--mirroring", "on" if mirroring else "off"]
        )
        row = {
            "network": network.name, "volume": name, "mirroring": mirroring,
            **score(nibabel.load(theirs / f"{name}.nii.gz"), nibabel.load(ours)),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def compare_probabilities(arguments, network: Network, scans: dict) -> bool:
    """Says how far ours is from nnU-Net's probability of a label, and whether it is close."""
    scans = {name: scans[name] for name in WITH_PROBABILITIES if name in scans}
    folder = arguments.work / "out" / network.name / "probabilities"
    theirs = predict(arguments, network, scans, folder, "--disable_tta", "--save_probabilities")
    differences = []
    for name, paths in scans.items():
        ours = folder / f"{name}.nii.gz"
        run(
            [arguments.executables / "voxmask-segment-foreground", "--input", paths[0],
             "--model", arguments.work / "models" / network.name, "--label", network.labels[0],
             "--output", folder / f"{name}_mask.nii.gz", "--probability", ours,
             "--threads", arguments.threads, "--overwrite", "--quiet"]
        )
        wanted = np.load(theirs / f"{name}.npz")["probabilities"][1].transpose(2, 1, 0)
        differences.append(np.abs(nibabel.load(ours).get_fdata() - wanted).ravel())
    found = np.concatenate(differences or [np.zeros(1)])
    print(
        f"\nprobabilities of {len(scans)} scans: largest difference {found.max():.6f}, "
        f"{np.sum(found > HALF_A_STEP)} of {found.size} voxels beyond half a step"
    )
    return bool(found.max() <= MOST_PROBABILITY_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main())
