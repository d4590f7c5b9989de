# SPDX-License-Identifier: Apache-2.0
"""Small vocabularies of known families, as tests/templates/families.json describes them.

A vocabulary is {"kind": "bytes", "merges": ["a b", ...], "words": [...], ...}: every byte,
what each merge makes, words that no merge makes, and special tokens at the end; or
{"kind": "pieces", "pieces": [...], ...}: special tokens, texts that are cut out of user text
as well ("whole"), every byte, and pieces, the first with the highest score.
"""

NORMAL, UNKNOWN, CONTROL, WHOLE, BYTE = 1, 2, 3, 4, 6


def byte_letters():
    """The letters that stand for bytes in vocabularies of GPT-2's kind, by byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    others = [byte for byte in range(256) if byte not in letters]
    letters.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return [letters[byte] for byte in range(256)]


def tokens_of(vocabulary):
    """(text, type, score) of every token, by id."""
    special = [(text, UNKNOWN if text == "<unk>" else CONTROL, 0.0)
               for text in vocabulary["special"]]
    if vocabulary["kind"] == "bytes":
        texts = byte_letters() + [merge.replace(" ", "") for merge in vocabulary["merges"]]
        return [(text, NORMAL, 0.0) for text in texts + vocabulary["words"]] + special
    return (special + [(text, WHOLE, 0.0) for text in vocabulary["whole"]]
            + [("<0x%02X>" % byte, BYTE, 0.0) for byte in range(256)]
            + [(text, NORMAL, -float(index))
               for index, text in enumerate(vocabulary["pieces"], 1)])
