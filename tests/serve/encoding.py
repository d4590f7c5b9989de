#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Chats become tokens beside the steps: streams go on meanwhile, on one rank and on several, and
everything else is as if tokens had been there at once: answers, refusals, the order of requests,
clients that leave, the end of the server.

usage: encoding.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import json
import os
import re
import signal
import socket
import sys
import threading
import urllib.error

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
import tables  # noqa: E402
from person import MPIEXEC, MPO, WORK, check, fresh, run_tests  # noqa: E402
from server import Job, Server, Stream  # noqa: E402
from waiting import comes_to  # noqa: E402

CHAT = "/v1/chat/completions"
TABLE = tables.random_tables(3, 3, 6, 0.5, end_logit=-7.0)
CONTEXT = 4000000
FLAGS = (f"--context={CONTEXT}",)
WORDS = 300000   # of a long chat, whose tokens take a table milliseconds
STEPS = 50       # beside which so many are to be seen
ENDLESS = {"prompt": "a b", "seed": 1, "max_tokens": 2000000, "end_bias": -100, "stream": True}


def config():
    return tables.write_config(os.path.join(WORK, "tables"), TABLE, ["a"], {})


def server_on(ranks, *flags):
    if ranks == 1:
        return Server(MPO, WORK, config(), *FLAGS, *flags)
    return Job((MPO, MPIEXEC), WORK, config(), ranks, *FLAGS, *flags)


def chat(words, **more):
    return {"messages": [{"role": "user", "content": "a b c " * (words // 3)}], "seed": 5,
            "max_tokens": 20, **more}


# Its tokens are needed to know that it does not fit.
TOO_LONG = json.dumps(chat(WORDS, max_tokens=CONTEXT)).encode()


def refusal(server):
    """(status, message) of a long chat that the policies encode, and that is then refused."""
    try:
        with server.open(CHAT, json.loads(TOO_LONG)):
            return 200, ""
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]["message"]


def metric(server, name):
    with server.open("/metrics") as response:
        return float(re.search(rf"^mpo:{name}{{[^}}]*}} (\S+)$", response.read().decode(),
                               re.MULTILINE)[1])


def answer(server, body):
    document = server.ask(CHAT, body)
    return document["choices"], document["usage"]["prompt_tokens"]


def is_silent(server):
    return server.uses(rows_live=0, requests_waiting=0, requests_running=0, cells_used=0) \
        and comes_to(lambda: metric(server, "prompts_encoding") == 0)


def streams_go_on(server, title):
    alone = answer(server, chat(300)), refusal(server)
    check(f"{title}: the policies' count is in the refusal: {alone[1]}", alone[1][0] == 400
          and f"has {WORDS // 3 * 3 + 1} tokens" in alone[1][1])
    check(f"{title}: no step beside them, since nobody draws",
          metric(server, "steps_beside_encoding_total") == 0)
    stream = Stream(server, ENDLESS)
    stream.wait_for_lines(10)
    refusals = set()

    def are_seen():
        refusals.add(refusal(server))
        return metric(server, "steps_beside_encoding_total") >= STEPS
    check(f"{title}: a stream has {STEPS} steps while chats become tokens", comes_to(are_seen))
    check(f"{title}: refusals are those without a stream", refusals == {alone[1]})
    check(f"{title}: and so are answers", answer(server, chat(300)) == alone[0])
    check(f"{title}: the stream lives", stream.is_alive() and stream.status == 200)
    return stream


def leave(server, body):
    """A client that sends all of a request and is gone."""
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                       % (CHAT.encode(), len(data)) + data)


def clients_leave(server, title, count):
    """More than there are places for prompts; some while theirs is encoded."""
    alone = answer(server, chat(30))
    for i in range(count):
        leave(server, chat(WORDS // 20, seed=i))
    check(f"{title}: who stays is answered", answer(server, chat(30)) == alone)
    check(f"{title}: who left has left nothing", is_silent(server))


def sizes_of(server, count):
    """Bytes of the answers in the server's log, which a launcher hands on, once there are so many."""
    with open(server.log_path, encoding="utf-8") as log:
        sizes = map(int, re.findall(r"POST \S+ 200 \S+ s (\d+) bytes", log.read()))
    sizes = [size for size in sizes if size < 10000]  # and not the stream's
    return sizes if len(sizes) == count else None


def requests_keep_their_order(server, title):
    """One row: who came first is complete first, be its chat long and the next one's short. The
    server's log has the order, and how long an answer is."""
    held = Stream(server, {**ENDLESS, "max_tokens": 20000}, held=5)
    held.wait_for_lines(5)
    clients = []
    for tokens, path, body in ((300, CHAT, chat(WORDS // 20)), (200, CHAT, chat(3)),
                               (100, "/v1/completions", {"prompt": [0]})):
        body = {**body, "max_tokens": tokens, "end_bias": -100}
        clients.append(threading.Thread(target=server.ask, args=(path, body)))
        clients[-1].start()
        check(f"{title}: {len(clients)} wait", server.uses(requests_waiting=len(clients)))
    held.go_on()
    for client in clients:
        client.join()
    sizes = comes_to(lambda: sizes_of(server, len(clients)))
    check(f"{title}: in the order of their coming: bytes {sizes}",
          sizes and sizes == sorted(sizes, reverse=True))


def test_streams_go_on_while_chats_become_tokens():
    for ranks in (1, 2):
        fresh()
        with server_on(ranks, "--rows=2", "--drain=0.1") as server:
            title = f"{ranks} ranks"
            stream = streams_go_on(server, title)
            server.process.send_signal(signal.SIGUSR1)
            stream.join()
            check(f"{title}: exit code 85", server.process.wait() == 85)


def test_nobody_notices_anything_else():
    for ranks in (1, 2):
        fresh()
        with server_on(ranks, "--rows=1", "--drain=0.1") as server:
            title = f"{ranks} ranks, one row"
            requests_keep_their_order(server, title)
            clients_leave(server, title, 40)
            for _ in range(5):  # of them some are being encoded when it ends
                leave(server, chat(WORDS))
            server.process.send_signal(signal.SIGUSR1)
            check(f"{title}: exit code 85", server.process.wait() == 85)


run_tests(globals())
