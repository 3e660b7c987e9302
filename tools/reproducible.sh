#!/usr/bin/env bash
# Builds the executables twice from nothing, in folders of different names, and compares their digests.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for n in first second; do
    CARGO_TARGET_DIR=$work/$n cargo build --release --locked --bins
    (cd "$work/$n/release" && find . -maxdepth 1 -name 'voxmask-*' -type f -executable -print0 |
        sort -z | xargs -0 sha256sum) > "$work/$n.sha256"
done
cat "$work/first.sha256"
diff "$work/first.sha256" "$work/second.sha256"
echo "both builds are the same, byte for byte"
