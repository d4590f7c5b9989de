#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Python lines of README.md, run beside a record of the fit without a model, and its pipe.

    readme.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER

Every block must run as it stands and print the weights that the fit printed.
"""
import json
import os
import re
import shutil
import sys
from pathlib import Path

from person import MPO, WORK, check, run, run_tests, start

SOURCE = Path(sys.argv[4])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Blocks that need what not everybody has, by what they import.
OPTIONAL = {"xarray": ("xarray", "h5netcdf")}


def lacks(modules):
    return [name for name in modules
            if start([sys.executable, "-c", f"import {name}"]).returncode != 0]


def fit():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    result = run("fit", str(SOURCE / "configs/table.yaml"), "--record.file=run.h5")
    check("the fit without a model runs", result.returncode == 0, result)
    return result


def test_python_lines():
    result = fit()
    weights = dict(re.findall(r"^(terse|warm|formal) +(0\.\d+)", result.stdout, re.MULTILINE))
    check("and prints three weights", len(weights) == 3, result)
    blocks = BLOCK.findall((SOURCE / "README.md").read_text(encoding="utf-8"))
    check(f"README.md has {len(blocks)} blocks of Python", len(blocks) >= 2)
    for number, block in enumerate(blocks, 1):
        imported = re.findall(r"^import (\w+)", block, re.MULTILINE)
        missing = [lack for name in imported for lack in lacks(OPTIONAL.get(name, ()))]
        if missing:
            print(f"SKIP  block {number}: no {missing}")
            continue
        result = start([sys.executable, "-c", block])
        check(f"block {number} runs", result.returncode == 0, result)
        check(f"block {number} is silent on stderr", result.stderr == "", result)
        for name, weight in weights.items():
            found = re.search(rf"{name}\W+(?:np\.float64\()?(0\.\d+)", result.stdout)
            check(f"block {number} prints the weight of {name}",
                  found is not None and abs(float(found[1]) - float(weight)) < 1e-4, result)


def test_pipe():
    fit()
    text = (SOURCE / "README.md").read_text(encoding="utf-8")
    pipe = re.search(r"^ +(build/mpo generate .* \| build/mpo score .*)$", text, re.MULTILINE)
    check("README.md pipes generate into score", pipe is not None)
    if pipe is None:
        return
    command = pipe[1].replace(" |", " --weights run.h5 | tee drawn.jsonl |")
    command = command.replace("build/mpo", MPO).replace(
        "my.yaml", str(SOURCE / "configs/table.yaml"))
    result = start(["bash", "-c", "set -o pipefail; " + command])
    check("the pipe runs", result.returncode == 0, result)
    with open(os.path.join(WORK, "drawn.jsonl"), encoding="utf-8") as stream:
        drawn = [json.loads(line) for line in stream]
    scored = [json.loads(line) for line in result.stdout.splitlines()]
    check("and scores every line", len(drawn) == len(scored) > 5, result)
    check("as it was drawn", all(
        abs(one["log_mixture"] - other["log_mixture"]) < 1e-12
        for one, other in zip(drawn, scored)), result)


run_tests(globals())
