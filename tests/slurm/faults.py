#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A rank that dies or stands still, in every phase of a fit, under mpirun and under srun.

    faults.py MPO WORK MPIRUN FAULT [--sample]

FAULT is the module of tests/support/rank_fault.c, which makes one rank send itself a signal at an
exact moment. Whoever it is and whenever: the job ends with the right exit code, no process is
left, the record is readable, and a resumed run ends with the bytes of a run that nobody
disturbed. With --sample (tests/commands/sample.py) each phase is tried once.
"""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys

import cluster
import h5py
import sample
import tables
from records import data_sets, same

RANKS = 4
# name: what rank_fault.c calls it, and which of its calls
PHASES = {
    "load": ("load", 1),
    "first exchange": ("exchange", 1),
    "steady": ("exchange", 150),
    "record's creation": ("record", 30),
    "record": ("record", 300),
    "finish": ("finish", 1),
    "end": ("end", 1),
}
# Their work is done.
LAST_PHASES = ("finish", "end")
# 137: killed, as seen by a launcher; 75: a deadline passed.
EXIT_CODES = {signal.SIGKILL: [137], signal.SIGSTOP: [75]}
# Under srun the others may be able to end without a rank that stops when all work is done;
# srun --wait then kills it. A rank that is killed alone on its node leaves the others running
# until --wait has passed, and our deadlines of 2 and 3 s are shorter than its 5 s.
SRUN_EXIT_CODES = {signal.SIGKILL: [137, 75], signal.SIGSTOP: [75]}
LAST_EXIT_CODES = {signal.SIGKILL: [137], signal.SIGSTOP: [75, 137]}


class Fits:
    """One small configuration, a rank a policy, and how to start it."""

    def __init__(self, slurm, mpo, work, mpirun, module):
        self.slurm = slurm
        self.mpo = mpo
        self.module = module
        options = {
            "run": {"seed": 5},
            "rollout": {"responses": 8, "max_tokens": 12, "prompts_per_step": 5},
            "descent": {"steps": 8},
            "record": {"hash_models": "false"},
        }
        self.config = tables.write_config(work, tables.random_tables(3, RANKS, 5, 1.0),
                                          ["a", "b a", "c", "a b c", "b"], options)
        self.record = os.path.join(work, "run.h5")
        self.launchers = {
            "mpirun": [mpirun, "-n", str(RANKS)],
            "srun": ["bash", "-c", '. "$MPO_HOME/launch/env.sh"; '
                     'exec srun "${srun_options[@]}" --wait="$WAIT" "$@"', "srun",
                     "--nodes=2", "--ntasks=%d" % RANKS],
        }
        whole = os.path.join(work, "whole.h5")
        tables.run([mpo, "fit", self.config, "--record.file=" + whole, "--quiet"])
        self.expected = data_sets(whole)

    def run(self, launcher, fault, patience):
        """(exit code, what was said) of a fit with a fault, with deadlines of 3 and 2 s, and 5 of
        srun, times the patience."""
        command = self.launchers[launcher] + ["env", "LD_PRELOAD=" + self.module,
                                              "MPO_FAULT=" + fault]
        deadlines = ["--run.setup_deadline=%d" % (3 * patience), "--run.step_deadline=%d" % (2 * patience)]
        done = subprocess.run(command + self.fit() + deadlines, timeout=600,
                              env={**self.slurm.environment, "WAIT": str(5 * patience)},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
        return done.returncode, done.stdout + done.stderr

    def fit(self):
        return [self.mpo, "fit", self.config, "--record.file=" + self.record, "--resume",
                "--quiet"]

    def remove_record(self):
        for name in (self.record, self.record + ".lock"):
            if os.path.exists(name):
                os.remove(name)


def running(fault):
    """Ids of processes that were started with a fault."""
    mark = ("MPO_FAULT=" + fault).encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/environ" % pid, "rb") as stream:
                if mark in stream.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:
            continue  # it has ended meanwhile
    return found


def one_fault(fits, launcher, phase, number, rank):
    call, count = PHASES[phase]
    fault = "%d %s %d %d" % (rank, call, count, number)
    codes = EXIT_CODES if launcher == "mpirun" else LAST_EXIT_CODES if phase == "end" \
        else SRUN_EXIT_CODES
    # A busy machine may stop another rank for as long as a deadline, or the launcher.
    for patience in (1, 4, 16):
        fits.remove_record()
        code, said = fits.run(launcher, fault, patience)
        if code in codes[number] and set(re.findall(r"rank (\d+) on ", said)) <= {str(rank)}:
            break
        cluster.until(lambda: not running(fault), "processes %s to end" % running(fault))
    tables.check(code in codes[number], "exit %d, expected %s\n%s" % (
        code, codes[number], said))
    if code == 75 or number == signal.SIGSTOP:
        ours = [line for line in said.splitlines() if "mpo: " in line]
        tables.check(ours and "rank %d" % rank in ours[0] or phase == "end",
                     "rank %d is not named:\n%s" % (rank, said))
    cluster.until(lambda: not running(fault), "processes %s to end" % running(fault))
    if os.path.exists(fits.record):
        with h5py.File(fits.record, "r", swmr=True, libver="latest") as record:
            steps = len(record["step"]) if "step" in record else 0
        tables.check(steps == 8 or phase not in LAST_PHASES, "%d steps at the end" % steps)
    else:
        tables.check(phase in ("load", "first exchange", "record's creation"), "no record")
    tables.run(fits.fit())
    same(fits.expected, data_sets(fits.record), "resumed")


def is_tried(launcher, number, phase, rank):
    """Only rank zero writes. Where ranks abort inside MPI_Finalize, mpirun itself may crash or
    hang (Open MPI 4.1.4, PMIx 4.2.2: PMIx_server_finalize)."""
    if phase == "end" and launcher == "mpirun" and number == signal.SIGSTOP:
        return False
    return not phase.startswith("record") or rank == 0


def all_trials():
    """(launcher, signal, phase, rank) of every trial."""
    return [trial for trial in itertools.product(
        ("mpirun", "srun"), EXIT_CODES, PHASES, range(RANKS)) if is_tried(*trial)]


def trials():
    """All of them, or one of each phase."""
    return [trial for phase in PHASES for trial in sample.some(
        "trials at " + phase, [trial for trial in all_trials() if trial[2] == phase], 1)]


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    mpo, work, mpirun, module = sys.argv[1:]
    shutil.rmtree(work, ignore_errors=True)
    failures = 0
    with cluster.Cluster(mpo) as slurm:
        fits = Fits(slurm, mpo, work, mpirun, module)
        for launcher, number, phase, rank in trials():
            title = "%s of rank %d at %s under %s" % (number.name, rank, phase, launcher)
            try:
                one_fault(fits, launcher, phase, number, rank)
                print("ok    ", title, flush=True)
            except (AssertionError, OSError, subprocess.TimeoutExpired) as problem:
                failures += 1
                print("FAILED", title, "\n      ", problem, flush=True)
    sys.exit(min(failures, 1))


if __name__ == "__main__":
    main()
