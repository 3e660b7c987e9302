"""Prints what the executables are made of, as CycloneDX 1.5 JSON.

The crates are those that are linked into the executables: no build scripts, macros or tests, no other
platforms'. What Debian packages an image holds stands beside it in ``debian-packages.tsv``.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import onnxruntime as library  # noqa: E402

DCM2NIIX = "1.0.20260724"


def main() -> None:
    """Prints the list."""
    metadata = json.loads(cargo("metadata", "--format-version=1", "--locked"))
    packages = {package["id"]: package for package in metadata["packages"]}
    root = packages[metadata["resolve"]["root"]]
    linked = {tuple(line.split()[:2]) for line in tree().splitlines() if line}
    chosen = [p for p in packages.values() if (p["name"], f"v{p['version']}") in linked and p is not root]
    components = [crate(package) for package in sorted(chosen, key=lambda p: (p["name"], p["version"]))]
    components.append(binary("onnxruntime", library.VERSION, "MIT", sha256=library.LIBRARY_SHA256))
    components.append(binary("dcm2niix", DCM2NIIX, "BSD-3-Clause"))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": crate(root) | {"type": "application"}},
        "components": components,
    }
    json.dump(document, sys.stdout, indent=1)
    print()


def cargo(*arguments: str) -> str:
    """What a cargo command prints."""
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def tree() -> str:
    """One line a linked crate: name and version."""
    return cargo("tree", "--locked", "--edges=normal,no-proc-macro", "--prefix=none", "--format={p}")


def crate(package: dict) -> dict:
    """A crate as a component."""
    component = {
        "type": "library",
        "name": package["name"],
        "version": package["version"],
        "purl": f"pkg:cargo/{package['name']}@{package['version']}",
    }
    if package["license"]:
        component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return component


def binary(name: str, version: str, licence: str, sha256: str | None = None) -> dict:
    """Something that comes out of a wheel as a component."""
    component = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "licenses": [{"license": {"id": licence}}],
    }
    if sha256:
        component["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    return component


if __name__ == "__main__":
    main()
