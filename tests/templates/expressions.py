#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small expressions of every kind are rendered as the reference implementation does
(tests/templates/expressions_reference.py), or refused: never as another text.

    expressions.py TOOL EXPRESSIONS.json REFERENCE.json

What the engine refuses although the reference renders it is counted, and may not become more.
"""
import json
import subprocess
import sys

TOOL, EXPRESSIONS, REFERENCE = sys.argv[1:4]
REFUSED_MOST = 1670


def render_all(templates):
    with open(REFERENCE, encoding="utf-8") as file:
        message = json.load(file)["conversations"]["user"][0]
    lines = "".join(template.replace("\n", "\3") + "\n" for template in templates)
    done = subprocess.run([TOOL, "--each", "1", *message], input=lines.encode(), check=True,
                          capture_output=True, timeout=200)
    for line in done.stdout.decode().split("\n")[:-1]:
        code, text = line.split(" ", 1)
        yield int(code), text.replace("\1", "").replace("\2", "").replace("\3", "\n")


def main():
    with open(EXPRESSIONS, encoding="utf-8") as file:
        known = json.load(file)
    found = list(render_all([template for template, _ in known]))
    assert len(found) == len(known), (len(found), len(known))
    other = refused = 0
    for (template, text), (code, said) in zip(known, found):
        refused += code != 0 and text is not None
        if code != 0 and not said.startswith("line "):
            print("FAIL  %r: a refusal without a line: %r" % (template, said))
            other += 1
        elif code == 0 and said != text:
            print("FAIL  %r: expected %s, found %r" % (
                template, "a refusal" if text is None else repr(text), said))
            other += 1
    print("%d expressions: %d other texts, %d refused that the reference renders" % (
        len(known), other, refused))
    sys.exit(1 if other or refused > REFUSED_MOST else 0)


main()
