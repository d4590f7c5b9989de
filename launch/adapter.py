#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a PEFT adapter says of itself, made into what a GGUF file can say; for convert.sh.

    adapter.py check FOLDER BASE        refuse what cannot be written
    adapter.py prepare FOLDER BASE OUT  the same, and copy the adapter to the folder OUT

A GGUF adapter has one alpha, and libllama scales each pair of matrices by alpha / rank. PEFT
scales by alpha / sqrt(rank) for rsLoRA, and has ranks and alphas for single modules; prepare
makes up for both, in the alpha where it can and else in the matrix B, in 32-bit floats.
Everything else that changes what the adapter does is refused with its name: the file would
be another policy than the one that was trained.

check needs Python alone, prepare numpy and safetensors where a matrix is changed. Exit codes:
0, 65 with one line on standard error.
"""

import json
import math
import os
import re
import struct
import sys

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
HEADER_BYTES_MAX = 100 << 20

# Keys that change nothing here whatever they say, or that are looked at below.
KNOWN = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
    "lora_ga_config", "megatron_core", "modules_to_save", "peft_type", "peft_version",
    "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules",
    "task_type", "use_dora", "use_rslora",
}

# Keys that change the policy unless they are empty, and why they cannot be written.
REFUSED = {
    "use_dora": "DoRA has magnitudes beside its two matrices",
    "modules_to_save": "whole modules were trained beside the matrices",
    "lora_bias": "the matrices have a bias",
    "trainable_token_indices": "single embeddings were trained",
    "layer_replication": "layers of the base model were repeated",
    "megatron_config": "the adapter is one of Megatron's layers",
    "target_parameters": "parameters that are no modules were trained",
    "use_qalora": "QALoRA pools the input of its matrices",
    "alora_invocation_tokens": "the adapter applies only after its invocation tokens",
    "arrow_config": "Arrow routes between several adapters",
}

# Ways to begin that leave the base model as it is. The others take part of its weights into
# the adapter and train on the rest, so the adapter is nothing without that rest.
PLAIN_BEGINNINGS = {"true", "false", "none", "gaussian", "eva", "orthogonal"}
MATRIX = re.compile(r"(?P<module>.+)\.(lora_(?P<one>[AB])\.weight|lora_embedding_(?P<two>[AB]))$")
PREFIX = "base_model.model."


class Refusal(Exception):
    """The adapter cannot be written; the text says why."""


def read_json(path):
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except (OSError, ValueError) as problem:
        raise Refusal("'%s' is no JSON (%s)" % (path, problem)) from None
    if not isinstance(found, dict):
        raise Refusal("'%s' is no JSON object" % path)
    return found


def read_shapes(path):
    """Name and shape of every tensor; None for a file that only the converter can judge."""
    with open(path, "rb") as stream:
        size = stream.read(8)
        if len(size) < 8 or struct.unpack("<Q", size)[0] > HEADER_BYTES_MAX:
            return None
        try:
            header = json.loads(stream.read(struct.unpack("<Q", size)[0]))
        except ValueError:
            return None
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


# ---- what is refused ----

def check_config(config):
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise Refusal("it is of the type %s (peft_type), and only LORA can be written" % kind)
    for key, value in config.items():
        if key in REFUSED and value:
            raise Refusal("%s (%s: %s), which GGUF has no place for"
                          % (REFUSED[key], key, json.dumps(value)[:60]))
        if key not in KNOWN and key not in REFUSED and value:
            raise Refusal("its %s has the key '%s' (%s), whose effect is not known here; an "
                          "adapter without it can be converted"
                          % (CONFIG, key, json.dumps(value)[:60]))
    bias = config.get("bias") or "none"
    if bias != "none":
        raise Refusal("biases were trained (bias: %s), which GGUF has no place for" % bias)
    begin = str(config.get("init_lora_weights")).lower()
    if begin not in PLAIN_BEGINNINGS:
        raise Refusal("it began with '%s' (init_lora_weights), which changes the base model too; "
                      "save it with path_initial_model_for_weight_conversion of "
                      "save_pretrained, which makes it an adapter of the unchanged one"
                      % config["init_lora_weights"])
    if config.get("fan_in_fan_out"):
        raise Refusal("the matrices of its base model lie the other way round, as GPT-2's do "
                      "(fan_in_fan_out), and llama.cpp's converter turns those of the adapter "
                      "too; merge the adapter into the model and convert that")
    for key in ("r", "lora_alpha"):
        check_number(key, config.get(key, 1))
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict):
            raise Refusal("expected an object for %s, found %s" % (key, json.dumps(patterns)[:60]))
        for pattern, value in patterns.items():
            check_number("%s of %s" % (pattern, key), value)


def check_number(what, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise Refusal("expected a number above 0 for %s, found %s"
                      % (what, json.dumps(value)[:60]))


def check_names(shapes, base):
    for name in shapes:
        if MATRIX.match(name) or ".base_layer." in name:
            continue
        what = "a vector of a norm" if "norm" in name.lower() else "no matrix of a LoRA pair"
        if "magnitude" in name:
            what = "a magnitude of DoRA"
        raise Refusal("it holds %s, %s, which GGUF has no place for" % (name, what))
    of_embedding = [name for name in shapes if "embed_tokens." in name and MATRIX.match(name)]
    path = os.path.join(base, "config.json")
    if of_embedding and read_json(path).get("tie_word_embeddings"):
        raise Refusal("it changes the embedding (%s), which the base model uses for its output too "
                      "(tie_word_embeddings), and libllama cannot apply it there; merge the "
                      "adapter into the model and convert that" % of_embedding[0])


# ---- scales ----

def pattern_of(patterns, module):
    """A module's value among those of patterns, as PEFT finds it, or None."""
    for pattern, value in (patterns or {}).items():
        try:
            matched = re.match(r"(.*\.)?(%s)$" % pattern, module)
        except re.error as problem:
            raise Refusal("the pattern '%s' is no expression (%s)" % (pattern, problem)) from None
        if matched:
            return value
    return None


def scales(config, shapes):
    """module -> (rank, scale) as PEFT applies it."""
    found = {}
    for name, shape in shapes.items():
        match = MATRIX.match(name)
        if match is None or (match["one"] or match["two"]) != "A":
            continue
        module = match["module"]
        short = module[len(PREFIX):] if module.startswith(PREFIX) else module
        rank = pattern_of(config.get("rank_pattern"), short) or config.get("r", shape[0])
        alpha = pattern_of(config.get("alpha_pattern"), short) or config.get("lora_alpha", rank)
        if rank != shape[0]:
            raise Refusal("%s is of rank %d, but %s says %s" % (name, shape[0], CONFIG, rank))
        divisor = math.sqrt(rank) if config.get("use_rslora") else rank
        found[module] = (rank, alpha / divisor)
    return found


def choose_alpha(modules):
    """The alpha that is right for most modules."""
    alphas = [rank * scale for rank, scale in modules.values()]
    return max(set(alphas), key=lambda alpha: (alphas.count(alpha), alpha))


def scale_matrices(path, factors, out):
    from safetensors.torch import load_file, save_file  # pylint: disable=C0415,E0401
    tensors = load_file(path)
    for name in tensors:
        match = MATRIX.match(name)
        if match and (match["one"] or match["two"]) == "B" and match["module"] in factors:
            tensors[name] = (tensors[name].double() * factors[match["module"]]).float()
    save_file(tensors, out)


def prepare(folder, config, shapes, out):
    modules = scales(config, shapes)
    if not modules:
        raise Refusal("it holds no LoRA matrices")
    alpha = choose_alpha(modules)
    factors = {module: rank * scale / alpha for module, (rank, scale) in modules.items()
               if rank * scale != alpha}
    os.makedirs(out)
    with open(os.path.join(out, CONFIG), "w", encoding="utf-8") as stream:
        json.dump({**config, "lora_alpha": alpha, "use_rslora": False}, stream)
    source = os.path.join(os.path.realpath(folder), WEIGHTS)
    if factors:
        scale_matrices(source, factors, os.path.join(out, WEIGHTS))
    else:
        os.symlink(source, os.path.join(out, WEIGHTS))


def main():
    command, folder, base = sys.argv[1:4]
    try:
        config = read_json(os.path.join(folder, CONFIG))
        check_config(config)
        shapes = read_shapes(os.path.join(folder, WEIGHTS))
        if shapes is not None:
            check_names(shapes, base)
            scales(config, shapes)
        if command == "prepare":
            prepare(folder, config, shapes or {}, sys.argv[4])
    except Refusal as refusal:
        sys.stderr.write("convert.sh: the adapter '%s' cannot be converted: %s\n"
                         % (folder, refusal))
        sys.exit(65)


if __name__ == "__main__":
    main()
