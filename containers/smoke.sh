#!/usr/bin/env bash
# Runs inside an image, as any user, with a read-only root and no network: smoke.sh DATA OUT
# Versions, what a workflow manager needs, and the steps in a row on each scan of DATA.
set -euo pipefail
data=$1 out=$2

command -v bash ps > /dev/null
ps -o pid= -p $$ > /dev/null
! command -v python3 > /dev/null || { echo "error: Python is in the image" >&2; exit 1; }
for executable in /usr/local/bin/voxmask-*; do
    "$executable" --version
done
dcm2niix --version | tail -n 1 || true

for image in "$data"/*.nii.gz; do
    scan=$(basename "$image" .nii.gz)
    mkdir "$out/$scan"
    cd "$out/$scan"
    common=(--quiet --device cpu --threads 2)
    voxmask-segment-foreground --input "$image" --output foreground.nii.gz \
        --report foreground.json "${common[@]}"
    voxmask-segment-anonymization-area --input "$image" --foreground foreground.nii.gz \
        --output anonymization_area.nii.gz --report anonymization_area.json "${common[@]}"
    voxmask-crop-patches --input "$image" --foreground foreground.nii.gz \
        --anonymization-area anonymization_area.nii.gz --patch-shape 32,32,32 --output patches \
        --report patches.json "${common[@]}"
    voxmask-qa-metrics --input foreground.nii.gz --image "$image" --report qa.json "${common[@]}"
    voxmask-resample --input "$image" --spacing 4,4,4 --output resampled.nii.gz \
        --report resampled.json "${common[@]}"
done

# Without a GPU, --device cuda must end with 69 and say so, not go on with the CPU.
if [ ! -e /dev/nvidia0 ]; then
    status=0
    said=$(voxmask-segment-foreground --input "$image" --output "$out/cuda.nii.gz" --device cuda 2>&1) || status=$?
    [ "$status" = 69 ] || { echo "error: --device cuda ended with $status: $said" >&2; exit 1; }
    echo "--device cuda: 69, $said"
fi
echo "smoke test passed as user $(id -u)"
