#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Rows of floats and of bf16 side by side (exchange.rows): time and bytes a rank of one
# position, for K policies on K ranks, V = 49152 tokens and B rows, through `mpi`, whose
# messages go by shared memory and by TCP, and through `shared`.
#
#     tests/bench/exchange_rows.sh > results/exchange/rows.tsv
#
# Needs a configured build tree in build/ (launch/setup.sh, cmake). Nothing else should run.
# `sent`, `received` and `messages` are those of the rank that has most; `over_float` is the
# time over that of rows of floats, which took turns with it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"
cmake --build "$root/build" --target exchange_patterns >&2

# compare BY TRANSPORT MPIRUN_OPTION...
compare() {
    local by=$1 transport=$2
    shift 2
    for policies in 2 4; do
        for rows in 1 16 64; do
            mpirun "${mpirun_options[@]}" "$@" -n "$policies" \
                "$root/build/tests/exchange_patterns" rows 49152 "$rows" \
                $((rows > 16 ? 21 : 101)) "$transport" | sed "s/^/$by\t/"
        done
    done
}

printf 'by\ttransport\tK\tV\tB\tpattern\tms\tsent\treceived\tmessages\trows\tover_float\n'
compare memory mpi
compare tcp mpi --mca pml ob1 --mca btl tcp,self
compare window shared
