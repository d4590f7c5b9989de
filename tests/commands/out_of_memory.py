#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Memory that runs out at any allocation of the program's own: one message, exit 71, no crash,
no hang, and no half-written record.

    out_of_memory.py MPO MPIEXEC WORK_FOLDER SHIM [--sample]

SHIM is the library made of tests/support/memory_fault.c: it fails the N-th allocation that
returns into the program. Of a fit on one rank every N is tried, from 1 until a run has fewer
allocations, of generate and score every third; of fits on two ranks, with one rank failing,
every seventh one. With --sample (sample.py) some of them.
"""
import os
import re
import sys

import sample
from person import WORK, check, fresh, run, run_tests, says_once, write

SHIM = sys.argv[4]
FAULTS_MAX = 5000

FIT = ["fit", "config.yaml", "--descent.steps=1", "--rollout.responses=2"]
LEFT = ["config.yaml", "down.table", "prompts.txt", "scored.jsonl", "up.table"]


def environment(at, rank=None):
    added = {"LD_PRELOAD": SHIM, "MEMORY_FAULT_AT": str(at)}
    if rank is not None:
        added["MEMORY_FAULT_RANK"] = str(rank)
    return {**os.environ, **added}


def wrong(result):
    """What is wrong with a run in which memory ran out, "" when nothing is."""
    if not says_once(result, 71, ["memory"]):
        return f"exit {result.returncode}: {result.stderr.strip()}"
    left = sorted(os.listdir(WORK))
    if [name for name in left if name != "out.h5"] != LEFT:
        return f"left behind: {left}"
    if "out.h5" in left and run("inspect", "out.h5").returncode != 0:
        return "the record cannot be read"
    return ""


def remove_record():
    if os.path.exists(os.path.join(WORK, "out.h5")):
        os.remove(os.path.join(WORK, "out.h5"))


def fault(at, command, ranks, rank):
    """One run; what is wrong with it, or None when there was no such allocation."""
    remove_record()
    result = run(*command, ranks=ranks, env=environment(at, rank))
    if "memory_fault: here" not in result.stderr:
        return None if result.returncode == 0 else f"exit {result.returncode} with no fault"
    return wrong(result)


def places(command, ranks, rank, first, stride, count):
    """The allocations to fail: so many of those there are, or all up to more than those."""
    if sample.WHOLE:
        return range(first, FAULTS_MAX, stride)
    result = run(*command, ranks=ranks, env=environment("end", rank))
    total = max(map(int, re.findall(r"memory_fault: (\d+) allocations", result.stderr)))
    what = f"allocations of {command[0]}" + ("" if rank is None else f" on rank {rank}")
    return sample.some(what, range(1, total + 1), count)


def every_fault(command, count, ranks=1, rank=None, first=1, stride=1):
    faults = 0
    bad = []
    remove_record()
    for at in places(command, ranks, rank, first, stride, count):
        found = fault(at, command, ranks, rank)
        if found is None:
            break
        faults += 1
        if found:
            bad.append(f"allocation {at}: {found}")
    place = "" if rank is None else f", rank {rank} of {ranks}"
    least = 10 if sample.WHOLE else count - 1
    check(f"{command[0]}{place}: {faults} allocations, {len(bad)} go wrong", faults > least and
          not bad)
    for line in bad[:20]:
        print("     ", line.replace("\n", "\n        "))


def prepare():
    fresh()
    write("scored.jsonl", '{"prompt": "a", "response": "b"}\n')


def test_one_rank():
    prepare()
    every_fault(FIT, 60)
    every_fault(["generate", "config.yaml", "--prompt=a"], 20, stride=3)
    every_fault(["generate", "config.yaml", "--prompt=a", "--exact"], 20, stride=3)
    every_fault(["score", "config.yaml", "--input=scored.jsonl"], 20, stride=3)


def test_one_rank_of_two():
    prepare()
    for rank in (0, 1):
        every_fault(FIT, 8, ranks=2, rank=rank, first=1 + rank, stride=7)


run_tests(globals())
