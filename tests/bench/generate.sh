#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tokens of the mixture a second that generate makes over many prompts, of this build and of
# another one, in turn, and their ratio.
#
#     tests/bench/generate.sh OTHER [RUNS]
#
#   OTHER  the other build's mpo, for example of the commit before a change
#   RUNS   of each build; default: 5, of which the medians are taken
#
# Needs a built mpo and the demo's model (launch/setup.sh --model).  One response to each of the
# demo's 32 held-out prompts, K=2 in one process; most end early and some are cut at 64 tokens, so
# rows finish at very different times.  Nothing else should run.
# Environment:
#   MPO_BENCH_FLAGS   more flags for both builds
set -euo pipefail

[ $# -ge 1 ] || { echo "generate.sh: expected the other build's mpo" >&2; exit 64; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
other=$1
runs=${2:-5}
for file in "$root/build/mpo" "$other" "$root/build/deps/models/SmolLM2-135M-Instruct.Q4_1.gguf"; do
    [ -e "$file" ] || { echo "generate.sh: no $file" >&2; exit 66; }
done
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"

# rate MPO: from the line "N tokens in S s, R token/s".
rate() {
    # The flags are meant to be split.
    # shellcheck disable=SC2086
    "$1" generate "$root/configs/reviews.yaml" --prompts.file="$root/configs/reviews/prompts_heldout.txt" \
        --rollout.max_tokens=64 --run.seed="$2" ${MPO_BENCH_FLAGS:-} 2>&1 >/dev/null \
        | awk '$NF == "token/s" { rate = $(NF - 1) } END { print rate }'
}

median() { printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

here_rates=()
other_rates=()
printf 'seed\tthis token/s\tother token/s\n'
for seed in $(seq "$runs"); do
    here_rates+=("$(rate "$root/build/mpo" "$seed")")
    other_rates+=("$(rate "$other" "$seed")")
    printf '%d\t%s\t%s\n' "$seed" "${here_rates[-1]}" "${other_rates[-1]}"
done
here=$(median "${here_rates[@]}")
there=$(median "${other_rates[@]}")
printf 'median\t%s\t%s\tratio %s\n' "$here" "$there" \
    "$(awk -v a="$here" -v b="$there" 'BEGIN { printf "%.2f", a / b }')"
