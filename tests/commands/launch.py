#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The batch script that launch prints: its numbers, its command, and what it refuses.

    launch.py MPO MPIRUN WORK [BIGRAM_GGUF_TOOL]

Memory is compared with what doctor counts on as many ranks, and the command line with what a
program in mpo's place is given.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import doctor_case
import fit_ranks
import tables
from doctor_case import MPO, WORK

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILT = json.loads(tables.run([MPO, "version", "--format=json"])[0])
HAS_CUDA = "cuda" in BUILT["devices"]
PARTS = ("weights", "cache", "work", "exchange")


def launch(config, *flags):
    script, said = tables.run([MPO, "launch", config, *flags])
    tables.check(said == "", said)
    return script


def asked(script):
    """{option: value} of the lines for sbatch."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", script, re.M))


def asks(config, *flags, **expected):
    found = asked(launch(config, *flags))
    for name, value in expected.items():
        name = name.replace("_", "-")
        tables.check(found.get(name) == value, "%s: --%s=%s, expected %s" % (
            flags, name, found.get(name), value))


def refused(code, words, config, *flags):
    script, said = tables.run([MPO, "launch", config, *flags], expect=code)
    tables.check(script == "", "a refused launch printed\n" + script)
    lines = said.splitlines()
    tables.check(len(lines) == 1 and lines[0].startswith("mpo: ")
                 and all(word in lines[0] for word in words), "%s: %s" % (words, said))


def small(name):
    return fit_ranks.write_case(os.path.join(WORK, name))


def ranks_nodes_and_cores_are_those_of_the_groups():
    config = small("sizes")
    asks(config, nodes="1", ntasks_per_node="3", time="04:00:00", signal="B:USR1@180")
    asks(config, "--groups=2", "--ranks-per-node=6", gpus_per_node="6" if HAS_CUDA else "0")
    asks(config, "--policies.p1.devices=3", "--ranks-per-node=1", gpus_per_node="3" if HAS_CUDA else "0")
    asks(config, "--run.device=cpu", gpus_per_node="0", cpus_per_task="8")
    asks(config, cpus_per_task="2" if HAS_CUDA else "8")
    asks(config, "--ranks-per-node=1", cpus_per_task="4" if HAS_CUDA else "8")
    asks(config, "--groups=2", nodes="2", ntasks_per_node="3")
    asks(config, "--groups=2", "--ranks-per-node=2", nodes="3", ntasks_per_node="2")
    asks(config, "--groups=2", "--ranks-per-node=6", nodes="1", ntasks_per_node="6")
    asks(config, "--exchange.ranks_per_group=2", nodes="1", ntasks_per_node="2")
    asks(config, "--run.threads=3", cpus_per_task="3")
    asks(config, "--run.threads=3", "--cpus-per-task=5", cpus_per_task="5")
    asks(config, partition=None, account=None)
    asks(config, "--partition=main", "--account=a-b", partition="main", account="a-b")


def the_time_limit_is_given_or_follows_from_the_steps():
    config = small("time")
    for given in ("1-02:00:00", "90", "90:30", "04:00:00", "2-12", "2-12:30"):
        asks(config, "--time=" + given, "--seconds-per-step=9", time=given)
    for given in ("::", "-", "1-", "1:2:3:4", "1-2-3", "99999999999999999999", "4h", ""):
        refused(78, ["launch.time", "'%s'" % given], config, "--time=" + given)
    for given in ("4", "04:00", "0:04:00", "0-0", "0-0:3"):
        refused(78, ["launch.time", "240 s", "'%s'" % given], config, "--time=" + given)
    asks(config, "--time=4:01", time="4:01")
    refused(78, ["launch.time", "260 s"], config, "--time=4:20", "--seconds-per-step=100")
    # 5 steps x 100 s x 1.25 + 600 s + 200 s = 1425 s
    asks(config, "--seconds-per-step=100", time="0-00:24:00", signal="B:USR1@200")
    # 1000 steps x 100 s x 1.25 + 800 s = 125800 s
    asks(config, "--seconds-per-step=100", "--descent.steps=1000", time="1-10:57:00")
    refused(78, ["launch.time"], config, "--seconds-per-step=100", "--descent.steps=1000000")


def large(name, vocab_size=512, pattern="auto"):
    """Three policies of many tokens whose rows take megabytes."""
    config = fit_ranks.write_case(os.path.join(WORK, name), options={
        "rollout": {"responses": 256, "max_tokens": 8, "prompts_per_step": 6},
        "exchange": {"pattern": pattern}})
    folder = os.path.dirname(config)
    tokens = ["t%d" % token for token in range(vocab_size - 1)] + ["</s>"]
    row = " ".join(["%.17g" % (1 / vocab_size)] * vocab_size)
    for policy in ("p0", "p1", "p2"):
        with open(os.path.join(folder, policy + ".table"), "w", encoding="utf-8") as stream:
            stream.write("mpo-table 1\ntokens %s\n" % " ".join(tokens))
            stream.writelines("row %s %s\n" % (token, row) for token in tokens + ["<s>"])
    with open(os.path.join(folder, "prompts.txt"), "w", encoding="utf-8") as stream:
        stream.write("".join("t%d\n" % prompt for prompt in range(6)))
    return config


def memory_is_as_doctor_counts(config, telling):
    """On one node, with one group and with two; telling: the parts that are over a megabyte."""
    for ranks in (3, 6):
        script = launch(config, "--groups=%d" % (ranks // 3), "--ranks-per-node=%d" % ranks)
        found = {part: int(re.search(r"\b%s (\d+)" % part, script)[1])
                 for part in ("program", *PARTS)}
        _, report = doctor_case.doctor(config, ranks=ranks)
        for part in PARTS:
            counted = sum(rank["needs"][part + "_bytes"] for rank in report["ranks"])
            tables.check(found[part] == -(-counted // 2**20), "%s: %d MB, doctor has %d bytes" % (
                part, found[part], counted))
            tables.check((found[part] > 1) == (part in telling), "%s: %d MB" % (part, found[part]))
        needed = int(re.search(r"per node: (\d+) MB \+ 25 % \+ 128 MB per rank", script)[1])
        tables.check(-5 <= needed - sum(found.values()) <= 0, "%d MB of %s" % (needed, found))
        tables.check(asked(script)["mem"] == "%dM" % (needed * 125 // 100 + 128 * ranks), script)


def memory_of_tables_is_what_doctor_counts_and_the_stated_margin():
    memory_is_as_doctor_counts(large("memory"), ["exchange"])
    memory_is_as_doctor_counts(large("slices", 1280, "alltoall"), ["exchange"])


def memory_of_models_is_what_doctor_counts_and_the_stated_margin():
    memory_is_as_doctor_counts(doctor_case.gguf_case("gguf", responses=64, max_tokens=100,
                                                prompts_per_step=2),
                               ["weights", "cache", "work"])


def the_neediest_node_decides_on_the_memory():
    """One rank a node: the root has the rows of the two others, and the other nodes their own;
    of two blocks of tokens it has the first of the others' and its own rows."""
    for config, rows in (
            (large("neediest"), 2 * 256 * (512 * 4 + 8)),
            (large("neediest_slice", 1280, "alltoall"),
             256 * (1280 * 4 + 8) + 2 * 256 * (1024 * 4 + 8))):
        script = launch(config, "--ranks-per-node=1")
        tables.check("exchange %d," % -(-rows // 2**20) in script, script)


def rounded_rows_and_their_messages_count_as_memory():
    """A rank keeps its own rows rounded, 4 bytes a token; by messages it packs them, 2 bytes,
    and the root has 2 bytes as they come and 4 of each token of the two others."""
    config = large("rounded")
    row = 256 * 512
    for transport, needs in (("mpi", [(4 + 2 * 6) * row] + 2 * [(4 + 2) * row]),
                             ("shared", [4 * row] + 2 * [2 * 4 * row + 8 * 256])):
        _, report = doctor_case.doctor(config, "--exchange.rows=bf16", "--exchange.pattern=gather",
                                  "--exchange.transport=" + transport, ranks=3)
        found = [rank["needs"]["exchange_bytes"] for rank in report["ranks"]]
        tables.check(found == needs, "%s: %s, expected %s" % (transport, found, needs))
    script = launch(config, "--ranks-per-node=1", "--exchange.rows=bf16")
    # Launch counts both ends of each message.
    most = (4 + 2 * 8) * row + 2 * 8 * 256
    tables.check("exchange %d," % -(-most // 2**20) in script, script)


def the_script_runs_fit_with_the_same_flags():
    folder = os.path.join(WORK, "a folder; with $HOME's")
    config = fit_ranks.write_case(folder)
    flags = ["--run.seed", "7", "--policies.p1.min=0.1", "--fit.quiet", "--rollout.responses=4",
             "--record.file=%s/it's\n#SBATCH --nodes=9 `x`.h5" % WORK]
    script = launch(config, "--groups", "2", *flags, "--launch.time=10")
    given = ["fit", "--resume", "--run.threads=8", config, "--run.seed=7", flags[2],
             "--fit.quiet=true", flags[4], flags[5], "--more"]
    home = os.path.join(WORK, "home")
    os.makedirs(os.path.join(home, "launch"))
    with open(os.path.join(home, "launch", "env.sh"), "w", encoding="utf-8") as stream:
        stream.write("mpo=(mpo)\nsrun_options=(--mpi=pmix)\n")
    with open(os.path.join(home, "launch", "requeue.sh"), "w", encoding="utf-8") as stream:
        stream.write("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    os.chmod(os.path.join(home, "launch", "requeue.sh"), 0o755)
    done = subprocess.run(["bash", "-s", "--", "--more"], input=script, capture_output=True,
                          text=True, timeout=600, check=False,
                          env={**os.environ, "MPO_HOME": home, "SLURM_CPUS_PER_TASK": "8"})
    words = done.stdout.split("\0")[:-1]
    tables.check(words == ["srun", "--mpi=pmix", "--distribution=block", "mpo", *given],
                 "%s\n%s" % (words, done.stderr))
    tables.check(asked(script.split("set -e")[0])["nodes"] == "2", script)


def the_script_is_clean_shell():
    config = small("shell")
    for flags in ([], ["--groups=2"], ["--record.file=it's a #run.h5"]):
        script = launch(config, *flags)
        tools = [["bash", "-n"]]
        if shutil.which("shellcheck"):
            tools.append(["shellcheck", "-x", "-"])
        else:
            print("       (shellcheck is not installed)")
        for tool in tools:
            done = subprocess.run(tool, input=script, capture_output=True, text=True, cwd=SOURCE,
                                  timeout=600, check=False)
            tables.check(done.returncode == 0 and done.stdout + done.stderr == "",
                         "%s: %s%s" % (tool, done.stdout, done.stderr))
        wide = [line for line in script.splitlines()
                if line.startswith("#") and len(line) > 100]
        tables.check(not wide, wide)


def what_fit_would_refuse_is_refused():
    config = small("refused")
    refused(66, ["no.yaml"], os.path.join(WORK, "no.yaml"))
    refused(66, ["'p1'", "no.table"], config, "--policies.p1.model=no.table")
    refused(66, ["no.txt"], config, "--prompts.file=no.txt")
    if not HAS_CUDA:
        refused(69, ["cuda"], config, "--run.device=cuda")
    if "nccl" not in BUILT["transports"]:
        refused(69, ["exchange.transport", "nccl", "it has:"], config, "--exchange.transport=nccl")
    refused(73, ["no/", "directory"], config, "--record.file=no/out.h5")
    refused(78, ["prompts_per_step", "7"], config, "--rollout.prompts_per_step=8")
    refused(64, ["--force"], config, "--fit.force")
    refused(64, ["standard input"], config, "--prompts.file=-")
    other = os.path.join(WORK, "other.table")
    tables.write_table(other, tables.random_tables(1, 1, 6, 1.0)[0])
    refused(65, ["vocabular", "'p2'"], config, "--policies.p2.model=" + other)
    strange = os.path.join(WORK, "strange.txt")
    with open(strange, "w", encoding="utf-8") as stream:
        stream.write("a\nz\n")
    refused(65, ["'z'"], config, "--prompts.file=" + strange, "--rollout.prompts_per_step=1")


def wrong_sizes_are_named_with_the_next_ones():
    config = small("wrong")
    refused(64, ["ranks_per_node is 2", "3 ranks", "1 and 3"], config, "--ranks-per-node=2")
    refused(64, ["ranks_per_node is 4", "6 ranks", "3 and 6"], config, "--groups=2",
            "--ranks-per-node=4")
    refused(64, ["ranks_per_node is 8", "at most 3"], config, "--ranks-per-node=8")
    refused(78, ["ranks_per_group is 4", "1 to 3"], config, "--exchange.ranks_per_group=4")


def what_would_not_be_one_word_for_sbatch_is_refused():
    config = small("words")
    for name in ("partition", "account", "time"):
        for text in ("a b", "x\n#SBATCH --nodes=9", "x#"):
            refused(78, ["launch." + name], config, "--%s=%s" % (name, text))


def groups_without_prompts_are_warned_of():
    config = small("idle")
    _, said = tables.run([MPO, "launch", config, "--groups=6"])
    tables.check("warning: 6 groups" in said and "work units for only 5" in said, said)


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    cases = [
        ranks_nodes_and_cores_are_those_of_the_groups,
        the_time_limit_is_given_or_follows_from_the_steps,
        memory_of_tables_is_what_doctor_counts_and_the_stated_margin,
        the_neediest_node_decides_on_the_memory,
        rounded_rows_and_their_messages_count_as_memory,
        the_script_runs_fit_with_the_same_flags,
        the_script_is_clean_shell,
        what_fit_would_refuse_is_refused,
        wrong_sizes_are_named_with_the_next_ones,
        what_would_not_be_one_word_for_sbatch_is_refused,
        groups_without_prompts_are_warned_of,
    ]
    if doctor_case.TOOL:
        cases.append(memory_of_models_is_what_doctor_counts_and_the_stated_margin)
    sys.exit(tables.run_cases([(case, []) for case in cases]))


if __name__ == "__main__":
    main()
