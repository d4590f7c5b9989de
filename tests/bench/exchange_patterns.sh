#!/usr/bin/env bash
# The patterns of the exchange side by side: time and bytes a rank of one position, for
# K policies on K ranks, vocabularies of V tokens and B rows, through `shared` and `mpi`.
#
#     tests/bench/exchange_patterns.sh > results/exchange/table.tsv
#
# Needs a configured build tree in build/ (launch/setup.sh, cmake). Nothing else should run.
# `sent`, `received` and `messages` are those of the rank that has most; `auto` says which
# pattern exchange.pattern: auto takes, `over_best` is the time over that of the faster one.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"
cmake --build "$root/build" --target exchange_patterns >&2

printf 'transport\tK\tV\tB\tpattern\tms\tsent\treceived\tmessages\tauto\tover_best\n'
for transport in shared mpi; do
    for policies in 2 4 8; do
        for vocabulary in 2048 49152 151936; do
            for rows in 1 4 16 64; do
                rounds=$((rows * policies * vocabulary > 20000000 ? 9 : 41))
                mpirun "${mpirun_options[@]}" -n "$policies" \
                    "$root/build/tests/exchange_patterns" \
                    "$transport" "$vocabulary" "$rows" "$rounds"
            done
        done
    done
done
