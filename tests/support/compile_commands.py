#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The commands that compile src/*.c, each file once, for clang-tidy.

    compile_commands.py SOURCE_FOLDER BUILD_FOLDER

Simulated devices compile some files three times more. Writes BUILD_FOLDER/tidy, and prints
the files, each ended by a NUL, the largest first.
"""
import json
import os
import sys


def main():
    root, build = map(os.path.abspath, sys.argv[1:])
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as stream:
        entries = json.load(stream)
    once = {}
    for entry in entries:
        if entry["file"].startswith(os.path.join(root, "src", "")) and entry["file"].endswith(".c"):
            once.setdefault(entry["file"], entry)
    os.makedirs(os.path.join(build, "tidy"), exist_ok=True)
    with open(os.path.join(build, "tidy", "compile_commands.json"), "w", encoding="utf-8") as stream:
        json.dump(list(once.values()), stream)
    sys.stdout.write("".join(name + "\0" for name in sorted(once, key=os.path.getsize, reverse=True)))


main()
