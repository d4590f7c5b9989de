#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clients that leave: 200 at once, many of which go while they wait, while their prompt is
fed, in the middle of a stream, or with half a request sent. What they held is free again, and
those who stay get the answers that they get when alone: on table policies, to the byte. Half
of the bodies are long enough to be read beside the HTTP thread.

usage: leaving.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import asyncio
import json
import os
import random
import sys
import time

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
import tables  # noqa: E402
from person import MPIEXEC, MPO, WORK, check, fresh, run_tests  # noqa: E402
from server import Server  # noqa: E402
from waiting import comes_to  # noqa: E402

SEED, REFERENCES = 5, 12
LONG = 20000  # bytes of a body
SILENT = ("rows_live", "rows_paused", "requests_running", "requests_waiting", "cells_used")
ANSWER_SECONDS = 240
TABLE = tables.random_tables(3, 3, 6, 0.5, end_logit=-7.0)


def body_of(number):
    """One of REFERENCES requests, whose answers are long enough to be left."""
    shape = random.Random(number)
    prompt = " ".join(shape.choice("abc") for _ in range(shape.choice((2, 40, 400))))
    body = {"prompt": prompt, "seed": number, "max_tokens": shape.choice((20, 100, 400)),
            "n": shape.choice((1, 1, 2, 4)), "temperature": shape.choice((1.0, 0.7))}
    if number % 3 == 0:
        body.update(echo=True, logprobs=2)
    return body


def settled(document):
    """What is the same each time that an answer is made."""
    return [{key: value for key, value in choice.items() if key != "logprobs"}
            for choice in document["choices"]], document["usage"]["completion_tokens"]


def request_bytes(body, padding):
    data = json.dumps(body).encode() + b" " * padding
    return (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(data)) + data


def join(raw):
    """The choices of a stream, put together."""
    texts, reasons = {}, {}
    events = raw.split(b"\r\n\r\n", 1)[1]
    for line in events.split(b"\n"):
        if line.startswith(b"data: {"):
            document = json.loads(line[6:].decode())
            for choice in document["choices"]:
                index = choice["index"]
                texts[index] = texts.get(index, "") + choice["text"]
                reasons[index] = choice["finish_reason"] or reasons.get(index)
    return texts, reasons, b"data: [DONE]" in events


async def stay(reader, streams, reference):
    """Reads all; whether it is what a client alone got."""
    raw = await asyncio.wait_for(reader.read(), ANSWER_SECONDS)
    if not raw.startswith(b"HTTP/1.1 200"):
        raise AssertionError(raw[:500])
    choices, _ = reference
    if streams:
        texts, reasons, is_done = join(raw)
        return is_done and all(
            texts[choice["index"]] == choice["text"]
            and reasons[choice["index"]] == choice["finish_reason"] for choice in choices)
    head, content = raw.split(b"\r\n\r\n", 1)
    if b"chunked" in head.lower():
        raise AssertionError("a whole answer with its length was expected")
    return settled(json.loads(content)) == reference


async def client(number, port, references):
    """True or False of one that stayed, None of one that left."""
    dice = random.Random(SEED * 1000 + number)
    which = dice.randrange(REFERENCES)
    way = dice.choice(("whole", "stream", "early", "half", "timed", "timed", "in stream"))
    streams = way in ("stream", "in stream") or (way == "timed" and dice.random() < 0.5)
    data = request_bytes({**body_of(which), "stream": streams}, dice.choice((0, LONG)))
    await asyncio.sleep(dice.random() * 0.5)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data[:len(data) // 2] if way == "half" else data)
        await writer.drain()
        if way in ("whole", "stream"):
            return await stay(reader, streams, references[which])
        if way == "timed":
            await asyncio.sleep(dice.random() * 2.0)
        elif way == "in stream":
            await asyncio.wait_for(reader.read(dice.randrange(1, 4000)), ANSWER_SECONDS)
        return None
    finally:
        if dice.random() < 0.5:
            writer.transport.abort()
        writer.close()


async def crowd(count, port, references):
    return await asyncio.gather(*(client(i, port, references) for i in range(count)))


def leaves_nothing(title, count, launch=()):
    config = tables.write_config(os.path.join(WORK, "tables"), TABLE, ["a"], {})
    mpo = MPIEXEC if launch else MPO
    with Server(mpo, WORK, config, "--rows=6", "--queue=256", "--queue-seconds=0",
                "--log-requests=false", launch=launch) as server:
        references = [settled(server.ask("/v1/completions", body_of(number)))
                      for number in range(REFERENCES)]
        results = asyncio.run(crowd(count, server.port, references))
        stayed = [result for result in results if result is not None]
        check(f"{title}: {len(stayed)} of {count} stayed, and got what one alone gets",
              len(stayed) > count // 10 and all(stayed))
        use = server.uses(**dict.fromkeys(SILENT, 0))
        check(f"{title}: nothing is in use: {use or server.ask('/v1/mpo')['use']}", use)
        again = [settled(server.ask("/v1/completions", body_of(number)))
                 for number in range(REFERENCES)]
        check(f"{title}: the same answers afterwards", again == references)


def test_rows_pass_on():
    """Requests wait for the one row of a process; who ends makes way for the next at once."""
    config = tables.write_config(os.path.join(WORK, "tables"), TABLE, ["a"], {})
    with Server(MPO, WORK, config, "--rows=1", "--log-requests=false") as server:
        async def ask_all():
            return await asyncio.gather(*(asyncio.to_thread(
                server.ask, "/v1/completions", {"prompt": "a", "max_tokens": 40, "seed": seed})
                for seed in range(6)))
        seconds = []

        def is_quick():
            began = time.time()
            asyncio.run(ask_all())
            seconds.append(time.time() - began)
            return seconds[-1] < 5.0  # more where the machine is busy
        was_quick = comes_to(is_quick)
        check(f"six requests for one row take {seconds} s", was_quick)


def test_one_rank():
    leaves_nothing("one rank", 200)


def test_three_ranks():
    leaves_nothing("three ranks", 30, ("-n", "3", "--oversubscribe", MPO))


fresh()
run_tests(globals())
