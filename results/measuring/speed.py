#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Token/s of a demonstration's kinds of policies, taken in turn on a machine with nothing else to do.

    results/reviews/measure.sh --speed [ROUNDS]

Called by the demonstration's measure.sh. Each round runs every command of SPEEDS in rows.py once, so
that a machine that becomes slower slows all of them; speed.tsv has each command's median and range.
"""

import re
import shlex
import statistics
import subprocess

from engine import say

PROMPTS = 16
RESPONSES = 4  # to each prompt


def measure_speeds(root, mpo, demo, rounds):
    """Writes speed.tsv beside rows.py."""
    rates = {name: [] for name, _, _ in demo.SPEEDS}
    for number in range(rounds):
        say(f"speed, round {number + 1} of {rounds}")
        for name, _, arguments in demo.SPEEDS:
            rates[name].append(one_rate(root, [*mpo, *command(arguments)]))
    lines = ["what\tpasses\ttoken_rate\tlow\thigh\trounds\tcommand"]
    for name, passes, arguments in demo.SPEEDS:
        found = (statistics.median(rates[name]), min(rates[name]), max(rates[name]))
        cells = [name, passes, *(f"{rate:.1f}" for rate in found), rounds]
        cells.append(shlex.join(("mpo", *command(arguments))))
        lines.append("\t".join(map(str, cells)))
    (demo.HERE / "speed.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def command(arguments):
    return ("generate", *arguments, f"--limit={PROMPTS}", f"--n={RESPONSES}")


def one_rate(root, call):
    """Served tokens over the seconds that mpo says: without loading and without the process's start."""
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, check=True)
    tokens, seconds = re.search(r"(\d+) tokens in ([\d.]+) s", done.stderr).groups()
    return int(tokens) / float(seconds)


def speed_table(demo):
    """Markdown of speed.tsv, or nothing where none was taken."""
    path = demo.HERE / "speed.tsv"
    if not path.exists():
        return []
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    text = ["| | passes a token | token/s, median (range) | of one policy |", "|---|---|---|---|"]
    for name, passes, rate, low, high, *_ in rows:
        part = float(rate) / float(rows[0][2])
        text.append(f"| {name} | {passes} | {rate} ({low} to {high}) | {part:.2f} |")
    return ["### Speed", "\n".join(text)]
