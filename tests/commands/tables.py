# SPDX-License-Identifier: Apache-2.0
"""Bigram policies for the tests of the program: table files, the exact objective, mpo itself.

    Z_t(s) = sum_v prod_k pi_k(v|s)^l_k Z_{t+1}(v),    Z = 1 after the end token or at the cut
    F      = mean_x log Z_0(x)

The last token of a vocabulary ends a response; row V of a table is the start of a response.
Nothing here shares code with mpo.
"""

import argparse
import os
import shutil
import subprocess

import numpy as np

ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMP_WAIT_POLICY": "passive",
    "NO_COLOR": "1",
}


def token_names(vocab_size):
    """a, b, c, ... and </s> as the last."""
    return [chr(ord("a") + v) for v in range(vocab_size - 1)] + ["</s>"]


def random_tables(seed, policy_count, vocab_size, strength, end_logit=0.0):
    """Probabilities [K, V + 1, V]: softmax of normal logits, the end's shifted."""
    generator = np.random.Generator(np.random.Philox(seed))
    logits = strength * generator.standard_normal((policy_count, vocab_size + 1, vocab_size))
    logits[:, :, -1] += end_logit
    table = np.exp(logits - logits.max(axis=2, keepdims=True))
    return table / table.sum(axis=2, keepdims=True)


def log_softmax(logits):
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


def log_policies(table):
    """What mpo makes of a table: logits are floats, the softmax is in double."""
    return log_softmax(np.log(table).astype(np.float32).astype(np.float64))


def rounded_logits(table):
    """The logits under exchange.rows bf16: each less its row's greatest, to the nearest
    multiple of its place 8 binary digits down, ties to the even one."""
    logits = np.log(table).astype(np.float32)
    below = (logits - logits.max(axis=-1, keepdims=True)).astype(np.float64)
    place = np.exp2(np.frexp(below)[1] - 8.0)
    return np.rint(below / place) * place


def rounded_policies(table):
    return log_softmax(rounded_logits(table))


def write_table(path, table):
    names = token_names(table.shape[1])
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("# bigram probabilities of a test\nmpo-table 1\n")
        stream.write("tokens " + " ".join(names) + "\n")
        for state, name in enumerate(names + ["<s>"]):
            row = " ".join("%.17g" % p for p in table[state])
            stream.write("row %s %s\n" % (name, row))


class Exact:
    """The exact objective of policies [K, V + 1, V] for start states and a cut at L."""

    def __init__(self, log_policy, starts, max_tokens):
        self.log_policy = log_policy
        self.starts = np.array(starts)
        self.max_tokens = max_tokens

    def scores(self, weights, log_z):
        """log of prod_k pi_k(v|s)^l_k Z(v) for every state s and token v."""
        ahead = np.append(log_z[:self.log_policy.shape[2] - 1], 0.0)
        return np.tensordot(weights, self.log_policy, 1) + ahead

    def backward(self, weights):
        """log Z_t(s): [L + 1, V + 1]"""
        log_z = np.zeros((self.max_tokens + 1, self.log_policy.shape[1]))
        for t in range(self.max_tokens - 1, -1, -1):
            scores = self.scores(weights, log_z[t + 1])
            top = scores.max(axis=1)
            log_z[t] = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
        return log_z

    def value(self, weights):
        return self.backward(weights)[0][self.starts].mean()

    def gradient(self, weights):
        log_z = self.backward(weights)
        states = self.log_policy.shape[1]
        occupied = np.bincount(self.starts, minlength=states) / len(self.starts)
        total = np.zeros(len(weights))
        for t in range(self.max_tokens):
            chosen = np.exp(self.scores(weights, log_z[t + 1]) - log_z[t][:, None])
            mass = occupied[:, None] * chosen
            total += (mass * self.log_policy).sum(axis=(1, 2))
            occupied = np.append(mass.sum(axis=0), 0.0)
            occupied[-2] = 0.0  # the end token's state goes nowhere
        return total

    def served(self, exponents, end_bias=0.0):
        """(E_q log pi_k [K], KL(q || pi_k) [K]) of the token mixture that is drawn from, by a
        forward recursion over the probabilities of the states."""
        rows = proposal_rows(self.log_policy, exponents, end_bias)
        chosen = np.exp(rows)
        states = self.log_policy.shape[1]
        occupied = np.bincount(self.starts, minlength=states) / len(self.starts)
        scores = np.zeros(len(self.log_policy))
        entropy = 0.0
        for _ in range(self.max_tokens):
            mass = occupied[:, None] * chosen
            scores += (mass * self.log_policy).sum(axis=(1, 2))
            entropy -= (mass * rows).sum()
            occupied = np.append(mass.sum(axis=0), 0.0)
            occupied[-2] = 0.0  # the end token's state goes nowhere
        return scores, -entropy - scores

    def served_scores(self, weights, strength=1.0, scale=None):
        """E_q s_k [K] at weights; the last policy is a reference where there is a scale."""
        if scale is None:
            return self.served(weights)[0]
        scores, _ = self.served(exponents_of(weights, strength, scale))
        return scale * (scores[:-1] - scores[-1])

    def equaliser(self, start, strength=1.0, scale=None):
        """Weights at which all E_q s_k are equal, by Newton's method in their logarithms from a
        start; None where it does not come to a point inside the simplex."""
        def residual(log_ratio):
            weights = np.exp(np.append(log_ratio, 0.0))
            weights /= weights.sum()
            scores = self.served_scores(weights, strength, scale)
            return scores[:-1] - scores[-1], weights

        point = np.log(start[:-1] / start[-1])
        for _ in range(50):
            off, weights = residual(point)
            if np.abs(off).max() < 1e-10:
                return weights
            slope = np.empty((len(point), len(point)))
            for i in range(len(point)):
                ahead = point.copy()
                ahead[i] += 1e-6
                slope[:, i] = (residual(ahead)[0] - off) / 1e-6
            if np.linalg.cond(slope) > 1e12:
                return None
            move = np.linalg.solve(slope, -off)
            point = np.clip(point + move * min(1.0, 1.0 / np.abs(move).max()), -12.0, 12.0)
        return None

    def optimum(self):
        """(weights, F*): mass moves from the largest to the smallest gradient component as
        far as the derivative keeps its sign, until l.g - min g is below 1e-10."""
        count = len(self.log_policy)
        weights = np.full(count, 1.0 / count)
        for _ in range(1000):
            gradient = self.gradient(weights)
            if weights @ gradient - gradient.min() <= 1e-10:
                break
            best = int(np.argmin(gradient))
            worst = int(np.argmax(np.where(weights > 0.0, gradient, -np.inf)))
            weights = self.move(weights, worst, best)
        return weights, self.value(weights)

    def move(self, weights, worst, best, halvings=60):
        """Mass from the worst to the best, as far as the derivative keeps its sign."""
        total = weights[worst] + weights[best]
        low, high = weights[best], total
        for attempt in range(halvings):
            middle = total if attempt == 0 else 0.5 * (low + high)
            trial = weights.copy()
            trial[best], trial[worst] = middle, total - middle
            gradient = self.gradient(trial)
            if gradient[best] < gradient[worst]:
                low = middle
            else:
                high = middle
        weights = weights.copy()
        weights[best], weights[worst] = low, total - low
        return weights


def log_response(log_rows, start, tokens):
    """log-probability of a response [tokens] under rows [V + 1, V] from a start state."""
    states = np.concatenate(([start], tokens[:-1])).astype(int)
    return log_rows[states, tokens].sum()


def proposal_rows(log_policy, exponents, end_bias):
    """log q(v|s) of the tilted token mixture, for every state."""
    scores = np.tensordot(exponents, log_policy, 1)
    scores[:, -1] += end_bias
    return log_softmax(scores)


def exponents_of(weights, strength, scale):
    """mu [K + 1] of the objectives and the reference."""
    mu = strength * np.asarray(scale) * weights
    return np.append(mu, 1.0 - mu.sum())


def write_config(folder, tables, prompts, options, roles=None, names=None):
    """Tables, prompts and config.yaml in a folder; options: {section: {name: value}}."""
    os.makedirs(folder, exist_ok=True)
    names = names or ["policy%d" % k for k in range(len(tables))]
    lines = ["prompts: {file: prompts.txt}", "policies:"]
    for name, table, role in zip(names, tables, roles or ["objective"] * len(tables)):
        write_table(os.path.join(folder, name + ".table"), table)
        lines.append("  - {name: %s, model: %s.table, role: %s}" % (name, name, role))
    for section, values in options.items():
        text = ", ".join("%s: %s" % item for item in values.items())
        lines.append("%s: {%s}" % (section, text))
    with open(os.path.join(folder, "prompts.txt"), "w", encoding="utf-8") as stream:
        stream.write("\n".join(prompts) + "\n")
    path = os.path.join(folder, "config.yaml")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
    return path


def run(command, expect=0):
    """Run a program; its exit code must be the expected one. Returns (stdout, stderr)."""
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, check=False,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=1200)
    if done.returncode != expect:
        raise AssertionError("%s\nended with %d, expected %d\n%s%s" % (
            " ".join(command), done.returncode, expect, done.stdout, done.stderr))
    return done.stdout, done.stderr


def run_ranks(mpirun, ranks, command, expect=0):
    """The same under mpirun; one rank is started without it, as a user would."""
    if ranks == 1:
        return run(command, expect)
    return run([mpirun, "-n", str(ranks)] + command, expect)


HOST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support", "host.sh")


def run_hosts(mpirun, hosts, command, folder):
    """The same on hosts of our own making, "a:2,b:2" for two of two ranks each; the folder is
    for their shared memory."""
    ranks = sum(int(host.split(":")[1]) for host in hosts.split(","))
    options = ["--mca", "plm", "rsh", "--mca", "plm_rsh_agent", HOST,
               "--mca", "btl_tcp_if_include", "lo", "--mca", "oob_tcp_if_include", "lo"]
    return run(["env", "MPO_TEST_HOSTS=" + folder, mpirun, *options, "--host", hosts,
                "-n", str(ranks)] + command)


def check(condition, message):
    if not condition:
        raise AssertionError(message)


def fit_arguments(purpose, seeds):
    """The command line of a test of fits, MPO MPIRUN WORK [--seeds N]; WORK begins empty."""
    parser = argparse.ArgumentParser(description=purpose.splitlines()[0])
    parser.add_argument("mpo", type=os.path.abspath)
    parser.add_argument("mpirun")
    parser.add_argument("work", type=os.path.abspath)
    parser.add_argument("--seeds", type=int, default=seeds)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    return arguments


def run_cases(cases):
    """Run functions named like sentences; print each; the exit status counts failures."""
    failures = 0
    for case, arguments in cases:
        title = case.__name__.replace("_", " ")
        try:
            case(*arguments)
            print("ok    ", title, flush=True)
        except (AssertionError, subprocess.TimeoutExpired) as problem:
            failures += 1
            print("FAILED", title, "\n      ", problem, flush=True)
    return min(failures, 1)
