"""docs/performance.md and its plot, out of what compare.py measured."""

import math
from pathlib import Path

from measure import Result

COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#8d5a97", "#c8963e")
OPERATIONS = {
    "load": "Read a `.nii.gz`",
    "save": "Write a `.nii.gz`",
    "linear": "Resample to 1.5 mm, linear",
    "cubic": "Resample to 1.5 mm, cubic",
    "components": "Connected components, 26 neighbours",
    "holes": "Fill holes",
    "distance": "Exact distances [mm]",
    "surfaces": "HD95 and NSD of two masks",
    "network": "A second network on 96³ cells",
}
NOTES = {
    "load": "Voxels as stored, in memory.",
    "save": "voxmask: level 2, nibabel: its level 1, SimpleITK: its own default.",
    "linear": "volresample and scikit-image take float32 that is in memory already.",
    "cubic": "SimpleITK and scipy prefilter to a B-spline, as voxmask does; scikit-image is called "
    "as nnU-Net calls it, at another edge rule.",
    "distance": "Squared, but for scipy, which takes the root.",
    "surfaces": "MedPy has HD95 alone. The three define HD95 each in another way.",
    "network": "The foreground's, weights loaded, its second run. voxmask runs ONNX Runtime too, with "
    "convolutions of its own; ONNX Runtime's threads wait spinning, as it comes.",
}


def write(found: dict, folder: Path) -> None:
    """Writes the page, and the plot beside it."""
    lines = [
        "# Performance",
        "",
        "Written by `make compare`, which measures voxmask and its peers in the same rounds. Every figure is",
        "the median of the rounds of one run (from uncompressed files: of twice as many); a process each, whose",
        "peak memory is that of the process, input and libraries included. What it is to write is taken away first, and what runs before wrote is brought to",
        "the disk.",
        "",
        *setting(found),
    ]
    parts = (goals, start, chain, plain, profile, peers, foreground, growth, altered, cube)
    for part in parts:
        section = part(found)
        lines += [*section, ""] if section else []
    (folder / "performance.md").write_text("\n".join(lines).rstrip() + "\n")
    if "growth" in found:
        (folder / "performance.svg").write_text(plot(found["growth"]))


def setting(found: dict) -> list[str]:
    """What machine, what versions, what work."""
    shape = "×".join(map(str, found["shape"]))
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return [
        f"- Machine: {found['machine']}",
        f"- Work: a CT of {shape} voxels, int16, as `.nii.gz`; {found['threads']} threads, "
        f"{found['rounds']} round{'s' * (found['rounds'] != 1)} (what takes longer than 8 s: one)",
        f"- Versions: {versions}",
        "",
    ]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown; the first column is text, the others are numbers."""
    rule = "|---|" + "---:|" * (len(head) - 1)
    return [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def number(value: float, digits: int = 2) -> str:
    """A figure, or a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def ratio(one: float, other: float) -> str:
    """How many times as long the first takes."""
    return "–" if math.isnan(one) or math.isnan(other) or other == 0 else f"{one / other:.1f}×"


def named(results: list[Result], name: str) -> Result:
    """The result of that name; one without figures where there is none."""
    return next((r for r in results if r.name == name), Result(name, []))


def seconds(results: list[Result], name: str) -> float:
    """Its seconds."""
    return named(results, name).seconds


def goals(found: dict) -> list[str]:
    """What was aimed at, and whether it was reached."""
    rows = [[what, aim, figure, verdict(fine)] for what, aim, figure, fine in aims(found)]
    if not rows:
        return []
    return ["## Goals", "", *table(["what", "goal", "measured", "reached"], rows), *reasons(found)]


# What `shares` calls the voxels' way from file to file.
FILES = "voxels, read, turned and written"


def reasons(found: dict) -> list[str]:
    """Why goals are missed, as far as the profile of the steps tells."""
    steps = found.get("profile")
    missed = [what for what, _, _, fine in aims(found) if fine is False]
    if not steps or not missed:
        return []

    def percent(step: str, *kinds: str) -> str:
        return f"{100 * sum(steps[step].get(kind, 0) for kind in kinds):.0f} %"

    lines = []
    for what in missed:
        if what.startswith("foreground against"):
            step = "voxmask-segment-foreground"
            lines += [
                f"- Foreground: {percent(step, 'network')} of the processor's time is the network's,",
                f"  {percent(step, 'channels')} goes into what it is shown;",
                f"  {percent(step, 'gunzip', 'gzip')} is gunzip and gzip.",
            ]
        elif what.startswith("threads"):
            step = what.split(": ")[1]
            lines += [
                f"- Threads, {step}: more of them help the kernel and the disk little, which take files in, put them",
                f"  away and make pages ({percent(step, 'pages of memory', FILES)} of its time on the compressed scan).",
            ]
        elif what.startswith("linear"):
            lines += of_linear(found.get("linear"))
    if not lines:
        return []
    intro = "Where goals are missed, this is why (the processor's time is of the profile below):"
    return ["", intro, "", *lines]


def of_linear(kinds: dict[str, float] | None) -> list[str]:
    """What linear resampling does, in a sentence."""
    if not kinds:
        return []
    listed = ", ".join(f"{name} {100 * share:.0f} %" for name, share in kinds.items())
    return [f"- Linear resampling in memory: {listed}."]


def verdict(fine: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "not measured"}[fine]


def aims(found: dict) -> list[tuple[str, str, str, bool | None]]:
    """Every goal: what, the goal, the figure, and whether it is reached (None: not measured)."""
    listed = []

    def most(what: str, limit: float, value: float, unit: str, digits: int = 2) -> None:
        fine = None if math.isnan(value) else value <= limit
        listed.append((what, f"≤ {limit:g} {unit}", f"{number(value, digits)} {unit}", fine))

    def times(what: str, least: float, peer: float, own: float) -> None:
        value = peer / own if own and not math.isnan(peer) else float("nan")
        fine = None if math.isnan(value) else value >= least
        listed.append((what, f"≥ {least:g}×", f"{number(value, 2)}×", fine))

    if "chain" in found:
        steps = found["chain"][str(found["threads"])]
        five = steps[:5]
        most("chain of five steps", 8, sum(r.seconds for r in five), "s")
        most("its peak memory", 1200, max(r.peak for r in five), "MB", 0)
        files = seconds(steps, "reading the scan alone") + seconds(steps, "writing a mask alone")
        own = seconds(steps, "voxmask-segment-foreground")
        most("foreground against reading and writing alone", 3, own / files, "×", 1)
    if "peers" in found:
        work = found["peers"]
        for title, key, peer, least in (
            ("linear against SimpleITK", "linear", "SimpleITK", 4),
            ("linear against MONAI", "linear", "MONAI", 20),
            ("cubic against scipy", "cubic", "scipy", 15),
            ("load against SimpleITK", "load", "SimpleITK", 1),
            ("components against cc3d", "components", "cc3d", 1 / 1.2),
            ("distances against edt", "distance", "edt", 1 / 1.2),
            ("HD95 against surface-distance", "surfaces", "surface-distance", 8),
        ):
            times(title, round(least, 2), seconds(work[key], peer), seconds(work[key], "voxmask"))
    if "growth" in found:
        last = max(found["growth"], key=int)
        most(
            f"{last} slices: peak of any step",
            2200,
            highest([*found["growth"][last], *body_of(found)]),
            "MB",
            0,
        )
        most(
            "cost of a slice, longest against shortest scan, worst step",
            1.25,
            worst_growth(found["growth"]),
            "×",
        )
    if "start" in found:
        for name, limit in (
            ("`--version`", 10),
            ("`--help`", 10),
            ("foreground of 64³ voxels", 500),
        ):
            most(f"start: {name}", limit, 1000 * seconds(found["start"], name), "ms", 0)
    if len(found.get("plain", {})) > 1:
        one, all_ = found["plain"]["1"], found["plain"][str(found["threads"])]
        for result in one:
            title = f"threads, all but gunzip: {result.name}"
            times(title, 1.6, result.seconds, seconds(all_, result.name))
    return listed


def highest(results: list[Result]) -> float:
    """The highest peak memory [MB]; nan where one of them has no figure."""
    peaks = [result.peak for result in results]
    return float("nan") if any(map(math.isnan, peaks)) else max(peaks)


def worst_growth(growth: dict[str, list[Result]]) -> float:
    """Seconds a slice, from the second scan to the longest; the step that grows most."""
    counts = sorted(map(int, growth))
    first, last = counts[min(1, len(counts) - 1)], counts[-1]
    pairs = zip(growth[str(first)], growth[str(last)], strict=True)
    return max((b.seconds / last) / (a.seconds / first) for a, b in pairs)


def start(found: dict) -> list[str]:
    if "start" not in found:
        return []
    rows = [[r.name, number(1000 * r.seconds, 1), number(r.peak, 0)] for r in found["start"]]
    return ["## Start-up", "", *table(["`voxmask-segment-foreground`", "ms", "peak MB"], rows)]


def chain(found: dict) -> list[str]:
    """Every step from file to file, on one thread and on all."""
    if "chain" not in found:
        return []
    return ["## Steps, from file to file", "", *on_threads(found, "chain")]


def plain(found: dict) -> list[str]:
    """The same from files that are not compressed: a scan is inflated on one thread, whatever there is."""
    if not found.get("plain"):
        return []
    return ["## Steps, from uncompressed files", "",
            "What more threads gain but for gunzip, which one thread does: files are read uncompressed and written as",
            "`.nii.gz`.", "", *on_threads(found, "plain")]


def on_threads(found: dict, part: str) -> list[str]:
    """Steps on all threads and on one."""
    threads = str(found["threads"])
    one, all_ = found[part].get("1", []), found[part][threads]
    rows = []
    for result in all_:
        alone = seconds(one, result.name)
        rows.append(
            [result.name, number(result.seconds), number(max(result.wall_s, default=math.nan)),
             number(result.peak, 0), number(alone), ratio(alone, result.seconds)]
        )  # fmt: skip
    head = ["", f"s, {threads} threads", "slowest round", "peak MB", "s, 1 thread", "gain"]
    return table(head, rows)


def profile(found: dict) -> list[str]:
    """What the processor's time goes to: a row for each kind of work, largest first."""
    if not found.get("profile"):
        return []
    steps = found["profile"]
    total = {kind: sum(s.get(kind, 0) for s in steps.values()) for s in steps.values() for kind in s}
    kinds = sorted(total, key=total.get, reverse=True)
    rows = [
        [kind, *(f"{100 * share:.0f}" if (share := s.get(kind, 0)) >= 0.005 else "" for s in steps.values())]
        for kind in kinds
    ]
    return [
        "## Where the time goes",
        "",
        "Shares of the processor's time of each step on the compressed scan [%], by what its samples were at",
        "work on (`perf`). Pages of memory: what the kernel does when they are touched first.",
        "",
        *table(["", *steps], rows),
    ]


def peers(found: dict) -> list[str]:
    """The same work by others; where one of them is faster, it says so."""
    if "peers" not in found:
        return []
    lines = [
        "## The same work by others",
        "",
        "On voxels in memory, but for reading and writing; imports are not in the time. A ratio above 1 means",
        "that voxmask is faster.",
        "",
    ]
    rows = []
    for work, title in OPERATIONS.items():
        results = found["peers"][work]
        own = results[0].seconds
        for n, result in enumerate(results):
            figure = result.why or number(result.seconds, 3)
            against = ratio(result.seconds, own) if n else ""
            name = f"**{result.name}**" if faster(result, own) else result.name
            rows.append([title if n == 0 else "", name, figure, against, number(result.peak, 0)])
    lines += table(["work", "by", "s", "ratio", "peak MB"], rows)
    quicker = [
        f"{OPERATIONS[work]}: {r.name} ({r.seconds:.3f} s, voxmask {found['peers'][work][0].seconds:.3f} s)"
        for work in OPERATIONS
        for r in found["peers"][work]
        if faster(r, found["peers"][work][0].seconds)
    ]
    lines += ["", "Faster than voxmask (bold): " + ("; ".join(quicker) or "none") + "."]
    return lines + ["", *(f"- {OPERATIONS[work]}: {note}" for work, note in NOTES.items())]


def faster(result: Result, own: float) -> bool:
    """True for a peer that takes less time."""
    return not result.name.startswith("voxmask") and result.seconds < own


def foreground(found: dict) -> list[str]:
    """The foreground from file to file; a large network from one of its windows."""
    if "peers" not in found or "chain" not in found:
        return []
    own = named(found["chain"][str(found["threads"])], "voxmask-segment-foreground")
    otsu, network = found["peers"]["foreground"]
    spacing, shape = found["spacing"], found["shape"]
    windows = math.prod(
        max(1, math.ceil((n * mm / 1.5 - 128) / 64) + 1)
        for n, mm in zip(shape, spacing, strict=True)
    )
    rows = [
        ["voxmask-segment-foreground", number(own.seconds), "", number(own.peak, 0)],
        [otsu.name, otsu.why or number(otsu.seconds), ratio(otsu.seconds, own.seconds), number(otsu.peak, 0)],
        [f"a network of nnU-Net's size: {windows} windows, each as long as the one measured",
         network.why or number(windows * network.seconds, 0),
         ratio(windows * network.seconds, own.seconds), number(network.peak, 0)],
    ]  # fmt: skip
    return [
        "## Foreground, from file to file",
        "",
        *table(["by", "s", "ratio", "peak MB"], rows),
        "",
        "The network is a 3-D U-Net of six stages (32 to 320 features, windows of 128³ at 1.5 mm, half",
        "overlapping, no mirroring) with random weights: its time, not its masks, is compared, without",
        "resampling, export and the files. For the anonymization area no peer that runs here is known.",
    ]


def growth(found: dict) -> list[str]:
    """What a longer scan costs."""
    if "growth" not in found:
        return []
    steps = [result.name for result in next(iter(found["growth"].values()))]
    rows = []
    for count, results in found["growth"].items():
        rows.append(
            [count, *(f"{r.why or number(r.seconds)} / {number(r.peak, 0)}" for r in results)]
        )
    return [
        "## From a short scan to a whole body",
        "",
        "![Seconds of each step against the number of slices](performance.svg)",
        "",
        "The CT's slices, repeated; nobody altered it. Seconds / peak MB:",
        "",
        *table(["slices", *steps], rows),
        "",
        "Processor time of the programs themselves, all threads together, milliseconds a slice. It leaves out what the",
        "kernel does: making pages of memory, taking files in and writing them back.",
        "",
        *table(
            ["slices", *steps],
            [
                [count, *(number(1000 * r.user / int(count)) for r in results)]
                for count, results in found["growth"].items()
            ],
        ),
    ]


def body_of(found: dict) -> list[Result]:
    """The step on a whole body that was altered, if that was measured."""
    return [found["altered"]["result"]] if "altered" in found else []


def altered(found: dict) -> list[str]:
    """What an altered whole body costs."""
    if "altered" not in found:
        return []
    body = found["altered"]
    rows = [[r.name, r.why or number(r.seconds), number(r.peak, 0)] for r in body_of(found)]
    return [
        "## A whole body that was altered",
        "",
        f"The same {body['slices']} slices, blanked in front of the middle on the last ninth of them. {body['said']}",
        "",
        *table(["", "s", "peak MB"], rows),
    ]


def cube(found: dict) -> list[str]:
    if "cube" not in found:
        return []
    rows = [[r.name, r.why or number(r.seconds), number(r.peak, 0)] for r in found["cube"]]
    head = ["A ball of tissue, 1024 voxels along each axis (quick: 128)", "s", "peak MB"]
    return ["## A very large scan", "", *table(head, rows)]


def plot(growth: dict[str, list[Result]]) -> str:
    """A line for each step: seconds against slices, as SVG."""
    width, height, left, top = 640, 360, 60, 20
    counts = [int(count) for count in growth]
    steps = [result.name for result in next(iter(growth.values()))]
    highest = max((r.seconds for rs in growth.values() for r in rs if not r.why), default=1.0)
    unit = 10 ** math.floor(math.log10(highest / 2))
    step = next(unit * n for n in (1, 2, 5, 10) if highest / (unit * n) <= 6)

    def x(count: float) -> float:
        return left + count / max(counts) * (width - left - 20)

    def y(value: float) -> float:
        return height - 40 - value / highest * (height - 40 - top)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 20 * len(steps)}" '
             'font-family="sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>']  # fmt: skip
    ticks = [n * step for n in range(int(highest / step) + 1)]
    for tick in ticks:
        parts.append(f'<path d="M{left} {y(tick):.1f}H{width - 20}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for count in counts:
        parts.append(
            f'<text x="{x(count):.1f}" y="{height - 22}" text-anchor="middle">{count}</text>'
        )
    parts.append(f'<text x="{left}" y="{top - 6}">seconds</text>')
    parts.append(f'<text x="{width - 20}" y="{height - 6}" text-anchor="end">slices</text>')
    for n, name in enumerate(steps):
        points = [(count, growth[str(count)][n]) for count in counts]
        points = [f"{x(c):.1f},{y(r.seconds):.1f}" for c, r in points if not r.why]
        colour = COLOURS[n % len(COLOURS)]
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        at = height + 20 * n + 8
        parts.append(f'<rect x="{left}" y="{at - 9}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + 20}" y="{at + 1}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])
