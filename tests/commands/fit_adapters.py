#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fits with rollout.mixture: adapters, in worlds where the sum of adapters is the mixture.

    fit_adapters.py MPO MPIRUN WORK BIGRAM_GGUF_TOOL [--long]

What is drawn from is known in closed form (adapter_worlds.py), so are E_q s_k, KL(q || pi_k) and
the weights at which they are balanced. Seeds are fixed, so a run passes or fails for good;
--long has more of them, both kinds of fits, and both strengths.
"""

import os
import shutil
import sys

import numpy as np

import records
import tables
from adapter_worlds import LIKELY, Arguments, World, fit, responses

# Logits of a float32 model through the engine agree with its table to about 1e-5 a token.
SCORE_BOUND = 1e-4
# Of the largest component of the weights, 62 steps of 16 responses.
NEAR_EQUALISER = 0.05
# Standard errors that an unbiased mean may be off.
Z_BOUND = 4.0
HELD = ("--descent.step_rule=fixed", "--descent.step_constant=1e-9")


def log(message):
    print("      ", message, flush=True)


def find_world(count, reference, strength=1.0):
    """One whose equaliser is inside the simplex and away from equal weights."""
    for seed in range(1, 100):
        world = World(seed, count)
        exact = world.exact(reference)
        scale = np.ones(count) if reference else None
        points = [exact.equaliser(start, strength, scale) for start in
                  np.random.Generator(np.random.Philox(seed)).dirichlet(np.full(count, 3.0), 4)]
        if any(point is None for point in points):
            continue
        spread = max(np.abs(point - points[0]).max() for point in points)
        away = np.abs(points[0] - 1.0 / count).max()
        if spread < 1e-6 and points[0].min() > 0.1 and away > 0.05:
            return world, exact, points[0]
    raise AssertionError("no world has one equaliser")


def check_scores(found, rows, log_policy):
    """log q of every response, and log pi of every policy."""
    scored = zip(found["responses/log_proposal"], found["responses/log_policy"])
    for (start, token), (log_q, log_pi) in zip(responses(found), scored):
        truth = [tables.log_response(table, start, token) for table in (rows, *log_policy)]
        off = np.abs(np.array(truth) - [log_q, *log_pi]).max()
        tables.check(off <= SCORE_BOUND * len(token), "a response is off by %g" % off)


def check_mean(name, values, truth):
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    z = np.abs((values.mean(axis=0) - truth) / error).max()
    log("%s %s, exactly %s, z %.1f" % (name, np.round(values.mean(axis=0), 3),
                                       np.round(truth, 3), z))
    tables.check(z < Z_BOUND, "/%s is %g standard errors off" % (name, z))


def check_first_tokens(found, rows):
    """Their frequencies after each prompt, against q."""
    first = np.array([(start, token[0]) for start, token in responses(found)])
    for start in np.unique(first[:, 0]):
        drawn = first[first[:, 0] == start, 1]
        for token in LIKELY:
            p = np.exp(rows[start, token])
            z = abs((drawn == token).mean() - p) / np.sqrt(p * (1.0 - p) / len(drawn))
            tables.check(z < Z_BOUND, "token %d after %d: z %g" % (token, start, z))


def what_is_drawn_and_scored_is_the_base_with_all_adapters(arguments):
    """At weights that hardly move."""
    world = World(3, 3)
    weights = np.array([0.2, 0.5, 0.3])
    for strength in (1.0, 1.6) if arguments.long else (1.6,):
        folder = arguments.folder("held%g" % strength)
        config = world.write(arguments.tool, folder, reference=True)
        found = fit(arguments, config, folder + "/out.h5", *HELD,
                    "--descent.initial=0.2,0.5,0.3",
                    "--descent.steps=%d" % (60 if arguments.long else 15),
                    "--rollout.strength=%g" % strength)
        exact = world.exact(True)
        rows = world.log_rows(strength * weights)
        check_scores(found, rows, exact.log_policy)
        check_first_tokens(found, rows)
        scores, divergence = exact.served_rows(rows)
        mixed, same = exact.served(tables.exponents_of(weights, strength, np.ones(3)))
        tables.check(np.allclose(scores, mixed) and np.allclose(divergence, same),
                     "the world is no mixture")
        score = scores[:3] - (scores[3] if strength != 1.0 else 0.0)
        check_mean("gradient", found["gradient"], score)
        check_mean("divergence", found["divergence"], divergence[:3])
        tables.check((found["divergence"] > -1e-9).all(), "a divergence below 0")


def the_control_variate_lowers_the_variance(arguments):
    world = World(3, 3)
    folder = arguments.folder("control")
    config = world.write(arguments.tool, folder)
    variance = []
    for control in ("0", "auto"):
        found = fit(arguments, config, folder + "/%s.h5" % control, *HELD,
                    "--descent.steps=%d" % (40 if arguments.long else 8),
                    "--rollout.control=" + control)
        centred = found["gradient"] - found["gradient"].mean(axis=1, keepdims=True)
        variance.append(centred.var(axis=0, ddof=1).sum())
    log("variance without over with: %.2f" % (variance[0] / variance[1]))
    tables.check(variance[0] > 1.5 * variance[1], "%s" % variance)


def fits_of_both_kinds_come_to_the_exact_equaliser(arguments):
    for count, strength in ((3, 1.0), (2, 1.5)) if arguments.long else ((2, 1.5),):
        reference = strength != 1.0
        world, _, equaliser = find_world(count, reference, strength)
        folder = arguments.folder("world%d_%g" % (count, strength))
        config = world.write(arguments.tool, folder, reference=reference)
        for kind in ("adapters", "logits") if arguments.long else ("adapters",):
            off = []
            for seed in range(1, 7 if arguments.long else 2):
                found = fit(arguments, config, folder + "/%s%d.h5" % (kind, seed),
                            "--rollout.mixture=" + kind, "--rollout.strength=%g" % strength,
                            "--run.seed=%d" % seed)
                off.append(np.abs(found["average"][-1] - equaliser).max())
            log("K = %d, A = %g, %s, at %s: %s off" % (
                count, strength, kind, np.round(equaliser, 3), np.round(off, 3)))
            tables.check(max(off) <= NEAR_EQUALISER, "%s off" % off)


def adapters_that_policies_share_have_the_sum_of_their_scales(arguments):
    """p0 = base + D0 + 0.5 D2, p1 = base + D1 - D2 / 4, and a reference with D2 / 2."""
    world = World(7, 3)
    folder = arguments.folder("shared")
    world.write(arguments.tool, folder)
    config = folder + "/shared.yaml"
    shutil.copy(folder + "/2.gguf", folder + "/copy.gguf")
    os.symlink("2.gguf", folder + "/link.gguf")
    head = "{name: %s, model: base.gguf, template: raw, lora: [%s], lora_scale: [%s]%s}"
    policies = [head % ("p0", "0.gguf, 2.gguf", "1, 0.5", ""),
                head % ("p1", "1.gguf, link.gguf", "1, -0.25", ""),
                head % ("sft", "2.gguf", "0.5", ", role: reference")]
    with open(config, "w", encoding="utf-8") as stream:
        stream.write("prompts: {file: prompts.txt}\npolicies:\n")
        stream.write("".join("  - %s\n" % policy for policy in policies))
        stream.write("rollout: {mixture: adapters, strength: 1.5, max_tokens: 12}\n")
    share = np.array([[1, 0, 0.5], [0, 1, -0.25], [0, 0, 0.5]])
    mu = np.array([1.5 * 0.4, 1.5 * 0.6, -0.5])
    found = fit(arguments, config, folder + "/out.h5", *HELD, "--descent.initial=0.4,0.6",
                "--descent.steps=3")
    check_scores(found, world.log_rows(mu @ share), [world.log_rows(row) for row in share])


def any_number_of_ranks_and_threads_writes_the_same_bytes(arguments):
    world = World(5, 3)
    folder = arguments.folder("ranks")
    config = world.write(arguments.tool, folder, reference=True)
    flags = ("--descent.steps=5", "--rollout.prompts_per_step=2", "--rollout.strength=1.4",
             "--rollout.max_tokens=48")
    expected = None
    for ranks, threads in ((1, 1), (1, 2), (2, 1), (3, 1)):
        found = fit(arguments, config, folder + "/%d_%d.h5" % (ranks, threads), *flags,
                    "--run.threads=%d" % threads, ranks=ranks)
        expected = expected or found
        tables.check(found.keys() == expected.keys(), "other data sets")
        for name, value in expected.items():
            tables.check(value.tobytes() == found[name].tobytes(), "%d ranks, %d threads: /%s"
                         % (ranks, threads, name))


def a_resumed_fit_is_that_of_one_piece(arguments):
    folder = arguments.folder("resumed")
    config = World(6, 2).write(arguments.tool, folder)
    whole = fit(arguments, config, folder + "/whole.h5", "--descent.steps=12")
    parts = folder + "/parts.h5"
    fit(arguments, config, parts, "--descent.steps=5")
    fit(arguments, config, parts, "--descent.steps=12", "--resume")
    for name, value in records.values(parts).items():
        tables.check(value.tobytes() == whole[name].tobytes(), "/" + name)
    _, said = tables.run([arguments.mpo, "fit", config, "--record.file=" + parts, "--resume",
                          "--descent.steps=12", "--rollout.mixture=logits"], expect=78)
    tables.check("rollout.mixture" in said, said)


def what_is_no_set_of_adapters_is_refused(arguments):
    world = World(6, 2)
    folder = arguments.folder("refused")
    config = world.write(arguments.tool, folder, reference=True)
    shutil.copy(folder + "/base.gguf", folder + "/same.gguf")
    World(8, 2).write(arguments.tool, folder + "/other")
    for code, flag, words in (
            (78, "--estimator.target=whole", ["whole", "served"]),
            (78, "--rollout.proposal=reference", ["proposal", "served"]),
            (78, "--policies.p1.lora=", ["lora", "'p1'", "logits"]),
            (78, "--policies.p1.kind=table", ["'p1'", "table"]),
            (78, "--policies.p1.system=Be kind.", ["system", "'p0'", "'p1'"]),
            (78, "--policies.p1.request=So: {prompt}", ["request", "'p1'"]),
            (78, "--policies.base.template=chatml", ["template", "'base'"]),
            (78, "--policies.p1.temperature=0.7", ["temperature", "'p1'"]),
            (78, "--exchange.ranks_per_group=2", ["ranks_per_group", "1 or auto"]),
            (65, "--policies.p1.model=%s/other/base.gguf" % folder,
             ["one model", "'p0'", "'p1'", "SHA-256", "logits"])):
        for command in ("fit", "doctor"):
            out, said = tables.run([arguments.mpo, command, config, flag], expect=code)
            for word in words:
                tables.check(word in (out + said).replace("\n         ", " "), out + said)
    tables.check(not os.path.exists(folder + "/mpo.h5"), "a record was left")
    fit(arguments, config, folder + "/same.h5", "--descent.steps=1",
        "--policies.p1.model=%s/same.gguf" % folder)
    out, _ = tables.run([arguments.mpo, "doctor", config])
    tables.check("all, added" in out and "fit would run" in out, out)
    tables.run([arguments.mpo, "launch", config, "--time=1:00:00"])


def main():
    arguments = Arguments(*sys.argv[1:5])
    arguments.long = sys.argv[5:] == ["--long"]
    cases = [what_is_drawn_and_scored_is_the_base_with_all_adapters,
             the_control_variate_lowers_the_variance,
             fits_of_both_kinds_come_to_the_exact_equaliser,
             adapters_that_policies_share_have_the_sum_of_their_scales,
             any_number_of_ranks_and_threads_writes_the_same_bytes,
             a_resumed_fit_is_that_of_one_piece,
             what_is_no_set_of_adapters_is_refused]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
