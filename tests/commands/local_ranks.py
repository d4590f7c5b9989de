#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""launch/local.sh starts as many ranks as the configuration has policies.

    local_ranks.py MPO WORK SOURCE
"""

import json
import os
import re
import shutil
import sys

import fit_ranks
import tables


def local(mpo, source, *arguments, expect=0, ranks=None):
    environment = ["MPO=" + mpo] + (["RANKS=" + ranks] if ranks else [])
    return tables.run(["env", "-u", "RANKS"] + environment
                      + [os.path.join(source, "launch", "local.sh")] + list(arguments), expect)


def echo(mpo, work):
    """A program that counts policies and knows its commands as mpo does, and else says what it
    was called with."""
    path = os.path.join(work, "echo")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write('#!/bin/sh\ncase $1 in config | help) exec "%s" "$@" ;; esac\n'
                     'echo "$@"\n' % mpo)
    os.chmod(path, 0o755)
    return path


def every_policy_gets_a_rank(mpo, work, source):
    config = fit_ranks.write_case(work)
    record = os.path.join(work, "local.h5")
    _, said = local(mpo, source, "fit", config, "--record.file=" + record)
    tables.check("3 policies on 3 ranks" in said, said)
    for name, count in (("table", 3), ("reviews", 2), ("reviews_published", 3)):
        path = os.path.join(source, "configs", name + ".yaml")
        said, _ = local(echo(mpo, work), source, "fit", path)
        tables.check(said.split() == ["fit", path] * count, "%s: %s" % (path, said))
    inline = os.path.join(work, "inline.yaml")
    with open(inline, "w", encoding="utf-8") as stream:
        stream.write("policies: [{name: a, model: a}, {name: b, model: b}]\n")
    said, _ = local(echo(mpo, work), source, "fit", inline)
    tables.check(said.split() == ["fit", inline] * 2, said)


def other_files_among_the_arguments_are_no_configuration(mpo, work, source):
    path = os.path.join(source, "configs", "table.yaml")
    other = os.path.join(work, "in.jsonl")
    with open(other, "w", encoding="utf-8") as stream:
        stream.write("{}\n")
    said, _ = local(echo(mpo, work), source, "score", other, path, other)
    tables.check(said.split() == ["score", other, path, other] * 3, said)


def ranks_can_be_chosen(mpo, work, source):
    config = fit_ranks.write_case(work)
    record = os.path.join(work, "six.h5")
    _, said = local(mpo, source, "fit", config, "--record.file=" + record, ranks="6")
    tables.check("3 policies on 6 ranks" in said, said)


def without_a_configuration_it_says_what_to_set(mpo, work, source):
    nothing = os.path.join(source, "configs", "reference.yaml")
    _, said = local(mpo, source, "fit", nothing, expect=64)
    tables.check("set RANKS" in said and nothing in said, said)
    broken = os.path.join(work, "broken.yaml")
    with open(broken, "w", encoding="utf-8") as stream:
        stream.write("rum: {seed: 1}\n")
    _, said = local(mpo, source, "fit", broken, expect=64)
    tables.check("broken.yaml:1:1: rum: unknown key; did you mean 'run'?" in said, said)
    _, said = local(mpo, source, "fit", nothing, expect=64, ranks="0")
    tables.check("RANKS is '0'" in said, said)


def a_program_that_is_not_built_is_named(mpo, work, source):
    _, said = local(os.path.join(work, "no", "mpo"), source, "fit",
                    os.path.join(source, "configs", "table.yaml"), expect=69)
    tables.check("no program " + os.path.join(work, "no", "mpo") in said
                 and "quickstart" in said, said)


def what_needs_no_ranks_is_left_to_the_program(mpo, work, source):
    _, said = local(mpo, source, "fit", "no_such.yaml", expect=66)
    tables.check(said.count("mpo: ") == 1 and "no_such.yaml" in said, said)
    shown, _ = local(mpo, source, "help", "fit")
    tables.check("mpo fit" in shown, shown)
    config = fit_ranks.write_case(work)
    record = os.path.join(work, "shown.h5")
    local(mpo, source, "fit", config, "--record.file=" + record, "--descent.steps=2")
    shown, _ = local(mpo, source, "inspect", "--format=json", record)
    json.loads(shown)  # one document, not one a rank


def a_command_without_ranks_runs_once(mpo, work, source):
    config = fit_ranks.write_case(work)
    listed, _ = tables.run([mpo, "help", "--ranks"])
    ranked = listed.split()
    tables.check({"fit", "generate", "score", "evaluate", "doctor", "serve"} == set(ranked), listed)
    shown, _ = tables.run([mpo, "help"])
    others = set(re.findall(r"^  (\w+) ", shown.split("commands:")[1].split("\n\n")[0], re.M)) - set(ranked)
    tables.check({"config", "export", "launch", "prompt", "inspect", "recover", "refit", "help", "version"} == others,
                 str(others))
    program = echo(mpo, work)
    for command in sorted(others - {"config", "help"}):
        for ranks in (None, "2"):
            said, _ = local(program, source, command, config, ranks=ranks)
            tables.check(said.split() == [command, config], command + ": " + said)
    for command in ("config", "launch", "prompt"):
        shown, _ = local(mpo, source, command, config)
        first = shown.splitlines()[0]
        tables.check(first and shown.splitlines().count(first) == 1, command + ": " + shown)
    for flag in ("--help", "-h"):
        shown, _ = local(mpo, source, "fit", config, flag)
        tables.check(shown == tables.run([mpo, "help", "fit"])[0], shown)
    _, said = local(mpo, source, "fitt", config, expect=64)
    tables.check(said.count("no command 'fitt'") == 1, said)


def under_mpirun_rank_zero_alone_runs_it(mpo, work, source):
    """Each rank would print, and write the same file."""
    config = fit_ranks.write_case(work)
    record, copy = os.path.join(work, "once.h5"), os.path.join(work, "copy.h5")
    local(mpo, source, "fit", config, "--record.file=" + record, "--descent.steps=2")
    for words in (["inspect", record, "--format=json"], ["version", "--format=json"],
                  ["refit", record, "--min-ess=0", "--format=json"],
                  ["recover", record, "--output=" + copy, "--format=json"]):
        shown, said = tables.run_ranks("mpirun", 2, [mpo, *words])
        json.loads(shown)  # one document
        tables.check(said.count("runs in one process") == 1, said)
    _, said = tables.run_ranks("mpirun", 2, [mpo, "inspect", record + ".no"], expect=66)
    tables.check(said.count(record + ".no") == 1, said)
    shown, _ = tables.run_ranks("mpirun", 2, [mpo, "fit", "--help"])
    tables.check(shown == tables.run([mpo, "help", "fit"])[0], shown)


def a_tree_with_a_blank_and_a_link_to_the_script_work(mpo, work, source):
    tree = os.path.join(work, "a tree")
    shutil.copytree(os.path.join(source, "launch"), os.path.join(tree, "launch"))
    os.makedirs(os.path.join(tree, "build"))
    os.symlink(mpo, os.path.join(tree, "build", "mpo"))
    link = os.path.join(work, "local")
    os.symlink(os.path.join(tree, "launch", "local.sh"), link)
    config = fit_ranks.write_case(os.path.join(work, "blank"))
    _, said = tables.run(["env", "-u", "RANKS", "-u", "MPO", link, "fit", config,
                          "--record.file=" + os.path.join(work, "blank.h5")])
    tables.check("3 policies on 3 ranks" in said, said)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    cases = [every_policy_gets_a_rank, ranks_can_be_chosen,
             other_files_among_the_arguments_are_no_configuration,
             without_a_configuration_it_says_what_to_set,
             a_program_that_is_not_built_is_named,
             what_needs_no_ranks_is_left_to_the_program,
             a_command_without_ranks_runs_once,
             under_mpirun_rank_zero_alone_runs_it,
             a_tree_with_a_blank_and_a_link_to_the_script_work]
    sys.exit(tables.run_cases([(case, sys.argv[1:]) for case in cases]))


if __name__ == "__main__":
    main()
