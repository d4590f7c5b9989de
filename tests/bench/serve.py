#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`mpo serve` under streaming clients, as ratios in one run: against generate --parallel, between
numbers of clients, between one and sixteen weight vectors, with and without the reuse of
prompts' beginnings, and against llama-server of the same llama.cpp archive with one of the policies.
serve_goals.py holds ratios against their goals, serve_costs.py what serve costs beside decoding.

    tests/bench/serve.py [--clients 1,4,16] [--tokens 48] [--rounds 3] [--llama-server PROGRAM]
                         [--before PROGRAM] [--processor]

Needs a built mpo and the demo's model (launch/quickstart.sh).  Nothing else should run.  Servers
take turns; each figure is the median over the rounds.  No response ends before its last token
(end tilt -100 nat; ignore_eos).  A server is new for each figure and has answered one other chat,
so that prompts share the system text; "kept nothing" shares nothing, as generate does, whose
prefill counts too.
--before is another build of mpo, which serves the same clients.  mpo has two ranks with a
thread each, llama-server one thread; the client shares their cores.  With --processor one rank hosts both
policies and seconds are those of its process, which hardly depend on what else runs; seconds to the first
token are then its share of the whole time.  Build llama-server with

    cmake -S build/deps/llama-src/vendor/llama.cpp -B build/bench/llama -DCMAKE_BUILD_TYPE=Release \\
        -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF && cmake --build build/bench/llama --target llama-server
"""
import argparse
import http.client
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", part) for part in ("commands", "support")]
from server import Server, hold_port, port_of  # noqa: E402

MPO = os.path.join(ROOT, "build/mpo")
CONFIG = os.path.join(ROOT, "configs/reviews.yaml")
MODEL = os.path.join(ROOT, "build/deps/models/SmolLM2-135M-Instruct.Q4_1.gguf")
ADAPTER = os.path.join(ROOT, "configs/reviews/sentiment.gguf")
WORK = os.path.join(ROOT, "build/bench")
TEXT = re.compile(rb'"(content|text)":"[^"]')
SUBJECTS = ["the sea", "a lost dog", "two brothers", "a bank", "the moon", "a chess game", "a farm",
            "an old ship", "a wedding", "the desert", "a school", "a violin", "a train", "winter",
            "a lighthouse", "a garden"]
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMP_WAIT_POLICY": "passive"}


def prompt(index):
    """A request of about 40 tokens with its template, another for each index."""
    count = len(SUBJECTS)
    also = f" and {SUBJECTS[(index + index // count) % count]}" if index >= count else ""
    return f"Write a review of a film about {SUBJECTS[index % count]}{also}."


class Client(threading.Thread):
    """One stream: when its tokens come.  It leaves in the middle when `leaves` is set."""

    def __init__(self, port, body, path="/v1/chat/completions"):
        super().__init__()
        self.port = port
        self.body = {"stream": True, **body}
        self.path = path
        self.times = []
        self.leaves = False

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        self.began = time.perf_counter()
        connection.request("POST", self.path, json.dumps(self.body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise AssertionError(answer.read())
        for line in answer:
            if line.startswith(b"data: {") and TEXT.search(line):
                self.times.append(time.perf_counter())
            if self.leaves:
                break
        connection.close()
        self.ended = time.perf_counter()


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port, count, tokens, more, weights=None, process=None):
    """{"rate": token/s, "first": median seconds to the first token} of `count` clients at once,
    by the time of a process if one is given."""
    clients = []
    for i in range(count):
        body = {"messages": [{"role": "user", "content": prompt(i)}], "max_tokens": tokens, "seed": i,
                **more}
        if weights:
            body["weights"] = weights(i)
        clients.append(Client(port, body))
    used = processor_seconds(process) if process else 0.0
    began = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    seconds = max(client.ended for client in clients) - began
    first = statistics.median(client.times[0] - client.began for client in clients)
    if process:
        used = processor_seconds(process) - used
        first, seconds = first * used / seconds, used
    return {"rate": count * tokens / seconds, "first": first}


class Llama:
    """llama-server with one policy and one core, a slot a client."""

    def __init__(self, program, slots, context=512):
        self.held = hold_port()
        self.port = port_of(self.held)
        self.process = subprocess.Popen(
            ["taskset", "-c", "0", program, "-m", MODEL, "--lora", ADAPTER, "-t", "1", "-tb", "1", "-np",
             str(slots), "-c", str(context * slots), "--port", str(self.port), "--no-warmup"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)

    def end(self):
        self.process.terminate()
        self.process.wait()


def start_mpo(*flags, program=MPO, config=CONFIG):
    os.environ.update(ENVIRONMENT)
    server = Server("mpirun", WORK, config, "--run.threads=1", "--log-requests=false", *flags,
                    launch=["--bind-to", "none", "--oversubscribe", "-n", "2", program])
    server.wait_until_ready()
    return server


def say(name, figure, goal):
    """A line of a table: what was measured, and what it is held against."""
    print(f"{name}\t{figure}\t{goal}", flush=True)


def serve(arguments, program, flags, count, weights=None):
    """The load on a server of its own."""
    if arguments.processor:
        server = Server(program, WORK, CONFIG, "--run.threads=1", "--log-requests=false", *flags)
        server.wait_until_ready()
    else:
        server = start_mpo(*flags, program=program)
    load(server.port, 1, 2, {"end_bias": -100, "messages": [{"role": "user", "content": "Hello"}]})
    figures = load(server.port, count, arguments.tokens, {"end_bias": -100}, weights,
                   server.process.pid if arguments.processor else None)
    server.end()
    return figures


def generate_seconds(arguments, prompts, tokens):
    path = os.path.join(WORK, "serve_prompts.txt")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(prompt(i) + "\n" for i in range(prompts))
    launch = [] if arguments.processor else ["mpirun", "--bind-to", "none", "--oversubscribe", "-n", "2"]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*launch, MPO, "generate", CONFIG, f"--prompts.file={path}", "--parallel=16",
                    "--end-bias=-100", f"--rollout.max_tokens={tokens}", "--run.threads=1", "--quiet"],
                   stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if arguments.processor:
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began


def generate(arguments):
    """16 rows side by side, with and without the prefill of their prompts; what a run takes
    before is left out."""
    tokens = arguments.tokens
    short = generate_seconds(arguments, 16, 1)
    draws = generate_seconds(arguments, 16, tokens) - short
    prefill = generate_seconds(arguments, 32, 1) - short
    return 16 * tokens / (draws + prefill), 16 * (tokens - 1) / draws


def measure(arguments):
    counts = [int(count) for count in arguments.clients.split(",")]
    tokens = arguments.tokens
    rows = {}

    def note(name, figures):
        rows.setdefault(name, []).append(figures)
        print(name, figures, file=sys.stderr, flush=True)

    for _ in range(arguments.rounds):
        for count in counts:
            flags = [f"--rows={max(16, count)}"]
            if arguments.before:
                note(f"before {count}", serve(arguments, arguments.before, flags, count))
            note(f"mpo {count}", serve(arguments, MPO, flags, count))
            note(f"mpo {count}, kept nothing",
                 serve(arguments, MPO, [*flags, "--prefixes=0"], count))
        if arguments.vectors:
            note("mpo 16 vectors", serve(arguments, MPO, [], 16, lambda i: [i / 16, 1 - i / 16]))
            note("mpo 16, one vector", serve(arguments, MPO, [], 16, lambda i: [0.4, 0.6]))
        whole, draws = generate(arguments)
        note("generate, with prefill", {"rate": whole, "first": 0.0})
        note("generate, draws alone", {"rate": draws, "first": 0.0})
        if arguments.llama_server:
            llama = Llama(arguments.llama_server, max(counts))
            load(llama.port, 1, 8, {"ignore_eos": True})
            for count in counts:
                note(f"llama-server {count}", load(llama.port, count, tokens, {"ignore_eos": True}))
            llama.end()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vectors", action="store_true", help="16 weight vectors against one")
    parser.add_argument("--before", help="another build of mpo")
    parser.add_argument("--processor", action="store_true", help="seconds of the server's process")
    parser.add_argument("--llama-server")
    arguments = parser.parse_args()
    os.makedirs(WORK, exist_ok=True)
    print("what\ttoken/s\tfirst token, s\teach round")
    for name, figures in measure(arguments).items():
        rates = [figure["rate"] for figure in figures]
        first = statistics.median(figure["first"] for figure in figures)
        print(f"{name}\t{statistics.median(rates):.1f}\t{first:.3f}\t"
              + " ".join(f"{rate:.1f}" for rate in rates))


if __name__ == "__main__":
    main()
