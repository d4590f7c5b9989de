#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole program on simulated devices: the CPU's figures, one device a rank.

    devices.py MPO MPIRUN WORK

MPO is mpo_hostsim: mpo's own sources, CUDA and NCCL by tests/support/hostsim. `fit`,
`generate`, `score` and `evaluate` run on table policies of two blocks of tokens, on 1, 2, 3
and 6 devices, through every transport that carries their rows.

On devices every number of ranks gives the same bytes. The CPU's figures differ from them by
rounding: a device adds up a block of 1024 tokens in another order. A sum of V = 1084 terms is
then off by at most V 2^-53 = 1.2e-13 of itself, and a score adds up 6 tokens of 3 policies;
1e-11 is a few times as much, and far below what a wrong figure would be off. Tokens are the same, as long as no draw falls between two such sums: for this seed
none does.
"""

import json
import os
import re
import shutil
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "commands"))

import patterns  # noqa: E402  (found through the path above)
import tables  # noqa: E402
from records import CLOCKS, data_sets, same  # noqa: E402

VOCAB = patterns.BLOCK + 60
TOLERANCE = 1e-11
DEVICES = 6
NCCL_BYTES = 1 << 29  # which a device keeps free for it
# A rank alone needs no transport; three policies: 6 ranks are two groups of three.
RUNS = [(1, "self", "auto"), (2, "nccl", "gather"), (3, "nccl", "alltoall"),
        (3, "mpi", "alltoall"), (6, "nccl", "gather")]
# Where lines are compared.
WAYS = [(1, "self"), (3, "nccl")]
# A thread of a device is a fiber here: little is decoded.
LITTLE = ("--rollout.prompts_per_step=2", "--rollout.responses=2", "--rollout.max_tokens=6")


class Case(patterns.Case):
    """Three policies in a folder, and the ways to run mpo on them."""

    def on_cpu(self, command, *flags):
        return self.run(command, 1, "--run.device=cpu", *LITTLE, *flags)

    def on_devices(self, command, ranks, *flags, devices=DEVICES, memory=None, expect=0):
        """Run a command with as many devices; returns (stdout, stderr)."""
        settings = ["HOSTSIM_DEVICES=%d" % devices]
        settings += ["HOSTSIM_MEMORY=%d" % memory] if memory is not None else []
        return tables.run_ranks(self.mpirun, ranks, [
            "env", *settings, self.mpo, command, self.config, "--run.device=cuda", *LITTLE,
            *flags], expect)

    def record(self, name):
        path = os.path.join(self.work, name + ".h5")
        if os.path.exists(path):
            os.remove(path)
        return path


def complaints(said):
    return [line for line in said.splitlines() if line.startswith("mpo: ")]


def refused(case, code, words, *arguments, command="fit", messages=1, **settings):
    """A command that ends with this code, each message with all the words, and no record."""
    record = case.record("refused")
    _, said = case.on_devices(command, *arguments, "--record.file=" + record, expect=code,
                              **settings)
    ours = complaints(said)
    tables.check(len(ours) == messages, said)
    tables.check(all(word in line for line in ours for word in words), said)
    tables.check(not os.path.exists(record), "a record was made")
    tables.check("never freed" not in said and "neither destroyed" not in said, said)


def numbers(path):
    """{name: array} of the record's figures."""
    found = {}

    def visit(name, item):
        if (isinstance(item, h5py.Dataset) and item.dtype.kind in "if"
                and name.split("/")[0] not in (*CLOCKS, "checksum")):  # a sum of bytes
            found[name] = item[()].astype(float)

    with h5py.File(path, "r") as record:
        record.visititems(visit)
    return found


def close(expected, found, what):
    """Arrays of two runs within the tolerance, not known in the same places; returns how far
    they are apart."""
    tables.check(np.shape(expected) == np.shape(found), "%s: other shapes" % what)
    known = ~np.isnan(expected)
    tables.check(np.array_equal(known, ~np.isnan(found)), "%s: not known elsewhere" % what)
    expected, found = np.asarray(expected)[known], np.asarray(found)[known]
    off = np.abs(np.subtract(expected, found)) / np.maximum(1.0, np.abs(expected))
    worst = float(np.max(off, initial=0.0))
    tables.check(worst <= TOLERANCE, "%s: off by %g" % (what, worst))
    return worst


def fit_gives_the_cpus_weights_and_the_same_bytes_on_every_number_of_devices(case):
    compare_fits(case, RUNS, "float")


def rounded_rows_give_the_cpus_weights_and_the_same_bytes_too(case):
    compare_fits(case, RUNS[:4], "bf16")


def compare_fits(case, runs, rows):
    record = case.record("cpu")
    rounding = "--exchange.rows=" + rows
    case.on_cpu("fit", "--descent.steps=2", "--record.file=" + record, rounding)
    cpu = numbers(record)
    blocks = set(cpu["responses/token"] // patterns.BLOCK)
    tables.check(blocks == {0, 1}, "the responses miss a block of tokens")
    tables.check(np.ptp(cpu["average"][-1]) > 1e-3, "weights %s say nothing" % cpu["average"])
    first = None
    for ranks, transport, pattern in runs:
        what = "%s of %s by %s on %d devices" % (pattern, rows, transport, ranks)
        record = case.record("devices")
        wish = "auto" if transport == "nccl" and ranks == 2 else transport
        _, said = case.on_devices("fit", ranks, "--record.file=" + record,
                                  "--descent.steps=2", "--exchange.transport=" + wish,
                                  "--exchange.pattern=" + pattern, rounding)
        tables.check(re.search(r"exchange +%s" % transport, said), said)
        tables.check("never freed" not in said and "neither destroyed" not in said, said)
        first = first or data_sets(record)
        same(first, data_sets(record), what)
        found = numbers(record)
        tables.check(found.keys() == cpu.keys(), what)
        worst = max(close(cpu[name], found[name], "%s: /%s" % (what, name)) for name in cpu)
    print("       figures differ by at most %.1e" % worst)


def same_lines(case, command, *flags):
    """JSON lines of the CPU and of devices: texts alike, figures within the tolerance."""
    expected, _ = case.on_cpu(command, *flags)
    for ranks, transport in WAYS:
        what = " ".join((command,) + flags) + " on %d" % ranks
        found, _ = case.on_devices(command, ranks, "--exchange.transport=" + transport, *flags)
        pairs = list(zip(expected.splitlines(), found.splitlines(), strict=True))
        tables.check(pairs, "%s prints nothing" % what)
        for one, other in pairs:
            same_values(json.loads(one), json.loads(other), what)


def same_values(expected, found, what):
    if isinstance(expected, dict):
        tables.check(expected.keys() == found.keys(), "%s: other keys" % what)
        for key in expected:
            same_values(expected[key], found[key], "%s: %s" % (what, key))
    elif isinstance(expected, float):
        close(expected, found, what)
    else:
        tables.check(expected == found, "%s: %s, expected %s" % (what, found, expected))


def generate_draws_the_cpus_tokens(case):
    same_lines(case, "generate", "--format=jsonl")
    same_lines(case, "generate", "--format=jsonl", "--temperature=0.8", "--top-k=60",
               "--top-p=0.9", "--min-p=0.001")
    same_lines(case, "generate", "--format=jsonl", "--greedy")
    same_lines(case, "generate", "--format=jsonl", "--best-of=2")


def answers(case, *responses):
    """What score is to read, as its flags."""
    path = os.path.join(case.work, "answers.jsonl")
    with open(path, "w", encoding="utf-8") as stream:
        for response in responses:
            stream.write(json.dumps({"prompt": "t0", "response": response}) + "\n")
    return "--input=" + path, "--weights=0.5,0.2,0.3"


def score_gives_the_cpus_sums(case):
    same_lines(case, "score", *answers(case, "t1 t1025 t50", "t1024", "t5 t6 t7 t1050 t0"))


def evaluate_prints_the_cpus_figures(case):
    flags = ("--weights=0.5,0.2,0.3",)
    expected, _ = case.on_cpu("evaluate", *flags)
    tables.check(len(expected.splitlines()) > 3, expected)
    for ranks in (1, 3):
        found, _ = case.on_devices("evaluate", ranks, *flags)
        tables.check(found == expected, "%d: %s\n%s" % (ranks, found, expected))


def hosts_without_a_device_for_every_rank_are_refused(case):
    refused(case, 69, ["no CUDA device is visible", "run.device=cpu"], 1, devices=0)
    refused(case, 69, ["cudaErrorInsufficientDriver", "run.device=cpu"], 1, devices=-1)
    refused(case, 69, ["no CUDA device is visible"], 3, devices=0)
    refused(case, 69, ["rank 2: ", "but there are 2", "start fewer ranks"], 3, devices=2)


def auto_without_a_device_is_the_cpu(case):
    cpu, _ = case.on_cpu("evaluate", "--weights=0.5,0.2,0.3")
    for ranks in (1, 2):
        found, said = case.on_devices("evaluate", ranks, "--run.device=auto",
                                      "--weights=0.5,0.2,0.3", devices=-1)
        tables.check(found == cpu, found)
        tables.check(said.count("using the cpu") == 1, said)


def devices_without_room_are_refused_before_policies_are_read(case):
    asked = answers(case, "t1 t1025 t50")
    for ranks in (1, 3):
        refused(case, 71, ["a rank needs", "lower rollout.unit_prompts"], ranks,
                messages=ranks, memory=100000)
        refused(case, 71, ["a rank needs", "leave out the longest responses"], ranks, *asked,
                command="score", messages=ranks, memory=100000)
        refused(case, 71, ["a rank needs", "lower --parallel"], ranks, "--weights=uniform",
                command="generate", messages=ranks, memory=100000)
        refused(case, 71, ["a rank needs", "lower --responses"], ranks, "--weights=uniform",
                command="evaluate", messages=ranks, memory=100000)
    room = NCCL_BYTES + (32 << 20)
    case.on_devices("fit", 3, "--record.file=" + case.record("room"), "--descent.steps=1",
                    memory=room)
    case.on_devices("score", 3, *asked, memory=room)


def device_needs(case, ranks, *flags, **settings):
    """(bytes for libraries, all bytes) of each rank's device, as doctor has them."""
    said, _ = case.on_devices("doctor", ranks, "--format=json", *flags, **settings)
    found = [(one["device_library_bytes"], one["device_bytes"])
             for one in json.loads(said)["ranks"]]
    tables.check(len(found) == ranks, said)
    return found


def room_for_nccl_is_kept_where_it_connects_devices(case):
    """Tables are no libllama's, so a rank alone has no margin; one byte decides."""
    for ranks, flags, libraries in ((1, (), 0), (3, ("--exchange.transport=mpi",), 0),
                                    (3, (), NCCL_BYTES)):
        found = device_needs(case, ranks, *flags)
        tables.check([one[0] for one in found] == [libraries] * ranks, found)
    most = max(one[1] for one in found)
    said, _ = case.on_devices("doctor", 3, memory=most)
    tables.check(re.search(r"rank host .* rows +libraries +needed +free\n( +[0-2] .* 512M.*\n){3}",
                           said), said)
    said, _ = case.on_devices("doctor", 3, memory=most - 1, expect=71)
    tables.check("libraries: 512" in said, said)


def doctor_names_the_transport_that_fit_takes(case):
    said, _ = case.on_devices("doctor", 3)
    tables.check(re.search(r"ok +exchange +nccl gather", said), said)
    tables.check("sent as messages" not in said, said)


def one_rank_has_nothing_to_exchange(case):
    refused(case, 78, ["exchange.transport is nccl", "a group has one rank only"], 1,
            "--exchange.transport=nccl")


def what_policies_are_refused_for_is_said_once_on_devices(case):
    other = os.path.join(case.work, "other.table")
    patterns.write_table(other, np.random.Generator(np.random.Philox(6)), 40)
    for ranks in (1, 3):
        refused(case, 65, ["answers.jsonl:1", "t9999"], ranks, *answers(case, "t1 t9999"),
                command="score")
        for command, *flags in (["fit"], ["score", *answers(case, "t1")]):
            refused(case, 65, ["'p1'", "vocabular"], ranks, *flags,
                    "--policies.p1.model=" + other, command=command)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    shutil.rmtree(sys.argv[3], ignore_errors=True)
    os.makedirs(sys.argv[3])
    case = Case(*sys.argv[1:], vocab_size=VOCAB)
    cases = [
        fit_gives_the_cpus_weights_and_the_same_bytes_on_every_number_of_devices,
        rounded_rows_give_the_cpus_weights_and_the_same_bytes_too,
        generate_draws_the_cpus_tokens,
        score_gives_the_cpus_sums,
        evaluate_prints_the_cpus_figures,
        hosts_without_a_device_for_every_rank_are_refused,
        auto_without_a_device_is_the_cpu,
        devices_without_room_are_refused_before_policies_are_read,
        room_for_nccl_is_kept_where_it_connects_devices,
        doctor_names_the_transport_that_fit_takes,
        one_rank_has_nothing_to_exchange,
        what_policies_are_refused_for_is_said_once_on_devices,
    ]
    sys.exit(tables.run_cases([(one, [case]) for one in cases]))


if __name__ == "__main__":
    main()
