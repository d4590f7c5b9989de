# SPDX-License-Identifier: Apache-2.0
"""Two records compared: every data set but the clocks, byte for byte."""

import h5py

import tables

CLOCKS = ("timing", "time", "elapsed", "provenance")


def data_sets(path):
    """{name: bytes and shape} of every data set but the clocks."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and name.split("/")[0] not in CLOCKS:
            found[name] = (item.dtype.str, item.shape, item[()].tobytes())

    with h5py.File(path, "r") as record:
        record.visititems(visit)
    return found


def same(expected, found, what):
    tables.check(expected.keys() == found.keys(), "%s: other data sets: %s" % (
        what, sorted(expected.keys() ^ found.keys())))
    for name, content in expected.items():
        tables.check(content == found[name], "%s: /%s differs" % (what, name))
