#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small models of known families get the prompts that transformers makes for them, text and
tokens (families.json, written by families_reference.py): Llama 3.1 and 3.2, Qwen 2.5, Gemma 2,
Mistral Nemo and 7B, and SmolLM2, each with its own chat template and kind of vocabulary.

    families.py MPO MPIEXEC WORK_FOLDER TEMPLATES_FOLDER
"""
import json
import math
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "commands"))
from gguf_file import BOOL, F32, Gguf, I32, LIST, TEXT, TYPE_F32, Tensor, U32  # noqa: E402
from person import WORK, check, fresh, run, run_tests, write  # noqa: E402
from vocabulary import tokens_of  # noqa: E402

TEMPLATES = sys.argv[4]
WIDTH, FEED_FORWARD = 32, 4
CONFIG = """prompts: {file: prompts.jsonl}
policies:
  - {name: one, model: model.gguf}
rollout: {responses: 2, max_tokens: 4}
"""
# Where libllama cuts text into other tokens than the family's tokenizer, and why. The text is
# the same. What is here and does not differ is a failure too.
OTHER_TOKENS = {
    ("mistral-nemo", "capitals"): "libllama takes capitals beyond A to Z for small letters",
}
with open(os.path.join(HERE, "families.json"), encoding="utf-8") as KNOWN_FILE:
    KNOWN = json.load(KNOWN_FILE)


def architecture():
    return {
        "general.architecture": (TEXT, "llama"),
        "llama.context_length": (U32, 4096),
        "llama.embedding_length": (U32, WIDTH),
        "llama.block_count": (U32, 1),
        "llama.feed_forward_length": (U32, FEED_FORWARD),
        "llama.attention.head_count": (U32, 1),
        "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
    }


def vocabulary_keys(vocabulary):
    head, tokens = vocabulary["head"], tokens_of(vocabulary)
    keys = {
        "model": (TEXT, head["model"]),
        "tokens": (LIST, (TEXT, [text for text, _, _ in tokens])),
        "token_type": (LIST, (I32, [kind for _, kind, _ in tokens])),
        "bos_token_id": (U32, head["bos"]),
        "eos_token_id": (U32, head["eos"]),
    }
    if "pre" in head:
        keys["pre"] = (TEXT, head["pre"])
        keys["merges"] = (LIST, (TEXT, vocabulary["merges"]))
    else:
        keys["scores"] = (LIST, (F32, [score for _, _, score in tokens]))
        keys["add_space_prefix"] = (BOOL, vocabulary["space"])
    if "padding" in head:
        keys["padding_token_id"] = (U32, head["padding"])
    for name, token in head.get("others", {}).items():
        keys[name + "_token_id"] = (U32, token)
    if "add_bos" in head:
        keys["add_bos_token"] = (BOOL, head["add_bos"])
    return {"tokenizer.ggml." + name: value for name, value in keys.items()}


def template_of(family):
    if "template" in family:
        return family["template"]
    path = os.path.join(TEMPLATES, family["template_file"])
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def tensors(token_count):
    """Zeros: a prompt needs no weights, but libllama wants to see that they are there."""
    block = "blk.0."
    sizes = {"token_embd": [WIDTH, token_count], "output_norm": [WIDTH],
             block + "attn_norm": [WIDTH], block + "ffn_norm": [WIDTH],
             **{block + "attn_" + name: [WIDTH, WIDTH] for name in ("q", "k", "v", "output")},
             block + "ffn_gate": [WIDTH, FEED_FORWARD], block + "ffn_up": [WIDTH, FEED_FORWARD],
             block + "ffn_down": [FEED_FORWARD, WIDTH]}
    return {name + ".weight": Tensor(size, TYPE_F32, bytes(4 * math.prod(size)))
            for name, size in sizes.items()}


def make(family):
    fresh()
    vocabulary = KNOWN["vocabularies"][family["vocabulary"]]
    keys = {**architecture(), **vocabulary_keys(vocabulary),
            "tokenizer.chat_template": (TEXT, template_of(family))}
    Gguf(keys, tensors(len(tokens_of(vocabulary)))).write(os.path.join(WORK, "model.gguf"))
    write("config.yaml", CONFIG)
    write("prompts.jsonl", "".join(
        json.dumps(line["line"], ensure_ascii=False) + "\n" for line in KNOWN["lines"].values()))


def check_same(name, expected, found):
    """Two texts or two lists of tokens; says where they begin to differ."""
    check(name, found == expected)
    if found == expected:
        return
    at = next((i for i, (a, b) in enumerate(zip(expected, found)) if a != b),
              min(len(expected), len(found)))
    print("      at %d: expected %r, found %r" % (
        at, expected[max(0, at - 10):at + 20], found[max(0, at - 10):at + 20]))


def compare(family, prompt, result):
    """The ids that were found, or none."""
    name = "%s, %s" % (family, prompt)
    expected = KNOWN["prompts"][family][prompt]
    if "error" in expected:
        check(name + " is refused", result.returncode == 65
              and expected["error"] in " ".join(result.stderr.split()), result)
        return []
    if result.returncode != 0:
        check(name, False, result)
        return []
    policy = json.loads(result.stdout)["policies"][0]
    ids = [token["id"] for token in policy["tokens"]]
    check_same(name + ", text", expected["text"], policy["text"])
    if (family, prompt) in OTHER_TOKENS:
        check("%s, ids still differ: %s" % (name, OTHER_TOKENS[family, prompt]),
              ids != expected["ids"])
    else:
        check_same(name + ", ids", expected["ids"], ids)
    return ids


def check_first(name, ids, vocabulary):
    """The first token of the vocabulary begins the prompt and stands nowhere else, or the
    family has none."""
    head = vocabulary["head"]
    begins = head.get("add_bos", True)
    if tokens_of(vocabulary)[head["bos"]][0] != "<|im_start|>":  # that begins every message
        check(name + ", first token", ids.count(head["bos"]) == int(begins)
              and (ids[0] == head["bos"]) == begins)


def test_families():
    for name, family in KNOWN["families"].items():
        make(family)
        vocabulary = KNOWN["vocabularies"][family["vocabulary"]]
        for index, (prompt, line) in enumerate(KNOWN["lines"].items()):
            date = ["--prompts.date=" + line["date"]] if "date" in line else []
            result = run("prompt", "config.yaml", "--json", "--index=%d" % index, *date)
            ids = compare(name, prompt, result)
            if ids:
                check_first(name + ", " + prompt, ids, vocabulary)


def test_system_text_of_a_policy():
    """It is the same as a system message of the prompt."""
    system = KNOWN["lines"]["system user"]["line"]["messages"][0]["content"]
    for name, family in KNOWN["families"].items():
        make(family)
        compare(name, "system user", run("prompt", "config.yaml", "--json",
                                         "--policies.one.system=" + system))


def check_told(name, word, *command):
    result = run(*command)
    said = result.stdout + result.stderr
    check("%s, %a" % (name, word), result.returncode == 0
          and said.count("into other words") == (word is not None)
          and (word is None or "libllama splits '%s' into" % word in said), result)


def test_words_that_libllama_cuts_otherwise_are_told():
    make(KNOWN["families"]["mistral-nemo"])
    texts = [("l'ÉCOLE, ÀÉI", "ÉCOLE"), ("cafe\u0301", "cafe\u0301"), ("приВет", "приВет"),
             ("Señor АБ École 你好! \N{HEAVY BLACK HEART}\ufe0f", None)]
    write("prompts.jsonl", "".join(json.dumps({"prompt": text}) + "\n" for text, _ in texts))
    for index, (_, word) in enumerate(texts):
        check_told("prompt", word, "prompt", "config.yaml", "--index=%d" % index)
    check_told("doctor", "ÉCOLE", "doctor", "config.yaml")
    check_told("generate", "ÉCOLE", "generate", "config.yaml", "--weights=1")
    write("pairs.jsonl", json.dumps({"prompt": "a", "response": "приВет"}) + "\n")
    check_told("score", "приВет", "score", "config.yaml", "--input=pairs.jsonl", "--weights=1")
    make(KNOWN["families"]["llama-3.1"])
    check_told("another family", None, "doctor", "config.yaml")


def score(response):
    write("prompts.jsonl", json.dumps({"prompt": "go", "response": response}) + "\n")
    result = run("score", "config.yaml", "--input=prompts.jsonl", "--weights=1")
    check("score takes %a" % response, result.returncode == 0, result)
    return json.loads(result.stdout)["tokens"] if result.returncode == 0 else 0


def test_tokens_that_a_file_does_not_have_are_named():
    """transformers knows more of a tokenizer than a file may say, so that nothing is not ''."""
    family = KNOWN["families"]["llama-3.1"]
    for word in ("unk_token", "sep_token", "cls_token", "mask_token",
                 "additional_special_tokens"):
        make({"vocabulary": family["vocabulary"],
              "template": "{%% if messages %%}\n{{ %s }}{{ messages[0].content }}{%% endif %%}" % word})
        result = run("prompt", "config.yaml")
        said = " ".join(result.stderr.split())
        check("%s is refused by name" % word, result.returncode == 78 and
              "line 2: it asks for %s, which the model file does not have" % word in said
              and "set template to a file" in said, result)


def test_responses_are_composed_as_prompts_are():
    make(KNOWN["families"]["qwen-2.5"])
    composed, apart = score("caf\u00e9, \ud55c!"), score("cafe\u0301, \u1112\u1161\u11ab!")
    check("accents of a response are composed", composed == apart > 0)
    make(KNOWN["families"]["smollm-2"])
    composed, apart = score("caf\u00e9"), score("cafe\u0301")
    check("or stay as they are", 0 < composed < apart)


def test_accents_without_end():
    make(KNOWN["families"]["qwen-2.5"])
    for count, code in ((256, 0), (257, 65), (500000, 65)):
        write("prompts.jsonl", json.dumps({"prompt": "e" + count * "\u0301"},
                                          ensure_ascii=False) + "\n")
        result = run("prompt", "config.yaml", "--json")
        check("%d accents: %d" % (count, code), result.returncode == code, result)
        check("  says why", code == 0 or "more than 256 accents" in result.stderr, result)


def test_what_the_prompts_say():
    """The stored prompts have what a family adds by itself."""
    for family, prompt, words in (
            ("llama-3.1", "user", "Today Date: 26 Jul 2024\n\n[<|eot_id|>]"),
            ("llama-3.1", "another date", "Today Date: 26 Jul 2024\n\n[<|eot_id|>]"),
            ("llama-3.2", "another date", "Today Date: 31 Dec 2025\n\n[<|eot_id|>]"),
            ("qwen-2.5", "user", "[<|im_start|>]system\nYou are Qwen, created by Alibaba "),
            ("smollm-2", "user",
             "[<|im_start|>]system\nYou are a helpful AI assistant named SmolLM"),
            ("gemma-2", "user", "[<bos>][<start_of_turn>]user\nWhat"),
            ("mistral-nemo", "system user", "[<s>][[INST]]You are terse;")):
        check("%s, %s says %r" % (family, prompt, words),
              words in KNOWN["prompts"][family][prompt]["text"])


run_tests(globals())
