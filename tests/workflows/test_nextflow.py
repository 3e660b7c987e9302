"""The Nextflow modules and the pipeline, run by a real Nextflow on this machine."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
import yaml

from steps import PATCH_SHAPE, ROOT, Steps, assert_same_results, report, write_sheet

PIPELINE = ROOT / "nextflow"
STEPS_OF_A_SCAN = 5


def run(
    folder: Path, environment: dict[str, str], *arguments: object, profile: str = "test", expected: int = 0
) -> subprocess.CompletedProcess[str]:
    """Runs the pipeline in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        command(*arguments, profile=profile), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done


def command(*arguments: object, profile: str = "test") -> list[str]:
    """The command line that runs the pipeline with a trace."""
    fixed = ["nextflow", "run", PIPELINE, "-profile", profile, "-with-trace", "trace.txt"]
    return [str(a) for a in (*fixed, *arguments)]


def trace(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's trace, one a task."""
    with (folder / "trace.txt").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def table(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of the pipeline's table by the id of their scan."""
    with (folder / "results" / "scans.tsv").open() as file:
        return {row["id"]: row for row in csv.DictReader(file, delimiter="\t")}


def test_lint_finds_nothing(nextflow: dict[str, str]) -> None:
    done = subprocess.run(
        ["nextflow", "lint", "-o", "json", PIPELINE], env=nextflow, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["errors"] == []
    assert found["summary"]["filesWithErrors"] == 0


@pytest.fixture(scope="module")
def finished(
    nextflow: dict[str, str], scans: dict[str, Path], dicom: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A run on six scans, of which one is broken, and a DICOM folder: its folder and its log."""
    folder = tmp_path_factory.mktemp("nextflow")
    reference = folder / "reference.nii.gz"
    steps = Steps(Path(nextflow["PATH"].split(":")[1]))
    steps("segment-foreground", input=scans["ct_abdomen"], output=reference)
    rows: list[dict[str, object]] = [{"id": name, "image": path} for name, path in scans.items()]
    rows[0] |= {"modality": "ct", "foreground_reference": "reference.nii.gz"}
    rows.append({"id": "from_dicom", "image": dicom, "modality": "ct"})
    sheet = write_sheet(folder / "samples.csv", rows)
    # A scan was left out: exit code 1.
    done = run(folder, nextflow, "--input", sheet, expected=1)
    return folder, done.stdout


def test_masks_are_those_of_the_executables_called_by_hand(
    finished: tuple[Path, str], steps: Steps, scans: dict[str, Path], tmp_path: Path
) -> None:
    folder, _ = finished
    for name, image in scans.items():
        if name != "broken":
            given = {"modality": "ct", "foreground": folder / "reference.nii.gz"} if name == "ct_abdomen" else {}
            by_hand = steps.chain(name, image, tmp_path / name, **given)
            assert_same_results(name, folder / "results" / name, by_hand)


def test_a_broken_scan_is_named_and_the_others_finish(
    finished: tuple[Path, str], scans: dict[str, Path]
) -> None:
    folder, log = finished
    rows = table(folder)
    assert rows.keys() == {*scans, "from_dicom"}
    assert {name for name, row in rows.items() if row["failed_step"]} == {"broken"}
    assert rows["broken"]["failed_step"] == "segment-foreground"
    assert "scan broken was not finished: segment-foreground failed" in log
    failed = [row for row in trace(folder) if row["status"] == "FAILED"]
    assert [(row["name"], row["exit"]) for row in failed] == [("SCANMASKS:SEGMENTFOREGROUND (broken)", "65")]


def test_the_table_holds_what_the_reports_say(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    row = table(folder)["ct_abdomen"]
    said = report(folder / "results" / "ct_abdomen" / "ct_abdomen_foreground.json")["result"]
    assert float(row["foreground_ml"]) == said["foreground"]["volume_ml"]
    # Its reference is what the executable found, so it cannot but agree.
    assert float(row["foreground_dice"]) == 1.0
    assert row["anonymization_area_dice"] == ""


def test_a_dicom_folder_is_converted_first(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    results = folder / "results"
    from_dicom = report(results / "from_dicom" / "from_dicom_foreground.json")["result"]
    from_nifti = report(results / "ct_abdomen" / "ct_abdomen_foreground.json")["result"]
    assert sorted(from_dicom["input"]["shape"]) == sorted(from_nifti["input"]["shape"])
    # The same voxels in another order of the axes: the same body.
    assert from_dicom["foreground"]["volume_ml"] == pytest.approx(
        from_nifti["foreground"]["volume_ml"], rel=0.01
    )
    for path in results.rglob("*"):
        if path.is_file() and path.suffix != ".html":
            assert b"lanted" not in path.read_bytes(), path


def test_multiqc_shows_every_scan_and_the_versions(finished: tuple[Path, str], steps: Steps) -> None:
    folder, _ = finished
    page = (folder / "results" / "multiqc" / "multiqc_report.html").read_text()
    data = folder / "results" / "multiqc" / "multiqc_report_data" / "multiqc_voxmask_scans_table.txt"
    shown = {line.split("\t")[0] for line in data.read_text().splitlines()[1:]}
    assert shown == set(table(folder))
    assert page.count("data:image/png;base64,") >= len(shown) - 1
    version = subprocess.run(
        [steps.folder / "voxmask-resample", "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    versions = (folder / "results" / "pipeline_info" / "software_mqc_versions.yml").read_text()
    assert f"SEGMENTFOREGROUND:\n  voxmask: '{version}'" in versions
    assert "DCM2NIIX:\n  dcm2niix: '" in versions


def test_resume_after_a_kill_repeats_only_what_was_not_finished(
    nextflow: dict[str, str], tmp_path: Path
) -> None:
    arguments = command("--skip_multiqc")
    process = subprocess.Popen(
        arguments, cwd=tmp_path, env=nextflow, stdout=subprocess.DEVNULL, start_new_session=True
    )
    log = tmp_path / ".nextflow.log"
    completed = re.compile(r"Task completed > TaskHandler\[id: \d+; name: (.*?); status: COMPLETED; exit: 0")
    deadline = time.monotonic() + 1200
    finished: list[str] = []
    while len(finished) < STEPS_OF_A_SCAN:
        assert time.monotonic() < deadline and process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
        finished = completed.findall(log.read_text()) if log.exists() else []
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = completed.findall(log.read_text())

    run(tmp_path, nextflow, "--skip_multiqc", "-resume")
    tasks = trace(tmp_path)
    cached = {row["name"] for row in tasks if row["status"] == "CACHED"}
    # The database may lack what completed in the instant of the kill.
    assert len(set(finished) - cached) <= 2
    assert cached <= set(finished)
    assert Counter(row["status"] for row in tasks)["COMPLETED"] == 3 * STEPS_OF_A_SCAN - len(cached)
    assert len(list((tmp_path / "results").glob("*/*_area_qa.json"))) == 3


def test_stub_and_strict_syntax(nextflow: dict[str, str], tmp_path: Path) -> None:
    strict = nextflow | {"NXF_SYNTAX_PARSER": "v2"}
    run(tmp_path, strict, "-stub", "--spacing", "2,2,2")
    rows = trace(tmp_path)
    # With a resampling for each scan, and MultiQC at the end.
    assert len(rows) == 3 * (STEPS_OF_A_SCAN + 1) + 1
    assert {row["status"] for row in rows} == {"COMPLETED"}
    assert not any(row["failed_step"] for row in table(tmp_path).values())


def test_scans_and_references_are_put_on_one_new_grid(
    nextflow: dict[str, str], steps: Steps, scans: dict[str, Path], tmp_path: Path
) -> None:
    reference = tmp_path / "reference.nii.gz"
    steps("segment-foreground", input=scans["ct_coarse"], output=reference)
    rows = [{"id": "ct", "image": scans["ct_coarse"], "foreground_reference": reference}]
    sheet = write_sheet(tmp_path / "samples.csv", rows)
    run(tmp_path, nextflow, "--input", sheet, "--spacing", "6,6,6", "--skip_multiqc", "--skip_patches")
    by_hand = tmp_path / "by_hand.nii.gz"
    steps("resample", input=scans["ct_coarse"], spacing="6,6,6", output=by_hand)
    found = tmp_path / "results" / "ct" / "ct_resampled.nii.gz"
    assert found.read_bytes() == by_hand.read_bytes()
    measured = report(tmp_path / "results" / "ct" / "ct_foreground_qa.json")["result"]
    assert measured["grid"]["spacing"] == [6.0, 6.0, 6.0]
    assert 0.9 < measured["comparison"]["overall"]["dice"] < 1.0


def test_a_full_memory_is_tried_again_with_more(
    nextflow: dict[str, str], steps: Steps, scans: dict[str, Path], tmp_path: Path
) -> None:
    first_try = tmp_path / "first_try"
    stand_in = tmp_path / "bin" / "voxmask-segment-foreground"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f"#!/bin/bash\n[ \"$1\" = --version ] || [ -e {first_try} ] || {{ touch {first_try}; exit 75; }}\n"
        f'exec {steps.folder}/voxmask-segment-foreground "$@"\n'
    )
    stand_in.chmod(0o755)
    environment = nextflow | {"PATH": f"{stand_in.parent}:{nextflow['PATH']}"}
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": "ct", "image": scans["ct_coarse"]}])
    configuration = tmp_path / "trace.config"
    configuration.write_text("trace.fields = 'name,status,exit,attempt,memory'\n")
    run(tmp_path, environment, "--input", sheet, "-c", configuration, "--skip_multiqc", "--skip_patches")
    tries = [row for row in trace(tmp_path) if "SEGMENTFOREGROUND" in row["name"]]
    found = [(row["status"], row["exit"], row["attempt"]) for row in tries]
    assert found == [("FAILED", "75", "1"), ("COMPLETED", "0", "2")]


def test_a_gpu_that_is_not_there_fails_the_scan_once(
    nextflow: dict[str, str], scans: dict[str, Path], tmp_path: Path
) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    sheet = write_sheet(tmp_path / "samples.csv", [{"id": "ct", "image": scans["ct_coarse"]}])
    done = run(tmp_path, nextflow, "--input", sheet, "--skip_multiqc", profile="test,gpu", expected=1)
    # Also where no scan at all was finished, the table says which and at which step.
    assert "scan ct was not finished: segment-foreground" in done.stdout
    assert table(tmp_path)["ct"]["failed_step"] == "segment-foreground"
    assert [(row["name"], row["exit"]) for row in trace(tmp_path)] == [
        ("SCANMASKS:SEGMENTFOREGROUND (ct)", "69")
    ]
    script = next((tmp_path / "work").glob("*/*/.command.sh")).read_text()
    assert "--device cuda" in script


def test_everything_wrong_with_parameters_and_sheet_is_said_at_once(
    nextflow: dict[str, str], scans: dict[str, Path], tmp_path: Path
) -> None:
    done = run(tmp_path, nextflow, "--patch_shape", "32", "--unheard_of", "1", expected=1)
    assert "--unheard_of is not known" in done.stdout
    assert "--patch_shape is '32': it must look like" in done.stdout
    image = scans["ct_coarse"]
    rows = [
        {"id": "one", "image": image, "modality": "pet"},
        {"id": "one", "image": "absent.nii.gz"},
        {"id": "t/o", "image": image},
        {"image": image},
    ]
    sheet = write_sheet(tmp_path / "samples.csv", rows)
    done = run(tmp_path, nextflow, "--input", sheet, expected=1)
    for said in (
        "row 1: modality is 'pet': it must be one of auto, ct, mr",
        "row 2: image is 'absent.nii.gz': there is no such file",
        "row 3: id is 't/o': it must look like",
        "row 4: id is missing",
        "the id one is given 2 times",
    ):
        assert said in done.stdout, done.stdout


def test_schema_and_configuration_name_the_same_parameters(nextflow: dict[str, str]) -> None:
    schema = json.loads((PIPELINE / "nextflow_schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator.check_schema(json.loads((PIPELINE / "assets/schema_input.json").read_text()))
    properties = {k: v for group in schema["$defs"].values() for k, v in group["properties"].items()}
    flat = subprocess.run(
        ["nextflow", "config", "-flat", PIPELINE], env=nextflow, capture_output=True, text=True, check=True
    ).stdout
    configured = dict(re.findall(r"^params\.(\w+) = (.*)$", flat, re.MULTILINE))
    assert configured.keys() == properties.keys()
    spelt = {None: "null", True: "true", False: "false"}
    for name, value in configured.items():
        default = properties[name].get("default")
        assert value.strip("'") == (spelt[default] if isinstance(default, bool | None) else str(default)), name


def test_a_cohort_is_prepared_and_collected(
    nextflow: dict[str, str], steps: Steps, scans: dict[str, Path], tmp_path: Path
) -> None:
    modules = PIPELINE / "modules" / "voxmask"
    (tmp_path / "main.nf").write_text(
        f"""include {{ PREPARE }} from '{modules}/prepare/main'
include {{ COLLECT }} from '{modules}/collect/main'
workflow {{
    scans = params.scans.tokenize(',').collect {{ path -> file(path) }}
    PREPARE([[id: 'site'], scans])
    COLLECT(PREPARE.out.cohort.map {{ meta, folder -> [meta, scans, folder, []] }})
    PREPARE.out.report.mix(PREPARE.out.cohort, COLLECT.out.dataset).view {{ row -> "made: ${{row[1]}}" }}
}}
"""
    )
    (tmp_path / "nextflow.config").write_text("process { withName: 'COLLECT' { ext.args = '--layout bids' } }\n")
    chosen = ",".join(str(scans[name]) for name in ("ct_coarse", "broken"))
    line = ["nextflow", "run", tmp_path / "main.nf", "--scans", chosen]
    done = subprocess.run(
        [str(c) for c in line], cwd=tmp_path, env=nextflow, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = {Path(text[6:]).name: Path(text[6:]) for text in done.stdout.splitlines() if text.startswith("made: ")}
    # The broken scan was left out, and said to be.
    (left_out,) = report(made["site_cohort.json"])["result"]["left_out"]
    assert left_out["exit_code"] == 65
    rows = list(csv.DictReader((made["site_cohort"] / "cohort.tsv").open(), delimiter="\t"))
    assert len(rows) == 1
    by_hand = tmp_path / "by_hand.nii.gz"
    steps("segment-foreground", input=scans["ct_coarse"], output=by_hand)
    (mask,) = made["site"].rglob("*_desc-foreground_mask.nii.gz")
    assert mask.read_bytes() == by_hand.read_bytes()


def test_a_network_of_ones_own_gives_its_labels(
    nextflow: dict[str, str], steps: Steps, tmp_path: Path
) -> None:
    data = ROOT / "tests" / "data" / "nnunet"
    (tmp_path / "main.nf").write_text(
        f"""include {{ SEGMENT }} from '{PIPELINE}/modules/voxmask/segment/main'
workflow {{
    SEGMENT([[id: 'one'], file('{data}/scan.nii.gz')], file('{data}/model'))
    SEGMENT.out.labels.view {{ row -> "made: ${{row[1]}}" }}
}}
"""
    )
    line = ["nextflow", "run", str(tmp_path / "main.nf")]
    done = subprocess.run(line, cwd=tmp_path, env=nextflow, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    labels = Path(next(text for text in done.stdout.splitlines() if text.startswith("made: "))[6:])
    by_hand = tmp_path / "by_hand.nii.gz"
    steps("segment", input=data / "scan.nii.gz", model=data / "model", output=by_hand)
    assert labels.read_bytes() == by_hand.read_bytes()


def test_version_of_the_package_is_named_everywhere() -> None:
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    files = [*PIPELINE.rglob("*.nf"), *PIPELINE.rglob("*.config"), *PIPELINE.rglob("*.yml"), *PIPELINE.rglob("*.json")]
    named = [
        (path.name, found)
        for path in files
        for found in re.findall(r"voxmask(?:/voxmask:|==)([0-9][0-9.]*[0-9])", path.read_text())
    ]
    assert len(named) > 10
    assert {found for _, found in named} == {version}
    assert f"version = '{version}'" in (PIPELINE / "nextflow.config").read_text()


@pytest.mark.parametrize("path", sorted(PIPELINE.glob("*/voxmask/*/meta.yml")), ids=lambda path: path.parent.name)
def test_meta_is_yaml_and_names_what_the_module_takes_and_gives(path: Path) -> None:
    meta = yaml.safe_load(path.read_text())
    assert meta["name"] == path.parent.name
    script = (path.parent / "main.nf").read_text()
    if "output" in meta and isinstance(meta["output"], dict):
        emitted = re.findall(r"emit: (\w+)", script)
        assert list(meta["output"]) and set(meta["output"]) == set(emitted)
