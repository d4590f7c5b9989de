# SPDX-License-Identifier: Apache-2.0
"""How tests wait: for what they need, and not for a time. A busy machine may stop any process for
seconds, between any two lines of a script."""
import os
import signal
import time

PATIENCE_SECONDS = 120.0  # after which something is taken to hang; measures nothing


def comes_to(condition, seconds=PATIENCE_SECONDS):
    """What the condition says as soon as that is true, or what it says after so long."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def state_of(pid):
    """The letter of /proc/PID/stat; Z where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def are_gone(pids):
    """Whether all of these processes come to their end."""
    return comes_to(lambda: all(state_of(pid) == "Z" for pid in pids))


def freeze(process):
    """Stop a process where it is; whether it was still running."""
    process.send_signal(signal.SIGSTOP)
    comes_to(lambda: state_of(process.pid) in "TZ")
    return process.poll() is None


def wait_for_work(process, pid=None):
    """Until it has used a second of processor time, as ranks do that decode, or has ended."""
    def is_at_work():
        try:
            with open(f"/proc/{pid or process.pid}/stat", encoding="utf-8") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
        except OSError:
            return True
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 1.0

    comes_to(lambda: process.poll() is not None or is_at_work())


def wait_for_record(process, record):
    """Until a fit has made its record, or has ended. It has both names for a moment: its draft's
    and its own."""
    comes_to(lambda: process.poll() is not None
             or os.path.exists(record) and not os.path.exists(record + ".part"))


def lines_to(process, words):
    """Lines of standard error up to the first one that has the words, or to the end."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            break
    return lines
