"""MultiQC takes the cohort's content."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import Cohort


def test_multiqc_shows_every_scan(cohort: Cohort, tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "multiqc", cohort.folder, "--outdir", tmp_path]
    command += ["--no-version-check", "--data-format", "json", "--quiet"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "multiqc_report.html").read_text()
    assert "voxmask" in report
    data = json.loads((tmp_path / "multiqc_data" / "multiqc_data.json").read_text())
    table = data["report_saved_raw_data"]["multiqc_voxmask_table"]
    assert set(table) == set(cohort.ids)
    assert all("foreground_share" in row and "score" in row for row in table.values())
