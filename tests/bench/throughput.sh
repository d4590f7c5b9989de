#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tokens of the mixture a second: mpo against a Hugging Face loop, on this machine, in one run;
# and what exchange and mixture cost beside the forward passes.
#
#     tests/bench/throughput.sh [--no-hf]
#
#   --no-hf   without the Hugging Face loop, which needs torch (a download of some hundred MB,
#             several GB where pip chooses a build with CUDA)
#
# Needs a built mpo and the demo's model (launch/quickstart.sh).  Nothing else should run.  Every
# response is decoded to its last token: the end tilt of -100 nat keeps responses from ending.
# Environment:
#   MPO_BENCH_PYTHON   a python3 that has the packages of requirements.txt; default: they are
#                      installed into build/python-bench
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$root/build
out=$build/bench
source_model=$build/deps/models/SmolLM2-135M-Instruct.Q4_1.gguf
batches=(1 8 16)
tokens=48
steps=4
with_hf=yes
for argument in "$@"; do
    case $argument in
        --no-hf) with_hf=no ;;
        *) echo "throughput.sh: unknown argument '$argument'; expected --no-hf" >&2; exit 64 ;;
    esac
done
for file in "$build/mpo" "$source_model"; do
    [ -e "$file" ] || { echo "throughput.sh: no $file; run launch/quickstart.sh first" >&2; exit 66; }
done
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"
mkdir -p "$out"

say() { printf -- '-- %s\n' "$*" >&2; }

prepare_python() {
    python=${MPO_BENCH_PYTHON:-python3}
    [ -z "${MPO_BENCH_PYTHON:-}" ] || return 0
    local folder=$build/python-bench stamp requirements=$here/requirements.txt
    [ $with_hf = yes ] || { requirements=$out/requirements.txt; grep -E '^(h5py|numpy)' "$here/requirements.txt" >"$requirements"; }
    stamp=$folder/installed-$with_hf
    if [ ! -e "$stamp" ]; then
        say "installing Python packages into $folder"
        rm -rf "$folder"
        PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check \
            --target "$folder" -r "$requirements"
        touch "$stamp"
    fi
    export PYTHONPATH=$folder
}

# The demo's model as other file types.
prepare_models() {
    local libraries=$build/deps/llama/lib type
    # RUNPATH is not transitive: libllama's own libraries are found by the old kind of rpath.
    # shellcheck disable=SC2046
    cc -O2 -o "$out/quantize" "$here/quantize.c" \
        $(PKG_CONFIG_PATH="$libraries/pkgconfig" pkg-config --cflags --libs llama) \
        "-Wl,-rpath,$libraries" -Wl,--disable-new-dtags
    ln -sf "$source_model" "$out/q4_1.gguf"
    for type in f32 q4_0 q8_0; do
        [ ! -e "$out/$type.gguf" ] || continue
        say "writing the model as $type"
        "$out/quantize" "$source_model" "$out/$type.part" "$type"
        mv "$out/$type.part" "$out/$type.gguf"
    done
}

# measure NAME RANKS CONFIG TYPE BATCH POLICY...: a short fit, for its timing.
measure() {
    local name=$1 ranks=$2 config=$3 model=$out/$4.gguf batch=$5 policy
    shift 5
    local flags=()
    for policy in "$@"; do
        flags+=("--policies.$policy.model=$model")
    done
    mpirun "${mpirun_options[@]}" -n "$ranks" "$build/mpo" fit "$root/configs/$config" "${flags[@]}" \
        --rollout.responses="$batch" --rollout.max_tokens=$tokens --rollout.end_bias=-100 \
        --descent.steps=$steps --record.file="$out/$name.h5" --record.hash_models=false \
        --force --quiet >/dev/null 2>>"$out/log"
}

prepare_python
prepare_models

declare -A baseline
if [ $with_hf = yes ]; then
    say "Hugging Face loop: K=2, fp32, $(nproc) threads"
    if [ ! -e "$out/hf/config.json" ]; then
        "$python" "$root/configs/reviews/training/gguf_to_hf.py" "$source_model" "$out/hf" >/dev/null
    fi
    while IFS=$'\t' read -r batch rate; do
        baseline[$batch]=$rate
    done < <("$python" "$here/hf_baseline.py" --hf "$out/hf" --threads "$(nproc)" \
        --batch "${batches[@]}" --tokens $tokens)
fi

say "mpo: K=2 on two ranks"
printf 'file\tbatch\tmpo token/s\tHugging Face fp32 token/s\tratio\n'
for type in f32 q8_0 q4_0 q4_1; do
    for batch in "${batches[@]}"; do
        measure "two-ranks-$type-$batch" 2 reviews.yaml $type "$batch" sentiment concise
        rate=$("$python" "$here/timing.py" --rate "$out/two-ranks-$type-$batch.h5")
        awk -v type=$type -v batch="$batch" -v rate="$rate" -v other="${baseline[$batch]:-0}" 'BEGIN {
            hf = (other > 0) ? sprintf("%.1f", other) : "-"
            ratio = (other > 0) ? sprintf("%.2f", rate / other) : "-"
            printf "%s\t%d\t%.1f\t%s\t%s\n", type, batch, rate, hf, ratio
        }'
    done
done

say "mpo: K=3 in one process"
measure one-process-q4_1-8 1 reviews3.yaml q4_1 8 sentiment concise plain
printf '\nWhat mixing adds to the forward passes, (exchange + mixture) / decode:\n'
"$python" "$here/timing.py" "$out"/two-ranks-*-8.h5 "$out/one-process-q4_1-8.h5"

printf '\nPeak memory of one rank:\n'
"$python" "$here/memory.py" "$build/mpo" "$root"

printf '\nNo model, K=3 in one process (configs/table.yaml):\n'
"$build/mpo" fit "$root/configs/table.yaml" --record.file="$out/table.h5" --descent.steps=2000 \
    --force 2>&1 | awk '/^step/ { line = $0 } END { print line }'
