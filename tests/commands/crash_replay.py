#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every acknowledged step of a record survives a crash at any write, and a full disk.

    crash_replay.py TOOL SHIM [--sample] [--steps N] [--resume-at N] [--stride N]
        [--torn-stride N] [--disk-stride N]

TOOL is record_writer_tool, SHIM the library made of tests/support/write_log.c. One run is
logged write by write. For every stride-th write, the file is rebuilt as a crash right after
that write leaves it, and as a kill inside it does, which the kernel heeds between two pages;
it is opened with h5py beside no writer (SWMR) and compared value by value with what
record_example.h wrote; every 20th image goes to our own reader too. Then the program runs with a disk that is full from the n-th write on. With
--resume-at the run that is logged goes on with a record of so many steps. With --sample
(sample.py) some of these crashes and full disks are tried.
"""

import argparse
import os
import signal
import struct
import subprocess
import sys
import tempfile

import h5py
import numpy as np

import sample

OBJECTIVES = 3
POLICIES = 4
STEP_RESPONSES = 4
RESPONSES = 8
TOKENS_MAX = 8
PAGE = 4096
IMAGE_SECONDS = 10
BAD_MAX = 10  # each may take IMAGE_SECONDS
OUR_READER_EVERY = 20 if sample.WHOLE else 5
SAMPLE_WRITES = 40
SAMPLE_CUTS = 15
SAMPLE_DISKS = 6  # of each kind


class Bad(Exception):
    """What a crash image or a program did wrong."""


def load_log(path):
    """Entries (kind, first number, data) of a log of writes."""
    with open(path, "rb") as stream:
        log = stream.read()
    entries = []
    at = 0
    while at < len(log):
        kind = chr(log[at])
        first, second = struct.unpack_from("<QQ", log, at + 1)
        at += 17
        data = log[at:at + second] if kind == "W" else b""
        at += len(data)
        entries.append((kind, first, data))
    return entries


def apply(image, kind, first, data):
    """One logged entry on the image of the file."""
    end = first + len(data) if kind == "W" else first
    if kind == "W":
        if len(image) < end:
            image.extend(bytes(end - len(image)))
        image[first:end] = data
    elif kind == "T":
        del image[end:]
        image.extend(bytes(end - len(image)))


def expect(condition, text):
    if not condition:
        raise Bad(text)


def check_fields(file, fields, steps):
    for index, path, kind, shape in fields:
        value = file[path][:steps]
        wanted = 1000.0 * index + np.arange(steps)
        if shape == "OBJECTIVE":
            wanted = wanted[:, None] + np.arange(OBJECTIVES)[None, :] / 8.0
        expect(value.dtype == ("<f8" if kind == "F64" else "<i8"), f"{path}: {value.dtype}")
        expect(np.array_equal(value, wanted), f"{path} is wrong in {steps} steps")


def check_responses(file, steps):
    group = file["responses"]
    rows = steps * RESPONSES
    step, within = np.divmod(np.arange(rows), RESPONSES)
    proposal = -(step + within / 16.0)
    tokens = 1 + (step + within) % TOKENS_MAX
    start = np.concatenate([[0], np.cumsum(tokens)]).astype(int)
    texts = [f"step {n} response {i} \u00e9\n".encode() for n, i in zip(step, within)]
    text_start = np.concatenate([[0], np.cumsum([len(t) for t in texts])]).astype(int)
    wanted = {
        "response": np.arange(rows),
        "step": step,
        "prompt": (step + within // STEP_RESPONSES) % 3,
        "token_count": tokens,
        "ended": within % 2,
        "log_proposal": proposal,
        "log_policy": proposal[:, None] - np.arange(POLICIES)[None, :],
        "control": proposal[:, None] - np.arange(POLICIES)[None, :],
        "reward": (step + within)[:, None] + np.arange(OBJECTIVES)[None, :] / 4.0,
        "token_offset": start[:-1],
        "text_offset": text_start[:-1],
        "text_bytes": np.diff(text_start),
    }
    for name, value in wanted.items():
        expect(np.array_equal(group[name][:rows], value), f"responses/{name} is wrong")
    token = np.repeat(100 * step + within, tokens)
    expect(np.array_equal(group["token"][:len(token)], token), "responses/token is wrong")
    text = group["text"][:text_start[-1]].tobytes()
    expect(text == b"".join(texts), "responses/text is wrong")


def check_file(path, fields, acknowledged):
    """Open as a reader of a live file does and compare everything; gives the steps found."""
    with h5py.File(path, "r", swmr=True, libver="latest") as file:
        steps = file["step"].shape[0]
        expect(steps >= acknowledged, f"{steps} steps, {acknowledged} were acknowledged")
        expect(np.array_equal(file["step"][()], np.arange(steps)), "step is wrong")
        check_fields(file, fields, steps)
        check_responses(file, steps)
        segments = file["provenance/segments"][()]
        expect(list(segments["restart_count"]) in ([0], [0, 1]), f"segments {segments}")
    return steps


def check_apart(path, fields, acknowledged):
    """check_file in a process of its own, because a damaged file can hang or crash HDF5."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = ""
        signal.alarm(IMAGE_SECONDS)
        try:
            check_file(path, fields, acknowledged)
        except (Bad, OSError, KeyError, RuntimeError, ValueError) as error:
            text = str(error) or "an error without a text"
        os.write(writer, text.encode()[:1000])
        os._exit(1 if text else 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    expect(code >= 0, f"h5py ended by signal {-code}")
    expect(code == 0, text)


def check_image(path, image, fields, acknowledged, tool):
    with open(path, "wb") as stream:
        stream.write(image)
    check_apart(path, fields, acknowledged)
    if tool is not None:
        checked = subprocess.run([tool, "check", path, str(acknowledged)],
                                 capture_output=True, text=True, timeout=600, check=False)
        expect(checked.returncode == 0, f"our reader: {checked.stderr.strip()}")


def page_cuts(first, data):
    """Bytes of a write that are on disk when it is killed between two pages."""
    return range(PAGE - first % PAGE, len(data), PAGE)


def all_places(entries, acknowledged):
    """Numbers of all writes to crash after, and how many page cuts there are."""
    writes = []
    write = cuts = 0
    for kind, first, data in entries:
        if kind == "M":
            acknowledged = first
        write += kind == "W"
        if kind == "W" and acknowledged >= 0:
            writes.append(write)
            cuts += len(page_cuts(first, data))
    return writes, cuts


def every_nth_place(args, entries, acknowledged):
    """Writes to crash after and page cuts to be killed at: every n-th of each."""
    writes, cuts = all_places(entries, acknowledged)
    return ({place for place in writes if place % args.stride == 0},
            set(range(args.torn_stride, cuts + 1, args.torn_stride)))


def crash_places(args, entries, acknowledged):
    """The same, or a sample of all."""
    if sample.WHOLE:
        return every_nth_place(args, entries, acknowledged)
    writes, cuts = all_places(entries, acknowledged)
    return (set(sample.some("crashes after a write", writes, SAMPLE_WRITES)),
            set(sample.some("crashes inside a write", range(1, cuts + 1), SAMPLE_CUTS)))


def crash_images(entries, places, image, acknowledged):
    """Yield (name, image, acknowledged) for crashes after and inside of writes to an image."""
    writes = 0
    cuts = 0
    for kind, first, data in entries:
        if kind == "M":
            acknowledged = first
        writes += kind == "W"
        wanted = kind == "W" and acknowledged >= 0
        for cut in page_cuts(first, data) if wanted else ():
            cuts += 1
            if cuts not in places[1]:
                continue
            torn = bytearray(image)
            apply(torn, kind, first, data[:cut])
            yield f"{cut} bytes into write {writes}", torn, acknowledged
        apply(image, kind, first, data)
        if wanted and writes in places[0]:
            yield f"after write {writes}", image, acknowledged


def begin(args, path):
    """(verb, the file as it is before the logged run, steps acknowledged so far)"""
    if args.resume_at == 0:
        return "write", bytearray(), -1
    subprocess.run([args.tool, "write", path, str(args.resume_at)],
                   stdout=subprocess.DEVNULL, check=True)
    with open(path, "rb") as stream:
        return "resume", bytearray(stream.read()), args.resume_at


def replay(args, fields, folder):
    """Crash images of one logged run; gives counts and the failures."""
    log = os.path.join(folder, "log")
    path = os.path.join(folder, "run.h5")
    environment = dict(os.environ, LD_PRELOAD=args.shim, WRITE_LOG=log)
    verb, image, acknowledged = begin(args, path)
    subprocess.run([args.tool, verb, path, str(args.steps)],
                   env=environment, stdout=subprocess.DEVNULL, check=True)
    entries = load_log(log)
    torn = 0
    images = 0
    bad = []
    places = crash_places(args, entries, acknowledged)
    for name, image, acknowledged in crash_images(entries, places, image, acknowledged):
        images += 1
        torn += "into" in name
        tool = args.tool if images % OUR_READER_EVERY == 0 else None
        try:
            check_image(os.path.join(folder, "crash.h5"), image, fields, acknowledged, tool)
        except Bad as error:
            bad.append(f"{name}, {acknowledged} acknowledged: {error}")
        if len(bad) == BAD_MAX:
            break
    writes = sum(kind == "W" for kind, _, _ in entries)
    print(f"crash: {images} images ({torn} torn) of {writes} writes, {len(bad)} bad")
    return writes, images, bad


def last_acknowledged(output):
    lines = [line for line in output.splitlines() if line.startswith("acknowledged ")]
    return int(lines[-1].split()[1]) if lines else None


def full_disk_once(args, fields, folder, at, kind):
    """One run with a disk that is full from write `at` on; True when it made a difference."""
    path = os.path.join(folder, "full.h5")
    environment = dict(os.environ, LD_PRELOAD=args.shim, ENOSPC_AT=str(at), ENOSPC_KIND=kind)
    verb, _, before = begin(args, path)
    ran = subprocess.run([args.tool, verb, path, str(args.steps)], env=environment,
                         capture_output=True, text=True, timeout=600, check=False)
    acknowledged = last_acknowledged(ran.stdout)
    if acknowledged is None and before > 0:
        acknowledged = before
    try:
        if ran.returncode == 0:
            expect(acknowledged == args.steps, "exit 0 with steps missing")
            check_apart(path, fields, args.steps)
            return False
        expect(ran.returncode == 74, f"exit {ran.returncode}: {ran.stderr.strip()}")
        expect("No space left on device" in ran.stderr, f"text: {ran.stderr.strip()}")
        expect(not os.path.exists(path + ".lock"), "the lock file is left")
        if acknowledged is None:
            expect(not os.path.exists(path), "an unfinished file is left")
        else:
            check_apart(path, fields, acknowledged)
            checked = subprocess.run([args.tool, "check", path, str(acknowledged)],
                                     capture_output=True, text=True, timeout=600, check=False)
            expect(checked.returncode == 0, f"our reader: {checked.stderr.strip()}")
        return True
    finally:
        if os.path.exists(path):
            os.unlink(path)


def full_disk(args, fields, folder, writes):
    runs = 0
    refused = 0
    bad = []
    for kind in ("every", "grow"):
        # The last writes are those of closing the file.
        places = {*range(1, writes, args.disk_stride), *range(writes - 4, writes + 2)}
        for at in sample.some(f"full disks ({kind})", sorted(places), SAMPLE_DISKS):
            runs += 1
            try:
                refused += full_disk_once(args, fields, folder, at, kind)
            except Bad as error:
                bad.append(f"disk full ({kind}) from write {at}: {error}")
    return runs, refused, bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool")
    parser.add_argument("shim")
    parser.add_argument("--steps", type=int, default=70)
    parser.add_argument("--resume-at", type=int, default=0, help="resume a record of N steps")
    parser.add_argument("--stride", type=int, default=43, help="replay every n-th write")
    parser.add_argument("--torn-stride", type=int, default=11, help="kill inside every n-th one")
    parser.add_argument("--disk-stride", type=int, default=307, help="fill at every n-th write")
    args = parser.parse_args()
    args.tool = os.path.abspath(args.tool)
    args.shim = os.path.abspath(args.shim)
    listed = subprocess.run([args.tool, "fields"], capture_output=True, text=True, check=True)
    fields = [(int(line.split("\t")[0]), *line.split("\t")[1:])
              for line in listed.stdout.splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        writes, images, bad = replay(args, fields, folder)
        runs, refused, bad_disk = full_disk(args, fields, folder, writes)
        print(f"full disk: {runs} runs, {refused} refused, {len(bad_disk)} bad")
    for line in bad + bad_disk[:BAD_MAX]:
        print("BAD", line)
    if images == 0 or refused == 0:
        print("BAD nothing was tried")
        return 1
    return 1 if bad or bad_disk else 0


if __name__ == "__main__":
    sys.exit(main())
