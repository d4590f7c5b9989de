#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clients that mean no good, and many that do: slowhttptest in its three modes while another client
goes on being answered, a thousand idle connections, and a soak of mixed traffic after which
memory, descriptors, rows and cells are as before.

usage: hostile.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER [SECONDS of the soak, default 8]
"""
import http.client
import json
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
from person import MPO, WORK, check, fresh, run_tests  # noqa: E402
from server import Server  # noqa: E402
from waiting import PATIENCE_SECONDS, comes_to  # noqa: E402

CONFIG = os.path.join(SOURCE, "configs/table.yaml")
FLAGS = ("--rows=8", "--context=65536", "--log-requests=false")
SHORT = {"prompt": "the film", "max_tokens": 8, "seed": 3}
SOAK_SECONDS = float(sys.argv[5]) if len(sys.argv) > 5 else 8.0
SLOW_CONNECTIONS = 500
SLOW_AT_ONCE = 200  # at least, while another client is answered
ASKED_MEANWHILE = 60
MODES = {
    "headers": ["-H", "-i", "3"],
    "bodies": ["-B", "-i", "3", "-s", "8192"],
    "reading": ["-X", "-w", "1", "-y", "4", "-n", "1", "-z", "4", "-k", "3"],
}
IDLE_CONNECTIONS = 1000
IDLE_MEGABYTES = 16
ROUNDS_MAX = 10  # of a comparison of costs, where something else disturbs it
KEPT_MEGABYTES = 4  # that a soak may add: pools of malloc, tables of names


def raise_limit():
    """Descriptors of this process and of those that it starts."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def descriptors_of(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


class Figures:
    """Of the process of a server without requests."""

    def __init__(self, server):
        pid = server.process.pid
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            values = dict(line.split(":", 1) for line in file)
        self.megabytes = int(values["VmRSS"].split()[0]) / 1024
        self.descriptors = descriptors_of(server)
        use = server.ask("/v1/mpo")["use"]
        self.use = {name: use[name] for name in (
            "rows_live", "rows_paused", "cells_used", "requests_running", "requests_waiting")}

    def __str__(self):
        return f"{self.megabytes:.1f} MB, {self.descriptors} descriptors, {self.use}"


def settle(server, seconds=PATIENCE_SECONDS):
    """Figures once nothing runs any more and connections that linger are closed."""
    deadline = time.time() + seconds
    found = Figures(server)
    while True:
        before, found = found.descriptors, Figures(server)
        is_still = not any(found.use.values()) and found.descriptors == before
        if is_still and time.time() > deadline - seconds + 2.5 or time.time() > deadline:
            return found
        time.sleep(0.1)


# ---- slow clients ----

class Regular(threading.Thread):
    """Asks again and again: what it got, how long the slowest took, and how often it was answered
    while the server had so many descriptors."""

    def __init__(self, server, descriptors):
        super().__init__()
        self.server = server
        self.descriptors = descriptors
        self.meanwhile = 0
        self.statuses = []
        self.longest = 0.0
        self.stops = False
        self.start()

    def run(self):
        while not self.stops:
            begun = time.time()
            try:
                self.statuses.append(self.server.open("/v1/completions", SHORT).status)
            except urllib.error.HTTPError as error:
                self.statuses.append(error.code)
            except OSError as error:
                self.statuses.append(str(error))
            self.longest = max(self.longest, time.time() - begun)
            self.meanwhile += descriptors_of(self.server) >= self.descriptors
            time.sleep(0.02)

    def end(self):
        self.stops = True
        self.join()
        return [status for status in self.statuses if status != 200]


def be_slow(command, regular):
    """Slow clients until the other one was answered often enough beside them; they come again
    where the server closes their connections before."""
    deadline = time.time() + PATIENCE_SECONDS
    while regular.meanwhile < ASKED_MEANWHILE and time.time() < deadline:
        with subprocess.Popen(command, cwd=WORK, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as slow:
            comes_to(lambda slow=slow: regular.meanwhile >= ASKED_MEANWHILE or slow.poll() is not None)
            slow.kill()


def test_slow_clients():
    tool = shutil.which("slowhttptest")
    if tool is None:
        print("ok    SKIP slow clients: slowhttptest is not installed")
        return
    for name, flags in MODES.items():
        with Server(MPO, WORK, CONFIG, *FLAGS) as server:
            before = settle(server)
            regular = Regular(server, before.descriptors + SLOW_AT_ONCE)
            path = "/v1/completions" if name == "bodies" else "/openapi.json"
            be_slow([tool, *flags, "-c", str(SLOW_CONNECTIONS), "-r", "250", "-l", "60", "-p", "60",
                     "-u", server.address + path], regular)
            failed = regular.end()
            after = settle(server)
            check(f"slow {name}: {regular.meanwhile} of {len(regular.statuses)} requests of another client "
                  f"beside {SLOW_AT_ONCE} and more, the longest {regular.longest:.2f} s, failed: {failed}",
                  not failed and regular.meanwhile >= ASKED_MEANWHILE)
            check(f"slow {name}: {before}, then {after}", not any(after.use.values())
                  and after.descriptors <= before.descriptors + 2)


# ---- many clients ----

def cost_of_tokens(server):
    """Microseconds of processor time a token. Who shares the core or its caches makes it more."""
    def used():
        with open(f"/proc/{server.process.pid}/stat", encoding="utf-8") as file:
            return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))
    before, count = used(), 0
    begun = time.time()
    while time.time() < begun + 1.5:
        answer = server.ask("/v1/completions", {"prompt": "the film", "max_tokens": 3000,
                                                "end_bias": -100, "n": 2})
        count += answer["usage"]["completion_tokens"]
    return (used() - before) * 1e6 / os.sysconf("SC_CLK_TCK") / count


def idle_clients(server):
    """Connections that were answered once."""
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(IDLE_CONNECTIONS)]
    for client in clients:
        client.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answers = sum(client.recv(65536).startswith(b"HTTP/1.1 200") for client in clients)
    check(f"{answers} of {IDLE_CONNECTIONS} are answered", answers == IDLE_CONNECTIONS)
    return clients


def test_idle_connections():
    if raise_limit() < 2 * IDLE_CONNECTIONS:
        print("ok    SKIP idle connections: the limit of open files is too low (ulimit -n)")
        return
    with Server(MPO, WORK, CONFIG, *FLAGS) as server:
        alone, beside = [cost_of_tokens(server)], []
        before = settle(server)
        while True:
            clients = idle_clients(server)
            while_open = Figures(server)
            beside.append(cost_of_tokens(server))
            for client in clients:
                client.close()
            times = min(beside) / min(alone)
            if times < 1.5 or len(beside) == ROUNDS_MAX:
                break
            comes_to(lambda: descriptors_of(server) <= before.descriptors + 2)
            alone.append(cost_of_tokens(server))
        added = while_open.megabytes - before.megabytes
        check(f"idle connections take {added:.1f} MB, and a token {times:.2f} times as long",
              added <= IDLE_MEGABYTES and times < 1.5
              and while_open.descriptors >= before.descriptors + IDLE_CONNECTIONS)
        check("and nothing when they are closed",
              settle(server).descriptors <= before.descriptors + 2)


# ---- soak ----

class Visitor(threading.Thread):
    """Requests of all kinds, some given up in the middle."""

    def __init__(self, server, seed, until):
        super().__init__()
        self.server = server
        self.dice = random.Random(seed)
        self.until = until
        self.done = 0
        self.strange = []
        self.start()

    def body(self):
        dice = self.dice
        body = {"max_tokens": dice.randrange(1, 200), "temperature": dice.choice([0, 0.7, 1]),
                "model": dice.choice(["mpo", "policy/warm", "mpo@0.2:0.3:0.5"]),
                "stream": dice.random() < 0.5, "logprobs": dice.choice([None, 2]),
                "n": dice.choice([1, 1, 3]), "stop": dice.choice([None, " good", [" a", " b"]])}
        if dice.random() < 0.3:
            body.update(echo=True, max_tokens=1, n=1)
        if dice.random() < 0.1:
            body["temperature"] = 9
        words = " ".join(["the film was"] * dice.randrange(1, 100))
        return {**body, "prompt": dice.choice([words, [words, "the film"]])}

    def ask(self):
        body = self.body()
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("POST", "/v1/completions", json.dumps(body))
            if self.dice.random() < 0.1:
                return
            response = connection.getresponse()
            wanted = 400 if body["temperature"] == 9 else 200
            if response.status != wanted:
                self.strange.append((response.status, response.read()[:300]))
            elif self.dice.random() < 0.1:
                response.read(100)
            else:
                response.read()
        finally:
            connection.close()

    def run(self):
        while time.time() < self.until or self.done < 2:
            try:
                self.ask()
            except OSError as error:
                self.strange.append(("", str(error)))
            self.done += 1


def visit(server, seconds, seed):
    until = time.time() + seconds
    visitors = [Visitor(server, 100 * seed + i, until) for i in range(12)]
    for visitor in visitors:
        visitor.join()
    strange = [one for visitor in visitors for one in visitor.strange]
    return sum(visitor.done for visitor in visitors), strange


def early_and_late(figures):
    """The most memory of either half."""
    middle = len(figures) // 2
    return [max(found.megabytes for found in half) for half in (figures[:middle], figures[middle:])]


def has_grown(figures):
    early, late = early_and_late(figures)
    return late > early + KEPT_MEGABYTES


def test_soak():
    pieces, most = (4, 16) if SOAK_SECONDS < 60 else (20, 20)
    with Server(MPO, WORK, CONFIG, *FLAGS) as server:
        figures, asked, strange = [], 0, []
        # What leaks grows with every piece; a crowd that chance makes is met in either half.
        while len(figures) < pieces or len(figures) < most and has_grown(figures):
            done, odd = visit(server, SOAK_SECONDS / pieces, len(figures))
            asked += done
            strange += odd
            figures.append(settle(server))
            print(f"      {asked} requests: {figures[-1]}", flush=True)
        check(f"{asked} requests in {SOAK_SECONDS:.0f} s, strange answers: {strange[:3]}",
              not strange and asked > 10 * len(figures))
        check("memory, early {:.1f} MB and late {:.1f} MB".format(*early_and_late(figures)),
              not has_grown(figures))
        check("descriptors", max(found.descriptors for found in figures)
              <= figures[0].descriptors + 2)
        check("no row or cell is left", not any(any(found.use.values()) for found in figures))


fresh()
run_tests(globals())
