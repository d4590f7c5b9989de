#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Words that libllama cuts otherwise than a model's tokenizer: are all found, and no other?

    cuts.py CUTS_TOOL [--sample]

The truth is both expressions themselves, the tokenizer's and libllama's, run by Python's `re`
over texts in which every character is written as a letter for its class, by unicodedata. Tried
are every character that unicodedata knows, in texts where it could matter (with --sample a
part of those of large classes, and all marks), and random texts of all classes.
"""
import os
import random
import re
import subprocess
import sys
import unicodedata

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "commands"))
import sample  # noqa: E402  (removes --sample from the arguments)

TOOL = sys.argv[1]
SPACES = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
          0x205F, 0x3000}
# U capital, l small, o letter without case; of ASCII A and a; m mark, n digit, r line end,
# s other white space, q apostrophe, x anything else; blank and / stand for themselves
OWN = (r"[^rnAaUlo]?[AUom]*[alom]+E|[^rnAaUlo]?[AUom]+[alom]*E|n| ?[^ srnAaUlo]+[r/]*"
       r"|[ sr]*r+|[ sr]+(?![^ sr])|[ sr]+")
LIBLLAMA = (r"[^rnAaUlo]?[AUlo]*[aUlo]+E|[^rnAaUlo]?[AUlo]+[aUlo]*E|n| ?[^ srnAaUlo]+[r/]*"
            r"|[ sr]*r+|[ sr]+(?![^ sr])|[ sr]+")
FRAMES = ["!{}a", "!{}A", "!!{}a", "{}a", "{}{}a", "a{}B", "B{}a", "a{}", "\t{}", " {}{}A",
          "1{}{}a", "\n{}", "{}!", "x {}\n{} y", "/{}/{}\r\n{}"]
MARKS = [chr(code) for code in range(sys.maxunicode + 1)
         if unicodedata.category(chr(code))[0] == "M"]


def class_of(char):
    code, category = ord(char), unicodedata.category(char)
    if char in "\r\n":
        return "r"
    if char in " /":
        return char
    if code in SPACES:
        return "s"
    if category[0] in "MN":
        return category[0].lower()
    if code < 128 and category[0] == "L":
        return "A" if category == "Lu" else "a"
    return {"Lu": "U", "Lt": "U", "Ll": "l", "Lm": "o", "Lo": "o"}.get(category, "x")


def ends(expression, classes):
    return [piece.end() for piece in expression.finditer(classes)]


EXPRESSIONS = [re.compile(text.replace("E", "")) for text in (OWN, LIBLLAMA)]


def differs(text):
    classes = "".join(map(class_of, text))
    own, other = (ends(expression, classes) for expression in EXPRESSIONS)
    assert own[-1] == other[-1] == len(text), (text, own, other)
    return own != other


def found(texts, endings="0"):
    lines = "".join(text.replace("\n", "\1").replace("\r", "\2") + "\n" for text in texts)
    said = subprocess.run([TOOL, endings], input=lines.encode(), capture_output=True, check=True)
    return [tuple(map(int, line.split())) for line in said.stdout.decode().splitlines()]


def compare(name, texts):
    places = found(texts)
    assert len(places) == len(texts), (len(places), len(texts))
    wrong = [text for text, (at, _) in zip(texts, places) if (at >= 0) != differs(text)]
    cut = sum(at >= 0 for at, _ in places)
    print(f"{'FAIL' if wrong else 'ok'}    {name}: {len(texts)} texts, {cut} cut otherwise,"
          f" {len(wrong)} wrong {[ascii(text) for text in wrong[:8]]}")
    return bool(wrong) or cut == 0


def characters():
    known = [chr(code) for code in range(3, sys.maxunicode + 1)
             if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    few = [char for char in known if unicodedata.category(char) not in ("Lo", "So")]
    many = [char for char in known if unicodedata.category(char) in ("Lo", "So")]
    return sample.some("letters of some classes", few, 2000) + MARKS + sample.some(
        "letters without case and symbols", many, 1000)


def random_texts(count):
    chance = sample.chance("texts")
    pools = ["ab", "AB", "\u00e9\u00df\u0431", "\u00c9\u0416\u01c5", "\u4e2d\u02b0\u05d0", "1\u0664",
             " ", "\t\u00a0\u3000", "\n\r", "!-\u2764\U0001f600", "/", "'"]
    return ["".join(chance.choice(chance.choice([*pools, MARKS])) for _ in range(chance.randint(1, 9)))
            for _ in range(count)]


def known_texts():
    """(text, of a tokenizer with endings, what is found)"""
    return [("cafe\u0301 b", False, "cafe\u0301"), ("l'\u00c9COLE", False, "\u00c9COLE"),
            ("!\u0301a", False, "!\u0301a"), ("\u2764\ufe0f!", False, "\u2764\ufe0f!"),
            ("so \u2764\ufe0f", False, None), ("a \u0301b", False, "\u0301b"),
            ("don't \u00c9cole", True, None), ("don't\u0301 a", True, None),
            ("don't\u0301!", True, "t\u0301!"), ("don't\u0301 a", False, "t\u0301"),
            ("DON'T you're I'LL", True, None)]


def check_known():
    failed = False
    for text, endings, wanted in known_texts():
        at, length = found([text], "1" if endings else "0")[0]
        said = None if at < 0 else text.encode()[at:at + length].decode()
        print(f"{'ok' if said == wanted else 'FAIL'}    {ascii(text)}: {ascii(said)}")
        failed |= said != wanted
    return failed


def main():
    failed = compare("characters", [frame.format(char, char, char) for char in characters()
                                    for frame in FRAMES])
    failed |= compare("random texts", random_texts(200000 if sample.WHOLE else 30000))
    failed |= check_known()
    sys.exit(failed)


main()
