"""Where the processor's time of a program goes, by what its samples were at work on.

    python shares.py COMMAND …      prints the shares of one run, largest first

Needs `perf` with the kernel's samples, and a program with symbols: `built()` makes the executables once
more, with them. A sample belongs to the first of `KINDS` that the innermost frame which is known names, so
that what a page of memory costs is the kernel's, wherever it was touched.
"""

import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = ROOT / "target/profile"
KINDS = {
    "pages of memory": r"page_fault|clear_page|madvise|munmap|exit_mm|unmap_page",
    "gunzip": r"libdeflate|deflate_decompress",
    "gzip": r"zlib_rs|crc32fast",
    "network": r"onnxruntime|voxmask::network::(convolution|operator)",
    "channels": r"voxmask::network::(channels|ends|normalize)|coarse_grid::Averaging",
    "mask's edge": r"voxmask::ops::(boundary|skin|rim|constant_area|rough_area|air_noise)|CoarseField",
    "pieces and holes": r"voxmask::ops::components",
    "distances and growing": r"voxmask::ops::(distance|morphology|surface)",
    "boxes of patches": r"voxmask::ops::(covering|packed_mask)",
    "resampling": r"voxmask::ops::(interpolate|resize|half)",
    "voxels, read, turned and written": r"voxmask::(volume|file)",
}
# Of linear resampling in memory, by the functions that were inlined.
OF_LINEAR = {
    None: r"voxmask::ops::interpolate",
    "pages of memory": KINDS["pages of memory"],
    "reading source lines": r"\b(load_lines|convert_run)\b",
    "sums": r"\b(weighted_sum|sum_along|finish_rows|sum_slices)\b",
    "writing target rows": r"\b(write_rows|from_f32)\b",
}
OTHER = "rest"
SAMPLES_A_SECOND = 397
SYMBOLS = {"CARGO_PROFILE_RELEASE_STRIP": "none", "CARGO_PROFILE_RELEASE_DEBUG": "line-tables-only"}
LIMIT_S = 300


def built_ops(symbols: bool = False) -> Path:
    """The executable of benches/ops.rs, built with the release profile; beside `built()` with symbols."""
    build = ["cargo", "bench", "--locked", "--bench", "ops", "--no-run", "--message-format", "json"]
    build += ["--target-dir", TARGET] if symbols else []
    environment = os.environ | (SYMBOLS if symbols else {})
    done = subprocess.run(
        build, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    messages = map(json.loads, done.stdout.splitlines())
    paths = [m["executable"] for m in messages if m.get("target", {}).get("name") == "ops"]
    return Path(paths[-1])


def built() -> Path:
    """Builds the executables with symbols and gives their folder.

    Raises CalledProcessError or OSError where perf cannot be used.
    """
    probe = ["perf", "record", "-q", "-e", "cpu-clock:k", "-o", "/dev/null", "true"]
    subprocess.run(probe, check=True, capture_output=True)
    build = ["cargo", "build", "--release", "--locked", "--bins", "--quiet", "--target-dir", TARGET]
    subprocess.run(build, cwd=ROOT, env=os.environ | SYMBOLS, check=True)
    return TARGET / "release"


def shares(command: list[object], kinds: dict[str | None, str] = KINDS) -> dict[str, float]:
    """Runs a program and gives each kind's share of its samples, on all threads, largest first.

    Where there is a kind None, of the samples that have a frame of it alone.

    Raises CalledProcessError or TimeoutExpired.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        record = ["perf", "record", "-q", "-F", SAMPLES_A_SECOND, "--call-graph", "dwarf,16384"]
        call = [str(part) for part in [*record, "-o", data, *command]]
        subprocess.run(call, check=True, capture_output=True, timeout=LIMIT_S)
        script = ["perf", "script", "-i", str(data), "-F", "ip,sym,dso"]
        text = subprocess.run(script, check=True, capture_output=True, text=True, timeout=LIMIT_S)
    samples = [sample for sample in re.split(r"\n\n+", text.stdout) if sample.strip()]
    if within := kinds.get(None):
        samples = [sample for sample in samples if re.search(within, sample)]
    named = {name: pattern for name, pattern in kinds.items() if name}
    counts = collections.Counter(kind(sample, named) for sample in samples)
    total = sum(counts.values())
    return {name: count / total for name, count in counts.most_common()}


def kind(sample: str, kinds: dict[str, str]) -> str:
    """What a sample was at work on: its frames, the innermost first, one a line."""
    for frame in sample.splitlines():
        for name, pattern in kinds.items():
            if re.search(pattern, frame):
                return name
    return OTHER


if __name__ == "__main__":
    for name, share in shares(sys.argv[1:]).items():
        print(f"{share:6.1%}  {name}")
