/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading texts of a record: a response with its prompt, and the configuration.
 *
 * Responses lie one after another in responses/text, prompts in prompts/text; offsets come
 * from the file and are checked against its extents before anything is allocated for them.
 */
#include "record_impl.h"

#include <stdlib.h>

#include "base/argument.h"
#include "base/memory.h"

#define CONFIG_BYTES_MAX (1 << 24)

/* Elements part[0] .. part[0] + part[1] - 1 of a one-dimensional data set. */
static enum mpo_status read_part(const struct mpo_record *record, const char *path,
                                 const int64_t part[2], hid_t type, void *out)
{
    return mpo_record_read_rows(
        record, &(struct mpo_record_rows){path, type, 1, part[0], part[1]}, out);
}

/* Owned, ended by a NUL. */
static enum mpo_status read_text(const struct mpo_record *record, const char *path,
                                 const int64_t part[2], char **out)
{
    enum mpo_status status = MPO_OK;
    int64_t bytes = 0;
    MPO_TRY(mpo_record_count_rows(record, path, &bytes));
    MPO_CHECK(part[1] >= 0 && part[1] <= bytes, MPO_ERR_DATA,
              "%s has %lld bytes, fewer than a text of %lld", path, (long long)bytes,
              (long long)part[1]);
    MPO_NEW(part[1] + 1, out);
    MPO_TRY(read_part(record, path, part, H5T_NATIVE_UINT8, *out));
cleanup:
    return status;
}

static enum mpo_status read_response(const struct mpo_record *record, int64_t index,
                                     struct mpo_record_sample *out)
{
    enum mpo_status status = MPO_OK;
    const int64_t one[2] = {index, 1};
    int64_t part[2] = {0, 0};
    int32_t ended = 0;
    MPO_TRY(read_part(record, "responses/prompt", one, H5T_NATIVE_INT64, &out->prompt));
    MPO_TRY(read_part(record, "responses/token_count", one, H5T_NATIVE_INT32,
                      &out->token_count));
    MPO_TRY(read_part(record, "responses/ended", one, H5T_NATIVE_INT32, &ended));
    out->ended = ended != 0;
    MPO_TRY(read_part(record, "responses/text_offset", one, H5T_NATIVE_INT64, &part[0]));
    MPO_TRY(read_part(record, "responses/text_bytes", one, H5T_NATIVE_INT64, &part[1]));
    MPO_TRY(read_text(record, "responses/text", part, &out->text));
cleanup:
    return status;
}

enum mpo_status mpo_record_read_sample(const struct mpo_record *record, int64_t index,
                                       struct mpo_record_sample *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record, out);
    int64_t offset[2] = {0, 0};
    *out = (struct mpo_record_sample){0};
    mpo_record_hdf5_prepare();
    MPO_TRY(read_response(record, index, out));
    const int64_t two[2] = {out->prompt, 2};
    MPO_TRY(read_part(record, "prompts/offset", two, H5T_NATIVE_INT64, offset));
    MPO_CHECK(offset[0] >= 0 && offset[1] >= offset[0], MPO_ERR_DATA,
              "prompts/offset holds %lld before %lld, expected increasing numbers",
              (long long)offset[0], (long long)offset[1]);
    const int64_t part[2] = {offset[0], offset[1] - offset[0]};
    MPO_TRY(read_text(record, "prompts/text", part, &out->prompt_text));
cleanup:
    if (status != MPO_OK)
        mpo_record_release_sample(out);
    return mpo_record_reword(record, status);
}

void mpo_record_release_sample(struct mpo_record_sample *sample)
{
    if (sample == NULL)
        return;
    free(sample->prompt_text);
    free(sample->text);
    *sample = (struct mpo_record_sample){0};
}

enum mpo_status mpo_record_read_config(const struct mpo_record *record, char **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record, out);
    static const char path[] = "provenance/config";
    hid_t data_set = H5I_INVALID_HID;
    hid_t space = H5I_INVALID_HID;
    hid_t type = H5I_INVALID_HID;
    mpo_record_hdf5_prepare();
    MPO_TRY_HDF5(data_set = H5Dopen2(record->file, path, H5P_DEFAULT), "%s", path);
    MPO_TRY_HDF5(space = H5Dget_space(data_set), "%s", path);
    MPO_TRY_HDF5(type = H5Dget_type(data_set), "%s", path);
    const size_t bytes = H5Tget_size(type);
    MPO_CHECK(H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
                  H5Sget_simple_extent_npoints(space) == 1 && bytes <= CONFIG_BYTES_MAX,
              MPO_ERR_DATA, "%s is not one text of fixed length", path);
    MPO_NEW(bytes + 1, out);
    MPO_TRY_HDF5(H5Dread(data_set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *out), "%s", path);
cleanup:
    mpo_record_hdf5_release(&type);
    mpo_record_hdf5_release(&space);
    mpo_record_hdf5_release(&data_set);
    return mpo_record_reword(record, status);
}

enum mpo_status mpo_record_read_notes(const struct mpo_record *record, char **out)
{
    enum mpo_status status = MPO_OK;
    static const char path[] = "provenance/notes";
    htri_t is_there = 0;
    int64_t part[2] = {0, 0};
    MPO_ARGUMENTS(record, out);
    mpo_record_hdf5_prepare();
    MPO_TRY(mpo_record_has_path(record->file, path, &is_there));
    if (is_there > 0)
        MPO_TRY(mpo_record_count_rows(record, path, &part[1]));
    MPO_CHECK(part[1] <= CONFIG_BYTES_MAX, MPO_ERR_DATA, "%s has %lld bytes", path,
              (long long)part[1]);
    if (part[1] > 0)
        MPO_TRY(read_text(record, path, part, out));
    else
        MPO_TRY(mpo_memory_copy_text("", out));
cleanup:
    return mpo_record_reword(record, status);
}

enum mpo_status mpo_record_has(const struct mpo_record *record, const char *path,
                               bool *exists)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record, path, exists);
    MPO_CHECK(path[0] != '\0' && path[0] != '/', MPO_ERR_USAGE,
              "expected a path without a leading slash, as responses/token, found '%s'",
              path);
    htri_t found = 0;
    mpo_record_hdf5_prepare();
    MPO_TRY(mpo_record_has_path(record->file, path, &found));
    *exists = found > 0;
cleanup:
    return mpo_record_reword(record, status);
}
