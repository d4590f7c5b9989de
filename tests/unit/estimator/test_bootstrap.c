/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bootstrap over prompts: intervals against the normal theory of a mean and against what
 * they are by their formula, bounds of a family against what normal theory says of the
 * largest of several means, and samples in which a resample may have no scatter.
 */
#include <math.h>

#include "estimator/bootstrap.h"
#include "runner.h"

enum { UNITS = 400, COLUMNS = 3, FEW = 100 };

/* Of a standard normal one, by Box and Muller. */
static double normal(uint64_t seed, uint64_t index)
{
    double radius = sqrt(-2.0 * log(runner_uniform(seed, 2 * index)));
    return radius * cos(6.283185307179586 * runner_uniform(seed, 2 * index + 1));
}

static double error_of_mean(const double *value, int64_t count, int32_t stride)
{
    double mean = 0.0;
    double square = 0.0;
    for (int64_t i = 0; i < count; i++)
        mean += value[i * stride] / (double)count;
    for (int64_t i = 0; i < count; i++)
        square += (value[i * stride] - mean) * (value[i * stride] - mean);
    return sqrt(square / ((double)count - 1.0) / (double)count);
}

static void intervals_of_a_mean_are_those_of_normal_theory(void **state)
{
    (void)state;
    static double value[UNITS * 2];
    struct mpo_interval out[2];
    double mean = 0.0;
    for (uint64_t i = 0; i < UNITS; i++) {
        value[2 * i] = normal(9, i);
        value[2 * i + 1] = 1e9 + value[2 * i]; /* whose squares lose all digits */
        mean += value[2 * i] / UNITS;
    }
    double error = error_of_mean(value, UNITS, 2);
    struct mpo_bootstrap_spec spec = {5, 8000, UNITS, 2, value, NULL, 0};
    assert_ok(mpo_bootstrap_run(&spec, out, NULL));
    assert_close(out[0].estimate, mean, 1e-12);
    assert_close(out[0].low, mean - 1.96 * error, 0.1 * error);
    assert_close(out[0].high, mean + 1.96 * error, 0.1 * error);
    assert_close(out[1].low - 1e9, out[0].low, 1e-5);
    assert_close(out[1].high - 1e9, out[0].high, 1e-5);
}

/* Exponential units: a sample that is low has little scatter, so the mean is likely above. */
static void the_long_side_is_that_of_the_far_units(void **state)
{
    (void)state;
    static double value[FEW];
    struct mpo_interval out;
    for (uint64_t i = 0; i < FEW; i++)
        value[i] = -log(runner_uniform(3, i));
    struct mpo_bootstrap_spec spec = {5, 4000, FEW, 1, value, NULL, 0};
    assert_ok(mpo_bootstrap_run(&spec, &out, NULL));
    double error = error_of_mean(value, FEW, 1);
    assert_true(out.high - out.estimate > 2.1 * error);
    assert_true(out.estimate - out.low < 1.9 * error);
}

static void a_single_unit_has_no_interval(void **state)
{
    (void)state;
    static const double value[2] = {3.0, 4.0};
    static const struct mpo_bootstrap_family family = {0, 2};
    struct mpo_interval out[2];
    double upper[2];
    struct mpo_bootstrap_spec spec = {5, 100, 1, 2, value, &family, 1};
    assert_ok(mpo_bootstrap_run(&spec, out, upper));
    assert_close(out[0].estimate, 3.0, 0.0);
    assert_true(isnan(out[0].low) && isnan(out[0].high) && isnan(upper[1]));
}

static void equal_units_have_an_interval_without_width(void **state)
{
    (void)state;
    static const double value[] = {0.5, 1.0, 0.5, 2.0, 0.5, 3.0};
    static const struct mpo_bootstrap_family family = {0, 1};
    struct mpo_interval out[2];
    double upper[2];
    struct mpo_bootstrap_spec spec = {5, 1000, 3, 2, value, &family, 1};
    assert_ok(mpo_bootstrap_run(&spec, out, upper));
    assert_close(out[0].low, 0.5, 0.0);
    assert_close(out[0].high, 0.5, 0.0);
    assert_close(upper[0], 0.5, 0.0);
    assert_true(isnan(upper[1]));
    assert_true(out[1].low < 2.0 && out[1].high > 2.0);
}

/* Half of the resamples of two units have no scatter, and a third of those of 100 miss the
 * one that is far from the others. */
static void resamples_without_scatter_do_not_move_the_ends_away(void **state)
{
    (void)state;
    static const double two[] = {1.0, 2.0};
    static double odd[FEW];
    struct mpo_interval out;
    struct mpo_bootstrap_spec spec = {5, 1000, 2, 1, two, NULL, 0};
    assert_ok(mpo_bootstrap_run(&spec, &out, NULL));
    assert_true(out.low < 1.0 && out.high > 2.0 && out.low > -1.0 && out.high < 4.0);
    for (uint64_t i = 0; i < FEW; i++)
        odd[i] = 1e-6 * normal(4, i);
    odd[17] = 1.0;
    spec = (struct mpo_bootstrap_spec){5, 1000, FEW, 1, odd, NULL, 0};
    assert_ok(mpo_bootstrap_run(&spec, &out, NULL));
    double error = error_of_mean(odd, FEW, 1);
    assert_between(out.high, out.estimate + 3.0 * error, out.estimate + 5.0 * error);
}

static void one_seed_draws_the_same_units_for_other_columns(void **state)
{
    (void)state;
    static double table[FEW * COLUMNS];
    static double alone[FEW];
    struct mpo_interval out[COLUMNS];
    struct mpo_interval single;
    for (uint64_t i = 0; i < FEW * COLUMNS; i++)
        table[i] = normal(6, i);
    for (int64_t i = 0; i < FEW; i++)
        alone[i] = table[i * COLUMNS + 1];
    struct mpo_bootstrap_spec spec = {5, 500, FEW, COLUMNS, table, NULL, 0};
    assert_ok(mpo_bootstrap_run(&spec, out, NULL));
    spec = (struct mpo_bootstrap_spec){5, 500, FEW, 1, alone, NULL, 0};
    assert_ok(mpo_bootstrap_run(&spec, &single, NULL));
    assert_same_bits(single.low, out[1].low);
    assert_same_bits(single.high, out[1].high);
}

/* The 95 % quantile of the largest of c independent normal ones, and of |z|: of one that is
 * minus the other. */
static void bounds_of_a_family_are_those_of_the_largest(void **state)
{
    (void)state;
    static const struct mpo_bootstrap_family family[] = {{0, 1}, {1, 3}, {4, 2}};
    static const double factor[] = {1.645, 2.121, 1.960};
    static double value[UNITS * 6];
    struct mpo_interval out[6];
    double upper[6];
    for (int64_t i = 0; i < UNITS; i++) {
        for (int64_t c = 0; c < 5; c++)
            value[i * 6 + c] = normal(8, (uint64_t)(i * 6 + c));
        value[i * 6 + 5] = -3.0 * value[i * 6 + 4];
    }
    struct mpo_bootstrap_spec spec = {5, 8000, UNITS, 6, value, family, 3};
    assert_ok(mpo_bootstrap_run(&spec, out, upper));
    for (int f = 0; f < 3; f++)
        for (int32_t c = family[f].first; c < family[f].first + family[f].count; c++)
            assert_close((upper[c] - out[c].estimate) / error_of_mean(value + c, UNITS, 6),
                         factor[f], 0.12);
}

/* Of 400 samples with the largest mean at any of the columns. */
static void the_largest_mean_is_below_the_largest_bound(void **state)
{
    (void)state;
    static const double mean[COLUMNS] = {0.0, -0.1, 0.05};
    static const struct mpo_bootstrap_family family = {0, COLUMNS};
    static double value[FEW * COLUMNS];
    enum { RUNS = 400 };
    struct mpo_interval out[COLUMNS];
    double upper[COLUMNS];
    int32_t held = 0;
    int32_t all_held = 0;
    for (uint64_t run = 1; run <= RUNS; run++) {
        for (uint64_t i = 0; i < FEW * COLUMNS; i++)
            value[i] = mean[i % COLUMNS] + normal(run, i);
        struct mpo_bootstrap_spec spec = {run, 400, FEW, COLUMNS, value, &family, 1};
        assert_ok(mpo_bootstrap_run(&spec, out, upper));
        held += 0.05 <= fmax(fmax(upper[0], upper[1]), upper[2]);
        all_held += mean[0] <= upper[0] && mean[1] <= upper[1] && mean[2] <= upper[2];
    }
    double error = sqrt(0.95 * 0.05 * RUNS);
    assert_true(held >= 0.95 * RUNS - 3.5 * error);
    assert_close((double)all_held, 0.95 * RUNS, 3.5 * error);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(intervals_of_a_mean_are_those_of_normal_theory),
        cmocka_unit_test(the_long_side_is_that_of_the_far_units),
        cmocka_unit_test(a_single_unit_has_no_interval),
        cmocka_unit_test(equal_units_have_an_interval_without_width),
        cmocka_unit_test(resamples_without_scatter_do_not_move_the_ends_away),
        cmocka_unit_test(one_seed_draws_the_same_units_for_other_columns),
        cmocka_unit_test(bounds_of_a_family_are_those_of_the_largest),
        cmocka_unit_test(the_largest_mean_is_below_the_largest_bound),
    };
    return run_cases("the bootstrap over prompts", tests);
}
