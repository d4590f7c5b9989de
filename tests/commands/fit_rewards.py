#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fits that balance rewards (estimator.objective: reward) against exact recursions.

    fit_rewards.py MPO MPIRUN WORK [--seeds N]

Bigram policies of six tokens and rewards that are sums over tokens (tests/support/rewards.py):
E_q r_k follows from a forward recursion, and the weights at which the normalised rewards are
equal from Newton's method. Seeds are fixed, so a run passes or fails for good.
"""

import json
import os
import subprocess
import sys

import h5py
import numpy as np

import tables

VOCAB = 6
MAX_TOKENS = 16
STARTS = (0, 1)
PROMPTS = ("a", "b")
STEPS = 62
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support", "rewards.py")

# Of the largest component of the weights, 62 steps of 16 responses, median over seeds.
NEAR_EQUALISER = 0.05
# Standard errors that an unbiased mean may be off.
Z_BOUND = 4.0


def log(message):
    print("      ", message, flush=True)


class World(tables.Exact):
    """Policies [K, V + 1, V], a reference as the last where there is one, and what each token
    is worth to each objective [K, V]; the end token is worth nothing."""

    def __init__(self, table, value, has_reference):
        super().__init__(tables.log_policies(table), STARTS, MAX_TOKENS)
        self.table = table
        self.value_of_token = value
        self.count = len(value)
        self.has_reference = has_reference
        alone = np.array([self.rewards(mu) for mu in np.eye(len(table))])
        self.one = np.diag(alone).copy()
        # the mean over the others: of uniform weights it would make them the equaliser
        self.zero = alone[-1] if has_reference else (alone.sum(axis=0) - self.one) / (
            self.count - 1)

    def rewards(self, exponents, end_bias=0.0):
        """E_q r_k [K] of the token mixture."""
        chosen = np.exp(tables.proposal_rows(self.log_policy, exponents, end_bias))
        states = self.log_policy.shape[1]
        occupied = np.bincount(self.starts, minlength=states) / len(self.starts)
        total = np.zeros(self.count)
        for _ in range(self.max_tokens):
            mass = (occupied[:, None] * chosen).sum(axis=0)
            total += self.value_of_token @ mass
            occupied = np.append(mass, 0.0)
            occupied[-2] = 0.0  # the end token's state goes nowhere
        return total

    def served_scores(self, weights, strength=1.0, scale=None):
        """Normalised rewards at weights."""
        exponents = weights
        if self.has_reference:
            exponents = tables.exponents_of(weights, strength, np.ones(self.count))
        return (self.rewards(exponents) - self.zero) / (self.one - self.zero)


def make_world(seed, count, has_reference):
    table = tables.random_tables(seed, count, VOCAB, 1.0)
    liked = np.log(table).mean(axis=1)
    value = np.round(liked - liked.mean(axis=0), 3)
    value[:, -1] = 0.0
    if has_reference:  # not the mean of the others: uniform weights would have its rewards
        generator = np.random.Generator(np.random.Philox(1000 + seed))
        mean = np.exp(np.log(table).mean(axis=0) +
                      0.7 * generator.standard_normal(table.shape[1:]))
        table = np.append(table, (mean / mean.sum(axis=1, keepdims=True))[None], axis=0)
    return World(table, value, has_reference)


def worlds(count, wanted, has_reference, strength=1.0):
    """Worlds in which each policy raises its own reward and all starts come to one equaliser,
    inside the simplex and away from equal weights."""
    found = []
    for seed in range(1, 400):
        world = make_world(seed, count, has_reference)
        if (world.one - world.zero).min() < 0.3:
            continue
        generator = np.random.Generator(np.random.Philox(seed))
        points = [world.equaliser(start, strength)
                  for start in generator.dirichlet(np.full(count, 3.0), 10)]
        if any(point is None for point in points):
            continue
        spread = max(np.abs(point - points[0]).max() for point in points)
        away = np.abs(points[0] - 1.0 / count).max()
        if spread < 1e-6 and points[0].min() > 0.05 and away > 0.02:
            found.append((world, points[0]))
        if len(found) == wanted:
            return found
    raise AssertionError("too few worlds have one equaliser")


def command(folder, world, *flags):
    """The reward program of a world, as rewards.command has it."""
    path = os.path.join(folder, "values.json")
    names = tables.token_names(VOCAB)[:-1]
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({"reward%d" % k: dict(zip(names, value))
                   for k, value in enumerate(world.value_of_token)}, stream)
    return " ".join(["exec", sys.executable, PROGRAM, path, *flags])


def prepare(folder, world, flags=(), given=True, objective="reward", **rollout):
    """A configuration of a world; zero and one are given as they are exactly, or measured."""
    os.makedirs(folder, exist_ok=True)
    roles = ["objective"] * world.count + ["reference"] * world.has_reference
    config = tables.write_config(folder, world.table, PROMPTS, {
        "rollout": {"responses": 16, "max_tokens": MAX_TOKENS, **rollout},
        "estimator": {"target": "served", "objective": objective},
        "rewards": {"command": json.dumps(command(folder, world, *flags)), "deadline": 60},
        "descent": {"steps": STEPS, "average": "linear"},
        "record": {"hash_models": "false"}}, roles=roles)
    more = ["--policies.policy%d.reward=reward%d" % (k, k) for k in range(world.count)]
    for k in range(world.count if given else 0):
        more += ["--policies.policy%d.reward_zero=%.17g" % (k, world.zero[k]),
                 "--policies.policy%d.reward_one=%.17g" % (k, world.one[k])]
    return config, more


def fit(arguments, config, more, seed, *flags):
    record = os.path.join(os.path.dirname(config), "seed%d.h5" % seed)
    tables.run([arguments.mpo, "fit", config, "--run.seed=%d" % seed, "--quiet", "--force",
                "--record.file=" + record, *more, *flags])
    return record


def fits_come_close_to_the_exact_equaliser(arguments):
    cases = [(2, False, 1.0), (3, False, 1.0), (2, True, 1.0), (3, True, 1.5)]
    for number, (count, has_reference, strength) in enumerate(cases):
        world, equaliser = worlds(count, 1, has_reference, strength)[0]
        folder = os.path.join(arguments.work, "world%d" % number)
        config, more = prepare(folder, world, strength=strength)
        off = []
        for seed in range(1, arguments.seeds + 1):
            with h5py.File(fit(arguments, config, more, seed), "r") as record:
                off.append(np.abs(record["average"][-1] - equaliser).max())
        log("K = %d, A = %g, at %s: median %.3f, worst %.3f off; uniform weights %.3f" % (
            count, strength, np.round(equaliser, 3), np.median(off), max(off),
            np.abs(equaliser - 1.0 / count).max()))
        scores = world.served_scores(equaliser, strength)
        tables.check(np.ptp(scores) < 1e-8, "no equaliser: %s" % scores)
        tables.check(np.median(off) <= NEAR_EQUALISER, "median %g" % np.median(off))


def rewards_and_gradient_are_those_of_what_is_drawn(arguments):
    """At weights that hardly move: means over 400 steps within Z_BOUND standard errors; the
    control variate is 0 at first, and lowers the variance later."""
    world = worlds(3, 1, False)[0][0]
    initial = np.array([0.2, 0.5, 0.3])
    folder = os.path.join(arguments.work, "held")
    config, more = prepare(folder, world)
    truth = {"rewards": world.rewards(initial), "gradient": world.served_scores(initial)}
    variance = []
    for control in ("0", "auto"):
        path = fit(arguments, config, more, 1, "--descent.steps=400",
                   "--descent.step_rule=fixed", "--descent.step_constant=1e-9",
                   "--descent.initial=0.2,0.5,0.3", "--rollout.control=" + control)
        with h5py.File(path, "r") as record:
            data = {name: record[name][()] for name in (*truth, "state/coefficient")}
            units = record["gradient"].attrs["units"], record["control"].attrs["units"]
        tables.check(units == ("1", "nat"), "units %s" % (units,))
        for name, exact in truth.items():
            values = data[name]
            error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
            z = np.abs((values.mean(axis=0) - exact) / error).max()
            log("%s, control %s: %s, exactly %s, z %.1f" % (
                name, control, np.round(values.mean(axis=0), 3), np.round(exact, 3), z))
            tables.check(z < Z_BOUND, "/%s is %g standard errors off" % (name, z))
        coefficient = data["state/coefficient"]
        tables.check((coefficient[:3] == 0.0).all(), "c is not 0 at first")
        tables.check((coefficient[3:] != 0.0).all() == (control == "auto"), "c is not learnt")
        centred = data["gradient"][3:] - data["gradient"][3:].mean(axis=1, keepdims=True)
        variance.append(centred.var(axis=0, ddof=1).sum())
    log("variance without the control variate over with: %.2f" % (variance[0] / variance[1]))
    tables.check(variance[0] > 1.15 * variance[1], "variance %s" % variance)


def the_scale_is_measured_at_the_start(arguments):
    for has_reference in (False, True):
        world = worlds(2, 1, has_reference)[0][0]
        folder = os.path.join(arguments.work, "scale%d" % has_reference)
        config, more = prepare(folder, world, given=False)
        path = fit(arguments, config, more, 1, "--rewards.calibration=100",
                   "--descent.steps=2", "--policies.policy1.reward_zero=-1")
        with h5py.File(path, "r") as record:
            zero, one, zero_error, one_error = (record["reward_" + name][()] for name in (
                "zero", "one", "zero_error", "one_error"))
            attributes = dict(record.attrs)
        tables.check(attributes["objective"] == "reward" and attributes["reward_zero_of"] == (
            "reference" if has_reference else "others"), attributes)
        tables.check(zero[1] == -1.0 and np.isnan(zero_error[1]), "a given zero was measured")
        z = np.abs(np.append((one - world.one) / one_error,
                             (zero[0] - world.zero[0]) / zero_error[0]))
        log("zero %s, one %s, exactly %s, %s, z %s" % (
            zero, one, world.zero, world.one, np.round(z, 1)))
        tables.check(z.max() < Z_BOUND, "z %s" % z)


def a_measured_scale_without_a_reference_has_the_exact_equaliser(arguments):
    """Zero is the mean over the other policies, so uniform weights are not balanced by construction:
    K = 3, all of the scale within Z_BOUND standard errors, and fits near the equaliser of the exact
    scale, which is away from them."""
    world, equaliser = max(worlds(3, 4, False), key=lambda found: np.abs(found[1] - 1 / 3).max())
    folder = os.path.join(arguments.work, "measured")
    config, more = prepare(folder, world, given=False)
    off = []
    for seed in range(1, arguments.seeds + 1):
        path = fit(arguments, config, more, seed, "--rewards.calibration=200", "--descent.steps=150")
        with h5py.File(path, "r") as record:
            off.append(np.abs(record["average"][-1] - equaliser).max())
            z = [np.abs((record["reward_" + name][()] - exact) /
                        record["reward_%s_error" % name][()]).max()
                 for name, exact in (("zero", world.zero), ("one", world.one))]
        tables.check(max(z) < Z_BOUND, "z %s" % z)
    away = np.abs(equaliser - 1.0 / 3.0).max()
    log("at %s: median %.3f, worst %.3f off; uniform weights %.3f" % (
        np.round(equaliser, 3), np.median(off), max(off), away))
    tables.check(away > 2 * NEAR_EQUALISER, "uniform weights are near")
    tables.check(np.median(off) <= NEAR_EQUALISER, "median %g" % np.median(off))


def a_zero_that_nothing_says_is_asked_for(arguments):
    world = worlds(2, 1, False)[0][0]
    folder = os.path.join(arguments.work, "one")
    config, more = prepare(folder, world, given=False)
    with open(config, encoding="utf-8") as stream:
        lines = [line for line in stream if "name: policy1" not in line]
    with open(config, "w", encoding="utf-8") as stream:
        stream.writelines(lines)
    _, said = tables.run([arguments.mpo, "fit", config, "--quiet", more[0]], expect=78)
    tables.check("policies.policy0.reward_zero" in said and "role: reference" in said, said)
    tables.run([arguments.mpo, "fit", config, "--quiet", more[0], "--policies.policy0.reward_zero=-99",
                "--descent.steps=2"])


def a_reward_that_its_policy_does_not_raise_is_refused(arguments):
    world = worlds(2, 1, False)[0][0]
    world.value_of_token[1] *= -1.0
    folder = os.path.join(arguments.work, "fallen")
    config, more = prepare(folder, world, given=False)
    for ranks in (1, 2):
        _, said = tables.run_ranks(arguments.mpirun, ranks, [
            arguments.mpo, "fit", config, "--quiet", *more], expect=65)
        tables.check("'policy1'" in said and "two standard errors" in said
                     and said.count("mpo: ") == 1, said)
    tables.check(not os.path.exists(os.path.join(folder, "mpo.h5")), "a record was left")


def a_reward_that_falls_with_its_weight_ends_at_a_vertex(arguments):
    world = worlds(2, 1, False)[0][0]
    folder = os.path.join(arguments.work, "vertex")
    world.value_of_token[0] *= -1.0
    config, more = prepare(folder, world, given=False)
    flags = ["--policies.policy%d.reward_%s=%g" % (k, name, value) for k, name, value in (
        (0, "zero", 3.0), (0, "one", 4.0), (1, "zero", 0.0), (1, "one", 1.0))]
    _, said = tables.run([arguments.mpo, "fit", config, *more, *flags, "--descent.steps=200"])
    tables.check("vertex" in said and "'policy0'" in said, said)


def without_the_objective_rewards_are_recorded_beside(arguments):
    world = worlds(2, 1, False)[0][0]
    folder = os.path.join(arguments.work, "beside")
    config, more = prepare(folder, world, given=False, objective="likelihood")
    path = fit(arguments, config, more, 1)
    plain = os.path.join(folder, "plain.h5")
    out, said = tables.run([arguments.mpo, "fit", config, "--rewards.command=",
                            "--record.file=" + plain])
    tables.check("reward " not in out + said, "rewards without a program are shown")
    out, said = tables.run([arguments.mpo, "fit", config, *more, "--force",
                            "--record.file=" + path])
    tables.check("reward, mean over steps" in out and said.count("  reward ") == STEPS, said)
    with h5py.File(path, "r") as with_rewards, h5py.File(plain, "r") as without:
        for name in ("weights", "gradient", "average", "responses/token", "value"):
            tables.check(with_rewards[name][()].tobytes() == without[name][()].tobytes(),
                         "/%s is another because of rewards" % name)
            tables.check(with_rewards["gradient"].attrs["units"] == "nat", "units")
        tables.check("rewards" not in without and "reward" not in without["responses"]
                     and "reward_one" not in without, "rewards without a program")
        reward = with_rewards["responses/reward"][()].reshape(STEPS, 16, 2)
        mean = with_rewards["rewards"][()]
        tables.check(np.isnan(with_rewards["reward_one"][()]).all(), "a scale nobody measured")
        text = bytes(with_rewards["responses/text"][()]).decode()
        offset, length = (with_rewards["responses/text_" + name][()] for name in (
            "offset", "bytes"))
    tables.check(np.abs(reward.mean(axis=1) - mean).max() < 1e-12, "/rewards is no mean")
    values = {name: world.value_of_token[:, v]
              for v, name in enumerate(tables.token_names(VOCAB))}
    for i, row in enumerate(reward.reshape(-1, 2)):
        words = text[offset[i]:offset[i] + length[i]].split()
        truth = sum((values[word] for word in words), np.zeros(2))
        tables.check(np.abs(row - truth).max() < 1e-12, "response %d has another's reward" % i)


SAME = ("responses/token", "responses/reward", "weights", "gradient", "average", "dual",
        "rewards", "averaged_gap", "control", "state/coefficient", "reward_zero", "reward_one",
        "reward_zero_error", "reward_one_error")


def compare(path, other, what):
    with h5py.File(path, "r") as one, h5py.File(other, "r") as two:
        for name in SAME:
            tables.check(one[name][()].tobytes() == two[name][()].tobytes(),
                         "/%s %s" % (name, what))


def any_number_of_ranks_and_a_resumed_fit_give_the_same_bytes(arguments):
    world = worlds(3, 1, True, 1.5)[0][0]
    folder = os.path.join(arguments.work, "same")
    config, more = prepare(folder, world, ("--batch",), given=False, strength=1.5,
                           prompts_per_step=2)
    more += ["--descent.steps=20", "--quiet", "--rewards.calibration=15"]
    whole = os.path.join(folder, "1.h5")
    for ranks in (1, 2, 3):
        path = os.path.join(folder, "%d.h5" % ranks)
        tables.run_ranks(arguments.mpirun, ranks, [arguments.mpo, "fit", config, *more,
                                                   "--record.file=" + path])
        compare(whole, path, "on %d ranks" % ranks)
    parts = os.path.join(folder, "parts.h5")
    output = []
    for flags in (["--descent.steps=7"], ["--resume"]):
        output.append(tables.run([arguments.mpo, "fit", config, *more, "--json", *flags,
                                  "--record.file=" + parts])[0])
    compare(whole, parts, "of a resumed fit")
    out, _ = tables.run([arguments.mpo, "fit", config, *more, "--json", "--force",
                         "--record.file=" + whole])
    tables.check(json.loads(out)["rewards"] == json.loads(output[1])["rewards"],
                 "the summary of a resumed fit is another")


def the_example_program_answers(arguments):
    """configs/reviews/rewards.py, with requests as the program makes them."""
    folder = os.path.dirname(os.path.abspath(__file__))
    program = os.path.join(folder, "..", "..", "configs", "reviews", "rewards.py")
    requests = [{"id": 7 + i, "prompt": "x", "prefill": "The film", "response": text,
                 "token_count": i, "left": 2 - i}
                for i, text in enumerate(("", "is a JOY, wonderful", "was dull."))]
    done = subprocess.run([sys.executable, program], input="".join(
        json.dumps(request) + "\n" for request in requests), capture_output=True, text=True,
        check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    tables.check([answer["id"] for answer in answers] == [7, 8, 9], done.stdout)
    tables.check([answer["concise"] for answer in answers] == [0, -1, -2], done.stdout)
    tables.check(answers[0]["sentiment"] == 0.0 < answers[1]["sentiment"] < 1.0
                 and -1.0 < answers[2]["sentiment"] < 0.0, done.stdout)


def main():
    arguments = tables.fit_arguments(__doc__, 20)
    cases = [rewards_and_gradient_are_those_of_what_is_drawn,
             fits_come_close_to_the_exact_equaliser,
             the_scale_is_measured_at_the_start,
             a_measured_scale_without_a_reference_has_the_exact_equaliser,
             a_zero_that_nothing_says_is_asked_for,
             a_reward_that_its_policy_does_not_raise_is_refused,
             a_reward_that_falls_with_its_weight_ends_at_a_vertex,
             without_the_objective_rewards_are_recorded_beside,
             the_example_program_answers,
             any_number_of_ranks_and_a_resumed_fit_give_the_same_bytes]
    return tables.run_cases((case, (arguments,)) for case in cases)


if __name__ == "__main__":
    sys.exit(main())
