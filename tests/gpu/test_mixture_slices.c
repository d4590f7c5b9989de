/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slices on the CUDA mixture: what ranks with slices of the vocabulary find out and what
 * the root makes of it, against one device with whole rows, to the bit; and the slices'
 * sums and scores against the CPU's. Runs on a real device (skipped where there is none)
 * and on simulated ones; all ranks are in this one process, on one device.
 *
 *     test_mixture_slices [small | usual | large]       sizes, for slow simulations
 */
#include "mixture_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "mixture/fold.h"
#include "mpo/policy.h"
#include "device_suite.h"
#include "mixture_cut.h"
#include "runner.h"

#define BOUND 1e-12

static int32_t vocab_max = 152000;

/* What is asked of the combined rows, B draws each. */
enum mode { DRAWN, GREEDY, MIXED, FILTERED, BIASED, GIVEN, MODE_COUNT };

/* ---- sums ---- */

static size_t table_width(const struct cut *cut)
{
    return (size_t)cut->some.row_count * MPO_MIXTURE_SUMS_WIDTH(cut->some.policy_count);
}

static struct mpo_mixture_slice blocks_of(const struct rank *rank)
{
    return (struct mpo_mixture_slice){rank->first_block, rank->end_block};
}

/* Whether some policy's normaliser of the row is not finite. */
static bool failed(const struct mixture_case *some, int32_t row)
{
    bool finite = true;
    for (int32_t h = 0; h < some->policy_count; h++)
        finite = finite && isfinite(some->log_norm[h * some->row_count + row]);
    return !finite;
}

/* A slice's sums are near the CPU's, and its greatest scores are the CPU's. */
static void check_sums(struct cut *cut, const struct rank *rank)
{
    int32_t policies = cut->some.policy_count;
    int32_t row_count = cut->some.row_count;
    int32_t count = rank->end_block - rank->first_block;
    double *expected = runner_allocate((size_t)count * table_width(cut), sizeof(double));
    double *found = cut->table + (size_t)rank->first_block * table_width(cut);
    size_t begin = (size_t)rank->first_block * MPO_ROWS_BLOCK;
    const float **slice = runner_allocate((size_t)(policies * row_count), sizeof *slice);
    for (int32_t i = 0; i < policies * row_count; i++)
        slice[i] = cut->some.row[i] + begin;
    const struct mpo_rows rows = {row_count, slice, cut->some.log_norm};
    assert_ok(cut->cpu_ops->sum(cut->cpu, &rows, &cut->some.exponents, blocks_of(rank),
                                expected));
    for (int32_t i = 0; i < count * row_count; i++) {
        if (failed(&cut->some, i % row_count))
            continue; /* NaN, or -inf for a block of nothing else */
        const double *own = found + (size_t)i * MPO_MIXTURE_SUMS_WIDTH(policies);
        const double *cpu = expected + (size_t)i * MPO_MIXTURE_SUMS_WIDTH(policies);
        assert_same_bits(own[MPO_MIXTURE_TOP], cpu[MPO_MIXTURE_TOP]);
        for (int32_t j = 1; cpu[0] != -INFINITY && j < policies + 3; j++)
            if (isnan(cpu[j])) /* of an infinite logit, or not wanted */
                assert_true(isnan(own[j]));
            else
                assert_close(own[j], cpu[j], BOUND * 1024.0 * 8.0);
    }
    free(slice);
    free(expected);
}

/* The root's slice stays on its device; the other ranks' go through the host's table. */
static void fold(struct cut *cut)
{
    struct mpo_mixture_exponents all = cut->some.exponents;
    all.expects = NULL; /* what is not wanted was there before */
    size_t rows = (size_t)cut->some.row_count;
    size_t policies = (size_t)cut->some.policy_count;
    for (int32_t r = 0; r < cut->size; r++) {
        struct rank *rank = &cut->rank[r];
        double *part = cut->table + (size_t)rank->first_block * table_width(cut);
        if (rank->first_block == rank->end_block)
            continue;
        assert_ok(cut->ops->sum(rank->self, &rank->rows, &all, blocks_of(rank), part));
        assert_ok(cut->ops->sum(rank->self, &rank->rows, &cut->some.exponents,
                                blocks_of(rank), part));
        check_sums(cut, rank);
    }
    struct rank *root = &cut->rank[0];
    memset(cut->table, 0xff, (size_t)root->end_block * table_width(cut) * sizeof(double));
    assert_ok(cut->ops->sum(root->self, &root->rows, &cut->some.exponents,
                            (struct mpo_mixture_slice){0, root->end_block}, NULL));
    assert_ok(cut->ops->fold(root->self, root->end_block, cut->table, cut->moments + rows,
                             cut->expectation + rows * policies));
    assert_memory_equal(cut->moments + rows, cut->moments, rows * sizeof *cut->moments);
    assert_memory_equal(cut->expectation + rows * policies, cut->expectation,
                        rows * policies * sizeof(double));
}

/* ---- draws ---- */

/* The scores of one row from all ranks, which are the CPU's. */
static void bring_scores(struct cut *cut, int32_t row)
{
    double *expected =
        runner_allocate((size_t)cut->block_count * MPO_ROWS_BLOCK, sizeof *expected);
    const struct mpo_rows rows = {cut->some.row_count, cut->some.row, cut->some.log_norm};
    assert_ok(cut->cpu_ops->sum(cut->cpu, &rows, &cut->some.exponents,
                                (struct mpo_mixture_slice){0, cut->block_count},
                                cut->table));
    assert_ok(cut->cpu_ops->scores(cut->cpu, row, 0, cut->block_count, expected));
    for (int32_t r = 0; r < cut->size; r++)
        if (cut->rank[r].first_block < cut->rank[r].end_block)
            assert_ok(cut->ops->scores(
                cut->rank[r].self, row, cut->rank[r].first_block, cut->rank[r].end_block,
                cut->score + cut->rank[r].first_block * MPO_ROWS_BLOCK));
    for (int32_t v = 0; v < cut->some.vocab_size; v++)
        assert_same_bits(cut->score[v], expected[v]);
    free(expected);
}

/* Questions about every draw, as the root makes them. */
static void ask(struct cut *cut, enum mode mode, const struct mpo_mixture_draws *draws)
{
    void *root = cut->rank[0].self;
    if (mode == DRAWN || mode == GREEDY || mode == MIXED) {
        assert_ok(cut->ops->ask(root, draws, cut->question));
        return;
    }
    for (int32_t i = 0; i < draws->count; i++) {
        int32_t token = draws->token[i];
        if (mode == FILTERED || mode == BIASED) {
            bring_scores(cut, draws->row[i]);
            draws->token[i] = -1;
            assert_ok(cut->ops->rule(root, draws, i, cut->score));
            assert_int_equal(draws->token[i], token);
        }
        cut->question[i] = (struct mpo_mixture_question){
            MPO_MIXTURE_GIVEN, i, draws->row[i], token / MPO_ROWS_BLOCK, token, 0, 0, 0};
    }
}

/* Every rank is asked all questions in one go, and answers those about its slice with the
 * whole's tokens; of the others it must not look for a token, for its rows end before. */
static void answer(struct cut *cut)
{
    size_t width = MPO_MIXTURE_ANSWER_WIDTH(cut->some.policy_count);
    int32_t row_count = cut->some.row_count;
    int32_t answered = 0;
    for (int32_t r = 0; r < cut->size; r++) {
        const struct rank *rank = &cut->rank[r];
        if (rank->first_block == rank->end_block)
            continue;
        assert_ok(cut->ops->answer(rank->self, cut->question, row_count, cut->answers));
        for (int32_t i = 0; i < row_count; i++) {
            const struct mpo_mixture_question *asked = &cut->question[i];
            int32_t token = cut->token[asked->draw];
            const double *found = cut->answers + (size_t)i * width;
            if (asked->block < rank->first_block || asked->block >= rank->end_block)
                continue;
            answered++;
            assert_int_equal(found[0], token);
            assert_int_equal(asked->row, cut->row[asked->draw]);
            for (int32_t h = 0; h < cut->some.policy_count; h++)
                assert_same_bits(found[1 + h], (double)mixture_case_logits(
                                                   &cut->some, h, asked->row)[token]);
        }
    }
    assert_int_equal(answered, row_count);
}

static void check_draws(struct cut *cut, enum mode mode)
{
    static const enum mpo_mixture_kind kinds[3] = {MPO_MIXTURE_DRAWN, MPO_MIXTURE_GREATEST,
                                                   MPO_MIXTURE_GIVEN};
    bool has_rules = mode == FILTERED || mode == BIASED;
    int32_t count = cut->some.row_count;
    for (int32_t i = 0; i < count; i++) {
        cut->row[i] = 5 * i % count;
        cut->kind[i] = mode == GIVEN    ? MPO_MIXTURE_GIVEN
                       : mode == GREEDY ? MPO_MIXTURE_GREATEST
                       : mode == MIXED  ? kinds[i % 3]
                       : mode == BIASED ? kinds[i % 2]
                                        : MPO_MIXTURE_DRAWN;
        cut->rule[i] = mode == BIASED ? &cut->biased : &filter;
        cut->uniform[i] = runner_uniform(17 + mode, (uint64_t)i);
        cut->token[i] = (int32_t)(cut->uniform[i] * cut->some.vocab_size);
        if (mode == MIXED) /* given ones are of the last slice */
            cut->token[i] = cut->some.vocab_size - 1 - i % cut->some.vocab_size;
    }
    struct mpo_mixture_draws draws = {.count = count,
                                      .row = cut->row,
                                      .kind = cut->kind,
                                      .uniform = mode == GREEDY ? NULL : cut->uniform,
                                      .rule = has_rules ? cut->rule : NULL,
                                      .token = cut->token,
                                      .log_proposal = cut->log_proposal,
                                      .log_policy = cut->log_policy};
    assert_ok(cut->ops->draw(cut->whole.self, &draws));
    ask(cut, mode, &draws);
    answer(cut);
}

/* Biases that take all tokens away. */
static void check_nothing_left(struct cut *cut)
{
    int32_t vocab_size = cut->some.vocab_size;
    struct mpo_mixture_bias *bias = runner_allocate((size_t)vocab_size, sizeof *bias);
    for (int32_t v = 0; v < vocab_size; v++)
        bias[v] = (struct mpo_mixture_bias){v, -INFINITY};
    const struct mpo_mixture_rule rule = {filter.filter, bias, vocab_size};
    const struct mpo_mixture_draws draws = {.count = 1,
                                            .row = cut->row,
                                            .kind = cut->kind,
                                            .uniform = cut->uniform,
                                            .rule = cut->rule,
                                            .token = cut->token};
    cut->rule[0] = &rule;
    for (int32_t i = 0; i < 2; i++) {
        cut->kind[0] = i == 0 ? MPO_MIXTURE_DRAWN : MPO_MIXTURE_GREATEST;
        cut->token[0] = 7;
        bring_scores(cut, cut->row[0]);
        assert_ok(cut->ops->rule(cut->rank[0].self, &draws, 0, cut->score));
        assert_int_equal(cut->token[0], -1);
    }
    free(bias);
}

/* Slices as even as possible, of which some are empty where ranks outnumber blocks. */
static void check_cut(struct cut *cut, int32_t size, bool filtered)
{
    cut->size = size;
    for (int32_t r = 0; r < size; r++)
        open_rank(cut, &cut->rank[r], (cut->block_count * r + size - 1) / size,
                  (cut->block_count * (r + 1) + size - 1) / size);
    fold(cut);
    for (int32_t mode = 0; mode < MODE_COUNT; mode++)
        if ((mode != FILTERED && mode != BIASED) || filtered)
            check_draws(cut, mode);
    if (filtered && cut->some.vocab_size < 2500)
        check_nothing_left(cut);
    for (int32_t r = 0; r < size; r++)
        close_rank(cut, &cut->rank[r]);
}

/* ---- the tests ---- */

static void every_cut_gives_the_bits_of_whole_rows(void **state)
{
    (void)state;
    static const int32_t sizes[][4] = {
        /* H, B, V, ranks */
        {1, 1, 1, 3},      {2, 7, 33, 2},     {8, 64, 33, 2},    {3, 7, 1025, 5},
        {4, 1, 2049, 3},   {5, 2, 3072, 3},   {6, 7, 2100, 2},   {7, 1, 49152, 3},
        {2, 7, 49152, 5},  {8, 1, 151936, 3}, {1, 7, 151936, 2}, {1, 2, 8192, 9},
        {3, 64, 49152, 3}, {8, 7, 151936, 7},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct cut cut;
        int64_t rows = sizes[i][0] * sizes[i][1];
        int64_t cost = sizes[i][2] > 33 ? rows * sizes[i][2] : 0;
        if (sizes[i][2] > vocab_max || (vocab_max < INT32_MAX && cost > 2000000))
            continue;
        make_cut(&cut, sizes[i][0], sizes[i][1], sizes[i][2]);
        open_cut(&cut);
        check_cut(&cut, sizes[i][3], sizes[i][1] < 64 && cost < 1000000);
        free_cut(&cut);
    }
}

/* The first and the last slice are masked altogether, the one between for the most part. */
static void masked_slices_give_the_bits_of_whole_rows(void **state)
{
    (void)state;
    struct cut cut;
    make_cut(&cut, 2, 3, 3 * MPO_ROWS_BLOCK);
    for (int32_t v = 0; v < 3 * MPO_ROWS_BLOCK; v++) {
        if (v / MPO_ROWS_BLOCK == 1 && v % 5 != 0)
            continue;
        cut.some.masked[cut.some.masked_count++] = v;
        for (int32_t i = 0; i < 6; i++)
            mixture_case_logits(&cut.some, i / 3, i % 3)[v] = MPO_MASKED_LOGIT;
    }
    open_cut(&cut);
    check_cut(&cut, 3, true);
    free_cut(&cut);
}

/* Logits of -inf, one in a row and all of a row's slice: whatever whole rows say. */
static void infinite_logits_give_the_bits_of_whole_rows(void **state)
{
    (void)state;
    struct cut cut;
    make_cut(&cut, 2, 3, 2100);
    mixture_case_logits(&cut.some, 0, 1)[2000] = -INFINITY;
    for (int32_t v = 1024; v < 2048; v++)
        mixture_case_logits(&cut.some, 1, 2)[v] = -INFINITY;
    open_cut(&cut);
    check_cut(&cut, 3, true);
    free_cut(&cut);
}

/* The greatest score in several slices, and rows of nothing but ties. */
static void ties_give_the_tokens_of_whole_rows(void **state)
{
    (void)state;
    struct cut cut;
    make_cut(&cut, 2, 4, 2100);
    cut.some.end_bias = 0.0;
    for (int32_t i = 0; i < 8; i++)
        for (int32_t v = 0; v < 2100; v++)
            if (i % 4 == 3 || v % 900 == i % 4 + 100)
                mixture_case_logits(&cut.some, i / 4, i % 4)[v] = 7.0f;
    open_cut(&cut);
    check_cut(&cut, 2, true);
    check_cut(&cut, 3, true);
    free_cut(&cut);
}

/* Rows of NaN: what is asked of them does no harm and is the same for every cut. */
static void rows_that_fail_give_the_bits_of_whole_rows(void **state)
{
    (void)state;
    struct cut cut;
    make_cut(&cut, 2, 6, 2100);
    mixture_case_logits(&cut.some, 1, 2)[1500] = NAN;
    mixture_case_logits(&cut.some, 0, 5)[9] = INFINITY;
    open_cut(&cut);
    check_cut(&cut, 3, false);
    free_cut(&cut);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_gives_the_bits_of_whole_rows),
        cmocka_unit_test(masked_slices_give_the_bits_of_whole_rows),
        cmocka_unit_test(infinite_logits_give_the_bits_of_whole_rows),
        cmocka_unit_test(ties_give_the_tokens_of_whole_rows),
        cmocka_unit_test(rows_that_fail_give_the_bits_of_whole_rows),
    };
    if (!device_suite_has_device())
        return 77;
    vocab_max = device_suite_vocabulary(argc, argv, vocab_max);
    return run_cases("mixture of slices on cuda", tests);
}
