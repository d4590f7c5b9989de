#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What would mislead is refused with what to do, and what is only spelled otherwise is taken.

usage: refusals.py MPO MPIEXEC WORK_FOLDER
"""
import json
import os
import re
import shutil
import subprocess

from person import CONFIG, MPO, WORK, check, fresh, refused, run, run_tests, says_once, write

UNIFORM = "--weights=uniform"


def test_prompts_of_another_kind():
    fresh()
    for name, words in (("prompts.json", ["jq -c", ".jsonl"]), ("prompts.csv", ["one prompt per line"]),
                        ("prompts.tsv", ["one prompt per line"]), ("prompts.parquet", [".jsonl"])):
        write(name, "a\n")
        for command in (["fit"], ["generate", UNIFORM], ["doctor"]):
            result = run(command[0], "config.yaml", f"--prompts.file={name}", *command[1:])
            said = result.stderr + " ".join(result.stdout.split())
            check(f"{name} by {command[0]}", result.returncode == 65 and name in said
                  and all(word in said for word in words), result)
        result = run("generate", "config.yaml", UNIFORM, f"--prompts.file={name}", "--prompts.format=text")
        check(f"{name} as text", result.returncode == 0, result)
    write("scored.json", '{"prompt": "a", "response": "b"}\n')
    result = run("score", "config.yaml", UNIFORM, "--input=scored.json")
    check("score reads JSON lines by any name", result.returncode == 0, result)


def test_names_that_lists_cannot_hold():
    for name in ("a,b", "a=b", "a;b"):
        fresh()
        write("config.yaml", CONFIG.format(more="").replace("name: up", f'name: "{name}"'))
        refused(f"a policy named {name}", 78, [name, "comma"], "fit", "config.yaml")


def test_a_record_without_a_name():
    fresh()
    for command in ("fit", "doctor"):
        result = run(command, "config.yaml", "--record.file=")
        check(f"{command} without a record's name", says_once(result, 78, ["--record.file", "name of a file"]), result)
    check("nothing is made", sorted(os.listdir(WORK)) == ["config.yaml", "down.table", "prompts.txt", "up.table"])


def test_errors_of_weights_name_the_option():
    fresh()
    for text, code in (("unifrom", 66), ("0.5", 64), ("0.5,x", 66), ("0.5,0.6", 64), ("-1,2", 64), ("up.table", 65),
                       ("0.5,", 64), (",", 64)):
        for command in (["generate", "config.yaml"], ["evaluate", "config.yaml"]):
            refused(f"--weights={text} by {command[0]}", code, ["--weights"], *command, f"--weights={text}")
        refused(f"--against={text}", code, ["--against"], "evaluate", "config.yaml", UNIFORM, f"--against={text}")


def figures(*options):
    result = run("evaluate", "config.yaml", "--replicates=100", "--format=json", *options)
    vectors = json.loads(result.stdout)["vectors"]
    return result, [{(item["quantity"], item.get("objective")): item for item in vector["results"]}
                    for vector in vectors]


def test_no_gap_off_the_simplex():
    fresh()
    write("prompts.txt", "a\nb\n" * 20)
    result, (good, bad) = figures(UNIFORM, "--against=0.9,0.9", "--allow-any-weights")
    check("a gap on the simplex", good["gap", None]["estimate"] is not None)
    check("no gap and no imbalance off it", all(bad[name, None] == {
        "quantity": name, "estimate": None, "low": None, "high": None}
        for name in ("gap", "imbalance")))
    check("F is given all the same", bad["value_jackknife", None]["estimate"] is not None)
    check("why is said once", result.stderr.count("not on the simplex") == 1 and "0.9,0.9" in result.stderr, result)
    text = run("evaluate", "config.yaml", "--replicates=100", "--weights=2,-1", "--allow-any-weights")
    check("none is printed", text.returncode == 0 and re.search(r"^ +gap +- +-$", text.stdout, re.M), text)


def test_temperature_zero_is_greedy():
    fresh()
    greedy = run("generate", "config.yaml", UNIFORM, "--greedy", "--n=3")
    zero = run("generate", "config.yaml", UNIFORM, "--temperature=0", "--n=3")
    check("--temperature=0 is --greedy", zero.returncode == 0 and zero.stdout == greedy.stdout, zero)
    refused("a temperature too low", 64, ["--temperature", "0.001"], "generate", "config.yaml", UNIFORM,
            "--temperature=0.0001")
    refused("best of greedy draws", 64, ["--best-of"], "generate", "config.yaml", UNIFORM, "--temperature=0",
            "--best-of=2")


def test_another_spelling_of_a_folder():
    fresh()
    os.mkdir(os.path.join(WORK, "inside"))
    above, own = os.path.split(WORK)
    places = [(WORK, "config.yaml"), ("/", os.path.join(WORK, "config.yaml")),
              (os.path.join(WORK, "inside"), "../config.yaml"), (above, f"{own}/config.yaml")]
    for hashed in ("true", "false"):
        for first, name in places:
            if os.path.exists(os.path.join(WORK, "out.h5")):
                os.remove(os.path.join(WORK, "out.h5"))
            command = [MPO, "fit", f"--record.hash_models={hashed}", "--quiet"]
            subprocess.run([*command, name], cwd=first, stdout=subprocess.DEVNULL, check=True)
            for steps, (second, other) in enumerate(places, 7):
                result = subprocess.run([*command, other, "--resume", f"--descent.steps={steps}"], cwd=second,
                                        capture_output=True, text=True, check=False)
                known = not name.startswith("../") or second == first or hashed == "true"
                check(f"{name} in {first}, then {other} in {second}, hashes {hashed}",
                      result.returncode == 0 or not known, result)
    shutil.copy(os.path.join(WORK, "up.table"), os.path.join(WORK, "other.table"))
    refused("another file is another configuration", 78, ["other.table"], "fit", "config.yaml", "--resume",
            "--record.hash_models=false", "--descent.steps=30", "--policies.up.model=other.table")


def test_shares_add_to_the_whole():
    fresh()
    for seed in range(6):
        result = run("fit", "config.yaml", "--force", f"--run.seed={seed}")
        shares = [float(share) for share in re.findall(r"([\d.]+)%", result.stderr)]
        check(f"shares of the stages: {shares}", len(shares) == 5 and abs(sum(shares) - 100) < 1e-9)
        shown = run("inspect", "out.h5").stdout
        table = shown[shown.index("stage "):]
        shares = [float(share) for share in re.findall(r" ([\d.]+) %", table)]
        check(f"shares of the record: {shares}", len(shares) == 6 and abs(sum(shares) - 100) < 1e-9)


run_tests(globals())
