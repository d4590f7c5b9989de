# SPDX-License-Identifier: Apache-2.0
"""Figures of rows of responses, with intervals from a paired bootstrap over prompts.

A figure is a ratio of sums over prompts (a mean of rewards over responses, log pi_ref over
tokens), so a replicate needs only sums by prompt and how often each prompt was picked. Every
row meets the same replicates: differences between rows are taken inside a replicate, and the
prompts' own spread cancels in them. Source: Efron & Tibshirani, An Introduction to the Bootstrap
(1993), chapter 6.
"""

from dataclasses import dataclass

import numpy as np

REPLICATES = 4000
LEVELS = (2.5, 97.5)  # percentiles of an interval
# The last columns of every table.tsv, and their titles in the README.
SHARED_COLUMNS = {
    "worst": "worst",
    "over_baseline": "worst over equal weights",
    "length": "tokens",
    "ended": "ended",
    "KL": "KL to the reference, nat",
    "fluency": "log pi_ref a token",
}


@dataclass(frozen=True)
class Objective:
    """A reward of the demonstration and the row of the policy that was made for it."""

    name: str
    row: str


@dataclass(frozen=True)
class Figure:
    """Value, standard error and interval, all NaN where there is nothing to state."""

    value: float
    error: float
    low: float
    high: float


def prompt_sums(lines, score, drawn_as_scored):
    """({column: sums by prompt}, number of responses by prompt); prompts in sorted order."""
    by_prompt = {}
    for line in lines:
        values = score(line)
        reference = line["log_policy"]["reference"]
        values["length"] = float(line["tokens"])
        values["ended"] = float(line["ended"])
        values["KL"] = line["log_mixture"] - reference if drawn_as_scored else np.nan
        values["log_reference"] = reference
        values["responses"] = 1.0
        by_prompt.setdefault(line["prompt"], []).append(values)
    prompts = sorted(by_prompt)
    columns = by_prompt[prompts[0]][0]
    sums = {
        name: np.array([sum(values[name] for values in by_prompt[prompt]) for prompt in prompts])
        for name in columns
    }
    return prompts, sums


def picks(prompt_count):
    """[1 + REPLICATES, prompt]: how often each prompt counts; the first line is the sample."""
    random = np.random.default_rng(1)
    counts = random.multinomial(prompt_count, np.full(prompt_count, 1 / prompt_count), REPLICATES)
    return np.vstack([np.ones(prompt_count), counts])


def means(sums, counts):
    """{column: [1 + REPLICATES]}: means over responses, and log pi_ref a token."""
    total = {name: counts @ values for name, values in sums.items()}
    result = {name: values / total["responses"] for name, values in total.items()}
    result["fluency"] = total["log_reference"] / total["length"]
    return result


def normalise(rows, objectives, fixed=False):
    """Add each objective's share of the way from the reference to its own policy, and the worst.

    fixed: the ends of the scale are those of the sample in every replicate. Where they are
    close together, a ratio to their difference has no useful interval otherwise.
    """
    scales = []
    for objective in objectives:
        zero = rows["reference"][objective.name]
        one = rows[objective.row][objective.name]
        scales.append((zero[0], one[0]) if fixed else (zero, one))
    for row in rows.values():
        shares = []
        for objective, (zero, one) in zip(objectives, scales):
            span = one - zero
            shares.append((row[objective.name] - zero) / span)
            row[f"{objective.name}_share"] = shares[-1]
        row["worst"] = np.min(shares, axis=0)
    return rows


def figure(values):
    """Of a column of replicates, the sample first."""
    if np.isnan(values[0]):
        return Figure(*(4 * [np.nan]))
    low, high = np.percentile(values[1:], LEVELS)
    return Figure(values[0], np.std(values[1:], ddof=1), low, high)


def write_tsv(path, names, rows, extra):
    """One line a row: each column with error and interval, then what extra says of the row."""
    header = ["policy"]
    for name in names:
        header += [name, f"{name}_error", f"{name}_low", f"{name}_high"]
    more = list(next(iter(extra.values())))
    lines = ["\t".join(header + more)]
    for row, columns in rows.items():
        cells = [row]
        for name in names:
            found = figure(columns[name])
            cells += [f"{x:.5f}" for x in (found.value, found.error, found.low, found.high)]
        lines.append("\t".join(cells + [str(extra[row][key]) for key in more]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cell(found, digits=2):
    if np.isnan(found.value):
        return "-"
    if found.error < 1e-9:
        return f"{found.value:.{digits}f}"
    return f"{found.value:.{digits}f} ± {found.error:.{digits}f}"
