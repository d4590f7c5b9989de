#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What mixing adds to a position on GPUs: a model, no measurement (model.md).

    model.py [--constants TABLE.json] [--gpu H100|H200] > table.tsv
    model.py --compare FIGURES.tsv [--json TABLE.json]

The first prints the model for every K, V, B, model and link, at first and after each step that was
made or is planned. The second sets what tests/gpu/on_device.sh measured beside the model's figures; the
constants that follow from it go into TABLE.json, which the first takes.

K policies, a GPU each ("nvlink", "infiniband") or all on one ("one"), B rows of V floats,
r = 4 V bytes. In microseconds, c(..) the constants below:

    gather     c(pack) + c(group) + alpha + c(combine) + c(draw) + K c(draw_policy) + c(host)
               + c(tokens) + B ((K - 1) r / wire + K r / c(combine_rate) + 2 r / c(copy_rate))
               and without c(pack) and 2 r / c(copy_rate) where rows are sent as they lie
    alltoall   the same fixed part + 3 (c(group_blocking) + alpha): sums, questions, answers
               + B ((K - 1)/K r / wire + r / c(combine_rate) + 2 r / c(copy_rate)
                    + 8 (K + 3) V / 1024 / wire)
               and before they went along the stream c(rounds) for the three, with no chain, and
               c(sums_rate) for sums
    one        K c(normalise) + c(combine) + c(draw) + K c(draw_policy)
               + B K r (1 / c(copy_rate) + 1 / c(combine_rate))
    decode     weights (1 + crowd(B)) / c(copy_rate) + 13 layers c(kernel) + c(decode_host)
               + B L cache / c(copy_rate) + B^2 L (layers width c(cell) + c(mask))
"""
import argparse
import json
import math

# name: (value, unit). Estimates, +-40 % unless a device has measured them.
CONSTANTS = {
    "copy_rate": (4300.0, "GB/s"),     # memory of an H200, read or written
    "combine_share": (0.65, ""),       # of it that combining reaches
    "pack": (7.0, "us"), "group": (35.0, "us"), "group_blocking": (10.0, "us"),
    "combine": (30.0, "us"), "draw": (35.0, "us"), "draw_policy": (1.0, "us"),
    "chain": (25.0, "us"), "chain_graph": (15.0, "us"),
    "normalise": (28.0, "us"), "host": (5.0, "us"), "tokens": (8.0, "us"),
    "rounds": (110.0, "us"), "sums_rate": (4.3, "GB/s"),
    "nvlink_alpha": (7.5, "us"), "nvlink_rate": (330.0, "GB/s"), "nvlink_pair": (150.0, "GB/s"),
    "infiniband_alpha": (22.5, "us"), "infiniband_rate": (45.0, "GB/s"),
    "kernel": (1.8, "us"), "decode_host": (120.0, "us"),
    "cell": (2.7e-8, "us"), "mask": (1.2e-3, "us"),
}
GPUS = {"H100": 2950.0, "H200": 4300.0}  # copy_rate
BLOCK = 1024  # tokens that have one sum
# ALLTOALL_NEAR_LOGITS_MIN and ALLTOALL_FAR_LOGITS_MIN of src/exchange/pattern.c
ALLTOALL_LOGITS_MIN = {"nvlink": 20e6, "infiniband": 3e6}
ALLTOALL_LOGITS_MIN_AT_FIRST = 3e6

# name: weights in GB, layers, width of attention, bytes of cache a token
MODELS = {
    "1B bf16": (2.47, 16, 2048, 32768), "1B Q8": (1.31, 16, 2048, 32768),
    "8B bf16": (16.06, 32, 4096, 131072), "8B Q8": (8.54, 32, 4096, 131072),
    "70B Q8": (75.0, 80, 8192, 327680),
}
LINKS = ("nvlink", "infiniband", "one")
# Each holds for all that follow.
STEPS = ("at first", "rows sent as they lie", "blocking communicator",
         "combine and draw in one chain", "pattern by topology", "one launch for all policies",
         "alltoall in the stream", "the chain as one graph",
         "bf16 between nodes, the better pattern")
LIE, BLOCKING, CHAIN, TOPOLOGY, TOGETHER, STREAM, GRAPH, HALVES = range(1, 9)
TODAY = STREAM  # the program has made the steps up to here


def constants(changed=None):
    values = {name: value for name, (value, _) in CONSTANTS.items()}
    unknown = set(changed or {}) - set(values)
    if unknown:
        raise ValueError(f"no constant {', '.join(sorted(unknown))}; expected {', '.join(values)}")
    return {**values, **(changed or {})}


def transfer_us(size, rate):
    """Bytes at 1e9 bytes a second."""
    return size / rate * 1e-3


def mixing_us(c, K, step):
    """Fixed part of combining and drawing."""
    if step < CHAIN:
        fixed = c["combine"] + c["draw"]
    else:
        fixed = c["chain_graph"] if step >= GRAPH else c["chain"]
    return fixed + K * c["draw_policy"]


def wire_rate(c, link, K):
    return c["nvlink_pair" if link == "nvlink" and K == 2 else link + "_rate"]


def exchange_us(c, pattern, link, shape, step=TODAY):
    """A position of a pattern between GPUs; shape: (K, V, B)."""
    K, V, B = shape
    row, wire, copy = 4.0 * V, wire_rate(c, link, K), c["copy_rate"]
    halves = step >= HALVES and link == "infiniband"
    sent = row / 2 if halves else row
    lie = pattern == "gather" and step >= LIE and not halves
    packing = 0.0 if lie else transfer_us(2 * row, copy)
    group = c["group_blocking" if step >= BLOCKING else "group"]
    fixed = (0.0 if lie else c["pack"]) + group + c[link + "_alpha"] + c["host"] + c["tokens"]
    sums = 8.0 * (K + 3) * V / BLOCK
    combine_rate = c["combine_share"] * copy
    if pattern == "gather":
        return fixed + mixing_us(c, K, step) + B * (
            transfer_us((K - 1) * sent, wire) + packing + transfer_us(K * row, combine_rate))
    each = transfer_us((K - 1) / K * sent, wire) + packing + transfer_us(row, combine_rate)
    if step >= STREAM:
        return (fixed + mixing_us(c, K, step) + 3 * (c["group_blocking"] + c[link + "_alpha"])
                + B * (each + transfer_us(sums, wire)))
    # Sums have to come from other ranks between combining and drawing: no chain.
    return (fixed + mixing_us(c, K, 0) + c["rounds"]
            + B * (each + transfer_us(sums, c["sums_rate"])))


def together_us(c, shape, step=TODAY):
    """A position of K policies on one GPU."""
    K, V, B = shape
    launches = 1 if step >= TOGETHER else K
    size = 4.0 * V * B * K
    return (launches * c["normalise"] + mixing_us(c, K, step) + transfer_us(size, c["copy_rate"])
            + transfer_us(size, c["combine_share"] * c["copy_rate"]))


def added_us(c, link, shape, step=TODAY):
    """(what mixing adds to a position, the pattern that `auto` takes)"""
    if link == "one":
        return together_us(c, shape, step), "-"
    costs = {name: exchange_us(c, name, link, shape, step) for name in ("gather", "alltoall")}
    least = ALLTOALL_LOGITS_MIN[link] if step >= TOPOLOGY else ALLTOALL_LOGITS_MIN_AT_FIRST
    if step >= HALVES:
        chosen = min(costs, key=costs.get)
    else:
        chosen = "alltoall" if math.prod(shape) >= least else "gather"
    return costs[chosen], chosen


def crowd(B):
    """What B rows add to reading the weights: 0 at 1, 12 % at 16, 35 % at 64, then as before."""
    return 0.12 * (B - 1) / 15 if B <= 16 else 0.12 + 0.23 * (B - 16) / 48


def decode_us(c, model, B, length=200):
    """A position of one policy whose rows have length tokens in the cache."""
    weights, layers, width, cache = MODELS[model]
    return (transfer_us(1e9 * weights * (1 + crowd(B)), c["copy_rate"])
            + 13 * layers * c["kernel"] + c["decode_host"]
            + transfer_us(float(B * length * cache), c["copy_rate"])
            + (B * B * length * (layers * width * c["cell"] + c["mask"]) if B > 1 else 0.0))


def print_table(c):
    print("# a model, not measured: results/gpu/model.md")
    print("link\tK\tV\tB\tstep\tpattern\tadded us\t" + "\t".join(f"of {name} %" for name in MODELS))
    shapes = [(K, V, B) for K in (2, 4, 8) for V in (32768, 131072, 262144) for B in (1, 16, 64)]
    for link in LINKS:
        for shape in shapes:
            for step, name in enumerate(STEPS):
                added, pattern = added_us(c, link, shape, step)
                decodes = shape[0] if link == "one" else 1
                shares = (100 * added / (decodes * decode_us(c, model, shape[2])) for model in MODELS)
                print(link, *shape, name, pattern, f"{added:.0f}",
                      *(f"{share:.1f}" for share in shares), sep="\t")


def print_summary(c):
    """The table of model.md: K = 8, V = 131072, today and after the last step."""
    print("| K = 8, V = 128k, share of a decode | " + " | ".join(
        f"{link}, B={B}" for link in LINKS for B in (1, 16, 64)) + " |")
    print("|---" * 10 + "|")
    for model in MODELS:
        cells = []
        for link in LINKS:
            for B in (1, 16, 64):
                whole = decode_us(c, model, B) * (8 if link == "one" else 1)
                first, last = (100 * added_us(c, link, (8, 131072, B), step)[0] / whole
                               for step in (TODAY, len(STEPS) - 1))
                cells.append(f"{first:.1f} -> {last:.1f} %")
        print(f"| {model} | " + " | ".join(cells) + " |")


# ---- what a device measured ----

def read_figures(path):
    """{(quantity, K, V, B): value}; lines of quantity K V B value."""
    figures = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            try:
                quantity, K, V, B, value = words
                figures[quantity, int(K), int(V), int(B)] = float(value)
            except ValueError as problem:
                raise SystemExit(f"model.py: {path}:{number}: expected quantity K V B value, "
                                 f"found '{line.strip()}'") from problem
            if quantity not in PREDICTED:
                raise SystemExit(f"model.py: {path}:{number}: no quantity '{quantity}'; "
                                 f"expected {', '.join(PREDICTED)}")
    return figures


# quantity: (unit, the model's figure of it for constants, K, V, B)
PREDICTED = {
    "copy": ("GB/s", lambda c, K, V, B: c["copy_rate"]),
    "normalise": ("us", lambda c, K, V, B: c["normalise"] * K
                  + transfer_us(4.0 * V * B * K, c["copy_rate"])),
    "combine": ("us", lambda c, K, V, B: c["combine"]
                + transfer_us(4.0 * V * B * K, c["combine_share"] * c["copy_rate"])),
    "draw": ("us", lambda c, K, V, B: c["draw"] + K * c["draw_policy"]),
    # of tests/gpu/positions.py: one GPU, responses of 256 tokens, half of them in the cache
    "decode": ("us", lambda c, K, V, B: K * decode_us(c, "1B Q8", B, length=128)),
    "position": ("us", lambda c, K, V, B: together_us(c, (K, V, B))),
    "mixing": ("us", lambda c, K, V, B: together_us(c, (K, V, B))),
}


def constants_from(figures):
    """What follows from figures: the copy's rate, and of each call its fixed part and rate."""
    found = {}
    copies = [value for (quantity, *_), value in figures.items() if quantity == "copy"]
    if copies:
        found["copy_rate"] = max(copies)
    sizes = {name: sorted((K * V * B, K, value) for (quantity, K, V, B), value in figures.items()
                          if quantity == name) for name in ("normalise", "combine", "draw")}
    if sizes["combine"]:
        size, _, least = sizes["combine"][0]
        most = sizes["combine"][-1]
        found["combine"] = least
        if most[0] > size and most[2] > least and copies:
            rate = 4e-3 * (most[0] - size) / (most[2] - least)
            found["combine_share"] = rate / found["copy_rate"]
    if sizes["normalise"]:
        found["normalise"] = sizes["normalise"][0][2] / sizes["normalise"][0][1]
    if sizes["draw"]:
        found["draw"] = sizes["draw"][0][2] - sizes["draw"][0][1] * CONSTANTS["draw_policy"][0]
    return found


def compare(figures):
    """Lines (quantity, K, V, B, unit, measured, model, ratio)."""
    c = constants()
    lines = []
    for (quantity, *shape), measured in figures.items():
        unit, predict = PREDICTED[quantity]
        model = predict(c, *shape)
        lines.append((quantity, *shape, unit, measured, model, measured / model))
    return lines


def read_stages(path):
    """[{stage, result, seconds, limit, why}] of on_device.sh"""
    names = ("stage", "result", "seconds", "limit", "why")
    with open(path, encoding="utf-8", errors="replace") as file:
        stages = [dict(zip(names, line.rstrip("\n").split("\t"))) for line in file]
    return [{**stage, "seconds": int(stage["seconds"]), "limit": int(stage["limit"])}
            for stage in stages]


def print_comparison(options):
    figures = read_figures(options.compare)
    lines = compare(figures)
    stages = read_stages(options.stages) if options.stages else []
    about = dict(text.split("=", 1) for text in options.about)
    for name, text in about.items():
        print(f"# {name}: {text}")
    for stage in stages:
        print(*stage.values(), sep="\t")
    names = ("quantity", "K", "V", "B", "unit", "measured", "model", "ratio")
    print(*names, sep="\t")
    for *words, measured, model, ratio in lines:
        print(*words, f"{measured:.4g}", f"{model:.4g}", f"{ratio:.2f}", sep="\t")
    if not lines:
        print("nothing was measured")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**about, "stages": stages,
                       "figures": [dict(zip(names, line)) for line in lines],
                       "constants": constants_from(figures)}, file, indent=1)
            file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--constants", help="what on_device.sh measured, its table.json")
    parser.add_argument("--gpu", choices=sorted(GPUS), default="H200")
    parser.add_argument("--summary", action="store_true", help="print the table of model.md")
    parser.add_argument("--compare", metavar="FIGURES", help="set figures beside the model's")
    parser.add_argument("--stages", help="with --compare: stages.tsv, how each stage ended")
    parser.add_argument("--about", action="append", default=[], metavar="NAME=TEXT")
    parser.add_argument("--json", help="with --compare: write them here too")
    options = parser.parse_args()
    if options.compare:
        print_comparison(options)
        return
    changed = {"copy_rate": GPUS[options.gpu]}
    if options.constants:
        with open(options.constants, encoding="utf-8") as file:
            changed.update(json.load(file)["constants"])
    (print_summary if options.summary else print_table)(constants(changed))


if __name__ == "__main__":
    main()
