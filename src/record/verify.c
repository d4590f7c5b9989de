/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the acknowledged steps of a record are there.
 *
 * inspect, fit --resume and recover ask the same here, so that none of them praises what
 * another one refuses; a writer that gives up asks too, before it calls steps safe.
 *
 * HDF5 checks the sums of its own structures, and those of prompts and provenance. A data
 * set that grows has none that HDF5 knows (fields.c), and of a file that was cut short HDF5
 * reads zeros behind the end when it is opened beside a writer, without a word. So the chunks
 * of acknowledged rows have to lie inside of the file; what can be told from the values
 * themselves is looked at: numbers of steps and responses, weights, and the places of
 * tokens and texts; and last every value by the sum of its step (sums.c), which records of
 * older programs do not have.
 */
#include "record_impl.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/report.h"
#include "base/argument.h"
#include "base/memory.h"

#define CHUNKS_TRIED 8 /* of a data set */

/* ---- the columns of a schema, all in one order ---- */

struct mpo_record_column *mpo_record_column_at(struct mpo_record_schema *schema,
                                               int32_t index)
{
    if (index == 0)
        return &schema->step;
    if (index == 1)
        return &schema->checksum;
    if (index < MPO_RECORD_FIRST_RESPONSE)
        return &schema->field[index - MPO_RECORD_FIRST_FIELD];
    return &schema->response[index - MPO_RECORD_FIRST_RESPONSE];
}

int64_t mpo_record_rows_to_keep(const struct mpo_record_kept *kept, int32_t index)
{
    const int32_t response = index - MPO_RECORD_FIRST_RESPONSE;
    if (response < 0)
        return kept->steps;
    if (response == MPO_RECORD_RESPONSE_token)
        return kept->tokens;
    if (response == MPO_RECORD_RESPONSE_text)
        return kept->text_bytes;
    return kept->responses;
}

void mpo_record_close_columns(struct mpo_record_schema *schema)
{
    for (int32_t i = 0; i < MPO_RECORD_COLUMN_COUNT; i++)
        mpo_record_hdf5_release(&mpo_record_column_at(schema, i)->id);
}

enum mpo_status mpo_record_read_column(const struct mpo_record_column *column,
                                       hsize_t first, hsize_t rows, void *out)
{
    enum mpo_status status = MPO_OK;
    hid_t file_space = H5I_INVALID_HID;
    hid_t memory_space = H5I_INVALID_HID;
    const hsize_t start[2] = {first, 0};
    const hsize_t block[2] = {rows, column->columns};
    const hsize_t total = rows * (column->columns > 0 ? column->columns : 1);
    if (rows == 0)
        return MPO_OK;
    MPO_TRY_HDF5(file_space = H5Dget_space(column->id), "%s", column->path);
    MPO_TRY_HDF5(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, block, NULL),
                 "%s", column->path);
    MPO_TRY_HDF5(memory_space = H5Screate_simple(1, &total, NULL), "%s", column->path);
    MPO_TRY_HDF5(H5Dread(column->id, column->memory_type, memory_space, file_space,
                         H5P_DEFAULT, out),
                 "%s", column->path);
cleanup:
    mpo_record_hdf5_release(&memory_space);
    mpo_record_hdf5_release(&file_space);
    return status;
}

/* ---- what was acknowledged ---- */

enum mpo_status mpo_record_read_numbers(struct mpo_record_column column, int64_t rows,
                                        int64_t **out)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(column.rows >= (hsize_t)rows, MPO_ERR_DATA, "%s has %llu rows, not %lld",
              column.path, (unsigned long long)column.rows, (long long)rows);
    MPO_NEW(rows, out);
    column.memory_type = H5T_NATIVE_INT64;
    MPO_TRY(mpo_record_read_column(&column, 0, (hsize_t)rows, *out));
cleanup:
    return status;
}

/* The end of the last of `rows` pieces. The maximum, because an unwritten last piece must
 * not cut the ones before it. */
static enum mpo_status end_of(const struct mpo_record_column *offset,
                              const struct mpo_record_column *length, int64_t rows,
                              int64_t *end)
{
    enum mpo_status status = MPO_OK;
    int64_t *first = NULL;
    int64_t *count = NULL;
    *end = 0;
    MPO_TRY(mpo_record_read_numbers(*offset, rows, &first));
    MPO_TRY(mpo_record_read_numbers(*length, rows, &count));
    for (int64_t i = 0; i < rows; i++) {
        if (first[i] < 0 || count[i] < 0)
            continue;
        const int64_t past =
            first[i] <= INT64_MAX - count[i] ? first[i] + count[i] : INT64_MAX;
        if (past > *end)
            *end = past;
    }
cleanup:
    free(count);
    free(first);
    return status;
}

/* Every data set has the rows that the acknowledged steps need. */
static enum mpo_status check_rows(struct mpo_record_schema *schema,
                                  const struct mpo_record_kept *kept)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < MPO_RECORD_COLUMN_COUNT; i++) {
        const struct mpo_record_column *column = mpo_record_column_at(schema, i);
        const int64_t rows = mpo_record_rows_to_keep(kept, i);
        MPO_CHECK(column->id < 0 || (int64_t)column->rows >= rows, MPO_ERR_DATA,
                  "%s has %llu rows, fewer than the %lld acknowledged steps need",
                  column->path, (unsigned long long)column->rows, (long long)rows);
    }
cleanup:
    return status;
}

enum mpo_status mpo_record_count_kept(struct mpo_record_schema *schema,
                                      struct mpo_record_kept *kept)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_record_column *response = schema->response;
    const struct mpo_record_column *step = &response[MPO_RECORD_RESPONSE_step];
    int64_t *all = NULL;
    int64_t *drawn = NULL;
    MPO_TRY(mpo_record_read_numbers(schema->step, kept->steps, &all));
    MPO_TRY(mpo_record_read_numbers(*step, (int64_t)step->rows, &drawn));
    const int64_t last = kept->steps > 0 ? all[kept->steps - 1] : -1;
    kept->responses = mpo_record_acknowledged_rows(drawn, (int64_t)step->rows, last);
    if (kept->responses > 0 && drawn[kept->responses - 1] != last)
        mpo_report(MPO_REPORT_WARNING,
                   "the last response is of step %lld, but the last step is %lld",
                   (long long)drawn[kept->responses - 1], (long long)last);
    MPO_TRY(end_of(&response[MPO_RECORD_RESPONSE_token_offset],
                   &response[MPO_RECORD_RESPONSE_token_count], kept->responses,
                   &kept->tokens));
    MPO_TRY(end_of(&response[MPO_RECORD_RESPONSE_text_offset],
                   &response[MPO_RECORD_RESPONSE_text_bytes], kept->responses,
                   &kept->text_bytes));
    MPO_TRY(check_rows(schema, kept));
cleanup:
    free(drawn);
    free(all);
    return status;
}

/* ---- the file ---- */

/* The last chunk of the first `rows` rows, and some before it, are inside of the file. Chunks
 * are placed one after another as the file grows, so one that is cut off takes the last with
 * it. Not all are looked at, because HDF5 walks through all chunks to find one. */
static enum mpo_status check_chunks(const struct mpo_record_column *column, int64_t rows,
                                    haddr_t file_bytes)
{
    enum mpo_status status = MPO_OK;
    hsize_t chunk[2] = {0, 0};
    haddr_t address = HADDR_UNDEF;
    hsize_t bytes = 0;
    unsigned filters = 0;
    hid_t properties = H5Dget_create_plist(column->id);
    MPO_TRY_HDF5(properties, "%s", column->path);
    MPO_TRY_HDF5(H5Pget_chunk(properties, 2, chunk), "%s", column->path);
    const hsize_t count =
        chunk[0] > 0 && rows > 0 ? ((hsize_t)rows + chunk[0] - 1) / chunk[0] : 0;
    const hsize_t stride = count > CHUNKS_TRIED ? count / CHUNKS_TRIED : 1;
    for (hsize_t i = 0; i < count; i += stride) {
        const hsize_t at = (count - 1 - i) * chunk[0];
        const hsize_t place[2] = {at, 0};
        MPO_TRY_HDF5(
            H5Dget_chunk_info_by_coord(column->id, place, &filters, &address, &bytes), "%s",
            column->path);
        MPO_CHECK(address != HADDR_UNDEF && address <= file_bytes &&
                      bytes <= file_bytes - address,
                  MPO_ERR_DATA,
                  "%s: the rows from %llu on are missing: the file is cut short or damaged",
                  column->path, (unsigned long long)at);
    }
cleanup:
    mpo_record_hdf5_release(&properties);
    return status;
}

/* ---- the values ---- */

/* What was never written reads as NaN, what was wiped out as zeros. */
static enum mpo_status check_weights(struct mpo_record *record, const char *path)
{
    enum mpo_status status = MPO_OK;
    const int64_t count = record->step_count;
    double *values = NULL;
    MPO_NEW(count * record->objective_count, &values);
    MPO_TRY(mpo_record_read(record, path, 0, count, values));
    for (int64_t n = 0; n < count; n++) {
        double sum = 0.0;
        for (int32_t k = 0; k < record->objective_count; k++)
            sum += fabs(values[n * record->objective_count + k]);
        MPO_CHECK(isfinite(sum) && sum > 0.0, MPO_ERR_DATA,
                  "%s: %s has no weights in row %lld: the file is damaged", record->path,
                  path, (long long)n);
    }
cleanup:
    free(values);
    return status;
}

static enum mpo_status check_trajectory(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    double *values = NULL;
    MPO_NEW(record->step_count, &values);
    MPO_TRY(mpo_record_read(record, "step", 0, record->step_count, values));
    MPO_TRY(check_weights(record, "weights"));
    MPO_TRY(check_weights(record, "average"));
cleanup:
    free(values);
    return status;
}

/* Response i is number i, and its tokens or bytes begin where those before it end. */
static enum mpo_status check_places(const struct mpo_record_column *offset,
                                    const struct mpo_record_column *length, int64_t rows)
{
    enum mpo_status status = MPO_OK;
    int64_t *first = NULL;
    int64_t *count = NULL;
    int64_t expected = 0;
    MPO_TRY(mpo_record_read_numbers(*offset, rows, &first));
    MPO_TRY(mpo_record_read_numbers(*length, rows, &count));
    for (int64_t i = 0; i < rows; i++) {
        MPO_CHECK(first[i] == expected && count[i] >= 0, MPO_ERR_DATA,
                  "%s holds %lld for response %lld, expected %lld: the file is damaged",
                  offset->path, (long long)first[i], (long long)i, (long long)expected);
        expected += count[i];
    }
cleanup:
    free(count);
    free(first);
    return status;
}

static enum mpo_status check_responses(const struct mpo_record_schema *schema, int64_t rows)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_record_column *column = schema->response;
    int64_t *number = NULL;
    MPO_TRY(mpo_record_read_numbers(column[MPO_RECORD_RESPONSE_response], rows, &number));
    for (int64_t i = 0; i < rows; i++)
        MPO_CHECK(
            number[i] == i, MPO_ERR_DATA, "%s holds %lld in row %lld: the file is damaged",
            column[MPO_RECORD_RESPONSE_response].path, (long long)number[i], (long long)i);
    MPO_TRY(check_places(&column[MPO_RECORD_RESPONSE_token_offset],
                         &column[MPO_RECORD_RESPONSE_token_count], rows));
    MPO_TRY(check_places(&column[MPO_RECORD_RESPONSE_text_offset],
                         &column[MPO_RECORD_RESPONSE_text_bytes], rows));
cleanup:
    free(number);
    return status;
}

/* Prompts and provenance, with their sums. */
static enum mpo_status check_fixed(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_rank *rank = NULL;
    struct mpo_record_rows text = {"prompts/text", H5T_NATIVE_UINT8, 1, 0, 0};
    char *bytes = NULL;
    int32_t count = 0;
    bool is_there = false;
    MPO_TRY(mpo_record_read_ranks(record, &rank, &count));
    MPO_TRY(mpo_record_has(record, text.path, &is_there));
    if (!is_there)
        goto cleanup;
    MPO_TRY(mpo_record_count_rows(record, text.path, &text.count));
    MPO_NEW(text.count, &bytes);
    MPO_TRY(mpo_record_read_rows(record, &text, bytes));
cleanup:
    free(bytes);
    free(rank);
    return status;
}

static enum mpo_status check_all(struct mpo_record *record,
                                 struct mpo_record_schema *schema)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_kept kept = {.steps = record->step_count};
    struct stat found = {0};
    MPO_CHECK(fstat(mpo_record_descriptor(record->file), &found) == 0, MPO_ERR_IO, "%s",
              strerror(errno));
    MPO_TRY(mpo_record_open_columns(record->file, schema));
    MPO_TRY(mpo_record_count_kept(schema, &kept));
    for (int32_t i = 0; i < MPO_RECORD_COLUMN_COUNT; i++) {
        const struct mpo_record_column *column = mpo_record_column_at(schema, i);
        if (column->id >= 0)
            MPO_TRY(check_chunks(column, mpo_record_rows_to_keep(&kept, i),
                                 (haddr_t)found.st_size));
    }
    MPO_TRY(check_responses(schema, kept.responses));
    MPO_TRY(mpo_record_check_sums(schema, &kept));
cleanup:
    return status;
}

enum mpo_status mpo_record_verify(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(record);
    struct mpo_record_schema schema;
    mpo_record_hdf5_prepare();
    mpo_record_invalidate(&schema);
    status = check_all(record, &schema);
    /* HDF5 reads zeros where a data set is refreshed that is open a second time. */
    mpo_record_close_columns(&schema);
    MPO_TRY(mpo_record_reword(record, status));
    MPO_TRY(check_trajectory(record));
    MPO_TRY(mpo_record_reword(record, check_fixed(record)));
cleanup:
    return status;
}
