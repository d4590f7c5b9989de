#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How a server ends: by signals, and when a rank dies or stands still, in each phase. What
clients get, the exit code, and that no process is left.

usage: ending.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER [--sample]
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
import sample  # noqa: E402
from person import MPO, WORK, fresh, run_tests  # noqa: E402
from person import check as check_result  # noqa: E402
from server import Server  # noqa: E402

MPIEXEC = sys.argv[2]
CONFIG = os.path.join(SOURCE, "configs/table.yaml")
RANKS = 3
LONG = {"prompt": "the film", "max_tokens": 30000, "end_bias": -100}
SCORED = {"prompt": [" ".join(["the film was"] * 4000)] * 20, "max_tokens": 0, "echo": True,
          "logprobs": 1}


def check(name, condition, found=None):
    check_result(name if condition else f"{name}: found {found!r}", condition)


class Stream(threading.Thread):
    """A request that is open while something happens to the server."""

    def __init__(self, server, body):
        super().__init__()
        self.server = server
        self.body = body
        self.lines = 0
        self.last = b""
        self.error = None
        self.status = None
        self.ended = None
        self.start()

    def run(self):
        try:
            with self.server.open("/v1/completions", self.body) as response:
                self.status = response.status
                for line in response:
                    self.lines += 1
                    self.last = line if line.strip() else self.last
        except urllib.error.HTTPError as error:
            self.status = error.code
            self.last = error.read()
        except OSError as error:
            self.error = error
        self.ended = time.time()

    def wait_for_lines(self, count):
        deadline = time.time() + 60
        while self.lines < count and self.is_alive() and time.time() < deadline:
            time.sleep(0.01)


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

    def wait(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(processes, seconds=20):
    deadline = time.time() + seconds
    while any(map(is_alive, processes)) and time.time() < deadline:
        time.sleep(0.05)
    return not any(map(is_alive, processes))


# ---- signals ----

def test_signals():
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGUSR1, 85)):
        fresh()
        server = Server(MPO, WORK, CONFIG, "--rows=2", "--drain=60", "--context=200000")
        server.wait_until_ready()
        stream = Stream(server, {**LONG, "stream": True, "max_tokens": 90000})
        stream.wait_for_lines(20)
        server.process.send_signal(number)
        deadline = time.time() + 10
        health = None
        while time.time() < deadline:
            try:
                server.ask("/health")
                time.sleep(0.01)
            except urllib.error.HTTPError as error:
                health = json.loads(error.read())
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.01)  # it had connected and asked nothing when draining began
        check(f"{number.name}: /health says draining", health == {"status": "draining"}, health)
        late = Stream(server, {"prompt": "the", "max_tokens": 1})
        late.join()
        check(f"{number.name}: a new request is refused with 503",
              late.status == 503 and b'"draining"' in late.last, late.last)
        stream.join()
        check(f"{number.name}: a running one finishes", stream.last == b"data: [DONE]\n",
              stream.last)
        found = server.process.wait(20)
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
    check("and the server with 0", server.process.wait(20) == 0)


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
    job = Job("--run.step_deadline=2", "--context=400000")
    job.wait_until_ready()
    ranks = job.rank_processes()
    check(f"{name}: all ranks are there", sorted(ranks) == list(range(RANKS)), ranks)
    stream = Stream(job, body) if body is not None else None
    if phase == "drawing":
        stream.wait_for_lines(20)
    else:
        time.sleep(0.1)
    began = time.time()
    os.kill(ranks[rank], number)
    code = job.wait(40)
    wanted = [137] if number == signal.SIGKILL else [75]
    check(f"{name}: exit code {wanted}", code in wanted, code)
    check(f"{name}: no process is left", wait_until_gone(ranks.values()))
    if stream is None:
        return
    stream.join()
    if rank != 0:
        patience = 1.0 if number == signal.SIGKILL else 10.0
        check(f"{name}: the client hears of it",
              b'"peer_lost"' in stream.last and stream.ended - began < patience,
              (stream.status, stream.last[-300:], stream.error, stream.ended - began))
    else:
        check(f"{name}: the client's connection ends", stream.last != b"data: [DONE]\n",
              stream.last)


def test_lost_ranks():
    cases = [(phase, rank, number) for phase in PHASES for rank in range(RANKS)
             for number in (signal.SIGKILL, signal.SIGSTOP)]
    for case in sample.some("lost ranks", cases, 4):
        lose_rank(*case)


run_tests(globals())
