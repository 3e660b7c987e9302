#!/usr/bin/env bash
# Runs the five steps on each scan of tests/data, into demo/; `make demo` sets up first.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/release:$PATH"

for scan in ct_abdomen mr_head_intact mr_head_defaced; do
    image=tests/data/$scan.nii.gz
    out=demo/$scan
    mkdir -p "$out"

    step() {
        voxmask-"$1" "${@:2}" --report "$out/$1.report.json" --overwrite --quiet
    }

    step resample --input "$image" --spacing 2,2,2 --output "$out/resampled.nii.gz"

    step segment-foreground --input "$image" --output "$out/foreground.nii.gz"

    step segment-anonymization-area --input "$image" --foreground "$out/foreground.nii.gz" \
        --output "$out/anonymization_area.nii.gz" --picture "$out/picture.png"

    step crop-patches --input "$image" --foreground "$out/foreground.nii.gz" \
        --anonymization-area "$out/anonymization_area.nii.gz" \
        --patch-shape 32,32,32 --output "$out/patches"

    step qa-metrics --input "$out/foreground.nii.gz" --image "$image"
    cp "$out/qa-metrics.report.json" "$out/qa.json"
done

python3 tools/demo_table.py demo/*/
