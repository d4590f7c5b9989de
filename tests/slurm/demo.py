#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The reviews demo on a real Slurm, preempted in the middle: the weights of one piece.

    demo.py MPO WORK MODEL

MODEL is the demo's base model (launch/setup.sh --model); without it the test is skipped.
"""

import os
import shutil
import sys

import cluster
import restarts
import tables


def a_preempted_demo_ends_with_the_weights_of_one_piece(slurm, mpo, work, model):
    fit = restarts.Fit(slurm, mpo, work, "demo",
                       config=os.path.join(cluster.SOURCE, "configs", "reviews.yaml"))
    models = ["--policies.%s.model=%s" % (name, model) for name in ("sentiment", "concise")]
    # Two ranks, each on a node of its own, with half of its cores.
    job = fit.submit("resume.sbatch", "--run.threads=1", *models, options=["--cpus-per-task=16"])
    fit.wait_for_step(10, seconds=900)
    restarts.preempt(slurm, work)
    slurm.ended_well(job, 1800)
    tables.check(fit.restarts() == [0, 1], "segments %s" % fit.restarts())
    fit.is_whole(*models, seconds=1800)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    mpo, work, model = sys.argv[1:]
    if not os.path.exists(model):
        print("SKIP: no %s; launch/setup.sh --model fetches it" % model)
        sys.exit(77)
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    with cluster.Cluster(mpo) as slurm:
        code = tables.run_cases([(a_preempted_demo_ends_with_the_weights_of_one_piece,
                                  [slurm, mpo, work, model])])
    sys.exit(code)


if __name__ == "__main__":
    main()
