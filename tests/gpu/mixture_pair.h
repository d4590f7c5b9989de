/* SPDX-License-Identifier: Apache-2.0 */
/**
 * One case of the mixture on the CPU and on CUDA, and draws from both compared: figures
 * agree within 1e-12 of their size, and tokens unless the uniform lies where two meet.
 */
#pragma once

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "mixture_case.h"
#include "runner.h"

#define BOUND 1e-12
#define JUMP  1e-12

/* ---- a case on both devices ---- */

struct pair {
    struct mixture_case cpu;
    struct mixture_case cuda;
};

static void check_cuda(cudaError_t error)
{
    if (error != cudaSuccess)
        fail_msg("CUDA: %s", cudaGetErrorString(error));
}

static void pair_make(struct pair *pair, int32_t policy_count, int32_t row_count,
                      int32_t vocab_size, double strength)
{
    mixture_case_make(&pair->cpu, policy_count, row_count, vocab_size, strength);
    mixture_case_make(&pair->cuda, policy_count, row_count, vocab_size, strength);
    pair->cpu.device = "cpu";
    pair->cuda.device = "cuda";
    for (int32_t h = 0; h < policy_count; h++) {
        pair->cpu.temperature[h] = 0.7 + 0.2 * h;
        pair->cpu.mu[h] = h == 2 ? 0.0 : 0.8 / (1 + h);
    }
    pair->cpu.end_bias = 1.25;
}

static size_t logit_count(const struct mixture_case *self)
{
    return (size_t)self->policy_count * (size_t)self->row_count * (size_t)self->vocab_size;
}

/* What was changed in the CPU's case goes for the other too; then both are run. */
static void pair_run(struct pair *pair)
{
    const struct mixture_case *cpu = &pair->cpu;
    struct mixture_case *cuda = &pair->cuda;
    memcpy(cuda->temperature, cpu->temperature, sizeof cpu->temperature);
    memcpy(cuda->mu, cpu->mu, sizeof cpu->mu);
    memcpy(cuda->end_token, cpu->end_token, sizeof cpu->end_token);
    memcpy(cuda->masked, cpu->masked, (size_t)cpu->masked_count * sizeof *cpu->masked);
    memcpy(cuda->logits, cpu->logits, logit_count(cpu) * sizeof *cpu->logits);
    cuda->end_bias = cpu->end_bias;
    cuda->varies = cpu->varies;
    cuda->end_count = cpu->end_count;
    cuda->masked_count = cpu->masked_count;
    mixture_case_run(&pair->cpu);
    mixture_case_run(cuda);
}

static void pair_free(struct pair *pair)
{
    mixture_case_free(&pair->cuda);
    mixture_case_free(&pair->cpu);
}

/* ---- draws ---- */

struct drawn {
    int32_t count;
    int32_t *token;
    double *log_proposal;
    double *log_policy;
};

static void draw(struct mixture_case *self, int32_t count, bool greedy,
                 const struct mpo_mixture_filter *filter, struct drawn *drawn)
{
    size_t some = (size_t)count;
    int32_t *row = runner_allocate(some, sizeof *row);
    double *uniform = runner_allocate(some, sizeof *uniform);
    enum mpo_mixture_kind *kind = runner_allocate(some, sizeof *kind);
    const struct mpo_mixture_rule **rule = runner_allocate(some, sizeof *rule);
    struct mpo_mixture_rule filtered = {0};
    if (filter != NULL)
        filtered.filter = *filter;
    drawn->count = count;
    drawn->token = runner_allocate(some, sizeof *drawn->token);
    drawn->log_proposal = runner_allocate(some, sizeof(double));
    drawn->log_policy = runner_allocate(some * (size_t)self->policy_count, sizeof(double));
    for (int32_t i = 0; i < count; i++) {
        row[i] = i * 5 % self->row_count;
        uniform[i] = runner_uniform(17, (uint64_t)i);
        kind[i] = greedy ? MPO_MIXTURE_GREATEST : MPO_MIXTURE_DRAWN;
        rule[i] = filter != NULL ? &filtered : NULL;
    }
    struct mpo_mixture_draws draws = {.count = count,
                                      .row = row,
                                      .kind = kind,
                                      .uniform = greedy ? NULL : uniform,
                                      .rule = filter != NULL ? rule : NULL,
                                      .token = drawn->token,
                                      .log_proposal = drawn->log_proposal,
                                      .log_policy = drawn->log_policy};
    assert_ok(mpo_mixture_draw(self->mixture, &draws));
    free(rule);
    free(kind);
    free(uniform);
    free(row);
}

static void drawn_free(struct drawn *drawn)
{
    free(drawn->log_policy);
    free(drawn->log_proposal);
    free(drawn->token);
}

/* Two tokens for one uniform: right only when it lies where they meet. */
static void check_boundary(const struct mixture_case *cpu, int32_t i, int32_t a, int32_t b)
{
    struct mixture_truth truth;
    double uniform = runner_uniform(17, (uint64_t)i);
    double below = 0.0;
    mixture_truth_make(cpu, i * 5 % cpu->row_count, &truth);
    for (int32_t v = 0; v <= (a < b ? a : b); v++)
        below += truth.q[v];
    assert_close(below, uniform, JUMP);
    for (int32_t v = (a < b ? a : b) + 1; v < (a < b ? b : a); v++)
        below += truth.q[v];
    assert_close(below, uniform, JUMP);
    mixture_truth_free(&truth);
}

static void check_figures(const struct pair *pair, const struct drawn *cpu,
                          const struct drawn *cuda, int32_t i)
{
    int32_t policies = pair->cpu.policy_count;
    double size = 1.0 + fabs(cpu->log_proposal[i]);
    assert_close(cuda->log_proposal[i], cpu->log_proposal[i], BOUND * size);
    for (int32_t h = 0; h < policies; h++) {
        double expected = cpu->log_policy[i * policies + h];
        assert_close(cuda->log_policy[i * policies + h], expected,
                     BOUND * (1.0 + fabs(expected)));
    }
}

static void check_draws(struct pair *pair, int32_t count)
{
    struct drawn cpu;
    struct drawn cuda;
    int32_t different = 0;
    draw(&pair->cpu, count, false, NULL, &cpu);
    draw(&pair->cuda, count, false, NULL, &cuda);
    for (int32_t i = 0; i < count; i++) {
        if (cpu.token[i] == cuda.token[i]) {
            check_figures(pair, &cpu, &cuda, i);
            continue;
        }
        different++;
        check_boundary(&pair->cpu, i, cpu.token[i], cuda.token[i]);
    }
    if (different > 0)
        print_message("%d of %d draws fell on a boundary\n", different, count);
    assert_true(different <= count / 100);
    drawn_free(&cuda);
    drawn_free(&cpu);
}

/* Draws that agree without exception. */
static void check_same_draws(struct pair *pair, int32_t count, bool greedy,
                             const struct mpo_mixture_filter *filter)
{
    struct drawn cpu;
    struct drawn cuda;
    draw(&pair->cpu, count, greedy, filter, &cpu);
    draw(&pair->cuda, count, greedy, filter, &cuda);
    for (int32_t i = 0; i < count; i++) {
        assert_int_equal(cuda.token[i], cpu.token[i]);
        check_figures(pair, &cpu, &cuda, i);
    }
    drawn_free(&cuda);
    drawn_free(&cpu);
}
