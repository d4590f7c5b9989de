#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A fit that is stopped or killed and resumed is the fit that never was.

    resume.py MPO MPIRUN WORK

Table policies; the interrupted record is compared with that of one run, data set by data set,
byte for byte. Signals go out when a step line appears, so every case stops at another step.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import h5py
import numpy as np

import tables
from records import data_sets, same, steps_in
from waiting import PATIENCE_SECONDS, comes_to, freeze, lines_to, wait_for_work

PROMPTS = ["a", "b a", "c", "a b c", "b", "c c", "a a"]
STEPS = 24
SAME_REQUEST_SECONDS = 2.0  # src/base/stop.c


class Case:
    """One folder with a configuration of table policies that takes some milliseconds a step."""

    def __init__(self, arguments, name, descent=None, **more):
        self.mpo, self.mpirun, work = arguments
        self.folder = os.path.join(work, name)
        options = {
            "run": {"seed": 5},
            "rollout": {"responses": 256, "max_tokens": 48, "prompts_per_step": 7},
            "descent": {"steps": STEPS, **(descent or {})},
            "record": {"file": "run.h5"},
            **more,
        }
        self.config = tables.write_config(
            self.folder, tables.random_tables(3, 3, 5, 1.0), PROMPTS, options)
        self.record = os.path.join(self.folder, "run.h5")

    def command(self, ranks, *flags):
        launcher = [self.mpirun, "-n", str(ranks)] if ranks > 1 else []
        return launcher + [self.mpo, "fit", self.config, *flags]

    def run(self, ranks, *flags, expect=0):
        return tables.run(self.command(ranks, *flags), expect)

    def start(self, ranks, *flags):
        return subprocess.Popen(
            self.command(ranks, *flags), env={**os.environ, **tables.ENVIRONMENT},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def whole(self, *flags):
        """The data sets of one uninterrupted run."""
        other = os.path.join(self.folder, "whole.h5")
        self.run(1, "--record.file=" + other, "--quiet", *flags)
        return data_sets(other)

    def steps(self):
        return steps_in(self.record)

    def keep(self):
        """What the record is now; None without one."""
        if not os.path.exists(self.record):
            return None
        with open(self.record, "rb") as stream:
            return stream.read()

    def restore(self, kept):
        if kept is not None:
            with open(self.record, "wb") as stream:
                stream.write(kept)
        elif os.path.exists(self.record):
            os.remove(self.record)

    def inspect(self):
        out, _ = tables.run([self.mpo, "inspect", self.record], 0)
        return out

    def segments(self):
        with h5py.File(self.record, "r") as record:
            return [(int(row["first_step"]), int(row["restart_count"]))
                    for row in record["provenance/segments"]]


def wait_for_step(process, step):
    """Read the talk until the line of a step; gives all lines read."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("step") and int(line.split()[1].split("/")[0]) >= step:
            return lines
    raise AssertionError("step %d never came:\n%s" % (step, "".join(lines)))


def ranks_of(process):
    """Process ids of the ranks that mpirun started, in order of rank; of mpo alone itself."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/environ" % pid, "rb") as stream:
                environment = dict(item.split(b"=", 1) for item in
                                   stream.read().split(b"\0") if b"=" in item)
            with open("/proc/%s/stat" % pid, encoding="utf-8") as stream:
                parent = int(stream.read().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue
        if parent == process.pid and b"OMPI_COMM_WORLD_RANK" in environment:
            found[int(environment[b"OMPI_COMM_WORLD_RANK"])] = int(pid)
    return [found[rank] for rank in sorted(found)] or [process.pid]


def finish(process):
    """Exit code and the rest of the talk; a run that hangs is an error."""
    try:
        out, talk = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError("hangs") from None
    return process.returncode, out, talk


def interrupt(case, ranks, steps, number, *flags, whom=None):
    """Run to the first of two steps, send a signal to ranks (or all), give exit code and talk. Where
    the machine was too busy for the signal to come before the second one, all this once more."""
    kept = case.keep()

    def came_in_time():
        case.restore(kept)
        process = case.start(ranks, *flags)
        process.stderr.readline()
        pids = ranks_of(process)
        wait_for_step(process, steps[0])
        for pid in pids if whom is None else [pids[rank] for rank in whom]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        code, _, talk = finish(process)
        return (code, talk) if code != 0 and case.steps() < steps[1] else None

    found = comes_to(came_in_time)
    tables.check(found, "no signal stops it between the steps %d and %d" % steps)
    return found


def stopped_runs_resume_to_the_same_bytes(arguments):
    for rule in ("adaptive", "decreasing", "fixed"):
        case = Case(arguments, "stopped_" + rule, {"step_rule": rule})
        expected = case.whole()
        for round_, (number, ranks) in enumerate([(signal.SIGINT, 1), (signal.SIGTERM, 3),
                                                  (signal.SIGUSR1, 2)]):
            code, talk = interrupt(case, ranks, (3 + 6 * round_, 9 + 6 * round_), number, "--resume")
            name = signal.Signals(number).name
            tables.check(code == 85, "%s: exit %d\n%s" % (name, code, talk))
            message = "stopped by %s after %d of %d steps" % (name, case.steps(), STEPS)
            tables.check(talk.count(message) == 1 and "--resume" in talk,
                         "no '%s' in\n%s" % (message, talk))
            said = case.inspect()
            tables.check("run.h5, stopped" in said and "--resume" in said
                         and "%d of %d" % (case.steps(), STEPS) in said, said)
        case.run(3, "--resume", "--quiet")
        tables.check("run.h5, finished\n" in case.inspect(), "inspect: not finished")
        same(expected, data_sets(case.record), rule)
        segments = case.segments()
        tables.check([count for _, count in segments] == [0, 1, 2, 3]
                     and [first for first, _ in segments] == sorted(f for f, _ in segments)
                     and segments[1][0] >= 3, "segments %s" % segments)


def a_signal_to_one_rank_stops_all(arguments):
    case = Case(arguments, "one_rank")
    expected = case.whole()
    for rank in (0, 1, 2):
        code, talk = interrupt(case, 3, (2 + 6 * rank, 8 + 6 * rank), signal.SIGUSR1, "--resume", whom=[rank])
        tables.check(code == 85, "rank %d: exit %d\n%s" % (rank, code, talk))
    case.run(1, "--resume", "--quiet")
    same(expected, data_sets(case.record), "after signals to single ranks")


def killed_runs_resume_to_the_same_bytes(arguments):
    case = Case(arguments, "killed")
    expected = case.whole()
    for ranks, rank, step in ((1, 0, 2), (3, 0, 7), (3, 1, 12), (2, 1, 17)):
        code, talk = interrupt(case, ranks, (step, step + 5), signal.SIGKILL, "--resume",
                               whom=[rank])
        tables.check(code in (-9, 137), "%d of %d: exit %d\n%s" % (rank, ranks, code, talk))
        tables.check(case.steps() >= step, "%d steps" % case.steps())
    _, talk = case.run(2, "--resume")
    tables.check("was left open by a killed run" in talk, talk)
    same(expected, data_sets(case.record), "after kills")
    left = sorted(os.listdir(case.folder))
    tables.check(not [name for name in left if "repaired" in name or "lock" in name],
                 "left behind: %s" % left)


def a_link_to_a_record_is_followed(arguments):
    case = Case(arguments, "link")
    expected = case.whole()
    interrupt(case, 1, (3, 12), signal.SIGKILL)
    target = os.path.join(case.folder, "scratch", "run.h5")
    os.makedirs(os.path.dirname(target))
    os.rename(case.record, target)
    os.symlink(target, case.record)
    kept, steps = case.keep(), case.steps()

    def locks_midway():
        """"yes" or "no", as far as it can be caught in the middle."""
        case.restore(kept)
        process = case.start(1, "--resume")
        wait_for_step(process, steps + 1)
        is_midway = freeze(process) and case.steps() < STEPS
        locked = os.path.exists(target + ".lock")
        process.send_signal(signal.SIGCONT)
        finish(process)
        return ("yes" if locked else "no") if is_midway else None

    tables.check(comes_to(locks_midway) == "yes", "the link was locked, not the record")
    tables.check(os.path.islink(case.record), "the link was replaced")
    same(expected, data_sets(target), "through a link")


def a_second_signal_leaves_at_once(arguments):
    case = Case(arguments, "twice")
    process = case.start(1, "--rollout.responses=256", "--rollout.max_tokens=200000",
                         "--rollout.end_bias=-12")
    tables.check("mpo fit: " in process.stderr.readline(), "another first line")
    wait_for_work(process)  # into the first step
    process.send_signal(signal.SIGINT)
    lines_to(process, "again to leave now")
    time.sleep(0.2)  # longer than launchers take to repeat Ctrl-C
    tables.check(process.poll() is None, "the first signal did not wait for the step")
    process.send_signal(signal.SIGINT)
    code, _, talk = finish(process)
    tables.check(code == -signal.SIGINT, "exit %s\n%s" % (code, talk))
    tables.check(case.steps() == 0, "%d steps" % case.steps())


def a_launcher_that_repeats_itself_is_heeded_once(arguments):
    """At a time limit Slurm signals the step and then the job; the step here takes longer."""
    case = Case(arguments, "repeated")

    def repeat():
        """Exit code and talk; None where the machine made two requests of it."""
        case.restore(None)
        process = case.start(1, "--rollout.responses=256", "--rollout.max_tokens=1500",
                             "--rollout.end_bias=-12")
        wait_for_step(process, 1)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        lines_to(process, "again to leave now")
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        code, _, talk = finish(process)
        is_late = code == -signal.SIGTERM and time.monotonic() - begun > SAME_REQUEST_SECONDS
        return None if is_late else (code, talk)

    code, talk = comes_to(repeat)
    tables.check(code == 85, "exit %d\n%s" % (code, talk))
    tables.check(case.steps() >= 1, "no steps are left")


def what_changes_the_steps_is_refused_and_shown(arguments):
    case = Case(arguments, "changed")
    case.run(1, "--quiet", "--descent.steps=4")
    for flag, words in (
            ("--rollout.responses=64", ["rollout.responses was 256, is 64"]),
            ("--run.seed=6", ["run.seed was 5, is 6"]),
            ("--policies.policy1.temperature=0.5", ["policies.policy1.temperature was 1, is 0.5"]),
            ("--descent.step_rule=decreasing", ["was adaptive, is decreasing"]),
            ("--exchange.rows=bf16", ["exchange.rows was float, is bf16"]),
            ("--descent.steps=3", ["descent.steps was 4, is 3", "only be raised"])):
        _, talk = case.run(1, "--resume", flag, expect=78)
        tables.check(all(word in talk for word in words) and talk.count("mpo: ") == 1, talk)
    shutil.copy(os.path.join(case.folder, "policy0.table"),
                os.path.join(case.folder, "policy1.table"))
    for ranks in (1, 2):
        _, talk = case.run(ranks, "--resume", expect=65)
        tables.check("policy1" in talk and "SHA-256" in talk
                     and "start a new record" in talk, talk)
    _, talk = case.run(1, "--resume", "--force", expect=64)
    tables.check("--resume" in talk and "--force" in talk, talk)
    tables.check(case.steps() == 4, "a refused run wrote steps")


def store_config(case, text):
    with h5py.File(case.record, "r+") as record:
        before = record["provenance/config"][()]
        del record["provenance/config"]
        record["provenance/config"] = np.bytes_(text(before))


def what_a_newer_version_stored_is_not_passed_over(arguments):
    case = Case(arguments, "newest")
    case.run(1, "--quiet", "--descent.steps=4")
    store_config(case, lambda text: text.replace(b"rollout:\n", b"rollout:\n  mood: sour\n"))
    _, talk = case.run(1, "--resume", expect=78)
    tables.check("rollout.mood was sour, is -" in talk, talk)
    store_config(case, lambda text: b"run: [1\n")
    _, talk = case.run(1, "--resume", expect=65)
    tables.check("run.h5" in talk and "cannot be read" in talk, talk)
    tables.check("run.h5, finished\n" in case.inspect(), case.inspect())


def an_option_that_is_newer_than_the_record_was_at_its_default(arguments):
    case = Case(arguments, "newer")
    expected = case.whole()
    case.run(1, "--quiet", "--descent.steps=4")

    def without_rows(text):
        older = b"\n".join(line for line in text.split(b"\n")
                          if not line.strip().startswith(b"rows:"))
        tables.check(len(older) < len(text), text)
        return older

    store_config(case, without_rows)
    _, talk = case.run(1, "--resume", "--exchange.rows=bf16", expect=78)
    tables.check("exchange.rows was -, is bf16" in talk, talk)
    case.run(1, "--resume", "--quiet")
    same(expected, data_sets(case.record), "after an update")


def other_prompts_are_refused(arguments):
    case = Case(arguments, "prompts")
    case.run(1, "--quiet", "--descent.steps=2")
    with open(os.path.join(case.folder, "prompts.txt"), "a", encoding="utf-8") as stream:
        stream.write("b b\n")
    _, talk = case.run(1, "--resume", expect=65)
    tables.check("prompts.txt" in talk and "run.h5" in talk, talk)


def a_finished_run_can_be_extended_but_not_under_the_fixed_rule(arguments):
    case = Case(arguments, "extended")
    expected = case.whole()
    case.run(1, "--quiet", "--descent.steps=9")
    out, _ = case.run(1, "--resume", "--descent.steps=9")
    tables.check("mean over 9 steps" in out, out)
    case.run(3, "--resume", "--run.threads=2", "--exchange.transport=mpi")
    same(expected, data_sets(case.record), "extended")
    tables.check("run.h5, extended\n" in case.inspect()
                 and "more than the 9 of its" in case.inspect(), case.inspect())
    _, talk = case.run(1, "--resume", "--descent.steps=12", expect=78)
    tables.check("was %d, is 12" % STEPS in talk and "only be raised" in talk, talk)
    case = Case(arguments, "extended_fixed", {"step_rule": "fixed", "steps": 5})
    case.run(1, "--quiet")
    _, talk = case.run(1, "--resume", "--descent.steps=6", expect=78)
    tables.check("fixed" in talk and "was 5, is 6" in talk, talk)


def a_fit_that_stopped_on_its_gap_goes_on_to_a_smaller_one(arguments):
    case = Case(arguments, "gap", {"average": "uniform"}, estimator={"target": "whole"})
    case.run(1, "--quiet")
    with h5py.File(case.record, "r") as record:
        gaps = record["averaged_gap"][:]
    os.remove(case.record)
    first, second = float(gaps[5]), float(gaps[14])
    expected = case.whole("--descent.stop_gap=%r" % second)
    case.run(1, "--quiet", "--descent.stop_gap=%r" % first)
    stopped = case.steps()
    case.run(1, "--resume", "--quiet", "--descent.stop_gap=%r" % first)
    tables.check(case.steps() == stopped, "%d steps, then %d" % (stopped, case.steps()))
    case.run(3, "--resume", "--quiet", "--descent.stop_gap=%r" % second)
    tables.check(stopped < case.steps() < STEPS, "%d, then %d" % (stopped, case.steps()))
    same(expected, data_sets(case.record), "a smaller gap")
    case.run(1, "--resume", "--quiet", "--descent.stop_gap=0")
    tables.check(case.steps() == STEPS, "%d steps without a gap" % case.steps())


def the_end_of_a_resumed_run_sums_up_all_steps(arguments):
    case = Case(arguments, "summary")
    whole, _ = case.run(1, "--quiet", "--record.file=" + os.path.join(case.folder, "whole.h5"))
    case.run(1, "--quiet", "--descent.steps=7")
    resumed, _ = case.run(1, "--quiet", "--resume")
    tables.check(whole.split("record")[0] == resumed.split("record")[0],
                 "%s\n%s" % (whole, resumed))


def a_rank_that_stands_still_is_named(arguments):
    case = Case(arguments, "hang")
    expected = case.whole()
    for rank, steps in ((1, (2, 9)), (2, (9, 16)), (0, (16, STEPS))):
        code, talk = interrupt(case, 3, steps, signal.SIGSTOP, "--resume", "--run.step_deadline=4",
                               "--run.setup_deadline=8", whom=[rank])
        tables.check(code == 75, "rank %d: exit %d\n%s" % (rank, code, talk))
        messages = [line for line in talk.splitlines() if line.startswith("mpo: ")]
        # The launcher wakes a stopped rank before it ends it; that one has not waited.
        tables.check(len(messages) == 1
                     and ": rank %d on " % rank in messages[0]
                     and " has not responded for 4 s (step " in messages[0],
                     "rank %d:\n%s" % (rank, talk))
    case.run(2, "--resume", "--quiet")
    same(expected, data_sets(case.record), "after ranks that stood still")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    arguments = sys.argv[1:]
    shutil.rmtree(arguments[2], ignore_errors=True)
    cases = [
        stopped_runs_resume_to_the_same_bytes,
        a_signal_to_one_rank_stops_all,
        killed_runs_resume_to_the_same_bytes,
        a_link_to_a_record_is_followed,
        a_second_signal_leaves_at_once,
        a_launcher_that_repeats_itself_is_heeded_once,
        what_changes_the_steps_is_refused_and_shown,
        what_a_newer_version_stored_is_not_passed_over,
        an_option_that_is_newer_than_the_record_was_at_its_default,
        other_prompts_are_refused,
        a_finished_run_can_be_extended_but_not_under_the_fixed_rule,
        a_fit_that_stopped_on_its_gap_goes_on_to_a_smaller_one,
        the_end_of_a_resumed_run_sums_up_all_steps,
        a_rank_that_stands_still_is_named,
    ]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
