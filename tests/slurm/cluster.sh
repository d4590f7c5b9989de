#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A real Slurm for tests: controller, two emulated nodes with four fake GPUs each, on one host,
# without systemd and without touching a Slurm that the host may have.
#
#     tests/slurm/cluster.sh up FOLDER       # a second; prints nothing when all is well
#     export SLURM_CONF=FOLDER/etc/slurm.conf
#     srun --mpi=pmix -N2 -n8 build/mpo fit configs/table.yaml
#     tests/slurm/cluster.sh down FOLDER     # leaves no process; the folder is yours to remove
#
# FOLDER holds everything: keys, sockets, logs, state. Keep its name short, since names of
# sockets may have 107 bytes at most. Each node has a host name and a /dev/shm of its own, so
# MPI takes the two for different machines. Where this cannot work it says why and exits 77.
set -euo pipefail

usage() { echo "usage: cluster.sh up|down FOLDER" >&2; exit 64; }
skip() { echo "SKIP: $*"; exit 77; }
die() { echo "cluster.sh: $*" >&2; exit 69; }

[ $# = 2 ] || usage
source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$2"
folder=$(cd "$2" && pwd)
# Every process of this cluster carries it in its environment; `down` finds them by it.
export SLURM_CONF=$folder/etc/slurm.conf
PATH=$PATH:/usr/sbin:/sbin
nodes="n1 n2"

check_host() {
    local program
    for program in munged slurmctld slurmd srun sbatch unshare; do
        command -v $program >/dev/null || skip "no $program; packages: slurm-wlm slurm-wlm-basic-plugins munge"
    done
    [ "$(id -u)" = 0 ] || skip "starting nodes takes root"
    unshare --uts --mount true 2>/dev/null || skip "this container forbids namespaces (unshare --uts --mount)"
    [ ${#folder} -le 60 ] || die "$folder: names of sockets in it would be too long; use a folder of at most 60 bytes"
}

# Below those that the kernel gives to connections: another program could get one of these
# before a daemon has it.
free_ports() {
    python3 -c '
import random, socket
held = []
for port in random.sample(range(20000, 32000), 300):
    one = socket.socket()
    try:
        one.bind(("127.0.0.1", port))
    except OSError:
        continue
    held.append(one)
    if len(held) == 3:
        break
print(*(one.getsockname()[1] for one in held))'
}

write_configuration() {
    local controller_port node_1_port node_2_port node
    read -r controller_port node_1_port node_2_port < <(free_ports)
    mkdir -p "$folder"/{etc,log,run,state,munge}
    sed -e "s|@FOLDER@|$folder|g" -e "s|@HOST@|$(hostname -s)|g" \
        -e "s|@CONTROLLER_PORT@|$controller_port|" \
        -e "s|@NODE_1_PORT@|$node_1_port|" -e "s|@NODE_2_PORT@|$node_2_port|" \
        "$source/slurm.conf.in" >"$SLURM_CONF"
    # A GPU must be a character device; these are on every host, one a GPU.
    for node in $nodes; do
        mkdir -p "$folder/spool/$node" "$folder/tmp/$node"
        echo "NodeName=$node Name=gpu Type=fake File=/dev/null,/dev/zero,/dev/full,/dev/random"
    done >"$folder/etc/gres.conf"
    printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' >"$folder/etc/cgroup.conf"
    # Slurm does not tell Open MPI that the nodes have fewer cores than they say: without
    # yielding, a barrier takes 20 ms instead of 15 us.
    printf '#!/bin/sh\necho export OMPI_MCA_mpi_yield_when_idle=1\n' >"$folder/etc/task_prolog.sh"
    chmod 755 "$folder" "$folder/etc/task_prolog.sh"
    (umask 077 && head -c 128 /dev/urandom >"$folder/munge/munge.key")
}

start_daemons() {
    local node
    munged --force --num-threads=2 --key-file="$folder/munge/munge.key" \
        --socket="$folder/munge/munge.socket" --pid-file="$folder/run/munged.pid" \
        --log-file="$folder/log/munged.log" --seed-file="$folder/munge/munged.seed"
    slurmctld -c -i
    for node in $nodes; do
        unshare --uts --mount sh -c \
            "hostname $node && mount -t tmpfs tmpfs /dev/shm && exec slurmd -N $node"
    done
}

idle_nodes() { timeout 60 sinfo -h -p main -t idle -o %D 2>/dev/null || true; }

up() {
    check_host
    [ ! -e "$SLURM_CONF" ] || die "$folder was used already; take a new one"
    write_configuration
    trap 'down' EXIT
    start_daemons
    local give_up=$((SECONDS + 240))
    while [ $SECONDS -lt $give_up ]; do
        if [ "$(idle_nodes)" = 2 ]; then
            trap - EXIT
            return 0
        fi
        sleep 0.1
    done
    tail -n 5 "$folder"/log/*.log >&2
    die "the nodes did not come up in 240 s; see above"
}

# Daemons of this cluster, and what its jobs left running; not the shell of a user who
# exported SLURM_CONF, nor this script.
processes() {
    local environment pid
    for environment in /proc/[0-9]*/environ; do
        pid=${environment//[!0-9]/}
        # A process may end while it is looked at.
        { tr '\0' '\n' <"$environment" | grep -qx "SLURM_CONF=$SLURM_CONF"; } 2>/dev/null || continue
        { grep -qxE 'munged|slurmctld|slurmd|slurmstepd' "/proc/$pid/comm" \
            || tr '\0' '\n' <"$environment" | grep -q '^SLURM_JOB_ID='; } 2>/dev/null || continue
        echo "$pid"
    done
}

# Jobs first: a step whose daemons are gone would linger and call for the controller.
down() {
    local pid
    scancel --full --signal=KILL --user="$(id -un)" 2>/dev/null || true
    scancel --user="$(id -un)" 2>/dev/null || true
    for _ in $(seq 600); do
        [ -n "$(squeue -h 2>/dev/null)" ] || break
        sleep 0.1
    done
    # A daemon may be gone already.
    for pid in $(processes); do
        kill "$pid" 2>/dev/null || true
    done
    for _ in $(seq 300); do
        [ -n "$(processes)" ] || return 0
        sleep 0.1
    done
    for pid in $(processes); do
        echo "cluster.sh: killing what is left: $pid $(cat "/proc/$pid/comm" 2>/dev/null)" >&2
        kill -KILL "$pid" 2>/dev/null || true
    done
    for _ in $(seq 300); do
        [ -n "$(processes)" ] || return 0
        sleep 0.1
    done
}

case $1 in
    up) up ;;
    down) down ;;
    *) usage ;;
esac
