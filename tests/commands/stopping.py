#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The first signal: answered at once by one line, and obeyed soon.

usage: stopping.py MPO MPIEXEC WORK_FOLDER
"""
import json
import os
import signal
import subprocess
import time

from person import MPIEXEC, MPO, WORK, check, fresh, run, run_tests, table

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
LONG = "--rollout.max_tokens=1000000"  # a response takes many seconds
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


# A job that has ended by then need not say that it is going to.
ENDED_SECONDS = 1.5


def prepare():
    """Policies that rarely end."""
    fresh()
    table("up.table", "0.6 0.39999999999 1e-11")
    table("down.table", "0.1 0.89999999999 1e-11")
    with open(os.path.join(WORK, "scored.jsonl"), "w", encoding="utf-8") as file:
        for _ in range(60000):
            file.write(json.dumps({"prompt": "a", "response": "a b " * 50, "ended": False}) + "\n")


def wait_for_work(process, pid=None):
    """Until it has used a second of processor time, as ranks do that decode."""
    ticks = os.sysconf("SC_CLK_TCK")
    while process.poll() is None:
        with open(f"/proc/{pid or process.pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        if (int(fields[11]) + int(fields[12])) / ticks > 1.0:
            return
        time.sleep(0.02)


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as children:
        return [int(child) for child in children.read().split()]


def rank_of(launcher, rank):
    """The process of one rank, which the launcher started; -1 while there is none."""
    for process in children_of(launcher):
        with open(f"/proc/{process}/environ", "rb") as environ:
            if f"PMIX_RANK={rank}".encode() in environ.read().split(b"\0"):
                return process
    return -1


def wait_for_rank(process, rank):
    """The same of a rank, which reads its files first."""
    while process.poll() is None and rank_of(process.pid, rank) < 0:
        time.sleep(0.05)
    wait_for_work(process, rank_of(process.pid, rank))


def stopped(command, number, ranks=1, to=None):
    """(exit code, standard error, seconds to the first line after the signal, to the end); the
    signal goes to one rank alone, if `to` says which"""
    start = [MPIEXEC, "-n", str(ranks), "--oversubscribe"] if ranks > 1 else []
    process = subprocess.Popen([*start, MPO, *command], cwd=WORK, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    if ranks > 1:
        wait_for_rank(process, to or 0)
    else:
        wait_for_work(process)
    begun = time.monotonic()
    if to is None:
        process.send_signal(number)
    else:
        os.kill(rank_of(process.pid, to), number)
    lines = []
    answered = None
    for line in process.stderr:
        lines.append(line)
        if "again to leave now" in line and answered is None:
            answered = time.monotonic() - begun
    code = process.wait()
    return code, "".join(lines), answered, time.monotonic() - begun


def test_commands_stop_at_the_next_token():
    prepare()
    for index, (name, command) in enumerate(COMMANDS.items()):
        number = SIGNALS[index % len(SIGNALS)]
        code, said, answered, seconds = stopped(command, number)
        check(f"{name} ends by {number.name} after {seconds:.2f} s: {code}", code == 85 and seconds < 5)
        check(f"{name} answers after {answered} s", answered is not None and answered < 1
              and said.count("again to leave now") == 1 and said.count("mpo: stopped") == 1)
        if not (code == 85 and answered is not None):
            print(said)


def test_ranks_stop_together():
    prepare()
    for name in ("generate some", "score", "evaluate"):
        for ranks in (2, 4):
            code, said, answered, seconds = stopped(COMMANDS[name], signal.SIGUSR1, ranks)
            check(f"{name} on {ranks} ranks ends after {seconds:.2f} s: {code}", code == 85 and seconds < 10
                  and answered is not None and said.count("again to leave now") == 1)


def test_one_rank_stops_all():
    """With two policies rank 1 leads no group, and of four ranks 2 leads the second one."""
    prepare()
    tried = [(name, 2, 1) for name in ("generate some", "generate exact", "score", "evaluate")]
    for index, (name, ranks, to) in enumerate([*tried, ("generate some", 4, 3), ("score", 4, 2)]):
        number = SIGNALS[index % len(SIGNALS)]
        code, said, answered, seconds = stopped(COMMANDS[name], number, ranks, to)
        check(f"{name} on {ranks} ends by {number.name} to rank {to} after {seconds:.2f} s: {code}",
              code == 85 and seconds < 10 and (answered is not None or seconds < ENDED_SECONDS)
              and said.count("again to leave now") <= 1)


def test_fit_finishes_its_step():
    for number in SIGNALS:
        fresh()
        code, said, answered, _ = stopped(FIT, number)
        check(f"fit ends by {number.name}: {code}", code == 85 and answered is not None and answered < 1
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
        with open(f"/proc/{child}/comm", encoding="utf-8") as comm:
            if comm.read() == "mpo guard\n":
                return child
    return -1


def test_signals_are_heeded_from_the_first():
    """As soon as there is a handler: not the signal's code, but that of a stop."""
    prepare()
    for name in ("generate", "score", "evaluate"):
        process = subprocess.Popen([MPO, *COMMANDS[name]], cwd=WORK, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        while not catches(process.pid, signal.SIGTERM) and process.poll() is None:
            pass
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
        check(f"{name} ends by an early SIGTERM: {process.returncode}", process.returncode == 85
              and said.count("again to leave now") == 1)
    process = subprocess.Popen([MPO, *COMMANDS["generate"]], cwd=WORK, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while guard_of(process.pid) < 0 and process.poll() is None:
        time.sleep(0.001)
    check("before MPI starts", catches(guard_of(process.pid), signal.SIGTERM))
    process.send_signal(signal.SIGUSR1)
    check(f"and ends: {process.wait()}", process.returncode == 85)


def test_the_second_signal_ends_the_job():
    """Whether it goes to the launcher, which hands it on, or to one rank."""
    prepare()
    command = ["fit", "config.yaml", "--quiet", LONG, "--rollout.responses=64", "--force"]
    for ranks, number, to in ((2, signal.SIGUSR1, None), (2, signal.SIGTERM, 0), (2, signal.SIGTERM, 1),
                              (1, signal.SIGINT, None)):
        start = [MPIEXEC, "-n", str(ranks), "--oversubscribe"] if ranks > 1 else []
        process = subprocess.Popen([*start, MPO, *command], cwd=WORK, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        if ranks > 1:
            wait_for_rank(process, to or 0)
        else:
            wait_for_work(process)
        pids = [rank_of(process.pid, rank) for rank in range(ranks)] if ranks > 1 else [process.pid]
        target = process.pid if to is None else pids[to]
        os.kill(target, number)
        time.sleep(2.5)  # the same request, if it came earlier (src/base/stop.c)
        check("it finishes its step", process.poll() is None)
        os.kill(target, number)
        begun = time.monotonic()
        said = process.communicate()[1]
        seconds = time.monotonic() - begun
        code = 128 + number if ranks > 1 else -number
        check(f"on {ranks} a second {number.name} to {to} ends it after {seconds:.2f} s: {process.returncode}",
              process.returncode == code and seconds < 5
              and said.count("stopping after this step; again to leave now\n") == 1)
        time.sleep(0.5)
        check("no rank is left", not any(is_alive(pid) for pid in pids))


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_doctor_ends_at_the_first():
    fresh()
    os.mkfifo(os.path.join(WORK, "prompts.fifo"))
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen([MPO, "doctor", "config.yaml", "--prompts.file=prompts.fifo"], cwd=WORK,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1.5)  # it waits for somebody to write prompts
        process.send_signal(number)
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            code = "goes on"
        check(f"doctor ends by {number.name}: {code}", code == -number)


run_tests(globals())
