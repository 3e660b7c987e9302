"""The images: built here, run hardened, and used by both workflow managers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import DATA, SETUP, not_to_be_had
from steps import PATCH_SHAPE, ROOT, Steps, assert_same_results, write_sheet

TOOLS = ROOT / "target" / "tools"
IMAGE = "localhost/voxmask:test"
MOST_MB = 220


@pytest.fixture(scope="module")
def podman() -> dict[str, str]:
    """Environment of a podman that has the Debian base image."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        not_to_be_had("podman is set up by root with Debian's packages")
    subprocess.run(["bash", SETUP / "containers.sh", TOOLS / "containers"], check=True)
    return {"CONTAINERS_CONF": str(TOOLS / "containers" / "containers.conf")}


@pytest.fixture(scope="module")
def image(podman: dict[str, str], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The CPU image, built from this checkout's executables."""
    context = tmp_path_factory.mktemp("context")
    own = environment | podman
    subprocess.run(["bash", ROOT / "containers" / "context.sh", context], env=own, check=True)
    build = ["podman", "build", "--quiet", "--runtime", "runc", "--network", "host", "--target", "cpu"]
    build += ["--build-arg", "VERSION=test", "--build-arg", "BASE=localhost/debian:bookworm-slim"]
    build += ["--file", str(ROOT / "containers" / "Dockerfile"), "--tag", IMAGE, str(context)]
    subprocess.run(build, env=own, check=True)
    return IMAGE


@pytest.fixture(scope="module")
def archive(image: str, podman: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image as an archive."""
    path = tmp_path_factory.mktemp("archive") / "cpu.tar"
    own = os.environ | podman
    subprocess.run(["podman", "save", "--quiet", "--output", path, image], env=own, check=True)
    return path


@pytest.fixture(scope="module")
def apptainer_image(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image as a SIF file."""
    subprocess.run(["bash", SETUP / "apptainer.sh"], check=True)
    path = tmp_path_factory.mktemp("apptainer") / "voxmask.sif"
    build = ["apptainer", "build", "--mksquashfs-args", "-comp zstd -Xcompression-level 1"]
    build += ["--build-arg", f"image={archive}", str(path), str(ROOT / "containers" / "apptainer.def")]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"apptainer: {path.stat().st_size / 1e6:.0f} MB")
    return path


@pytest.fixture(scope="module")
def docker(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a Docker daemon of our own that has the image."""
    if not shutil.which("dockerd"):
        not_to_be_had("there is no Docker daemon")
    folder = tmp_path_factory.mktemp("docker")
    own = {"DOCKER_HOST": f"unix://{folder}/socket"}
    command = ["dockerd", "--host", own["DOCKER_HOST"], "--pidfile", folder / "pid", "--data-root", folder / "data"]
    command += ["--exec-root", folder / "run", "--bridge", "none", "--iptables=false", "--ip6tables=false"]
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        load = ["docker", "load", "--quiet", "--input", archive]
        for _ in range(60):
            done = subprocess.run(load, env=os.environ | own, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
            time.sleep(1)
        assert done.returncode == 0, done.stderr + (folder / "log").read_text()
        yield own
    finally:
        daemon.terminate()
        daemon.wait(60)


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


def test_podman_runs_the_steps_read_only_offline_as_any_user(
    image: str, podman: dict[str, str], tmp_path: Path
) -> None:
    out = open_folder(tmp_path / "out")
    command = ["podman", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
    command += ["--security-opt", "no-new-privileges", "--user", "12345:12345"]
    command += ["-v", f"{DATA}:/data:ro", "-v", f"{out}:/out"]
    command += ["-v", f"{ROOT / 'containers' / 'smoke.sh'}:/smoke.sh:ro", image, "bash", "/smoke.sh", "/data", "/out"]
    said = smoke(command, os.environ | podman)
    assert "smoke test passed as user 12345" in said
    executables = list((ROOT / "src" / "bin").glob("voxmask-*.rs"))
    assert all(f"{path.stem} " in said for path in executables)
    assert "--device cuda: 69" in said


def test_the_image_is_small_and_says_what_is_in_it(image: str, podman: dict[str, str]) -> None:
    own = os.environ | podman
    inspect = subprocess.run(["podman", "image", "inspect", image], env=own, capture_output=True, text=True, check=True)
    (facts,) = json.loads(inspect.stdout)
    size = facts["Size"] / 1e6
    print(f"cpu image: {size:.0f} MB")
    assert size <= MOST_MB
    labels = facts["Labels"]
    assert labels["org.opencontainers.image.version"] == "test"
    assert "Apache-2.0" in labels["org.opencontainers.image.licenses"]
    assert not facts["Config"].get("Entrypoint") and not facts["Config"].get("User")
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
    chosen = {name: scans[name] for name in ("ct_coarse", "mr_head_intact", "broken")}
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": n, "image": p} for n, p in chosen.items()])
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
    for name, path in chosen.items():
        if name != "broken":
            by_hand = steps.chain(name, path, tmp_path / "by_hand" / name)
            assert_same_results(name, tmp_path / "results" / name, by_hand)


def test_snakemake_makes_the_same_masks_with_apptainer(
    apptainer_image: Path, environment: dict[str, str], steps: Steps, scans: dict[str, Path], tmp_path: Path
) -> None:
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": "ct", "image": scans["ct_coarse"]}])
    extra = {"crop_patches": f"--patch-shape {PATCH_SHAPE} --minimum-foreground 0.1"}
    values = {"samples": str(sheet), "container": str(apptainer_image), "container_cuda": "none", "extra": extra}
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
