#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run every fuzz target for a bounded time.
#
#     tests/fuzz/run.sh BUILD SECONDS
#
#   BUILD     a tree configured with -DMPO_FUZZ=ON, with the target `fuzz` built
#   SECONDS   for each target, after its seeds
#
# Seeds named accepted_* must be accepted and refused_* refused. A target fails when it finds
# something, executes few inputs, or meets none that its parser accepts: then it tests
# nothing. What was found stays in BUILD/fuzz, and how to run it again is printed.
set -euo pipefail

[ $# = 2 ] || { echo "usage: run.sh BUILD SECONDS" >&2; exit 64; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(cd "$1" && pwd)
seconds=$2
work=$build/fuzz
# Inputs that a target executes at least, in a second of a slow and busy machine.
declare -A least=([config]=20 [prompts]=20 [request]=20 [table]=20 [record]=1 [template]=5 [http]=100 [rewards]=20)
# A record's input is a byte and up to 16 pieces of damage of 4 bytes.
declare -A longest=([config]=8192 [prompts]=4096 [request]=4096 [table]=4096 [record]=65 [template]=8192 [http]=2048 [rewards]=4096)

say() { printf -- '-- %s\n' "$*"; }

# stat NAME LOG: a number that the last run printed.
stat() {
    awk -v name="stat::$1:" '$1 == name { found = $2 } END { print found + 0 }' "$2"
}

# Names of sections and options, so that they cannot drift from the program.
write_dictionary() {
    local options=$root/include/mpo/options.def
    sed -nE 's/^MPO_SECTION_BEGIN\((\w+),.*/"\1:"/p; s/^MPO_OPTION\((\w+), (\w+),.*/"\2:"\n"--\1.\2="/p' \
        "$options" >"$work/config.dict"
    sed -nE 's/^MPO_OPTION\(.*, "([a-z_|]+\|[a-z_|]+)", .*/\1/p' "$options" | tr '|' '\n' | sort -u \
        | sed 's/.*/"&"/' >>"$work/config.dict"
    cat "$root/tests/fuzz/config.dict" >>"$work/config.dict"
    sed -nE 's/^MPO_SERVE_FIELD(_AS\(\w+, "|\()(\w+).*/"\\"\2\\": "/p' "$root/src/serve/fields.def" >"$work/request.dict"
    cat "$root/tests/fuzz/request.dict" >>"$work/request.dict"
    cp "$root"/tests/fuzz/{prompts,table,template,http,rewards}.dict "$work"
}

check_seeds() {
    local target=$1 expected
    for expected in accepted refused; do
        MPO_FUZZ_EXPECT=$expected "$build/tests/fuzz/fuzz_$target" \
            "$root/tests/fuzz/corpus/$target/$expected"_* >"$work/$target.log" 2>&1 \
            || { tail -40 "$work/$target.log"; say "FAIL $target: a seed is not $expected"; return 1; }
    done
}

run_target() {
    local target=$1 log=$work/$1.log dictionary=() options=() runs accepted
    local inputs=("$work/$target" "$root/tests/fuzz/corpus/$target")
    if [ "$target" = template ]; then
        options=(-rss_limit_mb=4096) # what a template ties into a circle is never freed
        inputs+=("$(sed -n 's/^MPO_JINJA_DIR:PATH=//p' "$build/CMakeCache.txt")/templates")
    fi
    check_seeds "$target" || return 1
    [ ! -e "$work/$target.dict" ] || dictionary=(-dict="$work/$target.dict")
    mkdir "$work/$target"
    if ! "$build/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -max_len="${longest[$target]}" \
        -len_control=0 -rss_limit_mb=1024 -malloc_limit_mb=256 -timeout=60 -print_final_stats=1 \
        "${options[@]}" "${dictionary[@]}" -artifact_prefix="$work/$target-" "${inputs[@]}" \
        >"$log" 2>&1; then
        tail -60 "$log"
        say "FAIL $target; to run it again: $build/tests/fuzz/fuzz_$target" "$work/$target-"*
        return 1
    fi
    runs=$(stat number_of_executed_units "$log")
    accepted=$(stat accepted_units "$log")
    say "$target: $runs inputs, $accepted accepted, $(grep -oE 'cov: [0-9]+' "$log" | tail -1)"
    if [ "$runs" -lt $((seconds * least[$target])) ] || [ "$accepted" = 0 ]; then
        say "FAIL $target: too few inputs, or none accepted; see $log"
        return 1
    fi
}

rm -rf "$work"
mkdir -p "$work/tmp"
# Records are written and flushed thousands of times: in memory, where there is a place for it.
TMPDIR=$work/tmp
if [ -w /dev/shm ]; then
    TMPDIR=$(mktemp -d /dev/shm/mpo-fuzz-XXXXXX)
fi
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
write_dictionary
failed=0
for target in config prompts request table template http rewards record; do
    run_target "$target" || failed=1
done
exit $failed
