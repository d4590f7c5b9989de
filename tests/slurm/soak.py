#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random kills, hangs, cancellations and requeues; the record in the end is that of peace.

    soak.py MPO WORK [--rounds N] [--seed N]

One fit of resume.sbatch on two nodes is disturbed N times at random moments and started again,
by itself or by hand, on two or four ranks.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time

import cluster
import restarts
import tables

STEPS = 300
LONGEST_SECONDS = 1500.0


class Soak:
    """The fit under way and the one who disturbs it."""

    def __init__(self, slurm, mpo, work, seed):
        self.slurm = slurm
        self.program = os.path.basename(mpo)
        self.chance = random.Random(seed)
        self.fit = restarts.Fit(slurm, mpo, work, "soak", steps=STEPS)
        self.submit()

    def submit(self):
        self.job = self.fit.submit(
            "resume.sbatch", "--run.setup_deadline=10", "--run.step_deadline=3",
            ranks=self.chance.choice((2, 4)))

    def hit_a_rank(self, number):
        ranks = self.slurm.processes(self.program)
        if ranks:
            try:
                os.kill(self.chance.choice(ranks), number)
            except ProcessLookupError:
                pass  # it has ended meanwhile

    def order(self, *command):
        """Something of Slurm; it refuses when it has requeued the job a moment before."""
        try:
            self.slurm.run(*command, self.job)
        except AssertionError as refusal:
            tables.check("Job is pending" in str(refusal), str(refusal))

    def disturb(self):
        """Do one bad thing; returns its name."""
        deeds = {
            "SIGKILL of a rank": lambda: self.hit_a_rank(signal.SIGKILL),
            "SIGSTOP of a rank": lambda: self.hit_a_rank(signal.SIGSTOP),
            "SIGUSR1 of a rank": lambda: self.hit_a_rank(signal.SIGUSR1),
            "SIGUSR1 of the job": lambda: self.order("scancel", "--batch", "--signal=USR1"),
            "requeue": lambda: self.order("scontrol", "requeue"),
            "cancel": lambda: self.order("scancel"),
        }
        name = self.chance.choice(sorted(deeds))
        deeds[name]()
        return name

    def wait_while_undisturbed(self):
        """True when a step was made since the last call; False when the job is done."""
        before = self.fit.steps()
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            state = self.slurm.show(self.job)["JobState"]
            if state == "COMPLETED":
                return False
            if state in cluster.ENDED:
                self.submit()
            if state == "RUNNING" and self.fit.steps() > before:
                return True
            time.sleep(0.1)
        raise AssertionError("no step in 600 s after %d; job %s\n%s" % (
            before, self.job, self.slurm.output(self.job)))


def the_record_in_the_end_is_that_of_peace(soak, rounds):
    started = time.monotonic()
    done = 0
    while done < rounds and soak.wait_while_undisturbed():
        time.sleep(soak.chance.uniform(0.0, 1.0))
        before = soak.fit.steps()
        name = soak.disturb()
        done += 1
        print("      %3d: %s at step %d of job %s" % (done, name, before, soak.job), flush=True)
        tables.check(time.monotonic() - started < LONGEST_SECONDS, "this takes too long")
    while soak.wait_while_undisturbed():
        pass
    tables.check(done >= min(rounds, 5), "the fit ended after only %d disturbances" % done)
    soak.fit.is_whole()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mpo")
    parser.add_argument("work")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("MPO_TEST_SEED", "1")))
    arguments = parser.parse_args()
    print("seed", arguments.seed)
    shutil.rmtree(arguments.work, ignore_errors=True)
    with cluster.Cluster(arguments.mpo) as slurm:
        soak = Soak(slurm, arguments.mpo, arguments.work, arguments.seed)
        code = tables.run_cases([(the_record_in_the_end_is_that_of_peace,
                                  [soak, arguments.rounds])])
    sys.exit(code)


if __name__ == "__main__":
    main()
