#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small templates of every kind are rendered as the reference implementation does
(tests/templates/expressions_reference.py, programs_reference.py), or refused: never as another
text.

    expressions.py TOOL EXPRESSIONS.json REFERENCE.json
    expressions.py TOOL PROGRAMS.json

Where the message has letters of its own, each of them is known to be the message's, and no
other letter is. What the engine refuses although the reference renders it is counted, and may
not become more.
"""
import json
import subprocess
import sys

TOOL, TABLE = sys.argv[1:3]
REFUSED_MOST = {"expressions.json": 1424, "programs.json": 74}


def read_table():
    with open(TABLE, encoding="utf-8") as file:
        table = json.load(file)
    if isinstance(table, dict):
        return table["message"], table["rows"], True
    with open(sys.argv[3], encoding="utf-8") as file:
        return json.load(file)["conversations"]["user"][0], table, False


def render_all(templates, message):
    lines = "".join(template.replace("\n", "\3") + "\n" for template in templates)
    done = subprocess.run([TOOL, "--each", "1", *message], input=lines.encode(), check=True,
                          capture_output=True, timeout=600)
    for line in done.stdout.decode().split("\n")[:-1]:
        code, text = line.split(" ", 1)
        yield int(code), text.replace("\3", "\n")


def is_cyrillic(letter):
    return "\u0400" <= letter <= "\u04ff"


def wrong_mark(text):
    """A letter whose writer is mistaken; None: there is none. Escapes have letters too."""
    is_user = False
    before = ""
    for letter in text:
        if letter in "\1\2":
            is_user = letter == "\1"
        elif letter.isalpha() and before != "\\" and is_cyrillic(letter) != is_user:
            return letter
        before = letter
    return None


def problem(text, code, said, has_letters):
    """What is wrong with a result; None: nothing."""
    if code != 0:
        return None if said.startswith("line ") else "a refusal without a line: %r" % said
    plain = said.replace("\1", "").replace("\2", "")
    if plain != text:
        return "expected %s, found %r" % ("a refusal" if text is None else repr(text), plain)
    letter = wrong_mark(said) if has_letters else None
    return None if letter is None else "the writer of %r is mistaken in %r" % (letter, said)


def main():
    message, known, has_letters = read_table()
    found = list(render_all([template for template, _ in known], message))
    assert len(found) == len(known), (len(found), len(known))
    other = refused = 0
    for (template, text), (code, said) in zip(known, found):
        wrong = problem(text, code, said, has_letters)
        other += wrong is not None
        refused += code != 0 and text is not None
        if wrong is not None:
            print("FAIL  %r: %s" % (template, wrong))
    print("%d templates: %d other texts, %d refused that the reference renders" % (
        len(known), other, refused))
    most = next(most for name, most in REFUSED_MOST.items() if TABLE.endswith(name))
    sys.exit(1 if other or refused > most else 0)


main()
