#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Build mpo with its tests and run them.
#
#     launch/test.sh [--long]
#     launch/test.sh --sanitize | --tidy | --fuzz SECONDS
#
#   (nothing)    the ordinary round: format, shellcheck, clang-tidy, all tests but those
#                labelled long, unit tests with sanitizers, 5 s of fuzzing for each parser
#   --long       the ordinary round with the tests labelled long (whole sweeps in place of
#                samples, soaks, many seeds, mutation) and a minute of fuzzing for each parser
#   --sanitize   only the tests of the ordinary round, with AddressSanitizer and
#                UndefinedBehaviorSanitizer, in a tree of its own
#   --tidy       only clang-tidy
#   --fuzz       only the fuzz targets, each for so long, in a tree of its own; needs clang,
#                and is skipped (exit code 77) without it
#
# Safe to repeat.  Warnings are errors.  tests/README.md says what the tests need and how
# long they take.  Environment:
#   MPO_TEST_BUILD_DIR   the build tree (default: build, which the quickstart uses too)
#   MPO_TEST_SEED        draws the samples of the ordinary round (default: 1)
#   JOBS                 parallel compile jobs (default: the number of cores)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${MPO_TEST_BUILD_DIR:-$root/build}
jobs=${JOBS:-$(nproc)}
round=ordinary
fuzz_seconds=5
while [ $# -gt 0 ]; do
    case $1 in
        --long | --sanitize | --tidy) round=${1#--} ;;
        --fuzz)
            round=fuzz
            fuzz_seconds=${2:-}
            [[ $fuzz_seconds =~ ^[1-9][0-9]*$ ]] || { echo "test.sh: --fuzz needs a number of seconds" >&2; exit 64; }
            shift
            ;;
        *) echo "test.sh: unknown argument '$1'; expected --long, --sanitize, --tidy or --fuzz SECONDS" >&2; exit 64 ;;
    esac
    shift
done

say() { printf -- '-- %s\n' "$*" >&2; }

# stage WORDS COMMAND...: say what begins, and keep how long it took for the end.
stages=
stage() {
    local words=$1 began=$SECONDS
    shift
    say "$words"
    "$@"
    stages+=$(printf '%5d s  %s' $((SECONDS - began)) "$words")$'\n'
}

say_stages() { [ -z "$stages" ] || printf -- '-- the stages, in seconds\n%s' "$stages" >&2; }

is_checkout() {
    git -C "$root" rev-parse --is-inside-work-tree >/dev/null 2>&1 && return 0
    say "SKIP clang-format and shellcheck: not a git checkout"
    return 1
}

check_format() {
    (cd "$root" && git ls-files -z '*.c' '*.h' '*.cu' '*.cuh' '*.cpp' | xargs -0 -r clang-format --dry-run -Werror)
}

check_scripts() {
    (cd "$root" && git ls-files -z '*.sh' '*.sbatch' .ci/run .githooks | xargs -0 -r shellcheck -x)
}

# configure FOLDER SANITIZE [OPTION...]
configure() {
    cmake -S "$root" -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMPO_TESTS=ON -DMPO_WERROR=ON \
        -DMPO_SANITIZE="$2" -DMPO_TEST_SEED="${MPO_TEST_SEED:-1}" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON "${@:3}" >/dev/null
}

# compile FOLDER SANITIZE TARGET
compile() {
    configure "$1" "$2"
    cmake --build "$1" -j "$jobs" --target "$3"
}

# What it counts but does not show goes to a log.
tidy() {
    python3 "$root/tests/support/compile_commands.py" "$root" "$build" \
        | xargs -0 -n 4 -P "$jobs" clang-tidy --quiet -p "$build/tidy" 2>"$build/tidy.log" \
        || { tail -5 "$build/tidy.log" >&2; return 1; }
}

# run_tests FOLDER OPTION...: twice as many jobs as cores, since tests count in half cores.
run_tests() {
    ctest --test-dir "$1" --output-on-failure --no-tests=error -j $((2 * $(nproc))) "${@:2}"
}

# Open MPI keeps memory until the process ends, so leaks are looked for in unit tests alone.
run_sanitized_unit_tests() {
    ASAN_OPTIONS=detect_leaks=1 run_tests "$build-asan" -L '^unit$' -LE '^(long|hostsim|docs)$'
}

run_sanitized_tests() {
    ASAN_OPTIONS=detect_leaks=0 run_tests "$build-asan" -LE '^long$'
}

# Neither libllama nor MPI is in the way of a parser.
fuzz() {
    if ! echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return *d + n < 0; }' \
        | clang -x c -fsanitize=fuzzer,address,undefined -o /dev/null - 2>/dev/null; then
        say "SKIP fuzzing: no clang with libFuzzer and sanitizers; install clang and libclang-rt-dev"
        return 77
    fi
    cmake -S "$root" -B "$build-fuzz" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ \
        -DCMAKE_BUILD_TYPE=Release -DMPO_JINJA_DIR="$build/deps/jinja" \
        -DMPO_FUZZ=ON -DMPO_LLAMA=OFF -DMPO_TESTS=OFF -DMPO_WERROR=ON >/dev/null \
        && cmake --build "$build-fuzz" -j "$jobs" --target fuzz \
        && "$root/tests/fuzz/run.sh" "$build-fuzz" "$fuzz_seconds"
}

fuzz_where_possible() { fuzz || [ $? = 77 ]; }

MPO_BUILD_DIR=$build "$root/launch/setup.sh" --test
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"
# The same libllama for every tree, not sanitized: only mpo's own code is.
export CMAKE_PREFIX_PATH=$build/deps/llama${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
export UBSAN_OPTIONS=print_stacktrace=1
trap say_stages EXIT

case $round in
    fuzz)
        fuzz
        exit
        ;;
    tidy)
        configure "$build" OFF
        stage "clang-tidy" tidy
        exit
        ;;
    sanitize)
        stage "building with sanitizers in $build-asan" compile "$build-asan" ON all
        stage "unit tests with sanitizers, and leaks" run_sanitized_unit_tests
        stage "tests with sanitizers" run_sanitized_tests
        exit
        ;;
    ordinary) left_out='^long$' ;;
    long) left_out='^sample$' fuzz_seconds=60 ;;
esac

if is_checkout; then
    stage "format of the C files" check_format
    stage "shellcheck" check_scripts
fi
stage "building in $build" compile "$build" OFF all
stage "clang-tidy" tidy
stage "tests" run_tests "$build" -LE "$left_out"
stage "building the unit tests with sanitizers in $build-asan" compile "$build-asan" ON unit_tests
stage "unit tests with sanitizers, and leaks" run_sanitized_unit_tests
stage "building the fuzz targets, and $fuzz_seconds s of each" fuzz_where_possible
