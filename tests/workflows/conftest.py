"""Engines to run the wrappers with, scans to run them on, and the same steps called by hand.

Executables are looked for in the folder ``VOXMASK_BIN`` (default ``target/release``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import nibabel as nib
import numpy as np
import pytest

from steps import ROOT, Steps

SETUP = Path(__file__).parent / "setup"
DATA = ROOT / "tests" / "data"
TOOLS = ROOT / "target" / "tools"
IMAGE = "localhost/voxmask:test"


def not_to_be_had(what: str) -> NoReturn:
    """Skips, saying why; in CI nothing may be skipped."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI skips nothing")
    pytest.skip(what)


def set_up(script: str, *arguments: object) -> None:
    """Runs a script of ``setup``; what it cannot set up is not to be had."""
    command = ["bash", SETUP / script, *arguments]
    # A file, not a pipe, which daemons that a script starts could keep open.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run([str(c) for c in command], stdout=said, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            said.seek(0)
            not_to_be_had(f"setup/{script} failed: {said.read().strip()[-500:]}")


@pytest.fixture(scope="session")
def steps() -> Steps:
    """The executables, called by hand."""
    folder = Path(os.environ.get("VOXMASK_BIN", ROOT / "target" / "release"))
    return Steps(folder.resolve())


@pytest.fixture(scope="session")
def environment(steps: Steps) -> dict[str, str]:
    """Environment with the executables and the tools of this Python environment on the PATH."""
    tools = Path(sys.executable).parent
    path = f"{steps.folder}:{tools}:{os.environ['PATH']}"
    # MultiQC and Snakemake ask the network for newer versions otherwise.
    return os.environ | {"PATH": path, "MULTIQC_NO_VERSION_CHECK": "true", "NO_COLOR": "1"}


@pytest.fixture(scope="session")
def nextflow(environment: dict[str, str]) -> dict[str, str]:
    """Environment with a Nextflow on the PATH."""
    if not shutil.which("java") or not shutil.which("mvn"):
        not_to_be_had("Nextflow needs Java 17 and Maven")
    folder = TOOLS / "nextflow"
    set_up("nextflow.sh", folder)
    return environment | {"PATH": f"{folder}:{environment['PATH']}"}


@pytest.fixture(scope="session")
def scans(steps: Steps, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Six real scans by id, CT and MR; the last, ``broken``, ends in the middle."""
    folder = tmp_path_factory.mktemp("scans")
    found = {name: DATA / f"{name}.nii.gz" for name in ("ct_abdomen", "mr_head_intact", "mr_head_defaced")}
    found["ct_coarse"] = folder / "ct_coarse.nii.gz"
    steps("resample", input=found["ct_abdomen"], spacing="5,5,6", output=found["ct_coarse"])
    found["mr_turned"] = folder / "mr_turned.nii.gz"
    steps("resample", input=found["mr_head_defaced"], orientation="PIR", output=found["mr_turned"])
    found["broken"] = folder / "broken.nii.gz"
    whole = found["ct_abdomen"].read_bytes()
    found["broken"].write_bytes(whole[: len(whole) // 2])
    return found


@pytest.fixture(scope="session")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the CT of ``tests/data`` as one DICOM series, axial, a file a slice."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder = tmp_path_factory.mktemp("dicom") / "series"
    folder.mkdir()
    scan = nib.load(DATA / "ct_abdomen.nii.gz")
    voxels = np.asarray(scan.dataobj).astype(np.int16)
    # RAS+ to DICOM's LPS+: i and j run the other way, so the first voxel is the last in both.
    voxels = voxels[::-1, ::-1, :]
    affine = scan.affine @ np.array(
        [[-1, 0, 0, voxels.shape[0] - 1], [0, -1, 0, voxels.shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    origin = np.diag([-1, -1, 1]) @ affine[:3, 3]
    spacing = np.abs(np.diag(affine)[:3])
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(voxels.shape[2]):
        item = Dataset()
        item.file_meta = FileMetaDataset()
        item.file_meta.MediaStorageSOPClassUID = CTImageStorage
        item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.SOPClassUID = CTImageStorage
        item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID
        item.PatientName, item.PatientID = "Planted^Name", "planted-id"
        item.Modality, item.Manufacturer = "CT", "none"
        item.SeriesDescription = "planted description"
        item.StudyInstanceUID, item.SeriesInstanceUID, item.FrameOfReferenceUID = study, series, frame
        item.SeriesNumber, item.InstanceNumber, item.StudyID = 3, k + 1, "1"
        item.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        item.Rows, item.Columns = voxels.shape[1], voxels.shape[0]
        item.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        item.SliceThickness = float(spacing[2])
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        item.ImagePositionPatient = [float(v) for v in origin + [0, 0, k * spacing[2]]]
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 1
        item.RescaleIntercept, item.RescaleSlope, item.RescaleType = 0, 1, "HU"
        item.PixelData = np.ascontiguousarray(voxels[:, :, k].T).tobytes()
        item.save_as(folder / f"{k:03}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture(scope="session")
def podman() -> dict[str, str]:
    """Environment of a podman that has the Debian base image."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        not_to_be_had("podman is set up by root with Debian's packages")
    set_up("containers.sh", TOOLS / "containers")
    return {"CONTAINERS_CONF": str(TOOLS / "containers" / "containers.conf")}


@pytest.fixture(scope="session")
def image(podman: dict[str, str], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The CPU image, built from this checkout's executables."""
    return build_image("cpu", IMAGE, environment | podman, tmp_path_factory.mktemp("context"))


@pytest.fixture(scope="session")
def cuda_image(
    podman: dict[str, str], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The CUDA image, which goes when the tests end: it fills gigabytes."""
    if not os.environ.get("VOXMASK_TEST_CUDA_IMAGE"):
        pytest.skip("the CUDA image is made of 1.6 GB of wheels: VOXMASK_TEST_CUDA_IMAGE=1 asks for it")
    context = tmp_path_factory.mktemp("context_cuda")
    own = environment | podman
    yield build_image("cuda", f"{IMAGE}-cuda", own, context)
    subprocess.run(["podman", "rmi", f"{IMAGE}-cuda"], env=own, check=False)
    shutil.rmtree(context)


def build_image(target: str, tag: str, environment: dict[str, str], context: Path) -> str:
    """Builds one of the Dockerfile's targets; gives back the tag."""
    layout = ["bash", ROOT / "containers" / "context.sh", context, *(["cuda"] if target == "cuda" else [])]
    subprocess.run(layout, env=environment, check=True)
    build = ["podman", "build", "--quiet", "--runtime", "runc", "--network", "host", "--target", target]
    build += ["--build-arg", "VERSION=test", "--build-arg", "BASE=localhost/debian:bookworm-slim"]
    build += ["--file", str(ROOT / "containers" / "Dockerfile"), "--tag", tag, str(context)]
    subprocess.run(build, env=environment, check=True)
    return tag


@pytest.fixture(scope="session")
def archive(image: str, podman: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image as an archive."""
    path = tmp_path_factory.mktemp("archive") / "cpu.tar"
    own = os.environ | podman
    subprocess.run(["podman", "save", "--quiet", "--output", path, image], env=own, check=True)
    return path


@pytest.fixture(scope="session")
def apptainer_image(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image as a SIF file."""
    set_up("apptainer.sh")
    path = tmp_path_factory.mktemp("apptainer") / "voxmask.sif"
    build = ["apptainer", "build", "--mksquashfs-args", "-comp zstd -Xcompression-level 1"]
    build += ["--build-arg", f"image={archive}", str(path), str(ROOT / "containers" / "apptainer.def")]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"apptainer: {path.stat().st_size / 1e6:.0f} MB")
    return path


@pytest.fixture(scope="session")
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
            if done.returncode == 0 or daemon.poll() is not None:
                break
            time.sleep(1)
        if daemon.poll() is not None:
            not_to_be_had(f"Docker's daemon does not start: {(folder / 'log').read_text()[-500:]}")
        assert done.returncode == 0, done.stderr + (folder / "log").read_text()
        yield own
    finally:
        daemon.terminate()
        daemon.wait(60)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a running Slurm; both nodes are idle before, and gone afterwards."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        not_to_be_had("Slurm is set up by root with Debian's packages")
    folder = tmp_path_factory.mktemp("slurm")
    own = {"SLURM_CONF": str(folder / "slurm.conf")}
    set_up("slurm.sh", "up", folder)
    yield own
    subprocess.run(["bash", SETUP / "slurm.sh", "down", folder], check=True)
