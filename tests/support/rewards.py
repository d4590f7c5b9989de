#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A reward program for the tests: the sum of a value for each word of a response.

    rewards.py VALUES.json [--batch] [--pid FILE]

VALUES.json is {"name": {"word": value}}. --batch answers the last request of a batch first.
It leaves its process number in FILE. With MPO_TEST_FAULT=KIND,N in the environment it does at
the N-th request what KIND says, and a reward program must not; before that it makes FILE.fault.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time


def reward(values, request):
    words = request["response"].split()
    assert request["token_count"] >= len(words), request
    return {name: sum(value[word] for word in words) for name, value in values.items()}


def answer(values, request):
    return json.dumps({"id": request["id"], "ignored": None, **reward(values, request)})


def lie(kind, values, request):
    """Answers that are none."""
    good = {"id": request["id"], **reward(values, request)}
    first = sorted(values)[0]
    if kind == "nan":
        return json.dumps({**good, first: float("nan")})
    if kind == "null":
        return json.dumps({**good, first: None})
    if kind == "missing":
        return json.dumps({name: value for name, value in good.items() if name != first})
    if kind == "unknown":
        return json.dumps({**good, "id": request["id"] + 1000000})
    if kind == "anonymous":
        return json.dumps({name: value for name, value in good.items() if name != "id"})
    if kind == "repeated":
        return answer(values, request) + "\n" + answer(values, request)
    if kind == "array":
        return "[1, 2]"
    if kind == "chatter":
        return "loading the reward model ..."
    if kind == "huge":  # finite, and its square is not
        return json.dumps({**good, first: 1e308})
    if kind == "long":
        return json.dumps({**good, "padding": "x" * 1000000})
    raise SystemExit("no fault " + kind)


def misbehave(kind, values, request, mark):
    if kind == "exit":
        print("Traceback: a bug of mine", file=sys.stderr)
        sys.exit(3)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "slow":
        time.sleep(3.5)
        print(answer(values, request))
        return
    if kind == "held":  # until somebody removes the file
        while os.path.exists(mark):
            time.sleep(0.01)
        print(answer(values, request))
        return
    if kind == "stall":
        subprocess.Popen(["sleep", "600"])
        time.sleep(600)
    if kind == "deaf":
        os.close(0)
        time.sleep(600)
    if kind == "mute":
        os.close(1)
        time.sleep(600)
    print(lie(kind, values, request), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("values")
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--pid")
    arguments = parser.parse_args()
    with open(arguments.values, encoding="utf-8") as stream:
        values = json.load(stream)
    if arguments.pid:
        with open(arguments.pid, "a", encoding="utf-8") as stream:
            stream.write("%d\n" % os.getpid())
    fault, _, at = os.environ.get("MPO_TEST_FAULT", ",0").partition(",")
    held = []
    for number, line in enumerate(sys.stdin, 1):
        request = json.loads(line)
        assert list(request) == ["id", "prompt", "prefill", "response", "token_count", "left"]
        if number == int(at):
            mark = "%s.fault" % arguments.pid
            with open(mark, "w", encoding="utf-8"):
                pass
            misbehave(fault, values, request, mark)
            continue
        if not arguments.batch:
            print(answer(values, request))  # no flush: the environment sees to it
            continue
        held.append(answer(values, request))
        if request["left"] == 0:
            print("\n\n".join(reversed(held)), flush=True)
            held = []


main()
