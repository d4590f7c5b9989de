#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Groups of ranks as replicas behind one port. Whatever group answers, the answer is that of a
server with one group, to the byte; requests are spread, and a prompt goes where its beginning
is kept; what clients do, signals, and lost ranks have the same ends as with one group.

usage: replicas.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER [--sample]
"""
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
import sample  # noqa: E402
import tables  # noqa: E402
from person import MPIEXEC, MPO, WORK, fresh, run_tests  # noqa: E402
from person import check as check_result  # noqa: E402
from server import Job, Server, Stream, connect  # noqa: E402
from waiting import comes_to  # noqa: E402

ROWS = 4
FLAGS = (f"--rows={ROWS}", "--context=400000", "--isolated", "--log-requests=false")
LAYOUTS = {"2 groups of 2": (2, 2), "3 groups of 1": (3, 1)}
TABLE = tables.random_tables(3, 3, 6, 0.5, end_logit=-7.0)
SILENT = ("rows_live", "rows_paused", "requests_running", "requests_waiting", "cells_used")
LONG = {"prompt": "a b", "max_tokens": 60000, "end_bias": -100, "stream": True}
BODIES = [
    {"prompt": "a b c", "seed": 1, "max_tokens": 200, "logprobs": 3, "policy_scores": True},
    {"prompt": "b " * 300, "seed": 2, "max_tokens": 30, "echo": True, "logprobs": 2},
    {"prompt": ["a", "b c", "d a b"], "seed": 3, "max_tokens": 60, "n": 2, "stop": [" d a"]},
    {"prompt": "c", "seed": 4, "max_tokens": 80, "best_of": 3},
    {"prompt": "a", "seed": 5, "max_tokens": 90, "frequency_penalty": 0.3,
     "logit_bias": {"1": 1.5, "2": -100}, "temperature": 0.8, "top_p": 0.9},
    {"prompt": "a c", "seed": 6, "max_tokens": 70, "isolated": True, "model": "mpo@0.2:0.3:0.5"},
    {"prompt": "a c", "seed": 7, "max_tokens": 70, "model": "policy/policy1"},
    {"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}],
     "continue_final_message": True, "seed": 8, "max_tokens": 50, "logprobs": True,
     "top_logprobs": 2},
]


def check(name, condition, found=None):
    check_result(name if condition else f"{name}: found {found!r}", condition)


def config():
    return tables.write_config(os.path.join(WORK, "tables"), TABLE, ["a"], {})


def job(layout, *flags):
    groups, ranks = LAYOUTS[layout]
    return Job((MPO, MPIEXEC), WORK, config(), groups * ranks,
               f"--exchange.ranks_per_group={ranks}", *FLAGS, *flags)


def answer(server, body):
    """What is the same each time that it is made."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    document = server.ask(path, body)
    document["usage"].pop("prompt_tokens_details")
    for part in ("id", "created", "system_fingerprint"):
        document.pop(part)
    return document


def live(server):
    return [group["rows_live"] for group in server.ask("/v1/mpo")["group_use"]]


def metric(server, name):
    """{group: value}"""
    with server.open("/metrics") as response:
        text = response.read().decode()
    found = re.findall(rf'^mpo:{name}\{{model_name="mpo",group="(\d)"\}} (\S+)$', text,
                       re.MULTILINE)
    return {int(group): float(value) for group, value in found}


def is_silent(server):
    use = server.ask("/v1/mpo")
    return comes_to(lambda: not any(
        server.ask("/v1/mpo")["use"][name] for name in SILENT)), use


# ---- answers ----

def answers_are_those_of_one_group(server, layout, expected):
    """All bodies at once, several times, in every group."""
    groups = LAYOUTS[layout][0]
    with ThreadPoolExecutor(24) as pool:
        runs = [pool.submit(answer, server, body) for body in BODIES * 6]
        wrong = [run.result() for i, run in enumerate(runs)
                 if run.result() != expected[i % len(BODIES)]]
    check(f"{layout}: answers of one group", not wrong, wrong[:1])
    steps = metric(server, "steps_total")
    check(f"{layout}: of every group, after {steps} steps", len(steps) == groups
          and min(steps.values()) > 50, steps)
    refused = [Stream(server, {"prompt": "a b", "max_tokens": 399999}) for _ in range(2 * groups)]
    for one in refused:
        one.join()
    check(f"{layout}: refusals of one group", len({one.last for one in refused}) == 1
          and all(one.status == 400 and b'"context_length_exceeded"' in one.last
                  for one in refused), [one.last for one in refused])
    silent, use = is_silent(server)
    check(f"{layout}: nothing is in use", silent, use)


# ---- who decodes ----

def requests_are_spread(server, layout):
    groups = LAYOUTS[layout][0]
    clients = [connect(server, {**LONG, "stream": False, "seed": i})
               for i in range(groups * ROWS)]
    check(f"{layout}: rows of all groups", comes_to(
        lambda: live(server) == [ROWS] * groups), live(server))
    use = server.ask("/v1/mpo")
    check(f"{layout}: and their sum", use["use"]["rows_live"] == groups * ROWS
          and use["use"]["rows"] == groups * ROWS and use["groups"] == groups, use)
    found = metric(server, "rows")
    check(f"{layout}: and as metrics", found == {group: float(ROWS) for group in range(groups)},
          found)
    check(f"{layout}: health", server.ask("/health")["ranks"] == LAYOUTS[layout][1] * groups)
    for client in clients:
        client.close()
    silent, use = is_silent(server)
    check(f"{layout}: and free again", silent, use)


def prompts_find_their_beginning(server, layout):
    """A prompt that another group than the first has had is continued there."""
    body = {"prompt": "a b c d " * 60 + "e", "max_tokens": 3, "seed": 1}
    busy = connect(server, {**LONG, "prompt": "b", "stream": False})
    check(f"{layout}: the first group is busy", comes_to(
        lambda: live(server)[0] == 1), live(server))
    first = server.ask("/v1/completions", body)["usage"]["prompt_tokens_details"]
    other = connect(server, {**LONG, "prompt": "c", "stream": False})
    check(f"{layout}: and so is the second", comes_to(
        lambda: live(server)[:2] == [1, 1]), live(server))
    again = server.ask("/v1/completions", body)["usage"]["prompt_tokens_details"]
    check(f"{layout}: a prompt goes where it was: {first}, {again}",
          first["cached_tokens"] < 10 and again["cached_tokens"] >= 200, (first, again))
    busy.close()
    other.close()


# ---- clients ----

def clients_leave(server, layout, expected):
    """Some while they stream, some while they wait."""
    groups = LAYOUTS[layout][0]
    gone = [connect(server, {**LONG, "seed": i}) for i in range(3 * groups * ROWS)]
    check(f"{layout}: all rows are taken, and others wait", server.uses(
        rows_live=groups * ROWS, requests_waiting=2 * groups * ROWS))
    with ThreadPoolExecutor(4) as pool:
        stays = [pool.submit(answer, server, BODIES[0]) for _ in range(4)]
        for client in gone:
            client.close()
        found = [run.result() for run in stays]
    check(f"{layout}: who stays gets the same", found == [expected[0]] * 4, found)
    silent, use = is_silent(server)
    check(f"{layout}: who left has left nothing", silent, use)


def unread(layout, seed):
    """More tokens than are drawn before a client that reads nothing is noticed."""
    return {**LONG, "seed": seed, "max_tokens": 12000 if LAYOUTS[layout][1] > 1 else 80000}


def slow_clients_wait(server, layout):
    """One that reads nothing is paused, whatever of its answer is under way."""
    groups, body = LAYOUTS[layout][0], unread(layout, 3)
    slow = [connect(server, body) for _ in range(groups)]

    def paused():
        return [group["rows_paused"] for group in server.ask("/v1/mpo")["group_use"]]
    check(f"{layout}: a row that nobody reads is paused in every group",
          comes_to(lambda: paused() == [1] * groups), paused())
    before = server.ask("/v1/mpo")["use"]["steps"]
    time.sleep(0.2)
    check(f"{layout}: and no step is taken", server.ask("/v1/mpo")["use"]["steps"] == before)
    counts = set()
    for client in slow:
        with client.makefile("rb") as file:
            text = file.read()
        counts.add((text.count(b"data: {"), b"data: [DONE]" in text))
    check(f"{layout}: then read to its end", counts == {(body["max_tokens"] + 1, True)}, counts)


def time_limits(server, layout):
    groups = LAYOUTS[layout][0]
    streams = [Stream(server, {**LONG, "max_tokens": 90000, "n": ROWS, "stream": False})
               for _ in range(groups)]
    check(f"{layout}: all rows draw", server.uses(rows_live=groups * ROWS))
    late = [Stream(server, {**LONG, "stream": False}) for _ in range(groups)]
    for stream in streams + late:
        stream.join()
    check(f"{layout}: who waits for too long",
          all(b'"queue_timeout"' in one.last and one.status == 503 for one in late),
          [(one.status, one.last) for one in late])
    check(f"{layout}: who draws for too long",
          all(b'"deadline_exceeded"' in one.last for one in streams),
          [one.last for one in streams])
    silent, use = is_silent(server)
    check(f"{layout}: and then nothing is in use", silent, use)


# ---- the end ----

def running_requests_finish(server, layout):
    groups = LAYOUTS[layout][0]
    streams = [Stream(server, unread(layout, i), held=2) for i in range(groups)]
    for stream in streams:
        stream.wait_for_lines(2)
    server.process.send_signal(signal.SIGUSR1)
    check(f"{layout}: it stops", server.refuses())
    late = Stream(server, {"prompt": "a", "max_tokens": 1})
    late.join()
    check(f"{layout}: nothing more is taken", b'"draining"' in late.last, late.last)
    for stream in streams:
        stream.go_on()
    check(f"{layout}: streams of all groups are whole",
          all(stream.last == b"data: [DONE]\n" for stream in streams),
          [stream.last for stream in streams])
    check(f"{layout}: exit code 85", server.wait() == 85)


def the_rest_is_told(server, layout):
    streams = [Stream(server, {**LONG, "seed": i}) for i in range(LAYOUTS[layout][0])]
    for stream in streams:
        stream.wait_for_lines(5)
    server.process.send_signal(signal.SIGUSR1)
    for stream in streams:
        stream.join()
    check(f"{layout}: after serve.drain streams of all groups end with an error",
          all(b'"draining"' in stream.last for stream in streams),
          [stream.last for stream in streams])
    check(f"{layout}: and the server with 85", server.wait() == 85)


def processor_seconds(processes):
    ticks = 0
    for process in processes:
        with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
            ticks += sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def idle_ranks_sleep(server, layout):
    ranks = list(server.rank_processes().values())
    seconds = []

    def is_cheap():
        before = processor_seconds(ranks)
        time.sleep(1.0)
        seconds.append(processor_seconds(ranks) - before)
        return seconds[-1] <= 0.02  # more where something is still under way
    was_cheap = comes_to(is_cheap)
    check(f"{layout}: seconds of processor time in a second of idleness {seconds}", was_cheap)


def lose_one(layout, phase, rank, number):
    groups = LAYOUTS[layout][0]
    # The deadline ends what a rank that stands still would hold; a lost one is the launcher's affair.
    deadline = 2 if number == signal.SIGSTOP else 60
    server = job(layout, f"--run.step_deadline={deadline}", "--context=4000000")
    server.wait_until_ready()
    streams = [Stream(server, {**LONG, "seed": i, "max_tokens": 3000000})
               for i in range(groups if phase == "drawing" else 0)]
    for stream in streams:
        stream.wait_for_lines(20)
    for name, condition, found in server.lose_rank(rank, number, streams):
        check(f"{layout}, rank {rank} gets {number.name} while {phase}: {name}", condition,
              found)


def stop_by(layout, phase, rank, number):
    with job(layout, "--drain=600") as server:
        streams = [Stream(server, unread(layout, i), held=2)
                   for i in range(LAYOUTS[layout][0] if phase == "drawing" else 0)]
        for stream in streams:
            stream.wait_for_lines(2)
        os.kill(server.rank_processes()[rank], number)
        name = f"{layout}, rank {rank} gets {number.name} while {phase}"
        if streams:
            check(f"{name}: it stops", server.refuses())
        for stream in streams:
            stream.go_on()
            check(f"{name}: a stream is whole", stream.last == b"data: [DONE]\n", stream.last)
        code = server.wait()
        wanted = 85 if number == signal.SIGUSR1 else 0
        check(f"{name}: exit code {wanted}", code == wanted, code)


def test_a_signal_to_any_rank():
    cases = [(layout, phase, rank, number) for layout, shape in LAYOUTS.items()
             for phase in ("idle", "drawing") for rank in range(shape[1], shape[0] * shape[1])
             for number in (signal.SIGTERM, signal.SIGUSR1)]
    for case in sample.some("signals", cases, 2):
        fresh()
        stop_by(*case)


def test_a_start_that_fails():
    """Ranks end one after the other, and none takes that for a loss."""
    for layout in [*LAYOUTS] * 2:
        fresh()
        os.mkdir(os.path.join(WORK, "url.part"))
        server = job(layout, "--url-file=url")
        code = server.wait()
        with open(server.log_path, encoding="utf-8") as log:
            text = log.read()
        check(f"{layout}: exit code 73", code == 73, (code, text[-1500:]))
        check(f"{layout}: nothing but the reason", "url.part cannot be written" in text
              and "was lost" not in text, text[-1500:])


def test_lost_ranks():
    cases = [(layout, phase, rank, number) for layout, shape in LAYOUTS.items()
             for phase in ("idle", "drawing") for rank in range(shape[0] * shape[1])
             for number in (signal.SIGKILL, signal.SIGSTOP)]
    for case in sample.some("lost ranks", cases, 2):
        fresh()
        lose_one(*case)


def test_what_is_served():
    fresh()
    with Server(MPO, WORK, config(), *FLAGS) as one:
        expected = [answer(one, body) for body in BODIES]
    for layout in LAYOUTS:
        with job(layout) as server:
            answers_are_those_of_one_group(server, layout, expected)
            requests_are_spread(server, layout)
            prompts_find_their_beginning(server, layout)
            clients_leave(server, layout, expected)
            slow_clients_wait(server, layout)
            idle_ranks_sleep(server, layout)
            running_requests_finish(server, layout)


def test_limits():
    for layout in sample.one("limits", LAYOUTS):
        fresh()
        with job(layout, "--deadline=3", "--queue-seconds=0.3", "--drain=0.2") as server:
            time_limits(server, layout)
            the_rest_is_told(server, layout)


run_tests(globals())
