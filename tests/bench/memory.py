#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Peak memory of one rank with one, two and three adapters of the same model.

    memory.py MPO ROOT

Policies on a rank that name one GGUF share one loaded model and have a context each, so the
peak grows by a context a policy, not by a model. Prints a table; the last column is the growth
from one policy to this many, in models.
"""

import os
import subprocess
import sys

MODEL = "build/deps/models/SmolLM2-135M-Instruct.Q4_1.gguf"
ADAPTERS = ("sentiment", "concise", "plain")


def peak_bytes(command):
    """Peak resident set of a child; a process of its own, since the kernel keeps a maximum."""
    code = ("import resource,subprocess,sys; subprocess.run(sys.argv[1:], check=True,"
            "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, text=True,
                          stdout=subprocess.PIPE)
    return 1024 * int(done.stdout)


def config(root, count):
    lines = ["prompts: {file: prompts.txt}", "policies:"]
    for name in ADAPTERS[:count]:
        lines.append(f"  - {{name: {name}, model: {root}/{MODEL}, "
                     f"lora: {root}/configs/reviews/{name}.gguf}}")
    lines.append("rollout: {max_tokens: 48}")
    return "\n".join(lines) + "\n"


def main():
    mpo, root = sys.argv[1], os.path.abspath(sys.argv[2])
    folder = os.path.join(root, "build", "bench")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "memory.yaml")
    model_bytes = os.path.getsize(os.path.join(root, MODEL))
    print("policies\tpeak MB\tgrowth in models")
    first = None
    for count in range(1, len(ADAPTERS) + 1):
        with open(path, "w", encoding="utf-8") as file:
            file.write(config(root, count))
        peak = peak_bytes([mpo, "generate", path, "--prompt", "The plot", "--n", "16",
                           "--run.threads=1"])
        first = first or peak
        print(f"{count}\t{peak / 1e6:.0f}\t{(peak - first) / model_bytes:.2f}")


if __name__ == "__main__":
    main()
