#!/usr/bin/env bash
# Runs every target (or those named) for TIME seconds each: bash fuzz/run.sh 60 header card
# Ends with 1 at the first input that crashes, takes 10 s, or needs 1 GB; it lies in fuzz/artifacts then,
# and is to become a test.
set -euo pipefail
cd "$(dirname "$0")"
time=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(header voxels gzip card config tables)

root=$PWD/..
seed() { mkdir -p "corpus/$1"; cp -n "$2" "corpus/$1/$3"; }
for scan in "$root"/tests/data/golden/*.nii.gz; do
    name=$(basename "$scan" .nii.gz)
    seed gzip "$scan" "$name"
    mkdir -p corpus/header
    gzip -dc "$scan" 2>/dev/null | head -c 2000 > "corpus/header/$name" || true
done
for card in "$root"/models/*/card.json "$root"/tests/data/models/*/card.json; do
    seed card "$card" "$(basename "$(dirname "$(dirname "$card")")")-$(basename "$(dirname "$card")")"
done
for model in "$root"/tests/data/models/*/*.onnx; do
    seed card "$model" "$(basename "$(dirname "$model")")-$(basename "$model")"
done
mkdir -p corpus/config corpus/tables corpus/voxels
for schema in "$root"/schemas/*.config.json; do
    # Defaults are not in a schema: one configuration of paths alone for each step.
    printf '{"input": "a.nii.gz", "output": "b.nii.gz"}' > "corpus/config/$(basename "$schema")"
done
printf '{"spacing": [1, 1, 1.5], "patch_shape": [96, 96, 96], "window": [-1000, 400]}' > corpus/config/triples
printf 'scan,site,region\na.nii.gz,"one, two",head\n' > corpus/tables/sheet
printf '{"schema":"ledger/1","previous":"0"}\n' > corpus/tables/ledger
printf '\1\3\4\4\4\1\1\20\0\0\0\1\0\0\0\0%0256d' 7 > corpus/voxels/packed

for target in "${targets[@]}"; do
    echo "== $target: $time s"
    cargo +nightly fuzz run --fuzz-dir . "$target" -- -max_total_time="$time" -timeout=10 \
        -rss_limit_mb=1024 -malloc_limit_mb=1024 -max_len=65536 -print_final_stats=1 -verbosity=0
done
