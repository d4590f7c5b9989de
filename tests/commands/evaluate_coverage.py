#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Intervals of `mpo evaluate` against the exact objective of bigram policies.

    evaluate_coverage.py MPO WORK [--runs N]

What the intervals are about is a population of prompts: each run draws its own prompts from
equally likely start tokens, so the prompts are the independent units that the bootstrap
assumes. With N runs of 30 prompts and N of 100 the share of 95 % intervals that hold the
exact F, scores and divergences must be within 0.93 .. 0.97 but for Z standard errors, and that
of the bounds of imbalance and gap at least 0.93. Without, one run of fixed seed must be within
Z standard errors. tests/unit/estimator/test_certificate.c has more worlds and more runs.
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


def results_of(vector):
    """{(quantity, objective): (estimate, low, high)} of one vector of the JSON output."""
    return {(row["quantity"], row.get("objective", "")):
            (row["estimate"], row["low"], row["high"]) for row in vector["results"]}


def evaluate(arguments, config, seed, *flags, prompt_count=PROMPTS):
    """Results of each vector on new prompts."""
    generator = np.random.Generator(np.random.Philox(1000 + seed))
    prompts = os.path.join(os.path.dirname(config), "prompts.txt")
    starts = generator.integers(0, VOCAB - 1, prompt_count)
    with open(prompts, "w", encoding="utf-8") as stream:
        stream.writelines(tables.token_names(VOCAB)[s] + "\n" for s in starts)
    out, _ = tables.run([arguments.mpo, "evaluate", config, "--format=json",
                         "--run.seed=%d" % seed, "--replicates=1000",
                         "--weights=" + ",".join(map(str, WEIGHTS)), *flags])
    return [results_of(vector) for vector in json.loads(out)["vectors"]]


def truth_of(exact, weights, strength=1.0, scale=None, end_bias=0.0):
    """All figures by their definitions; with a scale the last policy is a reference, and what is
    served is tilted."""
    mu = weights if scale is None else tables.exponents_of(weights, strength, scale)
    value = exact.value(mu)
    whole = exact.gradient(mu)
    served, divergence = exact.served(mu, end_bias)
    count = len(weights)
    served_score, score = (
        mean[:count] if scale is None else scale * (mean[:count] - mean[count])
        for mean in (served, whole))
    truth = {("value_jackknife", ""): value,
             ("gap", ""): strength * (weights @ score - score.min()),
             ("imbalance", ""): weights @ served_score - served_score.min()}
    for h in range(len(mu)):
        name = "policy%d" % h
        truth["served_log_policy", name] = served[h]
        truth["served_divergence", name] = divergence[h]
        truth["log_policy", name] = whole[h]
        truth["divergence", name] = mu @ whole - value - whole[h]
        if h < count:
            truth["served_score", name] = served_score[h]
            truth["score", name] = score[h]
    return truth


def check_result(found, truths):
    """Every figure of the truth within Z standard errors of one vector's results."""
    for key, value in truths.items():
        estimate, low, high = found[key]
        print("       %-28s exact %9.4f  found %9.4f [%.4f, %.4f]" % (
            " ".join(key), value, estimate, low, high), flush=True)
        is_bound = key[0] in ("imbalance", "gap")
        error = (high - estimate) / 1.64 if is_bound else (high - low) / 3.92
        tables.check(error > 0 and abs(estimate - value) <= Z * error,
                     "%s is %g, exact %g, standard error %g" % (key, estimate, value, error))
        tables.check(not is_bound or low == 0.0, "%s has a lower end" % (key,))


def figures_are_within_their_standard_errors(arguments):
    config, exact = setting(arguments)
    found = evaluate(arguments, config, 1, "--against=uniform")
    truths = [truth_of(exact, WEIGHTS), truth_of(exact, np.full(3, 1.0 / 3.0))]
    for key in list(truths[0]):
        if key[0] not in ("imbalance", "gap"):
            truths[1][key[0] + "_difference", key[1]] = truths[1][key] - truths[0][key]
    for result, truth in zip(found, truths):
        check_result(result, truth)


def figures_of_a_strength_are_relative_to_the_reference(arguments):
    """Exponents are A a_k l_k, scores relative to the reference, and the gap has A."""
    table = tables.random_tables(5, 3, VOCAB, 0.8)
    scale = np.array([1.0, 0.7])
    weights = np.array([0.4, 0.6])
    exact = tables.Exact(tables.log_policies(table), range(VOCAB - 1), MAX_TOKENS)
    config = tables.write_config(
        os.path.join(arguments.work, "strength"), table, ["a"],
        {"rollout": {"max_tokens": MAX_TOKENS, "strength": 1.6},
         "record": {"hash_models": "false"}}, roles=["objective"] * 2 + ["reference"])
    flags = ["--policies.policy1.scale=0.7", "--weights=0.4,0.6", "--responses=32"]
    for more, strength in (([], 1.6), (["--strength=0.8"], 0.8)):
        found = evaluate(arguments, config, 5, *flags, *more, "--against=policy2")
        check_result(found[0], truth_of(exact, weights, strength, scale))
        alone = found[1]  # the reference
        tables.check(alone["gap", ""][0] is None and alone["imbalance", ""][0] is None
                     and abs(alone["value_jackknife", ""][0]) < 1e-12, "%s" % alone)
    out, _ = tables.run([arguments.mpo, "evaluate", config, *flags])
    tables.check("strength 1.6, exponents: policy0 0.6400 policy1 0.6720 policy2 -0.3120" in out,
                 out)


def what_is_served_is_tilted_and_whole_responses_are_not(arguments):
    """Without and with a reference that has an exponent, against the same recursion; the rows
    and so the figures of the whole mixture are those without a tilt."""
    config, exact = setting(arguments)
    plain = evaluate(arguments, config, 6)[0]
    for tilt in (1.5, -2.0):
        found = evaluate(arguments, config, 6, "--end-bias=%g" % tilt)[0]
        truth = truth_of(exact, WEIGHTS, end_bias=tilt)
        check_result(found, truth)
        for key, result in found.items():
            served = key[0].startswith("served") or key[0] in ("length", "truncated", "imbalance")
            tables.check((result == plain[key]) != served, "%s: %s, without a tilt %s" % (
                key, result, plain[key]))
        lost = abs(found["served_divergence", "policy0"][0] - plain["served_divergence", "policy0"][0])
        tables.check(lost > 0.05, "the tilt moves a divergence by %g alone" % lost)
    table = tables.random_tables(5, 3, VOCAB, 0.8)
    scale = np.array([1.0, 0.7])
    exact = tables.Exact(tables.log_policies(table), range(VOCAB - 1), MAX_TOKENS)
    config = tables.write_config(
        os.path.join(arguments.work, "tilted"), table, ["a"],
        {"rollout": {"max_tokens": MAX_TOKENS, "strength": 1.6},
         "record": {"hash_models": "false"}}, roles=["objective"] * 2 + ["reference"])
    flags = ["--policies.policy1.scale=0.7", "--weights=0.4,0.6", "--responses=32"]
    found = evaluate(arguments, config, 5, *flags, "--end-bias=1")[0]
    check_result(found, truth_of(exact, np.array([0.4, 0.6]), 1.6, scale, 1.0))
    out, _ = tables.run([arguments.mpo, "evaluate", config, *flags, "--end-bias=1"])
    tables.check("served with an end tilt of +1.0000 nat" in out, out)


def differences_are_paired(arguments):
    """The interval of a difference is shorter than unpaired ones would make it."""
    config, _ = setting(arguments)
    first, second = evaluate(arguments, config, 2, "--against=0.45,0.35,0.2")
    for key in (("value_jackknife", ""), ("length", ""), ("served_divergence", "policy1")):
        width = [result[key][2] - result[key][1] for result in (first, second)]
        estimate, low, high = second[key[0] + "_difference", key[1]]
        tables.check(abs(estimate - (second[key][0] - first[key][0])) < 1e-12,
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


def a_mode_that_no_row_reaches_is_bounded(arguments):
    """Two policies swap a and b and agree after a rare token c: rows hardly ever draw it, all
    agree on a wrong F, and nothing but the wording and the bound is right."""
    swap = [0.9, 0.1 - 1e-5 - 1e-7, 1e-5, 1e-7]
    agreed = [1e-7, 1e-7, 1.0 - 3e-7, 1e-7]
    rows = np.array([[swap, swap, agreed, swap, swap],
                     [[row[1], row[0], *row[2:]] for row in (swap, swap, agreed, swap, swap)]])
    folder = os.path.join(arguments.work, "rare")
    config = tables.write_config(folder, rows, ["a"] * 40, {
        "rollout": {"max_tokens": 64}, "record": {"hash_models": "false"}})
    truth = tables.Exact(tables.log_policies(rows), [0], 64).value(np.full(2, 0.5))
    command = [arguments.mpo, "evaluate", config, "--weights=uniform"]
    found = results_of(json.loads(tables.run([*command, "--format=json"])[0])["vectors"][0])
    _, low, high = found["value_bound", ""]
    print("       F %.2f, ESS %.3f, bounds %.2f and %.2f; exactly %.2f" % (
        found["value", ""][0], found["ess", ""][0], low, high, truth), flush=True)
    tables.check(found["value", ""][0] < truth - 3.0, "a row drew c; take another seed")
    tables.check(low <= truth <= high and high == 0.0, "%g is outside" % truth)
    tables.check("whole responses, as far as these rows reach" in tables.run(command)[0], "")


def check_sound(results, what):
    for (name, objective), (estimate, low, high) in results.items():
        if low is not None and estimate is not None:
            tables.check(low <= estimate and (high is None or estimate <= high),
                         "%s: %s %s is %s in [%s, %s]" % (what, name, objective, estimate, low,
                                                          high))
    tables.check(0.0 < results["ess", ""][0] <= 1.0, "%s: %s" % (what, results["ess", ""]))


def intervals_hold_their_estimates(arguments):
    """Also where weights are no weights, outside of the bounds, or of one policy."""
    config, _ = setting(arguments)
    for flags in (["--weights=-1,1,1", "--allow-any-weights"],
                  ["--weights=0.2,0.2,0.2", "--allow-any-weights"],
                  ["--weights=0.5,0.3,0.2", "--policies.policy0.max=0.4"],
                  ["--weights=1,0,0"], ["--weights=policy2"]):
        out, said = tables.run([arguments.mpo, "evaluate", config, *flags, "--format=json"])
        vector = json.loads(out)["vectors"][0]
        results = results_of(vector)
        check_sound(results, flags)
        tables.check(all(text in said for text in vector["warnings"]), said)
        has_gap = "1,0,0" in flags[0] or "policy" in flags[0]
        tables.check((results["gap", ""][0] is not None) == has_gap
                     and ("no gap" in said) != has_gap, said)
        if has_gap:
            tables.check("are cut" not in said, said)
            tables.check(abs(results["value", ""][0]) < 1e-12, "%s" % (results["value", ""],))


def intervals_are_sound_in_random_worlds(arguments):
    for seed in range(arguments.worlds):
        generator = np.random.Generator(np.random.Philox(7000 + seed))
        count = int(generator.integers(1, 5))
        table = tables.random_tables(seed, count, VOCAB, generator.uniform(0.0, 4.0),
                                     generator.uniform(-5.0, 1.0))
        prompts = ["abcde"[i] for i in generator.integers(0, 5, generator.integers(1, 12))]
        config = tables.write_config(
            os.path.join(arguments.work, "world%d" % seed), table, prompts,
            {"rollout": {"max_tokens": int(generator.integers(1, 20))},
             "record": {"hash_models": "false"}})
        weights = generator.dirichlet(np.ones(count))
        out, said = tables.run([
            arguments.mpo, "evaluate", config, "--format=json", "--replicates=200",
            "--weights=" + ",".join("%.17g" % w for w in weights), "--against=uniform;policy0",
            "--responses=%d" % generator.integers(2, 9)])
        vectors = json.loads(out)["vectors"]
        for vector in vectors:
            results = results_of(vector)
            check_sound(results, "world %d, %s" % (seed, vector["name"]))
            tables.check(results["value_jackknife", ""][0] <= 0.0 and not any(
                results["value_jackknife", ""][i] is not None
                and results["value_jackknife", ""][i] > 0.0 for i in (1, 2)), "F above 0")
        has_intervals = results_of(vectors[0])["length", ""][1] is not None
        tables.check(has_intervals == (len(prompts) > 1), "%d prompts" % len(prompts))
        tables.check(("a single prompt gives no intervals" in said) == (len(prompts) == 1), said)


def what_is_not_known_is_said(arguments):
    """Too few effective rows: no interval of a whole figure; F that still moves; many cuts."""
    table = tables.random_tables(9, 2, VOCAB, 1.0, -4.0)
    config = tables.write_config(
        os.path.join(arguments.work, "unknown"), table, list("abcde") * 8,
        {"rollout": {"max_tokens": 48}, "record": {"hash_models": "false"}})
    out, said = tables.run([arguments.mpo, "evaluate", config, "--weights=0.5,0.5",
                            "--against=2,-1;6,-5", "--allow-any-weights", "--format=json"])
    half, unknown, moving = json.loads(out)["vectors"]
    for vector in (half, unknown, moving):
        results = results_of(vector)
        effective = 16 * results["ess", ""][0]
        print("       %s: %.1f of 16 rows, %s" % (vector["name"], effective, vector["warnings"]))
        told = any("nothing is known" in text for text in vector["warnings"])
        tables.check(told == (effective < 4.0) == (vector is unknown), said)
        for key in (("value", ""), ("value_jackknife", ""), ("ess", ""), ("value_halving", ""),
                    ("divergence", "policy0"), ("score", "policy1")):
            tables.check((results[key][1] is None) == told, "%s %s" % (key, results[key]))
        for key in (("served_score", "policy0"), ("length", ""), ("value_bound", "")):
            tables.check(results[key][1] is not None, "%s %s" % (key, results[key]))
        tables.check(any("are cut" in text for text in vector["warnings"]) == (
            results["truncated", ""][0] > 0.25), "%s: %s" % (results["truncated", ""], said))
        tables.check(any("half of the rows" in text for text in vector["warnings"]) == (
            vector is moving) == (not told and results["value_halving", ""][0] > 0.1), said)
        if vector is not half:
            tables.check((results["value_jackknife_difference", ""][1] is None) == told, said)
            tables.check(results["length_difference", ""][1] is not None, said)


def intervals_cover_the_truth(arguments):
    config, exact = setting(arguments)
    truth = truth_of(exact, WEIGHTS)
    slack = Z * np.sqrt(0.95 * 0.05 / arguments.runs)
    for prompt_count in (30, 100):
        held = {key: 0 for key in truth}
        for seed in range(1, arguments.runs + 1):
            result = evaluate(arguments, config, seed, prompt_count=prompt_count)[0]
            for key, value in truth.items():
                held[key] += result[key][1] <= value <= result[key][2]
        for key, count in held.items():
            share = count / arguments.runs
            print("       %d prompts: %-28s %.3f" % (prompt_count, " ".join(key), share),
                  flush=True)
            most = 1.0 if key[0] in ("gap", "imbalance") else 0.97 + slack
            tables.check(0.93 - slack <= share <= most,
                         "%s is covered in %.3f of the runs" % (key, share))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mpo", type=os.path.abspath)
    parser.add_argument("work", type=os.path.abspath)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--worlds", type=int, default=6)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    cases = [figures_are_within_their_standard_errors, differences_are_paired,
             one_seed_gives_one_answer, a_mode_that_is_never_drawn_is_found,
             identical_policies_have_no_distance, intervals_hold_their_estimates,
             figures_of_a_strength_are_relative_to_the_reference,
             what_is_served_is_tilted_and_whole_responses_are_not,
             a_mode_that_no_row_reaches_is_bounded, intervals_are_sound_in_random_worlds,
             what_is_not_known_is_said]
    if arguments.runs > 0:
        cases = [intervals_cover_the_truth, intervals_are_sound_in_random_worlds]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
