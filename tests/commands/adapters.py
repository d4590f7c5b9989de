#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""generate, score, evaluate and export with the record of a fit with adapters.

    adapters.py MPO MPIRUN WORK BIGRAM_GGUF_TOOL

The world is that of adapter_worlds.py: what is drawn from is known in closed form.
"""

import json
import os
import shutil
import sys

import numpy as np

import tables
from adapter_worlds import VOCAB, Arguments, World, fit
from gguf_file import F32, Gguf

STRENGTH = 1.4
# Logits of a float32 model through the engine agree with its table to about 1e-5 a token.
SCORE_BOUND = 1e-4


class Case:
    """A world with a reference, its configuration and a record of it."""

    def __init__(self, arguments):
        self.mpo, self.folder = arguments.mpo, arguments.folder("case")
        self.world = World(3, 3)
        self.config = self.world.write(arguments.tool, self.folder, reference=True)
        self.record = self.path("run.h5")
        found = fit(arguments, self.config, self.record, "--descent.steps=6",
                    "--rollout.strength=%g" % STRENGTH)
        self.weights = found["average"][-1]
        self.scales = STRENGTH * self.weights
        self.rows = self.world.log_rows(self.scales)
        self.exact = self.world.exact(True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, command, *flags, expect=0, config=None):
        words = [self.mpo, command, config or self.config]
        return tables.run([*words, *flags], expect=expect)

    def lines(self, command, *flags, config=None):
        out, _ = self.run(command, *flags, "--quiet", config=config)
        return out, [json.loads(line) for line in out.splitlines()]


def start_of(line):
    return 3 + ord(line["prompt"])


def generate_and_score_say_what_the_closed_form_says(case):
    out, lines = case.lines("generate", "--weights=" + case.record, "--n=8", "--format=jsonl")
    with open(case.path("drawn.jsonl"), "w", encoding="utf-8") as stream:
        stream.write(out)
    _, again = case.lines("score", "--weights=" + case.record,
                          "--input=" + case.path("drawn.jsonl"))
    for line, scored in zip(lines, again):
        token = np.array(line["token_ids"])
        truth = [tables.log_response(rows, start_of(line), token)
                 for rows in (case.rows, *case.exact.log_policy)]
        for said in (line, scored):
            off = np.abs(np.array(truth) - [said["log_mixture"], *said["log_policy"].values()])
            tables.check(off.max() <= SCORE_BOUND * len(token), "off by %g" % off.max())
        tables.check(line["log_mixture"] == scored["log_mixture"], "score says otherwise")
    text, _ = case.run("generate", "--weights=" + case.record, "--n=8", "--quiet")
    tables.check(all(line["response"] in text for line in lines), "other texts")


def one_policy_by_name_is_that_policy(case):
    _, lines = case.lines("generate", "--weights=p1", "--n=8", "--format=jsonl")
    for line in lines:
        off = abs(line["log_mixture"] - line["log_policy"]["p1"])
        tables.check(off <= 1e-5 * line["tokens"], "off by %g" % off)


def evaluate_says_both_kinds_side_by_side(case):
    numbers = "0.2,0.5,0.3"
    out, _ = case.run("evaluate", "--weights=" + case.record, "--replicates=100",
                      "--against=logits:%s;%s;logits:%s" % (case.record, numbers, numbers),
                      "--strength=%g" % STRENGTH, "--format=json", "--responses=32")
    vectors = json.loads(out)["vectors"]
    tables.check([vector["mixture"] for vector in vectors]
                 == ["adapters", "logits", "adapters", "logits"], out)
    for vector in vectors:
        mu = np.array(list(vector["exponents"].values()))
        scores, divergence = case.exact.served_rows(case.world.log_rows(mu[:3]))
        found = {}
        for row in vector["results"]:
            found.setdefault(row["quantity"], []).append(row["estimate"])
        tables.check(np.abs(np.array(found["served_divergence"]) - divergence).max() < 0.5,
                     "%s, exactly %s" % (found["served_divergence"], divergence))
        tables.check(("value" in found) == (vector["mixture"] == "logits"), "%s" % found.keys())
    for one, other in ((0, 1), (2, 3)):
        for name in ("served_divergence", "served_score", "length", "truncated"):
            a, b = [[row["estimate"] for row in vectors[v]["results"] if row["quantity"] == name]
                    for v in (one, other)]
            tables.check(np.allclose(a, b, atol=1e-4), "%s: %s and %s" % (name, a, b))
    _, said = case.run("evaluate", "--rollout.mixture=logits", "--against=adapters:uniform",
                       expect=64)
    tables.check("rollout.mixture" in said, said)


def inspect_says_what_is_mixed(case):
    text, _ = tables.run([case.mpo, "inspect", case.record])
    tables.check("\nmixture of     adapters\n" in text, text)
    out, _ = tables.run([case.mpo, "inspect", case.record, "--format=json"])
    tables.check(json.loads(out)["mixture"] == "adapters", out[:1000])


def what_has_no_meaning_is_refused(case):
    for code, command, flags, words in (
            (65, "generate", ["--rollout.mixture=logits", "--weights=" + case.record],
             ["rollout.mixture", "adapters"]),
            (64, "generate", ["--exact"], ["--exact", "adapters"]),
            (64, "generate", ["--best-of=4"], ["--best-of", "adapters"]),
            (78, "serve", [], ["serve", "export"])):
        _, said = case.run(command, *flags, expect=code)
        for word in words:
            tables.check(word in said, said)


def write_single(case, adapter):
    config = case.path("single.yaml")
    with open(config, "w", encoding="utf-8") as stream:
        stream.write("prompts: {file: prompts.txt}\nrun: {seed: 5}\nrollout: {max_tokens: 12}\n"
                     "policies: [{name: one, model: base.gguf, lora: %s, template: raw}]\n"
                     % adapter)
    return config


def an_exported_adapter_is_what_was_drawn_from(case):
    """The same text from the same seed, and logits within rounding of the scales."""
    out, _ = tables.run([case.mpo, "export", case.record, "--output", case.path("one.gguf"),
                         "--json"])
    said = json.loads(out)
    tables.check(said["rank"] == 9, out)
    tables.check(np.allclose([one["scale"] for one in said["adapters"]], case.scales), out)
    flags = ("--n=8", "--format=jsonl")
    _, lines = case.lines("generate", "--weights=" + case.record, *flags)
    _, others = case.lines("generate", *flags, config=write_single(case, "one.gguf"))
    for line, other in zip(lines, others):
        tables.check(line["token_ids"] == other["token_ids"], "%s\n%s" % (line, other))
        off = abs(line["log_mixture"] - other["log_mixture"])
        tables.check(off <= 1e-5 * line["tokens"], "off by %g" % off)
    file = Gguf.read(case.path("one.gguf"))
    a, b = [np.frombuffer(file.tensors["output.weight.lora_" + half].data, np.float32)
            for half in "ab"]
    delta = (b.reshape(VOCAB, 9).astype(float) @ a.reshape(9, VOCAB)).T * np.sqrt(VOCAB)
    truth = sum(scale * case.world.delta(k) for k, scale in enumerate(case.scales))
    tables.check(np.abs(delta - truth).max() < 1e-5, "the matrix is another")
    tables.check(file.keys["adapter.lora.alpha"] == (F32, 9.0), "alpha is not the rank")


def adapters_of_other_tensors_and_types_are_united(case):
    """A tensor that one leaves alone has zeros there; the embedding's matrices lie the other
    way; F16 is read as it is."""
    value = np.random.Generator(np.random.Philox(5)).standard_normal((2, VOCAB))
    file = Gguf.read(case.path("1.gguf"))
    base = case.path("1.gguf")
    shutil.copy(base, case.path("kept.gguf"))
    rank = 2
    for name, turned in (("blk.0.attn_q.weight", False), ("token_embd.weight", True)):
        a = value.astype(np.float16)
        sizes = [rank, VOCAB] if turned else [VOCAB, rank]
        data = np.ascontiguousarray(a.T if turned else a)
        file.tensors[name + ".lora_a"] = type(file.tensors["output.weight.lora_a"])(
            sizes, 1, data.tobytes())
        file.tensors[name + ".lora_b"] = type(file.tensors["output.weight.lora_a"])(
            [rank, VOCAB], 0, np.full((VOCAB, rank), 1e-3, np.float32).tobytes())
    file.write(base)
    out, said = tables.run([case.mpo, "export", case.record, "--output",
                            case.path("never.gguf")], expect=65)
    tables.check("SHA-256" in said and "'p1'" in said, said)
    record = case.path("wide.h5")
    tables.run([case.mpo, "fit", case.config, "--record.file=" + record, "--quiet",
                "--descent.steps=1", "--run.threads=1"])
    tables.run([case.mpo, "export", record])
    _, lines = case.lines("generate", "--weights=" + record, "--n=4", "--format=jsonl")
    _, others = case.lines("generate", "--n=4", "--format=jsonl",
                           config=write_single(case, "wide.gguf"))
    for line, other in zip(lines, others):
        off = abs(line["log_mixture"] - other["log_mixture"])
        tables.check(line["token_ids"] == other["token_ids"] and off <= 1e-4 * line["tokens"],
                     "%s\n%s" % (line, other))
    tables.check(len(Gguf.read(case.path("wide.gguf")).tensors) == 6, "other tensors")
    shutil.move(case.path("kept.gguf"), base)


def what_cannot_be_exported_is_refused(case):
    logits = case.path("logits.h5")
    tables.run([case.mpo, "fit", case.config, "--rollout.mixture=logits", "--quiet",
                "--descent.steps=1", "--record.file=" + logits])
    for code, words, flags in (
            (65, ["logits", "adapters"], [logits]),
            (73, ["one.gguf"], [case.record, "--output", case.path("one.gguf")]),
            (64, ["step"], [case.record, "--step=99", "--output", case.path("x.gguf")]),
            (66, ["nothing.h5"], ["nothing.h5"])):
        _, said = tables.run([case.mpo, "export", *flags], expect=code)
        for word in words:
            tables.check(word in said, said)
    _, said = tables.run([case.mpo, "refit", case.record, "--rewards=record"], expect=65)
    tables.check("adapters" in said or "reward" in said, said)
    os.rename(case.path("2.gguf"), case.path("away.gguf"))
    _, said = tables.run([case.mpo, "export", case.record, "--output", case.path("x.gguf")],
                         expect=66)
    tables.check("2.gguf" in said, said)
    os.rename(case.path("away.gguf"), case.path("2.gguf"))
    tables.check(not os.path.exists(case.path("x.gguf")), "a file was left")


def main():
    arguments = Arguments(*sys.argv[1:5])
    case = Case(arguments)
    cases = [generate_and_score_say_what_the_closed_form_says,
             one_policy_by_name_is_that_policy,
             evaluate_says_both_kinds_side_by_side,
             inspect_says_what_is_mixed,
             what_has_no_meaning_is_refused,
             an_exported_adapter_is_what_was_drawn_from,
             adapters_of_other_tensors_and_types_are_united,
             what_cannot_be_exported_is_refused]
    sys.exit(tables.run_cases([(one, [case]) for one in cases]))


if __name__ == "__main__":
    main()
