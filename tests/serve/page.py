#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The page of serve on table policies, whose figures are known exactly: what it does.

usage: page.py MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import json
import math
import os
import subprocess

from window import (DONE, MIXTURE, MPO, NAMES, READY, CONFIG, SOURCE, WORK, Page, Server, answer,
                    chat, check, keep_seed, run_in_browser, sent, set_value, shown, weights)


def tables():
    """{policy: {state: {word: probability}}}"""
    read = {}
    for name in NAMES:
        with open(os.path.join(SOURCE, f"configs/table/{name}.table"), encoding="utf-8") as file:
            lines = [line.split() for line in file if line.startswith(("tokens", "row"))]
        read[name] = {row[1]: dict(zip(lines[0][1:], map(float, row[2:]))) for row in lines[1:]}
    return read


def test_chat():
    with Server(MPO, WORK, CONFIG) as server, Page(server) as browser:
        check("the page finds the server", browser.wait(READY))
        first = chat(browser, "the film")
        body = first[0]
        check("the response is what the server draws for the same request",
              shown(browser) == answer(server, body))
        check("the mixture is drawn with scores, as a stream", body["model"] == "mpo"
              and body["policy_scores"] and body["logprobs"] and body["stream"])
        check("its seed is told", f"seed {body['seed']}" in browser.text(MIXTURE + " .meta"))
        text = shown(browser)
        body = chat(browser, "lovely film")[0]
        check("a turn has those before it", body["messages"] == [
            {"role": "user", "content": "the film"}, {"role": "assistant", "content": text},
            {"role": "user", "content": "lovely film"}])
        check("a new seed each time", body["seed"] != first[0]["seed"])
        keep_seed(browser, 7)
        set_value(browser, "#temperature", 0.5)
        set_value(browser, "#length", 5)
        before = shown(browser)
        browser.click(MIXTURE + " .actions button:last-child")
        browser.wait("return document.querySelector('.turn:last-child .place').textContent === '2/2'")
        browser.wait(DONE)
        body = sent(browser)[-1]
        check("it is drawn again with the sampling of now", (body["seed"], body["temperature"],
              body["max_tokens"], len(body["messages"])) == (7, 0.5, 5, 3))
        check("the new version is shown", shown(browser) == answer(server, body))
        browser.click(MIXTURE + " .versions button")
        check("the earlier version is kept", shown(browser) == before)
        browser.click("#clear")
        check("a new chat is empty", browser.run("return !document.querySelector('.turn')"))


def test_sliders():
    with Server(MPO, WORK, CONFIG, "--weights=0.2,0.5,0.3", "--presets=kind=0.1,0.8,0.1") as server, \
            Page(server) as browser:
        browser.wait(READY)
        slider = ".slider:nth-child(%d) input[type=range]"
        check("the server's weights are there", weights(browser) == [0.2, 0.5, 0.3])
        check("untouched, the model has its name", browser.text("#model") == "mpo")
        set_value(browser, slider % 1, 600)
        check("the others keep their proportions", weights(browser) == [0.6, 0.25, 0.15])
        check("the model says so", browser.text("#model") == "mpo@terse=0.6:warm=0.25:formal=0.15")
        browser.click(".slider:nth-child(2) .lock")
        set_value(browser, slider % 1, 1000)
        check("a lock holds", weights(browser) == [0.75, 0.25, 0.0])
        check("a held weight does not move", browser.run(
            "return document.querySelector(arguments[0]).disabled", slider % 2))
        body = chat(browser, "the film")[0]
        check("the request is of these weights", body["model"] == "mpo@terse=0.75:warm=0.25")
        check("and so is the response", shown(browser) == answer(server, body))
        browser.click("#presets button:nth-child(2)")
        check("a preset is chosen", weights(browser) == [0.1, 0.8, 0.1]
              and browser.text("#model") == "mpo:kind")
        check("it ends locks", browser.run("return !document.querySelector('.lock[aria-pressed=true]')"))
        set_value(browser, ".slider:nth-child(3) input[type=number]", 0.5)
        check("a number can be typed", weights(browser) == [0.056, 0.444, 0.5])
        wrong = browser.run("""
            return import("/weights.js").then(({ Weights, UNITS }) => {
              let state = 1, wrong = [];
              const random = (n) => (state = (state * 48271) % 2147483647) % n;
              for (let trial = 0; trial < 300; trial++) {
                const w = new Weights(1 + random(6));
                for (let move = 0; move < 40; move++) {
                  const k = random(w.units.length), before = [...w.units];
                  if (random(4) === 0) w.locked[k] = !w.locked[k];
                  else w.move(k, random(1200) - 100);
                  const sum = w.units.reduce((a, b) => a + b);
                  const held = w.units.every((u, j) => !w.locked[j] || u === before[j]);
                  if (sum !== UNITS || !held || w.units.some((u) => u < 0)) wrong.push(w.units);
                }
              }
              const w = new Weights(3);
              w.set([0.2, 0.5, 0.3]); w.move(0, 1000); w.move(0, 200);
              if (w.units.join() !== "200,500,300") wrong.push(w.units);
              return wrong;
            })""")
        check(f"the sum is 1 and locks hold in 12000 moves {wrong[:3] or ''}", not wrong)


def test_copies():
    with Server(MPO, WORK, CONFIG) as server, Page(server) as browser:
        browser.wait(READY)
        browser.devtools("Browser.grantPermissions", origin=server.address,
                         permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        set_value(browser, ".slider:nth-child(1) input[type=range]", 400)
        keep_seed(browser, 3)
        browser.type("#prompt", "the film")
        browser.click("#copy-model")
        browser.wait("return document.querySelector('#copy-model').textContent === 'Copied'")
        copied = browser.run("return navigator.clipboard.readText()")
        check("the model is copied", copied == "mpo@terse=0.4:warm=0.3:formal=0.3")
        browser.click("#copy-curl")
        browser.wait("return document.querySelector('#copy-curl').textContent === 'Copied'")
        line = browser.run("return navigator.clipboard.readText()")
        result = subprocess.run(["sh", "-c", line.replace("curl ", "curl -s ", 1)],
                                capture_output=True, text=True, check=False)
        body = chat(browser, "")[0]
        check("the line for a terminal draws what the page draws", shown(browser) == answer(
            server, body) == json.loads(result.stdout)["choices"][0]["message"]["content"], result)


def test_columns():
    with Server(MPO, WORK, CONFIG) as server, Page(server) as browser:
        browser.wait(READY)
        keep_seed(browser, 11)
        before = chat(browser, "the story")[0]
        browser.run("document.querySelector('#seed-new').checked = true")
        browser.click("#side")
        browser.wait("return document.querySelectorAll('.response').length === 4")
        browser.wait(DONE)
        filled = sent(browser)[1:]
        check("switching on draws the policies alone with the same seed",
              sorted(body["model"] for body in filled) == sorted(f"policy/{n}" for n in NAMES)
              and {body["seed"] for body in filled} == {before["seed"]})
        bodies = chat(browser, "very")
        check("a prompt is sent to all, with one seed", len(bodies) == 4
              and len({body["seed"] for body in bodies}) == 1)
        for body in bodies:
            policy = body["model"].removeprefix("policy/") if body["model"] != "mpo" else ""
            check(f"the column of {policy or 'the mixture'} is its own",
                  shown(browser, policy) == answer(server, body))
            first = browser.text(f'.turn:first-child .response[data-policy="{policy}"] .text')
            check("and goes on with its own response", body["messages"][1]["content"] == first)
        tops = browser.run("return [...document.querySelectorAll('.turn:last-child .response')]"
                           ".map((e) => e.getBoundingClientRect().top)")
        check("the columns are side by side", len(set(tops)) == 1)


def test_tokens():
    exact, share = tables(), {"terse": 0.2, "warm": 0.5, "formal": 0.3}
    with Server(MPO, WORK, CONFIG, "--weights=0.2,0.5,0.3") as server, Page(server) as browser:
        browser.wait(READY)
        keep_seed(browser, 5)
        body = chat(browser, "the film was")[0]
        text = answer(server, body)
        browser.click("[name=view][value=tokens] + span")
        spans = browser.run("""return [...document.querySelectorAll('.flow .t')].map((e) => ({
            text: e.textContent, names: e.className,
            strength: Number(e.style.getPropertyValue('--strength'))}))""")
        words = [span["text"].strip() for span in spans]
        check("the tokens are the response", "".join(span["text"] for span in spans
              if "special" not in span["names"]) == text and words[-1] == "</s>")
        state, sums, total = "was", dict.fromkeys(NAMES, 0.0), [0.0, 0.0]
        wrong = []
        for word, span in zip(words, spans):
            log = {name: math.log(exact[name][state][word]) for name in NAMES}
            mean = sum(share[name] * log[name] for name in NAMES)
            log_z = math.log(sum(math.exp(sum(
                share[name] * math.log(exact[name][state][v]) for name in NAMES))
                for v in exact["warm"][state]))
            leader = max(NAMES, key=log.get)
            line = sum(-log_z >= nat for nat in (0.1, 0.5, 1.5))
            if (f"p{NAMES.index(leader)}" not in span["names"].split()
                    or abs(span["strength"] - min((log[leader] - mean) / 3, 1)) > 6e-4
                    or (f"z{line}" in span["names"]) != (line > 0)):
                wrong.append((word, span, log, log_z))
            sums = {name: sums[name] + log[name] for name in NAMES}
            total = [total[0] + mean - log_z, total[1] - log_z]
            state = word
        check(f"colours, strengths and lines are exact {wrong[:2] or ''}", not wrong and len(words) > 3)
        rows = browser.run("return [...document.querySelectorAll('.sums tbody tr')]"
                           ".map((row) => Number(row.cells[1].textContent.replace('\\u2212', '-')))")
        expected = [*sums.values(), *total]
        check(f"so are the sums: {rows}", len(rows) == 5 and all(
            abs(a - b) < 0.0051 for a, b in zip(rows, expected)))
        check("the strip has a bar for each token", browser.run(
            "return document.querySelectorAll('.strip rect').length") == len(words))
        browser.hover(".flow .t:nth-child(2)")
        tip = browser.wait("const t = document.querySelector('#tip'); return !t.hidden && t.textContent")
        check("a pointer shows what every policy says", tip and words[1] in tip
              and all(name in tip for name in [*NAMES, "mixture"]) and tip.count("%") == 9)
        check("the drawn token is marked among the best", browser.run(
            "return document.querySelectorAll('#tip .drawn').length") <= 1)
        browser.click(".flow .t:nth-child(1)")
        browser.press("ArrowRight", "ArrowRight")
        check("arrow keys walk the tokens", browser.run(
            "return document.activeElement.dataset.index") == "2")
        browser.press("Escape")
        check("Escape closes the tip", browser.run("return document.querySelector('#tip').hidden"))


if __name__ == "__main__":
    run_in_browser(globals())
