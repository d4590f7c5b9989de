#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Time of a step and of set-up against the number of policies and ranks, with table policies.

    scaling.py MPO MPIRUN WORK > measured.tsv

Every policy reads one table of V tokens, and responses are never ended early, so a step is the
same work every time: 16 rows at 8 positions. Runs of all cases are interleaved; each figure is
the median over the rounds, of the median step in each. Set-up is everything but the steps: it
holds the start of mpirun and of the processes, and loading the tables.
"""

import argparse
import os
import statistics
import sys
import time

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "commands"))
import tables  # noqa: E402  (found by the line above)

ROWS, POSITIONS, STEPS = 16, 8, 6
VOCAB_SIZES = (64, 512)
RANKS = (1, 2, 4, 8)
POLICIES = {64: (1, 4, 16, 64), 512: (1, 8, 64)}
SET_UP_POLICIES = (256, 512, 1024)  # in one process


def write_table(path, vocab_size):
    """Random bigrams whose end token is never drawn."""
    generator = np.random.Generator(np.random.Philox(vocab_size))
    rows = generator.random((vocab_size, vocab_size)) + 0.1
    rows[:, -1] = 0.0
    rows /= rows.sum(axis=1, keepdims=True) / (1.0 - 1e-9)
    rows[:, -1] = 1e-9
    names = ["t%d" % v for v in range(vocab_size - 1)]
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("mpo-table 1\ntokens %s </s>\n" % " ".join(names))
        for name, row in zip(["<s>"] + names, rows):
            stream.write("row %s %s\n" % (name, " ".join("%.17g" % p for p in row)))


def write_config(folder, vocab_size, policy_count):
    path = os.path.join(folder, "%d_%d.yaml" % (vocab_size, policy_count))
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("prompts: {file: prompts.txt}\npolicies:\n")
        for k in range(policy_count):
            stream.write("  - {name: p%d, model: %d.table, temperature: %.3f}\n" % (
                k, vocab_size, 1.0 + 0.001 * k))
        stream.write("rollout: {responses: %d, max_tokens: %d, end_bias: 0}\n" % (
            ROWS, POSITIONS))
        stream.write("descent: {steps: %d}\nrecord: {file: out.h5}\n" % STEPS)
    return path


def measure(arguments, case):
    """(seconds a step, seconds of set-up)"""
    vocab_size, policy_count, ranks = case
    config = write_config(arguments.work, vocab_size, policy_count)
    record = os.path.join(arguments.work, "out.h5")
    if os.path.exists(record):
        os.remove(record)
    start = time.monotonic()
    tables.run_ranks(arguments.mpirun, ranks, [arguments.mpo, "fit", config, "--quiet"])
    whole = time.monotonic() - start
    with h5py.File(record, "r") as file:
        elapsed = file["elapsed"][()]
        if file["tokens"][-1] != ROWS * POSITIONS:
            raise SystemExit("scaling.py: a response ended early: steps are not alike")
    return statistics.median(np.diff(elapsed)), whole - elapsed[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mpo")
    parser.add_argument("mpirun")
    parser.add_argument("work")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.makedirs(arguments.work, exist_ok=True)
    with open(os.path.join(arguments.work, "prompts.txt"), "w", encoding="utf-8") as stream:
        stream.write("t0\nt1\n")
    for vocab_size in VOCAB_SIZES:
        write_table(os.path.join(arguments.work, "%d.table" % vocab_size), vocab_size)
    cases = [(v, k, w) for v in VOCAB_SIZES for k in POLICIES[v] for w in RANKS if w <= k]
    cases += [(VOCAB_SIZES[0], k, 1) for k in SET_UP_POLICIES]
    found = {case: [] for case in cases}
    for _ in range(arguments.rounds):
        for case in cases:
            found[case].append(measure(arguments, case))
    print("V\tK\tranks\tstep_ms\tset_up_ms")
    for case, pairs in found.items():
        step, set_up = (1e3 * statistics.median(column) for column in zip(*pairs))
        print("%d\t%d\t%d\t%.2f\t%.0f" % (*case, step, set_up))


if __name__ == "__main__":
    main()
