"""Prints what the demo found, and how long each step took, from the reports of the steps.

python3 tools/demo_table.py demo/*/
"""

import json
import sys
from pathlib import Path

# Column -> the report that it is read from.
REPORTS = {
    "resample": "resample.report.json",
    "foreground": "segment-foreground.report.json",
    "anonymization": "segment-anonymization-area.report.json",
    "patches": "crop-patches.report.json",
    "qa": "qa.json",
}


def main() -> None:
    """Two tables, a row a scan."""
    scans = {Path(folder).name: read_reports(Path(folder)) for folder in sys.argv[1:]}
    print_table("found", {name: found(reports) for name, reports in scans.items()})
    print_table("seconds", {name: seconds(reports) for name, reports in scans.items()})


def read_reports(folder: Path) -> dict[str, dict]:
    """The reports of one scan, by column."""
    return {column: json.loads((folder / name).read_text()) for column, name in REPORTS.items()}


def found(reports: dict[str, dict]) -> dict[str, str]:
    """What the steps found in one scan, by column."""
    foreground = reports["foreground"]["result"]["foreground"]
    area = reports["anonymization"]["result"]
    patches = reports["patches"]["result"]
    return {
        "foreground": f"{foreground['volume_ml']:.0f} ml",
        "of the scan": f"{foreground['share']:.1%}",
        "altered": f"{area['anonymization_area']['volume_ml']:.0f} ml" if area["altered"] else "no",
        "patches": f"{patches['count']} of {patches['whole_scan_count']}",
        "voxels saved": f"{patches['unused_share']:.1%}",
    }


def seconds(reports: dict[str, dict]) -> dict[str, str]:
    """How long each step took, by column."""
    return {column: f"{report['run']['seconds']:.2f}" for column, report in reports.items()}


def print_table(title: str, rows: dict[str, dict[str, str]]) -> None:
    """Prints columns as wide as they must be, numbers to the right."""
    columns = list(next(iter(rows.values())))
    width = max(len(title), *map(len, rows))
    widths = {c: max(len(c), *(len(row[c]) for row in rows.values())) for c in columns}
    print()
    print(title.ljust(width), *(c.rjust(widths[c]) for c in columns), sep="  ")
    for name, row in rows.items():
        print(name.ljust(width), *(row[c].rjust(widths[c]) for c in columns), sep="  ")


if __name__ == "__main__":
    main()
