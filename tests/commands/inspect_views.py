#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`mpo inspect` shows what is in a record, whatever state the record is in.

    inspect_views.py MPO TOOL WORK_FOLDER

TOOL is record_writer_tool, whose values follow from the step (record_example.h). What inspect
prints is compared with what h5py reads, of records that are finished, being written, left by
a crash, moved aside, or of another version of the schema.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import h5py
import numpy as np

from waiting import PATIENCE_SECONDS

MPO, TOOL, WORK = (os.path.abspath(path) for path in sys.argv[1:4])
FAILURES = []
TABLE = """mpo-table 1
tokens a b </s>
row <s> {row}
row a {row}
row b {row}
"""
CONFIG = """run: {seed: 1}
prompts: {file: prompts.txt}
policies:
  - {name: up, model: up.table}
  - {name: down, model: down.table}
rollout: {responses: 8, max_tokens: 8}
descent: {steps: 6}
record: {file: out.h5}
"""


def write(name, text):
    with open(os.path.join(WORK, name), "w", encoding="utf-8") as file:
        file.write(text)


def run(*arguments):
    return subprocess.run([MPO, *arguments], cwd=WORK, capture_output=True, text=True,
                          timeout=600, check=False)


def inspect(*arguments):
    return run("inspect", *arguments)


def check(name, condition, result=None):
    print(("ok    " if condition else "FAIL  ") + name)
    if not condition:
        FAILURES.append(name)
        if result is not None:
            print(f"      exit {result.returncode}\n{result.stdout}\n{result.stderr}")


def refused(name, code, words, *arguments):
    result = inspect(*arguments)
    check(f"{name}: exit {code}", result.returncode == code and result.stdout == ""
          and all(word in result.stderr for word in words), result)


def read(name, path):
    with h5py.File(os.path.join(WORK, name), "r", swmr=True, libver="latest") as file:
        return file[path][()]


def start_writer(name, steps, pause):
    """A run that writes, after its first three steps."""
    writer = subprocess.Popen([TOOL, "write", os.path.join(WORK, name), str(steps), str(pause)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for line in writer.stdout:
        if line.strip() == "acknowledged 3":
            break
    return writer


def end(process, kill=False):
    if kill:
        process.kill()
    for _ in process.stdout:
        pass
    process.wait()
    process.stdout.close()


def start_follow(name, *arguments):
    return subprocess.Popen([MPO, "inspect", "--follow", name, *arguments], cwd=WORK, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(follow):
    """What is left to read; one that does not end by itself is ended, and fails."""
    timer = threading.Timer(PATIENCE_SECONDS, follow.kill)
    timer.start()
    with follow.stdout, follow.stderr:
        texts = follow.stdout.read(), follow.stderr.read()
    follow.wait()
    timer.cancel()
    return texts


def steps_of(output):
    return [int(line.split("\t")[0]) for line in output.splitlines()[1:]]


def test_every_series_reads_back():
    fields = [line.split()[0] for line in inspect("--schema").stdout.splitlines()[2:]]
    check("--schema lists the series", "timing/decode" in fields and len(fields) > 30)
    check("rewards too, which this record does not have", "rewards" in fields)
    fields.remove("rewards")
    result = inspect("out.h5", "--format=tsv", "--series=rewards")
    check("which is said where they are asked for", result.returncode == 65
          and "no reward program" in result.stderr, result)
    given = json.loads(inspect("out.h5", "--format=json").stdout)
    check("json says the state and the names", given["state"] == "finished"
          and given["planned_steps"] == len(given["step"])
          and given["objective"] == ["up", "down"] and given["log_schema"] == "mpo-1.1")
    check("what was mixed", given["mixture"] == "logits"
          and "mixture of     logits\n" in inspect("out.h5").stdout)
    check("json has every series", sorted(given["series"]) == sorted(fields))
    check("json is exact", all(np.array_equal(np.array(given["series"][f], float),
                                              read("out.h5", f), equal_nan=True) for f in fields))
    for field in fields:
        lines = inspect("out.h5", "--format=tsv", "--series", field).stdout.splitlines()
        value = read("out.h5", field)
        names = [field] if value.ndim == 1 else [f"{field}.up", f"{field}.down"]
        found = np.array([line.split("\t")[1:] for line in lines[1:]], float)
        if lines[0].split("\t") != ["step", *names] or not np.array_equal(
                found, value.reshape(len(value), -1), equal_nan=True):
            check(f"tsv of {field}", False)
    some = inspect("out.h5", "--format=tsv", "--series=value,average,timing/decode").stdout
    check("--series takes several", some.splitlines()[0].split("\t")
          == ["step", "average.up", "average.down", "value", "timing/decode"])
    some = json.loads(inspect("out.h5", "--format=json", "--series=value").stdout)
    check("--series of json", list(some["series"]) == ["value"])
    refused("an unknown series", 64, ["velocity", "--schema"], "out.h5", "--format=tsv",
            "--series=velocity")
    refused("a series without a format", 64, ["--format"], "out.h5", "--series=value")


def test_the_state_is_said():
    writer = start_writer("state.h5", 100000, 20)
    live = inspect("state.h5")
    check("a live record", "being written" in live.stdout and live.returncode == 0, live)
    end(writer, kill=True)
    dead = inspect("state.h5")
    check("a crashed record, with the way out", "left by a crash" in dead.stdout
          and "`mpo recover state.h5`" in dead.stdout, dead)
    check("a crashed record as json",
          json.loads(inspect("state.h5", "--format=json").stdout)["state"] == "left by a crash")
    check("a finished record", "finished" in inspect("out.h5").stdout)


def test_follow_shows_steps_as_they_come():
    writer = start_writer("grow.h5", 40, -1)  # at the end of its input it goes on
    follow = start_follow("grow.h5", "--series", "value,weights")
    head = follow.stdout.readline()
    first = follow.stdout.readline()
    check("the head", head.strip().split("\t") == [
        "step", "weights.helpful", "weights.harmless", "weights.concise", "value"])
    check("steps are shown while the run goes on", first.startswith("0\t")
          and writer.poll() is None)
    writer.stdin.close()
    rest, errors = finish(follow)
    end(writer)
    check("every step is shown once", steps_of(head + first + rest) == list(range(40)))
    check("values are those of the record", rest.splitlines()[-1].split("\t")[1:]
          == [f"{v:.17g}" for v in (*read("grow.h5", "weights")[39], read("grow.h5", "value")[39])])
    check("it ends with the run", follow.returncode == 0
          and "grow.h5 is finished: 40 steps" in errors)
    done = inspect("--follow", "grow.h5")
    check("a finished record is shown whole", steps_of(done.stdout) == list(range(40)), done)


def test_follow_ends_with_its_writer():
    writer = start_writer("die.h5", 100000, 10)
    follow = start_follow("die.h5")
    follow.stdout.readline()
    end(writer, kill=True)
    output, errors = finish(follow)
    steps = len(read("die.h5", "step"))
    check("a killed run ends it, after its last step", follow.returncode == 0
          and steps_of("\n" + output) == list(range(steps)))
    check("it says how to go on", "`mpo recover die.h5`" in errors)


def test_follow_ends_at_an_interrupt():
    writer = start_writer("stop.h5", 100000, 10)
    follow = start_follow("stop.h5")
    follow.stdout.readline()
    follow.send_signal(signal.SIGINT)
    _, errors = finish(follow)
    end(writer, kill=True)
    check("Ctrl-C ends it quietly", follow.returncode == 0 and errors == "")


def test_follow_does_not_take_another_run_for_its_own():
    writer = start_writer("again.h5", 1000, 10)
    follow = start_follow("again.h5", "--series=value")
    follow.stdout.readline()
    follow.stdout.readline()
    follow.send_signal(signal.SIGSTOP)
    end(writer, kill=True)
    os.rename(os.path.join(WORK, "again.h5"), os.path.join(WORK, "again.h5.1"))
    second = start_writer("again.h5", 100000, 10)
    follow.send_signal(signal.SIGCONT)
    output, _ = finish(follow)
    end(second, kill=True)
    check("a record that was moved aside ends it", follow.returncode == 0
          and len(output.splitlines()) == len(read("again.h5.1", "step")) - 1)


def check_sample(name, sample):
    """One sample of --format=json against the file."""
    r = sample["response"]
    with h5py.File(os.path.join(WORK, name), "r", swmr=True, libver="latest") as file:
        group = file["responses"]
        at, size = group["text_offset"][r], group["text_bytes"][r]
        prompt = group["prompt"][r]
        start, stop = file["prompts/offset"][prompt:prompt + 2]
        objectives = len(file["objective"])
        row = list(file["step"][()]).index(group["step"][r])
        strength, log_policy = float(file.attrs["strength"]), group["log_policy"][r]
        mu = strength * file["scale"][()] * file["weights"][row]
        weight = mu @ log_policy[:objectives]
        if len(log_policy) > objectives:
            weight += (1.0 - mu.sum()) * log_policy[objectives]
        names = [text.decode() for text in file["policy"][()]]
        return (sample["text"] == bytes(group["text"][at:at + size]).decode()
                and sample["prompt"] == bytes(file["prompts/text"][start:stop]).decode()
                and sample["prompt_index"] == prompt and sample["step"] == group["step"][r]
                and sample["token_count"] == group["token_count"][r]
                and sample["ended"] == bool(group["ended"][r])
                and list(sample["log_policy"]) == names
                and list(sample["log_policy"].values()) == list(group["log_policy"][r])
                and sample["log_proposal"] == group["log_proposal"][r]
                and abs(sample["log_weight"] - weight + group["log_proposal"][r]) < 1e-9)


def test_responses_are_shown_beside_their_scores():
    total = len(read("out.h5", "responses/step"))
    for name in ("out.h5", "die.h5"):
        given = json.loads(inspect(name, "--responses=5", "--format=json").stdout)
        check(f"samples of {name} are those of the file", len(given) == 5
              and all(check_sample(name, sample) for sample in given))
    given = json.loads(inspect("out.h5", "--responses=1000", "--format=json").stdout)
    check("no more than there are", [s["response"] for s in given] == list(range(total)))
    text = inspect("out.h5", "--responses", "3")
    sample = json.loads(inspect("out.h5", "--responses=3", "--format=json").stdout)[-1]
    check("samples for a person", text.stdout.count("log weight") == 3
          and f"up {sample['log_policy']['up']:.3f}" in text.stdout
          and f"{sample['log_weight']:.3f} nat" in text.stdout
          and sample["text"] in text.stdout, text)
    run("fit", "config.yaml", "--quiet", "--record.file=bare.h5", "--record.responses=false")
    refused("a record without responses", 65, ["bare.h5", "record.responses"], "bare.h5",
            "--responses=2")
    for number in ("many", "-3"):
        refused(f"{number} responses", 64, ["--responses"], "out.h5", f"--responses={number}")


def test_compare():
    run("fit", "config.yaml", "--quiet", "--record.file=long.h5", "--descent.steps=9",
        "--policies.down.temperature=0.5")
    result = inspect("--compare", "out.h5", "long.h5")
    lines = result.stdout.splitlines()
    row = {line.split("  ")[0].strip(): line.split()[-3:] for line in lines}
    for name, path, digits, reduce in (("up", "average", 4, lambda v: v[-1][0]),
                                       ("down", "average", 4, lambda v: v[-1][1]),
                                       ("F of the draws, nat", "value", 4, lambda v: v[-1]),
                                       ("averaged gap, nat", "averaged_gap", 4, lambda v: v[-1]),
                                       ("sample size, mean", "ess", 4, np.mean),
                                       ("tokens", "tokens", 0, np.sum),
                                       ("steps", "step", 0, len)):
        a, b = reduce(read("out.h5", path)), reduce(read("long.h5", path))
        check(f"compare: {name}", row.get(name) == [f"{v:.{digits}f}" for v in (a, b, b - a)],
              result)
    differences = result.stdout[result.stdout.index("configuration"):]
    for key, a, b in (("descent.steps", "6", "9"), ("policies.down.temperature", "1", "0.5")):
        check(f"compare: {key}", f"{key}\n    first   {a}\n    second  {b}\n" in differences,
              result)
    check("compare: only what differs", "policies.up" not in differences
          and "max_tokens" not in differences, result)
    same = inspect("--compare", "out.h5", "out.h5")
    check("compare: the same record", "nowhere" in same.stdout, same)
    mixed = inspect("--compare", "out.h5", "die.h5")
    check("compare: other objectives, and a crashed record", mixed.returncode == 0
          and "helpful" in mixed.stdout and "left by a crash" in mixed.stdout, mixed)
    refused("one record to compare", 64, ["two records", "1"], "--compare", "out.h5")
    refused("a missing record to compare", 66, ["no.h5"], "--compare", "out.h5", "no.h5")
    refused("a comparison as json", 64, ["--compare"], "--compare", "out.h5", "long.h5",
            "--format=json")
    refused("two views", 64, ["choose one"], "out.h5", "--follow", "--responses=3")


def test_other_versions_of_the_schema():
    older = os.path.join(WORK, "older.h5")
    shutil.copyfile(os.path.join(WORK, "out.h5"), older)
    with h5py.File(older, "r+") as file:
        del file["entropy"]
        del file["timing/estimate"]
        del file["checksum"]
    tsv = inspect("older.h5", "--format=tsv")
    head = tsv.stdout.split("\n", 1)[0].split("\t")
    check("a series that an older record lacks is left out", tsv.returncode == 0
          and "entropy" not in head and "timing/estimate" not in head and "value" in head, tsv)
    check("so it is of json", "entropy" not in json.loads(
        inspect("older.h5", "--format=json").stdout)["series"])
    for arguments in ((), ("--follow",), ("--responses=1",), ("--plot=older.svg",)):
        result = inspect("older.h5", *arguments)
        check(f"an older record {arguments}", result.returncode == 0, result)
    refused("an absent series by name", 65, ["older.h5", "entropy"], "older.h5", "--format=tsv",
            "--series=entropy")
    for schema in ("mpo-1.9", "mpo-2.0", "mpo-1.0x", "mpo-1", "other"):
        with h5py.File(older, "r+") as file:
            file.attrs["log_schema"] = schema
        refused(f"schema {schema}", 65, [f'"{schema}"', '"mpo-1.1"'], "older.h5")


def test_plot_shows_the_stages():
    if shutil.which("gnuplot") is None:
        print("SKIP  no gnuplot")
        return
    for name in ("out.h5", "die.h5"):
        result = inspect(name, "--plot", "out.svg")
        with open(os.path.join(WORK, "out.svg"), encoding="utf-8") as file:
            text = file.read()
        check(f"the plot of {name} names every stage", result.returncode == 0
              and all(f"{stage} " in text for stage in
                      ("decode", "exchange", "mixture", "estimate", "record"))
              and "s a step" in text, result)


shutil.rmtree(WORK, ignore_errors=True)
os.makedirs(WORK)
write("prompts.txt", "a\nb\n")
write("config.yaml", CONFIG)
write("up.table", TABLE.format(row="0.6 0.2 0.2"))
write("down.table", TABLE.format(row="0.1 0.5 0.4"))
made = run("fit", "config.yaml", "--quiet")
check("a record is made", made.returncode == 0, made)
started = time.monotonic()
for test in (test_every_series_reads_back, test_the_state_is_said,
             test_follow_shows_steps_as_they_come, test_follow_ends_with_its_writer,
             test_follow_ends_at_an_interrupt,
             test_follow_does_not_take_another_run_for_its_own,
             test_responses_are_shown_beside_their_scores, test_compare,
             test_other_versions_of_the_schema, test_plot_shows_the_stages):
    print(f"-- {test.__name__}")
    test()
print(f"{time.monotonic() - started:.1f} s")
shutil.rmtree(WORK, ignore_errors=True)
if FAILURES:
    print(f"{len(FAILURES)} checks failed: {FAILURES}")
    sys.exit(1)
