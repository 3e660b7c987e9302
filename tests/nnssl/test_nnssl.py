"""A collected data set through nnssl's own preprocessing; skipped where nnssl is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "data" / "models"
DATASET = "Dataset901_Heads"
SHAPE = (40, 48, 36)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nnssl") is None, reason="nnssl is not installed"
)

# In a process of its own: nnssl reads its folders from the environment when it is imported.
PREPROCESS = """
from nnssl.experiment_planning import plan_and_preprocess_api as api
api.extract_fingerprints([901], num_processes=1, clean=True, verbose=False)
api.plan_experiments([901])
api.preprocess([901], configurations=("onemmiso",), num_processes=1)
"""


def voxmask(step: str, *arguments: object) -> None:
    folder = Path(os.environ.get("VOXMASK_BIN", ROOT / "target" / "release"))
    command = [folder / f"voxmask-{step}", "--quiet", *arguments]
    subprocess.run([str(a) for a in command], check=True)


def save_head(path: Path, seed: int) -> None:
    """Noisy tissue in an ellipsoid of 1 mm voxels; the outermost air is zero."""
    away = [(np.arange(n) - (n - 1) / 2) / (0.4 * n) for n in SHAPE]
    i, j, k = np.meshgrid(*away, indexing="ij")
    rng = np.random.default_rng(seed)
    image = np.where(i**2 + j**2 + k**2 < 1, 600 + 200 * rng.random(SHAPE), 0)
    inner = (slice(2, -2),) * 3
    image[inner] += 20 * rng.random(image[inner].shape)
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.rint(image).astype(np.int16), np.diag([-1, -1, 1, 1])), path)


@pytest.fixture(scope="module", params=["as-named", "exchanged"])
def preprocessed(request, tmp_path_factory) -> tuple[str, Path, Path]:
    """How fields were named, the data set's folder, and nnssl's folder of preprocessed cases."""
    base = tmp_path_factory.mktemp("nnssl")
    for n, masks in enumerate(("both", "foreground", "area"), start=1):
        scan = base / "scans" / f"sub-{n:02}" / "anat" / f"sub-{n:02}_T1w.nii.gz"
        save_head(scan, n)
        for step, name in (("foreground", "foreground"), ("anonymization-area", "area")):
            if masks not in ("both", name):
                continue
            results = base / "results" / f"{n}"
            results.mkdir(parents=True, exist_ok=True)
            voxmask(
                *(f"segment-{step}", "--input", scan, "--model", MODELS / step),
                *("--output", results / f"{name}.nii.gz", "--report", results / f"{name}.json"),
            )
    raw, ready = base / "raw", base / "preprocessed"
    raw.mkdir()
    voxmask(
        *("collect", "--input", base / "scans", "--results", base / "results"),
        *("--output", raw / DATASET, "--nnssl-fields", request.param),
    )
    folders = {"nnssl_raw": raw, "nnssl_preprocessed": ready, "nnssl_results": base / "out"}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    environment = os.environ | {name: str(folder) for name, folder in folders.items()}
    done = subprocess.run(
        [sys.executable, "-c", PREPROCESS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Error processing" not in done.stdout, done.stdout
    return request.param, raw / DATASET, ready / DATASET


def stored(ready: Path, subject: int, suffix: str) -> np.ndarray | None:
    """Voxels [k, j, i] that nnssl stored of a case; ``suffix`` is ``__anat``, ``__anon`` or empty."""
    import blosc2

    name = f"sub-{subject:02}_T1w{suffix}.b2nd"
    found = [path for path in ready.rglob(name)]
    assert len(found) <= 1, found
    return blosc2.open(urlpath=str(found[0]), mode="r")[0] if found else None


def expected(dataset: Path, subject: int, mask: str) -> np.ndarray:
    """A written mask as nnssl crops it: to the non-zero box of the scan, -1 outside what is non-zero."""
    anat = dataset / "OpenMind" / "ds000001" / f"sub-{subject:02}" / "anat"
    stem = f"sub-{subject:02}_T1w"
    image = np.asanyarray(nib.load(anat / f"{stem}.nii.gz").dataobj)
    voxels = np.asanyarray(nib.load(anat / f"{stem}__Data" / mask).dataobj).astype(np.int8)
    inside = ndimage.binary_fill_holes(image != 0)
    voxels[(voxels == 0) & ~inside] = -1
    box = ndimage.find_objects(inside.astype(int))[0]
    return voxels[box].transpose(2, 1, 0)


def test_no_case_is_dropped(preprocessed):
    _, _, ready = preprocessed
    valid = json.loads((ready / "valid_imgs.json").read_text())
    names = sorted(image["image_name"] for image in valid)
    assert names == [f"sub-{n:02}_T1w.nii.gz" for n in (1, 2, 3)]
    assert all(stored(ready, n, "") is not None for n in (1, 2, 3))


def test_stored_masks_are_what_the_table_says(preprocessed):
    fields, dataset, ready = preprocessed
    background, altered = "fb_mask.nii.gz", "deface_mask.nii.gz"
    both = (altered, background) if fields == "as-named" else (background, altered)
    for subject, (anat, anon) in enumerate([both, (background, None), (None, altered)], start=1):
        for suffix, mask in (("__anat", anat), ("__anon", anon)):
            found = stored(ready, subject, suffix)
            if mask is None:
                assert found is None
            else:
                wanted = expected(dataset, subject, mask)
                np.testing.assert_array_equal(np.rint(found), wanted, f"{subject} {suffix}")


def test_where_both_masks_are_given_the_loss_stays_on_the_unaltered_body(preprocessed):
    """nnssl's loss mask, (1 - mask) (1 - anon), holds whichever way the two are stored."""
    _, dataset, ready = preprocessed
    anat, anon = (np.rint(stored(ready, 1, suffix)) == 1 for suffix in ("__anat", "__anon"))
    background = expected(dataset, 1, "fb_mask.nii.gz") == 1
    altered = expected(dataset, 1, "deface_mask.nii.gz") == 1
    np.testing.assert_array_equal(~anat & ~anon, ~background & ~altered)
