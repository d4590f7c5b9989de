/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The growing data sets of a record and what HDF5 needs around them.
 *
 * All of them are made before SWMR starts, because HDF5 allows no new object after that.
 * They are chunked along the steps and carry no fletcher32 checksum: the last chunk is
 * rewritten with every step, and a crash in the middle of that write would make the
 * checksum reject rows that were acknowledged before and are still there, byte for byte.
 * What was not written reads as NaN or -1: after a crash, a row that a step left half done
 * differs from one of step 0. Time stamps of objects are off, so that identical runs give
 * identical files. Attributes are variable-length strings, which h5py and xarray give as
 * str (fixed-length ones as bytes).
 */
#include "record_impl.h"

#include <errno.h>
#include <hdf5_hl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#define PATH_BYTES 64

enum kind { KIND_F64, KIND_I64, KIND_I32, KIND_U8 };
enum width { COLUMNS_0, COLUMNS_K, COLUMNS_H };

#define COLUMNS_SCALAR    COLUMNS_0
#define COLUMNS_OBJECTIVE COLUMNS_K

struct column_spec {
    const char *path;
    enum kind kind;
    enum width width;
    hsize_t chunk_rows;
    const char *units;
    const char *long_name;
};

static const struct mpo_record_field fields[] = {
#define MPO_FIELD(path, member, type, shape, units, long_name)                             \
    {#path, #type, #shape, units, long_name},
#include "mpo/record.def"
#undef MPO_FIELD
};

static const struct column_spec field_specs[] = {
#define MPO_FIELD(path, member, type, shape, units, long_name)                             \
    {#path, KIND_##type, COLUMNS_##shape, MPO_RECORD_FIELD_CHUNK_ROWS, units, long_name},
#include "mpo/record.def"
#undef MPO_FIELD
};

static const struct column_spec response_specs[] = {
#define RESPONSE_SPEC(name, type, columns, chunk_rows, units, long_name)                   \
    {"responses/" #name, KIND_##type, COLUMNS_##columns, chunk_rows, units, long_name},
    MPO_RECORD_RESPONSE_LIST(RESPONSE_SPEC)
#undef RESPONSE_SPEC
};

static const struct column_spec step_spec = {
    "step",    KIND_I64,
    COLUMNS_0, MPO_RECORD_FIELD_CHUNK_ROWS,
    "1",       "step; written last, it commits a row"};

static const struct column_spec checksum_spec = {
    "checksum", KIND_I64,
    COLUMNS_0,  MPO_RECORD_FIELD_CHUNK_ROWS,
    "1",        "sum over data sets of XXH64(rows of the step)"};

int32_t mpo_record_field_count(void)
{
    return MPO_RECORD_FIELD_COUNT;
}

const struct mpo_record_field *mpo_record_field(int32_t index)
{
    return &fields[index];
}

/* ---- growing data sets ---- */

static hid_t file_type(enum kind kind)
{
    const hid_t types[] = {H5T_IEEE_F64LE, H5T_STD_I64LE, H5T_STD_I32LE, H5T_STD_U8LE};
    return types[kind];
}

static hid_t memory_type(enum kind kind)
{
    const hid_t types[] = {H5T_NATIVE_DOUBLE, H5T_NATIVE_INT64, H5T_NATIVE_INT32,
                           H5T_NATIVE_UINT8};
    return types[kind];
}

int mpo_record_descriptor(hid_t file)
{
    int *descriptor = NULL;
    if (H5Fget_vfd_handle(file, H5P_DEFAULT, (void **)&descriptor) < 0 ||
        descriptor == NULL)
        return -1;
    return *descriptor;
}

/* Nothing in a record is compressed, so an element needs at least one byte of the file. */
enum mpo_status mpo_record_check_extent(hid_t data_set, const char *path,
                                        const hsize_t extent[2])
{
    enum mpo_status status = MPO_OK;
    struct stat found = {0};
    hid_t file = H5I_INVALID_HID;
    MPO_TRY_HDF5(file = H5Iget_file_id(data_set), "%s", path);
    MPO_CHECK(fstat(mpo_record_descriptor(file), &found) == 0, MPO_ERR_IO, "%s: %s", path,
              strerror(errno));
    const hsize_t room = (hsize_t)found.st_size;
    MPO_CHECK(extent[0] <= room && extent[1] <= room &&
                  (extent[1] == 0 || extent[0] <= room / extent[1]),
              MPO_ERR_DATA,
              "%s claims %llu rows and %llu columns, more than the %llu bytes of the file "
              "can hold; the file is damaged",
              path, (unsigned long long)extent[0], (unsigned long long)extent[1],
              (unsigned long long)room);
cleanup:
    mpo_record_hdf5_release(&file);
    return status;
}

enum mpo_status mpo_record_has_path(hid_t file, const char *path, htri_t *exists)
{
    enum mpo_status status = MPO_OK;
    char group[PATH_BYTES] = "";
    const char *slash = strchr(path, '/');
    *exists = 1;
    if (slash != NULL) {
        snprintf(group, sizeof group, "%.*s", (int)(slash - path), path);
        MPO_TRY_HDF5(*exists = H5Lexists(file, group, H5P_DEFAULT), "%s", path);
    }
    if (*exists > 0)
        MPO_TRY_HDF5(*exists = H5Lexists(file, path, H5P_DEFAULT), "%s", path);
cleanup:
    return status;
}

/* Make the group of "group/name" unless it is there;
 * HDF5's own way gives it time stamps. */
static enum mpo_status make_group_of(hid_t file, const char *path)
{
    enum mpo_status status = MPO_OK;
    hid_t properties = H5I_INVALID_HID;
    hid_t group = H5I_INVALID_HID;
    char name[PATH_BYTES] = "";
    const char *slash = strchr(path, '/');
    if (slash == NULL)
        return MPO_OK;
    snprintf(name, sizeof name, "%.*s", (int)(slash - path), path);
    htri_t exists = 0;
    MPO_TRY_HDF5(exists = H5Lexists(file, name, H5P_DEFAULT), "group %s", name);
    if (exists > 0)
        goto cleanup;
    MPO_TRY(mpo_record_make_properties(H5P_GROUP_CREATE, &properties));
    MPO_TRY_HDF5(group = H5Gcreate2(file, name, H5P_DEFAULT, properties, H5P_DEFAULT),
                 "group %s", name);
cleanup:
    mpo_record_hdf5_release(&group);
    mpo_record_hdf5_release(&properties);
    return status;
}

static enum mpo_status make_layout(const struct column_spec *spec, hsize_t columns,
                                   hid_t *space, hid_t *properties)
{
    enum mpo_status status = MPO_OK;
    const double missing = NAN;
    const int64_t missing_index = -1;
    const int dimensions = columns > 0 ? 2 : 1;
    const hsize_t extent[2] = {0, columns};
    const hsize_t limit[2] = {H5S_UNLIMITED, columns};
    const hsize_t chunk[2] = {spec->chunk_rows, columns};
    MPO_TRY_HDF5(*space = H5Screate_simple(dimensions, extent, limit), "%s", spec->path);
    MPO_TRY(mpo_record_make_properties(H5P_DATASET_CREATE, properties));
    MPO_TRY_HDF5(H5Pset_chunk(*properties, dimensions, chunk), "%s", spec->path);
    if (spec->kind == KIND_F64)
        MPO_TRY_HDF5(H5Pset_fill_value(*properties, H5T_NATIVE_DOUBLE, &missing), "%s",
                     spec->path);
    else if (spec->kind != KIND_U8)
        MPO_TRY_HDF5(H5Pset_fill_value(*properties, H5T_NATIVE_INT64, &missing_index), "%s",
                     spec->path);
cleanup:
    return status;
}

/* What is known of a column without its file. */
static void describe_column(const struct column_spec *spec, hsize_t columns,
                            struct mpo_record_column *out)
{
    static const size_t bytes[] = {[KIND_F64] = sizeof(double),
                                   [KIND_I64] = sizeof(int64_t),
                                   [KIND_I32] = sizeof(int32_t),
                                   [KIND_U8] = sizeof(uint8_t)};
    out->path = spec->path;
    out->memory_type = memory_type(spec->kind);
    out->columns = columns;
    out->row_bytes = bytes[spec->kind] * (columns > 0 ? (size_t)columns : 1);
    out->seed = XXH64(spec->path, strlen(spec->path), 0);
    out->is_clock = strcmp(spec->units, "s") == 0 || strstr(spec->units, " since ") != NULL;
}

static enum mpo_status make_column(hid_t file, const struct column_spec *spec,
                                   hsize_t columns, struct mpo_record_column *out)
{
    enum mpo_status status = MPO_OK;
    hid_t space = H5I_INVALID_HID;
    hid_t properties = H5I_INVALID_HID;
    describe_column(spec, columns, out);
    MPO_TRY(make_group_of(file, spec->path));
    MPO_TRY(make_layout(spec, columns, &space, &properties));
    MPO_TRY_HDF5(out->id = H5Dcreate2(file, spec->path, file_type(spec->kind), space,
                                      H5P_DEFAULT, properties, H5P_DEFAULT),
                 "%s", spec->path);
    MPO_TRY(mpo_record_put_units(out->id, spec->units, spec->long_name));
    if (strstr(spec->units, " since ") != NULL)
        MPO_TRY(mpo_record_put_attribute(out->id, "calendar", "standard"));
cleanup:
    mpo_record_hdf5_release(&properties);
    mpo_record_hdf5_release(&space);
    return status;
}

/* Attach the scales of a data set; `rows` is the one along its growing dimension. */
static enum mpo_status attach_scales(const struct mpo_record_schema *schema,
                                     const struct column_spec *spec, hid_t data_set,
                                     hid_t rows)
{
    enum mpo_status status = MPO_OK;
    const hid_t columns[] = {[COLUMNS_K] = schema->objective, [COLUMNS_H] = schema->policy};
    MPO_TRY_HDF5(H5DSattach_scale(data_set, rows, 0), "%s", spec->path);
    if (spec->width != COLUMNS_0)
        MPO_TRY_HDF5(H5DSattach_scale(data_set, columns[spec->width], 1), "%s", spec->path);
cleanup:
    return status;
}

bool mpo_record_is_of_rewards(enum mpo_record_field_index field)
{
    return field == MPO_RECORD_FIELD_rewards;
}

/* Whether its unit is that of the gradient. */
static bool follows_gradient(enum mpo_record_field_index field)
{
    return field == MPO_RECORD_FIELD_gradient || field == MPO_RECORD_FIELD_dual ||
           field == MPO_RECORD_FIELD_averaged_gap || field == MPO_RECORD_FIELD_step_size ||
           field == MPO_RECORD_FIELD_average_gradient ||
           field == MPO_RECORD_FIELD_imbalance ||
           field == MPO_RECORD_FIELD_imbalance_error ||
           field == MPO_RECORD_FIELD_state_range_squares ||
           field == MPO_RECORD_FIELD_state_inner_sum ||
           field == MPO_RECORD_FIELD_state_gradient_sum;
}

enum mpo_status mpo_record_make_columns(struct mpo_record_schema *schema,
                                        int32_t objectives, int32_t policies)
{
    enum mpo_status status = MPO_OK;
    const hsize_t columns[] = {[COLUMNS_0] = 0,
                               [COLUMNS_K] = (hsize_t)objectives,
                               [COLUMNS_H] = (hsize_t)policies};
    const hid_t *response = &schema->response[MPO_RECORD_RESPONSE_response].id;
    MPO_TRY(make_column(schema->file, &step_spec, 0, &schema->step));
    MPO_TRY_HDF5(H5DSset_scale(schema->step.id, "step"), "step");
    MPO_TRY(make_column(schema->file, &checksum_spec, 0, &schema->checksum));
    MPO_TRY(attach_scales(schema, &checksum_spec, schema->checksum.id, schema->step.id));
    for (int32_t i = 0; i < MPO_RECORD_FIELD_COUNT; i++) {
        const struct column_spec *spec = &field_specs[i];
        struct column_spec unitless = *spec;
        if (mpo_record_is_of_rewards((enum mpo_record_field_index)i) &&
            !schema->has_rewards)
            continue;
        unitless.units = "1";
        if (schema->is_by_reward && follows_gradient((enum mpo_record_field_index)i))
            spec = &unitless;
        MPO_TRY(make_column(schema->file, spec, columns[spec->width], &schema->field[i]));
        MPO_TRY(attach_scales(schema, spec, schema->field[i].id, schema->step.id));
    }
    for (int32_t i = 0; i < MPO_RECORD_RESPONSE_COUNT; i++) {
        const struct column_spec *spec = &response_specs[i];
        bool is_of_rewards =
            i == MPO_RECORD_RESPONSE_reward || i == MPO_RECORD_RESPONSE_control;
        if (is_of_rewards && !schema->has_rewards)
            continue;
        MPO_TRY(
            make_column(schema->file, spec, columns[spec->width], &schema->response[i]));
        if (i == MPO_RECORD_RESPONSE_response)
            MPO_TRY_HDF5(H5DSset_scale(*response, "response"), "%s", spec->path);
        else if (i == MPO_RECORD_RESPONSE_token)
            MPO_TRY(mpo_record_name_dimension(schema->file, "responses/response_token",
                                              schema->response[i].id));
        else if (i == MPO_RECORD_RESPONSE_text)
            MPO_TRY(mpo_record_name_dimension(schema->file, "responses/response_byte",
                                              schema->response[i].id));
        else
            MPO_TRY(attach_scales(schema, spec, schema->response[i].id, *response));
    }
cleanup:
    return status;
}

void mpo_record_invalidate(struct mpo_record_schema *schema)
{
    *schema = (struct mpo_record_schema){
        .file = H5I_INVALID_HID, .objective = H5I_INVALID_HID, .policy = H5I_INVALID_HID};
    schema->step.id = H5I_INVALID_HID;
    schema->checksum.id = H5I_INVALID_HID;
    for (int32_t i = 0; i < MPO_RECORD_FIELD_COUNT; i++)
        schema->field[i].id = H5I_INVALID_HID;
    for (int32_t i = 0; i < MPO_RECORD_RESPONSE_COUNT; i++)
        schema->response[i].id = H5I_INVALID_HID;
}

/* Open a data set of an existing file; a missing one stays invalid. */
static enum mpo_status open_column(hid_t file, const struct column_spec *spec,
                                   struct mpo_record_column *out)
{
    enum mpo_status status = MPO_OK;
    hid_t space = H5I_INVALID_HID;
    hsize_t extent[2] = {0, 0};
    htri_t exists = 0;
    describe_column(spec, 0, out);
    MPO_TRY(mpo_record_has_path(file, spec->path, &exists));
    if (exists == 0)
        goto cleanup;
    MPO_TRY_HDF5(out->id = H5Dopen2(file, spec->path, H5P_DEFAULT), "%s", spec->path);
    MPO_TRY_HDF5(space = H5Dget_space(out->id), "%s", spec->path);
    const int dimensions = H5Sget_simple_extent_ndims(space);
    MPO_CHECK(dimensions == (spec->width == COLUMNS_0 ? 1 : 2), MPO_ERR_DATA,
              "%s has %d dimensions", spec->path, dimensions);
    MPO_TRY_HDF5(H5Sget_simple_extent_dims(space, extent, NULL), "%s", spec->path);
    MPO_TRY(mpo_record_check_extent(out->id, spec->path, extent));
    describe_column(spec, extent[1], out);
    out->rows = extent[0];
cleanup:
    mpo_record_hdf5_release(&space);
    return status;
}

enum mpo_status mpo_record_open_columns(hid_t file, struct mpo_record_schema *schema)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(open_column(file, &step_spec, &schema->step));
    MPO_TRY(open_column(file, &checksum_spec, &schema->checksum));
    for (int32_t i = 0; i < MPO_RECORD_FIELD_COUNT; i++)
        MPO_TRY(open_column(file, &field_specs[i], &schema->field[i]));
    for (int32_t i = 0; i < MPO_RECORD_RESPONSE_COUNT; i++)
        MPO_TRY(open_column(file, &response_specs[i], &schema->response[i]));
cleanup:
    return status;
}

bool mpo_record_came_later(enum mpo_record_field_index field)
{
    return field == MPO_RECORD_FIELD_divergence ||
           field == MPO_RECORD_FIELD_average_gradient ||
           field == MPO_RECORD_FIELD_imbalance || field == MPO_RECORD_FIELD_imbalance_error;
}

enum mpo_status mpo_record_append_rows(struct mpo_record_column *column, size_t rows,
                                       const void *source)
{
    enum mpo_status status = MPO_OK;
    hid_t file_space = H5I_INVALID_HID;
    hid_t memory_space = H5I_INVALID_HID;
    const int dimensions = column->columns > 0 ? 2 : 1;
    const hsize_t start[2] = {column->rows, 0};
    const hsize_t count[2] = {rows, column->columns};
    const hsize_t extent[2] = {column->rows + rows, column->columns};
    if (rows == 0 || column->id < 0)
        return MPO_OK;
    MPO_TRY_HDF5(H5Dset_extent(column->id, extent), "%s", column->path);
    MPO_TRY_HDF5(file_space = H5Dget_space(column->id), "%s", column->path);
    MPO_TRY_HDF5(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL),
                 "%s", column->path);
    MPO_TRY_HDF5(memory_space = H5Screate_simple(dimensions, count, NULL), "%s",
                 column->path);
    MPO_TRY_HDF5(H5Dwrite(column->id, column->memory_type, memory_space, file_space,
                          H5P_DEFAULT, source),
                 "%s", column->path);
    column->rows += rows;
cleanup:
    mpo_record_hdf5_release(&memory_space);
    mpo_record_hdf5_release(&file_space);
    return status;
}

const char *mpo_record_library_version(void)
{
    /* "HDF5 library version 1.10.8": what follows the last space. */
    const char *space = strrchr(H5_VERS_INFO, ' ');
    return space != NULL ? space + 1 : H5_VERS_INFO;
}
