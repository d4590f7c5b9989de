#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The options of `mpo generate` that change what is drawn, or how it is shown.

    generate_options.py MPO MPIRUN WORK [BIGRAM_GGUF_TOOL]

Frequencies have fixed seeds, so a run passes or fails for good.
"""

import json
import os
import pty
import shutil
import subprocess
import sys

import numpy as np

import tables

VOCAB = 6
END = VOCAB - 1
MAX_TOKENS = 12
NAMES = tables.token_names(VOCAB)
BYTES = 260
BYTES_END = 2


class Case:
    """Policies in a folder, and the ways to run generate on them."""

    def __init__(self, mpo, mpirun, work, tool):
        self.mpo, self.mpirun, self.work, self.tool = mpo, mpirun, work, tool
        self.table = tables.random_tables(3, 3, VOCAB, 1.5, end_logit=-1.0)
        self.log_policy = tables.log_policies(self.table)
        self.config = self.write("all", self.table, None)

    def write(self, folder, table, names, max_tokens=MAX_TOKENS):
        return tables.write_config(os.path.join(self.work, folder), table, ["a", "b"] * 10,
                                   {"rollout": {"max_tokens": max_tokens}}, names=names)

    def lines(self, *flags, config=None, ranks=1, expect=0):
        out, said = tables.run_ranks(self.mpirun, ranks, [
            self.mpo, "generate", config or self.config, "--format=jsonl", *flags], expect)
        return [json.loads(line) for line in out.splitlines()] if expect == 0 else said

    def texts(self, *flags, config=None, ranks=1):
        return [line["response"] for line in self.lines(*flags, config=config, ranks=ranks)]


def transitions(lines):
    """Every (state, token) of the responses."""
    pairs = []
    for line in lines:
        tokens = [NAMES.index(name) for name in line["response"].split()]
        tokens += [END] * (line["finish"] == "end")
        pairs += zip([NAMES.index(line["prompt"])] + tokens[:-1], tokens)
    return pairs


def weight_one_gives_the_text_of_that_policy(case):
    for k in range(3):
        alone = case.write("alone%d" % k, case.table[k:k + 1], ["alone"])
        own = case.lines("--n=4", config=alone)
        mixed = case.lines("--n=4", "--weights=policy%d" % k)
        tables.check([line["response"] for line in own] ==
                     [line["response"] for line in mixed], "policy%d: other texts" % k)
        ends = case.texts("--n=4", "--weights=" + ",".join(
            "1" if j == k else "0" for j in range(3)), ranks=3)
        tables.check(ends == [line["response"] for line in own], "other texts by number")


def weight_one_is_that_policy_through_the_engine(case):
    generator = np.random.Generator(np.random.Philox(6))
    likely = [3 + ord(letter) for letter in "abcde"] + [BYTES_END]
    logits = np.full((2, BYTES, BYTES), -9.0)
    logits[:, :, likely] = generator.standard_normal((2, BYTES, len(likely)))
    folder = os.path.join(case.work, "gguf")
    os.makedirs(folder)
    head = ["prompts: {file: prompts.txt}", "rollout: {max_tokens: 12}", "policies:"]
    entries = []
    for k in range(2):
        raw = os.path.join(folder, "p%d.f32" % k)
        logits[k].astype(np.float32).tofile(raw)
        tables.run([case.tool, os.path.join(folder, "p%d.gguf" % k), raw])
        entries.append("  - {name: p%d, model: p%d.gguf, template: raw}" % (k, k))
    for name, lines in (("both", head + entries), ("alone", head + entries[1:]),
                        ("prompts", ["a", "b", "c"])):
        suffix = ".txt" if name == "prompts" else ".yaml"
        with open(os.path.join(folder, name + suffix), "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
    own = case.texts("--n=3", config=os.path.join(folder, "alone.yaml"))
    for ranks in (1, 2):
        mixed = case.texts("--n=3", "--weights=p1", ranks=ranks,
                           config=os.path.join(folder, "both.yaml"))
        tables.check(own == mixed, "%s\n%s" % (own, mixed))


def filters_keep_what_they_say(case):
    rows = tables.proposal_rows(case.log_policy, np.full(3, 1.0 / 3.0), 0.0)
    kept = {}
    for flag in ("--top-k=2", "--top-p=0.6", "--min-p=0.5"):
        kept[flag] = transitions(case.lines("--n=100", flag))
    for flag, pairs in kept.items():
        seen = {state: {token for s, token in pairs if s == state} for state in range(END)}
        for state, found in seen.items():
            order = np.argsort(-rows[state], kind="stable")
            probability = np.exp(rows[state][order])
            expected = {"--top-k=2": 2,
                        "--top-p=0.6": 1 + int((np.cumsum(probability) < 0.6).sum()),
                        "--min-p=0.5": int((probability >= 0.5 * probability[0]).sum())}
            tables.check(found <= set(order[:expected[flag]]),
                         "%s: state %d gave %s" % (flag, state, found))
            if sum(s == state for s, _ in pairs) > 400:
                tables.check(len(found) == expected[flag],
                             "%s: state %d gave only %s" % (flag, state, found))
    cold = case.texts("--temperature=0.001")
    tables.check(cold == case.texts("--greedy"), "temperature 0.001 is not greedy")
    same = case.texts("--n=2", "--top-k=%d" % VOCAB, "--top-p=1", "--min-p=0")
    tables.check(same == case.texts("--n=2"), "a filter of nothing draws otherwise")
    few = case.texts("--n=5", "--top-k=3", "--top-p=0.9", "--temperature=1.5")
    tables.check(few == case.texts("--n=5", "--top-k=3", "--top-p=0.9",
                                   "--temperature=1.5", ranks=3), "3 ranks draw otherwise")


def stop_text_ends_a_response_before_it(case):
    plain = case.lines("--n=8")
    for flag, stops in (("--stop=c", ["c"]), ('--stop=["b a", "d"]', ["b a", "d"])):
        for ranks in (1, 3):
            cut = case.lines("--n=8", flag, ranks=ranks)
            hits = 0
            for one, other in zip(plain, cut, strict=True):
                places = [one["response"].find(stop) for stop in stops]
                places = [place for place in places if place >= 0]
                expected = one["response"][:min(places)] if places else one["response"]
                tables.check(other["response"] == expected, "%s: %s" % (one, other))
                tables.check((other["finish"] == "stop") == bool(places), str(other))
                tables.check(not places or other["tokens"] <= one["tokens"], str(other))
                hits += bool(places) and other["tokens"] < one["tokens"]
            tables.check(hits > 10, "only %d responses were shorter for it" % hits)
    tables.check("JSON list" in case.lines("--stop=[3", expect=64), "a bad list is taken")


def weights_off_the_simplex_need_a_word(case):
    weights = np.array([1.5, -0.5, 0.25])
    flag = "--weights=1.5,-0.5,0.25"
    tables.check("--allow-any-weights" in case.lines(flag, expect=64), "no advice")
    rows = tables.proposal_rows(case.log_policy, weights, 0.0)
    for line in case.lines(flag, "--allow-any-weights", "--n=2"):
        tokens = [NAMES.index(name) for name in line["response"].split()]
        tokens += [END] * line["ended"]
        truth = tables.log_response(rows, NAMES.index(line["prompt"]), np.array(tokens))
        tables.check(abs(truth - line["log_mixture"]) <= 1e-10, str(line))
    said = case.lines("--weights=1e300,0,0", "--allow-any-weights", expect=64)
    tables.check("from -1e+06 to 1e+06, found 1e+300" in said, said)


def best_of_many_goes_to_the_mixture_of_whole_responses(case):
    """With two tokens at most there are few responses: their frequencies."""
    short = case.write("short", case.table, None, max_tokens=2)
    weights = np.full(3, 1.0 / 3.0)
    responses = [(END,)] + [(v, w) for v in range(END) for w in range(VOCAB)]
    rows = tables.proposal_rows(case.log_policy, weights, 0.0)
    lines = [line for seed in range(5, 20)
             for line in case.lines("--n=8", "--best-of=32", "--run.seed=%d" % seed,
                                    config=short)]
    start = 0
    drawn = []
    for line in lines:
        if line["prompt"] == "a":
            tokens = [NAMES.index(name) for name in line["response"].split()]
            drawn.append(tuple(tokens + [END] * line["ended"]))
    scores = np.array([sum(weights[k] * tables.log_response(
        case.log_policy[k], start, np.array(one)) for k in range(3)) for one in responses])
    whole = scores - np.log(np.exp(scores).sum())
    token = np.array([tables.log_response(rows, start, np.array(one)) for one in responses])
    # The log of the ratio of both laws has its means under either of them.
    ratio = whole - token
    means = [(np.exp(law) * ratio).sum() for law in (whole, token)]
    spread = np.sqrt((np.exp(whole) * (ratio - means[0])**2).sum() / len(drawn))
    found = np.mean([ratio[responses.index(one)] for one in drawn])
    z = (found - means[0]) / spread
    apart = (means[0] - means[1]) / spread
    tables.check(apart > 8.0, "the two laws are only %.1f deviations apart" % apart)
    tables.check(abs(z) < 4.0, "z = %.2f, where the token mixture is at %.1f" % (z, -apart))
    flags = ("--n=3", "--best-of", "5")  # as people write it
    tables.check(case.texts(*flags) == case.texts(*flags, ranks=3), "3 ranks pick otherwise")
    for flag in ("--greedy", "--top-k=3", "--stop=c"):
        tables.check("--best-of" in case.lines("--best-of=2", flag, expect=64), flag)
    tables.check("256" in case.lines("--best-of=100", "--n=3", expect=64), "300 rows")


def on_a_terminal(case, *flags, config=None, pieces=None):
    """What a terminal gets; pieces: a list for what arrived together."""
    leader, follower = pty.openpty()
    environment = {**os.environ, **tables.ENVIRONMENT}
    with subprocess.Popen([case.mpo, "generate", config or case.config, "--prompt=a", *flags],
                          stdin=subprocess.DEVNULL, stdout=follower,
                          stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(follower)
        got = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:
                break
            if not piece:
                break
            got += piece
            if pieces is not None:
                pieces.append(piece)
        tables.check(process.wait() == 0, "generate failed on a terminal")
    os.close(leader)
    return got.decode().replace("\r\n", "\n")


def terminal_gets_the_same_text(case):
    for flags in ([], ["--stop=b a"], ["--greedy"], ["--prompts.prefill=c d"],
                  ["--run.seed=4", "--stop=d"], ["--n=2"], ["--best-of=3"]):
        plain, _ = tables.run([case.mpo, "generate", case.config, "--prompt=a", *flags])
        shown = on_a_terminal(case, *flags)
        tables.check(shown == plain, "%s: %r, not %r" % (flags, shown, plain))


def terminal_gets_whole_characters(case):
    """A model that says the bytes of a, e with acute, euro sign, over and over."""
    cycle = "a\u00e9\u20ac".encode()
    logits = np.full((BYTES, BYTES), -30.0, dtype=np.float32)
    for i, byte in enumerate(cycle):
        logits[3 + byte, 3 + cycle[(i + 1) % len(cycle)]] = 0.0
    folder = os.path.join(case.work, "characters")
    os.makedirs(folder)
    raw = os.path.join(folder, "p.f32")
    logits.tofile(raw)
    tables.run([case.tool, os.path.join(folder, "p.gguf"), raw])
    config = os.path.join(folder, "config.yaml")
    with open(config, "w", encoding="utf-8") as stream:
        stream.write("policies:\n  - {name: p, model: p.gguf, template: raw}\n"
                     "rollout: {max_tokens: 46}\n")
    plain, _ = tables.run([case.mpo, "generate", config, "--prompt=a", "--greedy"])
    tables.check(plain.startswith("\u00e9\u20aca\u00e9\u20ac") and
                 plain.endswith("\ufffd\n"), repr(plain))
    pieces = []
    shown = on_a_terminal(case, "--greedy", config=config, pieces=pieces)
    tables.check(shown == plain, "%r, not %r" % (shown, plain))
    for piece in pieces:
        piece.decode()  # no piece ends inside a character


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    mpo, mpirun, work = (os.path.abspath(path) for path in sys.argv[1:4])
    shutil.rmtree(work, ignore_errors=True)
    case = Case(mpo, mpirun, work, sys.argv[4] if len(sys.argv) == 5 else None)
    cases = [weight_one_gives_the_text_of_that_policy, filters_keep_what_they_say,
             stop_text_ends_a_response_before_it, weights_off_the_simplex_need_a_word,
             best_of_many_goes_to_the_mixture_of_whole_responses,
             terminal_gets_the_same_text]
    if case.tool is not None:
        cases += [weight_one_is_that_policy_through_the_engine,
                  terminal_gets_whole_characters]
    sys.exit(tables.run_cases([(run, [case]) for run in cases]))


if __name__ == "__main__":
    main()
