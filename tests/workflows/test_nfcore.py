"""nf-core's own tools on the modules: their linter, and an installation into an empty pipeline."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from steps import ROOT, Steps

ADDRESS = "https://voxmask.invalid/modules.git"
MODULES = sorted(path.name for path in (ROOT / "nextflow" / "modules" / "voxmask").iterdir())


def git(folder: Path, *arguments: object) -> None:
    """Runs git in a folder."""
    own = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", "-C", folder, *own, *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git remote that holds the modules as nf-core's own repository holds its."""
    folder = tmp_path_factory.mktemp("remote")
    work = folder / "work"
    shutil.copytree(ROOT / "nextflow" / "modules" / "voxmask", work / "modules" / "voxmask")
    shutil.copytree(ROOT / "nextflow" / "subworkflows" / "voxmask", work / "subworkflows" / "voxmask")
    shutil.copy(ROOT / "nextflow" / ".nf-core.yml", work)
    for name in ("meta", "environment"):
        # These accept anything; the linter asks for them.
        (work / "modules" / f"{name}-schema.json").write_text("{}")
    (work / "subworkflows" / "yaml-schema.json").write_text("{}")
    git(work, "init", "-q")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "modules")
    git(work, "clone", "-q", "--bare", work, folder / "remote.git")
    return folder / "remote.git"


@pytest.fixture
def nf_core(remote: Path, nextflow: dict[str, str], tmp_path: Path):
    """Runs nf-core's tools against the remote, with a home of their own."""
    own = nextflow | {"NFCORE_NO_VERSION_CHECK": "1", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    own |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "NXF_HOME": str(tmp_path / "nextflow")}
    # nf-core takes no address of a file; git fetches this one from the folder.
    own |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{remote}.insteadOf", "GIT_CONFIG_VALUE_0": ADDRESS}

    def run(group: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
        command = ["nf-core", group, "--git-remote", ADDRESS, "--branch", "main", *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("module", MODULES)
def test_lint_has_no_failure(nf_core, module: str, tmp_path: Path) -> None:
    # The linter leaves files behind where it runs.
    copy = tmp_path / "nextflow"
    shutil.copytree(ROOT / "nextflow", copy)
    (copy / "tests" / "config").mkdir(parents=True)
    (copy / "tests" / "config" / "nextflow.config").touch()
    done = nf_core("modules", "lint", "--dir", copy, "--sort-by", "test", module, folder=copy)
    print(done.stdout[-3000:], done.stderr[-2000:])
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_empty_pipeline_installs_the_modules_and_runs(
    nf_core, nextflow: dict[str, str], steps: Steps, scans: dict[str, Path], tmp_path: Path
) -> None:
    pipeline = tmp_path / "pipeline"
    (pipeline / "modules").mkdir(parents=True)
    (pipeline / ".nf-core.yml").write_text("repository_type: pipeline\n")
    (pipeline / "nextflow.config").write_text("manifest { name = 'foreign/pipeline' }\n")
    # Without it the installer asks questions.
    empty = {"name": "foreign/pipeline", "homePage": "https://example.org", "repos": {}}
    (pipeline / "modules.json").write_text(json.dumps(empty))
    (pipeline / "main.nf").write_text(
        """include { SEGMENTFOREGROUND } from './modules/voxmask/segmentforeground/main'
workflow {
    SEGMENTFOREGROUND(channel.of([[id: 'ct'], file(params.image), 'auto']))
    SEGMENTFOREGROUND.out.mask.view { row -> "mask: ${row[1]}" }
}
"""
    )
    git(pipeline, "init", "-q")
    for module in MODULES:
        done = nf_core("modules", "install", "--dir", pipeline, module, folder=pipeline)
        assert done.returncode == 0, done.stdout + done.stderr
    installed = json.loads((pipeline / "modules.json").read_text())
    (repository,) = installed["repos"].values()
    assert sorted(repository["modules"]["voxmask"]) == MODULES
    command = ["nextflow", "run", pipeline, "--image", scans["ct_coarse"]]
    done = subprocess.run(
        [str(c) for c in command], cwd=tmp_path, env=nextflow, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    mask = Path(next(line for line in done.stdout.splitlines() if line.startswith("mask: "))[6:])
    by_hand = tmp_path / "by_hand.nii.gz"
    steps("segment-foreground", input=scans["ct_coarse"], output=by_hand)
    assert mask.read_bytes() == by_hand.read_bytes()
