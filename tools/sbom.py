"""Writes a bill of materials of the executables (CycloneDX 1.6, JSON): every crate that is compiled
in, ONNX Runtime, and the JavaScript libraries of the cohort's page, with licences and digests.

    python tools/sbom.py target/sbom.cdx.json
"""

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"


def main() -> None:
    """Writes the file that the command line names."""
    metadata = cargo_metadata()
    components = [*crates(metadata), *libraries()]
    package = next(p for p in metadata["packages"] if p["id"] == metadata["resolve"]["root"])
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(package, "application")},
        "components": sorted(components, key=lambda c: (c["name"], c["version"])),
    }
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill, indent=1) + "\n")
    print(f"{target}: {len(components)} components")


def cargo_metadata() -> dict:
    """What cargo knows of the packages for one platform."""
    call = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET]
    done = subprocess.run(call, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def crates(metadata: dict) -> list[dict]:
    """Crates that the executables are built of; not those of tests and build scripts alone."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    digests = {(p["name"], p["version"]): p.get("checksum") for p in locked}
    root = metadata["resolve"]["root"]
    found, waiting = set(), [root]
    while waiting:
        for needed in nodes[waiting.pop()]["deps"]:
            normal = any(kind["kind"] is None for kind in needed["dep_kinds"])
            if normal and needed["pkg"] not in found:
                found.add(needed["pkg"])
                waiting.append(needed["pkg"])
    return [
        component(
            packages[id_], "library", digests.get((packages[id_]["name"], packages[id_]["version"]))
        )
        for id_ in found
    ]


def component(package: dict, kind: str, digest: str | None = None) -> dict:
    """A crate as CycloneDX has it."""
    found = {
        "type": kind,
        "name": package["name"],
        "version": package["version"],
        "purl": f"pkg:cargo/{package['name']}@{package['version']}",
    }
    if package.get("license"):
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if digest:
        found["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return found


def libraries() -> list[dict]:
    """What lies in lib/ after `make setup`: it is loaded, or copied into a page."""
    listed = []
    for path in sorted((ROOT / "lib").glob("libonnxruntime.so.*")):
        version = path.name.removeprefix("libonnxruntime.so.")
        if re.fullmatch(r"\d+\.\d+\.\d+", version):
            listed.append(file_component(path, "onnxruntime", version, "MIT"))
    for path in sorted((ROOT / "lib/web").glob("*.js")):
        version = re.search(r"(\d+\.\d+\.\d+)", path.read_text(errors="replace")[:2000])
        listed.append(file_component(path, path.stem, version[1] if version else "unknown", "MIT"))
    return listed


def file_component(path: Path, name: str, version: str, licence: str) -> dict:
    """A file, known by its digest."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "type": "library",
        "name": name,
        "version": version,
        "licenses": [{"expression": licence}],
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


if __name__ == "__main__":
    main()
