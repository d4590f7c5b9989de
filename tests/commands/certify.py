#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What fit, inspect, refit and evaluate certify of F, and what they leave unknown, in worlds
whose F is known exactly.

    certify.py MPO MPIRUN WORK
"""

import json
import os
import sys

import h5py
import numpy as np

import tables
from fit_tilt import hidden_world

UNKNOWN = "drawn ends do not certify it; mpo evaluate integrates them out"


def options(tokens, target="served", **sections):
    return {"rollout": {"responses": 16, "max_tokens": tokens},
            "estimator": {"target": target}, "record": {"hash_models": "false"}, **sections}


def short_world():
    """Six tokens are enough for a few ends to be drawn, and for F to be off by many errors."""
    row = np.array([0.989, 0.01, 1e-3])
    return np.array([[row] * 4, [row[[1, 0, 2]]] * 4])


def fit(arguments, name, table, prompts, settings, *flags):
    """(record, text, JSON, talk) of a fit."""
    folder = os.path.join(arguments.work, name)
    config = tables.write_config(folder, table, prompts, settings)
    record = os.path.join(folder, "out.h5")
    command = [arguments.mpo, "fit", config, "--force", "--record.file=" + record, *flags]
    found = json.loads(tables.run([*command, "--json"])[0])
    text, said = tables.run(command)
    return record, text, found, said


def read(record, name):
    with h5py.File(record, "r") as file:
        return file[name][()]


def line_of(text, label):
    return [line for line in text.splitlines() if line.startswith(label)][0]


def drawn_ends_certify_no_f_of_a_served_fit(arguments):
    for name, table, prompts, tokens, far in (
            ("hidden", hidden_world(2, 1e-5), ["a"], 64, 20.0),
            ("short", short_world(), ["a", "b"], 6, 0.5)):
        exact = tables.Exact(tables.log_policies(table), [0, 1][:len(prompts)], tokens)
        record, text, found, said = fit(arguments, name, table, prompts, options(tokens))
        truth = np.mean([exact.value(w) for w in read(record, "weights")])
        drawn = read(record, "value").mean()
        print("       %s: F of the draws %.3f, exactly %.3f; ESS %.2f" % (
            name, drawn, truth, found["ess"]), flush=True)
        tables.check(abs(drawn - truth) > far, "the draws are right")
        tables.check(UNKNOWN in line_of(text, "F "), text)
        tables.check("a diagnostic" in line_of(text, "  of the draws") and "+-" not in
                     "".join(text.splitlines()[4:6]), text)
        tables.check(not any(" F " in line or "ESS" in line for line in said.splitlines()
                             if line.startswith("step ")), said)
        tables.check(found["value"] is None and found["value_error"] is None
                     and found["value_unknown"] == UNKNOWN
                     and abs(found["diagnostic"]["value"] - drawn) < 1e-12
                     and found["averaged_gap"] is not None, found)
        shown = tables.run([arguments.mpo, "inspect", record])[0]
        tables.check(UNKNOWN in line_of(shown, "F ") and "+-" not in line_of(shown, "  of the"),
                     shown)
        shown = json.loads(tables.run([arguments.mpo, "inspect", record, "--json"])[0])
        tables.check(shown["value_unknown"] == UNKNOWN and shown["target"] == "served", shown)
        refit = [arguments.mpo, "refit", record, "--min-ess=0"]
        text, said = tables.run(refit)
        tables.check(UNKNOWN in line_of(text, "F ") and "bounds nothing" in line_of(text, "gap")
                     and "drawn ends" in said, text + said)
        again = json.loads(tables.run([*refit, "--json"])[0])
        tables.check(again["value_jackknife"] is None and again["gap"] is None
                     and again["value_unknown"] == UNKNOWN
                     and again["diagnostic"]["value_jackknife"] < 0.0, again)
        vertex = json.loads(tables.run([*refit, "--json", "--min=policy0=1"])[0])
        tables.check(vertex["value_jackknife"] == 0.0 and "value_unknown" not in vertex, vertex)
        head = tables.run([*refit, "--frontier=2"])[0].split("\n")[0]
        tables.check("value_draws" in head and "value_jackknife" not in head, head)


def a_whole_fit_certifies_f(arguments):
    for name, table, tokens in (("hidden_whole", hidden_world(2, 1e-5), 64),
                                ("short_whole", short_world(), 6)):
        exact = tables.Exact(tables.log_policies(table), [0], tokens)
        record, text, found, said = fit(arguments, name, table, ["a"],
                                        options(tokens, "whole"))
        truth = np.mean([exact.value(w) for w in read(record, "weights")])
        tables.check(abs(found["value"] - truth) < 4.0 * found["value_error"],
                     "F %g +- %g, exactly %g" % (found["value"], found["value_error"], truth))
        tables.check("unknown" not in text and "value_unknown" not in found
                     and found["averaged_gap"] == read(record, "averaged_gap")[-1], text)
        tables.check(any(" F " in line for line in said.splitlines()), said)
        shown = tables.run([arguments.mpo, "inspect", record])[0]
        tables.check("+-" in line_of(shown, "F ") and "unknown" not in shown, shown)


def one_response_or_few_effective_leave_f_unknown(arguments):
    """Neither the gap bounds anything then nor stop_gap acts on it, and no warning says what F
    would mean."""
    single = tables.random_tables(1, 2, 5, 1.0)
    for name, table, responses, tokens, reason in (
            ("single", single, 1, 8, "needs several responses per prompt"),
            ("few", hidden_world(3, 0.02), 8, 64, "responses to a prompt are effective")):
        settings = options(tokens, "whole", descent={"steps": 12, "stop_gap": 1000})
        settings["rollout"].update(responses=responses, end_bias=-3)
        record, text, found, said = fit(arguments, name, table, ["a", "b"], settings)
        print("       %s: F of the draws %.1f, ESS %.2f" % (
            name, read(record, "value").mean(), found["ess"]), flush=True)
        tables.check(len(read(record, "step")) == 12 and not found["stopped_on_gap"], said)
        tables.check(said.count("descent.stop_gap did not end the fit") == 1, said)
        tables.check("at the optimum" not in said, said)
        tables.check(reason in line_of(text, "F ")
                     and "bounds nothing" in line_of(text, "averaged gap"), text)
        tables.check(found["value"] is None and found["averaged_gap"] is None
                     and reason in found["value_unknown"]
                     and found["diagnostic"]["averaged_gap"] == read(record, "averaged_gap")[-1],
                     found)
        shown = tables.run([arguments.mpo, "inspect", record])[0]
        tables.check(reason in line_of(shown, "F ") and "nan" not in shown
                     and "bounds nothing" in line_of(shown, "averaged gap")
                     and ", finished" in shown, shown)
        tables.check((reason in line_of(shown, "sample size")) == (responses == 1), shown)
        few = tables.run([arguments.mpo, "refit", record, "--min-ess=0", "--json"])
        pooled = json.loads(few[0])
        tables.check((pooled["value_jackknife"] is None) == ("value_unknown" in pooled), few[0])
    config = tables.write_config(os.path.join(arguments.work, "rows"),
                                 tables.random_tables(3, 2, 8, 4.0, -6.0), ["a", "b"],
                                 options(100))
    for rows, is_known in ((4, False), (64, True)):
        said = tables.run([arguments.mpo, "evaluate", config, "--responses=%d" % rows])[1]
        tables.check(("nothing is known" in said) != is_known and ("F is -" in said) == is_known,
                     said)


def a_bound_is_never_narrower_than_the_interval(arguments):
    """Prompts differ by more than Markov's 3 nat: a starts long disagreement, b none."""
    apart = [0.9, 1e-9, 0.1 - 1e-5 - 1e-9, 1e-5]  # of a, b, c, </s>
    swapped = [apart[2], apart[1], apart[0], apart[3]]
    agreed = [1e-3, 1e-3, 1e-3, 0.997]
    table = np.array([[row, agreed, row, row, row] for row in (apart, swapped)])
    folder = os.path.join(arguments.work, "bound")
    config = tables.write_config(folder, table, ["a"] * 3 + ["b"] * 3, options(64))
    out, _ = tables.run([arguments.mpo, "evaluate", config, "--json", "--replicates=200"])
    found = {row["quantity"]: row for row in json.loads(out)["vectors"][0]["results"]
             if "objective" not in row}
    value, bound = found["value_jackknife"], found["value_bound"]
    print("       F %.2f [%.2f, %.2f], bound [%.2f, %.2f]" % (
        value["estimate"], value["low"], value["high"], bound["low"], bound["high"]), flush=True)
    tables.check(value["low"] < value["estimate"] - 3.0, "the interval is narrow: %s" % value)
    tables.check(bound["low"] <= value["low"] and bound["high"] >= value["high"], bound)


def main():
    arguments = tables.fit_arguments(__doc__, 1)
    cases = [drawn_ends_certify_no_f_of_a_served_fit, a_whole_fit_certifies_f,
             one_response_or_few_effective_leave_f_unknown,
             a_bound_is_never_narrower_than_the_interval]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
