#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Intervals of `mpo evaluate` against the exact objective of bigram policies.

    evaluate_coverage.py MPO WORK [--runs N]

What the intervals are about is a population of prompts: each run draws its own prompts from
equally likely start tokens, so the prompts are the independent units that the bootstrap
assumes. With N runs the share of 95 % intervals that hold the exact F, gap and divergence
must be within 0.93 .. 0.97. Without, one run of fixed seed must be within Z standard errors.
"""

import argparse
import json
import os
import shutil
import sys

import numpy as np

import tables

VOCAB = 6
MAX_TOKENS = 16
POLICIES = 3
PROMPTS = 150
Z = 3.5
WEIGHTS = np.array([0.5, 0.3, 0.2])


def setting(arguments):
    """(configuration, table's log-probabilities, exact population)"""
    table = tables.random_tables(4, POLICIES, VOCAB, 1.0)
    log_policy = tables.log_policies(table)
    config = tables.write_config(arguments.work, table, ["a"], {
        "rollout": {"max_tokens": MAX_TOKENS}, "record": {"hash_models": "false"}})
    return config, tables.Exact(log_policy, range(VOCAB - 1), MAX_TOKENS)


def evaluate(arguments, config, seed, *flags):
    """Results of each vector {(quantity, objective): (estimate, low, high)} on new prompts."""
    generator = np.random.Generator(np.random.Philox(1000 + seed))
    prompts = os.path.join(arguments.work, "prompts.txt")
    starts = generator.integers(0, VOCAB - 1, PROMPTS)
    with open(prompts, "w", encoding="utf-8") as stream:
        stream.writelines(tables.token_names(VOCAB)[s] + "\n" for s in starts)
    out, _ = tables.run([arguments.mpo, "evaluate", config, "--format=json",
                         "--run.seed=%d" % seed, "--replicates=1000",
                         "--weights=" + ",".join(map(str, WEIGHTS)), *flags])
    return [{(row["quantity"], row.get("objective", "")):
             (row["estimate"], row["low"], row["high"]) for row in vector["results"]}
            for vector in json.loads(out)["vectors"]]


def truth_of(exact, weights):
    value = exact.value(weights)
    gradient = exact.gradient(weights)
    inner = weights @ gradient
    scores, served = exact.served(weights)
    truth = {("value_jackknife", ""): value, ("gap", ""): inner - gradient.min(),
             ("imbalance", ""): served.max() - weights @ served}
    for k in range(POLICIES):
        truth["served_log_policy", "policy%d" % k] = scores[k]
        truth["served_divergence", "policy%d" % k] = served[k]
        truth["log_policy", "policy%d" % k] = gradient[k]
        truth["divergence", "policy%d" % k] = inner - value - gradient[k]
    return truth


def figures_are_within_their_standard_errors(arguments):
    config, exact = setting(arguments)
    found = evaluate(arguments, config, 1, "--against=uniform")
    truths = [truth_of(exact, WEIGHTS), truth_of(exact, np.full(3, 1.0 / 3.0))]
    truths[1]["value_jackknife_difference", ""] = truths[1]["value_jackknife", ""] - truths[0]["value_jackknife", ""]
    for result, truth in zip(found, truths):
        for key, value in truth.items():
            estimate, low, high = result[key]
            error = (high - low) / 3.92
            print("       %-28s exact %9.4f  found %9.4f [%.4f, %.4f]" % (
                " ".join(key), value, estimate, low, high), flush=True)
            tables.check(error > 0 and abs(estimate - value) <= Z * error,
                         "%s is %g, exact %g, standard error %g" % (key, estimate, value,
                                                                    error))


def differences_are_paired(arguments):
    """The interval of a difference is shorter than unpaired ones would make it."""
    config, _ = setting(arguments)
    first, second = evaluate(arguments, config, 2, "--against=0.45,0.35,0.2")
    width = [result["value_jackknife", ""][2] - result["value_jackknife", ""][1] for result in (first, second)]
    estimate, low, high = second["value_jackknife_difference", ""]
    tables.check(abs(estimate - (second["value_jackknife", ""][0] - first["value_jackknife", ""][0])) < 1e-12,
                 "the difference is not that of the two")
    tables.check(high - low < 0.8 * np.hypot(*width),
                 "difference %g wide, each %s" % (high - low, width))


def one_seed_gives_one_answer(arguments):
    config, _ = setting(arguments)
    one = evaluate(arguments, config, 3)
    tables.check(one == evaluate(arguments, config, 3), "one seed, two answers")
    tables.check(one != evaluate(arguments, config, 4), "two seeds, one answer")


def a_mode_that_is_never_drawn_is_found(arguments):
    """Two policies over a, b and an end of probability 1e-5 that swap a and b: the whole
    mixture ends at once, and no response that is drawn does. F is -10.597 exactly; responses
    with drawn ends say -32.7, with an ESS of 1. Likewise three with rarer ends."""
    for count, end, tokens in ((2, 1e-5, 64), (3, np.exp(-10.0), 64), (3, np.exp(-12.0), 64)):
        rows = np.full((count, count + 1), 0.1 / (count - 1))
        rows[np.arange(count), np.arange(count)] = 0.9
        rows[:, -1] = end
        rows[:, :-1] *= (1.0 - end) / rows[:, :-1].sum(axis=1, keepdims=True)
        table = np.repeat(rows[:, None, :], count + 2, axis=1)
        folder = os.path.join(arguments.work, "hidden%d_%g" % (count, end))
        config = tables.write_config(folder, table, ["a"] * 40, {
            "rollout": {"max_tokens": tokens}, "record": {"hash_models": "false"}})
        exact = tables.Exact(tables.log_policies(table), [0], tokens)
        weights = np.full(count, 1.0 / count)
        out, said = tables.run([arguments.mpo, "evaluate", config, "--weights=uniform",
                                "--format=json"])
        found = {(row["quantity"], row.get("objective", "")): row
                 for row in json.loads(out)["vectors"][0]["results"]}
        value = found["value_jackknife", ""]
        truth = exact.value(weights)
        print("       K = %d: F %.4f, exactly %.4f; ESS %.3f" % (
            count, value["estimate"], truth, found["ess", ""]["estimate"]), flush=True)
        tables.check(abs(value["estimate"] - truth) < 1e-3, "F is %g" % value["estimate"])
        tables.check(("F is -" in said) == (truth < -10.0), "warned: " + said)


def identical_policies_have_no_distance(arguments):
    """F = 0 and no divergence, to rounding."""
    table = np.repeat(tables.random_tables(4, 1, VOCAB, 1.0), 3, axis=0)
    folder = os.path.join(arguments.work, "identical")
    config = tables.write_config(folder, table, ["a", "b"], {
        "rollout": {"max_tokens": MAX_TOKENS}, "record": {"hash_models": "false"}})
    out, _ = tables.run([arguments.mpo, "evaluate", config, "--weights=uniform",
                         "--format=json"])
    for row in json.loads(out)["vectors"][0]["results"]:
        if row["quantity"] in ("value", "gap", "imbalance", "divergence", "served_divergence"):
            tables.check(abs(row["estimate"]) < 1e-9, "%s" % row)


def intervals_hold_their_estimates(arguments):
    """Also where weights are no weights, outside of the bounds, or where K = 1."""
    config, _ = setting(arguments)
    for flags in (["--weights=-1,1,1", "--allow-any-weights"],
                  ["--weights=0.2,0.2,0.2", "--allow-any-weights"],
                  ["--weights=0.5,0.3,0.2", "--policies.policy0.max=0.4"],
                  ["--weights=1,0,0"]):
        out, said = tables.run([arguments.mpo, "evaluate", config, *flags, "--format=json"])
        results = {row["quantity"]: row for row in json.loads(out)["vectors"][0]["results"]}
        for row in results.values():
            if row["low"] is not None:
                tables.check(row["low"] <= row["estimate"] <= row["high"], "%s: %s" % (flags, row))
        if flags != ["--weights=1,0,0"]:
            tables.check(results["gap"]["estimate"] is None and "no gap" in said, said)


def intervals_cover_the_truth(arguments):
    config, exact = setting(arguments)
    truth = truth_of(exact, WEIGHTS)
    held = {key: 0 for key in truth}
    for seed in range(1, arguments.runs + 1):
        result = evaluate(arguments, config, seed)[0]
        for key, value in truth.items():
            held[key] += result[key][1] <= value <= result[key][2]
    for key, count in held.items():
        print("       %-28s %.3f" % (" ".join(key), count / arguments.runs), flush=True)
    for key, count in held.items():
        share = count / arguments.runs
        tables.check(0.93 <= share <= 0.97, "%s is covered in %.3f of the runs" % (key, share))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mpo", type=os.path.abspath)
    parser.add_argument("work", type=os.path.abspath)
    parser.add_argument("--runs", type=int, default=0)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    cases = [figures_are_within_their_standard_errors, differences_are_paired,
             one_seed_gives_one_answer, a_mode_that_is_never_drawn_is_found,
             identical_policies_have_no_distance, intervals_hold_their_estimates]
    if arguments.runs > 0:
        cases = [intervals_cover_the_truth]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
