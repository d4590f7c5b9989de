#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Answers of serve on table policies, where one seed gives one response: streams are whole
answers in pieces, responses and figures are those of generate, and the openai client's types
take them all.

usage: answers.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
from person import MPO, WORK, check, fresh, run, run_tests  # noqa: E402
from server import Server  # noqa: E402

CONFIG = os.path.join(SOURCE, "configs/table.yaml")
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
SAID = [{"role": "user", "content": "the film"}]
BEGUN = [*SAID, {"role": "assistant", "content": "is very"}]
BODIES = [
    (CHAT, {"messages": SAID}),
    (CHAT, {"messages": SAID, "n": 4, "logprobs": True, "top_logprobs": 5}),
    (CHAT, {"messages": SAID, "n": 3, "logprobs": True, "policy_scores": True}),
    (CHAT, {"messages": SAID, "n": 8, "logprobs": True, "stop": ["good", "e.", " film"]}),
    (CHAT, {"messages": BEGUN, "continue_final_message": True, "logprobs": True}),
    (CHAT, {"messages": SAID, "model": "policy/warm", "max_tokens": 3, "temperature": 0}),
    (COMPLETION, {"prompt": "the film"}),
    (COMPLETION, {"prompt": ["the film was", "the story"], "n": 3, "logprobs": 3}),
    (COMPLETION, {"prompt": "the film was", "echo": True}),
    (COMPLETION, {"prompt": ["the film was", "lovely"], "n": 2, "echo": True, "logprobs": 2,
                  "policy_scores": True, "stop": "very good"}),
    (COMPLETION, {"prompt": "the film was lovely", "echo": True, "logprobs": 0, "max_tokens": 0}),
]


def name(path, body):
    return f"{path.rsplit('/v1/', maxsplit=1)[-1]} {json.dumps(body)}"


def stream(server, path, body):
    """The documents of a stream that ended well."""
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with server.open(path, body) as response:
        events = response.read().decode().split("\n\n")
    check("a stream ends with [DONE]", events[-2:] == ["data: [DONE]", ""])
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def join(chunks):
    """What a client makes of a stream: {index: choice} as in a whole answer."""
    choices = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        whole = choices.setdefault(choice["index"], {"text": "", "logprobs": None})
        whole["text"] += choice.get("text", choice.get("delta", {}).get("content", ""))
        if choice["logprobs"] is not None:
            lists = whole["logprobs"] = whole["logprobs"] or {}
            for key, value in choice["logprobs"].items():
                lists[key] = lists.get(key, []) + value if value is not None else None
        whole.update({key: choice[key] for key in ("finish_reason", "stop_reason", "mpo")
                      if key in choice})
    return choices


def text_of(choice):
    return choice["message"]["content"] if "message" in choice else choice["text"]


def test_streams_are_whole_answers():
    # the second of two equal requests would find tokens of the first (reuse.py)
    with Server(MPO, WORK, CONFIG, "--prefixes=0") as server:
        for path, body in BODIES:
            for seed in range(3):
                body = {"max_tokens": 12, **body, "seed": seed}
                whole = server.ask(path, body)
                chunks = stream(server, path, body)
                parts = join(chunks)
                same = len(parts) == len(whole["choices"])
                for choice in whole["choices"]:
                    part = parts[choice["index"]]
                    same = same and part["text"] == text_of(choice) and all(
                        part.get(key) == choice.get(key)
                        for key in ("logprobs", "finish_reason", "stop_reason", "mpo"))
                check(f"one text, in pieces: {name(path, body)}", same)
                check("one usage", chunks[-1]["usage"] == whole["usage"]
                      and chunks[-1]["mpo"] == whole["mpo"] and whole["mpo"]["seed"] == seed)


def test_prompt_tokens_are_counted():
    with Server(MPO, WORK, CONFIG) as server:
        body = {"prompt": ["the film was", "lovely"], "max_tokens": 1}
        usage = server.ask(COMPLETION, body)["usage"]
        check("of all prompts, with the start of each", usage["prompt_tokens"] == 6)
        for more in ({"echo": True}, {"echo": True, "logprobs": 1}, {"n": 2}):
            usage = server.ask(COMPLETION, {**body, **more})["usage"]
            check(f"whatever is asked: {more}", usage["prompt_tokens"] == 6)


def test_nobody_sleeps_while_one_waits():
    """Choices that end together leave a server without rows at work, and with room."""
    with Server(MPO, WORK, CONFIG, "--rows=4") as server:
        body = {"prompt": "the film", "n": 4, "max_tokens": 40, "end_bias": -100, "seed": 1}
        began = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda _: server.ask(COMPLETION, body), range(6)))
        check("six requests that need all rows are served one after another",
              time.monotonic() - began < 8.0 and all(
                  answer["usage"]["completion_tokens"] == 160 for answer in answers))


def generated(seed, *flags):
    """Lines of generate for the prompt of SAID."""
    result = run("generate", CONFIG, "--prompt=the film", "--format=jsonl", "--quiet",
                 f"--run.seed={seed}", "--rollout.max_tokens=12", *flags)
    check("generate ends well", result.returncode == 0, result)
    return [json.loads(line) for line in result.stdout.splitlines()]


def is_same(choice, line):
    return (choice["message"]["content"] == line["response"]
            and choice["mpo"]["log_mixture"] == line["log_mixture"]
            and choice["mpo"]["log_policy"] == line["log_policy"])


def test_responses_are_those_of_generate():
    with Server(MPO, WORK, CONFIG) as server:
        for seed in range(3):
            for flags, body in (
                    (["--n=5"], {"n": 5}),
                    (["--weights=0.6,0.3,0.1", "--n=2"], {"n": 2, "weights": [0.6, 0.3, 0.1]}),
                    (["--best-of=6", "--end-bias=0"], {"best_of": 6})):
                answer = server.ask(CHAT, {"messages": SAID, "max_tokens": 12, "seed": seed,
                                           "policy_scores": True, **body})
                lines = generated(seed, *flags)
                check(f"generate {' '.join(flags)} with seed {seed}", len(lines) == len(
                    answer["choices"]) and all(map(is_same, answer["choices"], lines)))


def without_nulls(document):
    """OpenAI's types take no null where its own service sends one: as finish_reason of a
    completion's chunk, and of the first token of an echo."""
    for choice in document["choices"]:
        choice["finish_reason"] = choice["finish_reason"] or "stop"
        lists = choice["logprobs"] or {"token_logprobs": []}
        if lists["token_logprobs"][:1] == [None]:
            lists["token_logprobs"][0], lists["top_logprobs"][0] = 0.0, {}
    return document


def test_types():
    try:
        from openai.types import Completion
        from openai.types.chat import ChatCompletion, ChatCompletionChunk
    except ImportError:
        print("ok    SKIP types: needs the Python package openai")
        return
    with Server(MPO, WORK, CONFIG) as server:
        for path, body in BODIES:
            whole = server.ask(path, {"max_tokens": 12, **body})
            chunks = stream(server, path, {"max_tokens": 12, **body})
            if path == CHAT:
                ChatCompletion.model_validate(whole, strict=True)
                for chunk in chunks:
                    ChatCompletionChunk.model_validate(chunk, strict=True)
            else:
                for document in (whole, *chunks):
                    Completion.model_validate(without_nulls(document), strict=True)
            check(f"openai's types take {name(path, body)}", True)


fresh()
run_tests(globals())
