# SPDX-License-Identifier: Apache-2.0
"""The demonstration `reviews`: what is fitted, what the rows of its table are, and the rewards.

Rows are in the order in which they are measured: what the comparison needs first comes first.
The averaged adapters are one policy with both adapters, whose scales are the exponents of the
mixture that they stand beside.
"""

from engine import Fit, Row
from figures import SHARED_COLUMNS, Objective
from rewards import rewards

TITLE = "Mean rewards on 32 held-out prompts"
OBJECTIVES = (Objective("sentiment", "sentiment"), Objective("concise", "concise"))
FIXED_SCALE = False
BASELINE = "equal weights"
LONG_AND_SHORT = ("sentiment", "concise")  # what long and short responses are rewarded by
TRAIN = "configs/reviews/prompts_train.txt"
HELDOUT = "configs/reviews/prompts_heldout.txt"
RESPONSES = 4  # of a block, to each prompt
# Columns of table.tsv, and their titles in the README where they are shown there.
COLUMNS = {
    "sentiment": "sentiment",
    "concise": "",
    "plain": "",
    "flesch": "",
    "sentiment_share": "",
    "concise_share": "",
    **SHARED_COLUMNS,
}

CONFIG = "configs/reviews.yaml"
# The same policies and the reference: for exponents that do not sum to 1, and for columns
# that need log pi_ref.
HOSTED = "results/reviews/hosted.yaml"
AVERAGED = "results/reviews/averaged.yaml"

SERVED = (
    "--estimator.target=served",
    "--rollout.proposal=mixture",
    "--descent.average=linear",
)

REWARD = (
    *SERVED,
    "--estimator.objective=reward",
    "--rewards.command=python3 results/measuring/answer.py reviews",
    "--rollout.responses=8",
    "--rewards.calibration=8",
)
STEPS = 24  # from there on the averaged weights stay within 0.01 (fits.tsv)

fit_served = Fit("served", CONFIG, STEPS, SERVED)
fit_served_15 = Fit("served 1.5", HOSTED, STEPS, (*SERVED, "--rollout.strength=1.5"))
fit_served_2 = Fit("served 2", HOSTED, STEPS, (*SERVED, "--rollout.strength=2"))
ADAPTERS = (*SERVED, "--rollout.mixture=adapters")
MIXTURE = "rollout.mixture"
fit_adapters = Fit("adapters", CONFIG, STEPS, ADAPTERS, needs=MIXTURE)
fit_adapters_15 = Fit(
    "adapters 1.5", HOSTED, STEPS, (*ADAPTERS, "--rollout.strength=1.5"), needs=MIXTURE
)
fit_adapters_2 = Fit(
    "adapters 2", HOSTED, STEPS, (*ADAPTERS, "--rollout.strength=2"), needs=MIXTURE
)
fit_published = Fit("published", "configs/reviews_published.yaml", STEPS)
fit_reward = Fit("reward", HOSTED, STEPS, REWARD, needs="rewards.command")
fit_reward_2 = Fit(
    "reward 2", HOSTED, STEPS, (*REWARD, "--rollout.strength=2"), needs="rewards.command"
)
FITS = (
    fit_served,
    fit_served_15,
    fit_served_2,
    fit_adapters,
    fit_adapters_15,
    fit_adapters_2,
    fit_published,
    fit_reward,
    fit_reward_2,
)


def averaged(name, scales="", shares=None, **more):
    flags = (f"--policies.averaged.lora_scale=[{scales}]",) if scales else ()
    return Row(
        name,
        AVERAGED,
        weights="averaged",
        flags=flags,
        shares=shares,
        policy="averaged",
        **more,
    )


def of_adapters(name, fit):
    """All adapters on one policy, at the scales that a fit found: one pass a token."""
    return Row(name, HOSTED, fit=fit, flags=("--rollout.mixture=adapters",), needs=MIXTURE)


def weights(share, strength, **more):
    """A point of the curve of weights."""
    flags = (f"--strength={strength}",) if strength != 1 else ()
    return Row(
        f"weight {share:g}" + (f", strength {strength:g}" if strength != 1 else ""),
        HOSTED,
        weights=f"{share:g},{1 - share:g}",
        flags=flags,
        passes=2 if strength == 1 else 3,
        curve=f"weights, strength {strength:g}",
        blocks=1,
        **more,
    )


SCALES = {"averaged (1/2, 1/2)": "0.5,0.5", "averaged (1, 1)": "1,1", "averaged (1.2, 0.9)": "1.2,0.9"}

ROWS = (
    Row("reference", HOSTED, weights="reference"),
    Row("sentiment", HOSTED, weights="sentiment", curve="weights, strength 1"),
    Row("concise", HOSTED, weights="concise", curve="weights, strength 1"),
    Row("equal weights", HOSTED, weights="uniform", passes=2, curve="weights, strength 1"),
    Row("served fit", HOSTED, fit=fit_served, passes=2),
    *(averaged(name, scales) for name, scales in SCALES.items()),
    Row("served fit, strength 2", HOSTED, fit=fit_served_2, passes=3),
    Row(
        "equal weights, strength 2",
        HOSTED,
        weights="uniform",
        flags=("--strength=2",),
        passes=3,
        curve="weights, strength 2",
    ),
    averaged("averaged, fitted shares", shares=fit_served),
    Row("served fit, strength 1.5", HOSTED, fit=fit_served_15, passes=3),
    of_adapters("served fit of adapters", fit_adapters),
    of_adapters("served fit of adapters, strength 1.5", fit_adapters_15),
    of_adapters("served fit of adapters, strength 2", fit_adapters_2),
    Row("published fit", HOSTED, fit=fit_published, passes=2),
    Row("reward fit", HOSTED, fit=fit_reward, passes=2),
    Row("reward fit, strength 2", HOSTED, fit=fit_reward_2, passes=3, curve="weights, strength 2"),
    *(
        averaged(f"{name}, end bias", scales, tuned=True, needs="end-bias")
        for name, scales in SCALES.items()
    ),
    averaged("averaged, fitted shares, end bias", shares=fit_served, tuned=True, needs="end-bias"),
    Row("published fit, best of 16", HOSTED, fit=fit_published, passes=2, candidates=16),
    *(weights(share, 1) for share in (0.3, 0.4, 0.6, 0.7)),
    *(weights(share, 2) for share in (0.4, 0.6, 0.7)),
)

# (what, forward passes a token, arguments): each without a reference that it does not need.
SPEEDS = (
    ("one policy", 1, (CONFIG, "--weights=sentiment")),
    ("mixture of logits", 2, (CONFIG, "--weights=uniform")),
    ("mixture of adapters", 1, (CONFIG, "--weights=uniform", "--rollout.mixture=adapters")),
    ("mixture of logits, strength 2", 3, (HOSTED, "--weights=uniform", "--strength=2")),
    (
        "mixture of adapters, strength 2",
        1,
        (HOSTED, "--weights=uniform", "--strength=2", "--rollout.mixture=adapters"),
    ),
)


def score(line):
    """Rewards of one line of `mpo generate`; the end token does not count as a token."""
    return rewards(line["response"], line["tokens"] - int(line["ended"]))
