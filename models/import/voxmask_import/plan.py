"""What plans and data set say, in the words of a voxmask card; what it cannot say is refused."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from .errors import Refused
from .folder import ResultFolder

# Readers that take a scan as its file has it, and those that turn it.
READERS = {
    "SimpleITKIO": "stored",
    "NibabelIO": "stored",
    "NibabelIOWithReorient": "RAS",
    "SimpleITKIOWithReorient": "RAS",
}
RESAMPLING = "resample_data_or_seg_to_shape"
SLICES = {None: "anisotropic", True: "always", False: "never"}
THRESHOLD = 3
STEP = 0.5
SIGMA = 0.125


def configuration(folder: ResultFolder) -> tuple[PlansManager, ConfigurationManager]:
    """The plans, and the configuration that the folds were trained with."""
    name = folder.folds[0].configuration
    plans = PlansManager(folder.plans)
    if name not in plans.available_configurations:
        raise Refused(f"plans.json: the configuration {name} is missing")
    found = plans.get_configuration(name)
    if found.previous_stage_name is not None:
        raise Refused(
            f"{name} is the second stage of a cascade; only networks that need no other one "
            "before them can be imported (3d_fullres, 3d_lowres)"
        )
    if len(found.patch_size) != 3:
        raise Refused(f"{name} is a 2-D network; only 3-D ones can be imported")
    return plans, found


def input_of(folder: ResultFolder, plans: PlansManager, found: ConfigurationManager) -> dict:
    """The card's `input`."""
    reader = folder.plans.get("image_reader_writer")
    if reader not in READERS:
        raise Refused(f"the reader {reader} is unknown; known are {', '.join(READERS)}")
    if found.preprocessor_name != "DefaultPreprocessor":
        raise Refused(
            f"the preprocessor {found.preprocessor_name} is unknown; known is DefaultPreprocessor"
        )
    return {
        "orientation": READERS[reader],
        # nnU-Net's arrays have the axes k, j, i.
        "axes": [2 - axis for axis in plans.transpose_forward],
        "spacing_mm": [float(mm) for mm in found.spacing],
        "slices": slices(found),
        "channels": channels(folder, plans, found),
    }


def slices(found: ConfigurationManager) -> str:
    """When an axis is resampled by itself; images and logits must follow the same rule."""
    rules = set()
    for what, order in (("data", 3), ("probabilities", 1)):
        function = found.configuration[f"resampling_fn_{what}"]
        if function != RESAMPLING:
            raise Refused(f"the resampling {function} is unknown; known is {RESAMPLING}")
        options = dict(found.configuration[f"resampling_fn_{what}_kwargs"])
        rules.add(options.get("force_separate_z", False))
        for key, wanted, default in (
            ("order", order, 3),
            ("order_z", 0, 0),
            ("is_seg", False, False),
            ("separate_z_anisotropy_threshold", THRESHOLD, THRESHOLD),
        ):
            if options.get(key, default) != wanted:
                raise Refused(
                    f"the resampling of {what} has {key} {options.get(key, default)}; "
                    f"only {wanted} is known"
                )
    if len(rules) > 1:
        raise Refused("images and logits are resampled by different rules (force_separate_z)")
    return SLICES[rules.pop()]


def channels(folder: ResultFolder, plans: PlansManager, found: ConfigurationManager) -> list[dict]:
    """One entry a channel."""
    names = folder.dataset.get("channel_names") or folder.dataset["modality"]
    schemes, masks = found.normalization_schemes, found.use_mask_for_norm
    if not len(names) == len(schemes) == len(masks):
        raise Refused(f"dataset.json has {len(names)} channels, plans.json {len(schemes)}")
    intensities = plans.foreground_intensity_properties_per_channel
    ordered = [names[key] for key in sorted(names, key=int)]
    return [
        {"name": str(name), "normalization": scheme(kind, masks[n], intensities.get(str(n)))}
        for n, (name, kind) in enumerate(zip(ordered, schemes))
    ]


def scheme(kind: str, within_nonzero: bool, intensities: dict | None) -> dict[str, Any]:
    """How a channel is normalised."""
    match kind:
        case "ZScoreNormalization":
            return {"kind": "z-score", "within_nonzero": bool(within_nonzero)}
        case "CTNormalization" if intensities:
            keys = ("percentile_00_5", "percentile_99_5", "mean", "std")
            low, high, mean, sd = (float(intensities[key]) for key in keys)
            return {"kind": "ct", "low": low, "high": high, "mean": mean, "sd": sd}
        case "RescaleTo01Normalization":
            return {"kind": "rescale"}
        case "RGBTo01Normalization":
            return {"kind": "rgb"}
        case "NoNormalization":
            return {"kind": "none"}
    raise Refused(f"the normalisation {kind} is unknown, or its intensities are missing")


def window_of(folder: ResultFolder, found: ConfigurationManager) -> dict:
    """The card's `window`."""
    axes = folder.folds[0].mirror_axes
    return {
        "shape": [int(n) for n in found.patch_size],
        "step": STEP,
        "sigma": SIGMA,
        "mirror_axes": [int(axis) for axis in axes],
    }


def output_of(folder: ResultFolder, plans: PlansManager) -> dict:
    """The card's `output`."""
    if folder.plans.get("label_manager", "LabelManager") != "LabelManager":
        raise Refused(f"the label manager {folder.plans['label_manager']} is unknown")
    manager = plans.get_label_manager(folder.dataset)
    labels = {
        name: value for name, value in folder.dataset["labels"].items() if name != "ignore"
    }
    if manager.has_regions:
        # A region's name is that of its entry; the label it gets may be any.
        names = [name for name, value in labels.items() if value not in (0, [0])]
        order = manager.regions_class_order
        if order is None or len(order) != len(names):
            raise Refused("dataset.json: regions_class_order does not fit the regions")
        classes = [{"name": n, "label": int(label)} for n, label in zip(names, order)]
        return {"logits": "logits", "decision": "regions", "classes": classes}
    by_value = {value[0] if isinstance(value, list) else value: n for n, value in labels.items()}
    classes = [
        {"name": by_value[value], "label": n} for n, value in enumerate(manager.all_labels)
    ]
    return {"logits": "logits", "decision": "highest", "classes": classes}
