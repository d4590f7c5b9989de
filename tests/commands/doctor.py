#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""doctor says ok: fit runs. doctor names a problem: fit ends with the same exit code.

    doctor.py MPO MPIRUN WORK [BIGRAM_GGUF_TOOL] [--sample]

Every case is a configuration, flags, a number of ranks, and the checks that must not be ok.
Both programs run it, so no exit code is written down here that fit does not give. With
--sample (sample.py) half of the cases.
"""

import os
import re
import resource
import shutil
import subprocess
import sys

import h5py

import sample
import tables
from doctor_case import (MPIRUN, MPO, TOOL, VOCAB, agrees, beside, doctor, folder, found,
                         gguf_case, run, table_case, text_of, write_beside)
from waiting import wait_for_record

CHECKS = ["launch", "prompts", "ranks", "device", "policies", "vocabulary", "context", "memory",
          "exchange", "threads", "record"]
# Estimates may be too high by as much; too low is worse, but pages that nobody writes count not.
PEAK_BOUNDS = (0.8, 1.6)


def a_sound_configuration_is_ok_on_every_valid_number_of_ranks():
    for ranks in (1, 2, 3, 6):
        config = table_case("sound")
        report = agrees(config, [], ranks=ranks)
        tables.check(found(report, "ok") >= set(CHECKS) - {"threads"}, str(report["checks"]))
        tables.check([row["rank"] for row in report["ranks"]] == list(range(ranks)), "ranks")
        names = [policy["name"] for row in report["ranks"][:3] for policy in row["policies"]]
        tables.check(sorted(names)[:3] == sorted(set(names)), "policies %s" % names)


def a_wrong_number_of_ranks_is_named_with_the_next_ones():
    config = table_case("ranks")
    report = agrees(config, ["ranks"], ranks=4, words=["start 3 or 6"])
    tables.check("memory" in found(report, "warning"), "a sum over wrong ranks")
    agrees(config, ["ranks"], "--exchange.ranks_per_group=7")
    agrees(config, ["ranks", "record"], "--record.file=no/x.h5", ranks=4)


def every_class_of_problem_has_the_exit_code_of_fit():
    config = table_case("classes")
    agrees(config, ["prompts"], "--prompts.file=no.txt", words=["no.txt"])
    agrees(config, ["prompts"], "--rollout.prompts_per_step=3")
    agrees(config, ["device"], "--run.device=cuda", words=["cuda"])
    agrees(config, ["policies"], "--policies.p1.model=no.table", ranks=2, words=["no.table"])
    agrees(config, ["policies"], "--policies.p1.lora=x.gguf")
    agrees(config, ["exchange"], "--exchange.transport=shared")
    agrees(config, ["exchange"], "--exchange.transport=self", ranks=2)
    strange = write_beside(config, "strange.txt", "a\nz\n")
    agrees(config, ["context"], "--prompts.file=" + strange, ranks=2, words=["'z'"])
    agrees(config, ["record"], "--record.file=no/x.h5", ranks=2, words=["directory"])
    agrees(config, ["record"], "--record.file=" + os.path.dirname(config))
    agrees(config, [])
    agrees(config, ["record"], ranks=2, words=["out.h5", "--force"])
    agrees(config, [], "--fit.force", ranks=2)
    agrees(config, [], "--fit.resume")


def has_to_have_its_models(config, name, other):
    """A record of a run, with another file in the place of one that it was made with."""
    model = beside(config, name)
    os.rename(model, model + ".kept")
    shutil.copy(beside(config, other), model)
    for ranks in (1, 2):
        agrees(config, ["record"], "--resume", ranks=ranks,
               words=[name, "expected the model (SHA-256", "of 'p1' in", "found a different one"])
    agrees(config, ["record", "policies"], "--resume", "--policies.p0.model=no" + name)
    moved = beside(config, "moved" + os.path.splitext(name)[1])
    shutil.copy(model + ".kept", moved)
    agrees(config, [], "--resume", "--policies.p1.model=" + moved, ranks=2)
    os.rename(model + ".kept", model)
    agrees(config, [], "--resume")


def a_record_to_resume_has_to_be_of_the_job():
    config = table_case("resumed")
    record = beside(config, "out.h5")
    agrees(config, [], "--resume", words=["out.h5 can be created"])
    with h5py.File(record) as file:
        steps = len(file["step"])
    for flag in ("--resume", "--fit.resume"):
        agrees(config, [], flag, ranks=2, words=["can be continued after %d steps" % steps])
    other = write_beside(config, "other.txt", "b\na\n")
    for flag, words in (("--run.seed=9", ["run.seed was", "is 9"]), ("--policies.p1.temperature=2", ["temperature"]),
                        ("--descent.steps=1", ["can only be raised"]), ("--estimator.target=whole", ["target"]),
                        ("--prompts.file=" + other, ["prompts of", "other.txt"])):
        agrees(config, ["record"], "--resume", flag, ranks=2, words=words)
    has_to_have_its_models(config, "p1.table", "p0.table")
    agrees(config, [], "--resume", "--descent.steps=%d" % (steps + 1))
    result = run([MPO, "doctor", config, "--resume", "--fit.force"])
    tables.check(result.returncode == 64 and "give only one" in result.stderr, result.stderr)
    with open(record, "r+b") as file:
        file.truncate(os.path.getsize(record) // 2)
    agrees(config, ["record"], "--resume", words=["out.h5"])


def a_record_that_is_written_now_is_named():
    config = table_case("live")
    record = beside(config, "out.h5")
    slow = subprocess.Popen([MPO, "fit", config, "--quiet", "--descent.steps=1000000"],
                            env=dict(os.environ, **tables.ENVIRONMENT),
                            stderr=subprocess.PIPE)
    try:
        wait_for_record(slow, record)
        agrees(config, ["record"], words=["being written by another run"])
    finally:
        slow.kill()
        slow.communicate()


def vocabularies_that_differ_are_a_problem_of_data():
    config = table_case("vocabulary")
    write_beside(config, "prompts.txt", "a\n")
    with open(beside(config, "p1.table"), encoding="utf-8") as stream:
        text = stream.read()
    other = write_beside(config, "other.table", re.sub(r"\bb\b", "x", text))
    for ranks in (1, 2):
        agrees(config, ["vocabulary"], "--policies.p1.model=" + other, ranks=ranks,
               words=["token 1"])


def all_problems_are_listed_and_the_first_decides():
    config = table_case("many")
    report = agrees(config, ["prompts", "policies", "record"], "--prompts.file=no.txt",
                    "--policies.p0.model=no.table", "--policies.p2.model=none.table",
                    "--record.file=no/x.h5", ranks=3)
    texts = text_of(report, "policies")
    tables.check("no.table" in texts and "none.table" in texts, texts)
    tables.check(report["problems"] == 4, "%d problems" % report["problems"])
    ranks = [one["ranks"] for one in report["checks"] if one["check"] in ("prompts", "policies")]
    tables.check(ranks == [[0, 1, 2], [0], [2]], str(ranks))


def a_file_missing_on_one_rank_hangs_nobody():
    config = table_case("here")
    away = folder("away")
    for name in os.listdir(os.path.dirname(config)):
        if name != "p2.table":
            shutil.copy(beside(config, name), away)
    for command in ("doctor", "fit"):
        parts = []
        for path in (os.path.dirname(config), away):
            parts += [":", "-n", "1", "--wdir", path, MPO, command, os.path.basename(config)]
        result = run([MPIRUN, *parts[1:]])
        tables.check(result.returncode == 66, "exit %d" % result.returncode)
        text = " ".join((result.stdout + result.stderr).split())
        tables.check("rank 1: policy 'p2': p2.table" in text, text)


def configuration_errors_end_it_at_once():
    config = table_case("wrong")
    for flag, code in (("--rollout.respones=3", 64), ("--rollout.unit_prompts=100", 78)):
        result = run([MPO, "doctor", config, flag])
        tables.check(result.returncode == code and result.stdout == "", str(result))
        tables.check(run([MPO, "fit", config, flag]).returncode == code, "fit differs")


def memory_that_is_missing_is_a_problem():
    """Slurm's part, ending the job, cannot be played here; ulimit is kept by the kernel."""
    config = table_case("memory", rollout={"responses": 256, "max_tokens": 1000000})
    result, report = doctor(config, SLURM_MEM_PER_NODE="200")
    tables.check(result.returncode == 71 and found(report, "problem") == {"memory"},
                 result.stdout)
    tables.check("SLURM_MEM_PER_NODE" in text_of(report, "memory"), result.stdout)
    agrees(config, ["memory"], ALONE, limit=(resource.RLIMIT_AS, 1 << 30), words=["ulimit -v"])
    agrees(config, ["memory"], ALONE, limit=(resource.RLIMIT_DATA, 1 << 30), words=["ulimit -d"])


def is_mpo(result):
    """Whether the program had its say: neither the loader nor MPI, whose parts are loaded later, ended
    it for want of memory."""
    return result.returncode in (0, 71) or "mpo: " in result.stderr or "mca_" not in result.stderr


def least_to_load():
    """The least address space, in bytes, in which the program is loaded; its libraries differ."""
    return next(size << 20 for size in range(16, 1024, 4) if run(
        [MPO, "version"], limit=(resource.RLIMIT_AS, size << 20)).returncode == 0)


def is_never_better_than_fit(config, what, first, step, *flags):
    """Where doctor says 0, fit runs. Limits grow from one at which both fail to some at which neither
    does: how much that is depends on the machine, and MPI may take more of more."""
    codes = []
    step *= 1 if sample.WHOLE else 2
    for value in range(first, first + 200 * step, step):
        for name in os.listdir(os.path.dirname(config)):
            if name.startswith("out.h5"):
                os.remove(beside(config, name))
        limit = (what, value)
        result = run([MPO, "doctor", config, *flags], limit=limit)
        fit = run([MPO, "fit", config, *flags, "--quiet"], limit=limit)
        if not is_mpo(result) or not is_mpo(fit):
            continue
        codes.append((result.returncode, fit.returncode))
        tables.check(result.returncode in (0, 71) and (result.returncode > 0 or codes[-1] == (0, 0)),
                     "limit of %d: doctor %d, fit %d: %s%s" % (
                         value, *codes[-1], result.stdout, fit.stderr))
        if codes[-4:] == 4 * [(0, 0)]:
            break
    print("       limits from %d to %d: %s" % (first, value, codes), flush=True)
    tables.check(codes[0] == (71, 71) and codes[-1] == (0, 0), "codes %s" % codes)


ALONE = "--run.threads=1"  # each thread takes a stack


def what_a_process_may_not_take_is_counted():
    config = table_case("limits", descent={"steps": 3})
    is_never_better_than_fit(config, resource.RLIMIT_AS, least_to_load(), 4 << 20, ALONE)
    is_never_better_than_fit(config, resource.RLIMIT_DATA, 8 << 20, 3 << 20, ALONE)
    is_never_better_than_fit(config, resource.RLIMIT_FSIZE, 1 << 10, 50 << 10, ALONE)
    agrees(config, ["record"], "--fit.force", "--descent.steps=100000",
           limit=(resource.RLIMIT_FSIZE, 1 << 20), words=["100000 steps", "ulimit -f"])
    report = agrees(config, [], "--fit.force", "--rollout.max_tokens=4000",
                    limit=(resource.RLIMIT_FSIZE, 400 << 10))
    tables.check("record" in found(report, "warning"), str(report["checks"]))


def a_stack_that_is_too_small_ends_every_command_with_a_word():
    config = table_case("stack")
    for kilobytes in (64, 2048):
        for command in ("doctor", "fit", "evaluate"):
            result = run([MPO, command, config], limit=(resource.RLIMIT_STACK, kilobytes << 10))
            tables.check(result.returncode == 71 and "ulimit -s" in result.stderr
                         and "%d kB" % kilobytes in result.stderr, str(result))
    agrees(config, [], limit=(resource.RLIMIT_STACK, 4 << 20))


def the_warm_up_of_a_whole_fit_is_counted():
    """16 rows for each of both prompts x 10^6 positions, two numbers each, and those of a batch:
    8 rows, the most in units of 8, for each of 4."""
    config = table_case("warm", rollout={"max_tokens": 1000000, "responses": 8})
    limit = (resource.RLIMIT_AS, 1 << 30)
    served = agrees(config, [], "--estimator.target=served", ALONE, limit=limit)
    whole = agrees(config, ["memory"], "--estimator.target=whole", ALONE,
                   "--record.file=" + beside(config, "other.h5"), limit=limit, words=["ulimit"])
    more = [rank["needs"]["work_bytes"] for report in (whole, served) for rank in report["ranks"]]
    tables.check(more[0] - more[1] == (2 * 16 + 4 * 8) * 10 ** 6 * 16, "%s" % more)
    set_tilt = doctor(config, "--estimator.target=whole", "--rollout.end_bias=0", ALONE,
                      "--record.file=" + beside(config, "third.h5"))
    tables.check(set_tilt[1]["ranks"][0]["needs"]["work_bytes"] == more[1], "no warm-up, none counted")


def advice_is_given_where_a_job_would_crawl():
    config = table_case("advice")
    result, report = doctor(config, "--run.threads=4096", OMP_WAIT_POLICY="active")
    warnings = text_of(report, "threads")
    tables.check(result.returncode == 0 and "threads" in found(report, "warning"), warnings)
    tables.check("OMP_WAIT_POLICY" in warnings and "run.threads" in warnings, warnings)
    result, report = doctor(config, "--run.threads=4096", OMP_WAIT_POLICY="passive")
    tables.check("OMP_WAIT_POLICY" not in text_of(report, "threads"), str(report["checks"]))
    result, report = doctor(config, SLURM_STEP_ID="0")
    tables.check("--mpi=pmix" in text_of(report, "launch"), str(report["checks"]))


def threads_are_the_cores_that_a_rank_may_use_over_the_ranks_that_share_them():
    config = table_case("cores")
    core = min(os.sched_getaffinity(0))
    for ranks, cores in ((1, {core}), (3, {core}), (1, os.sched_getaffinity(0))):
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)  # what the program inherits
        _, report = doctor(config, ranks=ranks, OMPI_MCA_hwloc_base_binding_policy="none")
        os.sched_setaffinity(0, everywhere)
        threads = [rank["threads"] for rank in report["ranks"]]
        tables.check(threads == [max(1, len(cores) // ranks)] * ranks,
                     "%s threads on %s" % (threads, cores))


def the_text_is_readable_at_100_columns():
    config = table_case("text")
    for flags in ((), ("--prompts.file=" + "long/" * 30 + "no.txt", "--policies.p0.model=no")):
        result = run([MPO, "doctor", config, *flags], 3)
        lines = result.stdout.splitlines()
        # A path is one word, and a word is never broken.
        long = [line for line in lines if len(line) > 100 and "long/long/" not in line]
        tables.check(not long, "lines of %s columns" % [len(line) for line in long])
        tables.check(len([line for line in lines if "p2.table" in line]) == 1, result.stdout)
        words = {line.split()[1] for line in lines
                 if line.split()[:1] and line.split()[0] in ("ok", "warning", "problem")}
        tables.check(words == set(CHECKS), "checks %s" % sorted(words ^ set(CHECKS)))


# ---- through libllama ----


def models_are_described_by_their_metadata():
    for ranks in (1, 3):
        config = gguf_case("gguf")
        report = agrees(config, [], ranks=ranks)
        policy = report["ranks"][0]["policies"][0]
        tables.check(policy["trained_tokens"] == 512, str(policy))
        tables.check(policy["longest_prompt_tokens"] == 3, str(policy))
        tables.check(policy["model_bytes"] > 2 * 4 * VOCAB * VOCAB, str(policy))


def models_have_problems_of_their_own():
    config = gguf_case("gguf_problems")
    agrees(config, ["policies"], "--policies.p1.template=auto", words=["chat template"])
    agrees(config, ["policies"], "--policies.p1.template=none-such", words=["none-such"])
    agrees(config, ["policies"], "--policies.p1.model=" + config.replace("config.yaml", "p0.f32"),
           "--policies.p1.kind=llama", words=["GGUF"])
    agrees(config, ["policies"], "--policies.p1.lora=no.gguf", words=["no.gguf"])
    agrees(config, ["context"], "--rollout.max_tokens=600", words=["context of 512"])
    tables.check(run([MPO, "fit", config, "--quiet"]).returncode == 0, "a record")
    has_to_have_its_models(config, "p1.gguf", "p0.gguf")
    os.remove(beside(config, "out.h5"))
    with open(beside(config, "p1.gguf"), "rb") as stream:
        whole = stream.read()
    with open(beside(config, "cut.gguf"), "wb") as stream:
        stream.write(whole[:len(whole) // 2])
    agrees(config, ["policies"], "--policies.p1.model=" + beside(config, "cut.gguf"))


def what_an_engine_takes_is_counted():
    config = gguf_case("gguf_limits")
    is_never_better_than_fit(config, resource.RLIMIT_AS, least_to_load(), 25 << 20, ALONE)
    is_never_better_than_fit(config, resource.RLIMIT_DATA, 30 << 20, 20 << 20, ALONE)


def least_limit(command, config, what, flags):
    """The least limit, in MB and up to 4, at which the command ends with 0."""
    low, high = 16, 2064
    while high - low > 4:
        middle = (low + high) // 2
        for name in os.listdir(os.path.dirname(config)):
            if name.startswith("out.h5"):
                os.remove(beside(config, name))
        quiet = ["--quiet"] if command == "fit" else []
        result = run([MPO, command, config, *flags, *quiet], limit=(what, middle << 20))
        low, high = (low, middle) if result.returncode == 0 else (middle, high)
    return high


def threads_are_counted_as_they_are():
    """Not only no better than fit: hardly worse either, whatever the number of threads."""
    config = gguf_case("gguf_threads")
    for threads in (1, 4):
        flags = ["--run.threads=%d" % threads]
        mine, real = (least_limit(command, config, resource.RLIMIT_AS, flags) for command in ("doctor", "fit"))
        print("       %d threads: doctor from %d MB on, fit from %d MB" % (threads, mine, real), flush=True)
        tables.check(real - 4 <= mine <= real + 12, "doctor %d, fit %d" % (mine, real))


def threads_that_cannot_be_started_end_with_a_word():
    """OpenMP would end the process by itself, with 1, where there is no room for their stacks."""
    config = gguf_case("gguf_stacks")
    flags = ["--run.threads=64"]
    for ranks in (1, 3):
        agrees(config, ["memory"], *flags, ranks=ranks, limit=(resource.RLIMIT_AS, 500 << 20), words=["ulimit -v"])
    for command in (["fit", config, "--quiet"], ["generate", config, "--weights=uniform"]):
        result = run([MPO, *command, *flags], limit=(resource.RLIMIT_AS, 500 << 20))
        tables.check(result.returncode == 71 and result.stderr.count("mpo: ") == 1
                     and "computes in 64 threads" in result.stderr and "run.threads" in result.stderr, result.stderr)
        result = run([MPO, *command, *flags], limit=(resource.RLIMIT_AS, 500 << 20), OMP_STACKSIZE="64k")
        tables.check(result.returncode == 0, result.stderr)
    os.remove(beside(config, "out.h5"))


def policies_of_one_model_share_its_weights():
    config = gguf_case("gguf_shared")
    same = ["--policies.p%d.model=%s" % (k, beside(config, "p0.gguf")) for k in (1, 2)]
    _, alone = doctor(config)
    _, shared = doctor(config, *same)
    weights = [report["ranks"][0]["needs"]["weights_bytes"] for report in (alone, shared)]
    tables.check(weights[0] == 3 * weights[1] > 0, "weights %s" % weights)


def needs_are_close_to_the_peak():
    config = gguf_case("gguf_peak", responses=16, max_tokens=400)
    _, report = doctor(config, ALONE)
    needs = report["ranks"][0]["needs"]
    code = ("import resource,subprocess,sys; subprocess.run(sys.argv[1:], check=True,"
            "stdout=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    result = run([sys.executable, "-c", code, MPO, "fit", config, "--quiet",
                  "--descent.steps=1", ALONE])
    peak = 1024 * int(result.stdout)
    print("       needs %.0f MB, peak %.0f MB, ratio %.2f" % (
        needs["total_bytes"] / 1e6, peak / 1e6, needs["total_bytes"] / peak), flush=True)
    tables.check(PEAK_BOUNDS[0] <= needs["total_bytes"] / peak <= PEAK_BOUNDS[1], str(needs))


def main():
    cases = [a_sound_configuration_is_ok_on_every_valid_number_of_ranks,
             a_wrong_number_of_ranks_is_named_with_the_next_ones,
             every_class_of_problem_has_the_exit_code_of_fit,
             a_record_to_resume_has_to_be_of_the_job,
             a_record_that_is_written_now_is_named,
             vocabularies_that_differ_are_a_problem_of_data,
             all_problems_are_listed_and_the_first_decides,
             a_file_missing_on_one_rank_hangs_nobody,
             configuration_errors_end_it_at_once,
             memory_that_is_missing_is_a_problem,
             the_warm_up_of_a_whole_fit_is_counted,
             what_a_process_may_not_take_is_counted,
             a_stack_that_is_too_small_ends_every_command_with_a_word,
             advice_is_given_where_a_job_would_crawl,
             threads_are_the_cores_that_a_rank_may_use_over_the_ranks_that_share_them,
             the_text_is_readable_at_100_columns]
    if TOOL:
        cases += [models_are_described_by_their_metadata,
                  models_have_problems_of_their_own,
                  what_an_engine_takes_is_counted,
                  threads_are_counted_as_they_are,
                  threads_that_cannot_be_started_end_with_a_word,
                  policies_of_one_model_share_its_weights,
                  needs_are_close_to_the_peak]
    cases = sample.some("cases", cases, 8)
    sys.exit(tables.run_cases([(case, []) for case in cases]))


if __name__ == "__main__":
    main()
