#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a position takes of the whole program: decoding, and what mixing adds to it.

usage: positions.py MPO WORK BIGRAM_GGUF_TOOL [--shape NAME] [--device NAME] [--tokens N]

Two policies in one process, of random weights in the shape of a known model (of time nothing
depends on what they are), B rows that do not end. Lines as results/gpu/model.py reads them,
microseconds a position, of the fastest step: decode, that of both policies, and position,
exchange and mixture of the record's /timing.
"""
import argparse
import functools
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "commands"))

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import tables  # noqa: E402  (found through the path above)
from gguf_file import F32, I32, U32, Gguf, TEXT, Tensor, TYPE_F32  # noqa: E402

# width, layers, heads, heads of keys and values, width between, V
SHAPES = {"1B": (2048, 16, 32, 8, 8192, 128256), "small": (128, 2, 4, 2, 256, 1024)}
TYPE_Q8_0, BLOCK = 8, 32
SCALE = np.float16(3e-4)  # of bytes: weights of 0.02
CONTROL = 3  # a token that no text has
POLICIES = 2


@functools.lru_cache
def random_megabyte():
    """Blocks of Q8_0: a scale and 32 bytes each."""
    generator = np.random.Generator(np.random.Philox(1))
    block = np.zeros(1 << 15, dtype=[("scale", "<f2"), ("weight", "i1", BLOCK)])
    block["scale"] = SCALE
    block["weight"] = generator.integers(-127, 128, size=block["weight"].shape)
    return block.tobytes()


def matrix(columns, rows):
    """The same megabyte over and over."""
    size = columns * rows // BLOCK * (BLOCK + 2)
    some = random_megabyte()
    return Tensor((columns, rows), TYPE_Q8_0, (some * (size // len(some) + 1))[:size])


def write_model(path, bigram, shape):
    """A bigram's vocabulary, filled up with control tokens, and other weights."""
    width, layers, heads, few, between, vocab = shape
    file = Gguf.read(bigram)
    for name, value in (("embedding_length", width), ("block_count", layers),
                        ("feed_forward_length", between), ("attention.head_count", heads),
                        ("attention.head_count_kv", few), ("context_length", 4096)):
        file.keys["llama." + name] = (U32, value)
    file.keys["llama.attention.layer_norm_rms_epsilon"] = (F32, 1e-5)
    more = vocab - len(file.keys["tokenizer.ggml.tokens"][1][1])
    for name, kind, value in (("tokens", TEXT, [f"<|{i}|>" for i in range(more)]),
                              ("scores", F32, [0.0] * more), ("token_type", I32, [CONTROL] * more)):
        name = "tokenizer.ggml." + name
        outer, (_, values) = file.keys[name]
        file.keys[name] = (outer, (kind, values + value))
    ones = Tensor((width,), TYPE_F32, np.ones(width, "<f4").tobytes())
    narrow = width // heads * few
    file.tensors = {"token_embd.weight": matrix(width, vocab), "output.weight": matrix(width, vocab),
                    "output_norm.weight": ones}
    for layer in range(layers):
        file.tensors.update({f"blk.{layer}.{name}.weight": tensor for name, tensor in (
            ("attn_norm", ones), ("ffn_norm", ones), ("attn_q", matrix(width, width)),
            ("attn_k", matrix(width, narrow)), ("attn_v", matrix(width, narrow)),
            ("attn_output", matrix(width, width)), ("ffn_gate", matrix(width, between)),
            ("ffn_up", matrix(width, between)), ("ffn_down", matrix(between, width)))})
    file.write(path)


def measure(options, rows):
    """(decode, exchange and mixture) of a position, us; the first step warms up."""
    record = os.path.join(options.work, "record.h5")
    tables.run([options.mpo, "fit", os.path.join(options.work, "config.yaml"), "--force", "--quiet",
                f"--run.device={options.device}", f"--rollout.responses={rows}",
                f"--rollout.max_tokens={options.tokens}", "--record.file=" + record])
    with h5py.File(record, "r") as file:
        if np.any(file["tokens"][()] != rows * options.tokens):
            sys.exit(f"positions.py: expected {rows * options.tokens} tokens a step, found "
                     f"{file['tokens'][()]}: a row ended")
        decode = file["timing/decode"][1:]
        added = file["timing/exchange"][1:] + file["timing/mixture"][1:]
    return 1e6 * decode.min() / options.tokens, 1e6 * added.min() / options.tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mpo", type=os.path.abspath)
    parser.add_argument("work", type=os.path.abspath)
    parser.add_argument("tool", type=os.path.abspath)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1B")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    os.makedirs(options.work)
    shape = SHAPES[options.shape]
    at = os.path.join(options.work, "")
    np.zeros((260, 260), "<f4").tofile(at + "logits.f32")
    tables.run([options.tool, at + "bigram.gguf", at + "logits.f32"])
    write_model(at + "random.gguf", at + "bigram.gguf", shape)
    with open(at + "prompts.txt", "w", encoding="utf-8") as file:
        file.write("a\n")
    with open(at + "config.yaml", "w", encoding="utf-8") as file:
        file.write("prompts: {file: prompts.txt}\npolicies:\n"
                   + "".join(f"  - {{name: p{k}, model: random.gguf, template: raw}}\n"
                             for k in range(POLICIES))
                   + "rollout: {prompts_per_step: 1, end_bias: -100}\ndescent: {steps: 3}\n"
                   "record: {hash_models: false}\n")
    for rows in (1, 16, 64):
        for name, value in zip(("decode", "position"), measure(options, rows)):
            print(name, POLICIES, shape[-1], rows, f"{value:.6g}", sep="\t", flush=True)


if __name__ == "__main__":
    main()
