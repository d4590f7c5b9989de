#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The program as a person meets it: messages, exit codes, what is left behind.

usage: program.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import json
import os
import shutil
import sys

from person import CONFIG, WORK, check, fresh, refused, run, run_apart, run_tests, table, write

SOURCE = sys.argv[4]


def test_fit_leaves_a_record():
    fresh()
    result = run("fit", "config.yaml", "--estimator.target=whole")
    check("fit ends well", result.returncode == 0, result)
    check("the result is on stdout and names the objectives",
          "up" in result.stdout and "averaged gap" in result.stdout, result)
    check("the steps are on stderr", result.stderr.count("step ") >= 6, result)
    check("the lock is gone", not os.path.exists(os.path.join(WORK, "out.h5.lock")))
    for ranks in (1, 2):
        refused("an existing record is never overwritten", 73, ["out.h5"], "fit", "config.yaml",
                ranks=ranks)
    result = run("fit", "config.yaml", "--force", "--quiet")
    check("--force moves it aside", result.returncode == 0
          and os.path.exists(os.path.join(WORK, "out.h5.1")), result)
    check("--quiet says nothing", result.stderr == "", result)


def test_one_step_has_no_scatter():
    fresh()
    result = run("fit", "config.yaml", "--quiet", "--descent.steps=1")
    check("F of one step is without an error", result.returncode == 0
          and "mean over 1 step\n" in result.stdout and "nan" not in result.stdout, result)


def test_stop_gap_stops():
    fresh()
    result = run("fit", "config.yaml", "--estimator.target=whole", "--descent.stop_gap=1000",
                 "--descent.steps=50")
    check("a fit that stop_gap ended is finished", ", finished\n" in run("inspect", "out.h5").stdout)
    check("stop_gap ends the fit early", result.returncode == 0
          and "stopped after 1 step:" in result.stderr, result)


def test_wrong_input_is_named():
    fresh()
    write("bad.yaml", CONFIG.format(more="").replace("steps: 6", "stepz: 6"))
    for ranks in (1, 2):
        refused("an unknown key", 78, ["bad.yaml:7:11: descent.stepz: ", "steps"], "fit", "bad.yaml",
                ranks=ranks)
        refused("a missing configuration", 66, ["no.yaml"], "fit", "no.yaml", ranks=ranks)
        refused("a missing table", 66, ["up", "no.table"], "fit", "config.yaml",
                "--policies.up.model=no.table", ranks=ranks)
        refused("missing prompts", 66, ["no.txt"], "fit", "config.yaml",
                "--prompts.file=no.txt", ranks=ranks)
        refused("an unknown flag", 64, ["--rollout.respones", "responses"], "fit", "config.yaml",
                "--rollout.respones=3", ranks=ranks)
        refused("a value out of range", 64, ["responses", "0"], "fit", "config.yaml",
                "--rollout.responses=0", ranks=ranks)
    table("zero.table", "1.0 0.0 0.0")
    refused("a table without full support", 65, ["zero.table", "full support"], "fit",
            "config.yaml", "--policies.down.model=zero.table")
    os.mkfifo(os.path.join(WORK, "pipe"))
    refused("a pipe that nobody writes", 66, ["'down'", "pipe is not a file"], "fit",
            "config.yaml", "--policies.down.model=pipe")
    refused("no table at all", 66, ["'down'", "none: No such file"], "fit", "config.yaml",
            "--policies.down.model=none", "--policies.down.system=x")
    write("prompts.txt", "a\nz\n")
    refused("a prompt outside the vocabulary", 65, ["prompts.txt:2", "'z'"], "fit", "config.yaml")
    write("prompts.txt", "\n\n")
    refused("no prompt", 65, ["prompts.txt"], "fit", "config.yaml")
    fresh()
    refused("more prompts a step than there are", 78, ["prompts_per_step", "1000000", "2"], "fit",
            "config.yaml", "--rollout.prompts_per_step=1000000", "--rollout.max_tokens=1000000")
    refused("no such device", 69, ["cuda", "cpu"], "fit", "config.yaml", "--run.device=cuda")
    refused("a record that cannot be made", 73, ["no/out.h5"], "fit", "config.yaml",
            "--record.file=no/out.h5")
    result = run("dance")
    check("no such command", result.returncode == 64 and "dance" in result.stderr, result)
    check("nothing was written", sorted(os.listdir(WORK)) == [
        "config.yaml", "down.table", "prompts.txt", "up.table"])


def test_vocabularies_must_agree():
    fresh()
    table("down.table", "0.1 0.5 0.4", tokens=("a", "c"))
    for ranks in (1, 2):
        refused("vocabularies that differ", 65, ["token 1", "'b'", "'c'", "'up'", "'down'"], "fit",
                "config.yaml", ranks=ranks)


def test_ranks_must_run_the_same():
    fresh()
    result = run_apart(["fit", "config.yaml"], "--descent.steps=3")
    check("another configuration on one rank", result.returncode == 78
          and "mpo: rank 1: configuration" in result.stderr, result)
    result = run_apart(["fit", "config.yaml"], "--prompts.file=no.txt")
    check("a file that is missing on one rank", result.returncode in (66, 78)
          and "mpo: rank 1: " in result.stderr, result)
    check("no record of ranks that differ", not os.path.exists(os.path.join(WORK, "out.h5")))


def test_help_is_an_option_too():
    fresh()
    result = run("fit", "config.yaml", "--help")
    check("--help after a command is its help", result.returncode == 0
          and "usage: mpo fit" in result.stdout and result.stderr == "", result)


def test_one_response_is_warned_about():
    fresh()
    result = run("fit", "config.yaml", "--rollout.responses=1", "--estimator.target=whole")
    check("one response a prompt is warned about", result.returncode == 0
          and "warning: with one response" in result.stderr, result)


def test_generate_takes_weights():
    fresh()
    run("fit", "config.yaml", "--quiet")
    for weights in ("out.h5", "0.5,0.5", "uniform", "up"):
        result = run("generate", "config.yaml", "--weights", weights, "--n", "3")
        check(f"generate --weights {weights}", result.returncode == 0
              and result.stdout.count("###") == 6, result)
    one = run("generate", "config.yaml", "--weights", "up", "--n", "4")
    two = run("generate", "config.yaml", "--weights", "1,0", "--n", "4", ranks=2)
    check("weight 1 on one policy is that policy, on any ranks", one.stdout == two.stdout, two)
    refused("weights off the simplex", 64, ["--weights: ", "0.7"], "generate", "config.yaml",
            "--weights", "0.3,0.4")
    refused("too few weights", 64, ["expected 2 numbers", "found 1"], "generate", "config.yaml",
            "--weights", "1.0")
    write("other.yaml", CONFIG.format(more="").replace("name: up", "name: left"))
    refused("a record of other objectives", 65, ["objective 1", "'up'", "'left'"], "generate",
            "other.yaml", "--weights", "out.h5")
    refused("weights that are nothing", 66, ["nosuch", "up, down", "no such record"],
            "generate", "config.yaml", "--weights=nosuch")
    refused("weights to compare that are wrong", 64, ["--against: ", "--allow-any"],
            "evaluate", "config.yaml", "--weights=0.5,0.5", "--against=-1,2")
    write("in.jsonl", json.dumps({"prompt": "a", "response": "a"}) + "\n")
    for command in (["generate"], ["score", "--input=in.jsonl"]):
        for weights in ("0.5,0.5", "uniform", "up"):
            for flag in ("--step=3", "--iterate=last"):
                for ranks in (1, 2):
                    refused(f"{flag} of --weights={weights}", 64, [flag, "=" + weights],
                            command[0], "config.yaml", *command[1:], flag,
                            "--weights=" + weights, ranks=ranks)
    refused("weights that are no record", 65, ["config.yaml"], "generate", "config.yaml",
            "--weights", "config.yaml")


def test_every_command_takes_the_same_weights_of_a_record():
    fresh()
    run("fit", "config.yaml", "--quiet")
    series = json.loads(run("inspect", "out.h5", "--json").stdout)["series"]
    for iterate, name in (("last", "weights"), ("average", "average")):
        result = run("evaluate", "config.yaml", "--weights=out.h5", f"--iterate={iterate}",
                     "--step=2", "--json", "--quiet")
        vector = json.loads(result.stdout)["vectors"][0]["weights"]
        check(f"evaluate takes {iterate} weights of a step",
              list(vector.values()) == series[name][2], result)
    for command in ("evaluate", "generate"):
        refused(f"{command}: a step that is not there", 64, ["out.h5", "0 to 5", "9"], command,
                "config.yaml", "--weights=out.h5", "--step=9")
        refused(f"{command}: weights off the simplex", 64, ["--allow", "1.5"], command,
                "config.yaml", "--weights=1,0.5")
        result = run(command, "config.yaml", "--weights=1,0.5", "--allow-any-weights")
        check(f"{command} --allow-any-weights", result.returncode == 0, result)


def warnings_of(*arguments, ranks=1):
    result = run(*arguments, "--weights=out.h5", ranks=ranks)
    check(f"{arguments[0]} ends well", result.returncode == 0, result)
    said = [line for line in result.stderr.splitlines() if line.startswith("warning: the weights")]
    return result, said


def test_policies_that_are_not_those_of_a_record_are_named_once():
    fresh()
    run("fit", "config.yaml", "--quiet")
    write("in.jsonl", json.dumps({"prompt": "a", "response": "a"}) + "\n")
    shutil.copy(os.path.join(WORK, "up.table"), os.path.join(WORK, "again.table"))
    moved = "--policies.up.model=again.table"
    for command in (["generate", "config.yaml"], ["evaluate", "config.yaml"],
                    ["score", "config.yaml", "--input=in.jsonl"]):
        for ranks in (1, 2):
            result, said = warnings_of(*command, "--policies.up.temperature=3", ranks=ranks)
            check(f"{command[0]} names the policy's option and both values, on {ranks} ranks",
                  len(said) == 1 and "out.h5" in said[0]
                  and "policies.up.temperature was 1, is 3" in said[0], result)
        result, said = warnings_of(*command, "--policies.up.devices=2", "--policies.up.min=0.1", moved)
        check(f"{command[0]} says nothing of what changes no probability", said == [], result)
        result, said = warnings_of(*command, "--record.hash_models=false", moved)
        check(f"{command[0]} compares paths where there is no hash",
              len(said) == 1 and "policies.up.model was " in said[0]
              and "again.table" in said[0], result)
        result, said = warnings_of(*command, "--record.hash_models=false", "--policies.up.model="
                                   + os.path.join(os.path.abspath(WORK), "up.table"))
        check(f"{command[0]} knows a file by another path", said == [], result)


def test_refit_takes_the_options_of_the_descent():
    fresh()
    run("fit", "config.yaml", "--quiet", "--estimator.target=whole")
    gaps = [json.loads(run("refit", "out.h5", "--json", *flags).stdout)["gap"] for flags in (
        [], ["--descent.stop_gap=0.01"], ["--descent.stop_gap=1000"], ["--descent.steps=1"])]
    check("stop_gap ends a refit", gaps[0] < gaps[1] < gaps[2] and gaps[2] == gaps[3], None)
    refused("no such map", 64, ["--descent.map", "entropy", "'x'"], "refit", "out.h5",
            "--descent.map=x")


def test_proposal_reference():
    fresh()
    table("ref.table", "0.3 0.4 0.3")
    write("ref.yaml", CONFIG.format(more="").replace(
        "rollout: {", "  - {name: base, model: ref.table, role: reference}\nestimator: {target: whole}\nrollout: {proposal: reference, "))
    result = run("fit", "ref.yaml")
    check("fit with the reference proposal", result.returncode == 0
          and "2 objectives, 3 policies" in result.stderr, result)
    check("the reference has no weight", "base" not in result.stdout, result)
    refused("a reference is needed", 78, ["reference"], "fit", "config.yaml",
            "--rollout.proposal=reference")
    for command, ranks in (("fit", 1), ("fit", 2), ("launch", 1)):
        refused(f"{command}: a tilted reference", 78, ["rollout.end_bias", "reference", "0.5"],
                command, "ref.yaml", "--record.file=new.h5", "--rollout.end_bias=0.5",
                ranks=ranks)
    result = run("doctor", "ref.yaml", "--record.file=new.h5", "--rollout.end_bias=0.5")
    check("doctor: a tilted reference", result.returncode == 78
          and "rollout.end_bias" in result.stdout + result.stderr, result)
    result = run("fit", "ref.yaml", "--force", "--rollout.end_bias=0")
    check("no tilt may be said", result.returncode == 0, result)


def test_a_plot_that_is_not_whole_is_none():
    if shutil.which("gnuplot") is None:
        print("SKIP  no gnuplot")
        return
    fresh()
    run("fit", "config.yaml", "--quiet")
    for name in ("out.svg", "out.png"):
        path = os.path.join(WORK, name)
        for command in (["inspect", "out.h5"], ["refit", "out.h5", "--frontier=5"]):
            result = run(*command, "--plot", name)
            check(f"{command[0]} draws {name}", result.returncode == 0
                  and os.path.getsize(path) > 1000
                  and not os.path.exists(path + ".part"), result)
            with open(path, "rb") as file:
                before = file.read()
            os.symlink("/dev/full", path + ".part")
            result = run(*command, "--plot", name)
            check(f"{command[0]}: a full disk ends with 74", result.returncode == 74
                  and name in result.stderr and "drew" not in result.stderr, result)
            with open(path, "rb") as file:
                check("and the older plot stays", file.read() == before, result)
            check("alone", not os.path.lexists(path + ".part"), result)
    for name in ("out.svg", "out.png"):
        os.remove(os.path.join(WORK, name))
        os.symlink("/dev/full", os.path.join(WORK, name + ".part"))
        refused("no plot on a full disk", 74, [name], "inspect", "out.h5", "--plot", name)
        check("and nothing is left", not os.path.lexists(os.path.join(WORK, name)))


def test_inspect_prints():
    fresh()
    run("fit", "config.yaml", "--quiet")
    summary = run("inspect", "out.h5")
    check("inspect summarises", summary.returncode == 0 and "up" in summary.stdout, summary)
    tsv = run("inspect", "out.h5", "--format=tsv")
    rows = tsv.stdout.strip().split("\n")
    check("inspect --format=tsv: a header and a line a step", len(rows) == 7
          and len({line.count("\t") for line in rows}) == 1, tsv)
    check("inspect --schema", "averaged_gap" in run("inspect", "--schema").stdout)
    plot = run("inspect", "out.h5", "--plot", "out.svg")
    check("inspect --plot", plot.returncode == 0
          and "<svg" in open(os.path.join(WORK, "out.svg"), encoding="utf-8").read(), plot)
    refused("inspect of a missing record", 66, ["no.h5"], "inspect", "no.h5")
    refused("inspect of no record", 65, ["config.yaml"], "inspect", "config.yaml")


def test_help_and_reference():
    fresh()
    for command in ("fit", "generate", "inspect"):
        result = run("help", command)
        check(f"help {command}", result.returncode == 0 and "usage" in result.stdout, result)
    reference = run("help", "--reference").stdout
    with open(os.path.join(SOURCE, "configs", "reference.yaml"), encoding="utf-8") as file:
        check("configs/reference.yaml is what `mpo help --reference` prints",
              file.read() == reference)


run_tests(globals())
