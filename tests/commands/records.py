# SPDX-License-Identifier: Apache-2.0
"""Records as tests look at them: two compared, every data set but the clocks, byte for byte."""

import h5py

import tables

CLOCKS = ("timing", "time", "elapsed", "provenance")


def values(path):
    """{name: value} of every data set but the clocks."""
    return each_data_set(path, lambda item: item[()])


def data_sets(path):
    """{name: bytes and shape} of every data set but the clocks."""
    return each_data_set(path, lambda item: (item.dtype.str, item.shape, item[()].tobytes()))


def each_data_set(path, read):
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and name.split("/")[0] not in CLOCKS:
            found[name] = read(item)

    with h5py.File(path, "r") as record:
        record.visititems(visit)
    return found


def steps_in(path):
    """Steps of a record that may be written now; 0 while it is being made."""
    try:
        with h5py.File(path, "r", swmr=True, libver="latest") as record:
            return len(record["step"])
    except (OSError, KeyError):
        return 0


def same(expected, found, what):
    tables.check(expected.keys() == found.keys(), "%s: other data sets: %s" % (
        what, sorted(expected.keys() ^ found.keys())))
    for name, content in expected.items():
        tables.check(content == found[name], "%s: /%s differs" % (what, name))
