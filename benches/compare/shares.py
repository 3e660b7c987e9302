"""Where the processor's time of a program goes, by what its samples were at work on.

    python shares.py COMMAND …      prints the shares of one run, largest first

Needs `perf` with the kernel's samples, and a program with symbols: `built()` makes the executables once
more, with them. A sample belongs to the first of `KINDS` that the innermost frame which is known names, so
that what a page of memory costs is the kernel's, wherever it was touched.
"""

import collections
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
    "network": r"onnxruntime",
    "channels": r"voxmask::network::(channels|ends|normalize)|coarse_grid::Averaging",
    "mask's edge": r"voxmask::ops::(boundary|skin|rim|constant_area|rough_area|air_noise)|CoarseField",
    "pieces and holes": r"voxmask::ops::components",
    "distances and growing": r"voxmask::ops::(distance|morphology|surface)",
    "boxes of patches": r"voxmask::ops::(covering|packed_mask)",
    "resampling": r"voxmask::ops::(interpolate|resize|half)",
    "voxels, read, turned and written": r"voxmask::(volume|file)",
}
OTHER = "rest"
SAMPLES_A_SECOND = 397
LIMIT_S = 300


def built() -> Path:
    """Builds the executables with symbols and gives their folder.

    Raises CalledProcessError or OSError where perf cannot be used.
    """
    probe = ["perf", "record", "-q", "-e", "cpu-clock:k", "-o", "/dev/null", "true"]
    subprocess.run(probe, check=True, capture_output=True)
    symbols = {"CARGO_PROFILE_RELEASE_STRIP": "none", "CARGO_PROFILE_RELEASE_DEBUG": "line-tables-only"}
    build = ["cargo", "build", "--release", "--locked", "--bins", "--quiet", "--target-dir", TARGET]
    subprocess.run(build, cwd=ROOT, env=os.environ | symbols, check=True)
    return TARGET / "release"


def shares(command: list[object]) -> dict[str, float]:
    """Runs a program and gives each kind's share of its samples, on all threads, largest first.

    Raises CalledProcessError or TimeoutExpired.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        record = ["perf", "record", "-q", "-F", SAMPLES_A_SECOND, "--call-graph", "dwarf,16384"]
        call = [str(part) for part in [*record, "-o", data, *command]]
        subprocess.run(call, check=True, capture_output=True, timeout=LIMIT_S)
        script = ["perf", "script", "-i", str(data), "-F", "ip,sym,dso"]
        text = subprocess.run(script, check=True, capture_output=True, text=True, timeout=LIMIT_S)
    kinds = collections.Counter(map(kind, text.stdout.strip().split("\n\n")))
    total = sum(kinds.values())
    return {name: count / total for name, count in kinds.most_common()}


def kind(sample: str) -> str:
    """What a sample was at work on: its frames, the innermost first, one a line."""
    for frame in sample.splitlines():
        for name, pattern in KINDS.items():
            if re.search(pattern, frame):
                return name
    return OTHER


if __name__ == "__main__":
    for name, share in shares(sys.argv[1:]).items():
        print(f"{share:6.1%}  {name}")
