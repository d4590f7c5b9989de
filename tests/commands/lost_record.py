#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A record that somebody removes, moves, cuts or writes over while fit writes it.

usage: lost_record.py MPO MPIEXEC WORK_FOLDER

fit sees it at its next step: exit 74, one message, and steps are called safe only where a reader
finds them. What is left is then judged alike by inspect, recover and fit --resume.
"""
import os
import re
import shutil
import signal
import subprocess
import time

from person import MPO, WORK, check, fresh, run, run_tests

RECORD = os.path.join(WORK, "out.h5")
OTHER = os.path.join(WORK, "other.h5")
ENDLESS = ["fit", "config.yaml", "--rollout.responses=32", "--descent.steps=1000000"]
STEPS = 20


def started(*more):
    """A fit that has taken some steps."""
    process = subprocess.Popen([MPO, *ENDLESS, *more], cwd=WORK, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    process.early = []
    for line in process.stderr:
        process.early.append(line)
        step = re.match(r"step +(\d+)/", line)
        if step and int(step[1]) >= STEPS:
            return process
    raise AssertionError("".join(process.early))


def ended(process, seconds=20):
    """(exit code, messages of ours)"""
    try:
        _, rest = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "goes on", []
    return process.returncode, [line for line in rest.splitlines() if line.startswith("mpo: ")]


def patch(at, count, byte=b"\0"):
    """Overwrite a part of the record in place; `at` and `count` are shares of its size."""
    size = os.path.getsize(RECORD)
    with open(RECORD, "r+b") as record:
        record.seek(int(at * size))
        record.write(byte * int(count * size))


def cut(share):
    os.truncate(RECORD, int(share * os.path.getsize(RECORD)))


def swap():
    os.rename(RECORD, RECORD + ".away")
    shutil.copy(OTHER, RECORD)


HARMS = {
    "removed": lambda: os.remove(RECORD),
    "moved away": lambda: os.rename(RECORD, RECORD + ".away"),
    "another file in its place": swap,
    "cut to a half": lambda: cut(0.5),
    "cut to nothing": lambda: cut(0),
    "copied over": lambda: shutil.copyfile(OTHER, RECORD),
    "head written over": lambda: patch(0, 0.01, b"x"),
    "second half wiped out": lambda: patch(0.5, 0.5),
    "all but the head wiped out": lambda: patch(0.05, 0.95),
}


def verdicts():
    """Exit codes of the three that read what is left."""
    for name in ("out.recovered.h5", "copy.h5"):
        if os.path.exists(os.path.join(WORK, name)):
            os.remove(os.path.join(WORK, name))
    inspected = run("inspect", "out.h5")
    recovered = run("recover", "out.h5", "--output=copy.h5")
    return inspected.returncode, recovered.returncode, resume_code()


def resume_code():
    """0: fit --resume takes the record and continues; else its exit code."""
    with subprocess.Popen([MPO, *ENDLESS, "--resume"], cwd=WORK, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as process:
        goes_on = any(line.startswith("step ") for line in process.stderr)
        process.kill()
    return 0 if goes_on else process.returncode


def test_harm_while_it_is_written():
    fresh()
    run("fit", "config.yaml", "--record.file=other.h5", "--quiet")
    for name, harm in HARMS.items():
        for leftover in ("out.h5", "out.h5.away"):
            if os.path.exists(os.path.join(WORK, leftover)):
                os.remove(os.path.join(WORK, leftover))
        process = started()
        harm()
        code, said = ended(process)
        check(f"{name}: exit 74 and one message: {code} {said}",
              code == 74 and len(said) == 1 and "out.h5" in said[0])
        check(f"{name}: no lock is left", not os.path.exists(RECORD + ".lock"))
        safe = re.search(r"(\d+) steps are safe", " ".join(said))
        if not os.path.exists(RECORD):
            check(f"{name}: nothing is called safe", safe is None)
            continue
        if name in ("another file in its place", "copied over"):  # a good record, only not ours
            check(f"{name}: nothing is called safe", safe is None)
            continue
        codes = verdicts()
        bad = codes == (65, 65, 65)
        check(f"{name}: they agree: {codes}", bad or codes == (0, 0, 0))
        check(f"{name}: steps are called safe where they can be read", (safe is None) == bad)


def test_a_touch_is_no_harm():
    fresh()
    process = started()
    os.utime(RECORD)
    code, _ = ended(process, seconds=2)
    check("a fit whose record was touched goes on", code == "goes on")


def test_harm_after_a_kill():
    fresh()
    process = started()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    shutil.copyfile(RECORD, OTHER)
    codes = verdicts()
    check(f"a killed run's record is whole: {codes}", codes == (0, 0, 0))
    bad = 0
    shares = [share / 16 for share in range(16)]
    for share in shares:
        shutil.copyfile(OTHER, RECORD)
        cut(share)
        codes = verdicts()
        bad += codes == (65, 65, 65)
        check(f"cut to {share:.3f} they agree: {codes}", codes in ((65, 65, 65), (0, 0, 0)))
    check(f"{bad} of {len(shares)} cuts are seen", bad >= len(shares) - 2)


run_tests(globals())
