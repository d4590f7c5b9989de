#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which model and adapter files are taken and which are refused: doctor and fit say the same
of each, name policy and file, and take ten seconds at most.

    model_files.py MPO MPIEXEC WORK_FOLDER BIGRAM_GGUF_TOOL
"""
import json
import os
import shutil
import struct
import time

import h5py
import numpy as np

from bigram_models import BAD, BAD_ADAPTER, VOCAB, make, path, prepare_models
from gguf_file import BOOL, F32, Gguf, I32, LIST, TEXT, TYPE_I32, Tensor, U16, U32
from person import WORK, check, run, run_tests, write

SECONDS_MAX = 60
CONFIG = """run: {seed: 1, threads: 1}
prompts: {file: prompts.txt}
policies:
  - {name: up, model: up.gguf, template: raw}
  - {name: down, model: down.gguf, template: raw}
rollout: {responses: 4, max_tokens: 8}
descent: {steps: 2}
record: {file: out.h5}
"""


def prepare():
    prepare_models(CONFIG)
    make("lora.gguf", np.linspace(-1.0, 1.0, VOCAB), "--adapter")


def changed(change, name="down.gguf", to="bad.gguf"):
    file = Gguf.read(path(name))
    change(file)
    file.write(path(to))


def both(*arguments):
    """What doctor and fit say, in one line each, and their codes."""
    results = []
    for command in ("doctor", "fit"):
        began = time.monotonic()
        result = run(command, "config.yaml", *arguments)
        result.seconds = time.monotonic() - began
        result.said = " ".join((result.stdout + result.stderr).split())
        results.append(result)
        for left in [name for name in os.listdir(WORK) if name.startswith("out.h5")]:
            os.remove(path(left))
    return results


def refused(name, words, *arguments, code=65):
    for command, result in zip(("doctor", "fit"), both(*arguments)):
        check(f"{name}, {command}", result.returncode == code
              and result.seconds <= SECONDS_MAX
              and all(word in result.said for word in words), result)


def taken(name, words, *arguments):
    """Both run, and say each of the words once."""
    for command, result in zip(("doctor", "fit"), both(*arguments)):
        check(f"{name}, {command}", result.returncode == 0
              and all(result.said.count(word) == 1 for word in words), result)


# ---- vocabularies ----

def as_bpe(pre, merges, space=None):
    def change(file):
        file.keys["tokenizer.ggml.model"] = (TEXT, "gpt2")
        file.keys["tokenizer.ggml.merges"] = (LIST, (TEXT, merges))
        file.keys["tokenizer.ggml.bos_token_id"] = (U32, 1)
        if pre is not None:
            file.keys["tokenizer.ggml.pre"] = (TEXT, pre)
        if space is not None:
            file.keys["tokenizer.ggml.add_space_prefix"] = (BOOL, space)
        file.keys["tokenizer.ggml.tokens"] = (LIST, (TEXT, bpe_tokens()))
        file.keys["tokenizer.ggml.token_type"] = (LIST, (I32, [2, 3, 3] + [1] * (VOCAB - 3)))
    return change


def bpe_tokens():
    """GPT-2's letters for bytes in place of SentencePiece's names, and one pair."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    others = [byte for byte in range(256) if byte not in letters]
    letters.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return ["<unk>", "<s>", "</s>", *(letters[byte] for byte in range(256)), "ab"]


def more_tokens(texts, kind=1):
    def change(file):
        item, tokens = file.keys["tokenizer.ggml.tokens"][1]
        file.keys["tokenizer.ggml.tokens"] = (LIST, (item, tokens + texts))
        for key, kinds in (("scores", F32), ("token_type", I32)):
            values = file.keys["tokenizer.ggml." + key][1][1]
            added = [kind if key == "token_type" else 0.0] * len(texts)
            file.keys["tokenizer.ggml." + key] = (LIST, (kinds, values + added))
        for name in ("token_embd.weight", "output.weight"):
            tensor = file.tensors[name]
            tensor.data += b"\0" * (4 * tensor.sizes[0] * len(texts))
            tensor.sizes[1] += len(texts)
    return change


def other_types(file):
    values = list(file.keys["tokenizer.ggml.token_type"][1][1])
    values[3 + ord("q")] = 4
    file.keys["tokenizer.ggml.token_type"] = (LIST, (I32, values))


def test_rules_of_the_tokenizer():
    prepare()
    changed(as_bpe("gpt-2", ["a b"]), "up.gguf", "up.gguf")
    for name, change, words in (
            ("another pre-tokenizer", as_bpe("llama-bpe", ["a b"]), ["'gpt-2'", "'llama-bpe'"]),
            ("no pre-tokenizer", as_bpe(None, ["a b"]), ["'gpt-2'", "'default'"]),
            ("another merge", as_bpe("gpt-2", ["b a"]), ["merge 1 'a b'", "merge 1 'b a'"]),
            ("merges more", as_bpe("gpt-2", ["a b", "b a"]), ["has 4 rules", "has 5"]),
            ("another prefix", as_bpe("gpt-2", ["a b"], True),
             ["add_space_prefix false", "add_space_prefix true"])):
        changed(change)
        refused(name, ["vocabularies differ", "'up'", "'down'", *words], BAD)
    changed(as_bpe("gpt-2", ["a b"]))
    taken("the same rules", [], BAD)
    prepare()
    changed(lambda file: file.keys.pop("tokenizer.ggml.add_space_prefix"))
    refused("a space by default", ["add_space_prefix false", "add_space_prefix true"], BAD)


def test_what_differs_without_harm():
    prepare()
    changed(lambda file: file.keys.update({"tokenizer.ggml.eos_token_id": (U32, 100)}))
    taken("another end token", ["special tokens differ", "eos 100"], BAD)
    changed(other_types)
    taken("another type", ["token types differ"], BAD)
    changed(more_tokens(["<pad>"]))
    taken("a token more", ["1 token that policy 'up' lacks"], BAD)
    changed(more_tokens(["[PAD%d]" % index for index in range(300)], 5))
    taken("padding", [], BAD)
    changed(more_tokens(["<extra%d>" % index for index in range(256)]))
    taken("256 tokens more", ["256 tokens that policy 'up' lacks, from id 260 on"], BAD)
    changed(more_tokens(["<extra%d>" % index for index in range(257)]))
    refused("257 tokens more", ["260", "517", "256"], BAD)
    changed(more_tokens(["<pad>"]), "up.gguf", "longer.gguf")
    changed(more_tokens(["<end>"]))
    refused("another token at the end", ["token 260", "<pad>", "<end>"], BAD,
            "--policies.up.model=longer.gguf")


def test_warnings_of_libllama():
    """Those about a file are told once, however many ranks there are; of those that differ by
    a name or a number alone one is told, with how many more there are."""
    prepare()
    changed(more_tokens(["<|im_end|>", "<|end|>", "<|eot_id|>"]))
    words = ["policy 'down': libllama warns of bad.gguf: control-looking token",
             "(and 2 more like this)"]
    taken("names of control tokens", words, BAD)
    result = run("fit", "config.yaml", BAD, "--record.file=two.h5", ranks=2)
    check("on two ranks", result.returncode == 0
          and all(result.stderr.count(word) == 1 for word in words), result)


def test_masked_tokens_have_no_probability():
    prepare()
    changed(more_tokens(["<pad>"]))
    scored = []
    write("in.jsonl", '{"prompt": "a", "response": "b"}\n')
    for model in ("down.gguf", "bad.gguf"):
        result = run("score", "config.yaml", "--weights=uniform", "--input=in.jsonl",
                     "--policies.down.model=" + model)
        scored.append(result.stdout)
    check("the same score with and without", scored[0] == scored[1] != "", result)


# ---- files ----

def split(prefix, parts, seed=2):
    """A model as llama-gguf-split cuts it: metadata first, tensors dealt out."""
    whole = Gguf.read(path("down.gguf"))
    whole.tensors["output.weight"].set_float(0, -9.0 - seed / 16)
    names = list(whole.tensors)
    for index in range(parts):
        file = Gguf(whole.keys if index == 0 else {})
        file.keys["split.no"] = (U16, index)
        file.keys["split.count"] = (U16, parts)
        file.keys["split.tensors.count"] = (I32, len(names))
        file.tensors = {name: whole.tensors[name] for name in names[index::parts]}
        file.write(path("%s-%05d-of-%05d.gguf" % (prefix, index + 1, parts)))


def test_split_models():
    prepare()
    split("cut", 3)
    model = "--policies.down.model=cut-00001-of-00003.gguf"
    taken("a split model", [], model)
    run("fit", "config.yaml", model, "--record.file=cut.h5")
    for number in (2, 3):
        refused("part %d" % number, ["part %d" % number, "-00001-of-00003.gguf"],
                "--policies.down.model=cut-%05d-of-00003.gguf" % number)
    shutil.copy(path("cut-00001-of-00003.gguf"), path("other.gguf"))
    refused("a first part of another name", ["-00001-of-00003.gguf"],
            "--policies.down.model=other.gguf")
    with h5py.File(path("cut.h5"), "r") as record:
        stored = {row["policy"]: row["sha256"] for row in record["provenance/ranks"][()]}
    check("its hash is of all parts", len(stored[b"down"]) == 64 and stored[b"down"] != stored[b"up"])
    for number in (1, 2, 3):
        split("cut", 3)
        name = path("cut-%05d-of-00003.gguf" % number)
        changed_part = Gguf.read(name)
        tensor = next(one for one in changed_part.tensors.values() if len(one.data) > 400)
        tensor.set_float(0, 0.25)
        changed_part.write(name)
        for command in (["fit", "--resume", "--descent.steps=4", "--record.file=cut.h5"],
                        ["generate", "--weights=cut.h5", "--n=1"]):
            result = run(command[0], "config.yaml", *command[1:], model)
            check(f"another part {number}, {command[0]}", result.returncode == 65
                  and "SHA-256" in result.stderr, result)
    os.remove(path("cut-00002-of-00003.gguf"))
    refused("a missing part", ["'down'", "cut-00002-of-00003.gguf"], model, code=66)


def test_forms():
    prepare()
    shutil.copy(path("down.gguf"), path("sha256-00ff"))
    taken("a blob without a suffix", [], "--policies.down.model=sha256-00ff")
    os.mkdir(path("checkpoint"))
    refused("a folder", ["'down'", "checkpoint", "launch/convert.sh"],
            "--policies.down.model=checkpoint", code=66)
    head = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    whole = Gguf.read(path("down.gguf")).bytes()
    for name, data, words in (
            ("model.safetensors", struct.pack("<Q", len(head)) + head + b"\0" * 4,
             ["safetensors", "launch/convert.sh"]),
            ("pytorch_model.bin", b"PK\3\4" + b"\0" * 40, ["PyTorch", "launch/convert.sh"]),
            ("big.gguf", whole[:4] + struct.pack(">IQQ", 3, 1, 1), ["big-endian", "little"])):
        with open(path(name), "wb") as stream:
            stream.write(data)
        refused(name, ["'down'", name, *words], "--policies.down.model=" + name)
        refused(name + " as an adapter", ["'down'", name, *words],
                "--policies.down.lora=" + name)


# ---- several adapters ----

def scores(*arguments):
    result = run("score", "config.yaml", "--weights=uniform", "--input=in.jsonl", *arguments)
    check("a score", result.returncode == 0, result)
    return [json.loads(line)["log_policy"]["down"] for line in result.stdout.splitlines()]


def test_several_adapters():
    """Their scaled sum is what one adapter of the same sum is."""
    prepare()
    write("in.jsonl", '{"prompt": "a", "response": "bca"}\n')
    shifts = np.random.Generator(np.random.Philox(9)).standard_normal((3, VOCAB))
    for index, shift in enumerate(shifts):
        make("%d.gguf" % index, shift, "--adapter")
    make("sum.gguf", shifts[0] + 0.5 * shifts[1] - 2 * shifts[2], "--adapter")
    made = "--policies.down.lora=[0.gguf, 1.gguf,2.gguf]"
    wanted = scores("--policies.down.lora=sum.gguf")
    found = scores(made, "--policies.down.lora_scale=[1, 0.5, -2]")
    check("three adapters are their sum", np.allclose(found, wanted, atol=1e-4))
    write("listed.yaml", CONFIG.replace(
        "down.gguf,", "down.gguf, lora: [0.gguf, 1.gguf, 2.gguf], lora_scale: [1, 0.5, -2],"))
    result = run("score", "listed.yaml", "--weights=uniform", "--input=in.jsonl")
    listed = json.loads(result.stdout)["log_policy"]["down"]
    check("in a file too", listed == found[0], result)
    many = ["%d.gguf" % index for index in range(3, 12)]
    for name in many:
        make(name, np.random.Generator(np.random.Philox(len(name) + int(name[:-5])))
             .standard_normal(VOCAB), "--adapter")
    # Spaces change where things lie in memory, and so the addresses of the adapters.
    again = {scores("--policies.down.lora=[%s]" % ("," + " " * space).join(many))[0]
             for space in (0, 1, 3, 40, 400, 4000)}
    check("nine adapters are added in one order", len(again) == 1)
    make("sum.gguf", 0.25 * (shifts[0] + shifts[1]), "--adapter")
    check("one scale is that of all",
          np.allclose(scores("--policies.down.lora=[0.gguf,1.gguf]",
                             "--policies.down.lora_scale=0.25"),
                      scores("--policies.down.lora=sum.gguf"), atol=1e-4))
    check("one in a list is one", scores("--policies.down.lora=[0.gguf]")
          == scores("--policies.down.lora=0.gguf"))
    refused("two scales for three", ["3 adapters", "found 2"], made,
            "--policies.down.lora_scale=[1,2]", code=78)
    refused("a path that is none", ["a path"], "--policies.down.lora=[0.gguf,]", code=64)
    refused("a scale that is none", ["lora_scale", "[1, 0.5]"], made,
            "--policies.down.lora_scale=[1,x,3]", code=64)
    refused("an adapter twice", ["adapters 1 and 2", "0.gguf"],
            "--policies.down.lora=[0.gguf,0.gguf]", code=78)
    changed(with_float("output.weight.lora_b", float("nan")), "1.gguf")
    refused("a bad one among them", ["'down'", "bad.gguf", "lora_b"],
            "--policies.down.lora=[0.gguf,bad.gguf]")
    check_record(shifts, made)


def check_record(shifts, made):
    result = run("fit", "config.yaml", made, "--record.file=soup.h5", "--quiet")
    check("a fit with three adapters", result.returncode == 0, result)
    again = ["fit", "config.yaml", "--resume", "--record.file=soup.h5", "--descent.steps=3"]
    for index in range(3):
        make("%d.gguf" % index, -shifts[index], "--adapter")
        for name, command in (("resume", again), ("generate", [
                "generate", "config.yaml", "--weights=soup.h5", "--n=1"])):
            result = run(*command, made)
            check(f"another adapter {index}, {name}", result.returncode == 65
                  and "adapter" in result.stderr and "SHA-256" in result.stderr, result)
        make("%d.gguf" % index, shifts[index], "--adapter")
    for name, other in (("fewer", "[0.gguf, 1.gguf]"), ("another order", "[1.gguf,0.gguf,2.gguf]")):
        result = run(*again, "--policies.down.lora=" + other)
        check(name, result.returncode in (65, 78), result)
    result = run(*again, made)
    check("the same go on", result.returncode == 0, result)


# ---- numbers, counts and tensors ----

def with_key(key, kind, value):
    return lambda file: file.keys.update({key: (kind, value)})


def with_float(tensor, value):
    return lambda file: file.tensors[tensor].set_float(5, value)


def test_numbers():
    prepare()
    epsilon = "llama.attention.layer_norm_rms_epsilon"
    for value in (-1.0, float("nan"), float("inf")):
        changed(with_key(epsilon, F32, value))
        refused("epsilon %g" % value, ["'down'", "bad.gguf", "epsilon"], BAD)
    changed(with_key("llama.rope.freq_base", F32, float("nan")))
    refused("a frequency that is no number", ["'down'", "bad.gguf", "freq_base"], BAD)
    for count, used in ((500, None), (8, 9), (4096, 2), (0, 2)):
        changed(lambda file: [with_key("llama." + key, U32, value)(file) for key, value in
                              (("expert_count", count), ("expert_used_count", used))
                              if value is not None])
        refused("%s of %d experts" % (used, count), ["'down'", "bad.gguf", "experts"], BAD)
    for value in (float("nan"), float("inf"), float("-inf")):
        for tensor in ("output.weight", "blk.0.attn_norm.weight"):
            changed(with_float(tensor, value))
            refused("%g in %s" % (value, tensor), ["'down'", "bad.gguf", tensor], BAD)
        changed(with_float("output.weight.lora_b", value), "lora.gguf")
        refused("%g in an adapter" % value, ["'down'", "bad.gguf", "lora_b"], BAD_ADAPTER)
    changed(with_key("adapter.lora.alpha", F32, float("nan")), "lora.gguf")
    refused("alpha that is no number", ["'down'", "bad.gguf", "alpha"], BAD_ADAPTER)


def judged(name, codes, *arguments):
    """Both say the same of it in time, and name the file that they refuse."""
    results = both(*arguments)
    for command, result in zip(("doctor", "fit"), results):
        names_it = "bad.gguf" in result.said and "policy '" in result.said
        check(f"{name}, {command}", result.returncode in codes
              and result.returncode == results[0].returncode
              and result.seconds <= SECONDS_MAX
              and (result.returncode == 0 or names_it), result)


def test_tokenizers():
    """Of every kind that libllama knows: on tokens that are not of the kind it may throw, end
    the process or go round in circles."""
    prepare()
    changed(with_key("tokenizer.ggml.model", TEXT, "bert"))
    result = run("launch", "config.yaml", BAD, "--time=1:00:00")
    check("launch says so too", result.returncode == 65 and "'down'" in result.stderr, result)
    for kind in ("bert", "rwkv", "t5", "plamo2", "gpt2", "hybriko", "none", "no_vocab"):
        changed(with_key("tokenizer.ggml.model", TEXT, kind))
        judged("the tokenizer " + kind, (0, 65), BAD, "--policies.up.model=bad.gguf")


def test_what_libllama_ends_on():
    prepare()
    for name, keys in (
            ("groups of experts", {"expert_count": 8, "expert_used_count": 2,
                                   "expert_group_count": 3, "expert_group_used_count": 1}),
            ("no heads", {"attention.head_count": 0}),
            ("heads that do not fit", {"attention.head_count": 7}),
            ("more heads for keys", {"attention.head_count_kv": 300}),
            ("a head of nothing", {"attention.key_length": 0}),
            ("an endless context", {"context_length": 0})):
        changed(lambda file: [with_key("llama." + key, U32, value)(file)
                              for key, value in keys.items()])
        judged(name, (65,), BAD)


def test_tensors_of_models():
    prepare()
    for name in ("blk.0.attn_q.weight", "token_embd.weight", "output.weight"):
        changed(lambda file: setattr(file.tensors[name], "kind", TYPE_I32))
        refused(name + " of integers", ["'down'", "bad.gguf", name, "i32"], BAD)
        changed(lambda file: file.tensors.update(
            {name: Tensor(file.tensors[name].sizes[::-1] + [2], 0, file.tensors[name].data * 2)}))
        refused(name + " of three sizes", ["'down'", "bad.gguf", name], BAD)


def test_tensors_of_adapters():
    prepare()

    def of_integers(file):
        file.tensors["output.weight.lora_a"].kind = TYPE_I32

    def with_three_sizes(file):
        tensor = file.tensors["output.weight.lora_a"]
        tensor.data, tensor.sizes = tensor.data * 3, [VOCAB, 1, 3]

    def half(file):
        del file.tensors["output.weight.lora_b"]

    def renamed(file):
        file.tensors = {name.replace("output", "nothing"): tensor
                        for name, tensor in file.tensors.items()}

    for name, change, words in (
            ("integers", of_integers, ["lora_a", "i32"]),
            ("three sizes", with_three_sizes, ["lora_a", "260 x 1 x 3"]),
            ("half a pair", half, ["output.weight"]),
            ("a tensor that the model lacks", renamed, ["nothing.weight"]),
            ("no tensors", lambda file: file.tensors.clear(), ["no LoRA tensors"])):
        changed(change, "lora.gguf")
        refused("an adapter of " + name, ["'down'", "bad.gguf", *words], BAD_ADAPTER)


def test_what_libllama_would_leave_out_of_an_adapter():
    """A vector that is trained whole, and a pair for what is not multiplied by."""
    prepare()
    ones = Tensor([VOCAB], 0, b"\0" * 4 * VOCAB)
    pair = {".lora_a": Tensor([VOCAB, 1], 0, ones.data), ".lora_b": Tensor([1, 1], 0, b"\0" * 4)}
    for name in ("blk.0.attn_norm.weight", "output_norm.weight", "blk.0.attn_q.bias"):
        changed(lambda file, name=name: file.tensors.update({name: ones}), "lora.gguf")
        refused(name + " itself", ["'down'", "bad.gguf", name, "merge"], BAD_ADAPTER)
    for name in ("blk.0.attn_norm.weight", "output_norm.weight"):
        changed(lambda file, name=name: file.tensors.update(
            {name + half: tensor for half, tensor in pair.items()}), "lora.gguf")
        refused("a pair of " + name, ["'down'", "bad.gguf", name, "merge"], BAD_ADAPTER)


def pairs_for(tensors):
    """A LoRA pair of zeros for each of these."""
    pairs = {}
    for name, tensor in tensors.items():
        inner, outer = (tensor.sizes + [1])[:2]
        pairs[name + ".lora_a"] = Tensor([inner, 1], 0, bytes(4 * inner))
        pairs[name + ".lora_b"] = Tensor([1, outer], 0, bytes(4 * outer))
    return pairs


def test_what_an_architecture_would_leave_out_of_an_adapter():
    """Seen in the engine's graph: here a factor of positions, which is no matrix."""
    prepare()
    changed(lambda file: file.tensors.update({"rope_freqs.weight": Tensor(
        [1], 0, np.ones(1, np.float32).tobytes())}), to="factors.gguf")
    model = Gguf.read(path("factors.gguf")).tensors
    matrices = {name: model[name] for name in model if "norm" not in name
                and name not in ("token_embd.weight", "rope_freqs.weight")}
    check("some matrices", len(matrices) > 5)
    changed(lambda file: file.tensors.update(pairs_for(matrices)), "lora.gguf")
    taken("an adapter of all matrices", [], BAD_ADAPTER, "--policies.down.model=factors.gguf")
    factors = {"rope_freqs.weight": model["rope_freqs.weight"]}
    changed(lambda file: file.tensors.update(pairs_for(factors)), "lora.gguf")
    refused("an adapter of factors", ["'down'", "bad.gguf", "rope_freqs.weight", "merge"],
            BAD_ADAPTER, "--policies.down.model=factors.gguf")


def test_an_adapter_of_a_tied_embedding():
    prepare()
    changed(lambda file: file.tensors.pop("output.weight"), to="tied.gguf")

    def of_embedding(file):
        wide = file.tensors["output.weight.lora_a"]
        file.tensors = {"token_embd.weight.lora_a": Tensor([1, VOCAB], 0, wide.data),
                        "token_embd.weight.lora_b": Tensor([1, VOCAB], 0, wide.data)}

    changed(of_embedding, "lora.gguf")
    refused("an adapter of a tied embedding", ["'down'", "bad.gguf", "token_embd"],
            "--policies.down.model=tied.gguf", BAD_ADAPTER)
    taken("an adapter of an embedding of its own", [], BAD_ADAPTER)


run_tests(globals())
