#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`mpo prompt` and doctor show a prompt as each policy gets it.

    prompt.py MPO MPIRUN WORK BIGRAM_GGUF_TOOL
"""
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "commands"))
import tables  # noqa: E402

MPO, MPIRUN, WORK, TOOL = sys.argv[1:5]
STATES = 260
CONFIG = """prompts: {file: prompts.jsonl}
policies:
  - {name: raw, model: p.gguf, template: raw}
  - {name: own, model: p.gguf, template: own.jinja, system: be kind}
  - {name: dated, model: p.gguf, template: dated.jinja}
rollout: {responses: 2, max_tokens: 4}
record: {file: out.h5}
"""
TEMPLATES = {
    "own.jinja": "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}</s>\n"
                 "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    "dated.jinja": "{% if messages|length > 1 %}{{ raise_exception('one only') }}{% endif %}"
                   "{{ strftime_now('%Y-%m-%d') }} {{ messages[0].content }}",
}
PROMPTS = [
    {"prompt": "hi </s> there"},
    {"prompt": "hi", "prefill": "well"},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                  {"role": "user", "content": "c"}]},
]
TEXTS = [
    {"raw": "hi </s> there", "dated": "2024-07-26 hi </s> there",
     "own": "[<s>]system: be kind[</s>]\nuser: hi </s> there[</s>]\nassistant: "},
    {"raw": "hiwell",
     "own": "[<s>]system: be kind[</s>]\nuser: hi[</s>]\nassistant: well"},
]


def path(name):
    return os.path.join(WORK, name)


def make():
    os.makedirs(WORK, exist_ok=True)
    texts = {"config.yaml": CONFIG, **TEMPLATES,
             "prompts.jsonl": "".join(json.dumps(line) + "\n" for line in PROMPTS)}
    for name, text in texts.items():
        with open(path(name), "w", encoding="utf-8") as file:
            file.write(text)
    np.zeros((STATES, STATES), np.float32).tofile(path("logits.f32"))
    tables.run([TOOL, path("p.gguf"), path("logits.f32")])


def prompt(*flags, expect=0):
    return tables.run([MPO, "prompt", path("config.yaml"), *flags], expect)


def texts_are_made_from_the_tokens():
    seen = json.loads(prompt("--json")[0])
    tables.check(seen["index"] == 0 and seen["line"] == 1, seen)
    for policy in seen["policies"]:
        expected = TEXTS[0][policy["name"]]
        tokens = policy["tokens"]
        tables.check(policy["text"] == expected, policy["text"])
        tables.check(policy["token_count"] == len(tokens), policy)
        special = [token["text"] for token in tokens if token["special"]]
        tables.check(len(special) == policy["special_count"] == expected.count("["), special)
        plain = expected.replace("[", "").replace("]", "")
        tables.check("".join(token["text"] for token in tokens) == plain, tokens)


def text_has_a_block_for_each_policy():
    out, _ = prompt("--prompts.date=2025-12-31")
    letters = len(TEXTS[0]["own"].replace("[<s>]", "").replace("[</s>]", ""))
    tables.check("own: %d tokens, 3 of them special\n" % (letters + 3) in out, out)
    tables.check("    [<s>]system: be kind[</s>]\n    user: hi </s> there[</s>]\n" in out, out)
    tables.check("    2025-12-31 hi </s> there\n" in out, out)


def a_prefill_continues():
    own = json.loads(prompt("--index=1", "--json",
                            "--policies.dated.template=raw")[0])["policies"]
    for policy in own[:2]:
        tables.check(policy["text"] == TEXTS[1][policy["name"]], policy["text"])


def a_refusal_hides_no_other_policy():
    out, err = prompt("--index=2", expect=65)
    tables.check("raw: 5 tokens" in out and "assistant: b[</s>]" in out, out)
    tables.check("'dated'" in err and "one only" in err and "line 1" in err, err)


def wrong_flags_are_refused():
    _, err = prompt("--index=3", expect=64)
    tables.check("3 prompts" in err, err)
    _, err = prompt("--prompts.date=2025-02-29", expect=64)
    tables.check("2025-02-29" in err, err)
    _, err = prompt("--policies.own.template=none.jinja", expect=66)
    tables.check("none.jinja" in err, err)


def doctor_shows_the_first_prompt():
    for ranks in (1, 3):
        flags = [MPO, "doctor", path("config.yaml")]
        report = json.loads(tables.run_ranks(MPIRUN, ranks, flags + ["--json"], 65)[0])
        shown = {policy["name"]: policy["prompt"]["text"] for rank in report["ranks"]
                 for policy in rank["policies"]}
        tables.check(shown == TEXTS[0], shown)
        text, _ = tables.run_ranks(MPIRUN, ranks, flags, 65)
        tables.check("prompt 0 for own: " in text and "[<s>]system: be kind" in text, text)


def main():
    make()
    cases = [texts_are_made_from_the_tokens, text_has_a_block_for_each_policy,
             a_prefill_continues, a_refusal_hides_no_other_policy, wrong_flags_are_refused,
             doctor_shows_the_first_prompt]
    sys.exit(tables.run_cases([(case, []) for case in cases]))


main()
