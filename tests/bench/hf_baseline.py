#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Baseline: K Hugging Face models in one process, forwards one after another, logits mixed.

The decode loop that common mixing scripts use, written afresh: each model keeps its own cache,
the next token comes from the weighted sum of the logits. Greedy, fp32, CPU. The K models are
copies of one model, as speed does not depend on the values of the weights. Time of the prompt
is left out. Prints one tab-separated line a batch size: batch, token/s of the mixture.
"""

import argparse
import copy
import statistics
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\nWrite a short movie review in one or two sentences. Start it "
    "with: The lead actress<|im_end|>\n<|im_start|>assistant\nThe lead actress"
)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hf", required=True, help="folder of the model (gguf_to_hf.py)")
    parser.add_argument("--policies", type=int, default=2, help="K")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--tokens", type=int, default=48, help="of each response")
    parser.add_argument("--repeat", type=int, default=3, help="the median is printed")
    return parser.parse_args()


@torch.no_grad()
def decode(models, prompt, token_count):
    """Token/s of one greedy decode from [batch, length] prompt tokens."""
    caches = [None] * len(models)
    step_input = prompt
    start = 0.0
    for step in range(token_count):
        mixed = 0.0
        for index, model in enumerate(models):
            output = model(
                input_ids=step_input,
                past_key_values=caches[index],
                use_cache=True,
                logits_to_keep=1,
            )
            caches[index] = output.past_key_values
            mixed = mixed + output.logits[:, -1] / len(models)
        step_input = mixed.argmax(-1, keepdim=True)
        if step == 0:
            start = time.perf_counter()
    return len(prompt) * (token_count - 1) / (time.perf_counter() - start)


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.hf)
    base = AutoModelForCausalLM.from_pretrained(arguments.hf, dtype=torch.float32).eval()
    models = [copy.deepcopy(base) for _ in range(arguments.policies)]
    for batch in arguments.batch:
        encoded = tokenizer([PROMPT] * batch, return_tensors="pt", add_special_tokens=False)
        rates = [
            decode(models, encoded.input_ids, arguments.tokens) for _ in range(arguments.repeat)
        ]
        print(f"{batch}\t{statistics.median(rates):.2f}", flush=True)


if __name__ == "__main__":
    main()
