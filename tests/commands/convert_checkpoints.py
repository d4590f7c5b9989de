# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints as people have them, and what they say: run by convert.py in the venv.

    convert_checkpoints.py WORK

Writes WORK/base, a random Llama with a SentencePiece vocabulary; WORK/tuned, a PEFT adapter
for it; WORK/wide, one of other modules and ranks; and WORK/truth.json, log-probabilities of
responses by transformers. The truth of an adapter is a merged weight, W + (alpha / r) B A, so
nothing here knows how PEFT or a converter does it.
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
WIDE = ("embed_tokens", "lm_head", "layers.1.self_attn.k_proj", "self_attn.o_proj", "up_proj")
WIDE_RANKS = {"lm_head": 7, "model.layers.0.mlp.up_proj": 2}


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
def write_adapter(folder, model, targets, ranks):
    """Write the adapter for WORK/base, and merge it into the model."""
    os.makedirs(folder)
    tensors = {}
    for name, module in model.named_modules():
        if name.endswith(targets):
            rank, is_embedding = ranks.get(name, RANK), isinstance(module, torch.nn.Embedding)
            weight = module.weight.T if is_embedding else module.weight
            a = 0.2 * torch.randn(rank, weight.shape[1])
            b = 0.2 * torch.randn(weight.shape[0], rank)
            ends = ("embedding_A", "embedding_B") if is_embedding else ("A.weight", "B.weight")
            for end, value in zip(ends, (a, b)):
                tensors["base_model.model.%s.lora_%s" % (name, end)] = value
            weight += ALPHA / rank * b @ a
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"))
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA,
              "target_modules": list(targets), "rank_pattern": ranks,
              "base_model_name_or_path": os.path.join(os.path.dirname(folder), "base")}
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
    write_adapter(os.path.join(work, "tuned"), model, TARGETS, {})
    truth["tuned"] = [log_probability(model, *pair) for pair in tokens]
    model = make_model(tokenizer.vocab_size())
    write_adapter(os.path.join(work, "wide"), model, WIDE, WIDE_RANKS)
    truth["wide"] = [log_probability(model, *pair) for pair in tokens]
    with open(os.path.join(work, "truth.json"), "w", encoding="utf-8") as stream:
        json.dump({"lines": lines, "tokens": [len(response) for _, response in tokens],
                   "token_ids": tokens, "truth": truth}, stream)


if __name__ == "__main__":
    main()
