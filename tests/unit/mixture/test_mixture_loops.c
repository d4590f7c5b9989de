/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mixture's loops, clone by clone: the exponential against long double, sums against
 * plain ones in long double, and every clone against the library's loops bit by bit. What
 * this processor cannot run is named and left out.
 */
#include "runner.h"

#include <math.h>
#include <stdlib.h>

#include "loop_clones.h"
#include "mixture/loops.h"

enum { COUNT = 1 << 16, LENGTH_MAX = 1056 };

/* The next clone that runs here; NULL behind the last one. */
static const struct loop_clone *next_clone(int32_t *index)
{
    const struct loop_clone *clone = NULL;
    while ((clone = loop_clone((*index)++)) != NULL && !loop_clone_runs(clone))
        print_message("this processor does not run the clone for %s\n", clone->name);
    return clone;
}

static double uniform_between(double low, double high, int32_t i)
{
    return low + (high - low) * runner_uniform(7, (uint64_t)i);
}

static void exponentials_are_as_exact_as_stated(void **state)
{
    (void)state;
    static const double lowest[] = {-1e-12, -0.5, -40.0, -708.0};
    double *s = runner_allocate(COUNT, sizeof *s);
    const struct loop_clone *clone = NULL;
    for (int32_t index = 0; (clone = next_clone(&index)) != NULL;) {
        long double worst = 0.0L;
        for (size_t part = 0; part < sizeof lowest / sizeof *lowest; part++) {
            for (int32_t i = 0; i < COUNT; i++)
                s[i] = uniform_between(lowest[part], 0.0, i);
            clone->exponentiate(s, 0.0, COUNT);
            for (int32_t i = 0; i < COUNT; i++) {
                long double truth = expl(uniform_between(lowest[part], 0.0, i));
                worst = fmaxl(worst, fabsl((long double)s[i] - truth) / truth);
            }
        }
        print_message("%s: largest relative error %.2Le\n", clone->name, worst);
        assert_true(worst < 3e-16L);
    }
    free(s);
}

static void ends_of_the_range_are_exact(void **state)
{
    (void)state;
    const double below = nextafter(-708.0, -INFINITY);
    const double x[] = {0.0, -0.0, below, -1e5, -3e38, -INFINITY, NAN};
    const double expected[] = {1.0, 1.0, 0.0, 0.0, 0.0, 0.0, NAN};
    const struct loop_clone *clone = NULL;
    for (int32_t index = 0; (clone = next_clone(&index)) != NULL;)
        for (size_t i = 0; i < sizeof x / sizeof *x; i++)
            for (int32_t n = 1; n < 40; n += 19) { /* in a vector and behind the last one */
                double s[40];
                for (int32_t at = 0; at < n; at++)
                    s[at] = x[i];
                clone->exponentiate_scaled(s, 1.0, n);
                for (int32_t at = 0; at < n; at++)
                    if (isnan(expected[i]))
                        assert_true(isnan(s[at]));
                    else
                        assert_same_bits(s[at], expected[i]);
            }
}

/* Logits and scores of a block; every seventh score is that of a masked token. */
static void fill_block(float *x, double *s, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        x[i] = (float)uniform_between(-30.0, 0.0, i);
        s[i] = i % 7 == 6 ? -INFINITY : uniform_between(-50.0, 0.0, i + n);
    }
}

static void sums_are_those_of_plain_loops(void **state)
{
    (void)state;
    float x[LENGTH_MAX];
    double s[LENGTH_MAX];
    for (int32_t n = 0; n <= LENGTH_MAX; n++) {
        long double exp_sum = 0.0L;
        long double sum = 0.0L;
        long double weighted = 0.0L;
        double top = -INFINITY;
        float max = -INFINITY;
        fill_block(x, s, n);
        for (int32_t i = 0; i < n; i++) {
            exp_sum += expl(0.7L * (long double)x[i]);
            sum += expl((long double)s[i]);
            weighted += expl((long double)s[i]) * (long double)x[i];
            top = fmax(top, s[i]);
            max = fmaxf(max, x[i]);
        }
        assert_same_bits(mpo_mixture_greatest(s, n), top);
        assert_same_bits((double)mpo_mixture_max(x, n), (double)max);
        assert_close(mpo_mixture_exp_sum(x, 0.7, 0.0, n), (double)exp_sum, 1e-12);
        assert_close(mpo_mixture_exponentiate(s, 0.0, n), (double)sum, 1e-12);
        assert_close(mpo_mixture_weighted_sum(s, x, n), (double)weighted, 1e-11);
    }
}

/* One block through all loops of a clone, and through those of the library. */
static void compare_block(const struct loop_clone *clone, int32_t n)
{
    float x[LENGTH_MAX];
    double s[LENGTH_MAX];
    double expected[LENGTH_MAX];
    fill_block(x, s, n);
    fill_block(x, expected, n);
    clone->add_scaled(s, x, 0.3, n);
    mpo_mixture_add_scaled(expected, x, 0.3, n);
    double top = mpo_mixture_greatest(expected, n);
    assert_same_bits(clone->greatest(s, n), top);
    assert_same_bits((double)clone->max(x, n), (double)mpo_mixture_max(x, n));
    assert_same_bits(clone->exp_sum(x, 0.9, 0.0, n), mpo_mixture_exp_sum(x, 0.9, 0.0, n));
    assert_same_bits(clone->exponentiate(s, top, n),
                     mpo_mixture_exponentiate(expected, top, n));
    assert_same_bits(clone->weighted_sum(s, x, n),
                     mpo_mixture_weighted_sum(expected, x, n));
    for (int32_t i = 0; i < n; i++)
        assert_same_bits(s[i], expected[i]);
    clone->exponentiate_scaled(s, -0.6, n);
    mpo_mixture_exponentiate_scaled(expected, -0.6, n);
    for (int32_t i = 0; i < n; i++)
        assert_same_bits(s[i], expected[i]);
}

static void all_clones_give_the_same_bits(void **state)
{
    (void)state;
    const struct loop_clone *clone = NULL;
    for (int32_t index = 0; (clone = next_clone(&index)) != NULL;)
        for (int32_t n = 1; n <= LENGTH_MAX; n++)
            compare_block(clone, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponentials_are_as_exact_as_stated),
        cmocka_unit_test(ends_of_the_range_are_exact),
        cmocka_unit_test(sums_are_those_of_plain_loops),
        cmocka_unit_test(all_clones_give_the_same_bits),
    };
    return run_cases("mixture loops", tests);
}
