#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad models and adapters, and prompts that a model cannot take: one message, the right exit
code, nothing left behind, on one rank and on several.

    bad_models.py MPO MPIEXEC WORK_FOLDER BIGRAM_GGUF_TOOL [--sample]

With --sample (sample.py) every bad thing meets one of the commands and numbers of ranks that
otherwise all meet it.
"""
import os
import shutil

import h5py
import numpy as np

import sample
from bigram_models import BAD, BAD_ADAPTER, VOCAB, logits, make, prepare_models
from gguf_file import Gguf
from person import WORK, check, refused, run, run_tests, write

CONTEXT = 512
CONFIG = """prompts: {file: prompts.txt}
policies:
  - {name: up, model: up.gguf, template: raw}
  - {name: down, model: down.gguf, template: raw, lora: down.lora.gguf}
rollout: {responses: 4, max_tokens: 8}
descent: {steps: 2}
record: {file: out.h5}
"""
GIVEN = ["config.yaml", "down.gguf", "down.lora.gguf", "prompts.txt", "up.gguf"]


def prepare():
    prepare_models(CONFIG)
    make("down.lora.gguf", np.linspace(-1.0, 1.0, VOCAB), "--adapter")


def content(name):
    with open(os.path.join(WORK, name), "rb") as file:
        return bytearray(file.read())


def write_bad(data):
    with open(os.path.join(WORK, "bad.gguf"), "wb") as file:
        file.write(data)


def refused_everywhere(name, code, words, *arguments):
    for command, ranks in sample.one(name, (("fit", 1), ("generate", 1), ("fit", 2), ("fit", 4))):
        refused(f"{name}, {command}", code, words, command, "config.yaml", *arguments,
                ranks=ranks)


def prompt_refused(name, words):
    """Every policy has its own count of tokens, so that each may have a message."""
    for ranks in sample.one(name, (1, 2, 4)):
        result = run("fit", "config.yaml", ranks=ranks)
        ours = [line for line in result.stderr.splitlines() if line.startswith("mpo: ")]
        check(f"{name} on {ranks}", result.returncode == 65 and len(ours) == min(ranks, 2)
              and all(word in line for line in ours for word in words), result)


def nothing_written():
    left = sorted(os.listdir(WORK))
    check("nothing was written", [name for name in left if name != "bad.gguf"] == GIVEN)


def test_files():
    prepare()
    refused_everywhere("a missing model", 66, ["'down'", "no.gguf"],
                       "--policies.down.model=no.gguf")
    refused_everywhere("a missing adapter", 66, ["'down'", "no.gguf"],
                       "--policies.down.lora=no.gguf")
    whole = content("down.gguf")
    for name, data in (("empty", b""), ("of another format", b"PK\3\4 and so on"),
                       ("cut in its header", whole[:200]), ("cut in half", whole[:len(whole) // 2]),
                       ("short of one byte", whole[:-1])):
        write_bad(data)
        refused_everywhere(f"a model that is {name}", 65, ["'down'", "bad.gguf"], BAD)
    damaged = whole.copy()
    damaged[8:16] = b"\xff" * 8  # the number of tensors
    write_bad(damaged)
    refused_everywhere("a model with a damaged header", 65, ["'down'", "bad.gguf"], BAD)
    nothing_written()


def test_adapters():
    prepare()
    make("bad.gguf", np.zeros(VOCAB + 40), "--adapter")
    refused_everywhere("an adapter for another model", 65, ["'down'", "bad.gguf"], BAD_ADAPTER)
    shutil.copy(os.path.join(WORK, "up.gguf"), os.path.join(WORK, "bad.gguf"))
    refused_everywhere("a model for an adapter", 65, ["'down'", "bad.gguf"], BAD_ADAPTER)
    write_bad(content("down.lora.gguf")[:-100])
    refused_everywhere("an adapter that is cut", 65, ["'down'", "bad.gguf"], BAD_ADAPTER)
    nothing_written()


def test_vocabularies():
    prepare()
    make("bad.gguf", logits(2), "other")
    refused_everywhere("another vocabulary", 65, ["token 259", "other", "'up'", "'down'"], BAD,
                       "--policies.down.lora=")
    nothing_written()


def test_numbers():
    """That a file holds no number shows when it is read, that its numbers are too large in
    the first step."""
    prepare()
    broken = logits(2)
    broken[:, 100] = np.nan
    make("bad.gguf", broken)
    refused_everywhere("weights that are no numbers", 65, ["'down'", "bad.gguf", "output.weight"],
                       BAD)
    large = Gguf.read(os.path.join(WORK, "down.gguf"))
    large.tensors["output.weight"].set_float(100 * VOCAB + 3 + ord("a"), 3e38)
    large.write(os.path.join(WORK, "bad.gguf"))
    numbers = [BAD, "--policies.down.lora=", "--record.file=nan.h5"]
    for ranks in (1, 2):
        for command in ("fit", "generate"):
            refused(f"weights that overflow, {command}", 65,
                    ["policy 'down'", "bad.gguf", "damaged"], command, "config.yaml",
                    *numbers, ranks=ranks)
        result = run("fit", "config.yaml", "--record.file=nan.h5", "--quiet")
        check("no record without a step is in the next run's way", result.returncode == 0, result)
        os.remove(os.path.join(WORK, "nan.h5"))
    nothing_written()


def test_prompts():
    prepare()
    write("prompts.txt", "a\n" + "b" * CONTEXT + "\n")
    prompt_refused("a prompt longer than the context", ["prompts.txt:2", "512"])
    write("prompts.txt", "a" * (1 << 20) + "\n")
    prompt_refused("a prompt of 1 MiB", ["prompts.txt:1", "1048576"])
    nothing_written()


def test_adapter_of_a_record():
    prepare()
    result = run("fit", "config.yaml", "--quiet")
    check("a fit with an adapter", result.returncode == 0, result)
    with h5py.File(os.path.join(WORK, "out.h5"), "r") as record:
        hashes = {row["policy"]: row["lora_sha256"] for row in record["provenance/ranks"][()]}
    check("its hash is stored", hashes[b"up"] == b"none" and len(hashes[b"down"]) == 64)
    scored = ["score", "config.yaml", "--input=in.jsonl"]
    write("in.jsonl", '{"prompt": "a", "response": "b"}\n')
    for ranks in (1, 2):
        result = run("generate", "config.yaml", "--weights=out.h5", ranks=ranks)
        check(f"the same adapter on {ranks}", result.returncode == 0, result)
    make("down.lora.gguf", np.linspace(-1.0, 2.0, VOCAB), "--adapter")
    for ranks in (1, 2):
        for command in (["generate", "config.yaml"], scored):
            refused(f"another adapter, {command[0]}", 65, ["'down'", "adapter", "SHA-256"],
                    *command, "--weights=out.h5", ranks=ranks)
            refused(f"no adapter, {command[0]}", 65, ["'down'", "adapter", "none"], *command,
                    "--weights=out.h5", "--policies.down.lora=", ranks=ranks)
    result = run("generate", "config.yaml", "--weights=out.h5", "--record.hash_models=false")
    check("unless hashes are not asked for", result.returncode == 0, result)


run_tests(globals())
