/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sum for each step, by which a reader knows that it has what the writer wrote.
 *
 * A data set that grows has no checksum of HDF5 (fields.c): its last chunk is rewritten with
 * every step. The step's own sum does not depend on chunks. For step n
 *
 *     checksum[n] = sum over data sets d of XXH64(rows of step n in d, seed XXH64(path of d))
 *
 * modulo 2^64, over the bytes of the rows as the file has them. Adding makes the order of the
 * data sets of no account, so that a reader goes through one after another in large pieces.
 * Left out are data sets without a row in the step, /step itself, and clocks, which would
 * give two runs with one seed different sums.
 *
 * Source: XXH64, xxHash fast digest algorithm, specification 0.1.1.
 */
#include "record_impl.h"

#include <stdlib.h>

#include <xxhash.h>

#include "base/memory.h"

#define BLOCK_BYTES ((size_t)1 << 20)

void mpo_record_sum_add(const struct mpo_record_column *column, size_t rows,
                        const void *source, uint64_t *sum)
{
    if (rows > 0 && column->id >= 0 && !column->is_clock)
        *sum += XXH64(source, rows * column->row_bytes, column->seed);
}

/* Rows of the steps: those of step n in a column of kind c are first[c][n] up to and without
 * first[c][n + 1]. */
enum kind { OF_STEPS, OF_RESPONSES, OF_TOKENS, OF_TEXT, KIND_COUNT };

struct sums {
    const struct mpo_record_schema *schema;
    const struct mpo_record_kept *kept;
    int64_t *first[KIND_COUNT]; /* [steps + 1], owned */
    uint64_t *found;            /* [steps], owned */
};

/* ---- where the rows of a step are ---- */

static enum mpo_status find_responses(struct sums *sums)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_record_schema *schema = sums->schema;
    const int64_t rows = sums->kept->responses;
    int64_t *step = NULL;
    int64_t *drawn = NULL;
    int64_t at = 0;
    MPO_TRY(mpo_record_read_numbers(schema->step, sums->kept->steps, &step));
    MPO_TRY(
        mpo_record_read_numbers(schema->response[MPO_RECORD_RESPONSE_step], rows, &drawn));
    for (int64_t n = 0; n < sums->kept->steps; n++) {
        sums->first[OF_STEPS][n] = n;
        sums->first[OF_RESPONSES][n] = at;
        while (at < rows && drawn[at] == step[n])
            at++;
    }
    sums->first[OF_STEPS][sums->kept->steps] = sums->kept->steps;
    sums->first[OF_RESPONSES][sums->kept->steps] = at;
    MPO_CHECK(at == rows, MPO_ERR_DATA,
              "%s holds %lld in row %lld, which is no step there: the file is damaged",
              schema->response[MPO_RECORD_RESPONSE_step].path, (long long)drawn[at],
              (long long)at);
cleanup:
    free(drawn);
    free(step);
    return status;
}

/* Tokens or bytes: where those of the first response of each step begin. */
static enum mpo_status find_pieces(struct sums *sums, enum kind kind,
                                   enum mpo_record_response_index offset, int64_t end)
{
    enum mpo_status status = MPO_OK;
    const int64_t rows = sums->kept->responses;
    int64_t *begin = NULL;
    MPO_TRY(mpo_record_read_numbers(sums->schema->response[offset], rows, &begin));
    for (int64_t n = 0; n <= sums->kept->steps; n++) {
        const int64_t response = sums->first[OF_RESPONSES][n];
        sums->first[kind][n] = response < rows ? begin[response] : end;
    }
cleanup:
    free(begin);
    return status;
}

static enum mpo_status find_rows(struct sums *sums)
{
    enum mpo_status status = MPO_OK;
    for (int kind = 0; kind < KIND_COUNT; kind++)
        MPO_NEW(sums->kept->steps + 1, &sums->first[kind]);
    MPO_NEW(sums->kept->steps, &sums->found);
    MPO_TRY(find_responses(sums));
    MPO_TRY(
        find_pieces(sums, OF_TOKENS, MPO_RECORD_RESPONSE_token_offset, sums->kept->tokens));
    MPO_TRY(find_pieces(sums, OF_TEXT, MPO_RECORD_RESPONSE_text_offset,
                        sums->kept->text_bytes));
cleanup:
    return status;
}

/* ---- adding up ---- */

/* The steps from `from` on whose rows fit a block; a step that does not is one by itself. */
static int64_t end_of_block(const struct mpo_record_column *column, const int64_t *first,
                            int64_t from, int64_t steps)
{
    const int64_t most =
        column->row_bytes < BLOCK_BYTES ? (int64_t)(BLOCK_BYTES / column->row_bytes) : 1;
    int64_t to = from + 1;
    while (to < steps && first[to + 1] - first[from] <= most)
        to++;
    return to;
}

static enum mpo_status sum_column(const struct mpo_record_column *column,
                                  const int64_t *first, int64_t steps, uint64_t *found)
{
    enum mpo_status status = MPO_OK;
    char *block = NULL;
    size_t capacity = 0;
    if (column->id < 0 || column->is_clock)
        return MPO_OK;
    for (int64_t from = 0, to = 0; from < steps; from = to) {
        to = end_of_block(column, first, from, steps);
        const size_t rows = (size_t)(first[to] - first[from]);
        if (rows == 0)
            continue;
        MPO_TRY(mpo_memory_grow((void **)&block, &capacity, rows, column->row_bytes,
                                "rows to be summed"));
        MPO_TRY(mpo_record_read_column(column, (hsize_t)first[from], rows, block));
        for (int64_t n = from; n < to; n++)
            mpo_record_sum_add(column, (size_t)(first[n + 1] - first[n]),
                               block + (size_t)(first[n] - first[from]) * column->row_bytes,
                               &found[n]);
    }
cleanup:
    free(block);
    return status;
}

static enum mpo_status sum_all(struct sums *sums)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_record_schema *schema = sums->schema;
    for (int32_t i = 0; i < MPO_RECORD_FIELD_COUNT; i++)
        MPO_TRY(sum_column(&schema->field[i], sums->first[OF_STEPS], sums->kept->steps,
                           sums->found));
    for (int32_t i = 0; i < MPO_RECORD_RESPONSE_COUNT; i++) {
        const enum kind kind = i == MPO_RECORD_RESPONSE_token  ? OF_TOKENS
                               : i == MPO_RECORD_RESPONSE_text ? OF_TEXT
                                                               : OF_RESPONSES;
        MPO_TRY(sum_column(&schema->response[i], sums->first[kind], sums->kept->steps,
                           sums->found));
    }
cleanup:
    return status;
}

enum mpo_status mpo_record_check_sums(const struct mpo_record_schema *schema,
                                      const struct mpo_record_kept *kept)
{
    enum mpo_status status = MPO_OK;
    struct sums sums = {.schema = schema, .kept = kept};
    int64_t *noted = NULL;
    if (schema->checksum.id < 0)
        return MPO_OK;
    MPO_TRY(find_rows(&sums));
    MPO_TRY(mpo_record_read_numbers(schema->checksum, kept->steps, &noted));
    MPO_TRY(sum_all(&sums));
    for (int64_t n = 0; n < kept->steps; n++)
        MPO_CHECK((uint64_t)noted[n] == sums.found[n], MPO_ERR_DATA,
                  "row %lld is not what was written: its %s differs; the file is "
                  "damaged, or a data set of it was changed or removed",
                  (long long)n, schema->checksum.path);
cleanup:
    for (int kind = 0; kind < KIND_COUNT; kind++)
        free(sums.first[kind]);
    free(sums.found);
    free(noted);
    return status;
}
