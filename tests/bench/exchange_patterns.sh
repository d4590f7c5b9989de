#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The patterns of the exchange side by side: time and bytes a rank of one position, for
# K policies on K ranks, vocabularies of V tokens and B rows.
#
#     tests/bench/exchange_patterns.sh > results/exchange/table.tsv
#         through `shared` and `mpi` on this host
#     tests/bench/exchange_patterns.sh --hosts > results/exchange/hosts.tsv
#         through `nodes` and `mpi`, in turns, on two hosts of K / 2 ranks each that share the
#         cores of this one (tests/support/host.sh)
#
# Needs a configured build tree in build/ (launch/setup.sh, cmake). Nothing else should run.
# `sent`, `received` and `messages` are those of the rank that has most; `auto` says which
# pattern exchange.pattern: auto takes, `over_best` is the time over that of the faster one.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"
cmake --build "$root/build" --target exchange_patterns >&2

# measure RANKS V B TRANSPORT...
measure() {
    local ranks=$1 vocabulary=$2 rows=$3
    local rounds=$((rows * ranks * vocabulary > 20000000 ? 9 : 41))
    shift 3
    mpirun "${options[@]}" -n "$ranks" "$root/build/tests/exchange_patterns" \
        patterns "$vocabulary" "$rows" "$rounds" "$@"
}

on_this_host() {
    local transport policies vocabulary rows
    for transport in shared mpi; do
        for policies in 2 4 8; do
            for vocabulary in 2048 49152 151936; do
                for rows in 1 2 4 16 64; do
                    measure "$policies" "$vocabulary" "$rows" "$transport"
                done
            done
        done
    done
}

on_two_hosts() {
    local policies vocabulary rows
    for policies in 4 8; do
        options=("${mpirun_options[@]}" --mca plm rsh
            --mca plm_rsh_agent "$root/tests/support/host.sh"
            --mca btl_tcp_if_include lo --mca oob_tcp_if_include lo
            --host "a:$((policies / 2)),b:$((policies / 2))")
        for vocabulary in 2048 49152 151936; do
            for rows in 1 4 16; do
                measure "$policies" "$vocabulary" "$rows" nodes mpi
            done
        done
    done
}

printf 'transport\tK\tV\tB\tpattern\tms\tsent\treceived\tmessages\tauto\tover_best\n'
if [ "${1:-}" = --hosts ]; then
    MPO_TEST_HOSTS=$(mktemp -d)
    export MPO_TEST_HOSTS
    trap 'rm -rf "$MPO_TEST_HOSTS"' EXIT
    on_two_hosts
else
    options=("${mpirun_options[@]}")
    on_this_host
fi
