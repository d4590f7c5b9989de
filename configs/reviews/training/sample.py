#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sample responses from the reference or from an adapter: one JSON line each, with its rewards."""

import argparse
import json
import time

import torch
from common import REQUEST, SYSTEM, load, load_prompts, prompt_text, sample
from rewards import rewards


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hf", required=True, help="folder of the base model")
    parser.add_argument("--adapter", help="folder of a PEFT adapter; none: the reference")
    parser.add_argument("--system", default=SYSTEM)
    parser.add_argument("--request", default=REQUEST, help="{prompt} stands for the opening")
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--n", type=int, default=8, help="responses to each prompt")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    parser.add_argument("--out", required=True)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    tokenizer, model = load(arguments.hf, arguments.adapter, arguments.threads)
    openings = [x for x in load_prompts(arguments.prompts) for _ in range(arguments.n)]
    texts = [prompt_text(x, arguments.system, arguments.request) for x in openings]
    start = time.time()
    responses = sample(tokenizer, model, texts)
    seconds = time.time() - start
    with open(arguments.out, "w", encoding="utf-8") as stream:
        for opening, (tokens, ended) in zip(openings, responses):
            text = tokenizer.decode(tokens)
            line = {"prompt": opening, "response": text, "tokens": tokens, "ended": ended}
            stream.write(json.dumps({**line, **rewards(text, len(tokens))}) + "\n")
    token_count = sum(len(tokens) for tokens, _ in responses)
    print(f"{len(responses)} responses, {token_count} tokens, {token_count / seconds:.0f} token/s")


if __name__ == "__main__":
    main()
