/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the ranks of a group do with slices of rows on CUDA, beside the kernels for whole
 * rows. It is the halves of mixture_draw, by the same functions:
 *
 *     root        ask      inverts a row's block sums to a block
 *     its rank    answer   finds the token in the block, says it with its logits
 *
 * and scores for filtered draws. With combine_blocks on each rank's slice and combine_rows
 * at the root, which gets the other slices' block sums, all figures have the bits that one
 * device with whole rows gives them.
 *
 * Bytes from device memory and what limits the kernel, S tokens a slice:
 *
 *     ask              V/1024 16                     latency, one group a draw
 *     answer           4 H 1024 + 32 H               latency, one group a draw
 *     scores           4 H S + 8 S written           bandwidth; target 80 % of it
 *
 * What goes to the root's device a row: S/1024 (24 + 8 H) of block sums of the other slices;
 * 48 a question to each of them, and of each 8 + 8 H an answer. From device to device where
 * the exchange can, else through the hosts; so do scores where a draw has a rule, 8 S.
 */
#pragma once

#include "draw_kernels.cuh"

/** Grid: draws. Each draw as a question, in order, rules aside. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_ask(struct mixture_view view, struct mixture_sums sums,
                struct mixture_draw_view draws, struct mpo_mixture_question *question)
{
    MPO_DYNAMIC_SHARED(double, block_weight); /* [block] */
    struct mpo_mixture_question own = ask_draw(&view, &sums, &draws, block_weight);
    if (threadIdx.x == 0)
        question[blockIdx.x] = own;
}

/** Grid: questions. The token, then its logits: [count, MPO_MIXTURE_ANSWER_WIDTH(H)]; nothing
 *  of questions about other slices. Of the rows a slice begins with token 0. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_answer(struct mixture_view view, int32_t first_block,
                   const struct mpo_mixture_question *question, double *answers)
{
    struct mpo_mixture_question own = question[blockIdx.x];
    double *answer =
        answers + (size_t)blockIdx.x * MPO_MIXTURE_ANSWER_WIDTH(view.policy_count);
    own.block -= first_block;
    own.token -= first_block * MPO_ROWS_BLOCK;
    if (own.block < 0 || own.block >= view.block_count)
        return; /* the whole group */
    int32_t token = find_token(&view, &own);
    uint32_t flags = token_flags(&view, token);
    if (threadIdx.x == 0)
        answer[0] = (double)(token + first_block * MPO_ROWS_BLOCK);
    for (int32_t h = (int32_t)threadIdx.x; h < view.policy_count; h += MIXTURE_THREADS)
        answer[1 + h] = (double)known_logit(policy_row(&view, h, own.row)[token], flags);
}

/** Grid: blocks of the slice. s of one row's tokens. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_scores(struct mixture_view view, int32_t row, double *scores)
{
    int32_t token = first_token((int32_t)blockIdx.x);
    double score[MIXTURE_TOKENS];
    token_scores(&view, row, (int32_t)blockIdx.x, NULL, score);
    for (int i = 0; i < MIXTURE_TOKENS; i++)
        if (token + i < view.vocab_size)
            scores[token + i] = score[i];
}
