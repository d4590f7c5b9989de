#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Average LoRA adapters of one model into one adapter, exactly: the "model soup".

An adapter adds (alpha_k / r_k) B_k A_k to a weight. The average of the *deltas*,

    sum_k l_k (alpha_k / r_k) B_k A_k = [l_1 s_1 B_1 | l_2 s_2 B_2 | ...] [A_1; A_2; ...],

is an adapter of rank sum_k r_k with the A's stacked and the scaled B's side by side (averaging
A and B themselves would bring cross terms B_1 A_2). alpha is set to the new rank, so its scale
is 1. Source: Wortsman et al., Model soups, ICML 2022; Rame et al., Rewarded soups, NeurIPS 2023.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

SUFFIX_A = ".lora_a"
SUFFIX_B = ".lora_b"


class Adapter:
    """The pairs (A [r, in], B [out, r]) of one LoRA file, by weight name, and its scale."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.architecture = reader.get_field("general.architecture").contents()
        self.alpha = float(reader.get_field("adapter.lora.alpha").contents())
        tensors = {
            tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            for tensor in reader.tensors
        }
        self.pairs = {
            name.removesuffix(SUFFIX_A): (a, tensors[name.removesuffix(SUFFIX_A) + SUFFIX_B])
            for name, a in tensors.items()
            if name.endswith(SUFFIX_A)
        }

    def delta(self, weight):
        """The dense delta of one weight, for checking."""
        a, b = self.pairs[weight]
        return self.alpha / a.shape[0] * b @ a


def average(adapters, shares):
    """{weight: (A, B)} of the averaged adapter, whose scale is 1."""
    names = list(adapters[0].pairs)
    if any(set(adapter.pairs) != set(names) for adapter in adapters):
        raise SystemExit("soup.py: the adapters change different weights; expected the same ones")
    pairs = {}
    for name in names:
        parts = [adapter.pairs[name] for adapter in adapters]
        scaled = [
            share * adapter.alpha / a.shape[0] * b
            for share, adapter, (a, b) in zip(shares, adapters, parts)
        ]
        pairs[name] = (np.concatenate([a for a, _ in parts]), np.concatenate(scaled, axis=1))
    return pairs


def write(path, architecture, pairs):
    """One LoRA file in F32: F16 would round the scaled B's once more."""
    rank = next(iter(pairs.values()))[0].shape[0]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_string("general.name", "Soup")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for name, (a, b) in pairs.items():
        writer.add_tensor(name + SUFFIX_A, np.ascontiguousarray(a, dtype=np.float32))
        writer.add_tensor(name + SUFFIX_B, np.ascontiguousarray(b, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def soup(paths, shares, out):
    """Average the adapters in paths and check every delta of the file that was written."""
    adapters = [Adapter(path) for path in paths]
    write(out, adapters[0].architecture, average(adapters, shares))
    written = Adapter(out)
    for name in written.pairs:
        expected = sum(share * adapter.delta(name) for share, adapter in zip(shares, adapters))
        if not np.allclose(written.delta(name), expected, rtol=1e-4, atol=1e-6):
            raise SystemExit(f"soup.py: {out}: {name} is not the average of the deltas")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapters", nargs="+", type=Path, help="LoRA files in GGUF")
    parser.add_argument("--shares", type=float, nargs="+", help="default: equal shares")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    count = len(arguments.adapters)
    shares = arguments.shares or [1 / count] * count
    if len(shares) != count:
        parser.error(f"{len(shares)} shares for {count} adapters")
    soup(arguments.adapters, shares, arguments.out)


if __name__ == "__main__":
    main()
