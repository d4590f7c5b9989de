# SPDX-License-Identifier: Apache-2.0
"""Policies that are LoRA adapters of one bigram GGUF, and what their sum is.

The base gives logits L(s, v) after token s. An adapter acts on the output matrix, so at scale c
it adds c D(s, v), and the base with several adapters has L + sum c_i D_i: for adapters the token
mixture of the policies, with the base at 1 minus the sum of exponents, is one policy of the
engine. Nothing here shares code with mpo.
"""

import os
import shutil

import numpy as np

import records
import tables
from gguf_file import F32, TEXT, TYPE_F32, Gguf, Tensor

VOCAB = 260
END = 2
LIKELY = [3 + ord(letter) for letter in "abcde"] + [END]
PROMPTS = ("a", "b")
STARTS = [3 + ord(prompt) for prompt in PROMPTS]
MAX_TOKENS = 12


class Exact(tables.Exact):
    """The same recursion with the end token in the middle of the vocabulary."""

    def served(self, exponents, end_bias=0.0):
        rows = tables.log_softmax(np.tensordot(exponents, self.log_policy, 1))
        return self.served_rows(rows)

    def served_rows(self, rows):
        """Of any q: log q(v | s) [V, V]."""
        chosen = np.exp(rows)
        occupied = np.bincount(self.starts, minlength=VOCAB) / len(self.starts)
        scores, entropy = np.zeros(len(self.log_policy)), 0.0
        for _ in range(self.max_tokens):
            mass = occupied[:, None] * chosen
            scores += (mass * self.log_policy).sum(axis=(1, 2))
            entropy -= (mass * rows).sum()
            occupied = mass.sum(axis=0)
            occupied[END] = 0.0
        return scores, -entropy - scores


class World:
    """A base and `count` adapters of some rank; alpha is twice the rank, so that an engine that
    forgets it is seen."""

    def __init__(self, seed, count, rank=3, spread=1.0):
        generator = np.random.Generator(np.random.Philox(seed))
        self.base = np.full((VOCAB, VOCAB), -9.0)
        self.base[:, LIKELY] = generator.standard_normal((VOCAB, len(LIKELY)))
        self.base = self.base.astype(np.float32)
        self.rank, self.count = rank, count
        self.a = generator.standard_normal((count, rank, VOCAB)).astype(np.float32)
        self.b = np.zeros((count, VOCAB, rank), np.float32)
        self.b[:, LIKELY] = (spread / (2.0 * np.sqrt(rank)) * generator.standard_normal(
            (count, len(LIKELY), rank))).astype(np.float32)

    def delta(self, index):
        """D(s, v) of adapter `index` at scale 1, alpha / rank = 2."""
        return 2.0 * (self.b[index].astype(np.float64) @ self.a[index]).T

    def log_rows(self, scales):
        """log pi(v | s) of the base with adapter i at scales[i]."""
        logits = self.base.astype(np.float64)
        for index, scale in enumerate(scales):
            logits = logits + scale * self.delta(index)
        return tables.log_softmax(logits)

    def exact(self, reference):
        """Of the policies base + adapter k, and of the base where it is a reference."""
        scales = list(np.eye(self.count)) + [np.zeros(self.count)] * reference
        return Exact(np.array([self.log_rows(scale) for scale in scales]), STARTS, MAX_TOKENS)

    def write_adapter(self, path, index, tensor="output.weight"):
        keys = {"general.architecture": (TEXT, "llama"), "general.type": (TEXT, "adapter"),
                "adapter.type": (TEXT, "lora"),
                "adapter.lora.alpha": (F32, 2.0 * self.rank)}
        inner = self.a[index] / np.float32(np.sqrt(VOCAB))
        pair = {tensor + ".lora_a": Tensor([VOCAB, self.rank], TYPE_F32, inner.tobytes()),
                tensor + ".lora_b": Tensor([self.rank, VOCAB], TYPE_F32,
                                           self.b[index].tobytes())}
        Gguf(keys, pair).write(path)

    def write(self, tool, folder, reference=False, options=None):
        """base.gguf, 0.gguf ... and config.yaml, whose policies are p0, p1, ..., base."""
        os.makedirs(folder, exist_ok=True)
        raw = os.path.join(folder, "base.f32")
        self.base.tofile(raw)
        tables.run([tool, os.path.join(folder, "base.gguf"), raw])
        lines = ["run: {seed: 5}", "prompts: {file: prompts.txt}", "policies:"]
        for index in range(self.count):
            self.write_adapter(os.path.join(folder, "%d.gguf" % index), index)
            lines.append("  - {name: p%d, model: base.gguf, lora: %d.gguf, template: raw}"
                         % (index, index))
        if reference:
            lines.append("  - {name: base, model: base.gguf, role: reference, template: raw}")
        settings = {"rollout": {"responses": 16, "max_tokens": MAX_TOKENS,
                                "mixture": "adapters"}, **(options or {})}
        for section, values in settings.items():
            text = ", ".join("%s: %s" % item for item in values.items())
            lines.append("%s: {%s}" % (section, text))
        with open(os.path.join(folder, "prompts.txt"), "w", encoding="utf-8") as stream:
            stream.write("\n".join(PROMPTS) + "\n")
        config = os.path.join(folder, "config.yaml")
        with open(config, "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
        return config


class Arguments:
    """MPO MPIRUN WORK BIGRAM_GGUF_TOOL; WORK begins empty."""

    def __init__(self, mpo, mpirun, work, tool):
        self.mpo, self.mpirun, self.work, self.tool = mpo, mpirun, os.path.abspath(work), tool
        shutil.rmtree(work, ignore_errors=True)

    def folder(self, name):
        return os.path.join(self.work, name)


def fit(arguments, config, record, *flags, ranks=1):
    """The data sets of the record, clocks aside."""
    tables.run_ranks(arguments.mpirun, ranks, [
        arguments.mpo, "fit", config, "--record.file=" + record, "--quiet", *flags])
    return records.values(record)


class Fitted:
    """A world with a reference, its configuration, and a record of adapters."""

    STRENGTH = 1.4

    def __init__(self, arguments):
        self.mpo, self.mpirun = arguments.mpo, arguments.mpirun
        self.folder = arguments.folder("case")
        self.world = World(3, 3)
        self.config = self.world.write(arguments.tool, self.folder, reference=True)
        self.record = self.path("run.h5")
        found = fit(arguments, self.config, self.record, "--descent.steps=6",
                    "--rollout.strength=%g" % self.STRENGTH)
        self.weights = found["average"][-1]
        self.scales = self.STRENGTH * self.weights
        self.rows = self.world.log_rows(self.scales)

    def path(self, name):
        return os.path.join(self.folder, name)


def responses(found):
    """(start state, tokens) of each response of a record."""
    for i, count in enumerate(found["responses/token_count"]):
        first = int(found["responses/token_offset"][i])
        yield (STARTS[int(found["responses/prompt"][i])],
               found["responses/token"][first:first + int(count)])
