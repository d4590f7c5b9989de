#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`mpo serve` against its goals: ratios between loads on one machine in one run.

    tests/bench/serve_goals.py [--only REGEX] [--llama-server PROGRAM] [--quick]

Needs a built mpo and the demo's model (launch/quickstart.sh); serve.py says how llama-server is
built, and its figures are left out without one.  Nothing else should run.  Two ranks with a thread
each, llama-server one core and one of the policies; the client shares their cores.  Prints a line for
each figure, with its goal; --quick measures a quarter, to see that all works.
"""
import argparse
import os
import re
import statistics
import sys
import time

from serve import (MODEL, MPO, ROOT, WORK, Client, Llama, generate, load, say, serve,
                   start_mpo)
from serve_costs import ENDLESS, ask, gaps_beside_a_prompt, token_ids

TEMPLATE_ALONE = os.path.join(WORK, "serve_goals.yaml")


def write_configuration():
    """The demo's policies without texts of their own, so that prompts are those of llama-server."""
    with open(TEMPLATE_ALONE, "w", encoding="utf-8") as file:
        file.write("policies:\n")
        for name in ("sentiment", "concise"):
            file.write(f"  - {{name: {name}, model: {MODEL}, temperature: 0.7,\n"
                       f"     lora: {os.path.join(ROOT, 'configs/reviews', name)}.gguf}}\n")


def warm(server):
    load(server.port, 1, 2, {"messages": [{"role": "user", "content": "Hello"}], **ENDLESS})


# ---- mpo alone ----


def clients(arguments):
    """From one client to 64: all together never get less."""
    rates = []
    for count in (1, 2, 4, 8, 16, 32, 64):
        rates.append(serve(arguments, MPO, ["--rows=64"], count)["rate"])
        print(count, f"{rates[-1]:.1f}", file=sys.stderr, flush=True)
    say("1, 2, 4, ... 64 clients, token/s", " ".join(f"{rate:.1f}" for rate in rates), "")
    say("the least of one number of clients over the one before",
        f"{min(b / a for a, b in zip(rates, rates[1:])):.3f}", ">= 0.95")


def against_generate(arguments):
    whole, draws = generate(arguments)
    for flags, name, goal in ((["--prefixes=0"], "16 streams without reuse", ">= 0.95"),
                              ([], "16 streams with reuse", "")):
        rate = serve(arguments, MPO, flags, 16)["rate"]
        say(f"{name} against generate --parallel 16, its prefill counted, token/s", f"{rate / whole:.3f}", goal)
    say("generate --parallel 16: token/s with its prefill; of draws alone", f"{whole:.1f} {draws:.1f}", "")


def compare(server, tokens, rounds, loads):
    """Medians of the rates of some loads that take turns on a server; the first turn counts for none."""
    rates = [[] for _ in loads]
    for turn in range(rounds + 1):
        for i, (count, more, weights) in enumerate(loads):
            rate = load(server.port, count, tokens, {**more, **ENDLESS}, weights)["rate"]
            if turn > 0:
                rates[i].append(rate)
    return [statistics.median(one) for one in rates]


def vectors(arguments):
    server = start_mpo()
    several, one = compare(server, arguments.tokens, 3, [(16, {}, lambda i: [i / 16, 1 - i / 16]),
                                                          (16, {}, lambda i: [0.4, 0.6])])
    server.end()
    say("16 streams with 16 weight vectors against one, token/s", f"{several / one:.3f}", ">= 0.99")


def one_hot(arguments):
    """A stream of each policy alone, which ranks decode side by side."""
    server = start_mpo("--rows=2")
    alone, other, both = compare(server, 2 * arguments.tokens, 3, [
        (1, {"model": "policy/sentiment"}, None), (1, {"model": "policy/concise"}, None),
        (2, {}, lambda i: [i, 1 - i])])
    server.end()
    say("2 one-hot streams, a core each, against one alone, token/s",
        f"{2 * both / (alone + other):.2f}", ">= 1.8")


def choices(arguments):
    """Questions with four answers, as lm-evaluation-harness asks: echo of context and answer."""
    seconds = []
    documents = 2 if arguments.quick else 6
    for flags in (["--prefixes=0"], []):
        server = start_mpo(*flags)
        warm(server)
        began = time.perf_counter()
        for document in range(documents):
            context = token_ids(200, document)
            for answer in range(4):
                ask(server, "/v1/completions",
                    {"model": "mpo", "prompt": [context + token_ids(6, 50 + 4 * document + answer)],
                     "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True})
        seconds.append(time.perf_counter() - began)
        server.end()
    say("questions with 4 answers, context of 200 tokens, with reuse against without, questions/s",
        f"{seconds[0] / seconds[1]:.2f}", ">= 2.5")


# ---- against llama-server ----


def first_token(port, body):
    client = Client(port, body, "/v1/completions")
    client.start()
    client.join()
    return client.times[0] - client.began


def first_tokens(arguments):
    """Prompts of 40 tokens, one after another, none of which begins like another."""
    count = 5 if arguments.quick else 15
    body = [{"prompt": token_ids(40, seed), "max_tokens": 2} for seed in range(1, count + 1)]
    server = start_mpo("--prefixes=0", config=TEMPLATE_ALONE)
    warm(server)
    own = statistics.median(first_token(server.port, {"model": "mpo", **one, **ENDLESS}) for one in body)
    server.end()
    say("first token of a prompt of 40 tokens, idle, ms", f"{1e3 * own:.0f}", "")
    if arguments.llama_server:
        llama = Llama(arguments.llama_server, 1)
        load(llama.port, 1, 2, {"ignore_eos": True})
        other = statistics.median(first_token(llama.port, {**one, "ignore_eos": True}) for one in body)
        llama.end()
        say("the same of llama-server", f"{1e3 * other:.0f}", "")
        say("first token over llama-server's x 1.1 + 5 ms", f"{own / (1.1 * other + 0.005):.2f}", "<= 1")


# llama-server keeps no bits the same beside other work (run.batch_invariant), and neither does the
# server that is held against it; what the default costs stands beside it.
FREE = "--run.batch_invariant=false"
STREAMS = (([FREE, "--prefixes=0"], "without reuse", ">= 0.90"), ([FREE], "with reuse", ""),
           (["--prefixes=0"], "without reuse, batch-invariant", ""))


def streams(arguments):
    """Clients of a mixture of two policies against those of llama-server with one policy."""
    hello = {"messages": [{"role": "user", "content": "Hello"}], "ignore_eos": True}
    for count in (1, 4, 16):
        if not arguments.llama_server:
            return
        llama = Llama(arguments.llama_server, count)
        load(llama.port, 1, 2, hello)
        other = load(llama.port, count, arguments.tokens, {"ignore_eos": True})
        llama.end()
        for flags, name, goal in STREAMS:
            server = start_mpo(*flags, config=TEMPLATE_ALONE)
            warm(server)
            own = load(server.port, count, arguments.tokens, ENDLESS)
            server.end()
            say(f"{count} clients {name} against llama-server's {other['rate']:.1f} token/s",
                f"{own['rate'] / other['rate']:.3f}", goal)
            if count == 16:
                say(f"16 prompts at once {name}: median first token against llama-server's "
                    f"{other['first']:.2f} s", f"{own['first'] / other['first']:.2f}",
                    "<= 1" if goal else "")


def llama_gaps(arguments):
    """What serve_costs.py measures of mpo, of llama-server: gaps beside a long prompt."""
    if arguments.llama_server:
        llama = Llama(arguments.llama_server, 9, context=2048)
        gaps_beside_a_prompt(llama, 475 if arguments.quick else 1900, "llama-server: ", {"ignore_eos": True})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="figures whose function matches this expression")
    parser.add_argument("--llama-server")
    parser.add_argument("--quick", action="store_true", help="see that all works")
    arguments = parser.parse_args()
    arguments.tokens = 12 if arguments.quick else 48
    arguments.processor = False
    os.makedirs(WORK, exist_ok=True)
    write_configuration()
    print("figure\tmeasured\tgoal")
    for measure in (clients, against_generate, vectors, one_hot, choices, first_tokens, streams, llama_gaps):
        if re.search(arguments.only, measure.__name__):
            measure(arguments)


if __name__ == "__main__":
    main()
