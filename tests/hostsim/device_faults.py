#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Devices that fail under the whole program: one message, the right exit code, no hang, no
half-written record, nothing left allocated.

    device_faults.py MPO MPIEXEC WORK_FOLDER MODE...

MPO is mpo_hostsim (tests/support/hostsim). A failed call of CUDA is a lost device: every call
after it fails too. MODE:
    memory        a device of every size up to the one that suffices
    calls [K]     every K-th call of CUDA of a fit fails (default: every one)
    ranks         calls of one rank of three fail
    nccl          calls of NCCL fail, report an error later, or nothing comes of them; and
                  ranks that are killed or stopped inside them
With --sample (tests/commands/sample.py) some of these.
"""
import os
import re
import sys

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "commands"))

import sample  # noqa: E402
from person import (CONFIG, WORK, check, fresh, run, run_tests, says_once,  # noqa: E402
                    table, write)

MODE = sys.argv[4]
FAULTS_MAX = 5000
ROUNDED = "--exchange.rows=bf16"  # which adds calls and takes none away
RECORD = os.path.join(WORK, "out.h5")
# The first call of each of these is in set-up; the rest of a fit repeats.
FIT = ["fit", "config.yaml", "--run.device=cuda", "--descent.steps=1", "--rollout.responses=2",
       "--rollout.max_tokens=3", "--rollout.prompts_per_step=1",
       "--run.setup_deadline=3", "--run.step_deadline=2"]
LEFT = []  # what is there before a fit
FORGOTTEN = ("never freed", "neither destroyed nor aborted")
SPARSE = 7  # of as many calls a sample tries one
GIVEN_BACK = 15  # calls at most that only give something back, at the end of a fit


def prepare():
    fresh()
    table("flat.table", "0.3 0.3 0.4")
    write("config.yaml", CONFIG.format(more="").replace(
        "rollout:", "  - {name: flat, model: flat.table}\nrollout:"))
    LEFT[:] = sorted(os.listdir(WORK))


def prepare_slices():
    """Policies of two blocks of tokens: of three ranks the first two have a slice each."""
    prepare()
    tokens = [f"t{i}" for i in range(1100)] + ["</s>"]
    row = " ".join(["0.0009"] * 1100 + ["0.01"])
    write("long.table", "mpo-table 1\ntokens " + " ".join(tokens) + "\n" + "".join(
        f"row {name} {row}\n" for name in ["<s>", *tokens[:-1]]))
    write("prompts.txt", "t0\n")
    write("config.yaml", re.sub(r"\w+\.table", "long.table",
                                CONFIG.format(more="").replace(
        "rollout:", "  - {name: flat, model: flat.table}\nrollout:")))
    LEFT[:] = sorted(os.listdir(WORK))


def fit(*flags, ranks=1, **settings):
    for path in (RECORD, RECORD + ".lock"):
        if os.path.exists(path):
            os.remove(path)
    settings = {"HOSTSIM_DEVICES": str(ranks), **settings}
    if ranks == 1:
        settings["OMPI_MCA_ess_singleton_isolated"] = "1"  # no daemon for one process
    return run(*FIT, *flags, ranks=ranks, env={**os.environ, **settings})


def deadlines(patience):
    return [f"--run.setup_deadline={3 * patience}", f"--run.step_deadline={2 * patience}"]


def patiently(attempt):
    """(the run, what is wrong with it) of attempt(patience). A busy machine may stop a rank for as long
    as a deadline: what one ended otherwise than it should is tried with longer ones."""
    for patience in (1, 4, 16):
        result, found = attempt(patience)
        if not found or not re.search(r"has not (responded|returned|completed) for", result.stderr):
            break
    return result, found


def wrong(result, code, words):
    """What is wrong with a run that had to end with this code, "" when nothing is."""
    if not says_once(result, code, words):
        return f"exit {result.returncode}, expected {code} and {words}"
    left = sorted(os.listdir(WORK))
    # Rank zero keeps its lock until the next fit when another rank ends the job.
    if [name for name in left if name not in ("out.h5", "out.h5.lock")] != LEFT:
        return f"left behind: {left}"
    if os.path.exists(RECORD):
        return "" if run("inspect", "out.h5").returncode == 0 else "the record is not readable"
    # Within the loop the whole process ends at once; before it everything is given back.
    if "(in step " in result.stderr:
        return ""
    return next((word for word in FORGOTTEN if word in result.stderr), "")


def report(what, count, bad, least):
    check(f"{what}: {count} faults, {len(bad)} go wrong", count >= least and not bad)
    for at, found, result in bad[:5]:
        print(f"      fault {at}: {found}\n{result.stdout}{result.stderr}")


def places(what, first, stride, sparse):
    """Calls to fail, to more than there are; of a sample every `sparse`-th from a random one."""
    if sample.WHOLE:
        return range(first, FAULTS_MAX, stride)
    first = sample.chance(what).randrange(1, stride * sparse + 1)
    print(f"      sample: every {stride * sparse}th of {what} from {first} on, "
          f"MPO_TEST_SEED={sample.SEED}")
    return range(first, FAULTS_MAX, stride * sparse)


def every_call(what, at_places, least, **options):
    """A fault at one call after another, until a run has fewer. The last ones, when all is
    written and memory is given back, are nobody's loss: such a run ends well, as do all
    with later faults."""
    rank = options.pop("rank", None)
    count, whole, bad = 0, 0, []
    for at in at_places:
        where = f"{at}" if rank is None else f"{rank}:{at}"

        def attempt(patience, where=where):
            result = fit(*options.get("flags", ()), *deadlines(patience), ranks=options.get("ranks", 1),
                         HOSTSIM_FAIL=where)
            return result, result.returncode == 75

        result, _ = patiently(attempt)
        if "this call of CUDA fails" not in result.stderr:
            if result.returncode != 0:
                bad.append((at, "a fit without a fault", result))
            break
        count += 1
        whole += result.returncode == 0
        if whole > 0:
            found = "" if is_whole(result) and whole <= GIVEN_BACK else "not whole"
        else:
            found = wrong(result, 69, ["cudaErrorLaunchFailure"])
        if found:
            bad.append((at, found, result))
    report(what, count, bad, least)


def is_whole(result):
    """It ended well, with every step in its record and nothing forgotten."""
    shown = run("inspect", "out.h5", "--format=tsv")
    return (result.returncode == 0 and shown.returncode == 0
            and len(shown.stdout.splitlines()) == 2
            and not any(word in result.stderr for word in FORGOTTEN))


def test_memory():
    """From next to nothing on; what suffices once suffices with more."""
    if MODE != "memory":
        return
    prepare()
    refusals, bad = 0, []
    for size in range(500, 60000, 500 if sample.WHOLE else 3000):
        result = fit(ROUNDED, HOSTSIM_MEMORY=str(size))
        found = wrong(result, 71, ["lower rollout.unit_prompts"])
        if result.returncode == 0:
            break
        refusals += 1
        if found:
            bad.append((size, found, result))
    report("memory that does not suffice", refusals, bad, 8 if sample.WHOLE else 2)
    check("memory that suffices", result.returncode == 0, result)


def test_calls():
    if MODE != "calls":
        return
    prepare()
    stride = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    what = "every call of a fit"
    every_call(what, places(what, 1, stride, SPARSE), 100 // stride // (1 if sample.WHOLE else SPARSE),
               flags=[ROUNDED])


def test_ranks():
    if MODE != "ranks":
        return
    prepare()
    for rank, transport, rows, least in ((0, "nccl", "bf16", 6), (1, "nccl", "float", 4),
                                         (2, "mpi", "float", 3)):
        what = f"calls of rank {rank} of three by {transport}"
        every_call(what, places(what, 1 + rank, 17, 3), least if sample.WHOLE else 1,
                   rank=rank, ranks=3, flags=["--exchange.transport=" + transport,
                                              "--exchange.rows=" + rows])


# What a job of three ranks says of a fault of NCCL on one of them: exit code and words.
NCCL_SAYS = {
    "call": (69, ["rank {rank}: NCCL", "unhandled cuda error", "exchange.transport=shared"]),
    "async": (75, ["rank {rank}: NCCL", "remote process exited", "exchange.transport=shared"]),
    "hang": (75, ["an NCCL call has not completed for", "although all ranks respond",
                  "NCCL_DEBUG=INFO"]),
    "stop": (75, [": rank {rank} on", "has not responded for", "raise --run.step_deadline"]),
}
# While ranks join, those that wait do so inside NCCL, and an alarm ends them: rank zero's.
JOINING_SAYS = (75, ["rank 0: ", "has not returned for", "another rank does not take part",
                     "NCCL_DEBUG=INFO"])
# Rank and call: the meeting; the start of the group that connects, a message of it, its end;
# the same of the next groups.
PLACES = [(0, 2), (1, 1), (1, 2), (0, 4), (1, 3), (2, 4), (0, 6),
          (0, 7), (1, 5), (0, 9), (2, 6), (1, 7), (0, 10), (2, 8), (1, 12)]
# Those whose end is a deadline or an alarm.
JOINING_PLACES = [(1, 1), (2, 4)]
LONG_PLACES = [(2, 6), (1, 7)]
# The first position's messages about slices: sums, questions and answers of rank 1.
SLICE_PLACES = {"call": [(1, 13), (0, 14), (0, 17), (1, 16), (0, 20), (1, 20)],
                "async": [(1, 12), (0, 16), (1, 19)],
                "hang": [(1, 14), (0, 18), (1, 20)], "stop": [(1, 13), (1, 18)]}


def nccl_fault(place, kind, says, flags):
    """(the run, what is wrong with it when it had to say as much)

    Where no deadline is to end the job, the alarm of ranks that wait must not either, however
    long mpirun takes to end them."""
    return patiently(lambda patience: one_nccl_fault(
        place, kind, says, [*flags, *deadlines(16 if kind in ("call", "async") else patience)]))


def one_nccl_fault(place, kind, says, flags):
    rank, at = place
    result = fit("--exchange.transport=nccl", *flags, ranks=3,
                 HOSTSIM_NCCL_FAIL=f"{rank}:{at}:{kind}")
    if "hostsim: fault in" not in result.stderr:
        return result, "no fault"
    if kind == "kill":  # mpirun's answer; mpo has no word to say
        return result, "" if result.returncode == 137 else "not 137"
    code, words = says
    found = wrong(result, code, [word.format(rank=rank) for word in words])
    made = "fault in ncclCommInitRankConfig: call" not in result.stderr
    if kind in ("call", "async") and made and "was aborted" not in result.stderr:
        found = found or "the communicator was not aborted"
    return result, found


def nccl_faults(kind, what, places_of, least, flags=()):
    says = JOINING_SAYS if places_of is JOINING_PLACES else NCCL_SAYS.get(kind)
    at_places = sample.some(f"places of NCCL{what}: {kind}", places_of, least)
    runs = [(place, *nccl_fault(place, kind, says, flags)) for place in at_places]
    bad = [(place, found, result) for place, result, found in runs if found]
    report(f"NCCL{what}: {kind}", len(runs), bad, len(at_places))


def test_nccl():
    if MODE != "nccl":
        return
    prepare()
    for kind in ("call", "async"):
        nccl_faults(kind, "", PLACES, 3)
    for kind in ("hang", "kill", "stop"):
        nccl_faults(kind, "", LONG_PLACES, 1)
        nccl_faults(kind, " while ranks join", JOINING_PLACES, 1)


def test_slices():
    if MODE != "nccl":
        return
    prepare_slices()
    for kind, places_of in SLICE_PLACES.items():
        nccl_faults(kind, " about slices", places_of, 1, ["--exchange.pattern=alltoall"])


def test_nccl_introduction():
    """The first rank's id is everybody's: all ranks say the same, once."""
    if MODE != "nccl":
        return
    result = fit("--exchange.transport=nccl", ranks=3, HOSTSIM_NCCL_FAIL="0:1:call")
    found = wrong(result, 69, ["ncclGetUniqueId", "unhandled cuda error"])
    check("NCCL: no id", not found, result)


run_tests(globals())
