"""A program, measured: wall time, the seconds that it prints itself, peak memory."""

import json
import os
import shutil
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Result:
    """A program to measure, and what was measured. Times are seconds, memory is resident MB."""

    name: str
    command: list[object]
    wall_s: list[float] = field(default_factory=list)
    inner_s: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    # Processor time of the program itself, without the kernel's.
    user_s: list[float] = field(default_factory=list)
    check: object = None
    # Files and folders that are taken away before each run: most people write where nothing is, and a file that
    # replaces another makes the file system find room for it at once.
    writes: list[Path] = field(default_factory=list)
    # Why there is no figure.
    why: str = ""

    @property
    def seconds(self) -> float:
        """Median of what the program says of itself, else of its wall time; nan without a figure."""
        times = self.inner_s or self.wall_s
        return statistics.median(times) if times else float("nan")

    @property
    def peak(self) -> float:
        """Median of the peak memory [MB]."""
        return statistics.median(self.peak_mb) if self.peak_mb else float("nan")

    @property
    def user(self) -> float:
        """Median of the program's own processor time [s], all threads together."""
        return statistics.median(self.user_s) if self.user_s else float("nan")

    def measure(self, limit_s: float) -> None:
        """Runs the program once; one that fails or takes too long is never run again."""
        if self.why:
            return
        command = [str(part) for part in self.command]
        for path in self.writes:
            remove(path)
        # What the runs before wrote is brought to the disk first: a run that replaces a file which is on its way there
        # may have to wait for it.
        os.sync()
        start = time.perf_counter()
        # This process is small: the kernel counts the memory of the one that starts a program as the
        # program's own.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        timer = threading.Timer(limit_s, process.kill)
        timer.start()
        errors = []
        reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
        reader.start()
        output = process.stdout.read()
        reader.join()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if process.returncode:
            lines = "".join(errors).strip().splitlines()
            late = process.returncode == -9 and wall >= limit_s
            self.why = (
                f"not done after {limit_s:.0f} s" if late else (lines or ["failed"])[-1][:120]
            )
            print(f"  {self.name}: {self.why}", flush=True)
            return
        self.wall_s.append(wall)
        self.user_s.append(usage.ru_utime)
        self.peak_mb.append(usage.ru_maxrss * 1024 / 1e6)
        last = output.strip().splitlines()[-1:] or [""]
        if last[0].startswith('{"seconds"'):
            said = json.loads(last[0])
            self.inner_s.append(said["seconds"])
            self.check = said.get("check")


def remove(path: Path) -> None:
    """Takes away a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
