#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How a server ends: by signals, and when a rank dies or stands still, in each phase. What
clients get, the exit code, and that no process is left.

usage: ending.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER [--sample]
"""
import os
import signal
import sys
import time
import urllib.error

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
import sample  # noqa: E402
from person import MPO, WORK, fresh, run_tests  # noqa: E402
from person import check as check_result  # noqa: E402
from server import Job, Server, Stream  # noqa: E402
from waiting import PATIENCE_SECONDS  # noqa: E402

MPIEXEC = sys.argv[2]
CONFIG = os.path.join(SOURCE, "configs/table.yaml")
RANKS = 3
STOPS = (signal.SIGTERM, signal.SIGUSR1)
LONG = {"prompt": "the film", "max_tokens": 30000, "end_bias": -100}
# Of such tokens no socket holds as many as are asked for.
UNSENT = {**LONG, "stream": True, "max_tokens": 8000, "logprobs": 5, "policy_scores": True}
SCORED = {"prompt": [" ".join(["the film was"] * 4000)] * 20, "max_tokens": 0, "echo": True,
          "logprobs": 1}


def check(name, condition, found=None):
    check_result(name if condition else f"{name}: found {found!r}", condition)


# ---- signals ----

def test_signals():
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGUSR1, 85)):
        fresh()
        server = Server(MPO, WORK, CONFIG, "--rows=2", "--drain=600", "--context=200000")
        server.wait_until_ready()
        stream = Stream(server, {**LONG, "stream": True, "max_tokens": 90000}, held=20)
        stream.wait_for_lines(20)
        server.process.send_signal(number)
        health = server.refuses()
        check(f"{number.name}: /health says draining", health == {"status": "draining"}, health)
        late = Stream(server, {"prompt": "the", "max_tokens": 1})
        late.join()
        check(f"{number.name}: a new request is refused with 503",
              late.status == 503 and b'"draining"' in late.last, late.last)
        stream.go_on()
        check(f"{number.name}: a running one finishes", stream.last == b"data: [DONE]\n",
              stream.last)
        found = server.process.wait(PATIENCE_SECONDS)
        check(f"{number.name}: exit code {code}", found == code, found)


def stop_by(rank, number, phase):
    fresh()
    with Job((MPO, MPIEXEC), WORK, CONFIG, RANKS, "--drain=600", "--context=200000") as job:
        streams = []
        if phase == "drawing":
            streams = [Stream(job, UNSENT, held=20)]
            streams[0].wait_for_lines(20)
        name = f"rank {rank} gets {number.name} while {phase}"
        process = job.rank_processes()[rank]
        began = time.time()
        os.kill(process, number)
        if streams:
            health = job.refuses()
            check(f"{name}: /health says draining", health == {"status": "draining"}, health)
        for stream in streams:
            stream.go_on()
            check(f"{name}: a stream finishes", stream.last == b"data: [DONE]\n", stream.last)
        code = job.wait()
        seconds = time.time() - began
        wanted = 85 if number == signal.SIGUSR1 else 0
        check(f"{name}: exit code {wanted}", code == wanted, code)
        check(f"{name}: before an idle root's next sign of life", streams or seconds < 10.0, seconds)


def test_a_signal_to_any_rank():
    cases = [(rank, number) for rank in range(1, RANKS) for number in STOPS]
    for phase in ("idle", "drawing"):
        for rank, number in sample.some(f"signals while {phase}", cases, 1):
            stop_by(rank, number, phase)


def test_drain_is_limited():
    fresh()
    server = Server(MPO, WORK, CONFIG, "--rows=2", "--drain=0.5", "--context=2000000")
    server.wait_until_ready()
    stream = Stream(server, {**LONG, "stream": True, "max_tokens": 1900000})
    stream.wait_for_lines(20)
    server.process.send_signal(signal.SIGTERM)
    stream.join()
    check("after serve.drain a stream ends with an error", b'"draining"' in stream.last,
          stream.last)
    check("and the server with 0", server.process.wait(PATIENCE_SECONDS) == 0)


# ---- lost ranks ----

PHASES = {
    "idle": None,
    "drawing": {**LONG, "max_tokens": 3000000, "stream": True},
    "scoring": SCORED,
}


def lose_one(phase, rank, number):
    fresh()
    body = PHASES[phase]
    # The deadline ends what a rank that stands still would hold; a lost one is the launcher's affair.
    deadline = 2 if number == signal.SIGSTOP else 60
    job = Job((MPO, MPIEXEC), WORK, CONFIG, RANKS, f"--run.step_deadline={deadline}",
              "--context=4000000")
    job.wait_until_ready()
    streams = [Stream(job, body)] if body is not None else []
    if phase == "drawing":
        streams[0].wait_for_lines(20)
    elif phase == "scoring":
        check("it scores", job.uses(requests_running=1))
    for name, condition, found in job.lose_rank(rank, number, streams):
        check(f"rank {rank} gets {number.name} while {phase}: {name}", condition, found)


def test_lost_ranks():
    cases = [(phase, rank, number) for phase in PHASES for rank in range(RANKS)
             for number in (signal.SIGKILL, signal.SIGSTOP)]
    for case in sample.some("lost ranks", cases, 4):
        lose_one(*case)


run_tests(globals())
