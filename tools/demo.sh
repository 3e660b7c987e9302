#!/usr/bin/env bash
# Runs the five steps on each scan of tests/data, into demo/; `make demo` sets up first.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/release:$PATH"

for scan in ct_abdomen mr_head_intact mr_head_defaced; do
    image=tests/data/$scan.nii.gz
    out=demo/$scan
    common=(--overwrite --quiet)
    mkdir -p "$out"

    voxmask-resample --input "$image" --spacing 2,2,2 --output "$out/resampled.nii.gz" \
        --report "$out/resample.report.json" "${common[@]}"

    voxmask-segment-foreground --input "$image" --output "$out/foreground.nii.gz" \
        --report "$out/segment-foreground.report.json" "${common[@]}"

    voxmask-segment-anonymization-area --input "$image" --foreground "$out/foreground.nii.gz" \
        --output "$out/anonymization_area.nii.gz" --picture "$out/picture.png" \
        --report "$out/segment-anonymization-area.report.json" "${common[@]}"

    voxmask-crop-patches --input "$image" --foreground "$out/foreground.nii.gz" \
        --anonymization-area "$out/anonymization_area.nii.gz" --output "$out/patches" \
        --patch-shape 32,32,32 --minimum-foreground 0.1 \
        --report "$out/crop-patches.report.json" "${common[@]}"

    voxmask-qa-metrics --input "$out/foreground.nii.gz" --image "$image" \
        --report "$out/qa.json" "${common[@]}"
done

python3 tools/demo_table.py demo/*/
