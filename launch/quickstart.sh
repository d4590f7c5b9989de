#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a fitted mixture of two small language models, in one command.
#
#     launch/quickstart.sh
#
# Installs what is missing, builds mpo, fits the weights of configs/reviews.yaml on two MPI
# ranks (on one where there is one GPU for both policies), plots the trajectory, and lets each
# policy and the mixture answer one held-out prompt.
# Messages go to stderr, the result to stdout, with the seconds of set-up and those of the rest.
#
# Safe to repeat: what is installed and built is kept, and the record of an earlier run is
# moved aside, never overwritten.  Environment:
#   MPO_BUILD_DIR    the build tree, where the record and the plot go too (default: build)
#   MPO_LLAMA_CUDA   ON or OFF: libllama and mpo with CUDA (default: ON with nvcc and a GPU,
#                    else OFF); a build tree that exists keeps what mpo was built with
#   JOBS             parallel compile jobs (default: the number of cores)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${MPO_BUILD_DIR:-$root/build}
mkdir -p "$build"
build=$(cd "$build" && pwd)
jobs=${JOBS:-$(nproc)}
config=$root/configs/reviews.yaml
record=$build/reviews.h5
plot=$build/reviews.svg
table=$build/reviews.tsv
prompt="The soundtrack"

say() { printf -- '-- %s\n' "$*" >&2; }
# Seconds since a time that SECONDS had.
since() { printf '%d s' "$((SECONDS - $1))"; }
die() { printf 'quickstart.sh: %s\n' "$*" >&2; exit 69; }

# One line of a response, whatever it holds.
answer() {
    local label=$1 weights=$2 text
    text=$("$build/mpo" generate "$config" "${paths[@]}" --weights="$weights" \
        --prompt="$prompt" --run.seed=3 2>>"$build/quickstart.log") \
        || { tail -5 "$build/quickstart.log" >&2; die "mpo generate failed; see $build/quickstart.log"; }
    printf '  %-10s %s\n' "$label" "$(tr '\n' ' ' <<<"$text")"
}

if [ -z "${MPO_LLAMA_CUDA:-}" ] && command -v nvcc >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    say "found nvcc and a GPU: building with CUDA"
    MPO_LLAMA_CUDA=ON
fi
export MPO_LLAMA_CUDA=${MPO_LLAMA_CUDA:-OFF}
ranks=2
[ "$MPO_LLAMA_CUDA" = OFF ] || [ "$(nvidia-smi -L 2>/dev/null | wc -l)" -ne 1 ] || ranks=1
MPO_BUILD_DIR=$build "$root/launch/setup.sh" --model
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"

say "building mpo"
: >"$build/quickstart.log"
{
    # An existing tree keeps its options.
    [ -e "$build/CMakeCache.txt" ] \
        || cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMPO_TESTS=OFF \
            -DMPO_CUDA="$MPO_LLAMA_CUDA"
    cmake --build "$build" -j "$jobs" --target mpo
} >>"$build/quickstart.log" 2>&1 \
    || { tail -20 "$build/quickstart.log" >&2; die "mpo did not build; see $build/quickstart.log"; }

# The configuration names files under build/; flags name those of another build tree.
paths=()
if [ "$build" != "$root/build" ]; then
    model=$build/deps/models/SmolLM2-135M-Instruct.Q4_1.gguf
    paths=("--policies.sentiment.model=$model" "--policies.concise.model=$model" "--record.file=$record")
fi

setup_time=$(since 0)
start=$SECONDS
say "set-up took $setup_time; fitting the weights of two policies, ranks: $ranks (a minute or two on two cores)"
summary=$(mpirun "${mpirun_options[@]}" -n "$ranks" "$build/mpo" fit "$config" "${paths[@]}" --force)
fit_time=$(since "$start")
"$build/mpo" inspect "$record" --plot "$plot" --format tsv >"$table"

say "asking each policy and the mixture"
printf '%s\n\nThe prompt "%s", continued by\n' "$summary" "$prompt"
answer sentiment sentiment
answer concise concise
answer mixture "$record"
printf '\nset-up %s (packages, libllama, model, build), fit %s, fit and samples %s\n' \
    "$setup_time" "$fit_time" "$(since "$start")"
printf '\nrecord      %s\ntrajectory  %s\nplot        %s\n' "$record" "$table" "$plot"
