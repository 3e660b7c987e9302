#!/usr/bin/env bash
# Lays out the build context of the images: context.sh FOLDER [cuda]
# Needs `make setup` before. With `cuda`, fetches ONNX Runtime's GPU build and NVIDIA's libraries
# (1.6 GB of wheels) through pip.
set -euo pipefail
context=$(realpath -m "$1")
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

rm -rf "$context/cpu"
mkdir -p "$context/cpu/bin" "$context/cpu/lib" "$context/cpu/share/doc/voxmask/licences" "$context/wheels"
find target/release -maxdepth 1 -name 'voxmask-*' -type f -perm -u+x -exec cp -t "$context/cpu/bin" {} +
cp lib/libonnxruntime.so.* "$context/cpu/lib/"

# dcm2niix is one binary, which its wheel carries.
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
fetch="-m pip download --quiet --no-deps --only-binary=:all: --require-hashes"
"$PYTHON" $fetch --dest "$wheels" --requirement containers/wheels-cpu.txt
"$PYTHON" -m zipfile -e "$wheels"/dcm2niix-*.whl "$wheels/dcm2niix"
find "$wheels/dcm2niix" -name dcm2niix -type f -exec install -m 755 {} "$context/cpu/bin/dcm2niix" \;

licences="$context/cpu/share/doc/voxmask/licences"
cp LICENSE "$licences/voxmask-LICENSE"
cp lib/onnxruntime-* "$licences/"
find "$wheels/dcm2niix" -iname '*licen[sc]e*' -type f -exec cp {} "$licences/dcm2niix-LICENSE" \;
"$PYTHON" containers/sbom.py > "$context/cpu/share/doc/voxmask/sbom.cdx.json"

if [ "${2:-}" = cuda ]; then
    "$PYTHON" $fetch --dest "$context/wheels" --requirement containers/wheels-cuda.txt \
        --python-version 3.11 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --platform manylinux2014_x86_64
fi
