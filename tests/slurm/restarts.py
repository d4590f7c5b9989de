#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fits that Slurm stops and starts again are the fits that never stopped.

    restarts.py MPO WORK

resume.sbatch and sweep.sbatch on a real Slurm: signalled before the time limit, preempted,
cancelled, cut at the time limit. Each record is compared, byte for byte but for clocks, with
that of one uninterrupted process.
"""

import os
import shutil
import subprocess
import sys

import cluster
import h5py
import tables
from records import data_sets, same, steps_in

STEPS = 30
ENDLESS = 100000


class Fit:
    """A fit that jobs work on: of four table policies, some tenths of a second a step, or of
    another configuration."""

    def __init__(self, slurm, mpo, work, name, steps=STEPS, config=None):
        self.slurm = slurm
        self.mpo = mpo
        self.planned = steps
        self.folder = os.path.join(work, name)
        os.makedirs(self.folder)
        self.config = config or tables.write_config(
            self.folder, tables.random_tables(3, 4, 5, 1.0),
            ["a", "b a", "c", "a b c", "b", "c c", "a a"], {
                "run": {"seed": 5},
                "rollout": {"responses": 128, "max_tokens": 24, "prompts_per_step": 7},
                "descent": {"steps": steps},
                "record": {"hash_models": "false"},
            })
        self.record = os.path.join(self.folder, "run.h5")

    def submit(self, script, *flags, ranks=2, options=(), **environment):
        """sbatch a script of launch/ for this record, on both nodes unless told otherwise."""
        return self.slurm.submit(
            script, self.config, "--record.file=" + self.record, *flags, options=[
                "--nodes=2", "--ntasks-per-node=%d" % (ranks // 2), "--gpus-per-node=0",
                "--cpus-per-task=1", *options], **environment)

    def steps(self):
        return steps_in(self.record)

    def wait_for_step(self, step, job=None, seconds=600):
        """Wait until the record has so many steps, or, with a job, until that has ended."""
        cluster.until(lambda: self.steps() >= step or (
            job and self.slurm.show(job)["JobState"] in cluster.ENDED),
            "step %d of %s" % (step, self.record), seconds)

    def begin(self, step, script, *flags, **settings):
        """submit(), and wait for a step of the record; returns the job's number."""
        job = self.submit(script, *flags, **settings)
        self.wait_for_step(step, job)
        if self.slurm.crashed_in_start(job):
            job = self.submit(script, *flags, **settings)
            self.wait_for_step(step, job)
        tables.check(self.steps() >= step, "job %s has ended before step %d\n%s" % (
            job, step, self.slurm.output(job)))
        return job

    def is_whole(self, *flags, seconds=1800):
        """The record is that of one process that was left alone."""
        whole = os.path.join(self.folder, "whole.h5")
        command = [self.mpo, "fit", self.config, "--record.file=" + whole, "--quiet", *flags]
        subprocess.run(command, check=True, timeout=seconds, capture_output=True)
        same(data_sets(whole), data_sets(self.record), self.record)

    def restarts(self):
        """Of each piece of the record, how often its job had been restarted."""
        with h5py.File(self.record, "r") as record:
            return [int(row["restart_count"]) for row in record["provenance/segments"]]


def preempt(slurm, work):
    """A job of higher priority takes both nodes for a second."""
    script = os.path.join(work, "urgent.sh")
    with open(script, "w", encoding="utf-8") as stream:
        stream.write("#!/bin/sh\nsleep 1\n")
    slurm.ended_well(slurm.submit(script, options=["--partition=high", "--nodes=2",
                                                   "--ntasks-per-node=24"]))


def restart_count(slurm, job):
    return int(slurm.show(job)["Restarts"])


def order(slurm, job, *command):
    """An order for a job, which Slurm refuses where that has ended."""
    try:
        slurm.run(*command, job)
    except AssertionError:
        if slurm.show(job)["JobState"] not in cluster.ENDED:
            raise


def disturbed(slurm, mpo, work, name, disturb):
    """A fit that was disturbed before its end, and what disturb(fit) says of it, which is nothing where
    that came too late: then a fit of more steps is tried."""
    for steps in (STEPS, 10 * STEPS, 100 * STEPS):
        fit = Fit(slurm, mpo, work, "%s_%d" % (name, steps), steps)
        found = disturb(fit)
        if found:
            return fit, found
    raise AssertionError("every fit had ended before it was disturbed")


def a_preempted_job_goes_on_when_there_is_room_again(slurm, mpo, work):
    def disturb(fit):
        # 16 of the 32 cores of each node, so that the other job needs some of them.
        job = fit.begin(4, "resume.sbatch", ranks=4, options=["--cpus-per-task=8"])
        preempt(slurm, work)
        slurm.ended_well(job)
        return job if restart_count(slurm, job) else None

    fit, job = disturbed(slurm, mpo, work, "preempted", disturb)
    tables.check(restart_count(slurm, job) == 1, "%d restarts" % restart_count(slurm, job))
    tables.check(fit.restarts() == [0, 1], "segments %s" % fit.restarts())
    tables.check("stopped by SIGTERM" in slurm.output(job), slurm.output(job))
    fit.is_whole()


def a_cancelled_job_stays_cancelled_and_goes_on_by_hand_with_other_ranks(slurm, mpo, work):
    def disturb(fit):
        job = fit.begin(4, "resume.sbatch", ranks=4)
        order(slurm, job, "scancel")
        state, code = slurm.wait(job)
        return (job, state, code) if state != "COMPLETED" else None

    fit, (job, state, code) = disturbed(slurm, mpo, work, "cancelled", disturb)
    tables.check((state, code) == ("CANCELLED", 85), "%s %d\n%s" % (
        state, code, slurm.output(job)))
    tables.check("submit it again to continue" in slurm.output(job), slurm.output(job))
    tables.check(4 <= fit.steps() < fit.planned, "%d steps" % fit.steps())
    slurm.ended_well(fit.submit("resume.sbatch", ranks=2))
    fit.is_whole()


def restarts_have_a_limit(slurm, mpo, work):
    def disturb(fit):
        job = fit.begin(2, "resume.sbatch", MPO_RESTARTS="0")
        order(slurm, job, "scancel", "--batch", "--signal=USR1")
        ended = slurm.wait(job)
        return (job, ended) if ended[0] != "COMPLETED" else None

    _, (job, ended) = disturbed(slurm, mpo, work, "limit", disturb)
    tables.check(ended == ("FAILED", 85), "%s\n%s" % (ended, slurm.output(job)))
    tables.check("MPO_RESTARTS allows no more" in slurm.output(job), slurm.output(job))


def one_task_of_a_sweep_is_requeued_alone(slurm, mpo, work):
    def disturb(fit):
        manifest = os.path.join(fit.folder, "run.txt")
        with open(manifest, "w", encoding="utf-8") as stream:
            stream.write(fit.config + " --descent.steps=4\n" + fit.config + "\n")
        job = slurm.submit("sweep.sbatch", manifest, options=[
            "--array=1-2", "--cpus-per-task=1", "--output=%s/%%A_%%a.out" % slurm.folder])
        fit.record = os.path.join(fit.folder, "run-2.h5")
        fit.wait_for_step(4)
        order(slurm, job + "_2", "scancel", "--batch", "--signal=USR1")
        slurm.ended_well(job + "_2")
        slurm.ended_well(job + "_1")
        counts = [restart_count(slurm, "%s_%d" % (job, task)) for task in (1, 2)]
        return counts if counts[1] else None

    fit, counts = disturbed(slurm, mpo, work, "sweep", disturb)
    tables.check(counts == [0, 1], "restarts %s" % counts)
    fit.is_whole()


def a_job_cut_at_its_time_limit_says_so_and_can_go_on(slurm, fit, job):
    state, code = slurm.wait(job)
    said = slurm.output(job)
    tables.check(state == "TIMEOUT", "%s %d\n%s" % (state, code, said))
    for words in ("DUE TO TIME LIMIT", "stopped by SIGTERM", "--resume"):
        tables.check(words in said, "no '%s' in\n%s" % (words, said))
    steps = fit.steps()
    tables.check(steps > 0, "no steps are left")
    again = fit.begin(steps + 1, "resume.sbatch", "--descent.steps=%d" % ENDLESS)
    slurm.run("scancel", again)


def slurms_signal_before_the_time_limit_requeues_the_job(slurm, fit, job):
    """Slurm looks for jobs to signal every 30 s."""
    cluster.until(lambda: restart_count(slurm, job) >= 1, "a restart of job %s" % job, 600)
    steps = fit.steps()
    fit.wait_for_step(steps + 1)
    said = slurm.output(job)
    for words in ("stopped by SIGUSR1", "exit code 85: job %s is requeued" % job):
        tables.check(words in said, "no '%s' in\n%s" % (words, said))
    slurm.run("scancel", job)
    slurm.wait(job)
    tables.check(fit.restarts()[:2] == [0, 1], "segments %s" % fit.restarts())


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    mpo, work = sys.argv[1:]
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    cases = [
        a_preempted_job_goes_on_when_there_is_room_again,
        a_cancelled_job_stays_cancelled_and_goes_on_by_hand_with_other_ranks,
        restarts_have_a_limit,
        one_task_of_a_sweep_is_requeued_alone,
    ]
    with cluster.Cluster(mpo) as slurm:
        # Slurm knows no limit below a minute, so these two run beside the others; nothing
        # preempts them.
        endless = ["--partition=high", "--time=1"]
        cut = Fit(slurm, mpo, work, "cut")
        cut_job = cut.submit("single_node.sbatch", "--descent.steps=%d" % ENDLESS,
                             options=["--nodes=1", "--ntasks-per-node=2", *endless])
        warned = Fit(slurm, mpo, work, "warned")
        warned_job = warned.submit("resume.sbatch", "--descent.steps=%d" % ENDLESS,
                                   options=["--signal=B:USR1@59", *endless])
        code = tables.run_cases(
            [(case, [slurm, mpo, work]) for case in cases]
            + [(slurms_signal_before_the_time_limit_requeues_the_job,
                [slurm, warned, warned_job]),
               (a_job_cut_at_its_time_limit_says_so_and_can_go_on, [slurm, cut, cut_job])])
    sys.exit(code)


if __name__ == "__main__":
    main()
