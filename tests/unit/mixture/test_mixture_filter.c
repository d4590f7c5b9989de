/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draws under rules against brute force: biases are added, all tokens are sorted, the
 * filters are applied as their definitions say, and a sweep of the uniform must find the
 * cumulative sums of what is left.
 */
#include "mixture_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mixture/mixture_impl.h"
#include "runner.h"

#define VOCAB 3000 /* three blocks, the last one short */
#define JUMP  1e-12

/* ---- brute force ---- */

static const double *sorted_by;

static int most_probable_first(const void *left, const void *right)
{
    int32_t a = *(const int32_t *)left;
    int32_t b = *(const int32_t *)right;
    if (sorted_by[a] != sorted_by[b])
        return sorted_by[a] > sorted_by[b] ? -1 : 1;
    return a < b ? -1 : 1;
}

/* q becomes what it is with the biases, up to a factor. */
static void add_biases(const struct mpo_mixture_rule *rule, double *q)
{
    for (int32_t i = 0; i < rule->bias_count; i++)
        q[rule->bias[i].token] *= exp(rule->bias[i].value);
}

/* q becomes the filtered distribution. */
static void filter_by_sorting(const struct mpo_mixture_filter *filter, double *q,
                              int32_t count)
{
    int32_t *order = runner_allocate((size_t)count, sizeof *order);
    double *power = runner_allocate((size_t)count, sizeof *power);
    double mass = 0.0;
    double sum = 0.0;
    for (int32_t v = 0; v < count; v++) {
        order[v] = v;
        power[v] = q[v] > 0.0 ? pow(q[v], 1.0 / filter->temperature) : 0.0;
    }
    sorted_by = power;
    qsort(order, (size_t)count, sizeof *order, most_probable_first);
    int32_t kept = filter->top_k > 0 && filter->top_k < count ? filter->top_k : count;
    for (int32_t i = 0; i < kept; i++)
        mass += power[order[i]];
    int32_t enough = 0;
    while (enough < kept && (enough == 0 || sum < filter->top_p * mass))
        sum += power[order[enough++]];
    if (filter->top_p >= 1.0)
        enough = kept;
    memset(q, 0, (size_t)count * sizeof *q);
    sum = 0.0;
    for (int32_t i = 0; i < enough; i++)
        if (power[order[i]] >= filter->min_p * power[order[0]]) {
            q[order[i]] = power[order[i]];
            sum += power[order[i]];
        }
    for (int32_t v = 0; v < count; v++)
        q[v] /= sum;
    free(power);
    free(order);
}

/* ---- the draw ---- */

static int32_t draw(struct mixture_case *some, const struct mpo_mixture_rule *rule,
                    double uniform, double *log_proposal)
{
    int32_t row = 0;
    int32_t token = -1;
    double log_policy[MIXTURE_CASE_POLICY_MAX];
    const enum mpo_mixture_kind kind =
        uniform > 0.0 ? MPO_MIXTURE_DRAWN : MPO_MIXTURE_GREATEST;
    struct mpo_mixture_draws draws = {
        .count = 1,
        .row = &row,
        .kind = &kind,
        .uniform = &uniform,
        .rule = &rule,
        .token = &token,
        .log_proposal = log_proposal,
        .log_policy = log_policy,
    };
    assert_ok(mpo_mixture_draw(some->mixture, &draws));
    return token;
}

static void check_rule(struct mixture_case *some, const struct mpo_mixture_rule *rule)
{
    struct mixture_truth truth;
    double *filtered = runner_allocate(VOCAB, sizeof *filtered);
    double below = 0.0;
    int32_t next = 0;
    int32_t sweep = mixture_case_sweep(4001);
    mixture_truth_make(some, 0, &truth);
    memcpy(filtered, truth.q, VOCAB * sizeof *filtered);
    add_biases(rule, filtered);
    filter_by_sorting(&rule->filter, filtered, VOCAB);
    for (int32_t i = 0; i < sweep; i++) {
        double uniform = (i + 0.5) / sweep;
        double log_proposal = 0.0;
        int32_t token = draw(some, rule, uniform, &log_proposal);
        assert_true(token >= next);
        while (next < token)
            below += filtered[next++];
        assert_true(filtered[token] > 0.0);
        assert_between(uniform, below - JUMP, below + filtered[token] + JUMP);
        assert_close(log_proposal, log(truth.q[token]), 1e-11);
    }
    free(filtered);
    mixture_truth_free(&truth);
}

static void make_case(struct mixture_case *some)
{
    mixture_case_make(some, 2, 1, VOCAB, 6.0);
    mixture_case_mask(some, 7, 3);
    /* Equal logits across blocks: ties at every cut. */
    for (int32_t v = 1500; v < 1600; v++)
        for (int32_t h = 0; h < 2; h++)
            if (v % 7 != 3)
                mixture_case_logits(some, h, 0)[v] = 5.0f;
    mixture_case_run(some);
}

static void filters_are_those_of_brute_force(void **state)
{
    (void)state;
    static const struct mpo_mixture_filter filters[] = {
        {0.5, 0, 1.0, 0.0},     {1.7, 0, 1.0, 0.0},     {1.0, 1, 1.0, 0.0},
        {1.0, 7, 1.0, 0.0},     {1.0, 40, 1.0, 0.0},    {1.0, VOCAB - 1, 1.0, 0.0},
        {1.0, 5000, 1.0, 0.0},  {1.0, 0, 0.5, 0.0},     {1.0, 0, 0.999, 0.0},
        {1.0, 0, 1e-9, 0.0},    {1.0, 0, 1.0, 0.01},    {1.0, 0, 1.0, 0.3},
        {0.7, 50, 0.9, 0.0},    {1.3, 50, 0.9, 0.05},   {2.0, 200, 0.2, 0.001},
        {0.8, 5000, 0.6, 0.02}, {0.05, 0, 0.9999, 0.0},
    };
    struct mixture_case some;
    make_case(&some);
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        check_rule(&some, &(struct mpo_mixture_rule){.filter = filters[i]});
    mixture_case_free(&some);
}

static void filter_that_takes_nothing_away_draws_the_same(void **state)
{
    (void)state;
    static const struct mpo_mixture_rule open = {.filter = {1.0, 0, 1.0, 0.0}};
    static const struct mpo_mixture_rule wide = {.filter = {1.0, VOCAB, 1.0, 0.0}};
    static const struct mpo_mixture_bias nothing = {7, 0.0};
    const struct mpo_mixture_rule idle = {open.filter, &nothing, 1};
    struct mixture_case some;
    double log_proposal = 0.0;
    make_case(&some);
    assert_true(mpo_mixture_filter_is_open(NULL));
    assert_true(mpo_mixture_filter_is_open(&open.filter));
    assert_false(mpo_mixture_filter_is_open(&wide.filter));
    assert_true(mpo_mixture_rule_is_open(NULL));
    assert_true(mpo_mixture_rule_is_open(&open));
    assert_false(mpo_mixture_rule_is_open(&wide));
    assert_false(mpo_mixture_rule_is_open(&idle));
    for (int32_t i = 0; i < mixture_case_sweep(2000); i++) {
        double uniform = runner_uniform(3, (uint64_t)i);
        int32_t plain = draw(&some, NULL, uniform, &log_proposal);
        assert_int_equal(draw(&some, &open, uniform, &log_proposal), plain);
        assert_int_equal(draw(&some, &wide, uniform, &log_proposal), plain);
        assert_int_equal(draw(&some, &idle, uniform, &log_proposal), plain);
    }
    mixture_case_free(&some);
}

/* ---- biases ---- */

/* Token 3 and 10 are masked; 1500 .. 1599 are ties; 40 and 41 come twice. */
static const struct mpo_mixture_bias biases[] = {
    {2999, 2.0}, {3, 50.0}, {1510, -INFINITY}, {40, 3.0},  {1502, 0.5},
    {41, 9.0},   {40, 1.5}, {10, 2.0},         {41, -8.5}, {2, -INFINITY},
};

static void biases_are_those_of_brute_force(void **state)
{
    (void)state;
    static const struct mpo_mixture_filter filters[] = {
        {1.0, 0, 1.0, 0.0}, {0.6, 0, 1.0, 0.0}, {1.0, 7, 1.0, 0.0},
        {1.0, 0, 0.8, 0.0}, {1.0, 0, 1.0, 0.3}, {1.3, 50, 0.9, 0.05},
    };
    struct mixture_case some;
    make_case(&some);
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        check_rule(&some, &(struct mpo_mixture_rule){filters[i], biases,
                                                     sizeof biases / sizeof *biases});
    mixture_case_free(&some);
}

static int32_t greatest_by_sorting(const struct mixture_case *some,
                                   const struct mpo_mixture_rule *rule)
{
    struct mixture_truth truth;
    int32_t best = 0;
    mixture_truth_make(some, 0, &truth);
    add_biases(rule, truth.q);
    for (int32_t v = 1; v < VOCAB; v++)
        if (truth.q[v] > truth.q[best])
            best = v;
    mixture_truth_free(&truth);
    return best;
}

/* Of a greedy draw biases count and the filter does not. */
static void greedy_takes_the_greatest_with_its_bias(void **state)
{
    (void)state;
    static const struct mpo_mixture_filter filter = {0.5, 3, 0.2, 0.9};
    struct mixture_case some;
    double log_proposal = 0.0;
    make_case(&some);
    int32_t plain = draw(&some, NULL, 0.0, &log_proposal);
    assert_int_equal(
        draw(&some, &(struct mpo_mixture_rule){.filter = filter}, 0.0, &log_proposal),
        plain);
    for (int32_t step = -10; step <= 10; step++) {
        const struct mpo_mixture_bias bias[3] = {
            {plain, -0.2 * step}, {1505, 0.7 * step}, {2000, -0.3 * step}};
        const struct mpo_mixture_rule rule = {filter, bias, 3};
        assert_int_equal(draw(&some, &rule, 0.0, &log_proposal),
                         greatest_by_sorting(&some, &rule));
    }
    /* Ties in two blocks that are greater than all others. */
    struct mpo_mixture_bias ties[99];
    for (int32_t i = 0; i < 99; i++)
        ties[i] = (struct mpo_mixture_bias){1599 - i, 30.0};
    const struct mpo_mixture_rule rule = {filter, ties, 99};
    assert_int_equal(draw(&some, &rule, 0.0, &log_proposal), 1502); /* 1501 is masked */
    mixture_case_free(&some);
}

/* A bias that no exponent could hold, and one that leaves nothing else. */
static void extreme_biases_leave_one_token(void **state)
{
    (void)state;
    static const struct mpo_mixture_filter cold = {0.01, 0, 1.0, 0.0};
    static const struct mpo_mixture_filter open = {1.0, 0, 1.0, 0.0};
    static const struct mpo_mixture_bias high = {2345, 1e5};
    struct mpo_mixture_bias but_one[VOCAB];
    struct mixture_case some;
    double log_proposal = 0.0;
    make_case(&some);
    for (int32_t v = 0; v < VOCAB; v++)
        but_one[v] = (struct mpo_mixture_bias){v, v == 77 ? -900.0 : -INFINITY};
    for (int32_t i = 0; i < 20; i++) {
        double uniform = i / 20.0; /* the first one is greedy */
        assert_int_equal(
            draw(&some, &(struct mpo_mixture_rule){cold, &high, 1}, uniform, &log_proposal),
            2345);
        assert_int_equal(draw(&some, &(struct mpo_mixture_rule){open, but_one, VOCAB},
                              uniform, &log_proposal),
                         77);
        assert_true(log_proposal > -100.0); /* of the mixture itself */
    }
    mixture_case_free(&some);
}

/* All tokens taken away, or all that are not masked. */
static void a_rule_that_leaves_no_token_is_as_none(void **state)
{
    (void)state;
    static const struct mpo_mixture_filter filter = {0.5, 3, 1.0, 0.0};
    struct mpo_mixture_bias all[VOCAB];
    struct mixture_case some;
    double log_proposal = 0.0;
    make_case(&some);
    for (int32_t v = 0; v < VOCAB; v++)
        all[v] = (struct mpo_mixture_bias){v, v % 7 == 3 ? 5.0 : -INFINITY};
    for (int32_t i = 0; i < 20; i++) {
        const struct mpo_mixture_rule rule = {filter, all, VOCAB};
        int32_t plain = draw(&some, NULL, i / 20.0, &log_proposal);
        assert_int_equal(draw(&some, &rule, i / 20.0, &log_proposal), plain);
    }
    mixture_case_free(&some);
}

static void biases_that_mean_nothing_are_refused(void **state)
{
    (void)state;
    static const struct mpo_mixture_bias wrong[] = {
        {0, NAN}, {0, INFINITY}, {-1, 1.0}, {VOCAB, 1.0}};
    struct mpo_mixture_rule rule = {{1.0, 0, 1.0, 0.0}, NULL, 1};
    const struct mpo_mixture_rule *rules = &rule;
    const enum mpo_mixture_kind kind = MPO_MIXTURE_GREATEST;
    struct mixture_case some;
    int32_t row = 0;
    int32_t token = 0;
    double log_proposal = 0.0;
    double log_policy[2];
    make_case(&some);
    struct mpo_mixture_draws draws = {.count = 1,
                                      .row = &row,
                                      .kind = &kind,
                                      .rule = &rules,
                                      .token = &token,
                                      .log_proposal = &log_proposal,
                                      .log_policy = log_policy};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        rule.bias = &wrong[i];
        assert_status(mpo_mixture_draw(some.mixture, &draws), MPO_ERR_USAGE);
        assert_error_names("a bias of");
    }
    rule.bias_count = VOCAB + 1;
    assert_status(mpo_mixture_draw(some.mixture, &draws), MPO_ERR_USAGE);
    assert_error_names("3001 biases for 3000 tokens");
    mixture_case_free(&some);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_are_those_of_brute_force),
        cmocka_unit_test(filter_that_takes_nothing_away_draws_the_same),
        cmocka_unit_test(biases_are_those_of_brute_force),
        cmocka_unit_test(greedy_takes_the_greatest_with_its_bias),
        cmocka_unit_test(extreme_biases_leave_one_token),
        cmocka_unit_test(a_rule_that_leaves_no_token_is_as_none),
        cmocka_unit_test(biases_that_mean_nothing_are_refused),
    };
    return run_cases("mixture filter", tests);
}
