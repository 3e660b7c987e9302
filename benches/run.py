"""Wall time and peak memory of every step on a CT of 512×512×300 voxels, peers beside them.

    make bench                      voxmask alone
    make bench PEERS=monai          MONAI's Spacing in the same rounds
    make bench ARGS="--data ct.nii.gz --rounds 9"
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from measure import Result

ROOT = Path(__file__).resolve().parent.parent
SPACING_MM = 1.5
# Far more than any of these takes.
LIMIT_S = 600


def main() -> int:
    """Measures in rounds, so that a busy moment of the machine meets every program."""
    arguments = parse()
    scratch = ROOT / "target" / "bench"
    scratch.mkdir(parents=True, exist_ok=True)
    volume = arguments.data or made_volume(scratch)
    tasks = voxmask_tasks(volume, scratch, arguments.threads)
    if "monai" in arguments.peers:
        tasks.append(monai_task(volume, scratch, arguments.threads))
    print(f"{machine()}; {arguments.threads} threads, {arguments.rounds} rounds, medians")
    print(f"{volume.name}: {volume.stat().st_size / 1e6:.0f} MB")
    for _ in range(arguments.rounds):
        for task in tasks:
            task.measure(LIMIT_S)
            if task.why:
                raise SystemExit(f"{task.name}: {task.why}")
    print_table(tasks)
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="volume to use instead of the one made here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="", help="monai, or nothing")
    return parser.parse_args()


def made_volume(scratch: Path) -> Path:
    """The CT of full size, made once."""
    volume = scratch / "ct_512.nii.gz"
    if not volume.exists():
        source = ROOT / "tests/data/ct_abdomen.nii.gz"
        partial = scratch / "partial.nii.gz"
        script = ROOT / "benches/volume.py"
        python = ROOT / ".venv-tests/bin/python"
        subprocess.run([python, script, source, partial], check=True)
        partial.rename(volume)
    return volume


def voxmask_tasks(
    volume: Path, scratch: Path, threads: int, written: Path | None = None
) -> list[Result]:
    """The five steps; each uses what those before it wrote, compressed if the volume is.

    With a folder `written`, they write there instead, always compressed, and use what lies in `scratch`.
    """
    suffix = suffix_of(volume)
    foreground, area = scratch / f"foreground{suffix}", scratch / f"area{suffix}"

    def output(name: str) -> Path:
        return written / f"{name}.nii.gz" if written else scratch / f"{name}{suffix}"

    patches = (written or scratch) / "patches"
    spacing = ",".join([str(SPACING_MM)] * 3)
    flags = {
        "segment-foreground": ["--input", volume, "--output", output("foreground")],
        "segment-anonymization-area": (
            ["--input", volume, "--foreground", foreground, "--output", output("area")]
        ),
        "crop-patches": (
            ["--input", volume, "--foreground", foreground, "--anonymization-area", area]
            + ["--output", patches]
        ),
        "qa-metrics": ["--input", foreground, "--image", volume],
        "resample": ["--input", volume, "--output", output("resampled"), "--spacing", spacing],
    }
    # A training set out of one scan: many large patches, resampled on the way.
    random = ["--sampling", "random", "--count", 64, "--patch-shape", "160,160,160"]
    training = [*flags["crop-patches"][:-1], scratch / "training", *random, "--spacing", "1,1,1"]
    common = ["--threads", threads, "--device", "cpu", "--overwrite", "--quiet"]
    programs = ROOT / "target/release"
    calls = [(f"voxmask-{step}", step, own) for step, own in flags.items()]
    calls.append(("  64 patches of 160³ at 1 mm", "crop-patches", training))
    return [
        Result(
            name,
            [str(x) for x in [programs / f"voxmask-{step}", *own, *common]],
            writes=[own[own.index("--output") + 1]] if "--output" in own else [],
        )
        for name, step, own in calls
    ]


def suffix_of(volume: Path) -> str:
    """What the steps' own files end in."""
    return ".nii.gz" if volume.name.endswith(".gz") else ".nii"


def monai_task(volume: Path, scratch: Path, threads: int) -> Result:
    """MONAI in an environment of its own."""
    python = ROOT / ".venv-bench/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ROOT / ".venv-bench"], check=True)
        requirements = ROOT / "benches/requirements.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
    script, target = ROOT / "benches/monai_spacing.py", scratch / f"monai{suffix_of(volume)}"
    call = [python, script, volume, target, SPACING_MM, threads]
    return Result("MONAI Spacing", [str(x) for x in call], writes=[target])


def print_table(tasks: list[Result]) -> None:
    """Medians, the slowest round, and how the peer compares."""
    print(f"{'':36}{'wall s':>8}{'worst s':>9}{'peak MB':>9}")
    for task in tasks:
        wall, peak = statistics.median(task.wall_s), statistics.median(task.peak_mb)
        print(f"{task.name:36}{wall:8.2f}{max(task.wall_s):9.2f}{peak:9.0f}")
    ours = statistics.median(next(t for t in tasks if t.name == "voxmask-resample").wall_s)
    for task in (t for t in tasks if t.inner_s):
        inner, wall = statistics.median(task.inner_s), statistics.median(task.wall_s)
        print(f"{'  without its imports':36}{inner:8.2f}{max(task.inner_s):9.2f}")
        print(
            f"voxmask-resample is {inner / ours:.1f} times as fast as load, Spacing and save, "
            f"{wall / ours:.1f} times with MONAI's imports"
        )


def machine() -> str:
    """The processor and what it is busy with."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before"


if __name__ == "__main__":
    sys.exit(main())
