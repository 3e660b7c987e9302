"""Prints the figures of each site out of a report of voxmask-prepare.

    python3 tools/site_table.py site-check.json
"""

import argparse
import json
import sys
from pathlib import Path

HEAD = ["site", "scans", "Dice: mean (worst)", "95 % interval", "card", "volume: bias, limits [ml]"]


def main() -> int:
    """Prints the table; returns 1 where a site lies below the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    sites = json.loads(parser.parse_args().report.read_text())["result"]["sites"]
    if not sites:
        print("error: no scan has a reference of its name", file=sys.stderr)
        return 2
    lines = [HEAD] + [line(site) for site in sites]
    widths = [max(len(cells[n]) for cells in lines) for n in range(len(HEAD))]
    for cells in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip())
    below = [site["site"] for site in sites if site["below_card"]]
    if below:
        print(f"below the card's figure: {', '.join(below)}; see docs/site-check.md")
    return 1 if below else 0


def line(site: dict) -> list[str]:
    """A site's cells."""
    card = site["card_dice_mean"]
    low, high = site["dice_interval"]
    limits = site["volume_limits_ml"]
    volume = f"{site['volume_bias_ml']:.1f}"
    if limits:
        volume += f", {limits[0]:.1f} to {limits[1]:.1f}"
    return [
        site["site"],
        str(site["scans"]),
        f"{site['dice_mean']:.4f} ({site['dice_worst']:.4f})",
        f"{low:.4f} to {high:.4f}",
        "-" if card is None else f"{card:.4f}",
        volume,
    ]


if __name__ == "__main__":
    sys.exit(main())
