#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Groups of a server with GGUF models: whichever group answers, the answer is that of one group, to
the byte, for isolated requests.

usage: models.py MPO MPIEXEC WORK_FOLDER BIGRAM_GGUF_TOOL
"""
import os
import sys
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", folder) for folder in ("commands", "support")]
from bigram_models import path, prepare_models  # noqa: E402
from person import MPIEXEC, MPO, WORK, check, run_tests  # noqa: E402
from server import Job, Server  # noqa: E402
from waiting import comes_to  # noqa: E402

CONFIG = """policies:
  - {name: up, model: up.gguf, template: raw}
  - {name: down, model: down.gguf, template: raw, system: a}
prompts: {file: prompts.txt}
run: {threads: 1}
"""
FLAGS = ("--rows=2", "--context=2000", "--isolated", "--log-requests=false")
LAYOUTS = {"2 groups of 1": (2, 1), "2 groups of 2": (4, 2)}
CHAT = "/v1/chat/completions"
BODIES = [
    ("/v1/completions", {"prompt": "abc" * 30, "seed": 1, "max_tokens": 40, "logprobs": 3,
                         "policy_scores": True}),
    ("/v1/completions", {"prompt": ["ab", "c"], "seed": 2, "max_tokens": 20, "n": 2}),
    ("/v1/completions", {"prompt": "cab" * 9, "seed": 3, "max_tokens": 5, "echo": True,
                         "logprobs": 2}),
    (CHAT, {"messages": [{"role": "user", "content": "abcab" * 40}], "seed": 4,
            "max_tokens": 30, "logprobs": True, "top_logprobs": 2}),
]


def answer(server, where, body):
    document = server.ask(where, {**body, "isolated": True})
    return document["choices"], document["mpo"], document["usage"]["completion_tokens"]


def steps(server):
    return [group["steps"] for group in server.ask("/v1/mpo")["group_use"]]


def expected():
    with Server(MPO, WORK, path("config.yaml"), *FLAGS) as one:
        return [answer(one, *body) for body in BODIES]


def test_isolated_requests_have_the_bytes_of_one_group():
    prepare_models(CONFIG)
    wanted = expected()
    for layout, (ranks, size) in LAYOUTS.items():
        with Job((MPO, MPIEXEC), WORK, path("config.yaml"), ranks,
                 f"--exchange.ranks_per_group={size}", *FLAGS) as server:
            check(f"{layout}: one after another",
                  [answer(server, *body) for body in BODIES] == wanted)
            found = []

            def both_answer():
                """An isolated request takes a whole group, so of several at once some go to the other."""
                found.extend(pool.map(lambda body: answer(server, *body) == wanted[BODIES.index(body)],
                                      BODIES * 3))
                return min(steps(server)) > 100
            with ThreadPoolExecutor(len(BODIES)) as pool:
                check(f"{layout}: both groups answer", comes_to(both_answer))
            check(f"{layout}: each of {len(found)} answers, in {steps(server)} steps", all(found))
            check(f"{layout}: nothing is left", server.uses(rows_live=0, cells_used=0))


run_tests(globals())
