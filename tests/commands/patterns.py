#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whoever reduces the rows, every command says the same.

    patterns.py MPO MPIRUN WORK [--sample]

Table policies of three blocks of tokens, so that on three ranks each has one slice of the
vocabulary and on two the slices differ. What one process writes is compared with what 2, 3
and 6 ranks, and 3 on two hosts, write under exchange.pattern alltoall, byte for byte: records
of `fit`, scored lines of `generate` (drawn, greedy, filtered, the best of several, exact) and of
`score`. Records and scores also with rows rounded to bf16, whose scores are within the stated
error of floats'. With --sample (sample.py) each command runs on one of these, and a record is
written on two.
"""

import json
import os
import re
import shutil
import sys

import numpy as np

import sample
import tables
from records import data_sets, same

BLOCK = 1024
VOCAB = 2 * BLOCK + 60
ROWS = 5
POLICIES = 3
ALLTOALL = "--exchange.pattern=alltoall"
ANSWERS = ("t1 t1025 t2050", "t2048", "t5 t6 t7 t1500 t0")
# Three policies: 6 ranks are two groups of three.
RUNS = [(2, "shared"), (3, "mpi"), (6, "shared"), ("a:2,b:1", "nodes")]


def write_table(path, generator, vocab_size):
    """A bigram table in which state v has row v mod ROWS: whole numbers of 1e-6 that sum to
    1. The end is likely enough for responses of several lengths."""
    names = ["t%d" % v for v in range(vocab_size - 1)] + ["</s>"]
    weight = generator.gamma(0.3, size=(ROWS, vocab_size))
    weight[:, -1] = weight.sum(axis=1) / 12
    share = np.maximum(1, np.floor(weight / weight.sum(axis=1, keepdims=True) * 990000))
    share[:, -1] += 1000000 - share.sum(axis=1)
    rows = [" ".join("%de-6" % p for p in row) for row in share]
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("mpo-table 1\ntokens %s\n" % " ".join(names))
        for state, name in enumerate(names[:-1] + ["<s>"]):
            stream.write("row %s %s\n" % (name, rows[state % ROWS]))


class Case:
    """Three policies in a folder, and the ways to run mpo on them."""

    def __init__(self, mpo, mpirun, work, vocab_size=VOCAB):
        self.mpo, self.mpirun, self.work = mpo, mpirun, work
        generator = np.random.Generator(np.random.Philox(5))
        for k in range(POLICIES):
            write_table(os.path.join(work, "p%d.table" % k), generator, vocab_size)
        with open(os.path.join(work, "prompts.txt"), "w", encoding="utf-8") as stream:
            stream.write("t0\nt1 t1030\nt%d\nt3\n" % (vocab_size - 53))
        self.config = os.path.join(work, "config.yaml")
        with open(self.config, "w", encoding="utf-8") as stream:
            stream.write("prompts: {file: prompts.txt}\npolicies:\n")
            for k in range(POLICIES):
                stream.write("  - {name: p%d, model: p%d.table}\n" % (k, k))
            stream.write("rollout: {responses: 4, max_tokens: 8, prompts_per_step: 4}\n"
                         "descent: {steps: 3}\nrecord: {hash_models: false}\n")

    def run(self, command, ranks, *flags):
        """On so many ranks, or on hosts."""
        line = [self.mpo, command, self.config, *flags]
        if isinstance(ranks, str):
            return tables.run_hosts(self.mpirun, ranks, line, os.path.join(self.work, "hosts"))
        return tables.run_ranks(self.mpirun, ranks, line)

    def same_everywhere(self, command, *flags):
        """One process and every run with slices print the same; returns it."""
        expected, _ = self.run(command, 1, *flags)
        for ranks, transport in sample.some(" ".join(("runs of", command) + flags), RUNS, 1):
            found, _ = self.run(command, ranks, ALLTOALL,
                                "--exchange.transport=" + transport, *flags)
            tables.check(found == expected, "%s on ranks %s through %s differs" % (
                " ".join((command,) + flags), ranks, transport))
        return expected


def fit_writes_the_same_record(case):
    same_records(case, "float")


def fit_writes_the_same_record_with_rounded_rows(case):
    floats = same_records(case, "float", runs=[])
    rounded = same_records(case, "bf16")
    tables.check(rounded["responses/log_policy"] != floats["responses/log_policy"],
                 "nothing was rounded")
    records = [os.path.join(case.work, "one_%s.h5" % rows) for rows in ("float", "bf16")]
    shown, _ = tables.run([case.mpo, "inspect", records[1]])
    tables.check(re.search("^exchange rows +bf16$", shown, re.MULTILINE), shown)
    shown, _ = tables.run([case.mpo, "inspect", "--compare", *records])
    tables.check(re.search(r"exchange\.rows\n +first +float\n +second +bf16\n", shown), shown)


def same_records(case, rows, runs=((3, None), *RUNS)):
    """One process and all runs write the same data sets; returns them."""
    record = os.path.join(case.work, "one_%s.h5" % rows)
    if os.path.exists(record):
        os.remove(record)
    case.run("fit", 1, "--record.file=" + record, "--exchange.rows=" + rows)
    expected = data_sets(record)
    token = np.frombuffer(expected["responses/token"][2], dtype=np.int32)
    tables.check(set(token // BLOCK) == {0, 1, 2}, "the responses miss a block of tokens")
    for ranks, transport in sample.some("runs of fit with rows of " + rows, runs, 2):
        pattern = "alltoall" if transport else "gather"
        record = os.path.join(case.work, "%s_%s_%s.h5" % (ranks, transport, rows))
        _, said = case.run("fit", ranks, "--record.file=" + record,
                           "--exchange.pattern=" + pattern, "--exchange.rows=" + rows,
                           "--exchange.transport=" + (transport or "auto"))
        tables.check("exchange %s %s" % (transport or "shared", pattern) in said, said)
        same(expected, data_sets(record), "%s of %s on ranks %s" % (pattern, rows, ranks))
    return expected


def generate_draws_the_same_tokens(case):
    lines = case.same_everywhere("generate", "--format=jsonl", "--n=3")
    tables.check(len(lines.splitlines()) == 12, lines)


def generate_draws_the_same_filtered_tokens(case):
    plain, _ = case.run("generate", 1, "--format=jsonl", "--n=2")
    lines = case.same_everywhere("generate", "--format=jsonl", "--n=2", "--temperature=0.8",
                                 "--top-k=60", "--top-p=0.9", "--min-p=0.001")
    tables.check(lines != plain, "the filters take nothing away")


def generate_takes_the_same_greedy_tokens(case):
    case.same_everywhere("generate", "--format=jsonl", "--greedy")


def generate_picks_the_same_best_of_several(case):
    case.same_everywhere("generate", "--format=jsonl", "--best-of=5")


def generate_draws_the_same_exactly(case):
    case.same_everywhere("generate", "--format=jsonl", "--exact", "--n=2",
                         "--weights=0.9,0.05,0.05")


def score_answers(case, *flags):
    path = os.path.join(case.work, "answers.jsonl")
    with open(path, "w", encoding="utf-8") as stream:
        for response in ANSWERS:
            stream.write(json.dumps({"prompt": "t0", "response": response}) + "\n")
    return case.same_everywhere("score", "--input=" + path, "--weights=0.5,0.2,0.3", *flags)


def score_gives_the_same_sums(case):
    score_answers(case)


def read_logits(path):
    """What mpo makes of a table: [V + 1, V], the start last."""
    with open(path, encoding="utf-8") as stream:
        rows = [line.split()[2:] for line in stream if line.startswith("row ")]
    return np.log(np.array(rows, dtype=float)).astype(np.float32).astype(float)


def bounds_of_rounding(logits, state, token):
    """The least and the greatest log-probability of a token when every difference to the
    row's greatest logit is off by at most 2^-8 of itself. The token's own difference is r, and
    the normaliser, which falls when differences grow, lies between those of all of them
    1 + 2^-8 and 1 - 2^-8 times as large."""
    below = logits[state] - logits[state].max()
    low, high = (np.log(np.exp(factor * below).sum()) for factor in (1 + 2.0**-8, 1 - 2.0**-8))
    return np.array([(1 + 2.0**-8) * below[token] - high, (1 - 2.0**-8) * below[token] - low])


def scores_of_rounded_rows_are_as_far_off_as_stated(case):
    floats = [json.loads(line) for line in score_answers(case).splitlines()]
    rounded = [json.loads(line) for line in score_answers(case, "--exchange.rows=bf16").splitlines()]
    moved = 0.0
    for k in range(POLICIES):
        logits = read_logits(os.path.join(case.work, "p%d.table" % k))
        for answer, one, other in zip(ANSWERS, floats, rounded, strict=True):
            tokens = [int(name[1:]) for name in answer.split()] + [VOCAB - 1]
            bounds = sum(bounds_of_rounding(logits, state, token)
                         for state, token in zip([0] + tokens[:-1], tokens))
            found = other["log_policy"]["p%d" % k]
            tables.check(bounds[0] <= found <= bounds[1], "p%d of %s: %g, expected %s" % (
                k, answer, found, bounds))
            moved = max(moved, abs(found - one["log_policy"]["p%d" % k]))
    tables.check(moved > 1e-4, "nothing was rounded")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    shutil.rmtree(sys.argv[3], ignore_errors=True)
    os.makedirs(sys.argv[3])
    case = Case(*sys.argv[1:])
    cases = [
        fit_writes_the_same_record,
        generate_draws_the_same_tokens,
        generate_draws_the_same_filtered_tokens,
        generate_takes_the_same_greedy_tokens,
        generate_picks_the_same_best_of_several,
        generate_draws_the_same_exactly,
        score_gives_the_same_sums,
        fit_writes_the_same_record_with_rounded_rows,
        scores_of_rounded_rows_are_as_far_off_as_stated,
    ]
    sys.exit(tables.run_cases([(one, [case]) for one in cases]))


if __name__ == "__main__":
    main()
