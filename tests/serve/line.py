#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One waiting line for all groups of a server: who waits goes to whichever group has room, keys
have their shares over all groups, and who leaves the line leaves nothing.

usage: line.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import os
import re
import signal
import sys

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
import tables  # noqa: E402
from person import MPIEXEC, MPO, WORK, check, fresh, run_tests  # noqa: E402
from server import Job, Stream, connect  # noqa: E402
from waiting import comes_to  # noqa: E402

GROUPS = 2
TABLE = tables.random_tables(3, 3, 6, 0.5, end_logit=-7.0)
ENDLESS = {"prompt": "a b", "seed": 1, "max_tokens": 3000000, "end_bias": -100, "stream": True}
OTHER = "mpo@0.2:0.3:0.5"  # counted apart from mpo in the metrics


def job(*flags):
    """Groups of a rank with a row each."""
    config = tables.write_config(os.path.join(WORK, "tables"), TABLE, ["a"], {})
    return Job((MPO, MPIEXEC), WORK, config, GROUPS, "--exchange.ranks_per_group=1", "--rows=1",
               "--context=4000000", *flags)


def short(tokens, **more):
    return {"prompt": "a", "seed": tokens, "max_tokens": tokens, "end_bias": -100, **more}


def drawn(server, model):
    with server.open("/metrics") as response:
        found = re.search(rf'^mpo:generation_tokens_total{{model_name="{model}"}} (\S+)$',
                          response.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def answered(server, count):
    """Keys of the short answers, in the order in which the server gave them; the launcher hands its
    log on."""
    def keys():
        with open(server.log_path, encoding="utf-8") as log:
            found = re.findall(r"POST \S+ 200 \S+ s (\d+) bytes key (\S+)", log.read())
        return "".join(key for size, key in found if int(size) < 10000)
    comes_to(lambda: len(keys()) >= count)
    return keys()


def test_who_waits_goes_to_the_group_that_is_free():
    """One group has a stream without end; the other one serves the rest, in their order."""
    fresh()
    with job("--drain=0.1") as server:
        stream = Stream(server, ENDLESS)
        stream.wait_for_lines(10)
        clients = [Stream(server, short(tokens)) for tokens in (50, 60, 70, 80, 90, 100)]
        for client in clients:
            client.join()
        check("all are answered beside the stream", stream.is_alive() and all(
            client.status == 200 for client in clients))
        use = [group["requests_running"] for group in server.ask("/v1/mpo")["group_use"]]
        check(f"which its group still has: {use}", use == [1, 0])
        many = Stream(server, short(40, prompt=["a", "b", "c"] * 5))
        one = Stream(server, short(30))
        many.join()
        one.join()
        check("many prompts do not go to the busy one either", stream.is_alive()
              and many.last.count(b'"index"') == 15)
        server.process.send_signal(signal.SIGUSR1)
        stream.join()
        check("exit code 85", server.wait() == 85)


def test_who_waits_may_leave_and_be_late():
    fresh()
    with job("--queue-seconds=1", "--drain=600") as server:
        streams = [Stream(server, {**ENDLESS, "seed": i}, held=5) for i in range(GROUPS)]
        check("both groups are busy", server.uses(rows_live=GROUPS))
        late = [Stream(server, short(20 + i)) for i in range(3)]
        for one in late:
            one.join()
        check("who waits for too long is refused", all(
            one.status == 503 and b'"queue_timeout"' in one.last for one in late))
        check("and waits no more", server.uses(rows_live=GROUPS, requests_waiting=0))
        gone = [connect(server, short(20)) for _ in range(3)]
        check("others wait", server.uses(requests_waiting=3))
        for client in gone:
            client.close()
        check("who leaves waits no more", server.uses(rows_live=GROUPS, requests_waiting=0))
        for stream in streams:
            stream.server.end()
            stream.go_on()


def test_who_waits_is_told_of_the_end():
    fresh()
    with job("--drain=0.5") as server:
        streams = [Stream(server, {**ENDLESS, "seed": i}) for i in range(GROUPS)]
        check("both groups are busy", server.uses(rows_live=GROUPS))
        waits = [Stream(server, short(20 + i)) for i in range(3)]
        check("others wait", server.uses(requests_waiting=3))
        server.process.send_signal(signal.SIGUSR1)
        for one in streams + waits:
            one.join()
        check("who waits is told", all(one.status == 503 and b'"draining"' in one.last
                                       for one in waits))
        check("exit code 85", server.wait() == 85)


def test_keys_share_all_groups():
    """Key b draws without end in one group, so in the other one key a is first until it has drawn as
    much, whoever came first."""
    fresh()
    with open(os.path.join(WORK, "keys"), "w", encoding="utf-8") as file:
        file.write("a:secret-a\nb:secret-b\n")
    os.chmod(os.path.join(WORK, "keys"), 0o600)
    with job("--key-file=keys") as server:
        server.key = "secret-a"
        hers = connect(server, ENDLESS)  # key a's, which is paused because nobody reads it
        check("its row is paused", server.uses(rows_live=1, rows_paused=1))
        theirs = Stream(server, {**ENDLESS, "model": OTHER}, key="secret-b")
        check("and key b draws more", comes_to(
            lambda: drawn(server, "mpo@") > drawn(server, "mpo") + 10000))
        clients = []
        for key in "bbaaaaaa":
            clients.append(Stream(server, short(20 + len(clients)), key=f"secret-{key}"))
            check(f"{len(clients)} wait", server.uses(requests_waiting=len(clients)))
        hers.close()
        for client in clients:
            client.join()
        order = answered(server, len(clients))
        check(f"key a comes first: {order}", order == "aaaaaabb")
        check("the other stream lives", theirs.is_alive())
        server.end()


run_tests(globals())
