"""The Snakemake rules, run by a real Snakemake on this machine, alone and as a module of another workflow."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from steps import PATCH_SHAPE, ROOT, Steps, assert_same_results, report, write_sheet

WORKFLOW = ROOT / "snakemake"
PATCHES = f"--patch-shape {PATCH_SHAPE} --minimum-foreground 0.1"


def snakemake(
    folder: Path, environment: dict[str, str], *arguments: object, expected: int = 0
) -> subprocess.CompletedProcess[str]:
    """Runs Snakemake in a folder, with caches of its own there."""
    command = ["snakemake", "--cores", "2", *(str(a) for a in arguments)]
    own = environment | {"XDG_CACHE_HOME": str(folder / ".cache")}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done


def configuration(sheet: Path, **changes: object) -> dict[str, object]:
    """The workflow's configuration with a sample sheet and small patches."""
    fixed = {"container": "none", "extra": {"crop_patches": PATCHES}}
    return {"samples": str(sheet), **fixed, **changes}


def write_configuration(folder: Path, values: dict[str, object]) -> Path:
    """Writes a configuration; JSON is YAML."""
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("command", [["snakemake", "--lint"], ["snakefmt", "--check", "."]])
def test_linters_find_nothing(environment: dict[str, str], command: list[str]) -> None:
    done = subprocess.run(
        command, cwd=WORKFLOW, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(
    environment: dict[str, str], scans: dict[str, Path], dicom: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run on six scans, of which one is broken, and a DICOM folder."""
    folder = tmp_path_factory.mktemp("snakemake")
    rows: list[dict[str, object]] = [{"id": name, "image": path} for name, path in scans.items()]
    rows.append({"id": "from_dicom", "image": dicom, "modality": "ct"})
    values = configuration(write_sheet(folder / "samples.csv", rows))
    given = ["--snakefile", WORKFLOW / "Snakefile", "--configfile", write_configuration(folder, values)]
    snakemake(folder, environment, *given, "--keep-going", expected=1)
    return folder


def test_masks_are_those_of_the_executables_called_by_hand(
    finished: Path, steps: Steps, scans: dict[str, Path], tmp_path: Path
) -> None:
    for name, image in scans.items():
        if name != "broken":
            by_hand = steps.chain(name, image, tmp_path / name)
            assert_same_results(name, finished / "results" / name, by_hand)


def test_a_broken_scan_says_why_in_its_log_and_the_others_finish(
    finished: Path, scans: dict[str, Path]
) -> None:
    done = {path.name for path in (finished / "results").iterdir() if any(path.glob("*_area_qa.json"))}
    assert done == {*scans, "from_dicom"} - {"broken"}
    log = (finished / "logs" / "broken" / "segment_foreground.log").read_text()
    assert "error: " in log and "broken.nii.gz" in log


def test_the_report_shows_pictures_and_measures(finished: Path, environment: dict[str, str]) -> None:
    # All but the broken scan, which has nothing to show.
    rows = [row for row in (finished / "samples.csv").read_text().splitlines() if not row.startswith("broken")]
    sheet = finished / "finished.csv"
    sheet.write_text("\n".join(rows) + "\n")
    values = configuration(sheet)
    given = ["--snakefile", WORKFLOW / "Snakefile", "--configfile", write_configuration(finished, values)]
    snakemake(finished, environment, *given, "--rerun-triggers", "mtime", "--report", "report.html")
    page = (finished / "report.html").read_text()
    for shown in ("ct_abdomen_foreground.png", "mr_turned_anonymization_area.png", "made by voxmask"):
        assert shown in page


def test_a_network_of_ones_own_gives_the_labels_that_it_gives_by_hand(
    environment: dict[str, str], steps: Steps, tmp_path: Path
) -> None:
    data = ROOT / "tests" / "data" / "nnunet"
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": "one", "image": data / "scan.nii.gz"}])
    values = configuration(sheet, model=str(data / "model"), extra={"segment": "--mirroring on"})
    given = ["--snakefile", WORKFLOW / "Snakefile", "--configfile", write_configuration(tmp_path, values)]
    snakemake(tmp_path, environment, "results/one/one_labels.nii.gz", *given)
    found = tmp_path / "results" / "one"
    by_hand = tmp_path / "by_hand.nii.gz"
    steps("segment", input=data / "scan.nii.gz", model=data / "model", mirroring="on", output=by_hand)
    assert (found / "one_labels.nii.gz").read_bytes() == by_hand.read_bytes()
    assert report(found / "one_labels.json")["config"]["mirroring"] == "on"
    assert (found / "one_labels.png").stat().st_size > 1000
    # Without a model nobody asks for labels.
    write_configuration(tmp_path, configuration(sheet))
    plan = snakemake(tmp_path, environment, *given, "--dry-run", "--forceall")
    assert "rule segment:" not in plan.stdout and "rule segment_foreground:" in plan.stdout


def test_another_workflow_imports_the_rules_from_git(
    environment: dict[str, str], steps: Steps, scans: dict[str, Path], tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(WORKFLOW, repository / "snakemake", ignore=shutil.ignore_patterns(".snakemake"))
    git = ["git", "-C", repository, "-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "a"], ["tag", "v1"]):
        subprocess.run([*git, *arguments], check=True)
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": "ct", "image": scans["ct_coarse"]}])
    (tmp_path / "Snakefile").write_text(
        f"""
module voxmask:
    snakefile: gitfile("{repository}", path="snakemake/Snakefile", tag="v1")
    config: {configuration(sheet)!r}
    pathvars:
        results="foreign/masks",
        logs="foreign/logs"

use rule * from voxmask exclude crop_patches as voxmask_*

use rule crop_patches from voxmask as cut_small_patches with:
    params:
        extra="--patch-shape 16,16,16"

rule collect:
    default_target: True
    input: rules.voxmask_all.input
    output: "foreign/done.txt"
    shell: "ls {{input}} > {{output}}"
"""
    )
    done = snakemake(tmp_path, environment)
    assert "rule cut_small_patches" in done.stderr
    found = tmp_path / "foreign" / "masks" / "ct"
    assert report(found / "ct_patches.json")["config"]["patch_shape"] == [16, 16, 16]
    by_hand = tmp_path / "by_hand.nii.gz"
    steps("segment-foreground", input=scans["ct_coarse"], output=by_hand)
    assert (found / "ct_foreground.nii.gz").read_bytes() == by_hand.read_bytes()
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("changes", "row", "said"),
    [
        ({"unheard_of": 1}, {}, "unheard_of"),
        ({"spacing": "1"}, {}, "spacing"),
        ({"gpu": 1}, {}, "container_cuda"),
        ({}, {"modality": "pet"}, "pet"),
        ({}, {"id": "t/o"}, "t/o"),
    ],
)
def test_what_is_wrong_with_configuration_and_sheet_is_said(
    environment: dict[str, str],
    tmp_path: Path,
    changes: dict[str, object],
    row: dict[str, object],
    said: str,
) -> None:
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": "one", "image": "one.nii.gz"} | row])
    values = configuration(sheet, **changes)
    given = ["--snakefile", WORKFLOW / "Snakefile", "--configfile", write_configuration(tmp_path, values)]
    done = snakemake(tmp_path, environment, *given, "--dry-run", expected=1)
    assert said in done.stdout + done.stderr
