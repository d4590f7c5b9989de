#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clients made for OpenAI's service, unmodified: openai (sync, async, streams, errors and their
classes, a cancelled stream), langchain-openai, curl, and what README's section Serving shows.
On table policies one seed gives one response, so every way to ask has one right answer.

usage: openai_clients.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import asyncio
import json
import os
import re
import subprocess
import sys
import threading

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
from clients import need  # noqa: E402

need(sys.argv[1], "openai", "langchain_openai", "numpy")

import openai  # noqa: E402
import tables  # noqa: E402
from langchain_openai import ChatOpenAI, OpenAI as LangchainOpenAI  # noqa: E402
from person import MPO, WORK, check, fresh, run_tests  # noqa: E402
from server import Server  # noqa: E402

CONFIG = os.path.join(SOURCE, "configs/table.yaml")
SAID = [{"role": "user", "content": "the film"}]
ASKED = {"messages": SAID, "max_tokens": 12, "seed": 3}
LONG = {"model": "mpo", "prompt": "the film", "max_tokens": 300000, "extra_body": {"end_bias": -100}}


def client_of(server, kind=openai.OpenAI, **options):
    return kind(base_url=server.address + "/v1", **{"api_key": "none", "max_retries": 0, **options})


def plain(server, body):
    return server.ask("/v1/chat/completions", body)["choices"]


def test_sync():
    with Server(MPO, WORK, CONFIG) as server, client_of(server) as client:
        asked = {**ASKED, "n": 4, "logprobs": True, "top_logprobs": 3, "stop": [" good"]}
        answer = client.chat.completions.create(model="mpo", **asked)
        truth = plain(server, asked)
        check("texts of n choices", [choice.message.content for choice in answer.choices]
              == [choice["message"]["content"] for choice in truth])
        check("finish_reason", [choice.finish_reason for choice in answer.choices]
              == [choice["finish_reason"] for choice in truth])
        check("log-probabilities", all(
            [token.logprob for token in choice.logprobs.content]
            == [token["logprob"] for token in other["logprobs"]["content"]]
            and len(choice.logprobs.content[0].top_logprobs) == 3
            for choice, other in zip(answer.choices, truth)))
        check("no text has what stops it", all(
            " good" not in choice.message.content for choice in answer.choices))
        text = client.completions.create(model="mpo", prompt="the film", logprobs=2, echo=True,
                                         max_tokens=4, seed=1)
        check("echo", text.choices[0].text.startswith("the film")
              and text.choices[0].logprobs.token_logprobs[0] is None)
        names = [model.id for model in client.models.list()]
        check("models", "mpo" in names and "policy/warm" in names
              and client.models.retrieve("policy/warm").id == "policy/warm")


def test_streams():
    with Server(MPO, WORK, CONFIG) as server, client_of(server) as client:
        truth = plain(server, ASKED)[0]
        chunks = list(client.chat.completions.create(
            model="mpo", stream=True, stream_options={"include_usage": True}, **ASKED))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        check("a stream has the text", text == truth["message"]["content"])
        check("usage comes last", chunks[-1].usage.completion_tokens > 0)
        with client.chat.completions.stream(model="mpo", **ASKED) as stream:
            final = stream.get_final_completion()
        check("openai's own accumulator has it too",
              final.choices[0].message.content == text)


async def ask_together(server):
    async with client_of(server, openai.AsyncOpenAI) as client:
        async def streamed(seed):
            stream = await client.chat.completions.create(
                model="mpo", stream=True, **{**ASKED, "seed": seed})
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async def whole(seed):
            answer = await client.chat.completions.create(
                model="mpo", **{**ASKED, "seed": seed})
            return answer.choices[0].message.content
        return await asyncio.gather(*map(streamed, range(20)), *map(whole, range(20)))


def test_async():
    with Server(MPO, WORK, CONFIG, "--rows=4") as server:
        texts = asyncio.run(ask_together(server))
        truth = [plain(server, {**ASKED, "seed": seed})[0]["message"]["content"]
                 for seed in range(20)]
        check("40 at once", texts == truth + truth)


def raises(name, kind, call, code=None, param=None):
    try:
        call()
    except openai.APIStatusError as error:
        body = error.body or {}
        check(f"{name}: {type(error).__name__}, {body.get('code')}, {body.get('param')}",
              type(error) is kind and (code is None or body["code"] == code)
              and (param is None or body["param"] == param) and body["message"])
    else:
        check(f"{name}: no error", False)


def test_errors():
    with Server(MPO, WORK, CONFIG) as server, client_of(server) as client:
        chat = client.chat.completions.create
        for name, change, kind, code, param in (
                ("a field out of its range", {"temperature": 9}, openai.BadRequestError,
                 "invalid_value", "temperature"),
                ("an unknown model", {"model": "mpoo"}, openai.NotFoundError,
                 "model_not_found", "model"),
                ("wrong weights", {"model": "mpo@0.4:0.4:0.4"}, None, None, None),
                ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]},
                 openai.BadRequestError, "unsupported_parameter", "tools"),
                ("too long", {"max_tokens": 10 ** 9}, openai.BadRequestError, None, None)):
            raises(name, kind or openai.BadRequestError,
                   lambda change=change: chat(**{"model": "mpo", **ASKED, **change}), code, param)
        raises("a wrong path", openai.NotFoundError,
               lambda: client.embeddings.create(model="mpo", input="a"), "not_found")


def test_keys():
    path = os.path.join(WORK, "keys")
    with open(path, "w", encoding="utf-8") as file:
        file.write("me:secret\n")
    os.chmod(path, 0o600)
    with Server(MPO, WORK, CONFIG, f"--key-file={path}", key="secret") as server:
        for key in ("wrong", "none", "secre"):
            client = client_of(server, api_key=key)
            raises("a wrong key", openai.AuthenticationError,
                   lambda client=client: client.chat.completions.create(model="mpo", **ASKED),
                   "invalid_api_key")
        answer = client_of(server, api_key="secret").chat.completions.create(
            model="mpo", **ASKED)
        check("the right key", bool(answer.choices))


def test_cancelled_stream():
    idle = {"rows_live": 0, "cells_used": 0, "requests_running": 0}
    with Server(MPO, WORK, CONFIG, "--rows=2", "--context=400000") as server, client_of(server) as client:
        stream = client.completions.create(stream=True, **LONG)
        next(iter(stream))
        check("a stream has a row", server.uses(rows_live=1))
        stream.close()
        check("a closed stream has none", server.uses(**idle))
        impatient = client_of(server, timeout=0.05)
        try:
            impatient.completions.create(**LONG)
            check("a time-out", False)
        except openai.APITimeoutError:
            check("a client that gives up has no row", server.uses(**idle))


def test_full_queue():
    with Server(MPO, WORK, CONFIG, "--rows=1", "--queue=1", "--context=400000") as server, \
            client_of(server) as client:
        running = client.completions.create(stream=True, **LONG)
        next(iter(running))
        waiting = threading.Thread(
            target=lambda: client.completions.create(stream=True, **LONG).close())
        waiting.start()
        check("one waits", server.uses(requests_waiting=1, rows_live=1))
        raises("one too many", openai.RateLimitError,
               lambda: client.completions.create(**LONG), "queue_full")
        running.close()
        waiting.join()
        check("its turn came", server.uses(requests_waiting=0, requests_running=0))
        patient = client_of(server, max_retries=3)
        check("and others'", bool(patient.chat.completions.create(model="mpo", **ASKED).choices))


def test_langchain():
    with Server(MPO, WORK, CONFIG) as server:
        truth = plain(server, ASKED)[0]["message"]["content"]
        options = {"base_url": server.address + "/v1", "api_key": "none", "model": "mpo",
                   "seed": 3, "max_tokens": 12, "temperature": 1.0}
        chat = ChatOpenAI(**options)
        check("langchain: invoke", chat.invoke("the film").content == truth)
        check("langchain: stream", "".join(
            chunk.content for chunk in chat.stream("the film")) == truth)
        check("langchain: batch", [message.content for message in chat.batch(
            ["the film"] * 3)] == [truth] * 3)
        asked = {"prompt": "the film", "max_tokens": 12, "seed": 3}
        text = server.ask("/v1/completions", asked)["choices"][0]["text"]
        check("langchain: text", LangchainOpenAI(**options).invoke("the film") == text)


# ---- README ----

def serving():
    with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
        return file.read().split("\n## Serving\n")[1].split("\n## ")[0]


def test_readme():
    table = tables.random_tables(1, 2, 5, 1.0)
    config = tables.write_config(os.path.join(WORK, "readme"), table, ["a"], {},
                                 names=["sentiment", "concise"])
    with Server(MPO, WORK, config, "--presets", "kind=0.8,0.2") as server:
        section = re.sub(r"(http://)?(127\.0\.0\.1|localhost):8080", server.address, serving())
        # Words of a table's own tokens.
        section = section.replace("Write a review of a film about the sea.", "a b")
        section = section.replace("Hello", "a b")
        command = re.search(r"^    (curl .*?\}')$", section, re.DOTALL | re.MULTILINE).group(1)
        done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
        answer = json.loads(done.stdout)
        check("README's curl", answer.get("model") == "mpo@sentiment=0.7:concise=0.3"
              and answer["mpo"]["weights"] == {"sentiment": 0.7, "concise": 0.3})
        program = re.search(r"```py\n(.*?)```", section, re.DOTALL).group(1)
        done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True,
                              text=True)
        check("README's Python", done.returncode == 0 and not done.stderr, done)
        names = [model["id"] for model in server.ask("/v1/models")["data"]]
        check("README's preset", "mpo:kind" in names and "policy/concise" in names)


fresh()
run_tests(globals())
