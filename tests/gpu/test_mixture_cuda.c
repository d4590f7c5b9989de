/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mixture on CUDA against the mixture on the CPU, which has been tested against scalar
 * code. Runs on a real device (skipped where there is none) and on simulated ones.
 *
 *     test_mixture_cuda [small | usual | large]         sizes, for slow simulations
 *
 * Scores have the CPU's bits on every device; exp may differ in its last bit and sums in
 * their order, so figures agree within 1e-12 of their size, greedy choices agree always,
 * and draws agree unless the uniform lies within 1e-12 of a cumulative sum.
 */
#include "mixture_questions.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "mpo/policy.h"
#include "device_suite.h"
#include "mixture_pair.h"
#include "runner.h"

static int32_t vocab_max = 152000;

static void figures_and_draws_agree_at_every_size(void **state)
{
    (void)state;
    static const int32_t sizes[][3] = {
        {1, 1, 1},      {3, 2, 2},      {2, 7, 33},     {8, 1, 257},   {5, 3, 1023},
        {3, 64, 1024},  {8, 7, 1025},   {4, 2, 5000},   {6, 1, 20001}, {7, 1, 49152},
        {2, 1, 151936}, {8, 3, 151936}, {3, 2, 262144},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct pair pair;
        if (sizes[i][2] > vocab_max)
            continue;
        pair_make(&pair, sizes[i][0], sizes[i][1], sizes[i][2], 8.0);
        pair_run(&pair);
        mixture_case_compare(&pair.cuda, &pair.cpu, BOUND);
        check_draws(&pair, 40);
        check_same_draws(&pair, 10, true, NULL);
        pair_free(&pair);
    }
}

/* A bias that breaks no tie. */
static int32_t greatest_biased(struct mixture_case *self, int32_t row)
{
    static const struct mpo_mixture_bias bias = {2099, -1.0};
    static const struct mpo_mixture_rule biased = {{1.0, 0, 1.0, 0.0}, &bias, 1};
    static const enum mpo_mixture_kind kind = MPO_MIXTURE_GREATEST;
    const struct mpo_mixture_rule *rule = &biased;
    int32_t token = -1;
    double log_proposal = 0.0;
    double log_policy[2];
    struct mpo_mixture_draws draws = {.count = 1,
                                      .row = &row,
                                      .kind = &kind,
                                      .rule = &rule,
                                      .token = &token,
                                      .log_proposal = &log_proposal,
                                      .log_policy = log_policy};
    assert_ok(mpo_mixture_draw(self->mixture, &draws));
    return token;
}

static void ties_take_the_lowest_id_on_both(void **state)
{
    (void)state;
    static const struct mpo_mixture_filter filters[] = {
        {1.0, 3, 1.0, 0.0},
        {1.0, 70, 0.5, 0.0},
        {0.5, 0, 0.3, 0.0},
    };
    struct pair pair;
    pair_make(&pair, 2, 3, 2100, 1.0);
    for (size_t i = 0; i < logit_count(&pair.cpu); i++)
        pair.cpu.logits[i] = rintf(2.0f * pair.cpu.logits[i]);
    pair_run(&pair);
    mixture_case_compare(&pair.cuda, &pair.cpu, BOUND);
    check_same_draws(&pair, 6, true, NULL);
    for (int32_t row = 0; row < 3; row++)
        assert_int_equal(greatest_biased(&pair.cuda, row), greatest_biased(&pair.cpu, row));
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        check_same_draws(&pair, 5, false, &filters[i]);
    pair_free(&pair);
}

static void filters_keep_the_same_tokens(void **state)
{
    (void)state;
    static const struct mpo_mixture_filter filters[] = {
        {0.7, 0, 1.0, 0.0},       {1.0, 40, 1.0, 0.0},   {1.0, 0, 0.9, 0.0},
        {1.0, 0, 1.0, 0.05},      {0.8, 50, 0.95, 0.02}, {1.3, 1, 1.0, 0.0},
        {1.0, 1 << 30, 1.0, 0.0}, {1.0, 0, 1e-9, 0.0},
    };
    struct pair pair;
    pair_make(&pair, 3, 2, vocab_max < 49152 ? 1500 : 49152, 6.0);
    mixture_case_mask(&pair.cpu, 7, 3);
    pair_run(&pair);
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        check_same_draws(&pair, 2, false, &filters[i]);
    pair_free(&pair);
}

/* More draws than are filtered at a time, and than there are rows. */
static void many_filtered_draws_come_in_rounds(void **state)
{
    (void)state;
    static const struct mpo_mixture_filter filter = {1.0, 5, 1.0, 0.0};
    struct pair pair;
    pair_make(&pair, 1, 33, 50, 3.0);
    pair_run(&pair);
    check_same_draws(&pair, 35, false, &filter);
    pair_free(&pair);
}

static void near(double found, double expected)
{
    assert_int_equal(isnan(found), isnan(expected));
    if (!isnan(found))
        assert_close(found, expected, BOUND * (1.0 + fabs(expected)));
}

static void check_questions(struct pair *pair, int32_t count)
{
    struct mixture_questions cpu;
    struct mixture_questions cuda;
    mixture_questions_make(&cpu, &pair->cpu, count);
    mixture_questions_make(&cuda, &pair->cuda, count);
    mixture_questions_ask(&cpu, pair->cpu.mixture);
    mixture_questions_ask(&cuda, pair->cuda.mixture);
    for (int32_t i = 0; i < count; i++) {
        assert_int_equal(cuda.token[i], cpu.token[i]);
        near(cuda.log_proposal[i], cpu.log_proposal[i]);
    }
    for (int32_t i = 0; i < count * pair->cpu.policy_count; i++)
        near(cuda.log_policy[i], cpu.log_policy[i]);
    mixture_questions_free(&cuda);
    mixture_questions_free(&cpu);
}

/* Every row with exponents, a tilt and rules of its own, and every kind in one call. */
static void rows_of_their_own_agree(void **state)
{
    (void)state;
    static const int32_t sizes[][3] = {{3, 5, 1100}, {1, 2, 7}, {2, 7, 33}, {4, 2, 2051}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct pair pair;
        pair_make(&pair, sizes[i][0], sizes[i][1], sizes[i][2], 5.0);
        mixture_case_mask(&pair.cpu, 6, 2);
        pair.cpu.varies = true;
        pair_run(&pair);
        mixture_case_compare(&pair.cuda, &pair.cpu, BOUND);
        check_questions(&pair, 24);
        pair_free(&pair);
    }
}

/* More biases than there is room for at a time, and more draws than slots. */
static void biases_come_in_rounds(void **state)
{
    (void)state;
    struct pair pair;
    pair_make(&pair, 2, 40, 23, 3.0);
    pair.cpu.varies = true;
    pair_run(&pair);
    check_questions(&pair, 75);
    pair_free(&pair);
}

/* Where they are not, a policy without an exponent may fail (the third has none). */
static void expectations_are_those_that_are_wanted(void **state)
{
    (void)state;
    static const bool some_expect[3] = {false, true, false};
    struct pair pair;
    pair_make(&pair, 3, 3, 1500, 4.0);
    pair_run(&pair);
    struct mixture_case *both[2] = {&pair.cpu, &pair.cuda};
    for (int32_t i = 0; i < 2; i++) {
        mixture_case_logits(both[i], 2, 0)[5] = NAN;
        assert_status(mpo_mixture_normalise(both[i]->mixture, 2, 3, both[i]->row + 6,
                                            both[i]->log_norm + 6),
                      MPO_ERR_DATA);
    }
    for (int32_t way = 0; way < 2; way++) {
        for (int32_t i = 0; i < 2; i++) {
            both[i]->exponents.expects = some_expect;
            assert_ok(mpo_mixture_combine(both[i]->mixture, &both[i]->rows,
                                          &both[i]->exponents, both[i]->moments,
                                          way == 0 ? both[i]->expectation : NULL));
        }
        for (int32_t row = 0; row < 3; row++) {
            near(pair.cuda.moments[row].log_z, pair.cpu.moments[row].log_z);
            near(pair.cuda.moments[row].entropy, pair.cpu.moments[row].entropy);
            near(pair.cuda.moments[row].end_probability,
                 pair.cpu.moments[row].end_probability);
        }
        for (int32_t i = 0; i < 9; i++)
            near(pair.cuda.expectation[i], pair.cpu.expectation[i]);
        assert_true(isnan(pair.cuda.moments[0].entropy));
        assert_true(isfinite(pair.cuda.moments[0].log_z) != 0);
        check_questions(&pair, 6);
    }
    pair_free(&pair);
}

/* A row of NaN and one whose sums are infinite: blank on both, the others agree. */
static void rows_that_fail_are_blank_on_both(void **state)
{
    (void)state;
    struct pair pair;
    pair_make(&pair, 3, 4, 1100, 4.0);
    pair_run(&pair);
    struct mixture_case *both[2] = {&pair.cpu, &pair.cuda};
    for (int32_t i = 0; i < 2; i++) {
        mixture_case_logits(both[i], 1, 1)[1050] = NAN;
        mixture_case_logits(both[i], 0, 3)[8] = -INFINITY;
        both[i]->row_mu[9] = -0.5;
        for (int32_t h = 0; h < 3; h++)
            assert_status(mpo_mixture_normalise(both[i]->mixture, h, 4,
                                                both[i]->row + h * 4,
                                                both[i]->log_norm + h * 4),
                          h == 1 ? MPO_ERR_DATA : MPO_OK);
        assert_status(mpo_mixture_combine(both[i]->mixture, &both[i]->rows,
                                          &both[i]->exponents, both[i]->moments,
                                          both[i]->expectation),
                      MPO_ERR_DATA);
        assert_error_names("the mixture of row 1");
        assert_true(!isfinite(both[i]->moments[1].log_z));
        assert_true(!isfinite(both[i]->moments[3].log_z));
    }
    for (int32_t row = 0; row < 4; row += 2)
        near(pair.cuda.moments[row].entropy, pair.cpu.moments[row].entropy);
    check_questions(&pair, 24);
    pair_free(&pair);
}

static void lists_are_the_same(void **state)
{
    (void)state;
    struct pair pair;
    int32_t cpu[MPO_MIXTURE_TOP_MAX];
    int32_t cuda[MPO_MIXTURE_TOP_MAX];
    pair_make(&pair, 2, 2, 2100, 1.0);
    mixture_case_mask(&pair.cpu, 3, 1);
    for (size_t i = 0; i < logit_count(&pair.cpu) / 2; i++) /* ties in both policies */
        pair.cpu.logits[2 * i] = rintf(2.0f * pair.cpu.logits[2 * i]);
    pair_run(&pair);
    for (int32_t row = 0; row < 2; row++) {
        assert_ok(mpo_mixture_top(pair.cpu.mixture, row, MPO_MIXTURE_TOP_MAX, cpu));
        assert_ok(mpo_mixture_top(pair.cuda.mixture, row, MPO_MIXTURE_TOP_MAX, cuda));
        assert_memory_equal(cuda, cpu, sizeof cpu);
    }
    pair_free(&pair);
}

static void denormal_and_sharp_logits_agree(void **state)
{
    (void)state;
    static const float factor[] = {1e-41f, 200.0f};
    for (size_t f = 0; f < sizeof factor / sizeof *factor; f++) {
        struct pair pair;
        pair_make(&pair, 3, 2, 1100, 8.0);
        for (size_t i = 0; i < logit_count(&pair.cpu); i++)
            pair.cpu.logits[i] *= factor[f];
        pair_run(&pair);
        mixture_case_compare(&pair.cuda, &pair.cpu, BOUND);
        check_draws(&pair, 20);
        pair_free(&pair);
    }
}

static void blocks_may_be_masked_altogether(void **state)
{
    (void)state;
    struct pair pair;
    pair_make(&pair, 2, 2, 3 * MPO_ROWS_BLOCK, 5.0);
    pair.cpu.masked_count = 0;
    for (int32_t v = 0; v < 3 * MPO_ROWS_BLOCK; v++) {
        if (v / MPO_ROWS_BLOCK == 1 && v % 5 != 0)
            continue;
        pair.cpu.masked[pair.cpu.masked_count++] = v;
        for (int32_t i = 0; i < 4; i++)
            mixture_case_logits(&pair.cpu, i / 2, i % 2)[v] = MPO_MASKED_LOGIT;
    }
    pair_run(&pair);
    mixture_case_compare(&pair.cuda, &pair.cpu, BOUND);
    check_draws(&pair, 20);
    check_same_draws(&pair, 2, true, NULL);
    pair_free(&pair);
}

static void rows_without_a_normaliser_are_refused_by_both(void **state)
{
    (void)state;
    static const float wrong[] = {NAN, INFINITY};
    struct pair pair;
    double norm = 0.0;
    pair_make(&pair, 1, 1, 1100, 1.0);
    pair_run(&pair);
    struct mixture_case *both[] = {&pair.cpu, &pair.cuda};
    for (int i = 0; i < 2; i++) {
        float *row = mixture_case_logits(both[i], 0, 0);
        const float *logits = row;
        for (int j = 0; j < 2; j++) {
            row[1099] = wrong[j];
            assert_status(mpo_mixture_normalise(both[i]->mixture, 0, 1, &logits, &norm),
                          MPO_ERR_DATA);
        }
        for (int32_t v = 0; v < 1100; v++)
            row[v] = v % 2 ? -INFINITY : MPO_MASKED_LOGIT;
        assert_status(mpo_mixture_normalise(both[i]->mixture, 0, 1, &logits, &norm),
                      MPO_ERR_DATA);
        for (int32_t v = 0; v < 1100; v++)
            row[v] = -INFINITY;
        assert_status(mpo_mixture_normalise(both[i]->mixture, 0, 1, &logits, &norm),
                      MPO_ERR_DATA);
    }
    pair_free(&pair);
}

/* Put the device's rows where a policy or an exchange would leave them, each as long as it
 * must be and not a byte longer, some of them at odd addresses. */
static void place_rows(struct pair *pair, const float *logits, float **memory)
{
    size_t count = (size_t)pair->cpu.vocab_size;
    pair->cuda.rows_on_device = true;
    for (int32_t row = 0; row < pair->cpu.policy_count * pair->cpu.row_count; row++) {
        size_t shift = row % 2 ? 1 : 0;
        check_cuda(cudaMalloc((void **)&memory[row], (count + shift) * sizeof *logits));
        pair->cuda.row[row] = memory[row] + shift;
        check_cuda(cudaMemcpy(memory[row] + shift, logits + (size_t)row * count,
                              count * sizeof *logits, cudaMemcpyHostToDevice));
    }
}

static void rows_in_device_memory_are_read_in_place(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 33, 1024, 2051};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct pair pair;
        float *memory[6];
        pair_make(&pair, 3, 2, sizes[i], 4.0);
        place_rows(&pair, pair.cpu.logits, memory);
        pair_run(&pair);
        mixture_case_compare(&pair.cuda, &pair.cpu, BOUND);
        check_draws(&pair, 20);
        check_same_draws(&pair, 4, true, NULL);
        pair_free(&pair);
        for (int32_t row = 0; row < 6; row++)
            check_cuda(cudaFree(memory[row]));
    }
}

static void score_masked(struct mixture_case *self, double log_policy[6])
{
    static const int32_t row[3] = {0, 1, 1};
    static const enum mpo_mixture_kind kind[3] = {MPO_MIXTURE_GIVEN, MPO_MIXTURE_GIVEN,
                                                  MPO_MIXTURE_GIVEN};
    int32_t token[3] = {1, 5, 1025};
    double log_proposal[3];
    struct mpo_mixture_draws draws = {.count = 3,
                                      .row = row,
                                      .kind = kind,
                                      .token = token,
                                      .log_proposal = log_proposal,
                                      .log_policy = log_policy};
    assert_ok(mpo_mixture_draw(self->mixture, &draws));
}

/* Rows that never were on the host have masked tokens as the model left them. */
static void masked_tokens_may_be_anything_on_the_device(void **state)
{
    (void)state;
    static const float left_there[4] = {90.0f, NAN, INFINITY, -INFINITY};
    double log_policy[2][6];
    struct pair pair;
    float *memory[4];
    pair_make(&pair, 2, 2, 2051, 4.0);
    mixture_case_mask(&pair.cpu, 4, 1);
    float *logits = runner_allocate(logit_count(&pair.cpu), sizeof *logits);
    for (size_t i = 0; i < logit_count(&pair.cpu); i++)
        logits[i] = i % 2051 % 4 == 1 ? left_there[i / 2051] : pair.cpu.logits[i];
    place_rows(&pair, logits, memory);
    pair_run(&pair);
    mixture_case_compare(&pair.cuda, &pair.cpu, BOUND);
    check_draws(&pair, 20);
    check_same_draws(&pair, 4, true, NULL);
    score_masked(&pair.cpu, log_policy[0]);
    score_masked(&pair.cuda, log_policy[1]);
    for (int32_t i = 0; i < 6; i++)
        assert_close(log_policy[1][i], log_policy[0][i], BOUND * fabs(log_policy[0][i]));
    pair_free(&pair);
    for (int32_t row = 0; row < 4; row++)
        check_cuda(cudaFree(memory[row]));
    free(logits);
}

static void the_same_rows_give_the_same_bytes_again(void **state)
{
    (void)state;
    struct pair pair;
    struct mpo_mixture_moments first[3];
    double expectation[9];
    pair_make(&pair, 3, 3, 3000, 6.0);
    pair_run(&pair);
    memcpy(first, pair.cuda.moments, sizeof first);
    memcpy(expectation, pair.cuda.expectation, sizeof expectation);
    mixture_case_run(&pair.cuda);
    for (int32_t row = 0; row < 3; row++) {
        assert_same_bits(pair.cuda.moments[row].log_z, first[row].log_z);
        assert_same_bits(pair.cuda.moments[row].entropy, first[row].entropy);
    }
    for (int32_t i = 0; i < 9; i++)
        assert_same_bits(pair.cuda.expectation[i], expectation[i]);
    pair_free(&pair);
}

/* Rows combined and drawn from in one go, after a row with another tilt and another draw: the
 * bits of both calls. */
static void check_in_one_go(struct mixture_case *some, enum mpo_status expected)
{
    enum { ROWS = 13, FIGURES = 3 * ROWS };
    struct mixture_questions apart;
    struct mixture_questions together;
    struct mpo_mixture_moments moments[ROWS];
    double expectation[FIGURES];
    double log_proposal = 0.0;
    const struct mpo_mixture_results results = {moments, expectation};
    mixture_questions_make(&apart, some, ROWS);
    mixture_questions_make(&together, some, ROWS);
    struct mpo_mixture_draws draws = mixture_questions_draws(&together);
    assert_status(mpo_mixture_combine(some->mixture, &some->rows, &some->exponents,
                                      some->moments, some->expectation),
                  expected);
    mixture_questions_ask(&apart, some->mixture);
    some->row_end_bias[1] = -3.0;
    assert_status(mpo_mixture_combine(some->mixture, &some->rows, &some->exponents, moments,
                                      expectation),
                  expected);
    mixture_case_draw(some, together.row[0] == 5 ? 6 : 5, NULL, &log_proposal, expectation);
    mixture_case_set(some);
    assert_status(mpo_mixture_combine_and_draw(some->mixture, &some->rows, &some->exponents,
                                               &results, &draws),
                  expected);
    assert_memory_equal(some->moments, moments, sizeof moments);
    assert_memory_equal(some->expectation, expectation, sizeof expectation);
    mixture_questions_same(&together, &apart);
    mixture_questions_free(&together);
    mixture_questions_free(&apart);
}

static void both_calls_in_one_go_give_the_bits_of_both(void **state)
{
    (void)state;
    struct mixture_case some;
    mixture_case_make(&some, 3, 13, 1500, 6.0);
    some.device = "cuda";
    some.varies = true;
    mixture_case_run(&some);
    check_in_one_go(&some, MPO_OK);
    some.log_norm[0] = NAN; /* as of a row that was refused */
    check_in_one_go(&some, MPO_ERR_DATA);
    mixture_case_free(&some);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_and_draws_agree_at_every_size),
        cmocka_unit_test(ties_take_the_lowest_id_on_both),
        cmocka_unit_test(filters_keep_the_same_tokens),
        cmocka_unit_test(many_filtered_draws_come_in_rounds),
        cmocka_unit_test(rows_of_their_own_agree),
        cmocka_unit_test(biases_come_in_rounds),
        cmocka_unit_test(expectations_are_those_that_are_wanted),
        cmocka_unit_test(rows_that_fail_are_blank_on_both),
        cmocka_unit_test(lists_are_the_same),
        cmocka_unit_test(denormal_and_sharp_logits_agree),
        cmocka_unit_test(blocks_may_be_masked_altogether),
        cmocka_unit_test(rows_without_a_normaliser_are_refused_by_both),
        cmocka_unit_test(rows_in_device_memory_are_read_in_place),
        cmocka_unit_test(masked_tokens_may_be_anything_on_the_device),
        cmocka_unit_test(the_same_rows_give_the_same_bytes_again),
        cmocka_unit_test(both_calls_in_one_go_give_the_bits_of_both),
    };
    if (!device_suite_has_device())
        return 77;
    vocab_max = device_suite_vocabulary(argc, argv, vocab_max);
    return run_cases("mixture on cuda", tests);
}
