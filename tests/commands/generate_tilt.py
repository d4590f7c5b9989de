#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tilt of the end tokens that `mpo generate` draws with, `mpo score` scores with and what
`mpo evaluate` calls served has.

    generate_tilt.py MPO MPIRUN WORK

Worlds of three tokens and at most three tokens a response have 15 responses, so all laws are
sums over them. Seeds are fixed, so a run passes or fails for good.
"""

import json
import os
import shutil
import sys

import h5py
import numpy as np

import tables
from generate_frequencies import all_responses, chi_square_z

VOCAB = 3
MAX_TOKENS = 3
START = {"a": 0, "b": 1}
WEIGHTS = np.array([0.6, 0.4])
FLAG = "--weights=0.6,0.4"
BOUND = 1e-10

# Wilson-Hilferty z of each chi-square; four of them are taken.
Z_BOUND = 4.0


class Case:
    """Policies in a folder with records of both targets, and the ways to run mpo on them."""

    def __init__(self, mpo, mpirun, work):
        self.mpo, self.mpirun, self.work = mpo, mpirun, work
        table = tables.random_tables(32, 3, VOCAB, 1.5)
        self.log_policy = tables.log_policies(table)
        self.options = {"rollout": {"max_tokens": MAX_TOKENS, "responses": 8},
                        "descent": {"steps": 4}}
        self.few = self.write("few", table, ["a", "b"] * 3)
        self.many = self.write("many", table, ["a", "b"] * 200)
        for name, flags in (("whole", []), ("served", []), ("far", ["--rollout.strength=1.5"]),
                            ("held", ["--rollout.end_bias=-0.7"])):
            target = "served" if name in ("served", "held") else "whole"
            tables.run([mpo, "fit", self.few, "--record.file=" + self.record(name),
                        "--estimator.target=" + target, *flags])

    def write(self, name, table, prompts):
        return tables.write_config(os.path.join(self.work, name), table, prompts, self.options,
                                   roles=["objective", "objective", "reference"])

    def record(self, name):
        return os.path.join(self.work, name + ".h5")

    def stored(self, name, series, step=-1):
        with h5py.File(self.record(name), "r") as record:
            return np.array(record[series][step], dtype=float)

    def generate(self, *flags, config=None, ranks=1):
        out, said = tables.run_ranks(self.mpirun, ranks, [
            self.mpo, "generate", config or self.few, "--format=jsonl", *flags])
        return [json.loads(line) for line in out.splitlines()], said

    def score(self, made, *flags, expect=0):
        path = os.path.join(self.work, "made.jsonl")
        with open(path, "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in made)
        out, said = tables.run([self.mpo, "score", self.few, "--input=" + path, *flags], expect)
        return [json.loads(line) for line in out.splitlines()] if expect == 0 else said

    def exponents(self, weights):
        return np.append(weights, 0.0)

    def log_mixture(self, exponents, end_bias, line):
        rows = tables.proposal_rows(self.log_policy, exponents, end_bias)
        return tables.log_response(rows, START[line["prompt"]], np.array(line["token_ids"]))

    def check_mixture(self, lines, exponents, end_bias, said_bias):
        for line in lines:
            off = abs(line["log_mixture"] - self.log_mixture(exponents, end_bias, line))
            tables.check(off <= BOUND, "b = %g: off by %g: %s" % (end_bias, off, line))
            tables.check(("end_bias" in line) == said_bias, str(line))


def check_law(lines, laws):
    for prompt, start in START.items():
        drawn = [tuple(line["token_ids"]) for line in lines if line["prompt"] == prompt]
        observed = np.array([drawn.count(tuple(tokens)) for tokens in all_responses()])
        expected = len(drawn) * laws(start)
        tables.check(observed.sum() == len(drawn), "unknown responses")
        tables.check(abs(expected.sum() - len(drawn)) < 1e-6, "no law")
        z = chi_square_z(observed, expected)
        tables.check(abs(z) <= Z_BOUND, "z = %.2f: %s, expected %s" % (
            z, observed, np.round(expected, 1)))


def log_laws(case, end_bias, start):
    """log q_b and log prod_k pi_k^l_k of all responses."""
    rows = tables.proposal_rows(case.log_policy, case.exponents(WEIGHTS), end_bias)
    tilted, whole = [], []
    for tokens in all_responses():
        tilted.append(tables.log_response(rows, start, np.array(tokens)))
        whole.append(sum(weight * tables.log_response(case.log_policy[k], start,
                                                      np.array(tokens))
                         for k, weight in enumerate(WEIGHTS)))
    return np.array(tilted), np.array(whole)


def draws_are_those_of_the_tilted_mixture(case):
    lines, _ = case.generate(FLAG, "--end-bias=1.5", "--n=8", config=case.many)
    check_law(lines, lambda start: np.exp(log_laws(case, 1.5, start)[0]))
    case.check_mixture(lines, case.exponents(WEIGHTS), 1.5, True)


def best_of_two_weighs_what_the_tilted_mixture_drew(case):
    def law(start):
        """Either candidate of a pair, by its share of both weights."""
        tilted, whole = log_laws(case, -1.2, start)
        drawn, weight = np.exp(tilted), np.exp(whole - tilted)
        share = weight[:, None] / (weight[:, None] + weight[None, :])
        return 2.0 * drawn * (share @ drawn)

    lines, said = case.generate(FLAG, "--end-bias=-1.2", "--best-of=2", "--n=8",
                                config=case.many)
    check_law(lines, law)
    tables.check("warm-up" not in said, said)


def record_of_target_whole_is_drawn_from_with_its_tilt(case):
    flag = "--weights=" + case.record("whole")
    last = float(case.stored("whole", "state/end_bias"))
    tables.check(abs(last) > 0.05, "the fit moved its tilt to %g alone" % last)
    mean = case.exponents(case.stored("whole", "average"))
    case.check_mixture(case.generate(flag, "--n=3")[0], mean, last, True)
    case.check_mixture(case.generate(flag, "--n=3", ranks=3)[0], mean, last, True)
    second = case.exponents(case.stored("whole", "average", 2))
    tilt = float(case.stored("whole", "end_bias", 2))
    tables.check(tilt != last, "the tilt stands still")
    case.check_mixture(case.generate(flag, "--n=3", "--step=2")[0], second, tilt, True)
    case.check_mixture(case.generate(flag, "--n=3", "--end-bias=0")[0], mean, 0.0, True)
    lines, said = case.generate(flag, "--best-of=3")
    tables.check("warm-up" not in said, said)
    case.check_mixture(lines, mean, last, True)


def served_records_and_given_weights_have_no_tilt(case):
    mean = case.exponents(case.stored("served", "average"))
    case.check_mixture(case.generate("--weights=" + case.record("served"))[0], mean, 0.0, False)
    case.check_mixture(case.generate(FLAG)[0], case.exponents(WEIGHTS), 0.0, False)


def served_record_is_drawn_from_with_the_tilt_that_was_set(case):
    flag = "--weights=" + case.record("held")
    mean = case.exponents(case.stored("held", "average"))
    case.check_mixture(case.generate(flag, "--n=3")[0], mean, -0.7, True)
    case.check_mixture(case.generate(flag, "--step=1")[0],
                       case.exponents(case.stored("held", "average", 1)), -0.7, True)
    case.check_mixture(case.generate(flag, "--end-bias=0")[0], mean, 0.0, True)


def evaluate_is_of_what_generate_draws(case):
    """The tilt of a record is that of generate, and gives the figures that it gives by hand."""
    def vectors(*flags):
        out, said = tables.run([case.mpo, "evaluate", case.few, "--json", "--replicates=100", *flags])
        tables.check("end tilt" not in said, said)
        return json.loads(out)["vectors"]

    whole = "--weights=" + case.record("whole")
    for flags, tilt in (
            ([whole], float(case.stored("whole", "state/end_bias"))),
            ([whole, "--step=2"], float(case.stored("whole", "end_bias", 2))),
            ([whole, "--end-bias=0"], 0.0), ([whole, "--end-bias=0.5"], 0.5),
            (["--weights=" + case.record("held")], -0.7),
            (["--weights=" + case.record("served")], 0.0), ([FLAG], 0.0),
            (["--weights=" + case.record("far"), "--strength=2"], 0.0),
            (["--weights=" + case.record("far")], float(case.stored("far", "state/end_bias")))):
        found, = vectors(*flags)
        made, _ = case.generate(*flags)
        tables.check(found["end_bias"] == tilt == made[0].get("end_bias", 0.0), "%s: %s, %s" % (
            flags, found["end_bias"], made[0]))
        by_hand, = vectors(*[flag for flag in flags if "end-bias" not in flag],
                           "--end-bias=%r" % tilt)
        tables.check(found == by_hand, "%s: other figures by hand" % flags)
    one, other = vectors(whole, "--against=" + case.record("held"))
    tables.check(one["end_bias"] != other["end_bias"] == -0.7, "each has its own")


def tilt_belongs_to_the_strength_of_its_record(case):
    flag = "--weights=" + case.record("far")
    weights = case.stored("far", "average")
    tilt = float(case.stored("far", "state/end_bias"))
    for strength, bias, flags in ((1.5, tilt, []), (1.5, tilt, ["--strength=1.5"]),
                                  (2.0, 0.0, ["--strength=2"])):
        exponents = tables.exponents_of(weights, strength, np.ones(2))
        lines, _ = case.generate(flag, "--n=3", *flags)
        case.check_mixture(lines, exponents, bias, bias != 0.0)


def best_of_without_a_tilt_finds_one(case):
    for flag in ("--weights=" + case.record("served"), FLAG,
                 "--weights=" + case.record("far") + " --strength=1"):
        flags = flag.split() + ["--best-of=3", "--n=2"]
        lines, said = case.generate(*flags)
        bias = lines[0]["end_bias"]
        tables.check("warm-up: 16 rows for each of 4 prompts\n" in said, said)
        tables.check("--end-bias=%.4g nat" % bias in said, said)
        tables.check(abs(bias) > 0.05, "a tilt of %g" % bias)
        tables.check(case.generate(*flags, ranks=3)[0] == lines, "3 ranks draw otherwise")
        tables.check(case.generate(*flags, "--end-bias=%r" % bias)[0] == lines,
                     "given by hand it draws otherwise")


def score_says_of_a_line_what_generate_said(case):
    whole = "--weights=" + case.record("whole")
    for flags, of_score in (([whole], [whole]), ([whole, "--end-bias=0"], [whole]),
                            ([whole, "--best-of=2"], [whole]), ([whole, "--exact"], [whole]),
                            ([whole, "--step=1"], [whole, "--step=1"]),
                            ([FLAG, "--end-bias=-2"], [FLAG]), ([FLAG, "--best-of=4"], [FLAG]),
                            ([FLAG, "--strength=1.5", "--best-of=4"],
                             [FLAG, "--strength=1.5"])):
        made, _ = case.generate("--n=3", *flags)
        for one, other in zip(made, case.score(made, *of_score), strict=True):
            off = abs(one["log_mixture"] - other["log_mixture"])
            tables.check(off <= BOUND, "%s: off by %g: %s" % (flags, off, other))


def score_takes_the_tilt_out_of_log_z(case):
    made, _ = case.generate("--n=6", FLAG)
    plain = case.score(made, FLAG)
    for line, other in zip(plain, case.score(made, FLAG, "--end-bias=1.5"), strict=True):
        whole = sum(weight * line["log_policy"]["policy%d" % k]
                    for k, weight in enumerate(WEIGHTS))
        for one in (line, other):
            off = abs(one["log_mixture"] + one["log_z"] - whole)
            tables.check(off <= BOUND, "off by %g: %s" % (off, one))
        tables.check(abs(line["log_mixture"] - other["log_mixture"]) > 1e-3, "no tilt")
    tilted = [dict(line, end_bias=1.5) for line in made]
    tables.check(case.score(tilted, FLAG) == case.score(made, FLAG, "--end-bias=1.5"),
                 "a line's own tilt is another one")
    tables.check(case.score(tilted, FLAG, "--end-bias=0") == plain, "the flag does not win")


def bad_tilts_are_refused(case):
    for command in (["generate", case.few], ["evaluate", case.few], ["score", case.few, "--input=none.jsonl"]):
        for value in ("nan", "inf", "-inf", "1e9", "101", "-100.5", "end", ""):
            _, said = tables.run([case.mpo, *command, "--end-bias=" + value], expect=64)
            tables.check("--end-bias: expected a number from -100 to 100" in said, said)
    line = {"prompt": "a", "response": "b"}
    for value in ("1", None, True, [], 101, -1e300):
        said = case.score([line, dict(line, end_bias=value)], FLAG, expect=65)
        tables.check("made.jsonl:2: expected \"end_bias\" to be" in said, said)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    mpo, mpirun, work = (os.path.abspath(path) for path in sys.argv[1:])
    shutil.rmtree(work, ignore_errors=True)
    case = Case(mpo, mpirun, work)
    cases = [draws_are_those_of_the_tilted_mixture,
             best_of_two_weighs_what_the_tilted_mixture_drew,
             record_of_target_whole_is_drawn_from_with_its_tilt,
             served_records_and_given_weights_have_no_tilt,
             served_record_is_drawn_from_with_the_tilt_that_was_set,
             evaluate_is_of_what_generate_draws,
             tilt_belongs_to_the_strength_of_its_record, best_of_without_a_tilt_finds_one,
             score_says_of_a_line_what_generate_said, score_takes_the_tilt_out_of_log_z,
             bad_tilts_are_refused]
    sys.exit(tables.run_cases([(run, [case]) for run in cases]))


if __name__ == "__main__":
    main()
