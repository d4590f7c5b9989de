# SPDX-License-Identifier: Apache-2.0
"""The demonstration `requests`: four requests to one model, and what can be counted of each.

No adapters, so nothing can be averaged but the distributions; the rival is one prompt with all
four requests.
"""

import re
from pathlib import Path

from engine import Fit, Row
from figures import SHARED_COLUMNS, Objective
from rewards import sentiment

TITLE = "Mean counts on 32 held-out prompts"
OBJECTIVES = tuple(Objective(name, name) for name in ("brief", "excited", "warm", "personal"))
FIXED_SCALE = True  # VADER of `warm` is little above that of the reference
BASELINE = "equal weights"
TRAIN = "configs/reviews/prompts_train.txt"
HELDOUT = "configs/reviews/prompts_heldout.txt"
RESPONSES = 2  # of a block, to each prompt

# Columns of table.tsv, and their titles in the README where they are shown there.
COLUMNS = {
    "brief": "",
    "excited": "with `!`",
    "warm": "VADER",
    "personal": "I, me, my, we in 10 words",
    "brief_share": "",
    "excited_share": "",
    "warm_share": "",
    "personal_share": "",
    **SHARED_COLUMNS,
}

CONFIG = "configs/requests.yaml"
HOSTED = "results/requests/hosted.yaml"
TOGETHER = "results/requests/together.yaml"
FEWER = "--rollout.responses=8"
SERVED = ("--estimator.target=served", "--descent.average=linear", FEWER)
REWARD = (
    *SERVED,
    "--estimator.objective=reward",
    "--rewards.command=python3 results/measuring/answer.py requests",
    "--rewards.calibration=8",
)

fit_served = Fit("served", CONFIG, 24, SERVED, seeds=(1, 2))
fit_served_2 = Fit("served 2", HOSTED, 24, (*SERVED, "--rollout.strength=2"), seeds=(1,))
fit_reward = Fit("reward", HOSTED, 24, REWARD, seeds=(1,), needs="rewards.command")
FITS = (fit_served, fit_served_2, fit_reward)

REQUESTS = Path(__file__).resolve().parents[2] / CONFIG


def alone(name):
    """One policy and the reference, in the place of the one prompt with all requests."""
    entry = REQUESTS.read_text(encoding="utf-8").split(f"- name: {name}\n")[1]
    texts = {key: re.search(rf'{key}: "(.*)"', entry)[1] for key in ("system", "request")}
    flags = tuple(f"--policies.together.{key}={text}" for key, text in texts.items())
    return Row(name, TOGETHER, weights="together", flags=flags)


ROWS = (
    Row("reference", TOGETHER, weights="reference"),
    *(alone(objective.name) for objective in OBJECTIVES),
    Row("equal weights", HOSTED, weights="uniform", passes=4),
    Row("served fit", HOSTED, fit=fit_served, passes=4),
    Row("one prompt with all requests", TOGETHER, weights="together"),
    Row("served fit, strength 2", HOSTED, fit=fit_served_2, passes=5),
    Row(
        "equal weights, strength 2",
        HOSTED,
        weights="uniform",
        flags=("--strength=2",),
        passes=5,
    ),
    Row("reward fit", HOSTED, fit=fit_reward, passes=4),
)

# (what, forward passes a token, arguments)
SPEEDS = (
    ("one policy", 1, (CONFIG, "--weights=personal")),
    ("mixture of four", 4, (CONFIG, "--weights=uniform")),
)

FIRST_PERSON = re.compile(r"\b(?:I|me|my|My|we|We)\b")


def score(line):
    """Counts in one line of `mpo generate`."""
    text = line["response"]
    return {
        "brief": -float(line["tokens"] - int(line["ended"])),
        "excited": float("!" in text),
        "warm": sentiment(text, 0),
        "personal": 10 * len(FIRST_PERSON.findall(text)) / max(1, len(text.split())),
    }
