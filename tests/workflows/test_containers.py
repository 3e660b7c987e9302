"""The images: built here, run hardened, and used by both workflow managers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from conftest import DATA
from steps import PATCH_SHAPE, ROOT, Steps, assert_same_results, write_sheet

MOST_MB = 220
MOST_MB_CUDA = 2800


def open_folder(path: Path) -> Path:
    """A folder that any user may write."""
    path.mkdir()
    path.chmod(0o777)
    return path


def smoke(command: list[object], environment: dict[str, str]) -> str:
    """Runs the smoke test in an image."""
    done = subprocess.run(
        [str(c) for c in command], env=environment, capture_output=True, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def hardened(image: str, out: Path, podman: dict[str, str]) -> str:
    """Runs the smoke test in an image, with a read-only root, without network, as a user of no name."""
    command = ["podman", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    command += ["--security-opt", "no-new-privileges", "--user", "12345:12345"]
    command += ["-v", f"{DATA}:/data:ro", "-v", f"{open_folder(out)}:/out"]
    command += ["-v", f"{ROOT / 'containers' / 'smoke.sh'}:/smoke.sh:ro", image, "bash", "/smoke.sh", "/data", "/out"]
    return smoke(command, os.environ | podman)


def facts(image: str, podman: dict[str, str]) -> dict:
    """What podman knows of an image."""
    command = ["podman", "image", "inspect", image]
    printed = subprocess.run(command, env=os.environ | podman, capture_output=True, text=True, check=True).stdout
    return json.loads(printed)[0]


def test_podman_runs_the_steps_read_only_offline_as_any_user(
    image: str, podman: dict[str, str], steps: Steps, tmp_path: Path
) -> None:
    said = hardened(image, tmp_path / "out", podman)
    assert "smoke test passed as user 12345" in said
    executables = list((ROOT / "src" / "bin").glob("voxmask-*.rs"))
    assert all(f"{path.stem} " in said for path in executables)
    assert "--device cuda: 69" in said
    by_hand = tmp_path / "by_hand.nii.gz"
    steps("segment-foreground", input=DATA / "ct_abdomen.nii.gz", output=by_hand)
    assert (tmp_path / "out" / "ct_abdomen" / "foreground.nii.gz").read_bytes() == by_hand.read_bytes()


def test_the_cuda_image_runs_on_the_cpu_and_names_a_gpu_that_is_not_there(
    cuda_image: str, podman: dict[str, str], tmp_path: Path
) -> None:
    size = facts(cuda_image, podman)["Size"] / 1e6
    print(f"cuda image: {size:.0f} MB")
    assert size <= MOST_MB_CUDA
    said = hardened(cuda_image, tmp_path / "out", podman)
    assert "smoke test passed as user 12345" in said
    if not Path("/dev/nvidia0").exists():
        assert "--device cuda: 69" in said and "libcuda.so.1" in said and "apptainer --nv" in said
    # All that NVIDIA's libraries and the GPU's part of ONNX Runtime link to is there, but for the driver.
    # cuDNN is loaded when it is called, and linked to by neither.
    listing = "ls /opt/cuda; for library in /opt/cuda/*.so*; do ldd $library; done"
    run = ["podman", "run", "--rm", "--network", "none", cuda_image, "sh", "-c", listing]
    linked = subprocess.run(run, env=os.environ | podman, capture_output=True, text=True, check=True).stdout
    missing = {line.split()[0] for line in linked.splitlines() if "not found" in line}
    assert "libcudnn.so" in linked and "libcublas.so" in linked and missing <= {"libcuda.so.1"}, linked


def test_the_image_is_small_and_says_what_is_in_it(image: str, podman: dict[str, str]) -> None:
    own = os.environ | podman
    known = facts(image, podman)
    size = known["Size"] / 1e6
    print(f"cpu image: {size:.0f} MB")
    assert size <= MOST_MB
    labels = known["Labels"]
    assert labels["org.opencontainers.image.version"] == "test"
    assert "Apache-2.0" in labels["org.opencontainers.image.licenses"]
    assert not known["Config"].get("Entrypoint") and not known["Config"].get("User")
    run = ["podman", "run", "--rm", "--network", "none", image, "cat", "/usr/local/share/doc/voxmask/sbom.cdx.json"]
    printed = subprocess.run(run, env=own, capture_output=True, text=True, check=True).stdout
    listed = {component["name"] for component in json.loads(printed)["components"]}
    assert {"ort", "nifti", "onnxruntime", "dcm2niix"} <= listed
    assert "proptest" not in listed


def test_apptainer_runs_the_steps_offline(apptainer_image: Path, tmp_path: Path) -> None:
    out = open_folder(tmp_path / "out")
    command = ["apptainer", "exec", "--containall", "--net", "--network", "none"]
    command += ["--bind", f"{DATA}:/data:ro", "--bind", f"{out}:/out"]
    command += ["--bind", f"{ROOT / 'containers' / 'smoke.sh'}:/smoke.sh:ro"]
    said = smoke([*command, apptainer_image, "bash", "/smoke.sh", "/data", "/out"], dict(os.environ))
    assert "smoke test passed" in said


@pytest.mark.parametrize("engine", ["podman", "docker", "apptainer"])
def test_nextflow_makes_the_same_masks_in_containers(
    engine: str,
    request: pytest.FixtureRequest,
    nextflow: dict[str, str],
    podman: dict[str, str],
    steps: Steps,
    scans: dict[str, Path],
    tmp_path: Path,
) -> None:
    container = request.getfixturevalue("apptainer_image" if engine == "apptainer" else "image")
    running = request.getfixturevalue("docker") if engine == "docker" else podman
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": n, "image": p} for n, p in scans.items()])
    # MultiQC's own image is not at hand; it runs outside.
    local = tmp_path / "local.config"
    local.write_text("process { withName: 'MULTIQC' { container = null } }\n")
    command = ["nextflow", "run", ROOT / "nextflow", "-profile", f"test,{engine}", "-c", local, "-with-trace"]
    command += ["--input", sheet, "--container", container]
    own = nextflow | running
    done = subprocess.run(
        [str(c) for c in command], cwd=tmp_path, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "scan broken was not finished: segment-foreground" in done.stdout
    assert done.stdout.count("was not finished") == 1, done.stdout + (tmp_path / ".nextflow.log").read_text()
    scripts = [path.read_text() for path in (tmp_path / "work").glob("*/*/.command.run")]
    assert any(f"{engine} run" in script or f"{engine} exec" in script for script in scripts)
    for name, path in scans.items():
        if name != "broken":
            by_hand = steps.chain(name, path, tmp_path / "by_hand" / name)
            assert_same_results(name, tmp_path / "results" / name, by_hand)


def test_snakemake_makes_the_same_masks_with_apptainer(
    apptainer_image: Path, environment: dict[str, str], steps: Steps, scans: dict[str, Path], tmp_path: Path
) -> None:
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": "ct", "image": scans["ct_coarse"]}])
    extra = {"crop_patches": f"--patch-shape {PATCH_SHAPE} --minimum-foreground 0.1"}
    values = {"samples": str(sheet), "container": str(apptainer_image), "extra": extra}
    (tmp_path / "config.json").write_text(json.dumps(values))
    command = ["snakemake", "--cores", "2", "--snakefile", ROOT / "snakemake" / "Snakefile", "--sdm", "apptainer"]
    command += ["--apptainer-args", f"--bind {scans['ct_coarse'].parent}", "--configfile", tmp_path / "config.json"]
    # Without this checkout's executables on the PATH.
    own = environment | {"PATH": environment["PATH"].split(":", 1)[1], "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    done = subprocess.run(
        [str(c) for c in command], cwd=tmp_path, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    by_hand = steps.chain("ct", scans["ct_coarse"], tmp_path / "by_hand")
    assert_same_results("ct", tmp_path / "results" / "ct", by_hand)
