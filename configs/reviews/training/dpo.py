#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train one LoRA adapter for one objective by DPO, from samples of the reference.

A pair is the i-th best and the i-th worst response to one opening. Watch the chosen
log-probability: over-optimisation is quick at this size, so training stops early.

Source: Rafailov et al., Direct Preference Optimization, NeurIPS 2023.
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

import torch
from common import END, load, prompt_text, response_log_probabilities
from peft import LoraConfig, get_peft_model
from rewards import OBJECTIVES

WARM_UP_STEPS = 5
REPORT_STEPS = 4


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--hf", required=True, help="folder of the base model")
    parser.add_argument("--samples", nargs="+", required=True, help="files of sample.py")
    parser.add_argument("--objective", choices=OBJECTIVES, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--base-name", default="SmolLM2-135M-Instruct")
    parser.add_argument("--ended-only", action="store_true", help="only responses that ended")
    parser.add_argument("--pairs-per-prompt", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2, help="at most")
    parser.add_argument("--batch", type=int, default=4, help="pairs in a forward pass")
    parser.add_argument("--accumulate", type=int, default=2, help="forward passes in a step")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=16)
    parser.add_argument(
        "--stop-loss", type=float, default=0.4, help="stop at this mean loss of four steps"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch takes")
    return parser.parse_args()


def read_responses(paths, objective, ended_only):
    """{opening: [(reward, tokens)]}, best first; the end token is part of an ended response."""
    responses = defaultdict(list)
    for path in paths:
        with open(path, encoding="utf-8") as stream:
            for line in map(json.loads, stream):
                tokens = line["tokens"] + ([END] if line["ended"] else [])
                if tokens and (line["ended"] or not ended_only):
                    responses[line["prompt"]].append((line[objective], tokens))
    for ranked in responses.values():
        ranked.sort(key=lambda response: response[0], reverse=True)
    return responses


def make_pairs(tokenizer, responses, pairs_per_prompt):
    """[(prompt, chosen, rejected)] in tokens, similar lengths together."""
    pairs = []
    for opening, ranked in responses.items():
        prompt = tokenizer(prompt_text(opening), add_special_tokens=False).input_ids
        for index in range(min(pairs_per_prompt, len(ranked) // 2)):
            best, worst = ranked[index], ranked[-1 - index]
            if best[0] > worst[0]:
                pairs.append((prompt, best[1], worst[1]))
    return sorted(pairs, key=lambda pair: len(pair[1]) + len(pair[2]))


def pair_log_probabilities(model, pairs):
    """log pi(chosen), log pi(rejected), one of each a pair."""
    prompts = [prompt for prompt, _, _ in pairs] * 2
    responses = [chosen for _, chosen, _ in pairs] + [rejected for _, _, rejected in pairs]
    return response_log_probabilities(model, prompts, responses).split(len(pairs))


def train(model, batches, references, arguments):
    """AdamW on the DPO loss, with warm-up, linear decay and the early stop."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=arguments.learning_rate, weight_decay=0.0, betas=(0.9, 0.99)
    )
    step_count = arguments.epochs * len(batches) // arguments.accumulate
    order = [index for _ in range(arguments.epochs) for index in shuffled(len(batches))]
    report = []
    for pass_index, index in enumerate(order[: step_count * arguments.accumulate]):
        chosen, rejected = pair_log_probabilities(model, batches[index])
        gain_chosen = chosen - references[index][0]
        gain_rejected = rejected - references[index][1]
        margin = arguments.beta * (gain_chosen - gain_rejected)
        loss = -torch.nn.functional.logsigmoid(margin).mean()
        (loss / arguments.accumulate).backward()
        report.append([float(v) for v in (loss, gain_chosen.mean(), gain_rejected.mean())])
        if (pass_index + 1) % arguments.accumulate:
            continue
        step = pass_index // arguments.accumulate
        rate = min(1.0, (step + 1) / WARM_UP_STEPS) * max(0.1, 1 - step / step_count)
        for group in optimizer.param_groups:
            group["lr"] = arguments.learning_rate * rate
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % REPORT_STEPS == 0:
            means = [sum(column) / len(report) for column in zip(*report)]
            report.clear()
            print(
                f"step {step + 1}/{step_count}  loss {means[0]:.3f}  "
                f"chosen {means[1]:+.2f}  rejected {means[2]:+.2f}",
                flush=True,
            )
            if means[0] < arguments.stop_loss:
                return


def shuffled(count):
    """A fresh order of range(count)."""
    order = list(range(count))
    random.shuffle(order)
    return order


def save(model, arguments):
    """The adapter without machine paths: the converter copies the base's name and the card."""
    model.peft_config["default"].base_model_name_or_path = arguments.base_name
    model.save_pretrained(arguments.out)
    (arguments.out / "README.md").unlink(missing_ok=True)


def main():
    arguments = parse_arguments()
    random.seed(arguments.seed)
    torch.manual_seed(arguments.seed)
    tokenizer, base = load(arguments.hf, threads=arguments.threads)
    responses = read_responses(arguments.samples, arguments.objective, arguments.ended_only)
    pairs = make_pairs(tokenizer, responses, arguments.pairs_per_prompt)
    print(f"{len(pairs)} pairs")
    config = LoraConfig(
        r=arguments.rank,
        lora_alpha=arguments.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    size = arguments.batch
    batches = [pairs[first : first + size] for first in range(0, len(pairs), size)]
    # A fresh adapter has B = 0, so the model is still the reference here.
    with torch.no_grad():
        references = [pair_log_probabilities(model, batch) for batch in batches]
    train(model, batches, references, arguments)
    save(model, arguments)


if __name__ == "__main__":
    main()
