/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading rows of a data set, whatever the file says.
 *
 * Every reader of this folder goes through here: the shape of a data set is compared with
 * what was asked for before HDF5 writes into a caller's buffer, and an extent is believed
 * only as far as the file has room for it.
 */
#include "record_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "mpo/exponents.h"

static enum mpo_status extent_of(hid_t data_set, const char *path, hsize_t extent[2])
{
    enum mpo_status status = MPO_OK;
    hid_t space = H5I_INVALID_HID;
    extent[1] = 1;
    MPO_TRY_HDF5(space = H5Dget_space(data_set), "%s", path);
    const int dimensions = H5Sget_simple_extent_ndims(space);
    MPO_CHECK(dimensions == 1 || dimensions == 2, MPO_ERR_DATA,
              "%s: expected 1 or 2 dimensions, found %d", path, dimensions);
    MPO_TRY_HDF5(H5Sget_simple_extent_dims(space, extent, NULL), "%s", path);
    MPO_TRY(mpo_record_check_extent(data_set, path, extent));
cleanup:
    mpo_record_hdf5_release(&space);
    return status;
}

/* Open a growing data set with its current extent in the file. */
static enum mpo_status open_current(const struct mpo_record *record, const char *path,
                                    hid_t *out, hsize_t extent[2])
{
    enum mpo_status status = MPO_OK;
    MPO_TRY_HDF5(*out = H5Dopen2(record->file, path, H5P_DEFAULT), "%s", path);
    if (record->swmr)
        MPO_TRY_HDF5(H5Drefresh(*out), "%s", path);
    MPO_TRY(extent_of(*out, path, extent));
cleanup:
    return status;
}

enum mpo_status mpo_record_count_rows(const struct mpo_record *record, const char *path,
                                      int64_t *count)
{
    enum mpo_status status = MPO_OK;
    hsize_t extent[2] = {0, 1};
    hid_t data_set = H5I_INVALID_HID;
    MPO_TRY(open_current(record, path, &data_set, extent));
    *count = (int64_t)extent[0];
cleanup:
    mpo_record_hdf5_release(&data_set);
    return status;
}

static enum mpo_status read_block(hid_t data_set, const struct mpo_record_rows *rows,
                                  void *values)
{
    enum mpo_status status = MPO_OK;
    hid_t file_space = H5I_INVALID_HID;
    hid_t memory_space = H5I_INVALID_HID;
    const hsize_t start[2] = {(hsize_t)rows->first, 0};
    const hsize_t block[2] = {(hsize_t)rows->count, rows->columns};
    const hsize_t total = block[0] * block[1];
    MPO_TRY_HDF5(file_space = H5Dget_space(data_set), "%s", rows->path);
    MPO_TRY_HDF5(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, block, NULL),
                 "%s", rows->path);
    MPO_TRY_HDF5(memory_space = H5Screate_simple(1, &total, NULL), "%s", rows->path);
    MPO_TRY_HDF5(
        H5Dread(data_set, rows->type, memory_space, file_space, H5P_DEFAULT, values), "%s",
        rows->path);
cleanup:
    mpo_record_hdf5_release(&memory_space);
    mpo_record_hdf5_release(&file_space);
    return status;
}

enum mpo_status mpo_record_read_rows(const struct mpo_record *record,
                                     const struct mpo_record_rows *rows, void *values)
{
    enum mpo_status status = MPO_OK;
    hsize_t extent[2] = {0, 1};
    hid_t data_set = H5I_INVALID_HID;
    if (rows->count == 0)
        return MPO_OK;
    MPO_TRY(open_current(record, rows->path, &data_set, extent));
    MPO_CHECK(extent[1] == rows->columns, MPO_ERR_DATA,
              "%s has %llu columns, expected %llu", rows->path,
              (unsigned long long)extent[1], (unsigned long long)rows->columns);
    MPO_CHECK(rows->first >= 0 && rows->count > 0 && (hsize_t)rows->first <= extent[0] &&
                  (hsize_t)rows->count <= extent[0] - (hsize_t)rows->first,
              MPO_ERR_DATA, "%s has %llu rows, expected %lld from %lld on", rows->path,
              (unsigned long long)extent[0], (long long)rows->count,
              (long long)rows->first);
    MPO_TRY(read_block(data_set, rows, values));
cleanup:
    mpo_record_hdf5_release(&data_set);
    return status;
}

enum mpo_status mpo_record_read_rewards(const struct mpo_record *record,
                                        struct mpo_record_rewards *out, bool *exists)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record, out, exists);
    static const char *const path[] = {"reward_zero", "reward_one", "reward_zero_error",
                                       "reward_one_error"};
    double *const value[] = {out->scale.zero, out->scale.one, out->scale.zero_error,
                             out->scale.one_error};
    mpo_record_hdf5_prepare();
    MPO_TRY(mpo_record_has(record, "rewards", exists));
    if (!*exists)
        goto cleanup;
    out->is_objective = strcmp(mpo_record_attribute(record, "objective"), "reward") == 0;
    out->zero_of = mpo_record_attribute(record, "reward_zero_of");
    for (size_t i = 0; i < sizeof path / sizeof *path; i++) {
        const struct mpo_record_rows rows = {path[i], H5T_NATIVE_DOUBLE, 1, 0,
                                             record->objective_count};
        MPO_TRY(mpo_record_read_rows(record, &rows, value[i]));
    }
cleanup:
    return status;
}

enum mpo_status mpo_record_read_exponents(const struct mpo_record *record, double *strength,
                                          double *scale)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record, strength, scale);
    const char *text = mpo_record_attribute(record, "strength");
    const struct mpo_record_rows rows = {"scale", H5T_NATIVE_DOUBLE, 1, 0,
                                         record->objective_count};
    char *end = NULL;
    mpo_record_hdf5_prepare();
    *strength = 1.0;
    for (int32_t k = 0; k < record->objective_count; k++)
        scale[k] = 1.0;
    if (text[0] == '\0')
        goto cleanup;
    *strength = strtod(text, &end);
    MPO_CHECK(*end == '\0' && *strength > 0.0 && *strength <= MPO_STRENGTH_MAX,
              MPO_ERR_DATA, "%s: expected a strength above 0 and at most %g, found \"%s\"",
              record->path, MPO_STRENGTH_MAX, text);
    MPO_TRY(mpo_record_read_rows(record, &rows, scale));
    for (int32_t k = 0; k < record->objective_count; k++)
        MPO_CHECK(scale[k] > 0.0 && scale[k] <= MPO_SCALE_MAX, MPO_ERR_DATA,
                  "%s: expected scales above 0 and at most %g, found %g as number %d",
                  record->path, MPO_SCALE_MAX, scale[k], k + 1);
cleanup:
    return status;
}
