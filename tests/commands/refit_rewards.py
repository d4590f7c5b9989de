#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""refit --rewards against exact recursions: what it predicts, what it chooses, what it refuses.

    refit_rewards.py MPO MPIRUN WORK

Worlds and rewards are those of fit_rewards.py. Weights that were fitted for the likelihood are
moved to those of a goal, of which the exact value is known.
"""

import json
import os
import subprocess
import sys

import h5py
import numpy as np

import fit_rewards
import tables

MPO, WORK = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[3])


class Case:
    """A world, the record of a fit, and rewarded lines of generate at its weights."""

    def __init__(self, name, count, has_reference=False, strength=1.0, seeds=1, lower=0.0):
        self.world = fit_rewards.worlds(count, 1, has_reference, strength)[0][0]
        self.world.zero = self.world.zero - lower
        self.strength = strength
        self.folder = os.path.join(WORK, name)
        self.config, self.more = fit_rewards.prepare(self.folder, self.world,
                                                     objective="likelihood", strength=strength)
        self.record = os.path.join(self.folder, "fit.h5")
        tables.run([MPO, "fit", self.config, *self.more, "--quiet", "--force",
                    "--record.file=" + self.record])
        self.lines = []
        for seed in range(seeds):
            out, _ = tables.run([MPO, "generate", self.config, "--weights", self.record,
                                 "--format=jsonl", "--quiet", "--n=256",
                                 "--run.seed=%d" % (100 + seed)])
            self.lines += [self.reward(json.loads(line)) for line in out.splitlines()]
        self.file = os.path.join(self.folder, "rewarded.jsonl")
        self.write(self.lines)
        with h5py.File(self.record, "r") as record:
            self.weights = record["average"][-1]

    def reward(self, line):
        names = tables.token_names(fit_rewards.VOCAB)
        token = [names.index(word) for word in line["response"].split()]
        for k, value in enumerate(self.world.value_of_token):
            line["reward%d" % k] = value[token].sum()
        return line

    def write(self, lines):
        with open(self.file, "w", encoding="utf-8") as stream:
            for line in lines:
                stream.write(json.dumps(line) + "\n")

    def refit(self, *flags, rewards=None, expect=0):
        out, said = tables.run([MPO, "refit", self.record, "--rewards=" + (rewards or self.file),
                                "--json", *flags], expect=expect)
        return json.loads(out) if expect == 0 else said

    def exact(self, weights):
        return self.world.rewards(self.exponents(weights))

    def exponents(self, weights):
        if not self.world.has_reference:
            return weights
        return tables.exponents_of(weights, self.strength, np.ones(self.world.count))


def figures(point, name):
    return np.array([objective[name] for objective in point["objectives"].values()])


def predictions_are_right_to_first_order(_):
    """At the weights of the record they are plain means. At those found the error is small
    beside the change, which importance weights of whole responses would miss."""
    for name, count, raised, more in (("two", 2, 1, 0.06), ("three", 3, 2, 0.15)):
        case = Case(name, count, count == 3, 1.5 if count == 3 else 1.0, seeds=6)
        floor = case.exact(case.weights)[raised] + more
        result = case.refit("--goal=constraint", "--floor=policy%d=%g" % (raised, floor))
        start, found = result["at_record"], result["predicted"]
        plain = np.array([[line["reward%d" % k] for k in range(case.world.count)]
                          for line in case.lines]).mean(axis=0)
        tables.check(np.abs(figures(start, "predicted") - plain).max() < 1e-10,
                     "at the record: %s, not %s" % (figures(start, "predicted"), plain))
        tables.check(abs(start["ess"] - 1.0) < 1e-9, "ESS %g there" % start["ess"])
        weights = figures(found, "weight")
        change = case.exact(weights) - case.exact(figures(start, "weight"))
        predicted = figures(found, "predicted") - figures(start, "predicted")
        fit_rewards.log("%s -> %s: rewards change by %s, predicted %s, ESS %.2f" % (
            np.round(figures(start, "weight"), 3), np.round(weights, 3), np.round(change, 3),
            np.round(predicted, 3), found["ess"]))
        tables.check(np.abs(change).max() > 0.04, "too little to see")
        tables.check(np.abs(predicted - change).max() < 0.25 * np.abs(change).max(),
                     "%s is no prediction of %s" % (predicted, change))
    before = case.exact(case.weights)
    case.strength = 2.0
    change = case.exact(case.weights) - before
    held = ",".join("policy%d=%.17g" % (k, w * (1.0 - 1e-9)) for k, w in enumerate(case.weights))
    result = case.refit("--strength=2", "--min=" + held)
    tables.check(result["predicted"]["strength"] == 2.0
                 and result["at_record"]["strength"] == 1.5, result)
    tables.check(np.abs(figures(result["at_record"], "predicted") - plain).max() < 1e-10,
                 "at the record is not at its strength: %s" % result)
    text, _ = tables.run([MPO, "refit", case.record, "--rewards=" + case.file, "--strength=2",
                          "--min=" + held])
    tables.check("strength               2, of the record 1.5\n" in text, text)
    predicted = figures(result["predicted"], "predicted") - plain
    fit_rewards.log("strength 1.5 -> 2: rewards change by %s, predicted %s" % (
        np.round(change, 3), np.round(predicted, 3)))
    tables.check(np.abs(change).max() > 0.05, "too little to see")
    tables.check(np.abs(predicted - change).max() < 0.4 * np.abs(change).max(), predicted)


def every_goal_is_raised_and_floors_are_kept(_):
    case = Case("goals", 3, True, 1.5, seeds=8, lower=0.5)
    world = case.world
    before = (case.exact(case.weights) - world.zero) / (world.one - world.zero)
    for goal in ("maxmin", "nash"):
        point = case.refit("--goal=" + goal)["predicted"]
        after = (case.exact(figures(point, "weight")) - world.zero) / (world.one - world.zero)
        value = {"maxmin": min, "nash": lambda s: np.log(np.maximum(s, 1e-9)).sum()}[goal]
        fit_rewards.log("%s: exactly %.3f -> %.3f, predicted %.3f" % (
            goal, value(before), value(after), point["goal"]))
        tables.check(value(after) > value(before), "%s fell" % goal)
        tables.check(abs(figures(point, "weight").sum() - 1.0) < 1e-12, "off the simplex")
        tables.check(point["ess"] >= 0.3, "outside of what is trusted: %g" % point["ess"])
    worst = int(np.argmin(before))
    floor = case.exact(case.weights)[worst] + 0.1
    name = "policy%d" % worst
    result = case.refit("--goal=constraint", "--floor=%s=%g" % (name, floor))
    point = result["predicted"]
    tables.check(result["at_record"]["goal"] is None and point["goal"] is not None,
                 "the record's weights miss the floor: %s" % result["at_record"])
    tables.check(point["objectives"][name]["predicted"] >= floor, "below the floor")
    point = case.refit("--max=policy0=0.3", "--min=policy1=0.2")["predicted"]
    tables.check(point["objectives"]["policy0"]["weight"] <= 0.3
                 and point["objectives"]["policy1"]["weight"] >= 0.2, "bounds are not kept")


def bounds_that_fix_a_weight_leave_the_others_free(_):
    case = Case("fixed", 3, True, 1.5)
    held = case.weights[0]
    goal = ["--goal=constraint", "--floor=policy1=-1000"]
    fixed = case.refit("--min=policy0=%.17g" % held, "--max=policy0=%.17g" % held, *goal)
    near = case.refit("--min=policy0=%g" % (held - 0.005), "--max=policy0=%g" % (held + 0.005),
                      *goal)["predicted"]
    start, fixed = fixed["at_record"], fixed["predicted"]
    fit_rewards.log("goal %.3f, with a weight fixed %.3f, nearly so %.3f" % (
        start["goal"], fixed["goal"], near["goal"]))
    tables.check(abs(figures(fixed, "weight")[0] - held) < 1e-12, "the weight has moved")
    tables.check(near["goal"] - start["goal"] > 0.04, "there is nothing to find")
    tables.check(near["goal"] - fixed["goal"] < 0.2 * (near["goal"] - start["goal"]),
                 "the others stay")


def a_pipe_and_the_record_itself_will_do(_):
    case = Case("pipe", 2)
    with open(case.file, "rb") as stream:
        done = subprocess.run([MPO, "refit", case.record, "--rewards=-", "--json"], stdin=stream,
                              capture_output=True, check=True)
    tables.check(json.loads(done.stdout) == case.refit(), "a pipe gives another result")
    result = case.refit(rewards="record")
    tables.check(result["responses"] == 16 * fit_rewards.STEPS, "responses are missing")
    exact = case.exact(case.weights)
    off = (figures(result["at_record"], "predicted") - exact)
    tables.check(np.abs(off).max() < 0.15, "%s off at the record's weights" % off)
    out, _ = tables.run([MPO, "refit", case.record, "--rewards=record"])
    tables.check("predicted, not measured" in out and "fresh responses" in out, out)


def bad_input_is_named(_):
    case = Case("bad", 2)
    good = case.lines[:40]
    for change, words in (
            ({"reward0": None}, [":3: ", '"reward0"', "'policy0'"]),
            ({"reward1": float("nan")}, [":3: ", "NaN"]),
            ({"control": None}, [":3: ", '"control"', "--best-of"]),
            ({"exponents": {"policy0": 1.0}}, [":3: ", "'policy1'", '"exponents"']),
            ({"end_bias": 1.5}, [":3: ", '"end_bias" 1.5', "--end-bias=0"]),
            ({"end_bias": "x"}, [":3: ", '"end_bias"']),
            ({"reward0": 1e308}, ["the reward of 'policy0'", "1e+308"]),
            ({"prompt_index": "x"}, [":3: ", '"prompt_index"'])):
        case.write(good[:2] + [{**good[2], **change}] + good[3:])
        said = case.refit(expect=65)
        for word in words:
            tables.check(word in said, "no '%s' in: %s" % (word, said))
    case.write([])
    tables.check("found none" in case.refit(expect=65), "an empty file")
    case.write([{**line, "prompt_index": i} for i, line in enumerate(good)])
    tables.check("effective" in case.refit(expect=65), "one response a prompt")
    case.write([{**line, "end_bias": 0.0} for line in good])
    case.refit()
    case.write(good)
    tables.check("no.jsonl" in case.refit(rewards="no.jsonl", expect=66), "a missing file")
    for flags, word in ((["--goal=constraint"], "--floor"), (["--floor=policy0=1"], "--floor"),
                        (["--goal=constraint", "--floor=nobody=1"], "nobody"),
                        (["--frontier=5"], "--frontier"), (["--objectives=policy0"], "--rewards")):
        tables.check(word in case.refit(*flags, expect=64), flags)
    low = [{**line, "reward0": line["reward0"] - 100.0} for line in good]
    case.write(low)
    tables.check("above their zero" in case.refit("--goal=nash", expect=65), "a negative product")
    case.write(good)
    tables.check("reach all floors" in case.refit(
        "--goal=constraint", "--floor=policy0=1000", expect=65), "a floor that nothing reaches")
    tables.run([MPO, "refit", case.record, "--goal=nash"], expect=64)
    drawn, _ = tables.run([MPO, "generate", case.config, "--weights=uniform", "--top-k=3",
                           "--format=jsonl", "--quiet", "--n=8"])
    case.write([case.reward(json.loads(line)) for line in drawn.splitlines()])
    tables.check('"exponents"' in case.refit(expect=65), "filtered draws are taken")
    drawn, _ = tables.run([MPO, "generate", case.config, "--weights=uniform", "--best-of=4",
                           "--end-bias=1", "--format=jsonl", "--quiet"])
    case.write([case.reward(json.loads(line)) for line in drawn.splitlines()])
    said = case.refit(expect=65)
    tables.check("without --best-of" in said and "--end-bias=0" in said, said)
    case.write(good)
    with h5py.File(case.record, "r+") as file:  # as an older program would have written it
        text = file["provenance/config"][()].decode().replace('"reward0"', '"tokens"')
        tables.check('"tokens"' in text, text)
        del file["provenance/config"]
        file["provenance/config"] = np.bytes_(text)
    said = case.refit(expect=65)
    tables.check("the reward of 'policy0'" in said and '"tokens"' in said, said)
    tables.run([MPO, "fit", case.config, *case.more, "--quiet", "--force",
                "--rollout.end_bias=0.5", "--record.file=" + case.record])
    tables.check("end tilt" in case.refit(rewards="record", expect=65), "tilted draws are taken")
    tables.run([MPO, "fit", case.config, "--quiet", "--force", "--rewards.command=",
                "--record.file=" + case.record])
    tables.check("no reward program" in case.refit(rewards="record", expect=65), "no rewards")


if __name__ == "__main__":
    sys.exit(tables.run_cases((case, (None,)) for case in (
        predictions_are_right_to_first_order,
        every_goal_is_raised_and_floors_are_kept,
        bounds_that_fix_a_weight_leave_the_others_free,
        a_pipe_and_the_record_itself_will_do,
        bad_input_is_named)))
