#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Take the pictures of this folder: the page of `mpo serve configs/reviews.yaml`.

usage: results/serve/pictures.py [MPO]        (build/mpo)

Needs chromium, chromedriver and the demo model (launch/setup.sh --model --test).
"""
import os
import sys
import tempfile
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))
from browser import Browser  # noqa: E402
from server import Server  # noqa: E402

MPO = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build/mpo"))
CONFIG = os.path.join(ROOT, "configs/reviews.yaml")
PROMPT = ("Write a short movie review in one or two sentences. Start it with: "
          "The soundtrack of this film")
SEED = 4
DONE = ("return document.querySelector('.response') && !document.querySelector('.running')"
        " && document.querySelector('#prompt').value === ''")
READY = "return document.querySelector('#state').dataset.state === 'ready'"


def begin(browser, server, width, height, scale, scheme):
    """A new page whose next response has the seed."""
    browser.resize(width, height, scale)
    browser.media(prefers_color_scheme=scheme)
    browser.open("about:blank")
    browser.open(server.address + "/")
    browser.wait(READY)
    browser.run("document.querySelector('#seed-new').checked = false;"
                "document.querySelector('#seed').value = arguments[0];"
                "document.querySelector('#length').value = 64", SEED)


def choose(browser, side=False, tokens=False):
    if side:
        browser.click("#side")
    if tokens:
        browser.click("[name=view][value=tokens] + span")


def send(browser, prompt):
    browser.type("#prompt", prompt)
    browser.press("Enter")
    if not browser.wait(DONE, seconds=300):
        raise SystemExit("pictures.py: the response did not end in 300 s")
    time.sleep(0.3)


def save(browser, name):
    browser.picture(os.path.join(ROOT, "results/serve", name))
    print(name)


def most_disputed(browser):
    """A selector of the token where policies disagree most."""
    index = browser.run("""
        const bars = [...document.querySelector(".response .strip g").children];
        const height = (bar) => Number(bar.getAttribute("height"));
        return bars.indexOf(bars.reduce((a, b) => (height(b) > height(a) ? b : a)));""")
    return f".response .flow .t:nth-child({index + 1})"


def take(browser, server):
    for scheme in ("light", "dark"):
        begin(browser, server, 1280, 800, 1, scheme)
        choose(browser, tokens=True)
        send(browser, PROMPT)
        browser.hover(most_disputed(browser))
        time.sleep(0.3)
        save(browser, f"tokens_{scheme}.png")
        choose(browser, side=True)
        browser.wait("return document.querySelectorAll('.response').length === 3")
        browser.wait(DONE, seconds=300)
        browser.click("#prompt")
        time.sleep(0.3)
        save(browser, f"side_by_side_{scheme}.png")
        begin(browser, server, 360, 720, 2, scheme)
        choose(browser, tokens=True)
        send(browser, PROMPT)
        save(browser, f"phone_{scheme}.png")
        if scheme == "light":
            browser.click("#panel-toggle")
            time.sleep(0.3)
            save(browser, "phone_weights.png")


def main():
    with tempfile.TemporaryDirectory() as work, \
            Server(MPO, work, CONFIG, "--presets=warm=0.8,0.2;brief=0.2,0.8", "--run.threads=1",
                   "--log-requests=false") as server, \
            Browser(work) as browser:
        take(browser, server)


if __name__ == "__main__":
    main()
