/* SPDX-License-Identifier: Apache-2.0 */
#include "mixture_questions.h"

#include <math.h>
#include <stdlib.h>

#include "runner.h"

static const struct mpo_mixture_filter open_filter = {1.0, 0, 1.0, 0.0};
static const struct mpo_mixture_filter filter = {0.8, 40, 0.95, 0.001};

/* A few tokens, one of them twice, one taken away. */
static int32_t some_biases(int32_t vocab_size, struct mpo_mixture_bias *bias)
{
    const struct mpo_mixture_bias some[5] = {{vocab_size - 1, -INFINITY},
                                             {1 % vocab_size, 3.0},
                                             {vocab_size / 2, -2.5},
                                             {1 % vocab_size, 1.25},
                                             {vocab_size / 3, 4.0}};
    int32_t count = vocab_size < 5 ? 0 : 5;
    for (int32_t i = 0; i < count; i++)
        bias[i] = some[i];
    return count;
}

/* All tokens but one, of those that are not masked; -1: all. */
static void take_away(int32_t vocab_size, int32_t kept, struct mpo_mixture_bias *bias)
{
    for (int32_t v = 0; v < vocab_size; v++)
        bias[v] = (struct mpo_mixture_bias){v, v == kept ? -1.0 : -INFINITY};
}

static int32_t any_token(const struct mixture_case *some)
{
    int32_t token = some->vocab_size - 1;
    for (int32_t i = some->masked_count - 1; i >= 0 && some->masked[i] == token; i--)
        token--;
    return token;
}

static void make_rules(struct mixture_questions *self, const struct mixture_case *some)
{
    int32_t vocab_size = some->vocab_size;
    struct mpo_mixture_bias *all = self->bias + 5;
    struct mpo_mixture_bias *but_one = all + vocab_size;
    int32_t count = some_biases(vocab_size, self->bias);
    take_away(vocab_size, -1, all);
    take_away(vocab_size, any_token(some), but_one);
    self->rules[1] = (struct mpo_mixture_rule){.filter = filter};
    self->rules[2] = (struct mpo_mixture_rule){open_filter, self->bias, count};
    self->rules[3] =
        (struct mpo_mixture_rule){filter, self->bias + 1, count > 0 ? count - 1 : 0};
    self->rules[4] = (struct mpo_mixture_rule){filter, all, vocab_size};
    self->rules[5] = (struct mpo_mixture_rule){filter, but_one, vocab_size};
}

void mixture_questions_make(struct mixture_questions *self, const struct mixture_case *some,
                            int32_t count)
{
    static const enum mpo_mixture_kind kinds[3] = {MPO_MIXTURE_DRAWN, MPO_MIXTURE_GREATEST,
                                                   MPO_MIXTURE_GIVEN};
    size_t room = (size_t)count;
    *self = (struct mixture_questions){.count = count, .policy_count = some->policy_count};
    self->row = runner_allocate(room, sizeof *self->row);
    self->kind = runner_allocate(room, sizeof *self->kind);
    self->uniform = runner_allocate(room, sizeof *self->uniform);
    self->rule = runner_allocate(room, sizeof *self->rule);
    self->token = runner_allocate(room, sizeof *self->token);
    self->log_proposal = runner_allocate(room, sizeof(double));
    self->log_policy = runner_allocate(room * (size_t)some->policy_count, sizeof(double));
    self->bias = runner_allocate(5 + 2 * (size_t)some->vocab_size, sizeof *self->bias);
    make_rules(self, some);
    for (int32_t i = 0; i < count; i++) {
        int32_t rule = i % MIXTURE_QUESTIONS_RULES;
        self->row[i] = 5 * i % some->row_count;
        self->kind[i] = kinds[(i + i / MIXTURE_QUESTIONS_RULES) % 3];
        self->uniform[i] = runner_uniform(41, (uint64_t)i);
        self->rule[i] = rule > 0 ? &self->rules[rule] : NULL;
        self->token[i] = self->kind[i] == MPO_MIXTURE_GIVEN
                             ? (int32_t)(self->uniform[i] * some->vocab_size)
                             : -2;
    }
}

void mixture_questions_free(struct mixture_questions *self)
{
    free(self->bias);
    free(self->log_policy);
    free(self->log_proposal);
    free(self->token);
    free(self->rule);
    free(self->uniform);
    free(self->kind);
    free(self->row);
}

struct mpo_mixture_draws mixture_questions_draws(struct mixture_questions *self)
{
    for (int32_t i = 0; i < self->count; i++)
        if (self->kind[i] != MPO_MIXTURE_GIVEN)
            self->token[i] = -2;
    return (struct mpo_mixture_draws){.count = self->count,
                                      .row = self->row,
                                      .kind = self->kind,
                                      .uniform = self->uniform,
                                      .rule = self->rule,
                                      .token = self->token,
                                      .log_proposal = self->log_proposal,
                                      .log_policy = self->log_policy};
}

void mixture_questions_ask(struct mixture_questions *self, struct mpo_mixture *mixture)
{
    struct mpo_mixture_draws draws = mixture_questions_draws(self);
    assert_ok(mpo_mixture_draw(mixture, &draws));
}

void mixture_questions_ask_one(struct mixture_questions *self, struct mpo_mixture *mixture,
                               int32_t i, int32_t row)
{
    bool has_rule = self->rule[i] != NULL;
    struct mpo_mixture_draws draws = {
        .count = 1,
        .row = &row,
        .kind = self->kind + i,
        .uniform = self->kind[i] == MPO_MIXTURE_DRAWN ? self->uniform + i : NULL,
        .rule = has_rule ? self->rule + i : NULL,
        .token = self->token + i,
        .log_proposal = self->log_proposal + i,
        .log_policy = self->log_policy + i * self->policy_count};
    assert_ok(mpo_mixture_draw(mixture, &draws));
}

void mixture_questions_same(const struct mixture_questions *self,
                            const struct mixture_questions *expected)
{
    for (int32_t i = 0; i < self->count; i++) {
        assert_int_equal(self->token[i], expected->token[i]);
        assert_same_bits(self->log_proposal[i], expected->log_proposal[i]);
        for (int32_t h = 0; h < self->policy_count; h++)
            assert_same_bits(self->log_policy[i * self->policy_count + h],
                             expected->log_policy[i * self->policy_count + h]);
    }
}
