#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""evaluate --rewards against exact recursions.

    evaluate_rewards.py MPO MPIRUN WORK

Worlds and rewards are those of fit_rewards.py, the prompts forty lines of its two. Seeds are
fixed, so a run passes or fails for good.
"""

import json
import os
import sys

import h5py
import numpy as np

import fit_rewards
import reward_faults
import tables

MPO, MPIRUN, WORK = os.path.abspath(sys.argv[1]), sys.argv[2], os.path.abspath(sys.argv[3])
SEEDS = 24
COVERED_MIN = 20  # of SEEDS x K intervals of 95 %, in units of SEEDS


def prepare(name, **more):
    world = fit_rewards.worlds(2, 1, True)[0][0]
    folder = os.path.join(WORK, name)
    pids = os.path.join(folder, "pids")
    config, flags = fit_rewards.prepare(folder, world, ("--batch", "--pid", pids), **more)
    with open(os.path.join(folder, "prompts.txt"), "w", encoding="utf-8") as stream:
        stream.write("a\nb\n" * 20)
    for left in (pids, pids + ".fault"):
        if os.path.exists(left):
            os.remove(left)
    return world, folder, config, flags


def evaluate(config, flags, *more, ranks=1, expect=0):
    out, said = tables.run_ranks(MPIRUN, ranks, [
        MPO, "evaluate", config, "--rewards", "--quiet", "--json", *flags, *more], expect=expect)
    return json.loads(out)["vectors"] if expect == 0 else said


def results(vector, name):
    return [result for result in vector["results"] if result["quantity"] == name]


def means_and_intervals_are_those_of_what_is_served():
    world, _, config, flags = prepare("exact")
    weights = np.array([0.3, 0.7])
    exact = {"reward": world.rewards(np.append(weights, 0.0)),
             "normalised_reward": world.served_scores(weights)}
    covered = {name: 0 for name in (*exact, "worst")}
    off = []
    for seed in range(SEEDS):
        vector, = evaluate(config, flags, "--weights=0.3,0.7", "--responses=8",
                           "--run.seed=%d" % seed)
        for name, truth in exact.items():
            found = results(vector, name)
            tables.check([result["objective"] for result in found] == ["policy0", "policy1"],
                         "objectives of " + name)
            covered[name] += sum(result["low"] <= value <= result["high"]
                                 for result, value in zip(found, truth)) / 2
            if name == "reward":
                off.append([result["estimate"] for result in found] - truth)
        worst, = results(vector, "worst_normalised_reward")
        tables.check(worst["high"] is None and worst["low"] < worst["estimate"], worst)
        tables.check(abs(worst["estimate"] - min(
            result["estimate"] for result in results(vector, "normalised_reward"))) < 1e-12, worst)
        covered["worst"] += worst["low"] <= exact["normalised_reward"].min()
    off = np.array(off)
    z = np.abs(off.mean(axis=0) / (off.std(axis=0, ddof=1) / np.sqrt(SEEDS))).max()
    fit_rewards.log("covered of %d: %s, z of the mean %.1f" % (SEEDS, covered, z))
    tables.check(min(covered.values()) >= COVERED_MIN and z < fit_rewards.Z_BOUND, covered)


def rewards_are_those_of_the_tilted_mixture():
    world, _, config, flags = prepare("tilted")
    truth = world.rewards(np.array([0.3, 0.7, 0.0]), -1.5)
    off = np.array([[result["estimate"] for result in results(evaluate(
        config, flags, "--weights=0.3,0.7", "--responses=8", "--end-bias=-1.5",
        "--run.seed=%d" % seed)[0], "reward")] - truth for seed in range(SEEDS)])
    z = np.abs(off.mean(axis=0) / (off.std(axis=0, ddof=1) / np.sqrt(SEEDS))).max()
    plain = world.rewards(np.array([0.3, 0.7, 0.0]))
    fit_rewards.log("tilted %s, without %s, z of the mean %.1f" % (truth, plain, z))
    tables.check(z < fit_rewards.Z_BOUND and np.abs(truth - plain).max() > 0.1, "z = %g" % z)


def the_scale_of_a_record_is_taken_and_vectors_are_paired():
    _, folder, config, flags = prepare("record", given=False)
    record = os.path.join(folder, "fit.h5")
    tables.run([MPO, "fit", config, *flags, "--quiet", "--force", "--record.file=" + record])
    one, other = evaluate(config, flags, "--weights=" + record, "--against=0.9,0.1")
    with h5py.File(record, "r") as file:
        zero, scale = file["reward_zero"][()], file["reward_one"][()] - file["reward_zero"][()]
    for vector in (one, other):
        raw, normalised = (np.array([result["estimate"] for result in results(vector, name)])
                           for name in ("reward", "normalised_reward"))
        tables.check(np.abs((raw - zero) / scale - normalised).max() < 1e-12, "another scale")
    change = results(other, "reward_difference")
    for result, before, after in zip(change, results(one, "reward"), results(other, "reward")):
        tables.check(abs(after["estimate"] - before["estimate"] - result["estimate"]) < 1e-12,
                     result)
        tables.check(result["low"] < result["estimate"] < result["high"], result)
    without, = evaluate(config, flags, "--weights=0.5,0.5")
    tables.check(not results(without, "normalised_reward"), "a scale nobody measured")
    for limit, word in (("1", "no intervals"), ("29", "29 prompts are too few"), ("30", "")):
        _, said = tables.run([MPO, "evaluate", config, "--rewards", *flags, "--quiet",
                              "--limit=" + limit])
        tables.check((word in said) if word else "prompts are too few" not in said, said)
    out, _ = tables.run([MPO, "evaluate", config, "--rewards", *flags, "--weights=" + record])
    tables.check("intervals take zero and one as given" in out, out)
    tables.check("smallest normalised" in out and "at least" in out and "nat" not in out, out)


def any_number_of_ranks_says_the_same():
    _, folder, config, flags = prepare("ranks")
    said = [evaluate(config, flags, "--weights=0.3,0.7", ranks=ranks) for ranks in (1, 2, 3)]
    tables.check(said[0] == said[1] == said[2], "other figures on other ranks")
    reward_faults.check_gone(folder, 3)


def what_cannot_be_measured_ends_it():
    for fault, code, word in (("exit,20", 75, "exit code 3"), ("nan,20", 65, "NaN"),
                              ("stall,20", 75, "late")):
        for ranks in (1, 2):
            def attempt(patience, _):
                _, folder, config, flags = prepare("fault")
                return folder, config, flags, evaluate(config, flags, *patience, ranks=ranks, expect=code)

            folder, config, flags, said = reward_faults.with_deadline(fault, attempt) \
                if word == "late" else reward_faults.with_fault(fault, lambda: attempt([], None))
            tables.check(word in said and said.count("mpo: ") == 1, said)
            reward_faults.check_gone(folder, 1)
    said = evaluate(config, flags, "--rewards.command=", expect=78)
    tables.check("rewards.command" in said, said)


if __name__ == "__main__":
    sys.exit(tables.run_cases((case, ()) for case in (
        means_and_intervals_are_those_of_what_is_served,
        rewards_are_those_of_the_tilted_mixture,
        the_scale_of_a_record_is_taken_and_vectors_are_paired,
        any_number_of_ranks_says_the_same,
        what_cannot_be_measured_ends_it)))
