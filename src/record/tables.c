/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of /provenance: who ran (ranks), when and from where (segments), and what was
 * changed when a run was resumed (notes). Rows are compound values, declared once for file
 * and memory; notes are text, a line for each.
 */
#include "record_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* A row of /provenance/segments: one per start or restart. */
struct segment {
    int64_t first_step;
    int64_t restart_count;
    char job_id[64];
    char git_commit[64];
    char start_time[32];
};

#define SEGMENTS_PATH "provenance/segments"
#define NOTES_PATH    "provenance/notes"

#define NOTES_CHUNK_BYTES 1024

static enum mpo_status insert_text(hid_t file_type, hid_t memory_type, const char *name,
                                   size_t offset, size_t bytes)
{
    enum mpo_status status = MPO_OK;
    hid_t padded = H5I_INVALID_HID;
    hid_t terminated = H5I_INVALID_HID;
    MPO_TRY(mpo_record_make_text_type(bytes, H5T_STR_NULLPAD, &padded));
    MPO_TRY(mpo_record_make_text_type(bytes, H5T_STR_NULLTERM, &terminated));
    MPO_TRY_HDF5(H5Tinsert(file_type, name, offset, padded), "%s", name);
    MPO_TRY_HDF5(H5Tinsert(memory_type, name, offset, terminated), "%s", name);
cleanup:
    mpo_record_hdf5_release(&terminated);
    mpo_record_hdf5_release(&padded);
    return status;
}

static enum mpo_status insert_integer(hid_t file_type, hid_t memory_type, const char *name,
                                      size_t offset, size_t bytes)
{
    enum mpo_status status = MPO_OK;
    const bool wide = bytes == sizeof(int64_t);
    MPO_TRY_HDF5(H5Tinsert(file_type, name, offset, wide ? H5T_STD_I64LE : H5T_STD_I32LE),
                 "%s", name);
    MPO_TRY_HDF5(
        H5Tinsert(memory_type, name, offset, wide ? H5T_NATIVE_INT64 : H5T_NATIVE_INT32),
        "%s", name);
cleanup:
    return status;
}

/* A member of a compound type, declared once for file and memory. */
struct member {
    const char *name;
    size_t offset;
    size_t bytes;
    bool is_text;
};

#define INTEGER_MEMBER(type, member)                                                       \
    {                                                                                      \
#member, offsetof(struct type, member), sizeof(((struct type *)0)->member), false  \
    }
#define TEXT_MEMBER(type, member)                                                          \
    {                                                                                      \
#member, offsetof(struct type, member), sizeof(((struct type *)0)->member), true   \
    }

static const struct member rank_members[] = {
    INTEGER_MEMBER(mpo_record_rank, rank),    INTEGER_MEMBER(mpo_record_rank, local_rank),
    INTEGER_MEMBER(mpo_record_rank, threads), TEXT_MEMBER(mpo_record_rank, host),
    TEXT_MEMBER(mpo_record_rank, device),     TEXT_MEMBER(mpo_record_rank, gpu_uuid),
    TEXT_MEMBER(mpo_record_rank, policy),     TEXT_MEMBER(mpo_record_rank, model),
    TEXT_MEMBER(mpo_record_rank, sha256),     TEXT_MEMBER(mpo_record_rank, lora_sha256),
    TEXT_MEMBER(mpo_record_rank, vocabulary),
};

static const struct member segment_members[] = {
    INTEGER_MEMBER(segment, first_step), INTEGER_MEMBER(segment, restart_count),
    TEXT_MEMBER(segment, job_id), TEXT_MEMBER(segment, git_commit),
    TEXT_MEMBER(segment, start_time)};

#define MEMBER_COUNT(members) (sizeof(members) / sizeof((members)[0]))

struct table {
    const struct member *members;
    size_t member_count;
    size_t row_bytes;
};

static const struct table rank_table = {rank_members, MEMBER_COUNT(rank_members),
                                        sizeof(struct mpo_record_rank)};
static const struct table segment_table = {segment_members, MEMBER_COUNT(segment_members),
                                           sizeof(struct segment)};

/* The types of a row in the file and in memory; both owned by the caller. */
static enum mpo_status make_types(const struct table *table, hid_t *file_type,
                                  hid_t *memory_type)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY_HDF5(*file_type = H5Tcreate(H5T_COMPOUND, table->row_bytes), "row type");
    MPO_TRY_HDF5(*memory_type = H5Tcreate(H5T_COMPOUND, table->row_bytes), "row type");
    for (size_t i = 0; i < table->member_count; i++) {
        const struct member *member = &table->members[i];
        MPO_TRY((member->is_text ? insert_text : insert_integer)(
            *file_type, *memory_type, member->name, member->offset, member->bytes));
    }
cleanup:
    return status;
}

/* spec lacks its types; they come from the table. */
static enum mpo_status make_table(hid_t file, struct mpo_record_fixed spec,
                                  const struct table *table, const void *rows)
{
    enum mpo_status status = MPO_OK;
    spec.file_type = H5I_INVALID_HID;
    spec.memory_type = H5I_INVALID_HID;
    MPO_TRY(make_types(table, &spec.file_type, &spec.memory_type));
    MPO_TRY(mpo_record_make_fixed(file, &spec, rows, NULL));
cleanup:
    mpo_record_hdf5_release(&spec.memory_type);
    mpo_record_hdf5_release(&spec.file_type);
    return status;
}

static void fill_text(char *out, size_t bytes, const char *text)
{
    snprintf(out, bytes, "%s", text != NULL ? text : "");
}

static void fill_segment(const struct mpo_record_segment *source, struct segment *row)
{
    fill_text(row->job_id, sizeof row->job_id, source->job_id);
    fill_text(row->git_commit, sizeof row->git_commit, source->git_commit);
    fill_text(row->start_time, sizeof row->start_time, source->start_utc);
}

/* An empty line is no note. Only a reward program may be another one when a run goes on. */
static enum mpo_status make_notes(hid_t file)
{
    const struct mpo_record_fixed notes = {
        .path = NOTES_PATH,
        .units = "1",
        .long_name = "JSON lines: what was changed when the run was resumed, UTF-8",
        .dimension = "provenance/note_byte",
        .file_type = H5T_STD_U8LE,
        .memory_type = H5T_NATIVE_UINT8,
        .rows = 1,
        .grows = true,
        .chunk_rows = NOTES_CHUNK_BYTES};
    return mpo_record_make_fixed(file, &notes, "\n", NULL);
}

enum mpo_status mpo_record_make_tables(hid_t file, const struct mpo_record_spec *spec)
{
    enum mpo_status status = MPO_OK;
    struct segment segment = {0};
    const struct mpo_record_segment first = {.git_commit = spec->git_commit,
                                             .job_id = spec->job_id,
                                             .start_utc = spec->created_utc};
    const struct mpo_record_fixed segments = {.path = SEGMENTS_PATH,
                                              .units = "1",
                                              .long_name = "one row per start or restart",
                                              .dimension = "provenance/segment",
                                              .rows = 1,
                                              .grows = true};
    const struct mpo_record_fixed ranks = {.path = "provenance/ranks",
                                           .units = "1",
                                           .long_name = "one row per rank and policy",
                                           .dimension = "provenance/rank",
                                           .rows = (hsize_t)spec->rank_count};
    fill_segment(&first, &segment);
    MPO_TRY(make_table(file, segments, &segment_table, &segment));
    MPO_TRY(make_table(file, ranks, &rank_table, spec->rank));
    if (spec->rewards != NULL)
        MPO_TRY(make_notes(file));
cleanup:
    return status;
}

/* The data set of the column's path, with the rows that it has. */
static enum mpo_status open_rows(hid_t file, struct mpo_record_column *column)
{
    enum mpo_status status = MPO_OK;
    const char *path = column->path;
    hid_t space = H5I_INVALID_HID;
    MPO_TRY_HDF5(column->id = H5Dopen2(file, path, H5P_DEFAULT), "%s", path);
    MPO_TRY_HDF5(space = H5Dget_space(column->id), "%s", path);
    MPO_CHECK(H5Sget_simple_extent_ndims(space) == 1, MPO_ERR_DATA,
              "%s: expected one dimension", path);
    MPO_TRY_HDF5(H5Sget_simple_extent_dims(space, &column->rows, NULL), "%s", path);
cleanup:
    mpo_record_hdf5_release(&space);
    return status;
}

enum mpo_status mpo_record_append_segment(hid_t file, int64_t first_step,
                                          const struct mpo_record_segment *source)
{
    enum mpo_status status = MPO_OK;
    struct segment segment = {.first_step = first_step};
    struct mpo_record_column column = {.id = H5I_INVALID_HID, .path = SEGMENTS_PATH};
    hid_t file_type = H5I_INVALID_HID;
    hid_t memory_type = H5I_INVALID_HID;
    MPO_TRY(make_types(&segment_table, &file_type, &memory_type));
    column.memory_type = memory_type;
    MPO_TRY(open_rows(file, &column));
    segment.restart_count = (int64_t)column.rows;
    fill_segment(source, &segment);
    MPO_TRY(mpo_record_append_rows(&column, 1, &segment));
    MPO_TRY_HDF5(H5Dflush(column.id), SEGMENTS_PATH);
cleanup:
    mpo_record_hdf5_release(&column.id);
    mpo_record_hdf5_release(&memory_type);
    mpo_record_hdf5_release(&file_type);
    return status;
}

enum mpo_status mpo_record_append_note(hid_t file, const char *line)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_column column = {
        .id = H5I_INVALID_HID, .path = NOTES_PATH, .memory_type = H5T_NATIVE_UINT8};
    htri_t is_there = 0;
    char *text = NULL;
    const size_t bytes = strlen(line) + 1;
    MPO_TRY(mpo_record_has_path(file, NOTES_PATH, &is_there));
    MPO_CHECK(is_there > 0, MPO_ERR_DATA,
              "expected " NOTES_PATH ", where a change is noted, found none: an older mpo "
              "made the record; start a new one");
    MPO_NEW(bytes + 1, &text);
    snprintf(text, bytes + 1, "%s\n", line);
    MPO_TRY(open_rows(file, &column));
    MPO_TRY(mpo_record_append_rows(&column, bytes, text));
    MPO_TRY_HDF5(H5Dflush(column.id), NOTES_PATH);
cleanup:
    mpo_record_hdf5_release(&column.id);
    free(text);
    return status;
}
