#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The script for a machine with a GPU, where there is none: tests/gpu/bundle.sh, on_device.sh.

usage: rehearsal.py SOURCE_FOLDER WORK_FOLDER BUILD_FOLDER [ELSE_BUILD_FOLDER]

The bundle is that of a build with CUDA, or where there is none of the other build, which has
fewer programs. Devices are hidden from it, so every stage has to say SKIP and the table still
comes. Then programs of the bundle are stood in for, to see each way in which a stage ends.
"""
import json
import os
import re
import shutil
import subprocess
import sys

SOURCE, WORK, *BUILDS = sys.argv[1:]
BUNDLE = os.path.join(WORK, "bundle")
TOTAL = 480  # seconds that all stages together may take
# What every machine with a driver has, or brings itself (bundle.sh).
ELSEWHERE = r"(linux-vdso|ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util|cuda|cublas|cublasLt|nccl))\.so.*"
FAILURES = []


def check(name, condition, what=""):
    print(("ok    " if condition else "FAIL  ") + name)
    if not condition:
        FAILURES.append(name)
        print(what)


def make_bundle():
    build = next((folder for folder in BUILDS if os.path.exists(os.path.join(folder, "mpo"))), None)
    if build is None:
        print("SKIP: no program was built")
        sys.exit(77)
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    packed = os.path.join(WORK, "bundle.tar")
    script = os.path.join(SOURCE, "tests", "gpu", "bundle.sh")
    done = subprocess.run([script, build, packed], capture_output=True, text=True, check=False)
    check("a bundle is made", done.returncode == 0, done.stderr)
    if FAILURES:
        sys.exit(1)
    subprocess.run(["tar", "-C", WORK, "-xf", packed], check=True)
    os.remove(packed)
    refused = subprocess.run([script, WORK, packed], capture_output=True, text=True, check=False)
    check("a folder without a program is refused", refused.returncode == 66
          and "build it first" in refused.stderr and not os.path.exists(packed), refused.stderr)


def brings_its_libraries():
    carried = set(os.listdir(os.path.join(BUNDLE, "lib")))
    wanted = set()
    for name in os.listdir(os.path.join(BUNDLE, "programs")):
        said = subprocess.run(["ldd", os.path.join(BUNDLE, "programs", name)], capture_output=True,
                              text=True, check=False).stdout
        wanted |= {os.path.basename(line.split()[0]) for line in said.splitlines()}
    absent = {name for name in wanted - carried if not re.fullmatch(ELSEWHERE, name)}
    check("every library is in the bundle", wanted and not absent, absent)
    check("so are the plugins of Open MPI", any(
        name.startswith("mca_") for name in os.listdir(os.path.join(BUNDLE, "lib", "openmpi3"))))


def rehearse(**environment):
    """({stage: (result, why)}, the table as text, as JSON, the exit code)"""
    out = os.path.join(WORK, "out")
    shutil.rmtree(out, ignore_errors=True)
    done = subprocess.run([os.path.join(BUNDLE, "on_device.sh"), out], capture_output=True, text=True,
                          timeout=600, check=False,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment})
    with open(os.path.join(out, "table.json"), encoding="utf-8") as file:
        table = json.load(file)
    with open(os.path.join(out, "table.txt"), encoding="utf-8") as file:
        text = file.read()
    check("the table is printed at the end", done.stdout.endswith(text) and text, done.stdout)
    return ({stage["stage"]: (stage["result"], stage["why"]) for stage in table["stages"]}, text,
            table, done.returncode)


def without_a_device():
    stages, text, table, code = rehearse()
    check("every stage says SKIP", len(stages) > 15
          and all(result == "SKIP" for result, _ in stages.values()), stages)
    check("and why", all(why for _, why in stages.values()), stages)
    check("nothing says ok", not re.search(r"\bok\b", text), text)
    check("no figure is made up", table["figures"] == [] and table["constants"] == {}
          and "nothing was measured" in text, table)
    check("it ends with 77", code == 77, code)
    limits = sum(stage["limit"] for stage in table["stages"])
    check(f"stages have {limits} s, at most {TOTAL}", limits <= TOTAL)
    check("it says of what and when", all(table.get(name) for name in ("commit", "date", "device")), table)


def stand_in(name, *lines):
    path = os.path.join(BUNDLE, "bin", name)
    if os.path.lexists(path):
        os.remove(path)
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(("#!/bin/sh", *lines, "")))
    os.chmod(path, 0o755)


def with_stand_ins():
    stand_in("device_position", 'printf "copy\\t0\\t0\\t0\\t2150\\ncombine\\t2\\t32768\\t1\\t45\\n"')
    for name in ("mixture_cuda", "mixture_slices", "rounding_cuda", "exchange_cuda", "mixture_top"):
        stand_in("test_" + name, "exit 0")
    stand_in("test_mixture_select", "echo it broke; exit 3")
    stand_in("test_mixture", "sleep 60")
    stand_in("test_mixture_draws", "echo '[  SKIPPED ] one case'; exit 0")
    stand_in("test_mixture_filter", "exit 77")
    stand_in("test_mixture_rows", '[ "$MPO_TEST_DEVICE" = cuda ]')
    os.remove(os.path.join(BUNDLE, "bin", "test_mixture_top"))
    expected = (("device", "ok", ""), ("mixture_cuda", "ok", ""), ("mixture_rows", "ok", ""),
                ("speed", "ok", ""), ("mixture_select", "FAIL", "exit code 3"),
                ("mixture", "FAIL", "time limit"), ("mixture_draws", "SKIP", "SKIPPED"),
                ("mixture_filter", "SKIP", "77"), ("mixture_top", "SKIP", "not in the bundle"))
    for seconds in ("3", "30"):  # where a busy machine takes as long for what does nothing
        stages, text, table, code = rehearse(MPO_STAGE_SECONDS=seconds)
        if not any("time limit" in stages[name][1] and word != "time limit" for name, _, word in expected):
            break
    for name, result, word in expected:
        check(f"{name} ends with {result}", stages[name][0] == result and word in stages[name][1],
              stages[name])
    check("a failure makes the exit code 1", code == 1, code)
    ratios = {line["quantity"]: line["ratio"] for line in table["figures"]}
    check("figures stand beside the model's", ratios.get("copy") == 0.5
          and "copy\t0\t0\t0\tGB/s\t2150\t4300\t0.50" in text, text)
    check("constants follow from them", table["constants"] == {"copy_rate": 2150.0, "combine": 45.0},
          table["constants"])
    stand_in("device_position", "echo 'copy of nothing'; kill -9 $$")
    stages, text, table, code = rehearse(MPO_STAGE_SECONDS="1")
    check("a device that breaks is a failure, and no figure", stages["device"][0] == "FAIL"
          and stages["speed"][0] == "FAIL" and table["figures"] == [] and code == 1, table)


def program_without_a_device():
    """By itself and with time: on a busy machine it may need more than a stage has here."""
    stand_in("mpo", "echo mpo: no CUDA device is visible >&2; exit 69")
    for code, words in ((77, "no CUDA device"), (1, "ended with 70")):
        done = subprocess.run(
            [sys.executable, "tests/gpu/one_device.py", "bin/mpo", os.path.join(WORK, "program")],
            cwd=BUNDLE, capture_output=True, text=True, timeout=600, check=False)
        check(f"a program that says '{words}' ends its test with {code}", words in done.stdout and (
            done.returncode == code if code == 77 else done.returncode != 0), done.stdout)
        check("and SKIP only where there is no device", ("SKIP" in done.stdout) == (code == 77))
        stand_in("mpo", "echo mpo: wrong; exit 70")


make_bundle()
brings_its_libraries()
without_a_device()
with_stand_ins()
program_without_a_device()
sys.exit(f"{len(FAILURES)} failed" if FAILURES else 0)
