#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The program built with CUDA, with a device or without one.

usage: cuda_build.py build  NVCC SOURCE_FOLDER WORK_FOLDER   compiles, compares with the budget
       cuda_build.py absent NVCC SOURCE_FOLDER WORK_FOLDER   what it does without a device
       cuda_build.py device NVCC SOURCE_FOLDER WORK_FOLDER   the CPU against a device

Exits 77 where there is no nvcc, or where there is (or is not) a device to do this with.
"""
import os
import re
import shutil
import subprocess
import sys

MODE, NVCC, SOURCE, WORK = sys.argv[1:5]
BUILD = os.path.join(WORK, "build")
MPO = os.path.join(BUILD, "mpo")
SUITE = os.path.join(BUILD, "tests", "test_mixture_cuda")
SELECTION = os.path.join(BUILD, "tests", "test_mixture_select")
ROUNDING = os.path.join(BUILD, "tests", "test_rounding_cuda")
SLICES = os.path.join(BUILD, "tests", "test_mixture_slices")
MESSAGES = os.path.join(BUILD, "tests", "test_exchange_cuda")
BUDGET = os.path.join(SOURCE, "tests", "gpu", "kernel_budget.tsv")
FAILURES = []


def skip(why):
    print(f"SKIP: {why}")
    sys.exit(77)


def check(name, condition, what=""):
    print(("ok    " if condition else "FAIL  ") + name)
    if not condition:
        FAILURES.append(name)
        print(what)


def must_run(*command):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode != 0:
        print(result.stdout[-8000:])
        sys.exit(f"{' '.join(command)} ended with {result.returncode}")
    return result.stdout


def read_budget():
    with open(BUDGET, encoding="utf-8") as file:
        lines = [line.split() for line in file if not line.startswith("#")]
    return {kernel: (int(registers), int(shared)) for kernel, registers, shared in lines}


# What ptxas prints of one kernel on one architecture, names as the C++ ABI mangles them.
USAGE = re.compile(
    r"Compiling entry function '_Z\d+(?P<kernel>(?:mixture|exchange)_[a-z_]+?)\d+\w+' for 'sm_(?P<arch>\d+)'"
    r".*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)", re.S)


def check_budget(output, has_nccl):
    """Every kernel on every architecture, and no kernel that the budget does not know."""
    budget = {kernel: limits for kernel, limits in read_budget().items()
              if has_nccl or not kernel.startswith("exchange_")}
    seen = {}
    for found in USAGE.finditer(output):
        kernel, arch = found["kernel"], int(found["arch"])
        shared = re.search(r"(\d+) bytes smem", found["rest"])
        used = (int(found["registers"]), int(shared[1]) if shared else 0)
        seen[kernel, arch] = used
        print(f"{kernel:26} sm_{arch:<4} {used[0]:4} registers {used[1]:6} bytes shared")
        check(f"{kernel} on sm_{arch} is within its budget",
              kernel in budget and used[0] <= budget[kernel][0] and used[1] <= budget[kernel][1],
              f"{used}, expected at most {budget.get(kernel)}; see {BUDGET}")
        check(f"{kernel} on sm_{arch} spills nothing",
              found["stack"] == found["stores"] == found["loads"] == "0", found[0])
    with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as file:
        listed = re.search(r"^CMAKE_CUDA_ARCHITECTURES:\w+=(.*)$", file.read(), re.M)[1]
    expected = {(kernel, int(arch)) for kernel in budget for arch in re.findall(r"\d+", listed)}
    check("every kernel was seen on every architecture", set(seen) == expected,
          f"differ: {sorted(set(seen) ^ expected)}")


def build():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    said = must_run("cmake", "-S", SOURCE, "-B", BUILD, "-G", "Ninja", "-DMPO_CUDA=ON",
                    "-DMPO_LLAMA=OFF", "-DMPO_HTTP=OFF", "-DMPO_WERROR=ON", f"-DCMAKE_CUDA_COMPILER={NVCC}",
                    "-DCMAKE_CUDA_FLAGS=--resource-usage")
    has_nccl = "NCCL was not found" not in said
    if not has_nccl:
        print("note  no NCCL here: the kernels of its exchange are not compiled")
    suites = ["test_mixture_cuda", "test_mixture_select", "test_rounding_cuda",
              "test_mixture_slices"]
    suites += ["test_exchange_cuda", "nccl_group"] * has_nccl
    check_budget(must_run("cmake", "--build", BUILD, "-j2", "--target", "mpo",
                          "device_position", *suites), has_nccl)


def fit(device, *more, seed=1):
    record = os.path.join(WORK, f"{device}.h5")
    if os.path.exists(record):
        os.remove(record)
    return subprocess.run(
        [MPO, "fit", os.path.join(SOURCE, "configs", "table.yaml"), f"--record.file={record}",
         f"--run.device={device}", f"--run.seed={seed}", "--descent.steps=5", *more],
        capture_output=True, text=True, timeout=600)


def has_device():
    return subprocess.run([SUITE, "small"], stdout=subprocess.DEVNULL).returncode != 77


def absent():
    if has_device():
        skip("this machine has a CUDA device")
    asked = fit("cuda")
    ours = [line for line in asked.stderr.splitlines() if line.startswith("mpo: ")]
    check("cuda without a device is exit 69", asked.returncode == 69, asked.stderr)
    check("one message says what is wrong and what to do", len(ours) == 1
          and "no CUDA device" in ours[0] and "run.device=cpu" in ours[0], asked.stderr)
    check("nothing was written", not os.path.exists(os.path.join(WORK, "cuda.h5")))
    any_device = fit("auto")
    cpu = fit("cpu")
    check("auto without a device runs on the cpu", any_device.returncode == 0, any_device.stderr)
    check("and says so once", any_device.stderr.count("using the cpu") == 1, any_device.stderr)
    check("with the cpu's figures", any_device.stdout.replace("auto.h5", "cpu.h5") == cpu.stdout,
          any_device.stdout + cpu.stdout)
    check("the cpu needs no note", "using the cpu" not in cpu.stderr, cpu.stderr)


def device():
    result = subprocess.run([SUITE, "large"])
    if result.returncode == 77:
        sys.exit(77)
    check("the mixture on the device is the cpu's", result.returncode == 0)
    check("filters on the device cut where the cpu's do",
          subprocess.run([SELECTION, "large"]).returncode == 0)
    check("rows rounded on the device have the cpu's bits",
          subprocess.run([ROUNDING, "large"]).returncode == 0)
    check("slices on the device are its whole rows'",
          subprocess.run([SLICES, "large"]).returncode == 0)
    if os.path.exists(MESSAGES):
        check("messages packed on the device are the rows'",
              subprocess.run([MESSAGES, "large"]).returncode == 0)
    on_device, on_cpu = fit("cuda"), fit("cpu")
    check("a fit on the device ends well", on_device.returncode == 0, on_device.stderr)
    check("with the cpu's figures", on_device.stdout.replace("cuda.h5", "cpu.h5") == on_cpu.stdout,
          on_device.stdout + on_cpu.stdout)


def main():
    if not NVCC:
        skip("no nvcc here")
    if MODE != "build" and not os.path.exists(SUITE):
        skip("the build with CUDA did not come about")
    {"build": build, "absent": absent, "device": device}[MODE]()
    if FAILURES:
        sys.exit(f"{len(FAILURES)} failed")


main()
