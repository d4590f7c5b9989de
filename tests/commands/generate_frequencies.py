#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `mpo generate` samples is the token mixture q_l, token by token.

    generate_frequencies.py MPO MPIRUN WORK

Two policies of three tokens and responses of at most three tokens have 15 responses: their
frequencies among 15360 samples are compared with their exact probabilities by chi-square.
Seeds are fixed, so a run passes or fails for good.
"""

import json
import os
import shutil
import sys

import numpy as np

import tables

VOCAB = 3
MAX_TOKENS = 3
SAMPLES = 256
REPEATS = 30  # lines of each prompt
START = {"a": 0, "b": 1}
TEMPERATURE = (0.7, 1.6)

# Wilson-Hilferty z of each chi-square; four of them are taken.
Z_BOUND = 4.0


def log_policies(table):
    logits = np.log(table).astype(np.float32).astype(np.float64)
    return np.array([tables.log_softmax(logits[k] / TEMPERATURE[k]) for k in range(2)])


def all_responses():
    """Every response: it ends with the end token or has three tokens."""
    end = VOCAB - 1
    found = []
    open_ones = [[]]
    while open_ones:
        tokens = open_ones.pop()
        for token in range(VOCAB):
            longer = tokens + [token]
            whole = token == end or len(longer) == MAX_TOKENS
            (found if whole else open_ones).append(longer)
    return found


class Case:
    """Policies in a folder, and the ways to run generate on them."""

    def __init__(self, mpo, mpirun, work, repeats=REPEATS):
        self.mpo = mpo
        self.repeats = repeats
        self.mpirun = mpirun
        self.table = tables.random_tables(5, 2, VOCAB, 1.0)
        self.log_policy = log_policies(self.table)
        prompts = ["a"] * repeats + ["b"] * repeats
        self.config = tables.write_config(
            work, self.table, prompts, {"rollout": {"max_tokens": MAX_TOKENS}})
        self.flags = ["--policies.policy%d.temperature=%g" % item
                      for item in enumerate(TEMPERATURE)]

    def generate(self, *flags, ranks=1):
        command = [self.mpo, "generate", self.config, "--format=jsonl", *self.flags, *flags]
        out, _ = tables.run_ranks(self.mpirun, ranks, command)
        return [json.loads(line) for line in out.splitlines()]


def tokens_of(line):
    """Token ids of a line's response; the end token is not part of the text."""
    names = tables.token_names(VOCAB)
    tokens = [names.index(name) for name in line["response"].split()]
    return tuple(tokens + [VOCAB - 1] if line["ended"] else tokens)


def chi_square_z(observed, expected):
    chi_square = ((observed - expected)**2 / expected).sum()
    freedom = len(observed) - 1.0
    spread = 2.0 / (9.0 * freedom)
    return (np.cbrt(chi_square / freedom) - (1.0 - spread)) / np.sqrt(spread)


def check_frequencies(case, weights, flag, samples=SAMPLES, more=()):
    responses = all_responses()
    tables.check(len(responses) == 15, "%d responses" % len(responses))
    rows = tables.proposal_rows(case.log_policy, weights, 0.0)
    lines = case.generate("--weights=" + flag, "--n=%d" % samples, "--run.seed=4", *more)
    tables.check(len(lines) == 2 * case.repeats * samples, "%d lines" % len(lines))
    for prompt, start in START.items():
        drawn = [tokens_of(line) for line in lines if line["prompt"] == prompt]
        observed = np.array([drawn.count(tuple(tokens)) for tokens in responses])
        expected = len(drawn) * np.exp(
            [tables.log_response(rows, start, np.array(tokens)) for tokens in responses])
        tables.check(observed.sum() == len(drawn), "unknown responses were drawn")
        tables.check(abs(expected.sum() - len(drawn)) < 1e-6, "probabilities do not sum to 1")
        z = chi_square_z(observed, expected)
        tables.check(abs(z) <= Z_BOUND, "prompt %s: z = %.2f; observed %s, expected %s" % (
            prompt, z, observed, np.round(expected, 1)))


def responses_have_their_exact_frequencies(case):
    check_frequencies(case, np.array([0.6, 0.4]), "0.6,0.4")


def name_of_a_policy_samples_that_policy(case):
    check_frequencies(case, np.array([0.0, 1.0]), "policy1")


def scores_in_the_output_are_exact(case):
    weights = np.array([0.5, 0.5])
    rows = tables.proposal_rows(case.log_policy, weights, 0.0)
    for line in case.generate("--weights=uniform", "--n=2", "--run.seed=9"):
        tokens = np.array(tokens_of(line))
        start = START[line["prompt"]]
        tables.check(len(tokens) == line["tokens"], "tokens: %s" % line)
        off = abs(tables.log_response(rows, start, tokens) - line["log_mixture"])
        for k in range(2):
            truth = tables.log_response(case.log_policy[k], start, tokens)
            off = max(off, abs(truth - line["log_policy"]["policy%d" % k]))
        tables.check(off <= 1e-10, "off by %g: %s" % (off, line))


def greedy_takes_the_most_probable_token_each_time(case):
    rows = tables.proposal_rows(case.log_policy, np.array([0.5, 0.5]), 0.0)
    for line in case.generate("--greedy"):
        state = START[line["prompt"]]
        for token in tokens_of(line):
            tables.check(token == int(np.argmax(rows[state])), "not greedy: %s" % line)
            state = token


def samples_depend_on_the_seed_and_not_on_the_ranks(case):
    flags = ("--weights=0.3,0.7", "--n=5", "--run.seed=3")
    expected = case.generate(*flags)
    for ranks in (2, 4):
        tables.check(case.generate(*flags, ranks=ranks) == expected,
                     "%d ranks sample otherwise" % ranks)
    tables.check(case.generate(*flags) == expected, "the same run again samples otherwise")
    tables.check(case.generate(*flags, "--run.seed=8") != expected,
                 "another seed samples the same")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    mpo, mpirun, work = (os.path.abspath(path) for path in sys.argv[1:])
    shutil.rmtree(work, ignore_errors=True)
    case = Case(mpo, mpirun, work)
    cases = [responses_have_their_exact_frequencies,
             name_of_a_policy_samples_that_policy,
             scores_in_the_output_are_exact,
             greedy_takes_the_most_probable_token_each_time,
             samples_depend_on_the_seed_and_not_on_the_ranks]
    sys.exit(tables.run_cases([(run, [case]) for run in cases]))


if __name__ == "__main__":
    main()
