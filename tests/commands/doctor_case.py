# SPDX-License-Identifier: Apache-2.0
"""Configurations that doctor and fit look at, and whether they agree on them.

A script that imports this has been called with MPO MPIRUN WORK [BIGRAM_GGUF_TOOL].
"""

import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np

import tables

MPO, MPIRUN, WORK = [sys.argv[1], sys.argv[2], os.path.abspath(sys.argv[3])]
TOOL = sys.argv[4] if len(sys.argv) > 4 else ""
VOCAB = 260


def run(command, ranks=1, limit=None, **environment):
    settings = {**os.environ, **tables.ENVIRONMENT, **environment}
    if ranks > 1:
        command = [MPIRUN, "-n", str(ranks), *command]

    def keep_small():
        if limit:
            resource.setrlimit(limit[0], (limit[1], limit[1]))

    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=1200,
                          check=False, preexec_fn=keep_small)


def doctor(config, *flags, ranks=1, **more):
    result = run([MPO, "doctor", config, *flags, "--format=json"], ranks, **more)
    return result, json.loads(result.stdout)


def found(report, level):
    return {check["check"] for check in report["checks"] if check["level"] == level}


def text_of(report, check):
    return " / ".join(one["text"] for one in report["checks"] if one["check"] == check)


def folder(name):
    path = os.path.join(WORK, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def table_case(name, **options):
    """Three table policies of five tokens, and prompts they know."""
    settings = {"rollout": {"responses": 4, "max_tokens": 8}, "descent": {"steps": 2},
                "record": {"file": "out.h5"}}
    for section, values in options.items():
        settings.setdefault(section, {}).update(values)
    return tables.write_config(folder(name), tables.random_tables(3, 3, 5, 1.0), ["a", "b a"],
                               settings, names=["p0", "p1", "p2"])


def beside(config, name):
    return os.path.join(os.path.dirname(config), name)


def write_beside(config, name, text):
    with open(beside(config, name), "w", encoding="utf-8") as stream:
        stream.write(text)
    return beside(config, name)


def agrees(config, problems, *flags, ranks=1, words=(), limit=None):
    """doctor finds exactly these problems, and fit ends as doctor says it would."""
    before = sorted(os.listdir(os.path.dirname(config)))
    result, report = doctor(config, *flags, ranks=ranks, limit=limit)
    names = found(report, "problem")
    tables.check(names == set(problems), "problems %s, expected %s\n%s%s" % (
        sorted(names), sorted(problems), result.stdout, result.stderr))
    tables.check(result.returncode == report["exit_code"], "exit %d" % result.returncode)
    tables.check(bool(problems) == (result.returncode != 0), "exit %d" % result.returncode)
    for word in words:
        tables.check(word in result.stdout, "no '%s' in\n%s" % (word, result.stdout))
    tables.check(sorted(os.listdir(os.path.dirname(config))) == before, "files came or went")
    fit = run([MPO, "fit", config, *flags, "--quiet"], ranks, limit=limit)
    tables.check(fit.returncode == result.returncode, "doctor %d, fit %d: %s" % (
        result.returncode, fit.returncode, fit.stderr))
    return report


def gguf_case(name, **rollout):
    config = table_case(name, rollout=dict({"responses": 4, "max_tokens": 8}, **rollout))
    with open(config, encoding="utf-8") as stream:
        text = stream.read()
    generator = np.random.Generator(np.random.Philox(5))
    for k in range(3):
        raw = beside(config, "p%d.f32" % k)
        generator.standard_normal((VOCAB, VOCAB)).astype(np.float32).tofile(raw)
        tables.run([TOOL, beside(config, "p%d.gguf" % k), raw])
        text = text.replace("p%d.table" % k, "p%d.gguf, template: raw" % k)
    with open(config, "w", encoding="utf-8") as stream:
        stream.write(text)
    return config
