#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An installed mpo serves programs that are not ours.

    package.py BUILD MPIEXEC WORK SOURCE [PREFIX_PATH]

Installs the build tree into WORK, builds the programs of this folder against it, by
find_package and by pkg-config, and runs them: a response in one process, a program with MPI
of its own on half of its ranks each, one that makes mistakes, a C++ file, a shared object, and
the example of src/README.md, which is taken out of the document.
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
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **kwargs)


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

# ---- mistakes ----

EDGES = os.path.join(programs, "edges")
ABSENT = os.path.join(WORK, "missing.yaml")
OK, USAGE, DATA, INPUT, PEER = 0, 1, 2, 3, 9  # of mpo/status.h


def check_lines(result, rank, expected):
    """Lines "RANK WHAT: STATUS TEXT" of one rank: those expected, (what, status, part of the
    text), in this order. A failure has a text, and what is well has none."""
    found = [line.split(": ", 1) for line in result.stdout.splitlines()
             if line.startswith(f"{rank} ") and not line.startswith(f"{rank} told")]
    check(f"rank {rank} says as much as expected", len(found) == len(expected), result)
    for (what, status, part), line in zip(expected, found):
        code, text = (line[1].split(" ", 1) + [""])[:2]
        check(f"edges, rank {rank}: {what}",
              line[0] == f"{rank} {what}" and code == str(status) and part in text and
              (text == "") == (status == OK), line)


retry = run(EDGES, "retry", CONFIG, ABSENT)
check("mistakes of one process end nothing and print nothing",
      retry.returncode == 0 and retry.stderr == "", retry)
check_lines(retry, 0, [
    ("nothing", USAGE, "mpo_session_open: expected spec, found NULL"),
    ("no such command", USAGE, "command: expected one that takes a configuration (fit, generate,"),
    ("no command of a job", USAGE, "found 'inspect'"),
    ("no file", INPUT, ABSENT),
    ("half a size", USAGE, "size.unit_prompts: expected 1 or more with size.responses"),
    ("a size", OK, ""),
    ("a second one", USAGE, "close it before opening another"),
    ("no text", USAGE, "mpo_decode_offer_text: expected text, found NULL"),
    ("no such slot", USAGE, "prompt slot 1048576"),
    ("bad bytes", DATA, "found the byte 0xFF after 4 bytes"),
    ("a text", OK, ""),
    ("far exponents", USAGE, "a row with exponent 1e+300"),
    ("exponents", OK, ""),
    ("a response", OK, ""),
    ("no fit", USAGE, "mpo_fit_open: expected spec, found NULL"),
    ("a fit of another size", USAGE, "leave its size at zero"),
    ("the second one now", OK, "")])
late = run(EDGES, "order", CONFIG)
check("a session may be closed after MPI", late.returncode == 0 and late.stderr == "", late)
check_lines(late, 0, [("open", OK, ""), ("closed", OK, "")])
single = run(EDGES, "single", CONFIG)
check("MPI_Init is refused", single.returncode == 0 and single.stderr == "", single)
check_lines(single, 0, [("open", USAGE, "call MPI_Init_thread in place of MPI_Init")])
ranks = run(MPIEXEC, "-n", "3", EDGES, "ranks", CONFIG)
check("a failure of rank zero is told once on each rank, and ends nobody",
      ranks.returncode == 0 and
      sorted(line for line in ranks.stdout.splitlines() if " told: " in line) ==
      [f"{rank} told: 1" for rank in range(3)], ranks)
sentence = "bad data, or policies that do not fit together"
check_lines(ranks, 0, [("open", OK, ""), ("follow", OK, ""), ("end", DATA, sentence),
                       ("end again", PEER, "the job has already failed")])
for rank in (1, 2):
    check_lines(ranks, rank, [("open", OK, "")] +
                [(call, USAGE, f"this is rank {rank} of it")
                 for call in ("offer", "idle", "release")] +
                [("end", PEER, sentence), ("end again", PEER, "the job has already")])

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
