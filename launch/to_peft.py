#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A LoRA adapter in GGUF made into a PEFT folder, the reverse of llama.cpp's converter; for
convert.sh.

    to_peft.py write FILE BASE OUT    write the folder OUT
    to_peft.py compare FILE AGAIN     AGAIN is what llama.cpp's converter made of OUT

write takes names and sizes of modules from transformers, which builds the base model from its
configuration without weights, and what the modules are called in GGUF from the converter. The
order of rows of q and k, which the converter changes for some architectures, is changed back.
compare has the last word: the folder is right if the converter makes the same tensors of it.

Needs numpy and safetensors, write torch and transformers too, and llama.cpp's gguf-py and
converters in PYTHONPATH. Exit codes: 0, 65 with one line on standard error, 74 (without a word)
the disk is full.
"""

import collections
import json
import os
import re
import sys

import gguf
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save_file

from adapter import CONFIG, PREFIX, WEIGHTS, Refusal

HALF = re.compile(r"(?P<tensor>.+)\.weight\.lora_(?P<half>[ab])$")
QUERY_OR_KEY = re.compile(r"blk\.\d+\.attn_(?P<which>[qk])$")
FULL = re.compile("No space left|File too large")

# ---- the file ----


def read_adapter(path):
    """(architecture, alpha, {tensor: {"a": A, "b": B}}) of a LoRA adapter, in 32-bit floats."""
    try:
        reader = gguf.GGUFReader(path)
        keys = {name: field.contents() for name, field in reader.fields.items()}
        values = [(tensor.name, dequantize(tensor.data, tensor.tensor_type))
                  for tensor in reader.tensors]
    except (ValueError, IndexError, KeyError, OSError, NotImplementedError) as problem:
        raise Refusal("it is no GGUF file that can be read (%s)" % problem) from None
    kind, adapter = keys.get("general.type"), keys.get("adapter.type")
    if (kind, adapter) != ("adapter", "lora"):
        raise Refusal("expected a LoRA adapter, found a %s"
                      % (kind or "file that does not say what it is"))
    if keys.get("adapter.alora.invocation_tokens"):
        raise Refusal("it applies only after its invocation tokens "
                      "(adapter.alora.invocation_tokens), which cannot be written here")
    alpha = float(keys.get("adapter.lora.alpha", 0.0))
    if not alpha > 0.0:
        raise Refusal("expected a number above 0 for adapter.lora.alpha, found %g" % alpha)
    pairs = collections.defaultdict(dict)
    for name, value in values:
        match = HALF.match(name)
        if match is None or value.ndim != 2:
            raise Refusal("%s is no matrix of a LoRA pair; only such pairs can be written" % name)
        pairs[match["tensor"]][match["half"]] = np.asarray(value, np.float32)
    for name, pair in pairs.items():
        if len(pair) != 2:
            raise Refusal("%s.weight has no lora_%s" % (name, "b" if "a" in pair else "a"))
    if not pairs:
        raise Refusal("it holds no LoRA matrices")
    return keys.get("general.architecture"), alpha, pairs


# ---- the base model ----

Module = collections.namedtuple("Module", "name outer inner is_embedding")


class Base:
    """What transformers and the converter know of a model from its configuration."""

    def __init__(self, folder):
        # These take seconds.  pylint: disable=C0415
        import torch
        from conversion import ModelType, get_model_architecture, get_model_class
        from transformers import AutoConfig, AutoModelForCausalLM

        try:
            config = AutoConfig.from_pretrained(folder)
            kind = get_model_class(get_model_architecture(config.to_dict(), ModelType.TEXT))
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config)
        except (ValueError, KeyError, OSError, NotImplementedError, RuntimeError) as problem:
            raise Refusal("its base model '%s' is not known to both transformers and llama.cpp's "
                          "converter (%s)" % (folder, str(problem).split("\n", 1)[0])) from None
        text = config.get_text_config()
        self.layers = text.num_hidden_layers
        self.architecture = gguf.MODEL_ARCH_NAMES[kind.model_arch]
        self.turns = getattr(kind, "undo_permute", False)
        self.heads = {"q": text.num_attention_heads}
        self.heads["k"] = getattr(text, "num_key_value_heads", None) or self.heads["q"]
        names = gguf.get_tensor_name_map(kind.model_arch, self.layers)
        self.modules = {}  # name in GGUF -> Module
        for name, module in model.named_modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
                outer, inner = module.weight.shape
                self.modules[names.get_name(name)] = Module(
                    name, outer, inner, isinstance(module, torch.nn.Embedding))

    def find(self, tensor):
        if tensor in self.modules:
            return self.modules[tensor]
        raise Refusal("it changes %s, which the base model, a %s of %d layers, has no module for"
                      % (tensor, self.architecture, self.layers))

    def turn_back(self, tensor, b):
        """The rows of B in the order of transformers, where the halves of a head are apart."""
        match = QUERY_OR_KEY.match(tensor)
        if not self.turns or match is None:
            return b
        rows, rank = b.shape
        heads = self.heads[match["which"]]
        return b.reshape(heads, rows // heads // 2, 2, rank).swapaxes(1, 2).reshape(rows, rank)


# ---- the folder ----


def make_tensors(base, pairs):
    """({name: value} as PEFT has them, {name of the module: rank})."""
    tensors, ranks = {}, {}
    for tensor, pair in pairs.items():
        module, a, b = base.find(tensor), pair["a"], pair["b"]
        if module.is_embedding:
            a = a.T  # in GGUF, a row is that of a token
        sizes, wanted = (b.shape[0], a.shape[1]), (module.outer, module.inner)
        if module.is_embedding:
            wanted = wanted[::-1]
        if sizes != wanted or a.shape[0] != b.shape[1]:
            raise Refusal("%s is of %d x %d (rank %d and %d) in it, and of %d x %d in the base "
                          "model" % (tensor, *sizes, a.shape[0], b.shape[1], *wanted))
        ranks[module.name] = a.shape[0]
        ends = ((".lora_embedding_A", ".lora_embedding_B") if module.is_embedding
                else (".lora_A.weight", ".lora_B.weight"))
        values = (a, base.turn_back(tensor, b))
        for end, value in zip(ends, values):
            tensors[PREFIX + module.name + end] = np.ascontiguousarray(value)
    return tensors, ranks


def name_targets(base, ranks):
    """The last parts of names where they mean these modules and no more, else the whole names."""
    last = {name.rsplit(".", 1)[-1] for name in ranks}
    meant = {module.name for module in base.modules.values()
             if module.name.rsplit(".", 1)[-1] in last}
    return sorted(last if meant == set(ranks) else ranks)


def make_config(base, folder, alpha, ranks):
    counts = collections.Counter(ranks.values())
    rank = max(counts, key=lambda rank: (counts[rank], rank))
    return {
        "base_model_name_or_path": folder,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {name: other for name, other in ranks.items() if other != rank},
        "target_modules": name_targets(base, ranks),
        "task_type": "CAUSAL_LM",
    }


def write(path, folder, out):
    architecture, alpha, pairs = read_adapter(path)
    base = Base(folder)
    if architecture != base.architecture:
        raise Refusal("it is for an architecture called '%s', and the base model '%s' is a '%s'"
                      % (architecture, folder, base.architecture))
    tensors, ranks = make_tensors(base, pairs)
    os.makedirs(out)
    save_file(tensors, os.path.join(out, WEIGHTS), metadata={"format": "pt"})
    with open(os.path.join(out, CONFIG), "w", encoding="utf-8") as stream:
        json.dump(make_config(base, folder, alpha, ranks), stream, indent=2)
        stream.write("\n")


def compare(path, again):
    _, alpha, pairs = read_adapter(path)
    _, other_alpha, others = read_adapter(again)
    same = alpha == other_alpha and pairs.keys() == others.keys() and all(
        np.array_equal(pair[half], others[name][half]) for name, pair in pairs.items()
        for half in "ab")
    if not same:
        raise Refusal("llama.cpp's converter makes other tensors of the result, so this base "
                      "model's adapters cannot be turned back")


def main():
    command, path = sys.argv[1:3]
    try:
        {"write": write, "compare": compare}[command](path, *sys.argv[3:])
    except Refusal as refusal:
        sys.stderr.write("convert.sh: the adapter '%s' cannot be turned back: %s\n"
                         % (path, refusal))
        sys.exit(65)
    except Exception as problem:  # safetensors has a type of its own for every failure
        if not FULL.search(str(problem)):
            raise
        sys.exit(74)


if __name__ == "__main__":
    main()
