#!/usr/bin/env bash
# Starts a Slurm with two nodes on this host, without accounting: slurm.sh up|down FOLDER
# Needs root and Debian's slurm-wlm and munge, which it installs. The first node has a stand-in for a
# GPU. The configuration stays in FOLDER: point SLURM_CONF at FOLDER/slurm.conf. Where the machine has no
# Slurm of its own, its usual place links there while this one is up.
set -euo pipefail
action=$1
base=$(realpath -m "$2")
export SLURM_CONF=$base/slurm.conf
usual=/etc/slurm/slurm.conf

down() {
    local pid
    for pid in "$base"/*.pid; do
        [ -f "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
    done
    [ "$(readlink "$usual")" != "$SLURM_CONF" ] || rm "$usual"
}

install_packages() {
    command -v slurmctld > /dev/null && command -v munged > /dev/null && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge > /dev/null
}

start_munge() {
    munge -n > /dev/null 2>&1 && return
    install -d -o munge -g munge -m 0700 /etc/munge /var/lib/munge /var/log/munge
    install -d -o munge -g munge -m 0755 /run/munge
    if [ ! -s /etc/munge/munge.key ]; then
        head -c 1024 /dev/urandom > /etc/munge/munge.key
        chown munge: /etc/munge/munge.key
        chmod 400 /etc/munge/munge.key
    fi
    setpriv --reuid munge --regid munge --clear-groups /usr/sbin/munged
    cp /run/munge/munged.pid "$base/munged.pid"
}

configure() {
    local host memory cpus node
    host=$(hostname -s)
    # The steps ask for two CPUs, also where this script may use one only.
    cpus=$(nproc)
    [ "$cpus" -ge 2 ] || cpus=2
    # Both nodes are this host, so that each may give away less than half of it.
    memory=$(awk '/MemTotal/ { print int($2 / 1024 * 0.45) }' /proc/meminfo)
    node="NodeHostname=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN"
    : > "$base/gpu"
    echo "NodeName=n1 Name=gpu Type=toy File=$base/gpu" > "$base/gres.conf"
    printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' > "$base/cgroup.conf"
    cat > "$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SchedulerParameters=bf_interval=2,sched_interval=2
KillWait=5
MinJobAge=300
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
AccountingStorageType=accounting_storage/none
StateSaveLocation=$base/ctld
SlurmctldPidFile=$base/ctld.pid
SlurmctldLogFile=$base/ctld.log
SlurmdPidFile=$base/%n.pid
SlurmdSpoolDir=$base/spool-%n
SlurmdLogFile=$base/%n.log
NodeName=n1 Port=16901 $node Gres=gpu:toy:1
NodeName=n2 Port=16902 $node
PartitionName=cpu Nodes=n[1-2] Default=YES MaxTime=600
PartitionName=gpu Nodes=n1 MaxTime=600
CONF
}

up() {
    mkdir -p "$base/ctld"
    chmod 755 "$base"
    install_packages
    getent hosts "$(hostname -s)" > /dev/null || echo "127.0.0.1 $(hostname -s)" >> /etc/hosts
    start_munge
    configure
    # Snakemake's plugin takes SLURM_CONF, as all of SLURM_*, out of a job's environment.
    [ -e "$usual" ] || ln -sfn "$SLURM_CONF" "$usual"
    slurmctld -c -f "$SLURM_CONF"
    slurmd -N n1 -f "$SLURM_CONF"
    slurmd -N n2 -f "$SLURM_CONF"
    for _ in $(seq 60); do
        sleep 1
        [ "$(sinfo -h -N -p cpu -t idle | wc -l)" = 2 ] && return
    done
    echo "error: the nodes did not come up" >&2
    tail -n 20 "$base"/*.log >&2
    return 1
}

"$action"
