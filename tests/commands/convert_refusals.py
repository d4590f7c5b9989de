#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What launch/convert.sh refuses before it fetches anything.

    convert_refusals.py WORK SOURCE
"""

import json
import os
import shutil
import struct
import subprocess
import sys

import tables


MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


class Case:
    """A folder of things that look like checkpoints."""

    def __init__(self, work, source):
        self.work = work
        self.script = os.path.join(source, "launch", "convert.sh")
        # Whoever gets past the checks cannot make this folder, and ends with another code.
        self.environment = {**os.environ, "MPO_BUILD_DIR": os.path.join(work, "file", "build")}

    def write(self, name, text=""):
        path = os.path.join(self.work, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)

    def adapter(self, name, config, more=None):
        """One pair of matrices of rank 4, and whatever more there is."""
        shapes = {MODULE + ".lora_A.weight": [4, 8], MODULE + ".lora_B.weight": [8, 4],
                  **(more or {})}
        self.write(name + "/adapter_config.json", json.dumps(
            {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}))
        header, at = {}, 0
        for tensor, shape in shapes.items():
            size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[tensor] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
            at += size
        head = json.dumps(header).encode()
        with open(os.path.join(self.work, name, "adapter_model.safetensors"), "wb") as stream:
            stream.write(struct.pack("<Q", len(head)) + head + bytes(at))

    def run(self, *arguments):
        return subprocess.run([self.script, *arguments], cwd=self.work, env=self.environment,
                              capture_output=True, text=True, timeout=600, check=False)

    def refused(self, code, words, *arguments):
        """One line on stderr that has all the words, and no file more than before."""
        before = sorted(os.walk(self.work))
        done = self.run(*arguments)
        lines = done.stderr.splitlines()
        tables.check(done.returncode == code and len(lines) == 1 and not done.stdout
                     and all(word in lines[0] for word in ["convert.sh: "] + words),
                     "%s: %d, %s" % (arguments, done.returncode, done.stderr))
        tables.check(sorted(os.walk(self.work)) == before, "%s left files" % (arguments,))


def usage_is_64(case):
    case.refused(64, ["FOLDER is missing", "usage: "])
    case.refused(64, ["--kind"], "model", "--kind=f32")
    case.refused(64, ["q4_0", "q8_0"], "model", "--type=q4_0")
    case.refused(64, ["--output needs a value"], "model", "--output")
    case.refused(64, ["--name needs a value"], "model", "--name=")
    case.refused(64, ["'model' and 'adapter'"], "model", "adapter")
    case.refused(64, ["--base", "full model"], "model", "--base", "model")
    case.refused(64, ["--to-peft needs --base"], "--to-peft=model.gguf")
    for more in ("--type=f16", "--name=x", "adapter"):
        case.refused(64, ["--base and --output alone"], "--to-peft=model.gguf", "--base=x", more)


def a_missing_folder_is_66(case):
    case.refused(66, ["'nothing'"], "nothing")
    case.refused(66, ["'file'"], "file")
    case.refused(66, ["'nothing'", "--base"], "adapter", "--base=nothing")
    case.refused(66, ["'someone/base'", "--base"], "adapter")
    case.refused(66, ["--base"], "nameless")
    case.refused(66, ["no file 'nothing'"], "--to-peft=nothing", "--base=model")
    case.refused(66, ["no file 'model'"], "--to-peft=model", "--base=model")
    case.refused(66, ["'nothing'", "--base"], "--to-peft=model.gguf", "--base=nothing")


def what_is_no_checkpoint_is_65(case):
    case.refused(65, ["config.json", "adapter_config.json"], "empty")
    case.refused(65, ["*.safetensors"], "weightless")
    case.refused(65, ["adapter_model.safetensors"], "half")
    case.refused(65, ["'empty'", "config.json"], "adapter", "--base=empty")
    case.refused(65, ["'empty'", "config.json"], "--to-peft=model.gguf", "--base=empty")


def an_output_that_exists_or_has_no_folder_is_73(case):
    case.refused(73, ["'model.gguf'", "--output"], "model")
    case.refused(73, ["'taken.gguf'"], "adapter", "--base=model", "--name=taken")
    case.refused(73, ["'file'"], "model", "--output", "file")
    case.refused(73, ["'nothing'"], "model", "--output=nothing/x.gguf")
    case.refused(73, ["'file'"], "model", "--output=file/x.gguf")
    case.refused(73, ["'model'", "--output"], "--to-peft=model.gguf", "--base=model")
    case.refused(73, ["'nothing'"], "--to-peft=model.gguf", "--base=model", "--output=nothing/x/")


def what_is_right_goes_on_to_the_set_up(case):
    for arguments in (["model", "--output=x"], ["adapter", "--base=model", "--output=x"],
                      ["local", "--output=x"], ["model[1]*", "--output=x"],
                      ["--to-peft=model.gguf", "--base=model", "--output=x"]):
        done = case.run(*arguments)
        tables.check("mkdir" in done.stderr and "convert.sh: " not in done.stderr,
                     "%s: %s" % (arguments, done.stderr))


def what_cannot_be_written_is_65(case):
    """Each with the name of what it is; nothing else of the adapter is wrong."""
    for name, config, words in (
            ("dora", {"use_dora": True}, ["DoRA", "use_dora"]),
            ("pissa", {"init_lora_weights": "pissa_niter_16"}, ["pissa_niter_16", "base model"]),
            ("olora", {"init_lora_weights": "olora"}, ["olora", "base model"]),
            ("loftq", {"init_lora_weights": "loftq"}, ["loftq"]),
            ("corda", {"init_lora_weights": "corda"}, ["corda"]),
            ("modules", {"modules_to_save": ["lm_head"]}, ["modules_to_save", "lm_head"]),
            ("bias", {"bias": "lora_only"}, ["bias: lora_only"]),
            ("lora_bias", {"lora_bias": True}, ["lora_bias"]),
            ("tokens", {"trainable_token_indices": [7]}, ["trainable_token_indices"]),
            ("layers", {"layer_replication": [[0, 1], [0, 1]]}, ["layer_replication"]),
            ("invoked", {"alora_invocation_tokens": [1, 2]}, ["alora_invocation_tokens"]),
            ("parameters", {"target_parameters": ["experts"]}, ["target_parameters"]),
            ("kind", {"peft_type": "IA3"}, ["IA3", "LORA"]),
            ("unknown", {"sorcery": {"level": 9}}, ["'sorcery'", "level"]),
            ("alpha", {"lora_alpha": "much"}, ["lora_alpha", "much"]),
            ("rank", {"r": 0}, ["for r", "0"]),
            ("turned", {"fan_in_fan_out": True}, ["fan_in_fan_out"]),
            ("nothing_of_one", {"alpha_pattern": {"q_proj": 0}}, ["q_proj", "alpha_pattern", "0"]),
            ("broken", {"alpha_pattern": {"q_(": 3}}, ["'q_('"]),
            ("no_object", {"rank_pattern": [4]}, ["rank_pattern", "[4]"]),
            ("patterned", {"rank_pattern": {"q_proj": 3}}, ["rank 4", "3"])):
        case.adapter(name, config)
        case.refused(65, ["'%s'" % name, *words], name, "--base=model", "--output=x")
    for tensor, words in (
            ("base_model.model.model.layers.0.input_layernorm.weight", ["a vector of a norm"]),
            (MODULE + ".lora_magnitude_vector", ["DoRA"]),
            (MODULE + ".bias", ["no matrix"])):
        case.adapter("tensor", {}, {tensor: [4]})
        case.refused(65, [tensor, *words], "tensor", "--base=model", "--output=x")
    embedding = "base_model.model.model.embed_tokens.lora_embedding_"
    case.adapter("tied", {}, {embedding + "A": [4, 9], embedding + "B": [8, 4]})
    case.refused(65, ["tie_word_embeddings"], "tied", "--base=tying", "--output=x")
    case.refused(65, ["JSON"], "not_json", "--base=model", "--output=x")


def an_empty_key_changes_nothing(case):
    case.adapter("empty_keys", {"use_dora": False, "modules_to_save": None, "layer_replication": [],
                                "bias": "none", "sorcery": None, "init_lora_weights": True,
                                "loftq_config": {}, "megatron_core": "megatron.core"})
    done = case.run("empty_keys", "--base=model", "--output=x")
    tables.check("mkdir" in done.stderr and "convert.sh: " not in done.stderr, done.stderr)


def rslora_becomes_an_alpha(case):
    """alpha / r in the copy is alpha / sqrt(r) in the original, whose matrices stay."""
    case.adapter("rslora", {"use_rslora": True, "r": 4, "lora_alpha": 8})
    out = os.path.join(case.work, "prepared")
    subprocess.run([sys.executable, os.path.join(os.path.dirname(case.script), "adapter.py"),
                    "prepare", "rslora", "model", out], cwd=case.work, check=True)
    with open(os.path.join(out, "adapter_config.json"), encoding="utf-8") as stream:
        config = json.load(stream)
    tables.check(config["lora_alpha"] == 16 and not config["use_rslora"], "%s" % config)
    tables.check(os.path.islink(os.path.join(out, "adapter_model.safetensors")), "a copy")
    shutil.rmtree(out)


def help_says_how(case):
    done = case.run("--help")
    tables.check(done.returncode == 0 and "--type" in done.stdout, done.stdout + done.stderr)


def main():
    work, source = sys.argv[1:3]
    shutil.rmtree(work, ignore_errors=True)
    case = Case(work, source)
    for name in ("model/config.json", "model/model.safetensors", "model.gguf", "taken.gguf",
                 "model[1]*/config.json", "model[1]*/a.safetensors", "empty/README.md", "file",
                 "weightless/config.json", "half/adapter_config.json"):
        case.write(name)
    for name, base in (("adapter", {"base_model_name_or_path": "someone/base"}),
                       ("nameless", {"base_model_name_or_path": None}),
                       ("local", {"base_model_name_or_path": os.path.join(work, "model")})):
        case.write(name + "/adapter_config.json", json.dumps({"r": 8, **base}))
        case.write(name + "/adapter_model.safetensors")
    case.write("tying/config.json", json.dumps({"tie_word_embeddings": True}))
    case.write("not_json/adapter_config.json", "{")
    case.write("not_json/adapter_model.safetensors")
    cases = [usage_is_64, a_missing_folder_is_66, what_is_no_checkpoint_is_65,
             an_output_that_exists_or_has_no_folder_is_73, what_is_right_goes_on_to_the_set_up,
             what_cannot_be_written_is_65, an_empty_key_changes_nothing, rslora_becomes_an_alpha,
             help_says_how]
    sys.exit(tables.run_cases([(each, [case]) for each in cases]))


if __name__ == "__main__":
    main()
