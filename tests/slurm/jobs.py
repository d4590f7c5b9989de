#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The shipped batch scripts on a real Slurm of two emulated nodes.

    jobs.py MPO WORK [MPO_ON_SIMULATED_DEVICES]

What users do right ends with the record that one process writes; what they do wrong ends with
one clear message and the right exit code.
"""

import os
import re
import shutil
import sys

import cluster
import fit_ranks
import tables
from records import data_sets, same

NO_GPUS = "--gpus-per-node=0"


def path(case, name):
    return os.path.join(case.work, name)


class Case:
    """The cluster, the program, and a folder for configurations and records."""

    def __init__(self, slurm, mpo, work):
        self.slurm = slurm
        self.mpo = mpo
        self.mpirun = None  # the records to compare with come from one process
        self.work = work

    def configure(self, name, policy_count, **options):
        """A configuration of table policies, and the record that one process makes of it."""
        config = fit_ranks.write_case(path(self, name), policy_count=policy_count,
                                      options=options)
        expected = fit_ranks.fit(self, config, path(self, name + "/alone.h5"), 1)
        return config, expected

    def refused(self, job, code, *words):
        """The job failed with this code and one message that has all the words."""
        ended = self.slurm.wait(job)
        said = self.slurm.output(job)
        ours = [line for line in said.splitlines() if line.startswith("mpo: ")]
        tables.check(ended == ("FAILED", code) and len(ours) == 1
                     and all(word in ours[0] for word in words),
                     "%s, expected FAILED %d and one message with %s:\n%s" % (
                         ended, code, words, said))


def slurm_takes_every_script(case):
    scripts = sorted(name for name in os.listdir(cluster.LAUNCH) if name.endswith(".sbatch"))
    tables.check(len(scripts) >= 4, "found only %s" % scripts)
    for name in scripts:
        case.slurm.run("sbatch", "--test-only", os.path.join(cluster.LAUNCH, name))


def eight_ranks_on_two_nodes_write_what_one_process_writes(case):
    """Two groups of four, each on one node; then one group of eight on both."""
    for policy_count in (4, 8):
        config, expected = case.configure("eight%d" % policy_count, policy_count)
        record = path(case, "eight%d.h5" % policy_count)
        job = case.slurm.run_well("multi_node.sbatch", config, "--record.file=" + record)
        said = case.slurm.output(job)
        group = "8 ranks (%d group" % (8 // policy_count)
        tables.check(group in said, "no '%s' in\n%s" % (group, said))
        same(expected, data_sets(record), "%d policies" % policy_count)


def ranks_of_one_node_see_all_its_gpus_and_their_share_of_cores(case):
    """The program is replaced by one that says what it was given."""
    program = path(case, "say.sh")
    with open(program, "w", encoding="utf-8") as stream:
        stream.write('#!/bin/sh\necho "local $SLURM_LOCALID gpus $CUDA_VISIBLE_DEVICES '
                     'cores $SRUN_CPUS_PER_TASK arguments $*"\n')
    os.chmod(program, 0o755)
    job = case.slurm.run_well("single_node.sbatch", "my.yaml", "--run.seed=3",
                              options=["--ntasks-per-node=3", "--gpus-per-node=3",
                                       "--cpus-per-task=5"], MPO=program)
    said = sorted(case.slurm.output(job).splitlines())
    expected = ["local %d gpus 0,1,2 cores 5 arguments fit --run.threads=5 my.yaml --run.seed=3"
                % rank for rank in range(3)]
    tables.check(said == expected, "%s\nexpected %s" % (said, expected))


def ranks_that_do_not_fit_are_refused_through_to_the_job(case):
    config, _ = case.configure("misfit", 3)
    job = case.slurm.submit("single_node.sbatch", config,
                            "--record.file=" + path(case, "misfit.h5"),
                            options=["--ntasks-per-node=4", "--gpus-per-node=4"])
    case.refused(job, 64, "4 ranks", "start 3 or 6 ranks")
    tables.check(not os.path.exists(path(case, "misfit.h5")), "a refused run made a record")


def gpus_bound_twice_are_refused_through_to_the_job(case, simulated):
    """Every rank is shown the first device as its only one, as some bindings do."""
    config, _ = case.configure("twice", 2)
    job = case.slurm.submit("single_node.sbatch", config, "--run.device=cuda",
                            "--record.file=" + path(case, "twice.h5"),
                            options=["--ntasks-per-node=2", "--gpus-per-node=2"],
                            MPO="env HOSTSIM_DEVICES=1 " + simulated)
    case.refused(job, 69, "found ranks that share one")
    tables.check(not os.path.exists(path(case, "twice.h5")), "a refused run made a record")


def srun_without_pmix_is_refused_by_one_rank(case):
    config, _ = case.configure("pmix", 3)
    command = [case.mpo, "fit", config, "--record.file=" + path(case, "pmix.h5")]
    for kind in ("none", "pmi2"):
        _, said = case.slurm.run("srun", "--mpi=" + kind, "-N2", "-n6", *command, expect=64)
        ours = [line for line in said.splitlines() if "mpo: " in line]
        tables.check(len(ours) == 1 and "srun --mpi=pmix" in ours[0],
                     "--mpi=%s: %s" % (kind, said))
        tables.check("MPI_Init" not in said, "--mpi=%s reached MPI: %s" % (kind, said))


def one_process_for_many_tasks_is_warned_of(case):
    config, _ = case.configure("alone", 3)
    script = path(case, "no_srun.sh")
    with open(script, "w", encoding="utf-8") as stream:
        stream.write('#!/bin/sh\nexec "$MPO" fit "$@"\n')
    job = case.slurm.run_well(script, config, "--record.file=" + path(case, "alone.h5"),
                              options=["--ntasks=3"])
    said = case.slurm.output(job)
    tables.check("warning: this Slurm job has 3 tasks" in said, said)
    job = case.slurm.run_well(script, config, "--record.file=" + path(case, "alone1.h5"))
    tables.check("warning: this Slurm job" not in case.slurm.output(job), "a warning for one task")


def mpirun_inside_a_job_writes_the_same_bytes(case):
    config, expected = case.configure("mpirun", 3)
    record = path(case, "mpirun.h5")
    script = path(case, "mpirun.sh")
    with open(script, "w", encoding="utf-8") as stream:
        stream.write('#!/bin/bash\n. "$MPO_HOME/launch/env.sh"\n'
                     'mpirun "${mpirun_options[@]}" "${mpo[@]}" fit "$@"\n')
    job = case.slurm.run_well(script, config, "--record.file=" + record,
                              options=["--nodes=2", "--ntasks-per-node=3"])
    tables.check("6 ranks (2 groups" in case.slurm.output(job), case.slurm.output(job))
    same(expected, data_sets(record), "mpirun")


def a_script_that_launch_prints_runs_as_it_is(case):
    """Two groups, a node each, with the numbers that the script asks for."""
    config, expected = case.configure("launch", 3)
    record = path(case, "launch.h5")
    printed, _ = case.slurm.run(case.mpo, "launch", config, "--groups=2",
                                "--cpus-per-task=2", "--record.file=" + record)
    script = path(case, "launch.sbatch")
    with open(script, "w", encoding="utf-8") as stream:
        stream.write(printed)
    job = case.slurm.run_well(script)
    tables.check("6 ranks (2 groups" in case.slurm.output(job), case.slurm.output(job))
    shown = case.slurm.show(job)
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", printed, re.M))
    found = (shown["NumNodes"], shown["NumTasks"], shown["CPUs/Task"], shown["MinMemoryNode"])
    tables.check(found == ("2", "6", "2", asked["mem"]), "%s of %s" % (found, asked))
    same(expected, data_sets(record), "a printed script")


def a_sweep_writes_one_record_a_line(case):
    config, _ = case.configure("sweep", 2)
    manifest = path(case, "sweep.txt")
    named = path(case, "with a blank.h5")
    with open(manifest, "w", encoding="utf-8") as stream:
        for seed in (1, 2, 3):
            stream.write("%s --run.seed=%d\n" % (config, seed))
        stream.write("%s --run.seed=4 '--record.file=%s'\n" % (config, named))
    job = case.slurm.submit("sweep.sbatch", manifest, "--descent.steps=4",
                            options=["--array=1-5%2", "--output=%s/%%A_%%a.out" % case.slurm.folder])
    running = []

    def ended():
        said, _ = case.slurm.run("squeue", "--noheader", "--array", "--format=%t", "--job", job)
        running.append(said.split().count("R"))
        return not said.split()

    cluster.until(ended, "the sweep to end", 600)
    tables.check(max(running) <= 2, "%d tasks at a time, %%2 was asked for" % max(running))
    for seed, record in enumerate([path(case, "sweep-%d.h5" % n) for n in (1, 2, 3)] + [named], 1):
        expected = fit_ranks.fit(case, config, path(case, "direct.h5"), 1, "--run.seed=%d" % seed,
                                 "--descent.steps=4")
        same(expected, data_sets(record), "line %d" % seed)
    said = case.slurm.output(job + "_5")
    tables.check("has no line 5; submit with --array=1-4" in said, said)


def lines_of_a_manifest_that_are_no_fit_are_named(case):
    """Empty lines and comments are done; what is quoted wrongly is refused before a fit."""
    config, _ = case.configure("lines", 2)
    os.makedirs(path(case, "v1.2"))
    manifest = path(case, "v1.2/lines")  # the dot is the folder's
    with open(manifest, "w", encoding="utf-8") as stream:
        stream.write("# seeds\n\n%s --run.seed=2 '--record.file=x.h5\n%s --run.seed=3\r\n%s"
                     % (config, config, config))  # the last line does not end
    job = case.slurm.submit("sweep.sbatch", manifest, "--descent.steps=2", options=[
        "--array=0-6", "--output=%s/%%A_%%a.out" % case.slurm.folder])
    expected = {0: (64, "has no line 0; submit with --array=1-5"),
                1: (0, "line 1: nothing to do"), 2: (0, "line 2: nothing to do"),
                3: (64, "line 3: expected arguments quoted as in a shell"), 4: (0, ""),
                5: (0, ""), 6: (64, "has no line 6")}
    for task, (code, words) in expected.items():
        ended = case.slurm.wait("%s_%d" % (job, task))
        said = case.slurm.output("%s_%d" % (job, task))
        tables.check(ended[1] == code and words in said, "task %d: %s\n%s" % (task, ended, said))
    made = [n for n in range(7) if os.path.exists("%s-%d.h5" % (manifest, n))]
    tables.check(made == [4, 5], "records %s" % made)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    mpo, work = sys.argv[1:3]
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    cases = [
        slurm_takes_every_script,
        eight_ranks_on_two_nodes_write_what_one_process_writes,
        ranks_of_one_node_see_all_its_gpus_and_their_share_of_cores,
        ranks_that_do_not_fit_are_refused_through_to_the_job,
        srun_without_pmix_is_refused_by_one_rank,
        one_process_for_many_tasks_is_warned_of,
        mpirun_inside_a_job_writes_the_same_bytes,
        a_script_that_launch_prints_runs_as_it_is,
        a_sweep_writes_one_record_a_line,
        lines_of_a_manifest_that_are_no_fit_are_named,
    ]
    with cluster.Cluster(mpo) as slurm:
        case = Case(slurm, mpo, work)
        calls = [(function, [case]) for function in cases]
        calls += [(gpus_bound_twice_are_refused_through_to_the_job, [case, simulated])
                  for simulated in sys.argv[3:]]
        code = tables.run_cases(calls)
    sys.exit(code)


if __name__ == "__main__":
    main()
