#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Control characters of responses, prompts and names: shown on a terminal, raw in a pipe.

usage: escapes.py MPO MPIEXEC WORK_FOLDER
"""
import json
import os
import pty
import re
import subprocess

from person import MPIEXEC, MPO, WORK, check, fresh, run, run_tests, write

RED = "\033[31mred"          # a colour
TITLE = "\033]0;title\a"     # OSC: the window's title
C1 = "\u009b31mred"          # CSI in one character
TABLE = "mpo-table 1\ntokens hi {0} {1} {2} </s>\n" + "".join(
    f"row {name} 0.1 0.29 0.29 0.29 0.03\n" for name in ("<s>", "hi", "{0}", "{1}", "{2}"))
CONFIG = """prompts: {{file: prompts.txt}}
policies:
  - {{name: up, model: c.table}}
  - {{name: down, model: c.table}}
rollout: {{responses: 4, max_tokens: 40}}
descent: {{steps: 3}}
record: {{file: out.h5}}
"""
# What mpo itself sends to a terminal: colours, and the moves of its live line.
OWN = re.compile(r"\033\[(?:0|31|33)m|\033\[A\r|\033\[K|\r\n")
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def prepare():
    fresh()
    write("c.table", TABLE.format(RED, TITLE, C1))
    write("config.yaml", CONFIG.format())
    write("prompts.txt", "hi\n")


def on_terminal(*arguments, launcher=()):
    """(exit code, all that a terminal got)"""
    master, slave = pty.openpty()
    with subprocess.Popen([*launcher, MPO, *arguments], cwd=WORK, stdin=subprocess.DEVNULL, stdout=slave,
                          stderr=slave, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(slave)
        got = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            got += piece
    os.close(master)
    return process.returncode, got.decode("utf-8")


def is_clean(text):
    return not CONTROLS.search(OWN.sub("\n", text))


def test_responses():
    prepare()
    commands = [["generate", "config.yaml", "--weights=uniform", "--prompt=hi"],
                ["generate", "config.yaml", "--weights=uniform", "--n=4"],
                ["generate", "config.yaml", "--weights=uniform", "--n=4", "--format=jsonl"],
                ["fit", "config.yaml"], ["inspect", "out.h5", "--responses=4"],
                ["inspect", "out.h5", "--responses=4", "--format=json"]]
    for command in commands:
        code, text = on_terminal(*command)
        check(f"on a terminal: {command}", code == 0 and is_clean(text))
        if command[0] != "fit":
            check("and all of it is shown", "\\u001b" in text.lower() and "\\u009b" in text)
    for command in (commands[0], commands[4]):
        text = run(*command).stdout
        check(f"in a pipe: {command}", RED in text and TITLE in text and C1 in text)
    mpirun = [MPIEXEC, "-n", "1"]
    code, text = on_terminal(*commands[1], launcher=mpirun)
    check("under mpirun on a terminal", code == 0 and is_clean(text) and "\\u001b" in text)
    piped = subprocess.run([*mpirun, MPO, *commands[1]], cwd=WORK, stdout=subprocess.PIPE, text=True, check=False)
    check("under mpirun in a pipe", RED in piped.stdout and C1 in piped.stdout)


def test_every_command_that_shows_texts():
    """Prompts, file names, names of records, and what programs say on standard error."""
    prepare()
    odd = f"p{RED}.txt"
    record = f"o{RED}{C1}ut.h5"
    write(odd, f"hi {RED} {C1} {TITLE}\n")
    run("fit", "config.yaml", "--quiet", f"--record.file={record}", "--rollout.responses=64")
    prompts = f"--prompts.file={odd}"
    shown = [["prompt", "config.yaml", prompts], ["doctor", "config.yaml", prompts],
             ["config", "config.yaml", prompts, "--get=prompts.file"],
             ["generate", "config.yaml", prompts, f"--weights={record}", "--n=2"],
             ["evaluate", "config.yaml", f"--weights={record}"], ["inspect", record],
             ["inspect", record, record, "--compare"], ["recover", record],
             ["launch", "config.yaml", f"--record.file={record}"]]
    as_json = [["prompt", "config.yaml", prompts, "--json"], ["doctor", "config.yaml", prompts, "--json"],
               ["evaluate", "config.yaml", f"--weights={record}", "--json"], ["inspect", record, "--json"],
               ["recover", record, "--json"], ["score", "config.yaml", "--input=in.jsonl"],
               ["refit", record, "--min-ess=0"], ["refit", record, "--min-ess=0", "--frontier=2"]]
    write("in.jsonl", json.dumps({"prompt": "hi", "response": RED}) + "\n")
    for command in [*shown, *as_json]:
        code, text = on_terminal(*command)
        check(f"on a terminal: {command[0]}", code == 0 and is_clean(text))
        if command in shown:
            check("and shown", "\\u001b" in text.lower())
            check("and raw in a pipe", "\033[31m" in run(*command).stdout)
    reward = "echo '\033[31mred' >&2; cat"
    code, text = on_terminal("evaluate", "config.yaml", "--rewards", f"--rewards.command={reward}")
    check("the reward program's words", code == 65 and is_clean(text))


def test_names_and_messages():
    prepare()
    name = f"no {RED}{C1}.table"
    for command in (["doctor", "config.yaml", f"--policies.up.model={name}"],
                    ["fit", "config.yaml", f"--policies.up.model={name}"], ["inspect", name],
                    ["fit", "config.yaml", f"--rollout.responses={TITLE}"], [f"do{RED}"]):
        code, text = on_terminal(*command)
        check(f"a message on a terminal: {command}", code not in (0, 70) and is_clean(text)
              and ("\\u001b" in text or TITLE in command[-1]))
    check("a message in a pipe", RED in run("inspect", name).stderr)


def test_whole_characters_and_broken_ones():
    prepare()
    text = "größe_有益_" * 14  # a response is longer than a buffer, which cuts characters
    write("c.table", TABLE.format(text, "é", "\u00a0").replace("0.03", "0.0003").replace("0.1 ", "0.1297 "))
    code, shown = on_terminal("generate", "config.yaml", "--weights=uniform", "--n=8", "--parallel=8",
                              "--rollout.max_tokens=400")
    check(f"characters of several bytes are whole: {code}, {len(shown)} characters", code == 0 and "\\x" not in shown and "größe_有益_größe" in shown)
    with open(os.path.join(WORK, "broken.table"), "wb") as file:
        file.write(TABLE.format("A", "B", "C").encode().replace(b"A", b"\x9b31m").replace(b"B", b"\xe6\x9c"))
    code, shown = on_terminal("generate", "config.yaml", "--weights=uniform", "--n=8",
                              "--policies.up.model=broken.table", "--policies.down.model=broken.table")
    check(f"bytes that are no character: {code}", is_clean(shown))


run_tests(globals())
