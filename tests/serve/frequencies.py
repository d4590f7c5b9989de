#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the server draws has the frequencies of the closed form: requests with different
weights, temperatures and biases are decoded side by side, and every transition of every
response is counted.

    X = sum_s sum_v (n_sv - n_s q(v|s))^2 / (n_s q(v|s)),    z = (X - f) / sqrt(2 f)

with f the degrees of freedom: the tokens of each state but one. Seeds are fixed, so |z| <= 4
holds or not for good.

usage: frequencies.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
import tables  # noqa: E402
from person import MPO, WORK, check, fresh, run_tests  # noqa: E402
from server import Server  # noqa: E402

VOCAB, CHOICES, TOKENS_WANTED = 6, 8, 7_000
NAMES = tables.token_names(VOCAB)
TABLE = tables.random_tables(11, 3, VOCAB, 0.7, end_logit=-1.0)
LOG_POLICY = tables.log_policies(TABLE)
WEIGHTS = [[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [0.25, 0.25, 0.5]]
LEAST_EXPECTED = 5.0


def closed_form(weights, body):
    """q(v|s) [V + 1, V] that a request draws from."""
    scores = tables.proposal_rows(LOG_POLICY, np.array(weights), body.get("end_bias", 0.0))
    for token, bias in body.get("logit_bias", {}).items():
        scores[:, int(token)] += bias
    return np.exp(tables.log_softmax(scores / body.get("temperature", 1.0)))


def transitions(choice, max_tokens):
    """(state, token) of each token of a response to the prompt "a"."""
    tokens = [NAMES.index(name) for name in choice["text"].split()]
    if choice["finish_reason"] == "stop":
        tokens.append(VOCAB - 1)
    check_length = len(tokens) == max_tokens or choice["finish_reason"] == "stop"
    if not check_length:
        raise AssertionError(f"{len(tokens)} tokens, and not at its end: {choice}")
    return list(zip([0, *tokens[:-1]], tokens))


def count(server, weights, more, first_seed):
    """Transitions [V + 1, V] of TOKENS_WANTED tokens, one request after another."""
    counts = np.zeros((VOCAB + 1, VOCAB))
    seed = first_seed
    while counts.sum() < TOKENS_WANTED:
        answer = server.ask("/v1/completions", {
            "prompt": "a", "n": CHOICES, "max_tokens": 64, "seed": seed,
            "model": "mpo@" + ":".join(map(str, weights)), **more})
        for choice in answer["choices"]:
            for state, token in transitions(choice, 64):
                counts[state, token] += 1
        seed += 1
    return counts


def score(counts, rows):
    """z of the chi-square, and the largest |z| of a cell that has enough."""
    expected = counts.sum(axis=1, keepdims=True) * rows
    seen = expected.min(axis=1) >= LEAST_EXPECTED
    counts, expected, rows = counts[seen], expected[seen], rows[seen]
    freedom = counts.size - len(counts)
    square = ((counts - expected) ** 2 / expected).sum()
    cells = (counts - expected) / np.sqrt(expected * (1.0 - rows))
    return (square - freedom) / np.sqrt(2.0 * freedom), np.abs(cells).max(), freedom


def has_frequencies(title, more):
    config = tables.write_config(os.path.join(WORK, "tables"), TABLE, ["a"], {})
    with Server(MPO, WORK, config, "--rows=24", "--log-requests=false") as server:
        with ThreadPoolExecutor(len(WEIGHTS)) as pool:
            runs = [pool.submit(count, server, weights, more, 1_000_000 * k)
                    for k, weights in enumerate(WEIGHTS)]
            counts = [run.result() for run in runs]
    for weights, counted in zip(WEIGHTS, counts):
        z, worst, freedom = score(counted, closed_form(weights, more))
        check(f"{title}, {weights}: {int(counted.sum())} tokens, {freedom} degrees, "
              f"z {z:.2f}, of a cell {worst:.2f}",
              abs(z) <= 4.0 and worst <= 4.0 and freedom >= 20)
    wrong = score(counts[0], closed_form(WEIGHTS[1], more))[0]
    check(f"other weights would be seen: z {wrong:.0f}", wrong > 100.0)


def test_mixture():
    has_frequencies("of the mixture", {})


def test_changed_mixture():
    has_frequencies("with temperature, end tilt and biases",
                    {"temperature": 0.8, "end_bias": -0.5, "logit_bias": {"1": 0.7, "5": -0.3}})


fresh()
run_tests(globals())
