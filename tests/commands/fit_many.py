#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many objectives: one record on every number of ranks, groups and hosts.

    fit_many.py MPO MPIRUN WORK

Fits 64 table policies, several on each rank, in one group and in two, on one host and on
several, and compares the records byte for byte; 1024 are the most.
"""

import os
import shutil
import sys

import h5py

import tables
from fit_ranks import Arguments, fit, write_case
from records import data_sets, same

MANY = {"rollout": {"responses": 4, "max_tokens": 6, "prompts_per_step": 4},
        "descent": {"steps": 3}}


def one_process(arguments, folder, policy_count):
    """(configuration, data sets of its fit in one process)"""
    config = write_case(folder, policy_count=policy_count, options=MANY)
    return config, fit(arguments, config, os.path.join(folder, "1.h5"), 1)


def transport_of(path):
    with h5py.File(path, "r") as record:
        return record["provenance"].attrs["exchange"]


def sixty_four_policies_write_the_same_bytes_on_every_number_of_ranks(arguments):
    folder = arguments.folder("ranks")
    config, expected = one_process(arguments, folder, 64)
    for ranks, group in ((4, 4), (8, 8), (8, 4), (8, 1)):
        record = os.path.join(folder, "%d_%d.h5" % (ranks, group))
        found = fit(arguments, config, record, ranks, "--exchange.ranks_per_group=%d" % group)
        same(expected, found, "%d ranks in groups of %d" % (ranks, group))


def sixty_four_policies_write_the_same_bytes_on_several_hosts(arguments):
    folder = arguments.folder("hosts")
    config, expected = one_process(arguments, folder, 64)
    for hosts, group, transport in (("a:2,b:2", 4, "nodes"), ("a:1,b:3,c:2", 6, "nodes"),
                                    ("a:3,b:3,c:2", 4, "nodes"), ("a:2,b:2", 2, "shared"),
                                    ("a:1,b:1", 2, "mpi")):
        record = os.path.join(folder, "%s_%d.h5" % (hosts, group))
        tables.run_hosts(arguments.mpirun, hosts, [
            arguments.mpo, "fit", config, "--record.file=" + record, "--quiet",
            "--exchange.ranks_per_group=%d" % group], folder)
        what = "hosts %s in groups of %d" % (hosts, group)
        same(expected, data_sets(record), what)
        found = transport_of(record)
        tables.check(found == transport, "%s: auto took %s" % (what, found))


def more_policies_than_most_people_have_fit_in_one_process(arguments):
    for count in (256, 1024):
        folder = arguments.folder("%d" % count)
        one_process(arguments, folder, count)
        with h5py.File(os.path.join(folder, "1.h5"), "r") as record:
            tables.check(record["average"].shape == (3, count), "expected %d weights" % count)
            tables.check(abs(record["average"][-1].sum() - 1.0) < 1e-12, "not on the simplex")


def more_policies_than_the_limit_are_refused(arguments):
    folder = arguments.folder("refused")
    config = write_case(folder, policy_count=1025, options=MANY)
    _, said = tables.run([arguments.mpo, "fit", config], expect=78)
    tables.check("expected at most 1024 policies, found 1025" in said, said)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    arguments = Arguments(*sys.argv[1:])
    shutil.rmtree(arguments.work, ignore_errors=True)
    cases = [
        sixty_four_policies_write_the_same_bytes_on_every_number_of_ranks,
        sixty_four_policies_write_the_same_bytes_on_several_hosts,
        more_policies_than_most_people_have_fit_in_one_process,
        more_policies_than_the_limit_are_refused,
    ]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
