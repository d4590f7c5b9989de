/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A case of the mixture on CUDA, once as whole rows and once cut into slices: one handle a
 * rank, all of them in this process and on one device.
 */
#pragma once

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "mixture/fold.h"
#include "mixture_case.h"
#include "runner.h"

#define RANK_MAX 9

/* One rank's slice in the device's memory, no byte longer than it must be. */
struct rank {
    void *self;
    float **memory;    /* [H, B] */
    const float **row; /* [H, B] */
    int32_t first_block;
    int32_t end_block;
    struct mpo_rows rows;
};

struct cut {
    const struct mpo_mixture_ops *ops;
    const struct mpo_mixture_ops *cpu_ops;
    struct mixture_case some;
    struct rank whole;
    struct rank rank[RANK_MAX];
    int32_t size;
    int32_t block_count;
    void *cpu;
    double *table; /* [block, B] of sums */
    double *score; /* [block, MPO_ROWS_BLOCK] of one row */
    struct mpo_mixture_moments *moments;
    double *expectation;
    struct mpo_mixture_question *question; /* [B] */
    double *answers;                       /* [B] */
    int32_t *row;                          /* [B] that draws are from */
    enum mpo_mixture_kind *kind;           /* [B] */
    const struct mpo_mixture_rule **rule;  /* [B] */
    struct mpo_mixture_bias bias[3];
    struct mpo_mixture_rule biased; /* by them */
    bool *expects;                  /* [B] */
    double *uniform;                /* [B] */
    int32_t *token;                 /* [B] of the whole rows */
    double *log_proposal;           /* [B] */
    double *log_policy;             /* [B, H] */
};

static const struct mpo_mixture_rule filter = {.filter = {0.8, 40, 0.95, 0.001}};

static void check_cuda(cudaError_t error)
{
    if (error != cudaSuccess)
        fail_msg("CUDA: %s", cudaGetErrorString(error));
}

/* ---- ranks ---- */

/* A row as a model left it on the device, which does not mask. */
static void leave_row(const struct mixture_case *some, int32_t i, float *left)
{
    memcpy(left, some->row[i], (size_t)some->vocab_size * sizeof *left);
    for (int32_t j = 0; j < some->masked_count; j++)
        left[some->masked[j]] = i % 2 ? NAN : 90.0f;
}

/* Every other row lies at an odd address. */
static void open_rank(struct cut *cut, struct rank *rank, int32_t first, int32_t end)
{
    const struct mixture_case *some = &cut->some;
    struct mpo_mixture_spec spec = mixture_case_spec(some);
    int32_t row_count = some->policy_count * some->row_count;
    int32_t begin = first * MPO_ROWS_BLOCK;
    int32_t stop = end * MPO_ROWS_BLOCK;
    stop = stop < some->vocab_size ? stop : some->vocab_size;
    *rank = (struct rank){.first_block = first, .end_block = end};
    spec.rows_on_device = true;
    assert_ok(cut->ops->open(&spec, &rank->self));
    rank->memory = runner_allocate((size_t)row_count, sizeof *rank->memory);
    rank->row = runner_allocate((size_t)row_count, sizeof *rank->row);
    float *left = runner_allocate((size_t)some->vocab_size, sizeof *left);
    for (int32_t i = 0; i < row_count && begin < stop; i++) {
        size_t bytes = (size_t)(stop - begin) * sizeof(float);
        check_cuda(
            cudaMalloc((void **)&rank->memory[i], bytes + (size_t)(i % 2) * sizeof(float)));
        rank->row[i] = rank->memory[i] + i % 2;
        leave_row(some, i, left);
        check_cuda(cudaMemcpy(rank->memory[i] + i % 2, left + begin, bytes,
                              cudaMemcpyHostToDevice));
    }
    free(left);
    rank->rows = (struct mpo_rows){some->row_count, rank->row, some->log_norm};
}

static void close_rank(struct cut *cut, struct rank *rank)
{
    for (int32_t i = 0; i < cut->some.policy_count * cut->some.row_count; i++)
        check_cuda(cudaFree(rank->memory[i]));
    free(rank->row);
    free(rank->memory);
    cut->ops->close(rank->self);
}

static void make_cut(struct cut *cut, int32_t policy_count, int32_t row_count,
                     int32_t vocab_size)
{
    *cut = (struct cut){.ops = mpo_registry_mixture("cuda"),
                        .cpu_ops = mpo_registry_mixture("cpu"),
                        .block_count = mpo_rows_block_count(vocab_size)};
    struct mixture_case *some = &cut->some;
    mixture_case_make(some, policy_count, row_count, vocab_size, 6.0);
    for (int32_t h = 0; h < policy_count; h++) {
        some->temperature[h] = 0.7 + 0.1 * h;
        some->mu[h] = h == 2 ? 0.0 : 0.8 / (1 + h);
    }
    some->end_bias = 1.25;
    if (vocab_size > 2)
        some->end_token[some->end_count - 1] = vocab_size / 2;
    if (vocab_size > 2)
        some->end_token[some->end_count++] = vocab_size - 1;
    some->varies = true;
    cut->bias[0] = (struct mpo_mixture_bias){vocab_size / 2, 3.0};
    cut->bias[1] = (struct mpo_mixture_bias){vocab_size - 1, -1.0};
    cut->bias[2] = (struct mpo_mixture_bias){vocab_size / 2, 1.5};
    cut->biased =
        (struct mpo_mixture_rule){filter.filter, cut->bias, vocab_size < 3 ? 0 : 3};
}

static void take_room(struct cut *cut)
{
    size_t rows = (size_t)cut->some.row_count;
    size_t blocks = (size_t)cut->block_count;
    int32_t policies = cut->some.policy_count;
    cut->table = runner_allocate(rows * blocks * MPO_MIXTURE_SUMS_WIDTH(policies), 8);
    cut->score = runner_allocate(blocks * MPO_ROWS_BLOCK, sizeof(double));
    cut->moments = runner_allocate(2 * rows, sizeof *cut->moments);
    cut->expectation = runner_allocate(2 * rows * (size_t)policies, sizeof(double));
    cut->question = runner_allocate(rows, sizeof *cut->question);
    cut->answers = runner_allocate(rows * MPO_MIXTURE_ANSWER_WIDTH(policies), 8);
    cut->row = runner_allocate(rows, sizeof *cut->row);
    cut->kind = runner_allocate(rows, sizeof *cut->kind);
    cut->rule = runner_allocate(rows, sizeof *cut->rule);
    cut->expects = runner_allocate(rows, sizeof *cut->expects);
    cut->uniform = runner_allocate(rows, sizeof *cut->uniform);
    cut->token = runner_allocate(rows, sizeof *cut->token);
    cut->log_proposal = runner_allocate(rows, sizeof(double));
    cut->log_policy = runner_allocate(rows * (size_t)policies, sizeof(double));
}

/* Whole rows on one device, and normalisers from there. */
static void open_cut(struct cut *cut)
{
    struct mixture_case *some = &cut->some;
    const struct mpo_mixture_spec spec = mixture_case_spec(some);
    assert_ok(cut->cpu_ops->open(&spec, &cut->cpu));
    mixture_case_set(some);
    open_rank(cut, &cut->whole, 0, cut->block_count);
    take_room(cut);
    for (int32_t row = 0; row < some->row_count; row++)
        cut->expects[row] = row % 3 != 1;
    some->exponents.expects = cut->expects;
    for (int32_t h = 0; h < some->policy_count; h++) {
        const int32_t first_row[2] = {0, some->row_count};
        const struct mpo_mixture_part part = {h, 1, first_row};
        assert_ok(cut->ops->normalise(cut->whole.self, &part,
                                      cut->whole.row + h * some->row_count,
                                      some->log_norm + h * some->row_count));
    }
    assert_ok(cut->ops->combine(cut->whole.self, &cut->whole.rows, &some->exponents,
                                cut->moments, cut->expectation));
}

static void free_cut(struct cut *cut)
{
    free(cut->log_policy);
    free(cut->log_proposal);
    free(cut->token);
    free(cut->uniform);
    free(cut->expects);
    free(cut->rule);
    free(cut->kind);
    free(cut->row);
    free(cut->answers);
    free(cut->question);
    free(cut->expectation);
    free(cut->moments);
    free(cut->score);
    free(cut->table);
    close_rank(cut, &cut->whole);
    cut->cpu_ops->close(cut->cpu);
    mixture_case_free(&cut->some);
}
