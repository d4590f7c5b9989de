/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of prompts that were looked up: they are told back as they came, to those alone who
 * ask for the same ones, and a row may begin with those of another or of itself.
 */
#include "runner.h"
#include "serve/scores.h"

#define ROWS     3
#define POLICIES 2
#define TOPS     2

static const double mu[POLICIES] = {0.4, 0.6};
static const struct mpo_scores_key key = {.mu = mu, .end_bias = 0.5, .top_count = TOPS};

static void add_figure(struct mpo_scores *scores, int32_t row, double figure)
{
    const double policy[POLICIES] = {figure + 1.0, figure + 2.0};
    const double top[TOPS] = {figure + 3.0, figure + 4.0};
    const int32_t token[TOPS] = {(int32_t)figure + 5, (int32_t)figure + 6};
    mpo_scores_add(scores, row,
                   &(struct mpo_score){figure, figure + 0.5, policy, top, token});
}

static void assert_figure(const struct mpo_scores *scores, int32_t row, int32_t index,
                          double figure)
{
    struct mpo_score score = mpo_scores_get(scores, row, index);
    assert_same_bits(score.log_q, figure);
    assert_same_bits(score.log_z, figure + 0.5);
    for (int32_t h = 0; h < POLICIES; h++)
        assert_same_bits(score.log_policy[h], figure + 1.0 + h);
    for (int32_t i = 0; i < TOPS; i++) {
        assert_same_bits(score.top_log_q[i], figure + 3.0 + i);
        assert_int_equal(score.top_token[i], (int32_t)figure + 5 + i);
    }
}

static void begin(struct mpo_scores *scores, int32_t row, int32_t capacity, int32_t source,
                  int32_t count)
{
    const struct mpo_scores_begin start = {row, capacity, source, count};
    mpo_scores_begin(scores, &key, &start);
}

static void figures_come_back_as_they_were(void **state)
{
    struct mpo_scores *scores = NULL;
    (void)state;
    assert_ok(mpo_scores_open(ROWS, POLICIES, &scores));
    add_figure(scores, 0, 9.0); /* of a row that is not looked up: nothing is kept */
    begin(scores, 1, 4, -1, 0);
    for (int32_t i = 0; i < 5; i++) /* one more than there is room for */
        add_figure(scores, 1, 10.0 * i);
    assert_int_equal(mpo_scores_count(scores, 0), 0);
    assert_int_equal(mpo_scores_count(scores, 1), 4);
    for (int32_t i = 0; i < 4; i++)
        assert_figure(scores, 1, i, 10.0 * i);
    mpo_scores_close(&scores);
}

static void a_row_begins_with_anothers_or_its_own(void **state)
{
    struct mpo_scores *scores = NULL;
    (void)state;
    assert_ok(mpo_scores_open(ROWS, POLICIES, &scores));
    begin(scores, 0, 3, -1, 0);
    for (int32_t i = 0; i < 3; i++)
        add_figure(scores, 0, 10.0 * i);
    begin(scores, 2, 6, 0, 2);
    add_figure(scores, 2, 70.0);
    assert_int_equal(mpo_scores_count(scores, 2), 3);
    assert_figure(scores, 2, 1, 10.0);
    assert_figure(scores, 2, 2, 70.0);
    begin(scores, 0, 5, 0, 3); /* it takes its own place */
    add_figure(scores, 0, 80.0);
    assert_int_equal(mpo_scores_count(scores, 0), 4);
    assert_figure(scores, 0, 0, 0.0);
    assert_figure(scores, 0, 3, 80.0);
    mpo_scores_drop(scores, 0);
    assert_int_equal(mpo_scores_count(scores, 0), 0);
    assert_false(mpo_scores_are_of(scores, 0, &key));
    mpo_scores_close(&scores);
}

static void only_the_same_question_has_them(void **state)
{
    const double other[POLICIES] = {0.4, 0.6000000000000001};
    struct mpo_scores *scores = NULL;
    struct mpo_scores_key asked = key;
    (void)state;
    assert_ok(mpo_scores_open(ROWS, POLICIES, &scores));
    begin(scores, 0, 3, -1, 0);
    assert_true(mpo_scores_are_of(scores, 0, &key));
    assert_false(mpo_scores_are_of(scores, 1, &key));
    asked.mu = other;
    assert_false(mpo_scores_are_of(scores, 0, &asked));
    asked = key;
    asked.end_bias = 0.0;
    assert_false(mpo_scores_are_of(scores, 0, &asked));
    asked = key;
    asked.weighted_only = true;
    assert_false(mpo_scores_are_of(scores, 0, &asked));
    asked = key;
    asked.top_count = TOPS - 1;
    assert_false(mpo_scores_are_of(scores, 0, &asked));
    mpo_scores_close(&scores);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_come_back_as_they_were),
        cmocka_unit_test(a_row_begins_with_anothers_or_its_own),
        cmocka_unit_test(only_the_same_question_has_them),
    };
    return run_cases("scores", tests);
}
