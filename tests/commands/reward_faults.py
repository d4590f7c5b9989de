#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reward programs that end, lie or stall: the message, the exit code, the record, and that
nothing is left running.

    reward_faults.py MPO MPIRUN WORK
"""

import json
import os
import shutil
import signal
import subprocess
import sys

import h5py

import fit_rewards
import tables
from waiting import PATIENCE_SECONDS, comes_to

MPO, MPIRUN, WORK = os.path.abspath(sys.argv[1]), sys.argv[2], os.path.abspath(sys.argv[3])
STEP = 16  # responses of a step

# What it does at the third answer of the third step, the exit code, and words of the message.
FAULTS = [
    ("exit", 75, ["ended after 2 of 16 answers", "exit code 3"]),
    ("killed", 75, ["ended after 2 of 16 answers", "signal 9"]),
    ("mute", 75, ["ended after 2 of 16 answers", "closed its output"]),
    ("stall", 75, ["late", "2 of 16 answers", "rewards.deadline (%d s)"]),
    ("deaf", 75, ["late", "rewards.deadline"]),
    ("nan", 65, ["NaN", "one JSON object a line", '"id": 130']),
    ("null", 65, ['"reward0" to be a number', '"id": 130']),
    ("missing", 65, ['a number named "reward0"', '"id": 130']),
    ("unknown", 65, ["128 to 143", '"id": 1000130']),
    ("anonymous", 65, ['expected the "id" of a request (128 to 143)']),
    ("repeated", 65, ["130 was answered before"]),
    ("array", 65, ["one JSON object a line", "[1, 2]"]),
    ("chatter", 65, ["loading the reward model", "standard error"]),
    ("huge", 65, ["the reward of 'policy0'", "found 1e+308"]),
    ("long", 65, ["less than 65536 bytes"]),
]


def prepare(name):
    world = fit_rewards.make_world(7, 2, False)
    folder = os.path.join(WORK, name)
    pids = os.path.join(folder, "pids")
    os.makedirs(folder, exist_ok=True)
    for old in os.listdir(folder):
        os.remove(os.path.join(folder, old))
    config, more = fit_rewards.prepare(folder, world, ("--pid", pids))
    return folder, [MPO, "fit", config, *more, "--descent.steps=6", "--rewards.deadline=100",
                    "--rewards.calibration=2", "--quiet",
                    "--record.file=" + os.path.join(folder, "out.h5")]


def with_fault(fault, run):
    os.environ["MPO_TEST_FAULT"] = fault
    try:
        return run()
    finally:
        del os.environ["MPO_TEST_FAULT"]


def was_reached(folder):
    """Whether the program came to its fault."""
    return os.path.exists(os.path.join(folder, "pids.fault"))


def with_deadline(fault, attempt):
    """attempt(flags, seconds) with a fault that ends by rewards.deadline: 1 s, and more where a busy
    machine did not bring the program to its fault in time. attempt gives its folder first."""
    for seconds in (1, 10, 100):
        result = with_fault(fault, lambda: attempt(["--rewards.deadline=%d" % seconds], seconds))
        if was_reached(result[0]):
            break
    return result


def check_gone(folder, programs):
    """Programs are leaders of process groups, so their children are looked for too."""
    with open(os.path.join(folder, "pids"), encoding="utf-8") as stream:
        pids = [int(line) for line in stream]
    tables.check(len(pids) == programs, "%d programs were started, not %d" % (
        len(pids), programs))
    for pid in pids:
        tables.check(comes_to(lambda: is_gone(pid)), "program %d is still there" % pid)


def is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def steps_of(folder):
    with h5py.File(os.path.join(folder, "out.h5"), "r") as record:
        return len(record["step"]), record["average"][()].tobytes()


def every_fault_ends_the_run_with_a_record_to_resume():
    whole, command = prepare("whole")
    tables.run(command)
    check_gone(whole, 1)
    for fault, code, words in FAULTS:
        ranks = 2 if fault in ("killed", "stall", "nan") else 1

        def attempt(flags, seconds):
            folder, command = prepare(fault)
            _, said = tables.run_ranks(MPIRUN, ranks, command + flags, expect=code)
            return folder, command, said, seconds

        place = "%s,%d" % (fault, 2 * STEP + 3)
        folder, command, said, seconds = with_deadline(place, attempt) if "late" in words else with_fault(
            place, lambda: attempt([], None))
        for word in words + ["step 3 of fit", "2 steps are in", "--resume"]:
            word = word % seconds if "%d" in word else word
            tables.check(word in said, "%s: no '%s' in: %s" % (fault, word, said))
        tables.check(said.count("mpo: ") == 1, "%s: %s" % (fault, said))
        tables.check(fault != "exit" or "a bug of mine" in said, "its own message is lost")
        check_gone(folder, 1)
        tables.check(steps_of(folder)[0] == 2, "%s: no record of 2 steps" % fault)
        tables.run(command + ["--resume"])
        check_gone(folder, 2)
        tables.check(steps_of(folder) == steps_of(whole), fault + ": resumed otherwise")


def a_program_that_cannot_run_is_named_and_leaves_no_record():
    folder, command = prepare("missing_program")
    _, said = tables.run(command + ["--rewards.command=no-such-program-here"], expect=75)
    tables.check("exit code 127" in said and "no-such-program-here" in said
                 and "after 0 of 16" in said, said)
    tables.check(not os.path.exists(os.path.join(folder, "out.h5")), "a record was left")


def a_fault_of_the_calibration_is_told_once():
    for fault, code in (("nan", 65), ("exit", 75)):
        for ranks in (1, 2):
            folder, command = prepare("calibration")
            command = [flag for flag in command if ".reward_" not in flag]
            _, said = with_fault(fault + ",20", lambda: tables.run_ranks(
                MPIRUN, ranks, command, expect=code))
            tables.check("the reward program" in said and said.count("mpo: ") == 1, said)
            check_gone(folder, 1)
            tables.check(not os.path.exists(os.path.join(folder, "out.h5")), "a record")


def deadlines_of_other_ranks_wait_for_the_program():
    """The program takes longer than rank one would wait for rank zero otherwise. Rank zero misses rank
    one where that is stopped by a busy machine for so long: this shows nothing of it."""
    def attempt():
        folder, command = prepare("slow")
        try:
            with_fault("slow,%d" % (2 * STEP + 3), lambda: tables.run_ranks(
                MPIRUN, 2, command + ["--run.step_deadline=0.3"]))
        except AssertionError as problem:
            if "rank 1 on" in str(problem) or "although all ranks respond" in str(problem):
                return None
            raise
        return folder

    folder = comes_to(attempt)
    tables.check(folder, "the deadline of the ranks passes")
    check_gone(folder, 1)
    tables.check(steps_of(folder)[0] == 6, "not all steps")


def start_apart(folder, command, fault):
    """A fit in a session of its own whose program is at the fault."""
    process = with_fault(fault, lambda: subprocess.Popen(
        command, start_new_session=True, text=True,
        env={**os.environ, **tables.ENVIRONMENT}, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
    tables.check(comes_to(lambda: was_reached(folder)), "the program does not come to its fault")
    return process


def interrupt_held(folder, process):
    """What is said of an interrupt that comes while the program is held."""
    os.killpg(process.pid, signal.SIGINT)
    os.remove(os.path.join(folder, "pids.fault"))
    return process.communicate(timeout=PATIENCE_SECONDS)[1]


def an_interrupt_reaches_the_fit_and_not_the_program():
    folder, command = prepare("interrupt")
    process = start_apart(folder, command, "held,%d" % (2 * STEP + 3))
    said = interrupt_held(folder, process)
    tables.check(process.returncode == 85, "ended with %d: %s" % (process.returncode, said))
    check_gone(folder, 1)
    tables.check(steps_of(folder)[0] == 3, "the step was not finished")


def a_stop_ends_the_calibration():
    folder, command = prepare("stop")
    command = [flag for flag in command if ".reward_" not in flag]
    process = start_apart(folder, command + ["--rewards.calibration=200"], "held,20")
    said = interrupt_held(folder, process)
    tables.check(process.returncode == 85 and "of 200 steps of the calibration" in said, said)
    check_gone(folder, 1)
    tables.check(not os.path.exists(os.path.join(folder, "out.h5")), "a record was left")


def a_fit_that_is_killed_takes_its_program_along():
    folder, command = prepare("kill")
    process = start_apart(folder, command, "deaf,%d" % (2 * STEP + 3))
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)
    check_gone(folder, 1)


def what_has_no_meaning_is_refused():
    folder, command = prepare("refused")
    for flags, words in (
            (["--rewards.command="], ["estimator.objective: reward", "rewards.command"]),
            (["--estimator.target=whole"], ["estimator.target", "served"]),
            (["--policies.policy0.reward_zero=5", "--policies.policy0.reward_one=5"],
             ["policies.policy0", "reward_one above reward_zero", "5 and 5"]),
            (["--policies.policy0.reward=tokens"], ["the reward of 'policy0'", "'tokens'"]),
            (["--policies.policy1.reward=prompt_index"], ["'policy1'", "'prompt_index'"])):
        _, said = tables.run(command + flags, expect=78)
        for word in words:
            tables.check(word in said, "no '%s' in: %s" % (word, said))
    tables.check(not os.path.exists(os.path.join(folder, "out.h5")), "a record was left")
    tables.run(command + ["--descent.steps=2"])
    _, said = tables.run(command + ["--resume", "--rewards.command=other"], expect=78)
    tables.check("rewards.command" in said, said)


def a_program_that_moved_goes_on_where_the_user_says_so():
    """The same program at another place: refused as another configuration, and with the flag the
    steps of an uninterrupted run. With the flag alone, or without a program, nothing goes on."""
    whole, command = prepare("whole")
    tables.run(command)
    folder, command = prepare("moved")
    tables.run(command + ["--descent.steps=3"])
    path = os.path.join(folder, "elsewhere.py")
    shutil.copy(fit_rewards.PROGRAM, path)
    other = "--rewards.command=exec %s %s %s" % (
        sys.executable, path, os.path.join(folder, "values.json"))
    _, said = tables.run(command + ["--resume", other], expect=78)
    tables.check("rewards.command was" in said and "--moved-rewards" in said, said)
    tables.check(steps_of(folder)[0] == 3, "it went on")
    _, said = tables.run(command + ["--resume", "--moved-rewards", "--rewards.command="], expect=78)
    tables.check("rewards.command" in said, said)
    _, said = tables.run(command + ["--resume", "--moved-rewards", other, "--rollout.responses=8"],
                         expect=78)
    tables.check("rollout.responses was 16, is 8" in said and "rewards.command was" not in
                 said.split("configuration (")[1], said)
    _, said = tables.run(command + ["--moved-rewards", other], expect=64)
    tables.check("--resume" in said, said)
    for ranks, steps in ((2, 5), (1, 6)):
        _, said = tables.run_ranks(MPIRUN, ranks, command + [
            "--resume", "--moved-rewards", other, "--descent.steps=%d" % steps])
        tables.check(said.count("warning: --moved-rewards: rewards.command was") == 1
                     and "elsewhere.py" in said, said)
    tables.check(steps_of(folder) == steps_of(whole), "resumed otherwise")
    _, said = tables.run(command + ["--resume", "--moved-rewards", "--descent.steps=7"])
    tables.check("moved" not in said, "nothing has moved: " + said)
    the_record_says_what_measured_its_steps(command, folder, other.split("=", 1)[1])


def the_record_says_what_measured_its_steps(command, folder, other):
    """A note for each change, with its step; the same program again needs neither flag nor note."""
    first = command_of(folder)
    shown = json.loads(tables.run([MPO, "inspect", os.path.join(folder, "out.h5"), "--json"])[0])
    expected = [(3, first, other), (6, other, first)]
    tables.check([(note["step"], note["was"], note["is"]) for note in shown["notes"]] == expected
                 and all(note["key"] == "rewards.command" and note["time"].endswith("Z")
                         for note in shown["notes"]), str(shown["notes"]))
    with h5py.File(os.path.join(folder, "out.h5")) as record:
        lines = bytes(record["provenance/notes"][()]).decode().split("\n")
        tables.check([json.loads(line) for line in lines if line] == shown["notes"], str(lines))
        first_steps = [int(row["first_step"]) for row in record["provenance/segments"]]
    tables.check(first_steps == [0, 3, 5, 6], str(first_steps))
    text = tables.run([MPO, "inspect", os.path.join(folder, "out.h5")])[0]
    tables.check(text.count("changed ") == 2 and "from step 3 on" in text and "elsewhere.py" in text, text)
    tables.run(command + ["--resume", "--moved-rewards", "--rewards.command=" + other, "--descent.steps=8"])
    _, said = tables.run(command + ["--resume", "--rewards.command=" + other, "--descent.steps=9"])
    tables.check("warning: --moved-rewards" not in said, said)
    shown = json.loads(tables.run([MPO, "inspect", os.path.join(folder, "out.h5"), "--json"])[0])
    tables.check(len(shown["notes"]) == 3 and shown["notes"][2]["step"] == 7, str(shown["notes"]))
    _, said = tables.run(command + ["--resume", "--rewards.command=third", "--descent.steps=9"], expect=78)
    tables.check("rewards.command was" in said and "--moved-rewards" in said, said)
    with h5py.File(os.path.join(folder, "out.h5"), "a") as record:
        del record["provenance/notes"]
    _, said = tables.run(command + ["--resume", "--moved-rewards", "--rewards.command=cat",
                                    "--descent.steps=10"], expect=65)
    tables.check("provenance/notes" in said and steps_of(folder)[0] == 9, said)


def command_of(folder):
    """rewards.command as the first start had it."""
    with h5py.File(os.path.join(folder, "out.h5")) as record:
        stored = bytes(record["provenance/config"][()])
    path = os.path.join(folder, "stored.yaml")
    with open(path, "wb") as file:
        file.write(stored.rstrip(b"\0"))
    return tables.run([MPO, "config", path, "--get=rewards.command"])[0].rstrip("\n")


if __name__ == "__main__":
    sys.exit(tables.run_cases((case, ()) for case in (
        every_fault_ends_the_run_with_a_record_to_resume,
        a_program_that_cannot_run_is_named_and_leaves_no_record,
        a_fault_of_the_calibration_is_told_once,
        deadlines_of_other_ranks_wait_for_the_program,
        an_interrupt_reaches_the_fit_and_not_the_program,
        a_stop_ends_the_calibration,
        a_fit_that_is_killed_takes_its_program_along,
        what_has_no_meaning_is_refused,
        a_program_that_moved_goes_on_where_the_user_says_so)))
