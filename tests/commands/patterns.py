#!/usr/bin/env python3
"""Whoever reduces the rows, every command says the same.

    patterns.py MPO MPIRUN WORK

Table policies of three blocks of tokens, so that on three ranks each has one slice of the
vocabulary and on two the slices differ. What one process writes is compared with what 2, 3
and 6 ranks, and 3 on two hosts, write under exchange.pattern alltoall, byte for byte: records
of `fit`, scored lines of `generate` (drawn, greedy, filtered, the best of several) and of
`score`.
"""

import json
import os
import shutil
import sys

import numpy as np

import tables
from records import data_sets, same

BLOCK = 1024
VOCAB = 2 * BLOCK + 60
ROWS = 5
POLICIES = 3
ALLTOALL = "--exchange.pattern=alltoall"
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
        for ranks, transport in RUNS:
            found, _ = self.run(command, ranks, ALLTOALL,
                                "--exchange.transport=" + transport, *flags)
            tables.check(found == expected, "%s on ranks %s through %s differs" % (
                " ".join((command,) + flags), ranks, transport))
        return expected


def fit_writes_the_same_record(case):
    record = os.path.join(case.work, "one.h5")
    case.run("fit", 1, "--record.file=" + record)
    expected = data_sets(record)
    token = np.frombuffer(expected["responses/token"][2], dtype=np.int32)
    tables.check(set(token // BLOCK) == {0, 1, 2}, "the responses miss a block of tokens")
    for ranks, transport in [(3, None)] + RUNS:
        pattern = "alltoall" if transport else "gather"
        record = os.path.join(case.work, "%s_%s.h5" % (ranks, transport))
        _, said = case.run("fit", ranks, "--record.file=" + record,
                           "--exchange.pattern=" + pattern,
                           "--exchange.transport=" + (transport or "auto"))
        tables.check("exchange %s %s" % (transport or "shared", pattern) in said, said)
        same(expected, data_sets(record), "%s on ranks %s" % (pattern, ranks))


def generate_draws_the_same_tokens(case):
    lines = case.same_everywhere("generate", "--format=jsonl", "--n=3")
    tables.check(len(lines.splitlines()) == 12, lines)


def generate_draws_the_same_filtered_tokens(case):
    plain, _ = case.run("generate", 1, "--format=jsonl", "--n=2")
    lines = case.same_everywhere("generate", "--format=jsonl", "--n=2", "--temperature=0.8",
                                 "--top_k=60", "--top_p=0.9", "--min_p=0.001")
    tables.check(lines != plain, "the filters take nothing away")


def generate_takes_the_same_greedy_tokens(case):
    case.same_everywhere("generate", "--format=jsonl", "--greedy")


def generate_picks_the_same_best_of_several(case):
    case.same_everywhere("generate", "--format=jsonl", "--best_of=5")


def score_gives_the_same_sums(case):
    path = os.path.join(case.work, "answers.jsonl")
    with open(path, "w", encoding="utf-8") as stream:
        for response in ("t1 t1025 t2050", "t2048", "t5 t6 t7 t1500 t0"):
            stream.write(json.dumps({"prompt": "t0", "response": response}) + "\n")
    case.same_everywhere("score", "--input=" + path, "--weights=0.5,0.2,0.3")


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
        score_gives_the_same_sums,
    ]
    sys.exit(tables.run_cases([(one, [case]) for one in cases]))


if __name__ == "__main__":
    main()
