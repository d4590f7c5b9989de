#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `mpo serve` costs beside decoding: of scoring, memory, idleness, long prompts and HTTP.

    tests/bench/serve_costs.py [--only REGEX] [--idle SECONDS] [--flag=--prefill-stretch=3] [--quick]

Needs a built mpo and the demo's model (launch/quickstart.sh).  Nothing else should run.  Two ranks
with a thread each; the client shares their cores.  Prints a line for each figure, with what
it is held against.
"""
import argparse
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import threading
import time

from serve import CONFIG, ENVIRONMENT, MPO, WORK, Client, load, prompt, say, start_mpo

LONG = 1900        # tokens of a long prompt; the model's context has 2048
TOGETHER = 0.01    # seconds between tokens of a step at most
ENDLESS = {"end_bias": -100}
TICK = 1 / os.sysconf("SC_CLK_TCK")


# ---- processes ----


def ranks(server):
    """Process ids of the ranks, and of mpirun."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server.process.pid)], text=True,
                              stdout=subprocess.PIPE, check=True).stdout.split()
    return [server.process.pid, *map(int, children)]


def cpu_seconds(path):
    with open(path, encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def resident_bytes(server):
    """Of both ranks together, now."""
    total = 0
    for pid in ranks(server)[1:]:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            total += 1024 * int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])
    return total


def ask(server, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    document = json.loads(answer.read())
    if answer.status != 200:
        raise AssertionError(document)
    return document


def token_ids(count, seed):
    """Tokens of words; each prompt begins with another, so that none is known already."""
    return [1000 + (7919 * seed + 31 * i) % 30000 for i in range(count)]


def score_prompt(server, count, seed):
    """Seconds of echo with logprobs of so many positions."""
    began = time.perf_counter()
    ask(server, "/v1/completions", {"model": "mpo", "prompt": token_ids(count, seed), "echo": True,
                                    "max_tokens": 0, "logprobs": 1})
    return time.perf_counter() - began


# ---- figures ----


def score_seconds(lines, tokens):
    """Of `mpo score`, loading included."""
    path = os.path.join(WORK, "serve_score.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        for i in range(lines):
            file.write(json.dumps({"prompt": "a", "token_ids": token_ids(tokens, i + 1),
                                   "ended": False}) + "\n")
    began = time.perf_counter()
    subprocess.run(["mpirun", "--bind-to", "none", "--oversubscribe", "-n", "2", MPO, "score", CONFIG,
                    "--weights=uniform", f"--input={path}", "--run.threads=1", "--quiet",
                    f"--rollout.max_tokens={tokens}"],
                   stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
    return time.perf_counter() - began


def scoring(arguments):
    """Echo with logprobs against score, a position."""
    count, lines = (128, 2) if arguments.quick else (512, 8)
    server = start_mpo("--rows=8")
    score_prompt(server, 64, 99)
    echoed = [score_prompt(server, count, seed) for seed in range(lines)]
    server.end()
    scored = (score_seconds(lines + 1, count) - score_seconds(1, count)) / lines
    say("echo with logprobs against score, a position", f"{statistics.median(echoed) / scored:.2f}",
        "<= 1.1")


def scored_memory(arguments):
    count = 475 if arguments.quick else LONG
    server = start_mpo("--rows=2")
    score_prompt(server, 64, 1)
    before = resident_bytes(server)
    score_prompt(server, count, 2)
    grown = resident_bytes(server) - before
    server.end()
    whole = count * 49152 * 4
    say(f"memory of {count} scored positions over that of 64, MB",
        f"{grown / 1e6:.1f}", f"their logits would be {2 * whole / 1e6:.0f}")


def idleness(arguments):
    seconds = arguments.idle
    server = start_mpo("--rows=2")
    load(server.port, 1, 8, ENDLESS)
    time.sleep(2)
    paths = [f"/proc/{pid}/stat" for pid in ranks(server)]
    before = sum(map(cpu_seconds, paths))
    time.sleep(seconds)
    used = sum(map(cpu_seconds, paths)) - before
    soon = load(server.port, 1, 8, ENDLESS)["first"]
    again = load(server.port, 1, 8, ENDLESS)["first"]
    server.end()
    say(f"idle CPU of mpirun and all ranks, {seconds} s, share of a core", f"{used / seconds:.5f}",
        "<= 0.001")
    say("first token after that, against one at once after it", f"{soon / again:.2f}", "1")


def idle_connections(arguments):
    tokens = 12 if arguments.quick else 48
    server = start_mpo("--rows=16", "--connections=1100")
    load(server.port, 16, 8, ENDLESS)
    alone = load(server.port, 16, tokens, ENDLESS)["rate"]
    before = resident_bytes(server)
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(1000)]
    time.sleep(1)
    grown = resident_bytes(server) - before
    beside = load(server.port, 16, tokens, ENDLESS)["rate"]
    for one in sockets:
        one.close()
    again = load(server.port, 16, tokens, ENDLESS)["rate"]
    server.end()
    say("1,000 idle connections, MB", f"{grown / 1e6:.1f}", "<= 16")
    say("16 streams beside them, token/s against without",
        f"{beside / statistics.mean((alone, again)):.3f}", ">= 0.99")


def step_times(of_clients):
    """When tokens came, to whichever client: those of a step come together. A client alone says less,
    because a token that is a part of a character has no text, and so no event."""
    times = sorted(time for times in of_clients for time in times)
    return times[:1] + [other for one, other in zip(times, times[1:]) if other - one > TOGETHER]


def gaps_beside_a_prompt(server, tokens, whose, more):
    """Gaps between tokens of 8 streams, while a prompt of so many tokens arrives and without one.
    Ends the server."""
    load(server.port, 8, 8, more)
    clients = [Client(server.port, {"messages": [{"role": "user", "content": prompt(i)}], "seed": i,
                                    "max_tokens": 1000, **more}) for i in range(8)]
    for client in clients:
        client.start()
    while any(len(client.times) < 40 for client in clients):
        time.sleep(0.02)
    arrived = time.perf_counter()
    ask(server, "/v1/completions", {"model": "mpo", "prompt": token_ids(tokens, 3), "max_tokens": 1})
    fed = time.perf_counter()
    for client in clients:
        client.leaves = True
    for client in clients:
        client.join()
    server.end()
    quiet, beside = [], []
    steps = step_times(client.times[10:] for client in clients)
    for one, other in zip(steps, steps[1:]):
        if other < arrived:
            quiet.append(other - one)
        elif one < fed:
            beside.append(other - one)
    median, beside = statistics.median(quiet), sorted(beside)
    say(f"{whose}gap between tokens of 8 streams while {tokens} tokens arrive: p99 in medians without",
        f"{beside[int(0.99 * len(beside))] / median:.1f}", "" if whose else "<= 3")
    say(f"{whose}the longest", f"{beside[-1] / median:.1f}", "" if whose else "<= 5")
    say(f"{whose}s until the prompt has its token; s of the median", f"{fed - arrived:.1f} {median:.3f}", "")


def long_prompt(arguments):
    gaps_beside_a_prompt(start_mpo("--rows=9", *arguments.flag), 475 if arguments.quick else LONG, "", ENDLESS)


def watch_health(server, meanwhile):
    """Seconds that /health took, asked every 20 ms, while something else was done."""
    waits, ended = [], threading.Event()

    def look():
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while not ended.wait(0.02):
            began = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            waits.append(time.perf_counter() - began)

    looking = threading.Thread(target=look)
    looking.start()
    meanwhile()
    ended.set()
    looking.join()
    return sorted(waits)


def http_thread(arguments):
    """CPU of the thread that speaks HTTP, a streamed token; /health beside 16 streams."""
    server = start_mpo("--rows=16")
    load(server.port, 16, 8, ENDLESS)
    tasks = f"/proc/{ranks(server)[1]}/task"
    names = {}
    for task in os.listdir(tasks):
        with open(f"{tasks}/{task}/comm", encoding="utf-8") as file:
            names[file.read().strip()] = f"{tasks}/{task}/stat"
    path = names["mpo-http"]
    before = cpu_seconds(path)
    tokens = 24 if arguments.quick else 100
    load(server.port, 16, tokens, ENDLESS)
    say("CPU of the HTTP thread, us a streamed token",
        f"{(cpu_seconds(path) - before) / (16 * tokens) * 1e6:.0f}", "<= 20")
    waits = watch_health(server, lambda: load(server.port, 16, tokens // 2, ENDLESS))
    server.end()
    say("/health beside 16 streams, p99 in ms", f"{1e3 * waits[int(0.99 * len(waits))]:.1f}", "<= 10")


def encoding(arguments):
    """Texts of 30,000 characters into tokens: how long one takes, and who waits for them."""
    server = start_mpo("--rows=8")
    text = " ".join(prompt(i) for i in range(700))[:30000]
    seconds = []

    def tokenise():
        for _ in range(10 if arguments.quick else 40):
            began = time.perf_counter()
            ask(server, "/tokenize", {"prompt": text})
            seconds.append(time.perf_counter() - began)

    waits = watch_health(server, tokenise)
    server.end()
    say("30,000 characters into tokens, ms", f"{1e3 * statistics.median(seconds):.0f}", "")
    say("/health beside such texts, p99 in ms", f"{1e3 * waits[int(0.99 * len(waits))]:.1f}", "<= 10")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="figures whose function matches this expression")
    parser.add_argument("--idle", type=int, default=60, help="seconds that the idle server is watched")
    parser.add_argument("--quick", action="store_true", help="a quarter, to see that all works")
    parser.add_argument("--flag", action="append", default=[], help="of the server of long_prompt")
    arguments = parser.parse_args()
    os.makedirs(WORK, exist_ok=True)
    print("figure\tmeasured\tgoal")
    for measure in (scoring, scored_memory, idle_connections, long_prompt, http_thread, encoding,
                    idleness):
        if re.search(arguments.only, measure.__name__):
            measure(arguments)


if __name__ == "__main__":
    main()
