#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ranks that are shown the same device are refused, all of them, with one message, unless a
test asks for it (MPO_TEST_SHARE_DEVICE).

    shared_devices.py MPO MPIRUN WORK DRIVER

MPO is mpo_hostsim: the program on simulated devices, which are GPUs or, with DRIVER (a
libcuda.so.1), parts of GPUs. Each rank is shown devices of its own
choice, as a launcher shows a task its GPUs; ranks 1 and 2 are shown the same one.
"""

import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "commands"))

import tables  # noqa: E402  (found through the path above)

MPO, MPIRUN, WORK, DRIVER = [os.path.abspath(path) for path in sys.argv[1:5]]
UNAVAILABLE = 69
FIRST_POLICY = "p0"
MESSAGE = "expected a device for each rank, found ranks that share one:"
UUID = ["GPU-00010203-0405-0607-0809-0a0b0c0d0e0f", "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f",
        "GPU-20212223-2425-2627-2829-2a2b2c2d2e2f"]
APART = [(1, 0), (1, 1), (1, 2)]  # (devices, first of them) each rank is shown
SHARED = [(1, 0), (1, 1), (1, 1)]
ONE_HAS_NONE = [(0, 0), (1, 1), (1, 1)]


def run(shown, *arguments, parts=(), **settings):
    """mpo on as many ranks, on these parts of GPUs if any, with these settings, of which %d is
    the rank; returns the finished process."""
    command = [MPIRUN]
    for rank, (count, first) in enumerate(shown):
        own = {name: setting % rank if "%d" in setting else setting
               for name, setting in settings.items()}
        own.update(HOSTSIM_DEVICES=count, HOSTSIM_FIRST=first)
        if parts:
            own.update(LD_PRELOAD=DRIVER, HOSTSIM_PART=parts[rank])
        flags = [word for name, value in own.items() for word in ("-x", f"{name}={value}")]
        command += ["-n", "1", *flags, MPO, *arguments, ":"]
    return subprocess.run(command[:-1], env={**os.environ, **tables.ENVIRONMENT},
                          capture_output=True, text=True, timeout=600, check=False)


def check_table(text):
    """Whether a text has one row of host, local rank, device and UUID a rank that shares."""
    rows = [line.split() for line in text.splitlines() if "GPU-" in line]
    tables.check([(row[0], *row[2:]) for row in rows] ==
                 [("1", "1", "0", UUID[1]), ("2", "2", "0", UUID[1])], text)


def refused(config, shown, device, **settings):
    result = run(shown, "fit", config, "--run.device=" + device, **settings)
    tables.check(result.returncode == UNAVAILABLE, "exit %d: %s" % (result.returncode,
                                                                    result.stderr))
    tables.check(result.stderr.count(MESSAGE) == 1, result.stderr)
    tables.check(result.stderr.count("mpo: ") == 1, result.stderr)
    tables.check("mpo: " + MESSAGE in result.stderr, result.stderr)
    check_table(result.stderr)


def examined(config, shown, code):
    result = run(shown, "doctor", config, "--run.device=cuda", "--format=json")
    tables.check(result.returncode == code, "exit %d: %s" % (result.returncode, result.stderr))
    return json.loads(result.stdout)


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    config = tables.write_config(
        WORK, tables.random_tables(3, 3, 5, 1.0), ["a", "b a"],
        {"rollout": {"responses": 2, "max_tokens": 4}, "descent": {"steps": 1},
         "record": {"file": "out.h5"}}, names=[FIRST_POLICY, "p1", "p2"])
    for device in ("auto", "cuda"):
        refused(config, SHARED, device)
    refused(config, ONE_HAS_NONE, "cuda")
    # The second rank has the first one of the two that the first rank spreads a policy over.
    result = run([(2, 0), (1, 0), (1, 2)], "fit", config, "--run.device=cuda",
                 "--policies.%s.devices=2" % FIRST_POLICY)
    rows = [line.split() for line in result.stderr.splitlines() if "GPU-" in line]
    tables.check(result.returncode == UNAVAILABLE and [(row[0], *row[2:]) for row in rows] ==
                 [("0", "0", "0", UUID[0]), ("1", "1", "0", UUID[0])], result.stderr)
    tables.check(not os.path.exists(os.path.join(WORK, "out.h5")), "a record was made")

    report = examined(config, SHARED, UNAVAILABLE)
    [problem] = [one for one in report["checks"] if one["level"] == "problem"]
    tables.check(problem["check"] == "device" and problem["ranks"] == [0, 1, 2], str(problem))
    check_table(problem["text"])
    tables.check([row["gpu_uuid"] for row in report["ranks"]] == [UUID[0], UUID[1], UUID[1]],
                 str(report["ranks"]))
    check_table(run(SHARED, "doctor", config, "--run.device=cuda").stdout)
    report = examined(config, APART, 0)
    tables.check([row["gpu_uuid"] for row in report["ranks"]] == UUID, str(report["ranks"]))
    report = examined(config, [(3, 0)] * 3, 0)
    tables.check([row["device_index"] for row in report["ranks"]] == [0, 1, 2], "devices")

    # Parts of one GPU are devices of their own, although NCCL does not connect them; of one
    # part two ranks are one too many.
    result = run(SHARED, "fit", config, "--run.device=cuda", "--exchange.transport=mpi",
                 parts=(1, 2, 3))
    tables.check(result.returncode == 0, "exit %d: %s" % (result.returncode, result.stderr))
    result = run(SHARED, "fit", config, "--force", "--run.device=cuda", parts=(1, 2, 2))
    rows = [line.split() for line in result.stderr.splitlines() if "MIG-" in line]
    tables.check(result.returncode == UNAVAILABLE and [row[0] for row in rows] == ["1", "2"]
                 and rows[0][-1] == rows[1][-1] and rows[0][-1].endswith("7702"), result.stderr)

    # Tests may ask for it. NCCL refuses too, unless each rank says that its host is another one.
    flags = ["fit", config, "--force", "--run.device=cuda", "--exchange.transport=nccl"]
    result = run(SHARED, *flags, MPO_TEST_SHARE_DEVICE="1", NCCL_HOSTID="host%d")
    tables.check(result.returncode == 0, "exit %d: %s" % (result.returncode, result.stderr))
    result = run(SHARED, *flags, MPO_TEST_SHARE_DEVICE="1")
    tables.check(result.returncode == UNAVAILABLE and result.stderr.count("mpo: NCCL: ") == 1
                 and "ncclCommInitRankConfig failed: invalid usage" in result.stderr,
                 result.stderr)
    refused(config, SHARED, "cuda", MPO_TEST_SHARE_DEVICE="0")

    # What nobody uses may be shared: one rank has no device, so auto takes the CPU.
    for shown, flags in ((APART, ["--run.device=cuda"]), (SHARED, ["--run.device=cpu"]),
                         (ONE_HAS_NONE, [])):
        result = run(shown, "fit", config, "--force", *flags)
        tables.check(result.returncode == 0, "exit %d: %s" % (result.returncode,
                                                              result.stderr))


if __name__ == "__main__":
    main()
