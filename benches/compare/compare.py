"""The same work by voxmask and by what a user would pick instead, side by side in rounds.

    make compare                  full size, half an hour or so; writes docs/performance.md and .svg
    make compare ARGS=--quick     a small scan, one round, into target/compare: checks the scripts

Each measurement is a process of its own, so that its peak memory can be told. What takes longer
than `PATIENCE_S` is measured once. A peer that cannot run is named as such in the table.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import page  # noqa: E402
import shares  # noqa: E402
from measure import Result  # noqa: E402
from run import machine, made_volume, voxmask_tasks  # noqa: E402

PATIENCE_S = 8.0
# Wall time a process may take; what is still at work then is ended and said.
LIMIT_S = 300
# Scans of more slices are measured once.
LONG = 600
PROGRAMS = ROOT / "target/release"
# Methods of `Session`, and sections of the page.
PARTS = ("start", "chain", "plain", "profile", "linear", "peers", "growth", "altered", "cube")

# Operations of benches/ops.rs that do what the peers do.
OPERATIONS = {
    "load": "load",
    "save": "save",
    "linear": "resample to 1.5 mm, Linear, Sample",
    "cubic": "resample to 1.5 mm, Cubic, Sample",
    "components": "components, 26-connected",
    "holes": "fill holes",
    "distance": "squared distances",
    "surfaces": "surface distances, 2 masks",
    "network": "second network, 96³ cells",
}
# What ours, nibabel, SimpleITK and Otsu's threshold call the file that they save.
SAVED = ("ours", "nibabel", "itk", "otsu")


def main() -> int:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small scan, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", type=Path, help="interpreter that has the peers")
    parser.add_argument("--skip", default="", help="parts to leave out: " + ", ".join(PARTS))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 1
    began = time.perf_counter()
    scratch = ROOT / "target/compare" / ("quick" if arguments.quick else "full")
    scratch.mkdir(parents=True, exist_ok=True)
    python = arguments.python or environment()
    before = machine()
    session = Session(arguments, scratch, python)
    found = {
        "machine": before,
        "versions": versions(python),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        **session.make_inputs(),
    }
    skipped = arguments.skip.split(",")
    for name in PARTS:
        if name not in skipped:
            print(f"{time.perf_counter() - began:5.0f} s  {name}", flush=True)
            found[name] = getattr(session, name)()
            # Kept as it comes, so that a later fault costs nothing.
            (scratch / "found.json").write_text(json.dumps(found, indent=1, default=plain))
    folder = scratch if arguments.quick else ROOT / "docs"
    page.write(found, folder)
    took = time.perf_counter() - began
    print(f"{folder / 'performance.md'} after {took / 60:.1f} minutes")
    return 0


def plain(value: object) -> object:
    """What JSON does not know: a result as its fields, a path as text."""
    return vars(value) if isinstance(value, Result) else str(value)


def environment() -> Path:
    """The peers' own environment, made when it is missing."""
    python = ROOT / ".venv-bench/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ROOT / ".venv-bench"], check=True)
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r"]
    subprocess.run([*install, HERE / "requirements.txt"], check=True)
    return python


def versions(python: Path) -> dict[str, str]:
    """Versions of voxmask, the compiler and the peers that are installed."""
    names = [
        line.split("==")[0]
        for name in (HERE / "requirements.txt", HERE.parent / "requirements.txt")
        for line in name.read_text().splitlines()
        if "==" in line
    ]
    script = (
        "import importlib.metadata as m, sys\n"
        "for n in sys.argv[1:]:\n"
        "    try: print(n, m.version(n))\n"
        "    except m.PackageNotFoundError: print(n, 'missing')\n"
    )
    listed = subprocess.run(
        [python, "-c", script, *names], capture_output=True, text=True, check=True
    )
    ours = subprocess.run(
        [PROGRAMS / "voxmask-resample", "--version"], capture_output=True, text=True, check=True
    )
    rust = subprocess.run(
        ["rustc", "--version"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {
        "voxmask": ours.stdout.split()[1],
        "rustc": rust.stdout.split()[1],
        "Python": platform.python_version(),
        **dict(sorted(line.split() for line in listed.stdout.splitlines())),
    }


class Session:
    """What all parts share: scratch folder, peers' interpreter, inputs."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path, python: Path) -> None:
        self.rounds, self.threads = arguments.rounds, arguments.threads
        self.quick, self.scratch, self.python = arguments.quick, scratch, python
        self.ops = shares.built_ops()
        self.image = scratch / "image.nii.gz"

    def make_inputs(self) -> dict:
        """A CT of full size (quick: the small one it is made of), its foreground, a second mask;
        gives back shape and spacing."""
        if not self.image.exists():
            small = ROOT / "tests/data/ct_abdomen.nii.gz"
            bench = ROOT / "target/bench"
            bench.mkdir(parents=True, exist_ok=True)
            source = small if self.quick else made_volume(bench)
            self.image.symlink_to(source)
        mask, other = self.scratch / "mask.nii.gz", self.scratch / "other.nii.gz"
        if not mask.exists():
            self.step("segment-foreground", "--input", self.image, "--output", mask)
        if not other.exists():
            # The same body 2 mm off, as a second opinion might be.
            subprocess.run([self.python, HERE / "inputs.py", "shift", mask, other], check=True)
        shape = [self.python, HERE / "inputs.py", "grid", self.image]
        return json.loads(subprocess.run(shape, capture_output=True, text=True, check=True).stdout)

    def step(self, step: str, *flags: object) -> None:
        """Runs an executable of ours, unmeasured."""
        call = [PROGRAMS / f"voxmask-{step}", *flags, "--overwrite", "--quiet", "--device", "cpu"]
        subprocess.run([str(x) for x in call], check=True)

    def start(self) -> list[Result]:
        """How long an executable takes to say who it is, and a scan of 64³ in all."""
        program = PROGRAMS / "voxmask-segment-foreground"
        small = self.scratch / "small.nii.gz"
        if not small.exists():
            subprocess.run([self.python, HERE / "inputs.py", "cube", small, "64"], check=True)
        flags = ["--input", small, "--output", self.scratch / "small_mask.nii.gz"]
        calls = {
            "`--version`": [program, "--version"],
            "`--help`": [program, "--help"],
            "foreground of 64³ voxels": [program, *flags, "--overwrite", "--quiet"],
        }
        written = [self.scratch / "small_mask.nii.gz"]
        results = [Result(name, call, writes=written) for name, call in calls.items()]
        for _ in range(7 * self.rounds):
            for result in results:
                result.measure(LIMIT_S)
        return results

    def chain(self) -> dict[str, list[Result]]:
        """Every step from file to file, and reading and writing alone; on one thread and on all."""
        found = {}
        for threads in dict.fromkeys((1, self.threads)):
            tasks = voxmask_tasks(self.image, self.scratch, threads)
            results = [replace(task, name=task.name.strip()) for task in tasks]
            results += [
                Result("reading the scan alone", self.ours("load", threads)),
                Result(
                    "writing a mask alone",
                    self.ours("save mask", threads),
                    writes=[self.scratch / "ours_mask.nii.gz"],
                ),
            ]
            found[str(threads)] = results
        for _ in range(self.rounds):
            for results in found.values():
                for result in results:
                    result.measure(LIMIT_S)
        return found

    def plain(self) -> dict[str, list[Result]]:
        """Every step from uncompressed files to compressed ones, on one thread and on all."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            scan = Path(folder) / "image.nii"
            same = ["--interpolation", "nearest", "--like", self.image]
            self.step("resample", "--input", self.image, "--output", scan, *same)
            # What the steps read of one another is uncompressed too.
            for task in voxmask_tasks(scan, scan.parent, self.threads)[:2]:
                task.measure(LIMIT_S)
            written = scan.parent / "written"
            written.mkdir()
            threads = dict.fromkeys((1, self.threads))
            found = {str(n): voxmask_tasks(scan, scan.parent, n, written)[:5] for n in threads}
            # Short runs, and what is asked is a ratio: more rounds than of the others.
            for _ in range(2 * self.rounds):
                for results in found.values():
                    for result in results:
                        result.measure(LIMIT_S)
        return found

    def profile(self) -> dict[str, dict[str, float]]:
        """What each step's processor time goes to; nothing where it cannot be told."""
        tasks = voxmask_tasks(self.image, self.scratch, self.threads)[:5]
        calls = {task.name: task.command for task in tasks}
        try:
            programs = shares.built()
            return {
                name: shares.shares([programs / Path(program).name, *flags])
                for name, (program, *flags) in calls.items()
            }
        except (OSError, subprocess.SubprocessError) as why:
            print(f"  no profile: {why}")
            return {}

    def linear(self) -> dict[str, float]:
        """What linear resampling in memory spends its time on; nothing where it cannot be told."""
        try:
            _, *flags = self.ours(OPERATIONS["linear"], self.threads)
            return shares.shares([shares.built_ops(symbols=True), *flags], shares.OF_LINEAR)
        except (OSError, subprocess.SubprocessError) as why:
            print(f"  no profile: {why}")
            return {}

    def ours(self, operation: str, threads: int) -> list[object]:
        """A call of benches/ops.rs for one operation."""
        files = ["--image", self.image, "--folder", self.scratch]
        masks = ["--mask", self.scratch / "mask.nii.gz", "--other", self.scratch / "other.nii.gz"]
        how = ["--threads", threads, "--json", "--only", operation]
        return [self.ops, *files, *masks, *how]

    def peers(self) -> dict[str, list[Result]]:
        """Operation by operation: voxmask on one thread and on all, then the peers."""
        names = "{work: list(peers) for work, peers in peers.PEERS.items()}"
        script = f"import json, peers; print(json.dumps({names}))"
        listed = subprocess.run(
            [self.python, "-c", script], cwd=HERE, capture_output=True, text=True, check=True
        )
        peers = json.loads(listed.stdout)
        found = {}
        for work, names in peers.items():
            results = []
            if operation := OPERATIONS.get(work):
                results = [
                    Result("voxmask", self.ours(operation, self.threads)),
                    Result("voxmask, one thread", self.ours(operation, 1)),
                ]
            script = [self.python, HERE / "peers.py", work]
            data = ["--data", self.scratch, "--threads", self.threads]
            results += [Result(name, [*script, name, *data]) for name in names]
            for result in results:
                result.writes = [self.scratch / f"{name}.nii.gz" for name in SAVED]
            found[work] = results
        for n in range(self.rounds):
            for work, results in found.items():
                print(f"  round {n + 1}: {work}", flush=True)
                for result in results:
                    if n == 0 or not (result.why or result.seconds > PATIENCE_S):
                        result.measure(LIMIT_S)
        return found

    def growth(self) -> dict[str, list[Result]]:
        """Every step on scans of more and more slices."""
        found = {}
        for count in self.lengths():
            scan = self.make(f"slices_{count}", "slices", self.image, count)
            tasks = voxmask_tasks(scan, self.scratch, self.threads)
            results = tasks[:5]
            for _ in range(1 if count > LONG else self.rounds):
                for result in results:
                    result.measure(LIMIT_S)
            found[str(count)] = results
            scan.unlink()
        return found

    def lengths(self) -> tuple[int, ...]:
        """Slices of a short scan to a whole body."""
        return (20, 40, 60) if self.quick else (100, 300, 600, 1200, 1800)

    def make(self, name: str, what: str, *arguments: object) -> Path:
        """A scan that `inputs.py` makes, as `.nii.gz`; the scan that it is made of comes first."""
        scan = self.scratch / f"{name}.nii.gz"
        plain = scan.with_suffix("")
        first, *rest = arguments
        call = [self.python, HERE / "inputs.py", what, first, plain, *rest]
        subprocess.run([str(part) for part in call], check=True)
        # Our own writer deflates on all threads; nibabel would take minutes.
        same = ["--interpolation", "nearest", "--like", plain]
        self.step("resample", "--input", plain, "--output", scan, *same)
        plain.unlink()
        return scan

    def altered(self) -> dict:
        """The area of a whole body that was altered, which takes masks of it that an intact one does not."""
        count = self.lengths()[-1]
        body = self.make("body", "slices", self.image, count)
        scan = self.make("altered", "blank", body)
        body.unlink()
        name = "voxmask-segment-anonymization-area"
        area, report = self.scratch / "altered_area.nii.gz", self.scratch / "altered.json"
        files = ["--input", scan, "--output", area, "--report", report]
        how = ["--threads", self.threads, "--device", "cpu", "--overwrite", "--quiet"]
        task = Result(name, [PROGRAMS / name, *files, *how], writes=[area, report])
        for _ in range(1 if count > LONG else self.rounds):
            task.measure(LIMIT_S)
        scan.unlink()
        if task.why:
            return {"slices": count, "result": task, "said": ""}
        found = json.loads(report.read_text())["result"]
        probability, litres = (
            found["altered_probability"],
            found["anonymization_area"]["volume_ml"] / 1000,
        )
        said = f"It is altered with a probability of {probability:.2f}; the area found has {litres:.1f} l."
        return {"slices": count, "result": task, "said": said}

    def cube(self) -> list[Result]:
        """Every step on a scan of 1024 voxels along each axis."""
        side = 128 if self.quick else 1024
        scan = self.scratch / f"cube_{side}.nii.gz"
        plain = scan.with_suffix("")
        make = [self.python, HERE / "inputs.py", "cube", plain, str(side)]
        subprocess.run(make, check=True)
        same = ["--interpolation", "nearest", "--like", plain]
        self.step("resample", "--input", plain, "--output", scan, *same)
        plain.unlink()
        tasks = voxmask_tasks(scan, self.scratch, self.threads)
        results = tasks[:5]
        for result in results:
            result.measure(LIMIT_S)
        scan.unlink()
        return results


if __name__ == "__main__":
    sys.exit(main())
