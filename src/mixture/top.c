/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The most probable tokens of a combined row. Every rank lists those of its slice, best
 * first, and the root merges the lists.
 *
 * A block is looked at only if its greatest score can be in the list: blocks are taken in
 * the order of their tops, which combining has left in the table of sums, and the first one
 * below a full list's last ends the search. So a list of n costs at most n + 1 blocks of
 * scores but for ties. A device whose sums stay with it (mpo_mixture_ops.fold) sends all
 * scores of the slice instead, 8 V bytes, and the host looks through them: a kernel would
 * not pay for the few rows and positions of which lists are wanted.
 */
#include "fold.h"

#include <math.h>
#include <string.h>

#include "loops.h"

/* The list of a slice during construction: best first. */
struct list {
    struct mpo_mixture_listed *listed; /* [limit] */
    int32_t count;
    int32_t limit;
};

static bool token_precedes(double score, double token,
                           const struct mpo_mixture_listed *other)
{
    return score > other->score || (score == other->score && token < other->token);
}

/* Whether this score may still enter the list. */
static bool has_place(const struct list *list, double score)
{
    return list->count < list->limit || score >= list->listed[list->limit - 1].score;
}

static void insert_token(struct list *list, double score, double token)
{
    int32_t at = list->count < list->limit ? list->count : list->limit - 1;
    if (list->count == list->limit && !token_precedes(score, token, &list->listed[at]))
        return;
    while (at > 0 && token_precedes(score, token, &list->listed[at - 1])) {
        list->listed[at] = list->listed[at - 1];
        at--;
    }
    list->listed[at] = (struct mpo_mixture_listed){score, token};
    list->count += list->count < list->limit;
}

static int32_t block_length(const struct mpo_mixture *mixture, int32_t block)
{
    int32_t left = mixture->vocab_size - block * MPO_ROWS_BLOCK;
    return left < MPO_ROWS_BLOCK ? left : MPO_ROWS_BLOCK;
}

static double *block_scores(const struct mpo_mixture *mixture, int32_t block)
{
    return mixture->score + (size_t)block * MPO_ROWS_BLOCK;
}

/* The greatest score of each block of the slice. */
static enum mpo_status find_tops(struct mpo_mixture *mixture, int32_t row)
{
    enum mpo_status status = MPO_OK;
    bool has_table = mixture->ops->fold == NULL;
    if (!has_table)
        MPO_TRY(mpo_mixture_own_scores(mixture, row));
    for (int32_t block = mpo_mixture_own_first(mixture);
         block < mpo_mixture_own_end(mixture); block++)
        mixture->block_top[block] =
            has_table ? mpo_mixture_sums_of(mixture->sums, mixture->policy_count,
                                            mixture->rows.row_count, block, row)
                            ->top
                      : mpo_mixture_greatest(block_scores(mixture, block),
                                             block_length(mixture, block));
cleanup:
    return status;
}

/* Remove and return the block of the slice with the greatest top; -1: none left. */
static int32_t pop_block(struct mpo_mixture *mixture, double *top)
{
    int32_t best = -1;
    *top = -INFINITY;
    for (int32_t block = mpo_mixture_own_first(mixture);
         block < mpo_mixture_own_end(mixture); block++)
        if (mixture->block_top[block] > *top) {
            best = block;
            *top = mixture->block_top[block];
        }
    if (best >= 0)
        mixture->block_top[best] = -INFINITY;
    return best;
}

static enum mpo_status add_block(struct mpo_mixture *mixture, int32_t row, int32_t block,
                                 struct list *list)
{
    enum mpo_status status = MPO_OK;
    double *score = block_scores(mixture, block);
    int32_t length = block_length(mixture, block);
    if (mixture->ops->fold == NULL)
        MPO_TRY(mixture->ops->scores(mixture->self, row, block, block + 1, score));
    for (int32_t i = 0; i < length; i++)
        if (score[i] > -INFINITY && has_place(list, score[i]))
            insert_token(list, score[i], block * MPO_ROWS_BLOCK + i);
cleanup:
    return status;
}

/* Write this rank's list to its place, padded with scores of -inf. */
static enum mpo_status list_slice(struct mpo_mixture *mixture, int32_t row, int32_t limit)
{
    enum mpo_status status = MPO_OK;
    double top = 0.0;
    struct list list = {.listed = mixture->listed + (size_t)mixture->rank * (size_t)limit,
                        .limit = limit};
    MPO_TRY(find_tops(mixture, row));
    for (int32_t block = pop_block(mixture, &top); block >= 0 && has_place(&list, top);
         block = pop_block(mixture, &top))
        MPO_TRY(add_block(mixture, row, block, &list));
    for (int32_t i = list.count; i < limit; i++)
        list.listed[i] = (struct mpo_mixture_listed){-INFINITY, -1.0};
cleanup:
    return status;
}

/* Take `count` from the lists of all ranks, or of the root alone. */
static void merge_lists(struct mpo_mixture *mixture, int32_t size, int32_t count,
                        int32_t *token)
{
    for (int32_t rank = 0; rank < size; rank++)
        mixture->part[rank] = (size_t)rank * (size_t)count;
    for (int32_t i = 0; i < count; i++) {
        size_t *best = NULL;
        for (int32_t rank = 0; rank < size; rank++) {
            size_t *at = &mixture->part[rank];
            if (*at == (size_t)(rank + 1) * (size_t)count)
                continue;
            const struct mpo_mixture_listed *next = &mixture->listed[*at];
            if (best == NULL ||
                token_precedes(next->score, next->token, &mixture->listed[*best]))
                best = at;
        }
        token[i] = (int32_t)mixture->listed[(*best)++].token;
    }
}

enum mpo_status mpo_mixture_top(struct mpo_mixture *mixture, int32_t row, int32_t count,
                                int32_t *token)
{
    enum mpo_status status = MPO_OK;
    size_t width = (size_t)count * sizeof *mixture->listed / sizeof(double);
    bool root_has_all = mpo_mixture_root_has_all(mixture);
    MPO_CHECK(count >= 0 && count <= MPO_MIXTURE_TOP_MAX, MPO_ERR_USAGE,
              "%d of the most probable tokens, at most %d", count, MPO_MIXTURE_TOP_MAX);
    if (count == 0 || (root_has_all && mixture->rank != 0))
        return MPO_OK;
    MPO_CHECK(mixture->rank != 0 || (row >= 0 && row < mixture->rows.row_count),
              MPO_ERR_USAGE, "the most probable tokens of row %d of %d combined rows", row,
              mixture->rows.row_count);
    MPO_TRY(list_slice(mixture, row, count));
    for (int32_t rank = 0; rank <= mixture->size; rank++)
        mixture->part[rank] = (size_t)rank * width;
    if (!root_has_all)
        MPO_TRY(mpo_exchange_parts(mixture->exchange, (double *)mixture->listed,
                                   mixture->part));
    if (mixture->rank != 0)
        return MPO_OK;
    if (isfinite(mixture->row_log_z[row]))
        merge_lists(mixture, root_has_all ? 1 : mixture->size, count, token);
    for (int32_t i = 0; i < count && !isfinite(mixture->row_log_z[row]); i++)
        token[i] = -1;
cleanup:
    return status;
}
