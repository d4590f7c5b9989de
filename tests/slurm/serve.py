#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""serve.sbatch on a real Slurm: a URL and a key of its own, requests drawn across two nodes, the
tunnel command, a signal before the time limit that requeues the job, and its end.

    serve.py MPO WORK
"""

import json
import os
import shutil
import stat
import sys
import urllib.error
import urllib.request

import cluster
import tables

QUESTION = {"prompt": "the film", "max_tokens": 6, "seed": 3}


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def ask(url, path, body=None, key=None):
    headers = {"Authorization": "Bearer " + key} if key else {}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url + path, data, headers=headers)
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.load(response)


def status_of(url, path, body, key=None):
    try:
        ask(url, path, body, key)
        return 200
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def a_server_drains_is_requeued_and_ends(slurm, work):
    config = os.path.join(cluster.SOURCE, "configs", "table.yaml")
    # The nodes of the tests are one machine, whose names resolve to nothing.
    serves(slurm, work, slurm.submit("serve.sbatch", config, "--address=127.0.0.1", options=[
        "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1", "--mem=0",
        "--chdir=" + work, "--output=" + os.path.join(work, "serve.log")]))


def a_script_that_launch_prints_serves(slurm, mpo, work):
    config = os.path.join(cluster.SOURCE, "configs", "table.yaml")
    printed, _ = slurm.run(mpo, "launch", config, "--serve", "--address=127.0.0.1", "--rows=4",
                           "--cpus-per-task=1")
    script = os.path.join(work, "job.sbatch")
    with open(script, "w", encoding="utf-8") as file:
        file.write(printed)
    serves(slurm, work, slurm.submit(script, options=[
        "--chdir=" + work, "--output=" + os.path.join(work, "serve.log")]))


def serves(slurm, work, job):
    url_file = os.path.join(work, "mpo-serve-%s.url" % job)
    key_file = os.path.join(work, "mpo-serve-%s.key" % job)
    cluster.until(lambda: os.path.exists(url_file), "the URL of job %s" % job)
    url, *models = read(url_file).splitlines()
    tables.check("mpo" in models and "policy/terse" in models, "models %s" % models)
    tables.check(stat.S_IMODE(os.stat(key_file).st_mode) == 0o600, "the key is its owner's alone")
    key = read(key_file).strip().split(":", 1)[1]
    tables.check(status_of(url, "/v1/completions", QUESTION) == 401, "no request without the key")
    first = ask(url, "/v1/completions", QUESTION, key)
    tables.check(len(first["choices"]) == 1, "an answer %s" % first)
    log = os.path.join(work, "serve.log")
    cluster.until(lambda: "ssh -N" in read(log), "a tunnel command in the log")
    os.remove(url_file)
    slurm.run("scancel", "--signal=USR1", "--batch", job)
    cluster.until(lambda: os.path.exists(url_file), "the URL after a requeue", 600)
    url = read(url_file).splitlines()[0]
    again = ask(url, "/v1/completions", QUESTION, key)
    tables.check(again["choices"] == first["choices"], "the same seed, the same answer: %s" % again)
    slurm.run("scancel", job)
    cluster.until(lambda: status_of(url, "/health", None) == 0, "the end of the server")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    mpo, work = sys.argv[1:]
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    with cluster.Cluster(mpo) as slurm:
        code = tables.run_cases([(a_server_drains_is_requeued_and_ends, [slurm, work]),
                                 (a_script_that_launch_prints_serves, [slurm, mpo, work])])
    sys.exit(code)


if __name__ == "__main__":
    main()
