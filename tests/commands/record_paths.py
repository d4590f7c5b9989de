#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where a record is written: locks, file systems without them, and records without a step.

usage: record_paths.py MPO MPIEXEC WORK_FOLDER LOCK_SHIM MEMORY_SHIM RANK_SHIM

The shims are the libraries made of tests/support/lock_fault.c, memory_fault.c and rank_fault.c.
"""
import os
import re
import signal
import subprocess
import sys

from person import MPO, WORK, check, fresh, run, run_tests, says_once, write
from waiting import wait_for_record

LOCKS, MEMORY, RANKS = sys.argv[4:7]
RECORD = os.path.join(WORK, "out.h5")
FIT = ["fit", "config.yaml", "--quiet"]
ENDLESS = ["fit", "config.yaml", "--rollout.responses=32", "--descent.steps=1000000"]


def without_locks(error):
    return {**os.environ, "LD_PRELOAD": LOCKS, "LOCK_FAULT": str(error)}


def files():
    return sorted(os.listdir(WORK))


def test_a_file_system_without_locks():
    for error in (37, 95, 38, 22):  # ENOLCK, EOPNOTSUPP, ENOSYS, EINVAL
        fresh()
        environment = without_locks(error)
        doctor = run("doctor", "config.yaml", env=environment)
        check(f"doctor warns, errno {error}", doctor.returncode == 0 and "fit would run" in doctor.stdout
              and re.search("warning +record .*locks", doctor.stdout), doctor)
        fit = run(*FIT, env=environment)
        check(f"fit runs and warns, errno {error}", fit.returncode == 0 and "locks" in fit.stderr, fit)
        longer = run(*FIT, "--resume", "--descent.steps=9", env=environment)
        check(f"and continues, errno {error}", longer.returncode == 0, longer)
        check(f"and is read, errno {error}", run("inspect", "out.h5", env=environment).returncode == 0)
        check(f"no lock is left, errno {error}", "out.h5.lock" not in files())


def started(**options):
    """A fit without end that has a record."""
    process = subprocess.Popen([MPO, *ENDLESS], cwd=WORK, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, **options)
    wait_for_record(process, RECORD)
    return process


def test_a_second_run_is_refused():
    for environment in (dict(os.environ), without_locks(37)):
        fresh()
        first = started(env=environment)
        words = ["out.h5", f"process {first.pid}"]
        for name, second in (("fit", run(*FIT, "--force", env=environment)),
                             ("recover", run("recover", "out.h5", env=environment))):
            check(f"{name} beside a run", says_once(second, 73, words), second)
        doctor = run("doctor", "config.yaml", env=environment)
        check("doctor beside a run", doctor.returncode == 73
              and all(word in doctor.stdout for word in words), doctor)
        check("inspect sees that it runs", "being written" in run("inspect", "out.h5", env=environment).stdout)
        check("its lock is still there", "out.h5.lock" in files())
        first.send_signal(signal.SIGKILL)
        first.wait()
        again = run(*FIT, "--force", env=environment)
        check("a lock of a killed run means nothing", again.returncode == 0, again)


def test_doctor_takes_the_lock_that_fit_needs():
    fresh()
    os.mkdir(RECORD + ".lock")
    fit = run(*FIT)
    doctor = run("doctor", "config.yaml")
    check("a lock that cannot be made", fit.returncode == doctor.returncode == 73
          and "out.h5.lock" in fit.stderr and "out.h5.lock" in doctor.stdout, doctor)
    fresh()
    doctor = run("doctor", "config.yaml")
    check("doctor leaves nothing", doctor.returncode == 0 and not [name for name in files() if "out.h5" in name])


def steps():
    shown = re.search(r"^steps +(\d+)", run("inspect", "out.h5").stdout, re.M)
    return int(shown[1]) if shown else None


def test_a_run_that_fails_before_its_first_step():
    fresh()
    count = run(*FIT, env={**os.environ, "LD_PRELOAD": MEMORY, "MEMORY_FAULT_AT": "end"})
    total = int(re.search(r"memory_fault: (\d+) allocations", count.stderr)[1])
    os.remove(RECORD)
    left = 0
    for at in range(total // 3, total, 5):
        result = run(*FIT, env={**os.environ, "LD_PRELOAD": MEMORY, "MEMORY_FAULT_AT": str(at)})
        if os.path.exists(RECORD) and steps() == 0:
            left += "writing" not in result.stderr and "another" not in result.stderr
        if os.path.exists(RECORD) and steps() > 0:
            os.remove(RECORD)
            continue
        again = run(*FIT)
        check(f"the next fit starts after allocation {at}", again.returncode == 0, again)
        os.remove(RECORD)
    check(f"{left} records without a step are left", left == 0)


def test_a_record_without_a_step_is_in_nobodys_way():
    fresh()
    killed = None
    for call in range(9, 40, 3):  # set-up has a dozen before the record is made
        killed = run(*FIT, ranks=2, env={**os.environ, "LD_PRELOAD": RANKS,
                                         "MPO_FAULT": f"1 exchange {call} 9"})
        if os.path.exists(RECORD):
            break
    check("a run whose rank is killed in its first step", killed.returncode not in (0, "hang")
          and os.path.exists(RECORD) and steps() == 0, killed)
    doctor = run("doctor", "config.yaml")
    check("doctor says that fit would run", doctor.returncode == 0 and steps() == 0, doctor)
    fit = run("fit", "config.yaml")
    check("and it does, with a note", fit.returncode == 0 and "no step" in fit.stderr and steps() == 6, fit)
    check("one with steps is kept", run(*FIT).returncode == 73 and run("doctor", "config.yaml").returncode == 73)
    os.remove(RECORD)
    write("out.h5", "a text")
    check("what is no record is kept", run(*FIT).returncode == 73 and run("doctor", "config.yaml").returncode == 73)


run_tests(globals())
