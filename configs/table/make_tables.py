#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the three bigram tables of configs/table.yaml.

A common grammar says which words may follow which; each policy multiplies it by what it
likes. A row is p(next word | word), with a floor, so that no probability is zero.
"""

from pathlib import Path

WORDS = "the film story was is good fine lovely adequate very and . </s>".split()
START = "<s>"
FLOOR = 0.002

GRAMMAR = {
    "<s>": {"the": 8, "film": 1, "story": 1, "good": 1, "lovely": 1},
    "the": {"film": 5, "story": 5, "good": 1, "lovely": 1},
    "film": {"was": 5, "is": 4, "and": 1, ".": 1, "</s>": 1},
    "story": {"was": 5, "is": 4, "and": 1, ".": 1, "</s>": 1},
    "was": {"good": 3, "fine": 3, "lovely": 2, "adequate": 2, "very": 4},
    "is": {"good": 3, "fine": 3, "lovely": 2, "adequate": 2, "very": 4},
    "good": {"and": 3, ".": 4, "film": 1, "story": 1, "</s>": 2},
    "fine": {"and": 3, ".": 4, "film": 1, "</s>": 2},
    "lovely": {"and": 4, ".": 3, "film": 1, "story": 1, "</s>": 1},
    "adequate": {"and": 3, ".": 4, "</s>": 1},
    "very": {"good": 4, "fine": 2, "lovely": 4, "adequate": 1, "very": 2},
    "and": {"the": 5, "very": 3, "good": 2, "fine": 2, "lovely": 2, "adequate": 1},
    ".": {"the": 4, "</s>": 5, "lovely": 1},
}

TASTES = {
    "terse": {"</s>": 20, "fine": 6, ".": 0.5, "and": 0.1, "very": 0.1, "lovely": 0.3},
    "warm": {"lovely": 4, "very": 3, "and": 3, "good": 2, "adequate": 0.2, "</s>": 0.3},
    "formal": {"adequate": 6, "is": 4, "the": 3, ".": 5, "</s>": 0.6, "lovely": 0.05, "very": 0.2},
}


def row_probabilities(word, taste):
    """p(next | word) in units of 1e-4; the largest entry takes up what rounding leaves."""
    score = [GRAMMAR[word].get(after, 0) * taste.get(after, 1) for after in WORDS]
    total = sum(score)
    share = [(1 - FLOOR * len(WORDS)) * value / total + FLOOR for value in score]
    units = [round(10000 * value) for value in share]
    units[units.index(max(units))] += 10000 - sum(units)
    return units


def write_table(path, name, taste):
    """One table in the format that src/policy/table.c reads."""
    lines = [
        f"# Bigram policy `{name}`: row WORD holds p(next word | WORD), in the order of tokens.",
        "# Written by make_tables.py.",
        "mpo-table 1",
        "tokens " + " ".join(WORDS),
    ]
    for word in [START] + WORDS[:-1]:
        units = row_probabilities(word, taste)
        lines.append(f"row {word:8s} " + " ".join(f"{unit / 10000:.4f}" for unit in units))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for table, preference in TASTES.items():
        write_table(Path(__file__).with_name(f"{table}.table"), table, preference)
