#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A disk that fills up at any write of a fit, or loses a byte of it, and output that nobody takes.

    disk_full.py MPO MPIEXEC WORK_FOLDER SHIM [--sample]

SHIM is the library made of tests/support/write_log.c: from the N-th write to the record on, the
disk is full. On one rank every N of a short fit is tried, on two ranks every 37th,
with --sample (sample.py) some of them: exit 74, one message that names the record, the acknowledged steps as in a run
with room, no lock left, nothing left of a record that was not yet complete.

Then one byte of every N-th write to a record that is made is turned over as soon as it is written: the fit ends with 74, and
inspect, recover and it agree on whether its steps are whole; or the byte did not matter, and the
record is the same as without it.
"""
import os
import sys

import h5py
import numpy as np

import crash_replay
import sample
from person import WORK, check, fresh, run, run_tests, says_once, write

SHIM = sys.argv[4]
WRITES_MAX = 5000
RESPONSES = 3
FIT = ["fit", "config.yaml", "--quiet", "--descent.steps=2", f"--rollout.responses={RESPONSES}"]
CLOCKS = ("time", "elapsed")
RECORD = os.path.join(WORK, "out.h5")


def clean():
    for name in ("out.h5", "out.h5.lock"):
        if os.path.exists(os.path.join(WORK, name)):
            os.remove(os.path.join(WORK, name))


def growing(record, steps):
    """{name: rows that belong to acknowledged steps} of every data set that grows."""
    group = record["responses"]
    rows = steps * RESPONSES
    kept = {"responses/" + name: rows for name in group}
    kept["responses/token"] = int(group["token_count"][:rows].sum())
    kept["responses/text"] = int(group["text_bytes"][:rows].sum())
    for name, item in record.items():
        if isinstance(item, h5py.Dataset) and item.maxshape[0] is None and name not in CLOCKS:
            kept[name] = steps
    return kept


def contents(steps=None):
    """Acknowledged steps, and {name: bytes} of the first of them."""
    with h5py.File(RECORD, "r", swmr=True, libver="latest") as record:
        count = len(record["step"])
        kept = growing(record, count if steps is None else steps)
        return count, {name: np.asarray(record[name][:rows]).tobytes()
                       for name, rows in kept.items()}


def undisturbed():
    """[{name: bytes}] of the first 0, 1, .. steps of a run with room."""
    result = run(*FIT)
    check("a run with room", result.returncode == 0, result)
    count, _ = contents()
    return [contents(steps)[1] for steps in range(count + 1)]


def wrong(result, expected):
    """What is wrong with a run on a full disk, "" when nothing is."""
    if not says_once(result, 74, ["out.h5", "No space left on device"]):
        return f"exit {result.returncode}: {result.stderr.strip()}"
    if os.path.exists(RECORD + ".lock"):
        return "the lock is left"
    if not os.path.exists(RECORD):
        return "" if "making" in result.stderr else "the record is gone"
    count, found = contents()
    if count >= len(expected) or f"{count} steps are safe" not in result.stderr:
        return f"{count} steps in the file: {result.stderr.strip()}"
    return "" if found == expected[count] else f"other values in {count} steps"


def kinds_of_writes():
    """One letter for each entry of the log: W for a write, P when the record is made."""
    clean()
    log = os.path.join(WORK, "log")
    run(*FIT, env={**os.environ, "LD_PRELOAD": SHIM, "WRITE_LOG": log})
    kinds = "".join(kind for kind, _, _ in crash_replay.load_log(log))
    os.remove(log)
    return kinds


def places(stride, ranks, count):
    """The writes from which on the disk is full: so many, or all up to more than there are."""
    if sample.WHOLE:
        return range(1, WRITES_MAX, stride)
    return sample.some(f"writes on {ranks} ranks", range(1, kinds_of_writes().count("W") + 1), count)


def fill_at_every(stride, ranks, expected, count):
    full = 0
    bad = []
    for at in places(stride, ranks, count):
        clean()
        result = run(*FIT, ranks=ranks,
                     env={**os.environ, "LD_PRELOAD": SHIM, "ENOSPC_AT": str(at)})
        if result.returncode == 0:
            break
        full += 1
        found = wrong(result, expected)
        if found:
            bad.append(f"from write {at}: {found}")
    least = 5 if sample.WHOLE else count - 1
    check(f"on {ranks}: {full} runs on a full disk, {len(bad)} go wrong", full > least and not bad)
    for line in bad[:20]:
        print("     ", line)


def test_every_write():
    fresh()
    expected = undisturbed()
    fill_at_every(1, 1, expected, 40)
    fill_at_every(37, 2, expected, 5)
    result = run(*FIT, "--force")
    check("the next run starts", result.returncode == 0 and contents()[1] == expected[-1], result)


def judged():
    """Exit codes of inspect and recover."""
    copy = os.path.join(WORK, "copy.h5")
    if os.path.exists(copy):
        os.remove(copy)
    return [run("inspect", "out.h5").returncode,
            run("recover", "out.h5", "--output=copy.h5").returncode]


def wrong_with_damage(result, expected):
    """What is wrong with a run of which a byte was turned over, "" when nothing is."""
    if result.returncode == 0:
        count, found = contents()
        whole = count == len(expected) - 1 and found == expected[count]
        return "" if whole and judged() == [0, 0] else "damage that fit did not see"
    if not says_once(result, 74, ["out.h5"]):
        return f"exit {result.returncode}: {result.stderr.strip()}"
    if "are safe" not in result.stderr:
        codes = judged()
        return "" if codes == [65, 65] else f"{codes}: {result.stderr.strip()}"
    count, found = contents()
    good = f"{count} steps are safe" in result.stderr and found == expected[count]
    return "" if good and judged() == [0, 0] else f"not safe: {result.stderr.strip()}"


def test_damage_in_every_write():
    fresh()
    expected = undisturbed()
    seen = 0
    bad = []
    count = kinds_of_writes().partition("P")[2].count("W")
    for at in sample.some("damaged writes", range(1, count + 1), 40):
        clean()
        result = run(*FIT, env={**os.environ, "LD_PRELOAD": SHIM, "DAMAGE_AT": str(at)})
        seen += result.returncode != 0
        found = wrong_with_damage(result, expected)
        if found:
            bad.append(f"write {at}: {found}")
    check(f"{seen} runs saw damage, {len(bad)} go wrong", seen > 5 and not bad)
    for line in bad[:20]:
        print("     ", line)


def test_output_that_nobody_takes():
    fresh()
    clean()
    write("scored.jsonl", '{"prompt": "a", "response": "b"}\n')
    run(*FIT)
    os.rename(RECORD, os.path.join(WORK, "kept.h5"))
    commands = [
        FIT, ["generate", "config.yaml"], ["generate", "config.yaml", "--format=jsonl"],
        ["score", "config.yaml", "--input=scored.jsonl"],
        ["evaluate", "config.yaml", "--replicates=100"],
        ["evaluate", "config.yaml", "--replicates=100", "--format=json"],
        ["inspect", "kept.h5"], ["inspect", "kept.h5", "--format=tsv"],
        ["inspect", "kept.h5", "--format=json"], ["inspect", "kept.h5", "--responses", "2"],
        ["inspect", "--compare", "kept.h5", "kept.h5"], ["inspect", "--schema"],
        ["recover", "kept.h5"], ["refit", "kept.h5", "--min-ess=0"], ["help"], ["help", "fit"],
        ["help", "--reference"], ["version"]]
    for command in commands:  # under mpirun the output of a rank is mpirun's to write
        clean()
        with open("/dev/full", "w", encoding="utf-8") as full:
            result = run(*command, stdout=full)
        words = ["written completely" if command[-1] == "--reference" else "standard output"]
        check(" ".join(command), says_once(result, 74, words), result)
    clean()


run_tests(globals())
