"""Volumes that nibabel wrote, through ``voxmask-resample``, back to nibabel.

A volume put on its own grid must come back voxel for voxel, with the header's words for the grid
bit for bit. Executables are looked for in the folder ``VOXMASK_BIN`` (default ``target/release``).
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("VOXMASK_BIN", ROOT / "target" / "release"))
RESAMPLE = BIN / "voxmask-resample"

TYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
GRID_FIELDS = [
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units",
]  # fmt: skip


def resample(*arguments: object) -> dict:
    """Runs the executable; gives back its report."""
    command = [RESAMPLE, "--report", "-", "--quiet", *arguments]
    done = subprocess.run([str(a) for a in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def onto_itself(path: Path, output: Path) -> nib.Nifti1Image:
    """Puts a volume on its own grid without interpolation."""
    resample(
        "--input", path, "--like", path, "--output", output,
        "--interpolation", "nearest", "--fill-value", "0", "--overwrite",
    )  # fmt: skip
    return nib.load(output)


def random_affine(rng: np.random.Generator, shear: float = 0.0) -> np.ndarray:
    """Index to point, 4×4, mm: any turn, 0.3 to 6 mm, either handedness."""
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn[:, 2] += shear * turn[:, 1]
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.3, 6.0, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return affine


def random_voxels(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values over the whole of a type, as far as ``float32`` tells them apart."""
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return rng.normal(scale=1000, size=shape).astype("f4").astype(dtype)
    info = np.iinfo(dtype)
    low, high = max(info.min, -(2**24)), min(info.max, 2**24)
    return rng.integers(low, high, size=shape, endpoint=True).astype(dtype)


def assert_same_grid(found: nib.Nifti1Image, wanted: nib.Nifti1Image) -> None:
    """Same affine and the same header words, bit for bit."""
    assert np.array_equal(found.affine, wanted.affine)
    for field in GRID_FIELDS:
        assert np.array_equal(found.header[field], wanted.header[field]), field
    assert np.array_equal(found.header["pixdim"][:4], wanted.header["pixdim"][:4])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", ["nii", "nii.gz", "pair", "nifti2.nii.gz"])
def test_every_type_comes_back(tmp_path: Path, kind: str, order: str, layout: str) -> None:
    rng = np.random.default_rng(TYPES.index(kind))
    voxels = random_voxels(rng, kind, (7, 5, 3)).astype(np.dtype(kind).newbyteorder(order))
    klass = {"pair": nib.Nifti1Pair, "nifti2.nii.gz": nib.Nifti2Image}.get(layout, nib.Nifti1Image)
    header = klass.header_class(endianness=order)
    header.set_data_dtype(voxels.dtype)
    image = klass(voxels, random_affine(rng), header, dtype=voxels.dtype)
    image.set_qform(image.affine, code=int(rng.integers(0, 5)))
    image.set_sform(image.affine, code=int(rng.integers(1, 5)))
    path = tmp_path / ("größe.img" if layout == "pair" else f"größe.{layout}")
    nib.save(image, path)
    found = onto_itself(path, tmp_path / "out.nii.gz")
    wanted = nib.load(path)
    assert np.array_equal(found.get_fdata(), wanted.get_fdata())
    assert_same_grid(found, wanted)


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4"])
def test_a_slope_is_kept(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    image = nib.Nifti1Image(random_voxels(rng, kind, (7, 5, 3)), random_affine(rng), dtype=kind)
    image.header.set_slope_inter(0.25, -1024)
    path = tmp_path / "in.nii.gz"
    nib.save(image, path)
    found = onto_itself(path, tmp_path / "out.nii.gz")
    wanted = nib.load(path).get_fdata()
    assert np.allclose(found.get_fdata(), wanted, rtol=1e-6, atol=1e-6)


def test_a_qform_alone_gives_nibabels_affine(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    voxels = random_voxels(rng, "i2", (7, 5, 3))
    for n in range(20):
        image = nib.Nifti1Image(voxels, None)
        image.set_qform(random_affine(rng), code=1)
        image.set_sform(None, code=0)
        path = tmp_path / f"{n}.nii"
        nib.save(image, path)
        report = resample(
            "--input", path, "--orientation", "RAS", "--output", tmp_path / "ras.nii", "--overwrite"
        )
        wanted = nib.load(path)
        assert np.allclose(report["result"]["input"]["affine"], wanted.affine, atol=1e-5)
        assert_same_grid(onto_itself(path, tmp_path / "out.nii"), wanted)


def test_no_form_gives_nibabels_affine(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((7, 5, 3), "i2"), None)
    image.header.set_zooms((2, 3, 4))
    image.set_qform(None, code=0)
    image.set_sform(None, code=0)
    path = tmp_path / "in.nii"
    nib.save(image, path)
    wanted = nib.load(path)
    assert_same_grid(onto_itself(path, tmp_path / "out.nii"), wanted)
    report = resample("--input", path, "--orientation", "RAS", "--output", tmp_path / "ras.nii")
    assert np.allclose(report["result"]["input"]["affine"], wanted.affine)


def test_orientations_are_nibabels(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    voxels = random_voxels(rng, "i2", (7, 5, 3))
    for n in range(60):
        image = nib.Nifti1Image(voxels, random_affine(rng, shear=rng.uniform(0, 0.5)))
        path, output = tmp_path / f"{n}.nii", tmp_path / f"{n}_ras.nii"
        nib.save(image, path)
        report = resample("--input", path, "--orientation", "RAS", "--output", output)
        image = nib.load(path)
        assert report["result"]["input"]["orientation"] == "".join(nib.aff2axcodes(image.affine))
        wanted, found = nib.as_closest_canonical(image), nib.load(output)
        assert np.array_equal(np.asanyarray(found.dataobj), np.asanyarray(wanted.dataobj))
        assert np.allclose(found.affine, wanted.affine, atol=1e-4)
        qform = found.get_qform(coded=True)
        if qform[1]:
            assert np.allclose(qform[0], found.affine, atol=1e-3)


def test_a_series_gives_its_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    image = nib.Nifti1Image(random_voxels(rng, "i2", (7, 5, 3, 4)), random_affine(rng))
    path, output = tmp_path / "series.nii.gz", tmp_path / "frame.nii.gz"
    nib.save(image, path)
    like = tmp_path / "like.nii"
    nib.save(image.slicer[..., 0], like)
    for frame in range(4):
        resample(
            "--input", path, "--like", like, "--frame", frame, "--interpolation", "nearest",
            "--output", output, "--overwrite",
        )  # fmt: skip
        assert np.array_equal(nib.load(output).get_fdata(), image.get_fdata()[..., frame])


def test_one_gzip_member_that_every_reader_takes(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    image = nib.Nifti1Image(random_voxels(rng, "i2", (160, 120, 100)), random_affine(rng))
    path, output = tmp_path / "in.nii", tmp_path / "out.nii.gz"
    nib.save(image, path)
    found = onto_itself(path, output)
    assert np.array_equal(found.get_fdata(), image.get_fdata())
    content = gzip.decompress(output.read_bytes())
    assert len(content) == 352 + 2 * image.shape[0] * image.shape[1] * image.shape[2]


def test_itk_places_what_we_write_where_nibabel_does(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(6)
    for n in range(10):
        image = nib.Nifti1Image(random_voxels(rng, "i2", (7, 5, 3)), random_affine(rng))
        path, output = tmp_path / f"{n}.nii", tmp_path / f"{n}_ras.nii.gz"
        nib.save(image, path)
        resample("--input", path, "--orientation", "RAS", "--output", output)
        affine = nib.load(output).affine
        read = sitk.ReadImage(str(output))
        last = np.array(read.GetSize()) - 1
        corner = np.array(read.TransformIndexToPhysicalPoint(last.tolist())) * (-1, -1, 1)
        assert np.allclose(corner, (affine @ [*last, 1])[:3], atol=1e-3)
