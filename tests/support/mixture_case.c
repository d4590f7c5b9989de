/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cases of the mixture and their truth. The truth is the definition, token by token, in
 * long double: 64 bits of mantissa leave some 1e-15 for sums over 49152 tokens, three
 * digits below what the tests ask for.
 */
#include "mixture_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/policy.h"
#include "runner.h"

const char *mixture_case_device(void)
{
    const char *device = getenv("MPO_TEST_DEVICE");
    return device != NULL ? device : "cpu";
}

int32_t mixture_case_sweep(int32_t points)
{
    return strcmp(mixture_case_device(), "cpu") == 0 ? points : points / 100 + 1;
}

void mixture_case_make(struct mixture_case *self, int32_t policy_count, int32_t row_count,
                       int32_t vocab_size, double strength)
{
    assert_in_range(policy_count, 1, MIXTURE_CASE_POLICY_MAX);
    size_t rows = (size_t)policy_count * (size_t)row_count;
    size_t count = rows * (size_t)vocab_size;
    *self = (struct mixture_case){.device = mixture_case_device(),
                                  .policy_count = policy_count,
                                  .row_count = row_count,
                                  .vocab_size = vocab_size,
                                  .end_token = {vocab_size - 1},
                                  .end_count = 1};
    self->masked = runner_allocate((size_t)vocab_size, sizeof *self->masked);
    self->logits = runner_allocate(count, sizeof *self->logits);
    self->row = runner_allocate(rows, sizeof *self->row);
    self->log_norm = runner_allocate(rows, sizeof *self->log_norm);
    self->moments = runner_allocate((size_t)row_count, sizeof *self->moments);
    self->expectation = runner_allocate(rows, sizeof *self->expectation);
    self->row_mu = runner_allocate(rows, sizeof *self->row_mu);
    self->row_end_bias = runner_allocate((size_t)row_count, sizeof *self->row_end_bias);
    for (size_t i = 0; i < count; i++) {
        double uniform = runner_uniform((uint64_t)vocab_size, i);
        self->logits[i] = (float)(strength * (2.0 * uniform - 1.0));
    }
    for (size_t i = 0; i < rows; i++)
        self->row[i] = self->logits + i * (size_t)vocab_size;
    for (int32_t h = 0; h < policy_count; h++) {
        self->temperature[h] = 1.0;
        self->mu[h] = 1.0 / policy_count;
    }
}

void mixture_case_mask(struct mixture_case *self, int32_t period, int32_t rest)
{
    self->masked_count = 0;
    for (int32_t v = rest; v < self->vocab_size; v += period) {
        self->masked[self->masked_count++] = v;
        for (int32_t i = 0; i < self->policy_count * self->row_count; i++)
            self->logits[(size_t)i * (size_t)self->vocab_size + (size_t)v] =
                MPO_MASKED_LOGIT;
    }
}

float *mixture_case_logits(const struct mixture_case *self, int32_t policy, int32_t row)
{
    size_t index = (size_t)policy * (size_t)self->row_count + (size_t)row;
    return self->logits + index * (size_t)self->vocab_size;
}

struct mpo_mixture_spec mixture_case_spec(const struct mixture_case *self)
{
    return (struct mpo_mixture_spec){.device = self->device,
                                     .temperature = self->temperature,
                                     .end_token = self->end_token,
                                     .masked = self->masked,
                                     .policy_count = self->policy_count,
                                     .end_count = self->end_count,
                                     .masked_count = self->masked_count,
                                     .vocab_size = self->vocab_size,
                                     .row_capacity = self->row_count,
                                     .rows_on_device = self->rows_on_device,
                                     .bf16_rows = self->bf16_rows,
                                     .placed_count =
                                         self->bf16_rows ? self->policy_count : 0};
}

void mixture_case_run(struct mixture_case *self)
{
    const struct mpo_mixture_spec spec = mixture_case_spec(self);
    mpo_mixture_close(&self->mixture);
    assert_ok(mpo_mixture_open(&spec, &self->mixture));
    for (int32_t h = 0; h < self->policy_count; h++) {
        const float **row = self->row + h * self->row_count;
        for (int32_t b = 0; self->bf16_rows && b < self->row_count; b++)
            row[b] = mixture_case_logits(self, h, b); /* not those of an earlier run */
        assert_ok(mpo_mixture_round(self->mixture, h, self->row_count, row));
        assert_ok(mpo_mixture_normalise(self->mixture, h, self->row_count, row,
                                        self->log_norm + h * self->row_count));
    }
    self->rows = (struct mpo_rows){self->row_count, self->row, self->log_norm};
    mixture_case_combine(self);
}

void mixture_case_set(struct mixture_case *self)
{
    for (int32_t row = 0; row < self->row_count; row++) {
        for (int32_t h = 0; h < self->policy_count; h++) {
            int32_t at = row * self->policy_count + h;
            double share =
                self->varies ? 0.4 + 1.2 * runner_uniform(31, (uint64_t)at) : 1.0;
            self->row_mu[at] = share * self->mu[h];
        }
        self->row_end_bias[row] = self->end_bias + (self->varies ? row % 5 - 2.0 : 0.0);
    }
    self->exponents =
        (struct mpo_mixture_exponents){self->row_mu, self->row_end_bias, NULL};
}

void mixture_case_combine(struct mixture_case *self)
{
    mixture_case_set(self);
    assert_ok(mpo_mixture_combine(self->mixture, &self->rows, &self->exponents,
                                  self->moments, self->expectation));
}

void mixture_case_free(struct mixture_case *self)
{
    mpo_mixture_close(&self->mixture);
    free(self->row_end_bias);
    free(self->row_mu);
    free(self->expectation);
    free(self->moments);
    free(self->log_norm);
    free(self->row);
    free(self->logits);
    free(self->masked);
}

static bool listed(const int32_t *list, int32_t count, int32_t token)
{
    for (int32_t i = 0; i < count; i++)
        if (list[i] == token)
            return true;
    return false;
}

static long double log_norm_of(const struct mixture_case *self, const float *x, int32_t h)
{
    long double top = -INFINITY;
    long double sum = 0.0L;
    for (int32_t v = 0; v < self->vocab_size; v++)
        top = fmaxl(top, (long double)x[v] / (long double)self->temperature[h]);
    for (int32_t v = 0; v < self->vocab_size; v++)
        sum += expl((long double)x[v] / (long double)self->temperature[h] - top);
    return top + logl(sum);
}

/* s(v) of every token, -inf where masked; returns log Z. */
static long double truth_scores(const struct mixture_case *self, int32_t row,
                                const long double *norm, long double *score)
{
    long double top = -INFINITY;
    long double sum = 0.0L;
    for (int32_t v = 0; v < self->vocab_size; v++) {
        score[v] = 0.0L;
        for (int32_t h = 0; h < self->policy_count; h++) {
            long double x = self->row[h * self->row_count + row][v];
            long double log_policy = x / (long double)self->temperature[h] - norm[h];
            score[v] +=
                (long double)self->row_mu[row * self->policy_count + h] * log_policy;
        }
        if (listed(self->end_token, self->end_count, v))
            score[v] += (long double)self->row_end_bias[row];
    }
    for (int32_t i = 0; i < self->masked_count; i++)
        score[self->masked[i]] = -INFINITY;
    for (int32_t v = 0; v < self->vocab_size; v++)
        top = fmaxl(top, score[v]);
    for (int32_t v = 0; v < self->vocab_size; v++)
        sum += expl(score[v] - top);
    return top + logl(sum);
}

void mixture_truth_make(const struct mixture_case *self, int32_t row,
                        struct mixture_truth *truth)
{
    long double norm[MIXTURE_CASE_POLICY_MAX] = {0};
    long double mean[MIXTURE_CASE_POLICY_MAX] = {0};
    long double entropy = 0.0L;
    long double ends = 0.0L;
    long double *score = runner_allocate((size_t)self->vocab_size, sizeof *score);
    *truth = (struct mixture_truth){0};
    truth->q = runner_allocate((size_t)self->vocab_size, sizeof *truth->q);
    for (int32_t h = 0; h < self->policy_count; h++)
        norm[h] = log_norm_of(self, self->row[h * self->row_count + row], h);
    long double log_z = truth_scores(self, row, norm, score);
    for (int32_t v = 0; v < self->vocab_size; v++) {
        long double q = expl(score[v] - log_z);
        truth->q[v] = (double)q;
        if (q == 0.0L)
            continue;
        entropy -= q * (score[v] - log_z);
        if (listed(self->end_token, self->end_count, v))
            ends += q;
        for (int32_t h = 0; h < self->policy_count; h++) {
            long double x = self->row[h * self->row_count + row][v];
            mean[h] += q * (x / (long double)self->temperature[h] - norm[h]);
        }
    }
    truth->log_z = (double)log_z;
    truth->entropy = (double)entropy;
    truth->end_probability = (double)ends;
    for (int32_t h = 0; h < self->policy_count; h++) {
        truth->expectation[h] = (double)mean[h];
        truth->log_norm[h] = (double)norm[h];
    }
    free(score);
}

void mixture_truth_free(struct mixture_truth *truth)
{
    free(truth->q);
    truth->q = NULL;
}

void mixture_case_check(const struct mixture_case *self, double bound)
{
    for (int32_t row = 0; row < self->row_count; row++) {
        struct mixture_truth truth;
        mixture_truth_make(self, row, &truth);
        assert_close(self->moments[row].log_z, truth.log_z, bound);
        assert_close(self->moments[row].entropy, truth.entropy, bound);
        assert_close(self->moments[row].end_probability, truth.end_probability, bound);
        for (int32_t h = 0; h < self->policy_count; h++) {
            assert_close(self->log_norm[h * self->row_count + row], truth.log_norm[h],
                         bound);
            assert_close(self->expectation[row * self->policy_count + h],
                         truth.expectation[h], bound);
        }
        mixture_truth_free(&truth);
    }
}

static void compare(double actual, double expected, double bound)
{
    assert_close(actual, expected, bound * (1.0 + fabs(expected)));
}

void mixture_case_compare(const struct mixture_case *self, const struct mixture_case *other,
                          double bound)
{
    int32_t policies = self->policy_count;
    for (int32_t row = 0; row < self->row_count; row++) {
        const struct mpo_mixture_moments *own = &self->moments[row];
        const struct mpo_mixture_moments *expected = &other->moments[row];
        compare(own->log_z, expected->log_z, bound);
        compare(own->entropy, expected->entropy, bound);
        compare(own->end_probability, expected->end_probability, bound);
    }
    for (int32_t i = 0; i < self->row_count * policies; i++) {
        compare(self->log_norm[i], other->log_norm[i], bound);
        compare(self->expectation[i], other->expectation[i], bound);
    }
}

int32_t mixture_case_draw(struct mixture_case *self, int32_t row, const double *uniform,
                          double *log_proposal, double *log_policy)
{
    int32_t token = -1;
    enum mpo_mixture_kind kind = uniform != NULL ? MPO_MIXTURE_DRAWN : MPO_MIXTURE_GREATEST;
    struct mpo_mixture_draws draws = {.count = 1,
                                      .row = &row,
                                      .kind = &kind,
                                      .uniform = uniform,
                                      .token = &token,
                                      .log_proposal = log_proposal,
                                      .log_policy = log_policy};
    assert_ok(mpo_mixture_draw(self->mixture, &draws));
    return token;
}

double mixture_case_score(struct mixture_case *self, int32_t row, int32_t token,
                          double *log_policy)
{
    double log_proposal = 0.0;
    const enum mpo_mixture_kind kind = MPO_MIXTURE_GIVEN;
    struct mpo_mixture_draws draws = {.count = 1,
                                      .row = &row,
                                      .kind = &kind,
                                      .token = &token,
                                      .log_proposal = &log_proposal,
                                      .log_policy = log_policy};
    assert_ok(mpo_mixture_draw(self->mixture, &draws));
    return log_proposal;
}
