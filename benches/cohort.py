"""`voxmask-prepare` over a folder against the executables one by one, and a kill in the middle.

    make bench-cohort DATA=folder
    make bench-cohort DATA=folder ARGS="--scans 20 --memory 2G"

Takes volumes of the folder at equal distances of its sorted list, until there are 55, and five that are
broken in different ways. Prints wall time, processor time and peak memory of both ways, whether the
broken ones were named, and whether a run that was killed by SIGKILL and resumed left the same bytes.
"""

import argparse
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from run import ROOT, machine

PROGRAMS = ROOT / "target/release"
BROKEN = 5
# When a run ended and how long it took differ between runs.
RUN_FILES = {"ledger.jsonl", "cohort.html"}


@dataclass
class Cost:
    """What some processes took."""

    wall_s: float = 0.0
    processor_s: float = 0.0
    peak_mb: float = 0.0
    code: int = 0

    def add(self, other: "Cost") -> None:
        """Takes another process in."""
        self.wall_s += other.wall_s
        self.processor_s += other.processor_s
        self.peak_mb = max(self.peak_mb, other.peak_mb)


def main() -> int:
    """Measures, and says what does not hold."""
    arguments = parse()
    scratch = ROOT / "target" / "bench-cohort"
    shutil.rmtree(scratch, ignore_errors=True)
    scans = scratch / "scans"
    good = chosen(arguments.data, scans, arguments.scans)
    broken = break_some(good, scans)
    print(f"{machine()}; {arguments.threads} threads; {len(good)} scans and {len(broken)} broken files")

    whole = run(prepare(scans, scratch / "whole", arguments))
    left_out = json.loads((scratch / "whole.json").read_text())["result"]["left_out"]
    by_hand = Cost()
    for number, scan in enumerate(good):
        for command in one_by_one(scan, scratch / "single" / str(number), arguments):
            cost = run(command)
            if cost.code:
                raise SystemExit(f"{Path(command[0]).name} ended with {cost.code}")
            by_hand.add(cost)
    print_table({"voxmask-prepare": whole, "one by one": by_hand})
    print(f"voxmask-prepare takes {whole.wall_s / by_hand.wall_s:.1%} of the time of one by one")

    killed_after = whole.wall_s / 2
    resumed = prepare(scans, scratch / "resumed", arguments)
    kill(resumed, killed_after)
    finished = len(list((scratch / "resumed" / "scans").glob("*/scan.json")))
    rest = run([*resumed, "--resume"])
    differ = differences(scratch / "whole", scratch / "resumed")
    print(
        f"killed after {killed_after:.0f} s with {finished} scans finished, resumed for "
        f"{rest.wall_s:.0f} s: {len(differ)} files differ"
    )
    checks = {
        f"{len(broken)} broken files left out, exit code 65 or 66": len(left_out) == len(broken)
        and whole.code in (65, 66),
        "all other scans done": len(list((scratch / "whole" / "scans").glob("*/scan.json"))) == len(good),
        f"peak memory within {arguments.memory}": whole.peak_mb * 1e6 <= bytes_of(arguments.memory),
        "at most 60 % of the time": whole.wall_s <= 0.6 * by_hand.wall_s,
        "same bytes after a kill": not differ and rest.code == whole.code,
    }
    for name, holds in checks.items():
        print(f"{'holds ' if holds else 'FAILS '} {name}")
    print(*differ[:10], sep="\n")
    return 0 if all(checks.values()) else 1


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of volumes")
    parser.add_argument("--scans", type=int, default=55)
    parser.add_argument("--memory", default="4G")
    parser.add_argument("--threads", default=str(len(os.sched_getaffinity(0))))
    return parser.parse_args()


def chosen(data: Path, scans: Path, count: int) -> list[Path]:
    """Links to volumes at equal distances of the sorted list."""
    scans.mkdir(parents=True)
    volumes = sorted(p for p in data.rglob("*") if p.name.endswith((".nii", ".nii.gz")))
    if not volumes:
        raise SystemExit(f"no .nii or .nii.gz in {data}")
    picked = [volumes[n * len(volumes) // count] for n in range(min(count, len(volumes)))]
    links = [scans / f"{n:03}_{volume.name}" for n, volume in enumerate(picked)]
    for link, volume in zip(links, picked, strict=True):
        link.symlink_to(volume.resolve())
    return links


def break_some(good: list[Path], scans: Path) -> list[Path]:
    """Files that are no usable volumes, each in its own way."""
    first = next(path for path in good if path.name.endswith(".gz"))
    whole = first.read_bytes()
    header = bytearray(gzip.decompress(whole)[:352])
    header[42:44] = (30000).to_bytes(2, "little")
    contents = {
        "truncated.nii.gz": whole[: len(whole) // 2],
        "wrong_crc.nii.gz": whole[:-8] + b"\0\0\0\0" + whole[-4:],
        "no_volume.nii.gz": gzip.compress(b"no volume" * 100),
        "lying_header.nii": bytes(header),
        "empty.nii": b"",
    }
    paths = [scans / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return paths


def prepare(scans: Path, output: Path, arguments: argparse.Namespace) -> list[str]:
    """The call of `voxmask-prepare`."""
    own = ["--input", scans, "--output", output, "--report", output.with_suffix(".json")]
    own += ["--memory", arguments.memory, "--threads", arguments.threads, "--device", "cpu", "--quiet"]
    return [str(part) for part in (PROGRAMS / "voxmask-prepare", *own)]


def one_by_one(scan: Path, folder: Path, arguments: argparse.Namespace) -> list[list[str]]:
    """The calls that give the same results for one scan."""
    folder.mkdir(parents=True)
    foreground, area = folder / "foreground.nii.gz", folder / "area.nii.gz"
    common = ["--threads", arguments.threads, "--device", "cpu", "--quiet"]
    calls = {
        "segment-foreground": ["--input", scan, "--output", foreground, "--picture", folder / "f.png"],
        "segment-anonymization-area": ["--input", scan, "--foreground", foreground, "--output", area]
        + ["--picture", folder / "a.png"],
        "qa-metrics": ["--input", foreground, "--image", scan],
    }
    return [
        [str(part) for part in (PROGRAMS / f"voxmask-{step}", *own, "--report", folder / f"{step}.json", *common)]
        for step, own in calls.items()
    ]


def run(command: list[str]) -> Cost:
    """Runs a program and measures it."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(
        wall_s=time.perf_counter() - start,
        processor_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss * 1024 / 1e6,
        code=process.returncode,
    )


def kill(command: list[str], after_s: float) -> None:
    """Starts a program and ends it by SIGKILL."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()


def differences(left: Path, right: Path) -> list[str]:
    """Files of two cohorts that differ, but for when they were made."""
    names = {p.relative_to(folder) for folder in (left, right) for p in folder.rglob("*") if p.is_file()}
    return sorted(
        str(name)
        for name in names
        if name.name not in RUN_FILES and contents(left / name) != contents(right / name)
    )


def contents(path: Path) -> object:
    """The bytes of a file; of a report all but how it ran; None without one."""
    if not path.exists():
        return None
    if path.suffix != ".json":
        return path.read_bytes()
    value = json.loads(path.read_text())
    if isinstance(value, dict):
        value.pop("run", None)
    return value


def bytes_of(memory: str) -> float:
    """`4G` in bytes."""
    units = {"K": 1e3, "M": 1e6, "G": 1e9}
    return float(memory[:-1]) * units[memory[-1]] if memory[-1] in units else float(memory)


def print_table(costs: dict[str, Cost]) -> None:
    """A row for each way."""
    print(f"{'':24}{'wall s':>9}{'processor s':>13}{'peak MB':>9}")
    for name, cost in costs.items():
        print(f"{name:24}{cost.wall_s:9.1f}{cost.processor_s:13.1f}{cost.peak_mb:9.0f}")


if __name__ == "__main__":
    sys.exit(main())
