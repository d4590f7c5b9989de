#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Throughput and cost of mixing from the records of fits.

Prints one line a record: tokens of the mixture a second over all steps but the first, and what
exchange and mixture add to the forward passes, (exchange + mixture) / decode: of all steps but
the first together, and of the step with the least of it, which says more where other work
makes ranks wait. The prompt's forward pass is in decode, and so counts against the throughput.
"""

import argparse
from pathlib import Path

import h5py

STAGES = ("decode", "exchange", "mixture", "estimate")


def read_timing(path):
    """Seconds of each stage and step, and tokens and time together, but of the first step."""
    with h5py.File(path) as file:
        length = len(file["step"])
        if length < 2:
            raise SystemExit(f"timing.py: {path}: {length} steps; expected at least 2")
        seconds = {stage: file[f"timing/{stage}"][1:length] for stage in STAGES}
        wall = float(file["elapsed"][length - 1] - file["elapsed"][0])
        return seconds, int(file["tokens"][1:length].sum()), wall


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--rate", action="store_true", help="only token/s, one a line")
    arguments = parser.parse_args()
    if not arguments.rate:
        print("record\ttoken/s\t" + "\t".join(f"{stage} s" for stage in STAGES)
              + "\toverhead\tleast")
    for path in arguments.records:
        seconds, tokens, wall = read_timing(path)
        if arguments.rate:
            print(f"{tokens / wall:.2f}")
            continue
        added = seconds["exchange"] + seconds["mixture"]
        overhead = added.sum() / seconds["decode"].sum()
        least = (added / seconds["decode"]).min()
        columns = "\t".join(f"{seconds[stage].sum():.3f}" for stage in STAGES)
        print(f"{path.stem}\t{tokens / wall:.1f}\t{columns}\t{overhead:.1%}\t{least:.1%}")


if __name__ == "__main__":
    main()
