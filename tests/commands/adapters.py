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

import score_drawn
import tables
from adapter_worlds import PROMPTS, VOCAB, Arguments, Fitted
from gguf_file import F32, Gguf

# Logits of a float32 model through the engine agree with its table to about 1e-5 a token.
SCORE_BOUND = 1e-4


class Case(Fitted):
    """Commands on it."""

    def __init__(self, arguments):
        super().__init__(arguments)
        self.exact = self.world.exact(True)

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
                      "--strength=%g" % case.STRENGTH, "--format=json", "--responses=32")
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
            (64, "generate", ["--best-of=4"], ["--best-of", "adapters"])):
        _, said = case.run(command, *flags, expect=code)
        for word in words:
            tables.check(word in said, said)


def write_single(case, adapter, model="base.gguf"):
    config = case.path("single.yaml")
    with open(config, "w", encoding="utf-8") as stream:
        stream.write("prompts: {file: prompts.txt}\nrun: {seed: 5}\nrollout: {max_tokens: 12}\n"
                     "policies: [{name: one, model: %s, lora: %s, template: raw}]\n"
                     % (model, adapter))
    return config


def is_same_draw(one, other):
    return (one["token_ids"] == other["token_ids"] and one["tokens"] > 0
            and one["log_mixture"] == other["log_mixture"])


def an_exported_adapter_is_what_was_drawn_from(case):
    """The same text from the same seed, and figures to the bit."""
    out, _ = tables.run([case.mpo, "export", case.record, "--output", case.path("one.gguf"),
                         "--json"])
    said = json.loads(out)
    tables.check(said["rank"] == 9, out)
    tables.check(np.allclose([one["scale"] for one in said["adapters"]], case.scales), out)
    flags = ("--n=8", "--format=jsonl")
    _, lines = case.lines("generate", "--weights=" + case.record, *flags)
    _, others = case.lines("generate", *flags, config=write_single(case, "one.gguf"))
    for line, other in zip(lines, others):
        tables.check(is_same_draw(line, other), "%s\n%s" % (line, other))
    file = Gguf.read(case.path("one.gguf"))
    a, b = [np.frombuffer(file.tensors["output.weight.lora_" + half].data, np.float32)
            for half in "ab"]
    delta = (b.reshape(VOCAB, 9).astype(float) @ a.reshape(9, VOCAB)).T * np.sqrt(VOCAB)
    truth = sum(scale * case.world.delta(k) for k, scale in enumerate(case.scales))
    tables.check(np.abs(delta - truth).max() < 1e-5, "the matrix is another")
    tables.check(file.keys["adapter.lora.alpha"] == (F32, 9.0), "alpha is not the rank")


def an_exported_adapter_rounds_alike(case):
    """With a random transformer in Q4_1, of which the last bit of a sum becomes 0.1 nat a token."""
    score_drawn.write_transformer(case.path("rounds.gguf"), case.path("base.gguf"), 10)
    for k in range(2):
        score_drawn.write_adapter(case.path("rounds%d.gguf" % k), 20 + k)
    config, record = case.path("rounds.yaml"), case.path("rounds.h5")
    with open(config, "w", encoding="utf-8") as stream:
        stream.write("prompts: {file: prompts.txt}\nrun: {seed: 5}\n"
                     "rollout: {max_tokens: 12, mixture: adapters}\npolicies:\n")
        for k in range(2):
            stream.write("  - {name: r%d, model: rounds.gguf, lora: rounds%d.gguf, template: raw}\n"
                         % (k, k))
    tables.run([case.mpo, "fit", config, "--record.file=" + record, "--quiet",
                "--descent.steps=2", "--run.threads=1"])
    tables.run([case.mpo, "export", record, "--output", case.path("sum.gguf")])
    flags = ("--n=8", "--format=jsonl", "--end-bias=2.2")
    _, lines = case.lines("generate", "--weights=" + record, *flags, config=config)
    _, others = case.lines("generate", *flags, config=write_single(case, "sum.gguf", "rounds.gguf"))
    tables.check(len(lines) == len(others) == 8 * len(PROMPTS), "other numbers of responses")
    for line, other in zip(lines, others):
        tables.check(is_same_draw(line, other), "%s\n%s" % (line, other))


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
        tables.check(is_same_draw(line, other), "%s\n%s" % (line, other))
    tables.check(len(Gguf.read(case.path("wide.gguf")).tensors) == 6, "other tensors")
    shutil.move(case.path("kept.gguf"), base)


def what_cannot_be_exported_is_refused(case):
    logits = case.path("logits.h5")
    tables.run([case.mpo, "fit", case.config, "--rollout.mixture=logits", "--quiet",
                "--descent.steps=1", "--record.file=" + logits])
    for code, words, flags in (
            (65, ["logits", "adapters"], [logits]),
            (73, ["one.gguf", "another file", "--output"], [case.record, "--output", case.path("one.gguf")]),
            (64, ["step"], [case.record, "--step=99", "--output", case.path("x.gguf")]),
            (66, ["nothing.h5"], ["nothing.h5"])):
        _, said = tables.run([case.mpo, "export", *flags], expect=code)
        for word in words:
            tables.check(word in said, said)
    for flags in (["--rewards=record"], [], ["--frontier=3"]):
        out, said = tables.run([case.mpo, "refit", case.record, *flags], expect=65)
        tables.check("rollout.mixture: adapters" in said and out == "", out + said)
    tables.run([case.mpo, "refit", logits, "--min-ess=0"])
    os.rename(case.path("2.gguf"), case.path("away.gguf"))
    _, said = tables.run([case.mpo, "export", case.record, "--output", case.path("x.gguf")],
                         expect=66)
    tables.check("2.gguf" in said, said)
    os.rename(case.path("away.gguf"), case.path("2.gguf"))
    tables.check(not os.path.exists(case.path("x.gguf")), "a file was left")


def damage(path):
    """Turn the last byte over; what the file is stays what it was."""
    with open(path, "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))


def the_model_is_that_of_the_fit(case):
    export = [case.mpo, "export", case.record, "--output", case.path("x.gguf")]
    base, kept = case.path("base.gguf"), case.path("kept.gguf")
    shutil.copy(base, kept)
    damage(base)
    out, said = tables.run(export, expect=65)
    tables.check("SHA-256" in said and "model" in said and "base.gguf" in said, out + said)
    os.remove(base)
    _, said = tables.run(export, expect=66)
    tables.check("base.gguf" in said, said)
    tables.check(not os.path.exists(case.path("x.gguf")), "a file was left")
    shutil.move(kept, base)
    tables.run(export)
    os.remove(case.path("x.gguf"))


def without_a_hash_in_the_record_no_model_is_asked_for(case):
    record = case.path("unhashed.h5")
    case.run("fit", "--record.hash_models=false", "--descent.steps=1", "--quiet",
             "--record.file=" + record)
    os.rename(case.path("base.gguf"), case.path("away.gguf"))
    tables.run([case.mpo, "export", record])
    os.rename(case.path("away.gguf"), case.path("base.gguf"))


def the_files_of_the_fit_are_taken_where_others_have_their_names(case):
    """Paths of the record are relative: files of these names are in the working directory and
    where the record was written."""
    here, names = case.path("here"), ["base.gguf", "0.gguf", "1.gguf", "2.gguf"]
    os.makedirs(here)
    tables.run(["env", "-C", case.folder, case.mpo, "fit", "config.yaml", "--quiet",
                "--descent.steps=1", "--record.file=near.h5"])
    export = ["env", "-C", here, case.mpo, "export", "../near.h5", "--json"]
    for name in names:
        shutil.copy(case.path(name), here)
    damage(os.path.join(here, "1.gguf"))
    damage(os.path.join(here, "base.gguf"))
    out, _ = tables.run([*export, "--output=a.gguf"])
    said = json.loads(out)
    paths = [one["lora"] for one in said["adapters"]]
    tables.check([os.path.dirname(path) == "" for path in paths] == [True, False, True], out)
    tables.check(os.path.samefile(os.path.join(here, said["model"]), case.path("base.gguf")), out)
    shutil.copy(case.path("1.gguf"), here)
    shutil.copy(case.path("1.gguf"), case.path("kept.gguf"))
    damage(case.path("1.gguf"))
    tables.run([*export, "--output=b.gguf"])
    damage(os.path.join(here, "1.gguf"))
    _, said = tables.run([*export, "--output=c.gguf"], expect=65)
    tables.check("SHA-256" in said and "'p1'" in said, said)
    shutil.move(case.path("kept.gguf"), case.path("1.gguf"))
    both = [open(os.path.join(here, name), "rb").read() for name in ("a.gguf", "b.gguf")]
    tables.check(both[0] == both[1], "other files were taken")


def a_file_that_cannot_grow_is_told_in_one_line(case):
    _, said = tables.run(["sh", "-c", 'trap "" XFSZ; ulimit -f 1; exec "$@"', "sh", case.mpo,
                          "export", case.record, "--output", case.path("full.gguf")], expect=71)
    tables.check(said.count("\n") == 1 and "full.gguf" in said and "gguf_" not in said, said)
    tables.check(not os.path.exists(case.path("full.gguf")), "a file was left")


def under_mpirun_one_rank_exports(case):
    path = case.path("once.gguf")
    out, said = tables.run_ranks(case.mpirun, 2, [case.mpo, "export", case.record, "--output",
                                                  path, "--json"])
    tables.check(json.loads(out)["adapter"] == path and said.count("rank 0") == 1, out + said)
    tables.check(open(path, "rb").read() == open(case.path("one.gguf"), "rb").read(), "other bytes")


def doctor_tells_of_a_bad_adapter_once(case):
    with open(case.path("1.gguf"), "rb") as stream:
        kept = stream.read()
    with open(case.path("1.gguf"), "wb") as stream:
        stream.write(b"nothing")
    out, said = case.run("doctor", "--record.file=" + case.path("new.h5"), expect=65)
    with open(case.path("1.gguf"), "wb") as stream:
        stream.write(kept)
    tables.check(out.count("\nproblem") + out.startswith("problem") == 1, out + said)
    told = [line for line in out.splitlines() if line.startswith("problem")]
    tables.check("'p1'" in told[0] and "'all, added'" not in out, out)


def main():
    arguments = Arguments(*sys.argv[1:5])
    case = Case(arguments)
    cases = [generate_and_score_say_what_the_closed_form_says,
             one_policy_by_name_is_that_policy,
             evaluate_says_both_kinds_side_by_side,
             inspect_says_what_is_mixed,
             what_has_no_meaning_is_refused,
             an_exported_adapter_is_what_was_drawn_from,
             an_exported_adapter_rounds_alike,
             adapters_of_other_tensors_and_types_are_united,
             what_cannot_be_exported_is_refused,
             the_model_is_that_of_the_fit,
             without_a_hash_in_the_record_no_model_is_asked_for,
             the_files_of_the_fit_are_taken_where_others_have_their_names,
             a_file_that_cannot_grow_is_told_in_one_line,
             under_mpirun_one_rank_exports,
             doctor_tells_of_a_bad_adapter_once]
    sys.exit(tables.run_cases([(one, [case]) for one in cases]))


if __name__ == "__main__":
    main()
