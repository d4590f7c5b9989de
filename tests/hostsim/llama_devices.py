#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""GGUF policies on simulated devices: the CPU's figures, through libllama.

    llama_devices.py MPO MPIRUN WORK BIGRAM_GGUF_TOOL

MPO is mpo_hostsim with libllama's devices simulated as well (llama_devices.h): it computes
on its CPU and leaves rows of logits in a simulated device's memory, with the padding that
only the mixture masks there. Three bigram models of two blocks of tokens. The logits are the
CPU's to the bit, so the figures are to agree as those of tables do: devices.py states the
tolerance.
"""

import json
import os
import re
import shutil
import sys

import numpy as np

import devices
import tables  # found through the path that devices gives
from records import data_sets, same

BLOCK = devices.patterns.BLOCK
VOCAB = BLOCK + 60
PADDING = 4
END = 2
WEIGHTS = "--weights=0.5,0.2,0.3"
SPREAD = "--policies.p1.devices=2"
# Devices of the host, ranks, flags: the second policy is spread over two devices of its rank.
RUNS = [(1, 1, ["--exchange.transport=self"]),
        (2, 1, ["--exchange.transport=self", SPREAD]),
        (2, 2, ["--exchange.transport=nccl"]),
        (3, 3, ["--exchange.transport=nccl", "--exchange.pattern=alltoall"]),
        (4, 3, ["--exchange.transport=nccl", "--exchange.pattern=gather", SPREAD]),
        (3, 3, ["--exchange.transport=mpi"])]
THROUGH_THE_HOST = "logits are copied through the host"


def random_logits(seed):
    """[V, V] of which a few tokens in each block, and the end, are likely."""
    generator = np.random.Generator(np.random.Philox(seed))
    logits = np.full((VOCAB, VOCAB), -9.0)
    likely = [END, *range(100, 110), *range(BLOCK + 5, BLOCK + 25)]
    logits[:, likely] = 2.0 * generator.standard_normal((VOCAB, len(likely)))
    logits[:, END] = 2.0
    return logits.astype("<f4")


class Case(devices.Case):
    """Three models in a folder."""

    def __init__(self, mpo, mpirun, work, tool):
        self.mpo, self.mpirun, self.work = mpo, mpirun, work
        lines = ["run: {threads: 1}", "prompts: {file: prompts.txt}", "policies:"]
        for k in range(3):
            raw = os.path.join(work, "p%d.f32" % k)
            random_logits(k + 1).tofile(raw)
            tables.run([tool, "--padded", os.path.join(work, "p%d.gguf" % k), raw,
                        str(PADDING)])
            lines.append("  - {name: p%d, model: p%d.gguf, template: raw}" % (k, k))
        lines.append("record: {hash_models: false}")
        self.config = os.path.join(work, "config.yaml")
        with open(self.config, "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines) + "\n")
        with open(os.path.join(work, "prompts.txt"), "w", encoding="utf-8") as stream:
            stream.write("ab\nc\n")

    def on_devices(self, command, ranks, *flags, **settings):
        out, said = super().on_devices(command, ranks, *flags, **settings)
        tables.check(THROUGH_THE_HOST not in said, said)
        tables.check("never freed" not in said and "neither destroyed" not in said, said)
        return out, said


def fit_gives_the_cpus_weights_and_the_same_bytes_on_every_number_of_devices(case):
    compare_fits(case, "float")


def rounded_rows_give_the_cpus_weights_and_the_same_bytes_too(case):
    compare_fits(case, "bf16")


def compare_fits(case, rows):
    rounding = "--exchange.rows=" + rows
    record = case.record("cpu")
    case.on_cpu("fit", "--descent.steps=2", "--record.file=" + record, rounding)
    cpu = devices.numbers(record)
    tables.check(set(cpu["responses/token"] // BLOCK) == {0, 1}, "a block is missing")
    tables.check(cpu["responses/token"].max() < VOCAB, "padding was drawn")
    tables.check(np.ptp(cpu["average"][-1]) > 1e-3, "weights %s say nothing" % cpu["average"])
    first, worst = None, 0.0
    for count, ranks, flags in RUNS:
        what = "%s of %s on %d ranks" % (" ".join(flags), rows, ranks)
        record = case.record("devices")
        case.on_devices("fit", ranks, "--record.file=" + record, "--descent.steps=2", rounding,
                        *flags, devices=count)
        first = first or data_sets(record)
        same(first, data_sets(record), what)
        found = devices.numbers(record)
        tables.check(found.keys() == cpu.keys(), what)
        for name, expected in cpu.items():
            worst = max(worst, devices.close(expected, found[name], "%s: /%s" % (what, name)))
    print("       figures differ by at most %.1e" % worst)


def answers(case, *responses):
    path = os.path.join(case.work, "answers.jsonl")
    with open(path, "w", encoding="utf-8") as stream:
        for response in responses:
            stream.write(json.dumps({"prompt": "ab", "response": response}) + "\n")
    return "--input=" + path, WEIGHTS


def generate_and_score_print_the_cpus_lines(case):
    text = "".join(chr(97 + i % 13) for i in range(70))  # more positions than a batch scores
    devices.same_lines(case, "generate", "--format=jsonl", WEIGHTS)
    devices.same_lines(case, "generate", "--format=jsonl", WEIGHTS, "--temperature=0.8",
                       "--top-k=9")
    devices.same_lines(case, "score", *answers(case, "abc", "d", text))
    devices.same_lines(case, "score", "--exchange.rows=bf16", *answers(case, "abc", "d", text))


def the_longest_answer_decides_what_score_needs(case):
    """The least room, in MB, that the short answers have is too little for the long ones."""
    for ranks in (1, 3):
        asked = answers(case, "abc", "d")
        _, said = case.on_devices("score", ranks, *asked, memory=1, expect=71)
        room = max(int(mb) for mb in re.findall("a rank needs ([0-9]+) MB", said))
        case.on_devices("score", ranks, *asked, memory=room << 20)
        asked = answers(case, "abc", "d" * 480, "d")
        devices.refused(case, 71, ["a rank needs", "leave out the longest responses"], ranks,
                        *asked, command="score", messages=ranks, memory=room << 20)
        case.on_devices("score", ranks, *asked)


def room_for_libraries_is_kept_where_libllama_computes(case):
    for ranks, libraries in ((1, 1 << 30), (3, 3 << 29)):
        found = devices.device_needs(case, ranks)
        tables.check([one[0] for one in found] == [libraries] * ranks, found)
        most = max(one[1] for one in found)
        case.on_devices("doctor", ranks, memory=most)
        devices.refused(case, 71, ["a rank needs", "libraries: %d)" % (libraries >> 20)], ranks,
                        messages=sum(one[1] == most for one in found), memory=most - 1)


def a_libllama_without_them_is_refused_or_told(case):
    for wish, ranks in (("cuda", 1), ("cuda", 3), ("auto", 1), ("auto", 3)):
        out, said = tables.run_ranks(case.mpirun, ranks, [
            "env", "HOSTSIM_DEVICES=3", "HOSTSIM_NO_LLAMA=1", case.mpo, "generate", case.config,
            "--run.device=" + wish, WEIGHTS], 69 if wish == "cuda" else 0)
        tables.check("this libllama has no cuda" in said and "libggml-cuda.so" in said, said)
        tables.check(said.count("this libllama has no cuda") == 1, said)
        tables.check(wish == "cuda" or "run.device is auto: using the cpu, because" in said, said)
        tables.check((out != "") == (wish == "auto"), out)


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    shutil.rmtree(sys.argv[3], ignore_errors=True)
    os.makedirs(sys.argv[3])
    case = Case(*sys.argv[1:])
    cases = [
        fit_gives_the_cpus_weights_and_the_same_bytes_on_every_number_of_devices,
        rounded_rows_give_the_cpus_weights_and_the_same_bytes_too,
        generate_and_score_print_the_cpus_lines,
        the_longest_answer_decides_what_score_needs,
        room_for_libraries_is_kept_where_libllama_computes,
        a_libllama_without_them_is_refused_or_told,
    ]
    sys.exit(tables.run_cases([(one, [case]) for one in cases]))


if __name__ == "__main__":
    main()
