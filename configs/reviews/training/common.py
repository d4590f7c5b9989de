# SPDX-License-Identifier: Apache-2.0
"""What sampling and training share: the prompt's text, loading, sampling, log-probabilities."""

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
REQUEST = "Write a short movie review in one or two sentences. Start it with: {prompt}"
END = 2  # <|im_end|>
STOP = (END, 0)  # 0 is <|endoftext|>
TEMPERATURE = 0.7  # part of the policy, in training, mixing and sampling alike
MAX_TOKENS = 48


def prompt_text(opening, system=SYSTEM, request=REQUEST):
    """The chat text up to and including the opening, which the model continues."""
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        f"<|im_start|>user\n{request.format(prompt=opening)}<|im_end|>\n"
        f"<|im_start|>assistant\n{opening}"
    )


def load_prompts(path):
    """Lines of a file, without the empty ones."""
    with open(path, encoding="utf-8") as stream:
        return [line.rstrip("\n") for line in stream if line.strip()]


def load(folder, adapter=None, threads=0):
    """Tokenizer and model, with the adapter merged in. One thread is best on a busy machine."""
    if threads:
        torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return tokenizer, model.eval()


def trim(tokens):
    """Tokens up to the first stop token, and whether there was one."""
    for index, token in enumerate(tokens):
        if token in STOP:
            return tokens[:index], True
    return tokens, False


@torch.no_grad()
def sample(tokenizer, model, texts, batch_size=64):
    """One response to each text: a list of (tokens without the end, ended)."""
    tokenizer.padding_side = "left"
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    responses = [None] * len(texts)
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        encoded = tokenizer(
            [texts[index] for index in batch],
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
        )
        output = model.generate(
            **encoded,
            do_sample=True,
            temperature=TEMPERATURE,
            top_p=1.0,  # no truncation: it would change the policy's support
            top_k=0,
            max_new_tokens=MAX_TOKENS,
            pad_token_id=END,
            eos_token_id=list(STOP),
        )
        for index, row in zip(batch, output[:, encoded.input_ids.shape[1] :].tolist()):
            responses[index] = trim(row)
    return responses


def common_prefix_length(prompts):
    """Tokens that all prompts begin with; at least one token of each prompt is left over."""
    limit = min(map(len, prompts)) - 1
    length = 0
    while length < limit and len({prompt[length] for prompt in prompts}) == 1:
        length += 1
    return length


def response_log_probabilities(model, prompts, responses):
    """log pi(response | prompt) of each pair, under softmax(logits / TEMPERATURE).

    All pairs are one sequence behind the prompts' common prefix, which is computed once: a
    token sees the prefix and, causally, its own branch (4-d mask, own positions). The head
    runs on response positions only. Same sums as one pair at a time to 1e-4, twice as fast.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    prefix = common_prefix_length(prompts)
    tokens = list(prompts[0][:prefix])
    positions = list(range(prefix))
    branches = [-1] * prefix
    outputs, targets, owners = [], [], []
    for index, (prompt, response) in enumerate(zip(prompts, responses)):
        branch = prompt[prefix:] + response
        start = len(tokens) + len(prompt) - prefix - 1
        outputs += range(start, start + len(response))
        targets += response
        owners += [index] * len(response)
        tokens += branch
        positions += range(prefix, prefix + len(branch))
        branches += [index] * len(branch)
    branch_of = torch.tensor(branches)
    visible = (branch_of[None] == -1) | (branch_of[None] == branch_of[:, None])
    visible &= torch.ones_like(visible).tril()
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    hidden = base.model(
        input_ids=torch.tensor([tokens]),
        position_ids=torch.tensor([positions]),
        attention_mask=mask[None, None],
        use_cache=False,
    ).last_hidden_state[0]
    logits = base.lm_head(hidden[torch.tensor(outputs)]) / TEMPERATURE
    chosen = logits.gather(1, torch.tensor(targets)[:, None])[:, 0]
    log_probability = chosen - torch.logsumexp(logits, 1)
    return torch.zeros(len(prompts)).index_add(0, torch.tensor(owners), log_probability)
