# SPDX-License-Identifier: Apache-2.0
"""Small models of bigrams for the scripts that use person.py, whose arguments go on with

    BIGRAM_GGUF_TOOL
"""
import os
import sys

import numpy as np

from person import WORK, fresh, start

TOOL = sys.argv[4]
VOCAB = 260
BAD = "--policies.down.model=bad.gguf"
BAD_ADAPTER = "--policies.down.lora=bad.gguf"


def path(name):
    return os.path.join(WORK, name)


def make(name, values, *options):
    """A model of logits [VOCAB, VOCAB], or with "--adapter" one that adds so much to a row."""
    np.asarray(values, dtype=np.float32).tofile(path("values.f32"))
    before = ["--adapter"] if "--adapter" in options else []
    after = [option for option in options if option != "--adapter"]
    result = start([TOOL, *before, name, path("values.f32"), *after])
    if result.returncode != 0:
        sys.exit(result.stderr)
    os.remove(path("values.f32"))


def logits(seed):
    generator = np.random.Generator(np.random.Philox(seed))
    values = np.full((VOCAB, VOCAB), -9.0)
    likely = [3 + ord(letter) for letter in "abc"] + [2]
    values[:, likely] = generator.standard_normal((VOCAB, len(likely)))
    return values


def prepare_models(config):
    """up.gguf and down.gguf in an empty folder, and the configuration."""
    fresh()
    for name in ("up.table", "down.table"):
        os.remove(path(name))
    with open(path("config.yaml"), "w", encoding="utf-8") as file:
        file.write(config)
    make("up.gguf", logits(1))
    make("down.gguf", logits(2))
