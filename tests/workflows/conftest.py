"""Engines to run the wrappers with, scans to run them on, and the same steps called by hand.

Executables are looked for in the folder ``VOXMASK_BIN`` (default ``target/release``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import nibabel as nib
import numpy as np
import pytest

from steps import ROOT, Steps

SETUP = Path(__file__).parent / "setup"
DATA = ROOT / "tests" / "data"


def not_to_be_had(what: str) -> NoReturn:
    """Skips, saying why; in CI nothing may be skipped."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI skips nothing")
    pytest.skip(what)


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
    folder = ROOT / "target" / "tools" / "nextflow"
    subprocess.run(["bash", SETUP / "nextflow.sh", folder], check=True)
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
