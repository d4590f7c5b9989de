#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What one position costs on N nodes: an alpha-beta model of each pattern of the exchange.

    model.py [--network NAME | --latency-us A --gigabytes B] [--decode-ms D] ... > table.tsv

A message of n bytes takes alpha + n beta. A node has one link and what arrives on it arrives one
after another; alpha is charged for each message at the rank that gets most, an upper bound, as
messages that are under way together overlap. Rows are 4 V + 8 bytes: V floats and a normaliser.
With K policies on N nodes of G ranks, P = N G, h = K / P policies a rank and B rows:

    pattern            messages from other nodes    bytes into the node from others
    mpi, gather        (P - G) (h B + 1)            (K - K/N) B (4 V + 8)
    nodes, gather      N - 1                        (K - K/N) B (4 V + 8)
    mpi, alltoall      (P - G) (h B + 1)            (K - K/N) B (4 V / N + 8 G)
    nodes, alltoall    N - 1                        (K - K/N) B (4 V / N + 8)

Messages and bytes are what tests/mpi/test_traffic.c counts at the senders; with alltoall rows are
cut into slices of the vocabulary, one a rank, as even as possible. Inside a node a core copies
--copy-gigabytes a second: in `nodes` all ranks copy their rows at once and meet, with alltoall
once more when those of other nodes are there; in `mpi` the receiver copies those of its
neighbours. Drawn tokens go back in ceil(log2 P) messages of 4 B bytes. One exchange is a position;
a step has as many as its longest response has tokens.
"""

import argparse
import math

# alpha in microseconds, bytes a second in 1e9: nominal, see README.md for where they are from.
NETWORKS = {
    "10GbE": (50.0, 1.25),
    "25GbE": (50.0, 3.125),
    "100GbE": (50.0, 12.5),
    "HDR": (1.0, 25.0),
    "NDR": (1.0, 50.0),
}
PATTERNS = ("mpi gather", "nodes gather", "mpi alltoall", "nodes alltoall")
POLICIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def inside_seconds(pattern, ranks, hosted, options):
    """Copies and messages between ranks of one node."""
    transport, kind = pattern.split()
    per_node = min(ranks, options.ranks_per_node)
    alpha, rate = 1e-6 * options.inner_latency_us, 1e9 * options.copy_gigabytes
    own = hosted * options.rows * (4 * options.vocabulary + 8) / rate
    if per_node == 1:
        return 0.0
    if transport == "nodes":
        meetings = 2 if kind == "alltoall" and ranks > per_node else 1
        return own + meetings * alpha * math.ceil(math.log2(per_node))
    messages = (per_node - 1) * (hosted * options.rows + 1)
    return messages * alpha + (per_node - 1) * own / (ranks if kind == "alltoall" else 1)


def seconds(pattern, policies, network, options):
    """One position of one group that hosts all policies, G ranks a node."""
    alpha, rate = 1e-6 * network[0], 1e9 * network[1]
    ranks = min(policies, options.max_ranks)
    if ranks == 1:
        return 0.0
    per_node = min(ranks, options.ranks_per_node)
    nodes = ranks / per_node
    hosted, rows = policies / ranks, options.rows
    transport, kind = pattern.split()
    messages = nodes - 1
    if transport == "mpi":
        messages = (ranks - per_node) * (hosted * rows + 1)
    bytes_of_row = 4 * options.vocabulary + 8
    if kind == "alltoall":
        norms = 8 * (per_node if transport == "mpi" else 1)
        bytes_of_row = 4 * options.vocabulary / nodes + norms
    arriving = (policies - policies / nodes) * rows * bytes_of_row
    tokens = math.ceil(math.log2(ranks)) * (1e-6 * options.inner_latency_us if nodes == 1
                                            else alpha + 4 * rows / rate)
    return (messages * alpha + arriving / rate + tokens
            + inside_seconds(pattern, ranks, hosted, options))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=sorted(NETWORKS))
    parser.add_argument("--latency-us", type=float, help="alpha between nodes")
    parser.add_argument("--gigabytes", type=float, help="1e9 bytes a second between nodes")
    parser.add_argument("--inner-latency-us", type=float, default=1.0)
    parser.add_argument("--copy-gigabytes", type=float, default=10.0)
    parser.add_argument("--ranks-per-node", type=int, default=8)
    parser.add_argument("--max-ranks", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=16, help="B")
    parser.add_argument("--vocabulary", type=int, default=128256, help="V")
    parser.add_argument("--decode-ms", type=float, default=20.0, help="a token of a policy")
    parser.add_argument("--share", type=float, default=0.05, help="of it that may be added")
    options = parser.parse_args()
    networks = NETWORKS
    if options.network:
        networks = {options.network: NETWORKS[options.network]}
    if (options.latency_us is None) != (options.gigabytes is None):
        parser.error("--latency-us and --gigabytes go together")
    if options.latency_us is not None:
        networks = {"own": (options.latency_us, options.gigabytes)}
    budget = options.decode_ms * options.share
    print("network\tpattern\tK\tms\twithin")
    for name, network in networks.items():
        for pattern in PATTERNS:
            for policies in POLICIES:
                cost = 1e3 * seconds(pattern, policies, network, options)
                print("%s\t%s\t%d\t%.3g\t%s" % (
                    name, pattern, policies, cost, "yes" if cost <= budget else "no"))


if __name__ == "__main__":
    main()
