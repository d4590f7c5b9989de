#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Throughput and cost of mixing from the records of fits.

Prints one line a record: tokens of the mixture a second over all steps but the first, and what
exchange and mixture add to the forward passes, (exchange + mixture) / decode: of all steps but
the first together, and of the step with the least of it, which says more where other work
makes ranks wait. Each stage has the time of its slowest rank, so that a rank which decodes long
and one which waits for it both count; `wall` is what the steps took beyond the slowest forward
passes. The prompt's forward pass is in decode, and so counts against the throughput.
"""

import argparse
from pathlib import Path

import h5py

STAGES = ("decode", "exchange", "mixture", "estimate")
OTHERS = ("estimate", "record")


def read_timing(path):
    """Seconds of each stage and step, and tokens and time together, but of the first step."""
    with h5py.File(path) as file:
        length = len(file["step"])
        if length < 2:
            raise SystemExit(f"timing.py: {path}: {length} steps; expected at least 2")
        seconds = {stage: file[f"timing/{stage}"][1:length] for stage in {*STAGES, *OTHERS}}
        wall = float(file["elapsed"][length - 1] - file["elapsed"][0])
        return seconds, int(file["tokens"][1:length].sum()), wall


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--rate", action="store_true", help="only token/s, one a line")
    arguments = parser.parse_args()
    if not arguments.rate:
        print("record\ttoken/s\t" + "\t".join(f"{stage} s" for stage in STAGES)
              + "\toverhead\tleast\twall")
    for path in arguments.records:
        seconds, tokens, wall = read_timing(path)
        if arguments.rate:
            print(f"{tokens / wall:.2f}")
            continue
        added = seconds["exchange"] + seconds["mixture"]
        overhead = added.sum() / seconds["decode"].sum()
        least = (added / seconds["decode"]).min()
        mixing = wall - sum(seconds[stage].sum() for stage in OTHERS)
        longer = mixing / seconds["decode"].sum() - 1
        columns = "\t".join(f"{seconds[stage].sum():.3f}" for stage in STAGES)
        print(f"{path.stem}\t{tokens / wall:.1f}\t{columns}\t{overhead:.1%}\t{least:.1%}"
              f"\t{longer:.1%}")


if __name__ == "__main__":
    main()
