#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The resolved configuration: what config prints is read back to the same, and single keys.

usage: config.py MPO MPIEXEC WORK_FOLDER
"""
import os
import shlex
import sys

from person import CONFIG, MPO, WORK, check, fresh, refused, run, run_tests, start, write

SYSTEM = "say \"yes\": 'no' # \\ \u00e9\n- twice"


def test_it_reads_back_to_the_same():
    fresh()
    flags = ("--policies.down.system=" + SYSTEM, "--rollout.end_bias=0.1",
             "--descent.initial=0.3333333333333333,0.6666666666666667", "--fit.force")
    once = run("config", "config.yaml", *flags)
    check("config prints the configuration", once.returncode == 0 and once.stderr == ""
          and "  seed: 1\n" in once.stdout and "  responses: 8\n" in once.stdout
          and "  end_bias: 0.1\n" in once.stdout and "  force: true\n" in once.stdout, once)
    write("again.yaml", once.stdout)
    again = run("config", "again.yaml")
    check("what it prints is read back to the same", again.stdout == once.stdout, again)
    result = run("fit", "again.yaml", "--quiet", "--policies.down.system=")
    check("and fits", result.returncode == 0, result)
    os.makedirs(os.path.join(WORK, "sub"))
    write("sub/config.yaml", CONFIG.format(more=""))
    result = run("config", "sub/config.yaml")
    check("paths are seen from the working directory",
          '  file: "sub/prompts.txt"\n' in result.stdout, result)
    alone, result = run("config", "config.yaml"), run("config", "config.yaml", ranks=2)
    check("under a launcher rank zero prints, and says that it is alone",
          result.returncode == 0 and result.stdout == alone.stdout
          and result.stderr.count("\n") == 1 and "rank 0 does" in result.stderr, result)


def test_one_key():
    fresh()
    flags = ("--policies.down.system=" + SYSTEM, "--descent.initial=0.25,0.75")
    for key, value in (("policies", "up\ndown"), ("policies.down.model", "down.table"),
                       ("policies.down.system", SYSTEM), ("policies.up.temperature", "1"),
                       ("run.threads", "auto"), ("rollout.responses", "8"),
                       ("rollout.control", "auto"), ("descent.initial", "0.25,0.75"),
                       ("descent.step_rule", "adaptive"), ("record.responses", "true"),
                       ("record.file", "out.h5"), ("generate.weights", "uniform")):
        result = run("config", "config.yaml", "--get=" + key, *flags)
        check(f"--get={key}", result.returncode == 0 and result.stdout == value + "\n", result)
        if "." in key:
            again = run("config", "config.yaml", f"--{key}={value}", "--get", key)
            check(f"--get={key} is what the flag takes", again.stdout == result.stdout, again)
    for key in ("run.step-deadline", "policies.up.reward-zero", "record.hash-models"):
        flag = "--" + key + ("=1" if "hash" not in key else "")
        result = run("config", "config.yaml", "--get=" + key, flag)
        check(f"--get={key} as its flag is taken", result.returncode == 0
              and result.stdout == ("true" if "hash" in key else "1") + "\n", result)
    write("none.yaml", CONFIG.format(more="").replace("prompts: {file: prompts.txt}", ""))
    result = run("config", "none.yaml", "--get=policies")
    check("a file that generate --prompt takes will do", result.stdout == "up\ndown\n", result)


def test_wrong_keys_and_files():
    fresh()
    for key, words in (("rollout.respones", ["--get", "'rollout.respones'",
                                             "'rollout.responses'"]),
                       ("rollout", ["'rollout'", "section.key"]),
                       ("policies.up.modle", ["'policies.up.model'"]),
                       ("policies.up", ["'policies.up'", "policies.NAME.key"]),
                       ("policies.dwn.model", ["unknown policy 'dwn'", "'down'"]),
                       ("policies.", ["unknown policy ''"]),
                       ("config.get", ["'config.get'"]), ("inspect.plot", ["'inspect.plot'"]),
                       (".", ["'.'"])):
        refused(f"--get={key}", 64, words, "config", "config.yaml", "--get=" + key)
    refused("no file", 64, ["expected one configuration file"], "config")
    refused("a missing file", 66, ["no.yaml"], "config", "no.yaml")
    write("bad.yaml", CONFIG.format(more="config: {get: run.seed}\n"))
    refused("a question in the file", 78, ["bad.yaml:9:1: config: unknown key"], "config",
            "bad.yaml")
    refused("a wrong flag", 64, ["--run.seed"], "config", "config.yaml", "--run.seed=x")
    write("bad.yaml", "policies: []\n")
    for flags in (["--get="], ["--get", ""]):
        refused(f"{flags}", 64, ["--get", "found none"], "config", "config.yaml", *flags)
    refused("no policies", 78, ["bad.yaml: policies"], "config", "bad.yaml", "--get=policies")
    result = start(["sh", "-c", f"{shlex.quote(MPO)} config config.yaml >/dev/full"])
    check("a full disk is told", result.returncode == 74, result)


run_tests(globals())
