#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The adapter that `mpo export` writes, in a server that knows nothing of mpo.

    exported.py MPO MPIRUN WORK BIGRAM_GGUF_TOOL

llama-server with the model and the adapter gives the greedy text of `mpo generate` with the
record, and log-probabilities of the closed form (adapter_worlds.py). Skipped where neither
MPO_LLAMA_SERVER nor the path has a llama-server; tests/bench/serve.py says how to build one.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", folder) for folder in ("commands", "support")]

import numpy as np  # noqa: E402
import tables  # noqa: E402
from adapter_worlds import END, LIKELY, Arguments, Fitted  # noqa: E402
from server import hold_port, port_of  # noqa: E402
from waiting import PATIENCE_SECONDS  # noqa: E402

PROMPTS = "abcde"
MAX_TOKENS = 12
# Of a token's log-probability in a float32 model, as in tests/commands/adapters.py.
SCORE_BOUND = 1e-4


class LlamaServer:
    """with LlamaServer(PROGRAM, LOG, "-m", MODEL, ...) as server: server.ask({"prompt": [5]})"""

    def __init__(self, program, log, *flags):
        self.held = hold_port()
        self.address = "http://127.0.0.1:%d" % port_of(self.held)
        with open(log, "wb") as stream:
            self.process = subprocess.Popen(
                [program, *flags, "--port", str(port_of(self.held)), "-t", "1", "-c", "256", "-np",
                 "1", "--no-warmup"], stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT)

    def __enter__(self):
        deadline = time.time() + PATIENCE_SECONDS
        while time.time() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.address + "/health", timeout=5):
                    return self
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        self.__exit__()
        raise AssertionError("llama-server did not begin")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.held.close()

    def ask(self, question):
        request = urllib.request.Request(self.address + "/completion", json.dumps(question).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)


class Case(Fitted):
    """And what it was exported to."""

    def __init__(self, arguments):
        super().__init__(arguments)
        tables.run([self.mpo, "export", self.record, "--output", self.path("one.gguf")])

    def greedy(self):
        """Prompt -> tokens, by generate."""
        with open(self.path("letters.txt"), "w", encoding="utf-8") as stream:
            stream.write("\n".join(PROMPTS) + "\n")
        out, _ = tables.run([self.mpo, "generate", self.config, "--weights=" + self.record,
                             "--temperature=0", "--n=1", "--format=jsonl", "--quiet",
                             "--prompts.file=" + self.path("letters.txt")])
        return {line["prompt"]: line["token_ids"] for line in map(json.loads, out.splitlines())}


def greedy_text_is_that_of_generate(case, server):
    wanted = case.greedy()
    for prompt in PROMPTS:
        answer = server.ask({"prompt": [3 + ord(prompt)], "temperature": 0, "return_tokens": True,
                             "n_predict": MAX_TOKENS})
        tokens = [token for token in wanted[prompt] if token != END]
        found = [token for token in answer["tokens"] if token != END]
        tables.check(found == tokens and found, "after %s: %s, generate has %s"
                     % (prompt, found, tokens))


def probabilities_are_those_of_the_closed_form(case, server):
    furthest = 0.0
    for prompt in PROMPTS:
        answer = server.ask({"prompt": [3 + ord(prompt)], "temperature": 0, "n_predict": 1,
                             "n_probs": len(LIKELY)})
        top = answer["completion_probabilities"][0]["top_logprobs"]
        tables.check({one["id"] for one in top} == set(LIKELY), "%s" % top)
        furthest = max(furthest, *(abs(one["logprob"] - case.rows[3 + ord(prompt), one["id"]])
                                   for one in top))
    print("       off by %.1e at most" % furthest, flush=True)
    tables.check(np.isfinite(furthest) and furthest < SCORE_BOUND, "off by %g" % furthest)


def main():
    program = os.environ.get("MPO_LLAMA_SERVER") or shutil.which("llama-server")
    if program is None:
        print("SKIP: no llama-server in the path, and MPO_LLAMA_SERVER names none")
        sys.exit(77)
    case = Case(Arguments(*sys.argv[1:5]))
    with LlamaServer(program, case.path("llama.log"), "-m", case.path("base.gguf"), "--lora",
                     case.path("one.gguf")) as server:
        cases = [greedy_text_is_that_of_generate, probabilities_are_those_of_the_closed_form]
        status = tables.run_cases([(one, [case, server]) for one in cases])
    sys.exit(status)


if __name__ == "__main__":
    main()
