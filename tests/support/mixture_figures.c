/* SPDX-License-Identifier: Apache-2.0 */
#include "mixture_figures.h"

#include <stdlib.h>

#include "runner.h"

static const struct mpo_mixture_rule filter = {.filter = {0.8, 40, 0.95, 0.001}};

void mixture_figures_make(struct mixture_figures *figures, const struct mixture_case *some)
{
    size_t rows = (size_t)some->row_count;
    size_t policies = (size_t)some->policy_count;
    mixture_questions_make(&figures->questions, some, 12);
    figures->moments = runner_allocate(rows, sizeof *figures->moments);
    figures->expectation = runner_allocate(rows * policies, sizeof(double));
    for (int32_t mode = 0; mode < MIXTURE_MODE_COUNT; mode++) {
        figures->token[mode] = runner_allocate(rows, sizeof(int32_t));
        figures->log_proposal[mode] = runner_allocate(rows, sizeof(double));
        figures->log_policy[mode] = runner_allocate(rows * policies, sizeof(double));
    }
}

void mixture_figures_free(struct mixture_figures *figures)
{
    mixture_questions_free(&figures->questions);
    for (int32_t mode = 0; mode < MIXTURE_MODE_COUNT; mode++) {
        free(figures->log_policy[mode]);
        free(figures->log_proposal[mode]);
        free(figures->token[mode]);
    }
    free(figures->expectation);
    free(figures->moments);
}

enum mpo_status mixture_figures_take(struct mpo_mixture *mixture,
                                     const struct mixture_case *some,
                                     const struct mpo_rows *rows, enum mixture_mode mode,
                                     struct mixture_figures *figures)
{
    const struct mpo_mixture_results results = {figures->moments, figures->expectation};
    int32_t count = some->row_count;
    int32_t *row = runner_allocate((size_t)count, sizeof *row);
    double *uniform = runner_allocate((size_t)count, sizeof *uniform);
    enum mpo_mixture_kind *kind = runner_allocate((size_t)count, sizeof *kind);
    const struct mpo_mixture_rule **rule = runner_allocate((size_t)count, sizeof *rule);
    for (int32_t i = 0; i < count; i++) {
        row[i] = 5 * i % count;
        kind[i] = mode == MIXTURE_GIVEN    ? MPO_MIXTURE_GIVEN
                  : mode == MIXTURE_GREEDY ? MPO_MIXTURE_GREATEST
                                           : MPO_MIXTURE_DRAWN;
        rule[i] = &filter;
        uniform[i] = runner_uniform(17 + mode, (uint64_t)i);
        if (mode == MIXTURE_GIVEN)
            figures->token[mode][i] = (int32_t)(uniform[i] * some->vocab_size);
    }
    struct mpo_mixture_draws draws = {.count = count,
                                      .row = row,
                                      .kind = kind,
                                      .uniform = mode == MIXTURE_GREEDY ? NULL : uniform,
                                      .rule = mode == MIXTURE_FILTERED ? rule : NULL,
                                      .token = figures->token[mode],
                                      .log_proposal = figures->log_proposal[mode],
                                      .log_policy = figures->log_policy[mode]};
    enum mpo_status status =
        rows == NULL ? mpo_mixture_draw(mixture, &draws)
                     : mpo_mixture_combine_and_draw(mixture, rows, &some->exponents,
                                                    &results, &draws);
    free(rule);
    free(kind);
    free(uniform);
    free(row);
    return status;
}

void mixture_figures_draw(struct mpo_mixture *mixture, const struct mixture_case *some,
                          enum mixture_mode mode, struct mixture_figures *figures)
{
    assert_ok(mixture_figures_take(mixture, some, NULL, mode, figures));
}

void mixture_figures_ask(struct mpo_mixture *mixture, const struct mixture_case *some,
                         struct mixture_figures *figures)
{
    int32_t last = some->row_count - 1;
    for (int32_t mode = 0; mode < MIXTURE_MODE_COUNT; mode++)
        mixture_figures_draw(mixture, some, mode, figures);
    mixture_questions_ask(&figures->questions, mixture);
    assert_ok(mpo_mixture_top(mixture, last, MPO_MIXTURE_TOP_MAX, figures->top));
}

void mixture_figures_same_mode(const struct mixture_figures *found,
                               const struct mixture_figures *expected,
                               const struct mixture_case *some, enum mixture_mode mode)
{
    size_t rows = (size_t)some->row_count;
    size_t doubles = rows * (size_t)some->policy_count * sizeof(double);
    assert_memory_equal(found->moments, expected->moments, rows * sizeof *found->moments);
    assert_memory_equal(found->expectation, expected->expectation, doubles);
    assert_memory_equal(found->token[mode], expected->token[mode], rows * sizeof(int32_t));
    assert_memory_equal(found->log_proposal[mode], expected->log_proposal[mode],
                        rows * sizeof(double));
    assert_memory_equal(found->log_policy[mode], expected->log_policy[mode], doubles);
}

void mixture_figures_same(const struct mixture_figures *found,
                          const struct mixture_figures *expected,
                          const struct mixture_case *some)
{
    for (enum mixture_mode mode = 0; mode < MIXTURE_MODE_COUNT; mode++)
        mixture_figures_same_mode(found, expected, some, mode);
    mixture_questions_same(&found->questions, &expected->questions);
    assert_memory_equal(found->top, expected->top, sizeof found->top);
}
