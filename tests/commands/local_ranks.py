#!/usr/bin/env python3
"""launch/local.sh starts as many ranks as the configuration has policies.

    local_ranks.py MPO WORK SOURCE
"""

import os
import shutil
import sys

import fit_ranks
import tables


def local(mpo, source, *arguments, expect=0, ranks=None):
    environment = ["MPO=" + mpo] + (["RANKS=" + ranks] if ranks else [])
    return tables.run(["env", "-u", "RANKS"] + environment
                      + [os.path.join(source, "launch", "local.sh")] + list(arguments), expect)


def every_policy_gets_a_rank(mpo, work, source):
    config = fit_ranks.write_case(work)
    record = os.path.join(work, "local.h5")
    _, said = local(mpo, source, "fit", config, "--record.file=" + record)
    tables.check("3 policies on 3 ranks" in said, said)
    for name, count in (("table", 3), ("reviews", 2), ("reviews_reference", 3)):
        path = os.path.join(source, "configs", name + ".yaml")
        said, _ = local("echo", source, "x", path)
        tables.check(said.split() == ["x", path] * count, "%s: %s" % (path, said))


def ranks_can_be_chosen(mpo, work, source):
    config = fit_ranks.write_case(work)
    record = os.path.join(work, "six.h5")
    _, said = local(mpo, source, "fit", config, "--record.file=" + record, ranks="6")
    tables.check("3 policies on 6 ranks" in said, said)


def without_a_configuration_it_says_what_to_set(mpo, _, source):
    nothing = os.path.join(source, "configs", "reference.yaml")
    for argument in ("no_such.yaml", nothing):
        _, said = local(mpo, source, "fit", argument, expect=64)
        tables.check("set RANKS" in said, "%s: %s" % (argument, said))


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    cases = [every_policy_gets_a_rank, ranks_can_be_chosen,
             without_a_configuration_it_says_what_to_set]
    sys.exit(tables.run_cases([(case, sys.argv[1:]) for case in cases]))


if __name__ == "__main__":
    main()
