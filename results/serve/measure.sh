#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Measure all that results/serve/README.md says of speed, and write the table beside this file.
#
#     results/serve/measure.sh [--llama-server PROGRAM] [--only REGEX] [--quick]
#
#   --llama-server  for the figures against it (tests/bench/serve.py says how it is built)
#   --only          figures of functions whose names match; the table has these alone
#   --quick         a quarter of everything, to see that all works; the table is only printed
#
# Needs a built mpo and the demo's model: launch/quickstart.sh makes both.  Two cores and
# nothing else running; about ten minutes.  A figure that fails is left out, and named at the end.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
only=
llama=()
quick=()
idle=60
table=$here/figures.md
while [ $# -gt 0 ]; do
    case $1 in
    --llama-server) llama=(--llama-server "${2:?measure.sh: --llama-server PROGRAM}"); shift ;;
    --only) only=${2:?measure.sh: --only REGEX}; shift ;;
    --quick) quick=(--quick); idle=5; table=/dev/stdout ;;
    *) echo "measure.sh: unknown argument $1; expected --llama-server, --only or --quick" >&2; exit 64 ;;
    esac
    shift
done
[ -x "$root/build/mpo" ] || { echo "measure.sh: no build/mpo; run launch/quickstart.sh first" >&2; exit 66; }

figures=$(mktemp)
trap 'rm -f "$figures"' EXIT
failed=

# measure PROGRAM FIGURE ARGUMENTS...: the lines of one function
measure() {
    local program=$1 figure=$2
    shift 2
    [[ $figure =~ $only ]] || return 0
    echo "$(date +%T) $figure" >&2
    "$root/tests/bench/$program" --only "^$figure\$" "${quick[@]}" "$@" | tail -n +2 | tee -a "$figures" >&2 \
        || failed="$failed $figure"
}

measure serve_costs.py long_prompt
measure serve_goals.py clients
measure serve_goals.py against_generate
measure serve_goals.py vectors
measure serve_goals.py one_hot
measure serve_goals.py choices
measure serve_goals.py first_tokens "${llama[@]}"
measure serve_goals.py streams "${llama[@]}"
measure serve_costs.py scoring
measure serve_costs.py scored_memory
measure serve_costs.py idle_connections
measure serve_costs.py http_thread
measure serve_costs.py encoding
measure serve_costs.py idleness --idle "$idle"
measure serve_goals.py llama_gaps "${llama[@]}"

# A figure that misses its goal is bold.
{
    printf '# Figures of mpo serve\n\n'
    printf 'Made by measure.sh on %s of %s: %s.\n\n' "$(date +%F)" "$(nproc) cores" \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
    printf '| figure | measured | goal |\n|---|---|---|\n'
    awk -F '\t' '{ split($3, goal, " ")
        missed = (goal[1] == "<=" && $2 + 0 > goal[2] + 0) || (goal[1] == ">=" && $2 + 0 < goal[2] + 0)
        sub("<=", "at most", $3); sub(">=", "at least", $3)
        print "| " $1 " | " (missed ? "**" $2 "**" : $2) " | " $3 " |" }' "$figures"
} > "$table"
[ -z "$failed" ] || { echo "measure.sh: no figures of:$failed" >&2; exit 70; }
