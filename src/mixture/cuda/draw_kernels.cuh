/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Draws from combined rows on CUDA, and the figures of tokens: what a row's block sums and
 * then one of its blocks say. Costs as in mixture/cuda/kernels.cuh:
 *
 *     draw             4 H 1024 + V/1024 16          latency, one group a draw
 *                      (+ 32 H, a sector a policy, for the token's figures)
 */
#pragma once

#include "kernels.cuh"

struct mixture_draw_view {
    const int32_t *row;          /* [count] */
    const double *uniform;       /* [count] read where DRAWN */
    enum mpo_mixture_kind *kind; /* [count] GIVEN once a rule was kept */
    int32_t *token;              /* [count] */
    double *log_proposal;        /* [count] */
    double *log_policy;          /* [count, H] */
    int32_t count;
};

/* Where a cumulative sum exceeds a target: the place, and the sum before it. */
struct mixture_place {
    int32_t index;
    double before;
};

/* The first of count weights at which the running sum exceeds target; rounding may leave
 * target at or beyond the end: then the last with any weight. By one thread. */
static __device__ struct mixture_place find_place(const double *weight, int32_t count,
                                                  double target)
{
    struct mixture_place place = {0, 0.0};
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        if (weight[i] == 0.0)
            continue;
        place.index = i;
        place.before = sum;
        sum += weight[i];
        if (sum > target)
            break;
    }
    return place;
}

/* find_place by thread 0, for all threads of the group. */
static __device__ struct mixture_place group_place(const double *weight, int32_t count,
                                                   double target)
{
    __shared__ struct mixture_place shared;
    __syncthreads();
    if (threadIdx.x == 0)
        shared = find_place(weight, count, target);
    __syncthreads();
    return shared;
}

/* The token of a block at which the cumulative sum of weights exceeds target, for all
 * threads: first the thread that has it, then one of that thread's tokens. */
static __device__ int32_t invert_block(const double weight[MIXTURE_TOKENS], int32_t block,
                                       double target)
{
    __shared__ double part[MIXTURE_THREADS];
    __shared__ int32_t token;
    part[threadIdx.x] = weight[0] + weight[1] + weight[2] + weight[3];
    struct mixture_place place = group_place(part, MIXTURE_THREADS, target);
    if ((int32_t)threadIdx.x == place.index) {
        double rest = target - place.before;
        token = first_token(block) + find_place(weight, MIXTURE_TOKENS, rest).index;
    }
    __syncthreads();
    return token;
}

/* The first block of a row with its greatest score, for all threads. */
static __device__ struct mpo_mixture_question
ask_greatest(const struct mixture_view *view, const struct mixture_sums *sums, int32_t row)
{
    struct mpo_mixture_question question = {};
    int32_t best = INT32_MAX;
    question.kind = MPO_MIXTURE_GREATEST;
    question.block_top = sums->row_max[row];
    for (int32_t block = (int32_t)threadIdx.x; block < view->block_count;
         block += MIXTURE_THREADS)
        if (block_figures(view, sums, row, block)[MPO_MIXTURE_TOP] == question.block_top &&
            best == INT32_MAX)
            best = block;
    question.block = group_lowest(best);
    return question;
}

/* The block in which the cumulative sum exceeds the uniform's share of the row, and what is
 * left of that, for all threads. */
static __device__ struct mpo_mixture_question ask_drawn(const struct mixture_view *view,
                                                        const struct mixture_sums *sums,
                                                        int32_t row, double uniform,
                                                        double *block_weight)
{
    struct mpo_mixture_question question = {};
    size_t at = (size_t)row * (size_t)view->block_count;
    for (int32_t block = (int32_t)threadIdx.x; block < view->block_count;
         block += MIXTURE_THREADS)
        block_weight[block] = sums->block_weight[at + (size_t)block];
    double target = uniform * sums->row_sum[row];
    struct mixture_place place = group_place(block_weight, view->block_count, target);
    question.kind = MPO_MIXTURE_DRAWN;
    question.block = place.index;
    question.block_top = block_figures(view, sums, row, place.index)[MPO_MIXTURE_TOP];
    question.scale = exp(question.block_top - sums->row_max[row]);
    question.target = target - place.before;
    return question;
}

/* The group's draw as a question about one block of its row; block_weight: [block] shared.
 * For a failed row any token may be asked for: the answer is not read. */
static __device__ struct mpo_mixture_question
ask_draw(const struct mixture_view *view, const struct mixture_sums *sums,
         const struct mixture_draw_view *draws, double *block_weight)
{
    int32_t row = draws->row[blockIdx.x];
    enum mpo_mixture_kind kind = draws->kind[blockIdx.x];
    struct mpo_mixture_question question = {};
    question.kind = MPO_MIXTURE_GIVEN;
    if (kind == MPO_MIXTURE_GIVEN) {
        question.token = draws->token[blockIdx.x];
        question.block = question.token / MPO_ROWS_BLOCK;
    } else if (!is_finite(sums->moments[row].log_z)) {
        question.token = 0;
    } else if (kind == MPO_MIXTURE_GREATEST) {
        question = ask_greatest(view, sums, row);
    } else {
        question = ask_drawn(view, sums, row, draws->uniform[blockIdx.x], block_weight);
    }
    question.draw = (int32_t)blockIdx.x;
    question.row = row;
    return question;
}

/* The lowest token of a block with this score, for all threads. */
static __device__ int32_t lowest_with(const double score[MIXTURE_TOKENS], int32_t block,
                                      double top)
{
    int32_t best = INT32_MAX;
    for (int i = MIXTURE_TOKENS - 1; i >= 0; i--)
        if (score[i] == top)
            best = first_token(block) + i;
    return group_lowest(best);
}

/* The token of a question about a block, for all threads. */
static __device__ int32_t find_token(const struct mixture_view *view,
                                     const struct mpo_mixture_question *question)
{
    double score[MIXTURE_TOKENS];
    if (question->kind == MPO_MIXTURE_GIVEN)
        return question->token;
    token_scores(view, question->row, question->block, NULL, score);
    if (question->kind == MPO_MIXTURE_GREATEST)
        return lowest_with(score, question->block, question->block_top);
    exponentiate_scores(score, question->block_top);
    for (int i = 0; i < MIXTURE_TOKENS; i++)
        score[i] *= question->scale;
    return invert_block(score, question->block, question->target);
}

/* log pi_h(token) by a thread a policy, then log q(token) by one, in the CPU's order. */
static __device__ void score_token(const struct mixture_view *view,
                                   const struct mixture_sums *sums,
                                   const struct mixture_draw_view *draws, int32_t token)
{
    int32_t row = draws->row[blockIdx.x];
    double *log_policy =
        draws->log_policy + (size_t)blockIdx.x * (size_t)view->policy_count;
    uint32_t flags = token_flags(view, token);
    for (int32_t h = (int32_t)threadIdx.x; h < view->policy_count; h += MIXTURE_THREADS) {
        double logit = (double)known_logit(policy_row(view, h, row)[token], flags);
        log_policy[h] = logit * view->inverse_temperature[h] - policy_norm(view, h, row);
    }
    __syncthreads();
    if (threadIdx.x > 0)
        return;
    double score = flags & MIXTURE_ENDS ? row_end_bias(view, row) : 0.0;
    for (int32_t h = 0; h < view->policy_count; h++) {
        double mu = policy_mu(view, h, row);
        score += mu != 0.0 ? mu * log_policy[h] : 0.0;
    }
    draws->log_proposal[blockIdx.x] = score - sums->moments[row].log_z;
}

/** Grid: draws. The token of each draw that has none yet, and the figures of all: inverts the
 *  block sums of a row and then one block, or finds the most probable token, of equal ones
 *  the lowest. */
static __global__ void __launch_bounds__(MIXTURE_THREADS)
    mixture_draw(struct mixture_view view, struct mixture_sums sums,
                 struct mixture_draw_view draws)
{
    MPO_DYNAMIC_SHARED(double, block_weight); /* [block] */
    struct mpo_mixture_question question = ask_draw(&view, &sums, &draws, block_weight);
    int32_t token = find_token(&view, &question);
    if (threadIdx.x == 0 && draws.kind[blockIdx.x] != MPO_MIXTURE_GIVEN)
        draws.token[blockIdx.x] = token;
    score_token(&view, &sums, &draws, token);
}
