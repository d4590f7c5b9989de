#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records that older programs wrote: read, repaired, fitted again and continued by this one.

    old_records.py MPO MPIEXEC WORK_FOLDER

The records are in tests/support/records, whose README says how they were made. Figures are
compared within CLOSE, since they were computed by another machine's exp and log; tokens are
compared to the bit, as is all that a resumed run must leave as it was.
"""
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np

from person import WORK, check, run, run_tests, write

RECORDS = Path(__file__).resolve().parent.parent / "support" / "records"
OLD = "mpo-1.0.h5"
LONGER = "mpo-1.0-longer.h5"
STEPS = 6  # of OLD; LONGER is the same fit with MORE
MORE = 10
CLOSE = 1e-9
# What the program that wrote it prints as its refit.
REFIT = {"brief": 0.558677, "kind": 0.441323}


def prepare():
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(RECORDS, WORK)


def path(name):
    return os.path.join(WORK, name)


def unchanged():
    return Path(path(OLD)).read_bytes() == (RECORDS / OLD).read_bytes()


def steps_of(name, first=0, last=None):
    """{data set: rows} of all that belongs to some steps but the clocks."""
    with h5py.File(path(name), "r") as record:
        step = record["responses/step"][()]
        last = len(record["step"]) if last is None else last
        rows = np.flatnonzero((step >= first) & (step < last))
        offset = record["responses/token_offset"][()]
        count = record["responses/token_count"][()]
        kept = {name: item[first:last] for name, item in record.items()
                if isinstance(item, h5py.Dataset) and item.maxshape[0] is None
                and name not in ("time", "elapsed")}
        kept.update({f"state/{name}": item[first:last] for name, item in record["state"].items()})
        for name in ("prompt", "token_count", "ended", "log_proposal", "log_policy"):
            kept["responses/" + name] = record["responses"][name][()][rows]
        kept["responses/token"] = record["responses/token"][
            offset[rows[0]]:offset[rows[-1]] + count[rows[-1]]]
        return kept


def same(one, other, bound):
    """Names of the data sets that differ by more than a bound; whole numbers may not differ."""
    return sorted(one.keys() ^ other.keys()) + [
        name for name, value in one.items() if name in other and not (
            value.shape == other[name].shape
            and (np.array_equal(value, other[name], equal_nan=value.dtype.kind == "f")
                 if bound == 0 or value.dtype.kind != "f"
                 else np.allclose(value, other[name], 0, bound, equal_nan=True)))]


def test_read():
    prepare()
    shown = run("inspect", OLD, "--format=tsv")
    check("inspect shows every step", shown.returncode == 0
          and len(shown.stdout.splitlines()) == 1 + STEPS, shown)
    shown = run("inspect", OLD, "--responses", "3")
    check("inspect shows responses", shown.returncode == 0 and shown.stdout.count("\n") > 3, shown)
    shown = run("inspect", "--compare", OLD, OLD)
    check("inspect compares it", shown.returncode == 0, shown)
    shown = run("recover", OLD)
    check("recover takes it", shown.returncode == 0, shown)
    write("in.jsonl", '{"prompt": "a", "response": "b"}\n')
    for command in (["generate", "config.yaml"], ["score", "config.yaml", "--input=in.jsonl"],
                    ["evaluate", "config.yaml", "--replicates=100"]):
        result = run(*command, "--weights=" + OLD)
        check(f"{command[0]} takes its weights", result.returncode == 0, result)
    check("and nobody changed it", unchanged())


def test_refit():
    prepare()
    result = run("refit", OLD, "--min-ess=0", "--format=json")
    weights = json.loads(result.stdout)["weights"] if result.returncode == 0 else {}
    check("refit finds what its writer did", weights.keys() == REFIT.keys() and all(
        abs(weights[name] - wanted) < 1e-4 for name, wanted in REFIT.items()), result)
    check("and does not change it", unchanged())


def test_resume():
    for ranks in (1, 3):
        prepare()
        before = steps_of(OLD)
        longer = f"--descent.steps={MORE}"
        result = run("fit", "config.yaml", "--resume", "--quiet", longer, ranks=ranks)
        check(f"fit --resume continues it on {ranks}", result.returncode == 0, result)
        with h5py.File(path(OLD), "r") as record:
            check("with a segment of its own", len(record["provenance/segments"]) == 2
                  and len(record["step"]) == MORE)
        differ = same(before, steps_of(OLD, 0, STEPS), 0)
        check("its steps stay as they were", not differ)
        whole = steps_of(LONGER)
        now = steps_of(OLD)
        check("it has no data set that its schema did not have", now.keys() == whole.keys())
        differ = same(whole, now, CLOSE)
        check(f"the whole is what its writer made of {MORE} steps: {differ} differ", not differ)
    prepare()
    result = run("fit", "config.yaml", "--resume", longer, "--estimator.target=served")
    check("another target is refused", result.returncode == 78
          and "estimator.target was whole, is served" in result.stderr and "served" in result.stderr, result)
    check("and the record is as it was", unchanged())


run_tests(globals())
