#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`mpo generate --exact` draws from the mixture of whole responses, and says what it costs.

    generate_exact.py MPO MPIRUN WORK [BIGRAM_GGUF_TOOL]

Worlds of three tokens and at most three tokens a response have 15 responses, whose
probabilities are prod_h pi_h(y|x)^mu_h / Z(x). Seeds are fixed, so a run passes or fails for
good.
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
REFERENCE = ["objective", "objective", "reference"]

BYTES = 260
BYTES_END = 2

# Wilson-Hilferty z of each chi-square, and z of each share of survivors; 16 are taken.
Z_BOUND = 4.0


class World:
    """Policies in a folder, and generate --exact on them."""

    def __init__(self, case, name, table, prompts, roles=None, max_tokens=MAX_TOKENS):
        self.case = case
        self.log_policy = tables.log_policies(table)
        self.config = tables.write_config(
            os.path.join(case.work, name), table, prompts,
            {"rollout": {"max_tokens": max_tokens}}, roles=roles)

    def run(self, *flags, ranks=1, expect=0):
        return tables.run_ranks(self.case.mpirun, ranks, [
            self.case.mpo, "generate", self.config, "--exact", "--format=jsonl", *flags],
            expect)

    def lines(self, *flags, ranks=1, expect=0):
        out, _ = self.run(*flags, ranks=ranks, expect=expect)
        return [json.loads(line) for line in out.splitlines()]

    def refused(self, named, *flags, expect=64, ranks=1):
        _, said = self.run(*flags, ranks=ranks, expect=expect)
        for text in named:
            tables.check(text in said, "expected '%s' in: %s" % (text, said))


class Case:
    def __init__(self, mpo, mpirun, work, tool):
        self.mpo, self.mpirun, self.work, self.tool = mpo, mpirun, work, tool
        self.table = tables.random_tables(32, 3, VOCAB, 1.5)
        few, many = ["a", "b"] * 8, ["a", "b"] * 400
        self.world = World(self, "two", self.table[:2], few)
        self.many = World(self, "many", self.table[:2], many)
        self.referred = World(self, "reference", self.table, many, REFERENCE)


def average(record):
    with h5py.File(record, "r") as file:
        return file["average"][-1]


def law(log_policy, exponents, start):
    """(probabilities of all responses, Z)"""
    scores = np.array([
        sum(mu * tables.log_response(log_policy[h], start, np.array(tokens))
            for h, mu in enumerate(exponents)) for tokens in all_responses()])
    return np.exp(scores) / np.exp(scores).sum(), np.exp(scores).sum()


def check_frequencies(drawn, expected):
    """The rarest responses, as many as make 5, have one cell together."""
    observed = np.array([drawn.count(tuple(tokens)) for tokens in all_responses()])
    expected = len(drawn) * expected
    order = np.argsort(expected)
    first = int(np.argmax(np.cumsum(expected[order]) >= 5.0)) + 1
    rare, others = order[:first], order[first:]
    tables.check(observed.sum() == len(drawn), "unknown responses")
    z = chi_square_z(np.append(observed[others], observed[rare].sum()),
                     np.append(expected[others], expected[rare].sum()))
    tables.check(abs(z) <= Z_BOUND, "z = %.2f of %d, %s, expected %s" % (
        z, len(drawn), observed, np.round(expected, 1)))


def check_law(lines, log_policy, exponents):
    """Of each prompt: the frequencies of all responses and of those that come first, which
    would be the shortest were they the first to finish; and the share of survivors."""
    for prompt, start in START.items():
        expected, total = law(log_policy, exponents, start)
        mine = [line for line in lines if line["prompt"] == prompt]
        for group in (mine, [line for line in mine if line["sample"] == 0]):
            check_frequencies([tuple(line["token_ids"]) for line in group], expected)
        tries = sum(line["tries"] for line in mine)
        z = (tries * total - len(mine)) / np.sqrt(len(mine) * (1.0 - total))
        tables.check(abs(z) <= Z_BOUND, "share %.4f, Z = %.4f, z = %.2f" % (
            len(mine) / tries, total, z))


def draws_are_those_of_the_mixture_of_whole_responses(case):
    lines = case.many.lines("--weights=0.6,0.4", "--n=8")
    check_law(lines, case.many.log_policy, WEIGHTS)
    total = law(case.many.log_policy, WEIGHTS, 0)[1]
    tables.check(total < 0.3, "Z = %.3f: few tries are killed" % total)


def exponents_may_sum_to_more_than_one_and_have_a_strength(case):
    world = case.referred
    for flags, exponents in (
            (["--weights=0.6,0.4", "--strength=0.5"], [0.3, 0.2, 0.5]),
            (["--weights=0.9,0.6", "--allow-any-weights"], [0.9, 0.6, 0.0])):
        check_law(world.lines("--n=4", *flags), world.log_policy, exponents)


def draws_depend_on_neither_ranks_nor_rows(case):
    flags = ("--weights=0.6,0.4", "--n=3", "--run.seed=3")
    expected = case.world.lines(*flags)
    tables.check(any(line["tries"] > 2 for line in expected), "no try was killed")
    for ranks in (2, 3):
        tables.check(case.world.lines(*flags, "--exchange.ranks_per_group=1", ranks=ranks) ==
                     expected, "%d ranks in groups of their own" % ranks)
    tables.check(case.world.lines(*flags, ranks=2) == expected, "2 ranks")
    for rows in (3, 5, 64):
        tables.check(case.world.lines(*flags, "--parallel=%d" % rows) == expected,
                     "%d rows" % rows)
    alone = case.world.lines(*flags, "--prompt=a")
    for one, other in zip(alone, expected):
        del one["prompt_index"], other["prompt_index"]
    tables.check(alone == expected[:3], "a prompt by itself")


def single_policy_survives_always(case):
    lines = case.world.lines("--weights=policy1", "--n=4")
    tables.check(all(line["tries"] == 1 for line in lines), "tries were killed")
    out, _ = tables.run([case.mpo, "generate", case.world.config, "--format=jsonl",
                         "--weights=policy1", "--n=4"])
    for one, other in zip(lines, out.splitlines(), strict=True):
        tables.check(one["token_ids"] == json.loads(other)["token_ids"], "other draws")


def price_is_told_before(case):
    _, said = case.world.run("--weights=0.6,0.4")
    for prompt, start in ((0, 0), (1, 1), (2, 0), (3, 1)):
        told = [line for line in said.splitlines() if line.startswith("prompt %d:" % prompt)]
        tables.check(len(told) == 1, said)
        tries = float(told[0].split("about ")[1].split()[0])
        truth = 1.0 / law(case.world.log_policy, WEIGHTS, start)[1]
        tables.check(0.5 < tries / truth < 2.0, "%s, in truth %.2f" % (told[0], truth))
    tables.check("16 of " in said and "tries survived" in said, said)


def price_is_that_of_the_record_where_it_knows_it(case):
    """The responses of a whole fit say log Z of their prompts, which then need no warm-up."""
    records = {}
    for name, flags in (("whole", []), ("served", ["--estimator.target=served"]),
                        ("short", ["--descent.steps=3"]), ("bare", ["--record.responses=false"])):
        records[name] = os.path.join(case.work, "price_%s.h5" % name)
        tables.run([case.mpo, "fit", case.world.config, "--quiet", "--estimator.target=whole",
                    "--record.file=" + records[name], *flags])
    for flags, known, warm in (
            (["whole"], 16, 0), (["whole", "--strength=1"], 16, 0), (["short"], 2, 3),
            (["served"], 0, 4), (["bare"], 0, 4), (["whole", "--prompt=a"], 0, 1),
            (["whole", "--rollout.max_tokens=2"], 0, 4), (["whole", "--limit=2"], 2, 0)):
        weights = "--weights=" + records[flags[0]]
        for ranks in (1, 2) if flags == ["short"] else (1,):
            _, said = case.world.run(weights, *flags[1:], ranks=ranks)
            tables.check(("the cost of %d prompts from the record\n" % known in said) == (known > 0)
                         and ("from the record" in said) == (known > 0), said)
            tables.check(("warm-up: 16 rows for each of %d prompt" % warm in said) == (warm > 0)
                         and ("warm-up" in said) == (warm > 0), said)
            told = {int(line.split(":")[0].split()[1]): float(line.split("about ")[1].split()[0])
                    for line in said.splitlines() if line.startswith("prompt ") and "about" in line}
            tables.check(len(told) == known + warm, said)
            left = 1 if "--prompt=a" in flags else 2 if "--limit=2" in flags else 16
            missing = "the cost of %d prompts is not estimated" % (left - len(told))
            tables.check((missing in said) == (left > len(told)), said)
        if "--rollout.max_tokens=2" in flags:
            continue
        mean = average(records[flags[0]])
        for prompt, tries in told.items():
            truth = 1.0 / law(case.world.log_policy, mean, prompt % 2)[1]
            tables.check(0.5 < tries / truth < 2.0, "%s, prompt %d: %g, in truth %.2f" % (
                flags, prompt, tries, truth))


def every_dear_prompt_has_its_price(case):
    """Of a record that knows all prompts, those beyond the first 16 where they are dear."""
    table = case.table[:2].copy()
    table[:, 0] = table[:, -1] = [0.1, 0.1, 0.8]
    table[0, 1] = [0.998, 0.001, 0.001]
    table[1, 1] = [0.001, 0.998, 0.001]
    world = World(case, "dear", table, ["a"] * 18 + ["b"] + ["a"] * 3)
    record = os.path.join(case.work, "dear.h5")
    tables.run([case.mpo, "fit", world.config, "--quiet", "--estimator.target=whole",
                "--record.file=" + record, "--descent.steps=66"])
    _, said = world.run("--weights=" + record)
    told = [line for line in said.splitlines() if line.startswith("prompt ") and "about" in line]
    tables.check(len(told) == 17 and told[-1].startswith("prompt 18:"), said)
    tables.check("the cost of 22 prompts from the record" in said
                 and "5 more prompts: at most 10 tries" in said and "not estimated" not in said, said)
    tries = float(told[-1].split("about ")[1].split()[0])
    truth = 1.0 / law(world.log_policy, average(record), 1)[1]
    tables.check(truth > 12.0 and 0.5 < tries / truth < 2.0, "%g, in truth %.2f" % (tries, truth))


def prompt_that_runs_out_of_tries_does_not_take_the_others_with_it(case):
    table = case.table[:2].copy()
    table[0, 1] = [1.0 - 2e-10, 1e-10, 1e-10]
    table[1, 1] = [1e-10, 1.0 - 2e-10, 1e-10]
    world = World(case, "hopeless", table, ["a", "b", "a"])
    for flags, ranks in (((), 1), (("--exchange.ranks_per_group=1",), 2), ((), 2)):
        out, said = world.run("--weights=uniform", "--n=2", "--exact-limit=50", *flags,
                              ranks=ranks, expect=65)
        lines = [json.loads(line) for line in out.splitlines()]
        tables.check([line["prompt_index"] for line in lines] == [0, 0, 2, 2], str(lines))
        for text in ("prompt 1: 0 of 2 responses survived 100 tries", "--exact-limit",
                     "1 of 3 prompts", "prompt 1: a response survives within --exact-limit=50"):
            tables.check(said.count(text) >= 1, "expected '%s' in: %s" % (text, said))
    text, _ = tables.run([case.mpo, "generate", world.config, "--exact", "--exact-limit=50",
                          "--weights=uniform"], expect=65)
    tables.check(text.count("### a") == 2 and "### b" not in text, text)


def what_cannot_be_drawn_exactly_is_refused(case):
    world = case.referred
    for flags in (["--best-of=2"], ["--greedy"], ["--temperature=0"], ["--temperature=0.5"],
                  ["--top-k=2"], ["--top-p=0.9"], ["--min-p=0.1"], ["--stop=a"],
                  ["--end-bias=0.5"]):
        world.refused([flags[0].split("=")[0], "--exact: cannot be combined"], *flags)
    world.refused(["'policy2'", "-0.5", "--strength"], "--strength=1.5", ranks=3)
    world.refused(["'policy1'", "-0.5"], "--weights=1.5,-0.5", "--allow-any-weights")
    world.refused(["at least 1", "0.8"], "--weights=0.4,0.4", "--allow-any-weights")
    world.refused(["sum of 1"], "--weights=0.4,0.4")
    world.refused(["sum of 1"], "--weights=0.8,0.8")
    for limit in ("0", "-3", "1.5", "nan", "many"):
        world.refused(["--exact-limit: expected a whole number"], "--exact-limit=" + limit)
    tables.check(len(world.lines("--end-bias=0", "--limit=1")) == 1, "b = 0 is refused")


def tries_come_and_go_in_the_engine_without_a_trace(case):
    """Rounds share a prefill and rows end early: what is drawn depends on the unit alone."""
    generator = np.random.Generator(np.random.Philox(6))
    likely = [3 + ord(letter) for letter in "abcde"] + [BYTES_END]
    logits = np.full((2, BYTES, BYTES), -9.0)
    logits[:, :, likely] = 2.0 * generator.standard_normal((2, BYTES, len(likely)))
    folder = os.path.join(case.work, "gguf")
    os.makedirs(folder)
    lines = ["prompts: {file: prompts.txt}", "rollout: {max_tokens: 8}", "policies:"]
    for k in range(2):
        raw = os.path.join(folder, "p%d.f32" % k)
        logits[k].astype(np.float32).tofile(raw)
        tables.run([case.tool, os.path.join(folder, "p%d.gguf" % k), raw])
        lines.append("  - {name: p%d, model: p%d.gguf, template: raw}" % (k, k))
    for name, content in (("config.yaml", lines), ("prompts.txt", ["a", "abcde" * 20, "cab"])):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
            stream.write("\n".join(content) + "\n")
    command = [case.mpo, "generate", os.path.join(folder, "config.yaml"), "--exact",
               "--weights=0.5,0.5", "--format=jsonl"]
    for rows in (2, 5, 16):
        flags = ["--n=2", "--parallel=%d" % rows]
        one, _ = tables.run(command + flags)
        made = [json.loads(line) for line in one.splitlines()]
        tables.check(len(made) == 6 and max(line["tries"] for line in made) > 4, one)
        for ranks, more in ((2, []), (2, ["--exchange.ranks_per_group=1"])):
            other, _ = tables.run_ranks(case.mpirun, ranks, command + flags + more)
            tables.check(other == one, "%d rows, %d ranks: %s\n%s" % (rows, ranks, one, other))


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    mpo, mpirun, work = (os.path.abspath(path) for path in sys.argv[1:4])
    shutil.rmtree(work, ignore_errors=True)
    case = Case(mpo, mpirun, work, sys.argv[4] if len(sys.argv) == 5 else None)
    cases = [draws_are_those_of_the_mixture_of_whole_responses,
             exponents_may_sum_to_more_than_one_and_have_a_strength,
             draws_depend_on_neither_ranks_nor_rows, single_policy_survives_always,
             price_is_told_before, price_is_that_of_the_record_where_it_knows_it,
             every_dear_prompt_has_its_price,
             prompt_that_runs_out_of_tries_does_not_take_the_others_with_it,
             what_cannot_be_drawn_exactly_is_refused]
    if case.tool is not None:
        cases.append(tries_come_and_go_in_the_engine_without_a_trace)
    sys.exit(tables.run_cases([(run, [case]) for run in cases]))


if __name__ == "__main__":
    main()
