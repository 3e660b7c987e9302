"""Folders that cannot be imported: each message names what is missing."""

import json
import sys
from pathlib import Path

import pytest
import torch

from voxmask_import import plan
from voxmask_import.errors import Refused
from voxmask_import.folder import read_folder

sys.path.append(str(Path(__file__).resolve().parents[3] / "tests" / "nnunet"))
from networks import SPECS, dataset, plans  # noqa: E402

SPEC = SPECS[0]


def result_folder(path: Path, change_plans=lambda plans: None, dataset_json=None) -> Path:
    """A result folder with a checkpoint that holds one number."""
    content = plans(SPEC)
    change_plans(content)
    (path / "plans.json").write_text(json.dumps(content))
    (path / "dataset.json").write_text(json.dumps(dataset_json or dataset(SPEC)))
    (path / "fold_0").mkdir()
    torch.save(
        {
            "network_weights": {"_orig_mod.weight": torch.zeros(1)},
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres"},
        },
        path / "fold_0" / "checkpoint_final.pth",
    )
    return path


def read(path: Path):
    """Reads fold 0."""
    return read_folder(path, ["0"], "checkpoint_final.pth", False)


@pytest.mark.parametrize("name", ["plans.json", "dataset.json", "fold_0/checkpoint_final.pth"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = result_folder(tmp_path)
    (folder / name).unlink()
    with pytest.raises(Refused, match=name):
        read(folder)


def test_a_missing_fold_names_those_that_are_there(tmp_path):
    folder = result_folder(tmp_path)
    with pytest.raises(Refused, match="fold_3.*folds in this folder: 0"):
        read_folder(folder, ["3"], "checkpoint_final.pth", False)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    folder = result_folder(tmp_path)
    ran = tmp_path / "ran"

    class Code:
        def __reduce__(self):
            return (Path.touch, (ran,))

    torch.save({"network_weights": Code()}, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(Refused, match="--trust-checkpoint"):
        read(folder)
    assert not ran.exists()


def test_a_damaged_checkpoint_is_refused(tmp_path):
    folder = result_folder(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Refused, match="checkpoint_final.pth"):
        read(folder)


def test_wrappers_of_weights_are_taken_off(tmp_path):
    assert list(read(result_folder(tmp_path)).folds[0].weights) == ["weight"]


def configured(**changes):
    """A change of the configuration in plans.json."""
    return lambda content: content["configurations"]["3d_fullres"].update(changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (configured(previous_stage="3d_lowres"), "cascade"),
        (configured(patch_size=[32, 32]), "2-D"),
        (configured(preprocessor_name="MyPreprocessor"), "MyPreprocessor"),
        (configured(resampling_fn_data="resample_torch_simple"), "resample_torch_simple"),
        (configured(normalization_schemes=["MyScheme"]), "MyScheme"),
        (lambda content: content.update(image_reader_writer="Tiff3DIO"), "Tiff3DIO"),
    ],
)
def test_what_a_card_cannot_say_is_refused(tmp_path, change, said):
    folder = read(result_folder(tmp_path, change))
    with pytest.raises(Refused, match=said):
        plan.input_of(folder, *plan.configuration(folder))


def test_regions_keep_their_names_and_order(tmp_path):
    spec = next(spec for spec in SPECS if spec.regions)
    folder = read(result_folder(tmp_path, dataset_json=dataset(spec)))
    output = plan.output_of(folder, plan.configuration(folder)[0])
    assert output["decision"] == "regions"
    assert output["classes"] == [{"name": "whole", "label": 1}, {"name": "core", "label": 2}]


def test_axes_and_spacing_follow_the_transpose(tmp_path):
    spec = next(spec for spec in SPECS if spec.transpose != (0, 1, 2))
    folder = result_folder(tmp_path, lambda content: content.update(plans(spec)))
    (folder / "dataset.json").write_text(json.dumps(dataset(spec)))
    folder = read(folder)
    found = plan.input_of(folder, *plan.configuration(folder))
    # nnU-Net's axes 2, 0, 1 of (k, j, i) are i, k, j.
    assert found["axes"] == [0, 2, 1]
    assert found["spacing_mm"] == [3.0, 2.5, 4.0]
