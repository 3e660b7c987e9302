"""The page that shows what a pilot found: every number on it comes from the run."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#666666"]


def interval(values) -> str:
    """Mean and 95 % confidence interval of the mean (Student's t), over seeds."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return f"{values.mean():.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.3f} ({values.mean() - half:.3f} to {values.mean() + half:.3f})"


def by_arm(runs, value) -> dict[str, list[float]]:
    """Values by arm, in the order of seeds."""
    arms: dict[str, list[float]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(value(run))
    return arms


def steps_to(curve, error: float) -> float:
    """Steps after which the error is as low for the first time, on straight lines between
    measurements; infinite if never."""
    for (before, high), (after, low) in zip(curve, curve[1:]):
        if low <= error:
            share = (high - error) / (high - low) if high > low else 1.0
            return before + min(max(share, 0.0), 1.0) * (after - before)
    return float("inf")


def fewer_steps(runs, fast: str, slow: str) -> list[tuple[float, float]]:
    """For each seed: steps of ``fast`` to the lowest error that ``slow`` reaches, and those of ``slow``."""
    pairs = []
    for seed in sorted({run.seed for run in runs}):
        of = {run.arm: run.curve for run in runs if run.seed == seed}
        best = min(error for _, error in of[slow])
        pairs.append((steps_to(of[fast], best), steps_to(of[slow], best)))
    return pairs


def table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def write(path: Path, facts: dict, savings: list, runs: list, downstream: dict | None) -> None:
    """Writes the page, and its plots into a folder of its name beside it."""
    plots = path.with_suffix("")
    plots.mkdir(parents=True, exist_ok=True)
    options = facts["options"]
    arms = list(by_arm(runs, lambda run: 0))
    text = [
        "# Pilot: what foreground sampling and the loss mask do\n",
        "Written by `make pilot` (`examples/pretraining`); every figure is of that run. "
        f"{facts['scans']} scans to train on, {facts['held_out']} held out; at {options.spacing:g} mm, "
        f"patches of {options.patch}³ voxels, {options.steps} steps, {options.seeds} seeds; "
        f"{facts['minutes']:.0f} minutes on {options.threads} thread(s) of a CPU. Of each training "
        "scan 15 % of the body was blanked in front of a tilted plane; the loss mask is made from "
        "that known area, so this says what a right mask is worth, not how right voxmask's is. The "
        "foreground is voxmask's. Brackets: 95 % confidence intervals over seeds (Student's t).\n",
        "## Saved\n",
        saved(savings),
        "## Steps to the same validation error\n",
        steps(runs, arms),
        f"![Validation error by step]({plots.name}/curves.png)\n",
        "## Altered areas\n",
        altered(runs, arms),
        f"![Errors near and in altered areas]({plots.name}/altered.png)\n",
    ]
    if downstream:
        text += [
            "## Another task, few labels\n",
            few_labels(downstream, options),
            f"![Dice by start]({plots.name}/downstream.png)\n",
        ]
        bars(plots / "downstream.png", downstream_lists(downstream), "Dice")
    path.write_text("\n".join(text))
    draw_curves(plots / "curves.png", runs, arms)
    values = {
        name: by_arm(runs, lambda run: run.errors[name]) for name in ("near", "area")
    }
    both = {f"{arm}\n({name})": v for name, of in values.items() for arm, v in of.items()}
    bars(plots / "altered.png", both, "mean squared error")


def saved(savings: list) -> str:
    total = {key: sum(s[key] for s in savings) for key in savings[0]}
    share = lambda part, whole: f"{100 * part / whole:.0f} %"
    rows = [
        ["patches of a grid", total["whole"], total["patches"],
         share(total["whole"] - total["patches"], total["whole"])],
        ["voxels in them", total["voxels"], total["voxels"] - total["unused"],
         share(total["unused"], total["voxels"])],
        ["voxels that are body", total["voxels"], total["body"],
         share(total["voxels"] - total["body"], total["voxels"])],
    ]
    return table([f"{len(savings)} scans", "whole scans", "foreground", "saved"], rows)


def steps(runs, arms) -> str:
    last = by_arm(runs, lambda run: run.curve[-1][1])
    seconds = by_arm(runs, lambda run: run.seconds_a_step)
    rows = [[arm, interval(last[arm]), f"{1000 * np.mean(seconds[arm]):.0f}"] for arm in arms]
    text = "Error: mean squared, in standard deviations of the body, over hidden voxels of the body "
    text += "in unaltered held-out scans.\n\n"
    text += table(["patches from, loss", "error at the end", "ms a step"], rows) + "\n"
    for fast, slow in ((arms[0], arms[1]), (arms[2], arms[3])):
        pairs = fewer_steps(runs, fast, slow)
        spared = [100 * (1 - a / b) for a, b in pairs if np.isfinite(a) and b > 0]
        never = len(pairs) - len(spared)
        counts = ", ".join(f"{a:.0f} against {b:.0f}" for a, b in pairs)
        text += f"- «{fast}» reaches the lowest error of «{slow}» in {counts} steps"
        if spared:
            text += f": {interval(spared)} % fewer"
        text += f"; never in {never} of {len(pairs)} runs.\n" if never else ".\n"
    return text


def altered(runs, arms) -> str:
    near, area, painted = (
        by_arm(runs, lambda run: run.errors[name]) for name in ("near", "area", "painted")
    )
    rows = [[arm, interval(near[arm]), interval(area[arm]), interval(painted[arm])] for arm in arms]
    text = "In held-out scans that were altered alike: the error on true anatomy within 15 mm of the "
    text += "altered area; inside it, against what was there before; and the share of hidden voxels "
    text += "inside it for which the network's answer is closer to the blank than to what was there.\n\n"
    text += table(["patches from, loss", "error near", "error inside", "painted blank"], rows) + "\n"
    for masked, plain in ((arms[0], arms[2]), (arms[1], arms[3])):
        for name, values in (("near", near), ("inside", area), ("painted blank", painted)):
            change = np.array(values[masked]) - np.array(values[plain])
            text += f"- {name}, «{masked}» less «{plain}», seed by seed: {interval(change)}\n"
    return text


def downstream_lists(downstream) -> dict[str, list[float]]:
    return {arm: [scores[seed] for seed in sorted(scores)] for arm, scores in downstream.items()}


def few_labels(downstream, options) -> str:
    lists = downstream_lists(downstream)
    scratch = np.array(list(lists.values())[-1])
    rows = [
        [arm, interval(values), interval(np.array(values) - scratch)]
        for arm, values in lists.items()
    ]
    text = f"Dice of the labels {options.structure} of label maps that intensities were painted on, "
    text += f"learnt from two maps in {max(1, options.steps // 5)} steps, measured on up to four.\n\n"
    return text + table(["start", "Dice", "more than without pre-training"], rows)


def draw_curves(path: Path, runs, arms) -> None:
    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for colour, arm in zip(COLOURS, arms):
        curves = np.array([[e for _, e in run.curve] for run in runs if run.arm == arm])
        at = [s for s, _ in next(run.curve for run in runs if run.arm == arm)]
        axis.plot(at, curves.mean(0), color=colour, label=arm)
        axis.fill_between(at, curves.min(0), curves.max(0), color=colour, alpha=0.2, linewidth=0)
    axis.set(xlabel="steps", ylabel="validation error on the body", yscale="log")
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def bars(path: Path, values: dict[str, list[float]], what: str) -> None:
    """A dot for each seed and a line at the mean."""
    figure, axis = plt.subplots(figsize=(6, 0.45 * len(values) + 1), layout="constrained")
    for row, (name, of) in enumerate(values.items()):
        colour = COLOURS[row % 4]
        axis.plot(of, [row] * len(of), "o", color=colour, alpha=0.7)
        axis.plot([np.mean(of)] * 2, [row - 0.3, row + 0.3], color=colour)
    axis.set(xlabel=what, yticks=range(len(values)), yticklabels=list(values))
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
