#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Split prompts_all.txt: every fourth line is held out, the others are for training."""

import argparse
from pathlib import Path

HELD_OUT_EVERY = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent.parent)
    folder = parser.parse_args().folder
    text = (folder / "prompts_all.txt").read_text(encoding="utf-8")
    prompts = [line for line in text.splitlines() if line.strip()]
    held_out = prompts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
    train = [p for index, p in enumerate(prompts) if index % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
    for name, part in (("train", train), ("heldout", held_out)):
        content = "".join(f"{prompt}\n" for prompt in part)
        (folder / f"prompts_{name}.txt").write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
