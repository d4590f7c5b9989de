#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every chat template that llama.cpp ships is rendered as the reference implementation does
(tests/templates/reference.py), byte for byte; where that refuses, we refuse, with the
template's own message where it has one. What came from a message is known to have.

    templates.py TOOL TEMPLATES_FOLDER REFERENCE.json
"""
import json
import os
import subprocess
import sys

TOOL, FOLDER, TEXTS = sys.argv[1:4]
FAILED = []


def render(template, conversation):
    words = [word for message in conversation for word in message]
    done = subprocess.run([TOOL, os.path.join(FOLDER, template), "1", *words], check=False,
                          capture_output=True, timeout=600)
    return done.returncode, done.stdout.decode("utf-8")


def user_parts(text):
    return "".join(part.split("\2")[0] for part in text.split("\1")[1:])


def difference(expected, found):
    at = next((i for i, (a, b) in enumerate(zip(expected, found)) if a != b),
              min(len(expected), len(found)))
    return "differs at byte %d: expected %r, found %r" % (
        at, expected[max(0, at - 20):at + 40], found[max(0, at - 20):at + 40])


def problem(expected, conversation, code, text):
    """What is wrong with a result; None: nothing."""
    if isinstance(expected, dict):
        if code == 0:
            return "expected a refusal (%s), found %r" % (expected["error"], text[:60])
        if code == 2 and expected["error"] not in text:
            return "expected the message %r, found %r" % (expected["error"], text)
        return None if text.startswith("line ") else "no line in %r" % text
    if code != 0:
        return "refused: " + text.strip()
    plain = text.replace("\1", "").replace("\2", "")
    if plain != expected:
        return difference(expected, plain)
    contents = [content for _, content in conversation]
    users = user_parts(text)  # a template may put the system text elsewhere
    if len(users) != len("".join(contents)) or any(content not in users for content in contents):
        return "expected %r to be the messages', found %r" % (contents, users)
    return None


def main():
    with open(TEXTS, encoding="utf-8") as file:
        known = json.load(file)
    found = sorted(name for name in os.listdir(FOLDER) if name.endswith(".jinja"))
    refused = 0
    if found != sorted(known["texts"]):
        FAILED.append("templates %r" % sorted(set(found) ^ set(known["texts"])))
    for template in found:
        for name, conversation in known["conversations"].items():
            expected = known["texts"].get(template, {}).get(name, "")
            refused += isinstance(expected, dict)
            wrong = problem(expected, conversation, *render(template, conversation))
            if wrong is not None:
                FAILED.append("%s, %s: %s" % (template, name, wrong))
    print("%d templates, %d conversations each, %d refusals" % (
        len(found), len(known["conversations"]), refused))
    for line in FAILED:
        print("FAIL  " + line)
    sys.exit(1 if FAILED or not found else 0)


main()
