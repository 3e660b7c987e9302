"""Both pipelines on a Slurm of two nodes on this host, without accounting."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from steps import PATCH_SHAPE, ROOT, Steps, assert_same_results, report, write_sheet

SCANS = 24
# Questions in quick succession, for a Slurm with nobody else in it.
FAST_NEXTFLOW = "executor { pollInterval = '2 sec'; queueStatInterval = '4 sec' }\n"
FAST_SNAKEMAKE = "slurm-init-seconds-before-status-checks: 3\nseconds-between-status-checks: 3\n"


@pytest.fixture(scope="module")
def many(steps: Steps, scans: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scans of 24 grids, all of them of real scans, and small."""
    folder = tmp_path_factory.mktemp("many")
    sources = [scans["ct_abdomen"], scans["mr_head_intact"], scans["mr_head_defaced"]]
    found = {}
    for n in range(SCANS):
        path = folder / f"scan{n:02}.nii.gz"
        spacing = 6 + 0.25 * (n // 3)
        steps("resample", input=sources[n % 3], spacing=f"{spacing},{spacing},{spacing}", output=path)
        found[path.name.removesuffix(".nii.gz")] = path
    return found


def drain_in_the_middle(
    command: list[object], folder: Path, environment: dict[str, str], reached: Callable[[], int]
) -> None:
    """Runs a command; drains the second node once a third of the scans have a foreground mask."""
    log = folder / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(c) for c in command], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    drained = False
    deadline = time.monotonic() + 3600
    while process.poll() is None:
        assert time.monotonic() < deadline, log.read_text()
        if not drained and reached() >= SCANS // 3:
            drain = ["scontrol", "update", "nodename=n2", "state=drain", "reason=test"]
            subprocess.run(drain, env=environment, check=True)
            drained = True
        time.sleep(0.5)
    subprocess.run(["scontrol", "update", "nodename=n2", "state=resume"], env=environment, check=False)
    assert process.returncode == 0, log.read_text()
    assert drained, "the run ended before the node was drained"


def assert_same_masks(found: Callable[[str], Path], many: dict[str, Path], steps: Steps, folder: Path) -> None:
    """Every scan has the mask that the executable makes when called by hand."""
    for name, image in many.items():
        by_hand = folder / f"{name}_by_hand.nii.gz"
        steps("segment-foreground", input=image, output=by_hand)
        assert found(name).read_bytes() == by_hand.read_bytes(), name


def test_nextflow_loses_no_scan_when_a_node_is_drained(
    nextflow: dict[str, str], slurm: dict[str, str], steps: Steps, many: dict[str, Path], tmp_path: Path
) -> None:
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": n, "image": p} for n, p in many.items()])
    fast = tmp_path / "fast.config"
    fast.write_text(
        f"{FAST_NEXTFLOW}process {{ cpus = 1; memory = 1.GB; resourceLimits = [cpus: 1, memory: 1.GB, time: 1.h] }}\n"
        "trace.fields = 'name,status,exit,native_id'\n"
    )
    command = ["nextflow", "run", ROOT / "nextflow", "-profile", "test,slurm", "-c", fast, "-with-trace", "trace.txt"]
    command += ["--input", sheet, "--slurm_queue", "cpu", "--skip_multiqc", "--skip_patches"]
    done = lambda: len(list((tmp_path / "results").glob("*/*_foreground.nii.gz")))  # noqa: E731
    drain_in_the_middle(command, tmp_path, nextflow | slurm, done)
    with (tmp_path / "trace.txt").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len([row for row in rows if row["status"] == "COMPLETED"]) == SCANS * 4
    assert all(row["native_id"].isdigit() for row in rows)
    results = tmp_path / "results"
    assert_same_masks(lambda n: results / n / f"{n}_foreground.nii.gz", many, steps, tmp_path)


def test_snakemake_loses_no_scan_when_a_node_is_drained(
    environment: dict[str, str], slurm: dict[str, str], steps: Steps, many: dict[str, Path], tmp_path: Path
) -> None:
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": n, "image": p} for n, p in many.items()])
    extra = {"crop_patches": f"--patch-shape {PATCH_SHAPE}"}
    values = {"samples": str(sheet), "container": "none", "patches": False, "extra": extra}
    (tmp_path / "config.json").write_text(json.dumps(values))
    profile = tmp_path / "profile"
    shutil.copytree(ROOT / "snakemake" / "profiles" / "slurm", profile)
    # The executables of this checkout instead of an image.
    text = (profile / "config.yaml").read_text().replace("software-deployment-method: [apptainer]\n", "")
    text += FAST_SNAKEMAKE
    (profile / "config.yaml").write_text(text)
    command = ["snakemake", "--snakefile", ROOT / "snakemake" / "Snakefile", "--workflow-profile", profile]
    command += ["--configfile", tmp_path / "config.json", "--default-resources", "slurm_partition=cpu"]
    rules = ("segment_foreground", "segment_anonymization_area", "qa_metrics")
    command += ["--set-threads", *(f"{rule}=1" for rule in rules)]
    command += ["--set-resources", *(f"{rule}:mem_mb=1000" for rule in rules)]
    own = environment | slurm | {"XDG_CACHE_HOME": str(tmp_path / ".cache")}
    done = lambda: len(list((tmp_path / "results").glob("*/*_foreground.nii.gz")))  # noqa: E731
    drain_in_the_middle(command, tmp_path, own, done)
    results = tmp_path / "results"
    assert len(list(results.glob("*/*_area_qa.json"))) == SCANS
    for name in many:
        assert report(results / name / f"{name}_foreground.json")["step"] == "segment-foreground"
    assert_same_masks(lambda n: results / n / f"{n}_foreground.nii.gz", many, steps, tmp_path)


def test_nextflow_makes_the_same_masks_on_slurm_with_apptainer(
    nextflow: dict[str, str],
    slurm: dict[str, str],
    apptainer_image: Path,
    steps: Steps,
    scans: dict[str, Path],
    tmp_path: Path,
) -> None:
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": n, "image": p} for n, p in scans.items()])
    # MultiQC's own image is not at hand; it runs outside.
    local = tmp_path / "local.config"
    local.write_text(FAST_NEXTFLOW + "process { withName: 'MULTIQC' { container = null } }\n")
    command = ["nextflow", "run", ROOT / "nextflow", "-profile", "test,slurm,apptainer", "-c", local]
    command += ["--input", sheet, "--container", apptainer_image, "--slurm_queue", "cpu"]
    done = subprocess.run(
        [str(c) for c in command], cwd=tmp_path, env=nextflow | slurm, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "scan broken was not finished: segment-foreground" in done.stdout
    assert done.stdout.count("was not finished") == 1, done.stdout
    scripts = [path.read_text() for path in (tmp_path / "work").glob("*/*/.command.run")]
    assert all("#SBATCH" in script for script in scripts)
    assert sum("apptainer exec" in script for script in scripts) == len(scripts) - 1
    assert_same_as_by_hand(scans, tmp_path, steps)


def test_snakemake_makes_the_same_masks_on_slurm_with_apptainer(
    environment: dict[str, str],
    slurm: dict[str, str],
    apptainer_image: Path,
    steps: Steps,
    scans: dict[str, Path],
    tmp_path: Path,
) -> None:
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": n, "image": p} for n, p in scans.items()])
    extra = {"crop_patches": f"--patch-shape {PATCH_SHAPE} --minimum-foreground 0.1"}
    values = {"samples": str(sheet), "container": str(apptainer_image), "extra": extra}
    (tmp_path / "config.json").write_text(json.dumps(values))
    profile = tmp_path / "profile"
    shutil.copytree(ROOT / "snakemake" / "profiles" / "slurm", profile)
    with (profile / "config.yaml").open("a") as file:
        file.write(FAST_SNAKEMAKE)
    command = ["snakemake", "--snakefile", ROOT / "snakemake" / "Snakefile", "--workflow-profile", profile]
    command += ["--configfile", tmp_path / "config.json", "--default-resources", "slurm_partition=cpu"]
    folders = {str(path.parent) for path in scans.values()}
    command += ["--apptainer-args", " ".join(f"--bind {folder}" for folder in sorted(folders))]
    # Without this checkout's executables on the PATH.
    own = environment | slurm | {"XDG_CACHE_HOME": str(tmp_path / ".cache")}
    own["PATH"] = environment["PATH"].split(":", 1)[1]
    done = subprocess.run(
        [str(c) for c in command], cwd=tmp_path, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    log = (tmp_path / "logs" / "broken" / "segment_foreground.log").read_text()
    assert "error: " in log and "broken.nii.gz" in log
    assert_same_as_by_hand(scans, tmp_path, steps)


def assert_same_as_by_hand(scans: dict[str, Path], folder: Path, steps: Steps) -> None:
    """Each scan but the broken one has in ``results`` what the executables make when called by hand."""
    for name, path in scans.items():
        if name != "broken":
            by_hand = steps.chain(name, path, folder / "by_hand" / name)
            assert_same_results(name, folder / "results" / name, by_hand)


def test_a_gpu_is_asked_for_as_a_slurm_resource(
    nextflow: dict[str, str], slurm: dict[str, str], scans: dict[str, Path], tmp_path: Path
) -> None:
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": "ct", "image": scans["ct_coarse"]}])
    command = ["nextflow", "run", ROOT / "nextflow", "-profile", "test,slurm,gpu", "-stub", "--input", sheet]
    command += ["--slurm_queue", "cpu", "--slurm_gpu_queue", "gpu", "--skip_multiqc"]
    done = subprocess.run(
        [str(c) for c in command], cwd=tmp_path, env=nextflow | slurm, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    scripts = [path.read_text() for path in (tmp_path / "work").glob("*/*/.command.run")]
    asking = [script for script in scripts if "#SBATCH --gres=gpu:1" in script]
    assert len(asking) == 2
    assert all("#SBATCH -p gpu" in script for script in asking)
