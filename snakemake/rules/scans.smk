# The configuration and the sample sheet, checked, and where each scan's files are.
import csv
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

validate(config, "../schemas/config.schema.yaml")


def read_scans(sheet):
    """The rows of the sample sheet by their id."""
    with open(sheet, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        validate(row, "../schemas/samples.schema.yaml")
    ids = [row["id"] for row in rows]
    if repeated := {name for name in ids if ids.count(name) > 1}:
        raise WorkflowError(
            f"{sheet}: ids are given more than once: {sorted(repeated)}"
        )
    return dict(zip(ids, rows))


scans = read_scans(config["samples"])


wildcard_constraints:
    scan="|".join(scans),
    mask="foreground|anonymization_area",


def beside_sheet(path):
    """A path of the sample sheet; relative ones start at the sheet's folder."""
    return str(Path(config["samples"]).parent / path)


def scan_as_given(wildcards):
    """The scan's file, out of the DICOM folder if it is one."""
    path = beside_sheet(scans[wildcards.scan]["image"])
    if Path(path).is_dir():
        return "<results>/{scan}/{scan}_converted.nii.gz"
    return path


def scan_image(wildcards):
    """The scan on the grid that all steps work on."""
    return (
        "<results>/{scan}/{scan}_resampled.nii.gz"
        if config["spacing"]
        else scan_as_given(wildcards)
    )


def scan_modality(wildcards):
    """Kind of scan, as the sheet gives it."""
    return scans[wildcards.scan].get("modality") or "auto"


def scan_reference(wildcards):
    """What a mask is compared with, if the sheet names it."""
    path = scans[wildcards.scan].get(f"{wildcards.mask}_reference")
    return beside_sheet(path) if path else []


def network_folder(wildcards):
    """Folder of the network whose labels are asked for."""
    if not config["model"]:
        raise WorkflowError("labels are asked for, but the key model names no folder")
    return config["model"]


def device(wildcards, resources):
    """Where a network runs: on a GPU if the job was given one."""
    return "cuda" if resources.get("gpu") else "cpu"


def memory_mb(megabytes):
    """Memory that grows with each attempt [MB]."""
    return lambda wildcards, attempt: megabytes * attempt


network_container = config["container_cuda"] if config["gpu"] else config["container"]
