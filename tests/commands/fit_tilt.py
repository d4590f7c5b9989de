#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The end tilt of whole fits (estimator.target: whole) against exact recursions.

    fit_tilt.py MPO MPIRUN WORK

What the mixture of whole responses wants of the ends is a sum over the states of bigram
policies, so the tilt at which as much ends as it wants is known, as is F.
"""

import argparse
import os
import shutil
import sys

import h5py
import numpy as np

import tables
from records import data_sets, same

VOCAB = 6
MAX_TOKENS = 16
PROMPTS = ("a", "b")
STARTS = (0, 1)
SAID = "the end tilt begins at"


def options(**rollout):
    return {"rollout": {"responses": 16, "max_tokens": MAX_TOKENS, **rollout},
            "estimator": {"target": "whole"}, "descent": {"steps": 20},
            "record": {"hash_models": "false"}}


def fit(arguments, folder, config, *flags, ranks=1):
    """(data sets, talk) of a fit."""
    record = os.path.join(folder, "out.h5")
    if os.path.exists(record) and "--resume" not in flags:
        os.remove(record)
    _, said = tables.run_ranks(arguments.mpirun, ranks, [
        arguments.mpo, "fit", config, "--record.file=" + record, *flags])
    with h5py.File(record, "r") as file:
        data = {name: file[name][()] for name in ("end_bias", "value", "weights", "ess")}
    return data, said


def hidden_world(count, end):
    """Policies over count tokens and a rare end: each takes another token for the likely one,
    so that the whole mixture ends at once, and no response that is drawn without a tilt does."""
    rows = np.full((count, count + 1), 0.1 / (count - 1))
    rows[np.arange(count), np.arange(count)] = 0.9
    rows[:, -1] = end
    rows[:, :-1] *= (1.0 - end) / rows[:, :-1].sum(axis=1, keepdims=True)
    return np.repeat(rows[:, None, :], count + 2, axis=1)


def exact_tilt(exact, weights):
    """b at which q_b ends as much as the whole mixture wants, over its own states."""
    log_z = exact.backward(weights)
    states = exact.log_policy.shape[1]
    occupied = np.zeros((exact.max_tokens, states))
    now = np.bincount(exact.starts, minlength=states) / len(exact.starts)
    ended = 0.0
    for t in range(exact.max_tokens):
        occupied[t] = now
        chosen = np.exp(exact.scores(weights, log_z[t + 1]) - log_z[t][:, None])
        mass = now[:, None] * chosen
        ended += mass[:, -1].sum()
        now = np.append(mass.sum(axis=0), 0.0)
        now[-2] = 0.0
    low, high = -100.0, 100.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        ends = np.exp(tables.proposal_rows(exact.log_policy, weights, middle)[:, -1])
        low, high = (middle, high) if (occupied @ ends).sum() < ended else (low, middle)
    return low


def tilt_begins_where_the_whole_mixture_wants_it(arguments):
    """16 rows of two prompts, in worlds whose ends are common and rare."""
    for seed, end_logit in ((1, 0.0), (2, -2.0), (3, -5.0), (4, -8.0), (5, 3.0)):
        table = tables.random_tables(seed, 3, VOCAB, 1.0, end_logit)
        exact = tables.Exact(tables.log_policies(table), STARTS, MAX_TOKENS)
        folder = os.path.join(arguments.work, "begin%d" % seed)
        config = tables.write_config(folder, table, PROMPTS, options())
        data, said = fit(arguments, folder, config, "--descent.steps=1")
        truth = exact_tilt(exact, data["weights"][0])
        print("       end %+g: tilt %.3f, exactly %.3f; F %.3f" % (
            end_logit, data["end_bias"][0], truth, exact.value(data["weights"][0])), flush=True)
        tables.check(abs(data["end_bias"][0] - truth) < 0.15, "b is %g" % data["end_bias"][0])
        tables.check(said.count(SAID) == 1 and "2 prompts x 16 rows" in said, said)


def a_mode_that_is_never_drawn_is_fitted(arguments):
    for count, end in ((2, 1e-5), (3, np.exp(-10.0)), (3, np.exp(-12.0))):
        table = hidden_world(count, end)
        folder = os.path.join(arguments.work, "hidden%d_%g" % (count, end))
        config = tables.write_config(folder, table, ["a"], options(max_tokens=64))
        exact = tables.Exact(tables.log_policies(table), [0], 64)
        data, _ = fit(arguments, folder, config)
        truth = np.array([exact.value(weights) for weights in data["weights"]])
        off = data["value"] - truth
        z = abs(off.mean()) / (off.std(ddof=1) / np.sqrt(len(off)))
        print("       K = %d: F %.3f, exactly %.3f, z %.1f; ESS at least %.2f" % (
            count, data["value"].mean(), truth.mean(), z, data["ess"].min()), flush=True)
        tables.check(abs(data["value"][0] - truth[0]) < 1e-3, "F begins at %g" % data["value"][0])
        tables.check(np.abs(off).max() < 1.0 and z < 4.0, "F is off by %s" % off)


def identical_policies_have_no_tilt(arguments):
    table = np.repeat(tables.random_tables(4, 1, VOCAB, 1.0), 3, axis=0)
    folder = os.path.join(arguments.work, "identical")
    config = tables.write_config(folder, table, PROMPTS, options())
    data, _ = fit(arguments, folder, config)
    tables.check(np.abs(data["end_bias"]).max() < 1e-9, "tilted by %s" % data["end_bias"])
    tables.check(np.abs(data["value"]).max() < 1e-9, "F is %s" % data["value"])


def a_tilt_that_does_not_adapt_has_no_warm_up(arguments):
    table = tables.random_tables(1, 3, VOCAB, 1.0)
    folder = os.path.join(arguments.work, "held")
    config = tables.write_config(folder, list(table) + [table.mean(axis=0)], PROMPTS,
                                 options(), roles=["objective"] * 3 + ["reference"])
    for flags, held in ((["--rollout.end_bias=0.7"], 0.7), (["--estimator.target=served"], 0.0),
                        (["--estimator.target=served", "--rollout.end_bias=-0.3"], -0.3),
                        (["--rollout.proposal=reference"], 0.0)):
        data, said = fit(arguments, folder, config, *flags)
        tables.check(SAID not in said and (data["end_bias"] == held).all(),
                     "%s: %s\n%s" % (flags, data["end_bias"], said))


def the_warm_up_is_the_same_on_any_ranks(arguments):
    """And whatever rows there are at once: of one prompt and of five."""
    table = tables.random_tables(5, 3, VOCAB, 1.0, -3.0)
    for name, prompts, rollout in (
            ("one", ["a"], {"responses": 1}), ("few", ["a", "b", "a b"], {"responses": 3}),
            ("units", ["a", "b", "c", "d", "e"],
             {"responses": 8, "prompts_per_step": 4, "unit_prompts": 4})):
        folder = os.path.join(arguments.work, "ranks_" + name)
        config = tables.write_config(folder, table, prompts, options(**rollout))
        kept = None
        for ranks in (1, 2, 3, 6):
            figures, said = fit(arguments, folder, config, ranks=ranks)
            tables.check(figures["end_bias"][0] != 0.0, "no tilt")
            data = data_sets(os.path.join(folder, "out.h5"))
            kept = kept or data
            tables.check(said.count(SAID) == 1, said)
            tables.check("%d prompt" % min(len(prompts), 4) in said, said)
            same(kept, data, "%s on %d ranks" % (name, ranks))


def a_resumed_fit_goes_on_with_its_tilt(arguments):
    table = tables.random_tables(5, 3, VOCAB, 1.0, -3.0)
    folder = os.path.join(arguments.work, "resumed")
    config = tables.write_config(folder, table, PROMPTS, options())
    path = os.path.join(folder, "out.h5")
    fit(arguments, folder, config)
    whole = data_sets(path)
    fit(arguments, folder, config, "--descent.steps=7")
    _, said = fit(arguments, folder, config, "--resume", ranks=3)
    tables.check(SAID not in said, said)
    same(whole, data_sets(path), "resumed")


def warnings_of(said):
    return [line for line in said.splitlines() if line.startswith("warning: ")]


def what_is_not_known_is_said(arguments):
    folder = os.path.join(arguments.work, "hidden_warned")
    config = tables.write_config(folder, hidden_world(2, 1e-5), PROMPTS, options(max_tokens=64))
    _, said = fit(arguments, folder, config)
    tables.check(any("nearly always ends at once" in line for line in warnings_of(said)), said)
    tables.check("+-" not in [line for line in said.splitlines() if "step    1/" in line][0], said)
    out, _ = tables.run([arguments.mpo, "fit", config, "--estimator.target=served",
                         "--record.file=" + os.path.join(folder, "served.h5")])
    diagnostic = out.split("of the draws")[1].splitlines()[0]
    tables.check("drawn ends do not certify it" in out and "+-" not in diagnostic, out)
    _, said = fit(arguments, folder, config, "--rollout.prompts_per_step=2")
    tables.check("+-" in [line for line in said.splitlines() if "step    1/" in line][0], said)

    folder = os.path.join(arguments.work, "apart")
    config = tables.write_config(folder, tables.random_tables(2, 3, VOCAB, 3.0, -3.0), PROMPTS,
                                 options(max_tokens=64))
    _, said = fit(arguments, folder, config, "--rollout.end_bias=0")
    tables.check(any("nothing is known" in line for line in warnings_of(said))
                 and any("half of the responses" in line for line in warnings_of(said)), said)
    out, said = tables.run([arguments.mpo, "fit", config, "--estimator.target=served",
                            "--record.file=" + os.path.join(folder, "served.h5")])
    tables.check([line for line in warnings_of(said) if "were cut" not in line] == []
                 and "unknown:" in out, said + out)


def what_is_known_is_not_warned_of(arguments):
    """Policies that agree, with two responses to a prompt; a warning by size, not by share."""
    folder = os.path.join(arguments.work, "agree")
    table = tables.random_tables(4, 1, VOCAB, 1.0)
    near = table * np.exp(0.05 * np.random.Generator(np.random.Philox(1)).standard_normal(
        (2,) + table.shape[1:]))
    config = tables.write_config(folder, near / near.sum(axis=2, keepdims=True), PROMPTS,
                                 options(responses=2))
    _, said = fit(arguments, folder, config)
    tables.check(not warnings_of(said), said)
    _, said = fit(arguments, folder, config, "--rollout.responses=1")
    tables.check(any("one response" in line for line in warnings_of(said)), said)


def a_negative_exponent_is_warned_of_at_the_start(arguments):
    table = tables.random_tables(1, 3, VOCAB, 0.3)
    folder = os.path.join(arguments.work, "negative")
    config = tables.write_config(folder, list(table) + [table.mean(axis=0)], PROMPTS,
                                 options(), roles=["objective"] * 3 + ["reference"])
    for flags, falls in ((["--rollout.strength=1.5"], True), (["--rollout.strength=0.9"], False),
                         (["--policies.policy1.scale=1.2"], True), ([], False),
                         (["--rollout.strength=1.5", "--estimator.target=served"], False)):
        _, said = fit(arguments, folder, config, "--descent.steps=2", *flags)
        found = [line for line in warnings_of(said) if "exponent" in line]
        tables.check(len(found) == falls, "%s: %s" % (flags, said))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mpo", type=os.path.abspath)
    parser.add_argument("mpirun")
    parser.add_argument("work", type=os.path.abspath)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    cases = [tilt_begins_where_the_whole_mixture_wants_it,
             a_mode_that_is_never_drawn_is_fitted,
             identical_policies_have_no_tilt,
             a_tilt_that_does_not_adapt_has_no_warm_up,
             the_warm_up_is_the_same_on_any_ranks,
             a_resumed_fit_goes_on_with_its_tilt,
             what_is_not_known_is_said,
             what_is_known_is_not_warned_of,
             a_negative_exponent_is_warned_of_at_the_start]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
