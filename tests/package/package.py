#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An installed mpo serves programs that are not ours.

    package.py BUILD MPIEXEC WORK SOURCE [PREFIX_PATH]

Installs the build tree into WORK, builds the programs of this folder against it, by
find_package and by pkg-config, and runs them: a response in one process, a program with MPI
of its own on half of its ranks each, a C++ file, a shared object, and the example of
src/README.md, which is taken out of the document.
"""
import os
import shutil
import subprocess
import sys

BUILD, MPIEXEC, WORK, SOURCE = sys.argv[1:5]
PREFIX_PATH = sys.argv[5] if len(sys.argv) > 5 else ""
PREFIX = os.path.join(WORK, "prefix")
HERE = os.path.dirname(os.path.abspath(__file__))
CONFIG = os.path.join(SOURCE, "configs", "table.yaml")
failures = 0


def run(*command, **kwargs):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **kwargs)


def must(*command, **kwargs):
    result = run(*command, **kwargs)
    if result.returncode != 0:
        print(f"FAILED {' '.join(command)}\n{result.stdout}{result.stderr}")
        sys.exit(1)
    return result


def check(what, good, found):
    global failures
    print(f"{'ok    ' if good else 'FAILED'} {what}" + ("" if good else f"\n       found {found}"))
    failures += not good


shutil.rmtree(WORK, ignore_errors=True)
os.makedirs(WORK)
must("cmake", "--install", BUILD, "--prefix", PREFIX)
programs = os.path.join(WORK, "programs")
must("cmake", "-S", HERE, "-B", programs, f"-DCMAKE_PREFIX_PATH={PREFIX};{PREFIX_PATH}")
must("cmake", "--build", programs, "-j2")

first = run(os.path.join(programs, "sample"), CONFIG, "the film was")
again = run(os.path.join(programs, "sample"), CONFIG, "the film was")
check("twelve lines draw a response from a mixture",
      first.returncode == 0 and first.stdout.split() and first.stderr == "", first)
check("the same one each time", first.stdout == again.stdout, (first.stdout, again.stdout))
words = set(first.stdout.split())
tokens = set()
with open(os.path.join(SOURCE, "configs", "table", "warm.table"), encoding="utf-8") as table:
    for line in table:
        if line.startswith("tokens"):
            tokens = set(line.split()[1:])
check("of the tokens of its policies", words <= tokens, words - tokens)
missing = run(os.path.join(programs, "sample"), os.path.join(WORK, "missing.yaml"), "the film")
check("a library says nothing by itself", missing.returncode == 1 and missing.stderr == "",
      missing)

for ranks in ("2", "4", "6"):
    half = run(MPIEXEC, "-n", ranks, os.path.join(programs, "half"), CONFIG)
    check(f"two halves of {ranks} ranks have a session each",
          half.returncode == 0 and half.stdout == "status 0, failure 0, same response\n", half)
half = run(MPIEXEC, "-n", "4", os.path.join(programs, "half"),
           os.path.join(WORK, "missing.yaml"))
check("a failure is the caller's to report, and leaves MPI alone",
      half.returncode == 0 and half.stdout.startswith("status ") and
      not half.stdout.startswith("status 0"), half)

face = run(os.path.join(programs, "face"))
check("the headers are C++ too", face.returncode == 0 and face.stdout.endswith("success\n"), face)
check("the archive goes into a shared object",
      os.path.exists(os.path.join(programs, "libplugin.so")), os.listdir(programs))

pkgconfig = [os.path.join(PREFIX, lib, "pkgconfig") for lib in os.listdir(PREFIX)]
environment = dict(os.environ, PKG_CONFIG_PATH=":".join(pkgconfig))
for folder, _, files in os.walk(PREFIX):
    if "mpo.pc" in files:
        environment["PKG_CONFIG_PATH"] = folder
flags = must("pkg-config", "--cflags", "--libs", "mpo", env=environment).stdout.split()
linked = os.path.join(WORK, "sample_pc")
must("cc", "-o", linked, os.path.join(HERE, "sample.c"), *flags)
by_pc = run(linked, CONFIG, "the film was")
check("pkg-config links the same program", by_pc.stdout == first.stdout, by_pc)

# ---- the example of the document ----

EXAMPLE = """
#include <stdio.h>
#include <mpo/mpo.h>

int main(int argc, char **argv)
{
    static const double weights[] = {0.5, 0.2, 0.3};
    struct mpo_session *session = NULL;
    const struct mpo_decode_event *event = NULL;
    int32_t row = 0;
    int32_t count = 0;
%s
    return 0;
}
"""


def example_of(document):
    with open(os.path.join(SOURCE, document), encoding="utf-8") as text:
        blocks = [block.split("```")[0] for block in text.read().split("```c\n")[1:]]
    blocks = [block for block in blocks if "mpo_session_open" in block]
    return blocks[0] if len(blocks) == 1 else None


example = example_of(os.path.join("src", "README.md"))
check("src/README.md has one example of C", example is not None, example)
source = os.path.join(WORK, "example.c")
with open(source, "w", encoding="utf-8") as file:
    file.write(EXAMPLE % example)
program = os.path.join(WORK, "example")
must("cc", "-Wall", "-Wextra", "-Werror", "-o", program, source, *flags)
here = os.path.join(WORK, "here")
shutil.copytree(os.path.join(SOURCE, "configs", "table"), os.path.join(here, "table"))
os.makedirs(os.path.join(here, "build"))
alone = run(program, cwd=here)
check("it fails without its configuration", alone.returncode == 1, alone)
many = run(MPIEXEC, "-n", "3", program, cwd=here)
check("and on 3 ranks, where each of them says so to MPI",
      many.returncode == 1 and "improperly" not in many.stderr, many)
shutil.copy(CONFIG, os.path.join(here, "my.yaml"))
alone = run(program, cwd=here)
check("with it, it draws a response",
      alone.returncode == 0 and alone.stdout.count("\n") > 1 and alone.stderr == "", alone)
many = run(MPIEXEC, "-n", "3", program, cwd=here)
check("the same one on 3 ranks", many.returncode == 0 and many.stdout == alone.stdout, many)

targets = ""
for folder, _, files in os.walk(PREFIX):
    if "mpo-targets.cmake" in files:
        with open(os.path.join(folder, "mpo-targets.cmake"), encoding="utf-8") as file:
            targets = file.read()
check("no path of the build tree is in the package", BUILD not in targets, BUILD)
if "NCCL::nccl" not in targets:
    print("SKIP   the package with NCCL: this build has none")
sys.exit(failures > 0)
