/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of dimensions, as HDF5's dimension scales, so that programs which think in named
 * dimensions (NetCDF, xarray) take every group of a record as it is.
 *
 * A dimension that has no values of its own gets a scale of the kind that NetCDF makes for
 * one: its NAME says that it is no variable, and nothing is ever written to it. One that
 * grows keeps the extent 0; NetCDF and h5netcdf take the longest data set along it, so a
 * step does not have to extend it. Names are those of one dimension in the whole file, so
 * that groups can be merged.
 *
 * Names of objectives and policies are text of a fixed length. NetCDF gives such text as
 * str, h5netcdf as bytes; xarray decodes bytes that have an attribute _Encoding, but fails
 * if it finds one beside a str. So it is stored as an array of one text, a type of
 * attribute that h5netcdf reads and NetCDF leaves out.
 *
 * Source: NetCDF-4 file format specification, "Dimensions without coordinate variables".
 */
#include "record_impl.h"

#include <hdf5_hl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define GROWING_CHUNK_ROWS 1024
#define NAME_BYTES         96

/* ---- texts ---- */

enum mpo_status mpo_record_put_encoding(hid_t data_set)
{
    enum mpo_status status = MPO_OK;
    static const char encoding[] = "utf-8";
    const hsize_t one = 1;
    hid_t text = H5I_INVALID_HID;
    hid_t type = H5I_INVALID_HID;
    hid_t space = H5I_INVALID_HID;
    hid_t attribute = H5I_INVALID_HID;
    MPO_TRY(mpo_record_make_text_type(sizeof encoding, H5T_STR_NULLTERM, &text));
    MPO_TRY_HDF5(type = H5Tarray_create2(text, 1, &one), "_Encoding");
    MPO_TRY_HDF5(space = H5Screate(H5S_SCALAR), "_Encoding");
    MPO_TRY_HDF5(attribute = H5Acreate2(data_set, "_Encoding", type, space, H5P_DEFAULT,
                                        H5P_DEFAULT),
                 "_Encoding");
    MPO_TRY_HDF5(H5Awrite(attribute, type, encoding), "_Encoding");
cleanup:
    mpo_record_hdf5_release(&attribute);
    mpo_record_hdf5_release(&space);
    mpo_record_hdf5_release(&type);
    mpo_record_hdf5_release(&text);
    return status;
}

/* ---- names along a dimension ---- */

enum mpo_status mpo_record_make_names(hid_t file, const struct mpo_record_names *names,
                                      hid_t *out)
{
    enum mpo_status status = MPO_OK;
    char *packed = NULL;
    hid_t type = H5I_INVALID_HID;
    MPO_NEW(names->count * MPO_RECORD_NAME_BYTES, &packed);
    for (int32_t i = 0; i < names->count; i++) {
        const char *name = names->name[i];
        const size_t bytes = strlen(name);
        MPO_CHECK(bytes > 0 && bytes <= MPO_RECORD_NAME_BYTES, MPO_ERR_CONFIG,
                  "the name \"%s\" must have 1 to %d bytes", name, MPO_RECORD_NAME_BYTES);
        memcpy(packed + (size_t)i * MPO_RECORD_NAME_BYTES, name, bytes);
    }
    MPO_TRY(mpo_record_make_text_type(MPO_RECORD_NAME_BYTES, H5T_STR_NULLPAD, &type));
    const struct mpo_record_fixed spec = {.path = names->path,
                                          .units = "1",
                                          .long_name = names->long_name,
                                          .file_type = type,
                                          .memory_type = type,
                                          .rows = (hsize_t)names->count};
    MPO_TRY(mpo_record_make_fixed(file, &spec, packed, out));
    MPO_TRY(mpo_record_put_encoding(*out));
    MPO_TRY_HDF5(H5DSset_scale(*out, names->path), "%s", names->path);
cleanup:
    mpo_record_hdf5_release(&type);
    free(packed);
    return status;
}

/* ---- a dimension without values ---- */

static enum mpo_status make_empty_scale(hid_t file, const char *path,
                                        const hsize_t extent[2], hid_t *out)
{
    enum mpo_status status = MPO_OK;
    const bool grows = extent[1] == H5S_UNLIMITED;
    const hsize_t rows = grows ? 0 : extent[0];
    const hsize_t chunk = GROWING_CHUNK_ROWS;
    char name[NAME_BYTES] = "";
    hid_t space = H5I_INVALID_HID;
    hid_t properties = H5I_INVALID_HID;
    MPO_TRY_HDF5(space = H5Screate_simple(1, &rows, &extent[1]), "%s", path);
    MPO_TRY(mpo_record_make_properties(H5P_DATASET_CREATE, &properties));
    if (grows)
        MPO_TRY_HDF5(H5Pset_chunk(properties, 1, &chunk), "%s", path);
    MPO_TRY_HDF5(*out = H5Dcreate2(file, path, H5T_IEEE_F32BE, space, H5P_DEFAULT,
                                   properties, H5P_DEFAULT),
                 "%s", path);
    MPO_TRY(mpo_record_put_units(*out, "1", "name of a dimension; no values"));
    snprintf(name, sizeof name, "This is a netCDF dimension but not a netCDF variable.%10d",
             rows < INT32_MAX ? (int)rows : INT32_MAX);
    MPO_TRY_HDF5(H5DSset_scale(*out, name), "%s", path);
cleanup:
    mpo_record_hdf5_release(&properties);
    mpo_record_hdf5_release(&space);
    return status;
}

enum mpo_status mpo_record_name_dimension(hid_t file, const char *path, hid_t data_set)
{
    enum mpo_status status = MPO_OK;
    hid_t space = H5I_INVALID_HID;
    hid_t scale = H5I_INVALID_HID;
    hsize_t extent[2] = {0, 0};
    MPO_TRY_HDF5(space = H5Dget_space(data_set), "%s", path);
    MPO_TRY_HDF5(H5Sget_simple_extent_dims(space, &extent[0], &extent[1]), "%s", path);
    MPO_TRY(make_empty_scale(file, path, extent, &scale));
    MPO_TRY_HDF5(H5DSattach_scale(data_set, scale, 0), "%s", path);
cleanup:
    mpo_record_hdf5_release(&scale);
    mpo_record_hdf5_release(&space);
    return status;
}
