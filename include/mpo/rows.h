/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Rows of logits as they travel: fixed blocks of the vocabulary, in which everything over
 * it is summed, and a rank's slice of the rows of one position, whole blocks each.
 */
#pragma once

#include <stdint.h>

/** Tokens of a block. Sums over the vocabulary run block by block, in order, whatever the
 *  number of ranks: changing it changes the last bits of every figure. */
#define MPO_ROWS_BLOCK 1024

/** Blocks of a vocabulary; the last one may be shorter. Local. */
static inline int32_t mpo_rows_block_count(int32_t vocab_size)
{
    return (vocab_size + MPO_ROWS_BLOCK - 1) / MPO_ROWS_BLOCK;
}

/** A rank's slice of the rows of all H policies at one position of B batch rows. The arrays
 *  are the exchange's, and the rows that they point to those of policies, of other ranks'
 *  windows or of the exchange's own buffers: all may be read until the next call of
 *  mpo_exchange_post or mpo_exchange_rows, and no rank writes into them. */
struct mpo_rows {
    int32_t row_count;          /* B; 0 on a rank whose slice is empty */
    const float *const *logits; /* [H, B] pointers to the slice: logits[h * B + b]; NULL:
                                   policy h takes no part in row b */
    const double *log_norm;     /* [H, B] log sum_v exp(logit / temperature), nat; NAN
                                   where it takes no part */
};
