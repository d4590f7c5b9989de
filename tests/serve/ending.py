#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How a server ends: by signals, and when a rank dies or stands still, in each phase. What
clients get, the exit code, and that no process is left.

usage: ending.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER [--sample]
"""
import os
import signal
import subprocess
import sys
import threading
import urllib.error

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
import sample  # noqa: E402
from person import MPO, WORK, fresh, run_tests  # noqa: E402
from person import check as check_result  # noqa: E402
from server import Server  # noqa: E402
from waiting import PATIENCE_SECONDS, are_gone, comes_to  # noqa: E402

MPIEXEC = sys.argv[2]
CONFIG = os.path.join(SOURCE, "configs/table.yaml")
RANKS = 3
LONG = {"prompt": "the film", "max_tokens": 30000, "end_bias": -100}
SCORED = {"prompt": [" ".join(["the film was"] * 4000)] * 20, "max_tokens": 0, "echo": True,
          "logprobs": 1}


def check(name, condition, found=None):
    check_result(name if condition else f"{name}: found {found!r}", condition)


class Stream(threading.Thread):
    """A request that is open while something happens to the server. From the line `held` on it reads
    nothing until go_on: what it asked for cannot end meanwhile."""

    def __init__(self, server, body, held=None):
        super().__init__()
        self.held = held
        self.may_go_on = threading.Event()
        self.server = server
        self.body = body
        self.lines = 0
        self.last = b""
        self.error = None
        self.status = None
        self.start()

    def run(self):
        try:
            with self.server.open("/v1/completions", self.body) as response:
                self.status = response.status
                for line in response:
                    self.lines += 1
                    self.last = line if line.strip() else self.last
                    if self.lines == self.held:
                        self.may_go_on.wait()
        except urllib.error.HTTPError as error:
            self.status = error.code
            self.last = error.read()
        except OSError as error:
            self.error = error

    def wait_for_lines(self, count):
        comes_to(lambda: self.lines >= count or not self.is_alive())

    def go_on(self):
        self.may_go_on.set()
        self.join()


class Job(Server):
    """The same under mpirun."""

    def __init__(self, *flags):
        super().__init__(MPIEXEC, WORK, CONFIG, *flags, launch=[
            "--oversubscribe", "--bind-to", "none", "-n", str(RANKS), MPO])

    def rank_processes(self):
        """{rank: process id}; forks of a rank have another parent."""
        listed = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True,
                                text=True, check=False).stdout.split()
        ranks = {}
        for process in map(int, listed):
            with open(f"/proc/{process}/environ", "rb") as environment:
                for entry in environment.read().split(b"\0"):
                    if entry.startswith(b"OMPI_COMM_WORLD_RANK="):
                        ranks[int(entry.split(b"=")[1])] = process
        return ranks

    def wait(self):
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return None


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
    "drawing": {**LONG, "stream": True},
    "scoring": SCORED,
}


def lose_rank(phase, rank, number):
    fresh()
    name = f"rank {rank} gets {number.name} while {phase}"
    body = PHASES[phase]
    # The deadline ends what a rank that stands still would hold; a lost one is the launcher's affair.
    deadline = 2 if number == signal.SIGSTOP else 60
    job = Job(f"--run.step_deadline={deadline}", "--context=400000")
    job.wait_until_ready()
    ranks = job.rank_processes()
    check(f"{name}: all ranks are there", sorted(ranks) == list(range(RANKS)), ranks)
    stream = Stream(job, body) if body is not None else None
    if phase == "drawing":
        stream.wait_for_lines(20)
    elif phase == "scoring":
        check(f"{name}: it scores", job.uses(requests_running=1))
    os.kill(ranks[rank], number)
    code = job.wait()
    wanted = [137] if number == signal.SIGKILL else [75]
    check(f"{name}: exit code {wanted}", code in wanted, code)
    check(f"{name}: no process is left", are_gone(ranks.values()))
    if stream is None:
        return
    stream.join()
    if rank != 0:
        check(f"{name}: the client hears of it", b'"peer_lost"' in stream.last,
              (stream.status, stream.last[-300:], stream.error))
    else:
        check(f"{name}: the client's connection ends", stream.last != b"data: [DONE]\n",
              stream.last)


def test_lost_ranks():
    cases = [(phase, rank, number) for phase in PHASES for rank in range(RANKS)
             for number in (signal.SIGKILL, signal.SIGSTOP)]
    for case in sample.some("lost ranks", cases, 4):
        lose_rank(*case)


run_tests(globals())
