#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`mpo doctor --serve` says ok: serve starts. It names a problem: serve ends with the same code.
Where memory is short an automatic context is what there is room for, and both say so. The script
of `mpo launch --serve` runs launch/serve.sbatch with the same flags.

usage: doctor.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER [BIGRAM_GGUF_TOOL]
"""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
from person import MPIEXEC, MPO, WORK, check, fresh, run, run_tests, start  # noqa: E402
from server import Server, hold_port, port_of  # noqa: E402
from waiting import PATIENCE_SECONDS  # noqa: E402

CONFIG = os.path.join(SOURCE, "configs/table.yaml")
VOCAB = 260
POLICIES = 3


def doctor(*arguments, ranks=1):
    result = run("doctor", "--serve", *arguments, "--json", ranks=ranks)
    report = json.loads(result.stdout) if result.stdout else {"checks": []}
    return result, {one["check"]: one for one in report["checks"]}


def starts(config, *flags, launch=()):
    """0 where a server comes to be ready, else the code with which it ends."""
    server = Server(MPIEXEC if launch else MPO, WORK, config, *flags, launch=launch)
    try:
        server.wait_until_ready()
    except (AssertionError, urllib.error.HTTPError):
        pass
    return server.end() if server.process.poll() is not None else server.end() and 0


def agrees(name, problem, *flags, words=""):
    result, checks = doctor(CONFIG, *flags)
    found = [check for check, one in checks.items() if one["level"] == "problem"]
    code = starts(CONFIG, *(flag for flag in flags if not flag.startswith("--port=")))
    check(f"{name}: doctor {result.returncode}, serve {code}, {found}",
          found == ([problem] if problem else []) and result.returncode == code
          and all(words in checks[one]["text"] for one in found), result)


def test_agreement():
    keys = os.path.join(WORK, "keys")
    with open(keys, "w", encoding="utf-8") as file:
        file.write("me:secret\n")
    os.chmod(keys, 0o644)
    agrees("as configured", None)
    agrees("a key file that others may read", "server", f"--key-file={keys}", words="mode 600")
    os.chmod(keys, 0o600)
    agrees("keys", None, f"--key-file={keys}", "--presets", "even=uniform", "--name=x/y")
    agrees("no certificate", "server", "--tls-cert=/no", "--tls-key=/no")
    agrees("open to all", "server", "--address=0.0.0.0", words="allow_open")
    agrees("weights", "models", "--weights=0.5,0.6,0.7", words="sum of 1")
    agrees("a record that is none", "models", f"--weights={CONFIG}")
    agrees("presets", "models", "--presets=even", words="NAME=WEIGHTS")
    agrees("a folder that is none", "server", "--url-file=/no/such/url", words="url_file")


def test_port():
    with hold_port() as held:
        port = port_of(held)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))
            other.listen()
            result, checks = doctor(CONFIG, f"--port={port}")
            served = run("serve", CONFIG, f"--port={port}")
            check("a port that is taken", result.returncode == served.returncode == 73
                  and checks["server"]["level"] == "problem", result)
        result, _ = doctor(CONFIG, f"--port={port}")
        check("and free again", result.returncode == 0, result)
    result = run("doctor", CONFIG, "--serve", "--rows=8", "--port=0")
    check("as a text", result.returncode == 0 and "serve would start" in result.stdout
          and "8 rows share 16384 tokens" in result.stdout, result)
    result = run("doctor", CONFIG, "--serve=false", "--record.file=x.h5")
    check("fit, as before", "fit would run" in result.stdout, result)


def test_groups():
    result, checks = doctor(CONFIG, "--port=0", "--rows=8", ranks=2 * POLICIES)
    check("two groups", result.returncode == 0 and checks["ranks"]["level"] == "ok"
          and "2 groups of 3" in checks["ranks"]["text"]
          and "2 groups, 16 rows in all" in checks["context"]["text"], result)
    one = json.loads(doctor(CONFIG, "--port=0", "--rows=8", ranks=POLICIES)[0].stdout)
    two = json.loads(result.stdout)
    check("whose ranks need as much memory each", len(two["ranks"]) == 6
          and [rank["needs"]["cache_bytes"] for rank in two["ranks"]]
          == 2 * [rank["needs"]["cache_bytes"] for rank in one["ranks"]], result)
    code = starts(CONFIG, "--rows=8", launch=("-n", str(2 * POLICIES), "--oversubscribe", MPO))
    check(f"and start: {code}", code == 0)


# ---- launch ----

def launch(*arguments):
    return run("launch", CONFIG, "--serve", *arguments)


def test_launch():
    config = os.path.join(WORK, "a folder; with $HOME's.yaml")
    shutil.copy(CONFIG, config)
    shutil.copytree(os.path.join(SOURCE, "configs/table"), os.path.join(WORK, "table"))
    result = run("launch", config, "--serve", "--rows", "8", "--presets=a=uniform;b=1,0,0",
                 "--run.seed=4", "--ranks-per-node=1", "--launch.time=01:00:00", "--drain=100")
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", result.stdout, re.MULTILINE))
    check("what the job asks for", asked.get("nodes") == "3" and asked["time"] == "01:00:00"
          and asked["signal"] == "B:USR1@200" and asked["ntasks-per-node"] == "1", result)
    home = os.path.join(WORK, "home")
    os.makedirs(os.path.join(home, "launch"))
    with open(os.path.join(home, "launch", "serve.sbatch"), "w", encoding="utf-8") as file:
        file.write("printf '%s\\0' \"$@\"\n")
    done = subprocess.run(
        ["bash", "-s", "--", "--more"], input=result.stdout, capture_output=True, text=True,
        timeout=PATIENCE_SECONDS, check=False,
        env={**os.environ, "MPO_HOME": home, "SLURM_CPUS_PER_TASK": "8"})
    words = done.stdout.split("\0")[:-1]
    check(f"its command {words}", words == [
        "--run.threads=8", config, "--serve.rows=8", "--serve.presets=a=uniform;b=1,0,0",
        "--run.seed=4", "--serve.drain=100", "--more"])
    for name, code, flags in (("weights", 64, ["--weights=1,1"]),
                              ("a step's time", 78, ["--seconds-per-step=3"]),
                              ("a time before the signal", 78, ["--time=2"]),
                              ("an unknown flag", 64, ["--bogus"])):
        refused = launch(*flags)
        check(f"{name} is refused with {code}", refused.returncode == code
              and not refused.stdout and refused.stderr.count("\n") == 1, refused)
    text = launch("--groups=2", "--launch.ranks-per-node=3").stdout
    check("two groups on two nodes", "in 2 groups of 3" in text
          and re.search(r"^#SBATCH --nodes=2\b", text, re.MULTILINE), launch("--groups=2"))
    tool = shutil.which("shellcheck")
    if tool:
        clean = subprocess.run([tool, "-x", "-"], input=launch().stdout, text=True, cwd=SOURCE,
                               capture_output=True, check=False)
        check("the script is clean shell", clean.returncode == 0, clean)


# ---- memory ----

def short_model(tool):
    """A configuration whose automatic context takes some hundred MB."""
    zeros = os.path.join(WORK, "logits")
    with open(zeros, "wb") as file:
        file.write(bytes(4 * VOCAB * VOCAB))
    model = os.path.join(WORK, "model.gguf")
    check("a model", start([tool, model, zeros]).returncode == 0)
    config = os.path.join(WORK, "short.yaml")
    with open(config, "w", encoding="utf-8") as file:
        file.write("prompts: {file: prompts.txt}\npolicies:\n" + "".join(
            f"  - {{name: p{k}, model: model.gguf, template: raw}}\n" for k in range(2)))
    return config


def context_of(checks):
    return int(re.search(r"rows share (\d+) tokens", checks["context"]["text"]).group(1))


def test_memory():
    if len(sys.argv) < 6:
        print("ok    SKIP memory: this build has no libllama")
        return
    config = short_model(sys.argv[5])
    flags = (config, "--port=0", "--rows=128")
    wanted = 128 * 2048
    result, checks = doctor(*flags)
    report = json.loads(result.stdout)
    needs = report["ranks"][0]["needs"]
    cache, rest = needs["cache_bytes"], needs["total_bytes"] - needs["cache_bytes"]
    check(f"with memory all of the context, {cache >> 20} MB", context_of(checks) == wanted
          and checks["context"]["level"] == "ok", result)
    os.environ.update(SLURM_MEM_PER_NODE=str((rest + cache // 2) >> 20), SLURM_NTASKS="1")
    result, checks = doctor(*flags)
    shorter = context_of(checks)
    check(f"with half of it {shorter} tokens, and a warning", wanted / 8 < shorter < wanted / 1.5
          and checks["context"]["level"] == "warning" and result.returncode == 0, result)
    with Server(MPO, WORK, config, "--rows=128") as server:
        most = server.ask("/v1/mpo")["use"]["max_model_len"]
        with open(server.log_path, encoding="utf-8") as log:
            lines = [line for line in log if line.startswith("memory has room for")]
        found = int(lines[0].split()[4]) if lines else 0
        check(f"serve says so in a line: {found}", len(lines) == 1
              and abs(found - shorter) <= wanted / 8 and most <= found)
    result, checks = doctor(*flags, f"--context={wanted}")
    check("a context that is given is not changed", result.returncode == 71
          and checks["memory"]["level"] == "problem", result)
    del os.environ["SLURM_MEM_PER_NODE"], os.environ["SLURM_NTASKS"]


fresh()
run_tests(globals())
