"""Makes the small case that the Rust tests run: `tests/data/nnunet`.

    python tests/nnunet/golden.py

Needs the environment of models/import with nibabel. A tiny network, trained for a few steps, is
imported; nnU-Net 2.8.1 segments a small scan with it, with and without mirroring, and prepares it.
The scan is a piece of `mr_head_intact` on an oblique, anisotropic grid with zeros around.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("nnUNet_def_n_proc", "1")
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(variable, "/nonexistent")

import nibabel  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from networks import Spec, make  # noqa: E402
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.preprocessing.preprocessors.default_preprocessor import (  # noqa: E402
    DefaultPreprocessor,
)
from volumes import DATA, rotation  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SPEC = Spec(
    "tiny", False, (5.0, 3.0, 2.7), (12, 20, 20), within_nonzero=True,
    strides=((1, 1, 1), (2, 2, 2)),
)


def scan() -> nibabel.Nifti1Image:
    """The scan."""
    whole = np.asarray(nibabel.load(DATA / "mr_head_intact.nii.gz").dataobj).astype(np.int16)
    voxels = np.zeros((36, 40, 15), np.int16)
    voxels[2:34, 1:38, 1:14] = whole[30:62, 45:82, 25:90:5]
    affine = np.eye(4)
    affine[:3, :3] = (rotation(17, 0) @ rotation(-8, 2)) * np.array([-2.0, 2.0, 7.0])
    affine[:3, 3] = [31, -40, 12]
    image = nibabel.Nifti1Image(voxels, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    return image


def main() -> None:
    """Writes the case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=DATA / "nnunet")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    nibabel.save(scan(), output / "scan.nii.gz")
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "scan_0000.nii.gz"
        shutil.copy(output / "scan.nii.gz", path)
        results = make(Path(work), SPEC, [[path]], 700)
        subprocess.run(
            [sys.executable, "-m", "voxmask_import", results, "--output", output / "model",
             "--name", "tiny", "--licence", "Apache-2.0"],
            check=True, cwd=ROOT / "models/import",
        )
        for name, mirroring in (("labels", False), ("labels_mirrored", True)):
            predictor = nnUNetPredictor(
                use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False,
                perform_everything_on_device=False,
            )
            predictor.initialize_from_trained_model_folder(str(results), ("0",))
            predictor.predict_from_files_sequential([[str(path)]], [str(Path(work) / name)])
            shutil.copy(Path(work) / f"{name}.nii.gz", output / f"{name}.nii.gz")
        tensor = DefaultPreprocessor(verbose=False).run_case(
            [str(path)], None, predictor.plans_manager, predictor.configuration_manager,
            predictor.dataset_json,
        )[0]
        np.save(output / "tensor.npy", tensor.astype(np.float32))
        print("tensor", tensor.shape, "sd", tensor.std())


if __name__ == "__main__":
    main()
