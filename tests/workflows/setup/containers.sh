#!/usr/bin/env bash
# Makes podman usable on a machine without systemd, and a Debian base image without a registry:
# containers.sh FOLDER. Needs root; installs Debian's podman, runc, mmdebstrap
# and Docker daemon.
# Afterwards CONTAINERS_CONF=FOLDER/containers.conf, and localhost/debian:bookworm-slim is there.
set -euo pipefail
base=$(realpath -m "$1")
mkdir -p "$base"

if ! command -v podman > /dev/null || ! command -v mmdebstrap > /dev/null || ! command -v runc > /dev/null || ! command -v dockerd > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        podman buildah runc mmdebstrap docker.io > /dev/null
fi

cat > "$base/containers.conf" <<'CONF'
containers = {default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"], netns = "host"}
engine = {runtime = "runc", cgroup_manager = "cgroupfs", events_logger = "file"}
CONF
export CONTAINERS_CONF=$base/containers.conf

podman image exists localhost/debian:bookworm-slim && exit 0
if [ ! -s "$base/debian.tar" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' | head -n 1)
    exclude=()
    for path in man info doc locale; do
        exclude+=("--dpkgopt=path-exclude=/usr/share/$path/*")
    done
    exclude+=(--dpkgopt=path-include='/usr/share/doc/*/copyright')
    mmdebstrap --quiet --variant=minbase --mode=root "${exclude[@]}" \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*' \
        bookworm "$base/partial.tar" \
        "deb $mirror bookworm main" "deb ${mirror%debian/}debian-security bookworm-security main"
    mv "$base/partial.tar" "$base/debian.tar"
fi
podman import --quiet --change 'CMD ["bash"]' "$base/debian.tar" localhost/debian:bookworm-slim > /dev/null
