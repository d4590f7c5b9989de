/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a record: finished, being written, or left by a crash.
 *
 * HDF5 refuses to open a file that is marked as open, unless it is asked to read beside a
 * writer (SWMR); a crashed record is a SWMR file without a writer and is read the same way.
 * The mark is byte 11 of the superblock (HDF5 file format 3.0, section II.A, versions 2 and
 * 3: file consistency flags). Whether a writer lives is asked of its lock, and asked first:
 * a writer closes the file before it lets go of the lock.
 *
 * Nothing is kept of the trajectory: every read opens its data set again, so that a live
 * record shows what is new.
 */
#include "record_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/argument.h"
#include "base/memory.h"
#include "base/reason.h"

#define SUPERBLOCK_BYTES 36
#define FLAGS_BYTE       11 /* the last one that every superblock has */
#define END_BYTE         28 /* of the file, as the superblock notes it */
/* Metadata that a writer is changing is read again; on a damaged file HDF5's default of 100
 * attempts per piece can take minutes. */
#define READ_ATTEMPTS  20
#define ATTRIBUTES_MAX 256
#define NAMES_MAX      65536
#define STEP_MAX       9007199254740992.0 /* 2^53 */

/* ---- the file ---- */

static enum mpo_status check_path(const char *path)
{
    enum mpo_status status = MPO_OK;
    struct stat found;
    if (stat(path, &found) != 0)
        MPO_FAIL(mpo_reason_of_input(errno), "cannot read the record %s: %s", path,
                 strerror(errno));
    MPO_CHECK(!S_ISDIR(found.st_mode), MPO_ERR_INPUT,
              "%s is a directory; name a record in it", path);
    MPO_CHECK(S_ISREG(found.st_mode), MPO_ERR_INPUT, "%s is not a regular file", path);
cleanup:
    return status;
}

/* HDF5 goes round in circles on texts that lie behind the end of a file, as zeros. */
static enum mpo_status check_end(const struct mpo_record *record,
                                 const unsigned char *block, uint64_t file_bytes)
{
    enum mpo_status status = MPO_OK;
    uint64_t end = 0; /* little-endian */
    for (int i = 7; i >= 0; i--)
        end = end << 8 | block[END_BYTE + i];
    bool is_growing = record->live && !record->beside;
    MPO_CHECK(record->complete || is_growing || file_bytes >= end, MPO_ERR_DATA,
              "%s is cut short: expected %llu bytes or more, found %llu; restore a copy",
              record->path, (unsigned long long)end, (unsigned long long)file_bytes);
cleanup:
    return status;
}

static enum mpo_status look_at_superblock(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char block[SUPERBLOCK_BYTES] = {0};
    struct stat found;
    int descriptor = -1;
    record->live = mpo_record_lock_is_held(record->path);
    descriptor = open(record->path, O_RDONLY | O_CLOEXEC);
    MPO_CHECK(descriptor >= 0, mpo_reason_of_input(errno), "cannot read the record %s: %s",
              record->path, strerror(errno));
    MPO_CHECK(fstat(descriptor, &found) == 0, MPO_ERR_IO, "%s: %s", record->path,
              strerror(errno));
    if (record->file < 0)
        record->identity = found;
    if (found.st_ino != record->identity.st_ino ||
        found.st_dev != record->identity.st_dev) {
        record->live = false; /* another run's file; ours is as it was left */
        goto cleanup;
    }
    const ssize_t bytes = pread(descriptor, block, sizeof block, 0);
    MPO_CHECK(bytes >= 0, MPO_ERR_IO, "%s: %s", record->path, strerror(errno));
    if (bytes <= FLAGS_BYTE || memcmp(block, signature, sizeof signature) != 0)
        MPO_FAIL(MPO_ERR_DATA, "%s is not an HDF5 file%s", record->path,
                 record->live ? " yet: a run is creating it; try again in a moment" : "");
    /* No record has an older superblock, without flags; the schema check says so. */
    record->complete = block[sizeof signature] < 2 || block[FLAGS_BYTE] == 0;
    MPO_TRY(check_end(record, block, (uint64_t)found.st_size));
cleanup:
    if (descriptor >= 0)
        close(descriptor);
    return status;
}

static enum mpo_status open_file(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    hid_t access = H5I_INVALID_HID;
    const unsigned swmr = record->complete ? 0 : H5F_ACC_SWMR_READ;
    MPO_TRY_HDF5(access = H5Pcreate(H5P_FILE_ACCESS), "access properties");
    MPO_TRY_HDF5(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110),
                 "access properties");
    MPO_TRY_HDF5(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "access properties");
    /* Readers need no lock, and some file systems have none. */
    MPO_TRY_HDF5(H5Pset_file_locking(access, false, true), "access properties");
    /* HDF5 shares a file that is open already, cache and all, unless the driver differs. */
    if (record->beside)
        MPO_TRY_HDF5(H5Pset_fapl_log(access, NULL, 0, 0), "access properties");
    if (swmr != 0)
        MPO_TRY_HDF5(H5Pset_metadata_read_attempts(access, READ_ATTEMPTS),
                     "access properties");
    record->swmr = swmr != 0;
    MPO_TRY_HDF5(record->file = H5Fopen(record->path, H5F_ACC_RDONLY | swmr, access),
                 "HDF5 cannot open it");
cleanup:
    mpo_record_hdf5_release(&access);
    return status;
}

/* ---- attributes and names ---- */

/* *out stays NULL if the attribute has another type than in a record. */
static enum mpo_status read_text(hid_t attribute, const char *name, char **out)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    hid_t space = H5I_INVALID_HID;
    hid_t file_type = H5I_INVALID_HID;
    hid_t type = H5I_INVALID_HID;
    MPO_TRY_HDF5(file_type = H5Aget_type(attribute), "attribute %s", name);
    MPO_TRY_HDF5(space = H5Aget_space(attribute), "attribute %s", name);
    if (H5Tis_variable_str(file_type) <= 0 || H5Sget_simple_extent_npoints(space) != 1)
        goto cleanup;
    MPO_TRY_HDF5(type = H5Tcopy(file_type), "attribute %s", name);
    MPO_TRY_HDF5(H5Aread(attribute, type, &text), "attribute %s", name);
    MPO_TRY(mpo_memory_copy_text(text != NULL ? text : "", out));
cleanup:
    H5free_memory(text);
    mpo_record_hdf5_release(&space);
    mpo_record_hdf5_release(&type);
    mpo_record_hdf5_release(&file_type);
    return status;
}

static enum mpo_status read_attribute(struct mpo_record *record, hid_t object,
                                      hsize_t index)
{
    enum mpo_status status = MPO_OK;
    char name[128] = "";
    hid_t attribute = H5I_INVALID_HID;
    MPO_TRY(mpo_memory_grow((void **)&record->attribute, &record->attribute_capacity,
                            record->attribute_count + 1, sizeof *record->attribute,
                            "attributes"));
    MPO_TRY_HDF5(attribute = H5Aopen_by_idx(object, ".", H5_INDEX_NAME, H5_ITER_INC, index,
                                            H5P_DEFAULT, H5P_DEFAULT),
                 "attributes");
    MPO_TRY_HDF5(H5Aget_name(attribute, sizeof name, name), "attributes");
    struct mpo_record_text_attribute *slot = &record->attribute[record->attribute_count];
    MPO_TRY(mpo_memory_copy_text(name, &slot->name));
    record->attribute_count++;
    MPO_TRY(read_text(attribute, name, &slot->value));
cleanup:
    mpo_record_hdf5_release(&attribute);
    return status;
}

static enum mpo_status read_attributes(struct mpo_record *record, const char *path)
{
    enum mpo_status status = MPO_OK;
    H5O_info_t info;
    hid_t object = H5I_INVALID_HID;
    MPO_TRY_HDF5(object = H5Oopen(record->file, path, H5P_DEFAULT), "%s", path);
    MPO_TRY_HDF5(H5Oget_info2(object, &info, H5O_INFO_NUM_ATTRS), "%s", path);
    MPO_CHECK(info.num_attrs <= ATTRIBUTES_MAX, MPO_ERR_DATA, "%s has %llu attributes",
              path, (unsigned long long)info.num_attrs);
    for (hsize_t i = 0; i < info.num_attrs; i++)
        MPO_TRY(read_attribute(record, object, i));
cleanup:
    mpo_record_hdf5_release(&object);
    return status;
}

/* "mpo-MAJOR.MINOR" and nothing else. */
static bool read_version(const char *schema, long version[2])
{
    static const char prefix[] = "mpo-";
    char *end = NULL;
    if (strncmp(schema, prefix, strlen(prefix)) != 0)
        return false;
    version[0] = strtol(schema + strlen(prefix), &end, 10);
    if (*end != '.' || end[1] < '0' || end[1] > '9')
        return false;
    version[1] = strtol(end + 1, &end, 10);
    return *end == '\0';
}

static bool is_readable_schema(const char *schema)
{
    long found[2] = {0, 0};
    long ours[2] = {0, 0};
    return read_version(schema, found) && read_version(MPO_RECORD_SCHEMA, ours) &&
           found[0] == ours[0] && found[1] <= ours[1];
}

static enum mpo_status check_schema(const struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    const char *schema = mpo_record_attribute(record, "log_schema");
    MPO_CHECK(schema[0] != '\0', MPO_ERR_DATA,
              "it is an HDF5 file, but not a record of mpo (no attribute log_schema)");
    MPO_CHECK(is_readable_schema(schema), MPO_ERR_DATA,
              "its schema is \"%s\", and this program reads \"%s\"; use the version of mpo "
              "that wrote it",
              schema, MPO_RECORD_SCHEMA);
cleanup:
    return status;
}

static enum mpo_status read_names(const struct mpo_record *record, const char *path,
                                  char (**names)[MPO_RECORD_NAME_BYTES + 1], int32_t *count)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_rows rows = {path, H5I_INVALID_HID, 1, 0, 0};
    MPO_TRY(mpo_record_count_rows(record, path, &rows.count));
    MPO_CHECK(rows.count > 0 && rows.count <= NAMES_MAX, MPO_ERR_DATA, "%s has %lld names",
              path, (long long)rows.count);
    MPO_NEW(rows.count, names);
    MPO_TRY_HDF5(rows.type = H5Tcopy(H5T_C_S1), "%s", path);
    MPO_TRY_HDF5(H5Tset_size(rows.type, MPO_RECORD_NAME_BYTES + 1), "%s", path);
    MPO_TRY_HDF5(H5Tset_cset(rows.type, H5T_CSET_UTF8), "%s", path);
    MPO_TRY(mpo_record_read_rows(record, &rows, *names));
    /* HDF5 copies a text of the same size as it is, with its end or without. */
    for (int64_t i = 0; i < rows.count; i++)
        (*names)[i][MPO_RECORD_NAME_BYTES] = '\0';
    *count = (int32_t)rows.count;
cleanup:
    mpo_record_hdf5_release(&rows.type);
    return status;
}

/* ---- the trajectory ---- */

enum mpo_status mpo_record_reword(const struct mpo_record *record, enum mpo_status status)
{
    const char *advice = "";
    if (status == MPO_OK)
        return status;
    if (status == MPO_ERR_IO && record->live)
        advice = "; a run is writing it; try again in a moment";
    else if (status == MPO_ERR_IO && !record->complete)
        advice = "; its run was killed before writing this, or the file is damaged";
    else if (status == MPO_ERR_IO)
        advice = "; the file is damaged: restore a copy";
    const enum mpo_status reworded = status == MPO_ERR_IO ? MPO_ERR_DATA : status;
    return mpo_error_raise(reworded, __FILE__, __LINE__, "%s: %s%s", record->path,
                           mpo_error_text(), advice);
}

static enum mpo_status read_contents(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(open_file(record));
    MPO_TRY(read_attributes(record, "/"));
    MPO_TRY(check_schema(record));
    MPO_TRY(read_attributes(record, "provenance"));
    MPO_TRY(read_names(record, "objective", &record->objective, &record->objective_count));
    MPO_TRY(read_names(record, "policy", &record->policy, &record->policy_count));
    MPO_TRY(mpo_record_count_rows(record, "step", &record->step_count));
cleanup:
    return mpo_record_reword(record, status);
}

static enum mpo_status open_record(const char *path, bool beside, struct mpo_record **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    *out = NULL;
    mpo_record_hdf5_prepare();
    MPO_TRY(check_path(path));
    MPO_NEW(1, &record);
    record->file = H5I_INVALID_HID;
    record->beside = beside;
    MPO_TRY(mpo_memory_copy_text(path, &record->path));
    MPO_TRY(look_at_superblock(record));
    MPO_TRY(read_contents(record));
    *out = record;
cleanup:
    if (status != MPO_OK)
        mpo_record_close(&record);
    return status;
}

enum mpo_status mpo_record_open(const char *path, struct mpo_record **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, path);
    return open_record(path, false, out);
}

enum mpo_status mpo_record_open_beside(const char *path, struct mpo_record **out)
{
    return open_record(path, true, out);
}

void mpo_record_close(struct mpo_record **record)
{
    struct mpo_record *self = record != NULL ? *record : NULL;
    if (self == NULL)
        return;
    if (self->file >= 0)
        H5Fclose(self->file);
    H5Eclear2(H5E_DEFAULT);
    for (size_t i = 0; i < self->attribute_count; i++) {
        free(self->attribute[i].name);
        free(self->attribute[i].value);
    }
    free(self->attribute);
    free(self->policy);
    free(self->objective);
    free(self->path);
    free(self);
    *record = NULL;
}

enum mpo_status mpo_record_refresh(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record);
    mpo_record_hdf5_prepare();
    MPO_TRY(look_at_superblock(record));
    status = mpo_record_count_rows(record, "step", &record->step_count);
    MPO_TRY(mpo_record_reword(record, status));
cleanup:
    return status;
}

/* Values that a caller has room for: one per step, or one per objective. */
static hsize_t columns_of(const struct mpo_record *record, const char *path)
{
    for (int32_t i = 0; i < mpo_record_field_count(); i++) {
        const struct mpo_record_field *field = mpo_record_field(i);
        if (strcmp(field->path, path) == 0 && strcmp(field->shape, "OBJECTIVE") == 0)
            return (hsize_t)record->objective_count;
    }
    return 1;
}

/* Step numbers increase and are exact as doubles. */
static enum mpo_status check_steps(const double *step, int64_t count)
{
    enum mpo_status status = MPO_OK;
    for (int64_t i = 0; i < count; i++)
        MPO_CHECK(
            step[i] >= 0.0 && step[i] <= STEP_MAX && (i == 0 || step[i] > step[i - 1]),
            MPO_ERR_DATA, "step holds %.17g, expected increasing whole numbers", step[i]);
cleanup:
    return status;
}

enum mpo_status mpo_record_read(struct mpo_record *record, const char *path,
                                int64_t first_step, int64_t count, double *values)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record, path, values);
    const struct mpo_record_rows rows = {path, H5T_NATIVE_DOUBLE, columns_of(record, path),
                                         first_step, count};
    mpo_record_hdf5_prepare();
    MPO_CHECK(first_step >= 0 && count >= 0 && count <= record->step_count - first_step,
              MPO_ERR_USAGE, "expected steps %lld to %lld, found %lld steps",
              (long long)first_step, (long long)(first_step + count),
              (long long)record->step_count);
    MPO_TRY(mpo_record_read_rows(record, &rows, values));
    if (strcmp(path, "step") == 0)
        MPO_TRY(check_steps(values, count));
cleanup:
    return mpo_record_reword(record, status);
}

#define RANK_TEXT(type, member)                                                            \
    MPO_TRY_HDF5(H5Tset_size(text, sizeof((struct mpo_record_rank *)0)->member), #member); \
    MPO_TRY_HDF5(H5Tinsert(type, #member, offsetof(struct mpo_record_rank, member), text), \
                 #member)

static enum mpo_status make_rank_type(hid_t *type)
{
    enum mpo_status status = MPO_OK;
    hid_t text = H5I_INVALID_HID;
    MPO_TRY_HDF5(*type = H5Tcreate(H5T_COMPOUND, sizeof(struct mpo_record_rank)), "ranks");
    MPO_TRY_HDF5(text = H5Tcopy(H5T_C_S1), "ranks");
    MPO_TRY_HDF5(H5Tset_cset(text, H5T_CSET_UTF8), "ranks");
    RANK_TEXT(*type, policy);
    RANK_TEXT(*type, sha256);
    RANK_TEXT(*type, lora_sha256);
    RANK_TEXT(*type, vocabulary);
cleanup:
    mpo_record_hdf5_release(&text);
    return status;
}

enum mpo_status mpo_record_read_ranks(struct mpo_record *record,
                                      struct mpo_record_rank **rank, int32_t *count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record, rank, count);
    struct mpo_record_rows rows = {"provenance/ranks", H5I_INVALID_HID, 1, 0, 0};
    *rank = NULL;
    *count = 0;
    mpo_record_hdf5_prepare();
    MPO_TRY(mpo_record_count_rows(record, rows.path, &rows.count));
    MPO_CHECK(rows.count <= NAMES_MAX, MPO_ERR_DATA, "%s has %lld rows", rows.path,
              (long long)rows.count);
    MPO_NEW(rows.count, rank);
    MPO_TRY(make_rank_type(&rows.type));
    MPO_TRY(mpo_record_read_rows(record, &rows, *rank));
    for (int64_t i = 0; i < rows.count; i++) {
        struct mpo_record_rank *row = &(*rank)[i];
        row->policy[sizeof row->policy - 1] = '\0';
        row->sha256[sizeof row->sha256 - 1] = '\0';
        row->lora_sha256[sizeof row->lora_sha256 - 1] = '\0';
        row->vocabulary[sizeof row->vocabulary - 1] = '\0';
    }
    *count = (int32_t)rows.count;
cleanup:
    mpo_record_hdf5_release(&rows.type);
    return mpo_record_reword(record, status);
}

/* ---- what is known without reading ---- */

bool mpo_record_is_live(const struct mpo_record *record)
{
    return record->live && !record->complete;
}

bool mpo_record_is_complete(const struct mpo_record *record)
{
    return record->complete;
}

int64_t mpo_record_step_count(const struct mpo_record *record)
{
    return record->step_count;
}

int32_t mpo_record_objective_count(const struct mpo_record *record)
{
    return record->objective_count;
}

int32_t mpo_record_policy_count(const struct mpo_record *record)
{
    return record->policy_count;
}

const char *mpo_record_objective(const struct mpo_record *record, int32_t index)
{
    return record->objective[index];
}

const char *mpo_record_policy(const struct mpo_record *record, int32_t index)
{
    return record->policy[index];
}

const char *mpo_record_attribute(const struct mpo_record *record, const char *name)
{
    for (size_t i = 0; i < record->attribute_count; i++)
        if (strcmp(record->attribute[i].name, name) == 0 &&
            record->attribute[i].value != NULL)
            return record->attribute[i].value;
    return "";
}

enum mpo_target mpo_record_target(const struct mpo_record *record)
{
    const char *target = mpo_record_attribute(record, "target");
    return strcmp(target, mpo_target_name(MPO_TARGET_SERVED)) == 0 ? MPO_TARGET_SERVED
                                                                   : MPO_TARGET_WHOLE;
}
