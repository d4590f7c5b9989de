#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No option is ignored without a word: a command's own that has no effect beside the others is
refused, and what a command does not look at is told.

usage: idle_options.py MPO MPIEXEC WORK_FOLDER
"""
import json
import os
import re

from person import CONFIG, WORK, check, fresh, refused, run, run_tests, table, write

UNIFORM = "--weights=uniform"
REFERENCE = CONFIG.format(more="").replace(
    "rollout:", "  - {name: base, model: base.table, role: reference}\nrollout:")


def idle(result):
    """The keys that are told, in their order."""
    return re.findall(r"^warning: (\S+) has no effect here: ", result.stderr, re.M)


def begin():
    fresh()
    table("base.table", "0.3 0.4 0.3")
    write("reference.yaml", REFERENCE)
    write("in.jsonl", json.dumps({"prompt": "a", "response": "a"}) + "\n")
    run("fit", "reference.yaml", "--quiet")


def test_flags_of_a_fit_are_told_by_the_others():
    begin()
    # every option that some command does not look at, with another value than its default
    shared = {"rollout.proposal": "reference", "rollout.prompts_per_step": 2, "rollout.responses": 3,
              "rollout.unit_prompts": 2, "rollout.end_bias": 0.5, "rollout.control": 0.5,
              "rollout.max_tokens": 7, "rollout.strength": 1.5, "estimator.target": "whole",
              "descent.steps": 3, "rewards.deadline": 3, "rewards.calibration": 3,
              "record.file": "x.h5", "record.responses": "false", "record.hash_models": "false",
              "prompts.date": "2024-01-01", "policies.up.min": 0.1, "policies.up.max": 0.9,
              "policies.up.reward_zero": 0, "policies.up.reward_one": 1, "policies.up.reward": "r",
              "policies.up.temperature": 2, "policies.up.scale": 0.9, "run.seed": 2,
              "exchange.pattern": "gather"}
    heeded = {"rollout.strength", "record.hash_models", "prompts.date", "policies.temperature",
              "policies.scale", "run.seed", "exchange.pattern"}
    without = {"generate": heeded | {"rollout.max_tokens"}, "score": heeded - {"run.seed"},
               "evaluate": heeded | {"rollout.max_tokens", "policies.min", "policies.max"}}
    for command, more in (("generate", [UNIFORM]), ("score", [UNIFORM, "--input=in.jsonl"]),
                          ("evaluate", [UNIFORM, "--replicates=100"])):
        result = run(command, "reference.yaml", *more,
                     *[f"--{key}={value}" for key, value in shared.items()])
        names = [re.sub(r"\.up\.", ".", key) for key in shared]
        expected = sorted(name for name in names if name not in without[command])
        check(f"{command} tells {expected}", result.returncode == 0
              and sorted(idle(result)) == expected, result)
        result = run(command, "reference.yaml", *more, ranks=2)
        check(f"{command} says nothing of a file", idle(result) == [], result)
    result = run("generate", "reference.yaml", UNIFORM, "--descent.steps=3", "--quiet", ranks=2)
    check("once, on two ranks", idle(result) == ["descent.steps"], result)
    result = run("fit", "reference.yaml", "--force", "--rollout.responses=3", "--descent.steps=3",
                 "--rollout.control=0.5")
    check("fit looks at all of them", result.returncode == 0 and idle(result) == [], result)


def test_options_of_other_commands_are_told():
    begin()
    others = {"fit.force": "true", "generate.n": "3", "score.limit": "2", "evaluate.limit": "2",
              "serve.port": "3", "launch.groups": "2", "prompt.index": "1", "doctor.format": "json"}
    own = {"doctor": ["fit"], "launch": ["fit"]}
    for command, more in (("fit", ["--force", "--quiet"]), ("generate", [UNIFORM]),
                          ("score", [UNIFORM, "--input=in.jsonl"]), ("doctor", ["--fit.force"]),
                          ("evaluate", [UNIFORM, "--replicates=100"]), ("launch", ["--fit.quiet", "--record.file=n.h5"]), ("prompt", [])):
        given = {key: value for key, value in others.items()
                 if key.split(".")[0] not in [command, *own.get(command, [])]}
        result = run(command, "config.yaml", *more, *[f"--{key}={value}" for key, value in given.items()])
        check(f"{command} tells options of others", result.returncode == 0
              and sorted(idle(result)) == sorted(given), result)
    result = run("config", "config.yaml", "--generate.n=3", "--get=generate.n")
    check("config shows them", result.stdout == "3\n" and result.stderr == "", result)
    write("others.yaml", CONFIG.format(more="generate: {n: 3}\n"))
    result = run("fit", "others.yaml", "--force", "--quiet")
    check("a file may have them", idle(result) == [], result)


def test_nothing_is_drawn():
    begin()
    keys = ["rollout.responses=3", "rollout.end_bias=1", "estimator.target=whole", "descent.steps=3",
            "rewards.deadline=3", "exchange.pattern=gather", "record.file=x.h5", "run.seed=3",
            "policies.up.min=0.1", "policies.up.max=0.9", "policies.up.temperature=2", "policies.up.scale=0.9",
            "policies.up.reward=r", "policies.up.reward_zero=0", "policies.up.reward_one=1"]
    result = run("prompt", "reference.yaml", *["--" + key for key in keys])
    told_keys = sorted(re.sub(r"\.up\.", ".", key.split("=")[0]) for key in keys)
    check("prompt draws nothing", result.returncode == 0 and sorted(idle(result)) == told_keys, result)
    result = run("prompt", "reference.yaml", "--prompts.prefill=b", "--run.threads=1", "--prompts.date=2020-01-01")
    check("prompt looks at prompts", result.returncode == 0 and idle(result) == [], result)
    generate = ["generate", "config.yaml", UNIFORM]
    for more in (["--greedy"], ["--temperature=0"]):
        result = run(*generate, *more, "--top-k=2", "--top-p=0.5", "--min-p=0.1", "--run.seed=3")
        check(f"{more} draws nothing", result.returncode == 0 and sorted(idle(result)) == [
            "generate.min_p", "generate.top_k", "generate.top_p", "run.seed"], result)
    result = run(*generate, "--top-k=2", "--top-p=0.5", "--min-p=0.1", "--run.seed=3")
    check("a draw looks at all", idle(result) == [], result)
    result = run("score", "config.yaml", "--input=in.jsonl", "--run.seed=3")
    check("score draws nothing", idle(result) == ["run.seed"], result)
    refused("a limit of one prompt", 64, ["--limit", "--prompt"], *generate, "--prompt=a", "--limit=1")


def test_units_and_devices():
    begin()
    for flags, keys in ((["--rollout.unit_prompts=2"], ["rollout.unit_prompts"]),
                        (["--rollout.unit_prompts=2", "--rollout.prompts_per_step=2"], []),
                        (["--policies.up.devices=2", "--run.device=cpu"], ["policies.devices"]),
                        (["--run.batch_invariant=false", "--run.device=cpu"],
                         ["run.batch_invariant"])):  # of tables
        result = run("fit", "config.yaml", "--force", "--quiet", *flags, ranks=2)
        check(f"fit {flags}", result.returncode == 0 and idle(result) == keys, result)
    write("units.yaml", CONFIG.format(more="").replace("rollout: {", "rollout: {unit_prompts: 2, "))
    result = run("fit", "units.yaml", "--force", "--quiet")
    check("a file may be made for larger steps", idle(result) == [], result)


def test_options_of_other_kinds_of_policies():
    """Tables have no engine: what is about one is told, what would change it is refused."""
    begin()
    write("x.jinja", "{{ messages[0].content }}")
    flags = ["--run.threads=2", "--run.batch_invariant=false", "--run.device_rows=fixed",
             "--run.kv=unified"]
    keys = ["run.threads", "run.batch_invariant", "run.device_rows", "run.kv"]
    for command, more in (("doctor", ["--record.file=k.h5"]), ("fit", ["--force", "--quiet"]),
                          ("generate", [UNIFORM]), ("score", [UNIFORM, "--input=in.jsonl"])):
        result = run(command, "reference.yaml", *more, *flags, ranks=2)
        found = idle(result)
        if command == "doctor":  # among the warnings of its report
            found = re.findall(r"^warning  device     (?:rank 0: )?(\S+) has no effect", result.stdout, re.M)
        check(f"{command} tells what no table heeds, once", result.returncode == 0
              and sorted(found) == sorted(keys), result)
    write("threads.yaml", REFERENCE.replace("run: {seed: 1", "run: {seed: 1, threads: 2"))
    result = run("fit", "threads.yaml", "--force", "--quiet")
    check("of a file too", idle(result) == ["run.threads"], result)
    result = run("generate", "threads.yaml", UNIFORM)
    check("by fit alone", idle(result) == [], result)
    for option, value in (("lora", "x.gguf"), ("system", "be kind"), ("request", "{prompt}?"),
                          ("template", "x.jinja"), ("template", "chatml")):
        flag = f"--policies.up.{option}={value}"
        words = ["'up'", f"no {option}", "kind table"]
        for command, more in (("fit", ["--force"]), ("generate", [UNIFORM])):
            refused(f"{command}: {option} of a table", 78, words, command, "reference.yaml", *more,
                    flag, ranks=2)
        for command, more in (("prompt", []), ("doctor", ["--record.file=k.h5"])):
            result = run(command, "reference.yaml", *more, flag)
            said = " ".join((result.stdout + result.stderr).split())
            check(f"{command}: {option} of a table", result.returncode == 78
                  and all(word in said for word in words), result)
    for value in ("auto", "raw"):
        result = run("generate", "reference.yaml", UNIFORM, f"--policies.up.template={value}")
        check(f"template: {value} says what a table does", result.returncode == 0, result)


def test_inspect_without_a_record():
    begin()
    for flag in ("--follow", "--responses=2", "--plot=x.svg"):
        refused(f"inspect --schema {flag}", 64, ["one record", "found 0"], "inspect", "--schema", flag)
    result = run("inspect", "--schema")
    check("inspect --schema", result.returncode == 0, result)
    result = run("refit", "out.h5", "--descent.step_constant=2", "--min-ess=0")
    check("refit: a constant", idle(result) == ["descent.step_constant"], result)
    result = run("refit", "out.h5", "--descent.step_constant=2", "--descent.step_rule=fixed", "--min-ess=0")
    check("refit: a constant of a rule", idle(result) == [], result)


def test_prompts_of_one_prompt():
    begin()
    result = run("generate", "config.yaml", "--prompt=a", "--prompts.file=none.txt")
    check("a file beside --prompt", idle(result) == ["prompts.file"], result)
    result = run("score", "config.yaml", "--input=in.jsonl", "--prompts.file=none.txt",
                 "--prompts.prefill=x")
    check("a file beside --input", idle(result) == ["prompts.file", "prompts.prefill"], result)


def test_parts_of_a_fit_that_have_no_effect():
    begin()
    constant = "--descent.step_constant=2"
    for command in ("fit", "doctor", "launch"):
        flags = ["--record.file=y.h5"]
        result = run(command, "reference.yaml", *flags, constant)
        check(f"{command}: a constant of no step rule",
              idle(result) == ["descent.step_constant"], result)
        result = run(command, "reference.yaml", "--record.file=z.h5", constant,
                     "--descent.step_rule=fixed")
        check(f"{command}: a constant", idle(result) == [], result)
        result = run(command, "reference.yaml", "--record.file=w.h5", "--rewards.deadline=9",
                     "--rewards.calibration=4", "--policies.up.reward_one=3")
        check(f"{command}: rewards without a program", idle(result) == [
            "rewards.deadline", "rewards.calibration", "policies.reward_one"], result)
        for name in "yzw":
            if os.path.exists(os.path.join(WORK, name + ".h5")):
                os.remove(os.path.join(WORK, name + ".h5"))
    write("constant.yaml", REFERENCE.replace("steps: 6", "steps: 6, step_constant: 2"))
    result = run("fit", "constant.yaml", "--force")
    check("of a file too", idle(result) == ["descent.step_constant"], result)
    result = run("generate", "constant.yaml", UNIFORM)
    check("by fit alone", idle(result) == [], result)
    refused("a scale of no adapter", 78, ["lora_scale", "'up'", "0.5"], "fit", "config.yaml",
            "--policies.up.lora_scale=0.5")


def test_own_options_without_an_effect_are_refused():
    begin()
    generate = ["generate", "config.yaml", UNIFORM]
    refused("tries of no exact draw", 64, ["--exact-limit", "--exact"], *generate, "--exact-limit=10", ranks=2)
    result = run(*generate, "--exact-limit=1000", "--exact")
    check("tries of exact draws", result.returncode == 0, result)
    write("limit.yaml", CONFIG.format(more="generate: {exact_limit: 50}\n"))
    result = run("generate", "limit.yaml", UNIFORM)
    check("a file may say what its commands do not need", result.returncode == 0
          and idle(result) == [], result)
    refused("two temperatures", 64, ["--temperature", "--greedy"], *generate, "--greedy",
            "--temperature=0.7")
    result = run(*generate, "--greedy", "--temperature=0", "--top-p=0.9")
    check("the same twice", result.returncode == 0, result)
    refused("a goal of no rewards", 64, ["--goal", "--rewards"], "refit", "out.h5", "--goal=maxmin")
    refused("a file for a frontier", 64, ["--output", "frontier"], "refit", "out.h5", "--frontier=3",
            "--output=x.json")
    refused("series of responses", 64, ["--series", "--responses"], "inspect", "out.h5",
            "--responses=2", "--json", "--series=value")
    result = run("refit", "out.h5", "--frontier=3", "--descent.steps=7", "--min-ess=0")
    check("a descent beside a frontier", idle(result) == ["descent.steps"], result)


def test_strength_makes_exponents_of_weights_alone():
    begin()
    score = ["score", "reference.yaml", "--input=in.jsonl"]
    evaluate = ["evaluate", "reference.yaml", "--replicates=100"]
    for command in (["generate", "reference.yaml"], score, evaluate):
        refused(f"{command[0]}: a strength of a policy", 64, ["--strength=2", "--weights=up"],
                *command, "--weights=up", "--strength=2", ranks=2)
        refused(f"{command[0]}: a strength of exponents", 64,
                ["--strength=2", "--allow-any-weights"], *command, "--weights=0.5,0.5",
                "--allow-any-weights", "--strength=2")
        for weights in ("up", "uniform", "out.h5"):
            refused(f"{command[0]}: any {weights}", 64, ["--allow-any-weights", weights], *command,
                    f"--weights={weights}", "--allow-any-weights")
        for weights in (["--weights=up"], ["--weights=0.5,0.2", "--allow-any-weights"]):
            result = run(*command, *weights, "--rollout.strength=2", "--policies.up.scale=0.9", ranks=2)
            check(f"{command[0]}: exponents of {weights}", result.returncode == 0
                  and idle(result) == ["rollout.strength", "policies.scale"], result)
        result = run(*command, UNIFORM, "--rollout.strength=2", "--strength=2")
        check(f"{command[0]}: two strengths", idle(result) == ["rollout.strength"], result)
        for weights in ("uniform", "0.5,0.5", "out.h5"):
            result = run(*command, f"--weights={weights}", "--strength=2")
            check(f"{command[0]}: a strength of {weights}", result.returncode == 0, result)
    for flag in ("--step=2", "--iterate=last"):
        refused(f"evaluate: {flag} of no record", 64, [flag, "uniform"], *evaluate, UNIFORM, flag)
        result = run(*evaluate, UNIFORM, "--against=out.h5", flag)
        check(f"evaluate: {flag} of one of them", result.returncode == 0, result)
    result = run(*evaluate, "--weights=up", "--against=uniform", "--strength=2")
    check("evaluate: a strength of one of them", result.returncode == 0, result)
    result = run(*evaluate, UNIFORM, "--against=1,0.5", "--allow-any-weights")
    check("evaluate: any of one of them", result.returncode == 0, result)


def told(result, word):
    return [line for line in result.stderr.splitlines() if line.startswith("warning: ")
            and word in line]


def test_a_record_keeps_strength_and_scales():
    begin()
    run("fit", "reference.yaml", "--quiet", "--record.file=far.h5", "--rollout.strength=1.5",
        "--policies.up.scale=0.8")
    for command in (["generate", "reference.yaml"], ["score", "reference.yaml", "--input=in.jsonl"],
                    ["evaluate", "reference.yaml", "--replicates=100"]):
        plain = run(*command, "--weights=far.h5")
        check(f"{command[0]}: nothing given, nothing told", plain.returncode == 0
              and not told(plain, "which is used"), plain)
        for flag, recorded in (("rollout.strength=2", "1.5"), ("policies.up.scale=0.9", "0.8"),
                               ("policies.up.scale=1", "0.8")):
            key, value = flag.split("=")
            result = run(*command, "--weights=far.h5", "--" + flag, ranks=2)
            said = told(result, key)
            check(f"{command[0]}: --{flag}", len(said) == 1
                  and f"is {value}, but far.h5 was fitted with {recorded}, which is used" in said[0]
                  and result.stdout == plain.stdout, result)
        same = run(*command, "--weights=far.h5", "--rollout.strength=1.5",
                   "--policies.up.scale=0.8")
        check(f"{command[0]}: the same", not told(same, "which is used"), same)
        over = run(*command, "--weights=far.h5", "--rollout.strength=2", "--strength=2")
        check(f"{command[0]}: --strength is used", not told(over, "which is used")
              and (command[0] == "generate" or over.stdout != plain.stdout), over)
    write("scaled.yaml", REFERENCE.replace("up.table}", "up.table, scale: 0.9}"))
    result = run("generate", "scaled.yaml", "--weights=far.h5")
    check("of a file too", len(told(result, "policies.up.scale")) == 1, result)


run_tests(globals())
