#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of results/gpu/model.py, against cases computed by hand.

usage: time_model.py SOURCE_FOLDER

V = 256000 and these rates make a row 1 us to copy, 2 to combine, 5 over NVLink (10 between
two), 20 over InfiniBand, and its 250 block sums of K = 5, 16000 bytes, 4 us through the host.
"""
import os
import re
import subprocess
import sys
import tempfile

SOURCE = sys.argv[1]
sys.path.insert(0, os.path.join(SOURCE, "results", "gpu"))

import model  # noqa: E402  (found through the path above)

C = model.constants({
    "copy_rate": 1024.0, "combine_share": 0.5, "pack": 1.0, "group": 20.0, "group_blocking": 4.0,
    "combine": 7.0, "draw": 11.0, "draw_policy": 0.5, "chain": 5.0, "chain_graph": 4.0,
    "normalise": 8.0, "host": 2.0, "tokens": 6.0, "rounds": 100.0,
    "sums_rate": 4.0, "nvlink_alpha": 3.0, "nvlink_rate": 204.8, "nvlink_pair": 102.4,
    "infiniband_alpha": 13.0, "infiniband_rate": 51.2, "kernel": 1.0, "decode_host": 100.0,
    "cell": 1e-8, "mask": 1e-3})
V = 256000
SHAPE = (5, V, 3)
FAILURES = []


def check(name, found, expected):
    same = found == expected if not isinstance(expected, float) else (
        abs(found - expected) <= 1e-9 * abs(expected))
    print(("ok    " if same else "FAIL  ") + name)
    if not same:
        FAILURES.append(name)
        print(f"      {found}, expected {expected}")


def exchanges():
    gather = [model.exchange_us(C, "gather", "nvlink", SHAPE, step) for step in range(9)]
    fixed = 1 + 20 + 3 + 7 + 11 + 5 * 0.5 + 2 + 6
    check("gather at first", gather[0], fixed + 3 * (4 * 5.0 + 2 * 1 + 5 * 2))
    check("rows sent as they lie", gather[1], gather[0] - 1 - 3 * 2)
    check("a blocking communicator", gather[2], gather[1] - 16)
    check("one chain", gather[3], gather[2] - 13)
    check("today", model.exchange_us(C, "gather", "nvlink", SHAPE), gather[3])
    check("policies that have a GPU each have one launch already, and gather no sums", gather[4:7],
          [gather[3]] * 3)
    check("one graph, and no other step changes a gather over NVLink", gather[7:],
          [gather[3] - 1] * 2)
    check("gather of two over NVLink",
          model.exchange_us(C, "gather", "nvlink", (2, V, 1), 0), 51 + 10 + 2 + 4.0)
    alltoall = fixed + 100 + 3 * (0.8 * 5 + 2 + 2 + 4)
    check("alltoall at first", model.exchange_us(C, "alltoall", "nvlink", SHAPE, 0), alltoall)
    check("alltoall with rounds has no chain",
          model.exchange_us(C, "alltoall", "nvlink", SHAPE, model.TOGETHER), alltoall - 16)
    check("alltoall today", model.exchange_us(C, "alltoall", "nvlink", SHAPE),
          1 + 4 + 3 + 5 + 2.5 + 2 + 6 + 3 * (4 + 3) + 3 * (4 + 2 + 2 + 0.078125))
    check("alltoall of bf16 over InfiniBand",
          model.exchange_us(C, "alltoall", "infiniband", SHAPE, model.HALVES),
          1 + 4 + 13 + 4 + 2.5 + 2 + 6 + 3 * (4 + 13) + 3 * (8 + 2 + 2 + 0.3125))
    check("gather of bf16 over InfiniBand",
          model.exchange_us(C, "gather", "infiniband", SHAPE, model.HALVES),
          1 + 4 + 13 + 4 + 2.5 + 2 + 6 + 3 * (40.0 + 2 + 10))


def choices():
    with open(os.path.join(SOURCE, "src", "exchange", "pattern.c"), encoding="utf-8") as file:
        limits = dict(re.findall(r"#define ALLTOALL_(\w+)_LOGITS_MIN +(\S+)", file.read()))
    check("the limits of auto are those of the program", model.ALLTOALL_LOGITS_MIN,
          {"nvlink": float(limits["NEAR"]), "infiniband": float(limits["FAR"])})
    check("3.84 million logits went to all at first", model.added_us(C, "nvlink", SHAPE, 0)[1],
          "alltoall")
    check("they go to all between nodes", model.added_us(C, "infiniband", SHAPE)[1], "alltoall")
    check("they are gathered on one", model.added_us(C, "nvlink", SHAPE)[1], "gather")
    check("20.48 million go to all there too", model.added_us(C, "nvlink", (5, V, 16))[1],
          "alltoall")
    check("2.56 million are gathered", model.added_us(C, "infiniband", (5, V, 2))[1], "gather")
    check("later the better one is taken",
          model.added_us(C, "nvlink", (2, 1024, 1), model.HALVES)[1], "gather")
    c = model.constants()
    for K, link, million, rounds in ((2, "nvlink", 9.4, 82.2), (8, "nvlink", 5.8, 20.1),
                                     (2, "infiniband", 4.8, 9.0), (8, "infiniband", 1.5, 2.4)):
        check(f"{K} over {link} break even where pattern.c says",
              [round(break_even(c, K, link, step), 1) for step in (model.STREAM, model.TOGETHER)],
              [million, rounds])


def break_even(c, K, link, step):
    """Million logits at which both patterns take the same time."""
    costs = [[model.exchange_us(c, name, link, (K, 131072, B), step) for B in (0, 1)]
             for name in ("gather", "alltoall")]
    (gather, gather_more), (alltoall, alltoall_more) = costs
    rows = (alltoall - gather) / ((gather_more - gather) - (alltoall_more - alltoall))
    return rows * K * 131072 / 1e6


def one_gpu():
    check("all on one GPU", model.added_us(C, "one", SHAPE, 0), (40 + 18 + 2.5 + 15 * 3.0, "-"))
    check("all on one GPU, one launch", model.added_us(C, "one", SHAPE, model.TOGETHER)[0],
          8 + 5 + 2.5 + 15 * 3.0)


def decodes():
    c = {**C, "copy_rate": 1000.0}
    check("a decode of one row", model.decode_us(c, "8B bf16", 1),
          16060 + 13 * 32 + 100 + 200 * 131072 / 1e6)
    check("a decode of 16 rows", model.decode_us(c, "8B bf16", 16),
          16060 * 1.12 + 416 + 100 + 419.4304 + 51200 * (0.00131072 + 0.001))
    check("rows between 16 and 64", model.crowd(40), 0.235)
    check("rows beyond 64", model.crowd(112), 0.58)


def figures():
    found = {("copy", 0, 0, 0): 2000.0, ("combine", 2, 1000, 1): 20.0,
             ("combine", 8, 125000, 4): 36.0, ("normalise", 2, 1000, 1): 50.0,
             ("draw", 2, 1000, 1): 40.0}
    # 4 million logits less 2000 are 15.992 MB in 16 us: 999.5 GB/s.
    check("constants follow from figures", model.constants_from(found), {
        "copy_rate": 2000.0, "combine": 20.0, "combine_share": 0.49975, "normalise": 25.0,
        "draw": 38.0})
    check("no constant follows from nothing", model.constants_from({}), {})
    line = model.compare({("copy", 0, 0, 0): 2150.0})[0]
    check("a figure beside the model's", line, ("copy", 0, 0, 0, "GB/s", 2150.0, 4300.0, 0.5))


    check("a decode of both policies", round(model.PREDICTED["decode"][1](
        {**C, "copy_rate": 1000.0}, 2, 128256, 1), 6), round(2 * (1310 + 208 + 100 + 4.194304), 6))


def bad_input():
    try:
        model.constants({"speed": 1.0})
        check("an unknown constant is refused", None, "speed")
    except ValueError as problem:
        check("an unknown constant is refused", "speed" in str(problem), True)
    for text, word in (("copy 0 0 0", "found 'copy 0 0 0'"), ("copy 0 0 0 x", "found"),
                       ("speed 1 2 3 4", "no quantity 'speed'")):
        with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
            file.write(text + "\n")
            file.flush()
            done = run("--compare", file.name)
        check(f"'{text}' is refused", done.returncode != 0 and word in done.stderr
              and ".tsv:1: " in done.stderr and "Traceback" not in done.stderr, True)


def run(*arguments):
    return subprocess.run([sys.executable, os.path.join(SOURCE, "results/gpu/model.py"), *arguments],
                          capture_output=True, text=True, timeout=600, check=False)


def table_of_the_page():
    with open(os.path.join(SOURCE, "results", "gpu", "model.md"), encoding="utf-8") as file:
        page = file.read()
    check("model.md has the table that the program prints", run("--summary").stdout in page, True)
    rows = [line for line in run().stdout.splitlines() if not line.startswith("#")][1:]
    check("the whole table has a row for each case and step", len(rows), 3 * 27 * 9)


for one in (exchanges, choices, one_gpu, decodes, figures, bad_input, table_of_the_page):
    one()
sys.exit(f"{len(FAILURES)} failed" if FAILURES else 0)
