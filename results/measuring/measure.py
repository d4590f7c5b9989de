#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make the tables of a demonstration: run what is missing, then write figures and commands.

Called by the demonstration's measure.sh, which makes the environment. Writes table.tsv,
fits.tsv and table.md beside that script, and the measured part of its README.md. A row that was
not measured yet is named as missing.
"""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import figures
import numpy as np
from engine import Workspace, open_record, say
from speed import measure_speeds, speed_table
from tune import tuned_bias

BEGIN_MARK = "<!-- measured: begin (written by measure.py) -->"
END_MARK = "<!-- measured: end -->"
SERIES = ("weights", "average", "divergence", "averaged_gap", "ess", "tokens", "elapsed")


def measure(workspace, demo, arguments):
    """First parts of all rows, in the order of the rows, then the second ones, and so on."""
    rows = [row for row in demo.ROWS if re.search(arguments.only, row.name)]
    parts = {row: workspace.parts(row) for row in rows}
    if arguments.seeds:
        last = arguments.seeds
        for row, every in parts.items():
            parts[row] = [part for part in every if (part.seed or 0) <= last]
    most = max(len(every) for every in parts.values())
    for index in range(min(most, arguments.rounds or most)):
        for row in rows:
            known = workspace.has("generate", row.needs)
            for part in parts[row][index : index + 1]:
                if known and (not row.fit or workspace.has("fit", row.fit.needs)):
                    if row.tuned:
                        tuned_bias(workspace, demo, row)
                    workspace.run_part(part)


# ---- figures of the rows ----


def collect(workspace, demo):
    """({row: {column: replicates}}, {row: what else is known of it}, names of missing rows)."""
    sums, extra, missing, common = {}, {}, [], None
    for row in demo.ROWS:
        parts = [part for part in workspace.parts(row) if workspace.path(part).exists()]
        lines = workspace.lines(parts)
        if not lines:
            missing.append(row.name)
            continue
        prompts, sums[row.name] = figures.prompt_sums(lines, demo.score, row.candidates == 1)
        common = common or prompts
        if prompts != common:
            sys.exit(f"{row.name}: other prompts than the first row")
        passes = float(row.passes)
        if row.candidates > 1:
            decoded, _ = workspace.decoded(parts)
            passes *= decoded / sum(line["tokens"] for line in lines)
        extra[row.name] = {
            "passes": round(passes, 1),
            "responses": len(lines) // len(prompts),
            "parts": f"{len(parts)}/{len(workspace.parts(row))}",
            "curve": row.curve,
            "command": shlex.join(("mpo", *workspace.arguments(parts[0]))),
        }
    if not sums:
        sys.exit("nothing was measured yet")
    counts = figures.picks(len(common))
    return {name: figures.means(part, counts) for name, part in sums.items()}, extra, missing


def add_differences(rows, demo):
    """Worst objective over that of equal weights, and over the best single policy."""
    singles = [objective.row for objective in demo.OBJECTIVES] + ["reference"]
    best = max(singles, key=lambda name: rows[name]["worst"][0])
    for columns in rows.values():
        columns["over_baseline"] = columns["worst"] - rows[demo.BASELINE]["worst"]
        columns["over_single"] = columns["worst"] - rows[best]["worst"]
    return best


def reward_table(workspace, demo):
    """Writes table.tsv and commands.tsv; the Markdown is returned."""
    rows, extra, missing = collect(workspace, demo)
    needed = {"reference", demo.BASELINE, *(objective.row for objective in demo.OBJECTIVES)}
    if needed - set(rows):
        sys.exit(f"not measured yet, and needed for a scale: {', '.join(needed - set(rows))}")
    figures.normalise(rows, demo.OBJECTIVES, demo.FIXED_SCALE)
    best = add_differences(rows, demo)
    names = [*demo.COLUMNS, "over_single"]
    figures.write_tsv(demo.HERE / "table.tsv", names, rows, extra)
    shown = [column for column, title in demo.COLUMNS.items() if title]
    titles = [demo.COLUMNS[column] for column in shown] + ["passes a token", "responses"]
    text = ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for name, columns in rows.items():
        cells = [figures.cell(figures.figure(columns[column])) for column in shown]
        if name == demo.BASELINE:
            cells[shown.index("over_baseline")] = "0"
        cells += [f"{extra[name][key]:g}" for key in ("passes", "responses")]
        text.append(f"| {name} | " + " | ".join(cells) + " |")
    text.append(f"\nThe single policy that is best on its worst objective: {best}.")
    if missing:
        text.append(f"\nNot measured yet: {'; '.join(missing)}.")
    write_commands(workspace, demo, extra)
    return "\n".join(text)


def write_commands(workspace, demo, extra):
    """commands.tsv: the command of every fit and of every row."""
    lines = ["what\tcommand"]
    for fit in demo.FITS:
        if not workspace.record(fit, fit.seeds[0]).exists():
            continue
        arguments = workspace.fit_arguments(fit, fit.seeds[0])
        lines.append(f"fit {fit.name}\t{shlex.join(('mpo', *arguments))}")
    lines += [f"{name}\t{known['command']}" for name, known in extra.items()]
    (demo.HERE / "commands.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


# ---- the fits ----


def fit_table(workspace, demo):
    """Writes fits.tsv, one block a record for gnuplot; the Markdown is returned."""
    objectives = [objective.row for objective in demo.OBJECTIVES]
    header = ["fit", "step", "responses", "tokens", "seconds"]
    header += [f"average_{name}" for name in objectives] + [f"KL_{name}" for name in objectives]
    header += ["imbalance", "ess"]
    blocks, text = [], []
    text.append("| fit | steps | weights | imbalance or gap, nat | ESS | tokens | seconds |")
    text.append("|---" * 7 + "|")
    for fit in demo.FITS:
        for seed in fit.seeds:
            if not workspace.record(fit, seed).exists():
                continue
            series, responses = read_fit(workspace.record(fit, seed))
            count = min(len(series["ess"]), fit.steps)
            if count == 0:
                continue
            blocks.append("\n".join(fit_lines(f"{fit.name}, seed {seed}", series, responses)))
            last = count - 1
            weights = ", ".join(f"{weight:.3f}" for weight in series["average"][last])
            text.append(
                f"| {fit.name}, seed {seed} | {count} | {weights} "
                f"| {series['averaged_gap'][last]:.2f} | {np.mean(series['ess'][:count]):.2f} "
                f"| {series['tokens'][:count].sum():.0f} | {series['elapsed'][last]:.0f} |"
            )
    content = "\t".join(header) + "\n" + "\n\n\n".join(blocks) + "\n"
    (demo.HERE / "fits.tsv").write_text(content, encoding="utf-8")
    return "\n".join(text)


def read_fit(path):
    """(series of a record by name, responses up to each step)."""
    with open_record(path) as file:
        count = len(file["step"])
        series = {name: file[name][:count] for name in SERIES}
        responses = np.bincount(file["responses/step"][:], minlength=count)[:count]
    return series, np.cumsum(responses)


def fit_lines(name, series, responses):
    for step, response_count in enumerate(responses):
        cells = [name, step + 1, response_count, series["tokens"][: step + 1].sum()]
        cells += [f"{series['elapsed'][step]:.1f}"]
        cells += [f"{value:.5f}" for value in series["average"][step]]
        cells += [f"{value:.4f}" for value in series["divergence"][step]]
        cells += [f"{series['averaged_gap'][step]:.4f}", f"{series['ess'][step]:.4f}"]
        yield "\t".join(str(value) for value in cells)


# ---- README ----


def provenance(workspace, demo):
    git = ["git", "-C", str(workspace.root), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    return f"Command `results/{demo.NAME}/measure.sh`, commit `{commit or 'unknown'}`."


def write_readme(path, measured):
    """Replace what stands between the markers."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN_MARK)
    after = rest.split(END_MARK)[1]
    path.write_text(f"{before}{BEGIN_MARK}\n\n{measured}\n\n{END_MARK}{after}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", help="a folder of results/")
    parser.add_argument("--root", type=Path, required=True, help="the checkout")
    parser.add_argument("--mpo", type=shlex.split, required=True, help="how mpo is called")
    parser.add_argument("--only", default="", help="rows whose names match this expression")
    parser.add_argument("--rounds", type=int, default=0, help="only so many parts of each row")
    parser.add_argument("--seeds", type=int, default=0, help="only fits up to this seed")
    parser.add_argument("--tables", action="store_true", help="run nothing, write the tables")
    parser.add_argument("--speed", type=int, nargs="?", const=3, default=0, help="token/s alone")
    arguments = parser.parse_args()
    demo = importlib.import_module("rows")
    demo.NAME = arguments.demo
    demo.HERE = arguments.root / "results" / arguments.demo
    root = arguments.root.resolve()
    workspace = Workspace(root, arguments.demo, arguments.mpo, demo.HELDOUT, demo.RESPONSES)
    if arguments.speed:
        measure_speeds(root, arguments.mpo, demo, arguments.speed)
    elif not arguments.tables:
        measure(workspace, demo, arguments)
    say("tables")
    rewards, fits = reward_table(workspace, demo), fit_table(workspace, demo)
    (demo.HERE / "table.md").write_text(f"{rewards}\n\n{fits}\n", encoding="utf-8")
    parts = [f"### {demo.TITLE}", rewards, *speed_table(demo), "### Fits", fits]
    parts.append(provenance(workspace, demo))
    write_readme(demo.HERE / "README.md", "\n\n".join(parts))


if __name__ == "__main__":
    main()
