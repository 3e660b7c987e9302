"""A cohort out of the scans in ``tests/data``, and a browser to look at its page with.

Executables are looked for in the folder ``VOXMASK_BIN`` (default ``target/release``). Networks are the
tiny ones of the tests: nothing here depends on the shipped weights.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from selenium import webdriver

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
SCANS = ("ct_abdomen", "mr_head_defaced", "mr_head_intact")
SITES = ("north", "south", "south")


@dataclass
class Cohort:
    """Folder of the results, and the ids of the scans in the order of the table."""

    folder: Path
    ids: list[str]

    @property
    def page(self) -> str:
        """Text of the page."""
        return (self.folder / "cohort.html").read_text()


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Prepares three scans of two sites and a broken one, with references for all."""
    base = tmp_path_factory.mktemp("cohort")
    lines = ["scan,site,region,reference"]
    for name, site in zip(SCANS, SITES, strict=True):
        image = nib.load(DATA / f"{name}.nii.gz")
        values = np.asanyarray(image.dataobj)
        bright = (values > np.percentile(values, 60)).astype(np.uint8)
        nib.save(nib.Nifti1Image(bright, image.affine), base / f"{name}_ref.nii.gz")
        lines.append(f"{DATA / name}.nii.gz,{site},head,{name}_ref.nii.gz")
    (base / "broken.nii").write_text("no volume")
    lines.append("broken.nii,north,,")
    (base / "scans.csv").write_text("\n".join(lines) + "\n")
    folder = base / "out"
    executables = Path(os.environ.get("VOXMASK_BIN", ROOT / "target" / "release"))
    command = [executables / "voxmask-prepare", "--table", base / "scans.csv", "--output", folder]
    command += ["--foreground-model", DATA / "models" / "foreground"]
    command += ["--area-model", DATA / "models" / "anonymization-area", "--quiet"]
    # Nor on thresholds that go with the shipped networks: the order of the scans follows from them.
    command += ["--max-edge-entropy", "0.93", "--min-network-agreement", "0.94"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 65, done.stderr
    table = (folder / "cohort.tsv").read_text().splitlines()
    return Cohort(folder, [line.split("\t")[0] for line in table[1:]])


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A headless Chromium that keeps downloads in a folder of its own and reaches no network."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.fail("chromium and chromedriver are missing (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1400,1000")
    # Whatever a page may ask for outside itself fails.
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.downloads = downloads  # type: ignore[attr-defined]
    yield chrome
    chrome.quit()
