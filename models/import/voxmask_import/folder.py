"""Reads an nnU-Net v2 result folder and says what is missing."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import Refused

CHECKPOINT = "checkpoint_final.pth"
# What nnU-Net keeps beside the weights (losses of past epochs) is made of these.
SAFE = [
    np.dtype,
    np.ndarray,
    np._core.multiarray.scalar,
    np._core.multiarray._reconstruct,
    *{type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "u1", "?")},
]
PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Fold:
    """The weights of one fold and how they were trained."""

    name: str
    weights: dict[str, Tensor]
    configuration: str
    trainer: str
    mirror_axes: list[int]
    epochs: int | None
    path: Path


@dataclass(frozen=True)
class ResultFolder:
    """What a result folder holds."""

    plans: dict
    dataset: dict
    folds: list[Fold]


def read_folder(folder: Path, folds: list[str], checkpoint: str, trust: bool) -> ResultFolder:
    """Reads plans, data set and the checkpoints of some folds; `all` is the folder `fold_all`."""
    if not folder.is_dir():
        raise Refused(f"{folder}: is no folder")
    plans, dataset = (read_json(folder / name) for name in ("plans.json", "dataset.json"))
    require(plans, folder / "plans.json", "configurations", "transpose_forward")
    require(dataset, folder / "dataset.json", "labels")
    if "channel_names" not in dataset and "modality" not in dataset:
        raise Refused(f"{folder / 'dataset.json'}: channel_names is missing")
    read = [read_fold(folder, fold, checkpoint, trust) for fold in folds]
    for other in read[1:]:
        if other.configuration != read[0].configuration:
            raise Refused(
                f"{other.path}: is of configuration {other.configuration}, not of "
                f"{read[0].configuration} as the first fold"
            )
    return ResultFolder(plans, dataset, read)


def read_json(path: Path) -> dict:
    """Reads a JSON object."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise Refused(f"{path}: is missing; is this an nnU-Net v2 result folder?") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: is no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise Refused(f"{path}: holds no JSON object")
    return content


def require(content: dict, path: Path, *keys: str) -> None:
    """Refuses an object that lacks a key."""
    for key in keys:
        if key not in content:
            raise Refused(f"{path}: {key} is missing")


def read_fold(folder: Path, fold: str, checkpoint: str, trust: bool) -> Fold:
    """Reads a fold's checkpoint; without `trust` nothing in it is executed."""
    path = folder / f"fold_{fold}" / checkpoint
    if not path.is_file():
        there = sorted(p.name.removeprefix("fold_") for p in folder.glob("fold_*"))
        raise Refused(f"{path}: is missing; folds in this folder: {', '.join(there) or 'none'}")
    try:
        with torch.serialization.safe_globals(SAFE):
            content = torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise Refused(
            f"{path}: holds more than weights, or is damaged; if you trust who made it, pass "
            f"--trust-checkpoint, which lets it run code ({first_line(error)})"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise Refused(f"{path}: is no checkpoint of PyTorch: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise Refused(f"{path}: is no checkpoint of nnU-Net")
    require(content, path, "network_weights", "init_args", "trainer_name")
    require(content["init_args"], path, "configuration")
    return Fold(
        name=fold,
        weights={strip(name): value for name, value in content["network_weights"].items()},
        configuration=content["init_args"]["configuration"],
        trainer=content["trainer_name"],
        mirror_axes=list(content.get("inference_allowed_mirroring_axes") or ()),
        epochs=content.get("current_epoch"),
        path=path,
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def strip(name: str) -> str:
    """A weight's name without what wrappers put before it."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name
