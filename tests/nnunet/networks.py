"""Small nnU-Net v2 result folders for tests, laid out as nnU-Net lays them out.

The weights are really trained, though shortly and by a loop of our own, not by nnUNetv2_train: on
scans that nnU-Net's preprocessor prepared, to tell three ranges of smoothed intensity apart. So
logits have the size and the smoothness that those of a trained network have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.ndimage import gaussian_filter

LABELS = {"background": 0, "dark": 1, "bright": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
RARER_COUNT_MORE = torch.tensor([1.0, 2.0, 4.0])
MOST_FEATURES = 320
UNETS = "dynamic_network_architectures.architectures.unet."


@dataclass(frozen=True)
class Spec:
    """What a network is like; triples follow nnU-Net's axes after its transpose."""

    name: str
    residual: bool
    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    schemes: tuple[str, ...] = ("ZScoreNormalization",)
    within_nonzero: bool = False
    regions: bool = False
    transpose: tuple[int, int, int] = (0, 1, 2)
    reader: str = "SimpleITKIO"
    folds: tuple[str, ...] = ("0",)
    strides: tuple = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    features: int = 4
    blocks: tuple[int, ...] = ()
    """Of each stage; one each where none are given."""
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    labels: dict = field(default_factory=lambda: dict(LABELS))


SPECS = [
    Spec("plain-isotropic-ct", False, (3.0, 3.0, 3.0), (32, 32, 32), ("CTNormalization",)),
    Spec("residual-isotropic", True, (2.5, 2.5, 2.5), (32, 40, 32)),
    Spec(
        "plain-anisotropic", False, (7.0, 2.0, 2.0), (12, 40, 40),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), within_nonzero=True, mirror_axes=(1, 2),
    ),
    Spec(
        "residual-two-channels", True, (3.0, 2.5, 4.0), (32, 32, 24),
        ("ZScoreNormalization", "RescaleTo01Normalization"), transpose=(2, 0, 1),
    ),
    Spec("plain-regions", False, (3.0, 3.0, 3.0), (32, 32, 32), regions=True, labels=dict(REGIONS)),
    Spec(
        "residual-turned-two-folds", True, (3.0, 3.0, 3.0), (24, 32, 32),
        ("NoNormalization",), reader="NibabelIOWithReorient", folds=("0", "1"),
    ),
]


def plans(spec: Spec) -> dict:
    """Contents of plans.json."""
    backward = [spec.transpose.index(axis) for axis in range(3)]
    stages = len(spec.strides)
    blocks = "n_blocks_per_stage" if spec.residual else "n_conv_per_stage"
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    intensities = {
        "max": 1800.0, "mean": 20.0, "median": 30.0, "min": -900.0,
        "percentile_00_5": -800.0, "percentile_99_5": 900.0, "std": 250.0,
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(spec.patch),
        "median_image_size_in_voxels": [80.0, 80.0, 80.0],
        "spacing": list(spec.spacing),
        "normalization_schemes": list(spec.schemes),
        "use_mask_for_norm": [spec.within_nonzero] * len(spec.schemes),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**resampling, "order": 3},
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": UNETS
            + ("ResidualEncoderUNet" if spec.residual else "PlainConvUNet"),
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [
                    min(spec.features * 2**n, MOST_FEATURES) for n in range(stages)
                ],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * stages,
                "strides": [list(stride) for stride in spec.strides],
                blocks: list(spec.blocks) or [1] * stages,
                "n_conv_per_stage_decoder": [1] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": f"Dataset900_{spec.name}",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spec.spacing),
        "original_median_shape_after_transp": [80, 80, 80],
        "image_reader_writer": spec.reader,
        "transpose_forward": list(spec.transpose),
        "transpose_backward": backward,
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(n): intensities for n in range(len(spec.schemes))
        },
    }


def dataset(spec: Spec) -> dict:
    """Contents of dataset.json."""
    content = {
        "channel_names": {str(n): f"channel {n}" for n in range(len(spec.schemes))},
        "labels": spec.labels,
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    if spec.regions:
        content["regions_class_order"] = [1, 2]
    return content


def make(folder: Path, spec: Spec, scans: list[list[Path]], steps: int) -> Path:
    """Writes a result folder; each scan is a list of its channels' files."""
    folder = folder / f"Dataset900_{spec.name}" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans(spec), indent=1))
    (folder / "dataset.json").write_text(json.dumps(dataset(spec), indent=1))
    manager = PlansManager(plans(spec))
    configuration = manager.get_configuration("3d_fullres")
    outputs = manager.get_label_manager(dataset(spec)).num_segmentation_heads
    prepared = [
        DefaultPreprocessor(verbose=False).run_case(
            [str(path) for path in scan], None, manager, configuration, dataset(spec)
        )[0]
        for scan in scans
        if steps
    ]
    for seed, fold in enumerate(spec.folds):
        torch.manual_seed(seed)
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            len(spec.schemes), outputs, allow_init=True, deep_supervision=False,
        )
        if steps:
            train(network, spec, prepared, steps, seed)
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(
            {
                "network_weights": network.state_dict(),
                "trainer_name": "nnUNetTrainer",
                "init_args": {"configuration": "3d_fullres", "fold": fold},
                "inference_allowed_mirroring_axes": spec.mirror_axes or None,
                "current_epoch": 1,
            },
            folder / f"fold_{fold}" / "checkpoint_final.pth",
        )
    return folder


def train(network, spec: Spec, scans: list[np.ndarray], steps: int, seed: int) -> None:
    """Trains for some steps of two windows."""
    random = np.random.default_rng(seed)
    lacking = [[max(0, p - n) for p, n in zip(spec.patch, scan.shape[1:])] for scan in scans]
    scans = [np.pad(s, [(0, 0), *[(0, n) for n in lack]]) for s, lack in zip(scans, lacking)]
    targets = [target(scan[0]) for scan in scans]
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    for _ in range(steps):
        windows, wanted = [], []
        for n in random.integers(len(scans), size=2):
            starts = [random.integers(s - p + 1) for s, p in zip(scans[n].shape[1:], spec.patch)]
            where = tuple(slice(s, s + p) for s, p in zip(starts, spec.patch))
            windows.append(scans[n][(slice(None), *where)])
            wanted.append(targets[n][where])
        logits = network(torch.from_numpy(np.stack(windows)))
        wanted = torch.from_numpy(np.stack(wanted))
        if spec.regions:
            regions = torch.stack([wanted > 0, wanted > 1], 1).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, regions)
        else:
            loss = torch.nn.functional.cross_entropy(logits, wanted, RARER_COUNT_MORE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{spec.name}: loss {loss.item():.3f} after {steps} steps", flush=True)


def target(scan: np.ndarray) -> np.ndarray:
    """0, 1 or 2 by smoothed intensity."""
    smooth = gaussian_filter(scan, 1.5)
    low, high = np.quantile(smooth, [0.5, 0.85])
    return (smooth > low).astype(np.int64) + (smooth > high)
