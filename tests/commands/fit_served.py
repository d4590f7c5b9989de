#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fits of what is served (estimator.target: served) against exact recursions.

    fit_served.py MPO MPIRUN WORK [--seeds N]

Bigram policies of six tokens, responses of up to 16. What is drawn from is a Markov chain, so
E_q log pi_k and KL(q || pi_k) follow from a forward recursion, and the weights at which they
are equal from Newton's method. Seeds are fixed, so a run passes or fails for good.
"""

import json
import os
import sys

import h5py
import numpy as np

import tables

VOCAB = 6
MAX_TOKENS = 16
STARTS = (0, 1)
PROMPTS = ("a", "b")
STEPS = 62

# Of the largest component of the weights, 62 steps of 16 responses, median over seeds.
NEAR_EQUALISER = 0.05
# Standard errors that an unbiased mean may be off.
Z_BOUND = 4.0


def log(message):
    print("      ", message, flush=True)


def options(estimator=None, **descent):
    return {"rollout": {"responses": 16, "max_tokens": MAX_TOKENS},
            "estimator": {"target": "served", **(estimator or {})},
            "descent": {"steps": STEPS, "average": "linear", **descent},
            "record": {"hash_models": "false"}}


def fit(arguments, folder, config, seed, *more):
    record = os.path.join(folder, "seed%d.h5" % seed)
    tables.run([arguments.mpo, "fit", config, "--run.seed=%d" % seed, "--quiet",
                "--record.file=" + record, *more])
    return record


def worlds(policy_count, wanted, strength=1.0, scale=None):
    """Worlds in which all starts come to one equaliser, inside the simplex and away from equal
    weights. With scales the last table is a reference that the others are near to."""
    found = []
    for seed in range(1, 100):
        table = tables.random_tables(seed, policy_count, VOCAB, 1.0)
        if scale is not None:
            mean = np.exp(np.log(table).mean(axis=0))
            table = np.append(table, mean[None] / mean.sum(axis=1)[None, :, None], axis=0)
        exact = tables.Exact(tables.log_policies(table), STARTS, MAX_TOKENS)
        generator = np.random.Generator(np.random.Philox(seed))
        starts = generator.dirichlet(np.full(policy_count, 3.0), 10)
        points = [exact.equaliser(start, strength, scale) for start in starts]
        if any(point is None for point in points):
            continue
        spread = max(np.abs(point - points[0]).max() for point in points)
        away = np.abs(points[0] - 1.0 / policy_count).max()
        if spread < 1e-6 and points[0].min() > 0.05 and away > 0.02:
            found.append((table, exact, points[0]))
        if len(found) == wanted:
            return found
    raise AssertionError("too few worlds have one equaliser")


def gradient_and_divergence_are_those_of_what_is_drawn(arguments):
    """At weights that hardly move: means over 400 steps within Z_BOUND standard errors."""
    table = tables.random_tables(11, 3, VOCAB, 1.0)
    exact = tables.Exact(tables.log_policies(table), STARTS, MAX_TOKENS)
    initial = np.array([0.2, 0.5, 0.3])
    folder = os.path.join(arguments.work, "held")
    config = tables.write_config(folder, table, PROMPTS, options(
        steps=400, step_rule="fixed", step_constant="1e-9",
        initial="[%s]" % ", ".join("%g" % weight for weight in initial)))
    scores, divergence = exact.served(initial)
    for control in ("0", "auto"):
        path = fit(arguments, folder, config, 1, "--force", "--rollout.control=" + control)
        with h5py.File(path, "r") as record:
            data = {name: record[name][()] for name in ("weights", "gradient", "divergence",
                                                        "end_bias")}
        tables.check(np.abs(data["weights"] - initial).max() < 1e-6, "the weights moved")
        tables.check((data["end_bias"] == 0.0).all(), "what is served has a tilt")
        tables.check((data["divergence"] > -1e-12).all(), "a divergence below 0")
        for name, truth in (("gradient", scores), ("divergence", divergence)):
            values = data[name]
            error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
            z = np.abs((values.mean(axis=0) - truth) / error).max()
            log("%s, control %s: %s, exactly %s, z %.1f" % (
                name, control, np.round(values.mean(axis=0), 3), np.round(truth, 3), z))
            tables.check(z < Z_BOUND, "/%s is %g standard errors off" % (name, z))


def control_variate_lowers_the_variance(arguments):
    """Of the differences of the gradient, which are what moves weights."""
    table = tables.random_tables(11, 3, VOCAB, 1.0)
    folder = os.path.join(arguments.work, "control")
    config = tables.write_config(folder, table, PROMPTS, options(
        steps=400, step_rule="fixed", step_constant="1e-9"))
    variance = []
    for seed, control in ((1, "0"), (2, "auto")):
        path = fit(arguments, folder, config, seed, "--rollout.control=" + control)
        with h5py.File(path, "r") as record:
            gradient = record["gradient"][()]
        prompt_mean = gradient - gradient.mean(axis=1, keepdims=True)
        variance.append(prompt_mean.var(axis=0, ddof=1).sum())
    factor = variance[0] / variance[1]
    log("variance without over with: %.2f" % factor)
    tables.check(factor > 1.5, "the control variate changes the variance by %g" % factor)


def fits_come_close_to_the_exact_equaliser(arguments):
    for policy_count in (2, 3, 5) if arguments.seeds > 20 else (2, 3):
        for number, (table, exact, equaliser) in enumerate(worlds(policy_count, 3)):
            folder = os.path.join(arguments.work, "world%d_%d" % (policy_count, number))
            config = tables.write_config(folder, table, PROMPTS, options())
            off = []
            for seed in range(1, arguments.seeds + 1):
                with h5py.File(fit(arguments, folder, config, seed), "r") as record:
                    off.append(np.abs(record["average"][-1] - equaliser).max())
            uniform = np.abs(equaliser - 1.0 / policy_count).max()
            log("K = %d, at %s: median %.3f, worst %.3f off; uniform weights %.3f" % (
                policy_count, np.round(equaliser, 3), np.median(off), max(off), uniform))
            tables.check(np.median(off) <= NEAR_EQUALISER, "median %g" % np.median(off))
            _, divergence = exact.served(equaliser)
            tables.check(np.ptp(divergence) < 1e-8, "no equaliser: %s" % divergence)


def strength_and_scales_are_in_the_exponents(arguments):
    """A fit with a reference comes to the equaliser of a_k E_q log(pi_k / pi_ref), its record
    keeps what the exponents are made of, and generate and score use that."""
    for strength, scale in ((1.5, [1.0, 1.0, 1.0]), (2.0, [1.0, 1.0]), (1.0, [1.0, 0.6])):
        scale = np.array(scale)
        count = len(scale)
        table, exact, equaliser = worlds(count, 1, strength, scale)[0]
        folder = os.path.join(arguments.work, "strength%g_%d" % (strength, count))
        config = tables.write_config(
            folder, table, PROMPTS, {**options(), "rollout": {
                "responses": 16, "max_tokens": MAX_TOKENS, "strength": strength}},
            roles=["objective"] * count + ["reference"])
        flags = ["--policies.policy%d.scale=%g" % (k, a) for k, a in enumerate(scale)]
        off = []
        for seed in range(1, arguments.seeds // 2 + 1):
            path = fit(arguments, folder, config, seed, *flags)
            with h5py.File(path, "r") as record:
                off.append(np.abs(record["average"][-1] - equaliser).max())
                average = record["average"][-1]
                kept = (float(record.attrs["strength"]), record["scale"][()])
        log("A = %g, a = %s, at %s: median %.3f, worst %.3f off" % (
            strength, scale, np.round(equaliser, 3), np.median(off), max(off)))
        tables.check(np.median(off) <= NEAR_EQUALISER, "median %g" % np.median(off))
        tables.check(kept[0] == strength and (kept[1] == scale).all(), "recorded %s" % (kept,))
        rows = tables.proposal_rows(exact.log_policy,
                                    tables.exponents_of(average, strength, scale), 0.0)
        check_generated(arguments, config, ["--weights", path], rows)
        rows = tables.proposal_rows(exact.log_policy,
                                    tables.exponents_of(average, 1.2, scale), 0.0)
        check_generated(arguments, config, ["--weights", path, "--strength=1.2"], rows)
        check_evaluated(arguments, config, path, exact, (average, strength, scale))


def check_evaluated(arguments, config, path, exact, recipe):
    """evaluate takes weights, strength and scales from the record, and --strength before it."""
    average, strength, scale = recipe
    for flags, used in (([], strength), (["--strength=1.2"], 1.2)):
        out, _ = tables.run([arguments.mpo, "evaluate", config, "--weights", path, *flags,
                             "--format=json", "--replicates=100", "--responses=64"])
        vector = json.loads(out)["vectors"][0]
        truth = exact.served_scores(average, used, scale)
        tables.check(vector["strength"] == used, "%s" % vector["strength"])
        tables.check(list(vector["scale"].values()) == list(scale), "%s" % vector["scale"])
        tables.check(np.allclose(list(vector["exponents"].values()), tables.exponents_of(
            average, used, scale), atol=1e-12), "%s" % vector["exponents"])
        for k, value in enumerate(truth):
            row = [row for row in vector["results"] if row["quantity"] == "served_score"][k]
            tables.check(abs(row["estimate"] - value) < 0.1, "%s, exactly %g" % (row, value))


def check_generated(arguments, config, options, rows):
    """log_mixture of every line is that of the rows; score says the same."""
    names = {name: v for v, name in enumerate(tables.token_names(VOCAB))}
    out, _ = tables.run([arguments.mpo, "generate", config, *options, "--n=8",
                         "--format=jsonl", "--quiet"])
    lines = [json.loads(line) for line in out.splitlines()]
    path = os.path.join(os.path.dirname(config), "drawn.jsonl")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(out)
    scored, _ = tables.run([arguments.mpo, "score", config, *options, "--input", path,
                            "--quiet"])
    for line, again in zip(lines, map(json.loads, scored.splitlines())):
        token = [names[text] for text in line["response"].split()] + [VOCAB - 1] * line["ended"]
        truth = tables.log_response(rows, STARTS[line["prompt_index"]], np.array(token, int))
        for figure in (line["log_mixture"], again["log_mixture"]):
            tables.check(abs(figure - truth) < 1e-10, "log q is %g, not %g" % (figure, truth))


def exponents_without_a_reference_are_refused(arguments):
    folder = os.path.join(arguments.work, "no_reference")
    table = tables.random_tables(6, 2, VOCAB, 1.0)
    config = tables.write_config(folder, table, PROMPTS, options())
    for option, word in (("--rollout.strength=1.5", "strength"),
                         ("--policies.policy1.scale=0.5", "scale")):
        _, said = tables.run([arguments.mpo, "fit", config, option], expect=78)
        tables.check(word in said and "reference" in said, said)
    _, said = tables.run([arguments.mpo, "generate", config, "--weights=uniform",
                          "--strength=2"], expect=78)
    tables.check("reference" in said, said)


def figures_of_a_record_fit_together(arguments):
    """Average and imbalance with omega = t, the gradient and the divergence of a step as they
    follow from the responses."""
    folder = os.path.join(arguments.work, "figures")
    table = tables.random_tables(4, 3, VOCAB, 1.0)
    config = tables.write_config(folder, table, PROMPTS, options())
    with h5py.File(fit(arguments, folder, config, 2), "r") as record:
        data = {name: record[name][()] for name in (
            "weights", "gradient", "average", "averaged_gap", "control", "log_policy",
            "state/coefficient", "state/inner_sum", "state/gradient_sum")}
        log_policy = record["responses/log_policy"][()].reshape(STEPS, 16, 3)
        attributes = dict(record.attrs)
    tables.check(attributes["target"] == "served" and attributes["average"] == "linear",
                 "the record does not say what it was fitted for")
    omega = np.arange(1.0, STEPS + 1.0)
    total = np.cumsum(omega)
    average = np.cumsum(omega[:, None] * data["weights"], axis=0) / total[:, None]
    inner = np.cumsum(omega * (data["weights"] * data["gradient"]).sum(axis=1))
    sums = np.cumsum(omega[:, None] * data["gradient"], axis=0)
    mean = log_policy.mean(axis=1)
    gradient = mean - data["state/coefficient"][:, None] * data["control"]
    for name, truth in (("average", average), ("state/inner_sum", inner),
                        ("averaged_gap", (inner - sums.min(axis=1)) / total),
                        ("state/gradient_sum", sums), ("log_policy", mean),
                        ("gradient", gradient)):
        off = np.abs(data[name] - truth).max()
        tables.check(off <= 1e-8, "/%s is off by %g" % (name, off))


def any_number_of_ranks_gives_the_same_bytes(arguments):
    folder = os.path.join(arguments.work, "ranks")
    table = tables.random_tables(5, 3, VOCAB, 1.0)
    config = tables.write_config(folder, table, PROMPTS, options(steps=20))
    kept = {}
    for ranks in (1, 2, 3, 6):
        path = os.path.join(folder, "%d.h5" % ranks)
        tables.run_ranks(arguments.mpirun, ranks, [
            arguments.mpo, "fit", config, "--quiet", "--record.file=" + path])
        with h5py.File(path, "r") as record:
            kept[ranks] = {name: record[name][()].tobytes() for name in (
                "responses/token", "responses/log_policy", "weights", "gradient", "average",
                "divergence", "averaged_gap", "value")}
        for name, data in kept[ranks].items():
            tables.check(data == kept[1][name], "/%s on %d ranks" % (name, ranks))


def a_resumed_fit_is_that_of_one_piece(arguments):
    folder = os.path.join(arguments.work, "resumed")
    table = tables.random_tables(6, 3, VOCAB, 1.0)
    config = tables.write_config(folder, table, PROMPTS, options())
    whole = fit(arguments, folder, config, 1)
    parts = os.path.join(folder, "parts.h5")
    output = []
    for more in (["--descent.steps=20"], ["--resume"]):
        output.append(tables.run([arguments.mpo, "fit", config, "--quiet", "--json",
                                  "--record.file=" + parts, *more])[0])
    with h5py.File(whole, "r") as one, h5py.File(parts, "r") as other:
        for name in ("weights", "gradient", "average", "divergence", "dual", "averaged_gap",
                     "responses/token"):
            tables.check(one[name][()].tobytes() == other[name][()].tobytes(), "/" + name)


def what_has_no_meaning_is_refused(arguments):
    folder = os.path.join(arguments.work, "refused")
    table = tables.random_tables(6, 3, VOCAB, 1.0)
    config = tables.write_config(folder, list(table) + [table.mean(axis=0)], PROMPTS,
                                 options(), roles=["objective"] * 3 + ["reference"])
    _, said = tables.run([arguments.mpo, "fit", config, "--rollout.proposal=reference"], expect=78)
    tables.check("proposal" in said and "served" in said, said)
    tables.check(not os.path.exists(os.path.join(folder, "mpo.h5")), "a record was left")


def main():
    arguments = tables.fit_arguments(__doc__, 20)
    cases = [gradient_and_divergence_are_those_of_what_is_drawn,
             control_variate_lowers_the_variance,
             fits_come_close_to_the_exact_equaliser,
             strength_and_scales_are_in_the_exponents,
             exponents_without_a_reference_are_refused,
             figures_of_a_record_fit_together,
             any_number_of_ranks_gives_the_same_bytes,
             a_resumed_fit_is_that_of_one_piece,
             what_has_no_meaning_is_refused]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
