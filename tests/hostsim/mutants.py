#!/usr/bin/env python3
"""Break the CUDA variant on purpose, one edit at a time: some build of its test must notice.

usage: mutants.py SOURCE_FOLDER WORK_FOLDER

Each mutant is tried on the plain build (values), then with ASan and UBSan, then with TSan,
until one notices; the table at the end says which.
"""
import os
import shutil
import subprocess
import sys

SOURCE, WORK = sys.argv[1:3]
TREE = os.path.join(WORK, "tree")
BUILD = os.path.join(WORK, "build")
BUILDS = (("values", "plain"), ("asan", "asan"), ("tsan", "tsan"))

KERNELS = "src/mixture/mixture_kernels.cuh"
DRAWS = "src/mixture/mixture_draw_kernels.cuh"
SLICES = "src/mixture/mixture_slice_kernels.cuh"
FILTERS = "src/mixture/mixture_filter_kernels.cuh"
HOST = "src/mixture/mixture_cuda.cu"

# What is broken, in which file, the text that stands there once, and what takes its place.
MUTANTS = [
    ("nothing", KERNELS, "/* ---- reductions ---- */", "/* ---- the reductions ---- */"),
    ("no barrier before block sums are added", KERNELS,
     "    __syncthreads();\n    double *figures =", "    double *figures ="),
    ("no barrier in the maximum", KERNELS,
     "    __syncthreads();\n    value = part[0];", "    value = part[0];"),
    ("no barrier before scales are used", KERNELS,
     "    __syncthreads();\n    int32_t stride =", "    int32_t stride ="),
    ("no barrier before the lowest is used again", KERNELS,
     "    int32_t found = lowest;\n    __syncthreads();", "    int32_t found = lowest;"),
    ("no barrier before the token is read", DRAWS,
     "    __syncthreads();\n    return token;", "    return token;"),
    ("a barrier that one thread meets", KERNELS,
     "    if (threadIdx.x == 0)\n        lowest = INT32_MAX;\n    __syncthreads();",
     "    if (threadIdx.x == 0) {\n        lowest = INT32_MAX;\n        __syncthreads();\n    }"),
    ("the last load reads past a row", KERNELS,
     "token + MIXTURE_TOKENS <= vocab_size &&", "token < vocab_size &&"),
    ("wide loads at any address", KERNELS,
     "(uintptr_t)(row + token) % sizeof(float4) == 0", "row != NULL"),
    ("half of a warp's sum", KERNELS,
     "for (int distance = 16; distance > 0; distance /= 2)\n        value += ",
     "for (int distance = 8; distance > 0; distance /= 2)\n        value += "),
    ("too little shared memory for the sums", KERNELS,
     "((size_t)((policy_count) + 2) * MIXTURE_THREADS", "((size_t)((policy_count) + 1) * MIXTURE_THREADS"),
    ("rows and policies change places", KERNELS,
     "return view->row[(size_t)h * (size_t)view->row_count + (size_t)row];",
     "return view->row[(size_t)row * (size_t)view->policy_count + (size_t)h];"),
    ("greedy takes a thread's last tie", DRAWS,
     "for (int i = MIXTURE_TOKENS - 1; i >= 0; i--)\n        if (score[i] == top)",
     "for (int i = 0; i < MIXTURE_TOKENS; i++)\n        if (score[i] == top)"),
    ("expectations without the temperature", KERNELS,
     "/ sum * view->inverse_temperature[h] -", "/ sum -"),
    ("scores without the end tilt", DRAWS,
     "token_flags(&view, token) & MIXTURE_ENDS ? view.end_bias : 0.0", "0.0"),
    ("no barrier in the filters' totals", FILTERS,
     "    __syncthreads();\n    if (warp < MIXTURE_KEYS) {", "    if (warp < MIXTURE_KEYS) {"),
    ("tokens at a key do not count", FILTERS, "own >= key[i]", "own > key[i]"),
    ("all ties are kept", FILTERS, "    cut->token = high;\n}", "    cut->token = count - 1;\n}"),
    ("top_p of all tokens, not of top_k's", FILTERS,
     "uint64_t amount = kept_amount(weight, count, &cut, by_mass);",
     "struct mixture_cut all = {0, INT32_MAX};\n"
     "        uint64_t amount = kept_amount(weight, count, &all, by_mass);"),
    ("every round draws for the first rows", HOST,
     "draw_view(cuda, draws, first, round)", "draw_view(cuda, draws, 0, round)"),
    ("moments are read before they are there", HOST,
     "    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));\n    memcpy(moments,",
     "    memcpy(moments,"),
    ("the host reads the device's memory", HOST,
     "memcpy(moments, cuda->host.moments,", "memcpy(moments, cuda->device.moments,"),
    ("a block's weights are not the row's", DRAWS, "score[i] *= question->scale;", "score[i] *= 1.0;"),
    ("a block is inverted as if it were the first", DRAWS,
     "question.target = target - place.before;", "question.target = target;"),
    ("answers are about the first row", SLICES, "own.row)[token]", "0)[token]"),
    ("scores are the first row's", SLICES,
     "token_scores(&view, row, (int32_t)blockIdx.x", "token_scores(&view, 0, (int32_t)blockIdx.x"),
    ("filters do not look at scores of slices", FILTERS,
     "filter.is_scored ? weight[token + i] : score[i]", "score[i]"),
    ("slices have the flags of the first", HOST, "cuda->flags + first;", "cuda->flags;"),
    ("answers count tokens from the slice's first", HOST,
     "answers[i * width] += first_token;", "answers[i * width] += 0;"),
    ("questions count blocks from the vocabulary's first", HOST,
     ".block -= cuda->first_block;", ".block -= 0;"),
    ("the other slices' sums are left out", HOST, "if (others > 0)", "if (others == SIZE_MAX)"),
    ("the other slices' sums take the root's place", HOST,
     "cuda->sums.table + own, table + own", "cuda->sums.table, table + own"),
    ("every round asks about the first draws", HOST, "question[i].draw += first;", ";"),
    ("sums of a slice are read before they are there", HOST,
     "cuda->stream));\n    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));\ncleanup:\n    return status;\n}\n\n"
     "static enum mpo_status cuda_fold(",
     "cuda->stream));\ncleanup:\n    return status;\n}\n\nstatic enum mpo_status cuda_fold("),
]


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def prepare():
    shutil.rmtree(WORK, ignore_errors=True)
    for folder in ("src", "include", "tests"):
        shutil.copytree(os.path.join(SOURCE, folder), os.path.join(TREE, folder))
    shutil.copy(os.path.join(SOURCE, "CMakeLists.txt"), TREE)
    subprocess.run(["cmake", "-S", TREE, "-B", BUILD, "-G", "Ninja", "-DMPO_LLAMA=OFF"],
                   check=True, stdout=subprocess.DEVNULL)


def notices(variant):
    """Build and run one of the three; True when one of its tests does not pass."""
    return any(fails(f"{test}_{variant}") for test in ("test_mixture_cuda", "test_mixture_slices"))


def fails(program):
    subprocess.run(["cmake", "--build", BUILD, "--target", program], check=True,
                   stdout=subprocess.DEVNULL)
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}
    # A broken search may never end: timeout(1) makes that a failure too.
    ran = subprocess.run(["timeout", "300", os.path.join(BUILD, "tests", "hostsim", program), "small"],
                         env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return ran.returncode != 0


def try_mutant(path, old, new):
    original = read(os.path.join(TREE, path))
    if original.count(old) != 1:
        sys.exit(f"{path}: expected once, found {original.count(old)} times: {old!r}")
    write(os.path.join(TREE, path), original.replace(old, new))
    noticed = next((name for name, variant in BUILDS if notices(variant)), "nobody")
    write(os.path.join(TREE, path), original)
    return noticed


def main():
    prepare()
    survivors = []
    for what, path, old, new in MUTANTS:
        noticed = try_mutant(path, old, new)
        print(f"{noticed:8} {what}", flush=True)
        if (noticed == "nobody") != (what == "nothing"):
            survivors.append(what)
    if survivors:
        sys.exit(f"wrong: {survivors}")


main()
