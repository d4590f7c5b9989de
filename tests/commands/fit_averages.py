#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The descent with exact gradients, and fits that follow it.

    fit_averages.py MPO WORK [--long]

The descent of the program (adaptive dual averaging, linear or uniform average) is written out
a second time here, so what it makes of exact gradients is known: how much an average loses,
how balanced the output is, and where fits with many responses have to be.
"""

import argparse
import os
import shutil
import sys

import h5py
import numpy as np

import fit_served
import tables

STARTS = fit_served.STARTS
MAX_TOKENS = fit_served.MAX_TOKENS
VOCAB = fit_served.VOCAB
STEPS = 62
# Of the linear average's median excess over the uniform's; 0.34 to 0.45 measured.
LESS_EXCESS = 0.5
# Largest difference of a weight from the exact descent of the same steps.
NEAR_DESCENT = 0.02
# Imbalance after 400 exact steps, nat.
BALANCED = {2: 0.05, 3: 0.05, 5: 0.1}
# Of the runs whose averaged gap is at least the excess.
COVERED = 0.95


def descend(gradient, count, steps, linear=True):
    """(average, averaged gap) of weights on which gradient(weights) is taken."""
    weights = np.full(count, 1.0 / count)
    dual, weights_sum = np.zeros(count), np.zeros(count)
    squares = inner = omega_sum = 0.0
    for step in range(1, steps + 1):
        g = gradient(weights)
        omega = step if linear else 1.0
        squares += (omega * np.ptp(g) / 2.0)**2
        dual += omega * g
        weights_sum += omega * weights
        inner += omega * weights @ g
        omega_sum += omega
        point = -np.sqrt(np.log(count) / squares) * dual if squares > 0.0 else np.zeros(count)
        weights = np.exp(point - point.max())
        weights /= weights.sum()
    return weights_sum / omega_sum, (inner - dual.min()) / omega_sum


def least_value(exact, count):
    """F* to 1e-4 nat: mass moves to where the gradient is least."""
    weights = np.full(count, 1.0 / count)
    for _ in range(200):
        gradient = exact.gradient(weights)
        if weights @ gradient - gradient.min() < 1e-4:
            break
        best = int(np.argmin(gradient))
        worst = int(np.argmax(np.where(weights > 0.0, gradient, -np.inf)))
        weights = exact.move(weights, worst, best, halvings=18)
    return exact.value(weights)


def a_linear_average_forgets_the_start(arguments):
    """K = 8, exact gradients: its median excess is below half of the uniform average's, and
    no average is worse than its gap says."""
    lengths, seeds = ((16, 64, 256), 6) if arguments.long else ((16,), 3)
    for spread, end_logit in ((1.0, -5.0), (2.0, 0.0))[:2 if arguments.long else 1]:
        for length in lengths:
            found = []
            for seed in range(1, seeds + 1):
                table = tables.random_tables(seed, 8, VOCAB, spread, end_logit)
                exact = tables.Exact(tables.log_policies(table), STARTS, length)
                least = least_value(exact, 8)
                row = []
                for linear in (False, True):
                    average, gap = descend(exact.gradient, 8, STEPS, linear)
                    excess = exact.value(average) - least
                    tables.check(gap >= excess, "a gap of %g, an excess of %g" % (gap, excess))
                    row.append(excess)
                found.append(row)
            uniform, linear = np.median(found, axis=0)
            print("       spread %g, L = %d: excess %.4f uniform, %.4f linear, %.2f of it" % (
                spread, length, uniform, linear, linear / uniform), flush=True)
            tables.check(linear <= LESS_EXCESS * uniform, "%g of the uniform's" % (linear / uniform))


def the_gap_covers_the_excess(arguments):
    """Of whole fits of K = 8, 62 x 16 responses, with rare ends."""
    for length in (16, 64, 256) if arguments.long else (16,):
        table = tables.random_tables(1, 8, VOCAB, 1.0, -3.0)
        exact = tables.Exact(tables.log_policies(table), STARTS, length)
        least = least_value(exact, 8)
        folder = os.path.join(arguments.work, "gap%d" % length)
        config = tables.write_config(folder, table, ("a", "b"), {
            "rollout": {"responses": 16, "max_tokens": length}, "estimator": {"target": "whole"},
            "record": {"hash_models": "false", "responses": "false"}})
        runs, covered, found = (200 if arguments.long else 6), 0, []
        for seed in range(1, runs + 1):
            path = os.path.join(folder, "out.h5")
            tables.run([arguments.mpo, "fit", config, "--quiet", "--record.file=" + path,
                        "--run.seed=%d" % seed])
            with h5py.File(path, "r") as record:
                excess = exact.value(record["average"][-1]) - least
                covered += record["averaged_gap"][-1] >= excess
            found.append(excess)
            os.remove(path)
        print("       L = %d: covered %d of %d, median excess %.4f" % (
            length, covered, runs, np.median(found)), flush=True)
        tables.check(covered >= COVERED * runs, "%d of %d are covered" % (covered, runs))


def fits_follow_the_exact_descent(arguments):
    """16 prompts x 16 responses a step, in worlds with one equaliser; beside it how near to the
    equaliser 62 steps come, and K = 5."""
    for count in (2, 3, 5) if arguments.long else (2, 3):
        for number, (table, exact, equaliser) in enumerate(fit_served.worlds(
                count, 3 if arguments.long else 1)):
            target, _ = descend(exact.served_scores, count, STEPS)
            folder = os.path.join(arguments.work, "follow%d_%d" % (count, number))
            config = tables.write_config(folder, table, ("a", "b") * 8, {
                "rollout": {"responses": 16, "max_tokens": MAX_TOKENS, "prompts_per_step": 16},
                "record": {"hash_models": "false", "responses": "false"}})
            off = []
            for seed in range(1, 6 if arguments.long else 3):
                path = os.path.join(folder, "seed%d.h5" % seed)
                tables.run([arguments.mpo, "fit", config, "--quiet", "--record.file=" + path,
                            "--run.seed=%d" % seed])
                with h5py.File(path, "r") as record:
                    off.append(np.abs(record["average"][-1] - target).max())
            print("       K = %d: %s off the exact descent, which is %.3f off the equaliser" % (
                count, np.round(off, 4), np.abs(target - equaliser).max()), flush=True)
            tables.check(max(off) <= NEAR_DESCENT, "%g off" % max(off))


def the_average_of_exact_steps_is_balanced(arguments):
    """After 400 of them, at A = 1."""
    for count, bound in BALANCED.items():
        for seed in range(1, 7 if arguments.long else 3):
            table = tables.random_tables(seed, count, VOCAB, 1.0)
            exact = tables.Exact(tables.log_policies(table), STARTS, MAX_TOKENS)
            average, _ = descend(exact.served_scores, count, 400)
            scores = exact.served_scores(average)
            imbalance = average @ scores - scores.min()
            print("       K = %d: imbalance %.4f nat" % (count, imbalance), flush=True)
            tables.check(-1e-12 <= imbalance < bound, "%g nat" % imbalance)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mpo", type=os.path.abspath)
    parser.add_argument("work", type=os.path.abspath)
    parser.add_argument("--long", action="store_true")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    cases = [a_linear_average_forgets_the_start,
             the_gap_covers_the_excess,
             fits_follow_the_exact_descent,
             the_average_of_exact_steps_is_balanced]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
