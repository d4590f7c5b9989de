#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pack what tests/gpu/on_device.sh needs on a machine with a GPU where nothing of ours is installed.
#
#     tests/gpu/bundle.sh BUILD BUNDLE.tar.xz
#
# BUILD is a build for that GPU, for an H200
#
#     CUDAARCHS=90 MPO_LLAMA_CUDA=ON launch/setup.sh
#     CUDAARCHS=90 cmake -S . -B build -G Ninja -DMPO_CUDA=ON -DMPO_TESTS=ON
#     cmake --build build --target mpo device_position bigram_gguf_tool test_mixture_cuda ...
#
# in which any of the programs below may be missing, but mpo; their stages will say SKIP. Libraries
# come along (name it BUNDLE.tar to do without xz), but those of glibc, of the driver, and libcublas and libnccl, which are larger than
# everything else. There:
#
#     tar -xJf BUNDLE.tar.xz && cd bundle && ./on_device.sh OUT
set -euo pipefail

programs=(mpo tests/device_position tests/nccl_group tests/bigram_gguf_tool
    tests/test_mixture_cuda tests/test_mixture_select tests/test_mixture_slices
    tests/test_rounding_cuda tests/test_exchange_cuda tests/test_capture_cuda tests/test_mixture tests/test_mixture_draws
    tests/test_mixture_filter tests/test_mixture_rows tests/test_mixture_top)
left_out='^(ld-linux.*|linux-vdso|lib(c|m|dl|rt|pthread|resolv|util|cuda|cublas|cublasLt|nccl))\.so'

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ $# -ne 2 ]; then
    echo "usage: tests/gpu/bundle.sh BUILD BUNDLE.tar.xz" >&2
    exit 64
fi
build=$1
bundle=$2
if [ ! -x "$build/mpo" ]; then
    echo "bundle.sh: no program $build/mpo; build it first" >&2
    exit 66
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
top=$work/bundle
mkdir -p "$top"/{bin,programs,lib,tests,results/gpu}

# Python and compute-sanitizer must not get the bundle's libraries, which may be older than theirs.
write_starter() {
    cat >"$1" <<'STARTER'
#!/bin/sh
# The program of this name with the libraries of the bundle, and those of CUDA that are here.
here=$(cd "$(dirname "$0")/.." && pwd)
LD_LIBRARY_PATH=$here/lib:${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/cuda/lib64
export LD_LIBRARY_PATH
exec "$here/programs/$(basename "$0")" "$@"
STARTER
    chmod +x "$1"
}

for program in "${programs[@]}"; do
    if [ -x "$build/$program" ]; then
        cp "$build/$program" "$top/programs/"
        write_starter "$top/bin/$(basename "$program")"
    else
        echo "bundle.sh: left out, not built: $program" >&2
    fi
done
# Of its backends libllama is linked with some, and loads others from its own folder.
llama=$(ldd "$top/programs/mpo" | awk '$1 ~ /^libggml\.so/ {print $3}')
[ -z "$llama" ] || cp -L "$(dirname "$llama")"/libggml-*.so* "$top/lib/"
plugins=$(ompi_info --path pkglibdir | awk '{print $2}')
if [ ! -d "$plugins" ]; then
    echo "bundle.sh: no folder '$plugins' of Open MPI's plugins, which ompi_info names" >&2
    exit 69
fi
cp -LR "$plugins" "$top/lib/openmpi3"
find "$top/programs" "$top/lib" -type f -exec ldd {} + 2>/dev/null | awk '$3 ~ /^\// {print $3}' | sort -u \
    | while read -r library; do
        name=$(basename "$library")
        [[ $name =~ $left_out ]] || [ -e "$top/lib/$name" ] || cp -L "$library" "$top/lib/"
    done

cp "$root/tests/gpu/on_device.sh" "$top/"
cp "$root/results/gpu/model.py" "$top/results/gpu/"
mkdir -p "$top"/tests/{commands,hostsim,gpu}
cp "$root"/tests/commands/{gguf_file,patterns,sample,tables,records}.py "$top/tests/commands/"
cp "$root"/tests/hostsim/{devices,llama_devices}.py "$top/tests/hostsim/"
cp "$root"/tests/gpu/{one_device,positions}.py "$top/tests/gpu/"
git -C "$root" describe --always --dirty >"$top/commit" 2>/dev/null || echo unknown >"$top/commit"
chmod -R u+w "$top"
strip --strip-unneeded "$top"/programs/* 2>/dev/null || true
packed=$work/$(basename "$bundle")
XZ_OPT=${XZ_OPT:--T0} tar -C "$work" -caf "$packed" bundle
mv "$packed" "$bundle"
echo "bundle.sh: $bundle, $(du -k "$bundle" | cut -f 1) KB" >&2
