#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Standard output that is full, closed or left, and limits of the process (ulimit).

usage: output.py MPO MPIEXEC WORK_FOLDER
"""
import os
import resource
import signal
import subprocess

from person import MPO, WORK, check, fresh, run, run_tests, says_once, start, write
from waiting import PATIENCE_SECONDS, wait_for_record

RECORD = os.path.join(WORK, "kept.h5")


def prepare():
    """A record, and every command that prints, with its name."""
    fresh()
    write("scored.jsonl", '{"prompt": "a", "response": "b"}\n')
    result = run("fit", "config.yaml", "--quiet")
    check("a record to print", result.returncode == 0, result)
    os.rename(os.path.join(WORK, "out.h5"), RECORD)
    return [
        ["fit", "config.yaml", "--quiet"], ["fit", "config.yaml", "--quiet", "--format=json"],
        ["generate", "config.yaml", "--weights=uniform"],
        ["generate", "config.yaml", "--weights=uniform", "--format=jsonl", "--n=8"],
        ["score", "config.yaml", "--weights=uniform", "--input=scored.jsonl"],
        ["evaluate", "config.yaml", "--weights=uniform", "--replicates=100"],
        ["doctor", "config.yaml", "--record.file=new.h5"],
        ["doctor", "config.yaml", "--record.file=new.h5", "--format=json"],
        ["launch", "config.yaml"], ["config", "config.yaml"], ["config", "config.yaml", "--get=run.seed"],
        ["inspect", "kept.h5"], ["inspect", "kept.h5", "--format=tsv"], ["inspect", "kept.h5", "--follow"],
        ["inspect", "kept.h5", "--responses", "2"], ["inspect", "--compare", "kept.h5", "kept.h5"],
        ["inspect", "--schema"], ["recover", "kept.h5"], ["recover", "kept.h5", "--format=json"],
        ["refit", "kept.h5", "--min-ess=0"], ["refit", "kept.h5", "--min-ess=0", "--frontier=300"],
        ["refit", "kept.h5", "--min-ess=0", "--frontier=300", "--format=json"],
        ["help"], ["help", "fit"], ["help", "--reference"], ["help", "--man"],
        ["help", "--completion=bash"], ["version"], ["version", "--format=json"], ["fit", "--help"]]


def clean():
    for name in ("out.h5", "out.h5.lock"):
        if os.path.exists(os.path.join(WORK, name)):
            os.remove(os.path.join(WORK, name))


def test_full_and_closed():
    for command in prepare():
        clean()
        with open("/dev/full", "w", encoding="utf-8") as full:
            result = run(*command, stdout=full)
        check("on a full disk: " + " ".join(command), says_once(result, 74, ["standard output"]), result)
        clean()
        result = start(["sh", "-c", 'exec "$@" >&-', "sh", MPO, *command])
        check("closed: " + " ".join(command), says_once(result, 74, ["standard output"]), result)


def test_nothing_else_gets_the_number_of_a_closed_stream():
    prepare()
    clean()
    result = start(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", MPO, "fit", "config.yaml"])
    check("fit without any stream says it by its code", result.returncode == 74, result)
    result = run("inspect", "out.h5")
    check("and its record has no text of it", result.returncode == 0 and "finished" in result.stdout, result)
    write("run.sh", 'exec "$@" <&- >&- 2>&-')
    with subprocess.Popen(["sh", "run.sh", MPO, "fit", "config.yaml", "--descent.steps=1000000",
                           "--record.file=live.h5"],
                          cwd=WORK) as fit:
        wait_for_record(fit, os.path.join(WORK, "live.h5"))
        held = [os.readlink(f"/proc/{fit.pid}/fd/{number}") for number in (0, 1, 2)]
        fit.kill()
    check(f"streams that were closed are held: {held}", held == 3 * ["/dev/null"])
    result = start(["sh", "-c", 'exec "$@" >&-', "sh", MPO, "fit", "config.yaml", "--force",
                    "--policies.up.model=no"])
    check("a failure before any output has its own code", says_once(result, 66, ["no"]), result)


def left(command, ignored=False):
    """The command's result where the reader takes nothing; with SIGPIPE ignored from outside?"""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        return run(*command, stdout=pipe, restore_signals=not ignored)


def is_silent(result):
    return result.returncode == -signal.SIGPIPE and "mpo: " not in result.stderr


def test_a_reader_that_leaves():
    for command in prepare():
        clean()
        result = left(command)
        check("left: " + " ".join(command), is_silent(result), result)
    result = left(["refit", "kept.h5", "--min-ess=0", "--frontier=300"], ignored=True)
    check("left where SIGPIPE is ignored", is_silent(result), result)
    clean()
    result = start(["sh", "-c", '"$@" | head -n 1', "sh", MPO, "help", "--man"])
    check("head has its line and nothing more is said", result.stdout.count("\n") == 1 and result.stderr == "",
          result)


def test_messages_that_nobody_takes():
    prepare()
    clean()
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen([MPO, "fit", "config.yaml"], cwd=WORK, stdout=subprocess.PIPE, stderr=writer) as fit:
        os.close(writer)
        out, _ = fit.communicate(timeout=PATIENCE_SECONDS)
    check("fit goes on without those who read its messages", fit.returncode == 0 and b"imbalance" in out)


def limited(what, value, *command, **options):
    def limit():
        resource.setrlimit(what, (value, value))
    return run(*command, preexec_fn=limit, **options)


def can_start(what, value):
    """Whether the program is loaded with such a limit: how much that takes is its libraries' affair."""
    return limited(what, value, "version").returncode not in (127, -signal.SIGSEGV, -signal.SIGABRT)


def test_limits_of_the_process():
    prepare()
    for size in (1, 4096, 20 << 10, 60 << 10):
        clean()
        result = limited(resource.RLIMIT_FSIZE, size, "fit", "config.yaml", "--quiet")
        check(f"files of {size} bytes at most", says_once(result, 71, ["out.h5", "File too large"]), result)
        check("no lock is left", not os.path.exists(os.path.join(WORK, "out.h5.lock")))
    with open(os.path.join(WORK, "out"), "w", encoding="utf-8") as out:
        result = limited(resource.RLIMIT_FSIZE, 1024, "generate", "config.yaml", "--weights=uniform", "--n=64",
                         "--parallel=64", "--rollout.max_tokens=64", stdout=out)
    check("output larger than a file may be", says_once(result, 71, ["standard output", "ulimit -f"]), result)
    for count in (6, 8, 12, 16, 20, 24, 28, 64):
        if not can_start(resource.RLIMIT_NOFILE, count):
            continue
        clean()
        result = limited(resource.RLIMIT_NOFILE, count, "fit", "config.yaml", "--quiet")
        check(f"{count} open files at most", result.returncode == 0 or says_once(result, 71, []), result)
    least = next(size for size in range(32, 1024, 4) if can_start(resource.RLIMIT_AS, size << 20))
    for megabytes in range(least, least + 116, 12):
        clean()
        result = limited(resource.RLIMIT_AS, megabytes << 20, "fit", "config.yaml", "--quiet")
        in_mpi = "mca_" in result.stderr and "mpo: " not in result.stderr  # which then ends as it likes
        check(f"{megabytes} MB of address space{', which MPI lacks' * in_mpi}",
              result.returncode == 0 or says_once(result, 71, []) or in_mpi, result)


def test_without_path():
    prepare()
    clean()
    result = run("fit", "config.yaml", "--quiet", env={})
    check("an empty environment is enough", result.returncode == 0 and result.stderr == "", result)


run_tests(globals())
