#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fits of bigram models through libllama against the exact objective.

    fit_llama.py MPO MPIRUN WORK BIGRAM_GGUF_TOOL

Three GGUF models of 260 byte tokens, of which six matter (the others are improbable, never
impossible), disagree about the next byte. What holds for tables holds here to the accuracy
of the engine: exact scores, the exact optimum, and one record for every number of ranks and
threads.
"""

import os
import shutil
import sys

import numpy as np

import records
import tables

VOCAB = 260
END = 2
LIKELY = [3 + ord(letter) for letter in "abcde"] + [END]
PROMPTS = ("a", "b")
MAX_TOKENS = 12
EXCESS_WORST = 5e-3
# Logits of a float32 model through the engine agree with its table to about 1e-5 a token.
SCORE_BOUND = 1e-4


def random_logits(seed, policy_count):
    generator = np.random.Generator(np.random.Philox(seed))
    logits = np.full((policy_count, VOCAB, VOCAB), -9.0)
    logits[:, :, LIKELY] = generator.standard_normal((policy_count, VOCAB, len(LIKELY)))
    return logits.astype(np.float32)


class Exact(tables.Exact):
    """The same recursion with the end token in the middle of the vocabulary."""

    def scores(self, weights, log_z):
        ahead = log_z[:VOCAB].copy()
        ahead[END] = 0.0
        return np.tensordot(weights, self.log_policy, 1) + ahead

    def gradient(self, weights):
        log_z = self.backward(weights)
        occupied = np.bincount(self.starts, minlength=VOCAB) / len(self.starts)
        total = np.zeros(len(weights))
        for t in range(self.max_tokens):
            chosen = np.exp(self.scores(weights, log_z[t + 1]) - log_z[t][:, None])
            mass = occupied[:, None] * chosen
            total += (mass * self.log_policy).sum(axis=(1, 2))
            occupied = mass.sum(axis=0)
            occupied[END] = 0.0
        return total


def write_case(arguments, folder, logits, order=(0, 1, 2)):
    os.makedirs(folder, exist_ok=True)
    lines = ["run: {seed: 5}", "prompts: {file: prompts.txt}", "policies:"]
    for k in order:
        raw = os.path.join(folder, "p%d.f32" % k)
        model = os.path.join(folder, "p%d.gguf" % k)
        logits[k].tofile(raw)
        tables.run([arguments.tool, model, raw])
        lines.append("  - {name: p%d, model: p%d.gguf, template: raw}" % (k, k))
    lines += ["rollout: {responses: 16, max_tokens: %d}" % MAX_TOKENS,
              "estimator: {target: whole}", "descent: {steps: 62, average: uniform}", "record: {file: out.h5, hash_models: false}"]
    with open(os.path.join(folder, "prompts.txt"), "w", encoding="utf-8") as stream:
        stream.write("\n".join(PROMPTS) + "\n")
    config = os.path.join(folder, "config.yaml")
    with open(config, "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
    return config


def fit(arguments, config, record, ranks=1, *flags):
    tables.run_ranks(arguments.mpirun, ranks, [
        arguments.mpo, "fit", config, "--record.file=" + record, "--quiet", *flags])
    return records.values(record)


def start_states():
    return [3 + ord(prompt) for prompt in PROMPTS]


def scores_and_optimum_are_those_of_the_recursion(arguments):
    folder = os.path.join(arguments.work, "exact")
    logits = random_logits(1, 3)
    log_policy = tables.log_softmax(logits.astype(np.float64))
    exact = Exact(log_policy, start_states(), MAX_TOKENS)
    optimum, least = exact.optimum()
    config = write_case(arguments, folder, logits)
    for seed in (1, 2):
        found = fit(arguments, config, os.path.join(folder, "%d.h5" % seed), 1,
                    "--run.seed=%d" % seed)
        excess = exact.value(found["average"][-1]) - least
        print("       F* %.4f at %s; excess %.2g, gap %.3f" % (
            least, np.round(optimum, 3), excess, found["averaged_gap"][-1]), flush=True)
        tables.check(-1e-6 <= excess <= EXCESS_WORST, "excess %g" % excess)
        tables.check(found["averaged_gap"][-1] >= excess, "the gap does not cover")
        check_scores(found, log_policy)


def check_scores(found, log_policy):
    for i in range(0, len(found["responses/token_count"]), 7):
        first = int(found["responses/token_offset"][i])
        token = found["responses/token"][first:first + int(found["responses/token_count"][i])]
        start = start_states()[int(found["responses/prompt"][i])]
        for k in range(3):
            truth = tables.log_response(log_policy[k], start, token)
            off = abs(truth - found["responses/log_policy"][i][k])
            tables.check(off <= SCORE_BOUND * len(token), "response %d is off by %g" % (i, off))


def every_number_of_ranks_and_threads_writes_the_same_bytes(arguments):
    folder = os.path.join(arguments.work, "ranks")
    config = write_case(arguments, folder, random_logits(2, 3))
    flags = ("--descent.steps=4", "--rollout.prompts_per_step=2", "--rollout.max_tokens=48")
    cases = [(1, "--run.threads=1"), (1, "--run.threads=2"), (2, "--run.threads=1"),
             (3, "--run.threads=1"), (6, "--run.threads=1"), (3, "--exchange.transport=mpi")]
    expected = None
    for i, (ranks, flag) in enumerate(cases):
        found = fit(arguments, config, os.path.join(folder, "%d.h5" % i), ranks, flag, *flags)
        expected = expected or found
        tables.check(found.keys() == expected.keys(), "%s: other data sets" % flag)
        for name, value in expected.items():
            tables.check(value.tobytes() == found[name].tobytes(),
                         "%d ranks %s: /%s differs" % (ranks, flag, name))


def permuted_policies_give_permuted_weights(arguments):
    logits = random_logits(3, 3)
    order = (2, 0, 1)
    plain = os.path.join(arguments.work, "plain")
    moved = os.path.join(arguments.work, "moved")
    flags = ("--descent.steps=8",)
    a = fit(arguments, write_case(arguments, plain, logits), plain + "/out.h5", 1, *flags)
    b = fit(arguments, write_case(arguments, moved, logits, order), moved + "/out.h5", 1, *flags)
    off = np.abs(a["average"][:, list(order)] - b["average"]).max()
    tables.check(off <= 1e-6, "weights are off by %g" % off)


class Arguments:
    def __init__(self, mpo, mpirun, work, tool):
        self.mpo, self.mpirun, self.work, self.tool = mpo, mpirun, work, tool


def main():
    arguments = Arguments(*sys.argv[1:5])
    shutil.rmtree(arguments.work, ignore_errors=True)
    cases = [scores_and_optimum_are_those_of_the_recursion,
             every_number_of_ranks_and_threads_writes_the_same_bytes,
             permuted_policies_give_permuted_weights]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
