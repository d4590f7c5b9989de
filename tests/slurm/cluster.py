# SPDX-License-Identifier: Apache-2.0
"""A real Slurm for tests: cluster.sh up and down, jobs in between.

    with cluster.Cluster() as slurm:
        job = slurm.submit("launch/single_node.sbatch", "my.yaml")
        state, code = slurm.wait(job)

Ends the program with 77 (SKIP) where cluster.sh says that it cannot work.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
LAUNCH = os.path.join(SOURCE, "launch")
sys.path.insert(0, os.path.join(SOURCE, "tests", "commands"))

import tables  # noqa: E402  (found through the path above)
from waiting import comes_to  # noqa: E402

# What the program prints, and where a stack has one of its frames.
OURS = re.compile(r"ranks? \(|mpo: |/mpo[([]")
ENDED = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")


def until(condition, what, seconds=300.0):
    """Wait until condition() is true, and return what it returned."""
    found = comes_to(condition, seconds)
    tables.check(found, "waited %g s in vain for: %s" % (seconds, what))
    return found


class Cluster:
    """Two nodes, n1 and n2, with 32 cores and 4 fake GPUs each; partitions main and high."""

    def __init__(self, mpo):
        # Short: names of sockets in it have a limit.
        self.folder = tempfile.mkdtemp(prefix="mpo-slurm-", dir="/tmp")
        self.environment = {**os.environ, **tables.ENVIRONMENT, "MPO": mpo, "MPO_HOME": SOURCE,
                            "SLURM_CONF": os.path.join(self.folder, "etc", "slurm.conf")}

    def script(self, verb):
        return subprocess.run([os.path.join(HERE, "cluster.sh"), verb, self.folder],
                              capture_output=True, text=True, timeout=600, check=False,
                              env={k: v for k, v in self.environment.items()
                                   if k != "SLURM_CONF"})

    def __enter__(self):
        # A test that is told to end takes its cluster down.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        done = self.script("up")
        if done.returncode != 0:
            print(done.stdout + done.stderr, end="", flush=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            sys.exit(done.returncode)
        return self

    def __exit__(self, *_):
        done = self.script("down")
        left = self.processes()
        if left or done.stderr:
            print("FAILED to stop cleanly", done.stderr, left, flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        if left:
            raise AssertionError("processes are left: %s" % left)

    def processes(self, name=None):
        """Ids of the processes of this cluster and its jobs, or only those of one program."""
        mark = ("SLURM_CONF=%s" % self.environment["SLURM_CONF"]).encode()
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/environ" % pid, "rb") as stream:
                    ours = mark in stream.read().split(b"\0")
                with open("/proc/%s/comm" % pid, encoding="utf-8") as stream:
                    program = stream.read().strip()
            except OSError:
                continue  # it has ended meanwhile, or is a zombie
            if ours and name in (None, program):
                found.append(int(pid))
        return found

    def run(self, *command, expect=0, **environment):
        """Run a program of Slurm; returns (stdout, stderr)."""
        done = subprocess.run(command, env={**self.environment, **environment}, check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=600)
        tables.check(done.returncode == expect, "%s\nended with %d, expected %d\n%s%s" % (
            " ".join(command), done.returncode, expect, done.stdout, done.stderr))
        return done.stdout, done.stderr

    def submit(self, script, *arguments, options=(), **environment):
        """sbatch a script of launch/, or any other file; returns the job's number."""
        said, _ = self.run("sbatch", "--parsable", "--chdir=" + self.folder,
                           "--output=%s/%%j.out" % self.folder, *options,
                           os.path.join(LAUNCH, script), *arguments, **environment)
        return said.strip()

    def show(self, job):
        """What the controller knows of a job, {field: value}."""
        said, _ = self.run("scontrol", "--oneliner", "show", "job", job)
        return dict(word.split("=", 1) for word in said.split() if "=" in word)

    def wait_for(self, job, *states, seconds=600.0):
        """Wait for one of some states; returns it."""
        return until(lambda: (lambda now: now if now in states else None)(
            self.show(job)["JobState"]), "job %s in %s" % (job, "/".join(states)), seconds)

    def wait(self, job, seconds=600.0):
        """Wait for the end; returns (state, exit code)."""
        state = self.wait_for(job, *ENDED, seconds=seconds)
        return state, int(self.show(job)["ExitCode"].split(":")[0])

    def output(self, job):
        with open(os.path.join(self.folder, job + ".out"), encoding="utf-8") as stream:
            return stream.read()

    def crashed_in_start(self, job):
        """Seldom (twice in some hundred jobs) a rank crashes inside MPI_Init (Debian 12: Open MPI
        4.1.4, PMIx 4.2.2). Such a job may be submitted once more; one that crashes with a word
        or a frame of ours has failed."""
        fields = self.show(job)
        crashed = (fields["JobState"], fields["ExitCode"].split(":")[0]) == ("FAILED", "139") \
            and not OURS.search(self.output(job))
        if crashed:
            print("note   job %s crashed inside MPI_Init; once more\n%s" % (
                job, self.output(job)), flush=True)
        return crashed

    def run_well(self, *submission, **settings):
        """Submit, and wait for a good end; returns the job's number."""
        job = self.submit(*submission, **settings)
        self.wait(job)
        if self.crashed_in_start(job):
            job = self.submit(*submission, **settings)
        self.ended_well(job)
        return job

    def ended_well(self, job, seconds=600.0):
        ended = self.wait(job, seconds)
        tables.check(ended == ("COMPLETED", 0), "job %s: %s\n%s" % (
            job, ended, self.output(job)))
