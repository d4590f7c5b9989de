#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""serve of a record fitted with rollout.mixture: adapters: each model of the server is one policy,
the base with all adapters at scales of its own, whose law is known in closed form
(tests/commands/adapter_worlds.py).

usage: presets.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER BIGRAM_GGUF_TOOL
"""
import json
import os
import shutil
import sys
import urllib.error
from concurrent.futures import ThreadPoolExecutor

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
import numpy as np  # noqa: E402
import tables  # noqa: E402
from adapter_worlds import END, LIKELY, Arguments, Fitted, fit  # noqa: E402
from adapters import damage  # noqa: E402
from browser import programs  # noqa: E402
from person import MPIEXEC, MPO, check, run, run_tests, says_once  # noqa: E402
from server import Job, Server  # noqa: E402

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
SAID = [{"role": "user", "content": "a"}]
# Of a token's log-probability in a float32 model, as in tests/commands/adapters.py.
SCORE_BOUND = 1e-4
# Of chi-square with 6 degrees of freedom: exceeded once in 6e4 tables.
CHI_SQUARE_BOUND = 30.0

ARGUMENTS = Arguments(*sys.argv[1:4], sys.argv[5])
CASE = Fitted(ARGUMENTS)
WORK = CASE.folder
OTHER = CASE.path("other.h5")  # another record of the same policies, of another strength
OTHER_WEIGHTS = fit(ARGUMENTS, CASE.config, OTHER, "--descent.steps=2", "--run.seed=8",
                    "--rollout.strength=0.7")["average"][-1]
FLAGS = ("--weights=" + CASE.record,
         f"--presets=even=uniform;one=p1;kind=0.2,0.5,0.3;base=base;other={OTHER}", "--rows=16",
         "--context=8192", "--isolated", "--rollout.strength=1.2",
         "--log-requests=false", "--run.threads=1")
# Model -> scales of the adapters: of weights in numbers at the strength of the configuration.
SCALES = {"mpo": CASE.scales, "mpo:average": CASE.scales, "mpo:untilted": CASE.scales,
          "mpo:even": np.full(3, 1.2 / 3), "mpo:one": np.array([0.0, 1.0, 0.0]),
          "mpo:kind": 1.2 * np.array([0.2, 0.5, 0.3]), "mpo:base": np.zeros(3),
          "mpo:other": 0.7 * OTHER_WEIGHTS}


def rows_of(model):
    return CASE.world.log_rows(SCALES[model])


def refusal(server, path, body):
    """(status, code, param, message)"""
    try:
        server.ask(path, body)
    except urllib.error.HTTPError as error:
        said = json.load(error)["error"]
        return error.code, said["code"], said["param"], said["message"]
    return 200, None, None, ""


def furthest(server, model, seed):
    """How far figures of a given text, token by token, are from the closed form."""
    draw = np.random.Generator(np.random.Philox(seed))
    token = [int(one) for one in draw.choice(LIKELY[:-1], 40)]
    answer = server.ask(COMPLETION, {"model": model, "prompt": token, "echo": True,
                                     "logprobs": 1, "max_tokens": 0})
    found = answer["choices"][0]["logprobs"]["token_logprobs"]
    rows = rows_of(model)
    return max(abs(said - rows[state, following])
               for said, state, following in zip(found[1:], token, token[1:]))


def test_list():
    with Server(MPO, WORK, CASE.config, *FLAGS) as server:
        found = {model["id"]: model["mpo"] for model in server.ask("/v1/models")["data"]}
        check(f"models are presets {list(found)}", list(found) == list(SCALES))
        names = ["p0", "p1", "p2"]
        for model, mpo in found.items():
            said = [mpo["weights"][name] * mpo["strength"] for name in names]
            check(f"{model} has its weights {mpo}", np.allclose(said, SCALES[model])
                  and mpo["policy"] is None)
        state = server.ask("/v1/mpo")
        check("what is mixed is told", state["mixture"] == "adapters" and [
            policy["name"] for policy in state["policies"]] == [*names, "base"])
        with server.open("/metrics") as response:
            text = response.read().decode()
        labels = [f'policy="{name}"' for name in SCALES if name not in ("mpo:average", "mpo:untilted")]
        lines = [line for line in text.splitlines() if line.startswith("mpo:kv_cache_usage_perc{")]
        check(f"each has a cache, and those of the same weights one {lines}", len(lines) == 6
              and all(label in line for label, line in zip(labels, lines)))
        schemas = server.ask("/openapi.json")["components"]["schemas"]
        fields = set().union(*(schema.get("properties", {}) for schema in schemas.values()))
        check("/openapi.json has no field that is refused", "seed" in fields
              and not fields & {"weights", "strength", "policy_scores", "best_of"})
        check("the tokenizer is told", server.ask("/tokenizer_info")["vocab_size"] == 260)


def test_figures_are_those_of_the_closed_form():
    with Server(MPO, WORK, CASE.config, *FLAGS) as server, ThreadPoolExecutor(8) as pool:
        asked = [(model, seed) for seed in range(3) for model in SCALES]
        found = list(pool.map(lambda one: furthest(server, *one), asked))
        for model in SCALES:
            off = max(far for (name, _), far in zip(asked, found) if name == model)
            check(f"{model} is off by {off:.1e}", off < SCORE_BOUND)
        body = {"model": "mpo:kind", "prompt": [LIKELY[0]], "max_tokens": 1, "logprobs": 6,
                "end_bias": 1.5}
        top = server.ask(COMPLETION, body)["choices"][0]["logprobs"]["top_logprobs"][0]
        rows = rows_of("mpo:kind")[LIKELY[0]].copy()
        rows[END] += 1.5
        rows -= np.log(np.exp(rows).sum())
        off = np.abs(np.sort(rows[LIKELY])[::-1] - sorted(top.values(), reverse=True)[:6]).max()
        check(f"a tilt of the request is off by {off:.1e}", off < SCORE_BOUND)
        echo = server.ask(COMPLETION, {"prompt": "", "echo": True, "max_tokens": 0})
        check("an empty text is echoed", echo["choices"][0]["text"] == "")


def test_draws_have_their_frequencies():
    """Rows of several presets in the same steps."""
    models = ["mpo", "mpo:even", "mpo:one", "mpo:base"]
    with Server(MPO, WORK, CASE.config, *FLAGS) as server, ThreadPoolExecutor(4) as pool:
        def count(model):
            drawn = np.zeros(len(LIKELY) + 1)  # the last: all others
            for seed in range(40):
                answer = server.ask(COMPLETION, {
                    "model": model, "prompt": [LIKELY[1]], "n": 4, "max_tokens": 1,
                    "seed": 1000 * models.index(model) + seed, "logprobs": 0})
                for choice in answer["choices"]:
                    ended = choice["stop_reason"] is not None
                    token = END if ended else 3 + (choice["text"].encode() or b"?")[0]
                    drawn[LIKELY.index(token) if token in LIKELY else -1] += 1
            return drawn

        for model, drawn in zip(models, pool.map(count, models)):
            share = np.exp(rows_of(model)[LIKELY[1], LIKELY])
            wanted = 160 * np.append(share, 1.0 - share.sum())
            square = ((drawn - wanted) ** 2 / wanted).sum()
            check(f"{model}: chi-square {square:.1f}", square < CHI_SQUARE_BOUND)


def generated(model, seed):
    """(text, log q) of what generate draws."""
    weights = {"mpo": CASE.record, "mpo:even": "uniform", "mpo:one": "p1",
               "mpo:kind": "0.2,0.5,0.3"}[model]
    result = run("generate", CASE.config, "--prompt=a", "--n=4", "--format=jsonl", "--quiet",
                 f"--weights={weights}", f"--run.seed={seed}", "--run.threads=1",
                 "--rollout.strength=1.2" if model != "mpo" else "--rollout.strength=1.4")
    check(f"generate {weights}", result.returncode == 0, result)
    return [(line["response"], line["log_mixture"])
            for line in map(json.loads, result.stdout.splitlines())]


def served(server, model, seed):
    answer = server.ask(CHAT, {"model": model, "messages": SAID, "n": 4, "max_tokens": 12,
                               "seed": seed, "isolated": True, "logprobs": True})
    drawn = []
    for choice in answer["choices"]:
        log_q = 0.0
        for entry in choice["logprobs"]["content"]:
            log_q += entry["logprob"]
        drawn.append((choice["message"]["content"], log_q))
    return drawn


def test_isolated_requests_are_generate():
    with Server(MPO, WORK, CASE.config, *FLAGS) as server:
        for model in ("mpo", "mpo:even", "mpo:one", "mpo:kind"):
            for seed in (5, 6):
                found, wanted = served(server, model, seed), generated(model, seed)
                check(f"{model} with seed {seed} {found[:1]}", len(found) == 4 and found == wanted)
        answer = server.ask(CHAT, {"messages": SAID, "max_tokens": 3})
        told = answer["mpo"]
        check(f"an answer tells what it is of {told}", told["prompt_tokens"].keys() == {"mpo"}
              and told["strength"] == CASE.STRENGTH
              and np.allclose(list(told["weights"].values()), CASE.weights))


def test_groups_are_replicas():
    with Job((MPO, MPIEXEC), WORK, CASE.config, 2, *FLAGS) as server:
        check("two ranks are two groups", server.ask("/v1/mpo")["groups"] == 2)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda seed: served(server, "mpo:even", seed), [5, 6, 5, 6]))
        wanted = [generated("mpo:even", seed) for seed in (5, 6)]
        check("either answers as one rank", found == wanted + wanted)
        off = furthest(server, "mpo:one", 1)
        check(f"and has the scales, off by {off:.1e}", off < SCORE_BOUND)


def test_what_needs_the_policies_is_refused():
    with Server(MPO, WORK, CASE.config, *FLAGS) as server:
        for code, param, words, body in (
                ("invalid_weights", "weights", ["mpo:kind", "--presets"], {"weights": [0.2, 0.5, 0.3]}),
                ("invalid_weights", "weights", ["mpo:even"], {"model": "mpo:kind", "weights": {"p0": 1}}),
                ("invalid_weights", "model", ["mpo:kind"], {"model": "mpo@0.2:0.5:0.3"}),
                ("invalid_value", "strength", ["1.4"], {"strength": 2}),
                ("invalid_value", "policy_scores", ["score"], {"policy_scores": True}),
                ("invalid_value", "best_of", ["adapters"], {"best_of": 4})):
            found = refusal(server, CHAT, {"messages": SAID, **body})
            check(f"{body}: {found}", found[:3] == (400, code, param)
                  and all(word in found[3] for word in ["adapters", *words]))
        found = refusal(server, CHAT, {"messages": SAID, "model": "policy/p0"})
        check(f"a policy by name: {found}", found[:2] == (404, "model_not_found")
              and "--presets" in found[3])
        for body in ({"strength": 1.4}, {"best_of": 1, "policy_scores": False}):
            found = refusal(server, CHAT, {"messages": SAID, "max_tokens": 2, **body})
            check(f"{body} asks for nothing: {found}", found[0] == 200)


def start_refused(name, code, words, *flags):
    result = run("serve", CASE.config, "--port=0", *flags)
    check(name, says_once(result, code, words), result)


def test_records_that_cannot_be_served_are_refused():
    logits = CASE.path("logits.h5")
    run("fit", CASE.config, "--rollout.mixture=logits", "--quiet", "--descent.steps=1",
        "--record.file=" + logits)
    start_refused("a record of logits", 65, ["--rollout.mixture=logits", "logits.h5"],
                  "--weights=" + logits)
    start_refused("one among presets", 65, ["--presets", "--rollout.mixture=logits"],
                  "--weights=" + CASE.record, "--presets=old=" + logits)
    start_refused("a record of adapters where logits are mixed", 65,
                  ["--rollout.mixture=adapters", "run.h5"], "--weights=" + CASE.record,
                  "--rollout.mixture=logits")
    start_refused("a name twice", 64, ["'mpo:a'"], "--presets=a=uniform;a=p0")
    for name, kind in (("1.gguf", "adapter"), ("base.gguf", "model")):
        shutil.copy(CASE.path(name), CASE.path("kept.gguf"))
        damage(CASE.path(name))
        start_refused(f"another {kind}", 65, ["SHA-256", kind, "run.h5"],
                      "--weights=" + CASE.record)
        shutil.move(CASE.path("kept.gguf"), CASE.path(name))


def test_doctor_and_launch():
    result = run("doctor", CASE.config, "--serve", *FLAGS, "--port=0")
    check("doctor finds nothing", result.returncode == 0 and "mpo:kind" in result.stdout
          and "policy/" not in result.stdout, result)
    result = run("doctor", CASE.config, "--serve", *FLAGS, "--port=0", ranks=2)
    check("nor on two ranks", result.returncode == 0 and "2 groups of 1" in result.stdout, result)
    result = run("launch", CASE.config, "--serve", *FLAGS)
    check("launch asks for one task", result.returncode == 0
          and "#SBATCH --ntasks-per-node=1" in result.stdout, result)
    shutil.copy(CASE.path("1.gguf"), CASE.path("kept.gguf"))
    with open(CASE.path("1.gguf"), "wb") as stream:
        stream.write(b"nothing")
    result = run("doctor", CASE.config, "--serve", *FLAGS, "--port=0")
    shutil.move(CASE.path("kept.gguf"), CASE.path("1.gguf"))
    told = [line for line in result.stdout.splitlines() if line.startswith("problem")]
    check("a bad adapter is told once", result.returncode == 65 and "1.gguf" in told[0]
          and sum("1.gguf" in line for line in told) == 1, result)


def test_page():
    if None in programs():
        print("ok    SKIP page: needs chromium and chromedriver")
        return
    from window import DONE, MIXTURE, READY, Page, chat, shown
    with Server(MPO, WORK, CASE.config, *FLAGS) as server, Page(server) as browser:
        check("the page finds the server", browser.wait(READY))
        check("there are no sliders", not browser.run("return document.querySelector('.slider')"))
        check("nor columns of policies", browser.run(
            "return document.querySelector('#side').closest('[hidden]') !== null"
            " && document.querySelector('#views').hidden"))
        presets = browser.run("return [...document.querySelectorAll('#presets button')]"
                              ".map((button) => button.textContent)")
        check(f"but presets {presets}", presets == [
            "default", "average", "untilted", "even", "one", "kind", "base", "other"])
        browser.click("#presets button:nth-child(6)")
        body = chat(browser, "a")[0]
        check(f"a preset is asked by its name, without scores: {body}",
              body["model"] == "mpo:kind" and "policy_scores" not in body)
        check("and answers", browser.wait(DONE) and browser.text(MIXTURE + " .note") == ""
              and set(shown(browser)) <= set("abcde"))
    Page.browser.close()


if __name__ == "__main__":
    run_tests({name: value for name, value in globals().items() if name.startswith("test_")})
