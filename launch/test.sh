#!/usr/bin/env bash
# Build mpo with its tests and run them.
#
#     launch/test.sh [--long] [--sanitize]
#     launch/test.sh --fuzz SECONDS
#
#   --long       also the tests labelled long: soaks, many seeds, mutation
#   --sanitize   in a tree of its own, with AddressSanitizer and UndefinedBehaviorSanitizer
#   --fuzz       only the fuzz targets, each for so long, in a tree of its own; needs clang,
#                and is skipped (exit code 77) without it
#
# Safe to repeat.  Warnings are errors, and every C file must be as clang-format leaves it.
# Environment:
#   MPO_TEST_BUILD_DIR   the build tree (default: build, which the quickstart uses too)
#   JOBS                 parallel compile jobs (default: the number of cores)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${MPO_TEST_BUILD_DIR:-$root/build}
jobs=${JOBS:-$(nproc)}
skipped_labels='^long$'
sanitize=OFF
fuzz_seconds=
while [ $# -gt 0 ]; do
    case $1 in
        --long) skipped_labels='^none$' ;;
        --sanitize) sanitize=ON ;;
        --fuzz)
            fuzz_seconds=${2:-}
            [[ $fuzz_seconds =~ ^[1-9][0-9]*$ ]] || { echo "test.sh: --fuzz needs a number of seconds" >&2; exit 64; }
            shift
            ;;
        *) echo "test.sh: unknown argument '$1'; expected --long, --sanitize or --fuzz SECONDS" >&2; exit 64 ;;
    esac
    shift
done

say() { printf -- '-- %s\n' "$*" >&2; }

check_format() {
    if ! git -C "$root" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        say "SKIP clang-format: not a git checkout"
        return 0
    fi
    say "checking the format of the C files"
    (cd "$root" && git ls-files -z '*.c' '*.h' '*.cu' '*.cuh' '*.cpp' | xargs -0 -r clang-format --dry-run -Werror)
}

# Neither libllama nor MPI is in the way of a parser.
run_fuzz_targets() {
    if ! echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return *d + n < 0; }' \
        | clang -x c -fsanitize=fuzzer,address,undefined -o /dev/null - 2>/dev/null; then
        say "SKIP fuzzing: no clang with libFuzzer and sanitizers; install clang and libclang-rt-dev"
        return 77
    fi
    say "building the fuzz targets in $build-fuzz"
    cmake -S "$root" -B "$build-fuzz" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Release \
        -DMPO_FUZZ=ON -DMPO_LLAMA=OFF -DMPO_TESTS=OFF -DMPO_WERROR=ON >/dev/null
    cmake --build "$build-fuzz" -j "$jobs" --target fuzz
    "$root/tests/fuzz/run.sh" "$build-fuzz" "$fuzz_seconds"
}

MPO_BUILD_DIR=$build "$root/launch/setup.sh" --test
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"
if [ -n "$fuzz_seconds" ]; then
    run_fuzz_targets
    exit
fi
check_format

if [ $sanitize = ON ]; then
    # The same libllama, not sanitized: only mpo's own code is.
    export CMAKE_PREFIX_PATH=$build/deps/llama${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
    build=$build-asan
    # Open MPI keeps memory until the process ends, so leaks are left to the unit tests below.
    export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
fi

say "building in $build"
cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMPO_TESTS=ON -DMPO_WERROR=ON \
    -DMPO_SANITIZE=$sanitize >/dev/null
cmake --build "$build" -j "$jobs"

if [ $sanitize = ON ]; then
    say "unit tests, with leaks"
    ASAN_OPTIONS=detect_leaks=1 ctest --test-dir "$build" -L '^unit$' -LE "$skipped_labels" \
        --output-on-failure --no-tests=error -j2
fi
say "tests"
ctest --test-dir "$build" -LE "$skipped_labels" --output-on-failure --no-tests=error -j2
