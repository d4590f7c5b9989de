/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounds on the weights: the KL projection and the least linear value against brute force,
 * what every step rule must keep, refusals, and the exact bigram optimum under bounds.
 */
#include <math.h>
#include <string.h>

#include "bigram.h"
#include "descent/descent_impl.h"
#include "runner.h"

enum { GRID = 400, CASES = 40, COUNT_MAX = 6 };

/* Random bounds [2, 3] that some weights keep, some of them tight or absent. */
static void make_bounds(uint64_t seed, double bounds[6])
{
    for (uint64_t k = 0; k < 3; k++) {
        double low = 0.6 * runner_uniform(seed, k) - 0.25;
        double high = 0.35 + runner_uniform(seed, 3 + k);
        bounds[k] = low > 0.0 ? low : 0.0;
        bounds[3 + k] = high < 1.0 ? high : 1.0;
    }
}

static double divergence(const double *u, const double *log_point)
{
    double sum = 0.0;
    for (int32_t k = 0; k < 3; k++)
        sum += u[k] > 0.0 ? u[k] * (log(u[k]) - log_point[k]) : 0.0;
    return sum;
}

static double inner(const double *u, const double *gradient)
{
    return u[0] * gradient[0] + u[1] * gradient[1] + u[2] * gradient[2];
}

/* Least of a function over the points of a grid that keep the bounds. */
static double least_on_grid(double (*value)(const double *, const double *),
                            const double *argument, const double bounds[6])
{
    double least = INFINITY;
    for (int32_t i = 0; i <= GRID; i++)
        for (int32_t j = 0; i + j <= GRID; j++) {
            double u[3] = {(double)i / GRID, (double)j / GRID,
                           (double)(GRID - i - j) / GRID};
            bool inside = true;
            for (int32_t k = 0; k < 3; k++)
                inside = inside && u[k] >= bounds[k] && u[k] <= bounds[3 + k];
            if (inside)
                least = fmin(least, value(u, argument));
        }
    return least;
}

static void assert_near_simplex(const double *weights, const double *bounds, int32_t count,
                                double tolerance)
{
    double sum = 0.0;
    for (int32_t k = 0; k < count; k++) {
        assert_between(weights[k], bounds[k], bounds[count + k]);
        sum += weights[k];
    }
    assert_close(sum, 1.0, tolerance);
}

static void assert_within(const double *weights, const double *bounds, int32_t count)
{
    assert_near_simplex(weights, bounds, count, 1e-12);
}

static void projection_is_the_nearest_point_in_divergence(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < CASES; seed++) {
        double bounds[6];
        double point[3];
        double log_point[3];
        double weights[3];
        make_bounds(seed, bounds);
        assert_ok(mpo_descent_check_bounds(bounds, 3));
        for (uint64_t k = 0; k < 3; k++)
            point[k] = log_point[k] = -8.0 * runner_uniform(seed, 10 + k);
        assert_ok(mpo_descent_project(bounds, 3, log_point, weights));
        assert_within(weights, bounds, 3);
        double found = divergence(weights, point);
        double least = least_on_grid(divergence, point, bounds);
        assert_between(least - found, -1e-12, 0.05);
    }
}

static void a_point_within_the_bounds_stays(void **state)
{
    (void)state;
    static const double bounds[6] = {0.1, 0.0, 0.05, 0.9, 0.5, 1.0};
    double log_point[3] = {log(0.5) + 7.0, log(0.3) + 7.0, log(0.2) + 7.0};
    double weights[3];
    assert_ok(mpo_descent_project(bounds, 3, log_point, weights));
    assert_close(weights[0], 0.5, 1e-15);
    assert_close(weights[1], 0.3, 1e-15);
    assert_close(weights[2], 0.2, 1e-15);
}

static void bounds_with_a_single_point_give_that_point(void **state)
{
    (void)state;
    static const double bounds[6] = {0.2, 0.3, 0.5, 0.2, 0.3, 0.5};
    static const double minima[6] = {0.2, 0.3, 0.5, 1.0, 1.0, 1.0};
    double log_point[3] = {-700.0, 0.0, 600.0};
    double weights[3];
    assert_ok(mpo_descent_project(bounds, 3, log_point, weights));
    for (int32_t k = 0; k < 3; k++)
        assert_close(weights[k], bounds[k], 1e-15);
    double again[3] = {-3.0, 0.0, 2.0};
    assert_ok(mpo_descent_project(minima, 3, again, weights));
    for (int32_t k = 0; k < 3; k++)
        assert_close(weights[k], bounds[k], 1e-12);
}

static void least_linear_value_is_that_of_a_grid(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < CASES; seed++) {
        double bounds[6];
        double gradient[3];
        make_bounds(seed, bounds);
        for (uint64_t k = 0; k < 3; k++)
            gradient[k] = -4.0 * runner_uniform(seed, 20 + k);
        double least = least_on_grid(inner, gradient, bounds);
        assert_between(least - mpo_descent_least(gradient, bounds, 3), -1e-12, 0.05);
    }
    static const double ties[3] = {-1.0, -1.0, 0.0};
    static const double bounds[6] = {0.0, 0.0, 0.1, 0.45, 0.3, 1.0};
    assert_close(mpo_descent_least(ties, bounds, 3), -0.75, 1e-15);
    assert_close(mpo_descent_least(ties, NULL, 3), -1.0, 0.0);
}

static void bounds_that_no_weights_keep_are_refused(void **state)
{
    (void)state;
    static const double bad[4][4] = {{0.6, 0.5, 1.0, 1.0},
                                     {0.0, 0.0, 0.4, 0.5},
                                     {0.5, 0.0, 0.4, 1.0},
                                     {-0.1, 0.0, 1.0, 1.0}};
    for (int32_t i = 0; i < 4; i++) {
        struct mpo_descent *descent = NULL;
        struct mpo_descent_spec spec = {"entropy", MPO_STEP_RULE_ADAPTIVE, 1.0, 10, 2, NULL,
                                        bad[i],    MPO_AVERAGING_UNIFORM};
        assert_status(mpo_descent_open(&spec, &descent), MPO_ERR_CONFIG);
    }
}

static struct bigram *open_problem(void)
{
    static float logits[3 * 6 * 5];
    static const int32_t end[1] = {4};
    static const int32_t start[2] = {0, 5};
    bigram_random_logits(7, 2.0, sizeof logits / sizeof *logits, logits);
    struct bigram_spec spec = {.logits = logits,
                               .end_token = end,
                               .start = start,
                               .policy_count = 3,
                               .vocab_size = 5,
                               .state_count = 6,
                               .end_count = 1,
                               .start_count = 2,
                               .max_tokens = 12};
    return bigram_open(&spec);
}

static void check_bounded_optimum(enum mpo_step_rule rule)
{
    struct bigram *bigram = open_problem();
    double free_optimum[3];
    double free_least = bigram_optimum(bigram, free_optimum);
    double bounds[6] = {0.0, 0.0, 0.0, 1.0, 1.0, 1.0};
    int32_t top = 0;
    for (int32_t k = 1; k < 3; k++)
        top = free_optimum[k] > free_optimum[top] ? k : top;
    bounds[3 + top] = 0.5 * free_optimum[top]; /* active at the bounded optimum */
    bounds[(top + 1) % 3] = 0.15;
    struct mpo_descent *descent = NULL;
    struct mpo_descent_spec spec = {"entropy", rule, 2.0,    3000,
                                    3,         NULL, bounds, MPO_AVERAGING_UNIFORM};
    assert_ok(mpo_descent_open(&spec, &descent));
    for (int32_t step = 0; step < 3000; step++) {
        double gradient[3];
        assert_within(mpo_descent_weights(descent), bounds, 3);
        bigram_gradient(bigram, mpo_descent_weights(descent), gradient);
        assert_ok(mpo_descent_step(descent, gradient));
    }
    double least = INFINITY;
    for (int32_t i = 0; i <= GRID; i++) {
        double u[3];
        u[top] = bounds[3 + top];
        u[(top + 1) % 3] = 0.15 + (1.0 - 0.15 - u[top]) * i / GRID;
        u[(top + 2) % 3] = 1.0 - u[top] - u[(top + 1) % 3];
        least = fmin(least, bigram_value(bigram, u));
    }
    assert_true(least > free_least + 1e-4);
    double excess = bigram_value(bigram, mpo_descent_average(descent)) - least;
    assert_between(excess, -1e-5, 5e-3);
    assert_between(mpo_descent_averaged_gap(descent), excess, 5e-2);
    mpo_descent_close(&descent);
    bigram_close(&bigram);
}

/* Random bounds [2, count] that leave no room on one side: minima of some weights, or maxima
 * of some, sum to 1; or bounds at random, around a point that keeps them. */
static void make_tight_bounds(uint64_t seed, int32_t count, double *bounds)
{
    double inside[COUNT_MAX];
    double sum = 0.0;
    uint64_t kind = seed % 3;
    int32_t subset = 1 + (int32_t)(runner_uniform(seed, 90) * (count - 1));
    for (int32_t k = 0; k < count; k++) {
        bool is_in = kind == 2 || k < subset;
        inside[k] = is_in ? 0.01 + runner_uniform(seed, 100 + (uint64_t)k) : 0.0;
        sum += inside[k];
    }
    for (int32_t k = 0; k < count; k++) {
        double draw = runner_uniform(seed, 200 + (uint64_t)k);
        inside[k] /= sum;
        bounds[k] = kind == 0 ? inside[k] : kind == 1 ? 0.0 : inside[k] * draw;
        bounds[count + k] = 1.0;
        if (kind == 1 && k < subset)
            bounds[count + k] = inside[k];
        if (kind == 2)
            bounds[count + k] = inside[k] + (1.0 - inside[k]) * draw;
    }
}

/* Steps of any size, each also taken by a descent that was loaded from the state before. */
static void check_tight_descent(uint64_t seed, enum mpo_step_rule rule, double size)
{
    int32_t count = 2 + (int32_t)(runner_uniform(seed, 80) * (COUNT_MAX - 2));
    double bounds[2 * COUNT_MAX];
    make_tight_bounds(seed, count, bounds);
    struct mpo_descent *descent = NULL;
    struct mpo_descent_spec spec = {.map = "entropy",
                                    .step_rule = rule,
                                    .step_constant = 100.0,
                                    .steps = 12,
                                    .objective_count = count,
                                    .bounds = bounds};
    assert_ok(mpo_descent_open(&spec, &descent));
    for (uint64_t step = 0; step < 12; step++) {
        double gradient[COUNT_MAX];
        struct mpo_descent *loaded = NULL;
        struct mpo_descent_state saved = {0};
        assert_near_simplex(mpo_descent_weights(descent), bounds, count, 1e-9);
        for (int32_t k = 0; k < count; k++)
            gradient[k] = size * (runner_uniform(seed + step, 300 + (uint64_t)k) - 0.7);
        mpo_descent_save(descent, &saved);
        assert_ok(mpo_descent_open(&spec, &loaded));
        assert_ok(mpo_descent_load(loaded, &saved));
        assert_ok(mpo_descent_step(descent, gradient));
        assert_ok(mpo_descent_step(loaded, gradient));
        for (int32_t k = 0; k < count; k++)
            assert_same_bits(mpo_descent_weights(loaded)[k],
                             mpo_descent_weights(descent)[k]);
        mpo_descent_close(&loaded);
    }
    assert_near_simplex(mpo_descent_weights(descent), bounds, count, 1e-9);
    for (int32_t k = 0; k < count; k++) /* a mean has the rounding of its sum */
        assert_between(mpo_descent_average(descent)[k], bounds[k] - 1e-14,
                       bounds[count + k] + 1e-14);
    mpo_descent_close(&descent);
}

static void weights_keep_bounds_that_leave_no_room(void **state)
{
    (void)state;
    static const enum mpo_step_rule rules[3] = {
        MPO_STEP_RULE_ADAPTIVE, MPO_STEP_RULE_DECREASING, MPO_STEP_RULE_FIXED};
    static const double sizes[3] = {1.0, 1e4, 1e12};
    for (uint64_t seed = 0; seed < 600; seed++)
        check_tight_descent(seed, rules[seed / 3 % 3], sizes[seed / 9 % 3]);
}

static void minima_that_sum_to_one_leave_nothing_to_the_others(void **state)
{
    (void)state;
    static const double bounds[6] = {0.6, 0.4, 0.0, 1.0, 1.0, 1.0};
    static const double points[3][3] = {
        {0.0, 0.0, 0.0}, {-5.0, 0.0, 900.0}, {0.0, -3000.0, -1.0}};
    for (int32_t i = 0; i < 3; i++) {
        double log_point[3];
        double weights[3];
        memcpy(log_point, points[i], sizeof log_point);
        assert_ok(mpo_descent_project(bounds, 3, log_point, weights));
        for (int32_t k = 0; k < 3; k++) {
            assert_same_bits(weights[k], bounds[k]);
            assert_true(isfinite(log_point[k]));
        }
    }
}

static void maxima_that_sum_to_one_leave_nothing_to_the_others(void **state)
{
    (void)state;
    static const double bounds[6] = {0.0, 0.0, 0.0, 1.0, 0.5, 0.5};
    for (int32_t i = 0; i < 400; i++) {
        double log_point[3] = {-800.0 - i, 0.0, -0.37 * i};
        double weights[3];
        assert_ok(mpo_descent_project(bounds, 3, log_point, weights));
        assert_within(weights, bounds, 3);
        assert_close(weights[0], 0.0, 1e-15);
    }
}

static void every_rule_finds_the_bounded_optimum(void **state)
{
    (void)state;
    check_bounded_optimum(MPO_STEP_RULE_ADAPTIVE);
    check_bounded_optimum(MPO_STEP_RULE_DECREASING);
    check_bounded_optimum(MPO_STEP_RULE_FIXED);
}

static void mirror_steps_go_on_from_the_projected_weights(void **state)
{
    (void)state;
    static const double bounds[6] = {0.05, 0.0, 0.1, 0.45, 1.0, 0.6};
    struct mpo_descent *descent = NULL;
    struct mpo_descent_spec spec = {"entropy", MPO_STEP_RULE_DECREASING, 1.0, 30, 3, NULL,
                                    bounds,    MPO_AVERAGING_UNIFORM};
    assert_ok(mpo_descent_open(&spec, &descent));
    for (uint64_t step = 0; step < 30; step++) {
        double gradient[3];
        double log_point[3];
        double expected[3];
        for (uint64_t k = 0; k < 3; k++) {
            gradient[k] = 4.0 * runner_uniform(3, 3 * step + k) - (k == 0 ? 1.0 : 0.0);
            log_point[k] = log(mpo_descent_weights(descent)[k]) -
                           gradient[k] / sqrt((double)step + 1.0);
        }
        assert_ok(mpo_descent_project(bounds, 3, log_point, expected));
        assert_ok(mpo_descent_step(descent, gradient));
        for (int32_t k = 0; k < 3; k++)
            assert_close(mpo_descent_weights(descent)[k], expected[k], 1e-12);
    }
    mpo_descent_close(&descent);
}

static void a_loaded_state_goes_on_with_the_same_bits(void **state)
{
    (void)state;
    static const double bounds[6] = {0.3, 0.0, 0.1, 1.0, 0.2, 0.6};
    static const double gradient[3] = {1.0, -2.0, 0.3};
    static const enum mpo_step_rule rules[3] = {
        MPO_STEP_RULE_ADAPTIVE, MPO_STEP_RULE_DECREASING, MPO_STEP_RULE_FIXED};
    for (int32_t i = 0; i < 3; i++) {
        struct mpo_descent *one = NULL;
        struct mpo_descent *two = NULL;
        struct mpo_descent_state saved = {0};
        struct mpo_descent_spec spec = {"entropy", rules[i], 1.0,    20,
                                        3,         NULL,     bounds, MPO_AVERAGING_UNIFORM};
        assert_ok(mpo_descent_open(&spec, &one));
        assert_ok(mpo_descent_open(&spec, &two));
        for (int32_t step = 0; step < 5; step++)
            assert_ok(mpo_descent_step(one, gradient));
        mpo_descent_save(one, &saved);
        assert_ok(mpo_descent_load(two, &saved));
        for (int32_t step = 0; step < 5; step++) {
            for (int32_t k = 0; k < 3; k++)
                assert_same_bits(mpo_descent_weights(two)[k], mpo_descent_weights(one)[k]);
            assert_ok(mpo_descent_step(one, gradient));
            assert_ok(mpo_descent_step(two, gradient));
        }
        mpo_descent_close(&two);
        mpo_descent_close(&one);
    }
}

/* Whatever a caller passes as a gradient or a state, it is not a bug of the library. */
static void points_beyond_a_double_are_bad_data(void **state)
{
    (void)state;
    static const double bounds[6] = {0.1, 0.0, 0.05, 0.9, 0.5, 1.0};
    static const double zero[3] = {0.0, 0.0, 0.0};
    static const double wrong[6][3] = {{1e300, -1e300, 0.0},  {1e308, 1e308, -1e308},
                                       {NAN, 0.0, 0.0},       {INFINITY, 0.0, 0.0},
                                       {-INFINITY, 0.0, 0.0}, {1e17, 3.0, -1e17}};
    for (int32_t i = 0; i < 12; i++) {
        struct mpo_descent *descent = NULL;
        const struct mpo_descent_spec spec = {"entropy",
                                              MPO_STEP_RULE_FIXED,
                                              10.0,
                                              30,
                                              3,
                                              NULL,
                                              i < 6 ? bounds : NULL,
                                              MPO_AVERAGING_UNIFORM};
        const struct mpo_descent_state loaded = {
            .step = 1, .dual = wrong[i % 6], .weights_sum = zero, .gradient_sum = zero};
        assert_ok(mpo_descent_open(&spec, &descent));
        for (int32_t step = 0; step < 3; step++) {
            enum mpo_status status = mpo_descent_step(descent, wrong[i % 6]);
            assert_true(status == MPO_OK || status == MPO_ERR_DATA);
        }
        enum mpo_status status = mpo_descent_load(descent, &loaded);
        assert_true(status == MPO_OK || status == MPO_ERR_DATA);
        assert_true(status == MPO_ERR_DATA || !isnan(wrong[i % 6][0]));
        mpo_descent_close(&descent);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_beyond_a_double_are_bad_data),
        cmocka_unit_test(projection_is_the_nearest_point_in_divergence),
        cmocka_unit_test(a_point_within_the_bounds_stays),
        cmocka_unit_test(bounds_with_a_single_point_give_that_point),
        cmocka_unit_test(least_linear_value_is_that_of_a_grid),
        cmocka_unit_test(bounds_that_no_weights_keep_are_refused),
        cmocka_unit_test(weights_keep_bounds_that_leave_no_room),
        cmocka_unit_test(minima_that_sum_to_one_leave_nothing_to_the_others),
        cmocka_unit_test(maxima_that_sum_to_one_leave_nothing_to_the_others),
        cmocka_unit_test(every_rule_finds_the_bounded_optimum),
        cmocka_unit_test(mirror_steps_go_on_from_the_projected_weights),
        cmocka_unit_test(a_loaded_state_goes_on_with_the_same_bits),
    };
    return run_cases("bounds of the descent", tests);
}
