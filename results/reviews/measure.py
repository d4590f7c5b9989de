#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the demo: rewards of policies and mixtures on held-out prompts, and the proposals.

Called by measure.sh, which makes the environment. Writes table.tsv, table.md and
proposals.tsv beside itself, and the measured part of README.md.

Standard errors are clustered by prompt: responses to one prompt are averaged first, then the
prompts' means are taken as independent. The error of `worst` is a bootstrap over prompts.
"""

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from rewards import REWARDS, rewards
from soup import soup

HERE = Path(__file__).resolve().parent
OBJECTIVES = ("sentiment", "concise")  # those of configs/reviews.yaml, in its order
COLUMNS = (*REWARDS, "ended")
RESPONSES = 4  # to each held-out prompt
UNIT_PROMPTS = 4  # prompts decoded as one batch
SAMPLE_SEED = 101
BOOTSTRAP_COUNT = 4000
BEGIN_MARK = "<!-- measured: begin (written by measure.py) -->"
END_MARK = "<!-- measured: end -->"


@dataclass(frozen=True)
class Fit:
    """One run of `mpo fit`."""

    name: str
    config: str
    flags: tuple = ()


FITS = (
    Fit("mixture", "configs/reviews.yaml"),
    Fit("mixture, no tilt", "configs/reviews.yaml", ("--rollout.end_bias=0",)),
    Fit("reference", "configs/reviews_published.yaml"),
    Fit("mixture, seed 2", "configs/reviews.yaml", ("--run.seed=2",)),
)


@dataclass(frozen=True)
class Case:
    """What responses are drawn from: one run of `mpo generate`."""

    name: str
    config: str
    weights: str
    ranks: int
    flags: tuple = ()


@dataclass
class Workspace:
    """Where things are, and how the program is called."""

    root: Path
    mpirun: list
    reuse: bool
    out: Path = field(init=False)

    def __post_init__(self):
        self.out = self.root / "build" / "results" / "reviews"
        self.out.mkdir(parents=True, exist_ok=True)

    def mpo(self, ranks, command, config, *flags):
        """Run mpo, relaying its messages; its standard output."""
        program = [str(self.root / "build" / "mpo"), command, str(self.root / config)]
        line = [*self.mpirun, "-n", str(ranks), *program, *flags]
        return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout

    def record(self, fit):
        """Path of a fit's record."""
        return self.out / (fit.name.replace(", ", "-").replace(" ", "-") + ".h5")

    def run_fit(self, fit):
        """Fit, unless the record is there and may be kept."""
        path = self.record(fit)
        if self.reuse and path.exists():
            return
        say(f"fit: {fit.name}")
        self.mpo(2, "fit", fit.config, *fit.flags, f"--record.file={path}", "--force", "--quiet")

    def run_case(self, case):
        """Responses of a case, as the lines of `mpo generate --format jsonl`."""
        path = self.out / (case.name.replace(" ", "-") + ".jsonl")
        if not (self.reuse and path.exists()):
            say(f"generate: {case.name}")
            prompts = self.root / "configs" / "reviews" / "prompts_heldout.txt"
            text = self.mpo(
                case.ranks,
                "generate",
                case.config,
                *case.flags,
                f"--weights={case.weights}",
                f"--prompts.file={prompts}",
                f"--n={RESPONSES}",
                f"--rollout.unit_prompts={UNIT_PROMPTS}",
                f"--run.seed={SAMPLE_SEED}",
                "--format=jsonl",
            )
            path.write_text(text, encoding="utf-8")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def say(text):
    print(f"-- {text}", file=sys.stderr, flush=True)


def make_cases(workspace):
    """Every row of the table, in order; makes the averaged adapters on the way."""
    adapters = [workspace.root / "configs" / "reviews" / f"{name}.gguf" for name in OBJECTIVES]
    record = workspace.record(FITS[0])
    with h5py.File(record) as file:
        fitted = file["average"][-1]
    equal = np.full(len(OBJECTIVES), 1 / len(OBJECTIVES))
    single, both = "results/reviews/single.yaml", "configs/reviews.yaml"
    cases = [Case("reference", single, "uniform", 1)]
    cases += [Case(name, both, name, 2) for name in OBJECTIVES]
    cases += [Case("mixture uniform", both, "uniform", 2)]
    cases += [Case("mixture fitted", both, str(record), 2)]
    for name, shares in (("soup uniform", equal), ("soup fitted", fitted)):
        path = workspace.out / (name.replace(" ", "-") + ".gguf")
        soup(adapters, list(shares), path)
        cases.append(Case(name, single, "uniform", 1, (f"--policies.single.lora={path}",)))
    return cases


def prompt_means(lines):
    """[prompt, column]: means over the responses to each prompt, prompts in sorted order."""
    by_prompt = {}
    for line in lines:
        token_count = line["tokens"] - int(line["ended"])  # the rewards leave the end token out
        scores = {**rewards(line["response"], token_count), "ended": float(line["ended"])}
        by_prompt.setdefault(line["prompt"], []).append([scores[name] for name in COLUMNS])
    return np.array([np.mean(by_prompt[prompt], axis=0) for prompt in sorted(by_prompt)])


def worst_objective(means):
    """{case: min over objectives of (mean - reference) / (own policy - reference)}."""
    result = {}
    for case, mean in means.items():
        shares = []
        for name in OBJECTIVES:
            column = COLUMNS.index(name)
            span = means[name][column] - means["reference"][column]
            shares.append((mean[column] - means["reference"][column]) / span)
        result[case] = min(shares)
    return result


def reward_rows(samples):
    """[(case, [(mean, error) of each column], (worst, error))]; samples: {case: prompt_means}."""
    prompt_count = len(next(iter(samples.values())))
    means = {case: values.mean(axis=0) for case, values in samples.items()}
    worst = worst_objective(means)
    random = np.random.default_rng(1)
    draws = {case: [] for case in samples}
    for _ in range(BOOTSTRAP_COUNT):
        picked = random.integers(prompt_count, size=prompt_count)  # the same for every case
        again = {case: values[picked].mean(axis=0) for case, values in samples.items()}
        for case, value in worst_objective(again).items():
            draws[case].append(value)
    rows = []
    for case, values in samples.items():
        errors = values.std(axis=0, ddof=1) / np.sqrt(prompt_count)
        rows.append((case, list(zip(means[case], errors)), (worst[case], np.std(draws[case]))))
    return rows


def write_reward_tables(rows):
    """table.tsv for programs; the Markdown table is returned."""
    names = (*COLUMNS, "worst")
    header = ["policy"] + [part for name in names for part in (name, f"{name}_error")]
    lines = ["\t".join(header)]
    text = ["| policy | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for case, pairs, worst in rows:
        cells = [*pairs, worst]
        lines.append("\t".join([case] + [f"{value:.5f}" for pair in cells for value in pair]))
        text.append(f"| {case} | " + " | ".join(f"{m:.2f} ± {e:.2f}" for m, e in cells) + " |")
    (HERE / "table.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "\n".join(text)


def read_fit(path):
    """Columns of a record by name, one value a step."""
    names = ("average", "value_jackknife", "averaged_gap", "ess", "end_bias", "tokens", "elapsed")
    with h5py.File(path) as file:
        length = len(file["step"])
        columns = {name: file[name][:length] for name in names}
        response_count = np.bincount(file["responses/step"][:], minlength=length)[:length]
    columns["responses"] = np.cumsum(response_count)
    columns["tokens"] = np.cumsum(columns["tokens"])
    return columns


def write_proposal_tables(workspace):
    """proposals.tsv, one block a fit for gnuplot; the Markdown table is returned."""
    header = "proposal\tresponses\ttokens\tseconds\tweight\tvalue\tgap\tess\tend_bias"
    blocks = []
    text = [
        f"| proposal | weight of {OBJECTIVES[0]} | F, second half | averaged gap "
        "| ESS, second half | responses | tokens | seconds |",
        "|---" * 8 + "|",
    ]
    for fit in FITS:
        data = read_fit(workspace.record(fit))
        steps = range(len(data["ess"]))
        blocks.append(
            "\n".join(
                f"{fit.name}\t{data['responses'][t]}\t{data['tokens'][t]}\t{data['elapsed'][t]:.2f}"
                f"\t{data['average'][t, 0]:.5f}\t{data['value_jackknife'][t]:.5f}"
                f"\t{data['averaged_gap'][t]:.5f}\t{data['ess'][t]:.5f}\t{data['end_bias'][t]:.4f}"
                for t in steps
            )
        )
        late = slice(len(steps) // 2, None)
        value, ess = data["value_jackknife"][late], data["ess"][late]
        text.append(
            f"| {fit.name} | {data['average'][-1, 0]:.3f} | {mean_and_error(value)} "
            f"| {data['averaged_gap'][-1]:.2f} | {mean_and_error(ess)} "
            f"| {data['responses'][-1]} | {data['tokens'][-1]} | {data['elapsed'][-1]:.0f} |"
        )
    content = header + "\n" + "\n\n\n".join(blocks) + "\n"
    (HERE / "proposals.tsv").write_text(content, encoding="utf-8")
    return "\n".join(text)


def mean_and_error(values):
    """Mean and standard error of the steps' values, each of another prompt."""
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.2f}"


def provenance(workspace):
    """What a reader needs to find the same figures again."""
    git = ["git", "-C", str(workspace.root), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    digest = hashlib.sha256(workspace.record(FITS[0]).read_bytes()).hexdigest()
    return (
        f"Command `results/reviews/measure.sh`, commit `{commit or 'unknown'}`, SHA-256 of the "
        f"fitted mixture's record `{digest[:16]}`."
    )


def write_readme(measured):
    """Replace what stands between the markers."""
    path = HERE / "README.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN_MARK)
    after = rest.split(END_MARK)[1]
    content = f"{before}{BEGIN_MARK}\n\n{measured}\n\n{END_MARK}{after}"
    path.write_text(content, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="the checkout")
    parser.add_argument("--mpirun", type=shlex.split, default=["mpirun"], help="with its options")
    parser.add_argument("--reuse", action="store_true", help="keep records and samples")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.root.resolve(), arguments.mpirun, arguments.reuse)
    for fit in FITS:
        workspace.run_fit(fit)
    samples = {case.name: prompt_means(workspace.run_case(case)) for case in make_cases(workspace)}
    reward_table = write_reward_tables(reward_rows(samples))
    proposal_table = write_proposal_tables(workspace)
    (HERE / "table.md").write_text(f"{reward_table}\n\n{proposal_table}\n", encoding="utf-8")
    title_rewards = "### Mean rewards on 32 held-out prompts, 4 responses each"
    title_proposals = "### Fits from different proposals"
    parts = (title_rewards, reward_table, title_proposals, proposal_table, provenance(workspace))
    write_readme("\n\n".join(parts))


if __name__ == "__main__":
    main()
