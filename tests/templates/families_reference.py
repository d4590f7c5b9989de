#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the prompts that transformers makes for small models of known families:

    families_reference.py TEMPLATES_FOLDER >tests/templates/families.json

The chat templates are the families' own (TEMPLATES_FOLDER is the one of llama.cpp; two are
below). The vocabularies are small, cut into words as the family's tokenizer.json says.
Needs transformers, tokenizers and jinja2 (written with 5.23.0, 0.23.3 and 3.1.6).

transformers takes the text of a special token for the token wherever it stands, we do not in
a message. So in messages letters of private use stand for such texts, and after rendering they
are put back as plain text. Where no message spells a special token, the ids are compared with
those of apply_chat_template. Texts are as `mpo prompt` shows them.
"""
import datetime
import json
import os
import re
import sys
import unicodedata

from tokenizers import (AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers,
                        processors, trainers)
from transformers import GemmaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import generate_merges
from transformers.utils import chat_template_utils

from vocabulary import NORMAL, tokens_of

DATE = "2024-07-26"
PRIVATE = 0xE000
SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
    "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}")
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
    "user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token}}{% else %}{{ raise_exception('Only user and assistant "
    "roles are supported!') }}{% endif %}{% endfor %}")
TOKENS = (
    "{{ bos_token }}{% for token in [unk_token, sep_token, cls_token, mask_token, pad_token] %}"
    "{{ loop.index }}{{ token }}{% endfor %}{% for message in messages %}{{ sep_token }}"
    "{{ message['role'] }} {{ message['content'] }}{{ cls_token }}{% endfor %}"
    "{{ 'model' if add_generation_prompt }}")
OWN = {"mistral-7b": MISTRAL, "smollm-2": SMOLLM, "gemma-2, all tokens": TOKENS}
FAMILIES = {
    "llama-3.1": ("llama-3", "meta-llama-Llama-3.1-8B-Instruct.jinja"),
    "llama-3.2": ("llama-3", "meta-llama-Llama-3.2-3B-Instruct.jinja"),
    "qwen-2.5": ("qwen-2.5", "Qwen-Qwen2.5-7B-Instruct.jinja"),
    "gemma-2": ("gemma-2", "google-gemma-2-2b-it.jinja"),
    "mistral-nemo": ("mistral-nemo", "mistralai-Mistral-Nemo-Instruct-2407.jinja"),
    "mistral-7b": ("mistral-7b", None),
    "smollm-2": ("smollm-2", None),
    "gemma-2, all tokens": ("gemma-2", None),
}
SPECIAL = {
    "llama-3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"],
    "qwen-2.5": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "gemma-2": ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>",
                "<end_of_turn>"],
    "mistral-nemo": ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"],
    "mistral-7b": ["<unk>", "<s>", "</s>"],
    "smollm-2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
}
# In GGUF: kind of tokenizer, its cutting into words, first, last and padding token, whether
# the first is added (None: the file does not say).
HEADS = {
    "llama-3": ("gpt2", "llama-bpe", "<|begin_of_text|>", "<|eot_id|>", None, None),
    "qwen-2.5": ("gpt2", "qwen2", "<|endoftext|>", "<|im_end|>", "<|endoftext|>", False),
    "gemma-2": ("llama", None, "<bos>", "<eos>", "<pad>", True),
    "mistral-nemo": ("gpt2", "tekken", "<s>", "</s>", None, True),
    "mistral-7b": ("llama", None, "<s>", "</s>", None, True),
    "smollm-2": ("gpt2", "smollm", "<|im_start|>", "<|im_end|>", "<|im_end|>", False),
}
# Others, by the names of GGUF; sep and cls are not the family's own.
OTHERS = {"gemma-2": {"unknown": "<unk>", "mask": "<mask>", "seperator": "<start_of_turn>",
                      "cls": "<end_of_turn>"}}
LLAMA_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEKKEN_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
COMPOSING = ["qwen-2.5"]
WORDS = {"qwen-2.5": Qwen2Tokenizer, "llama-3": LLAMA_WORDS, "mistral-nemo": TEKKEN_WORDS}

SYSTEM = {"role": "system", "content": "You are terse; <b>no</b> \"quotes\"."}
USER = {"role": "user", "content": "What is 2+2, or 1234567890?\n\n  Be quick, s'il te plaît "
                                   "\N{GRINNING FACE}: I'LL go to Berlin, don't you?"}
ASSISTANT = {"role": "assistant", "content": "It is 4."}
SPELLED = ("a<|eot_id|><|im_end|>\n<|im_start|>system\n<|start_header_id|>x<|end_header_id|>\n\n"
           "<end_of_turn>\n<start_of_turn>model\n[/INST]b</s><s>[INST] <eos><bos><|begin_of_text|>"
           "<|im_ <|endoftext|> end")
SCRIPTS = ("L'école: café, naïve, größer; Привет, ПРИВЕТ!\r\n\r\n你好，世界 今日は\t1234567 a1b22c333"
           "\N{NO-BREAK SPACE}x  //\n y!\n\n\n\n\nDON'T   I'LL \N{WHITE FLAG}   end")
# Accents in another order than Unicode's, Hangul in its parts, letters that stand for others,
# one that is never composed, a special token that is spelled, and an accent that is first.
ACCENTS = ("\u0301a\u0302\u0323 na\u0308i\u0308ve; \u1112\u1161\u11ab\u1100\u1173\u11af \u212b\u2126\u037e "
           "\u0915\u093c\u0958 <|im_end|>\u0338 x\u0327\u0301")
# A line of a prompt file, and the date if another one is wanted.
PROMPTS = {
    "user": ({"messages": [USER]}, None),
    "system user": ({"messages": [SYSTEM, USER]}, None),
    "four messages": ({"messages": [
        SYSTEM, USER, ASSISTANT, {"role": "user", "content": "And 3+3?"}]}, None),
    "user, no system": ({"messages": [
        USER, ASSISTANT, {"role": "user", "content": "\tand  3+3?"}]}, None),
    "prefill": ({"prompt": USER["content"], "prefill": "Well,  it"}, None),
    "system, prefill": ({"messages": [
        SYSTEM, USER, {"role": "assistant", "content": "Well, "}]}, None),
    "spelled": ({"messages": [{"role": "user", "content": SPELLED}]}, None),
    "spelled everywhere": ({"messages": [
        {"role": "system", "content": SPELLED}, {"role": "user", "content": SPELLED},
        {"role": "assistant", "content": SPELLED}]}, None),
    "scripts": ({"messages": [{"role": "user", "content": SCRIPTS}]}, None),
    "decomposed": ({"messages": [{"role": "user", "content": "cafe\u0301"}]}, None),
    "accents": ({"messages": [{"role": "system", "content": ACCENTS}, {
        "role": "user", "content": ACCENTS}]}, None),
    "accents, prefill": ({"prompt": ACCENTS, "prefill": ACCENTS}, None),
    "capitals": ({"messages": [{"role": "user", "content": "l'ÉCOLE, ÀÉI"}]}, None),
    "another date": ({"messages": [USER]}, "2025-12-31"),
}
CORPUS = """You are a helpful assistant. What is the weather today in the town, and what will it be
tomorrow?  The answer is in the system message: the user asks, the assistant answers. Today Date:
Cutting Knowledge Date: December 2023. Be quick, don't wait; I'll be there, it's well known.
He said that they're here, and we've seen them; 2024, 2025, 100 200 300 and 12 + 34 == 46!

    for (int i = 0; i < 10; i++) { print("quoted"); }

You are Qwen, created by Alibaba Cloud. Hugging Face trained SmolLM, a helpful AI assistant named
so.  This is the end of the text; the other text is the next one, and the end is not the end.

L'école est ici, l'ÉCOLE aussi: café, naïve, ÀÉI, größer, Привет, ПРИВЕТ, 你好，世界 今日は,
a1b22c333 1234567, DON'T, I'LL // x!
"""


# ---- tokenizers ----

def pre_tokenizer_of(name):
    if name == "smollm-2":
        return pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    if name == "qwen-2.5":
        return Qwen2Tokenizer(vocab={"a": 0}, merges=[]).backend_tokenizer.pre_tokenizer
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS[name]), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train_bytes(name):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer_of(name)
    trainer = trainers.BpeTrainer(vocab_size=256 + 260, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([CORPUS] * 2, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return {"kind": "bytes", "merges": [" ".join(merge) for merge in merges],
            "words": ["\u0120Berlin", "Well"], "special": SPECIAL[name]}


def train_pieces(name):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    text = CORPUS.replace("\n", " ")
    tokenizer.train_from_iterator([text] * 2, trainers.BpeTrainer(
        vocab_size=360, show_progress=False))
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    pieces.sort(key=lambda piece: len(piece) == 1)  # letters have the lowest scores
    gemma = name == "gemma-2"
    return {"kind": "pieces", "pieces": pieces, "special": SPECIAL[name], "space": not gemma,
            "whole": ["\n", "\n\n", "\n\n\n"] if gemma else []}


def make_gemma(ids, merges, first, last):
    others = OTHERS["gemma-2"]
    tokenizer = GemmaTokenizer(vocab=ids, merges=merges, bos_token=first, eos_token=last,
                               sep_token=others["seperator"], cls_token=others["cls"])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ids
                          if text.strip("\n") == ""])
    return tokenizer


def make_qwen(ids, merges, _, last):
    return Qwen2Tokenizer(vocab=ids, merges=merges, eos_token=last)


def make_mistral(ids, merges, first, last):
    backend = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True,
                                   byte_fallback=True))
    backend.normalizer = normalizers.Sequence([
        normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=first, eos_token=last)


def make_plain(name, ids, merges):
    _, _, first, last, _, _ = HEADS[name]
    begins = name in ("llama-3", "mistral-nemo")
    backend = Tokenizer(models.BPE(ids, merges, ignore_merges=begins))
    backend.pre_tokenizer = pre_tokenizer_of(name)
    if begins:
        backend.post_processor = processors.TemplateProcessing(
            single=first + " $A", special_tokens=[(first, ids[first])])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=first, eos_token=last)


def make_tokenizer(name, vocabulary, template):
    _, _, first, last, _, _ = HEADS[name]
    tokens = tokens_of(vocabulary)
    ids = {text: index for index, (text, _, _) in enumerate(tokens)}
    if vocabulary["kind"] == "pieces":
        merges = generate_merges(ids, {text: score for text, kind, score in tokens
                                       if kind == NORMAL})
    else:
        merges = [tuple(merge.split(" ")) for merge in vocabulary["merges"]]
    make = {"gemma-2": make_gemma, "qwen-2.5": make_qwen, "mistral-7b": make_mistral}.get(name)
    tokenizer = make(ids, merges, first, last) if make else make_plain(name, ids, merges)
    tokenizer.chat_template = template
    tokenizer.add_tokens([AddedToken(text, special=True) for text in SPECIAL[name]],
                         special_tokens=True)
    assert len(tokenizer) == len(tokens), (name, len(tokenizer))
    return tokenizer


# ---- prompts ----

def set_date(date):
    """transformers prints the day on which it runs."""
    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return cls.strptime(date, "%Y-%m-%d").replace(tzinfo=zone)
    chat_template_utils.datetime = Fixed


def with_places(text, special):
    for index, spelled in enumerate(special):
        text = text.replace(spelled, chr(PRIVATE + index))
    return text


def without_places(text, special):
    for index, spelled in enumerate(special):
        text = text.replace(chr(PRIVATE + index), spelled)
    return text


def cut(text, special):
    """A rendered text, cut at its special tokens."""
    longest_first = sorted(special, key=len, reverse=True)
    return re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)


def encode(tokenizer, text, special):
    backend = tokenizer.backend_tokenizer
    ids = []
    for part in cut(text, special):
        if part in special:
            ids.append(tokenizer.convert_tokens_to_ids(part))
        elif part:
            backend.encode_special_tokens = True
            part = without_places(part, special)
            ids += backend.encode(part, add_special_tokens=False).ids
            backend.encode_special_tokens = False
    return ids


def show(text, name, vocabulary):
    """As it is made from its tokens: special ones in brackets, and where the tokenizer puts a
    space before plain text, that space; composed where it composes."""
    special, shown = vocabulary["special"], ""
    for part in cut(text, special):
        if part in special:
            shown += "[%s]" % part
        elif part:
            part = without_places(part, special)
            shown += " " * vocabulary.get("space", False) + (
                unicodedata.normalize("NFC", part) if name in COMPOSING else part)
    return shown


def messages_of(line):
    if "messages" in line:
        return line["messages"]
    return [{"role": "user", "content": line["prompt"]},
            {"role": "assistant", "content": line["prefill"]}]


def make_prompt(tokenizer, line, name, vocabulary):
    special = vocabulary["special"]
    messages = messages_of(line)
    continued = messages[-1]["role"] == "assistant"
    messages = [{**message, "content": with_places(message["content"], special)}
                for message in messages]
    how = {"add_generation_prompt": not continued, "continue_final_message": continued}
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **how)
    except chat_template_utils.jinja2.exceptions.TemplateError as problem:
        return {"error": str(problem)}
    ids = encode(tokenizer, text, special)
    if without_places(text, special) == text:
        theirs = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **how)
        assert ids == list(theirs), (text, ids, theirs)
    return {"text": show(text, name, vocabulary), "ids": ids}


def head_of(name, vocabulary):
    ids = {text: index for index, (text, _, _) in enumerate(tokens_of(vocabulary))}
    model, pre, first, last, padding, add_first = HEADS[name]
    head = {"model": model, "pre": pre, "bos": ids[first], "eos": ids[last],
            "padding": ids.get(padding), "add_bos": add_first,
            "others": {key: ids[text] for key, text in OTHERS[name].items()}
            if name in OTHERS else None}
    return {key: value for key, value in head.items() if value is not None}


def dump(value, depth):
    """JSON with a line for each entry of the first levels."""
    if depth == 0:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return "{\n" + ",\n".join(
        "%s:%s" % (json.dumps(key), dump(one, depth - 1)) for key, one in value.items()) + "\n}"


def main():
    vocabularies, prompts = {}, {}
    for name in SPECIAL:
        vocabulary = train_pieces(name) if HEADS[name][0] == "llama" else train_bytes(name)
        vocabularies[name] = {**vocabulary, "head": head_of(name, vocabulary)}
    for family, (name, source) in FAMILIES.items():
        template = OWN.get(family)
        if source is not None:
            with open(os.path.join(sys.argv[1], source), encoding="utf-8", newline="") as file:
                template = file.read()
        tokenizer = make_tokenizer(name, vocabularies[name], template)
        prompts[family] = {}
        for prompt, (line, date) in PROMPTS.items():
            set_date(date or DATE)
            prompts[family][prompt] = make_prompt(tokenizer, line, name, vocabularies[name])
    families = {family: {"vocabulary": name, **(
        {"template_file": source} if source is not None else {"template": OWN[family]})}
        for family, (name, source) in FAMILIES.items()}
    lines = {name: {"line": line, **({"date": date} if date else {})}
             for name, (line, date) in PROMPTS.items()}
    print("{\n" + ",\n".join('"%s":%s' % part for part in (
        ("vocabularies", dump(vocabularies, 2)), ("families", dump(families, 1)),
        ("lines", dump(lines, 1)), ("prompts", dump(prompts, 2)))) + "\n}")


main()
