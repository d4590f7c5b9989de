#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`mpo recover` makes a closed record of what a crash leaves, and nothing of anything else.

    recover.py MPO TOOL SHIM WORK_FOLDER [--steps N] [--stride N] [--torn-stride N]

TOOL and SHIM are those of crash_replay.py, which rebuilds the file as a crash after or inside
of every stride-th write leaves it. Each image is recovered by the program and opened as any
HDF5 file is: all acknowledged steps are there and right, nothing is ragged, and the image has
not changed by a bit. Then the program is asked for what it must refuse.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np

import crash_replay
import fit_ranks
from crash_replay import Bad, RESPONSES, expect
from records import steps_in
from waiting import comes_to

FAILURES = []


def check(name, condition, result=None):
    print(("ok    " if condition else "FAIL  ") + name)
    if not condition:
        FAILURES.append(name)
        if result is not None:
            print(f"      exit {result.returncode}\n{result.stdout}\n{result.stderr}")


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


def recover(args, *arguments, **how):
    return subprocess.run([args.mpo, "recover", *arguments], cwd=args.work, timeout=600,
                          capture_output=True, text=True, check=False, **how)


def check_recovered(path, fields, acknowledged):
    """The file opens without swmr and holds whole steps and nothing else."""
    with h5py.File(path, "r") as file:
        steps = file["step"].shape[0]
        expect(steps >= acknowledged, f"{steps} steps, {acknowledged} were acknowledged")
        expect(np.array_equal(file["step"][()], np.arange(steps)), "step is wrong")
        for _, name, _, _ in fields:
            expect(file[name].shape[0] == steps, f"{name} has {file[name].shape[0]} rows")
        group = file["responses"]
        rows = steps * RESPONSES
        names = [name for name in group if name == "response"
                 or not h5py.h5ds.is_scale(group[name].id)]  # the others name a dimension
        for name in names:
            if name not in ("token", "text"):
                expect(group[name].shape[0] == rows, f"{name}: {group[name].shape[0]} rows")
        tokens = int(np.sum(group["token_count"][()]))
        text = int(np.sum(group["text_bytes"][()]))
        expect(group["token"].shape[0] == tokens, f"{group['token'].shape[0]} tokens")
        expect(group["text"].shape[0] == text, f"{group['text'].shape[0]} bytes of text")
        expect(h5py.h5ds.is_scale(file["step"].id), "step is no dimension scale any more")
        crash_replay.check_fields(file, fields, steps)
        crash_replay.check_responses(file, steps)
    return steps


def recover_image(args, image, fields, acknowledged):
    """True when the image needed a repair."""
    crashed = os.path.join(args.work, "crash.h5")
    repaired = os.path.join(args.work, "crash.recovered.h5")
    with open(crashed, "wb") as stream:
        stream.write(image)
    if os.path.exists(repaired):
        os.unlink(repaired)
    result = recover(args, "crash.h5")
    expect(result.returncode == 0, f"exit {result.returncode}: {result.stderr.strip()}")
    expect(read(crashed) == image, "the original was changed")
    expect(sorted(name for name in os.listdir(args.work) if name.startswith("crash"))
           in (["crash.h5"], ["crash.h5", "crash.recovered.h5"]), "other files are left")
    if "no copy was made" in result.stdout:
        check_recovered(crashed, fields, acknowledged)
        return False
    steps = check_recovered(repaired, fields, acknowledged)
    expect(f"{steps} kept" in result.stdout, f"what was kept: {result.stdout}")
    expect(f"{steps * RESPONSES} kept" in result.stdout, f"what was kept: {result.stdout}")
    return True


def replay(args, fields):
    log = os.path.join(args.work, "log")
    environment = dict(os.environ, LD_PRELOAD=args.shim, WRITE_LOG=log)
    subprocess.run([args.tool, "write", os.path.join(args.work, "run.h5"), str(args.steps)],
                   env=environment, stdout=subprocess.DEVNULL, check=True)
    entries = crash_replay.load_log(log)
    images = 0
    repaired = 0
    bad = []
    places = crash_replay.every_nth_place(args, entries, -1)
    for name, image, acknowledged in crash_replay.crash_images(entries, places, bytearray(),
                                                               -1):
        images += 1
        try:
            repaired += recover_image(args, image, fields, acknowledged)
        except (Bad, OSError, KeyError, ValueError, RuntimeError) as error:
            bad.append(f"{name}, {acknowledged} acknowledged: {error}")
        if len(bad) == crash_replay.BAD_MAX:
            break
    writes = sum(kind == "W" for kind, _, _ in entries)
    print(f"      {images} images of {writes} writes, {repaired} repaired, {len(bad)} bad")
    for line in bad:
        print("BAD  ", line)
    check("every crash image is recovered whole", images > 0 and not bad)
    check("images needed a repair", repaired > images // 2)


def crash(args, name, steps):
    """A record of a run that was killed after so many steps."""
    process = subprocess.Popen([args.tool, "write", os.path.join(args.work, name), "1000000",
                                "20"], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line.split()[1]) == steps:
            break
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def refused(args, name, code, words, *arguments):
    before = sorted(os.listdir(args.work))
    result = recover(args, *arguments)
    check(f"{name}: exit {code}", result.returncode == code and result.stdout == ""
          and all(word in result.stderr for word in words), result)
    check(f"{name}: nothing is made", sorted(os.listdir(args.work)) == before)


def limit_files(size):
    """In the child: files cannot grow beyond this, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def full_disk(args, crashed):
    """live.h5 is a crashed record, and nothing half made is left beside it."""
    before = sorted(os.listdir(args.work))
    result = recover(args, "live.h5", preexec_fn=lambda: limit_files(len(crashed) // 2))
    check("a limit on files that is met while copying: exit 71", result.returncode == 71
          and "live.recovered.h5" in result.stderr, result)
    environment = dict(os.environ, LD_PRELOAD=args.shim, ENOSPC_AT="1")
    result = recover(args, "live.h5", env=environment)
    check("a disk that is full while repairing: exit 74", result.returncode == 74
          and "No space left" in result.stderr, result)
    check("a full disk leaves no copy", sorted(os.listdir(args.work)) == before)


def no_room_for_a_repair(args):
    """A disk that holds the record and no copy of it: doctor and fit say so alike."""
    folder = os.path.join(args.work, "small_disk")
    os.makedirs(folder)
    config = fit_ranks.write_case(os.path.join(args.work, "small_case"))
    script = """mount -t tmpfs -o size=300k tmpfs . && cd "$PWD"
        "$0" fit "$1" --descent.steps=3000 --record.file="$PWD/q.h5" --quiet 2>/dev/null && exit 99
        for command in doctor fit; do
            "$0" $command "$1" --descent.steps=3000 --record.file="$PWD/q.h5" --resume >../$command.out 2>&1
            echo $command $?
            grep -c 'another disk' ../$command.out
        done
        "$0" recover q.h5 --output=../spare.h5 >/dev/null && echo recovered"""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        print("SKIP  a disk without room for a repair: needs root and mount namespaces")
        return
    result = subprocess.run(["unshare", "-m", "sh", "-c", script, args.mpo, config], cwd=folder, timeout=600,
                            capture_output=True, text=True, check=False)
    check("a disk without room for a repair: doctor 74, fit 74, and recover writes elsewhere",
          result.stdout.split() == ["doctor", "74", "1", "fit", "74", "1", "recovered"], result)
    shutil.rmtree(folder)


def manners(args, fields):
    live = crash(args, "live.h5", 5)
    refused(args, "a live record", 73, ["live.h5", f"process {live.pid}", "host "], "live.h5")
    kill(live)
    crashed = read(os.path.join(args.work, "live.h5"))
    full_disk(args, crashed)
    result = recover(args, "live.h5")
    check("the record of a killed run", result.returncode == 0
          and "live.recovered.h5" in result.stdout, result)
    check("without a plan it is finished", "live.recovered.h5, finished\n" in result.stdout, result)
    check_recovered(os.path.join(args.work, "live.recovered.h5"), fields, 5)
    refused(args, "an output that exists", 73, ["live.recovered.h5", "--output"], "live.h5")
    refused(args, "an output in no folder", 73, ["no/such.h5"], "live.h5", "--output",
            "no/such.h5")
    refused(args, "the record itself as output", 73, ["live.h5"], "live.h5", "--output=live.h5")
    result = recover(args, "live.h5", "--output", "second.h5")
    check("--output", result.returncode == 0 and "second.h5" in result.stdout, result)
    check("the same repair gives the same bytes",
          read(os.path.join(args.work, "second.h5"))
          == read(os.path.join(args.work, "live.recovered.h5")))
    check("the record is as it was", read(os.path.join(args.work, "live.h5")) == crashed)
    before = sorted(os.listdir(args.work))
    result = recover(args, "second.h5")
    check("a recovered record needs no repair", result.returncode == 0
          and "no copy was made" in result.stdout and sorted(os.listdir(args.work)) == before,
          result)
    refused(args, "a missing record", 66, ["no.h5"], "no.h5")
    with open(os.path.join(args.work, "text.h5"), "w", encoding="utf-8") as stream:
        stream.write("not a record\n" * 100)
    refused(args, "no HDF5 file", 65, ["text.h5", "not an HDF5 file"], "text.h5")
    with h5py.File(os.path.join(args.work, "other.h5"), "w") as file:
        file["x"] = 1
    refused(args, "no record", 65, ["other.h5", "not a record of mpo"], "other.h5")
    with open(os.path.join(args.work, "half.h5"), "wb") as stream:
        stream.write(crashed[:len(crashed) // 2])
    refused(args, "half a record", 65, ["half.h5"], "half.h5")
    refused(args, "no argument", 64, ["expected one record"])
    refused(args, "an unknown option", 64, ["--force"], "live.h5", "--force")
    shown = subprocess.run([args.mpo, "inspect", "live.h5"], cwd=args.work, timeout=600,
                           capture_output=True, text=True, check=False)
    check("inspect names the command", "`mpo recover live.h5`" in shown.stdout, shown)


def a_stopped_run_is_not_finished(args):
    """A fit that was killed after 5 of 1000000 steps; its copy goes on, and is finished then."""
    case = os.path.join(args.work, "stopped")
    config = fit_ranks.write_case(case)
    record = os.path.join(case, "run.h5")
    copy = os.path.join(case, "run.recovered.h5")
    command = [args.mpo, "fit", config, "--record.file=" + record, "--quiet"]
    fit = subprocess.Popen([*command, "--descent.steps=1000000"], stderr=subprocess.DEVNULL)
    comes_to(lambda: fit.poll() is not None or steps_in(record) >= 5)
    fit.kill()
    fit.wait()
    result = recover(args, record)
    check("the copy of a killed run was stopped", result.returncode == 0
          and "run.recovered.h5, stopped (`mpo fit --resume` continues it)\n" in result.stdout
          and " of 1000000 planned" in result.stdout and "finished" not in result.stdout, result)
    result = recover(args, copy)
    check("and needs no repair", "is stopped (" in result.stdout and " of 1000000 steps): it needs no repair, "
          "and no copy was made (`mpo fit --resume` continues it)\n" in result.stdout, result)
    result = recover(args, copy, "--format=json")
    facts = json.loads(result.stdout)
    check("as JSON", facts["state"] == "stopped" and facts["planned_steps"] == 1000000
          and not facts["repaired"], result)
    whole = os.path.join(case, "whole.h5")
    subprocess.run([args.mpo, "fit", config, "--record.file=" + whole, "--quiet", "--descent.steps=3"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    result = recover(args, whole)
    check("a finished run is finished", "is finished (3 steps): it needs no repair, and no copy was "
          "made\n" in result.stdout, result)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mpo")
    parser.add_argument("tool")
    parser.add_argument("shim")
    parser.add_argument("work")
    parser.add_argument("--steps", type=int, default=70)
    parser.add_argument("--stride", type=int, default=97, help="recover every n-th image")
    parser.add_argument("--torn-stride", type=int, default=37)
    args = parser.parse_args()
    args.mpo, args.tool, args.shim = (os.path.abspath(path) for path in
                                      (args.mpo, args.tool, args.shim))
    shutil.rmtree(args.work, ignore_errors=True)
    os.makedirs(args.work)
    listed = subprocess.run([args.tool, "fields"], capture_output=True, text=True, check=True)
    fields = [(int(line.split("\t")[0]), *line.split("\t")[1:])
              for line in listed.stdout.splitlines()]
    replay(args, fields)
    manners(args, fields)
    a_stopped_run_is_not_finished(args)
    no_room_for_a_repair(args)
    shutil.rmtree(args.work, ignore_errors=True)
    if FAILURES:
        print(f"{len(FAILURES)} checks failed: {FAILURES}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
