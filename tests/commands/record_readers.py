#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A record reads without our help: h5py, h5dump, and xarray by both of its engines.

    record_readers.py RECORD [--live]

Checks units and long_name of every data set, the dimension scales, the shapes, and the
offsets of prompts and responses; in xarray the names of all dimensions, all numbers, the names
of objectives as text and times as times. With --live the file is one that is being written, or that a
crash left: h5py opens it beside the writer, and h5dump, which cannot, is left out.
"""

import argparse
import subprocess
import sys
import tempfile

import h5py
import numpy as np

failures = []


def expect(condition, text):
    if not condition:
        failures.append(text)


def check_root(file):
    expect(file.attrs["Conventions"] == "CF-1.10", "Conventions")
    expect(file.attrs["log_schema"] == "mpo-1.1", "log_schema")
    for name in ("run_id", "created_utc"):
        expect(isinstance(file.attrs[name], str), f"{name} is not text")
    for name in ("objective", "policy"):
        expect(file[name].dtype == "S64", f"{name}: {file[name].dtype}")
        text = h5py.check_string_dtype(file[name].dtype)
        expect(text is not None and text.encoding == "utf-8", f"{name} is not UTF-8")
    for name in ("objective", "policy", "step"):
        expect(h5py.h5ds.is_scale(file[name].id), f"{name} is no dimension scale")


def check_data_set(file, path, data_set):
    """One data set of any kind; gives 1 so that callers can count."""
    for name in ("units", "long_name"):
        value = data_set.attrs.get(name)
        expect(isinstance(value, str) and value != "", f"{path} has no {name}")
    top = path.split("/")[0]
    if top in ("prompts", "provenance", "responses") or path in ("objective", "policy"):
        return 1
    if path == "scale" or path.startswith("reward_"):
        expect(list(data_set.dims[0].keys()) == ["objective"], "scale: no scale objective")
        return 1
    steps = len(file["step"])
    expect(data_set.shape[0] == steps, f"{path}: {data_set.shape[0]} rows, step has {steps}")
    expect(data_set.maxshape[0] is None, f"{path} cannot grow")
    expect(data_set.fletcher32 is False, f"{path} has a checksum that a crash would break")
    if path != "step":
        expect(list(data_set.dims[0].keys()) == ["step"], f"{path}: no scale step")
    if data_set.ndim == 2:
        expect(list(data_set.dims[1].keys()) == ["objective"], f"{path}: no scale objective")
        expect(data_set.shape[1] == len(file["objective"]), f"{path}: {data_set.shape}")
    return 1


def check_data_sets(file):
    found = []
    file.visititems(lambda path, item: found.append(path)
                    if isinstance(item, h5py.Dataset) else None)
    return sum(check_data_set(file, path, file[path]) for path in found)


def check_prompts(file):
    offset = file["prompts/offset"][()]
    text = file["prompts/text"][()].tobytes()
    expect(offset[0] == 0 and offset[-1] == len(text), "prompts/offset does not cover text")
    expect(np.all(np.diff(offset) >= 0), "prompts/offset goes down")
    for begin, end in zip(offset[:-1], offset[1:]):
        text[begin:end].decode("utf-8")
    return len(offset) - 1


def check_responses(file, prompts):
    group = file["responses"]
    rows = int(np.isin(group["step"][()], file["step"][()]).sum())
    for name in ("prompt", "token_count", "ended", "log_proposal", "token_offset",
                 "text_offset", "text_bytes"):
        expect(len(group[name]) >= rows, f"responses/{name} has {len(group[name])} rows")
    expect(group["log_policy"].shape[1] == len(file["policy"]), "responses/log_policy columns")
    expect(list(group["step"].dims[0].keys()) == ["response"], "responses: no scale response")
    expect(list(group["log_policy"].dims[1].keys()) == ["policy"], "responses: no scale policy")
    tokens = group["token_offset"][:rows] + group["token_count"][:rows]
    expect(np.all(tokens <= len(group["token"])), "responses/token is too short")
    expect(np.all(group["prompt"][:rows] < prompts), "responses/prompt out of range")
    text = group["text"][()].tobytes()
    for begin, size in zip(group["text_offset"][:rows], group["text_bytes"][:rows]):
        expect(begin + size <= len(text), "responses/text is too short")
        text[begin:begin + size].decode("utf-8", errors="replace")
    return rows


def check_provenance(file):
    group = file["provenance"]
    for name, value in group.attrs.items():
        expect(isinstance(value, str), f"provenance/@{name} is not text")
    group["config"][()].decode("utf-8")
    expect(group["segments"].maxshape == (None,), "provenance/segments cannot grow")
    expect(set(group["segments"].dtype.names) == {"first_step", "restart_count", "job_id",
                                                  "git_commit", "start_time"}, "segments")
    expect({"rank", "host", "local_rank", "device", "gpu_uuid", "threads", "policy", "model",
            "sha256", "lora_sha256", "vocabulary"} == set(group["ranks"].dtype.names),
           "provenance/ranks")
    return len(group["ranks"])


def check_h5dump(path):
    dumped = subprocess.run(["h5dump", "-H", path], capture_output=True, text=True, check=False)
    expect(dumped.returncode == 0, f"h5dump: {dumped.stderr.strip()}")
    expect('DATASET "weights"' in dumped.stdout, "h5dump shows no weights")
    print("h5dump: read")


# A list of two texts of a fixed length, which NetCDF before 4.9.1 reads as one.
TEXT_PROBE = """
import sys, h5py, netCDF4, numpy
with h5py.File(sys.argv[1], "w") as file:
    file["name"] = numpy.array(["one", "two"], "S8")
with netCDF4.Dataset(sys.argv[1]) as file:
    assert list(file["name"][:]) == ["one", "two"]
"""
FIXED_TEXTS = ["objective", "policy", "config"]
GROUPS = {
    "/": {"weights": ("step", "objective"), "average": ("step", "objective"),
          "value": ("step",), "time": ("step",)},
    "state": {"weights_sum": ("step", "objective"), "inner_sum": ("step",)},
    "timing": {"decode": ("step",)},
    "responses": {"log_policy": ("response", "policy"), "step": ("response",),
                  "text_offset": ("response",), "token": ("response_token",),
                  "text": ("response_byte",)},
    "prompts": {"offset": ("prompt_bound",), "text": ("prompt_byte",)},
    "provenance": {},
}


def texts_to_leave_out(engine):
    """What an old NetCDF cannot read without damage to its memory."""
    if engine != "netcdf4":
        return []
    with tempfile.TemporaryDirectory() as folder:
        probe = subprocess.run([sys.executable, "-c", TEXT_PROBE, folder + "/probe.h5"],
                               capture_output=True, check=False)
    if probe.returncode == 0:
        return []
    print("netcdf4: SKIP names of objectives: this NetCDF cannot read lists of texts")
    return FIXED_TEXTS


def check_group(data, group, wanted, h5):
    for name, dims in wanted.items():
        expect(data[name].dims == dims, f"xarray: {group} {name} {data[name].dims}")
    for name, variable in data.variables.items():
        found = h5[group][name]
        expect(variable.shape == found.shape, f"xarray: {group} {name} {variable.shape}")
        expect(not any(name.startswith("phony") for name in variable.dims),
               f"xarray: {group} {name} has no names of dimensions")
        if variable.dtype.kind in "fiu":
            expect(np.array_equal(variable.values, found[()], equal_nan=True)
                   if variable.dtype.kind == "f" else
                   np.array_equal(variable.values, found[()]), f"xarray: {group} {name}")


def check_root_of_xarray(data, h5, left_out):
    for name, units in (("value", "nat"), ("step_size", "1/nat"), ("elapsed", "s")):
        expect(data[name].attrs["units"] == units, f"xarray: units of {name}")
    expect(data["time"].dtype.kind == "M", f"xarray: time is {data['time'].dtype}")
    seconds = data["time"].values.astype("datetime64[us]").astype(float) / 1e6
    expect(np.allclose(seconds, h5["time"][()], 0, 1e-3), "xarray: time")
    if left_out:
        return
    for name in ("objective", "policy"):
        texts = [text.rstrip(b"\0").decode() for text in h5[name][()]]
        expect(data[name].values.tolist() == texts, f"xarray: {data[name].values}")
    for k, name in enumerate(data["objective"].values.tolist()):
        expect(np.array_equal(data["weights"].sel(objective=name), h5["weights"][:, k]),
               "xarray: selecting an objective by name")


def check_xarray(path, engine):
    """Every group by one engine: names of dimensions, shapes, values, names and times."""
    try:
        import xarray
        __import__({"h5netcdf": "h5netcdf", "netcdf4": "netCDF4"}[engine])
    except ImportError as error:
        print(f"xarray with {engine}: SKIP ({error})")
        return
    left_out = texts_to_leave_out(engine)
    sizes = {}
    with h5py.File(path, "r") as h5:
        for group, wanted in GROUPS.items():
            with xarray.open_dataset(path, engine=engine, group=group,
                                     drop_variables=left_out) as data:
                check_group(data, group, wanted, h5)
                for name, size in data.sizes.items():
                    expect(sizes.setdefault(name, size) == size,
                           f"xarray: {name} has {sizes[name]} and {size} in {group}")
                if group == "/":
                    check_root_of_xarray(data, h5, left_out)
                if group == "provenance" and not left_out:
                    expect(str(data["config"].values).startswith("run:"), "xarray: config")
    print(f"xarray with {engine}: read, {len(sizes)} dimensions")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("record")
    parser.add_argument("--live", action="store_true")
    args = parser.parse_args()
    how = {"swmr": True, "libver": "latest"} if args.live else {}
    with h5py.File(args.record, "r", **how) as file:
        check_root(file)
        data_sets = check_data_sets(file)
        prompts = check_prompts(file)
        responses = check_responses(file, prompts)
        ranks = check_provenance(file)
        print(f"h5py: {data_sets} data sets, {len(file['step'])} steps, {prompts} prompts, "
              f"{responses} responses, {ranks} ranks")
    if not args.live:
        check_h5dump(args.record)
        for engine in ("h5netcdf", "netcdf4"):
            check_xarray(args.record, engine)
    for text in failures:
        print("BAD", text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
