# SPDX-License-Identifier: Apache-2.0
"""Run what a table of results needs, step by step, and leave out what is there already.

A demonstration is a list of fits and a list of rows. A fit is `mpo fit` with one seed after
the other; a row is `mpo generate` on the held-out prompts, in blocks of a few responses with a
seed of their own, so that a first table is there early and more responses make it finer.
Every file gets its name when it is whole. A fit that was stopped is resumed.
"""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import h5py

BLOCK_SEED = 101  # of a row's first block; the same for all rows, so that they share uniforms
TUNE_PROMPTS = 16  # training prompts that choose an end bias


@dataclass(frozen=True)
class Fit:
    """`mpo fit` with each of the seeds."""

    name: str
    config: str  # relative to the root
    steps: int
    flags: tuple = ()
    seeds: tuple = (1, 2, 3)
    needs: str = ""  # an option that an older mpo lacks


@dataclass(frozen=True)
class Row:
    """`mpo generate` at given weights, or at those of a fit: then a part for each seed."""

    name: str
    config: str
    weights: str = ""
    fit: Fit | None = None
    flags: tuple = ()
    passes: int = 1  # forward passes a token: policies with another exponent than 0
    candidates: int = 1  # --best-of: log_mixture is then not what was drawn from
    shares: Fit | None = None  # lora_scale are the weights of this fit's first record
    policy: str = ""  # the policy of averaged adapters
    tuned: bool = False  # drawn with an end bias chosen on training prompts
    needs: str = ""  # an option that an older mpo lacks
    blocks: int = 2  # of so many responses to each prompt; a fit has one for each seed
    curve: str = ""  # the curve of the plot that this row is a point of


@dataclass(frozen=True)
class Part:
    """One run of `mpo generate`."""

    row: Row
    seed: int | None = None  # of the fit
    block: int = 0
    prompts: str = ""  # instead of the held-out ones
    extra: tuple = ()

    def name(self):
        words = [self.row.name.replace(" ", "-").translate({ord(c): None for c in ",/()"})]
        words += [self.seed and f"fit{self.seed}", self.prompts and "train"]
        words += [*(flag.lstrip("-").replace("=", "") for flag in self.extra), self.block]
        return ".".join(str(word) for word in words if word not in (None, ""))


def open_record(path):
    """A record, also one that a run writes."""
    return h5py.File(path, swmr=True, libver="latest")


def say(text):
    print(f"-- {text}", file=sys.stderr, flush=True)


@dataclass
class Workspace:
    """Where things are, and how the program is called."""

    root: Path
    name: str
    mpo: list
    heldout: str
    responses: int  # of a block to each prompt
    out: Path = field(init=False)
    helps: dict = field(init=False, default_factory=dict)

    def __post_init__(self):
        self.out = self.root / "build" / "results" / self.name
        self.out.mkdir(parents=True, exist_ok=True)

    def relative(self, path):
        return str(Path(path).relative_to(self.root))

    def run(self, arguments, log, output=None):
        """Run mpo in the root; its messages go to log and its output to a file, when whole."""
        part = output and output.with_name(output.name + ".part")
        with open(log, "w", encoding="utf-8") as errors, open(part or "/dev/null", "wb") as out:
            done = subprocess.run(
                [*self.mpo, *arguments], cwd=self.root, stdout=out, stderr=errors, check=False
            )
        if done.returncode != 0:
            tail = Path(log).read_text(encoding="utf-8")[-1000:]
            sys.exit(f"{shlex.join(arguments)}\n{tail}\nmpo ended with {done.returncode}")
        if output:
            part.rename(output)

    def has(self, command, option):
        """Whether this mpo knows an option; one that needs nothing is always there."""
        if not option:
            return True
        if command not in self.helps:
            call = [*self.mpo, "help", command]
            self.helps[command] = subprocess.run(
                call, stdout=subprocess.PIPE, text=True, check=True
            ).stdout
        return f"--{option}" in self.helps[command]

    # ---- fits ----

    def record(self, fit, seed):
        return self.out / f"{fit.name.replace(' ', '-')}.{seed}.h5"

    def fit_arguments(self, fit, seed):
        return (
            "fit",
            fit.config,
            *fit.flags,
            f"--descent.steps={fit.steps}",
            f"--run.seed={seed}",
            f"--record.file={self.relative(self.record(fit, seed))}",
        )

    def fitted(self, fit, seed):
        """Whether a fit's record is complete."""
        path = self.record(fit, seed)
        if not path.exists():
            return False
        with open_record(path) as file:
            return len(file["step"]) >= fit.steps

    def run_fit(self, fit, seed):
        if self.fitted(fit, seed):
            return
        say(f"fit {fit.name}, seed {seed}")
        log = self.record(fit, seed).with_suffix(".log")
        self.run((*self.fit_arguments(fit, seed), "--resume"), log)

    def fitted_weights(self, fit, seed):
        with open_record(self.record(fit, seed)) as file:
            return [float(value) for value in file["average"][fit.steps - 1]]

    # ---- rows ----

    def parts(self, row):
        """All runs of a row, in the order in which they are made."""
        seeds = row.fit.seeds if row.fit else (None,)
        blocks = range(1 if row.fit else row.blocks)
        return [Part(row, seed, block) for block in blocks for seed in seeds]

    def path(self, part):
        return self.out / f"{part.name()}.jsonl"

    def arguments(self, part):
        row = part.row
        weights = self.relative(self.record(row.fit, part.seed)) if row.fit else row.weights
        flags = [f"--step={row.fit.steps - 1}"] if row.fit else []  # steps count from 0
        flags += [*row.flags, *part.extra]
        if row.shares:
            shares = self.fitted_weights(row.shares, row.shares.seeds[0])
            text = ",".join(f"{share:.4f}" for share in shares)
            flags.append(f"--policies.{row.policy}.lora_scale=[{text}]")
        if row.candidates > 1:
            flags.append(f"--best-of={row.candidates}")  # costly: one response to each prompt
        if row.tuned and not part.prompts:
            bias = json.loads(self.bias_path(row).read_text(encoding="utf-8"))["bias"]
            flags.append(f"--end-bias={bias:.3f}")
        return (
            "generate",
            row.config,
            f"--weights={weights}",
            *flags,
            f"--prompts.file={part.prompts or self.heldout}",
            *((f"--limit={TUNE_PROMPTS}",) if part.prompts else ()),
            f"--n={1 if row.candidates > 1 else self.responses}",
            f"--run.seed={BLOCK_SEED + part.block}",
            "--format=jsonl",
        )

    def bias_path(self, row):
        return self.out / f"{Part(row).name()}.bias.json"

    def run_part(self, part):
        """Generate, unless the responses are there and no older than the weights."""
        path, row = self.path(part), part.row
        for fit, seed in ((row.fit, part.seed), (row.shares, row.shares and row.shares.seeds[0])):
            if fit:
                self.run_fit(fit, seed)
                made = self.record(fit, seed).stat().st_mtime
                if path.exists() and path.stat().st_mtime < made:
                    path.unlink()
        if not path.exists():
            arguments = self.arguments(part)
            say(shlex.join(arguments))
            self.run(arguments, path.with_suffix(".log"), path)

    def lines(self, parts):
        """Responses of the parts that are there."""
        return [
            json.loads(line)
            for part in parts
            if self.path(part).exists()
            for line in self.path(part).read_text(encoding="utf-8").splitlines()
        ]

    def decoded(self, parts):
        """(all tokens of the parts, candidates that were not chosen included, seconds)."""
        logs = [self.path(part).with_suffix(".log") for part in parts if self.path(part).exists()]
        text = "".join(log.read_text(encoding="utf-8") for log in logs)
        found = re.findall(r"(\d+) tokens in ([\d.]+) s", text)
        return sum(int(tokens) for tokens, _ in found), sum(float(time) for _, time in found)
