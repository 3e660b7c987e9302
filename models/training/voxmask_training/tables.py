"""Markdown tables of scores, and their place in a document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

Row = dict[str, float | str | None]


def group_rows(rows: Iterable[Row], keys: Sequence[str]) -> dict[tuple[str, ...], list[Row]]:
    """Sorts rows into groups that share the values of `keys`."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[key]) for key in keys), []).append(row)
    return dict(sorted(groups.items()))


def values_of(rows: Iterable[Row], name: str) -> list[float]:
    """Gives the numbers under a name; rows without one are left out."""
    return [float(row[name]) for row in rows if row.get(name) is not None]


def mean_and_worst(rows: list[Row], name: str, worst: Callable[[list[float]], float]) -> str:
    """Writes «mean (worst)», or a dash where nothing was measured."""
    values = values_of(rows, name)
    if not values:
        return "–"
    digits = 1 if name.endswith(("_mm", "_ml")) else 3
    return f"{np.mean(values):.{digits}f} ({worst(values):.{digits}f})"


def interval(rows: Iterable[Row], name: str, resamples: int = 2000) -> tuple[float, float]:
    """Gives the 95 % interval of a mean by a bootstrap over subjects, seed 0.

    The scans of a subject, and the cases made from one scan, are drawn together: they fail
    together.
    """
    groups = group_rows((row for row in rows if row.get(name) is not None), ("subject",))
    parts = [np.array(values_of(part, name)) for part in groups.values()]
    sums, counts = (np.array([f(part) for part in parts]) for f in (np.sum, len))
    drawn = np.random.default_rng(0).integers(len(parts), size=(resamples, len(parts)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def mean_with_interval(rows: list[Row], name: str) -> str:
    """Writes «mean (95 % interval low to high)»."""
    low, high = interval(rows, name)
    return f"{np.mean(values_of(rows, name)):.3f} (95 % interval {low:.3f} to {high:.3f})"


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Lays cells out as a table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def put_between(path: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->` in a file."""
    document = path.read_text()
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, rest = document.split(first)
    after = rest.split(last)[1]
    path.write_text(f"{before}{first}\n{text}\n{last}{after}")
