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

# An image of an older recipe is made anew.
recipe=$(sha256sum "$0" | cut -d' ' -f1)
image=localhost/debian:bookworm-slim
[ "$(podman image inspect --format '{{ index .Labels "recipe" }}' "$image" 2> /dev/null)" != "$recipe" ] || exit 0
if [ ! -s "$base/debian.tar" ] || [ "$(cat "$base/recipe" 2> /dev/null)" != "$recipe" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' | head -n 1)
    exclude=()
    for path in man info doc locale; do
        exclude+=("--dpkgopt=path-exclude=/usr/share/$path/*")
    done
    exclude+=(--dpkgopt=path-include='/usr/share/doc/*/copyright')
    # Without the hook apt takes usrmerge, and with it 50 MB of Perl that Debian's own slim image has not.
    mmdebstrap --quiet --variant=minbase --mode=root "${exclude[@]}" \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*' \
        bookworm "$base/partial.tar" \
        "deb $mirror bookworm main" "deb ${mirror%debian/}debian-security bookworm-security main"
    mv "$base/partial.tar" "$base/debian.tar"
    echo "$recipe" > "$base/recipe"
fi
podman import --quiet --change 'CMD ["bash"]' --change "LABEL recipe=$recipe" "$base/debian.tar" "$image" > /dev/null
