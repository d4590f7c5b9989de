#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One seed, one record, whatever the number of ranks.

    fit_ranks.py MPO MPIRUN WORK

Runs `mpo fit` on table policies on 1, 2, 3 and 6 ranks, in groups of every size, through every
transport, and compares the records data set by data set, byte for byte. Only clocks and the
provenance may differ.
"""

import os
import shutil
import sys

import h5py
import numpy as np

import tables
from records import data_sets, same

PROMPTS = ["a", "b a", "c", "a b c", "b", "c c", "a a"]


def write_case(folder, policy_count=3, names=None, order=None, options=None):
    """Policies of five tokens, seven prompts; order permutes the policies."""
    table = tables.random_tables(7, policy_count, 5, 1.0)
    order = order or list(range(policy_count))
    names = names or ["p%d" % k for k in range(policy_count)]
    settings = {
        "run": {"seed": 11},
        "rollout": {"responses": 6, "max_tokens": 12, "prompts_per_step": 5},
        "descent": {"steps": 5},
        "record": {"file": "out.h5", "hash_models": "false"},
    }
    for section, values in (options or {}).items():
        settings.setdefault(section, {}).update(values)
    return tables.write_config(folder, [table[k] for k in order], PROMPTS, settings,
                               names=[names[k] for k in order])


def fit(arguments, config, record, ranks, *flags):
    """Fit on some ranks; returns the record's data sets."""
    if os.path.exists(record):
        os.remove(record)
    command = [arguments.mpo, "fit", config, "--record.file=" + record, "--quiet", *flags]
    tables.run_ranks(arguments.mpirun, ranks, command)
    return data_sets(record)


class Arguments:
    """The command line, and one folder a case."""

    def __init__(self, mpo, mpirun, work):
        self.mpo = mpo
        self.mpirun = mpirun
        self.work = work

    def folder(self, name):
        path = os.path.join(self.work, name)
        os.makedirs(path, exist_ok=True)
        return path


def every_number_of_ranks_writes_the_same_bytes(arguments):
    folder = arguments.folder("ranks")
    config = write_case(folder)
    expected = fit(arguments, config, os.path.join(folder, "1.h5"), 1)
    for name in ("weights", "gradient", "responses/token", "responses/log_policy"):
        tables.check(name in expected, "no data set /%s" % name)
    again = fit(arguments, config, os.path.join(folder, "again.h5"), 1)
    same(expected, again, "the same run again")
    for ranks in (2, 3, 6):
        found = fit(arguments, config, os.path.join(folder, "%d.h5" % ranks), ranks)
        same(expected, found, "%d ranks" % ranks)
    other = fit(arguments, config, os.path.join(folder, "seed.h5"), 1, "--run.seed=12")
    tables.check(other["responses/token"] != expected["responses/token"],
                 "another seed gave the same responses")


def groups_of_every_size_and_units_of_several_prompts_write_the_same_bytes(arguments):
    folder = arguments.folder("groups")
    config = write_case(folder)
    units = "--rollout.unit_prompts=2"
    expected = fit(arguments, config, os.path.join(folder, "1.h5"), 1, units)
    for ranks, group in ((2, 1), (2, 2), (3, 1), (3, 3), (4, 2), (6, 1), (6, 2), (6, 3)):
        record = os.path.join(folder, "%d_%d.h5" % (ranks, group))
        found = fit(arguments, config, record, ranks, units,
                    "--exchange.ranks_per_group=%d" % group)
        same(expected, found, "%d ranks in groups of %d" % (ranks, group))


def table_policies_do_not_notice_how_prompts_are_cut_into_units(arguments):
    folder = arguments.folder("units")
    config = write_case(folder)
    expected = fit(arguments, config, os.path.join(folder, "1.h5"), 1)
    for unit in (2, 3, 5):
        found = fit(arguments, config, os.path.join(folder, "unit%d.h5" % unit), 1,
                    "--rollout.unit_prompts=%d" % unit)
        same(expected, found, "units of %d prompts" % unit)


def every_transport_writes_the_same_bytes(arguments):
    folder = arguments.folder("transports")
    config = write_case(folder, policy_count=4)
    expected = fit(arguments, config, os.path.join(folder, "1.h5"), 1)
    for transport in ("shared", "mpi"):
        for ranks in (2, 3):
            record = os.path.join(folder, "%s%d.h5" % (transport, ranks))
            found = fit(arguments, config, record, ranks, "--exchange.transport=" + transport)
            same(expected, found, "%s on %d ranks" % (transport, ranks))


def proposal_of_a_reference_writes_the_same_bytes_on_every_number_of_ranks(arguments):
    folder = arguments.folder("reference")
    table = tables.random_tables(7, 4, 5, 1.0)
    config = tables.write_config(
        folder, table, PROMPTS,
        {"rollout": {"responses": 6, "max_tokens": 12, "prompts_per_step": 3,
                     "proposal": "reference"},
         "estimator": {"target": "whole"}, "descent": {"steps": 4}, "record": {"hash_models": "false"}},
        roles=["objective"] * 3 + ["reference"])
    expected = fit(arguments, config, os.path.join(folder, "1.h5"), 1)
    with h5py.File(os.path.join(folder, "1.h5"), "r") as record:
        tables.check(record["weights"].shape[1] == 3, "the reference has a weight")
        tables.check(record["responses/log_policy"].shape[1] == 4, "expected 4 policies")
    for ranks in (2, 4):
        found = fit(arguments, config, os.path.join(folder, "%d.h5" % ranks), ranks)
        same(expected, found, "%d ranks with a reference" % ranks)


def permuted_policies_give_permuted_weights(arguments):
    """Log-probabilities are added in another order, so this holds to rounding, and as long as
    no draw falls on the other side of a jump: for this seed it does not."""
    names = ["first", "second", "third"]
    weights = {}
    for order in ([0, 1, 2], [2, 0, 1]):
        folder = arguments.folder("permuted%d" % order[0])
        config = write_case(folder, names=names, order=order)
        path = os.path.join(folder, "out.h5")
        fit(arguments, config, path, 1)
        with h5py.File(path, "r") as record:
            objective = [name.decode() for name in record["objective"][()]]
            tables.check(objective == [names[k] for k in order], "names %s" % objective)
            weights[order[0]] = record["average"][-1]
    off = np.abs(weights[2] - weights[0][[2, 0, 1]]).max()
    tables.check(off <= 1e-10, "permuted weights differ by %g" % off)
    tables.check(np.ptp(weights[0]) > 1e-2, "weights %s say nothing" % weights[0])


def numbers_of_ranks_that_do_not_fit_are_refused_once(arguments):
    folder = arguments.folder("refused")
    config = write_case(folder)
    for ranks in (4, 5):
        record = os.path.join(folder, "%d.h5" % ranks)
        command = [arguments.mpo, "fit", config, "--record.file=" + record]
        _, said = tables.run_ranks(arguments.mpirun, ranks, command, expect=64)
        messages = [line for line in said.splitlines() if "mpo: " in line]
        tables.check(len(messages) == 1, "%d ranks: %d messages\n%s" % (
            ranks, len(messages), said))
        for size in ("3", "6"):
            tables.check(size in messages[0].replace("%d ranks cannot" % ranks, ""),
                         "%d ranks: '%s' does not name %s" % (ranks, messages[0], size))
        tables.check(not os.path.exists(record), "a refused run made a record")


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    arguments = Arguments(*sys.argv[1:])
    shutil.rmtree(arguments.work, ignore_errors=True)
    cases = [
        every_number_of_ranks_writes_the_same_bytes,
        groups_of_every_size_and_units_of_several_prompts_write_the_same_bytes,
        table_policies_do_not_notice_how_prompts_are_cut_into_units,
        every_transport_writes_the_same_bytes,
        proposal_of_a_reference_writes_the_same_bytes_on_every_number_of_ranks,
        permuted_policies_give_permuted_weights,
        numbers_of_ranks_that_do_not_fit_are_refused_once,
    ]
    sys.exit(tables.run_cases([(case, [arguments]) for case in cases]))


if __name__ == "__main__":
    main()
