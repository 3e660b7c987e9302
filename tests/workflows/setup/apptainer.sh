#!/usr/bin/env bash
# Installs Apptainer out of Debian sid, with the C library that it was built for, beside Debian 12's:
# apptainer.sh. Needs root. Does nothing where there is an Apptainer.
set -euo pipefail
command -v apptainer > /dev/null && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
libraries=/opt/apptainer-libs
own=/usr/lib/x86_64-linux-gnu/apptainer
mkdir -p "$work"/{lists/partial,cache,debs,root} "$libraries" "$own" /var/lib/apptainer/mnt/session

apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    patchelf squashfs-tools squashfuse fuse-overlayfs uidmap > /dev/null

# Lists of sid apart from the machine's own: nothing of sid is installed by apt.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" > "$work/sid.list"
cat > "$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sid.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$work/lists";
Dir::Cache "$work/cache";
APT::Sandbox::User "root";
CONF
(
    cd "$work/debs"
    export APT_CONFIG=$work/apt.conf
    apt-get update -qq
    apt-get download -qq apptainer libc6 libseccomp2 libsqlite3-0
    for package in *.deb; do
        dpkg-deb -x "$package" "$work/root"
    done
)
cp -a "$work"/root/usr/lib/x86_64-linux-gnu/*.so* "$libraries/"
cp -a "$work/root$own/." "$own/"
[ -d /etc/apptainer ] || cp -a "$work/root/etc/apptainer" /etc/
install -m 755 "$work/root/usr/bin/apptainer" /usr/bin/apptainer
for binary in /usr/bin/apptainer "$own/bin/starter"; do
    patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$libraries" "$binary"
done

# Root in a container of its own may lack a capability that Apptainer would want to keep.
sed -i 's/^root default capabilities = .*/root default capabilities = no/' /etc/apptainer/apptainer.conf
if ! grep -q ^root: /etc/subuid; then
    echo root:1000000:65536 >> /etc/subuid
    echo root:1000000:65536 >> /etc/subgid
fi
[ ! -e /dev/fuse ] || chmod 666 /dev/fuse
apptainer --version
