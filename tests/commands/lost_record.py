#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A record that somebody removes, moves, cuts or writes over while fit writes it.

usage: lost_record.py MPO MPIEXEC WORK_FOLDER

fit sees it at its next step: exit 74, one message, and steps are called safe only where a reader
finds them. What is left is then judged alike by inspect, recover and fit --resume. A record that was
moved is named where it is.
"""
import os
import re
import shutil
import signal
import subprocess

from person import MPO, WORK, check, fresh, run, run_tests, table
from records import steps_in
from waiting import comes_to, freeze, wait_for_record

RECORD = os.path.join(WORK, "out.h5")
OTHER = os.path.join(WORK, "other.h5")
AWAY = os.path.join(WORK, "elsewhere", "away.h5")
ENDLESS = ["fit", "config.yaml", "--rollout.responses=32", "--descent.steps=1000000"]
SLOW = ["fit", "config.yaml", "--rollout.responses=256", "--rollout.max_tokens=2000",
        "--descent.steps=1000000"]
STEPS = 20
# After so many a fit has not seen what happened to its record, and will not; as many as half of
# them may have been in the pipe before.
MORE_STEPS = 2000


def lines_to_step(process, more):
    """Lines of a fit up to its next `more` steps, or to its end."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        more -= line.startswith("step ")
        if more == 0:
            break
    return lines


def started(*more):
    """A fit that has taken some steps."""
    process = subprocess.Popen([MPO, *ENDLESS, *more], cwd=WORK, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    lines = lines_to_step(process, STEPS)
    if process.poll() is not None:
        raise AssertionError("".join(lines))
    return process


def ended(process, steps=MORE_STEPS):
    """(exit code, messages of ours); a fit that takes so many steps more goes on."""
    said = lines_to_step(process, steps)
    goes_on = sum(line.startswith("step ") for line in said) == steps
    if goes_on:
        process.kill()
    process.communicate()
    return ("goes on", []) if goes_on else (
        process.returncode, [line.rstrip("\n") for line in said if line.startswith("mpo: ")])


def start_in_first_step():
    """A fit that is stopped by a signal in its first step, while its record has none; None where
    that was over already."""
    fresh()
    for policy in ("up.table", "down.table"):  # responses of 1000 tokens: a step takes long
        table(policy, "0.599 0.4 0.001")
    process = subprocess.Popen([MPO, *SLOW], cwd=WORK,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_record(process, RECORD)
    if freeze(process) and os.path.exists(RECORD) and steps_in(RECORD) == 0:
        return process
    process.kill()
    process.communicate()
    return None


def patch(at, count, byte=b"\0"):
    """Overwrite a part of the record in place; `at` and `count` are shares of its size."""
    size = os.path.getsize(RECORD)
    with open(RECORD, "r+b") as record:
        record.seek(int(at * size))
        record.write(byte * int(count * size))


def cut(share):
    os.truncate(RECORD, int(share * os.path.getsize(RECORD)))


def shorten(count):
    os.truncate(RECORD, os.path.getsize(RECORD) - count)


def swap():
    move()
    shutil.copy(OTHER, RECORD)


def move():
    os.makedirs(os.path.dirname(AWAY), exist_ok=True)
    os.rename(RECORD, AWAY)


HARMS = {
    "removed": lambda: os.remove(RECORD),
    "moved away": move,
    "another file in its place": swap,
    "cut to a half": lambda: cut(0.5),
    "a byte less": lambda: shorten(1),
    "a page less": lambda: shorten(4096),
    "cut to nothing": lambda: cut(0),
    "copied over": lambda: shutil.copyfile(OTHER, RECORD),
    "head written over": lambda: patch(0, 0.01, b"x"),
    "second half wiped out": lambda: patch(0.5, 0.5),
    "all but the head wiped out": lambda: patch(0.05, 0.95),
}


SMALL = ("a byte less", "a page less")  # while a step is written they may take nothing


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
        for leftover in (RECORD, AWAY):
            if os.path.exists(leftover):
                os.remove(leftover)
        process = started()
        harm()
        code, said = ended(process)
        if code == "goes on" and name in SMALL:  # nothing was there yet, or it was rewritten
            check(f"{name}: it did no harm", verdicts() == (0, 0, 0))
            continue
        check(f"{name}: exit 74 and one message: {code} {said}",
              code == 74 and len(said) == 1 and "out.h5" in said[0])
        check(f"{name}: no lock is left", not os.path.exists(RECORD + ".lock"))
        safe = re.search(r"(\d+) steps are safe", " ".join(said))
        if os.path.exists(AWAY):
            check(f"{name}: it is named where it is, and its steps are: {said}",
                  f"moved to {AWAY} " in said[0] and safe and steps_in(AWAY) == int(safe[1])
                  and f"`mpo recover {AWAY}`" in said[0])
            continue
        if not os.path.exists(RECORD):
            check(f"{name}: nothing is called safe", safe is None)
            continue
        if name == "copied over":  # a good record, only not ours
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
    code, _ = ended(process)
    check("a fit whose record was touched goes on", code == "goes on")


def test_harm_in_the_first_step():
    """The record has no step yet, and what a byte less took away is no step's."""
    for name, count in (("a byte", 1), ("a page", 4096), ("nothing", 0)):
        process = comes_to(start_in_first_step)
        shorten(count)
        process.send_signal(signal.SIGCONT)
        code, said = ended(process, steps=1)
        if count == 0:
            check("a fit that was only stopped goes on", code == "goes on")
            continue
        check(f"{name} less in the first step: exit 74 and one message: {code} {said}",
              code == 74 and len(said) == 1 and "out.h5" in said[0])
        codes = verdicts()
        check(f"{name} less in the first step: they agree: {codes}, and so does fit",
              codes in ((65, 65, 65), (0, 0, 0))
              and ("are safe" in said[0]) == (codes == (0, 0, 0)))


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
