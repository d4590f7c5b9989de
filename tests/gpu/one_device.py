#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole program on one real device: the CPU's figures, and the same bytes twice.

    one_device.py MPO WORK [BIGRAM_GGUF_TOOL]

With table policies what ../hostsim/devices.py asks of simulated devices, and no NCCL. With the
tool policies are GGUF models whose rows libllama leaves on the device. Its products may be in
TF32, so scores of given responses agree with the CPU's to 1e-2 and drawn ones are not
compared. Exits 77 where the program finds no device, or has no libllama that does.
"""
import importlib.util
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "hostsim"))

if not all(importlib.util.find_spec(name) for name in ("h5py", "numpy")):
    print("SKIP: needs a python3 with h5py and numpy")
    sys.exit(77)

import devices  # noqa: E402  (found through the path above)
import llama_devices  # noqa: E402
import tables  # noqa: E402  (through the path that devices gives)

NONE = ("no CUDA device", "cudaErrorNoDevice", "cudaErrorInsufficientDriver", "this build has no cuda",
        "this libllama has no cuda", "libllama finds no device of kind cuda",
        "libggml-cuda.so cannot be loaded")
TWICE = [(1, "self", "auto")] * 2
LOGIT_TOLERANCE = 1e-2


def scores_are_the_cpus(case):
    flags = llama_devices.answers(case, "abc", "d", "abcdefghijklm" * 5)
    expected, _ = case.on_cpu("score", *flags)
    found, _ = case.on_devices("score", 1, *flags)
    for one, other in zip(expected.splitlines(), found.splitlines(), strict=True):
        devices.same_values(json.loads(one), json.loads(other), "score")


def a_fit_writes_the_same_bytes_twice(case):
    records = []
    for name in ("one", "two"):
        record = case.record(name)
        case.on_devices("fit", 1, "--descent.steps=2", "--record.file=" + record)
        records.append(devices.data_sets(record))
    devices.same(*records, "two fits")


def skip_without_device(case):
    """The program itself is asked: nothing else has to know what it can use."""
    done = subprocess.run(
        [case.mpo, "generate", case.config, "--run.device=cuda", "--weights=uniform", "--n=1"],
        env={**os.environ, **tables.ENVIRONMENT}, capture_output=True, text=True, timeout=600,
        check=False)
    if done.returncode == 69 and any(words in done.stderr for words in NONE):
        print("SKIP: " + done.stderr.strip().splitlines()[-1])
        sys.exit(77)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    mpo, work = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    devices.RUNS, devices.WAYS = TWICE, [(1, "self")]
    if len(sys.argv) == 4:
        devices.TOLERANCE = LOGIT_TOLERANCE
        case = llama_devices.Case(mpo, None, work, os.path.abspath(sys.argv[3]))
        cases = [scores_are_the_cpus, a_fit_writes_the_same_bytes_twice]
    else:
        case = devices.Case(mpo, None, work, vocab_size=devices.VOCAB)
        cases = [
            devices.fit_gives_the_cpus_weights_and_the_same_bytes_on_every_number_of_devices,
            devices.rounded_rows_give_the_cpus_weights_and_the_same_bytes_too,
            devices.generate_draws_the_cpus_tokens,
            devices.score_gives_the_cpus_sums,
        ]
    skip_without_device(case)
    sys.exit(tables.run_cases([(one, [case]) for one in cases]))


if __name__ == "__main__":
    main()
