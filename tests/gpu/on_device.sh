#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that one GPU can show of mpo, in less than 8 minutes: correctness, then speed.
#
#     on_device.sh [OUT]        in a bundle of tests/gpu/bundle.sh; OUT: results (default: out)
#
# Each stage has its own time limit, and ends as ok, FAIL or SKIP. Whatever says SKIP anywhere in
# what it prints is a SKIP, whatever its exit code. OUT gets a log of each stage, stages.tsv,
# figures.tsv and the table of both beside the model's figures, table.txt and table.json.
# Needs of the machine: glibc as new as the bundle's, python3 with numpy and h5py; for policies of
# libllama CUDA's libcublas; for the sanitizer stages compute-sanitizer.
# Ends with 1 where a stage failed, else with 77 where one was skipped.
#
# MPO_STAGE_SECONDS: at most so many seconds a stage.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 66
out=${1:-out}
mkdir -p "$out" || exit 73
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
total=470 # seconds, of 8 minutes
worst=0

[ ! -d /usr/local/cuda/bin ] || PATH=$PATH:/usr/local/cuda/bin
# The bundle's own Open MPI, for processes without mpirun.
export OPAL_PREFIX=$PWD OMPI_MCA_mca_base_component_path=$PWD/lib/openmpi3
export OMPI_MCA_ess_singleton_isolated=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE=1 NO_COLOR=1

# A machine may have several; model.py needs nothing but python3.
python=python3
for each in python3 /usr/bin/python3; do
    ! "$each" -c "import h5py, numpy" 2>/dev/null || { python=$each; break; }
done

# end_stage NAME RESULT SECONDS LIMIT WHY
end_stage() {
    printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$out/stages.tsv"
    printf '%-28s %-4s %4s s  %s\n' "$1" "$2" "$3" "$5"
    [ "$2" != FAIL ] || worst=1
    [ "$2" != SKIP ] || [ "$worst" = 1 ] || worst=77
}

# missing COMMAND...: the first file of the bundle among the words that is not there.
missing() {
    local word
    for word in "$@"; do
        case $word in bin/* | tests/*) [ -e "$word" ] || { echo "$word"; return; } ;; esac
    done
}

# stage NAME SECONDS COMMAND...
stage() {
    local name=$1 limit=$2 start=$SECONDS code left log=$out/$1.log lacking
    shift 2
    limit=$((limit < ${MPO_STAGE_SECONDS:-999} ? limit : MPO_STAGE_SECONDS))
    left=$((total - SECONDS))
    lacking=$(missing "$@")
    if [ -n "$lacking" ]; then
        end_stage "$name" SKIP 0 "$limit" "$lacking is not in the bundle"
        return
    elif [ "$device" = no ]; then
        end_stage "$name" SKIP 0 "$limit" "no device"
        return
    elif [ "$left" -lt 1 ]; then
        end_stage "$name" SKIP 0 "$limit" "no time left"
        return
    fi
    timeout -k 2 "$((limit < left ? limit : left))" "$@" >"$log" 2>&1 </dev/null
    code=$?
    local why
    why=$(grep -m 1 SKIP "$log")
    case $code in
        124 | 137) end_stage "$name" FAIL $((SECONDS - start)) "$limit" "ran into its time limit" ;;
        77) end_stage "$name" SKIP $((SECONDS - start)) "$limit" "${why:-exit code 77}" ;;
        0) end_stage "$name" "$([ -n "$why" ] && echo SKIP || echo ok)" $((SECONDS - start)) "$limit" "$why" ;;
        *) end_stage "$name" FAIL $((SECONDS - start)) "$limit" "exit code $code, see $name.log" ;;
    esac
}

result_of() { awk -F '\t' -v name="$1" '$1 == name {print $2}' "$out/stages.tsv"; }

# checked TOOL NAME SECONDS: a suite under a tool of compute-sanitizer.
checked() {
    if command -v compute-sanitizer >/dev/null; then
        stage "$1_$2" "$3" compute-sanitizer --tool "$1" \
            --target-processes all --error-exitcode 9 "bin/test_$2" small
    else
        end_stage "$1_$2" SKIP 0 "$3" "no compute-sanitizer here"
    fi
}

: >"$out/stages.tsv"
: >"$out/figures.tsv"

# ---- correctness ----

device=unknown
stage device 15 bin/device_position 1 2 2048 1
[ "$(result_of device)" != SKIP ] || device=no
stage mixture_cuda 36 bin/test_mixture_cuda large
stage mixture_select 34 bin/test_mixture_select large
for suite in mixture_slices rounding_cuda exchange_cuda; do
    stage "$suite" 15 "bin/test_$suite" large
done
for suite in mixture mixture_draws mixture_filter mixture_rows mixture_top; do
    MPO_TEST_DEVICE=cuda stage "$suite" 8 "bin/test_$suite"
done
stage capture_cuda 12 bin/test_capture_cuda
stage program 40 "$python" tests/gpu/one_device.py bin/mpo "$work/program"
stage libllama 40 "$python" tests/gpu/one_device.py bin/mpo "$work/libllama" bin/bigram_gguf_tool
for suite in mixture_cuda mixture_select mixture_slices rounding_cuda; do
    checked memcheck "$suite" 12
done
checked racecheck mixture_cuda 20
checked synccheck mixture_cuda 10
checked initcheck mixture_cuda 10

# ---- speed ----

stage nccl_group 8 bin/nccl_group # microseconds in its log
stage speed 46 bin/device_position
stage positions 70 "$python" tests/gpu/positions.py bin/mpo "$work/positions" bin/bigram_gguf_tool
# What they had measured when their time was up counts too.
for name in speed positions; do
    [ ! -s "$out/$name.log" ] || grep -E '^[a-z]+(	[0-9.e+-]+){4}$' "$out/$name.log" >>"$out/figures.tsv"
done

# ---- table ----

name=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)
python3 results/gpu/model.py --compare "$out/figures.tsv" --stages "$out/stages.tsv" --json "$out/table.json" \
    --about "commit=$(cat commit)" --about "date=$(date -u +%F)" --about "device=${name:-none}" \
    >"$out/table.txt" || { echo "FAIL: no table" >>"$out/table.txt"; worst=1; }
cat "$out/table.txt"
exit "$worst"
