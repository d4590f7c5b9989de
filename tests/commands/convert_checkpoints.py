# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints as people have them, and what they say: run by convert.py in the venv.

    convert_checkpoints.py WORK

Writes WORK/base, a random Llama with a SentencePiece vocabulary; WORK/tuned, a PEFT adapter
for it; and WORK/truth.json, log-probabilities of responses by transformers. The adapter's truth
is a merged weight, W + (alpha / r) B A, so nothing here knows how PEFT or a converter does it.
"""

import io
import json
import os
import random
import sys

import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

WORDS = "the a big red old cat dog ran sat is was on to of and so good dull film plot".split()
RANK, ALPHA = 4, 8.0
TARGETS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj")


def sentence(generator, count):
    return " ".join(generator.choice(WORDS) for _ in range(count))


def write_tokenizer(folder):
    generator = random.Random(1)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([sentence(generator, 8) for _ in range(400)]),
        model_writer=model, vocab_size=320, model_type="bpe", byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2)
    with open(os.path.join(folder, "tokenizer.model"), "wb") as stream:
        stream.write(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def make_model(vocab_size):
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        bos_token_id=1, eos_token_id=2, initializer_range=0.1)).float().eval()


@torch.no_grad()
def write_adapter(folder, base_folder, model):
    """Write the adapter, and merge it into the model."""
    os.makedirs(folder)
    tensors = {}
    for name, module in model.named_modules():
        if name.endswith(TARGETS):
            a = 0.2 * torch.randn(RANK, module.in_features)
            b = 0.2 * torch.randn(module.out_features, RANK)
            tensors["base_model.model.%s.lora_A.weight" % name] = a
            tensors["base_model.model.%s.lora_B.weight" % name] = b
            module.weight += ALPHA / RANK * b @ a
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"))
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA,
              "target_modules": [target.split(".")[1] for target in TARGETS],
              "base_model_name_or_path": base_folder}
    with open(os.path.join(folder, "adapter_config.json"), "w", encoding="utf-8") as stream:
        json.dump(config, stream, indent=2)
    with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as stream:
        stream.write("---\nbase_model: /home/somebody/private\n---\n")


@torch.no_grad()
def log_probability(model, prompt, response):
    """Of the response's tokens after those of the prompt."""
    rows = model(torch.tensor([prompt + response])).logits[0].double().log_softmax(-1)
    return sum(rows[len(prompt) - 1 + i, token].item() for i, token in enumerate(response))


def main():
    work = sys.argv[1]
    base = os.path.join(work, "base")
    os.makedirs(base)
    tokenizer = write_tokenizer(base)
    model = make_model(tokenizer.vocab_size())
    model.save_pretrained(base)
    generator = random.Random(2)
    lines = [{"prompt": sentence(generator, 3), "response": " " + sentence(generator, count)}
             for count in (1, 2, 5, 20)]
    tokens = [([tokenizer.bos_id()] + tokenizer.encode(line["prompt"]),
               tokenizer.encode(line["response"].lstrip()) + [tokenizer.eos_id()])
              for line in lines]
    truth = {"base": [log_probability(model, *pair) for pair in tokens]}
    write_adapter(os.path.join(work, "tuned"), base, model)
    truth["tuned"] = [log_probability(model, *pair) for pair in tokens]
    with open(os.path.join(work, "truth.json"), "w", encoding="utf-8") as stream:
        json.dump({"lines": lines, "tokens": [len(response) for _, response in tokens],
                   "truth": truth}, stream)


if __name__ == "__main__":
    main()
