#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From checkpoints to a fit: what launch/convert.sh makes is what transformers has.

    convert.py MPO WORK SOURCE BUILD

Needs the converters' Python environment, which it has launch/setup.sh make in BUILD/deps: a
download of 0.75 GB the first time, and the packages it lacks. Skipped where that cannot be.
"""

import json
import os
import resource
import shutil
import subprocess
import sys

import h5py
import numpy as np

import tables
from gguf_file import F32, Gguf

# Of a token's log-probability from 32-bit files: libllama keeps keys and values in 16 bits.
BOUND = 1e-3
CONFIG = """run: {seed: 3}
prompts: {file: prompts.txt}
policies:
  - {name: base, model: base-f32.gguf, template: raw}
  - {name: tuned, model: base-f32.gguf, lora: tuned-f32.gguf, template: raw}
rollout: {responses: 8, max_tokens: 12}
descent: {steps: 4}
record: {file: out.h5}
"""
BOTH = """run: {seed: 3}
prompts: {file: prompts.txt}
policies:
  - {name: tuned, model: base-f32.gguf, lora: tuned-f32.gguf, template: raw}
  - {name: wide, model: base-f32.gguf, lora: wide.gguf, template: raw}
rollout: {mixture: adapters, responses: 8, max_tokens: 12}
descent: {steps: 2}
record: {file: both.h5}
"""
BALANCED = """prompts: {file: prompts.txt}
policies: [{name: one, model: base-f32.gguf, lora: balanced.gguf, template: raw}]
"""


class Case:
    """A folder of checkpoints, and the ways to run convert.sh and mpo on it."""

    def __init__(self, mpo, work, source, build):
        self.mpo, self.work = mpo, work
        self.script = os.path.join(source, "launch", "convert.sh")
        self.environment = {**os.environ, **tables.ENVIRONMENT, "MPO_BUILD_DIR": build}

    def path(self, name):
        return os.path.join(self.work, name)

    def convert(self, *arguments, expect=0, **more):
        done = subprocess.run([self.script, *arguments], cwd=self.work, env=self.environment,
                              capture_output=True, text=True, timeout=600, check=False, **more)
        tables.check(done.returncode == expect, "convert.sh %s ended with %d, expected %d\n%s" % (
            " ".join(arguments), done.returncode, expect, done.stderr))
        return done.stderr

    def refused(self, code, words, *arguments, **more):
        """The code, the words in the last line, and no file more than before."""
        before = sorted(os.listdir(self.work))
        said = self.convert(*arguments, expect=code, **more).splitlines()[-1]
        tables.check(all(word in said for word in words), said)
        tables.check(sorted(os.listdir(self.work)) == before, "left: %s" % os.listdir(self.work))

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as stream:
            stream.write(text)

    def scores(self, config, *flags):
        """log pi of the responses of in.jsonl, by policy."""
        out, _ = tables.run([self.mpo, "score", self.path(config), *flags,
                             "--input=" + self.path("in.jsonl")])
        lines = [json.loads(line)["log_policy"] for line in out.splitlines()]
        return {name: [line[name] for line in lines] for name in lines[0]}

    def in_venv(self, script, *arguments):
        here = os.path.dirname(os.path.abspath(__file__))
        deps = os.path.join(self.environment["MPO_BUILD_DIR"], "deps")
        python = os.path.join(deps, "convert-venv", "bin", "python")
        return tables.run([python, "-B", os.path.join(here, script), self.work, *arguments])[0]

    def bytes_of(self, name):
        with open(self.path(name), "rb") as stream:
            return stream.read()

    def variant(self, name, change):
        """A copy of base with a changed config.json."""
        shutil.copytree(self.path("base"), self.path(name))
        with open(self.path(name + "/config.json"), "r+", encoding="utf-8") as stream:
            config = {**json.load(stream), **change}
            stream.seek(0)
            stream.truncate()
            json.dump(config, stream)


def a_model_and_an_adapter_become_files(case):
    case.convert("base", "--type=f32", "--output", "base-f32.gguf")
    case.convert("tuned", "--type", "f32", "--name", "warm words", "--output=tuned-f32.gguf")
    adapter = case.bytes_of("tuned-f32.gguf")
    tables.check(b"Warm Words" in adapter, "the adapter lacks its name")
    tables.check(b"/home/somebody" not in adapter, "the model card's path went along")
    tables.check(not [name for name in os.listdir(case.work) if "part" in name], "a part is left")


def scores_are_those_of_transformers(case):
    with open(case.path("truth.json"), encoding="utf-8") as stream:
        given = json.load(stream)
    with open(case.path("in.jsonl"), "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in given["lines"])
    out, _ = tables.run([case.mpo, "score", case.path("config.yaml"), "--weights=0.5,0.5",
                         "--input=" + case.path("in.jsonl")])
    lines = [json.loads(line) for line in out.splitlines()]
    truth, count = given["truth"], given["tokens"]
    tables.check([line["tokens"] for line in lines] == count, "other tokens: %s" % lines)
    for name in ("base", "tuned"):
        found = [line["log_policy"][name] for line in lines]
        off = (np.abs(np.subtract(found, truth[name])) / count).max()
        print("       %s: off by %.1e a token" % (name, off), flush=True)
        tables.check(off <= BOUND, "%s is off by %g" % (name, off))
    apart = (np.abs(np.subtract(truth["base"], truth["tuned"])) / count).min()
    tables.check(apart > 20 * BOUND, "the adapter hardly changes anything: %g" % apart)


def the_two_policies_can_be_fitted(case):
    tables.run([case.mpo, "fit", case.path("config.yaml"), "--quiet"])
    with h5py.File(case.path("out.h5"), "r") as record:
        tables.check(len(record["step"]) == 4, "%d steps" % len(record["step"]))
        tables.check(list(record["objective"].asstr()) == ["base", "tuned"], "other objectives")


def types_and_the_default_name_are_as_asked(case):
    for name in ("f16", "bf16", "q8_0"):
        case.convert("base", "--type", name, "--output", name + ".gguf")
    case.convert("base")
    case.convert("tuned", "--base", "base/")
    size = {name: os.path.getsize(case.path(name + ".gguf"))
            for name in ("base-f32", "f16", "bf16", "q8_0", "base")}
    tables.check(size["q8_0"] < size["f16"] < size["base-f32"], "sizes: %s" % size)
    tables.check(size["f16"] == size["bf16"] == size["base"], "sizes: %s" % size)
    tables.check(case.bytes_of("f16.gguf") != case.bytes_of("bf16.gguf"), "one type for two")
    tables.check(case.bytes_of("tuned.gguf")[:4] == b"GGUF", "tuned.gguf is no GGUF")


def scales_are_those_of_peft(case):
    """Alpha over rank times B in the file is what PEFT multiplies B by, module for module."""
    plain = Gguf.read(case.path("tuned-f32.gguf"))
    with open(case.path("tuned/adapter_config.json"), encoding="utf-8") as stream:
        config = json.load(stream)
    rank, alpha = config["r"], config["lora_alpha"]
    for name, change, factor in (
            ("rslora", {"use_rslora": True}, lambda tensor: rank ** 0.5),
            ("alphas", {"alpha_pattern": {"q_proj": 3 * alpha, "layers.1.self_attn.v_proj": 5}},
             lambda tensor: 3 if "attn_q" in tensor else
             5 / alpha if "blk.1.attn_v" in tensor else 1),
            ("both", {"use_rslora": True, "alpha_pattern": {"q_proj": 3 * alpha}},
             lambda tensor: rank ** 0.5 * (3 if "attn_q" in tensor else 1))):
        shutil.copytree(case.path("tuned"), case.path(name))
        with open(case.path(name + "/adapter_config.json"), "w", encoding="utf-8") as stream:
            json.dump({**config, **change}, stream)
        case.convert(name, "--base=base", "--output", name + ".gguf")
        file = Gguf.read(case.path(name + ".gguf"))
        scale = file.keys["adapter.lora.alpha"][1] / plain.keys["adapter.lora.alpha"][1]
        for tensor, one in file.tensors.items():
            found = np.frombuffer(one.data, np.float32).astype(float)
            wanted = np.frombuffer(plain.tensors[tensor].data, np.float32).astype(float)
            if tensor.endswith(".lora_b"):
                found, wanted = found * scale, wanted * factor(tensor)
            tables.check(np.allclose(found, wanted, rtol=1e-6, atol=0),
                         "%s: %s is off" % (name, tensor))


def an_adapter_comes_back_to_the_bit(case):
    """From 32 bits; from 16 rounded to them. What PEFT makes of it has the truth's numbers."""
    case.convert("tuned", "--base=base", "--type=f16", "--output=tuned-f16.gguf")
    case.convert("wide", "--base=base")
    for file, name, bits in (("tuned-f32.gguf", "tuned", 32), ("tuned-f16.gguf", "tuned", 16),
                             ("wide.gguf", "wide", 32)):
        back = "back-" + file
        case.convert("--to-peft", file, "--base=base", "--output", back)
        print("       " + case.in_venv("convert_peft.py", back, name, "%d" % bits), flush=True)
    with open(case.path("back-tuned-f32.gguf/adapter_config.json"), encoding="utf-8") as stream:
        config = json.load(stream)
    tables.check(config["target_modules"] == ["down_proj", "k_proj", "q_proj", "v_proj"]
                 and config["r"] == 4 and config["lora_alpha"] == 8, "%s" % config)


def what_export_writes_becomes_a_folder_for_peft(case):
    case.write("both.yaml", BOTH)
    case.write("balanced.yaml", BALANCED)
    tables.run([case.mpo, "fit", case.path("both.yaml"), "--quiet"])
    tables.run([case.mpo, "export", case.path("both.h5"), "--output", case.path("balanced.gguf")])
    case.convert("--to-peft=balanced.gguf", "--base=base", "--output=balanced/")
    found = case.scores("balanced.yaml")["one"]
    with open(case.path("truth.json"), "r+", encoding="utf-8") as stream:
        given = json.load(stream)
        given["truth"]["balanced"] = found
        stream.seek(0)
        json.dump(given, stream)
    print("       " + case.in_venv("convert_peft.py", "balanced", "balanced", "0"), flush=True)


def what_cannot_be_turned_back_is_refused(case):
    file = Gguf.read(case.path("tuned-f32.gguf"))
    for name, change in (("alpha0", lambda: file.keys.update(
            {"adapter.lora.alpha": (F32, 0.0)})),
                         ("half", lambda: file.tensors.pop("blk.0.attn_q.weight.lora_b"))):
        change()
        file.write(case.path(name + ".gguf"))
        file = Gguf.read(case.path("tuned-f32.gguf"))
    case.variant("one_layer", {"num_hidden_layers": 1})
    case.variant("narrow", {"intermediate_size": 80})
    case.variant("qwen", {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"})
    case.variant("nobody", {"architectures": ["NobodyForCausalLM"], "model_type": "nobody"})
    for path, base, words in (
            ("base-f32.gguf", "base", ["LoRA adapter", "model"]),
            ("truth.json", "base", ["no GGUF"]),
            ("alpha0.gguf", "base", ["adapter.lora.alpha", "0"]),
            ("half.gguf", "base", ["blk.0.attn_q", "lora_b"]),
            ("tuned-f32.gguf", "one_layer", ["blk.1", "1 layers"]),
            ("tuned-f32.gguf", "narrow", ["blk.0.ffn_down", "64 x 96", "64 x 80"]),
            ("tuned-f32.gguf", "qwen", ["'llama'", "'qwen2'"]),
            ("tuned-f32.gguf", "nobody", ["'nobody'", "not known"])):
        case.refused(65, [path, *words], "--to-peft", path, "--base", base, "--output=x")
    case.refused(74, ["'x'", "full"], "--to-peft=wide.gguf", "--base=base", "--output=x",
                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384)))


def what_the_converter_refuses_leaves_no_file(case):
    case.variant("strange", {"architectures": ["NobodyForCausalLM"]})
    case.refused(65, ["strange"], "strange", "--output=x.gguf")
    case.variant("cut", {})
    os.truncate(case.path("cut/model.safetensors"), 5000)
    case.refused(65, ["cut"], "cut", "--output=x.gguf")


def a_full_disk_leaves_no_file(case):
    limit = 100 * 1024
    case.refused(74, ["full"], "base", "--output=x.gguf",
                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))


def make_checkpoints(case, source):
    setup = subprocess.run([os.path.join(source, "launch", "setup.sh"), "--converters"],
                           env=case.environment, capture_output=True, text=True, check=False)
    if setup.returncode == 69:
        print("SKIP: the converters cannot be had here:", setup.stderr)
        sys.exit(77)
    tables.check(setup.returncode == 0, setup.stderr)
    case.in_venv("convert_checkpoints.py")
    case.write("config.yaml", CONFIG)
    case.write("prompts.txt", "the cat\na good film\n")


def main():
    mpo, work, source, build = sys.argv[1:5]
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    case = Case(mpo, work, source, build)
    make_checkpoints(case, source)
    cases = [a_model_and_an_adapter_become_files, scores_are_those_of_transformers,
             the_two_policies_can_be_fitted, types_and_the_default_name_are_as_asked, scales_are_those_of_peft,
             an_adapter_comes_back_to_the_bit, what_export_writes_becomes_a_folder_for_peft,
             what_cannot_be_turned_back_is_refused,
             what_the_converter_refuses_leaves_no_file, a_full_disk_leaves_no_file]
    sys.exit(tables.run_cases([(each, [case]) for each in cases]))


if __name__ == "__main__":
    main()
