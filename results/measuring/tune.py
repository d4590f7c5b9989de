# SPDX-License-Identifier: Apache-2.0
"""Choose the end bias of a row on training prompts: the one at which its two rewards are even.

Responses are drawn without a bias and with one of BIAS nat against the larger reward; between the
two the difference of the normalised rewards is taken as a straight line.
"""

import json

import figures
import numpy as np
from engine import Part

BIAS = 1.5  # nat
BIAS_MAX = 3.0


def tuned_bias(workspace, demo, row):
    """The end bias in nat, from a file if an earlier call left it."""
    path = workspace.bias_path(row)
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))["bias"]
    long, short = demo.LONG_AND_SHORT
    start = difference(workspace, demo, row, 0.0, long, short)
    other = BIAS if start > 0 else -BIAS
    end = difference(workspace, demo, row, other, long, short)
    bias = float(np.clip(other * start / (start - end), -BIAS_MAX, BIAS_MAX))
    found = {"bias": bias, "difference": {"0": start, str(other): end}}
    path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return bias


def difference(workspace, demo, row, bias, long, short):
    """Normalised reward that gains by length minus the one that loses, at an end bias."""
    named = {entry.name: entry for entry in demo.ROWS}
    extra = (f"--end-bias={bias:g}",) if bias else ()
    parts = {name: Part(named[name], prompts=demo.TRAIN) for name in ("reference", long, short)}
    parts["row"] = Part(row, prompts=demo.TRAIN, extra=extra)
    found = {}
    for name, part in parts.items():
        workspace.run_part(part)
        prompts, sums = figures.prompt_sums(workspace.lines([part]), demo.score, True)
        counts = np.ones((1, len(prompts)))
        found[name] = figures.means(sums, counts)
    figures.normalise(found, demo.OBJECTIVES)
    return float(found["row"][f"{long}_share"][0] - found["row"][f"{short}_share"][0])
