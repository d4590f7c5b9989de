#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The imbalance at the output of a served fit, and stopping on it, against exact recursions.

    fit_imbalance.py MPO MPIRUN WORK [--seeds N]

What a step says of the gradient at the average, to first order, follows from its responses;
the exact imbalance there from a forward recursion.
"""

import os
import sys

import h5py
import numpy as np

import tables
from records import data_sets, same

VOCAB = 6
MAX_TOKENS = 16
STARTS = (0, 1)
PROMPTS = ("a", "b")
STEPS = 200
STOP = 0.05


def options(**rollout):
    return {"rollout": {"responses": 16, "max_tokens": MAX_TOKENS, **rollout},
            "descent": {"steps": STEPS}, "record": {"hash_models": "false"}}


def imbalance(exact, weights):
    """l . g - min g of what is served, exactly."""
    scores, _ = exact.served(weights)
    return weights @ scores - scores.min()


def world(folder, seed, policy_count=3, spread=1.0, **rollout):
    """(configuration, exact recursion)"""
    table = tables.random_tables(seed, policy_count, VOCAB, spread)
    config = tables.write_config(folder, table, PROMPTS, options(**rollout))
    return config, tables.Exact(tables.log_policies(table), STARTS, MAX_TOKENS)


def fit(arguments, config, record, *flags, ranks=1):
    _, said = tables.run_ranks(arguments.mpirun, ranks, [
        arguments.mpo, "fit", config, "--record.file=" + record, *flags])
    return said


def slopes(record, exact):
    """dg/dl [N, K, K] of each step from its responses: A = 1."""
    weights = record["weights"][()]
    stored = {name: item[()] for name, item in record["responses"].items()}
    found = np.zeros(weights.shape + weights.shape[1:])
    for step, mu in enumerate(weights):
        rows = tables.proposal_rows(exact.log_policy, mu, 0.0)
        moments = np.einsum("sv,ksv->ks", np.exp(rows), exact.log_policy)
        mine = np.flatnonzero(stored["step"] == step)
        control = []
        for i in mine:
            first = stored["token_offset"][i]
            token = stored["token"][first:first + stored["token_count"][i]]
            states = np.concatenate(([STARTS[stored["prompt"][i]]], token[:-1])).astype(int)
            control.append((exact.log_policy[:, states, token] - moments[:, states]).sum(axis=1))
        for prompt in np.unique(stored["prompt"][mine]):
            of_prompt = stored["prompt"][mine] == prompt
            score = stored["log_policy"][mine][of_prompt]
            c = np.array(control)[of_prompt]
            found[step] += (score - score.mean(axis=0)).T @ (c - c.mean(axis=0)) / (
                of_prompt.sum() - 1) / len(np.unique(stored["prompt"][mine]))
    return found


def gradient_at_the_average_follows_from_the_responses(arguments):
    """And so do the imbalance and its error from the last quarter of the steps."""
    folder = os.path.join(arguments.work, "formula")
    config, exact = world(folder, 1, prompts_per_step=2, responses=6)
    path = os.path.join(folder, "out.h5")
    fit(arguments, config, path, "--descent.steps=40")
    with h5py.File(path, "r") as record:
        data = {name: record[name][()] for name in (
            "weights", "average", "gradient", "average_gradient", "imbalance", "imbalance_error")}
        slope = slopes(record, exact)
    moved = data["gradient"] + np.einsum("tkh,th->tk", slope, data["average"] - data["weights"])
    off = np.abs(moved - data["average_gradient"]).max()
    tables.check(off < 1e-9, "/average_gradient is off by %g" % off)
    for n in range(1, 41):
        average, last = data["average"][n - 1], moved[n - max(1, n // 4):n]
        value = average @ last.mean(axis=0) - last.mean(axis=0).min()
        tables.check(abs(value - data["imbalance"][n - 1]) < 1e-9, "/imbalance of step %d" % n)
        if len(last) > 1:
            without = (last.sum(axis=0) - last) / (len(last) - 1)
            each = without @ average - without.min(axis=1)
            error = np.sqrt((len(last) - 1) * each.var())
            tables.check(abs(error - data["imbalance_error"][n - 1]) < 1e-9, "error of %d" % n)


def slope_is_the_derivative_of_the_gradient(arguments):
    """At weights that hardly move: the mean over 300 steps against differences of the exact
    scores, within 4 standard errors."""
    folder = os.path.join(arguments.work, "slope")
    config, exact = world(folder, 2)
    path = os.path.join(folder, "out.h5")
    initial = np.array([0.2, 0.5, 0.3])
    fit(arguments, config, path, "--quiet", "--descent.steps=300", "--descent.step_rule=fixed",
        "--descent.step_constant=1e-9", "--descent.initial=0.2,0.5,0.3")
    with h5py.File(path, "r") as record:
        slope = slopes(record, exact)
        prompt = record["responses/prompt"][()].reshape(300, 16)[:, 0]
    ahead = np.array([(exact.served(initial + 1e-5 * unit)[0] - exact.served(initial - 1e-5 * unit)[0]) / 2e-5
                      for unit in np.eye(3)]).T
    mean = (slope[prompt == 0].mean(axis=0) + slope[prompt == 1].mean(axis=0)) / 2
    error = slope.std(axis=0, ddof=1) / np.sqrt(300)
    print("       slope %s\n       exactly %s" % (np.round(mean, 2).tolist(), np.round(ahead, 2).tolist()),
          flush=True)
    tables.check((np.abs(mean - ahead) / error).max() < 4.0, "off by %s" % (mean - ahead))


def a_fit_stops_when_its_output_is_balanced(arguments):
    """The exact imbalance at the average is then at most stop_gap in nine of ten runs."""
    stopped, within, found = 0, 0, []
    for seed in range(1, arguments.seeds + 1):
        folder = os.path.join(arguments.work, "stop%d" % seed)
        config, exact = world(folder, seed, 2 + seed % 3)
        path = os.path.join(folder, "out.h5")
        said = fit(arguments, config, path, "--descent.stop_gap=%g" % STOP, "--record.responses=false")
        with h5py.File(path, "r") as record:
            steps = len(record["step"])
            truth = imbalance(exact, record["average"][-1])
            bound = record["imbalance"][-1] + record["imbalance_error"][-1]
        tables.check((steps < STEPS) == ("imbalance at the average" in said), said)
        tables.check((steps < STEPS) == (bound <= STOP), "%d steps, %g" % (steps, bound))
        tables.check(steps >= 32, "stopped after %d steps" % steps)
        stopped += steps < STEPS
        within += truth <= STOP
        found.append((steps, round(float(truth), 3)))
    print("       (steps, exact imbalance): %s" % found, flush=True)
    tables.check(stopped >= 0.8 * arguments.seeds, "%d of %d stopped" % (stopped, arguments.seeds))
    tables.check(within >= 0.9 * arguments.seeds, "%d of %d are balanced" % (within, arguments.seeds))


def a_resumed_fit_stops_where_one_of_a_piece_does(arguments):
    folder = os.path.join(arguments.work, "resumed")
    config, _ = world(folder, 1)
    path = os.path.join(folder, "out.h5")
    fit(arguments, config, path, "--descent.stop_gap=%g" % STOP)
    whole = data_sets(path)
    os.remove(path)
    fit(arguments, config, path, "--descent.steps=21")
    said = fit(arguments, config, path, "--resume", "--descent.stop_gap=%g" % STOP,
               "--descent.steps=%d" % STEPS, ranks=3)
    tables.check("stopped after" in said, said)
    same(whole, data_sets(path), "resumed")
    shown, _ = tables.run([arguments.mpo, "inspect", path])
    tables.check("at the average" in shown, shown)


def single_responses_say_nothing_of_an_imbalance(arguments):
    folder = os.path.join(arguments.work, "single")
    config, _ = world(folder, 1, responses=1)
    _, said = tables.run([arguments.mpo, "fit", config, "--descent.stop_gap=0.1"], expect=78)
    tables.check("stop_gap" in said and "rollout.responses" in said, said)
    path = os.path.join(folder, "out.h5")
    fit(arguments, config, path, "--descent.steps=20")
    with h5py.File(path, "r") as record:
        tables.check(np.isnan(record["imbalance"][()]).all(), "an imbalance from nothing")


def main():
    arguments = tables.fit_arguments(__doc__, 10)
    cases = [gradient_at_the_average_follows_from_the_responses,
             slope_is_the_derivative_of_the_gradient,
             a_fit_stops_when_its_output_is_balanced,
             a_resumed_fit_stops_where_one_of_a_piece_does,
             single_responses_say_nothing_of_an_imbalance]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
