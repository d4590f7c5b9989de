#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prompts that begin as earlier ones: their common tokens are not fed again, which answers
count exactly and which changes nothing else. On table policies, where a response is a function
of its request alone: a server that keeps no cells answers the same bytes.

usage: reuse.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import concurrent.futures
import os
import random
import sys

import numpy as np

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
import tables  # noqa: E402
from person import MPIEXEC, MPO, WORK, check, fresh, run_tests  # noqa: E402
from server import Server  # noqa: E402
from waiting import comes_to  # noqa: E402

COMPLETION = "/v1/completions"
TABLE = tables.random_tables(3, 3, 6, 0.5, end_logit=-7.0)
WORDS = "abc"


def config():
    return tables.write_config(os.path.join(WORK, "tables"), TABLE, ["a"], {})


def words(number, count):
    dice = random.Random(number)
    return [dice.choice(WORDS) for _ in range(count)]


def ask(server, prompt, **more):
    body = {"prompt": " ".join(prompt), "seed": 3, "max_tokens": 8, "policy_scores": True,
            "logprobs": 3, **more}
    return server.ask(COMPLETION, body)


def cached(answer):
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def settled(answer):
    """What must not depend on what is reused."""
    return [answer["choices"], answer["mpo"], answer["usage"]["prompt_tokens"],
            answer["usage"]["completion_tokens"]]


def compare(title, server, plain, prompt, expected, **more):
    """The answer of both servers, and exactly so many tokens that were there."""
    answer = ask(server, prompt, **more)
    other = ask(plain, prompt, **more)
    check(f"{title}: {cached(answer)} of {len(prompt)} words are there",
          cached(answer) == expected)
    check(f"{title}: the same answer", settled(answer) == settled(other) and cached(other) == 0)
    return answer


def drawn(answer):
    return answer["choices"][0]["text"].split()


def use_of(server):
    return server.ask("/v1/mpo")["use"]


def test_what_is_there_is_counted_and_changes_nothing():
    with Server(MPO, WORK, config(), "--rows=4") as server, \
            Server(MPO, WORK, config(), "--rows=4", "--prefixes=0") as plain:
        start = 1  # the token of the start, before the first word
        first = words(1, 30)
        answer = compare("a new prompt", server, plain, first, 0)
        response = drawn(answer)
        check("a response of eight words", len(response) == 8)
        # a row holds its prompt and its response but the last word, which was never fed
        compare("the next turn", server, plain, [*first, *response, "a", "b"], start + 30 + 7)
        compare("the same prompt", server, plain, first, start + 29)
        compare("half of it", server, plain, [*first[:15], "a" if first[15] != "a" else "b"],
                start + 15)
        compare("too little of it", server, plain,
                [*first[:2], "a" if first[2] != "a" else "b", "c"], 0)
        compare("other weights", server, plain, first, start + 29, weights=[0.6, 0.3, 0.1])
        compare("choices", server, plain, [*first, "c"], start + 30, n=3)
        compare("stop texts", server, plain, [*first, "b", "c"], start + 30, stop=["c"])
        compare("one policy alone", server, plain, first, start + 29, model="policy/policy1",
                policy_scores=False)
        use = use_of(server)
        check(f"no cells are used, some are kept: {use}", use["cells_used"] == 0
              and 0 < use["rows_kept"] <= 8 and use["cells_kept"] > 60)
        use = use_of(plain)
        check("none are kept without", use["rows_kept"] == use["cells_kept"] == 0)


def test_one_policy_alone_leaves_nothing_for_others():
    with Server(MPO, WORK, config(), "--rows=2") as server:
        prompt = words(2, 20)
        check("new", cached(ask(server, prompt, model="policy/policy0",
                                policy_scores=False)) == 0)
        check("the mixture needs cells of all", cached(ask(server, prompt)) == 0)
        check("a policy alone has them", cached(ask(
            server, prompt, model="policy/policy2", policy_scores=False)) == 20)


def test_cells_are_found_where_room_is_short():
    """A pool of 128 cells, half of which may be kept."""
    with Server(MPO, WORK, config(), "--rows=1", "--context=128") as server:
        prompt = words(3, 40)
        for turn in range(3):
            answer = ask(server, prompt, seed=turn)
            check(f"turn {turn}: {cached(answer)}",
                  cached(answer) == (0 if turn == 0 else before))
            before = 1 + len(prompt) + 7
            prompt += [*drawn(answer), "a"]
        ask(server, words(4, 100))
        check("a long prompt has their place", cached(ask(server, prompt)) == 0)
        use = use_of(server)
        check(f"half at most is kept: {use}", use["cells_kept"] <= 64 and use["cells_used"] == 0)


def test_prompts_that_come_together_wait_for_the_first():
    launch = ("-n", "3", "--oversubscribe", MPO)
    with Server(MPIEXEC, WORK, config(), "--rows=8", launch=launch) as server, \
            Server(MPO, WORK, config(), "--rows=8", "--prefixes=0") as plain:
        system = words(6, 300)
        prompts = [" ".join([*system, *words(10 + i, 5)]) for i in range(8)]
        body = {"prompt": prompts, "seed": 4, "max_tokens": 12, "logprobs": 2,
                "policy_scores": True}
        answer = server.ask(COMPLETION, body)
        check(f"seven of eight had it: {cached(answer)}",
              7 * 301 <= cached(answer) <= 7 * 305)
        check("the same answers", settled(answer) == settled(plain.ask(COMPLETION, body)))
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: ask(server, prompts[i].split(), seed=i),
                                    range(8)))
        check("all have it now", all(cached(answer) >= 301 for answer in answers))
        check("and are right", all(settled(answers[i]) == settled(
            ask(plain, prompts[i].split(), seed=i)) for i in range(8)))


def test_isolated_requests_reuse_nothing():
    with Server(MPO, WORK, config(), "--rows=2", "--isolated=true") as server:
        prompt = words(7, 30)
        ask(server, prompt)
        check("kept", cached(ask(server, prompt)) == 30)
        check("not for one that is isolated", cached(ask(server, prompt, isolated=True)) == 0)
        check("which clears all", cached(ask(server, prompt)) == 0)
        use = use_of(server)
        check("and its own cells are kept again", use["rows_kept"] == 1)


def test_metrics():
    with Server(MPO, WORK, config(), "--rows=2") as server:
        prompt = words(8, 30)
        for _ in range(2):
            ask(server, prompt)
        expected = {"queries_total": 62, "hits_total": 30, "rows": 2, "cells": 2 * 38}

        def values():
            with server.open("/metrics") as response:
                lines = response.read().decode().splitlines()
            return {line.split("{")[0].removeprefix("mpo:prefix_cache_"): float(line.rsplit(" ", 1)[1])
                    for line in lines if line.startswith("mpo:prefix_cache_")}

        check(f"looked for, found and kept: {expected}",
              comes_to(lambda: expected.items() <= values().items()))


# ---- prompts that are looked up ----

def closed_form(weights, prompt):
    """log q of each word after the first, of tables with these weights."""
    mixed = tables.log_softmax(np.tensordot(weights, tables.log_policies(TABLE), axes=1))
    states = ["abc".index(word) for word in prompt]
    return [mixed[a, b] for a, b in zip(states, states[1:])]


def test_contexts_are_looked_up_once():
    """Four continuations of one context, together and one after another."""
    weights = [0.5, 0.2, 0.3]
    with Server(MPO, WORK, config(), "--rows=6", "--score-positions=32") as server, \
            Server(MPO, WORK, config(), "--rows=6", "--prefixes=0") as plain:
        context = words(20, 90)
        prompts = [" ".join([*context, *words(30 + i, 6)]) for i in range(4)]
        body = {"prompt": prompts, "echo": True, "logprobs": 2, "max_tokens": 1, "seed": 1,
                "weights": weights}
        before = use_of(server)["steps"]
        answer = server.ask(COMPLETION, body)
        steps = use_of(server)["steps"] - before
        check(f"three of four contexts were there: {cached(answer)} in {steps} steps",
              3 * 90 <= cached(answer) <= 3 * 96 and steps <= 9)
        check("the same answers", settled(answer) == settled(plain.ask(COMPLETION, body)))
        worst = 0.0
        for prompt, choice in zip(prompts, answer["choices"]):
            found = choice["logprobs"]["token_logprobs"]
            exact = closed_form(weights, prompt.split())
            worst = max(worst, max(abs(a - b) for a, b in zip(found[-len(exact) - 1:-1], exact)))
        check(f"and exact: {worst:.1e}", worst <= 1e-6)
        again = server.ask(COMPLETION, {**body, "prompt": prompts[2]})
        check(f"all but the last: {cached(again)}", cached(again) == 95)
        lists = [a["choices"][i]["logprobs"]["token_logprobs"] for a, i in ((answer, 2), (again, 0))]
        check("again the same", lists[0][:-1] == lists[1][:-1])


def test_figures_belong_to_their_weights():
    with Server(MPO, WORK, config(), "--rows=4") as server, \
            Server(MPO, WORK, config(), "--rows=4", "--prefixes=0") as plain:
        prompt = words(40, 40)
        body = {"echo": True, "max_tokens": 1}
        compare("looked up", server, plain, prompt, 0, **body)
        # the last common token is fed again for what comes next, and so is the last of all
        compare("again", server, plain, prompt, 39, **body)
        compare("no token drawn", server, plain, prompt, 39, **{**body, "max_tokens": 0})
        compare("after that", server, plain, [*prompt, "a"], 40, **body)
        compare("choices", server, plain, [*prompt, "b", "b"], 40, **{**body, "n": 3})
        for title, more in (("other weights", {"weights": [0.6, 0.3, 0.1]}),
                            ("another tilt", {"end_bias": 0.5}),
                            ("more tokens told", {"logprobs": 4}),
                            ("a policy alone", {"model": "policy/policy1"})):
            compare(f"{title}: new", server, plain, prompt, 0, **{**body, **more})
            compare(f"{title}: again", server, plain, prompt, 39, **{**body, **more})
        compare("without echo any row will do", server, plain, prompt, 40)
        compare("what was drawn was not looked up", server, plain,
                [*words(41, 20), "c"], 0, **{**body, "max_tokens": 8})


fresh()
run_tests(globals())
