#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `mpo score` says of what `mpo generate` drew, of models that round.

    score_drawn.py MPO MPIRUN WORK BIGRAM_GGUF_TOOL [CONFIG MODEL]

Activations of a quantised model are rounded to 8 bits, so a difference in the last bit of
one sum ends up as 0.1 nat a token. generate draws rows side by side, where others have come
and gone; score reads many positions of one response. Both have to compute each token alike,
to the bit: with small random transformers in Q4_1, whose output is in F16, and an adapter in
F32. With CONFIG the same is asked of its models, if MODEL is there.
"""

import json
import os
import shutil
import sys

import numpy as np

import tables
from gguf_file import F32, Gguf, TEXT, TYPE_F32, Tensor, U32

VOCAB = 260
WIDTH = 64
HEADS = 2
LAYERS = 3
HIDDEN = 96
RANK = 4
TYPE_F16, TYPE_Q4_1 = 1, 3
MOSTLY_Q4_1 = 3
BLOCK = 32
# What users were told: nat a token. Nothing is off at all, so far as is known.
BOUND = 0.05
PROMPTS = ["a", "what a film", 9 * "abcdefg ", "b" * 63, "c" * 64, "d" * 130, "x y", "zz"] * 2
# Ends are as likely as in texts of 30 tokens, so that responses of 24 are whole or cut.
END_BIAS = "--end-bias=2.2"


def quantise(values):
    """Blocks of d, m and 32 numbers of four bits, x = d q + m."""
    blocks = np.asarray(values, np.float32).reshape(-1, BLOCK)
    low = blocks.min(axis=1, keepdims=True)
    step = (blocks.max(axis=1, keepdims=True) - low) / 15
    codes = np.clip(np.rint((blocks - low) / step), 0, 15).astype(np.uint8)
    packed = codes[:, :BLOCK // 2] | codes[:, BLOCK // 2:] << 4
    return np.hstack([step.astype(np.float16).view(np.uint8),
                      low.astype(np.float16).view(np.uint8), packed]).tobytes()


def matrix(generator, columns, rows, kind, scale=1.0):
    values = scale * generator.standard_normal((rows, columns)) / np.sqrt(columns)
    data = (quantise(values) if kind == TYPE_Q4_1
            else values.astype(np.float16 if kind == TYPE_F16 else np.float32).tobytes())
    return Tensor([columns, rows], kind, data)


def ones():
    return Tensor([WIDTH], TYPE_F32, np.ones(WIDTH, np.float32).tobytes())


def write_transformer(path, bigram, seed):
    """A random model with the vocabulary of a bigram model."""
    generator = np.random.Generator(np.random.Philox(seed))
    file = Gguf.read(bigram)
    for name, value in (("embedding_length", WIDTH), ("block_count", LAYERS),
                        ("feed_forward_length", HIDDEN), ("attention.head_count", HEADS),
                        ("attention.head_count_kv", HEADS),
                        ("rope.dimension_count", WIDTH // HEADS), ("context_length", 2048)):
        file.keys["llama." + name] = (U32, value)
    for name in ("attention.key_length", "attention.value_length"):
        file.keys.pop("llama." + name, None)
    file.keys["llama.attention.layer_norm_rms_epsilon"] = (F32, 1e-5)
    file.keys["general.file_type"] = (U32, MOSTLY_Q4_1)
    file.tensors = {"token_embd.weight": matrix(generator, WIDTH, VOCAB, TYPE_Q4_1, 8.0),
                    "output_norm.weight": ones(),
                    "output.weight": matrix(generator, WIDTH, VOCAB, TYPE_F16)}
    for layer in range(LAYERS):
        for name, columns, rows in (("attn_q", WIDTH, WIDTH), ("attn_k", WIDTH, WIDTH),
                                    ("attn_v", WIDTH, WIDTH), ("attn_output", WIDTH, WIDTH),
                                    ("ffn_gate", WIDTH, HIDDEN), ("ffn_up", WIDTH, HIDDEN),
                                    ("ffn_down", HIDDEN, WIDTH)):
            file.tensors["blk.%d.%s.weight" % (layer, name)] = matrix(
                generator, columns, rows, TYPE_Q4_1, 1.5)
        for name in ("attn_norm", "ffn_norm"):
            file.tensors["blk.%d.%s.weight" % (layer, name)] = ones()
    file.write(path)


def write_adapter(path, seed):
    generator = np.random.Generator(np.random.Philox(seed))
    tensors = {}
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_v"):
            full = "blk.%d.%s.weight" % (layer, name)
            tensors[full + ".lora_a"] = matrix(generator, WIDTH, RANK, TYPE_F32)
            tensors[full + ".lora_b"] = matrix(generator, RANK, WIDTH, TYPE_F32)
    Gguf({"general.architecture": (TEXT, "llama"), "general.type": (TEXT, "adapter"),
          "adapter.type": (TEXT, "lora"), "adapter.lora.alpha": (F32, float(RANK))},
         tensors).write(path)


class Case:
    """The program, and a configuration of three policies that round."""

    def __init__(self, mpo, mpirun, work, tool):
        self.mpo, self.mpirun, self.work = mpo, mpirun, work
        np.zeros((VOCAB, VOCAB), np.float32).tofile(self.path("bigram.f32"))
        tables.run([tool, self.path("bigram.gguf"), self.path("bigram.f32")])
        for k in range(2):
            write_transformer(self.path("p%d.gguf" % k), self.path("bigram.gguf"), 10 + k)
        write_adapter(self.path("adapter.gguf"), 20)
        self.config = self.path("config.yaml")
        with open(self.path("prompts.txt"), "w", encoding="utf-8") as stream:
            stream.write("\n".join(PROMPTS) + "\n")
        with open(self.config, "w", encoding="utf-8") as stream:
            stream.write("prompts: {file: prompts.txt}\nrollout: {max_tokens: 24}\n"
                         "policies:\n"
                         "  - {name: p0, model: p0.gguf, template: raw}\n"
                         "  - {name: p1, model: p1.gguf, template: raw}\n"
                         "  - {name: p2, model: p0.gguf, lora: adapter.gguf, template: raw}\n")

    def path(self, name):
        return os.path.join(self.work, name)

    def generate(self, *flags, config=None, ranks=1):
        return tables.run_ranks(self.mpirun, ranks, [
            self.mpo, "generate", config or self.config, "--format=jsonl", *flags])[0]

    def score(self, drawn, *flags, config=None, ranks=1):
        path = self.path("drawn.jsonl")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(drawn)
        return tables.run_ranks(self.mpirun, ranks, [
            self.mpo, "score", config or self.config, "--input=" + path, *flags])[0]


def read(output):
    return [json.loads(line) for line in output.splitlines()]


def largest_difference(drawn, scored):
    """Per token, of the mixture and of every policy."""
    largest = 0.0
    for one, other in zip(read(drawn), read(scored), strict=True):
        tables.check(one["tokens"] == other["tokens"] and one["ended"] == other["ended"],
                     "another response: %s and %s" % (one, other))
        pairs = [(one["log_mixture"], other["log_mixture"])]
        pairs += [(one["log_policy"][name], other["log_policy"][name])
                  for name in one["log_policy"]]
        largest = max([largest] + [abs(a - b) / one["tokens"] for a, b in pairs])
    return largest


def score_repeats_what_was_drawn(case):
    for flags in (["--n=3", "--parallel=4"], ["--n=2"], ["--prompt=" + PROMPTS[2]],
                  ["--n=70", "--limit=2"], ["--n=2", "--best-of=2", "--limit=5"],
                  ["--parallel=3", "--temperature=0.5"]):
        drawn = case.generate(END_BIAS, *flags)
        ends = [line["ended"] for line in read(drawn)]
        tables.check(len(ends) == 1 or (any(ends) and not all(ends)),
                     "%s: all are whole, or all are cut" % flags)
        for ranks in (1, 3):
            off = largest_difference(drawn, case.score(drawn, ranks=ranks))
            tables.check(off == 0.0, "%s, %d ranks: off by %g a token" % (flags, ranks, off))


def rows_side_by_side_change_nothing(case):
    drawn = case.generate(END_BIAS, "--n=2")
    for rows in (2, 5, 64, 100):
        tables.check(case.generate(END_BIAS, "--n=2", "--parallel=%d" % rows) == drawn,
                     "%d rows give others" % rows)


def the_fast_way_rounds_otherwise(case):
    """Or nothing above is worth anything."""
    flag = "--run.batch_invariant=false"
    drawn = case.generate(END_BIAS, "--n=3", "--parallel=4", flag)
    off = largest_difference(drawn, case.score(drawn, flag))
    tables.check(0.0 < off < 5.0, "off by %g" % off)


def demonstration_is_repeated(case, config):
    for flags in (["--n=2", "--limit=4"], ["--n=2", "--limit=6", "--parallel=4",
                                           "--rollout.max_tokens=12"]):
        drawn = case.generate(*flags, config=config)
        off = largest_difference(drawn, case.score(
            drawn, *[flag for flag in flags if "rollout" in flag], config=config))
        print("%s: off by %g a token" % (flags, off))
        tables.check(off <= BOUND, "%s: off by %g a token" % (flags, off))


def main():
    mpo, mpirun, work, tool = sys.argv[1:5]
    if len(sys.argv) > 6 and not os.path.exists(sys.argv[6]):
        print("SKIP: no %s; launch/setup.sh --model brings it" % sys.argv[6])
        sys.exit(77)
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    case = Case(mpo, mpirun, work, tool)
    if len(sys.argv) > 6:
        demonstration_is_repeated(case, sys.argv[5])
        return
    for check in (score_repeats_what_was_drawn, rows_side_by_side_change_nothing,
                  the_fast_way_rounds_otherwise):
        check(case)
        print("ok", check.__name__)


if __name__ == "__main__":
    main()
