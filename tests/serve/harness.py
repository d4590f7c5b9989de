#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""lm-evaluation-harness, unmodified, against the server: every figure that it reports is that
of the closed form. Bigram policies, as tables (1e-6) and as GGUF models (1e-5 a token):

    log q(v|s) = sum_k l_k log pi_k(v|s) - log sum_u exp( sum_k l_k log pi_k(u|s) )

Its sums are those of a plain echo request to the last digit, and those of `mpo score`.

usage: harness.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER [BIGRAM_GGUF_TOOL]
"""
import json
import os
import re
import subprocess
import sys

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
from clients import need  # noqa: E402

need(sys.argv[1], "lm_eval", "numpy")
WORK_PATH = os.path.abspath(sys.argv[3])
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TQDM_DISABLE="1",
                  HF_HOME=WORK_PATH + ".cache", LMEVAL_LOG_LEVEL="ERROR")

import numpy as np  # noqa: E402
import tables  # noqa: E402
from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from person import MPO, WORK, check, fresh, run, run_tests, start  # noqa: E402
from server import Server  # noqa: E402

VOCAB, MAX_TOKENS, STOP = 6, 7, " d"
TABLE = tables.random_tables(21, 3, VOCAB, 1.0, end_logit=-1.0)
TASKS = ["mpo_choices", "mpo_rolling", "mpo_greedy"]
# model, its weights, batch_size, num_concurrent, whether prompts are sent as token ids
CASES = [
    ("mpo", [1 / 3, 1 / 3, 1 / 3], 1, 1, True),
    ("mpo@0.6:0.3:0.1", [0.6, 0.3, 0.1], 4, 1, True),
    ("mpo@policy0=0.2:policy2=0.8", [0.2, 0.0, 0.8], 1, 8, True),
    ("policy/policy1", [0.0, 1.0, 0.0], 4, 8, True),
    ("mpo@0.6:0.3:0.1", [0.6, 0.3, 0.1], 1, 1, False),
    ("policy/policy2", [0.0, 0.0, 1.0], 4, 8, False),
]


class World:
    """Texts as tokens, and log q of a bigram [states, V]."""

    def __init__(self, log_policy, encode, names):
        self.log_policy = log_policy
        self.encode = encode
        self.names = names

    def rows(self, weights):
        return tables.log_softmax(np.tensordot(weights, self.log_policy, 1))


def table_world():
    names = tables.token_names(VOCAB)
    states = [*names, "<s>"]
    return World(tables.log_policies(TABLE),
                 lambda text: [states.index(word) for word in text.split()],
                 [" " + name for name in names])


def write_tasks():
    dice = np.random.Generator(np.random.Philox(4))

    def words(count):
        return " ".join(dice.choice(list("abcde"), count))
    documents = [{"context": words(int(dice.integers(1, 9))),
                  "choices": [words(int(dice.integers(1, 6))) for _ in range(3)]
                  + list("abcde"),  # one of which may be the most probable
                  "label": 0} for _ in range(5)]
    data = os.path.join(WORK, "documents.jsonl")
    with open(data, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(document) + "\n" for document in documents)
    common = (f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
              "test_split: test\n")
    for name, text in (
            ("mpo_choices", 'output_type: multiple_choice\ndoc_to_text: "{{context}}"\n'
             'doc_to_choice: "{{choices}}"\ndoc_to_target: label\n'
             "metric_list: [{metric: acc}]\n"),
            ("mpo_rolling", 'output_type: loglikelihood_rolling\ndoc_to_text: ""\n'
             'doc_to_target: "{{context}}"\nmetric_list: [{metric: word_perplexity}]\n'),
            ("mpo_greedy", 'output_type: generate_until\ndoc_to_text: "{{context}}"\n'
             'doc_to_target: "a"\nmetric_list: [{metric: exact_match}]\n'
             f'generation_kwargs: {{until: ["{STOP}"], max_gen_toks: {MAX_TOKENS}, '
             'do_sample: false, temperature: 0.0}\n')):
        with open(os.path.join(WORK, name + ".yaml"), "w", encoding="utf-8") as file:
            file.write(f"task: {name}\n{common}{text}")


def evaluate(server, model, batch_size, concurrent, sends_ids):
    """{task: samples} of one run of the harness."""
    arguments = (f"model={model},base_url={server.address}/v1/completions,"
                 f"tokenizer_backend=remote,num_concurrent={concurrent},"
                 f"tokenized_requests={sends_ids},max_retries=1")
    found = simple_evaluate(
        model="local-completions", model_args=arguments, batch_size=batch_size, tasks=TASKS,
        task_manager=TaskManager(include_path=WORK, include_defaults=False),
        log_samples=True, bootstrap_iters=0)
    return found["samples"]


# ---- what is right ----

def likelihood(rows, before, tokens):
    """(sum of log q, whether each token is the most probable one)"""
    states = [*before[-1:], *tokens[:-1]]
    picked = rows[states, tokens]
    return picked.sum(), bool((rows[states].argmax(axis=1) == tokens).all())


def greedy_text(world, rows, state):
    """The most probable tokens up to the end, the cut or the stop text."""
    text = ""
    for _ in range(MAX_TOKENS):
        state = int(rows[state].argmax())
        if world.names[state].strip() == "</s>":
            break
        text += world.names[state]
        if STOP in text:
            return text[:text.index(STOP)]
    return text


def echoed(server, model, before, tokens):
    """The harness's sum of a plain request."""
    answer = server.ask("/v1/completions", {
        "model": model, "prompt": before + tokens, "temperature": 0, "max_tokens": 1,
        "logprobs": 1, "echo": True})
    return sum(answer["choices"][0]["logprobs"]["token_logprobs"][len(before):-1])


def compare_choices(server, world, case, samples):
    model, weights = case[:2]
    rows = world.rows(weights)
    worst, same, greedy, greedy_count = 0.0, True, True, 0
    for sample in samples:
        for pair, response in zip(sample["arguments"], sample["resps"]):
            context, choice = pair
            found, is_greedy = response[0]
            before, tokens = world.encode(context), world.encode(choice)
            exact, most_probable = likelihood(rows, before, tokens)
            worst = max(worst, abs(found - exact) / len(tokens))
            same = same and found == echoed(server, model, before, tokens)
            greedy = greedy and is_greedy == most_probable
            greedy_count += is_greedy
    return worst, same, greedy and (greedy_count > 0 or world.names[0] == "<unk>")


def compare(title, server, world, case, tolerance):
    model, weights, batch_size, concurrent, sends_ids = case
    name = (f"{title}, {model}, batch_size {batch_size}, num_concurrent {concurrent}, "
            + ("ids" if sends_ids else "strings"))
    samples = evaluate(server, model, batch_size, concurrent, sends_ids)
    worst, same, greedy = compare_choices(server, world, case, samples["mpo_choices"])
    check(f"{name}: log-likelihoods, {worst:.1e} a token", worst <= tolerance)
    check(f"{name}: is_greedy", greedy)
    check(f"{name}: sums of a plain request", same)
    rows = world.rows(weights)
    right = all(
        sample["resps"][0][0] == greedy_text(
            world, rows, world.encode(sample["arguments"][0][0])[-1])
        for sample in samples["mpo_greedy"])
    check(f"{name}: generate_until", right)
    special = server.ask("/tokenizer_info")
    prefix = world.encode(special["bos_token"] or special["eos_token"])
    worst = 0.0
    for sample in samples["mpo_rolling"]:
        tokens = world.encode(sample["arguments"][0][0])
        exact, _ = likelihood(rows, prefix, tokens)
        found = sample["resps"][0]
        found = found[0] if isinstance(found, (list, tuple)) else found
        worst = max(worst, abs(found - exact) / len(tokens))
    check(f"{name}: rolling, {worst:.1e} a token", worst <= tolerance)


def score(config, weights, pairs):
    """log_mixture of `mpo score`, of each (context, choice)."""
    path = os.path.join(WORK, "pairs.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": context, "response": choice.strip(),
                                    "ended": False}) + "\n" for context, choice in pairs)
    result = run("score", config, f"--input={path}", "--quiet",
                 "--weights=" + ",".join(map(str, weights)))
    check("score ends well", result.returncode == 0, result)
    return [json.loads(line)["log_mixture"] for line in result.stdout.splitlines()]


def compare_score(server, config):
    samples = evaluate(server, "mpo@0.6:0.3:0.1", 4, 8, True)["mpo_choices"]
    pairs = [tuple(pair) for sample in samples for pair in sample["arguments"]]
    found = [response[0][0] for sample in samples for response in sample["resps"]]
    scores = score(config, [0.6, 0.3, 0.1], pairs)
    worst = max(abs(a - b) for a, b in zip(found, scores))
    check(f"those of score, {worst:.1e}", len(found) == len(scores) == 40 and worst <= 1e-6)


def without_start(folder):
    """Tables whose prompts do not begin with a start token: strings are then the same tokens
    as ids, which the harness takes for granted."""
    for k in range(3):
        path = os.path.join(folder, f"policy{k}.table")
        with open(path, encoding="utf-8") as file:
            lines = [line for line in file if not line.startswith("row <s>")]
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(lines)


def test_tables():
    folder = os.path.join(WORK, "tables")
    config = tables.write_config(folder, TABLE, ["a"], {})
    write_tasks()
    world = table_world()
    with Server(MPO, WORK, config, "--rows=6") as server:
        compare("tables with a start", server, world, CASES[1], 1e-6)
        compare_score(server, config)
    without_start(folder)
    with Server(MPO, WORK, config, "--rows=6") as server:
        for case in CASES:
            compare("tables", server, world, case, 1e-6)


# ---- README ----

def test_readme():
    """The command line of README, of a task that is here."""
    config = tables.write_config(os.path.join(WORK, "readme"), TABLE, ["a"], {})
    write_tasks()
    with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
        line = re.search(r"^    (lm_eval (?:.*\\\n)*.*)$", file.read(), re.MULTILINE).group(1)
    with Server(MPO, WORK, config) as server:
        line = line.replace("arc_easy", f"mpo_choices --include_path {WORK}")
        line = line.replace("http://127.0.0.1:8080", server.address)
        folder = os.path.dirname(sys.executable)
        done = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, check=False,
            env={**os.environ, "PATH": folder + os.pathsep + os.environ["PATH"]})
    check("README's lm_eval", done.returncode == 0 and "|mpo_choices|" in done.stdout
          and "tokenizer_backend" in line, done)


# ---- models ----

SPACE, FIRST_BYTE, TOKENS = 259, 3, 260


def model_world(folder, tool):
    """Three bigram models of letters, and what they are."""
    letters = [FIRST_BYTE + ord(letter) for letter in "abcde"]
    dice = np.random.Generator(np.random.Philox(8))
    logits = dice.standard_normal((3, TOKENS, TOKENS)).astype(np.float32)
    logits[:, :, [2, SPACE, *letters]] += 5.0
    for k in range(3):
        path = os.path.join(folder, f"{k}.logits")
        logits[k].astype("<f4").tofile(path)
        result = start([tool, os.path.join(folder, f"{k}.gguf"), path])
        check(f"model {k}", result.returncode == 0, result)
    names = ["<unk>", "<s>", "</s>", *(chr(byte) for byte in range(256)), " "]

    def encode(text):
        if text in ("<s>", "</s>"):
            return [names.index(text)]
        return [SPACE if letter == " " else FIRST_BYTE + ord(letter) for letter in text]
    return World(tables.log_softmax(logits.astype(np.float64)), encode, names)


def test_models():
    tool = sys.argv[5] if len(sys.argv) > 5 else ""
    if not tool:
        print("ok    SKIP models: this build has no libllama")
        return
    folder = os.path.join(WORK, "models")
    os.makedirs(folder)
    world = model_world(folder, tool)
    write_tasks()
    config = os.path.join(folder, "config.yaml")
    with open(config, "w", encoding="utf-8") as file:
        file.write("prompts: {file: prompts.txt}\npolicies:\n" + "".join(
            f"  - {{name: policy{k}, model: {k}.gguf, template: raw}}\n" for k in range(3)))
    with open(os.path.join(folder, "prompts.txt"), "w", encoding="utf-8") as file:
        file.write("a\n")
    with Server(MPO, WORK, config, "--rows=6", "--context=3072") as server:
        for case in CASES:
            compare("models", server, world, case, 1e-5)


fresh()
run_tests(globals())
