#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The recipes of src/README.md, followed: one file, one row and one line among the sources.

    recipes.py SOURCE WORK

In a copy of the sources a mirror map, a transport, a kind of policy and a format of prompts
are added under the name toy, as copies of one that is there. The program that is built then
knows them everywhere, and a fit by all of them is the fit by what they are copies of.
"""
import json
import os
import re
import shutil
import subprocess
import sys

import h5py

SOURCE, WORK = (os.path.abspath(path) for path in sys.argv[1:3])
TREE = os.path.join(WORK, "tree")
# what is copied, to where, what is renamed in it, and its row
RECIPES = [
    ("src/descent/entropy.c", "src/descent/toy.c",
     [("mpo_descent_entropy_map", "mpo_descent_toy_map"), ('.name = "entropy"', '.name = "toy"')],
     "MPO_MIRROR_MAP(toy)\n", "MPO_MIRROR_MAP(entropy)\n"),
    ("src/exchange/self.c", "src/exchange/toy.c",
     [("mpo_exchange_self_ops", "mpo_exchange_toy_ops"),
      ('.transport = "self"', '.transport = "toy"')],
     "MPO_TRANSPORT(toy, 1)\n", "MPO_TRANSPORT(mpi, 1)"),
    ("src/policy/table.c", "src/policy/toy.c",
     [("mpo_policy_table_ops", "mpo_policy_toy_ops"), ('.kind = "table"', '.kind = "toy"')],
     'MPO_POLICY_KIND(toy, 1, ".toy")\n', 'MPO_POLICY_KIND(table, 1, "")\n'),
    ("src/prompts/jsonl.c", "src/prompts/toy.c",
     [("mpo_prompts_jsonl_format", "mpo_prompts_toy_format"), ('.name = "jsonl"', '.name = "toy"'),
      ('.suffix = ".jsonl"', '.suffix = ".toy"')],
     "MPO_PROMPT_FORMAT(toy)\n", "MPO_PROMPT_FORMAT(jsonl)\n"),
]
DATA_SETS = ["weights", "gradient", "average", "responses/token", "responses/log_policy"]


def edit(path, change):
    with open(os.path.join(TREE, path), encoding="utf-8") as file:
        before = file.read()
    after = change(before)
    assert after != before, f"{path}: nothing to change"
    with open(os.path.join(TREE, path), "w", encoding="utf-8") as file:
        file.write(after)


def renamed(text, pairs):
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def follow():
    with open(os.path.join(SOURCE, "src", "README.md"), encoding="utf-8") as file:
        recipes = file.read().split("## Recipes")[1].split("\n## ")[0]
    for item in ("src", "include", "configs"):
        shutil.copytree(os.path.join(SOURCE, item), os.path.join(TREE, item),
                        ignore=shutil.ignore_patterns("*.gguf", "*.h5"))
    shutil.copy(os.path.join(SOURCE, "CMakeLists.txt"), TREE)
    for copied, to, pairs, row, before in RECIPES:
        assert copied in recipes, f"{copied} is in no recipe"
        shutil.copy(os.path.join(TREE, copied), os.path.join(TREE, to))
        edit(to, lambda text, pairs=pairs: renamed(text, pairs))
        edit("src/registry.def", lambda text, row=row, before=before:
             renamed(text, [(before, row + before)]))
        edit("CMakeLists.txt", lambda text, copied=copied, to=to:
             re.sub(r"(?<=\s)%s(?=[\s)])" % re.escape(copied), f"{copied} {to}", text, count=1))


def must(*command):
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode != 0:
        sys.exit(f"FAILED {' '.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout


def build():
    launcher = shutil.which("ccache")
    must("cmake", "-S", TREE, "-B", os.path.join(WORK, "build"), "-G", "Ninja",
         "-DCMAKE_BUILD_TYPE=Debug", "-DMPO_LLAMA=OFF", "-DMPO_HTTP=OFF", "-DMPO_TESTS=OFF",
         "-DMPO_WERROR=ON",
         *([f"-DCMAKE_C_COMPILER_LAUNCHER={launcher}"] if launcher else []))
    must("cmake", "--build", os.path.join(WORK, "build"), "--target", "mpo", "-j2")
    return os.path.join(WORK, "build", "mpo")


def fit(mpo, name, *flags):
    record = os.path.join(WORK, name + ".h5")
    prompts = os.path.join(WORK, "prompts.jsonl")
    with open(os.path.join(TREE, "configs", "table", "prompts.txt"), encoding="utf-8") as file:
        lines = [json.dumps({"prompt": line.strip()}) for line in file if line.strip()]
    with open(prompts, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    must(mpo, "fit", os.path.join(TREE, "configs", "table.yaml"), "--quiet", "--descent.steps=3",
         f"--record.file={record}", f"--prompts.file={prompts}", *flags)
    with h5py.File(record, "r") as file:
        return {data_set: file[data_set][()].tobytes() for data_set in DATA_SETS}


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(TREE)
    follow()
    mpo = build()
    told = must(mpo, "help", "fit")
    for flag, before in (("--descent.map", "entropy"), ("--exchange.transport", "auto"),
                         ("--policies.NAME.kind", "auto"), ("--prompts.format", "auto")):
        choices = re.search(re.escape(flag) + r"=(\S+)", told)
        assert choices and {"toy", before} <= set(choices[1].split("|")), (flag, told)
    print("ok    help knows what was added")
    plain = fit(mpo, "plain")
    toy = fit(mpo, "toy", "--descent.map=toy", "--exchange.transport=toy",
              "--prompts.format=toy", *(f"--policies.{name}.kind=toy"
                                        for name in ("terse", "warm", "formal")))
    assert plain == toy, [name for name in DATA_SETS if plain[name] != toy[name]]
    print("ok    a fit by copies of what is there is the fit by what is there")


main()
