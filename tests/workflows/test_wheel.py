"""The wheel: built, installed into an empty environment, and run there with nothing else at hand."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from steps import ROOT, Steps, contents

BINARIES = {path.stem for path in (ROOT / "src" / "bin").glob("voxmask-*.rs")}


@pytest.fixture(scope="module")
def wheel(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    command = ["maturin", "build", "--release", "--locked", "--quiet", "--out", out]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("voxmask-*.whl"))


def test_the_wheel_holds_the_executables_and_no_python(wheel: Path) -> None:
    assert "-py3-none-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    scripts = {Path(name).name for name in names if "/scripts/" in name}
    assert scripts == BINARIES
    assert not any(name.endswith(".py") for name in names)
    assert "Requires-Dist: onnxruntime>=" in metadata
    assert "Provides-Extra: cuda" in metadata


def test_a_clean_environment_segments_with_the_wheel_alone(
    wheel: Path, steps: Steps, scans: dict[str, Path], tmp_path: Path
) -> None:
    clean = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", clean], check=True)
    pip = [clean / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", wheel]
    subprocess.run(pip, check=True)
    out = tmp_path / "foreground.nii.gz"
    command = [clean / "bin" / "voxmask-segment-foreground", "--input", scans["ct_coarse"], "--output", out]
    # An empty PATH and HOME: neither this checkout's library nor another Python is to be found.
    own = {"PATH": "/nowhere", "HOME": str(tmp_path / "home"), "TMPDIR": os.environ.get("TMPDIR", "/tmp")}
    done = subprocess.run(
        [*command, "--device", "cpu"], env=own, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    by_hand = tmp_path / "by_hand.nii.gz"
    steps("segment-foreground", input=scans["ct_coarse"], output=by_hand)
    assert contents(out) == contents(by_hand)
