/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a record: lock, room at the path, the file with everything that will ever be in
 * it, then SWMR.
 *
 * The order matters. The lock comes first, so that no other process moves or makes the file
 * meanwhile. The file is made beside its name, as PATH.part, and gets the name when it is
 * whole: a run that is killed before leaves nothing at PATH that would stop the next one.
 * From H5Fstart_swmr_write on no object may be made, and no attribute may be open at that
 * moment. A file that could not be completed is removed again.
 */
#include "record_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5_hl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mpo/report.h"
#include "base/argument.h"
#include "base/memory.h"
#include "base/reason.h"

#define FIXED_CHUNK_ROWS 65536
#define PAGE_BYTES       4096

/* ---- the file ---- */

static enum mpo_status name_draft(const char *path, char **draft)
{
    enum mpo_status status = MPO_OK;
    const size_t bytes = strlen(path) + sizeof ".part";
    MPO_NEW(bytes, draft);
    snprintf(*draft, bytes, "%s.part", path);
cleanup:
    return status;
}

/* HDF5 does not say why a file cannot be created. A leftover of a killed run is removed. */
static enum mpo_status empty_draft(const struct mpo_record_writer *writer,
                                   const char *draft)
{
    enum mpo_status status = MPO_OK;
    const int descriptor = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    MPO_CHECK(descriptor >= 0, mpo_reason_status(errno, MPO_ERR_OUTPUT),
              "cannot make %s: %s", writer->path, strerror(errno));
    close(descriptor);
cleanup:
    return status;
}

/* link refuses an existing name in one system call; some file systems have no links. */
static enum mpo_status publish_draft(const struct mpo_record_writer *writer,
                                     const char *draft)
{
    enum mpo_status status = MPO_OK;
    if (link(draft, writer->path) == 0) {
        unlink(draft);
        goto cleanup;
    }
    MPO_CHECK(
        errno != EEXIST, MPO_ERR_OUTPUT,
        "%s was just created by another program; name another file with --record.file",
        writer->path);
    MPO_CHECK(rename(draft, writer->path) == 0, mpo_reason_status(errno, MPO_ERR_OUTPUT),
              "cannot rename %s to %s: %s", draft, writer->path, strerror(errno));
cleanup:
    return status;
}

static enum mpo_status make_file(struct mpo_record_writer *writer, const char *draft)
{
    enum mpo_status status = MPO_OK;
    hid_t creation = H5I_INVALID_HID;
    hid_t access = H5I_INVALID_HID;
    MPO_TRY(mpo_record_make_properties(H5P_FILE_CREATE, &creation));
    /* A kill can stop the kernel between two pages of one write, and a header torn
     * so fails its checksum. In pages of their own, small pieces never cross from
     * one to the next. */
    MPO_TRY_HDF5(H5Pset_file_space_strategy(creation, H5F_FSPACE_STRATEGY_PAGE, false, 1),
                 "creation properties");
    MPO_TRY_HDF5(H5Pset_file_space_page_size(creation, PAGE_BYTES), "creation properties");
    MPO_TRY_HDF5(access = H5Pcreate(H5P_FILE_ACCESS), "access properties");
    MPO_TRY_HDF5(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110),
                 "access properties");
    MPO_TRY_HDF5(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "access properties");
    MPO_TRY(mpo_record_set_chunk_cache(access));
    /* HDF5 locks the file until SWMR starts, so no reader opens it half-created. */
    MPO_TRY_HDF5(H5Pset_file_locking(access, !writer->lock.is_refused, true),
                 "access properties");
    /* Pages need an extension of the superblock, which HDF5 makes with the library's
     * default properties and so with time stamps; without them, identical runs stay
     * identical. If a version of HDF5 refuses this, only that is lost. */
    H5Pset_obj_track_times(H5P_GROUP_CREATE_DEFAULT, false);
    writer->schema.file = H5Fcreate(draft, H5F_ACC_TRUNC, creation, access);
    MPO_TRY_HDF5(writer->schema.file, "making %s", writer->path);
cleanup:
    H5Pset_obj_track_times(H5P_GROUP_CREATE_DEFAULT, true);
    mpo_record_hdf5_release(&access);
    mpo_record_hdf5_release(&creation);
    return status;
}

enum mpo_status mpo_record_make_fixed(hid_t file, const struct mpo_record_fixed *spec,
                                      const void *source, hid_t *out)
{
    enum mpo_status status = MPO_OK;
    const hsize_t limit = spec->grows ? H5S_UNLIMITED : spec->rows;
    const hsize_t chunk = spec->chunk_rows > 0            ? spec->chunk_rows
                          : spec->rows < FIXED_CHUNK_ROWS ? spec->rows
                                                          : FIXED_CHUNK_ROWS;
    hid_t id = H5I_INVALID_HID;
    hid_t space = H5I_INVALID_HID;
    hid_t properties = H5I_INVALID_HID;
    MPO_TRY_HDF5(space = H5Screate_simple(1, &spec->rows, &limit), "%s", spec->path);
    MPO_TRY(mpo_record_make_properties(H5P_DATASET_CREATE, &properties));
    if (spec->rows > 0) {
        MPO_TRY_HDF5(H5Pset_chunk(properties, 1, &chunk), "%s", spec->path);
        MPO_TRY_HDF5(H5Pset_fletcher32(properties), "%s", spec->path);
    }
    MPO_TRY_HDF5(id = H5Dcreate2(file, spec->path, spec->file_type, space, H5P_DEFAULT,
                                 properties, H5P_DEFAULT),
                 "%s", spec->path);
    if (spec->rows > 0)
        MPO_TRY_HDF5(H5Dwrite(id, spec->memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, source),
                     "%s", spec->path);
    MPO_TRY(mpo_record_put_units(id, spec->units, spec->long_name));
    if (spec->dimension != NULL)
        MPO_TRY(mpo_record_name_dimension(file, spec->dimension, id));
cleanup:
    mpo_record_hdf5_release(&properties);
    mpo_record_hdf5_release(&space);
    if (out != NULL && status == MPO_OK)
        *out = id;
    else
        mpo_record_hdf5_release(&id);
    return status;
}

static enum mpo_status make_group(hid_t file, const char *path, hid_t *out)
{
    enum mpo_status status = MPO_OK;
    hid_t properties = H5I_INVALID_HID;
    MPO_TRY(mpo_record_make_properties(H5P_GROUP_CREATE, &properties));
    MPO_TRY_HDF5(*out = H5Gcreate2(file, path, H5P_DEFAULT, properties, H5P_DEFAULT),
                 "group %s", path);
cleanup:
    mpo_record_hdf5_release(&properties);
    return status;
}

enum mpo_status mpo_record_make_text_type(size_t bytes, H5T_str_t padding, hid_t *out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY_HDF5(*out = H5Tcopy(H5T_C_S1), "text type");
    MPO_TRY_HDF5(H5Tset_size(*out, bytes), "text type");
    MPO_TRY_HDF5(H5Tset_strpad(*out, padding), "text type");
    MPO_TRY_HDF5(H5Tset_cset(*out, H5T_CSET_UTF8), "text type");
cleanup:
    return status;
}

/* ---- prompts ---- */

static enum mpo_status make_prompts(hid_t file, const struct mpo_record_spec *spec)
{
    enum mpo_status status = MPO_OK;
    hid_t group = H5I_INVALID_HID;
    int64_t *offset = NULL;
    char *text = NULL;
    MPO_NEW(spec->prompt_count + 1, &offset);
    for (int64_t i = 0; i < spec->prompt_count; i++)
        offset[i + 1] = offset[i] + (int64_t)strlen(spec->prompt[i]);
    const size_t bytes = (size_t)offset[spec->prompt_count];
    MPO_NEW(bytes, &text);
    for (int64_t i = 0; i < spec->prompt_count; i++)
        memcpy(text + offset[i], spec->prompt[i], (size_t)(offset[i + 1] - offset[i]));
    const struct mpo_record_fixed offset_spec = {
        .path = "prompts/offset",
        .units = "byte",
        .long_name = "first byte of each prompt in text; one more at the end",
        .dimension = "prompts/prompt_bound",
        .file_type = H5T_STD_I64LE,
        .memory_type = H5T_NATIVE_INT64,
        .rows = (hsize_t)spec->prompt_count + 1};
    const struct mpo_record_fixed text_spec = {.path = "prompts/text",
                                               .units = "1",
                                               .long_name =
                                                   "prompts in UTF-8, one after another",
                                               .dimension = "prompts/prompt_byte",
                                               .file_type = H5T_STD_U8LE,
                                               .memory_type = H5T_NATIVE_UINT8,
                                               .rows = bytes};
    MPO_TRY(make_group(file, "prompts", &group));
    MPO_TRY(mpo_record_make_fixed(file, &offset_spec, offset, NULL));
    MPO_TRY(mpo_record_make_fixed(file, &text_spec, text, NULL));
cleanup:
    mpo_record_hdf5_release(&group);
    free(text);
    free(offset);
    return status;
}

/* ---- exponents ---- */

static enum mpo_status make_exponents(const struct mpo_record_schema *schema,
                                      const struct mpo_record_spec *spec)
{
    enum mpo_status status = MPO_OK;
    char strength[32] = "";
    hid_t id = H5I_INVALID_HID;
    const struct mpo_record_fixed scale = {.path = "scale",
                                           .units = "1",
                                           .long_name = "exponent of a full weight",
                                           .file_type = H5T_IEEE_F64LE,
                                           .memory_type = H5T_NATIVE_DOUBLE,
                                           .rows = (hsize_t)spec->objective_count};
    snprintf(strength, sizeof strength, "%.17g", spec->strength);
    MPO_TRY(mpo_record_put_attribute(schema->file, "strength", strength));
    MPO_TRY(mpo_record_make_fixed(schema->file, &scale, spec->scale, &id));
    MPO_TRY_HDF5(H5DSattach_scale(id, schema->objective, 0), "scale");
cleanup:
    mpo_record_hdf5_release(&id);
    return status;
}

/* ---- rewards ---- */

static enum mpo_status make_reward_scale(const struct mpo_record_schema *schema,
                                         const struct mpo_record_spec *spec)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_record_rewards *rewards = spec->rewards;
    const struct {
        const char *path;
        const char *long_name;
        const double *value;
    } all[] = {
        {"reward_zero", "reward that counts as 0", rewards->scale.zero},
        {"reward_one", "reward that counts as 1", rewards->scale.one},
        {"reward_zero_error", "standard error of reward_zero", rewards->scale.zero_error},
        {"reward_one_error", "standard error of reward_one", rewards->scale.one_error},
    };
    MPO_TRY(mpo_record_put_attribute(schema->file, "objective",
                                     rewards->is_objective ? "reward" : "likelihood"));
    MPO_TRY(mpo_record_put_attribute(schema->file, "reward_zero_of", rewards->zero_of));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        hid_t id = H5I_INVALID_HID;
        const struct mpo_record_fixed one = {.path = all[i].path,
                                             .units = "1",
                                             .long_name = all[i].long_name,
                                             .file_type = H5T_IEEE_F64LE,
                                             .memory_type = H5T_NATIVE_DOUBLE,
                                             .rows = (hsize_t)spec->objective_count};
        status = mpo_record_make_fixed(schema->file, &one, all[i].value, &id);
        if (status == MPO_OK && H5DSattach_scale(id, schema->objective, 0) < 0)
            status = mpo_record_hdf5_raise(__FILE__, __LINE__, "%s", all[i].path);
        mpo_record_hdf5_release(&id);
        MPO_TRY(status);
    }
cleanup:
    return status;
}

/* ---- provenance ---- */

/* The configuration as one string, so that h5dump and h5py show it as text. */
static enum mpo_status make_config(hid_t file, const char *text)
{
    enum mpo_status status = MPO_OK;
    const char *config = text != NULL ? text : "";
    hid_t id = H5I_INVALID_HID;
    hid_t type = H5I_INVALID_HID;
    hid_t space = H5I_INVALID_HID;
    hid_t properties = H5I_INVALID_HID;
    MPO_TRY(mpo_record_make_text_type(strlen(config) + 1, H5T_STR_NULLPAD, &type));
    MPO_TRY_HDF5(space = H5Screate(H5S_SCALAR), "provenance/config");
    MPO_TRY(mpo_record_make_properties(H5P_DATASET_CREATE, &properties));
    MPO_TRY_HDF5(id = H5Dcreate2(file, "provenance/config", type, space, H5P_DEFAULT,
                                 properties, H5P_DEFAULT),
                 "provenance/config");
    MPO_TRY_HDF5(H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, config),
                 "provenance/config");
    MPO_TRY(mpo_record_put_units(id, "1", "configuration as used, YAML"));
    MPO_TRY(mpo_record_put_encoding(id));
cleanup:
    mpo_record_hdf5_release(&properties);
    mpo_record_hdf5_release(&space);
    mpo_record_hdf5_release(&type);
    mpo_record_hdf5_release(&id);
    return status;
}

static enum mpo_status make_provenance(hid_t file, const struct mpo_record_spec *spec)
{
    enum mpo_status status = MPO_OK;
    hid_t group = H5I_INVALID_HID;
    MPO_TRY(make_group(file, "provenance", &group));
    for (int32_t i = 0; i < spec->attribute_count; i++)
        MPO_TRY(mpo_record_put_attribute(group, spec->attribute[i].name,
                                         spec->attribute[i].value));
    MPO_TRY(make_config(file, spec->config_text));
    MPO_TRY(mpo_record_make_tables(file, spec));
cleanup:
    mpo_record_hdf5_release(&group);
    return status;
}

/* ---- all together ---- */

static enum mpo_status fill_file(struct mpo_record_writer *writer,
                                 const struct mpo_record_spec *spec)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_schema *schema = &writer->schema;
    const hid_t file = schema->file;
    const struct mpo_record_names objectives = {"objective", "objectives", spec->objective,
                                                spec->objective_count};
    const struct mpo_record_names policies = {"policy", "hosted policies, objectives first",
                                              spec->policy, spec->policy_count};
    MPO_TRY(mpo_record_put_attribute(file, "Conventions", "CF-1.10"));
    MPO_TRY(mpo_record_put_attribute(file, "log_schema", MPO_RECORD_SCHEMA));
    MPO_TRY(mpo_record_put_attribute(file, "target", spec->target));
    MPO_TRY(mpo_record_put_attribute(file, "average", spec->average));
    MPO_TRY(mpo_record_put_attribute(file, "run_id", spec->run_id));
    MPO_TRY(mpo_record_put_attribute(file, "created_utc", spec->created_utc));
    MPO_TRY(mpo_record_make_names(file, &objectives, &schema->objective));
    MPO_TRY(mpo_record_make_names(file, &policies, &schema->policy));
    schema->has_rewards = spec->rewards != NULL;
    schema->is_by_reward = schema->has_rewards && spec->rewards->is_objective;
    MPO_TRY(mpo_record_make_columns(schema, spec->objective_count, spec->policy_count));
    MPO_TRY(make_exponents(schema, spec));
    if (spec->rewards != NULL)
        MPO_TRY(make_reward_scale(schema, spec));
    MPO_TRY(make_prompts(file, spec));
    MPO_TRY(make_provenance(file, spec));
    MPO_TRY_HDF5(H5Fflush(file, H5F_SCOPE_GLOBAL), "flush");
    MPO_TRY_HDF5(H5Fstart_swmr_write(file), "SWMR");
cleanup:
    if (status != MPO_OK)
        mpo_error_raise(status, __FILE__, __LINE__, "making %s: %s", writer->path,
                        mpo_error_text());
    return status;
}

enum mpo_status mpo_record_writer_new(const char *path, const char *job_id,
                                      struct mpo_record_writer **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_writer *writer = NULL;
    MPO_NEW(1, &writer);
    mpo_record_invalidate(&writer->schema);
    writer->lock.descriptor = -1;
    writer->last_step = -1;
    writer->guard.by_name = -1;
    MPO_TRY(mpo_memory_copy_text(path, &writer->path));
    MPO_TRY(mpo_record_lock_take(path, job_id, &writer->lock));
cleanup:
    if (status != MPO_OK)
        mpo_record_writer_free(&writer);
    *out = writer;
    return status;
}

static enum mpo_status check_counts(const struct mpo_record_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(
        spec->objective_count >= 1 && spec->policy_count >= spec->objective_count,
        MPO_ERR_USAGE,
        "%s: expected objectives, and as many policies or more, found objective_count "
        "%d and policy_count %d",
        spec->path, spec->objective_count, spec->policy_count);
    MPO_CHECK((spec->prompt_count == 0 || spec->prompt != NULL) &&
                  (spec->attribute_count == 0 || spec->attribute != NULL) &&
                  (spec->rank_count == 0 || spec->rank != NULL),
              MPO_ERR_USAGE,
              "%s: expected arrays for prompt_count, attribute_count and rank_count, found "
              "NULL for one that is not 0",
              spec->path);
cleanup:
    return status;
}

enum mpo_status mpo_record_create(const struct mpo_record_spec *spec,
                                  struct mpo_record_writer **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, spec);
    MPO_ARGUMENTS(spec->path, spec->objective, spec->policy, spec->scale);
    struct mpo_record_writer *writer = NULL;
    char *draft = NULL;
    mpo_record_hdf5_prepare();
    MPO_TRY(check_counts(spec));
    MPO_TRY(mpo_record_writer_new(spec->path, spec->job_id, &writer));
    writer->objective_count = spec->objective_count;
    writer->policy_count = spec->policy_count;
    MPO_TRY(mpo_record_make_room(spec->path, spec->force));
    MPO_TRY(name_draft(spec->path, &draft));
    MPO_TRY(empty_draft(writer, draft));
    MPO_TRY(make_file(writer, draft));
    MPO_TRY(fill_file(writer, spec));
    MPO_TRY(publish_draft(writer, draft));
    if (mpo_record_is_on_network(spec->path))
        mpo_report(MPO_REPORT_WARNING, "%s " MPO_RECORD_NETWORK_ADVICE, spec->path);
    mpo_record_guard_note(writer);
    *out = writer;
cleanup:
    if (status != MPO_OK && writer != NULL) {
        if (draft != NULL)
            unlink(draft);
        writer->broken = status == MPO_ERR_IO || status == MPO_ERR_MEMORY;
        mpo_record_writer_free(&writer);
    }
    free(draft);
    return status;
}
