# SPDX-License-Identifier: Apache-2.0
"""Whether a PEFT folder that came back from GGUF is the adapter: run by convert.py in the venv.

    convert_peft.py WORK BACK NAME BITS

BITS 32 or 16: its tensors are those of WORK/NAME, rounded to so many bits; 0: not compared.
Its log-probabilities of the responses of truth.json, by transformers and PEFT, must be those
of NAME there. Without the package peft, the adapter is merged, W + (alpha / r) B A.
"""

import json
import os
import sys

import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from convert_checkpoints import log_probability

# Of a token's log-probability: exact for 32 bits; libllama keeps keys and values in 16 bits.
BOUNDS = {32: 1e-5, 16: 2e-3, 0: 1e-3}


def read(folder):
    with open(os.path.join(folder, "adapter_config.json"), encoding="utf-8") as stream:
        return json.load(stream), load_file(os.path.join(folder, "adapter_model.safetensors"))


def check_tensors(found, wanted, bits):
    assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
    for name, value in wanted.items():
        value = value.half().float() if bits == 16 else value
        assert torch.equal(found[name], value), name + " is another"


@torch.no_grad()
def merge(model, config, tensors):
    for name, a in tensors.items():
        if "lora_A" not in name and "embedding_A" not in name:
            continue
        is_embedding = "embedding_A" in name
        b = tensors[name.replace("_A", "_B")]
        module = name.removeprefix("base_model.model.").split(".lora_")[0]
        weight = model.get_submodule(module).weight
        rank = config["rank_pattern"].get(module, config["r"])
        assert len(a) == rank, module + " is of another rank"
        delta = config["lora_alpha"] / rank * b @ a
        weight += delta.T if is_embedding else delta
    return model


def main():
    work, back, name, bits = *sys.argv[1:4], int(sys.argv[4])
    config, tensors = read(os.path.join(work, back))
    if bits:
        check_tensors(tensors, read(os.path.join(work, name))[1], bits)
    model = LlamaForCausalLM.from_pretrained(os.path.join(work, "base")).float().eval()
    try:
        from peft import PeftModel  # pylint: disable=C0415
        model, how = PeftModel.from_pretrained(model, os.path.join(work, back)), "peft"
    except ImportError:
        model, how = merge(model, config, tensors), "a merged model"
    with open(os.path.join(work, "truth.json"), encoding="utf-8") as stream:
        given = json.load(stream)
    found = [log_probability(model, *pair) for pair in given["token_ids"]]
    off = max(abs(one - other) / count for one, other, count in
              zip(found, given["truth"][name], given["tokens"]))
    print("%s by %s: off by %.1e a token" % (back, how, off))
    assert off < BOUNDS[bits], "off by %g a token" % off


if __name__ == "__main__":
    main()
