#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What launch/convert.sh refuses before it fetches anything.

    convert_refusals.py WORK SOURCE
"""

import json
import os
import shutil
import subprocess
import sys

import tables


class Case:
    """A folder of things that look like checkpoints."""

    def __init__(self, work, source):
        self.work = work
        self.script = os.path.join(source, "launch", "convert.sh")
        # Whoever gets past the checks cannot make this folder, and ends with another code.
        self.environment = {**os.environ, "MPO_BUILD_DIR": os.path.join(work, "file", "build")}

    def write(self, name, text=""):
        path = os.path.join(self.work, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)

    def run(self, *arguments):
        return subprocess.run([self.script, *arguments], cwd=self.work, env=self.environment,
                              capture_output=True, text=True, timeout=60, check=False)

    def refused(self, code, words, *arguments):
        """One line on stderr that has all the words, and no file more than before."""
        before = sorted(os.walk(self.work))
        done = self.run(*arguments)
        lines = done.stderr.splitlines()
        tables.check(done.returncode == code and len(lines) == 1 and not done.stdout
                     and all(word in lines[0] for word in ["convert.sh: "] + words),
                     "%s: %d, %s" % (arguments, done.returncode, done.stderr))
        tables.check(sorted(os.walk(self.work)) == before, "%s left files" % (arguments,))


def usage_is_64(case):
    case.refused(64, ["FOLDER is missing", "usage: "])
    case.refused(64, ["--kind"], "model", "--kind=f32")
    case.refused(64, ["q4_0", "q8_0"], "model", "--type=q4_0")
    case.refused(64, ["--output needs a value"], "model", "--output")
    case.refused(64, ["--name needs a value"], "model", "--name=")
    case.refused(64, ["'model' and 'adapter'"], "model", "adapter")
    case.refused(64, ["--base", "full model"], "model", "--base", "model")


def a_missing_folder_is_66(case):
    case.refused(66, ["'nothing'"], "nothing")
    case.refused(66, ["'file'"], "file")
    case.refused(66, ["'nothing'", "--base"], "adapter", "--base=nothing")
    case.refused(66, ["'someone/base'", "--base"], "adapter")
    case.refused(66, ["--base"], "nameless")


def what_is_no_checkpoint_is_65(case):
    case.refused(65, ["config.json", "adapter_config.json"], "empty")
    case.refused(65, ["*.safetensors"], "weightless")
    case.refused(65, ["adapter_model.safetensors"], "half")
    case.refused(65, ["'empty'", "config.json"], "adapter", "--base=empty")


def an_output_that_exists_or_has_no_folder_is_73(case):
    case.refused(73, ["'model.gguf'", "--output"], "model")
    case.refused(73, ["'taken.gguf'"], "adapter", "--base=model", "--name=taken")
    case.refused(73, ["'file'"], "model", "--output", "file")
    case.refused(73, ["'nothing'"], "model", "--output=nothing/x.gguf")
    case.refused(73, ["'file'"], "model", "--output=file/x.gguf")


def what_is_right_goes_on_to_the_set_up(case):
    for arguments in (["model", "--output=x"], ["adapter", "--base=model", "--output=x"],
                      ["local", "--output=x"], ["model[1]*", "--output=x"]):
        done = case.run(*arguments)
        tables.check("mkdir" in done.stderr and "convert.sh: " not in done.stderr,
                     "%s: %s" % (arguments, done.stderr))


def help_says_how(case):
    done = case.run("--help")
    tables.check(done.returncode == 0 and "--type" in done.stdout, done.stdout + done.stderr)


def main():
    work, source = sys.argv[1:3]
    shutil.rmtree(work, ignore_errors=True)
    case = Case(work, source)
    for name in ("model/config.json", "model/model.safetensors", "model.gguf", "taken.gguf",
                 "model[1]*/config.json", "model[1]*/a.safetensors", "empty/README.md", "file",
                 "weightless/config.json", "half/adapter_config.json"):
        case.write(name)
    for name, base in (("adapter", {"base_model_name_or_path": "someone/base"}),
                       ("nameless", {"base_model_name_or_path": None}),
                       ("local", {"base_model_name_or_path": os.path.join(work, "model")})):
        case.write(name + "/adapter_config.json", json.dumps({"r": 8, **base}))
        case.write(name + "/adapter_model.safetensors")
    cases = [usage_is_64, a_missing_folder_is_66, what_is_no_checkpoint_is_65,
             an_output_that_exists_or_has_no_folder_is_73, what_is_right_goes_on_to_the_set_up,
             help_says_how]
    sys.exit(tables.run_cases([(each, [case]) for each in cases]))


if __name__ == "__main__":
    main()
