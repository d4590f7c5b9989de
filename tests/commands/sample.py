# SPDX-License-Identifier: Apache-2.0
"""Sweeps, which try one thing at every place there is, whole or as a sample.

A script of a sweep imports this before it reads its arguments. Run as it is, it sweeps over
every place, for minutes; this is what the label `long` does. With --sample among its
arguments it takes only some places of each sweep, drawn at random from SEED, for the ordinary
round. MPO_TEST_SEED draws others; what was drawn is printed.
"""
import os
import random
import sys

WHOLE = "--sample" not in sys.argv
SEED = int(os.environ.get("MPO_TEST_SEED", "1"))
if not WHOLE:
    sys.argv.remove("--sample")


def chance(what):
    """The generator of one sweep: the same draws however many other sweeps there are."""
    return random.Random(f"{SEED} {what}")


def some(what, items, count):
    """All items, or so many of them in their order."""
    items = list(items)
    if WHOLE or count >= len(items):
        return items
    drawn = sorted(chance(what).sample(range(len(items)), count))
    print(f"      sample: {count} of {len(items)} {what}, MPO_TEST_SEED={SEED}", flush=True)
    return [items[index] for index in drawn]


def one(what, items):
    """All items, or one of them; says nothing, since whoever asks names what it tries."""
    return list(items) if WHOLE else [chance(what).choice(list(items))]
