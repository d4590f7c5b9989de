#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The first signal: answered by one line, and obeyed soon, which is before the responses or lines at
work are done.

usage: stopping.py MPO MPIEXEC WORK_FOLDER
"""
import contextlib
import json
import os
import re
import signal
import subprocess
import time

from person import MPIEXEC, MPO, WORK, check, fresh, run, run_tests, table
from waiting import PATIENCE_SECONDS, are_gone, comes_to, lines_to, wait_for_work

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
LONG = "--rollout.max_tokens=1000000"  # a response takes a second or more
FIT = ["fit", "config.yaml", "--quiet", "--descent.steps=1000000", "--rollout.responses=64"]
COMMANDS = {
    "generate": ["generate", "config.yaml", "--weights=uniform", LONG],
    "generate some": ["generate", "config.yaml", "--weights=uniform", LONG, "--n=8", "--format=jsonl"],
    "generate best of": ["generate", "config.yaml", "--weights=uniform", LONG, "--best-of=4", "--end-bias=0"],
    "a warm-up": ["generate", "config.yaml", "--weights=uniform", "--rollout.max_tokens=100000", "--best-of=4"],
    "generate exact": ["generate", "config.yaml", "--weights=uniform", "--exact", "--exact-limit=1000000000",
                       "--rollout.max_tokens=200"],
    "score": ["score", "config.yaml", "--weights=uniform", "--input=scored.jsonl"],
    "evaluate": ["evaluate", "config.yaml", "--weights=uniform", LONG],
}


def prepare():
    """Policies that rarely end."""
    fresh()
    table("up.table", "0.6 0.39999999999 1e-11")
    table("down.table", "0.1 0.89999999999 1e-11")
    with open(os.path.join(WORK, "scored.jsonl"), "w", encoding="utf-8") as file:
        for _ in range(60000):
            file.write(json.dumps({"prompt": "a", "response": "a b " * 50, "ended": False}) + "\n")


def children_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as children:
            return [int(child) for child in children.read().split()]
    except OSError:
        return []  # it has ended


def rank_of(launcher, rank):
    """The process of one rank, which the launcher started; -1 while there is none."""
    for process in children_of(launcher):
        try:
            with open(f"/proc/{process}/environ", "rb") as environ:
                if f"PMIX_RANK={rank}".encode() in environ.read().split(b"\0"):
                    return process
        except OSError:
            continue  # a helper that has ended meanwhile
    return -1


def wait_for_rank(process, rank):
    """The same of a rank, which reads its files first."""
    comes_to(lambda: process.poll() is not None or rank_of(process.pid, rank) >= 0)
    wait_for_work(process, rank_of(process.pid, rank))


def started(command, ranks=1, rank=0):
    """A job, one of whose ranks is at work."""
    start = [MPIEXEC, "-n", str(ranks), "--oversubscribe"] if ranks > 1 else []
    process = subprocess.Popen([*start, MPO, *command], cwd=WORK, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    if ranks > 1:
        wait_for_rank(process, rank)
    else:
        wait_for_work(process)
    return process


def stopped_once(command, number, ranks, to):
    process = started(command, ranks, to or 0)
    target = process.pid if to is None else rank_of(process.pid, to)
    if process.poll() is None and target > 0:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(target, number)
    said = process.communicate()[1]
    return (process.returncode, said) if process.returncode != 0 else None


def stopped(command, number, ranks=1, to=None):
    """(exit code, standard error); the signal goes to one rank alone, if `to` says which. A command
    whose work was done before the signal came, on a busy machine, is started again."""
    return comes_to(lambda: stopped_once(command, number, ranks, to)) or (0, "it does not stop")


def is_midway(said):
    """Whether its one last word is that it stopped before its work was done."""
    last = re.findall(r"^mpo: stopped (?:by SIG\w+ after (\d+) of (\d+) |inside a response)", said, re.M)
    return said.count("mpo: stopped") == len(last) == 1 and int(last[0][0] or 0) < int(last[0][1] or 1)


def test_commands_stop_at_the_next_token():
    prepare()
    for index, (name, command) in enumerate(COMMANDS.items()):
        number = SIGNALS[index % len(SIGNALS)]
        code, said = stopped(command, number)
        check(f"{name} ends by {number.name} with {code}: {said}", code == 85
              and said.count("again to leave now") == 1 and is_midway(said))


def test_ranks_stop_together():
    prepare()
    for name in ("generate some", "score", "evaluate"):
        for ranks in (2, 4):
            code, said = stopped(COMMANDS[name], signal.SIGUSR1, ranks)
            check(f"{name} on {ranks} ranks ends with {code}: {said}", code == 85
                  and said.count("again to leave now") == 1 and is_midway(said))


def test_one_rank_stops_all():
    """With two policies rank 1 leads no group, and of four ranks 2 leads the second one. A job that
    ends before rank zero hears of the signal need not say that it is going to."""
    prepare()
    tried = [(name, 2, 1) for name in ("generate some", "generate exact", "score", "evaluate")]
    for index, (name, ranks, to) in enumerate([*tried, ("generate some", 4, 3), ("score", 4, 2)]):
        number = SIGNALS[index % len(SIGNALS)]
        code, said = stopped(COMMANDS[name], number, ranks, to)
        check(f"{name} on {ranks} ends by {number.name} to rank {to} with {code}: {said}",
              code == 85 and said.count("again to leave now") <= 1 and is_midway(said))


def test_fit_finishes_its_step():
    for number in SIGNALS:
        fresh()
        code, said = stopped(FIT, number)
        check(f"fit ends by {number.name}: {code}", code == 85
              and said.count("stopping after this step; again to leave now\n") == 1)
        check("its record is closed", "stopped" in run("inspect", "out.h5").stdout)


def catches(pid, number):
    """Whether a process handles a signal."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        masks = dict(line.split(":\t") for line in status if line.startswith("Sig"))
    return bool(int(masks["SigCgt"], 16) >> (number - 1) & 1)


def guard_of(pid):
    """The process that opens model files for a rank, which it starts before MPI; -1: none."""
    for child in children_of(pid):
        try:
            with open(f"/proc/{child}/comm", encoding="utf-8") as comm:
                if comm.read() == "mpo guard\n":
                    return child
        except OSError:
            continue  # it has ended meanwhile
    return -1


def stopped_early(command):
    """(exit code, standard error) of a command that gets a signal as soon as it has a handler; None
    where the signal came too late."""
    process = subprocess.Popen([MPO, *command], cwd=WORK, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    while not catches(process.pid, signal.SIGTERM) and process.poll() is None:
        pass
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    return (process.returncode, said) if process.returncode != 0 else None


def guard_catches():
    """Whether the guard of a rank, which is there for a moment, catches signals, as "yes" or "no", and
    the exit code of the rank after one; None where the moment was missed."""
    process = subprocess.Popen([MPO, *COMMANDS["generate"]], cwd=WORK, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        comes_to(lambda: process.poll() is not None or guard_of(process.pid) >= 0)
        found = "yes" if catches(guard_of(process.pid), signal.SIGTERM) else "no"
        process.send_signal(signal.SIGUSR1)
    except OSError:
        process.kill()
    return (found, process.returncode) if process.wait() in (85, -signal.SIGUSR1) else None


def test_signals_are_heeded_from_the_first():
    """As soon as there is a handler: not the signal's code, but that of a stop."""
    prepare()
    for name in ("generate", "score", "evaluate"):
        code, said = comes_to(lambda name=name: stopped_early(COMMANDS[name])) or (0, "")
        check(f"{name} ends by an early SIGTERM: {code}", code == 85 and said.count("again to leave now") == 1)
    found = comes_to(guard_catches)
    check(f"before MPI starts, and ends: {found}", found == ("yes", 85))


def test_the_second_signal_ends_the_job():
    """Whether it goes to the launcher, which hands it on, or to one rank."""
    prepare()
    command = ["fit", "config.yaml", "--quiet", LONG, "--rollout.responses=64", "--force"]
    for ranks, number, to in ((2, signal.SIGUSR1, None), (2, signal.SIGTERM, 0), (2, signal.SIGTERM, 1),
                              (1, signal.SIGINT, None)):
        process = started(command, ranks, to or 0)
        pids = [rank_of(process.pid, rank) for rank in range(ranks)] if ranks > 1 else [process.pid]
        target = process.pid if to is None else pids[to]
        os.kill(target, number)
        said = lines_to(process, "again to leave now")
        time.sleep(2.5)  # the same request, if it came earlier (src/base/stop.c)
        check("it finishes its step", process.poll() is None)
        os.kill(target, number)
        said = "".join([*said, process.communicate()[1]])
        code = 128 + number if ranks > 1 else -number
        check(f"on {ranks} a second {number.name} to {to} ends it: {process.returncode}",
              process.returncode == code and said.count("stopping after this step; again to leave now\n") == 1)
        check("no rank is left", are_gone(pids))


def open_to_write(name):
    """A pipe with a name, once somebody reads it; None before that."""
    try:
        return os.fdopen(os.open(os.path.join(WORK, name), os.O_WRONLY | os.O_NONBLOCK), "w")
    except OSError:
        return None


def test_doctor_ends_at_the_first():
    fresh()
    os.mkfifo(os.path.join(WORK, "prompts.fifo"))
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen([MPO, "doctor", "config.yaml", "--prompts.file=prompts.fifo"], cwd=WORK,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        writer = comes_to(lambda: open_to_write("prompts.fifo"))  # and it waits for what it reads
        process.send_signal(number)
        try:
            code = process.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = "goes on"
        check(f"doctor ends by {number.name}: {code}", code == -number)
        writer.close()


run_tests(globals())
