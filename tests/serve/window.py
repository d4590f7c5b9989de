# SPDX-License-Identifier: Apache-2.0
"""The page of serve in a window of a headless Chromium, for the scripts beside this one. They
begin their arguments with

    MPO MPIEXEC WORK_FOLDER SOURCE_FOLDER
"""
import json
import os
import sys

SOURCE = sys.argv[4]
sys.path[:0] = [os.path.join(SOURCE, "tests", part) for part in ("commands", "support")]
from browser import Browser, programs  # noqa: E402
from person import MPO, WORK, check, fresh, run_tests, write  # noqa: E402
from server import Server  # noqa: E402

CONFIG = os.path.join(SOURCE, "configs/table.yaml")
NAMES = ["terse", "warm", "formal"]
READY = "return document.querySelector('#state').dataset.state === 'ready'"
DONE = "return document.querySelector('.response') && !document.querySelector('.running')"
BANNER = "const b = document.querySelector('#banner'); return !b.hidden && b.textContent"
RESPONSE = '.turn:last-child .response[data-policy="%s"]'
MIXTURE = RESPONSE % ""
# Words that would be markup in a page that takes text for it, and responses without an end.
HOSTILE = "<img/src=x/onerror=document.title='broken'>"
LONG = f"""mpo-table 1
tokens a {HOSTILE} </s>
row <s> 0.499999999 0.5 0.000000001
row a 0.499999999 0.5 0.000000001
row {HOSTILE} 0.499999999 0.5 0.000000001
"""
LONG_CONFIG = """policies:
  - {name: up, model: long.table}
  - {name: down, model: long.table}
serve: {context: 400000}
"""
ENDLESS = 200000  # tokens, of a response that is to be stopped


class Page:
    """The page of a server, opened anew. At the end: nothing complained, nobody else was asked."""

    browser = None  # one for all pages

    def __init__(self, server, path="/", size=(1280, 800), expect=()):
        self.server, self.expect = server, expect
        if Page.browser is None:
            Page.browser = Browser(WORK)
        self.browser.resize(*size)
        self.browser.media()
        self.browser.open("about:blank")  # a hash alone would open nothing anew
        self.browser.forget()
        self.browser.open(server.address + path)

    def __enter__(self):
        return self.browser

    def __exit__(self, kind, *_):
        if kind is None:
            complaints = [(source, message) for source, message in self.browser.complaints()
                          if not any(word in message for word in self.expect)]
            check(f"no error on the console and no report of its policy {complaints or ''}",
                  not complaints)
            others = [request["url"] for request in self.browser.requests()
                      if not request["url"].startswith(self.server.address + "/")]
            check(f"nobody but the server was asked {others or ''}", not others)



def chat(browser, text):
    """Send a prompt and wait for its responses; the request bodies that were sent for it."""
    before = len(sent(browser))
    browser.type("#prompt", text)
    browser.press("Enter")
    browser.wait("return document.querySelector('#prompt').value === ''")
    check(f"'{text}' is answered", browser.wait(DONE))
    return sent(browser)[before:]


def sent(browser):
    return [json.loads(request["postData"]) for request in browser.requests()
            if request["url"].endswith("/v1/chat/completions")]


def shown(browser, policy=""):
    return browser.text(RESPONSE % policy + " .text")


def answer(server, body):
    """The text that the server gives for a body of the page, as one answer."""
    plain = {name: value for name, value in body.items() if not name.startswith("stream")}
    return server.ask("/v1/chat/completions", plain)["choices"][0]["message"]["content"]


def weights(browser):
    return browser.run("return [...document.querySelectorAll('.slider input[type=number]')]"
                       ".map((box) => box.valueAsNumber)")


def set_value(browser, selector, value):
    browser.run("const e = document.querySelector(arguments[0]); e.value = arguments[1];"
                "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change'))",
                selector, value)


def keep_seed(browser, seed):
    browser.run("document.querySelector('#seed-new').checked = false")
    set_value(browser, "#seed", seed)


def run_in_browser(tests):
    """run_tests with a window, or SKIP where no browser is installed."""
    if None in programs():
        print("SKIP: needs chromium and chromedriver")
        sys.exit(77)
    fresh()
    write("long.table", LONG)
    write("long.yaml", LONG_CONFIG)
    try:
        run_tests(tests)
    finally:
        if Page.browser:
            Page.browser.close()
