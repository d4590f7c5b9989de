#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`mpo refit` and bounded fits of bigram policies against the exact objective.

    refit.py MPO WORK

One record with fixed seed serves all cases: 62 steps of 16 responses to two prompts.
"""

import argparse
import json
import os
import shutil
import sys

import h5py
import numpy as np

import tables

VOCAB = 6
MAX_TOKENS = 16
START_TOKENS = (0, 1)
# Excess of F over the exact least value, nat, from 992 responses.
EXCESS = 5e-3
# Error of F itself, nat: at least 500 responses count and log w deviates by less than 1.
VALUE_ERROR = 0.1


class Setting:
    def __init__(self, arguments):
        self.mpo = arguments.mpo
        self.work = arguments.work
        self.table = tables.random_tables(4, 3, VOCAB, 1.0)
        self.log_policy = tables.log_policies(self.table)
        self.exact = tables.Exact(self.log_policy, START_TOKENS, MAX_TOKENS)
        self.config = tables.write_config(self.work, self.table, ("a", "b"), {
            "rollout": {"max_tokens": MAX_TOKENS}, "estimator": {"target": "whole"},
            "descent": {"average": "uniform"}, "record": {"hash_models": "false"}})
        self.record = self.fit("run")

    def fit(self, name, *flags):
        record = os.path.join(self.work, name + ".h5")
        tables.run([self.mpo, "fit", self.config, "--quiet", "--record.file=" + record,
                    *flags])
        return record

    def refit(self, *flags):
        """(weights by name, F) of a refit, from its JSON."""
        output = os.path.join(self.work, "refit.json")
        if os.path.exists(output):
            os.remove(output)
        tables.run([self.mpo, "refit", self.record, "--output", output, *flags])
        with open(output, encoding="utf-8") as stream:
            return json.load(stream)


def pooled(record, weights, jackknife=True):
    """F and g at weights from the stored responses, in numpy."""
    with h5py.File(record, "r") as file:
        prompt = file["responses/prompt"][()]
        log_weight = file["responses/log_policy"][()] @ weights \
            - file["responses/log_proposal"][()]
        log_policy = file["responses/log_policy"][()]
    value, gradient = [], []
    for x in np.unique(prompt):
        w = np.exp(log_weight[prompt == x])
        m = len(w)
        without = np.log((w.sum() - w) / (m - 1))
        plain = np.log(w.mean())
        value.append(m * plain - (m - 1) * without.mean() if jackknife else plain)
        gradient.append(w @ log_policy[prompt == x] / w.sum())
    return np.mean(value), np.mean(gradient, axis=0)


def figures_are_those_of_the_stored_responses(setting):
    out, _ = tables.run([setting.mpo, "refit", setting.record, "--frontier=5"])
    rows = [line.split("\t") for line in out.splitlines()]
    tables.check(len(rows) == 1 + 21, "%d rows of a frontier" % len(rows))
    tables.check(len({tuple(row[:3]) for row in rows[1:]}) == 21, "a point comes twice")
    cut = 0
    for row in np.array(rows[1:], dtype=float):
        value, gradient = pooled(setting.record, row[:3])
        cut += value > 0.0
        known = 0.0 if row[:3].max() == 1.0 else min(value, 0.0)
        off = max(abs(row[3] - known), np.abs(row[4:7] - gradient).max())
        tables.check(off <= 1e-9, "%s is off by %g" % (row, off))
    print("       %d of 21 estimates of F are above 0" % cut, flush=True)
    out, _ = tables.run([setting.mpo, "refit", setting.record, "--frontier=5", "--json"])
    points = json.loads(out)["frontier"]
    tables.check(sum(point["value_jackknife"] == 0.0 for point in points) >= 3, out)


def f_at_the_weights_of_the_record_is_nearly_exact(setting):
    out, _ = tables.run([setting.mpo, "refit", setting.record])
    line = [line for line in out.splitlines() if line.startswith("F ")][0]
    found = float(line.split()[-2])
    with h5py.File(setting.record, "r") as file:
        average = file["average"][-1]
    tables.check(abs(found - pooled(setting.record, average)[0]) <= 6e-5, "not the record's")
    off = abs(found - setting.exact.value(average))
    tables.check(off <= VALUE_ERROR, "F is off by %g" % off)


def every_step_rule_comes_close_to_the_exact_optimum(setting):
    _, least = setting.exact.optimum()
    for flags in (["--descent.step_rule=adaptive"], ["--descent.step_rule=decreasing"],
                  ["--descent.step_rule=fixed", "--descent.step_constant=3"],
                  ["--descent.initial=0.6,0.3,0.1"]):
        result = setting.refit(*flags)
        weights = np.array(list(result["weights"].values()))
        excess = setting.exact.value(weights) - least
        print("       %-32s excess %.2g, gap %.2g" % (flags[0], excess, result["gap"]),
              flush=True)
        tables.check(-1e-9 <= excess <= EXCESS, "%s: excess %g" % (flags, excess))
        tables.check(abs(result["value_jackknife"] - pooled(setting.record, weights)[0]) < 1e-9,
                     "F is not that of the weights")
        tables.check(0.0 <= result["gap"] <= 0.02, "gap %g" % result["gap"])


def fewer_objectives_have_their_own_optimum(setting):
    result = setting.refit("--objectives=policy2,policy0", "--min-ess=0.05")
    tables.check(list(result["weights"]) == ["policy2", "policy0"], "other names")
    chosen = tables.Exact(setting.log_policy[[2, 0]], START_TOKENS, MAX_TOKENS)
    _, least = chosen.optimum()
    excess = chosen.value(np.array(list(result["weights"].values()))) - least
    tables.check(excess <= 3 * EXCESS, "excess %g" % excess)


def bounds_are_kept_and_nothing_within_them_is_better(setting):
    optimum, _ = setting.exact.optimum()
    top = int(np.argmax(optimum))
    high = 0.6 * optimum[top]
    result = setting.refit("--max", "policy%d=%.17g" % (top, high),
                           "--min", "policy%d=0.1" % ((top + 1) % 3))
    weights = np.array(list(result["weights"].values()))
    tables.check(weights[top] <= high + 1e-12 and weights[(top + 1) % 3] >= 0.1 - 1e-12,
                 "%s is out of bounds" % weights)
    least = np.inf
    for share in np.linspace(0.1, 1.0 - high, 200):
        trial = np.zeros(3)
        trial[top], trial[(top + 1) % 3] = high, share
        trial[(top + 2) % 3] = 1.0 - high - share
        least = min(least, setting.exact.value(trial))
    excess = setting.exact.value(weights) - least
    tables.check(excess <= EXCESS, "excess %g" % excess)


def a_fit_keeps_its_bounds_at_every_step(setting):
    for rule in ("adaptive", "decreasing", "fixed"):
        record = setting.fit("bounds_" + rule, "--policies.policy0.max=0.2",
                             "--policies.policy1.min=0.45", "--descent.step_rule=" + rule)
        with h5py.File(record, "r") as file:
            for name in ("weights", "average"):
                rows = file[name][()]
                tables.check((rows[:, 0] <= 0.2 + 1e-12).all(), "%s: above max" % rule)
                tables.check((rows[:, 1] >= 0.45 - 1e-12).all(), "%s: below min" % rule)
                tables.check(np.abs(rows.sum(axis=1) - 1).max() <= 1e-12, "off the simplex")


def what_the_responses_cannot_support_is_refused(setting):
    command = [setting.mpo, "refit", setting.record]
    _, errors = tables.run(command + ["--min-ess=0.99"], expect=65)
    tables.check("effective" in errors and "0.99" in errors, "no reason: " + errors)
    tables.check("per prompt" not in errors, "another reason: " + errors)
    without = setting.fit("without", "--record.responses=false")
    _, errors = tables.run([setting.mpo, "refit", without], expect=65)
    tables.check("expected stored responses" in errors, "no reason: " + errors)
    few = setting.fit("few", "--rollout.responses=2", "--descent.steps=1")
    _, errors = tables.run([setting.mpo, "refit", few], expect=65)
    tables.check("responses per prompt" in errors and "--min-ess)" not in errors,
                 "another reason: " + errors)


def a_frontier_is_drawn(setting):
    if shutil.which("gnuplot") is None:
        print("SKIP   no gnuplot")
        return
    for flags, words in (([], ("supported", "too few responses", "F, nat")),
                         (["--min-ess=1"], ("too few responses",)),
                         (["--min-ess=0"], ("supported", "F, nat")),
                         (["--objectives=policy2,policy1"], ("policy2", "policy1"))):
        output = os.path.join(setting.work, "frontier.svg")
        table, _ = tables.run([setting.mpo, "refit", setting.record, "--frontier=12",
                               "--plot", output, *flags])
        with open(output, encoding="utf-8") as stream:
            drawing = stream.read()
        points = drawing.count("<use xlink:href='#gpPt")
        rows = len(table.splitlines()) - 1
        tables.check(points >= rows, "%d points of %d are drawn" % (points, rows))
        for word in ("mean log pi of policy", *words):
            tables.check(word in drawing, "%s: no '%s' in the drawing" % (flags, word))
        os.remove(output)


def a_frontier_keeps_to_the_bounds_and_to_its_limit(setting):
    whole, _ = tables.run([setting.mpo, "refit", setting.record, "--frontier=10"])
    some, _ = tables.run([setting.mpo, "refit", setting.record, "--frontier=10",
                          "--min=policy0=0.3", "--max=policy2=0.1,policy1=0.7"])
    head, *rows = whole.splitlines()
    kept = [row for row in rows if float(row.split("\t")[0]) > 0.3 - 1e-6
            and float(row.split("\t")[2]) < 0.1 + 1e-6
            and float(row.split("\t")[1]) < 0.7 + 1e-6]
    tables.check(some.splitlines() == [head, *kept] and len(kept) == 15,
                 "%d of %d rows:\n%s" % (len(kept), len(rows), some))
    out, errors = tables.run([setting.mpo, "refit", setting.record, "--frontier=2",
                              "--min=policy0=0.6", "--max=policy0=0.7"], expect=64)
    tables.check("found none" in errors and out == "", errors)
    wide = tables.write_config(os.path.join(setting.work, "wide"),
                               tables.random_tables(4, 6, VOCAB, 1.0), ("a", "b"),
                               {"rollout": {"max_tokens": 4}, "descent": {"steps": 2}})
    record = os.path.join(setting.work, "wide.h5")
    tables.run([setting.mpo, "fit", wide, "--quiet", "--record.file=" + record])
    for divisions, good in ((7, True), (1000, False), (40, False)):  # 40: 1.2 million points
        out, errors = tables.run([setting.mpo, "refit", record, "--frontier=%d" % divisions],
                                 expect=0 if good else 64)
        tables.check(good or ("1000000 points" in errors and out == ""), errors)


def a_policy_diverges_from_itself_by_nothing(setting):
    for flags in (["--objectives=policy1"], ["--min=policy1=1"]):
        out, _ = tables.run([setting.mpo, "refit", setting.record, "--min-ess=0", *flags])
        rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
        tables.check(rows["policy1"][0] == "1.0000" and rows["policy1"][3] == "0.0000"
                     and rows["F"][0] == "0.0000", out)


def f_is_at_most_0(setting):
    """Near a vertex few of the stored responses count, and their F may be above."""
    found = []
    for k in range(3):
        out, _ = tables.run([setting.mpo, "refit", setting.record, "--json", "--min-ess=0",
                             "--min=policy%d=0.999" % k])
        result = json.loads(out)
        weights = np.array(list(result["weights"].values()))
        value = pooled(setting.record, weights)[0]
        found.append(value)
        tables.check(abs(result["value_jackknife"] - min(value, 0.0)) <= 1e-9, out)
    tables.check(max(found) > 0.0, "no estimate is above 0: %s" % found)


def strength_and_scales_are_those_of_the_record(setting):
    """F, its optimum and the divergences with the reference's exponent, against the recursion
    over a grid of weights; --strength in their place; and a record without a reference."""
    near = np.log(setting.table[:2])
    center = near.mean(axis=0)
    table = np.exp(center + 0.5 * (near - center))
    table = np.append(table, np.exp(center)[None], axis=0)
    table /= table.sum(axis=2, keepdims=True)
    exact = tables.Exact(tables.log_policies(table), START_TOKENS, MAX_TOKENS)
    config = tables.write_config(os.path.join(setting.work, "strength"), table, ("a", "b"), {
        "rollout": {"max_tokens": MAX_TOKENS, "strength": 1.5}, "record": {"hash_models": "false"}},
        roles=["objective", "objective", "reference"])
    record = os.path.join(setting.work, "strength.h5")
    tables.run([setting.mpo, "fit", config, "--quiet", "--record.file=" + record,
                "--policies.policy1.scale=0.8", "--descent.steps=200"])
    scale = np.array([1.0, 0.8])
    grid = np.linspace(0.0, 1.0, 401)
    for flags, strength in (([], 1.5), (["--strength=1.2"], 1.2), (["--strength=0.7"], 0.7)):
        out, said = tables.run([setting.mpo, "refit", record, "--json", *flags])
        found = json.loads(out)
        tables.check("fitted for target served" in said, said)
        weights = np.array(list(found["weights"].values()))
        mu = [tables.exponents_of(np.array([w, 1.0 - w]), strength, scale) for w in grid]
        values = np.array([exact.value(m) for m in mu])
        value = exact.value(tables.exponents_of(weights, strength, scale))
        drawn = found["diagnostic"]["value_jackknife"]
        print("       A = %g: weight %.3f, exactly %.3f; F %.4f, exactly %.4f there; ESS %.2f" % (
            strength, weights[0], grid[values.argmin()], drawn, value,
            found["ess"]), flush=True)
        tables.check(value - values.min() < 2e-3, "excess %g" % (value - values.min()))
        tables.check(abs(drawn - value) < VALUE_ERROR, "F is off")
        tables.check(found["value_jackknife"] is None and found["strength"] == strength and found["target"] == "whole", out)
    # of one objective at A a = 1 there is nothing but it; at 1.5 there is the reference too
    for flags, zero in ((["--strength=1"], True), ([], False)):
        out, _ = tables.run([setting.mpo, "refit", record, "--json", "--min=policy0=1",
                             "--min-ess=0", *flags])
        tables.check((json.loads(out)["value_jackknife"] == 0.0) == zero, out)
    _, said = tables.run([setting.mpo, "refit", setting.record, "--strength=1.5"], expect=65)
    tables.check("reference" in said, said)


def a_plot_without_gnuplot_is_refused(setting):
    output = os.path.join(setting.work, "none.svg")
    empty = os.path.join(setting.work, "empty")
    os.makedirs(empty, exist_ok=True)
    for command in (["refit", "--frontier=2"], ["refit", "--frontier=60"], ["inspect"]):
        _, errors = tables.run(["env", "PATH=" + empty, setting.mpo, *command,
                                setting.record, "--plot", output], expect=69)
        tables.check("gnuplot-nox" in errors, "no way out: " + errors)
        tables.check(not os.path.exists(output), "an empty plot is left")


def mistakes_are_named(setting):
    command = [setting.mpo, "refit", setting.record]
    for flags, code, word in (
            (["--min=policy0=0.6,policy1=0.6"], 78, "minima"),
            (["--max=policy0=0.2,policy1=0.2,policy2=0.2"], 78, "maxima"),
            (["--min=policy0=0.5,policy0=0.2"], 64, "'policy0' twice"),
            (["--min=policy0=0x1p-1"], 64, "0x1p-1"), (["--min=policy0=nan"], 64, "nan"),
            (["--max=policy1=1.5"], 64, "from 0 to 1"), (["--max=policy1="], 64, "policy1="),
            (["--min=policy1=0.5", "--max=policy1=0.2"], 78, "for 'policy1'"),
            (["--max=policy1=0"], 78, "for 'policy1'"),
            (["--min=nobody=0.6"], 64, "nobody"), (["--objectives=policy0,x"], 64, "'x'"),
            (["--descent.step_rule=none"], 64, "--descent.step_rule: expected"), (["--plot=x.svg"], 64, "--frontier"),
            (["--plot=x.pdf", "--frontier=2"], 64, ".svg"),
            (["--plot=x.svg", "--frontier=2", "--objectives=policy0"], 64, "two objectives"),
            (["--plot=no/x.svg", "--frontier=2"], 73, "no/x.svg"),
            (["--objective=policy0"], 64, "--objective"),
            (["--output=" + setting.config], 73, "exists")):
        _, errors = tables.run(command + flags, expect=code)
        tables.check(word in errors, "%s: %s" % (flags, errors))
    _, errors = tables.run([setting.mpo, "fit", setting.config, "--record.file=x.h5",
                            "--policies.policy0.min=0.7", "--policies.policy1.min=0.7"],
                           expect=78)
    tables.check("minima" in errors, errors)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mpo", type=os.path.abspath)
    parser.add_argument("work", type=os.path.abspath)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    setting = Setting(arguments)
    cases = [figures_are_those_of_the_stored_responses,
             f_at_the_weights_of_the_record_is_nearly_exact,
             every_step_rule_comes_close_to_the_exact_optimum,
             fewer_objectives_have_their_own_optimum,
             bounds_are_kept_and_nothing_within_them_is_better,
             a_fit_keeps_its_bounds_at_every_step,
             what_the_responses_cannot_support_is_refused,
             a_frontier_is_drawn,
             a_frontier_keeps_to_the_bounds_and_to_its_limit,
             a_policy_diverges_from_itself_by_nothing, f_is_at_most_0,
             strength_and_scales_are_those_of_the_record,
             a_plot_without_gnuplot_is_refused,
             mistakes_are_named]
    sys.exit(tables.run_cases([(case, [setting]) for case in cases]))


if __name__ == "__main__":
    main()
