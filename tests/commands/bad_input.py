#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad options, configurations, prompts, records and ranks: one message, the right exit code, and
nothing left behind, on one rank and on several.

    bad_input.py MPO MPIEXEC WORK_FOLDER [--sample]

With --sample (sample.py) every bad thing is shown to one of the commands and on one of the
numbers of ranks that otherwise all meet it.
"""
import os
import shutil

import h5py

import sample
from person import (CONFIG, MPIEXEC, MPO, WORK, check, fresh, refused, run, run_tests,
                      says_once, start, table, write)

LINE_BYTES_MAX = 1 << 20
GIVEN = ["config.yaml", "down.table", "prompts.txt", "up.table"]


def write_bytes(name, data):
    with open(os.path.join(WORK, name), "wb") as file:
        file.write(data)


def refused_everywhere(name, code, words, *arguments):
    for ranks in sample.one(f"{name} {arguments}", (1, 2)):
        refused(name, code, words, *arguments, ranks=ranks)


def refuse_config(name, words, old, new):
    write("bad.yaml", CONFIG.format(more="").replace(old, new))
    refused_everywhere(name, 78, ["bad.yaml:", *words], "fit", "bad.yaml")


def test_configuration():
    fresh()
    refuse_config("an unknown section", ["rollouts", "rollout"], "rollout:", "rollouts:")
    refuse_config("an unknown key of a policy", [":4:", "modell", "model"], "model: up",
                  "modell: up")
    refuse_config("text for a number", [":7:", "steps", "many"], "steps: 6", "steps: many")
    refuse_config("a list for a number", [":7:", "steps"], "steps: 6", "steps: [6]")
    refuse_config("a fraction for a whole number", [":7:", "6.5"], "steps: 6", "steps: 6.5")
    refuse_config("a value out of range", [":6:", "responses", "300"], "responses: 8",
                  "responses: 300")
    refuse_config("no number at all", [":1:", "nan"], "seed: 1", "seed: nan")
    refuse_config("a policy name twice", ["up", "policies[0]"], "name: down", "name: up")
    refuse_config("a key twice", ["steps"], "steps: 6", "steps: 6, steps: 7")
    refuse_config("YAML that ends early", [], "steps: 6}", "steps: 6")
    write("bad.yaml", "")
    refused_everywhere("an empty configuration", 78, ["bad.yaml"], "fit", "bad.yaml")
    write_bytes("bad.yaml", b"run: {seed: 1}\nprompts: {file: \xff.txt}\n")
    refused_everywhere("a configuration that is no UTF-8", 78, ["bad.yaml:2"], "fit", "bad.yaml")
    refused_everywhere("a folder for a configuration", 66, ["directory"], "fit", ".")
    os.remove(os.path.join(WORK, "bad.yaml"))
    check("nothing was written", sorted(os.listdir(WORK)) == GIVEN)


def test_flags():
    fresh()
    refused_everywhere("text for a number", 64, ["--descent.steps", "many"], "fit",
                       "config.yaml", "--descent.steps=many")
    refused_everywhere("a policy that is not there", 64, ["sideways", "up, down"], "fit",
                       "config.yaml", "--policies.sideways.temperature=1")
    refused_everywhere("an empty prompt", 64, ["--prompt", "empty"], "generate", "config.yaml",
                       "--prompt=")
    refused_everywhere("a prompt that is no UTF-8", 64, ["--prompt", "UTF-8"], "generate",
                       "config.yaml", b"--prompt=a\xff")
    refused_everywhere("nothing to score", 64, ["--input"], "score", "config.yaml")
    refused_everywhere("responses of evaluate", 64, ["--responses", "1"], "evaluate",
                       "config.yaml", "--responses=1")


def test_prompts():
    fresh()
    runs = [([command, "config.yaml"], ranks) for command, ranks in (
        ("fit", 1), ("generate", 1), ("evaluate", 1), ("fit", 2))]
    for name, words, data in (
            ("an empty file", ["prompts.txt", "none"], b""),
            ("blank lines", ["prompts.txt", "none"], b"\n  \n\r\n"),
            ("no UTF-8", ["prompts.txt:2", "0xFE"], b"a\nb \xfe\n"),
            ("half a character", ["prompts.txt:1", "0xC3"], b"a \xc3\n"),
            ("a NUL", ["prompts.txt:1", "0x00"], b"a\0b\n"),
            ("a line over 1 MiB", ["prompts.txt:2", "1048576"],
             b"a\n" + b"a " * (LINE_BYTES_MAX // 2) + b"a\n")):
        write_bytes("prompts.txt", data)
        for command, ranks in sample.one(name, runs):
            refused(f"prompts with {name}, {command[0]}", 65, words, *command, ranks=ranks)
    write_bytes("prompts.txt", b"a " * (LINE_BYTES_MAX // 2) + b"\n")
    for ranks in (1, 2):
        result = run("generate", "config.yaml", "--format=jsonl", ranks=ranks)
        check(f"a prompt of 1 MiB on {ranks}", result.returncode == 0
              and len(result.stdout) > LINE_BYTES_MAX, result)
    refused_everywhere("a folder for prompts", 66, ["directory"], "fit", "config.yaml",
                       "--prompts.file=.")
    check("nothing was written", sorted(os.listdir(WORK)) == GIVEN)


def test_lines_of_json():
    fresh()
    for name, words, text in (
            ("no JSON", ["in.jsonl:2"], '{"prompt": "a", "response": "b"}\n{"prompt": \n'),
            ("no object", ["in.jsonl:1", "object"], "[1]\n"),
            ("an empty prompt", ["in.jsonl:1", "prompt"], '{"prompt": "", "response": "b"}\n'),
            ("no prompt", ["in.jsonl:1", "neither"], '{"response": "b"}\n'),
            ("a number for a prompt", ["in.jsonl:1", "number"], '{"prompt": 3}\n'),
            ("no lines", ["in.jsonl", "none"], "")):
        write("in.jsonl", text)
        refused_everywhere(f"score of {name}", 65, words, "score", "config.yaml",
                           "--input=in.jsonl")
        refused(f"generate for {name}", 65, words, "generate", "config.yaml",
                "--prompts.file=in.jsonl")
    write("in.jsonl", '{"prompt": "a"}\n')
    refused_everywhere("no response to score", 65, ["in.jsonl:1", "response"], "score",
                       "config.yaml", "--input=in.jsonl")
    write("in.jsonl", '{"prompt": "a", "response": "zebra"}\n')
    refused_everywhere("a response outside the vocabulary", 65, ["in.jsonl:1", "zebra"], "score",
                       "config.yaml", "--input=in.jsonl")
    write_bytes("in.jsonl", b'{"prompt": "a", "response": "\xff"}\n')
    refused_everywhere("a response that is no UTF-8", 65, ["in.jsonl:1"], "score", "config.yaml",
                       "--input=in.jsonl")
    refused_everywhere("a missing input", 66, ["no.jsonl"], "score", "config.yaml",
                       "--input=no.jsonl")


def test_outputs():
    fresh()
    for name, code, word in (("no/out.h5", 73, "no/out.h5"), ("prompts.txt/out.h5", 73, "prompts"),
                             ("/sys/out.h5", 77, "/sys/out.h5")):
        refused_everywhere(f"a record at {name}", code, [word], "fit", "config.yaml",
                           f"--record.file={name}")
    os.mkdir(os.path.join(WORK, "folder"))
    refused_everywhere("a folder for a record", 73, ["folder"], "fit", "config.yaml",
                       "--record.file=folder", "--force")
    os.symlink("nowhere", os.path.join(WORK, "link.h5"))
    refused_everywhere("a link that leads nowhere", 73, ["link.h5"], "fit", "config.yaml",
                       "--record.file=link.h5")
    check("nothing was written", sorted(os.listdir(WORK)) == sorted(
        GIVEN + ["folder", "link.h5"]))
    run("fit", "config.yaml", "--quiet")
    refused("a plot in no folder", 73, ["no/out.svg"], "inspect", "out.h5", "--plot",
            "no/out.svg")
    refused("a result that exists", 73, ["prompts.txt"], "refit", "out.h5", "--min-ess=0",
            "--output=prompts.txt")


def as_reader_of(path):
    """What makes a command run as somebody who may not read a file; None: there is no way."""
    os.chmod(path, 0)
    if os.geteuid() != 0:
        return {}
    os.chmod(WORK, 0o777)
    sessions = os.path.join(WORK, "sessions")  # Open MPI's, else where only root may write
    os.makedirs(sessions, exist_ok=True)
    os.chmod(sessions, 0o777)
    somebody = {"user": 65534, "group": 65534, "extra_groups": [],
                "env": {**os.environ, "OMPI_MCA_orte_tmpdir_base": sessions}}
    try:
        works = run("version", **somebody).returncode == 0
    except OSError:
        works = False
    return somebody if works else None


def test_inputs_that_cannot_be_read():
    fresh()
    run("fit", "config.yaml", "--quiet")
    os.mkdir(os.path.join(WORK, "folder"))
    write("locked", "")
    somebody = as_reader_of(os.path.join(WORK, "locked"))
    if somebody is None:
        print("SKIP  files that may not be read: nobody but root can run the program here")
    faults = [("no", 66, {}), ("folder", 66, {})]
    if somebody is not None:
        faults.append(("locked", 77, somebody))
    for name, code, options in faults:
        for what, arguments in (
                ("configuration", ["fit", name]),
                ("prompts", ["fit", "config.yaml", "--prompts.file=" + name]),
                ("input", ["score", "config.yaml", "--weights=uniform", "--input=" + name]),
                ("table", ["fit", "config.yaml", "--policies.up.kind=table",
                           "--policies.up.model=" + name]),
                ("model", ["fit", "config.yaml", "--policies.up.model=" + name]),
                ("weights", ["generate", "config.yaml", "--weights=" + name]),
                ("record", ["inspect", name]), ("record", ["refit", name]),
                ("record", ["recover", name])):
            result = run(*arguments, **options)
            check(f"{arguments[0]} of {what} '{name}' ends with {code}",
                  says_once(result, code, [name]), result)


def damage_schema(schema):
    def change(path):
        with h5py.File(path, "r+") as file:
            file.attrs["log_schema"] = schema
    return change


def other_hdf5(path):
    os.remove(path)
    with h5py.File(path, "w") as file:
        file["weights"] = [0.5, 0.5]


def no_hdf5(path):
    with open(path, "w", encoding="utf-8") as file:
        file.write("weights 0.5 0.5\n")


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def test_records():
    fresh()
    run("fit", "config.yaml", "--quiet")
    write("in.jsonl", '{"prompt": "a", "response": "b"}\n')
    with_weights = (["generate", "config.yaml"], ["score", "config.yaml", "--input=in.jsonl"],
                    ["evaluate", "config.yaml"])
    bad = os.path.join(WORK, "bad.h5")
    for name, words, change in (
            ("of a newer schema", ["bad.h5", "mpo-9.0"], damage_schema("mpo-9.0")),
            ("of a newer minor schema", ["bad.h5", "mpo-1.99"], damage_schema("mpo-1.99")),
            ("that is other HDF5", ["bad.h5", "not a record"], other_hdf5),
            ("that is no HDF5", ["bad.h5", "not an HDF5 file"], no_hdf5),
            ("that was cut", ["bad.h5"], cut)):
        shutil.copy(os.path.join(WORK, "out.h5"), bad)
        change(bad)
        for command in sample.one(name, (["inspect"], ["refit"], ["recover"],
                                         ["inspect", "--compare", "out.h5"])):
            refused(f"a record {name}, {command}", 65, words, *command, "bad.h5")
        for command in sample.one(name, with_weights):
            refused_everywhere(f"a record {name}, {command[0]}", 65, words, *command,
                               "--weights=bad.h5")
    for command in sample.one("a missing record", with_weights):
        refused_everywhere(f"a missing record, {command[0]}", 66, ["no.h5"], *command,
                           "--weights=no.h5")
    table("up.table", "0.5 0.3 0.2")
    refused_everywhere("a table that changed since the fit", 65, ["up.table", "SHA-256"],
                       "generate", "config.yaml", "--weights=out.h5")


def test_ranks():
    fresh()
    refused("three ranks for two policies", 64, ["3 ranks", "2 or 4"], "fit", "config.yaml",
            ranks=3)
    for command in (["generate", "config.yaml"], ["evaluate", "config.yaml"]):
        refused(f"three ranks for two policies, {command[0]}", 64, ["3 ranks"], *command, ranks=3)
    refused("too few ranks for a group", 64, ["1 ranks", "2"], "fit", "config.yaml",
            "--exchange.ranks_per_group=2")
    refused_everywhere("more ranks a group than policies", 78, ["ranks_per_group", "1 to 2"],
                       "fit", "config.yaml", "--exchange.ranks_per_group=3")
    refused("shared memory for one rank", 78, ["shared", "auto"], "fit", "config.yaml",
            "--exchange.transport=shared")


def run_in(folders, *arguments):
    """One rank in each folder, as on nodes with files of their own."""
    command = [MPIEXEC, "--oversubscribe"]
    for folder in folders:
        command += [":"] if "-n" in command else []
        command += ["-n", "1", "-wdir", os.path.join(WORK, folder), MPO, *arguments]
    return start(command)


def two_nodes(lacking, *names):
    """Folders one and two of the same files; `lacking` has none of the names."""
    for folder in ("one", "two"):
        path = os.path.join(WORK, folder)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(os.path.join(path, "records"))
        for name in GIVEN:
            shutil.copy(os.path.join(WORK, name), path)
    for name in names:
        path = os.path.join(WORK, lacking, name)
        (shutil.rmtree if os.path.isdir(path) else os.remove)(path)


def one_rank_fails(name, code, words):
    result = run_in(("one", "two"), "fit", "config.yaml", "--record.file=records/out.h5")
    check(f"on one rank alone: {name}", says_once(result, code, words), result)
    left = os.path.join(WORK, "one", "records")
    check("no record", not os.path.exists(left) or os.listdir(left) == [])


def test_one_rank_fails():
    fresh()
    two_nodes("two", "down.table")
    one_rank_fails("a missing table", 66, ["rank 1:", "down.table"])
    write("two/down.table", "mpo-table 1\ntokens a b </s>\nrow a 1 2\n")
    one_rank_fails("a damaged table", 65, ["rank 1:", "down.table:3"])
    table("two/down.table", "0.1 0.5 0.4", tokens=("a", "c"))
    one_rank_fails("a table of other words", 65, ["token 1", "'b'", "'c'"])
    two_nodes("one", "up.table")
    one_rank_fails("a missing table of rank 0", 66, ["rank 0:", "up.table"])
    two_nodes("two", "prompts.txt")
    one_rank_fails("missing prompts", 66, ["rank 1:", "prompts.txt"])
    write("two/prompts.txt", "a\na\n")
    one_rank_fails("other prompts", 78, ["rank 1:", "prompts differ"])
    two_nodes("two", "config.yaml")
    one_rank_fails("a missing configuration", 66, ["rank 1:", "config.yaml"])
    write("two/config.yaml", CONFIG.format(more="").replace("steps: 6", "steps: 7"))
    one_rank_fails("another configuration", 78, ["rank 1:", "configuration"])
    two_nodes("one", "records")
    one_rank_fails("no folder for the record", 73, ["rank 0:", "records/out.h5"])
    two_nodes("two", "records")
    result = run_in(("one", "two"), "fit", "config.yaml", "--record.file=records/out.h5")
    check("only rank 0 needs the folder", result.returncode == 0, result)


run_tests(globals())
