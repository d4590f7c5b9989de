#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`mpo generate` on more prompts than rows: waiting prompts join as rows finish.

    generate_rows.py MPO MPIRUN WORK [BIGRAM_GGUF_TOOL]

Neither the number of rows (of tables) nor that of ranks (of any policy) may change a byte,
and every prompt must be answered once, in order, with its exact scores.
"""

import json
import os
import shutil
import sys

import numpy as np

import fit_llama
import generate_frequencies
import tables

VOCAB = 5
MAX_TOKENS = 24
RANKS = (2, 3, 6)


class Case:
    """Where things are, and three table policies whose responses are short and long."""

    def __init__(self, mpo, mpirun, work, tool=None):
        self.mpo, self.mpirun, self.work, self.tool = mpo, mpirun, work, tool
        self.table = tables.random_tables(8, 3, VOCAB, 1.0, end_logit=-1.0)
        self.config = tables.write_config(
            os.path.join(work, "tables"), self.table, ["a", "b", "c", "d"] * 15,
            {"rollout": {"max_tokens": MAX_TOKENS}})

    def output(self, *flags, config=None, ranks=1, form="jsonl"):
        return tables.run_ranks(self.mpirun, ranks, [
            self.mpo, "generate", config or self.config, "--format=" + form, *flags])[0]


def lines_of(output):
    return [json.loads(line) for line in output.splitlines()]


def rows_and_ranks_change_nothing_for_tables(case):
    for flags in ([], ["--n=2"], ["--best-of=3"], ["--greedy"], ["--stop=b a"],
                  ["--top-k=3", "--temperature=1.5"]):
        expected = case.output(*flags, "--parallel=256")
        tables.check(len(expected.splitlines()) >= 60, "%s: too few lines" % flags)
        for rows in (3, 5, 16):
            found = case.output(*flags, "--parallel=%d" % rows)
            tables.check(found == expected, "%s: %d rows give others" % (flags, rows))
    expected = case.output("--n=2")
    for ranks in RANKS:
        for flags in ([], ["--parallel=3"], ["--parallel=3", "--exchange.ranks_per_group=1"]):
            found = case.output("--n=2", *flags, ranks=ranks)
            tables.check(found == expected, "%d ranks %s give others" % (ranks, flags))


def text_needs_no_policy_without_weight(case, config=None, flags=(), ranks=RANKS):
    """Scores are printed as JSON alone: for text, policies without weight do nothing."""
    for weights in ("0.5,0,0.5", "0,1,0", "0,0.4,0.6"):
        flags = (*flags, "--parallel=5", "--weights=" + weights)
        lines = lines_of(case.output(*flags, config=config))
        expected = "".join("### %s\n%s%s\n" % (line["prompt"], line["prefill"], line["response"])
                           for line in lines)
        for count in (1, *ranks):
            found = case.output(*flags, config=config, ranks=count, form="text")
            tables.check(found == expected, "%s: %d ranks: other texts" % (weights, count))


def check_answers(lines, prompts, log_policy, states, bound):
    """One line a prompt, in order, with the scores of its tokens."""
    tables.check([line["prompt_index"] for line in lines] == list(range(len(prompts))),
                 "not one response a prompt, in order")
    rows = tables.log_softmax(np.tensordot(np.full(len(log_policy), 1 / len(log_policy)),
                                           log_policy, 1))
    for line, prompt in zip(lines, prompts, strict=True):
        tokens, start = states(line)
        tables.check(line["prompt"] == prompt, "the prompt of %s" % line)
        tables.check(len(tokens) == line["tokens"], "tokens of %s" % line)
        off = [abs(tables.log_response(rows, start, tokens) - line["log_mixture"])]
        off += [abs(tables.log_response(log_policy[k], start, tokens) - score)
                for k, score in enumerate(line["log_policy"].values())]
        tables.check(max(off) <= bound * len(tokens), "off by %g: %s" % (max(off), line))


def every_prompt_is_answered_once_with_exact_scores(case):
    names = tables.token_names(VOCAB)

    def states(line):
        tokens = [names.index(name) for name in line["response"].split()]
        return np.array(tokens + [VOCAB - 1] * line["ended"]), names.index(line["prompt"])

    lines = lines_of(case.output("--parallel=7"))
    check_answers(lines, ["a", "b", "c", "d"] * 15, tables.log_policies(case.table), states,
                  1e-10)
    lengths = {line["tokens"] for line in lines}
    tables.check(len(lengths) > 8, "the lengths are all alike: %s" % lengths)


def rows_that_come_and_go_keep_the_frequencies(case):
    frequencies = generate_frequencies.Case(
        case.mpo, case.mpirun, os.path.join(case.work, "frequencies"), repeats=4000)
    generate_frequencies.check_frequencies(frequencies, np.array([0.6, 0.4]), "0.6,0.4",
                                           samples=1, more=["--parallel=5"])


def the_same_through_the_engine_on_every_number_of_ranks(case):
    folder = os.path.join(case.work, "gguf")
    logits = fit_llama.random_logits(4, 3)
    config = fit_llama.write_case(case, folder, logits)
    prompts = ["a" * (1 + 5 * i % 17) + "bcde"[i % 4] for i in range(20)]
    with open(os.path.join(folder, "prompts.txt"), "w", encoding="utf-8") as stream:
        stream.write("\n".join(prompts) + "\n")

    def states(line):
        tokens = [3 + byte for byte in line["response"].encode("latin-1")]
        return (np.array(tokens + [fit_llama.END] * line["ended"]),
                3 + ord(line["prompt"][-1]))

    log_policy = tables.log_softmax(logits.astype(np.float64))
    flags = ("--rollout.max_tokens=%d" % MAX_TOKENS, "--top-k=6", "--run.threads=1")
    for rows in (1, 3, 16):
        expected = case.output(*flags, "--parallel=%d" % rows, config=config)
        check_answers(lines_of(expected), prompts, log_policy, states, fit_llama.SCORE_BOUND)
        for ranks in RANKS:
            found = case.output(*flags, "--parallel=%d" % rows, config=config, ranks=ranks)
            tables.check(found == expected, "%d rows, %d ranks: others" % (rows, ranks))
    text_needs_no_policy_without_weight(case, config, flags, RANKS[:2])


def rows_must_hold_the_responses_to_one_prompt(case):
    _, said = tables.run([case.mpo, "generate", case.config, "--n=4", "--best-of=2",
                          "--parallel=7"], 64)
    tables.check("--parallel: expected at least --n times --best-of, 8" in said, said)


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    paths = [os.path.abspath(path) for path in sys.argv[1:]]
    shutil.rmtree(paths[2], ignore_errors=True)
    case = Case(*paths)
    cases = [rows_and_ranks_change_nothing_for_tables,
             every_prompt_is_answered_once_with_exact_scores,
             text_needs_no_policy_without_weight,
             rows_that_come_and_go_keep_the_frequencies,
             rows_must_hold_the_responses_to_one_prompt]
    if case.tool:
        cases.append(the_same_through_the_engine_on_every_number_of_ranks)
    sys.exit(tables.run_cases([(run, [case]) for run in cases]))


if __name__ == "__main__":
    main()
