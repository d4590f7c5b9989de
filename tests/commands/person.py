# SPDX-License-Identifier: Apache-2.0
"""What a person does at a terminal: small tables in a folder, mpo on one rank or several, and
checks of what it says. The scripts that use it begin their arguments with

    MPO MPIEXEC WORK_FOLDER
"""
import os
import shutil
import subprocess
import sys

MPO, MPIEXEC, WORK = sys.argv[1:4]
FAILURES = []
HANG_SECONDS = 600

TABLE = """mpo-table 1
tokens {tokens}
row <s> {row}
row {first} {row}
row {second} {row}
"""
CONFIG = """run: {{seed: 1}}
prompts: {{file: prompts.txt}}
policies:
  - {{name: up, model: up.table}}
  - {{name: down, model: down.table}}
rollout: {{responses: 8, max_tokens: 8}}
descent: {{steps: 6}}
record: {{file: out.h5}}
{more}"""


def write(name, text):
    with open(os.path.join(WORK, name), "w", encoding="utf-8") as file:
        file.write(text)


def table(name, row, tokens=("a", "b")):
    write(name, TABLE.format(tokens=" ".join(tokens) + " </s>", row=row, first=tokens[0],
                             second=tokens[1]))


def start(command, **options):
    """Run a command in the folder; one that hangs is ended, and its code is "hang"."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options}
    with subprocess.Popen(command, cwd=WORK, stderr=subprocess.PIPE, text=True,
                          errors="replace", **options) as process:
        try:
            stdout, stderr = process.communicate(timeout=HANG_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # mpirun then ends its ranks
            stdout, stderr = process.communicate()
            return subprocess.CompletedProcess(command, "hang", stdout, stderr)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def run(*arguments, ranks=1, **options):
    command = [MPO, *arguments]
    if ranks > 1:
        command = [MPIEXEC, "-n", str(ranks), "--oversubscribe", *command]
    return start(command, **options)


def run_apart(common, *second):
    """Two ranks of one job, the second with arguments of its own: a stale copy on a node."""
    return start([MPIEXEC, "--oversubscribe", "-n", "1", MPO, *common, ":",
                  "-n", "1", MPO, *common, *second])


def check(name, condition, result=None):
    print(("ok    " if condition else "FAIL  ") + name)
    if not condition:
        FAILURES.append(name)
        if result is not None:
            print(f"      exit {result.returncode}\n{result.stdout}\n{result.stderr}")


def says_once(result, code, words):
    """It ended with this code and one message of ours that has all the words."""
    ours = [line for line in result.stderr.splitlines() if line.startswith("mpo: ")]
    return (result.returncode == code and len(ours) == 1
            and all(word in ours[0] for word in words))


def refused(name, code, words, *arguments, ranks=1):
    result = run(*arguments, ranks=ranks)
    check(f"{name} on {ranks}", says_once(result, code, words), result)


def fresh():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    write("prompts.txt", "a\nb\n")
    write("config.yaml", CONFIG.format(more=""))
    table("up.table", "0.6 0.2 0.2")
    table("down.table", "0.1 0.5 0.4")


def run_tests(names):
    """Every test_* of a script in the order of its names; leaves with the script's status."""
    for test in [value for name, value in sorted(names.items()) if name.startswith("test_")]:
        print(f"-- {test.__name__}", flush=True)
        test()
    shutil.rmtree(WORK, ignore_errors=True)
    if FAILURES:
        print(f"{len(FAILURES)} checks failed: {FAILURES}")
    sys.exit(1 if FAILURES else 0)
