/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both patterns of the exchange, through every transport, on one host and on several,
 * against one process that has all rows: the same bits of every figure and every token. And
 * what a rank sends and gets, against its formula, exactly.
 *
 * Every rank makes all rows from the same uniforms and hands over those that it hosts. With
 * MPO_TEST_DEVICE=cuda the mixture is the device's, one device a rank, and the one process
 * does all of it on one device by kernels for whole rows; cases are smaller then.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/comm.h"
#include "mpo/exchange.h"
#include "mpo/policy.h"
#include "exchange_case.h"
#include "exchange_group.h"
#include "exchange_position.h"
#include "mixture_figures.h"
#include "runner.h"

/* As many on the CPU, fewer on a device, which may be simulated. */
static int32_t on_cpu(int32_t count, int32_t on_device)
{
    return strcmp(mixture_case_device(), "cpu") == 0 ? count : on_device;
}

/* Policy 1 may fail: where its rows are normalised, and at the root. */
static void combine_as(struct exchange_group *group, bool fails,
                       struct mixture_figures *figures)
{
    bool is_root = mpo_comm_group_rank(group->comm) == 0;
    struct mpo_rows rows;
    exchange_group_place(group);
    exchange_group_bring(group, fails ? 1 : -1, &rows);
    assert_status(mpo_mixture_combine(group->mixture, &rows, &group->some->exponents,
                                      figures->moments, figures->expectation),
                  fails && is_root ? MPO_ERR_DATA : MPO_OK);
}

static void combine(struct exchange_group *group, struct mixture_figures *figures)
{
    combine_as(group, false, figures);
}

/* The same position combined and asked about in one go. */
static void check_in_one_go(struct exchange_group *group,
                            const struct mixture_figures *expected,
                            struct mixture_figures *found)
{
    struct mpo_rows rows;
    size_t row_count = (size_t)group->some->row_count;
    size_t figures = row_count * (size_t)group->some->policy_count;
    const struct mpo_mixture_results results = {found->moments, found->expectation};
    struct mpo_mixture_draws draws = mixture_questions_draws(&found->questions);
    exchange_group_place(group);
    exchange_group_bring(group, -1, &rows);
    assert_ok(mpo_mixture_combine_and_draw(group->mixture, &rows, &group->some->exponents,
                                           &results, &draws));
    if (mpo_comm_group_rank(group->comm) == 0) {
        assert_memory_equal(found->moments, expected->moments,
                            row_count * sizeof *found->moments);
        assert_memory_equal(found->expectation, expected->expectation,
                            figures * sizeof(double));
        mixture_questions_same(&found->questions, &expected->questions);
    }
    assert_ok(mpo_exchange_broadcast(group->exchange, found->token[MIXTURE_DRAWN],
                                     row_count * sizeof(int32_t)));
}

/* The same with draws that have no rules, which devices make among themselves: of one kind
 * after the other, and of a position of which one row fails; -1: none. */
static void check_devices(struct exchange_group *group, int32_t failed,
                          const struct mixture_figures *expected,
                          struct mixture_figures *found)
{
    static const enum mixture_mode modes[3] = {MIXTURE_DRAWN, MIXTURE_GREEDY,
                                               MIXTURE_GIVEN};
    static int32_t turn;
    const struct mixture_case *some = group->some;
    bool is_root = mpo_comm_group_rank(group->comm) == 0;
    enum mixture_mode mode = failed < 0 ? modes[turn++ % 3] : MIXTURE_DRAWN;
    struct mpo_rows rows;
    exchange_group_place(group);
    exchange_group_bring(group, failed < 0 ? -1 : 1, &rows);
    assert_status(mixture_figures_take(group->mixture, some, &rows, mode, found),
                  failed >= 0 && is_root ? MPO_ERR_DATA : MPO_OK);
    if (is_root && failed < 0)
        mixture_figures_same_mode(found, expected, some, mode);
    for (int32_t i = 0; is_root && failed >= 0 && i < some->row_count; i++) {
        bool fails = 5 * i % some->row_count == failed; /* as in draw */
        assert_int_equal(found->token[mode][i], fails ? -1 : expected->token[mode][i]);
        assert_same_bits(found->log_proposal[mode][i],
                         fails ? NAN : expected->log_proposal[mode][i]);
    }
    assert_ok(mpo_exchange_broadcast(group->exchange, found->token[MIXTURE_DRAWN],
                                     (size_t)some->row_count * sizeof(int32_t)));
}

/* ---- traffic ---- */

/* Combine, draw and broadcast one position; compare what moved with the formulas. */
static void check_traffic(struct exchange_group *group, struct mixture_figures *figures)
{
    struct mpo_exchange_traffic expected = mpo_exchange_traffic(group->exchange);
    int32_t row_count = group->some->row_count;
    const struct exchange_position position = {.exchange = group->exchange,
                                               .comm = group->comm,
                                               .policy_count = group->some->policy_count,
                                               .row_count = row_count,
                                               .vocab_size = group->some->vocab_size,
                                               .bf16_rows = group->some->bf16_rows,
                                               .absent = group->absent};
    combine(group, figures);
    mixture_figures_draw(group->mixture, group->some, MIXTURE_DRAWN, figures);
    assert_ok(mpo_exchange_broadcast(group->exchange, figures->token[MIXTURE_DRAWN],
                                     (size_t)row_count * sizeof(int32_t)));
    exchange_position_add(&position, figures->token[MIXTURE_DRAWN], &expected);
    struct mpo_exchange_traffic found = mpo_exchange_traffic(group->exchange);
    assert_int_equal(found.sent_messages, expected.sent_messages);
    assert_int_equal(found.sent_bytes, expected.sent_bytes);
    assert_int_equal(found.received_messages, expected.received_messages);
    assert_int_equal(found.received_bytes, expected.received_bytes);
}

/* ---- rows that fail ---- */

/* Of a position of which one row failed: that row is blank, the others are as expected. */
static void check_others(const struct mixture_case *some, int32_t failed,
                         const struct mixture_figures *found,
                         const struct mixture_figures *expected)
{
    size_t policies = (size_t)some->policy_count;
    const struct mixture_questions *asked = &found->questions;
    for (int32_t row = 0; row < some->row_count; row++) {
        if (row == failed)
            continue;
        size_t at = (size_t)row * policies;
        assert_memory_equal(&found->moments[row], &expected->moments[row],
                            sizeof *found->moments);
        assert_memory_equal(found->expectation + at, expected->expectation + at,
                            policies * sizeof(double));
    }
    for (int32_t i = 0; i < asked->count; i++) {
        bool is_given = asked->kind[i] == MPO_MIXTURE_GIVEN;
        int32_t token = expected->questions.token[i];
        if (asked->row[i] == failed)
            assert_int_equal(asked->token[i], is_given ? token : -1);
        else
            assert_int_equal(asked->token[i], token);
        if (asked->row[i] != failed)
            assert_same_bits(asked->log_proposal[i], expected->questions.log_proposal[i]);
    }
    assert_memory_equal(found->top, expected->top, sizeof found->top);
}

/* The same position with one logit that is none. */
static void check_failure(struct exchange_group *group,
                          const struct mixture_figures *expected,
                          struct mixture_figures *found)
{
    const struct mixture_case *some = group->some;
    int32_t failed = some->row_count - 2;
    int32_t token = some->vocab_size - 1;
    while (some->masked_count > 0 &&
           mixture_case_logits(some, 1, failed)[token] == MPO_MASKED_LOGIT)
        token--;
    float *logit = mixture_case_logits(some, 1, failed) + token;
    float kept = *logit;
    *logit = NAN;
    combine_as(group, true, found);
    mixture_questions_ask(&found->questions, group->mixture);
    assert_ok(mpo_mixture_top(group->mixture, some->row_count - 1, MPO_MIXTURE_TOP_MAX,
                              found->top));
    if (mpo_comm_group_rank(group->comm) == 0)
        check_others(some, failed, found, expected);
    assert_ok(mpo_exchange_broadcast(group->exchange, found->token[MIXTURE_DRAWN],
                                     (size_t)some->row_count * sizeof(int32_t)));
    check_devices(group, failed, expected, found);
    *logit = kept;
}

/* ---- cases ---- */

/* What is left out of the case's rows; NULL: nothing. */
static const bool *left_out;

static void check_pattern(const struct mixture_case *some,
                          const struct mixture_figures *expected, const char *transport,
                          enum mpo_pattern pattern, int32_t group_size)
{
    struct exchange_group group;
    struct mixture_figures found;
    exchange_group_open(&group, some, transport, pattern, group_size);
    group.absent = left_out;
    mixture_figures_make(&found, some);
    check_traffic(&group, &found);
    combine(&group, &found);
    mixture_figures_ask(group.mixture, some, &found);
    if (mpo_comm_group_rank(group.comm) == 0)
        mixture_figures_same(&found, expected, some);
    assert_ok(mpo_exchange_broadcast(group.exchange, found.token[MIXTURE_DRAWN],
                                     (size_t)some->row_count * sizeof(int32_t)));
    check_in_one_go(&group, expected, &found);
    check_devices(&group, -1, expected, &found);
    if (left_out == NULL && some->row_count > 1 && some->row_count < 64)
        check_failure(&group, expected, &found);
    mixture_figures_free(&found);
    exchange_group_close(&group);
}

static bool is_built(const char *transport)
{
    const char *built = NULL;
    for (int32_t i = 0; (built = mpo_exchange_transport_built(i)) != NULL; i++)
        if (strcmp(built, transport) == 0)
            return true;
    return false;
}

/* Figures of policies that take no part are NaN, all others as if they did. */
static void blank_draws(const struct mixture_case *some, int32_t count, const int32_t *row,
                        double *log_policy)
{
    for (int32_t i = 0; i < count * some->policy_count; i++)
        if (left_out[i % some->policy_count * some->row_count +
                     row[i / some->policy_count]])
            log_policy[i] = NAN;
}

static void blank_absent(const struct mixture_case *some, struct mixture_figures *figures)
{
    struct mixture_questions *asked = &figures->questions;
    int32_t *row = runner_allocate((size_t)some->row_count, sizeof *row);
    for (int32_t i = 0; i < some->row_count; i++)
        row[i] = i;
    blank_draws(some, some->row_count, row, figures->expectation);
    for (int32_t i = 0; i < some->row_count; i++)
        row[i] = 5 * i % some->row_count; /* as in draw */
    for (int32_t mode = 0; mode < MIXTURE_MODE_COUNT; mode++)
        blank_draws(some, some->row_count, row, figures->log_policy[mode]);
    blank_draws(some, asked->count, asked->row, asked->log_policy);
    free(row);
}

/* Both patterns and all transports, groups of all ranks and smaller ones. */
static void check_case(struct mixture_case *some)
{
    struct mixture_figures expected;
    int32_t size = mpo_comm_job_size();
    bool *expects = runner_allocate((size_t)some->row_count, sizeof *expects);
    mixture_figures_make(&expected, some);
    exchange_group_take_device();
    some->varies = true;
    mixture_case_run(some);
    for (int32_t row = 0; row < some->row_count; row++)
        expects[row] = row % 4 != 3;
    some->exponents.expects = expects;
    for (int32_t i = 0; left_out != NULL && i < some->policy_count * some->row_count; i++)
        if (left_out[i])
            some->row_mu[i % some->row_count * some->policy_count + i / some->row_count] =
                0.0;
    assert_ok(mpo_mixture_combine(some->mixture, &some->rows, &some->exponents,
                                  expected.moments, expected.expectation));
    mixture_figures_ask(some->mixture, some, &expected);
    if (left_out != NULL)
        blank_absent(some, &expected);
    for (int32_t group_size = 1; group_size <= size; group_size++) {
        static const char *const transports[2][4] = {{"self", NULL, NULL, NULL},
                                                     {"shared", "nodes", "mpi", "nccl"}};
        if (size % group_size != 0 || group_size > some->policy_count)
            continue;
        for (int32_t i = 0; i < 4; i++) {
            const char *transport = transports[group_size > 1][i];
            if (transport == NULL || !is_built(transport) ||
                !exchange_case_serves(transport, group_size))
                continue;
            check_pattern(some, &expected, transport, MPO_PATTERN_GATHER, group_size);
            check_pattern(some, &expected, transport, MPO_PATTERN_ALLTOALL, group_size);
        }
    }
    mixture_figures_free(&expected);
    free(expects);
    mixture_case_free(some);
}

static void make_case(struct mixture_case *some, int32_t policy_count, int32_t row_count,
                      int32_t vocab_size)
{
    mixture_case_make(some, policy_count, row_count, vocab_size, 6.0);
    for (int32_t h = 0; h < policy_count; h++) {
        some->temperature[h] = 0.7 + 0.1 * h;
        some->mu[h] = (h + 1) * 2.0 / (policy_count * (policy_count + 1));
    }
    some->end_bias = 0.7;
    some->end_count = 3;
    some->end_token[0] = 2;
    some->end_token[1] = vocab_size / 2;
    some->end_token[2] = vocab_size - 1;
}

/* One row, few and many; one block and less, one token more than a block, and 48 blocks. */
static void every_cut_of_the_vocabulary_gives_the_same_bits(void **state)
{
    (void)state;
    static const int32_t vocab_sizes[] = {33, 1024, 1025, 49152};
    static const int32_t row_counts[] = {1, 7, 64};
    for (size_t v = 0; v < 4; v++)
        for (size_t b = 0; b < 3; b++) {
            struct mixture_case some;
            int32_t least = mpo_comm_job_size() == 6 ? 6 : 2;
            int32_t policy_count = row_counts[b] == 64 && v == 3 ? least : (int32_t)(8 - b);
            if (policy_count * row_counts[b] * vocab_sizes[v] > on_cpu(INT32_MAX, 30000))
                continue;
            make_case(&some, policy_count, row_counts[b], vocab_sizes[v]);
            check_case(&some);
        }
}

/* Rounded on every rank and by none of the transports. The logits are no bf16 to begin
 * with, so what was sent unrounded is found. */
static void rounded_rows_give_the_same_bits_everywhere(void **state)
{
    (void)state;
    static const int32_t vocab_sizes[] = {33, 1025, 49152};
    for (size_t v = 0; v < (size_t)on_cpu(3, 2); v++) {
        struct mixture_case some;
        make_case(&some, on_cpu(6, 3), on_cpu(7, 2), vocab_sizes[v]);
        mixture_case_mask(&some, 5, 1);
        some.bf16_rows = true;
        check_case(&some);
    }
}

static void every_number_of_policies_gives_the_same_bits(void **state)
{
    (void)state;
    for (int32_t policy_count = 2; policy_count <= 8; policy_count += on_cpu(1, 3)) {
        struct mixture_case some;
        make_case(&some, policy_count, on_cpu(7, 2), on_cpu(5000, 2500));
        mixture_case_mask(&some, 4, 1);
        some.mu[0] = -some.mu[0];
        check_case(&some);
    }
}

/* A rank's only row has no others to lie among. */
static void a_single_row_of_each_rank_gives_the_same_bits(void **state)
{
    (void)state;
    struct mixture_case some;
    int32_t size = mpo_comm_job_size();
    make_case(&some, size > 1 ? size : 2, 1, 2100);
    check_case(&some);
}

/* Whole slices are masked at both ends and in the middle. */
static void masked_blocks_give_the_same_bits(void **state)
{
    (void)state;
    struct mixture_case some;
    make_case(&some, on_cpu(6, 3), on_cpu(7, 2), 8000);
    for (int32_t v = 0; v < 8000; v++) {
        if (v / MPO_ROWS_BLOCK == 2 || v / MPO_ROWS_BLOCK == 5)
            continue;
        some.masked[some.masked_count++] = v;
        for (int32_t h = 0; h < some.policy_count; h++)
            for (int32_t row = 0; row < some.row_count; row++)
                mixture_case_logits(&some, h, row)[v] = MPO_MASKED_LOGIT;
    }
    check_case(&some);
}

/* The greatest score in several slices, and rows of nothing but ties. */
static void ties_give_the_same_tokens(void **state)
{
    (void)state;
    struct mixture_case some;
    make_case(&some, on_cpu(6, 3), on_cpu(7, 2), 8000);
    some.end_bias = 0.0;
    for (int32_t h = 0; h < some.policy_count; h++)
        for (int32_t row = 0; row < some.row_count; row++)
            for (int32_t v = 0; v < 8000; v++)
                if (row % 5 == 1 || v % 1999 == row)
                    mixture_case_logits(&some, h, row)[v] = 7.0f;
    check_case(&some);
}

/* Rows that take no part are not moved, and change nothing else: some of a policy's, all of
 * them, and all policies' of a row. */
static void rows_that_are_left_out_change_nothing_else(void **state)
{
    (void)state;
    for (int32_t round = 0; round < 8; round += on_cpu(1, 5)) {
        struct mixture_case some;
        bool absent[MIXTURE_CASE_POLICY_MAX * 7] = {false};
        int32_t row_count = on_cpu(7, 2);
        make_case(&some, on_cpu(6, 3), row_count, on_cpu(5000, 1500));
        mixture_case_mask(&some, 5, 1);
        some.bf16_rows = round % 2 == 1;
        for (int32_t i = 0; i < some.policy_count * row_count; i++)
            absent[i] = runner_uniform(53, (uint64_t)(100 * round + i)) < 0.4 ||
                        i / row_count == some.policy_count - 1 - round / 2 ||
                        (round > 1 && i % row_count == 1);
        left_out = absent;
        check_case(&some);
        left_out = NULL;
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_of_the_vocabulary_gives_the_same_bits),
        cmocka_unit_test(rounded_rows_give_the_same_bits_everywhere),
        cmocka_unit_test(every_number_of_policies_gives_the_same_bits),
        cmocka_unit_test(a_single_row_of_each_rank_gives_the_same_bits),
        cmocka_unit_test(masked_blocks_give_the_same_bits),
        cmocka_unit_test(ties_give_the_same_tokens),
        cmocka_unit_test(rows_that_are_left_out_change_nothing_else),
    };
    return run_cases_on_ranks(argc, argv, "patterns", tests);
}
