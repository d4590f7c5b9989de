#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write what the reference implementation makes of every chat template of a folder:

    reference.py TEMPLATES_FOLDER >tests/templates/reference.json

That is Jinja as transformers sets it up: a sandbox, trim_blocks and lstrip_blocks, loop
controls, {% generation %}, tojson without escapes, raise_exception and strftime_now. Needs
jinja2 (written with 3.1.6). Templates get what tests/templates/template_tool.c gives them.

The result is {"conversations": {name: [[role, content], ...]}, "texts": {template: {name:
text, or {"error": what it raised}}}}, with what begins a response at the end of each text.
"""
import datetime
import glob
import json
import os
import sys

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

TIME = datetime.datetime.fromtimestamp(1721952000, datetime.timezone.utc)
SYSTEM = ["system", "You are terse; <b>no</b> \"quotes\"."]
USER = ["user", "What is 2+2?\n\n  Be quick, s'il te plaît \N{GRINNING FACE}"]
ASSISTANT = ["assistant", "It is 4."]
CONVERSATIONS = {
    "user": [USER],
    "system user": [SYSTEM, USER],
    "system user assistant user": [SYSTEM, USER, ASSISTANT, ["user", "And 3+3?"]],
}


class Generation(jinja2.ext.Extension):
    """{% generation %} marks what an assistant writes; here it is just its body."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("body_of"), [], [], body).set_lineno(line)

    def body_of(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def make_environment():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = TIME.strftime
    return environment


def render(template, conversation):
    messages = [{"role": role, "content": content} for role, content in conversation]
    try:
        return template.render(messages=messages, tools=None, documents=None,
                               add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
    except (jinja2.exceptions.TemplateError, TypeError) as problem:
        return {"error": str(problem)}


def main():
    texts = {}
    environment = make_environment()
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as file:
            template = environment.from_string(file.read())
        texts[os.path.basename(path)] = {
            name: render(template, conversation) for name, conversation in CONVERSATIONS.items()}
    json.dump({"conversations": CONVERSATIONS, "texts": texts}, sys.stdout, indent=1,
              ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
